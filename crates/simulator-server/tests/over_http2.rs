//! The simulator over HTTP/2: faults as frames, and the bare target's frames.
#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use serde_json::{Value, json};
use std::time::Duration;
use tidegate_simulator::{BareShape, Pace, Scenario, Simulator, Tier};
use tidegate_simulator_server::{Doors, HTTP2_STREAMS, SharedSimulator, run};
use tidegate_transport::{Clock, MemoryNetwork, TaskKind, Tasks};

const SERVER: TaskKind = TaskKind { name: "server", on_cancel: "ends", on_error: "ends" };
const CLIENT: TaskKind = TaskKind { name: "client", on_cancel: "ends", on_error: "ends" };

struct World {
    network: MemoryNetwork,
    simulator: SharedSimulator,
    clock: Clock,
    tasks: Tasks,
    stop: tokio::sync::oneshot::Sender<()>,
}

fn world(scenario: Scenario) -> World {
    let network = MemoryNetwork::new();
    let clock = Clock::from_wall(std::time::UNIX_EPOCH + Duration::from_secs(1_795_379_640));
    let simulator = SharedSimulator::new(Simulator::new(scenario, 4, 1_795_379_640));
    let tasks = Tasks::new();
    let doors = Doors { api: Box::new(network.listen("api:80")), truth: None, http2_streams: HTTP2_STREAMS };
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let serving = run(doors, simulator.clone(), clock, tasks.clone(), async {
        let _ = stopped.await;
    });
    tasks.spawn(&SERVER, async move { serving.await.unwrap() });
    World { network, simulator, clock, tasks, stop }
}

fn unhurried() -> World {
    world(Scenario { pace: Pace::immediate(), tier: Tier::Unlimited, ..Scenario::calm() })
}

impl World {
    /// A client, and what becomes of its connection.
    async fn client(&self) -> (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
        let io = self.network.connect("api:80").unwrap();
        let (client, conn) = h2::client::handshake(io).await.unwrap();
        (client, Tasks::new().spawn(&CLIENT, conn))
    }

    fn truth(&self) -> Value {
        let now = self.clock.now();
        self.simulator.with(|simulator| simulator.truth().summary(now))
    }
}

async fn ask(client: &SendRequest<Bytes>, stream: bool, simulate: &str) -> Result<Response<RecvStream>, h2::Error> {
    let body = json!({"model": "claude-haiku-4-5", "max_tokens": 1_000, "stream": stream, "messages": [{"role": "user", "content": "hello"}]});
    let request = Request::post("http://api/v1/messages")
        .header("x-api-key", "sk-ant-acme-1")
        .header("anthropic-version", "2023-06-01")
        .header("simulate", simulate)
        .body(())
        .unwrap();
    let mut client = client.clone().ready().await?;
    let (answer, mut send) = client.send_request(request, false)?;
    send.send_data(body.to_string().into(), true)?;
    answer.await
}

/// The DATA frames until the stream ends, and how it ended.
async fn frames(answer: Response<RecvStream>) -> (Vec<Bytes>, Result<(), h2::Error>) {
    let mut body = answer.into_body();
    let mut all = Vec::new();
    loop {
        match body.data().await {
            Some(Ok(piece)) => {
                let _ = body.flow_control().release_capacity(piece.len());
                all.push(piece);
            }
            Some(Err(e)) => return (all, Err(e)),
            None => return (all, Ok(())),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn streams_and_answers_share_a_connection() {
    let world = unhurried();
    let (client, _conn) = world.client().await;
    let (streamed, buffered) = tokio::join!(ask(&client, true, ""), ask(&client, false, ""));
    let (streamed, buffered) = (streamed.unwrap(), buffered.unwrap());
    assert_eq!(buffered.headers()["content-type"], "application/json");
    let (pieces, ended) = frames(buffered).await;
    let message: Value = serde_json::from_slice(&pieces.concat()).unwrap();
    assert!(ended.is_ok() && message["type"] == "message");
    let (pieces, ended) = frames(streamed).await;
    let text = String::from_utf8(pieces.concat()).unwrap();
    assert!(ended.is_ok() && text.ends_with("{\"type\":\"message_stop\"}\n\n"), "{text}");
    assert_eq!((world.truth()["requests"].as_u64(), world.truth()["open"].as_u64()), (Some(2), Some(0)));
    world.stop.send(()).unwrap();
    world.tasks.all_ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_the_streams_alone_and_a_close_is_the_connections() {
    let world = unhurried();
    let (client, conn) = world.client().await;
    let slow = ask(&client, true, "first_ms=5000").await.unwrap();

    let cut = ask(&client, true, "fault=reset-at:event-4").await.unwrap();
    let (pieces, ended) = frames(cut).await;
    assert_eq!(ended.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
    let text = String::from_utf8(pieces.concat()).unwrap();
    assert!(text.contains("message_start") && !text.contains("message_stop"), "{text}");
    let none = ask(&client, true, "fault=reset-before-head").await.err().unwrap();
    assert_eq!(none.reason(), Some(Reason::INTERNAL_ERROR));
    let (_, whole) = frames(slow).await;
    assert!(whole.is_ok(), "a neighbour's reset is nothing to this stream");

    for (fault, has_head) in [("fault=close-at:event-4", true), ("fault=close-before-head", false)] {
        let (client, conn) = world.client().await;
        let neighbour = ask(&client, true, "first_ms=600000").await.unwrap();
        let answer = ask(&client, true, fault).await;
        assert_eq!(answer.is_ok(), has_head, "{fault}");
        if let Ok(answer) = answer {
            let (pieces, ended) = frames(answer).await;
            assert!(!pieces.is_empty() && ended.unwrap_err().reason().is_none(), "{fault}");
        }
        assert!(frames(neighbour).await.1.is_err(), "{fault}");
        drop(client);
        let _ = world.clock.within(Duration::from_secs(1), conn).await.unwrap();
    }
    drop((client, conn));
    assert_eq!(world.truth()["faults_struck"], 2);
    assert_eq!(world.truth()["open"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_goaway_lets_streams_go_on_and_one_with_an_error_ends_them() {
    let world = unhurried();
    let (client, conn) = world.client().await;
    let neighbour = ask(&client, true, "first_ms=5000").await.unwrap();
    let answer = ask(&client, true, "first_ms=1000, fault=goaway-at:event-4").await.unwrap();
    let (pieces, ended) = frames(answer).await;
    assert!(ended.is_ok() && pieces.concat().ends_with(b"message_stop\"}\n\n"), "the stream itself goes on");
    let refused = ask(&client, true, "").await.err().unwrap();
    assert_eq!((refused.is_go_away(), refused.reason()), (true, Some(Reason::NO_ERROR)), "{refused}");
    assert!(frames(neighbour).await.1.is_ok(), "and so does its neighbour");
    drop(client);
    world.clock.within(Duration::from_secs(1), conn).await.unwrap().unwrap().unwrap();

    let (client, conn) = world.client().await;
    let neighbour = ask(&client, true, "first_ms=600000").await.unwrap();
    let answer = ask(&client, true, "fault=goaway-at:in-data:error").await.unwrap();
    let (pieces, ended) = frames(answer).await;
    assert!(!pieces.is_empty() && ended.is_err());
    assert!(frames(neighbour).await.1.is_err());
    drop(client);
    let why = world.clock.within(Duration::from_secs(1), conn).await.unwrap().unwrap().unwrap_err();
    assert!(why.is_go_away() && why.reason() == Some(Reason::INTERNAL_ERROR), "{why}");
    assert_eq!((world.truth()["faults_struck"].as_u64(), world.truth()["open"].as_u64()), (Some(2), Some(0)));
}

#[tokio::test(start_paused = true)]
async fn one_byte_is_one_frame() {
    let world = unhurried();
    let (client, _conn) = world.client().await;
    let answer = ask(&client, true, "output_tokens=5, fault=one-byte").await.unwrap();
    let (pieces, ended) = frames(answer).await;
    assert!(ended.is_ok() && pieces.len() > 500);
    assert!(pieces.iter().all(|piece| piece.len() <= 1), "{:?}", pieces.iter().map(Bytes::len).max());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_resets_its_stream_has_left() {
    let world = unhurried();
    let (client, _conn) = world.client().await;
    let answer = ask(&client, true, "first_ms=600000").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.truth()["open"], 1);
    drop(answer);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!((world.truth()["open"].as_u64(), world.truth()["clients_left"].as_u64()), (Some(0), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn the_bare_target_sends_each_event_in_a_frame_of_its_own() {
    for interval in [Duration::ZERO, Duration::from_millis(20)] {
        let shape = BareShape { interval, ..BareShape::default() };
        let world = world(Scenario { bare: Some(shape), ..Scenario::calm() });
        let (client, _conn) = world.client().await;
        let began = world.clock.now();
        let (pieces, ended) = frames(ask(&client, true, "").await.unwrap()).await;
        assert!(ended.is_ok());
        assert_eq!(world.clock.now().since(began) / 50, interval);
        assert_eq!(pieces.iter().filter(|piece| piece.len() == 125).count(), 50, "{interval:?}");
        let (pieces, ended) = frames(ask(&client, false, "").await.unwrap()).await;
        assert!(ended.is_ok());
        assert_eq!(pieces.concat().len(), 480);
    }
}
