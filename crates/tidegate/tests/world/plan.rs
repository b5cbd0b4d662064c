//! What each client is going to do, decided before the world begins.

use crate::world::scene::{key, ms};
use serde_json::{Value, json};
use std::time::Duration;
use tidegate_base::Prng;
use tidegate_gateway::Settings;

/// One client: a connection after another, request after request; over HTTP/2 side by side.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) requests: Vec<Request>,
    pub(crate) http2: Option<Http2>,
}

/// A client's HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Http2 {
    /// Bytes of one answer that may be on their way to it, unread.
    pub(crate) window: u32,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Message,
    CountTokens,
    Models,
    OneModel,
    Root,
    /// Its head only.
    RootHead,
    /// Paths, methods, keys and headers that are refused before the body.
    UnknownPath,
    WrongMethod,
    StrangeKey,
    StrangeHeader,
    /// Bodies that are refused.
    BadJson,
    NoModel,
    TooLarge,
    /// A body that stops arriving.
    SlowBody,
    /// What is no HTTP, too much of it, or never whole.
    GarbageHead,
    HugeHead,
    SlowHead,
    /// A body framed twice, which is how requests are smuggled.
    TwoFrames,
}

/// How the request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    Whole,
    /// In pieces of so many bytes with a pause between them.
    Pieces(usize, Duration),
    /// The body as HTTP chunks of so many bytes.
    Chunks(usize),
}

/// How the answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    Eager,
    /// So many bytes, then a pause.
    Slow(usize, Duration),
    /// Not for a while after so many bytes, then eagerly.
    Pauses(usize, Duration),
    /// Not any more after so many bytes, for good.
    Stops(usize),
}

/// When a client vanishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// After this share (per mille) of the request's bytes.
    Sending(u64),
    /// So long after the request was sent.
    After(Duration),
    /// After so many bytes of the answer.
    AtBytes(usize),
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Its number in this world; echo models carry it in their name.
    pub(crate) number: u64,
    pub(crate) what: What,
    pub(crate) pause: Duration,
    pub(crate) stream: bool,
    pub(crate) model: String,
    pub(crate) key: String,
    pub(crate) lines: Vec<(&'static str, String)>,
    pub(crate) body: Value,
    pub(crate) deadline: Option<Duration>,
    pub(crate) close: bool,
    /// The client speaks HTTP/1.0: its stream ends with the connection.
    pub(crate) http10: bool,
    /// The next request is sent together with this one, before there is an answer.
    pub(crate) pipelined: bool,
    /// It was sent together with the one before it.
    pub(crate) follows: bool,
    pub(crate) upload: Upload,
    pub(crate) reader: Reader,
    pub(crate) leave: Option<Leave>,
    /// A client that vanishes does so by a reset.
    pub(crate) resets: bool,
    /// It is one of several on a connection of HTTP/2.
    pub(crate) http2: bool,
    /// A client of HTTP/2 that vanishes takes its connection along.
    pub(crate) drops: bool,
}

impl Request {
    /// A message of an echo model that says `text`, from a client that waits for it.
    pub(crate) fn message(text: &str, stream: bool) -> Request {
        let model = "echo-00000001".to_owned();
        Request {
            number: 1,
            what: What::Message,
            pause: Duration::ZERO,
            stream,
            body: json!({"model": model, "max_tokens": 1000, "stream": stream,
                "messages": [{"role": "user", "content": text}]}),
            model,
            key: "whatever".to_owned(),
            lines: Vec::new(),
            deadline: None,
            close: false,
            http10: false,
            pipelined: false,
            follows: false,
            upload: Upload::Whole,
            reader: Reader::Eager,
            leave: None,
            resets: false,
            http2: false,
            drops: false,
        }
    }

    /// The same as the `number`th request of its world.
    pub(crate) fn numbered(mut self, number: u64) -> Request {
        self.number = number;
        self.model = format!("echo-{number:08}");
        self.body["model"] = json!(self.model);
        self
    }

    /// Whether the client waits for the whole answer and reads it as it comes.
    pub(crate) fn stays(&self) -> bool {
        self.leave.is_none() && !matches!(self.reader, Reader::Stops(_))
    }

    /// Whether it is sent at once, read at once, answered at length and leaves the connection open.
    fn is_plain(&self) -> bool {
        let answered = matches!(self.what, What::Message | What::CountTokens | What::Models | What::OneModel);
        answered
            && self.leave.is_none()
            && self.reader == Reader::Eager
            && self.upload == Upload::Whole
            && !self.close
            && !self.http10
    }

    pub(crate) fn max_tokens(&self) -> u64 {
        self.body["max_tokens"].as_u64().unwrap_or(0)
    }

    /// Method and target.
    pub(crate) fn line(&self) -> (&'static str, &'static str) {
        match self.what {
            What::CountTokens => ("POST", "/v1/messages/count_tokens"),
            What::Models => ("GET", "/v1/models?limit=3"),
            What::OneModel => ("GET", "/v1/models/claude-sonnet-5-5"),
            What::Root => ("GET", "/"),
            What::RootHead => ("HEAD", "/"),
            What::UnknownPath => ("POST", "/v2/complete"),
            What::WrongMethod => ("PUT", "/v1/messages"),
            _ if self.number.is_multiple_of(3) => ("POST", "/v1/messages?beta=true"),
            _ => ("POST", "/v1/messages"),
        }
    }

    /// The header lines but for those that frame a body.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = match self.number.is_multiple_of(2) {
            true => vec![("x-api-key", self.key.clone())],
            false => vec![("authorization", format!("Bearer {}", self.key))],
        };
        fields.push(("anthropic-version", "2023-06-01".to_owned()));
        fields.extend(self.lines.iter().cloned());
        if self.what == What::HugeHead {
            // Over HTTP/2 what is far too large is refused before anybody can word it.
            fields.push(("x-filler", "f".repeat(if self.http2 { 100_000 } else { 200_000 })));
        }
        fields
    }

    fn payload(&self, body_limit: u64) -> Vec<u8> {
        match self.what {
            What::Models | What::OneModel | What::Root | What::RootHead => Vec::new(),
            What::BadJson => b"{\"model\": \"claude-sonnet-5-5\", \"messages\": [".to_vec(),
            What::TooLarge => vec![b' '; body_limit as usize + 1 + self.number as usize * 997],
            _ => self.body.to_string().into_bytes(),
        }
    }

    /// Head and body for HTTP/2.
    pub(crate) fn http2(&self, body_limit: u64) -> (http::Request<()>, Vec<u8>) {
        let (method, target) = self.line();
        let body = self.payload(body_limit);
        let mut head = http::Request::builder().method(method).uri(format!("http://gateway.test{target}"));
        for (name, value) in self.fields() {
            head = head.header(name, value);
        }
        if !body.is_empty() {
            head = head.header("content-type", "application/json");
        }
        if !body.is_empty() && !matches!(self.upload, Upload::Chunks(_)) {
            head = head.header("content-length", body.len());
        }
        (head.body(()).expect("a head as planned"), body)
    }

    /// The same request over HTTP/2, as far as there is such a thing.
    fn over_http2(&mut self, prng: &mut Prng) {
        if matches!(self.what, What::GarbageHead | What::SlowHead | What::TwoFrames) {
            self.what = What::UnknownPath;
        }
        (self.http2, self.drops) = (true, prng.chance(0.2));
        (self.close, self.http10) = (false, false);
    }

    /// The bytes of head and body.
    pub(crate) fn bytes(&self, body_limit: u64) -> (Vec<u8>, Vec<u8>) {
        match self.what {
            What::GarbageHead => return (b"HELLO gateway\r\nthere: you are\r\n\r\n".to_vec(), Vec::new()),
            What::SlowHead => return (b"POST /v1/messages HTTP/1.1\r\nhost: a\r\nx-".to_vec(), Vec::new()),
            _ => {}
        }
        let (method, target) = self.line();
        let version = if self.http10 { "1.0" } else { "1.1" };
        let mut head = format!("{method} {target} HTTP/{version}\r\nhost: gateway.test\r\n");
        for (name, value) in self.fields() {
            head += &format!("{name}: {value}\r\n");
        }
        if self.close {
            head += "connection: close\r\n";
        }
        if self.what == What::TwoFrames {
            head += "transfer-encoding: chunked\r\n";
        }
        let body = self.payload(body_limit);
        let body = match self.upload {
            Upload::Chunks(most) if !body.is_empty() => {
                head += "transfer-encoding: chunked\r\ncontent-type: application/json\r\n";
                let mut chunked = Vec::new();
                for chunk in body.chunks(most) {
                    chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    chunked.extend_from_slice(chunk);
                    chunked.extend_from_slice(b"\r\n");
                }
                chunked.extend_from_slice(b"0\r\n\r\n");
                chunked
            }
            _ if body.is_empty() => body,
            _ => {
                head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
                body
            }
        };
        (format!("{head}\r\n").into_bytes(), body)
    }
}

pub(crate) fn plan_clients(calm: bool, settings: &Settings, prng: &Prng) -> Vec<Client> {
    let mut numbers = 0;
    let mut dice = prng.fork("how many");
    let clients = dice.between(5, 30);
    let rush = dice.chance(0.3);
    let with_http2 = prng.fork("http2").chance(0.5);
    let plan = |n| {
        let mut dice = prng.fork(&format!("client {n}"));
        let mut first = if rush { ms(&mut dice, 0, 50) } else { ms(&mut dice, 0, 20_000) };
        let key = if settings.keys.is_empty() { "whatever".to_owned() } else { key(n) };
        let requests = (0..dice.between(1, if with_http2 { 5 } else { 3 })).map(|_| {
            numbers += 1;
            let mut request = request(numbers, calm, &key, settings, &mut dice);
            request.pause += std::mem::take(&mut first);
            request
        });
        let mut requests: Vec<_> = requests.collect();
        let mut dice = prng.fork(&format!("http2 of client {n}"));
        let http2 = (with_http2 && dice.chance(0.6)).then(|| {
            requests.iter_mut().for_each(|request| request.over_http2(&mut dice));
            Http2 { window: *dice.pick(&[65_535, 65_535, 16_000, 4_000, 1_000, 200]).unwrap_or(&65_535) }
        });
        for n in 1..if http2.is_some() { 0 } else { requests.len() } {
            requests[n - 1].pipelined = requests[n - 1].is_plain() && requests[n].is_plain() && dice.chance(0.2);
            requests[n].follows = requests[n - 1].pipelined;
            if requests[n].follows {
                requests[n].pause = Duration::ZERO;
            }
        }
        Client { requests, http2 }
    };
    (0..clients).map(plan).collect()
}

fn what(settings: &Settings, prng: &mut Prng) -> What {
    use What::*;
    let rare = [
        UnknownPath,
        WrongMethod,
        StrangeHeader,
        BadJson,
        NoModel,
        TooLarge,
        SlowBody,
        GarbageHead,
        HugeHead,
        SlowHead,
        TwoFrames,
    ];
    match prng.below(100) {
        0..80 => Message,
        80..84 => CountTokens,
        84..86 => Models,
        86..88 => OneModel,
        88 if prng.chance(0.5) => Root,
        88 => RootHead,
        89 if !settings.keys.is_empty() => StrangeKey,
        _ => rare[prng.below(rare.len() as u64) as usize],
    }
}

fn request(number: u64, calm: bool, key: &str, settings: &Settings, prng: &mut Prng) -> Request {
    let what = what(settings, prng);
    let stream = prng.chance(0.65);
    let model = match prng.below(10) {
        0..6 => format!("echo-{number:08}"),
        6..8 => "claude-sonnet-5-5".to_owned(),
        _ => "claude-haiku-4-5".to_owned(),
    };
    let reader = match prng.below(20) {
        0 | 1 => Reader::Slow(prng.between(50, 3_000) as usize, ms(prng, 5, 400)),
        2 => Reader::Stops(prng.below(6_000) as usize),
        3 => Reader::Pauses(prng.below(6_000) as usize, ms(prng, 1_000, 25_000)),
        _ => Reader::Eager,
    };
    let mut lines = Vec::new();
    let long = prng.chance(if reader == Reader::Eager { 0.02 } else { 0.3 });
    let body = body(number, what, &model, stream, long, &mut lines, prng);
    if what == What::StrangeHeader {
        lines.push(("tidegate-typo", "1".to_owned()));
    }
    if prng.chance(0.2) {
        lines.push(("tidegate-priority", (*prng.pick(&["interactive", "background"]).unwrap_or(&"normal")).to_owned()));
    }
    let deadline = (!calm && prng.chance(0.2)).then(|| ms(prng, 50, 60_000));
    match deadline {
        Some(span) => lines.push(("tidegate-deadline-ms", span.as_millis().to_string())),
        None if prng.chance(0.2) => {
            lines.push(("x-stainless-timeout", prng.pick(&["NOT_GIVEN", "600"]).unwrap_or(&"").to_string()))
        }
        None => {}
    }
    let upload = match prng.below(20) {
        0 => Upload::Pieces(prng.between(20, 400) as usize, ms(prng, 1, 200)),
        1 | 2 => Upload::Chunks(prng.between(7, 5_000) as usize),
        _ => Upload::Whole,
    };
    let leave = match prng.below(30) {
        0 => Some(Leave::Sending(prng.below(1000))),
        1 | 2 => Some(Leave::After(ms(prng, 0, 3_000))),
        3 => Some(Leave::After(ms(prng, 0, 40_000))),
        4 | 5 => Some(Leave::AtBytes(prng.below(4_000) as usize)),
        _ => None,
    };
    if matches!(upload, Upload::Pieces(..)) && prng.chance(0.5) {
        lines.push(("expect", "100-continue".to_owned()));
    }
    let pause_max = if prng.chance(0.1) { 70_000 } else { 2_000 };
    let pause = ms(prng, 0, pause_max);
    Request {
        number,
        what,
        pause,
        stream,
        model,
        key: if what == What::StrangeKey { "tg_nobody".to_owned() } else { key.to_owned() },
        lines,
        body,
        deadline,
        close: prng.chance(0.2),
        http10: upload == Upload::Whole && prng.chance(0.04),
        pipelined: false,
        follows: false,
        upload,
        reader,
        leave,
        resets: prng.chance(0.5),
        http2: false,
        drops: false,
    }
}

const WORDS: [&str; 16] = [
    "tide",
    "gate",
    "naïve",
    "façade",
    "漢字",
    "🌊🌊",
    "\"quoted\"",
    "back\\slash",
    "line\nbreak",
    "tab\there",
    "the",
    "of",
    "moon",
    "ebb",
    "flood",
    "—",
];

fn body(
    number: u64,
    what: What,
    model: &str,
    stream: bool,
    long: bool,
    lines: &mut Vec<(&'static str, String)>,
    prng: &mut Prng,
) -> Value {
    let echoes = model.starts_with("echo");
    let count = if long && echoes { prng.between(3_000, 9_000) } else { prng.between(1, 150) };
    let words: Vec<_> = (0..count).filter_map(|_| prng.pick(&WORDS).copied()).collect();
    let mut text = format!("{number}: {}", words.join(" "));
    let tools = prng.chance(0.2);
    if tools && prng.chance(0.7) {
        text += " now use a tool";
    }
    let max_tokens = match prng.below(4) {
        0 => prng.between(1, 40),
        1 => prng.between(40, 1_000),
        _ => 4_096,
    };
    let max_tokens = if long { 60_000 } else { max_tokens };
    let mut body = json!({"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": text}]});
    if what == What::CountTokens {
        body = json!({"model": model, "messages": [{"role": "user", "content": text}]});
        return body;
    }
    if stream || prng.chance(0.3) {
        body["stream"] = json!(stream);
    }
    if what == What::NoModel {
        body["model"] = json!(7);
    }
    if tools {
        body["tools"] = json!([{"name": "measure", "description": "Measures.", "input_schema": {"type": "object",
            "properties": {"place": {"type": "string"}, "depth": {"type": "number"}}, "required": ["place"]}}]);
        if prng.chance(0.3) {
            body["tool_choice"] = json!({"type": "any"});
        }
    }
    if echoes && !tools && prng.chance(0.2) {
        body["thinking"] = json!({"type": "adaptive", "display": "summarized"});
    }
    if long && !echoes {
        lines.push(("simulate", format!("output_tokens={}", prng.between(2_000, 12_000))));
    }
    body
}
