//! A tiny endpoint on an in-memory network that answers every request by a script.

use bytes::BytesMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use tidegate_bench::{Plan, Report, run_here};
use tidegate_transport::http1::ServerConn;
use tidegate_transport::{Clock, Listen, MemoryNetwork, TaskKind, Tasks};

const SERVE: TaskKind = TaskKind { name: "endpoint", on_cancel: "ends", on_error: "ends" };

/// One thing the endpoint does for a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Waits so many milliseconds.
    Wait(u64),
    /// A head: status and content type; the body comes in chunks.
    Head(u16, &'static str),
    /// A refusal without a body, with one more header line.
    Refuse(u16, &'static str, &'static str),
    /// A head with a length that will not be kept.
    HeadOf(u64),
    /// A piece of the body, flushed.
    Send(&'static str),
    /// Bytes that are no part of the message.
    Raw(&'static str),
    /// The orderly end of the body; the connection is kept.
    End,
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
}

pub(crate) const SSE: Step = Step::Head(200, "text/event-stream; charset=utf-8");
pub(crate) const JSON: Step = Step::Head(200, "application/json");
pub(crate) const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}}\n\n";
pub(crate) const BLOCK: &str = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
pub(crate) const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hello\"}}\n\n";
pub(crate) const STOP: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":5}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
pub(crate) const ERROR: &str =
    "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";

/// Answers one request; false if the connection is gone.
async fn play(mut conn: ServerConn, script: &[Step]) -> Option<ServerConn> {
    for step in script {
        match *step {
            Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Step::Head(status, kind) => conn.respond(status, None, false, |h| {
                h.header("content-type", kind.as_bytes());
            }),
            Step::Refuse(status, name, value) => conn.respond(status, Some(0), false, |h| {
                h.header(name, value.as_bytes());
            }),
            Step::HeadOf(length) => conn.respond(200, Some(length), false, |h| {
                h.header("content-type", b"application/json");
            }),
            Step::Send(text) => conn.push(text.as_bytes()),
            Step::Raw(text) => conn.push_raw(text.as_bytes()),
            Step::End => {
                conn.end();
            }
            Step::Close => return None,
            Step::Reset => {
                conn.abort();
                return None;
            }
        }
        conn.flush().await.ok()?;
    }
    Some(conn)
}

/// Serves connections that do `script` for every request.
pub(crate) fn serve(network: &MemoryNetwork, tasks: &Tasks, script: &'static [Step]) {
    serve_in_turn(network, tasks, vec![script]);
}

/// Serves connections; request by request the next of `scripts` is done, over and over.
fn serve_in_turn(network: &MemoryNetwork, tasks: &Tasks, scripts: Vec<&'static [Step]>) {
    let mut door = network.listen("endpoint:80");
    let turn = Arc::new(AtomicUsize::new(0));
    let scripts: Arc<[_]> = scripts.into();
    let inner = tasks.clone();
    tasks.spawn(&SERVE, async move {
        while let Ok(accepted) = door.accept().await {
            let (turn, scripts) = (Arc::clone(&turn), Arc::clone(&scripts));
            inner.spawn(&SERVE, async move {
                let mut conn = ServerConn::new(accepted.open().expect("in memory"));
                while conn.read_head().await.is_ok() {
                    while conn.read_body(&mut BytesMut::new()).await.is_ok_and(|n| n > 0) {}
                    let script = scripts[turn.fetch_add(1, Ordering::Relaxed) % scripts.len()];
                    match play(conn, script).await {
                        Some(kept) => conn = kept,
                        None => return,
                    }
                }
            });
        }
    });
}

/// The plan of `change` on an endpoint that answers by `script`, in virtual time.
pub(crate) async fn measure(script: &'static [Step], change: impl FnOnce(&mut Plan)) -> Report {
    measure_in_turn(vec![script], change).await
}

/// The same on one that takes its scripts in turn.
pub(crate) async fn measure_in_turn(scripts: Vec<&'static [Step]>, change: impl FnOnce(&mut Plan)) -> Report {
    let network = MemoryNetwork::new();
    serve_in_turn(&network, &Tasks::new(), scripts);
    let mut plan = Plan::new("http://endpoint");
    plan.concurrency = 1;
    plan.requests = Some(1);
    change(&mut plan);
    run_here(&plan, Arc::new(network), Clock::from_wall(SystemTime::UNIX_EPOCH)).await.expect("a good plan")
}
