//! One request after another through the whole path, for counting instructions.
//!
//! Client, gateway and upstream share one thread and a network in memory, so that a run is nothing
//! but this project's instructions, the same every time. `cargo xtask instructions` runs it under
//! callgrind and subtracts what the client and the upstream cost alone:
//!
//! ```text
//!   path through|direct REQUESTS EVENTS     EVENTS 0: JSON answers; else streams of so many events,
//!                                           each written, relayed and read before the next
//! ```

#![allow(clippy::unwrap_used, reason = "a bench that cannot set up its scene should stop")]

use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::Secret;
use tidegate_gateway::{ClientKey, Gateway, KeyHash, Organisation, Settings};
use tidegate_transport::http1::{ClientConn, SendEnd, ServerConn};
use tidegate_transport::{BoxIo, Clock, Listen, MemoryNetwork, TaskKind, Tasks};
use tidegate_upstream::{Lane, Scheme};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const UPSTREAM: TaskKind = TaskKind { name: "bench upstream", on_cancel: "ends", on_error: "ends" };

const KEY: &str = "tg-bench-key-of-some-length-0123456789";
const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-haiku-5-5\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" quiet harbour\"}}\n\n";
const END: &str = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":500}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// Answers requests as fast as they come; a stream's events one at a time.
async fn upstream(io: BoxIo, events: usize) {
    let mut conn = ServerConn::new(io);
    let mut body = BytesMut::new();
    let text = "All is well at the harbour. ".repeat(6);
    let json = format!(
        "{{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-haiku-5-5\",\"content\":[{{\"type\":\"text\",\"text\":\"{text}\"}}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\"usage\":{{\"input_tokens\":25,\"output_tokens\":40}}}}"
    );
    while conn.read_head().await.is_ok() {
        body.clear();
        while conn.read_body(&mut body).await.is_ok_and(|n| n > 0) {}
        let kind: &[u8] = if events > 0 { b"text/event-stream" } else { b"application/json" };
        conn.respond(200, (events == 0).then_some(json.len() as u64), false, |head| {
            head.header("content-type", kind).header("request-id", b"req_000000000000000000000000");
        });
        if events == 0 {
            conn.push(json.as_bytes());
        } else {
            conn.push(START.as_bytes());
            for _ in 0..events {
                conn.push(DELTA.as_bytes());
                conn.flush().await.unwrap();
                // Once round the other tasks: the gateway relays, then the client reads.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            }
            conn.push(END.as_bytes());
            conn.end();
        }
        conn.flush().await.unwrap();
    }
}

async fn ask(conn: &mut ClientConn, stream: bool) -> usize {
    let body = format!(
        "{{\"model\":\"claude-haiku-5-5\",\"max_tokens\":100,\"stream\":{stream},\"messages\":[{{\"role\":\"user\",\"content\":\"How is the harbour today?\"}}]}}"
    );
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: gateway\r\nx-api-key: {KEY}\r\nanthropic-version: 2023-06-01\r\ncontent-type: application/json\r\nuser-agent: bench\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let sent = conn.send(BytesMut::from(head.as_str()), Bytes::from(body), || {}).await.unwrap();
    let head = conn.read_head(false, sent == SendEnd::Whole).await.unwrap();
    assert_eq!(head.status, 200);
    let mut bytes = 0;
    while !poll_fn(|cx| conn.poll_body(cx, &mut |piece| bytes += piece.len())).await.unwrap() {}
    bytes
}

async fn run(through: bool, requests: usize, events: usize) {
    let (network, clock) = (MemoryNetwork::new(), Clock::real());
    let lane = Lane::new("main/0", "http://api:80", Scheme::ApiKey, Secret::new("sk-ant-bench")).unwrap();
    let settings = Settings {
        organisations: vec![Organisation::new("main", vec![Arc::new(lane)])],
        keys: vec![ClientKey { tenant: "bench".into(), hash: KeyHash::of(KEY.as_bytes()), expires_ms: None }],
        ..Settings::default()
    };
    let gateway = Gateway::new(settings, clock, Arc::new(network.clone()));
    gateway.serve_here(Box::new(network.listen("gateway:80")));
    let mut door = network.listen("api:80");
    Tasks::new().spawn(&UPSTREAM, async move {
        while let Ok(accepted) = door.accept().await {
            Tasks::new().spawn(&UPSTREAM, upstream(accepted.open().unwrap(), events));
        }
    });
    let name = if through { "gateway:80" } else { "api:80" };
    let mut conn = ClientConn::new(network.connect(name).unwrap());
    let mut bytes = 0;
    for _ in 0..requests {
        bytes += ask(&mut conn, events > 0).await;
    }
    assert!(bytes >= requests * (events * DELTA.len()).max(300), "answers are whole");
    assert!(clock.now().since(tidegate_base::Moment::ZERO) < Duration::from_secs(3600));
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|w| !w.starts_with("--")).collect();
    let number = |at: usize| words.get(at).and_then(|w| w.parse().ok());
    // Without arguments (`cargo bench`) a round of each, to see that it runs.
    let (through, requests, events) =
        (words.first().is_none_or(|w| w == "through"), number(1).unwrap_or(10), number(2).unwrap_or(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(through, requests, events));
}
