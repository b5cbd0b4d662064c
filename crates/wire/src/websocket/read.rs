//! Bytes in whatever pieces the network made of them, to whole messages and control frames.
//!
//! [`MessageReader::step`] is shown what a read brought, in the caller's own buffer, and takes bytes
//! until it has something to tell. A message that came in one piece is unmasked in place and lent;
//! only what a piece's end has cut is copied. Between messages nothing is held but the few bytes of
//! a head that is not whole: a buffer per thread serves any number of idle connections.
//!
//! Limits are looked at when a frame's head is there, before any of its payload is kept; what is
//! kept grows with what has come, never with what was announced.

use super::frame::{Head, read_head};
use super::mask::mask;
use super::utf8::Utf8;
use super::{CloseCode, FRAME_HEAD_BYTES_MAX, Opcode, Violation};
use std::borrow::Cow;
use std::ops::Range;

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that was asked: reads masked frames, writes bare ones.
    Server,
    /// The one that asked: reads bare frames, writes masked ones.
    Client,
}

/// What a reader takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRules {
    /// Which end reads.
    pub role: Role,
    /// The most payload bytes of one data frame.
    pub frame_bytes_max: usize,
    /// The most bytes of one message, all of its frames together.
    pub message_bytes_max: usize,
}

/// What has come, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message of text.
    Text(Cow<'a, str>),
    /// A message of bytes.
    Binary(Cow<'a, [u8]>),
    /// The peer asks for a sign of life: the same bytes in a pong.
    Ping(Cow<'a, [u8]>),
    /// The peer's sign of life.
    Pong(Cow<'a, [u8]>),
    /// The peer's last word, with its code and reason if it gave any. Nothing is read after it.
    Close(Option<(CloseCode, Cow<'a, str>)>),
}

/// What [`MessageReader::step`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// So many bytes were taken; they are not shown again.
    pub used: usize,
    /// What is whole now. `None` means that all bytes were taken and more are needed.
    pub event: Option<Event<'a>>,
}

/// The data frame or control frame under way.
#[derive(Clone, Copy, Debug)]
struct Frame {
    head: Head,
    left: u64,
    /// Payload bytes that have come: where the masking key stands.
    come: usize,
}

/// The message under way.
#[derive(Clone, Debug)]
struct Message {
    text: bool,
    bytes: Vec<u8>,
    utf8: Utf8,
}

/// What a piece brought to its end.
enum Whole {
    Control(Opcode, Range<usize>),
    Message(Range<usize>),
}

/// Reads one direction of a connection.
#[derive(Clone, Debug)]
pub struct MessageReader {
    rules: ReadRules,
    head: [u8; FRAME_HEAD_BYTES_MAX],
    head_bytes: usize,
    frame: Option<Frame>,
    message: Option<Message>,
    control: Vec<u8>,
    over: bool,
}

impl MessageReader {
    /// A reader at the beginning of a connection, after the handshake.
    pub fn new(rules: ReadRules) -> Self {
        MessageReader {
            rules,
            head: [0; FRAME_HEAD_BYTES_MAX],
            head_bytes: 0,
            frame: None,
            message: None,
            control: Vec::new(),
            over: false,
        }
    }

    /// Memory held for a message or a frame that is not whole, bytes.
    pub fn held(&self) -> usize {
        self.message.as_ref().map_or(0, |m| m.bytes.capacity()) + self.control.capacity()
    }

    /// Whether a message has begun and not ended. A connection that ends here was cut.
    pub fn is_inside_message(&self) -> bool {
        self.message.is_some() || self.frame.is_some() || self.head_bytes > 0
    }

    /// Whether the peer has said its last word, or broke the rules.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Takes bytes until something is whole or none are left. What is taken is changed: it is
    /// unmasked where it stands.
    pub fn step<'a>(&mut self, bytes: &'a mut [u8]) -> Result<Step<'a>, Violation> {
        let (used, whole) = self.take(bytes).inspect_err(|_| self.end())?;
        let event = match whole {
            None => None,
            Some(Whole::Control(opcode, at)) => {
                Some(self.control_event(opcode, &bytes[at]).inspect_err(|_| self.end())?)
            }
            Some(Whole::Message(at)) => Some(self.message_event(&bytes[at]).inspect_err(|_| self.end())?),
        };
        Ok(Step { used, event })
    }

    /// Nothing is read any more, and nothing held.
    fn end(&mut self) {
        *self = MessageReader { over: true, ..MessageReader::new(self.rules) };
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(usize, Option<Whole>), Violation> {
        if self.over {
            return Ok((bytes.len(), None));
        }
        let mut used = 0;
        loop {
            let Some(mut frame) = self.frame else {
                used += self.take_head(&bytes[used..])?;
                if self.frame.is_none() {
                    return Ok((used, None));
                }
                continue;
            };
            let here = usize::try_from(frame.left).map_or(bytes.len() - used, |left| left.min(bytes.len() - used));
            let at = used..used + here;
            used += here;
            if let Some(key) = frame.head.key {
                mask(&mut bytes[at.clone()], key, frame.come);
            }
            frame.come += here;
            frame.left -= here as u64;
            let ended = frame.left == 0;
            self.frame = (!ended).then_some(frame);
            if frame.head.opcode.is_control() {
                if ended {
                    return Ok((used, Some(Whole::Control(frame.head.opcode, at))));
                }
                self.control.extend_from_slice(&bytes[at]);
            } else if ended && frame.head.fin {
                return Ok((used, Some(Whole::Message(at))));
            } else {
                self.keep(&bytes[at], frame)?;
            }
            if used == bytes.len() {
                return Ok((used, None));
            }
        }
    }

    /// Takes what belongs to a frame's head; once it is whole, the frame is under way.
    fn take_head(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let masked = self.rules.role == Role::Server;
        let held = self.head_bytes;
        let (head, size) = if held == 0 {
            // The usual way: all of it is there.
            let Some(found) = read_head(bytes, masked)? else {
                self.head[..bytes.len()].copy_from_slice(bytes);
                self.head_bytes = bytes.len();
                return Ok(bytes.len());
            };
            found
        } else {
            let more = bytes.len().min(FRAME_HEAD_BYTES_MAX - held);
            self.head[held..held + more].copy_from_slice(&bytes[..more]);
            let Some(found) = read_head(&self.head[..held + more], masked)? else {
                self.head_bytes = held + more;
                return Ok(more);
            };
            found
        };
        self.head_bytes = 0;
        self.begin(head)?;
        Ok(size - held)
    }

    fn begin(&mut self, head: Head) -> Result<(), Violation> {
        if !head.opcode.is_control() {
            match (head.opcode, &self.message) {
                (Opcode::Continuation, None) => return Err(Violation::NothingToContinue),
                (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::Interleaved),
                _ => {}
            }
            let before = self.message.as_ref().map_or(0, |m| m.bytes.len());
            let room = self.rules.frame_bytes_max.min(self.rules.message_bytes_max - before);
            if head.length > room as u64 {
                return Err(Violation::TooBig);
            }
            if self.message.is_none() {
                let text = head.opcode == Opcode::Text;
                self.message = Some(Message { text, bytes: Vec::new(), utf8: Utf8::default() });
            }
        }
        self.frame = Some(Frame { head, left: head.length, come: 0 });
        Ok(())
    }

    /// Keeps a part of a message that goes on, in this `frame` or in another one.
    fn keep(&mut self, part: &[u8], frame: Frame) -> Result<(), Violation> {
        let Some(message) = &mut self.message else { return Ok(()) };
        if message.text && !message.utf8.feed(part) {
            return Err(Violation::NotText);
        }
        if message.bytes.capacity() - message.bytes.len() < part.len() {
            // Twice as much as there is, as usual, so that fragments of a byte do not copy the message
            // once each; but not past the end, where it is known.
            let come = message.bytes.len() + part.len();
            let room = if frame.head.fin { frame.left } else { (self.rules.message_bytes_max - come) as u64 };
            let ahead = usize::try_from(room).unwrap_or(usize::MAX).min(message.bytes.len());
            message.bytes.reserve_exact(part.len() + ahead);
        }
        message.bytes.extend_from_slice(part);
        Ok(())
    }

    fn message_event<'a>(&mut self, last: &'a [u8]) -> Result<Event<'a>, Violation> {
        let Some(mut message) = self.message.take() else { return Err(Violation::NothingToContinue) };
        if message.bytes.is_empty() {
            return Ok(match message.text {
                true => Event::Text(Cow::Borrowed(std::str::from_utf8(last).map_err(|_| Violation::NotText)?)),
                false => Event::Binary(Cow::Borrowed(last)),
            });
        }
        message.bytes.reserve_exact(last.len());
        message.bytes.extend_from_slice(last);
        Ok(match message.text {
            true => Event::Text(Cow::Owned(String::from_utf8(message.bytes).map_err(|_| Violation::NotText)?)),
            false => Event::Binary(Cow::Owned(message.bytes)),
        })
    }

    fn control_event<'a>(&mut self, opcode: Opcode, last: &'a [u8]) -> Result<Event<'a>, Violation> {
        let mut held = std::mem::take(&mut self.control);
        let payload = if held.is_empty() {
            Cow::Borrowed(last)
        } else {
            held.extend_from_slice(last);
            Cow::Owned(held)
        };
        Ok(match opcode {
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            _ => {
                let close = Event::Close(close(payload)?);
                self.end();
                close
            }
        })
    }
}

/// The code and reason of a close frame's payload.
fn close(payload: Cow<'_, [u8]>) -> Result<Option<(CloseCode, Cow<'_, str>)>, Violation> {
    let code = match *payload {
        [] => return Ok(None),
        [_] => return Err(Violation::HalfCloseCode),
        [a, b, ..] => CloseCode::new(u16::from_be_bytes([a, b])).ok_or(Violation::CloseCode)?,
    };
    let reason = match payload {
        Cow::Borrowed(p) => Cow::Borrowed(std::str::from_utf8(&p[2..]).map_err(|_| Violation::NotText)?),
        Cow::Owned(mut p) => Cow::Owned(String::from_utf8(p.split_off(2)).map_err(|_| Violation::NotText)?),
    };
    Ok(Some((code, reason)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::{write_close, write_frame};
    use bytes::BytesMut;

    const RULES: ReadRules = ReadRules { role: Role::Server, frame_bytes_max: 1000, message_bytes_max: 1500 };
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn owned(event: Event<'_>) -> Event<'static> {
        match event {
            Event::Text(t) => Event::Text(Cow::Owned(t.into_owned())),
            Event::Binary(b) => Event::Binary(Cow::Owned(b.into_owned())),
            Event::Ping(b) => Event::Ping(Cow::Owned(b.into_owned())),
            Event::Pong(b) => Event::Pong(Cow::Owned(b.into_owned())),
            Event::Close(c) => Event::Close(c.map(|(code, reason)| (code, Cow::Owned(reason.into_owned())))),
        }
    }

    /// What a reader makes of `stream` in pieces, and how it ends.
    fn check(stream: &[u8], piece: usize) -> (Vec<Event<'static>>, Result<MessageReader, Violation>) {
        let (mut reader, mut events) = (MessageReader::new(RULES), Vec::new());
        for piece in stream.chunks(piece.max(1)) {
            let mut piece = piece.to_vec();
            let (mut at, end) = (0, piece.len());
            while at < end {
                match reader.step(&mut piece[at..]) {
                    Ok(Step { used, event }) => {
                        assert!(event.is_some() || at + used == end, "bytes are left and nothing is told");
                        at += used;
                        events.extend(event.map(owned));
                    }
                    Err(why) => return (events, Err(why)),
                }
            }
        }
        (events, Ok(reader))
    }

    fn frames(frames: &[(Opcode, bool, &[u8])]) -> BytesMut {
        let mut out = BytesMut::new();
        for (opcode, fin, payload) in frames {
            write_frame(&mut out, *opcode, *fin, Some(KEY), payload);
        }
        out
    }

    fn text(text: &str) -> Event<'_> {
        Event::Text(Cow::Borrowed(text))
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 6455 section 5.7: a masked "Hello".
        assert_eq!(check(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", 99).0, [text("Hello")]);
        let mut client = MessageReader::new(ReadRules { role: Role::Client, ..RULES });
        let mut bare = *b"\x01\x03Hel\x80\x02lo\x89\x05Hello";
        let step = client.step(&mut bare).unwrap();
        assert_eq!((step.used, step.event), (9, Some(text("Hello"))));
        assert_eq!(client.step(&mut bare[9..]).unwrap().event, Some(Event::Ping(b"Hello".into())));
    }

    #[test]
    fn control_frames_may_come_between_fragments() {
        let stream = frames(&[
            (Opcode::Text, false, "h\u{e9}".as_bytes()),
            (Opcode::Ping, true, b"?"),
            (Opcode::Continuation, false, b""),
            (Opcode::Pong, true, b""),
            (Opcode::Continuation, true, b"!"),
        ]);
        for piece in 1..stream.len() {
            let want = [Event::Ping(b"?".into()), Event::Pong(b"".into()), text("hé!")];
            let (events, reader) = check(&stream, piece);
            assert_eq!(events, want, "in pieces of {piece}");
            assert_eq!(reader.unwrap().held(), 0, "nothing is held between messages");
        }
    }

    #[test]
    fn nothing_is_read_after_a_close() {
        let mut stream = BytesMut::new();
        write_close(&mut stream, Some((CloseCode::GOING_AWAY, "bye")), Some(KEY));
        stream.extend_from_slice(b"\xFF\xFF garbage");
        for piece in [1, 4, 99] {
            let (events, reader) = check(&stream, piece);
            assert_eq!(events, [Event::Close(Some((CloseCode::GOING_AWAY, "bye".into())))]);
            assert!(reader.unwrap().is_over());
        }
    }

    #[test]
    fn every_broken_rule_has_its_name() {
        use Opcode::{Binary, Close, Continuation, Text};
        use Violation::{HalfCloseCode, Interleaved, NotText, NothingToContinue, TooBig};
        let long = vec![b'x'; 1001];
        let half = vec![b'x'; 800];
        for (stream, why) in [
            (frames(&[(Continuation, true, b"x")]), NothingToContinue),
            (frames(&[(Text, false, b"x"), (Text, true, b"y")]), Interleaved),
            (frames(&[(Text, false, b"x"), (Binary, true, b"y")]), Interleaved),
            (frames(&[(Close, true, b"x")]), HalfCloseCode),
            (frames(&[(Close, true, b"\x03\xed")]), Violation::CloseCode),
            (frames(&[(Close, true, b"\x03\xe8\xff")]), NotText),
            (frames(&[(Text, true, b"\xff")]), NotText),
            (frames(&[(Text, false, b"\xce"), (Continuation, true, b"x")]), NotText),
            (frames(&[(Text, false, b"\xce"), (Continuation, true, b"")]), NotText),
            (frames(&[(Binary, true, &long)]), TooBig),
            (frames(&[(Binary, false, &half), (Continuation, true, &half)]), TooBig),
        ] {
            for piece in [1, 3, stream.len()] {
                assert_eq!(check(&stream, piece).1.err(), Some(why), "{why:?} in pieces of {piece}");
            }
        }
        assert_eq!((NotText.close_code().number(), TooBig.close_code().number()), (1007, 1009));
        assert_eq!(Interleaved.close_code().number(), 1002);
    }

    #[test]
    fn text_is_refused_at_its_first_wrong_byte() {
        // Autobahn's 6.4: the frame is far from whole.
        let mut stream = frames(&[(Opcode::Text, false, b"ab\xF4\x90\x80\x80"), (Opcode::Continuation, true, b"cd")]);
        let _ = stream.split_off(6 + 4);
        assert_eq!(check(&stream, 1).1.err(), Some(Violation::NotText));
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let head = b"\x82\xfe\x03\xe8\0\0\0\0abc";
        let reader = check(head, 99).1.unwrap();
        assert!(reader.is_inside_message() && reader.held() < 64, "{} bytes are held", reader.held());
    }

    #[test]
    fn fragments_of_a_byte_do_not_move_the_message_once_each() {
        let byte = frames(&[(Opcode::Continuation, false, b"x")]);
        let mut stream = frames(&[(Opcode::Binary, false, b"x")]);
        (1..1499).for_each(|_| stream.extend_from_slice(&byte));
        let mut reader = MessageReader::new(RULES);
        let (mut held, mut moves) = (0, 0);
        for piece in stream.chunks_mut(byte.len()) {
            assert_eq!(reader.step(piece).unwrap().event, None);
            moves += usize::from(reader.held() != held);
            held = reader.held();
        }
        assert!(moves <= 12 && held <= RULES.message_bytes_max, "moved {moves} times, {held} bytes held");
    }

    fn any_frame() -> impl proptest::strategy::Strategy<Value = (u8, bool, Vec<u8>)> {
        use proptest::prelude::*;
        let payload = prop_oneof![
            "[a-zé😀]{0,40}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..4),
            Just(vec![b'x'; 300]),
        ];
        (prop_oneof![0u8..3, 8u8..11, any::<u8>()], prop::bool::weighted(0.7), payload)
    }

    proptest::proptest! {
        #[test]
        fn pieces_never_change_what_is_read(
            list in proptest::collection::vec(any_frame(), 0..8),
            piece in 1usize..40,
            wrong: Option<(usize, u8)>,
        ) {
            let mut stream = Vec::new();
            for (opcode, fin, payload) in list {
                let mut out = BytesMut::new();
                write_frame(&mut out, Opcode::of(opcode & 0xF).unwrap_or(Opcode::Ping), fin, Some(KEY), &payload);
                stream.extend_from_slice(&out);
            }
            if let (Some((at, to)), false) = (wrong, stream.is_empty()) {
                let at = at % stream.len();
                stream[at] = to;
            }
            let (whole, pieces) = (check(&stream, stream.len()), check(&stream, piece));
            let end = |end: &Result<MessageReader, Violation>| end.as_ref().map(|r| (r.is_over(), r.is_inside_message())).map_err(|e| *e);
            proptest::prop_assert_eq!(whole.0, pieces.0);
            proptest::prop_assert_eq!(end(&whole.1), end(&pieces.1));
        }
    }
}
