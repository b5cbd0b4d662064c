//! A lane: one upstream key and where it is used.

use bytes::BytesMut;
use http::{HeaderMap, Method, Request, Uri};
use std::fmt;
use tidegate_base::Secret;
use tidegate_transport::{ClientError, HttpOffer, Proxy, Target};
use tidegate_wire::dialect::tidegate_v1::SUBPROTOCOL;
use tidegate_wire::http::{HeadWriter, ResponseHead};
use tidegate_wire::websocket::handshake::{self, Opening};

/// How the credential is presented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// `x-api-key: KEY`
    #[default]
    ApiKey,
    /// `authorization: Bearer KEY`
    Bearer,
}

/// What is spoken to an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// The Messages API over HTTP.
    #[default]
    Http,
    /// Another Tidegate: streams share WebSockets in `tidegate.v1`; whatever is no stream goes over
    /// HTTP to the same host.
    Tidegate,
    /// The simple dialect: a WebSocket carries one prompt at a time.
    Prompt,
}

/// One upstream key and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Its name in metrics, logs and `/streams`; never the key.
    pub label: String,
    /// Where to connect.
    pub target: Target,
    host: String,
    base_path: String,
    scheme: Scheme,
    key: Secret,
    headers: Vec<(String, Secret)>,
    transport: Transport,
}

/// Why an upstream URL or key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneError(pub String);

impl fmt::Display for LaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LaneError {}

impl Lane {
    /// A lane to `url` (`http://` or `https://`, optional port, optional path prefix).
    pub fn new(label: impl Into<String>, url: &str, scheme: Scheme, key: Secret) -> Result<Self, LaneError> {
        Self::over(Transport::Http, label, url, scheme, key)
    }

    /// A lane on which `transport` is spoken. WebSockets have URLs of their own (`ws://` or `wss://`):
    /// to another Tidegate with an optional path prefix, else with the path of the endpoint.
    pub fn over(
        transport: Transport,
        label: impl Into<String>,
        url: &str,
        scheme: Scheme,
        key: Secret,
    ) -> Result<Self, LaneError> {
        let [secure, plain] = match transport {
            Transport::Http => ["https://", "http://"],
            Transport::Tidegate | Transport::Prompt => ["wss://", "ws://"],
        };
        let wrong = |why: &str| {
            let example = match transport {
                Transport::Http => "https://api.anthropic.com",
                Transport::Tidegate => "wss://tidegate.example.com",
                Transport::Prompt => "wss://models.example.com/chat",
            };
            LaneError(format!("`{url}` is not an upstream URL: {why}; write for example \"{example}\""))
        };
        let (tls, rest) = match (url.strip_prefix(secure), url.strip_prefix(plain)) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(wrong(&format!("it begins with neither {plain} nor {secure}"))),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') {
            return Err(LaneError("an upstream URL carries no user or password; put the key in `keys`".to_owned()));
        }
        if path.contains(['?', '#', ' ']) || !path.is_ascii() || path.bytes().any(|b| b.is_ascii_control()) {
            return Err(wrong("its path has a query, a fragment or an illegal character"));
        }
        let default_port = if tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong("its port is not a number from 1 to 65535"))?)
            }
            _ => (authority, default_port),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let host_is_plain = bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'));
        if bare.is_empty() || !host_is_plain || port == 0 {
            return Err(wrong("it has no usable host name"));
        }
        if key.expose().bytes().any(|b| !(0x21..0x7f).contains(&b)) {
            return Err(LaneError(
                "an upstream key has a space or a character outside ASCII; was it pasted with a line break?".to_owned(),
            ));
        }
        Ok(Lane {
            label: label.into(),
            target: Target { host: bare.to_owned(), port, tls, http: HttpOffer::Auto, proxy: None },
            host: if port == default_port { host.to_owned() } else { format!("{host}:{port}") },
            base_path: path.trim_end_matches('/').to_owned(),
            scheme,
            key,
            headers: Vec::new(),
            transport,
        })
    }

    /// Whether `other` is the same key on the same way, whatever each is called.
    pub fn is_same_key(&self, other: &Lane) -> bool {
        *self == Lane { label: self.label.clone(), ..other.clone() }
    }

    /// What is spoken there.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Where its WebSockets are: nothing but HTTP/1.1 can be upgraded to one.
    pub(crate) fn socket_target(&self) -> Target {
        Target { http: HttpOffer::Http1, ..self.target.clone() }
    }

    /// Writes the request that opens a WebSocket.
    pub(crate) fn socket_head(&self, nonce: [u8; 16]) -> (BytesMut, SocketOpening) {
        let (path, subprotocols): (_, &[&str]) = match (self.transport, self.base_path.as_str()) {
            (Transport::Prompt, "") => ("/".to_owned(), &[]),
            (Transport::Prompt, path) => (path.to_owned(), &[]),
            (_, prefix) => (format!("{prefix}/v1/stream"), &[SUBPROTOCOL]),
        };
        let opening = SocketOpening { host: self.host.clone(), path, subprotocols, nonce };
        let mut out = BytesMut::with_capacity(512);
        let mut head = handshake::request(&mut out, &opening.asked());
        self.own_lines(&mut head, None);
        head.end();
        (out, opening)
    }

    /// The same lane, offering this HTTP.
    pub fn offering(mut self, http: HttpOffer) -> Self {
        self.target.http = http;
        self
    }

    /// The same lane, with these header lines on every request.
    pub fn with_headers(mut self, headers: Vec<(String, Secret)>) -> Self {
        self.headers = headers;
        self
    }

    /// Whether it sets the header line called `name` itself.
    pub fn sets(&self, name: &[u8]) -> bool {
        self.headers.iter().any(|(own, _)| own.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The same lane, through this proxy.
    pub fn through(mut self, proxy: Option<Proxy>) -> Self {
        self.target.proxy = proxy;
        self
    }

    /// Writes a request's head for HTTP/1.1: target, host, credential, length, then `lines`.
    pub(crate) fn head(
        &self,
        method: &str,
        target: &str,
        length: Option<usize>,
        lines: impl FnOnce(&mut HeadWriter<'_>),
    ) -> BytesMut {
        let mut out = BytesMut::with_capacity(1024);
        let joined;
        let target = if self.base_path.is_empty() {
            target
        } else {
            joined = format!("{}{target}", self.base_path);
            &joined
        };
        let mut head = HeadWriter::request(&mut out, method, target);
        head.header("host", self.host.as_bytes());
        self.own_lines(&mut head, length);
        lines(&mut head);
        head.end();
        out
    }

    /// The same for HTTP/2.
    pub(crate) fn http2_head(
        &self,
        method: &str,
        target: &str,
        length: Option<usize>,
        lines: impl FnOnce(&mut HeadWriter<'_>),
    ) -> Result<Request<()>, ClientError> {
        let mut fields = HeaderMap::with_capacity(32);
        let mut head = HeadWriter::fields(&mut fields);
        self.own_lines(&mut head, length);
        lines(&mut head);
        let scheme = if self.target.tls { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(self.host.as_str());
        let uri = uri.path_and_query(format!("{}{target}", self.base_path)).build();
        let mut request = Request::new(());
        *request.uri_mut() = uri.map_err(|_| ClientError::Unwritable)?;
        *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| ClientError::Unwritable)?;
        *request.headers_mut() = fields;
        Ok(request)
    }

    fn own_lines(&self, head: &mut HeadWriter<'_>, length: Option<usize>) {
        if !self.key.is_empty() {
            match self.scheme {
                Scheme::ApiKey => head.header("x-api-key", self.key.expose().as_bytes()),
                Scheme::Bearer => head.header("authorization", format!("Bearer {}", self.key.expose()).as_bytes()),
            };
        }
        for (name, value) in &self.headers {
            head.header(name.as_str(), value.expose().as_bytes());
        }
        if let Some(length) = length {
            head.number("content-length", length as u64);
        }
    }
}

/// What was asked for with a WebSocket's opening request, to judge its answer by.
pub(crate) struct SocketOpening {
    host: String,
    path: String,
    subprotocols: &'static [&'static str],
    nonce: [u8; 16],
}

impl SocketOpening {
    fn asked(&self) -> Opening<'_> {
        Opening { host: &self.host, target: &self.path, subprotocols: self.subprotocols, nonce: self.nonce }
    }

    /// Whether `answer` opens what was asked for.
    pub(crate) fn check(&self, answer: &ResponseHead) -> Result<(), String> {
        let chosen = handshake::check_answer(answer, &self.asked()).map_err(|e| e.to_string())?;
        if chosen.is_none() && !self.subprotocols.is_empty() {
            return Err(format!("the server does not speak {SUBPROTOCOL}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str) -> Result<(String, u16, bool, String, String), String> {
        let lane = Lane::new("l", url, Scheme::ApiKey, Secret::new("k")).map_err(|e| e.0)?;
        Ok((lane.target.host, lane.target.port, lane.target.tls, lane.host, lane.base_path))
    }

    #[test]
    fn urls_are_read_with_their_defaults() {
        let s = str::to_owned;
        assert_eq!(
            check("https://api.anthropic.com"),
            Ok((s("api.anthropic.com"), 443, true, s("api.anthropic.com"), s("")))
        );
        assert_eq!(check("http://[::1]:80/a/b/"), Ok((s("::1"), 80, false, s("[::1]"), s("/a/b"))));
        assert_eq!(check("http://h:8080"), Ok((s("h"), 8080, false, s("h:8080"), s(""))));
    }

    #[test]
    fn wrong_urls_and_keys_say_what_is_wrong() {
        for bad in [
            "api.anthropic.com",
            "https://",
            "https://h:0",
            "https://h:99999",
            "https://u:p@h",
            "http://h/a?b",
            "http://h h",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        let e = Lane::new("l", "http://h", Scheme::Bearer, Secret::new("sk-ant\n")).unwrap_err();
        assert!(e.0.contains("line break") && !e.0.contains("sk-ant"));
    }

    #[test]
    fn the_head_carries_the_key_and_the_prefix() {
        let lane = Lane::new("l", "http://h/v", Scheme::Bearer, Secret::new("k")).unwrap();
        let head = lane.head("POST", "/v1/messages", Some(2), |h| {
            h.header("a", b"b");
        });
        let want =
            "POST /v/v1/messages HTTP/1.1\r\nhost: h\r\nauthorization: Bearer k\r\ncontent-length: 2\r\na: b\r\n\r\n";
        assert_eq!(std::str::from_utf8(&head).unwrap(), want);
    }

    #[test]
    fn a_lanes_own_lines_go_with_every_request() {
        let lane = Lane::new("l", "http://h", Scheme::ApiKey, Secret::new("k")).unwrap();
        let lane = lane.with_headers(vec![("X-Title".to_owned(), Secret::new("t"))]);
        let head = lane.head("GET", "/", None, |_| {});
        assert!(std::str::from_utf8(&head).unwrap().contains("\r\nX-Title: t\r\n"));
        assert!(lane.sets(b"x-title") && !lane.sets(b"x-titles"));
        assert!(!format!("{lane:?}").contains("\"t\""), "what they say may be a secret");
    }

    #[test]
    fn the_head_of_http2_says_the_same() {
        let lane = Lane::new("l", "https://h:8443/v", Scheme::ApiKey, Secret::new("k")).unwrap();
        let lines = |h: &mut HeadWriter<'_>| {
            h.header("a", b"b");
        };
        let head = lane.http2_head("POST", "/v1/messages?beta=true", Some(2), lines).unwrap();
        assert_eq!(
            (head.method().as_str(), head.uri().to_string().as_str()),
            ("POST", "https://h:8443/v/v1/messages?beta=true")
        );
        let fields: Vec<_> = head.headers().iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        assert_eq!(fields, [("x-api-key", &b"k"[..]), ("content-length", b"2"), ("a", b"b")]);
        assert!(head.headers()["x-api-key"].is_sensitive());
        assert!(matches!(lane.http2_head("POST", "/a\"b c", None, |_| {}), Err(ClientError::Unwritable)));
    }
}
