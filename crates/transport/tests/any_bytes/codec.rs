//! What must hold of the codecs whatever bytes they are given: plain functions over bytes, run by
//! proptest on stable and by the fuzzer.
//!
//! The first byte says in what pieces the rest arrives. However it arrives, the same is read; what
//! is read can be written and reads the same again.

use bytes::{Buf, BytesMut};
use std::collections::BTreeMap;
use tidegate_wire::dialect::simple::{Answer, Prompt};
use tidegate_wire::dialect::tidegate_v1::{ClientFrame, ServerFrame};
use tidegate_wire::event::{Kind, Rotten, Tap, plain_delta};
use tidegate_wire::http::{
    BodyDecoder, BodyError, BodyStep, Framing, HeadError, HeadWriter, Headers, parse_request, parse_response,
};
use tidegate_wire::sse::{Splitter, parts};
use tidegate_wire::websocket::{
    Event, MessageReader, Opcode, ReadRules, Role, Step, Violation, write_close, write_frame,
};

/// A message as it was understood: first line, header lines, body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Method and target, or the status.
    pub line: (String, String),
    /// Names and values.
    pub lines: Vec<(String, Vec<u8>)>,
    /// The body, unframed.
    pub body: Vec<u8>,
}

/// How a connection's bytes came to their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Between messages, or in the middle of one.
    OutOfBytes,
    /// The peer's last message said so.
    Closes,
    /// Not a head, or not one we accept.
    Head(HeadError),
    /// Not a body.
    Body(BodyError),
}

/// Splits off how `data` arrives: in pieces of so many bytes.
pub fn pieces(data: &[u8]) -> (usize, &[u8]) {
    match data {
        [size, rest @ ..] => (usize::from(*size).max(1), rest),
        [] => (1, data),
    }
}

fn lines(headers: &Headers) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.to_vec())).collect()
}

/// The bytes of one direction that have come and not been read.
struct Arriving<'a> {
    read: BytesMut,
    coming: std::slice::Chunks<'a, u8>,
}

impl Arriving<'_> {
    fn more(&mut self) -> bool {
        let piece = self.coming.next();
        self.read.extend_from_slice(piece.unwrap_or_default());
        piece.is_some()
    }

    fn body(&mut self, framing: Framing) -> Result<Option<Vec<u8>>, BodyError> {
        let (mut decoder, mut body) = (BodyDecoder::new(framing), Vec::new());
        loop {
            match decoder.step(&self.read)? {
                BodyStep::Data(range) => {
                    body.extend_from_slice(&self.read[range.clone()]);
                    self.read.advance(range.end);
                }
                BodyStep::End(n) => {
                    assert!(decoder.is_done(), "an end that is none");
                    self.read.advance(n);
                    return Ok(Some(body));
                }
                BodyStep::More => {
                    self.read.clear();
                    if !self.more() {
                        return decoder.closed().map(|()| Some(body)).or(Ok(None));
                    }
                }
            }
        }
    }
}

fn arriving(bytes: &[u8], piece: usize) -> Arriving<'_> {
    Arriving { read: BytesMut::new(), coming: bytes.chunks(piece) }
}

/// Every whole request in `bytes` as they come in pieces, and what came after the last.
pub fn read_requests(bytes: &[u8], piece: usize) -> (Vec<Message>, End) {
    let (mut come, mut found) = (arriving(bytes, piece), Vec::new());
    loop {
        let head = match parse_request(&mut come.read) {
            Ok(Some(head)) => head,
            Ok(None) if come.more() => continue,
            Ok(None) => return (found, End::OutOfBytes),
            Err(e) => return (found, End::Head(e)),
        };
        match come.body(head.framing) {
            Ok(Some(body)) => found.push(Message {
                line: (head.method().to_owned(), head.target().to_owned()),
                lines: lines(&head.headers),
                body,
            }),
            Ok(None) => return (found, End::OutOfBytes),
            Err(e) => return (found, End::Body(e)),
        }
        if !head.keeps_alive() {
            return (found, End::Closes);
        }
    }
}

fn read_answers(bytes: &[u8], piece: usize, to_head: bool) -> (Vec<Message>, End) {
    let (mut come, mut found) = (arriving(bytes, piece), Vec::new());
    loop {
        let head = match parse_response(&mut come.read, to_head) {
            Ok(Some(head)) => head,
            Ok(None) if come.more() => continue,
            Ok(None) => return (found, End::OutOfBytes),
            Err(e) => return (found, End::Head(e)),
        };
        match come.body(head.framing) {
            Ok(Some(body)) => {
                let line = (head.status.to_string(), String::new());
                found.push(Message { line, lines: lines(&head.headers), body });
            }
            Ok(None) => return (found, End::OutOfBytes),
            Err(e) => return (found, End::Body(e)),
        }
        if !head.keeps_alive() {
            return (found, End::Closes);
        }
    }
}

/// No byte of a head's values may end its line.
fn nothing_breaks_out(message: &Message) {
    let breaks = |b: &u8| matches!(*b, b'\r' | b'\n' | 0);
    for (name, value) in &message.lines {
        assert!(!name.is_empty() && !name.bytes().any(|b| b <= b' ' || b == b':' || b >= 0x7f), "a name: {name:?}");
        assert!(!value.iter().any(breaks), "a value of `{name}`");
    }
    let (method, target) = &message.line;
    assert!(!method.bytes().chain(target.bytes()).any(|b| b <= b' '), "a first line: {method:?} {target:?}");
}

/// Bytes that a client may send: heads, bodies, requests one after another.
pub fn requests(data: &[u8]) {
    let (piece, bytes) = pieces(data);
    let (found, end) = read_requests(bytes, bytes.len().max(1));
    assert_eq!(
        (&found, &end),
        (&read_requests(bytes, piece).0, &read_requests(bytes, piece).1),
        "in pieces of {piece}"
    );
    for message in found {
        nothing_breaks_out(&message);
        if !message.lines.iter().any(|(name, _)| name == "host") {
            // Good in HTTP/1.0; what is written is HTTP/1.1.
            continue;
        }
        let mut again = BytesMut::new();
        let mut head = HeadWriter::request(&mut again, &message.line.0, &message.line.1);
        for (name, value) in &message.lines {
            head.header(name, value);
        }
        head.end();
        let head = parse_request(&mut again).expect("what was read can be sent").expect("whole");
        assert_eq!((head.method(), head.target()), (message.line.0.as_str(), message.line.1.as_str()));
        assert_eq!(lines(&head.headers), message.lines);
    }
}

/// Bytes that an upstream may answer with, to `HEAD` or to another method.
pub fn answers(data: &[u8]) {
    let (piece, bytes) = pieces(data);
    let to_head = piece.is_multiple_of(5);
    let (found, end) = read_answers(bytes, bytes.len().max(1), to_head);
    let (again, ended) = read_answers(bytes, piece, to_head);
    assert_eq!((&found, &end), (&again, &ended), "in pieces of {piece}");
    for message in found {
        nothing_breaks_out(&message);
        assert!(!to_head || message.body.is_empty(), "an answer to HEAD has no body");
    }
}

/// What a tap thought of each event, and what the events said.
type Heard = (Vec<Result<Kind, Rotten>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn hear(bytes: &[u8], piece: usize) -> Heard {
    let (mut splitter, mut tap) = (Splitter::new(), Tap::new());
    let (mut kinds, mut said) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        let fed = splitter.feed(piece, |event| {
            if plain_delta(event).is_some() {
                plain_is_plain(event);
            }
            kinds.push(tap.see(event));
            let parts = parts(event);
            said.push((parts.name.to_vec(), parts.data.map(|data| data.to_vec())));
        });
        assert!(fed.is_ok() || bytes.len() > 1 << 20, "an event that is too large among {} bytes", bytes.len());
    }
    (kinds, said)
}

/// What the tap takes for a usual delta without parsing it is JSON, and is one.
fn plain_is_plain(event: &[u8]) {
    let parts = parts(event);
    assert_eq!(parts.name, b"content_block_delta");
    let data = parts.data.expect("a delta has data");
    let raw: &serde_json::value::RawValue = serde_json::from_slice(&data).expect("a usual delta is JSON");
    // Half of a surrogate pair is JSON (RFC 8259 section 8.2), although not every parser has a string for it.
    let Ok(json) = serde_json::from_str::<serde_json::Value>(raw.get()) else { return };
    assert_eq!(json["type"], "content_block_delta");
    assert!(json["index"].is_u64() && json["delta"]["type"].is_string(), "{json}");
}

/// Bytes that an upstream's stream may consist of.
pub fn events(data: &[u8]) {
    let (piece, bytes) = pieces(data);
    assert_eq!(hear(bytes, bytes.len().max(1)), hear(bytes, piece), "in pieces of {piece}");
}

/// What came of frames, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framed {
    /// A message or a control frame's payload.
    Data(Opcode, Vec<u8>),
    /// A last word.
    Close(Option<(u16, String)>),
}

/// The most a frame and a message may have here: less than the fuzzer usually sends.
const FRAME_BYTES_MAX: usize = 700;
const MESSAGE_BYTES_MAX: usize = 1000;

/// How frames came to their end: what was wrong, or whether they end in a close or inside something.
type FramesEnd = Result<(bool, bool), Violation>;

fn read_frames(bytes: &[u8], piece: usize, role: Role) -> (Vec<Framed>, FramesEnd) {
    let rules = ReadRules { role, frame_bytes_max: FRAME_BYTES_MAX, message_bytes_max: MESSAGE_BYTES_MAX };
    let (mut reader, mut found) = (MessageReader::new(rules), Vec::new());
    for piece in bytes.chunks(piece) {
        let (mut piece, mut at) = (piece.to_vec(), 0);
        let end = piece.len();
        while at < end {
            let Step { used, event } = match reader.step(&mut piece[at..]) {
                Ok(step) => step,
                Err(why) => return (found, Err(why)),
            };
            assert!(event.is_some() || at + used == end, "bytes are left and nothing is told");
            at += used;
            found.extend(event.map(|event| match event {
                Event::Text(text) => Framed::Data(Opcode::Text, text.into_owned().into_bytes()),
                Event::Binary(bytes) => Framed::Data(Opcode::Binary, bytes.into_owned()),
                Event::Ping(bytes) => Framed::Data(Opcode::Ping, bytes.into_owned()),
                Event::Pong(bytes) => Framed::Data(Opcode::Pong, bytes.into_owned()),
                Event::Close(why) => Framed::Close(why.map(|(code, reason)| (code.number(), reason.into_owned()))),
            }));
            assert!(reader.held() <= MESSAGE_BYTES_MAX + 256, "{} bytes are held", reader.held());
            assert!(reader.is_inside_message() || reader.held() == 0, "something is held between messages");
        }
    }
    (found, Ok((reader.is_over(), reader.is_inside_message())))
}

/// Bytes that the peer of a WebSocket may send, to a server or to a client.
pub fn frames(data: &[u8]) {
    let (piece, bytes) = pieces(data);
    let role = if piece.is_multiple_of(3) { Role::Client } else { Role::Server };
    let (found, end) = read_frames(bytes, bytes.len().max(1), role);
    assert_eq!((&found, &end), (&read_frames(bytes, piece, role).0, &read_frames(bytes, piece, role).1));
    let key = (role == Role::Server).then_some([1, 0, 0xFF, 0x80]);
    for framed in found {
        let mut again = BytesMut::new();
        match &framed {
            Framed::Data(opcode, payload) => write_frame(&mut again, *opcode, true, key, payload),
            Framed::Close(None) => write_close(&mut again, None, key),
            Framed::Close(Some((code, reason))) => {
                let code = tidegate_wire::websocket::CloseCode::new(*code).expect("what was read may be sent");
                write_close(&mut again, Some((code, reason)), key);
            }
        }
        let whole = again.len() <= FRAME_BYTES_MAX;
        assert!(!whole || read_frames(&again, piece, role).0 == [framed], "what was read can be sent");
    }
}

/// A message of text that either side may send in either dialect: what is read of it can be written
/// and reads the same.
pub fn dialects(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("frames are text")
    };
    if let Ok(frame) = ClientFrame::read(text) {
        assert_eq!(ClientFrame::read(&written(&|out| frame.write(out))).as_ref(), Ok(&frame));
    }
    if let Ok(Some(frame)) = ServerFrame::read(text) {
        let again = written(&|out| frame.write(out));
        let again = ServerFrame::read(&again).expect("what was read can be sent").expect("of the same type");
        assert_eq!(once_each(again), once_each(frame));
    }
    if let Ok(prompt) = Prompt::read(text) {
        assert_eq!(Prompt::read(&written(&|out| prompt.write(out))).as_ref(), Ok(&prompt));
    }
    if let Ok(Some(answer)) = Answer::read(text) {
        assert_eq!(Answer::read(&written(&|out| answer.write(out))).as_ref(), Ok(&Some(answer)));
    }
}

/// Header lines have no order, and of a name that is there twice the last line counts.
fn once_each(frame: ServerFrame<'_>) -> ServerFrame<'_> {
    match frame {
        ServerFrame::Open { id, stream, headers } => {
            let headers: BTreeMap<_, _> = headers.into_iter().collect();
            ServerFrame::Open { id, stream, headers: headers.into_iter().collect() }
        }
        other => other,
    }
}
