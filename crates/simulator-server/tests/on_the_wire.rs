//! The model on sockets: what a client sees, when, and what the ground truth says afterwards. In
//! virtual time over an in-memory network, except where only a real socket will do.
#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

use serde_json::{Value, json};
use std::time::Duration;
use tidegate_simulator::{BareShape, Pace, Scenario, Simulator, Tier};
use tidegate_simulator_server::{Doors, HTTP2_STREAMS, SharedSimulator, run};
use tidegate_transport::{
    BoxIo, Clock, Dial, DialClocks, HttpOffer, MemoryNetwork, STAMP_BYTES, ServerTls, Target, TaskKind, Tasks, TcpDial,
    TcpListen, TlsFiles, TlsListen, TlsRoots, stamped_ago,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVER: TaskKind = TaskKind { name: "server", on_cancel: "ends", on_error: "ends" };

struct World {
    network: MemoryNetwork,
    simulator: SharedSimulator,
    clock: Clock,
    tasks: Tasks,
    stop: tokio::sync::oneshot::Sender<()>,
}

fn unhurried() -> Scenario {
    Scenario { pace: Pace::immediate(), tier: Tier::Unlimited, ..Scenario::calm() }
}

fn world(scenario: Scenario) -> World {
    let network = MemoryNetwork::new();
    let clock = Clock::from_wall(std::time::UNIX_EPOCH + Duration::from_secs(1_795_379_640));
    let simulator = SharedSimulator::new(Simulator::new(scenario, 4, 1_795_379_640));
    let tasks = Tasks::new();
    let doors = Doors {
        api: Box::new(network.listen("api:80")),
        truth: Some(Box::new(network.listen("truth:80"))),
        http2_streams: HTTP2_STREAMS,
    };
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let serving = run(doors, simulator.clone(), clock, tasks.clone(), async {
        let _ = stopped.await;
    });
    tasks.spawn(&SERVER, async move { serving.await.unwrap() });
    World { network, simulator, clock, tasks, stop }
}

fn hello(stream: bool) -> Value {
    json!({"model": "claude-haiku-4-5", "max_tokens": 1_000, "stream": stream, "messages": [{"role": "user", "content": "hello"}]})
}

fn request(body: &Value, simulate: &str) -> String {
    let body = body.to_string();
    format!(
        "POST /v1/messages HTTP/1.1\r\nhost: api\r\nx-api-key: sk-ant-acme-1\r\nanthropic-version: 2023-06-01\r\nsimulate: {simulate}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads one response off the connection: head and body, chunks taken apart.
async fn response(io: &mut BoxIo) -> std::io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let mut body = Vec::new();
    if let Some(length) = head.split("content-length: ").nth(1) {
        body.resize(length.split("\r\n").next().unwrap().parse().unwrap(), 0);
        io.read_exact(&mut body).await?;
        return Ok((head, body));
    }
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(io.read_u8().await?);
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        io.read_exact(&mut chunk).await?;
        if size == 0 {
            return Ok((head, body));
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

async fn ask(io: &mut BoxIo, body: &Value, simulate: &str) -> (String, Vec<u8>) {
    io.write_all(request(body, simulate).as_bytes()).await.unwrap();
    response(io).await.unwrap()
}

/// Everything until the connection ends, and how it ended.
async fn rest(io: &mut BoxIo) -> (Vec<u8>, std::io::Result<()>) {
    let mut bytes = Vec::new();
    let ended = io.read_to_end(&mut bytes).await.map(drop);
    (bytes, ended)
}

async fn truth(world: &World, target: &str) -> Value {
    let mut io = world.network.connect("truth:80").unwrap();
    io.write_all(format!("GET {target} HTTP/1.1\r\nhost: t\r\n\r\n").as_bytes()).await.unwrap();
    serde_json::from_slice(&response(&mut io).await.unwrap().1).unwrap()
}

#[tokio::test(start_paused = true)]
async fn answers_and_streams_share_a_connection() {
    let world = world(unhurried());
    let mut io = world.network.connect("api:80").unwrap();
    let (head, body) = ask(&mut io, &hello(false), "").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: application/json"));
    let message: Value = serde_json::from_slice(&body).unwrap();
    let (head, body) = ask(&mut io, &hello(true), "").await;
    assert!(head.contains("text/event-stream") && head.contains("transfer-encoding: chunked"));
    let stream = String::from_utf8(body).unwrap();
    assert!(stream.contains(message["id"].as_str().unwrap()) && stream.ends_with("{\"type\":\"message_stop\"}\n\n"));
    io.write_all(
        b"GET /v1/models?limit=2 HTTP/1.1\r\nhost: a\r\nx-api-key: sk-ant-a\r\nanthropic-version: 2026-10-21\r\n\r\n",
    )
    .await
    .unwrap();
    let page: Value = serde_json::from_slice(&response(&mut io).await.unwrap().1).unwrap();
    assert_eq!(page["data"].as_array().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn time_passes_as_the_pace_says() {
    let world = world(unhurried());
    let mut io = world.network.connect("api:80").unwrap();
    let began = world.clock.now();
    ask(&mut io, &hello(true), "head_ms=1000, first_ms=2000, event_ms=0, output_tokens=10").await;
    assert_eq!(world.clock.now().since(began), Duration::from_secs(3));
    ask(&mut io, &hello(false), "fault=slow-head:300s").await;
    assert_eq!(world.clock.now().since(began), Duration::from_secs(303));
}

#[tokio::test(start_paused = true)]
async fn headers_may_be_sampled_when_the_head_leaves() {
    for (switch, told) in [("admission", "49"), ("first-byte", "48")] {
        let lines = format!("[quota]\ntier = \"first\"\nheaders = \"{switch}\"");
        let world = world(Scenario { pace: Pace::immediate(), ..Scenario::parse(&lines).unwrap() });
        let (mut slow, mut quick) =
            (world.network.connect("api:80").unwrap(), world.network.connect("api:80").unwrap());
        slow.write_all(request(&hello(true), "head_ms=500").as_bytes()).await.unwrap();
        world.clock.sleep_until(world.clock.now() + Duration::from_millis(100)).await;
        ask(&mut quick, &hello(true), "").await;
        let (head, _) = response(&mut slow).await.unwrap();
        assert!(head.contains(&format!("anthropic-ratelimit-requests-remaining: {told}\r\n")), "{switch}: {head}");
        assert_eq!(head.matches("anthropic-ratelimit-").count(), 12);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_runs_out_of_output_ends_in_an_error_event_and_the_connection_goes_on() {
    let lines = "[quota]\ntier = \"first\"\noutput_exhausted = \"error\"";
    let world = world(Scenario { pace: Pace::immediate(), ..Scenario::parse(lines).unwrap() });
    let mut io = world.network.connect("api:80").unwrap();
    let mut body = hello(true);
    body["max_tokens"] = json!(20_000);
    let (head, stream) = ask(&mut io, &body, "output_tokens=12000").await;
    let stream = String::from_utf8(stream).unwrap();
    assert!(head.starts_with("http/1.1 200"));
    let last = stream.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("event: error\n") && last.contains("rate_limit_error"), "{last}");
    let (head, _) = ask(&mut io, &body, "").await;
    assert!(head.starts_with("http/1.1 429") && head.contains("retry-after: 1\r\n"), "{head}");
    let summary = truth(&world, "/truth").await;
    let output = &summary["quota"]["limits"][0]["output_tokens"];
    assert!((8_000..8_020).contains(&output["used"].as_i64().unwrap()), "{output}");
    assert_eq!(summary["refusals_of"]["acme"], json!({"429-output-tokens": 1}));
    let seconds = truth(&world, "/truth/seconds").await;
    let row = &seconds[0]["seconds"][0];
    assert_eq!(
        (&seconds[0]["class"], &row[1], &row[3], &row[4]),
        (&json!("haiku-4-5"), &json!(1), &output["used"], &json!(1))
    );
}

#[tokio::test(start_paused = true)]
async fn breaks_are_what_they_are_called() {
    let world = world(unhurried());
    let struck = async |fault: &str| {
        let mut io = world.network.connect("api:80").unwrap();
        io.write_all(request(&hello(true), &format!("fault={fault}")).as_bytes()).await.unwrap();
        let (bytes, ended) = rest(&mut io).await;
        (String::from_utf8_lossy(&bytes).into_owned(), ended.map_err(|error| error.kind()))
    };
    let reset = Err(std::io::ErrorKind::ConnectionReset);
    assert_eq!(struck("reset-before-head").await, (String::new(), reset));
    assert_eq!(struck("close-before-head").await, (String::new(), Ok(())));
    for (fault, ending) in [("reset-at:700", reset), ("close-at:700", Ok(()))] {
        let (text, ended) = struck(fault).await;
        assert_eq!(ended, ending);
        assert!(text.contains("transfer-encoding: chunked") && !text.ends_with("0\r\n\r\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_connection_stays_open_until_the_client_closes_its_half() {
    let world = world(unhurried());
    let began = world.clock.now();
    for (fault, kept) in [("half-close-at:700", true), ("truncate-at:700", false)] {
        let mut io = world.network.connect("api:80").unwrap();
        io.write_all(request(&hello(true), &format!("fault={fault}")).as_bytes()).await.unwrap();
        let (bytes, ended) = rest(&mut io).await;
        assert!(ended.is_ok() && !bytes.ends_with(b"0\r\n\r\n"), "{fault}");
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(io.write_all(b"still here").await.is_ok(), kept, "{fault}");
        assert_eq!(world.simulator.with(|simulator| simulator.truth().open), 0, "{fault}: the answer has ended");
        drop(io);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(world.clock.now().since(began) < Duration::from_secs(201));
    world.stop.send(()).unwrap();
    world.tasks.all_ended().await;
}

#[tokio::test(start_paused = true)]
async fn over_http_1_a_goaway_is_a_close_after_the_answer_or_at_once() {
    let world = world(unhurried());
    for (fault, whole) in [("goaway-at:event-3", true), ("goaway-at:event-3:error", false)] {
        let mut io = world.network.connect("api:80").unwrap();
        io.write_all(request(&hello(true), &format!("fault={fault}")).as_bytes()).await.unwrap();
        let (bytes, ended) = rest(&mut io).await;
        assert_eq!((ended.is_ok(), bytes.ends_with(b"0\r\n\r\n")), (true, whole), "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trickle_takes_the_time_its_bytes_need_and_loses_none() {
    let world = world(unhurried());
    let mut io = world.network.connect("api:80").unwrap();
    for stream in [true, false] {
        let (_, whole) = ask(&mut io, &hello(stream), "seed=3").await;
        let began = world.clock.now();
        let (_, body) = ask(&mut io, &hello(stream), "seed=3, fault=trickle:1KB").await;
        let took = world.clock.now().since(began).as_millis();
        assert_eq!(body.len(), whole.len());
        let least = body.len() as u128;
        // The client has the last piece when its time begins.
        assert!((least - 120..least + 1_000).contains(&took), "{stream}: {least} bytes in {took} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_end_is_a_good_http_body_and_the_connection_lives_on() {
    let world = world(unhurried());
    let mut io = world.network.connect("api:80").unwrap();
    let (_, body) = ask(&mut io, &hello(true), "fault=end-at:before-stop").await;
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains("message_delta") && !text.contains("message_stop"));
    let (head, body) = ask(&mut io, &hello(true), "fault=one-byte").await;
    assert!(head.starts_with("http/1.1 200") && body.ends_with(b"message_stop\"}\n\n"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_noticed_at_once_while_waiting_and_while_streaming() {
    let world = world(unhurried());
    for (simulate, at_s) in [("fault=slow-head:100s", 20), ("event_ms=60000, output_tokens=500", 90)] {
        let mut io = world.network.connect("api:80").unwrap();
        io.write_all(request(&hello(true), simulate).as_bytes()).await.unwrap();
        let began = world.clock.now();
        world.clock.sleep_until(began + Duration::from_secs(at_s)).await;
        let left = world.clock.now();
        drop(io);
        tokio::time::sleep(Duration::from_millis(1)).await;
        world.simulator.with(|simulator| {
            let record = simulator.truth().records().next_back().unwrap().clone();
            assert_eq!((record.left, record.ended), (Some(left), Some(left)), "{simulate}");
            assert_eq!(simulator.truth().open_streams, 0);
        });
    }
    let summary = truth(&world, "/truth").await;
    assert_eq!(
        (&summary["clients_left"], &summary["closing_max_us"], &summary["peak_streams"]),
        (&json!(2), &json!(0), &json!(1))
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_does_not_fill_the_memory_and_is_noticed_leaving() {
    let world = world(unhurried());
    let mut io = world.network.connect("api:80").unwrap();
    let mut body = hello(true);
    body["max_tokens"] = json!(60_000);
    io.write_all(request(&body, "output_tokens=60000").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let sent = world.simulator.with(|simulator| simulator.truth().records().next().unwrap().progress.body_bytes);
    assert!((32 << 10..100 << 10).contains(&sent), "the pipe and one write: {sent}");
    drop(io);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(world.simulator.with(|simulator| simulator.truth().clients_left), 1);
}

#[tokio::test(start_paused = true)]
async fn the_truth_is_told_on_its_own_door() {
    let world = world(unhurried());
    let mut io = world.network.connect("api:80").unwrap();
    let (head, body) = ask(&mut io, &hello(false), "").await;
    let id = head.split("request-id: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
    let message: Value = serde_json::from_slice(&body).unwrap();
    let record = truth(&world, &format!("/truth/requests/{id}")).await;
    assert_eq!((&record["text"], &record["usage"]), (&message["content"][0]["text"], &message["usage"]));
    assert_eq!(truth(&world, "/truth/requests?limit=5").await[0], record);
    let summary = truth(&world, "/truth").await;
    assert_eq!(summary["domains"][0]["output_tokens"], message["usage"]["output_tokens"]);
    assert!(truth(&world, "/truth/requests/req_x").await["error"].is_string());
    let mut io = world.network.connect("truth:80").unwrap();
    io.write_all(b"POST /truth/reset HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    response(&mut io).await.unwrap();
    assert_eq!(truth(&world, "/truth").await["requests"], 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_request_and_what_is_too_large() {
    let world = world(unhurried());
    let mut io = world.network.connect("api:80").unwrap();
    io.write_all(b"nonsense\r\n\r\n").await.unwrap();
    assert!(response(&mut io).await.unwrap().0.starts_with("http/1.1 400"));
    let mut io = world.network.connect("api:80").unwrap();
    io.write_all(b"POST /v1/messages HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 32000001\r\n\r\n")
        .await
        .unwrap();
    let (head, body) = response(&mut io).await.unwrap();
    assert!(head.starts_with("http/1.1 413") && head.contains("connection: close"));
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["error"]["type"], "request_too_large");
    let mut io = world.network.connect("api:80").unwrap();
    io.write_all(b"HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let (bytes, _) = rest(&mut io).await;
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\n"), "a head and no body: {text}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_connection_is_taken_up_late() {
    let scenario = Scenario::parse(
        "[[fault]]\ndo = [\"slow-connect:7 s\"]\n[pace]\nhead = \"0 s\"\nfirst = \"0 s\"\nevent = \"0 s\"",
    )
    .unwrap();
    let world = world(scenario);
    let mut io = world.network.connect("api:80").unwrap();
    let began = world.clock.now();
    ask(&mut io, &hello(false), "").await;
    assert_eq!(world.clock.now().since(began), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_run_repeats_from_its_seed() {
    async fn story() -> Vec<String> {
        let world = world(Scenario::named("flaky-streams").unwrap());
        let mut story = Vec::new();
        for _ in 0..40 {
            let mut io = world.network.connect("api:80").unwrap();
            io.write_all(request(&hello(true), "").as_bytes()).await.unwrap();
            let ended = response(&mut io).await.map_err(|error| error.kind());
            story.push(format!("{} {ended:?}", world.clock.now()));
        }
        story
    }
    let (first, second) = (story().await, story().await);
    assert_eq!(first, second);
    assert!(first.iter().any(|line| line.contains("Err")));
}

#[tokio::test(start_paused = true)]
async fn shutting_down_leaves_no_task() {
    let world = world(unhurried());
    let mut io = world.network.connect("api:80").unwrap();
    io.write_all(request(&hello(true), "event_ms=60000").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.tasks.living().get("simulator connection"), Some(&1));
    world.stop.send(()).unwrap();
    world.tasks.all_ended().await;
}

#[tokio::test(start_paused = true)]
async fn the_bare_target_answers_anything() {
    let world = world(Scenario { bare: Some(BareShape::default()), ..unhurried() });
    let mut io = world.network.connect("api:80").unwrap();
    let (_, body) = ask(&mut io, &json!({}), "").await;
    assert_eq!(body.len(), 480);
    let (_, body) = ask(&mut io, &json!({"stream": true}), "").await;
    assert_eq!(body.windows(11).filter(|w| w == b"_block_delt").count(), 100, "50 events, the name twice in each");
    assert_eq!(truth(&world, "/truth").await["bare"], json!({"json_answers": 1, "streams": 1}));
}

#[tokio::test(start_paused = true)]
async fn a_bare_event_says_when_it_was_sent() {
    let shape = BareShape { events: 3, interval: Duration::from_millis(20), stamp: true, ..BareShape::default() };
    let world = world(Scenario { bare: Some(shape), ..unhurried() });
    let mut io = world.network.connect("api:80").unwrap();
    let began = world.clock.wall();
    let (_, body) = ask(&mut io, &json!({"stream": true}), "").await;
    let text = String::from_utf8(body).unwrap();
    let stamps = text.split("text_delta\",\"text\":\"").skip(1).map(|rest| &rest.as_bytes()[..STAMP_BYTES]);
    let sent: Vec<_> =
        stamps.map(|stamp| stamped_ago(stamp, began + Duration::from_secs(1)).unwrap().as_millis()).collect();
    assert_eq!(sent, [980, 960, 940]);
}

/// A real reset: only a real socket has one.
#[tokio::test]
async fn over_tcp_a_reset_is_a_reset() {
    let listen = TcpListen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listen.local();
    let simulator = SharedSimulator::new(Simulator::new(unhurried(), 4, 0));
    let serving = run(
        Doors { api: Box::new(listen), truth: None, http2_streams: HTTP2_STREAMS },
        simulator,
        Clock::real(),
        Tasks::new(),
        std::future::pending(),
    );
    let client = async {
        let mut ended = Vec::new();
        for fault in ["reset-before-head", "reset-at:in-data", "close-at:in-data"] {
            let mut io = tokio::net::TcpStream::connect(address).await.unwrap();
            io.write_all(request(&hello(true), &format!("fault={fault}")).as_bytes()).await.unwrap();
            let mut bytes = Vec::new();
            ended.push(io.read_to_end(&mut bytes).await.map(drop).map_err(|error| error.kind()));
        }
        ended
    };
    let reset = Err(std::io::ErrorKind::ConnectionReset);
    tokio::select! {
        _ = serving => panic!("the server does not end"),
        ended = client => assert_eq!(ended, [reset, reset, Ok(())]),
    }
}

/// A close of TLS says so; a connection that is cut off does not.
#[tokio::test]
async fn over_tls_a_truncated_connection_lacks_its_close_notify() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = std::env::temp_dir().join(format!("tidegate-simulator-{}-{name}.pem", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    };
    let files =
        TlsFiles { certificate: file("cert", made.cert.pem()), key: file("key", made.signing_key.serialize_pem()) };
    let listen = TcpListen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listen.local().port();
    let api = Box::new(TlsListen::new(Box::new(listen), ServerTls::load(&files).unwrap()));
    let simulator = SharedSimulator::new(Simulator::new(unhurried(), 4, 0));
    let doors = Doors { api, truth: None, http2_streams: HTTP2_STREAMS };
    let serving = run(doors, simulator, Clock::real(), Tasks::new(), std::future::pending());
    let roots = TlsRoots::File(files.certificate.clone());
    let dialler = TcpDial::new(Clock::real(), DialClocks::default(), &roots).unwrap();
    let client = async {
        let mut ended = Vec::new();
        for fault in ["close-at:in-data", "truncate-at:in-data"] {
            let target = Target { host: "localhost".to_owned(), port, tls: true, http: HttpOffer::Http1, proxy: None };
            let mut io = dialler.dial(&target).await.unwrap().io;
            io.write_all(request(&hello(true), &format!("fault={fault}")).as_bytes()).await.unwrap();
            let (bytes, end) = rest(&mut io).await;
            assert!(bytes.starts_with(b"HTTP/1.1 200") && !bytes.ends_with(b"0\r\n\r\n"), "{fault}");
            ended.push(end.map_err(|error| error.kind()));
        }
        ended
    };
    let ended = tokio::select! {
        _ = serving => panic!("the server does not end"),
        ended = client => ended,
    };
    for path in [files.certificate, files.key] {
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(ended, [Ok(()), Err(std::io::ErrorKind::UnexpectedEof)]);
}
