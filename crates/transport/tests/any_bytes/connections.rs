//! What must hold of a server's connection whatever bytes its client sends: plain functions over
//! bytes, run by proptest on stable and by the fuzzer.
//!
//! The client writes its bytes in pieces over a pipe in memory and closes; time is paused. However
//! it goes, the connection ends, no task is left, and over HTTP/1.1 the requests are those that the
//! codec alone finds. The frames of HTTP/2 are the `h2` crate's; what is tried is what stands on it.

use super::codec::{End, Message, pieces, read_requests};
use bytes::BytesMut;
use std::time::Duration;
use tidegate_transport::http1::{HeadEnd, ServerConn};
use tidegate_transport::http2::{Next, ServerConnection, ServerRules};
use tidegate_transport::{BoxIo, Clock, Listen, MemoryNetwork, ServerStream, TaskKind, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CLIENT: TaskKind = TaskKind { name: "client", on_cancel: "ends", on_error: "the input fails" };
const STREAM: TaskKind = TaskKind { name: "stream", on_cancel: "ends", on_error: "the input fails" };

/// Longer than any connection may live whose client has closed: an idle minute, and lingering.
const HANG: Duration = Duration::from_secs(600);
/// How an HTTP/2 connection begins: the preface and empty SETTINGS.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Serves a client that sends `bytes` in pieces of `piece`, and closes.
fn served<F: Future>(bytes: &[u8], piece: usize, serve: impl FnOnce(BoxIo, Clock) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let (network, clock) = (MemoryNetwork::new(), Clock::real());
        let mut door = network.listen("a:1");
        let (mut from, mut to) = tokio::io::split(network.connect("a:1").expect("somebody listens"));
        let bytes = bytes.to_vec();
        let tasks = Tasks::new();
        let reading = tasks.spawn(&CLIENT, async move {
            let mut answers = Vec::new();
            // A reset is an end as well.
            let _ = from.read_to_end(&mut answers).await;
        });
        let writing = tasks.spawn(&CLIENT, async move {
            for piece in bytes.chunks(piece) {
                if to.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            let _ = to.shutdown().await;
        });
        let io = door.accept().await.and_then(|accepted| accepted.open()).expect("a connection");
        let done = clock.within(HANG, serve(io, clock)).await.expect("a connection ends when its client has left");
        writing.await.expect("the client wrote");
        reading.await.expect("the client read");
        done
    })
}

/// Answers one request: small or in pieces, by the parity of its body.
async fn answer(stream: &mut ServerStream, body: &[u8]) -> bool {
    let length = body.len().is_multiple_of(2).then_some(4);
    stream.respond(200, length, false, |head| {
        head.header("x", b"y");
    });
    stream.push(b"tide");
    stream.end() && stream.flush().await.is_ok()
}

async fn read_body(stream: &mut ServerStream) -> Result<Vec<u8>, HeadEnd> {
    let mut body = BytesMut::new();
    while stream.read_body(&mut body).await? > 0 {}
    Ok(body.to_vec())
}

async fn http1(io: BoxIo, clock: Clock) -> Vec<Message> {
    let mut stream = ServerStream::Http1(ServerConn::new(io));
    let mut found = Vec::new();
    while let Ok(true) = stream.wait_byte().await {
        let Ok(head) = stream.read_head().await else { break };
        let Ok(body) = read_body(&mut stream).await else { break };
        let answered = answer(&mut stream, &body).await;
        let lines = head
            .headers
            .iter()
            .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.to_vec()))
            .collect();
        found.push(Message { line: (head.method().to_owned(), head.target().to_owned()), lines, body });
        if !answered || !head.keeps_alive() {
            break;
        }
    }
    stream.close(clock).await;
    found
}

/// Bytes that a client may send to a connection.
pub fn http1_connection(data: &[u8]) {
    let (piece, bytes) = pieces(data);
    let found = served(bytes, piece, http1);
    let (expected, _end): (_, End) = read_requests(bytes, bytes.len().max(1));
    // The client may have closed its reading side by then; what was answered was what was asked.
    assert_eq!(found, expected);
}

async fn http2(io: BoxIo, clock: Clock) {
    let rules = ServerRules { streams: 16, idle: Duration::from_secs(60) };
    let Ok(mut conn) = ServerConnection::handshake(io, BytesMut::new(), clock, rules).await else { return };
    let tasks = Tasks::new();
    let mut streams = Vec::new();
    loop {
        match conn.next().await {
            Next::Stream(stream) => streams.push(tasks.spawn(&STREAM, async move {
                let mut stream = ServerStream::Http2(stream);
                if stream.read_head().await.is_ok()
                    && let Ok(body) = read_body(&mut stream).await
                {
                    answer(&mut stream, &body).await;
                }
                stream.close(clock).await;
            })),
            Next::Idle => {}
            Next::Closed => break,
        }
    }
    drop(conn);
    for stream in streams {
        stream.await.expect("no stream panics");
    }
    assert!(tasks.living().is_empty(), "{:?}", tasks.living());
}

/// Bytes that a client may send to an HTTP/2 connection: as they are, or, if the second byte is
/// odd, as frames after a good opening, each `kind flags stream length` and its payload.
pub fn http2_connection(data: &[u8]) {
    let (piece, bytes) = pieces(data);
    match bytes {
        [how, rest @ ..] if how % 2 == 1 => served(&frames(rest), piece, http2),
        [_, rest @ ..] => served(rest, piece, http2),
        [] => {}
    }
}

fn frames(mut data: &[u8]) -> Vec<u8> {
    let mut wire = OPENING.to_vec();
    while let [kind, flags, stream, length, rest @ ..] = data {
        let (payload, after) = rest.split_at(usize::from(*length).min(rest.len()));
        wire.extend_from_slice(&[0, 0, payload.len() as u8, kind % 12, *flags, 0, 0, 0, *stream]);
        wire.extend_from_slice(payload);
        data = after;
    }
    wire
}
