//! One connection of a reader: over SSE or a WebSocket, from a stream's beginning or from a cursor.

use super::told::{End, Told};
use super::{Load, Way};
use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_transport::http1::ClientConn;
use tidegate_transport::websocket::{Message, Opening, Over, Socket, SocketRules, open};
use tidegate_wire::dialect::tidegate_v1::{ClientFrame, Create, SUBPROTOCOL, ServerFrame};
use tidegate_wire::http::{HeadWriter, Headers, ResponseHead};
use tidegate_wire::sse::{Splitter, parts};
use tidegate_wire::websocket::{ReadRules, Role};

const MESSAGE_BYTES_MAX: usize = (16 << 20) + (64 << 10);
const RULES: SocketRules = SocketRules {
    read: ReadRules { role: Role::Client, frame_bytes_max: MESSAGE_BYTES_MAX, message_bytes_max: MESSAGE_BYTES_MAX },
    ping: Duration::from_secs(15),
    close: Duration::from_secs(5),
};
/// The most of an answer that is no stream.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// The name of the stream on its socket.
const ID: &str = "a";

/// What is asked for.
pub(super) enum Wish<'w> {
    /// A new stream.
    Begin,
    /// What comes after a cursor, or all of it.
    Resume { stream: &'w str, after: Option<&'w str> },
}

pub(super) enum Reader {
    Sse { conn: ClientConn, splitter: Splitter },
    Socket(Box<Socket>),
}

/// A connection of its own, with `head` asked and its answer's head read.
async fn ask(
    load: &Load,
    at: &tidegate_transport::Target,
    method: &str,
    path: &str,
    body: Bytes,
) -> Result<(ClientConn, ResponseHead), String> {
    let dialled = load.dial.dial(at).await.map_err(|e| e.to_string())?;
    let mut text = BytesMut::new();
    let mut head = HeadWriter::request(&mut text, method, path);
    head.header("host", b"localhost").header("x-api-key", load.key.expose().as_bytes());
    head.header("anthropic-version", b"2023-06-01").header("tidegate-resume", b"memory");
    if method == "POST" {
        head.header("content-type", b"application/json").number("content-length", body.len() as u64);
    }
    head.end();
    let mut conn = ClientConn::new(dialled.io);
    conn.send(text, body, || {}).await.map_err(|e| e.to_string())?;
    let head = conn.read_head(false, true).await.map_err(|e| e.to_string())?;
    Ok((conn, head))
}

/// A page of the simulator's truth.
pub(super) async fn truth(load: &Load, path: &str) -> Result<serde_json::Value, String> {
    let (mut conn, head) = ask(load, &load.truth, "GET", path, Bytes::new()).await?;
    let mut body = BytesMut::new();
    conn.read_body(&mut body, PAGE_BYTES_MAX).await.map_err(|e| e.to_string())?;
    if head.status != 200 {
        return Err(format!("{path} is answered with {}", head.status));
    }
    serde_json::from_slice(&body).map_err(|e| e.to_string())
}

impl Reader {
    pub(super) async fn open(
        load: &Load,
        way: Way,
        wish: Wish<'_>,
        told: &mut Told,
        prng: Prng,
    ) -> Result<Self, String> {
        match way {
            Way::Sse => Reader::over_sse(load, wish, told).await,
            Way::Socket => Reader::over_socket(load, wish, prng).await,
        }
    }

    async fn over_sse(load: &Load, wish: Wish<'_>, told: &mut Told) -> Result<Self, String> {
        let (method, path, body) = match wish {
            Wish::Begin => ("POST", "/v1/messages".to_owned(), load.body.clone()),
            Wish::Resume { stream, after } => {
                let after = after.map(|after| format!("?after={after}")).unwrap_or_default();
                ("GET", format!("/v1/streams/{stream}{after}"), Bytes::new())
            }
        };
        let (mut conn, head) = ask(load, &load.gateway, method, &path, body).await?;
        if head.status != 200 {
            let mut body = BytesMut::new();
            let _ = conn.read_body(&mut body, PAGE_BYTES_MAX).await;
            return Err(format!("{} {}", head.status, String::from_utf8_lossy(&body)));
        }
        let line = |name| head.headers.text(name).map(str::to_owned);
        told.stream = line("tidegate-stream").or(told.stream.take());
        told.request = line("request-id").or(told.request.take());
        Ok(Reader::Sse { conn, splitter: Splitter::new() })
    }

    async fn over_socket(load: &Load, wish: Wish<'_>, prng: Prng) -> Result<Self, String> {
        let dialled = load.dial.dial(&load.gateway).await.map_err(|e| e.to_string())?;
        let lines = [("x-api-key", load.key.expose().as_bytes())];
        let asked = Opening { host: "localhost", target: "/v1/stream", subprotocols: &[SUBPROTOCOL], lines: &lines };
        let mut socket = open(dialled.io, &asked, RULES, load.clock, prng).await.map_err(|e| e.to_string())?;
        let headers = Headers::from_pairs([("tidegate-resume", "memory")]);
        let frame = match wish {
            Wish::Begin => {
                let body = std::str::from_utf8(&load.body).map_err(|e| e.to_string())?;
                let create = Create::of_http(ID, body, &headers).map_err(|line| line.0.to_owned())?;
                ClientFrame::Create(Box::new(create))
            }
            Wish::Resume { stream, after } => {
                ClientFrame::Resume { id: ID.into(), stream: stream.into(), after: after.map(Into::into), credit: None }
            }
        };
        let mut text = Vec::new();
        frame.write(&mut text);
        socket.send(&text);
        Ok(Reader::Socket(Box::new(socket)))
    }

    /// Waits for more of the stream; true when there is none.
    pub(super) async fn read(&mut self, told: &mut Told) -> Result<bool, String> {
        match self {
            Reader::Sse { conn, splitter } => {
                let mut large = false;
                let mut take = |event: &[u8]| {
                    let Some(data) = parts(event).data else { return };
                    let cursor = event.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"id: "));
                    told.event(None, cursor.and_then(|c| std::str::from_utf8(c).ok()), &String::from_utf8_lossy(&data));
                };
                let read =
                    poll_fn(|cx| conn.poll_body(cx, &mut |piece| large |= splitter.feed(piece, &mut take).is_err()));
                let over = read.await.map_err(|e| e.to_string())?;
                if large { Err("an event is too large".to_owned()) } else { Ok(over) }
            }
            Reader::Socket(socket) => read_socket(socket, told).await,
        }
    }
}

async fn read_socket(socket: &mut Socket, told: &mut Told) -> Result<bool, String> {
    let (mut heard, mut over) = (false, false);
    let ended = poll_fn(|cx| {
        let polled = socket.poll(cx, true, Moment::NEVER, &mut |message| {
            heard = true;
            let Message::Text(text) = message else { return };
            match ServerFrame::read(text) {
                Ok(Some(ServerFrame::Open { stream, headers, .. })) => {
                    let id = headers.iter().find(|(name, _)| name == "request-id");
                    told.stream = stream.map(|s| s.into_owned()).or(told.stream.take());
                    told.request = id.map(|(_, id)| id.to_string()).or(told.request.take());
                }
                Ok(Some(ServerFrame::Event { first_seq, cursor, event, .. })) => {
                    told.event(Some(first_seq), cursor.as_deref(), event);
                }
                Ok(Some(ServerFrame::End { seq, .. })) => {
                    over = true;
                    told.over(seq);
                }
                Ok(Some(ServerFrame::Error(failed))) => {
                    over = true;
                    // Before its head it is no stream yet.
                    if told.request.is_some() {
                        told.event(None, None, "{\"type\":\"error\"}");
                    } else {
                        told.wrong.get_or_insert_with(|| format!("{} {}", failed.status, failed.error.message));
                    }
                }
                Ok(_) => {}
                Err(e) => drop(told.wrong.get_or_insert_with(|| e.0.to_owned())),
            }
        });
        match polled {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if heard => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    match ended {
        Some(Over::Closed(_)) if over => Ok(true),
        Some(ended) => Err(format!("the socket ended: {ended:?}")),
        None => Ok(over || told.end == Some(End::Broken)),
    }
}
