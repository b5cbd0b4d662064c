//! A client's opening of a WebSocket on a connection: asks, judges the answer, and has a [`Socket`].
//!
//! For clients that open one socket and speak on it: the bench and the conformance tests. Which
//! sockets are kept, for how long and for whom, is not known here.

use super::{Socket, SocketRules};
use crate::client_error::{ClientError, SendEnd};
use crate::clock::Clock;
use crate::http1::ClientConn;
use crate::io::BoxIo;
use bytes::{Bytes, BytesMut};
use std::fmt;
use tidegate_base::Prng;
use tidegate_wire::websocket::handshake::{self, BadAnswer, check_answer};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'o> {
    /// The `host` line.
    pub host: &'o str,
    /// Path and query.
    pub target: &'o str,
    /// Subprotocols offered, the one liked best first. The server has to choose one of them.
    pub subprotocols: &'o [&'o str],
    /// Further lines, credentials for example.
    pub lines: &'o [(&'o str, &'o [u8])],
}

/// Why there is no socket.
#[derive(Debug)]
pub enum OpenError {
    /// The connection broke before it was one.
    Broken(ClientError),
    /// The answer opens nothing.
    Answer(BadAnswer),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Broken(e) => write!(f, "{e}"),
            OpenError::Answer(e) => write!(f, "{e}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Opens a WebSocket on `io`. `prng` makes the proof's key and the masks. No clock runs here: the
/// caller says how long it waits.
pub async fn open(
    io: BoxIo,
    asked: &Opening<'_>,
    rules: SocketRules,
    clock: Clock,
    mut prng: Prng,
) -> Result<Socket, OpenError> {
    let mut nonce = [0; 16];
    nonce.chunks_mut(8).for_each(|part| part.copy_from_slice(&prng.next_u64().to_ne_bytes()));
    let Opening { host, target, subprotocols, lines } = *asked;
    let opening = handshake::Opening { host, target, subprotocols, nonce };
    let mut text = BytesMut::new();
    let mut head = handshake::request(&mut text, &opening);
    for (name, value) in lines {
        head.header(name, value);
    }
    head.end();
    let mut conn = ClientConn::new(io);
    let sent = conn.send(text, Bytes::new(), || {}).await.map_err(OpenError::Broken)?;
    let answer = conn.read_head(false, sent == SendEnd::Whole).await.map_err(OpenError::Broken)?;
    let chosen = check_answer(&answer, &opening).map_err(OpenError::Answer)?;
    // What was offered is what the caller will speak; a server that chose nothing speaks something else.
    if chosen.is_none() && !subprotocols.is_empty() {
        return Err(OpenError::Answer(BadAnswer::Subprotocol));
    }
    let (io, early) = conn.into_parts();
    Ok(Socket::new(io, early, rules, clock, prng))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]
mod tests {
    use super::*;
    use crate::memory::pipe;
    use crate::websocket::Message;
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;
    use tidegate_base::Moment;
    use tidegate_wire::http::parse_request;
    use tidegate_wire::websocket::handshake::{Origins, ServerRules, accept, answer};
    use tidegate_wire::websocket::{Opcode, ReadRules, Role, write_frame};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const READ: ReadRules = ReadRules { role: Role::Client, frame_bytes_max: 1024, message_bytes_max: 1024 };
    const RULES: SocketRules = SocketRules { read: READ, ping: Duration::from_secs(15), close: Duration::from_secs(5) };

    /// What `asked` comes to at a server that speaks `spoken` and says `hi` at once.
    async fn check(asked: &Opening<'_>, spoken: &[&str]) -> Result<String, String> {
        let clock = Clock::real();
        let (ours, mut theirs) = pipe();
        let serve = async {
            let mut text = BytesMut::new();
            let head = loop {
                theirs.read_buf(&mut text).await.unwrap();
                if let Some(head) = parse_request(&mut text).unwrap() {
                    break head;
                }
            };
            let accepted = accept(&head, &ServerRules { subprotocols: spoken, origins: Origins::Any });
            let mut out = BytesMut::new();
            match accepted {
                Ok(accepted) => {
                    answer(&mut out, &accepted).end();
                    // In the same write: what came behind the handshake is not lost.
                    write_frame(&mut out, Opcode::Text, true, None, b"hi");
                }
                Err(_) => out.extend_from_slice(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
            }
            theirs.write_all(&out).await.unwrap();
            (head.headers.text("x-api-key").map(str::to_owned), theirs)
        };
        let (opened, (key, _theirs)) = tokio::join!(open(ours, asked, RULES, clock, Prng::new(1)), serve);
        let mut socket = opened.map_err(|e| e.to_string())?;
        assert_eq!(key.as_deref(), Some("sk"));
        let mut said = String::new();
        poll_fn(|cx| {
            let over = socket.poll(cx, true, Moment::NEVER, &mut |message| {
                if let Message::Text(text) = message {
                    said.push_str(text);
                }
            });
            assert!(over.is_pending());
            if said.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        Ok(said)
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_is_opened_with_what_was_asked_for_or_not_at_all() {
        const LINES: [(&str, &[u8]); 1] = [("x-api-key", b"sk")];
        let asked = |subprotocols| Opening { host: "a", target: "/v1/stream", subprotocols, lines: &LINES };
        assert_eq!(check(&asked(&["tidegate.v1"]), &["tidegate.v1"]).await.as_deref(), Ok("hi"));
        assert_eq!(check(&asked(&[]), &["tidegate.v1"]).await.as_deref(), Ok("hi"));
        let refused = check(&asked(&["other"]), &["tidegate.v1"]).await.unwrap_err();
        assert!(refused.contains("404"), "{refused}");
    }
}
