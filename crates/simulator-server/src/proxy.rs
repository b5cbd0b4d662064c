//! The proxy in front of the simulated API, as a company has one: HTTP CONNECT and SOCKS5 at one
//! door, told apart by the first byte.
//!
//! Whatever name is asked for leads to the API: it is the network on the other side, where names have
//! addresses that they do not have on this one. Two names are not let through, so that both ways of
//! failing can be met: `refused.*` is refused by rule, `silent.*` is never answered.

use crate::{Permit, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use tidegate_base::Secret;
use tidegate_transport::{Accepted, BoxIo, Listen, TaskKind, Tasks};
use tidegate_wire::http::{HeadWriter, parse_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::watch;

const CONNECTION: TaskKind = TaskKind {
    name: "simulator proxy connection",
    on_cancel: "both of its connections are dropped",
    on_error: "both of its connections are dropped; the proxy goes on",
};
const SOCKS5: u8 = 5;
const PASSWORD: u8 = 2;
const NOTHING_SUITS: u8 = 0xff;
/// RFC 1928 section 6: succeeded, not allowed by the rules, connection refused.
const DONE: u8 = 0;
const NOT_ALLOWED: u8 = 2;
const NOT_REACHED: u8 = 5;

/// Who may use it, and where it leads.
#[derive(Clone, Debug)]
pub struct ProxyRules {
    /// The API.
    pub to: SocketAddr,
    /// `user:password` that it wants; without one anybody may.
    pub login: Option<Secret>,
}

/// What became of asking for a name.
enum Reached {
    There(TcpStream),
    Refused,
    Not,
}

/// Serves until `shutdown` is ready, then drops every connection and returns when all are gone.
pub async fn run_proxy(
    listen: Box<dyn Listen>,
    rules: ProxyRules,
    tasks: Tasks,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let accepting = crate::accept(listen, &stopped, |accepted: Accepted, stopped, permit: Permit| {
        let rules = rules.clone();
        tasks.spawn(&CONNECTION, async move {
            let _permit = permit;
            if let Ok(mut io) = accepted.open() {
                // Whoever breaks off has gone, or spoke no protocol of ours.
                until(stopped, async { drop(serve(&mut io, &rules).await) }).await;
            }
        });
    });
    let ended = tokio::select! {
        biased;
        () = shutdown => Ok(()),
        ended = accepting => ended,
    };
    let _ = stop.send(true);
    drop(stopped);
    stop.closed().await;
    ended
}

async fn serve(io: &mut BoxIo, rules: &ProxyRules) -> io::Result<()> {
    let mut read = BytesMut::new();
    if io.read_buf(&mut read).await? == 0 {
        return Ok(());
    }
    let there = match read.first() {
        Some(&SOCKS5) => socks5(io, read, rules).await?,
        _ => connect(io, read, rules).await?,
    };
    if let Some(mut there) = there {
        copy_bidirectional(io, &mut there).await?;
    }
    Ok(())
}

async fn reach(host: &str, rules: &ProxyRules) -> Reached {
    if host.starts_with("refused.") {
        return Reached::Refused;
    }
    if host.starts_with("silent.") {
        std::future::pending::<()>().await;
    }
    TcpStream::connect(rules.to).await.map_or(Reached::Not, Reached::There)
}

async fn connect(io: &mut BoxIo, mut read: BytesMut, rules: &ProxyRules) -> io::Result<Option<TcpStream>> {
    let head = loop {
        if let Some(head) = parse_request(&mut read).map_err(io::Error::other)? {
            break head;
        }
        if io.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
    };
    let wanted = rules.login.as_ref().map(|login| format!("Basic {}", STANDARD.encode(login.expose())));
    let (status, there) = if head.method() != "CONNECT" {
        (405, None)
    } else if wanted.is_some_and(|wanted| head.headers.get("proxy-authorization") != Some(wanted.as_bytes())) {
        (407, None)
    } else {
        let host = head.target().rsplit_once(':').map_or(head.target(), |(host, _)| host);
        match reach(host, rules).await {
            Reached::There(there) => (200, Some(there)),
            Reached::Refused => (403, None),
            Reached::Not => (502, None),
        }
    };
    let mut out = BytesMut::new();
    let mut head = HeadWriter::response(&mut out, status);
    if status == 407 {
        head.header("proxy-authenticate", b"Basic realm=\"simulator\"");
    }
    if there.is_none() {
        head.header("content-length", b"0");
        head.header("connection", b"close");
    }
    head.end();
    io.write_all(&out).await?;
    io.flush().await?;
    Ok(there)
}

async fn socks5(io: &mut BoxIo, read: BytesMut, rules: &ProxyRules) -> io::Result<Option<TcpStream>> {
    let mut said = Said { io, read };
    let [_, ways] = said.bytes().await?;
    let ways = said.many(ways.into()).await?;
    match &rules.login {
        Some(login) => {
            if !ways.contains(&PASSWORD) {
                said.answer(&[SOCKS5, NOTHING_SUITS]).await?;
                return Ok(None);
            }
            said.answer(&[SOCKS5, PASSWORD]).await?;
            let [_, length] = said.bytes().await?;
            let user = said.many(length.into()).await?;
            let [length] = said.bytes().await?;
            let password = said.many(length.into()).await?;
            let good = [&user[..], b":", &password[..]].concat() == login.expose().as_bytes();
            said.answer(&[1, u8::from(!good)]).await?;
            if !good {
                return Ok(None);
            }
        }
        None => said.answer(&[SOCKS5, 0]).await?,
    }
    let [_, _, _, sort] = said.bytes().await?;
    let host = match sort {
        1 => said.many(4).await?.iter().map(u8::to_string).collect::<Vec<_>>().join("."),
        3 => {
            let [length] = said.bytes().await?;
            String::from_utf8_lossy(&said.many(length.into()).await?).into_owned()
        }
        _ => {
            said.many(16).await?;
            "::".to_owned()
        }
    };
    said.many(2).await?;
    let (reply, there) = match reach(&host, rules).await {
        Reached::There(there) => (DONE, Some(there)),
        Reached::Refused => (NOT_ALLOWED, None),
        Reached::Not => (NOT_REACHED, None),
    };
    // It connects from 0.0.0.0:0, as many proxies say.
    said.answer(&[SOCKS5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    Ok(there)
}

/// What a client of SOCKS5 says: a few bytes at a time.
struct Said<'a> {
    io: &'a mut BoxIo,
    read: BytesMut,
}

impl Said<'_> {
    async fn many(&mut self, bytes: usize) -> io::Result<BytesMut> {
        while self.read.len() < bytes {
            if self.io.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.read.split_to(bytes))
    }

    async fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(&self.many(N).await?);
        Ok(out)
    }

    async fn answer(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }
}
