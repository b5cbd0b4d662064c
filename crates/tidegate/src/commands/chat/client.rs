//! The other side of the chat: a gateway, spoken to over HTTP/1.1, a connection for each request.
//!
//! A person's requests are seconds apart, so a connection kept between them would be found closed
//! as often as not; a new one costs less than the question whether the old one still stands. A key
//! goes out in cleartext only to this machine, or if it was meant for this gateway.

use super::stream::Stream;
use super::trouble::Trouble;
use crate::commands::Failed;
use bytes::{Bytes, BytesMut};
use http::Uri;
use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;
use tidegate_base::Secret;
use tidegate_transport::http1::{ClientConn, ClientError, SendEnd};
use tidegate_transport::{Clock, Dial, DialClocks, HttpOffer, Target, TcpDial, TlsRoots};
use tidegate_wire::http::{HeadWriter, ResponseHead};

/// The longest silence: the gateway sends a sign of life every 15 s.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(90);
/// The longest a door without a model may take.
const DOOR_MAX: Duration = Duration::from_secs(30);
/// The most of a door's answer, or of an error, that is read: a thousand turns of 64 KiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where a gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    target: Target,
    authority: String,
    path: String,
}

impl Place {
    /// Reads a base URL.
    pub(super) fn read(url: &str) -> Result<Self, Failed> {
        let wrong = |why: &str| Failed(format!("--url `{url}`: {why}; write for example http://127.0.0.1:4600"));
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it begins with neither http:// nor https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it has a user name; a key goes into TIDEGATE_API_KEY"));
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(wrong("it has a query or a fragment"));
        }
        let (host, port) = authority.as_str().split_at(authority.host().len());
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong("it has no host"));
        }
        let port = match (port.strip_prefix(':'), tls) {
            (Some(port), _) => port.parse().map_err(|_| wrong("its port is no number up to 65535"))?,
            (None, true) => 443,
            (None, false) => 80,
        };
        // SDKs take a base URL with or without the last part.
        let path = uri.path().trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let target = Target { host, port, tls, http: HttpOffer::Http1, proxy: None };
        Ok(Place { target, authority: authority.as_str().to_owned(), path })
    }

    /// Whether what is sent there can be read on the way.
    pub(super) fn is_cleartext_elsewhere(&self) -> bool {
        let host = self.target.host.as_str();
        let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        !self.target.tls && !here
    }
}

/// Asks a gateway.
pub(super) struct Client {
    pub(super) clock: Clock,
    dial: TcpDial,
    place: Place,
    key: Option<Secret>,
}

/// A request.
pub(super) struct Ask<'a> {
    method: &'static str,
    path: &'a str,
    lines: &'a [(&'a str, &'a str)],
    body: Option<Bytes>,
}

impl<'a> Ask<'a> {
    /// A request without a body.
    pub(super) fn bare(method: &'static str, path: &'a str) -> Self {
        Ask { method, path, lines: &[], body: None }
    }

    /// A `POST` of JSON.
    pub(super) fn post(path: &'a str, lines: &'a [(&'a str, &'a str)], body: impl Into<Bytes>) -> Self {
        Ask { method: "POST", path, lines, body: Some(body.into()) }
    }
}

impl Client {
    pub(super) fn new(place: Place, key: Option<Secret>, roots: &TlsRoots, clock: Clock) -> Result<Self, Failed> {
        let dial = TcpDial::new(clock, DialClocks::default(), roots).map_err(Failed::because)?;
        Ok(Client { clock, dial, place, key })
    }

    fn head(&self, ask: &Ask<'_>) -> BytesMut {
        let mut out = BytesMut::with_capacity(1024);
        let mut head = HeadWriter::request(&mut out, ask.method, &format!("{}{}", self.place.path, ask.path));
        head.header("host", self.place.authority.as_bytes())
            .header("anthropic-version", b"2023-06-01")
            .header("accept-encoding", b"identity")
            .header("connection", b"close")
            .header("user-agent", concat!("tidegate-chat/", env!("CARGO_PKG_VERSION")).as_bytes());
        if let Some(key) = &self.key {
            head.header("x-api-key", key.expose().as_bytes());
        }
        for (name, value) in ask.lines {
            head.header(name, value.as_bytes());
        }
        if let Some(body) = &ask.body {
            head.header("content-type", b"application/json").number("content-length", body.len() as u64);
        }
        head.end();
        out
    }

    /// Sends a request and reads the head of its answer.
    async fn open(&self, ask: &Ask<'_>) -> Result<(ResponseHead, ClientConn), Trouble> {
        let dialled = self.dial.dial(&self.place.target).await;
        let dialled = dialled.map_err(|e| Trouble::Unreachable(format!("{} ({})", e.message, self.place.authority)))?;
        let mut conn = ClientConn::new(dialled.io);
        let talk = async {
            let sent = conn.send(self.head(ask), ask.body.clone().unwrap_or_default(), || {}).await?;
            conn.read_head(false, sent == SendEnd::Whole).await
        };
        let head = self.clock.within(SILENCE_MAX, talk).await.ok_or_else(silent)?.map_err(broken)?;
        Ok((head, conn))
    }

    /// What a refused request was told.
    async fn refused(&self, head: &ResponseHead, conn: &mut ClientConn) -> Trouble {
        let mut body = BytesMut::new();
        match self.clock.within(DOOR_MAX, conn.read_body(&mut body, ANSWER_BYTES_MAX)).await {
            Some(Ok(())) => Trouble::refused(head, &body),
            Some(Err(e)) => broken(e),
            None => silent(),
        }
    }

    /// Asks a door that answers in JSON.
    pub(super) async fn json(&self, ask: Ask<'_>) -> Result<Value, Trouble> {
        let (head, mut conn) = self.open(&ask).await?;
        if !(200..300).contains(&head.status) {
            return Err(self.refused(&head, &mut conn).await);
        }
        let mut body = BytesMut::new();
        let read = self.clock.within(DOOR_MAX, conn.read_body(&mut body, ANSWER_BYTES_MAX)).await;
        read.ok_or_else(silent)?.map_err(broken)?;
        serde_json::from_slice(&body).map_err(|_| Trouble::Foreign(head.status))
    }

    /// Asks for a streamed message.
    pub(super) async fn stream(&self, ask: Ask<'_>) -> Result<Stream, Trouble> {
        let (head, mut conn) = self.open(&ask).await?;
        if head.status != 200 {
            return Err(self.refused(&head, &mut conn).await);
        }
        let kind = head.headers.get("content-type").unwrap_or_default();
        if !kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream")) {
            return Err(Trouble::Foreign(head.status));
        }
        Ok(Stream::new(head, conn, self.clock))
    }
}

pub(super) fn silent() -> Trouble {
    Trouble::Broken("no sign of life".to_owned())
}

pub(super) fn broken(e: ClientError) -> Trouble {
    Trouble::Broken(e.to_string())
}

/// A part of a path, whatever it is made of.
pub(in crate::commands) fn percent_encoded(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte.into());
        } else {
            // Writing into a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_wire::http::parse_request;

    #[test]
    fn places_are_read_as_people_write_them() {
        let check = |url: &str| {
            let place = Place::read(url).unwrap();
            (place.target.host.clone(), place.target.port, place.target.tls, place.path.clone())
        };
        let is = |host: &str, port, tls, path: &str| (host.to_owned(), port, tls, path.to_owned());
        assert_eq!(check("http://127.0.0.1:4600"), is("127.0.0.1", 4600, false, ""));
        assert_eq!(check("https://gate.example/x/v1/"), is("gate.example", 443, true, "/x"));
        assert_eq!(check("http://[::1]:81/"), is("::1", 81, false, ""));
        for bad in
            ["", "127.0.0.1:4600", "ftp://a", "http://", "http://u@a", "http://a:99999", "http://a/?x", "http://a#x"]
        {
            let why = Place::read(bad).unwrap_err().to_string();
            assert!(why.contains("--url") && why.contains("http://127.0.0.1:4600"), "{bad}: {why}");
        }
    }

    #[test]
    fn cleartext_is_noticed_where_others_can_read_it() {
        for (url, others_read) in [
            ("http://127.0.0.1:1", false),
            ("http://[::1]:1", false),
            ("http://localhost", false),
            ("https://gate.example", false),
            ("http://gate.example", true),
            ("http://10.0.0.1", true),
        ] {
            assert_eq!(Place::read(url).unwrap().is_cleartext_elsewhere(), others_read, "{url}");
        }
    }

    #[tokio::test]
    async fn a_head_has_place_key_and_lines() {
        let place = Place::read("http://h:1/base").unwrap();
        let client = Client::new(place, Some(Secret::new("tg_k")), &TlsRoots::Machine, Clock::real()).unwrap();
        let lines = [("tidegate-conversation", "caf\u{e9}"), ("tidegate-turn", "3")];
        let head = parse_request(&mut client.head(&Ask::post("/v1/messages", &lines, "{}"))).unwrap().unwrap();
        assert_eq!((head.method(), head.path()), ("POST", "/base/v1/messages"));
        for (name, value) in
            [("host", "h:1"), ("x-api-key", "tg_k"), ("tidegate-turn", "3"), ("content-length", "2"), lines[0]]
        {
            assert_eq!(head.headers.text(name), Some(value), "{name}");
        }
    }

    #[test]
    fn a_part_of_a_path_is_one_whatever_it_holds() {
        assert_eq!(percent_encoded("a-b_c.d~9"), "a-b_c.d~9");
        assert_eq!(percent_encoded("a/b?c d%\u{e9}"), "a%2Fb%3Fc%20d%25%C3%A9");
    }
}
