//! Upstreams and clients that do what they should not, over an in-memory network in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

use bytes::BytesMut;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_base::Secret;
use tidegate_gateway::{Gateway, Organisation, Settings};
use tidegate_transport::http1::ServerConn;
use tidegate_transport::{BoxIo, Clock, Listen, MemoryNetwork, TaskKind, Tasks};
use tidegate_upstream::{Lane, Scheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const UPSTREAM: TaskKind = TaskKind { name: "test upstream", on_cancel: "ends", on_error: "ends" };

const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"content\":[],\"usage\":{\"input_tokens\":18446744073709551615,\"output_tokens\":1}}}\n\n";
const STOP: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

struct Scene {
    network: MemoryNetwork,
    gateway: Gateway,
    clock: Clock,
    /// Request lines the upstream saw.
    seen: Arc<Mutex<Vec<String>>>,
}

/// A gateway whose upstream reads each request and then plays `each`.
fn scene<F: Future<Output = ()> + Send + 'static>(each: impl Fn(ServerConn) -> F + Send + Sync + 'static) -> Scene {
    let (network, clock) = (MemoryNetwork::new(), Clock::real());
    let lane = Lane::new("main/0", "http://api:80", Scheme::ApiKey, Secret::new("k")).unwrap();
    let organisations = vec![Organisation::new("main", vec![Arc::new(lane)])];
    let settings = Settings { organisations, ..Settings::default() };
    let gateway = Gateway::new(settings, clock, Arc::new(network.clone()));
    gateway.serve_here(Box::new(network.listen("gateway:80")));
    let mut door = network.listen("api:80");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&seen);
    let each = Arc::new(each);
    Tasks::new().spawn(&UPSTREAM, async move {
        while let Ok(accepted) = door.accept().await {
            let (lines, each) = (Arc::clone(&lines), Arc::clone(&each));
            Tasks::new().spawn(&UPSTREAM, async move {
                let mut conn = ServerConn::new(accepted.open().unwrap());
                let Ok(head) = conn.read_head().await else { return };
                lines.lock().unwrap().push(format!("{} {}", head.method(), head.target()));
                let mut body = BytesMut::new();
                while conn.read_body(&mut body).await.is_ok_and(|n| n > 0) {}
                each(conn).await;
            });
        }
    });
    Scene { network, gateway, clock, seen }
}

impl Scene {
    async fn client(&self, text: &str) -> BoxIo {
        let mut io = self.network.connect("gateway:80").unwrap();
        io.write_all(text.as_bytes()).await.unwrap();
        io
    }

    async fn ask(&self, text: &str) -> String {
        let mut answer = Vec::new();
        self.client(text).await.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn assert_at_rest(&self) {
        assert_eq!(self.gateway.held(), (0, 0, 0, 0));
        assert!(self.gateway.live().is_empty());
    }
}

fn message(stream: bool) -> String {
    long_message(stream, 9)
}

fn long_message(stream: bool, max_tokens: u32) -> String {
    let body = format!("{{\"model\":\"m\",\"max_tokens\":{max_tokens},\"stream\":{stream},\"messages\":[]}}");
    format!(
        "POST /v1/messages HTTP/1.1\r\nhost: g\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn begin_events(conn: &mut ServerConn) {
    conn.respond(200, None, false, |h| {
        h.header("content-type", b"text/event-stream");
    });
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_pings_on_after_the_message_holds_nobody_up() {
    let scene = scene(async |mut conn| {
        begin_events(&mut conn);
        conn.push([START, STOP].concat().as_bytes());
        while conn.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(400)).await;
            conn.push(PING.as_bytes());
        }
    });
    let began = scene.clock.now();
    let answer = scene.ask(&message(true)).await;
    assert!(answer.ends_with("0\r\n\r\n") && !answer.contains("event: error"), "{answer}");
    assert!(scene.clock.now().since(began) < Duration::from_secs(3), "{:?}", scene.clock.now().since(began));
    scene.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_body_is_let_go_once_content_was_passed_on_and_not_before() {
    let scene = scene(async |mut conn| {
        begin_events(&mut conn);
        conn.push(START.as_bytes());
        let _ = conn.flush().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        conn.push(b"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n");
        conn.push(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n");
        let _ = conn.flush().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        conn.push(STOP.as_bytes());
        conn.end();
        let _ = conn.flush().await;
    });
    for (stream, held_in_the_answer) in [(true, false), (false, true)] {
        // A long buffered answer is streamed upstream and can be tried again until it is whole.
        let client = scene.client(&long_message(stream, 90_000)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(scene.gateway.held().0 > 0, "nothing was passed on yet: it may have to be sent again");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(scene.gateway.held().0 > 0, held_in_the_answer);
        drop(client);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    scene.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn absurd_usage_of_repeated_attempts_ends_no_task() {
    let scene = scene(async |mut conn| {
        begin_events(&mut conn);
        conn.push(START.as_bytes());
        let _ = conn.flush().await;
    });
    let answer = scene.ask(&message(true)).await;
    assert!(answer.contains("event: error") && answer.ends_with("0\r\n\r\n"), "{answer}");
    assert!(scene.seen.lock().unwrap().len() > 1);
    scene.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_model_name_leads_nowhere_but_to_models() {
    let scene = scene(async |mut conn| {
        conn.respond(200, Some(2), true, |h| {
            h.header("content-type", b"application/json");
        });
        conn.push(b"{}");
        let _ = conn.flush().await;
    });
    for id in ["..\\files", "..%5cfiles", "..%2Ffiles", "..", ".", "%2e%2e", "..;", "a#b"] {
        let request = format!("GET /v1/models/{id} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n");
        let answer = scene.ask(&request).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") || answer.starts_with("HTTP/1.1 400 "), "{id}: {answer}");
    }
    assert_eq!(scene.seen.lock().unwrap().as_slice(), [""; 0]);
    let answer = scene.ask("GET /v1/models/claude-a.b_c-5@2:x HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_cancel_an_upload() {
    let scene = scene(async |_| {});
    let mut client = scene.client("POST /v1/messages HTTP/1.1\r\nhost: g\r\ncontent-length: 9000\r\n\r\n{").await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(8)).await;
        client.write_all(b" ").await.unwrap();
    }
    assert_eq!(scene.gateway.live().len(), 1);
    let began = scene.clock.now();
    scene.gateway.live().cancel_all();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("cancelled_by_operator"), "{answer}");
    assert!(scene.clock.now().since(began) < Duration::from_secs(3));
    drop(client);
    scene.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_all_of_it_and_keeps_its_connection() {
    let text = format!("{{\"type\":\"message\",\"text\":\"{}\"}}", "x".repeat(300_000));
    let scene = scene(move |mut conn| {
        let text = text.clone();
        async move {
            conn.respond(200, Some(text.len() as u64), true, |h| {
                h.header("content-type", b"application/json");
            });
            conn.push(text.as_bytes());
            let _ = conn.flush().await;
        }
    });
    let mut client = scene.client(&message(false).replace("connection: close\r\n", "")).await;
    let (mut answer, mut piece) = (Vec::new(), [0; 7000]);
    let began = scene.clock.now();
    while !answer.ends_with(b"x\"}") {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let n = client.read(&mut piece).await.unwrap();
        answer.extend_from_slice(&piece[..n]);
    }
    assert!(scene.clock.now().since(began) < Duration::from_secs(60));
    client.write_all(b"GET / HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n").await.unwrap();
    answer.clear();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    scene.assert_at_rest();
}

/// Two results of 700 KB each, one right after the other, to a reader that never pauses: more than
/// the backlog's limit, and nothing that could be merged.
#[tokio::test(start_paused = true)]
async fn a_burst_of_large_events_is_not_taken_for_a_slow_reader() {
    let result = |index: u32| {
        let text = "x".repeat(700_000);
        format!(
            "event: content_block_start\ndata: {{\"type\":\"content_block_start\",\"index\":{index},\"content_block\":{{\"type\":\"web_search_tool_result\",\"content\":\"{text}\"}}}}\n\n"
        )
    };
    let body = [START.to_owned(), result(0), result(1), STOP.to_owned()].concat();
    let sent = body.clone();
    let scene = scene(move |mut conn| {
        let body = body.clone();
        async move {
            conn.respond(200, None, true, |h| {
                h.header("content-type", b"text/event-stream");
            });
            conn.push(body.as_bytes());
            conn.end();
            conn.flush().await.unwrap();
        }
    });
    let answer = scene.ask(&message(true)).await;
    assert!(answer.contains("message_stop") && !answer.contains("event: error"));
    assert!(answer.len() > sent.len());
    scene.assert_at_rest();
}
