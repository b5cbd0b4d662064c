//! The reader of WebSocket frames against another implementation: what both are shown, both read.
//!
//! `tungstenite` is laxer in three places (see `laxer_there`); nowhere may it refuse what we take, and
//! nowhere may the messages differ that both let through.

#![allow(clippy::unwrap_used, reason = "a broken promise stops the test")]

use bytes::BytesMut;
use proptest::prelude::*;
use std::io::{self, Read, Write};
use tidegate_wire::websocket::{Event, MessageReader, Opcode, ReadRules, Role, Violation, write_frame};
use tungstenite::protocol::{Role as TheirRole, WebSocketConfig};
use tungstenite::{Message, WebSocket};

/// What was read, in words both sides can say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

const BYTES_MAX: usize = 400;

fn ours(stream: &[u8], role: Role, piece: usize) -> (Vec<Said>, Option<Violation>) {
    let mut reader = MessageReader::new(ReadRules { role, frame_bytes_max: BYTES_MAX, message_bytes_max: BYTES_MAX });
    let mut said = Vec::new();
    for piece in stream.chunks(piece) {
        let (mut piece, mut at) = (piece.to_vec(), 0);
        while at < piece.len() {
            let step = match reader.step(&mut piece[at..]) {
                Ok(step) => step,
                Err(why) => return (said, Some(why)),
            };
            at += step.used;
            said.extend(step.event.map(|event| match event {
                Event::Text(t) => Said::Text(t.into_owned()),
                Event::Binary(b) => Said::Binary(b.into_owned()),
                Event::Ping(b) => Said::Ping(b.into_owned()),
                Event::Pong(b) => Said::Pong(b.into_owned()),
                Event::Close(c) => Said::Close(c.map(|(code, reason)| (code.number(), reason.into_owned()))),
            }));
        }
    }
    (said, None)
}

/// A socket that has sent these bytes and says no more.
struct Sent<'a>(&'a [u8]);

impl Read for Sent<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(into) }
    }
}

impl Write for Sent<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite reads, and whether it refused something.
fn theirs(stream: &[u8], role: Role) -> (Vec<Said>, bool) {
    let config = WebSocketConfig::default().max_frame_size(Some(BYTES_MAX)).max_message_size(Some(BYTES_MAX));
    let role = if role == Role::Server { TheirRole::Server } else { TheirRole::Client };
    let mut socket = WebSocket::from_raw_socket(Sent(stream), role, Some(config));
    let mut said = Vec::new();
    loop {
        said.push(match socket.read() {
            Ok(Message::Text(t)) => Said::Text(t.to_string()),
            Ok(Message::Binary(b)) => Said::Binary(b.to_vec()),
            Ok(Message::Ping(b)) => Said::Ping(b.to_vec()),
            Ok(Message::Pong(b)) => Said::Pong(b.to_vec()),
            Ok(Message::Close(c)) => Said::Close(c.map(|c| (c.code.into(), c.reason.to_string()))),
            Ok(Message::Frame(_)) => panic!("a raw frame"),
            Err(tungstenite::Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => return (said, false),
            Err(tungstenite::Error::ConnectionClosed) => return (said, false),
            Err(_) => return (said, true),
        });
        if matches!(said.last(), Some(Said::Close(_))) {
            return (said, false);
        }
    }
}

/// What we refuse and tungstenite lets through: it takes long forms of lengths, those of short
/// control frames too, and turns close codes that may not be sent into others.
fn laxer_there(why: Violation) -> bool {
    matches!(why, Violation::LengthForm | Violation::LongControl | Violation::CloseCode)
}

/// Our words as tungstenite says them: of the registered close codes it lacks 1014.
fn in_their_words(said: Said) -> Said {
    match said {
        Said::Close(Some((1014, _))) => Said::Close(Some((1002, "Protocol violation".to_owned()))),
        other => other,
    }
}

fn any_stream(masked: bool) -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        4 => "[a-zé😀]{0,30}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..6),
        1 => Just(vec![b'y'; 126]),
        1 => Just(vec![b'z'; 300]),
        1 => Just(b"\x03\xe8bye".to_vec()),
    ];
    use Opcode::{Binary, Close, Continuation, Ping, Pong, Text};
    let opcode = prop_oneof![
        4 => Just(Text), 2 => Just(Binary), 4 => Just(Continuation), 2 => Just(Ping), 2 => Just(Pong), 1 => Just(Close)
    ];
    let frame = (opcode, prop::bool::weighted(0.7), payload, any::<[u8; 4]>());
    let damage = prop::option::weighted(0.4, (any::<prop::sample::Index>(), any::<u8>()));
    (prop::collection::vec(frame, 1..8), damage).prop_map(move |(frames, damage)| {
        let mut out = BytesMut::new();
        for (opcode, fin, payload, key) in frames {
            write_frame(&mut out, opcode, fin || opcode.is_control(), masked.then_some(key), &payload);
        }
        let mut out = out.to_vec();
        if let Some((at, to)) = damage {
            let at = at.index(out.len());
            out[at] = to;
        }
        out
    })
}

fn agree(stream: &[u8], role: Role, piece: usize) -> Result<(), TestCaseError> {
    let (our_words, refused) = ours(stream, role, piece);
    let our_words: Vec<Said> = our_words.into_iter().map(in_their_words).collect();
    let (their_words, they_refused) = theirs(stream, role);
    match refused {
        None => {
            prop_assert!(!they_refused, "taken by us and refused by tungstenite after {:?}", their_words);
            prop_assert_eq!(our_words, their_words);
        }
        Some(why) => {
            // It judges a frame when all of it is there, we as soon as it can be known.
            let whole = [stream, &[0xFF; 2 * BYTES_MAX]].concat();
            prop_assert!(laxer_there(why) || theirs(&whole, role).1, "{:?} is taken by tungstenite", why);
            let common = our_words.len().min(their_words.len());
            prop_assert_eq!(&our_words[..common], &their_words[..common]);
            prop_assert!(our_words.len() <= their_words.len() || they_refused, "tungstenite is silent earlier");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_server_reads_what_tungstenite_reads(stream in any_stream(true), piece in 1usize..60) {
        agree(&stream, Role::Server, piece)?;
    }

    #[test]
    fn a_client_reads_what_tungstenite_reads(stream in any_stream(false), piece in 1usize..60) {
        agree(&stream, Role::Client, piece)?;
    }
}
