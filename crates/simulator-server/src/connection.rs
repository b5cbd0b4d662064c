//! One client's connection, request by request.
//!
//! ```text
//!   (slow connect) ─▶ (TLS) ─▶ head ─▶ body ─▶ begin ─▶ play ─┬─▶ keep alive: next head
//!                                                             └─▶ close | reset | the client has left
//! ```
//! HTTP/2, if ALPN or the first bytes say so, is the same from `head` on, in a task for each stream.

use crate::exchange::{self, Ending};
use crate::{SharedSimulator, until, websocket};
use bytes::BytesMut;
use std::future::poll_fn;
use std::time::Duration;
use tidegate_simulator::{RequestFacts, body_bytes_max};
use tidegate_transport::http1::{HeadEnd, ServerConn};
use tidegate_transport::http2::{Next, ServerConnection, ServerRules};
use tidegate_transport::{Accepted, Alpn, BoxIo, Clock, ServerStream, TaskKind, Tasks};
use tidegate_wire::http::{Framing, RequestHead};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// An idle connection is kept longer than any client keeps it, so that closing it is the client's.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// A head or a body that takes longer than this is not coming.
const UPLOAD_MAX: Duration = Duration::from_secs(120);

/// A client that does not see that our half of a connection has ended has it for so long.
const HALF_OPEN_MAX: Duration = Duration::from_secs(300);

/// A connection that ended with an error stays for so long, so that the client reads why: what it is
/// still sending would be answered by a reset, and that overtakes the reason.
const GOODBYE: Duration = Duration::from_millis(500);

/// A TLS handshake that takes longer than this is not coming.
const TLS_MAX: Duration = Duration::from_secs(5);

const STREAM: TaskKind = TaskKind {
    name: "simulator stream",
    on_cancel: "the stream is reset",
    on_error: "the stream is reset; the simulator goes on",
};

/// What every connection is given.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) simulator: SharedSimulator,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    pub(crate) stopped: watch::Receiver<bool>,
    pub(crate) http2_streams: u32,
    /// How a stream of HTTP/2 tells its connection of its end.
    pub(crate) farewell: Option<watch::Sender<Farewell>>,
}

/// What HTTP/2's GOAWAY says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    NotYet,
    /// No new streams; those under way go on.
    NoMore,
    /// An error, and the end.
    Error,
}

impl Stage {
    /// Says farewell on behalf of the connection, if it is one of HTTP/2.
    pub(crate) fn say(&self, word: Farewell) {
        if let Some(farewell) = &self.farewell {
            farewell.send_replace(word);
        }
    }
}

pub(crate) async fn serve(accepted: Accepted, stage: Stage) {
    let clock = stage.clock;
    if stage.simulator.bare.is_none() {
        let late = stage.simulator.with(|simulator| simulator.connect(clock.now()));
        if !late.is_zero() {
            clock.sleep_until(clock.now() + late).await;
        }
    }
    let Some(Ok((io, alpn))) = clock.within(TLS_MAX, accepted.secure()).await else { return };
    if alpn == Alpn::Http2 {
        return http2(io, BytesMut::new(), stage).await;
    }
    if let Some(conn) = requests(ServerStream::Http1(ServerConn::new(io)), &stage).await {
        let (io, read) = conn.into_parts();
        http2(io, read, stage).await;
    }
}

/// Streams side by side, each in a task of its own, until the connection ends. Dropping it closes
/// the connection under them.
async fn http2(io: BoxIo, read: BytesMut, mut stage: Stage) {
    let clock = stage.clock;
    let rules = ServerRules { streams: stage.http2_streams, idle: IDLE_MAX };
    let begun = ServerConnection::handshake(io, read, clock, rules);
    let Some(Ok(mut conn)) = clock.within(UPLOAD_MAX, begun).await else { return };
    let (farewell, mut said) = watch::channel(Farewell::NotYet);
    stage.farewell = Some(farewell);
    loop {
        let next = tokio::select! {
            biased;
            // The stage holds a sender, so there is always one.
            _ = said.changed() => {
                match *said.borrow_and_update() {
                    Farewell::Error => conn.fail(),
                    Farewell::NoMore => conn.shut_down(),
                    Farewell::NotYet => {}
                }
                continue;
            }
            next = conn.next() => next,
        };
        match next {
            Next::Stream(stream) => {
                let (stopped, stage) = (stage.stopped.clone(), stage.clone());
                stage.tasks.clone().spawn(&STREAM, async move {
                    until(stopped, async { drop(requests(ServerStream::Http2(stream), &stage).await) }).await;
                });
            }
            Next::Idle => {}
            Next::Closed => {
                if *said.borrow() == Farewell::Error {
                    clock.sleep_until(clock.now() + GOODBYE).await;
                }
                return;
            }
        }
    }
}

/// The requests of one stream; gives a connection back on which HTTP/2 begins.
async fn requests(mut conn: ServerStream, stage: &Stage) -> Option<ServerConn> {
    match &stage.simulator.bare {
        Some(bare) => bare.serve(&mut conn, stage.clock).await,
        None => return scripted(conn, stage).await,
    }?;
    match conn {
        ServerStream::Http1(conn) => Some(conn),
        ServerStream::Http2(_) | ServerStream::Local(_) => None,
    }
}

/// Requests answered by the model.
async fn scripted(mut conn: ServerStream, stage: &Stage) -> Option<ServerConn> {
    let (simulator, clock) = (&stage.simulator, stage.clock);
    loop {
        match clock.within(IDLE_MAX, conn.wait_byte()).await {
            Some(Ok(true)) => {}
            _ => return None,
        }
        let head = match clock.within(UPLOAD_MAX, conn.read_head()).await {
            Some(Ok(head)) => head,
            Some(Err(HeadEnd::Bad(error))) => {
                refuse(conn, clock, 400, &error.to_string()).await;
                return None;
            }
            Some(Err(HeadEnd::Http2)) => match conn {
                ServerStream::Http1(conn) => return Some(conn),
                ServerStream::Http2(_) | ServerStream::Local(_) => return None,
            },
            Some(Err(_)) => return None,
            None => {
                refuse(conn, clock, 408, "the request did not arrive in time").await;
                return None;
            }
        };
        if websocket::is_opening(&head)
            && let ServerStream::Http1(conn) = conn
        {
            websocket::serve(conn, head, stage).await;
            return None;
        }
        let body = match clock.within(UPLOAD_MAX, read_body(&mut conn, &head)).await {
            Some(Ok(body)) => body,
            Some(Err(_)) => return None,
            None => {
                refuse(conn, clock, 408, "the request did not arrive in time").await;
                return None;
            }
        };
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let headers: Vec<(&str, &str)> = head.headers.iter().filter_map(|(n, v)| Some((text(n)?, text(v)?))).collect();
        let bytes = body.as_deref().unwrap_or_default();
        // A target in absolute form (a proxy's) is the same door.
        let target = format!("{}?{}", head.path(), head.query());
        let facts = RequestFacts { method: head.method(), target: &target, headers: &headers, body: bytes };
        let now = clock.now();
        let mut exchange = simulator.with(|simulator| match body {
            Some(_) => simulator.begin(now, &facts),
            None => simulator.begin_too_large(now, &facts),
        });
        drop(headers);
        let keep = body.is_some() && head.keeps_alive();
        drop(body);
        let ending = exchange::play(&mut conn, &mut exchange, &head, keep, stage).await;
        // The connection goes first: what is recorded as ended has really ended.
        let (ordinal, progress) = (exchange.ordinal, exchange.playback.progress());
        let ended = || simulator.with(|simulator| simulator.ended(clock.now(), ordinal, progress));
        match ending {
            Ending::Whole if keep => ended(),
            Ending::Reset => {
                // A reset overtakes what HTTP/2 was handed; the connection's task writes that first.
                tokio::task::yield_now().await;
                conn.abort();
                ended();
                return None;
            }
            Ending::ClientLeft => {
                simulator.with(|simulator| simulator.client_left(clock.now(), ordinal));
                drop(conn);
                ended();
                return None;
            }
            ending => {
                ended();
                close(conn, ending, stage).await;
                return None;
            }
        }
    }
}

/// The end of a connection as the plan has it.
async fn close(conn: ServerStream, ending: Ending, stage: &Stage) {
    let clock = stage.clock;
    match (conn, ending) {
        (conn, Ending::Whole | Ending::WholeAndLast) => conn.close(clock).await,
        (ServerStream::Http1(conn), Ending::HalfClose) => {
            let _ = clock.within(HALF_OPEN_MAX, half_close(conn)).await;
        }
        (ServerStream::Http1(conn), Ending::Truncate) => drop(conn.into_parts()),
        (ServerStream::Http1(conn), _) => conn.close(clock).await,
        (ServerStream::Http2(mut stream), Ending::GoAway) => {
            tokio::task::yield_now().await;
            stage.say(Farewell::Error);
            // Dropped before the connection, it would be reset by a frame of its own.
            poll_fn(|cx| stream.poll_departed(cx)).await;
        }
        (ServerStream::Http2(stream), _) => stream.close_connection().await,
        (ServerStream::Local(_), _) => {}
    }
}

/// Ends what we say, and listens until the client has nothing more to say either.
async fn half_close(conn: ServerConn) -> std::io::Result<()> {
    let (mut io, _) = conn.into_parts();
    io.shutdown().await?;
    let mut thrown_away = [0; 1024];
    while io.read(&mut thrown_away).await? > 0 {}
    Ok(())
}

/// The whole body, or `None` if it is too large to be read.
async fn read_body(conn: &mut ServerStream, head: &RequestHead) -> Result<Option<BytesMut>, HeadEnd> {
    let mut body = BytesMut::new();
    let most = body_bytes_max(head.path());
    match head.framing {
        Framing::Length(n) if n > most as u64 => return Ok(None),
        // Memory is taken as the body comes, not as it is announced.
        Framing::Length(n) => body.reserve((n as usize).min(64 * 1024)),
        _ => {}
    }
    if head.expects_continue() {
        conn.send_continue().await.map_err(HeadEnd::Io)?;
    }
    while conn.read_body(&mut body).await? > 0 {
        if body.len() > most {
            return Ok(None);
        }
    }
    Ok(Some(body))
}

/// Answers what is not even a request, and closes.
pub(crate) async fn refuse(mut conn: ServerStream, clock: Clock, status: u16, message: &str) {
    let error = serde_json::json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}});
    let body = error.to_string();
    conn.respond(status, Some(body.len() as u64), true, |head| {
        head.header("content-type", b"application/json");
    });
    conn.push(body.as_bytes());
    conn.end();
    conn.close(clock).await;
}
