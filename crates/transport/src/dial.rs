//! Reaching another machine: name, TCP, TLS, each measured by its own clock.
//!
//! ```text
//!   resolve ──▶ TCP to the first address ──250 ms──▶ and to the next beside it … ──▶ TLS ──▶ Io
//!   └───────── one clock: connect (3 s) ─────────────────────────────────────┘ └ tls (5 s) ┘
//! ```
//! The staggered attempts are RFC 8305's (happy eyeballs), families interleaved: one dead address
//! costs a quarter of a second, not the clock. All attempts but the winner are dropped.

use crate::clock::Clock;
use crate::io::{BoxIo, Boxed};
use crate::tls::{Connectors, TlsError, TlsRoots};
use rustls::pki_types::ServerName;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Head start of one connection attempt over the next (RFC 8305 section 5 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);
/// A server that ignores ALPN was asked for HTTP/2 and nothing else.
pub(crate) const NO_HTTP2: &str = "the upstream does not offer HTTP/2; set its `http` to \"auto\" or \"1.1\"";
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 6;

/// Which HTTP is offered to the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpOffer {
    /// Over TLS both, the other side chooses (ALPN); without TLS HTTP/1.1.
    Auto,
    /// Only HTTP/1.1.
    #[default]
    Http1,
    /// Only HTTP/2: by ALPN over TLS, by prior knowledge without.
    Http2,
}

/// Where to go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Name or address literal.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether TLS is spoken there.
    pub tls: bool,
    /// Which HTTP is offered there.
    pub http: HttpOffer,
}

/// A connection, and what is spoken on it.
pub struct Dialled {
    /// The connection.
    pub io: BoxIo,
    /// Whether it is HTTP/2 and not HTTP/1.1.
    pub http2: bool,
}

/// How far a dial got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialStage {
    /// Looking the name up.
    Resolve,
    /// The TCP connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The first words of HTTP/2.
    Http2,
    /// The handshake of a WebSocket.
    Socket,
}

/// A dial that failed; `message` is for the log and names no secret.
#[derive(Clone, Debug)]
pub struct DialError {
    /// Where it failed.
    pub stage: DialStage,
    /// Whether it was the stage's clock.
    pub timed_out: bool,
    /// What the system said.
    pub message: String,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            DialStage::Resolve => "resolving the upstream's name",
            DialStage::Connect => "connecting to the upstream",
            DialStage::Tls => "the TLS handshake with the upstream",
            DialStage::Http2 => "beginning HTTP/2 with the upstream",
            DialStage::Socket => "opening a WebSocket with the upstream",
        };
        write!(f, "{stage} failed: {}", self.message)
    }
}

impl std::error::Error for DialError {}

/// The answer of [`Dial::dial`].
pub type Dialing<'a> = Boxed<'a, Result<Dialled, DialError>>;

/// The seam to other machines.
pub trait Dial: Send + Sync {
    /// Opens a connection to `target`. Dropping the future gives it up and leaves nothing behind.
    fn dial<'a>(&'a self, target: &'a Target) -> Dialing<'a>;
}

/// How long each stage may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialClocks {
    /// Name and TCP together (design: 3 s).
    pub connect: Duration,
    /// The TLS handshake (design: 5 s).
    pub tls: Duration,
}

impl Default for DialClocks {
    fn default() -> Self {
        DialClocks { connect: Duration::from_secs(3), tls: Duration::from_secs(5) }
    }
}

/// Real sockets.
pub struct TcpDial {
    clock: Clock,
    clocks: DialClocks,
    tls: Connectors,
}

impl TcpDial {
    /// A dialler with these clocks that believes these roots.
    pub fn new(clock: Clock, clocks: DialClocks, roots: &TlsRoots) -> Result<Self, TlsError> {
        Ok(TcpDial { clock, clocks, tls: Connectors::new(roots)? })
    }

    async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, DialError> {
        let fail = |message: String| DialError { stage: DialStage::Resolve, timed_out: false, message };
        let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
        let found: Vec<SocketAddr> = found.map_err(|e| fail(format!("{}: {e}", target.host)))?.collect();
        if found.is_empty() {
            return Err(fail(format!("{}: the name has no address", target.host)));
        }
        Ok(interleaved(found))
    }

    async fn connect(target: &Target) -> Result<TcpStream, DialError> {
        let mut addresses = Self::resolve(target).await?.into_iter().take(ADDRESSES_MAX);
        let mut attempts = tokio::task::JoinSet::new();
        let mut last: Option<io::Error> = None;
        loop {
            if let Some(address) = addresses.next() {
                attempts.spawn(TcpStream::connect(address));
            } else if attempts.is_empty() {
                let message = last.map_or_else(String::new, |e| e.to_string());
                return Err(DialError { stage: DialStage::Connect, timed_out: false, message });
            }
            let stagger = if addresses.len() > 0 { STAGGER } else { Duration::MAX };
            match tokio::time::timeout(stagger, attempts.join_next()).await {
                Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
                Ok(Some(Ok(Err(e)))) => last = Some(e),
                Ok(Some(Err(_)) | None) | Err(_) => {}
            }
        }
    }
}

/// Alternates the families, keeping the resolver's order within each.
fn interleaved(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (a, b): (Vec<_>, Vec<_>) = found.into_iter().partition(|x| x.is_ipv6() == first_is_v6);
    let mut out = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    loop {
        let before = out.len();
        out.extend(a.next());
        out.extend(b.next());
        if out.len() == before {
            return out;
        }
    }
}

/// Keep-alive probes after 30 s of silence, every 10 s, three times: a peer that vanished without
/// a word is noticed within a minute even while a model thinks.
pub(crate) fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let probes = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket2::SockRef::from(stream).set_tcp_keepalive(&probes)
}

impl Dial for TcpDial {
    fn dial<'a>(&'a self, target: &'a Target) -> Dialing<'a> {
        Box::pin(async move {
            let late = |stage, span: Duration| DialError {
                stage,
                timed_out: true,
                message: format!("no answer within {} s", span.as_secs_f64()),
            };
            let tcp = self.clock.within(self.clocks.connect, Self::connect(target)).await;
            let tcp = tcp.unwrap_or_else(|| Err(late(DialStage::Connect, self.clocks.connect)))?;
            let failed = |stage| move |e: io::Error| DialError { stage, timed_out: false, message: e.to_string() };
            tcp.set_nodelay(true).and_then(|()| keep_alive(&tcp)).map_err(failed(DialStage::Connect))?;
            if !target.tls {
                return Ok(Dialled { io: Box::new(tcp), http2: target.http == HttpOffer::Http2 });
            }
            let failed = failed(DialStage::Tls);
            let name = ServerName::try_from(target.host.clone()).map_err(|e| failed(io::Error::other(e)))?;
            let shaking = self.tls.offering(target.http).connect(name, Box::new(tcp) as BoxIo);
            let shaken = self.clock.within(self.clocks.tls, shaking).await;
            let shaken = shaken.ok_or_else(|| late(DialStage::Tls, self.clocks.tls))?.map_err(&failed)?;
            let http2 = shaken.get_ref().1.alpn_protocol() == Some(b"h2");
            if target.http == HttpOffer::Http2 && !http2 {
                return Err(failed(io::Error::other(NO_HTTP2)));
            }
            Ok(Dialled { io: Box::new(shaken), http2 })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialler(connect_ms: u64) -> TcpDial {
        let clocks = DialClocks { connect: Duration::from_millis(connect_ms), tls: Duration::from_millis(300) };
        TcpDial::new(Clock::real(), clocks, &TlsRoots::Machine).unwrap()
    }

    fn to(port: u16, tls: bool) -> Target {
        Target { host: "127.0.0.1".into(), port, tls, http: HttpOffer::Http1 }
    }

    #[test]
    fn families_alternate() {
        let a = |s: &str| s.parse::<SocketAddr>().unwrap();
        let (x, y, z) = (a("[::1]:1"), a("[::2]:1"), a("1.1.1.1:1"));
        assert_eq!(interleaved(vec![x, y, z]), [x, z, y]);
    }

    #[tokio::test]
    async fn a_refused_port_says_connect() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let e = dialler(1000).dial(&to(free, false)).await.err().unwrap();
        assert_eq!((e.stage, e.timed_out), (DialStage::Connect, false));
    }

    #[tokio::test]
    async fn a_silent_tls_server_runs_into_the_tls_clock_and_no_other() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let e = dialler(1000).dial(&to(silent.local_addr().unwrap().port(), true)).await.err().unwrap();
        assert_eq!((e.stage, e.timed_out), (DialStage::Tls, true));
    }

    #[tokio::test]
    async fn a_name_that_is_none_says_resolve() {
        let target = Target { host: "no-such-host.invalid".into(), port: 1, tls: false, http: HttpOffer::Http1 };
        let e = dialler(2900).dial(&target).await.err().unwrap();
        assert!(e.stage == DialStage::Resolve || e.timed_out, "{e}");
    }
}
