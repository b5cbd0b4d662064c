//! The client's side: what is asked for, and whether the answer is one to it.

use super::{VERSION, accept_key};
use crate::http::{HeadWriter, ResponseHead};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use std::fmt;

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'o> {
    /// The `host` line.
    pub host: &'o str,
    /// Path and query.
    pub target: &'o str,
    /// Subprotocols offered, the one liked best first.
    pub subprotocols: &'o [&'o str],
    /// Sixteen bytes, new for each connection. They show that the answer is to this request, and
    /// need not be secret.
    pub nonce: [u8; 16],
}

impl Opening<'_> {
    fn key(&self) -> String {
        STANDARD.encode(self.nonce)
    }
}

/// Why an answer opens no WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadAnswer {
    /// Another status than 101: an HTTP answer, with a body that says why.
    Status(u16),
    /// No `upgrade: websocket` with `connection: upgrade`.
    NoUpgrade,
    /// The proof does not belong to the key: something answered that speaks no WebSocket, a cache
    /// perhaps.
    Proof,
    /// An extension that was not offered.
    Extension,
    /// A subprotocol that was not offered, or more than one.
    Subprotocol,
}

impl fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadAnswer::Status(status) => write!(f, "the server answered {status} where it should open a WebSocket"),
            BadAnswer::NoUpgrade => f.write_str("the answer is 101 but does not upgrade to a WebSocket"),
            BadAnswer::Proof => f.write_str("sec-websocket-accept does not belong to the key that was sent"),
            BadAnswer::Extension => f.write_str("the server chose an extension that was not offered"),
            BadAnswer::Subprotocol => f.write_str("the server chose a subprotocol that was not offered"),
        }
    }
}

impl std::error::Error for BadAnswer {}

/// Begins the request; the caller may add lines (credentials), and ends it.
pub fn request<'b>(out: &'b mut BytesMut, opening: &Opening<'_>) -> HeadWriter<'b> {
    let mut head = HeadWriter::request(out, "GET", opening.target);
    head.header("host", opening.host.as_bytes());
    head.header("connection", b"upgrade").header("upgrade", b"websocket");
    head.header("sec-websocket-version", VERSION).header("sec-websocket-key", opening.key().as_bytes());
    if !opening.subprotocols.is_empty() {
        head.header("sec-websocket-protocol", opening.subprotocols.join(", ").as_bytes());
    }
    head
}

/// Judges the answer; with it, the subprotocol the server chose of those offered.
pub fn check_answer<'o>(head: &ResponseHead, opening: &Opening<'o>) -> Result<Option<&'o str>, BadAnswer> {
    let headers = &head.headers;
    if head.status != 101 {
        return Err(BadAnswer::Status(head.status));
    }
    if !headers.lists("upgrade", "websocket") || !headers.lists("connection", "upgrade") {
        return Err(BadAnswer::NoUpgrade);
    }
    let mut proofs = headers.get_all("sec-websocket-accept");
    if proofs.next() != Some(accept_key(opening.key().as_bytes()).as_bytes()) || proofs.next().is_some() {
        return Err(BadAnswer::Proof);
    }
    if headers.has("sec-websocket-extensions") {
        return Err(BadAnswer::Extension);
    }
    let mut chosen = headers.get_all("sec-websocket-protocol");
    let Some(name) = chosen.next() else { return Ok(None) };
    let offered = opening.subprotocols.iter().copied().find(|offered| offered.as_bytes() == name);
    offered.filter(|_| chosen.next().is_none()).map(Some).ok_or(BadAnswer::Subprotocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse_response;

    const OPENING: Opening<'_> =
        Opening { host: "gate", target: "/v1/stream", subprotocols: &["tidegate.v1"], nonce: *b"the sample nonce" };

    fn check(from: &str, to: &str) -> Result<Option<&'static str>, BadAnswer> {
        let good = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        check_answer(
            &parse_response(&mut BytesMut::from(good.replace(from, to).as_str()), false).unwrap().unwrap(),
            &OPENING,
        )
    }

    #[test]
    fn only_a_true_answer_opens() {
        let line = |line: &str| format!("{line}\r\n\r\n");
        assert_eq!(check("", ""), Ok(None));
        assert_eq!(check("\r\n\r\n", &line("\r\nSec-WebSocket-Protocol: tidegate.v1")), Ok(Some("tidegate.v1")));
        assert_eq!(check("101 Switching Protocols", "401 Unauthorized"), Err(BadAnswer::Status(401)));
        assert_eq!(check("Upgrade: websocket", "Upgrade: h2c"), Err(BadAnswer::NoUpgrade));
        assert_eq!(check("s3pP", "S3pP"), Err(BadAnswer::Proof));
        assert_eq!(check("Sec-WebSocket-Accept", "X"), Err(BadAnswer::Proof));
        let again = "o=\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(check("o=\r\n\r\n", again), Err(BadAnswer::Proof));
        let deflate = line("\r\nSec-WebSocket-Extensions: permessage-deflate");
        assert_eq!(check("\r\n\r\n", &deflate), Err(BadAnswer::Extension));
        assert_eq!(check("\r\n\r\n", &line("\r\nSec-WebSocket-Protocol: mqtt")), Err(BadAnswer::Subprotocol));
        let two = line("\r\nSec-WebSocket-Protocol: tidegate.v1\r\nSec-WebSocket-Protocol: tidegate.v1");
        assert_eq!(check("\r\n\r\n", &two), Err(BadAnswer::Subprotocol));
    }
}
