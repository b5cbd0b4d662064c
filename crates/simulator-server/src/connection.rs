//! One client's connection, request by request.
//!
//! ```text
//!   (slow connect) ─▶ head ─▶ body ─▶ begin ─▶ play ─┬─▶ keep alive: next head
//!                                                    └─▶ close | reset | the client has left
//! ```

use crate::SharedSimulator;
use crate::exchange::{self, Ending};
use bytes::BytesMut;
use std::time::Duration;
use tidegate_simulator::{BODY_BYTES_MAX, RequestFacts};
use tidegate_transport::http1::{HeadEnd, ServerConn};
use tidegate_transport::{BoxIo, Clock};
use tidegate_wire::http::{Framing, RequestHead};

/// An idle connection is kept longer than any client keeps it, so that closing it is the client's.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// A head or a body that takes longer than this is not coming.
const UPLOAD_MAX: Duration = Duration::from_secs(120);

pub(crate) async fn serve(io: BoxIo, simulator: SharedSimulator, clock: Clock) {
    if let Some(bare) = &simulator.bare {
        return bare.serve(io, clock).await;
    }
    let late = simulator.with(|simulator| simulator.connect(clock.now()));
    if !late.is_zero() {
        clock.sleep_until(clock.now() + late).await;
    }
    let mut conn = ServerConn::new(io);
    loop {
        match clock.within(IDLE_MAX, conn.wait_byte()).await {
            Some(Ok(true)) => {}
            _ => return,
        }
        let head = match clock.within(UPLOAD_MAX, conn.read_head()).await {
            Some(Ok(head)) => head,
            Some(Err(HeadEnd::Bad(error))) => return refuse(conn, clock, 400, &error.to_string()).await,
            Some(Err(_)) => return,
            None => return refuse(conn, clock, 408, "the request did not arrive in time").await,
        };
        let body = match clock.within(UPLOAD_MAX, read_body(&mut conn, &head)).await {
            Some(Ok(body)) => body,
            Some(Err(_)) => return,
            None => return refuse(conn, clock, 408, "the request did not arrive in time").await,
        };
        let headers: Vec<(&str, &str)> =
            head.headers.iter().filter_map(|(n, v)| Some((n, std::str::from_utf8(v).ok()?))).collect();
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
        let ending = exchange::play(&mut conn, &mut exchange, &head, keep, &simulator, clock).await;
        // The connection goes first: what is recorded as ended has really ended.
        let (ordinal, progress) = (exchange.ordinal, exchange.playback.progress());
        let ended = || simulator.with(|simulator| simulator.ended(clock.now(), ordinal, progress));
        match ending {
            Ending::Whole if keep => ended(),
            Ending::Whole | Ending::Close => {
                ended();
                return conn.close(clock).await;
            }
            Ending::Reset => {
                conn.abort();
                return ended();
            }
            Ending::ClientLeft => {
                simulator.with(|simulator| simulator.client_left(clock.now(), ordinal));
                drop(conn);
                return ended();
            }
        }
    }
}

/// The whole body, or `None` if it is too large to be read.
async fn read_body(conn: &mut ServerConn, head: &RequestHead) -> Result<Option<BytesMut>, HeadEnd> {
    let mut body = BytesMut::new();
    match head.framing {
        Framing::Length(n) if n > BODY_BYTES_MAX as u64 => return Ok(None),
        // Memory is taken as the body comes, not as it is announced.
        Framing::Length(n) => body.reserve((n as usize).min(64 * 1024)),
        _ => {}
    }
    if head.expects_continue() {
        conn.send_continue().await.map_err(HeadEnd::Io)?;
    }
    while conn.read_body(&mut body).await? > 0 {
        if body.len() > BODY_BYTES_MAX {
            return Ok(None);
        }
    }
    Ok(Some(body))
}

/// Answers what is not even a request, and closes.
pub(crate) async fn refuse(mut conn: ServerConn, clock: Clock, status: u16, message: &str) {
    let error = serde_json::json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}});
    let body = error.to_string();
    conn.respond(status, Some(body.len() as u64), true, |head| {
        head.header("content-type", b"application/json");
    });
    conn.push(body.as_bytes());
    conn.end();
    conn.close(clock).await;
}
