//! The gateway over an upstream that speaks HTTP/2: many answers on one connection, and what one of
//! them, its client or the connection itself may do without harm to the others.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidegate_base::Secret;
use tidegate_gateway::{Clocks, Gateway, Organisation, Settings};
use tidegate_schedule::{RetryRules, Rules};
use tidegate_transport::{BoxIo, Clock, HttpOffer, Listen, MemoryNetwork, TaskKind, Tasks};
use tidegate_upstream::{Lane, Scheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

const UPSTREAM: TaskKind = TaskKind { name: "test upstream", on_cancel: "ends", on_error: "ends" };
const SECOND: Duration = Duration::from_secs(1);

const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"content\":[],\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"word \"}}\n\n";
const STOP: &str = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

struct Scene {
    network: MemoryNetwork,
    gateway: Gateway,
    clock: Clock,
    connections: Arc<AtomicUsize>,
}

/// A gateway whose upstream speaks HTTP/2; `connection` plays each connection, by its number.
fn scene<F>(connection: impl Fn(usize, BoxIo) -> F + Send + Sync + 'static) -> Scene
where
    F: Future<Output = ()> + Send + 'static,
{
    let (network, clock) = (MemoryNetwork::new(), Clock::real());
    let lane = Lane::new("main/0", "http://api:80", Scheme::ApiKey, Secret::new("k")).unwrap();
    let lanes = vec![Arc::new(lane.offering(HttpOffer::Http2))];
    let settings = Settings {
        organisations: vec![Organisation::new("main", lanes)],
        schedule: Rules { retry: RetryRules { attempts_max: 1, ..RetryRules::default() }, ..Rules::default() },
        // Below the deadline of a whole request, so that it is seen.
        clocks: Clocks { progress_unseen: 200 * SECOND, ..Clocks::default() },
        ..Settings::default()
    };
    let gateway = Gateway::new(settings, clock, Arc::new(network.clone()));
    gateway.serve_here(Box::new(network.listen("gateway:80")));
    let mut door = network.listen("api:80");
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    Tasks::new().spawn(&UPSTREAM, async move {
        while let Ok(accepted) = door.accept().await {
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            Tasks::new().spawn(&UPSTREAM, connection(number, accepted.open().unwrap()));
        }
    });
    Scene { network, gateway, clock, connections }
}

/// Hands each stream of a connection to `each`.
async fn streams<F>(io: BoxIo, each: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut conn = server::handshake(io).await.unwrap();
    while let Some(Ok((request, respond))) = conn.accept().await {
        Tasks::new().spawn(&UPSTREAM, each(request, respond));
    }
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

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn counts(&self, line: &str) -> bool {
        self.gateway.metrics().text().lines().any(|l| l == line)
    }

    /// Drains, and looks that nothing is left.
    async fn ends_with_nothing(&self) {
        self.gateway.drain().await;
        assert_eq!(self.gateway.held(), (0, 0, 0, 0));
        assert!(self.gateway.living().is_empty(), "{:?}", self.gateway.living());
        for state in ["busy", "idle"] {
            assert!(self.counts(&format!("tidegate_upstream_connections{{lane=\"main/0\",state=\"{state}\"}} 0")));
        }
        assert!(self.counts("tidegate_upstream_streams{lane=\"main/0\"} 0"));
    }
}

/// A message whose `model` tells the upstream what to do.
fn message(model: &str, stream: bool) -> String {
    let body = format!("{{\"model\":\"{model}\",\"max_tokens\":9,\"stream\":{stream},\"messages\":[]}}");
    format!(
        "POST /v1/messages HTTP/1.1\r\nhost: g\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads a request's whole body.
async fn body(request: Request<RecvStream>) -> String {
    let (mut body, mut whole) = (request.into_body(), Vec::new());
    while let Some(Ok(data)) = body.data().await {
        whole.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    String::from_utf8(whole).unwrap()
}

fn begin(respond: &mut SendResponse<Bytes>) -> SendStream<Bytes> {
    let head = Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
    respond.send_response(head, false).unwrap()
}

/// Sends as the window allows; false once nobody wants it.
async fn push(out: &mut SendStream<Bytes>, text: &str) -> bool {
    let mut left = Bytes::copy_from_slice(text.as_bytes());
    while !left.is_empty() {
        out.reserve_capacity(left.len());
        let Some(Ok(n)) = poll_fn(|cx| out.poll_capacity(cx)).await else { return false };
        if out.send_data(left.split_to(n.min(left.len())), false).is_err() {
            return false;
        }
    }
    true
}

async fn whole(respond: &mut SendResponse<Bytes>, pause: Duration) {
    let mut out = begin(respond);
    push(&mut out, START).await;
    push(&mut out, DELTA).await;
    tokio::time::sleep(pause).await;
    push(&mut out, STOP).await;
    let _ = out.send_data(Bytes::new(), true);
}

#[tokio::test(start_paused = true)]
async fn streams_and_buffered_answers_share_a_connection() {
    let scene = scene(|_, io| {
        streams(io, |request, mut respond| async move {
            assert_eq!(request.uri().to_string(), "http://api/v1/messages");
            assert_eq!(
                (&request.headers()["x-api-key"], request.headers().get("connection")),
                (&"k".parse().unwrap(), None)
            );
            if body(request).await.contains("\"stream\":true") {
                return whole(&mut respond, SECOND).await;
            }
            let head = Response::builder().header("content-type", "application/json").body(()).unwrap();
            let mut out = respond.send_response(head, false).unwrap();
            out.send_data(Bytes::from("{\"type\":\"message\"}"), true).unwrap();
        })
    });
    let (stream, buffered) = (message("m", true), message("m", false));
    let answers = tokio::join!(scene.ask(&stream), scene.ask(&buffered), scene.ask(&stream));
    for stream in [&answers.0, &answers.2] {
        assert!(stream.contains("message_stop") && !stream.contains("event: error"), "{stream}");
    }
    assert!(answers.1.ends_with("{\"type\":\"message\"}"), "{}", answers.1);
    assert_eq!(scene.connections(), 1);
    scene.ends_with_nothing().await;
}

/// The model thinks for two minutes; the connection answers each PING.
#[tokio::test(start_paused = true)]
async fn a_silent_stream_on_a_live_connection_is_waited_for() {
    let scene = scene(|_, io| streams(io, |_, mut respond| async move { whole(&mut respond, 120 * SECOND).await }));
    let answer = scene.ask(&message("m", true)).await;
    assert!(answer.contains("message_stop") && !answer.contains("event: error"), "{answer}");
    scene.ends_with_nothing().await;
}

/// A connection that answers PINGs does not make a model that is stuck alive.
#[tokio::test(start_paused = true)]
async fn a_silent_stream_on_a_live_connection_still_has_to_progress() {
    let scene = scene(|_, io| streams(io, |_, mut respond| async move { whole(&mut respond, 400 * SECOND).await }));
    let began = scene.clock.now();
    let answer = scene.ask(&message("m", true)).await;
    assert!(answer.contains("event: error") && answer.contains("upstream_timeout"), "{answer}");
    assert_eq!(scene.clock.now().since(began).as_secs(), 200);
    assert!(scene.counts("tidegate_clock_expired_total{clock=\"progress\"} 1"));
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_is_found_in_fifteen_seconds_and_not_used_again() {
    let scene = scene(|number, io| async move {
        if number > 1 {
            return streams(io, |_, mut respond| async move { whole(&mut respond, SECOND).await }).await;
        }
        let mut conn = server::handshake(io).await.unwrap();
        let (_request, mut respond) = conn.accept().await.unwrap().unwrap();
        let mut out = begin(&mut respond);
        out.send_data(Bytes::from([START, DELTA].concat()), false).unwrap();
        let _ = tokio::time::timeout(SECOND, conn.accept()).await;
        // The machine is gone; nobody closes anything.
        std::future::pending().await
    });
    let began = scene.clock.now();
    let answer = scene.ask(&message("m", true)).await;
    assert!(answer.contains("event: error") && answer.contains("upstream_timeout"), "{answer}");
    assert_eq!(scene.clock.now().since(began).as_secs(), 15);
    assert!(scene.counts("tidegate_clock_expired_total{clock=\"probe\"} 1"));
    let answer = scene.ask(&message("m", true)).await;
    assert!(answer.contains("message_stop"), "{answer}");
    assert_eq!(scene.connections(), 2);
    scene.ends_with_nothing().await;
}

/// The greedy client reads nothing of an endless answer. Its stream is read all the same, until its
/// backlog is full; its neighbour on the same upstream connection never notices.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_harms_no_neighbour_on_its_connection() {
    let (told, mut reset) = mpsc::channel(1);
    let scene = scene(move |_, io| {
        let told = told.clone();
        streams(io, move |request, mut respond| {
            let told = told.clone();
            async move {
                if !body(request).await.contains("greedy") {
                    return whole(&mut respond, 5 * SECOND).await;
                }
                let mut out = begin(&mut respond);
                push(&mut out, START).await;
                while push(&mut out, DELTA).await {
                    tokio::time::sleep(Duration::from_micros(20)).await;
                }
                told.send(poll_fn(|cx| out.poll_reset(cx)).await.ok()).await.unwrap();
            }
        })
    });
    let greedy = scene.client(&message("greedy", true)).await;
    for _ in 0..5 {
        let answer = scene.ask(&message("m", true)).await;
        assert!(answer.contains("message_stop") && !answer.contains("event: error"), "{answer}");
    }
    assert_eq!(reset.recv().await.unwrap(), Some(Reason::CANCEL));
    assert_eq!(scene.connections(), 1);
    drop(greedy);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_resets_its_stream_and_nothing_else() {
    let (told, mut reset) = mpsc::channel(1);
    let scene = scene(move |_, io| {
        let told = told.clone();
        streams(io, move |request, mut respond| {
            let told = told.clone();
            async move {
                if !body(request).await.contains("left") {
                    return whole(&mut respond, 5 * SECOND).await;
                }
                let mut out = begin(&mut respond);
                push(&mut out, START).await;
                told.send(poll_fn(|cx| out.poll_reset(cx)).await.ok()).await.unwrap();
            }
        })
    });
    let mut leaver = scene.client(&message("left", true)).await;
    leaver.read_exact(&mut [0; 100]).await.unwrap();
    let text = message("m", true);
    let (answer, ()) = tokio::join!(scene.ask(&text), async {
        tokio::time::sleep(SECOND).await;
        drop(leaver);
    });
    assert_eq!(reset.recv().await.unwrap(), Some(Reason::CANCEL));
    assert!(answer.contains("message_stop"), "{answer}");
    assert_eq!(scene.connections(), 1);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_the_middle_of_an_upload_is_passed_on_as_it_is() {
    const ENVELOPE: &str = "{\"type\":\"error\",\"error\":{\"type\":\"request_too_large\",\"message\":\"no\"}}";
    let scene = scene(|_, io| {
        streams(io, |_, mut respond| async move {
            let head = Response::builder().status(413).header("content-type", "application/json").body(()).unwrap();
            respond.send_response(head, false).unwrap().send_data(Bytes::from(ENVELOPE), true).unwrap();
        })
    });
    let answer = scene.ask(&message("m", true)).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with(ENVELOPE), "{answer}");
    let body = format!("{{\"model\":\"m\",\"max_tokens\":9,\"messages\":[],\"x\":\"{}\"}}", "y".repeat(1 << 20));
    let head = "POST /v1/messages HTTP/1.1\r\nhost: g\r\nconnection: close\r\ncontent-length:";
    let answer = scene.ask(&format!("{head} {}\r\n\r\n{body}", body.len())).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with(ENVELOPE), "{answer}");
    assert_eq!(scene.connections(), 1);
    scene.ends_with_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_closes_what_is_idle_and_waits_for_nothing() {
    let scene = scene(|_, io| streams(io, |_, mut respond| async move { whole(&mut respond, SECOND).await }));
    scene.ask(&message("m", true)).await;
    assert_eq!(scene.gateway.living().get("upstream http2"), Some(&1));
    let began = scene.clock.now();
    scene.ends_with_nothing().await;
    assert!(scene.clock.now().since(began) < SECOND);
}
