//! What is sent: a head, built once for all requests that share it, and a body.

use crate::plan::{BenchError, Mode, Plan};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Uri};
use serde_json::json;
use std::fmt::Write;
use std::sync::Arc;
use tidegate_base::{Prng, Secret};
use tidegate_transport::{HttpOffer, Target};
use tidegate_wire::dialect::tidegate_v1::{ClientFrame, Create};
use tidegate_wire::http::{HeadWriter, Headers, is_hop_by_hop};

const API_VERSION: &[u8] = b"2023-06-01";
const PATH: &str = "/v1/messages";
const STREAM_PATH: &str = "/v1/stream";
/// `content-length: `, twenty digits, and the blank line.
const LENGTH_LINE_BYTES_MAX: usize = 40;
/// Words of a made-up prompt; short ones, so that a length in bytes can be met closely.
const WORDS: [&str; 16] = [
    "tide", "gate", "river", "stone", "cloud", "paper", "north", "seven", "quiet", "lamp", "oak", "harbour", "salt",
    "wind", "bridge", "clay",
];

/// Everything of a request but its body: requests that differ in nothing else share one.
#[derive(Debug)]
pub(crate) struct Form {
    target: Target,
    /// The head for HTTP/1.1 without the body's length, which is its last line.
    head: Bytes,
    uri: Uri,
    fields: HeaderMap,
}

impl Form {
    /// The form of what `plan` describes, with a key and with header lines besides the plan's own.
    pub(crate) fn of(plan: &Plan, key: Option<&Secret>, more: &[(String, String)]) -> Result<Self, BenchError> {
        let (target, authority, path) = address(&plan.url)?;
        let accept: &[u8] = if plan.mode != Mode::Json { b"text/event-stream" } else { b"application/json" };
        let key = key.map(|key| key.expose().as_bytes());
        let extra = || plan.headers.iter().chain(more);
        let has = |name: &str| extra().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let own = [
            ("host", Some(authority.as_bytes())),
            ("x-api-key", key.filter(|_| !has("authorization"))),
            ("anthropic-version", Some(API_VERSION)),
            ("content-type", Some(b"application/json".as_slice())),
            ("accept", Some(accept)),
            ("accept-encoding", Some(b"identity".as_slice())),
            ("user-agent", Some(concat!("tidegate-bench/", env!("CARGO_PKG_VERSION")).as_bytes())),
            ("connection", Some(b"close".as_slice()).filter(|_| !plan.keep_alive)),
        ];
        for (name, value) in extra() {
            check_line(name, value)?;
        }
        let write = |lines: &mut HeadWriter<'_>| {
            for (name, value) in own {
                if let Some(value) = value.filter(|_| !has(name)) {
                    lines.header(name, value);
                }
            }
            for (name, value) in extra() {
                lines.header(name, value.as_bytes());
            }
        };
        let mut head = BytesMut::new();
        write(&mut HeadWriter::request(&mut head, "POST", &path));
        // The writer leaves out what HTTP/2 has no lines for.
        let mut fields = HeaderMap::new();
        write(&mut HeadWriter::fields(&mut fields));
        let scheme = if target.tls { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(authority.as_str()).path_and_query(path.as_str()).build();
        let uri = uri.map_err(|e| BenchError::Plan(format!("`{}` is not a URL to measure: {e}", plan.url)))?;
        Ok(Form { target, head: head.freeze(), uri, fields })
    }
}

/// A request ready to be sent, in either version of HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    form: Arc<Form>,
    pub(crate) body: Bytes,
}

impl Request {
    /// A body in its form.
    pub(crate) fn new(form: &Arc<Form>, body: &Bytes) -> Self {
        Request { form: Arc::clone(form), body: body.clone() }
    }

    /// The request that `plan` describes, where all are alike.
    pub(crate) fn of(plan: &Plan) -> Result<Self, BenchError> {
        let form = Form::of(plan, plan.key.as_ref(), &[])?;
        Ok(Request { form: Arc::new(form), body: body(plan, plan.prompt_bytes, plan.seed) })
    }

    /// Where it goes.
    pub(crate) fn target(&self) -> &Target {
        &self.form.target
    }

    /// The head for HTTP/2.
    pub(crate) fn head_http2(&self) -> http::Request<()> {
        let mut request = http::Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.form.uri.clone();
        *request.headers_mut() = self.form.fields.clone();
        HeadWriter::fields(request.headers_mut()).number("content-length", self.body.len() as u64);
        request
    }

    /// What opens a WebSocket for it and others like it: host, path with query, credentials. The path
    /// is that of the door for streams beside the one for messages.
    pub(crate) fn opening(&self) -> (String, String, Vec<(&str, &[u8])>) {
        let uri = &self.form.uri;
        let host = uri.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
        let target = match uri.path().strip_suffix(PATH) {
            Some(prefix) => format!("{prefix}{STREAM_PATH}"),
            None => STREAM_PATH.to_owned(),
        };
        let lines = ["x-api-key", "authorization"];
        let lines = lines.into_iter().filter_map(|name| Some((name, self.form.fields.get(name)?.as_bytes())));
        (host, target, lines.collect())
    }

    /// The frame that asks for it over a WebSocket, under the name `id`; header lines that have no
    /// place in a frame are left out.
    pub(crate) fn frame(&self, id: &str) -> Option<Vec<u8>> {
        let lines = self.form.fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let headers = Headers::from_pairs(lines);
        let create = Create::of_http(id, std::str::from_utf8(&self.body).ok()?, &headers).ok()?;
        let mut frame = Vec::with_capacity(self.body.len() + 128);
        ClientFrame::Create(Box::new(create)).write(&mut frame);
        Some(frame)
    }

    /// The head, in a buffer of its own with room for a short body behind it.
    pub(crate) fn head(&self) -> BytesMut {
        let room = if self.body.len() <= 16 * 1024 { self.body.len() } else { 0 };
        let mut head = BytesMut::with_capacity(self.form.head.len() + LENGTH_LINE_BYTES_MAX + room);
        head.extend_from_slice(&self.form.head);
        // Writing into a buffer that grows cannot fail.
        let _ = write!(head, "content-length: {}\r\n\r\n", self.body.len());
        head
    }
}

/// What `plan` asks for, with a prompt of `prompt_bytes` bytes from `seed`.
pub(crate) fn body(plan: &Plan, prompt_bytes: usize, seed: u64) -> Bytes {
    let mut body = json!({
        "model": plan.model,
        "max_tokens": plan.max_tokens,
        "stream": plan.mode != Mode::Json,
        "messages": [{"role": "user", "content": prompt(prompt_bytes, seed)}],
    });
    if plan.thinking {
        body["thinking"] = json!({"type": "adaptive", "display": "omitted"});
    }
    Bytes::from(body.to_string())
}

/// Refuses a header line that would change how the message is framed or cannot be written.
fn check_line(name: &str, value: &str) -> Result<(), BenchError> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let bad = name.is_empty() || !name.bytes().all(token) || value.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0));
    if bad || is_hop_by_hop(name) || name.eq_ignore_ascii_case("content-length") {
        let name = name.escape_default();
        return Err(BenchError::Plan(format!(
            "the header `{name}` cannot be set: malformed, or it frames the message"
        )));
    }
    Ok(())
}

/// Target, `host` header and path of a URL.
fn address(url: &str) -> Result<(Target, String, String), BenchError> {
    let wrong = |why: &str| BenchError::Plan(format!("`{url}` is not a URL to measure: {why}"));
    let (tls, rest) = match url.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        _ => return Err(wrong("write http://host:port or https://host")),
    };
    if url.bytes().any(|b| b.is_ascii_control() || b == b' ') || !url.is_ascii() {
        return Err(wrong("it has a character that a URL cannot have"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(wrong("it has a user name; give a key instead"));
    }
    if path.contains('#') {
        return Err(wrong("it has a fragment"));
    }
    let bracket = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[bracket..].rfind(':') {
        Some(at) => {
            let (host, port) = authority.split_at(bracket + at);
            (host, port[1..].parse().map_err(|_| wrong("its port is no number up to 65535"))?)
        }
        None => (authority, if tls { 443 } else { 80 }),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return Err(wrong("it has no host"));
    }
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let path = path.trim_end_matches('/');
    let path = if path.ends_with(PATH) { path.to_owned() } else { format!("{path}{PATH}") };
    Ok((Target { host, port, tls, http: HttpOffer::Http1, proxy: None }, authority.to_owned(), path + query))
}

/// `bytes` bytes of words.
fn prompt(bytes: usize, seed: u64) -> String {
    let mut prng = Prng::new(seed).fork("prompt");
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        text.push_str(prng.pick(&WORDS).copied().unwrap_or_default());
        text.push(' ');
    }
    text.truncate(bytes);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_wire::http::parse_request;

    fn check(url: &str) -> Result<(String, u16, bool, String), String> {
        let (target, _, path) = address(url).map_err(|e| e.to_string())?;
        Ok((target.host, target.port, target.tls, path))
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let ok = |host: &str, port, tls, path: &str| Ok((host.to_owned(), port, tls, path.to_owned()));
        assert_eq!(check("http://127.0.0.1:4600"), ok("127.0.0.1", 4600, false, "/v1/messages"));
        assert_eq!(check("https://api.example.com/"), ok("api.example.com", 443, true, "/v1/messages"));
        assert_eq!(check("http://a/x/v1/messages?beta=true"), ok("a", 80, false, "/x/v1/messages?beta=true"));
        assert_eq!(check("http://[::1]:81/p"), ok("::1", 81, false, "/p/v1/messages"));
        assert_eq!(check("http://[::1]"), ok("::1", 80, false, "/v1/messages"));
        for bad in
            ["", "a:1", "ftp://a", "http://", "http://a:x", "http://a:99999", "http://u@a", "http://a b", "http://a#x"]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_message_is_whole_and_extra_headers_take_the_place_of_ours() {
        let mut plan = Plan::new("http://a:1");
        plan.key = Some(Secret::new("sk"));
        plan.prompt_bytes = 33;
        plan.headers = vec![("Anthropic-Version".into(), "x".into()), ("simulate".into(), "output_tokens=5".into())];
        let request = Request::of(&plan).unwrap();
        let head = parse_request(&mut request.head()).unwrap().unwrap();
        assert_eq!((head.method(), head.path()), ("POST", "/v1/messages"));
        assert_eq!(head.headers.get_all("anthropic-version").collect::<Vec<_>>(), [b"x"]);
        assert_eq!((head.headers.text("x-api-key"), head.headers.text("host")), (Some("sk"), Some("a:1")));
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["messages"][0]["content"].as_str().map(str::len), Some(33));
        assert_eq!(body["stream"], true);

        let over_http2 = request.head_http2();
        let field = |name: &str| over_http2.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(
            (over_http2.method().as_str(), over_http2.uri().to_string().as_str()),
            ("POST", "http://a:1/v1/messages")
        );
        assert_eq!((field("x-api-key"), field("anthropic-version"), field("host")), (Some("sk"), Some("x"), None));
        assert_eq!(field("content-length"), Some(request.body.len().to_string().as_str()));
    }

    #[test]
    fn over_a_socket_it_is_a_frame_and_the_credentials_open_it() {
        let mut plan = Plan::new("https://a:1/x/v1/messages?beta=true");
        (plan.key, plan.mode) = (Some(Secret::new("sk")), Mode::Socket);
        plan.headers = vec![("tidegate-resume".into(), "memory".into()), ("simulate".into(), "chars=9".into())];
        let request = Request::of(&plan).unwrap();
        let (host, target, lines) = request.opening();
        assert_eq!((host.as_str(), target.as_str()), ("a:1", "/x/v1/stream"));
        assert_eq!(lines, [("x-api-key", b"sk".as_slice())]);
        let frame: serde_json::Value = serde_json::from_slice(&request.frame("7").unwrap()).unwrap();
        assert_eq!(
            (&frame["type"], &frame["id"], &frame["resume"]),
            (&"message.create".into(), &"7".into(), &"memory".into())
        );
        assert_eq!(frame["request"]["max_tokens"], 256);
        assert_eq!(frame.get("simulate"), None);
    }

    #[test]
    fn headers_that_frame_the_message_are_refused() {
        for (name, value) in [("Content-Length", "1"), ("transfer-encoding", "x"), ("a b", "x"), ("a", "x\r\ny: z")] {
            let mut plan = Plan::new("http://a:1");
            plan.headers = vec![(name.into(), value.into())];
            assert!(matches!(Request::of(&plan), Err(BenchError::Plan(_))), "{name}");
        }
    }
}
