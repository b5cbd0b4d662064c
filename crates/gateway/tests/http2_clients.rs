//! Clients that speak HTTP/2 to the gateway, over an in-memory network in virtual time: what leaving,
//! limits, refusals and a drain mean where many requests share a connection.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidegate_base::Secret;
use tidegate_gateway::{Gateway, Limits, Organisation, Settings};
use tidegate_transport::http1::ServerConn;
use tidegate_transport::{Clock, Listen, MemoryNetwork, TaskKind, Tasks};
use tidegate_upstream::{Lane, Scheme};

const UPSTREAM: TaskKind = TaskKind { name: "test upstream", on_cancel: "ends", on_error: "ends" };
const CLIENT: TaskKind = TaskKind { name: "test client", on_cancel: "ends", on_error: "ends" };

const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"content\":[],\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n";
const STOP: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

struct Scene {
    network: MemoryNetwork,
    gateway: Gateway,
    /// Requests the upstream is at work on.
    open: Arc<AtomicUsize>,
    tasks: Tasks,
}

/// A gateway whose upstream begins every stream, thinks for `thinks` and ends it.
fn scene(limits: Limits, thinks: Duration) -> Scene {
    let (network, clock) = (MemoryNetwork::new(), Clock::real());
    let lane = Lane::new("main/0", "http://api:80", Scheme::ApiKey, Secret::new("k")).unwrap();
    let organisations = vec![Organisation::new("main", vec![Arc::new(lane)])];
    let settings = Settings { organisations, limits, ..Settings::default() };
    let gateway = Gateway::new(settings, clock, Arc::new(network.clone()));
    gateway.serve_here(Box::new(network.listen("gateway:80")));
    let mut door = network.listen("api:80");
    let open = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&open);
    Tasks::new().spawn(&UPSTREAM, async move {
        while let Ok(accepted) = door.accept().await {
            let mut conn = ServerConn::new(accepted.open().unwrap());
            let count = Arc::clone(&count);
            Tasks::new().spawn(&UPSTREAM, async move {
                while conn.read_head().await.is_ok() {
                    let mut body = BytesMut::new();
                    while conn.read_body(&mut body).await.is_ok_and(|n| n > 0) {}
                    count.fetch_add(1, Ordering::Relaxed);
                    conn.respond(200, None, false, |h| {
                        h.header("content-type", b"text/event-stream");
                    });
                    conn.push(START.as_bytes());
                    conn.flush().await.unwrap();
                    let left = clock.within(thinks, poll_fn(|cx| conn.poll_departed(cx))).await;
                    count.fetch_sub(1, Ordering::Relaxed);
                    if left.is_some() {
                        return;
                    }
                    conn.push(STOP.as_bytes());
                    conn.end();
                    conn.flush().await.unwrap();
                }
            });
        }
    });
    Scene { network, gateway, open, tasks: Tasks::new() }
}

impl Scene {
    async fn client(&self) -> (SendRequest<Bytes>, tokio::task::AbortHandle) {
        let io = self.network.connect("gateway:80").unwrap();
        let (client, conn) = h2::client::handshake(io).await.unwrap();
        let task = self.tasks.spawn(&CLIENT, async { drop(conn.await) });
        (client, task.abort_handle())
    }
}

async fn ask(client: &SendRequest<Bytes>) -> Result<Response<RecvStream>, h2::Error> {
    let body = r#"{"model":"m","max_tokens":4000,"stream":true,"messages":[]}"#;
    let request = Request::post("http://gateway/v1/messages").header("x-api-key", "any").body(()).unwrap();
    let mut client = client.clone().ready().await?;
    let (answer, mut send) = client.send_request(request, false)?;
    send.send_data(Bytes::from_static(body.as_bytes()), true)?;
    answer.await
}

async fn text(answer: Response<RecvStream>) -> Result<String, h2::Error> {
    let mut body = answer.into_body();
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        let _ = body.flow_control().release_capacity(piece.len());
        all.extend_from_slice(&piece);
    }
    Ok(String::from_utf8(all).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_cancels_the_upstreams_of_all_its_streams_at_once() {
    let scene = scene(Limits::default(), Duration::from_secs(30));
    let (client, conn) = scene.client().await;
    let (other, _) = scene.client().await;
    let neighbour = ask(&other).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..50 {
        answers.push(ask(&client).await.unwrap());
    }
    assert_eq!((scene.open.load(Ordering::Relaxed), scene.gateway.live().len()), (51, 51));
    assert_eq!(scene.gateway.living()["client connection"], 2);
    assert_eq!(scene.gateway.living()["client stream"], 51);
    let told = |line: &str| scene.gateway.metrics().text().contains(line);
    assert!(told("tidegate_client_connections 2\n") && told("tidegate_client_streams 51\n"));

    // One stream's reset is one upstream's end.
    drop(answers.pop());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(scene.open.load(Ordering::Relaxed), 50);

    conn.abort();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!((scene.open.load(Ordering::Relaxed), scene.gateway.live().len()), (1, 1));
    assert_eq!(scene.gateway.living()["client connection"], 1);
    assert!(told("tidegate_client_connections 1\n") && told("tidegate_client_streams 1\n"));
    assert!(text(neighbour).await.unwrap().ends_with(STOP));
    assert_eq!(scene.gateway.held(), (0, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn streams_of_all_connections_together_are_bounded() {
    let limits = Limits { streams: 8, ..Limits::default() };
    let scene = scene(limits, Duration::from_secs(5));
    let (client, _conn) = scene.client().await;
    let mut served = Vec::new();
    for _ in 0..8 {
        served.push(ask(&client).await.unwrap());
    }
    let refused = ask(&client).await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (529, &"1".parse().unwrap()));
    let said = text(refused).await.unwrap();
    assert!(said.contains("\"error_code\":\"too_many_streams\""), "{said}");
    for answer in served {
        assert!(text(answer).await.unwrap().ends_with(STOP));
    }
    assert_eq!(ask(&client).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn refusals_have_their_envelope_and_leave_the_connection_usable() {
    let scene = scene(Limits { body_bytes: 1000, ..Limits::default() }, Duration::ZERO);
    let (client, _conn) = scene.client().await;
    let post = |path: &str| Request::post(format!("http://gateway{path}")).header("x-api-key", "any");
    for (request, length, status, code) in [
        (post("/v1/messages").header("x", "y".repeat(70_000)), 0, 431, "head_too_large"),
        (post("/v1/messages").header("content-length", "1").header("content-length", "1"), 1, 400, "malformed_head"),
        (post("/nowhere"), 900_000, 404, "unknown_path"),
        (post("/v1/messages"), 900_000, 413, "body_too_large"),
        (post("/v1/messages").header("tidegate-priority", "yes"), 900_000, 400, "invalid_header"),
        (post("/v1/messages"), 10, 400, "invalid_body"),
    ] {
        let mut ready = client.clone().ready().await.unwrap();
        let (answer, mut send) = ready.send_request(request.body(()).unwrap(), false).unwrap();
        // A refusal may come before all of it went.
        let _ = send.send_data(Bytes::from(vec![b'x'; length]), true);
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), status, "{code}");
        let id = answer.headers()["request-id"].to_str().unwrap().to_owned();
        let said = text(answer).await.unwrap();
        assert!(said.contains(&format!("\"error_code\":\"{code}\"")) && said.contains(&id), "{said}");
    }
    let head = Request::head("http://gateway/").body(()).unwrap();
    let answer = client.clone().ready().await.unwrap().send_request(head, true).unwrap().0.await.unwrap();
    assert_eq!((answer.status().as_u16(), text(answer).await.unwrap()), (200, String::new()));
    assert!(text(ask(&client).await.unwrap()).await.unwrap().ends_with(STOP));
    assert_eq!(scene.gateway.living()["client connection"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_cut_by_a_reset_and_its_neighbour_goes_on() {
    let scene = scene(Limits::default(), Duration::from_secs(40));
    let io = scene.network.connect("gateway:80").unwrap();
    // A window that not even the first event fits into.
    let (client, conn) = h2::client::Builder::new().initial_window_size(50).handshake(io).await.unwrap();
    let conn = scene.tasks.spawn(&CLIENT, async { drop(conn.await) });
    let client: SendRequest<Bytes> = client;
    let slow = ask(&client).await.unwrap();
    let reader = ask(&client).await.unwrap();
    let (slow, reader) = tokio::join!(
        async {
            let mut body = slow.into_body();
            let first = body.data().await.unwrap().unwrap();
            assert_eq!(first.len(), 50);
            body.data().await.unwrap().unwrap_err().reason()
        },
        text(reader)
    );
    assert_eq!(slow, Some(Reason::INTERNAL_ERROR));
    assert!(reader.unwrap().ends_with(STOP));
    assert!(scene.gateway.metrics().text().contains("tidegate_clock_expired_total{clock=\"client_write_stall\"} 1\n"));
    conn.abort();
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_streams_and_closes_what_is_idle() {
    let scene = scene(Limits::default(), Duration::from_secs(20));
    let (busy, _busy) = scene.client().await;
    let (_idle, _conn) = scene.client().await;
    let answer = ask(&busy).await.unwrap();
    let draining = scene.gateway.clone();
    let drained = scene.tasks.spawn(&CLIENT, async move { draining.drain().await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.gateway.living()["client connection"], 1, "the idle one has gone");
    assert!(busy.clone().ready().await.is_err(), "no more requests are taken");
    assert!(text(answer).await.unwrap().ends_with(STOP));
    assert_eq!(drained.await.unwrap().cut, 0);
    assert!(scene.gateway.living().is_empty());
}
