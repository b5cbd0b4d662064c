//! A WebSocket's two ends over a pipe: what was said before something went wrong is answered first.

#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

use bytes::BytesMut;
use std::future::poll_fn;
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_transport::websocket::{Message, Over, Socket, SocketRules};
use tidegate_transport::{Clock, pipe};
use tidegate_wire::websocket::{MessageReader, Opcode, ReadRules, Role, write_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BYTES_MAX: usize = 1024;

fn rules(role: Role) -> ReadRules {
    ReadRules { role, frame_bytes_max: BYTES_MAX, message_bytes_max: BYTES_MAX }
}

/// A server that sends back what it is told, until its socket is over.
async fn echo(mut socket: Socket) -> Over {
    let over = poll_fn(|cx| {
        loop {
            let mut heard = Vec::new();
            let over = socket.poll(cx, true, Moment::NEVER, &mut |message| {
                if let Message::Text(text) = message {
                    heard.push(text.to_owned());
                }
            });
            if heard.is_empty() || over.is_ready() {
                return over;
            }
            heard.iter().for_each(|text| socket.send(text.as_bytes()));
        }
    })
    .await;
    socket.end(&over).await;
    over
}

/// What a client that sends `bytes` at once is told, frame by frame, and how it was for the server.
async fn told(bytes: &[u8]) -> (Vec<String>, Over) {
    let (ours, mut theirs) = pipe();
    let socket_rules =
        SocketRules { read: rules(Role::Server), ping: Duration::from_secs(15), close: Duration::from_secs(5) };
    let socket = Socket::new(ours, BytesMut::new(), socket_rules, Clock::real(), Prng::new(1));
    let client = async {
        theirs.write_all(bytes).await.unwrap();
        let mut said = Vec::new();
        theirs.read_to_end(&mut said).await.unwrap();
        let (mut reader, mut frames, mut rest) = (MessageReader::new(rules(Role::Client)), Vec::new(), &mut said[..]);
        while !rest.is_empty() {
            let step = reader.step(rest).unwrap();
            frames.extend(step.event.map(|event| format!("{event:?}")));
            let used = step.used;
            rest = &mut rest[used..];
        }
        frames
    };
    let (over, frames) = tokio::join!(echo(socket), client);
    (frames, over)
}

fn text(out: &mut BytesMut, said: &str) {
    write_frame(out, Opcode::Text, true, Some([1, 2, 3, 4]), said.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_a_rule_was_broken_is_answered_first() {
    let mut bytes = BytesMut::new();
    text(&mut bytes, "one");
    text(&mut bytes, "two");
    let good = bytes.len();
    text(&mut bytes, "bad");
    // A reserved bit.
    bytes[good] |= 0x40;
    let (frames, over) = told(&bytes).await;
    assert!(matches!(over, Over::Violation(_)), "{over:?}");
    assert_eq!(frames.len(), 3, "{frames:?}");
    assert!(frames[0].contains("one") && frames[1].contains("two") && frames[2].contains("1002"), "{frames:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_breaks_a_rule_with_its_first_word_is_told_so_at_once() {
    let mut bytes = BytesMut::new();
    text(&mut bytes, "bad");
    bytes[0] |= 0x40;
    text(&mut bytes, "never heard");
    let (frames, over) = told(&bytes).await;
    assert!(matches!(over, Over::Violation(_)), "{over:?}");
    assert!(frames.len() == 1 && frames[0].contains("1002"), "{frames:?}");
}
