//! The simulator over WebSocket: both dialects, and what breaks a socket.
#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

use bytes::{Buf, BytesMut};
use serde_json::{Value, json};
use std::time::Duration;
use tidegate_simulator::{Pace, Scenario, Simulator, Tier};
use tidegate_simulator_server::{Doors, HTTP2_STREAMS, SharedSimulator, run};
use tidegate_transport::{BoxIo, Clock, MemoryNetwork, TaskKind, Tasks};
use tidegate_wire::websocket::{Event, MessageReader, Opcode, ReadRules, Role, write_close, write_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVER: TaskKind = TaskKind { name: "server", on_cancel: "ends", on_error: "ends" };
const KEY: [u8; 4] = [1, 2, 3, 4];

struct World {
    network: MemoryNetwork,
    simulator: SharedSimulator,
    clock: Clock,
}

fn world() -> World {
    let network = MemoryNetwork::new();
    let clock = Clock::from_wall(std::time::UNIX_EPOCH + Duration::from_secs(1_795_379_640));
    let scenario = Scenario { pace: Pace::immediate(), tier: Tier::Unlimited, ..Scenario::calm() };
    let simulator = SharedSimulator::new(Simulator::new(scenario, 4, 1_795_379_640));
    let tasks = Tasks::new();
    let doors = Doors { api: Box::new(network.listen("api:80")), truth: None, http2_streams: HTTP2_STREAMS };
    let serving = run(doors, simulator.clone(), clock, tasks.clone(), std::future::pending());
    tasks.spawn(&SERVER, async move { serving.await.unwrap() });
    World { network, simulator, clock }
}

/// What a client read.
#[derive(Clone, Debug, PartialEq)]
enum Read {
    Message(String),
    Pong,
    Closed(u16),
    /// The connection ended without a close frame: inside a frame or not, by a reset or not.
    Cut {
        inside: bool,
        reset: bool,
    },
}

struct Client {
    io: BoxIo,
    read: BytesMut,
    reader: MessageReader,
}

impl World {
    fn opening(target: &str, lines: &str) -> String {
        format!(
            "GET {target} HTTP/1.1\r\nhost: api\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
        )
    }

    async fn open(&self, target: &str, lines: &str) -> (String, Client) {
        let mut io = self.network.connect("api:80").unwrap();
        io.write_all(Self::opening(target, lines).as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(io.read_u8().await.unwrap());
        }
        let rules = ReadRules { role: Role::Client, frame_bytes_max: 1 << 24, message_bytes_max: 1 << 24 };
        let client = Client { io, read: BytesMut::new(), reader: MessageReader::new(rules) };
        (String::from_utf8(head).unwrap().to_lowercase(), client)
    }

    async fn streams(&self) -> Client {
        let lines = "x-api-key: sk-ant-acme-1\r\nsec-websocket-protocol: tidegate.v1\r\n";
        let (head, client) = self.open("/v1/stream", lines).await;
        assert!(head.starts_with("http/1.1 101") && head.contains("sec-websocket-protocol: tidegate.v1\r\n"), "{head}");
        client
    }

    fn truth(&self) -> Value {
        let now = self.clock.now();
        self.simulator.with(|simulator| simulator.truth().summary(now))
    }

    fn texts(&self) -> Vec<String> {
        self.simulator
            .with(|simulator| simulator.truth().records().filter_map(tidegate_simulator::Record::text).collect())
    }
}

impl Client {
    async fn send(&mut self, message: &Value) {
        let mut out = BytesMut::new();
        write_frame(&mut out, Opcode::Text, true, Some(KEY), message.to_string().as_bytes());
        self.io.write_all(&out).await.unwrap();
    }

    async fn create(&mut self, id: &str, more: Value) {
        let request = json!({"model": "claude-haiku-4-5", "max_tokens": 1_000,
            "messages": [{"role": "user", "content": format!("hello from {id}")}]});
        let mut message = json!({"type": "message.create", "id": id, "request": request});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.send(&message).await;
    }

    async fn next(&mut self) -> Read {
        loop {
            let step = self.reader.step(&mut self.read).unwrap();
            let used = step.used;
            let read = match step.event {
                Some(Event::Text(text)) => Some(Read::Message(text.into_owned())),
                Some(Event::Pong(_)) => Some(Read::Pong),
                Some(Event::Close(why)) => Some(Read::Closed(why.map_or(0, |(code, _)| code.number()))),
                _ => None,
            };
            self.read.advance(used);
            if let Some(read) = read {
                return read;
            }
            if self.read.is_empty() {
                match self.io.read_buf(&mut self.read).await {
                    Ok(0) => return Read::Cut { inside: self.reader.is_inside_message(), reset: false },
                    Ok(_) => {}
                    Err(_) => return Read::Cut { inside: self.reader.is_inside_message(), reset: true },
                }
            }
        }
    }

    async fn message(&mut self) -> Value {
        match self.next().await {
            Read::Message(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The messages up to the end of this stream.
    async fn until_end(&mut self, id: &str) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let message = self.message().await;
            let over =
                message["id"] == id && ["stream.end", "stream.error"].iter().any(|last| message["type"] == *last);
            all.push(message);
            if over {
                return all;
            }
        }
    }
}

fn text(messages: &[Value], id: &str) -> String {
    messages.iter().filter(|m| m["id"] == id).filter_map(|m| m["event"]["delta"]["text"].as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn two_streams_share_a_socket_and_each_is_whole() {
    let world = world();
    let mut client = world.streams().await;
    client.create("a1", json!({"simulate": "event_ms=20"})).await;
    client.create("a2", json!({"simulate": "event_ms=33"})).await;
    let mut all = client.until_end("a1").await;
    if !all.iter().any(|m| m["id"] == "a2" && m["type"] == "stream.end") {
        all.extend(client.until_end("a2").await);
    }
    for (n, id) in ["a1", "a2"].iter().enumerate() {
        let own: Vec<&Value> = all.iter().filter(|m| m["id"] == *id).collect();
        assert_eq!(own[0]["type"], "stream.open");
        assert!(own[0]["headers"]["request-id"].is_string());
        let seqs: Vec<u64> = own.iter().filter_map(|m| m["first_seq"].as_u64()).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
        let last = own.last().unwrap();
        assert_eq!(
            (&last["type"], &last["reason"], &last["seq"]),
            (&json!("stream.end"), &json!("stop"), &json!(seqs.len()))
        );
        assert_eq!(text(&all, id), world.texts()[n]);
    }
    let order: Vec<bool> = all.iter().map(|m| m["id"] == "a1").collect();
    assert!(order.windows(2).filter(|pair| pair[0] != pair[1]).count() > 10, "they take turns");
    assert_eq!((world.truth()["streams_played"].as_u64(), world.truth()["open"].as_u64()), (Some(2), Some(0)));
}

#[tokio::test(start_paused = true)]
async fn prompts_are_answered_one_after_another_and_once_is_once() {
    let world = world();
    let (head, mut client) = world.open("/v1/stream", "x-api-key: sk-ant-acme-1\r\n").await;
    assert!(head.starts_with("http/1.1 101") && !head.contains("sec-websocket-protocol"), "{head}");
    for prompt in ["one", "two"] {
        client.send(&json!({"prompt": prompt})).await;
    }
    for n in 0..2 {
        let mut said = String::new();
        let done = loop {
            let message = client.message().await;
            match message["event"].as_str() {
                Some("completion") => said += message["text"].as_str().unwrap(),
                _ => break message,
            }
        };
        assert_eq!((&done["event"], &done["stop_reason"]), (&json!("done"), &json!("end_turn")));
        assert!(done["usage"]["output_tokens"].as_u64().unwrap() > 10);
        assert_eq!(said, world.texts()[n]);
    }
    let (_, mut client) = world.open("/v1/stream?once=1", "x-api-key: sk-ant-acme-1\r\n").await;
    client.send(&json!({"prompt": "three"})).await;
    let mut last = client.next().await;
    while let Read::Message(_) = last {
        last = client.next().await;
    }
    assert_eq!(last, Read::Closed(1000));
}

#[tokio::test(start_paused = true)]
async fn a_socket_breaks_as_the_fault_says() {
    let world = world();
    let cut = |inside, reset| Read::Cut { inside, reset };
    for (fault, ending) in [
        ("close-code-at:in-text:1001", Read::Closed(1001)),
        ("close-code-at:in-text:1011", Read::Closed(1011)),
        ("close-code-at:event-0:1013", Read::Closed(1013)),
        ("goaway-at:event-3", Read::Closed(1001)),
        ("reset-at:in-text", cut(true, true)),
        ("close-at:in-data", cut(true, false)),
        ("truncate-at:in-text", cut(true, false)),
        ("close-at:before-stop", cut(false, false)),
        ("reset-before-head", cut(false, true)),
    ] {
        let mut client = world.streams().await;
        client.create("a1", json!({"simulate": format!("fault={fault}")})).await;
        let mut last = client.next().await;
        while let Read::Message(_) = last {
            last = client.next().await;
        }
        assert_eq!(last, ending, "{fault}");
        drop(client);
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    assert_eq!(world.truth()["open"], 0);
}

#[tokio::test(start_paused = true)]
async fn errors_of_a_stream_end_it_and_not_the_socket() {
    let world = world();
    let mut client = world.streams().await;
    for (fault, status, kind) in [
        ("status:529:3", 529, "overloaded_error"),
        ("status:502", 502, "api_error"),
        ("error-at:in-text", 529, "overloaded_error"),
        ("error-at:event-2:api_error", 500, "api_error"),
    ] {
        client.create("a1", json!({"simulate": format!("fault={fault}")})).await;
        let all = client.until_end("a1").await;
        let last = all.last().unwrap();
        assert_eq!(
            (&last["type"], &last["status"], &last["error"]["type"]),
            (&json!("stream.error"), &json!(status), &json!(kind)),
            "{fault}"
        );
        assert_eq!(last["retry_after_s"], if fault == "status:529:3" { json!(3) } else { Value::Null });
    }
    client.create("a1", json!({"simulate": "fault=end-at:before-stop"})).await;
    let all = client.until_end("a1").await;
    assert_eq!(all.last().unwrap()["type"], "stream.end");
    assert!(!all.iter().any(|m| m["event"]["type"] == "message_stop"));
    client.create("a1", json!({"simulate": "fault=one-byte, fault=duplicate-at:in-text"})).await;
    assert_eq!(client.until_end("a1").await.last().unwrap()["reason"], "stop");
    for bad in [json!({"type": "hello", "id": "a"}), json!([])] {
        client.send(&bad).await;
        assert_eq!(client.message().await["error"]["details"]["error_code"], "invalid_frame");
    }
    client.send(&json!({"type": "stream.resume", "id": "a2", "stream": "str_1"})).await;
    assert_eq!(client.message().await["status"], 404);
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_until_a_fault_forbids_it() {
    let world = world();
    let mut client = world.streams().await;
    let mut ping = BytesMut::new();
    write_frame(&mut ping, Opcode::Ping, true, Some(KEY), b"there?");
    client.io.write_all(&ping).await.unwrap();
    assert_eq!(client.next().await, Read::Pong);
    client.create("a1", json!({"simulate": "first_ms=3600000, fault=no-pong"})).await;
    let mut opened = client.message().await;
    while opened["type"] != "stream.open" {
        opened = client.message().await;
    }
    client.io.write_all(&ping).await.unwrap();
    let more = async {
        loop {
            if client.next().await == Read::Pong {
                return;
            }
        }
    };
    assert!(world.clock.within(Duration::from_secs(60), more).await.is_none(), "no pong any more");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_cancelled_alone_and_one_without_credit_waits() {
    let world = world();
    let mut client = world.streams().await;
    client.create("a1", json!({"credit": 300})).await;
    client.create("a2", json!({"simulate": "first_ms=60000"})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.send(&json!({"type": "stream.cancel", "id": "a2"})).await;
    let before = client.until_end("a2").await;
    assert_eq!(before.last().unwrap()["reason"], "cancelled");
    let sent: usize = before
        .iter()
        .filter(|m| m["id"] == "a1" && m["type"] == "stream.event")
        .map(|m| m["event"].to_string().len())
        .sum();
    assert!((300..2_000).contains(&sent), "{sent}");
    client.send(&json!({"type": "stream.credit", "id": "a1", "bytes": 1_000_000})).await;
    assert_eq!(client.until_end("a1").await.last().unwrap()["reason"], "stop");
    assert_eq!(world.truth()["clients_left"], 1);
}

#[tokio::test(start_paused = true)]
async fn openings_are_refused_or_never_answered() {
    let world = world();
    let (head, _) = world.open("/v1/stream", "x-api-key: nobody\r\n").await;
    assert!(head.starts_with("http/1.1 401"), "{head}");
    let (head, _) = world.open("/v1/stream", "x-api-key: sk-ant-a-1\r\nsec-websocket-protocol: other\r\n").await;
    assert!(head.starts_with("http/1.1 400"), "{head}");
    let open = world.open("/v1/stream", "x-api-key: sk-ant-a-1\r\nsimulate: fault=no-upgrade\r\n");
    assert!(world.clock.within(Duration::from_secs(250), open).await.is_none());
    let mut left = world.streams().await;
    left.create("a1", json!({"simulate": "first_ms=60000"})).await;
    let _ = left.message().await;
    let mut bye = BytesMut::new();
    write_close(&mut bye, None, Some(KEY));
    left.io.write_all(&bye).await.unwrap();
    let mut last = left.next().await;
    while let Read::Message(_) = last {
        last = left.next().await;
    }
    assert_eq!(last, Read::Closed(1000));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!((world.truth()["open"].as_u64(), world.truth()["clients_left"].as_u64()), (Some(0), Some(1)));
}
