//! Reaching another machine: name, TCP, proxy, TLS, each measured by its own clock.
//!
//! ```text
//!   resolve ──▶ TCP to the first address ──250 ms──▶ and to the next beside it … ──▶ proxy ──▶ TLS ──▶ Io
//!   └───────── one clock: connect (3 s) ─────────────────────────────────────┘ └ 5 s ┘   └ tls (5 s) ┘
//! ```
//! Through a proxy the name and the TCP connection are the proxy's, and it has a clock of its own for
//! reaching the upstream.
//!
//! The staggered attempts are RFC 8305's (happy eyeballs), families interleaved: one dead address
//! costs a quarter of a second, not the clock. All attempts but the winner are dropped.

mod proxy;
mod tunnel;

pub use proxy::{Proxy, ProxyKind, ProxyUrlError};

use crate::clock::Clock;
use crate::io::{BoxIo, Boxed};
use crate::tls::{Connectors, TlsError, TlsRoots, of_server};
use rustls::pki_types::ServerName;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate_base::Moment;
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
    /// The proxy that leads there, if one does.
    pub proxy: Option<Proxy>,
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
    /// The proxy's answer, and TLS to it.
    Proxy,
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
    /// What is wrong: what the system said, of TLS in words.
    pub message: String,
    /// What to do, where more is known of it than the stage.
    pub todo: Option<&'static str>,
}

impl DialError {
    /// What failed and why, without what to do.
    pub fn what(&self) -> String {
        let stage = match self.stage {
            DialStage::Resolve => "resolving the upstream's name",
            DialStage::Connect => "connecting to the upstream",
            DialStage::Proxy => "reaching the upstream through the proxy",
            DialStage::Tls => "the TLS handshake with the upstream",
            DialStage::Http2 => "beginning HTTP/2 with the upstream",
            DialStage::Socket => "opening a WebSocket with the upstream",
        };
        format!("{stage} failed: {}", self.message)
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())?;
        self.todo.map_or(Ok(()), |todo| write!(f, "; {todo}"))
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
    /// Name and TCP together.
    pub connect: Duration,
    /// From there to a proxy's word that it has reached the upstream, TLS to it included.
    pub proxy: Duration,
    /// The TLS handshake.
    pub tls: Duration,
}

impl Default for DialClocks {
    fn default() -> Self {
        let [three, five] = [3, 5].map(Duration::from_secs);
        DialClocks { connect: three, proxy: five, tls: five }
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

    async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        let fail = |message: String| DialError { stage: DialStage::Resolve, timed_out: false, message, todo: None };
        let found = tokio::net::lookup_host((host, port)).await;
        let found: Vec<SocketAddr> = found.map_err(|e| fail(format!("{host}: {e}")))?.collect();
        if found.is_empty() {
            return Err(fail(format!("{host}: the name has no address")));
        }
        Ok(interleaved(found))
    }

    async fn connect(&self, host: &str, port: u16, done: Done<'_>) -> Result<TcpStream, DialError> {
        let began = self.clock.now();
        let found = Self::resolve(host, port).await?;
        done(DialStage::Resolve, self.clock.now().since(began));
        let mut addresses = found.into_iter().take(ADDRESSES_MAX);
        let mut attempts = tokio::task::JoinSet::new();
        let mut last: Option<io::Error> = None;
        loop {
            if let Some(address) = addresses.next() {
                attempts.spawn(TcpStream::connect(address));
            } else if attempts.is_empty() {
                let message = last.map_or_else(String::new, |e| e.to_string());
                return Err(DialError { stage: DialStage::Connect, timed_out: false, message, todo: None });
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
        Box::pin(self.dial_telling(target, &|_, _| {}))
    }
}

/// Who is told of each stage that was passed, and how long it took.
pub type Done<'a> = &'a (dyn Fn(DialStage, Duration) + Sync);

fn failed(stage: DialStage) -> impl Fn(io::Error) -> DialError {
    move |e| DialError { stage, timed_out: false, message: e.to_string(), todo: None }
}

impl TcpDial {
    /// The same as [`Dial::dial`], telling `done` of each stage that was passed.
    pub async fn dial_telling(&self, target: &Target, done: Done<'_>) -> Result<Dialled, DialError> {
        let (host, port) = target.proxy.as_ref().map_or((&target.host, target.port), |p| (&p.host, p.port));
        let mut began = self.clock.now();
        let passed = |stage, began: &mut Moment| {
            let now = self.clock.now();
            done(stage, now.since(std::mem::replace(began, now)));
        };
        let resolved = AtomicBool::new(false);
        let telling = |stage, took| {
            resolved.store(true, Ordering::Relaxed);
            done(stage, took);
        };
        let tcp = self.within(DialStage::Connect, self.clocks.connect, self.connect(host, port, &telling)).await;
        let tcp = tcp.map_err(|e| {
            let looking_up = e.timed_out && !resolved.load(Ordering::Relaxed);
            let stage = if looking_up { DialStage::Resolve } else { e.stage };
            let message = match &target.proxy {
                Some(proxy) => format!("the proxy {proxy}: {}", e.message),
                None if looking_up => format!("{host}: {}", e.message),
                None => e.message,
            };
            DialError { stage, message, ..e }
        })?;
        tcp.set_nodelay(true).and_then(|()| keep_alive(&tcp)).map_err(failed(DialStage::Connect))?;
        passed(DialStage::Connect, &mut began);
        let mut io: BoxIo = Box::new(tcp);
        if let Some(proxy) = &target.proxy {
            let through = self.through(proxy, io, target);
            io = self.within(DialStage::Proxy, self.clocks.proxy, through).await?;
            passed(DialStage::Proxy, &mut began);
        }
        if !target.tls {
            return Ok(Dialled { io, http2: target.http == HttpOffer::Http2 });
        }
        let shaking = self.shake(&target.host, target.http, io, DialStage::Tls);
        let (io, http2) = self.within(DialStage::Tls, self.clocks.tls, shaking).await?;
        if target.http == HttpOffer::Http2 && !http2 {
            return Err(failed(DialStage::Tls)(io::Error::other(NO_HTTP2)));
        }
        passed(DialStage::Tls, &mut began);
        Ok(Dialled { io, http2 })
    }

    async fn within<T>(
        &self,
        stage: DialStage,
        span: Duration,
        work: impl Future<Output = Result<T, DialError>>,
    ) -> Result<T, DialError> {
        let message = || format!("no answer within {} s", span.as_secs_f64());
        let late = || DialError { stage, timed_out: true, message: message(), todo: None };
        self.clock.within(span, work).await.unwrap_or_else(|| Err(late()))
    }

    /// TLS with `host`; whether HTTP/2 was chosen.
    async fn shake(
        &self,
        host: &str,
        http: HttpOffer,
        io: BoxIo,
        stage: DialStage,
    ) -> Result<(BoxIo, bool), DialError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|e| failed(stage)(io::Error::other(e)))?;
        let told = |e: io::Error| {
            let told = of_server(&e, &self.tls.roots);
            DialError { stage, timed_out: false, message: told.what, todo: told.todo }
        };
        let shaken = self.tls.offering(http).connect(name, io).await.map_err(told)?;
        let http2 = shaken.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Box::new(shaken), http2))
    }

    /// A connection to `target` over `io`, which leads to `proxy`.
    async fn through(&self, proxy: &Proxy, mut io: BoxIo, target: &Target) -> Result<BoxIo, DialError> {
        if proxy.kind == ProxyKind::ConnectTls {
            io = self.shake(&proxy.host, HttpOffer::Http1, io, DialStage::Proxy).await?.0;
        }
        let open = tunnel::open(proxy, &mut io, &target.host, target.port).await;
        let told = |e: io::Error| DialError { message: format!("{proxy}: {e}"), ..failed(DialStage::Proxy)(e) };
        open.map_err(told)?;
        Ok(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialler(connect_ms: u64) -> TcpDial {
        let clocks = DialClocks {
            connect: Duration::from_millis(connect_ms),
            tls: Duration::from_millis(300),
            ..DialClocks::default()
        };
        TcpDial::new(Clock::real(), clocks, &TlsRoots::Machine).unwrap()
    }

    fn to(port: u16, tls: bool) -> Target {
        Target { host: "127.0.0.1".into(), port, tls, http: HttpOffer::Http1, proxy: None }
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
        let target =
            Target { host: "no-such-host.invalid".into(), port: 1, tls: false, http: HttpOffer::Http1, proxy: None };
        let e = dialler(2900).dial(&target).await.err().unwrap();
        assert!(e.stage == DialStage::Resolve || e.timed_out, "{e}");
    }
}
