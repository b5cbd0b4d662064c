//! A client of the WebSocket door: strict about frames, and about the order of what is said in them.

use crate::process::Tidegate;
use crate::wire::{Answer, Wire};
use bytes::BytesMut;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tidegate_wire::http::parse_response;
use tidegate_wire::websocket::handshake::{Opening, check_answer, request};
use tidegate_wire::websocket::{CloseCode, Event, MessageReader, Opcode, ReadRules, Role, write_close, write_frame};

/// The longest a test waits for a message.
const SILENCE_MAX: Duration = Duration::from_secs(20);
const RULES: ReadRules = ReadRules { role: Role::Client, frame_bytes_max: 64 << 20, message_bytes_max: 64 << 20 };
/// How frames are masked here; the server takes any key.
const MASK: Option<[u8; 4]> = Some([0x1f, 0x80, 0x03, 0xee]);

/// What came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping,
    Pong(Vec<u8>),
    /// The code and the reason.
    Close(Option<u16>, String),
    /// The connection ended without a close.
    Cut,
}

/// One socket.
pub(crate) struct Socket {
    socket: TcpStream,
    reader: MessageReader,
    heard: VecDeque<Heard>,
    /// Frames of other streams than the one that was waited for.
    aside: VecDeque<Value>,
    /// What is known of each stream by its `id`: the last number, if it has any, and whether it is open.
    streams: BTreeMap<String, (Option<u64>, bool)>,
    /// Whether pings are answered.
    pub(crate) answers_pings: bool,
    pub(crate) pings: usize,
}

/// Where `tidegate.v1` is spoken.
pub(crate) const DOOR: &str = "/v1/stream";

impl Tidegate {
    /// Opens a socket, or gives the refusal.
    pub(crate) fn open(&self, target: &str, subprotocols: &[&str], lines: &[(&str, &str)]) -> Result<Socket, Answer> {
        let opening = Opening { host: "tidegate", target, subprotocols, nonce: *b"the sample nonce" };
        let mut asked = BytesMut::new();
        let mut head = request(&mut asked, &opening);
        for (name, value) in lines {
            head.header(name, value.as_bytes());
        }
        head.end();
        let mut wire = Wire::to(self.gateway);
        wire.send(&asked);
        let answer = wire.head().expect("an answer to the handshake");
        if answer.status != 101 {
            return Err(wire.body_of(answer));
        }
        let told = parse_response(&mut BytesMut::from(answer.head.as_str()), false).unwrap().unwrap();
        let chosen = check_answer(&told, &opening).unwrap();
        assert_eq!(chosen, subprotocols.first().copied());
        let (socket, early) = wire.into_parts();
        let mut socket = Socket {
            socket,
            reader: MessageReader::new(RULES),
            heard: VecDeque::new(),
            aside: VecDeque::new(),
            streams: BTreeMap::new(),
            answers_pings: true,
            pings: 0,
        };
        socket.take_in(early);
        Ok(socket)
    }

    /// A socket of `tidegate.v1`.
    pub(crate) fn socket(&self) -> Socket {
        self.open(DOOR, &["tidegate.v1"], &[]).unwrap_or_else(|answer| panic!("{}", answer.text()))
    }

    /// A socket of the simple dialect.
    pub(crate) fn prompts(&self, query: &str) -> Socket {
        self.open(&format!("{DOOR}{query}"), &[], &[]).unwrap_or_else(|answer| panic!("{}", answer.text()))
    }
}

impl Socket {
    /// Sends one frame.
    pub(crate) fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut out = BytesMut::new();
        write_frame(&mut out, opcode, true, MASK, payload);
        self.socket.write_all(&out).unwrap();
    }

    /// Sends the beginning of a message that goes on.
    pub(crate) fn send_part(&mut self, payload: &[u8]) {
        let mut out = BytesMut::new();
        write_frame(&mut out, Opcode::Text, false, MASK, payload);
        self.socket.write_all(&out).unwrap();
    }

    /// Sends messages of text, all at once.
    pub(crate) fn send_all(&mut self, messages: &[String]) {
        let mut out = BytesMut::new();
        messages.iter().for_each(|text| write_frame(&mut out, Opcode::Text, true, MASK, text.as_bytes()));
        self.socket.write_all(&out).unwrap();
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.send_frame(Opcode::Text, message.to_string().as_bytes());
    }

    /// Begins a stream named `id`, with further members.
    pub(crate) fn create(&mut self, id: &str, more: &Value) {
        let mut frame = json!({"type": "message.create", "id": id, "request": {
            "model": "claude-haiku-5-5", "max_tokens": 4000, "messages": [{"role": "user", "content": "x"}]}});
        for (name, value) in more.as_object().unwrap() {
            frame[name] = value.clone();
        }
        self.send(&frame);
    }

    pub(crate) fn close(&mut self) {
        let mut out = BytesMut::new();
        write_close(&mut out, Some((CloseCode::NORMAL, "")), MASK);
        self.socket.write_all(&out).unwrap();
    }

    fn take_in(&mut self, mut bytes: Vec<u8>) {
        let mut bytes = &mut bytes[..];
        while !bytes.is_empty() {
            let step = self.reader.step(bytes).expect("the server keeps to RFC 6455");
            if let Some(event) = step.event {
                self.heard.push_back(match event {
                    Event::Text(text) => Heard::Text(text.into_owned()),
                    Event::Binary(bytes) => Heard::Binary(bytes.into_owned()),
                    Event::Ping(_) => Heard::Ping,
                    Event::Pong(bytes) => Heard::Pong(bytes.into_owned()),
                    Event::Close(why) => {
                        let (code, why) = why.map(|(code, why)| (code.number(), why.into_owned())).unzip();
                        Heard::Close(code, why.unwrap_or_default())
                    }
                });
            }
            let used = step.used;
            bytes = &mut bytes[used..];
        }
    }

    /// Whatever comes next, if it comes within `within`.
    pub(crate) fn heard_within(&mut self, within: Duration) -> Option<Heard> {
        let until = Instant::now() + within;
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Some(heard);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            let mut bytes = vec![0; 64 * 1024];
            match self.socket.read(&mut bytes) {
                Ok(0) => return Some(Heard::Cut),
                Ok(n) => {
                    bytes.truncate(n);
                    self.take_in(bytes);
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(_) => return Some(Heard::Cut),
            }
        }
    }

    /// What comes next that is no ping.
    pub(crate) fn next(&mut self) -> Heard {
        let until = Instant::now() + SILENCE_MAX;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.heard_within(left).expect("something is said in time") {
                Heard::Ping => {
                    self.pings += 1;
                    if self.answers_pings {
                        self.send_frame(Opcode::Pong, b"");
                    }
                }
                heard => return heard,
            }
        }
    }

    /// The next message of the simple dialect.
    pub(crate) fn said(&mut self) -> Value {
        match self.next() {
            Heard::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?} in place of a message"),
        }
    }

    /// The next frame of `tidegate.v1`, whose place among those of its stream is checked.
    pub(crate) fn frame(&mut self) -> Value {
        let frame = self.said();
        let Some(id) = frame["id"].as_str() else { return frame };
        let (last, open) = self.streams.entry(id.to_owned()).or_default();
        match frame["type"].as_str().unwrap() {
            "stream.wait" => assert!(!*open, "{frame}"),
            "stream.open" => assert!(!std::mem::replace(open, true), "{frame}"),
            "stream.event" => {
                assert!(*open, "{frame}");
                let (first, seq) = (frame["first_seq"].as_u64().unwrap(), frame["seq"].as_u64().unwrap());
                assert!(last.is_none_or(|last| first == last + 1) && first <= seq, "{last:?} {frame}");
                *last = Some(seq);
            }
            "stream.recovered" => assert!(*open, "{frame}"),
            "stream.end" | "stream.error" => {
                assert!(last.is_none() || frame["seq"].is_null() || frame["seq"].as_u64() == *last, "{last:?} {frame}");
                self.streams.remove(id);
            }
            _ => panic!("{frame}"),
        }
        frame
    }

    /// The next frame of stream `id`; those of others are put aside.
    pub(crate) fn frame_of(&mut self, id: &str) -> Value {
        if let Some(at) = self.aside.iter().position(|frame| frame["id"] == id) {
            return self.aside.remove(at).unwrap();
        }
        loop {
            let frame = self.frame();
            if frame["id"] == id {
                return frame;
            }
            self.aside.push_back(frame);
        }
    }

    /// All frames of stream `id` to one of type `last`, that one too.
    pub(crate) fn until(&mut self, id: &str, last: &str) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            let frame = self.frame_of(id);
            let kind = frame["type"].as_str().unwrap().to_owned();
            frames.push(frame);
            if kind == last {
                return frames;
            }
            assert!(!matches!(&*kind, "stream.end" | "stream.error"), "{frames:?}");
        }
    }

    /// All frames of stream `id`, to its `stream.end`.
    pub(crate) fn whole(&mut self, id: &str) -> Vec<Value> {
        self.until(id, "stream.end")
    }

    /// The next frame of any stream, put aside ones first.
    pub(crate) fn any(&mut self) -> Value {
        self.aside.pop_front().unwrap_or_else(|| self.frame())
    }
}

/// The text that events add, of a socket's frames.
pub(crate) fn text_of(frames: &[Value]) -> String {
    frames.iter().filter_map(|frame| frame["event"]["delta"]["text"].as_str()).collect()
}

/// The machine code of a `stream.error`.
pub(crate) fn code_in(frame: &Value) -> &str {
    frame["error"]["details"]["error_code"].as_str().unwrap_or_default()
}
