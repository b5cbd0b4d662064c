//! A page of a process on this machine: one `GET`, waited for, on a connection of its own.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What a page may take. An admin port's waits behind nothing but the control thread.
const ASK_MAX: Duration = Duration::from_secs(10);
/// The longest page; `/metrics` has some 30 KB.
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// A connection to the first of `addresses` that takes one, and which that is.
pub(super) fn connect(addresses: &[SocketAddr], within: Duration) -> io::Result<(TcpStream, SocketAddr)> {
    let mut last = io::Error::other("it has no address");
    for at in addresses {
        match TcpStream::connect_timeout(at, within) {
            Ok(stream) => return Ok((stream, *at)),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// A page that is answered with 200.
pub(super) fn ask(at: SocketAddr, path: &str) -> io::Result<String> {
    ask_any(&[at], path)
}

/// The same of the first of `addresses` that takes a connection.
pub(super) fn ask_any(addresses: &[SocketAddr], path: &str) -> io::Result<String> {
    let (mut stream, at) = connect(addresses, ASK_MAX)?;
    stream.set_read_timeout(Some(ASK_MAX))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, page)) if head.starts_with("HTTP/1.1 200") => Ok(page.to_owned()),
        _ => Err(io::Error::other(format!("{path} is not answered with 200"))),
    }
}
