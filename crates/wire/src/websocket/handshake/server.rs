//! The server's side: is this request the beginning of a WebSocket, and may it be.

use super::{SUBPROTOCOLS_MAX, VERSION, accept_key, is_key, is_token};
use crate::http::{Framing, HeadWriter, RequestHead, Version};
use bytes::BytesMut;
use std::fmt;

/// Whose pages may open a connection. Only browsers send an `origin`, and they always do; a request
/// without one comes from a program, which needs no page's leave.
#[derive(Clone, Copy, Debug)]
pub enum Origins<'r> {
    /// Pages of the host that was asked, and no others.
    SameHost,
    /// These and those of the same host, spelled as browsers do: `https://app.example`.
    Listed(&'r [String]),
    /// Any. For doors where each request carries a credential that no browser adds by itself.
    Any,
}

/// What a server takes.
#[derive(Clone, Copy, Debug)]
pub struct ServerRules<'r> {
    /// Subprotocols it speaks, the one it likes best first.
    pub subprotocols: &'r [&'r str],
    /// Whose pages may open a connection.
    pub origins: Origins<'r>,
}

/// A request that may become a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted<'r> {
    /// The subprotocol chosen; `None` if the client offered none.
    pub subprotocol: Option<&'r str>,
    accept: String,
}

/// Why a request does not become a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another method than GET.
    Method,
    /// HTTP/1.0, or HTTP/2, where an upgrade is not asked for like this.
    HttpVersion,
    /// It has a body.
    Body,
    /// It does not ask for `websocket` in `upgrade`, or for `upgrade` in `connection`.
    NoUpgrade,
    /// Not exactly one `sec-websocket-version: 13`.
    Version,
    /// Not exactly one `sec-websocket-key` of sixteen bytes in base64.
    Key,
    /// From a page that may not.
    Origin,
    /// `sec-websocket-protocol` is no list of different tokens, or is too long.
    SubprotocolList,
    /// None of the subprotocols offered is spoken here.
    NoSubprotocol,
}

impl Refused {
    /// The status to answer with. 426 goes with `upgrade: websocket`, `connection: upgrade` and
    /// `sec-websocket-version: 13`; 405 with `allow: GET`.
    pub fn status(self) -> u16 {
        match self {
            Refused::Method => 405,
            Refused::NoUpgrade | Refused::Version => 426,
            Refused::Origin => 403,
            Refused::HttpVersion | Refused::Body | Refused::Key | Refused::SubprotocolList | Refused::NoSubprotocol => {
                400
            }
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Method => "a WebSocket is opened with GET",
            Refused::HttpVersion => "a WebSocket is opened over HTTP/1.1 here",
            Refused::Body => "a request that opens a WebSocket has no body",
            Refused::NoUpgrade => "this is a WebSocket: send `connection: upgrade` and `upgrade: websocket`",
            Refused::Version => "send `sec-websocket-version: 13`, once",
            Refused::Key => "sec-websocket-key is sixteen bytes in base64, once",
            Refused::Origin => "this page's origin may not open a WebSocket here",
            Refused::SubprotocolList => "sec-websocket-protocol is a list of different tokens, at most 32",
            Refused::NoSubprotocol => "none of the subprotocols offered is spoken here",
        })
    }
}

impl std::error::Error for Refused {}

/// Judges a request. What is wrong first is told first, in the order of [`Refused`].
pub fn accept<'r>(head: &RequestHead, rules: &ServerRules<'r>) -> Result<Accepted<'r>, Refused> {
    let headers = &head.headers;
    if head.method() != "GET" {
        return Err(Refused::Method);
    }
    if head.version != Version::Http11 {
        return Err(Refused::HttpVersion);
    }
    if head.framing != Framing::Empty {
        return Err(Refused::Body);
    }
    if !headers.lists("upgrade", "websocket") || !headers.lists("connection", "upgrade") {
        return Err(Refused::NoUpgrade);
    }
    let once = |name: &str| {
        let mut values = headers.get_all(name);
        values.next().filter(|_| values.next().is_none())
    };
    if once("sec-websocket-version") != Some(VERSION) {
        return Err(Refused::Version);
    }
    let key = once("sec-websocket-key").filter(|key| is_key(key)).ok_or(Refused::Key)?;
    if !may_open(head, rules.origins) {
        return Err(Refused::Origin);
    }
    Ok(Accepted { subprotocol: choose(head, rules.subprotocols)?, accept: accept_key(key) })
}

fn may_open(head: &RequestHead, origins: Origins<'_>) -> bool {
    let mut sent = head.headers.get_all("origin");
    let (Some(origin), None) = (sent.next(), sent.next()) else { return !head.headers.has("origin") };
    let same_host = || {
        let after = |scheme: &[u8]| origin.get(..scheme.len()).filter(|s| s.eq_ignore_ascii_case(scheme));
        let host = [&b"https://"[..], b"http://"].into_iter().find_map(|s| after(s).map(|_| &origin[s.len()..]));
        host.is_some() && host.zip(head.headers.get("host")).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    match origins {
        Origins::Any => true,
        Origins::SameHost => same_host(),
        Origins::Listed(list) => list.iter().any(|o| o.as_bytes().eq_ignore_ascii_case(origin)) || same_host(),
    }
}

/// The first of ours that the client offers. A client that offers only what is not spoken here is
/// refused: it would be answered in a dialect it does not know.
fn choose<'r>(head: &RequestHead, ours: &'r [&'r str]) -> Result<Option<&'r str>, Refused> {
    let mut offered: Vec<&[u8]> = Vec::new();
    for name in head.headers.get_all("sec-websocket-protocol").flat_map(|v| v.split(|b| *b == b',')) {
        let name = name.trim_ascii();
        if !is_token(name) || offered.contains(&name) || offered.len() == SUBPROTOCOLS_MAX {
            return Err(Refused::SubprotocolList);
        }
        offered.push(name);
    }
    if offered.is_empty() {
        return Ok(None);
    }
    ours.iter().copied().find(|name| offered.contains(&name.as_bytes())).map(Some).ok_or(Refused::NoSubprotocol)
}

/// Begins the answer that opens the WebSocket; the caller may add lines, and ends it.
pub fn answer<'o>(out: &'o mut BytesMut, accepted: &Accepted<'_>) -> HeadWriter<'o> {
    let mut head = HeadWriter::response(out, 101);
    head.header("connection", b"upgrade").header("upgrade", b"websocket");
    head.header("sec-websocket-accept", accepted.accept.as_bytes());
    if let Some(name) = accepted.subprotocol {
        head.header("sec-websocket-protocol", name.as_bytes());
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse_request;

    const GOOD: &str = "GET /v1/stream HTTP/1.1\r\nHost: gate:8080\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const RULES: ServerRules<'_> = ServerRules { subprotocols: &["tidegate.v1", "other"], origins: Origins::SameHost };

    fn check_with<'r>(head: &str, rules: &ServerRules<'r>) -> Result<Option<&'r str>, Refused> {
        let head = parse_request(&mut BytesMut::from(format!("{head}\r\n").as_str())).unwrap().unwrap();
        accept(&head, rules).map(|accepted| accepted.subprotocol)
    }

    fn check(head: &str) -> Result<Option<&'static str>, Refused> {
        check_with(head, &RULES)
    }

    #[test]
    fn what_is_missing_or_doubled_is_named() {
        assert_eq!(check(GOOD), Ok(None));
        for (from, to, why) in [
            ("GET", "POST", Refused::Method),
            ("HTTP/1.1", "HTTP/1.0", Refused::HttpVersion),
            ("Host:", "Content-Length: 1\r\nHost:", Refused::Body),
            ("Upgrade: WebSocket\r\n", "", Refused::NoUpgrade),
            ("keep-alive, Upgrade", "keep-alive", Refused::NoUpgrade),
            ("Version: 13", "Version: 8", Refused::Version),
            ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13", Refused::Version),
            ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", Refused::Key),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR==", Refused::Key),
            ("Sec-WebSocket-Key", "X-Key", Refused::Key),
        ] {
            assert_eq!(check(&GOOD.replace(from, to)), Err(why), "{from} -> {to}");
        }
        assert_eq!((Refused::Version.status(), Refused::Origin.status(), Refused::Key.status()), (426, 403, 400));
    }

    #[test]
    fn pages_need_leave_and_programs_do_not() {
        let from = |origin: &str| format!("{GOOD}Origin: {origin}\r\n");
        let list = ["https://app.example".to_owned()];
        let listed = ServerRules { origins: Origins::Listed(&list), ..RULES };
        let any = ServerRules { origins: Origins::Any, ..RULES };
        for (origin, same_host, in_list) in [
            ("http://gate:8080", true, true),
            ("https://GATE:8080", true, true),
            ("http://gate", false, false),
            ("http://gate:8080.evil.example", false, false),
            ("https://app.example", false, true),
            ("https://app.example.evil", false, false),
            ("null", false, false),
            ("gate:8080", false, false),
        ] {
            assert_eq!(check(&from(origin)).is_ok(), same_host, "{origin}");
            assert_eq!(check_with(&from(origin), &listed).is_ok(), in_list, "{origin}");
            assert!(check_with(&from(origin), &any).is_ok());
        }
        assert_eq!(check(&from("http://gate:8080\r\nOrigin: http://gate:8080")), Err(Refused::Origin));
    }

    #[test]
    fn the_subprotocol_is_one_that_both_speak() {
        let offer = |list: &str| check(&format!("{GOOD}Sec-WebSocket-Protocol: {list}\r\n"));
        assert_eq!(offer("graphql, other ,tidegate.v1"), Ok(Some("tidegate.v1")));
        assert_eq!(offer("a\r\nSec-WebSocket-Protocol: other"), Ok(Some("other")));
        assert_eq!(offer("graphql"), Err(Refused::NoSubprotocol));
        for bad in ["", "a,,b", "a, a", "a b", "tidegate.v1;q=1"] {
            assert_eq!(offer(bad), Err(Refused::SubprotocolList), "{bad:?}");
        }
        let many: Vec<String> = (0..33).map(|n| format!("p{n}")).collect();
        assert_eq!(offer(&many.join(",")), Err(Refused::SubprotocolList));
    }
}
