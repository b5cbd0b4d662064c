//! What is said to a proxy before it carries us: HTTP CONNECT (RFC 9110 section 9.3.6), or SOCKS5
//! (RFC 1928; user and password by RFC 1929).
//!
//! The proxy is told the upstream's name and looks it up itself, with either protocol: behind a
//! company's proxy the name often has no address on this side. What comes back is a connection on
//! which TLS to the upstream begins as on any other, so a proxy sees names and sizes and no text.
//! Both are so short that no crate is worth its dependencies; an answer that is not as it should be
//! ends the dial, nothing is repaired.

use super::proxy::{Proxy, ProxyKind, bracketed};
use crate::io::BoxIo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use std::io;
use std::net::IpAddr;
use tidegate_base::Secret;
use tidegate_wire::http::{HeadWriter, parse_response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// SOCKS5: its version, and that of its user and password.
const VERSION: u8 = 5;
const PASSWORD_VERSION: u8 = 1;
/// Ways to say who one is.
const NOBODY: u8 = 0;
const PASSWORD: u8 = 2;
const NOTHING_SUITS: u8 = 0xff;
/// Sorts of address.
const V4: u8 = 1;
const NAME: u8 = 3;
const V6: u8 = 4;

fn refused(why: impl Into<String>) -> io::Error {
    io::Error::other(why.into())
}

/// Asks `proxy`, to which `io` leads, for a connection to `host`.
pub(super) async fn open(proxy: &Proxy, io: &mut BoxIo, host: &str, port: u16) -> io::Result<()> {
    match proxy.kind {
        ProxyKind::Connect | ProxyKind::ConnectTls => connect(proxy, io, host, port).await,
        ProxyKind::Socks5 => socks5(proxy, io, host, port).await,
    }
}

async fn connect(proxy: &Proxy, io: &mut BoxIo, host: &str, port: u16) -> io::Result<()> {
    let target = format!("{}:{port}", bracketed(host));
    let mut out = BytesMut::new();
    let mut head = HeadWriter::request(&mut out, "CONNECT", &target);
    head.header("host", target.as_bytes());
    if let Some((user, password)) = &proxy.login {
        let login = Secret::new(format!("{user}:{}", password.expose()));
        let line = Secret::new(format!("Basic {}", STANDARD.encode(login.expose())));
        head.header("proxy-authorization", line.expose().as_bytes());
    }
    head.end();
    io.write_all(&out).await?;
    io.flush().await?;
    let mut read = BytesMut::new();
    let head = loop {
        // To a HEAD request: whatever follows is the tunnel.
        if let Some(head) = parse_response(&mut read, true).map_err(|e| refused(e.to_string()))? {
            break head;
        }
        if io.read_buf(&mut read).await? == 0 {
            return Err(refused("it closed the connection without an answer"));
        }
    };
    match head.status {
        200..=299 if read.is_empty() => Ok(()),
        // The upstream speaks second, over TLS and over HTTP.
        200..=299 => Err(refused("more came behind its answer than was asked for")),
        407 if proxy.login.is_some() => Err(refused("it does not take this user and password (407)")),
        407 => Err(refused("it wants a user and a password (407): write them into its URL")),
        status => Err(refused(format!("it does not connect to {target} ({status})"))),
    }
}

async fn socks5(proxy: &Proxy, io: &mut BoxIo, host: &str, port: u16) -> io::Result<()> {
    match &proxy.login {
        Some(_) => io.write_all(&[VERSION, 2, NOBODY, PASSWORD]).await?,
        None => io.write_all(&[VERSION, 1, NOBODY]).await?,
    }
    io.flush().await?;
    let [version, way] = answer(io).await?;
    if version != VERSION {
        return Err(refused("it does not speak SOCKS5"));
    }
    match (way, &proxy.login) {
        (NOBODY, _) => {}
        (PASSWORD, Some((user, password))) => login(io, user, password).await?,
        (NOTHING_SUITS, None) => return Err(refused("it wants a user and a password: write them into its URL")),
        _ => return Err(refused("it takes neither nobody nor a user with a password")),
    }
    io.write_all(&asked(host, port)?).await?;
    io.flush().await?;
    let [version, reply, _, sort] = answer(io).await?;
    if version != VERSION {
        return Err(refused("it does not speak SOCKS5"));
    }
    if reply != 0 {
        return Err(refused(format!(
            "it does not connect to {host}:{port}: {} (SOCKS5 reply {reply})",
            meaning(reply)
        )));
    }
    // Where it connects from, which is of no use here.
    match sort {
        V4 => drop(answer::<6>(io).await?),
        V6 => drop(answer::<18>(io).await?),
        NAME => {
            let [length] = answer(io).await?;
            let mut rest = vec![0; usize::from(length) + 2];
            io.read_exact(&mut rest).await.map_err(cut)?;
        }
        _ => return Err(refused("its answer has an address of an unknown sort")),
    }
    Ok(())
}

async fn answer<const N: usize>(io: &mut BoxIo) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    io.read_exact(&mut bytes).await.map_err(cut)?;
    Ok(bytes)
}

/// An answer that is not whole.
fn cut(e: io::Error) -> io::Error {
    if e.kind() == io::ErrorKind::UnexpectedEof { refused("it closed the connection without an answer") } else { e }
}

async fn login(io: &mut BoxIo, user: &str, password: &Secret) -> io::Result<()> {
    let mut said = zeroize::Zeroizing::new(vec![PASSWORD_VERSION]);
    for text in [user, password.expose()] {
        // At most 255 bytes: `Proxy::parse` sees to it.
        said.push(text.len() as u8);
        said.extend_from_slice(text.as_bytes());
    }
    io.write_all(&said).await?;
    io.flush().await?;
    let [_, status] = answer(io).await?;
    if status == 0 { Ok(()) } else { Err(refused("it does not take this user and password")) }
}

/// The request for a connection. An address literal is sent as an address: a proxy need not know
/// that a name can look like one.
fn asked(host: &str, port: u16) -> io::Result<Vec<u8>> {
    const CONNECT: u8 = 1;
    let mut out = vec![VERSION, CONNECT, 0];
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            out.push(V4);
            out.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            out.push(V6);
            out.extend_from_slice(&address.octets());
        }
        Err(_) => {
            let length = u8::try_from(host.len()).map_err(|_| refused("a host name of over 255 bytes"))?;
            out.extend_from_slice(&[NAME, length]);
            out.extend_from_slice(host.as_bytes());
        }
    }
    out.extend_from_slice(&port.to_be_bytes());
    Ok(out)
}

/// RFC 1928 section 6.
fn meaning(reply: u8) -> &'static str {
    match reply {
        1 => "it failed",
        2 => "its rules do not allow it",
        3 => "the network cannot be reached",
        4 => "the host cannot be reached",
        5 => "the connection was refused",
        6 => "it took too long",
        7 => "it does not make connections for others",
        8 => "it does not know this sort of address",
        _ => "it does not say why",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Listen, MemoryNetwork};

    /// What comes of asking `url` for `host`, port 443, by a proxy that says `answers` one after another
    /// whatever it is told, and then closes; and all that it was told.
    async fn check(url: &str, host: &str, answers: &[&[u8]]) -> (Result<(), String>, Vec<u8>) {
        let network = MemoryNetwork::new();
        let mut door = network.listen("proxy:1");
        let mut io: BoxIo = network.connect("proxy:1").unwrap();
        let mut theirs = door.accept().await.unwrap().open().unwrap();
        let proxy = Proxy::parse(url).unwrap();
        let asking = async {
            let opened = open(&proxy, &mut io, host, 443).await.map_err(|e| e.to_string());
            drop(io);
            opened
        };
        let answering = async {
            let mut told = Vec::new();
            for answer in answers {
                if theirs.read_buf(&mut told).await.unwrap_or(0) == 0 {
                    break;
                }
                theirs.write_all(answer).await.unwrap_or_default();
            }
            theirs.shutdown().await.unwrap_or_default();
            let _ = theirs.read_to_end(&mut told).await;
            told
        };
        tokio::join!(asking, answering)
    }

    #[track_caller]
    fn says(opened: Result<(), String>, why: &str) {
        let error = opened.unwrap_err();
        assert!(error.contains(why) && !error.contains("geheim") && !error.contains("Z2VoZWlt"), "{why}: {error}");
    }

    #[tokio::test]
    async fn a_proxy_of_http_is_asked_for_a_name_and_its_answer_is_judged() {
        let url = "http://we:geheim@proxy";
        for (answer, why) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], ""),
            (b"HTTP/1.0 200 Connection established\r\nvia: x\r\n\r\n", ""),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", ""),
            (b"HTTP/1.1 200 OK\r\n\r\n\x16\x03", "more came behind"),
            (b"HTTP/1.1 407 X\r\ncontent-length: 5\r\n\r\nhello", "does not take this user"),
            (b"HTTP/1.1 403 X\r\ncontent-type: text/html\r\n\r\n<html>geheim", "(403)"),
            (b"HTTP/1.1 200", "closed the connection"),
            (b"", "closed the connection"),
            (b"220 mail ESMTP\r\n\r\n", ""),
        ] {
            let (opened, told) = check(url, "api.example", &[answer]).await;
            let head = String::from_utf8(told).unwrap();
            assert!(head.starts_with("CONNECT api.example:443 HTTP/1.1\r\nhost: api.example:443\r\n"), "{head}");
            assert!(head.contains("proxy-authorization: Basic d2U6Z2VoZWlt\r\n"), "{head}");
            if answer.starts_with(b"HTTP/") && why.is_empty() { opened.unwrap() } else { says(opened, why) }
        }
        let (opened, told) = check("http://proxy", "fd12::1", &[b"HTTP/1.1 407 X\r\n\r\n"]).await;
        says(opened, "wants a user");
        assert!(told.starts_with(b"CONNECT [fd12::1]:443 HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn a_proxy_of_socks_is_asked_for_a_name_and_its_answers_are_judged() {
        let url = "socks5h://we:geheim@proxy";
        let good = b"\x05\0\0\x01\0\0\0\0\0\0";
        for (answers, why) in [
            (&[&b"\x05\x02"[..], b"\x01\0", good][..], ""),
            (&[b"\x05\0", good], ""),
            (&[b"\x05\0", b"\x05\0\0\x03\x02ab\0\0"], ""),
            (&[b"\x05\0", b"\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"], ""),
            (&[b"\x05\x02", b"\x01\x01"], "does not take this user"),
            (&[b"\x05\xff"], "takes neither"),
            (&[b"\x04\0"], "does not speak SOCKS5"),
            (&[b"HTTP/1.1 400 Bad\r\n\r\n"], "does not speak SOCKS5"),
            (&[b"\x05\0", b"\x05\x02\0\x01\0\0\0\0\0\0"], "rules do not allow"),
            (&[b"\x05\0", b"\x05\0\0\x09\0\0\0\0\0\0"], "unknown sort"),
            (&[b"\x05\0", b"\x05\0\0"], "closed the connection"),
            (&[b"\x05\0", b"\x05\0\0\x03\x09ab"], "closed the connection"),
            (&[], "closed the connection"),
        ] {
            let (opened, told) = check(url, "api.example", answers).await;
            assert!(told.starts_with(b"\x05\x02\0\x02"), "{told:?}");
            if !why.is_empty() {
                says(opened, why);
                continue;
            }
            opened.unwrap();
            assert!(told.ends_with(b"\x05\x01\0\x03\x0bapi.example\x01\xbb"), "the name is looked up there: {told:?}");
        }
        let (opened, told) = check("socks5h://proxy", "10.0.0.1", &[b"\x05\xff"]).await;
        says(opened, "wants a user");
        assert_eq!(told, b"\x05\x01\0", "nothing is said of a login that is not there");
    }
}
