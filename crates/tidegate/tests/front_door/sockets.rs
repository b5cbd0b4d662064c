//! The WebSocket door with `tidegate.v1`: what is said to whom, in which order, and how it ends.

use crate::process::{Tidegate, eventually};
use crate::socket::{DOOR, Heard, Socket, code_in, text_of};
use crate::teller::{Teller, told, two_tenants};
use crate::upstream::{Upstream, plain};
use crate::wire::{get, post_to};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tidegate_wire::websocket::Opcode;

const SECOND: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// What a request of `create` is, but for so many tokens: a sign for the teller.
fn asking(max_tokens: u64) -> Value {
    json!({"model": "claude-haiku-5-5", "max_tokens": max_tokens, "messages": [{"role": "user", "content": "x"}]})
}

/// A teller whose requests say in `max_tokens` how many words they want; those of under a thousand
/// come slowly.
fn teller() -> Teller {
    Teller::by(|_, asked| {
        let words = asked["max_tokens"].as_u64().unwrap_or(1) as usize;
        (words, if words < 1_000 { PAUSE } else { Duration::ZERO })
    })
}

fn cursor_of(frame: &Value) -> String {
    frame["cursor"].as_str().unwrap_or_else(|| panic!("{frame}")).to_owned()
}

#[test]
fn many_streams_share_a_socket_and_each_is_whole() {
    let teller = teller();
    let tidegate = teller.gateway("");
    let mut socket = tidegate.socket();
    for n in 0..20 {
        socket.create(&format!("s{n}"), &json!({"request": asking(5 + n)}));
    }
    for n in 0..20 {
        let frames = socket.whole(&format!("s{n}"));
        assert_eq!(text_of(&frames), told(5 + n), "{n}");
        let open = frames.iter().find(|frame| frame["type"] == "stream.open").unwrap();
        assert_eq!((&open["headers"]["request-id"], &open["stream"]), (&json!("req_theirs"), &Value::Null));
        let end = frames.last().unwrap();
        assert_eq!((&end["reason"], end["seq"].as_u64()), (&json!("stop"), Some(5 + n as u64 + 6)));
        assert!(frames.iter().all(|frame| frame.get("cursor").is_none()));
    }
    // A name is free again after its stream's last frame.
    socket.create("s0", &json!({"request": asking(1)}));
    assert_eq!(text_of(&socket.whole("s0")), told(1));
    socket.close();
    assert_eq!(socket.next(), Heard::Close(Some(1000), String::new()));
    assert_eq!(socket.next(), Heard::Cut);
    tidegate.comes_to_rest();
}

#[test]
fn a_socket_takes_a_connection_and_its_streams_none() {
    let teller = teller();
    let tidegate = teller.gateway("[limits]\nconnections = 1\nstreams = 2\n");
    let mut socket = tidegate.socket();
    socket.create("a", &json!({"request": asking(60)}));
    socket.create("b", &json!({"request": asking(60)}));
    socket.until("a", "stream.open");
    socket.until("b", "stream.open");
    socket.create("c", &json!({"request": asking(1)}));
    let refused = socket.frame_of("c");
    assert_eq!((&refused["type"], code_in(&refused)), (&json!("stream.error"), "too_many_streams"));
    assert_eq!((text_of(&socket.whole("a")), text_of(&socket.whole("b"))), (told(60), told(60)));
    socket.create("c", &json!({"request": asking(1)}));
    assert_eq!(text_of(&socket.whole("c")), told(1));
    socket.close();
}

#[test]
fn a_name_in_use_and_frames_that_cannot_be_read_leave_what_runs_alone() {
    let teller = teller();
    let tidegate = teller.gateway("");
    let mut socket = tidegate.socket();
    socket.create("a", &json!({"request": asking(40)}));
    socket.until("a", "stream.open");
    socket.create("a", &json!({}));
    socket.send(&json!({"type": "stream.cancel", "id": "a", "why": 1}));
    socket.send(&json!({"type": "stream.cancel", "id": "nobody"}));
    socket.send(&json!({"type": "stream.credit", "id": "a", "bytes": 5}));
    socket.send(&json!({"type": "message.create", "id": "b", "request": asking(1), "priority": "soon"}));
    socket.send(&json!({"type": "message.create", "id": "c", "request": {"model": 7}}));
    socket.send(&json!({"type": "message.create", "id": "d", "resume": "often", "request": asking(1)}));
    assert_eq!(text_of(&socket.whole("a")), told(40));
    let mut codes = Vec::new();
    while codes.len() < 6 {
        let frame = socket.any();
        codes.push((frame["id"].clone(), code_in(&frame).to_owned(), frame["status"].as_u64().unwrap()));
    }
    codes.sort_by_key(|(id, code, _)| (id.to_string(), code.clone()));
    let want = [
        (json!("b"), "invalid_header", 400),
        (json!("c"), "invalid_body", 400),
        (json!("d"), "invalid_header", 400),
        (Value::Null, "invalid_credit", 400),
        (Value::Null, "invalid_frame", 400),
        (Value::Null, "stream_id_in_use", 409),
    ];
    assert_eq!(codes, want.map(|(id, code, status)| (id, code.to_owned(), status)));
    assert_eq!(teller.upstream.seen().len(), 1);
}

#[test]
fn a_refusal_keeps_its_status_and_its_headers() {
    let upstream = Upstream::playing(|nth, _, socket| {
        let envelope = r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"},"request_id":"r"}"#;
        let answer = match nth {
            0 => plain(400, "content-type: application/json\r\n", envelope),
            _ => plain(529, "content-type: application/json\r\nretry-after: 7\r\nx-should-retry: false\r\n", "{}"),
        };
        drop(std::io::Write::write_all(socket, answer.as_bytes()));
    });
    let tidegate = Tidegate::before(upstream.at, "k", "[retry]\nattempts_max = 1\n");
    let mut socket = tidegate.socket();
    for resume in ["off", "memory"] {
        socket.create("a", &json!({"resume": resume}));
        let frame = socket.until("a", "stream.error").pop().unwrap();
        if resume == "off" {
            assert_eq!((&frame["status"], &frame["error"]["message"]), (&json!(400), &json!("no")), "{frame}");
        } else {
            assert_eq!((&frame["status"], code_in(&frame)), (&json!(529), "upstream_overloaded"), "{frame}");
            assert_eq!((&frame["retry_after_s"], &frame["should_retry"]), (&json!(7), &json!(false)));
        }
    }
}

/// Reads `id` until so many events have come; the cursor of the last.
fn events(socket: &mut Socket, id: &str, count: usize, frames: &mut Vec<Value>) -> String {
    let mut seen = 0;
    while seen < count {
        let frame = socket.frame_of(id);
        seen += usize::from(frame["type"] == "stream.event");
        frames.push(frame);
    }
    cursor_of(frames.last().unwrap())
}

#[test]
fn a_stream_is_gone_on_with_from_another_socket_and_over_http() {
    let teller = teller();
    let tidegate = teller.gateway("[listen]\nthreads = 2\n");
    let mut first = tidegate.socket();
    first.create("a", &json!({"request": asking(80), "resume": "memory"}));
    let open = first.until("a", "stream.open").pop().unwrap();
    let stream = open["stream"].as_str().unwrap().to_owned();
    let mut frames = Vec::new();
    let mut cursor = events(&mut first, "a", 10, &mut frames);
    drop(first);
    for n in 0..3 {
        let mut next = tidegate.socket();
        next.send(&json!({"type": "stream.resume", "id": "b", "stream": stream, "after": cursor}));
        let open = next.until("b", "stream.open").pop().unwrap();
        assert_eq!(open["headers"]["request-id"], "req_theirs");
        assert_eq!(open["stream"], *stream);
        cursor = events(&mut next, "b", 10 + n, &mut frames);
    }
    let rest = tidegate.ask(get(&format!("/v1/streams/{stream}?after={cursor}"), &[]));
    let rest: String = rest.events().iter().filter_map(|(_, data)| data["delta"]["text"].as_str()).collect();
    assert_eq!(text_of(&frames) + &rest, told(80));
    // From the beginning, and from its end.
    let mut last = tidegate.socket();
    last.send(&json!({"type": "stream.resume", "id": "c", "stream": stream}));
    let whole = last.whole("c");
    assert_eq!(text_of(&whole), told(80));
    let end = cursor_of(&whole[whole.len() - 2]);
    last.send(&json!({"type": "stream.resume", "id": "c", "stream": stream, "after": end}));
    let kinds: Vec<Value> = last.whole("c").iter().map(|frame| frame["type"].clone()).collect();
    assert_eq!(kinds, [json!("stream.open"), json!("stream.end")]);
    assert_eq!((teller.upstream.seen().len(), teller.left()), (1, 0));
}

#[test]
fn what_cannot_be_gone_on_with_says_why() {
    let teller = teller();
    let (keys, [one, two]) = two_tenants();
    let tidegate = teller.gateway(&format!("{keys}[limits]\njournal_bytes = \"8 KiB\"\n"));
    let mut socket = tidegate.open(DOOR, &["tidegate.v1"], &[("x-api-key", &one)]).map_err(|a| a.text()).unwrap();
    let mut theirs = tidegate.open(DOOR, &["tidegate.v1"], &[("x-api-key", &two)]).map_err(|a| a.text()).unwrap();
    socket.create("a", &json!({"request": asking(3), "resume": "memory"}));
    let frames = socket.whole("a");
    let stream = frames.iter().find(|f| f["type"] == "stream.open").unwrap()["stream"].clone();
    let cursor = cursor_of(&frames[frames.len() - 2]);
    let beyond = format!("{}{:016x}", &cursor[..cursor.len() - 16], 99);
    let nowhere = json!("str_00000000000000000000000000");
    for (is_theirs, stream, after, status, code) in [
        (false, &stream, json!(beyond), 400, "invalid_cursor"),
        (false, &stream, json!("x"), 400, "invalid_cursor"),
        (false, &nowhere, Value::Null, 404, "unknown_stream"),
        (false, &json!("x"), Value::Null, 404, "unknown_stream"),
        (true, &stream, json!(cursor), 404, "unknown_stream"),
    ] {
        let asks = if is_theirs { &mut theirs } else { &mut socket };
        asks.send(&json!({"type": "stream.resume", "id": "r", "stream": stream, "after": after}));
        let frame = asks.frame_of("r");
        assert_eq!((frame["status"].as_u64(), code_in(&frame)), (Some(status), code), "{frame}");
    }
    // One whose beginning is gone.
    socket.create("long", &json!({"request": asking(4000), "resume": "memory", "credit": 1}));
    let open = socket.until("long", "stream.open").pop().unwrap();
    eventually("it is all here", SECOND * 20, || tidegate.streams().is_empty().then_some(()));
    socket.send(&json!({"type": "stream.resume", "id": "r", "stream": open["stream"]}));
    let frame = socket.frame_of("r");
    assert_eq!((frame["status"].as_u64(), code_in(&frame)), (Some(410), "cursor_gone"), "{frame}");
}

#[test]
fn credit_holds_one_stream_and_not_the_others() {
    let teller = teller();
    let tidegate = teller.gateway("");
    let mut socket = tidegate.socket();
    socket.create("held", &json!({"request": asking(60), "credit": 1}));
    socket.create("free", &json!({"request": asking(60)}));
    assert_eq!(text_of(&socket.whole("free")), told(60));
    let mut held = vec![socket.frame_of("held"), socket.frame_of("held")];
    assert_eq!((&held[0]["type"], &held[1]["type"]), (&json!("stream.open"), &json!("stream.event")));
    assert_eq!(socket.heard_within(SECOND / 2), None, "one event, and no more");
    // What waited comes joined, as far as there is credit.
    socket.send(&json!({"type": "stream.credit", "id": "held", "bytes": 400}));
    let next = socket.frame_of("held");
    assert!(next["event"]["type"] == "content_block_start", "{next}");
    held.push(next);
    socket.send(&json!({"type": "stream.credit", "id": "held", "bytes": 1 << 20}));
    held.extend(socket.whole("held"));
    assert_eq!(text_of(&held), told(60));
    assert!(held.iter().filter(|frame| frame["type"] == "stream.event").count() < 30, "it was joined");
}

#[test]
fn a_plain_stream_that_is_not_read_for_too_long_ends_and_so_does_its_upstream() {
    let teller = Teller::of(6_000, Duration::from_millis(1));
    let tidegate = teller.gateway("[limits]\nbacklog_bytes = \"16 KiB\"\n");
    let mut socket = tidegate.socket();
    socket.create("a", &json!({"credit": 0}));
    let frame = socket.until("a", "stream.error").pop().unwrap();
    assert_eq!((frame["status"].as_u64(), code_in(&frame)), (Some(529), "reader_too_slow"), "{frame}");
    assert_eq!(frame["should_retry"], false);
    eventually("its upstream is let go", SECOND * 5, || (teller.left() == 1).then_some(()));
    drop(socket);
    tidegate.comes_to_rest();
}

#[test]
fn a_streams_end_costs_no_credit() {
    let teller = teller();
    let tidegate = teller.gateway("");
    let mut socket = tidegate.socket();
    // How much all events of it take.
    socket.create("a", &json!({"request": asking(1000), "resume": "memory"}));
    let frames = socket.whole("a");
    let stream = frames.iter().find(|f| f["type"] == "stream.open").unwrap()["stream"].clone();
    let last = frames[frames.len() - 3].clone();
    // The last event is paid with the last byte of it.
    let cursor = cursor_of(&last);
    socket.send(&json!({"type": "stream.resume", "id": "b", "stream": stream, "after": cursor, "credit": 1}));
    let kinds: Vec<Value> = socket.whole("b").iter().map(|frame| frame["type"].clone()).collect();
    assert_eq!(kinds, [json!("stream.open"), json!("stream.event"), json!("stream.end")]);
    // Nor does an end that was asked for.
    socket.create("c", &json!({"request": asking(900), "credit": 0}));
    socket.until("c", "stream.open");
    std::thread::sleep(PAUSE * 5);
    socket.send(&json!({"type": "stream.cancel", "id": "c"}));
    let end = socket.until("c", "stream.end").pop().unwrap();
    assert_eq!((&end["reason"], end["seq"].as_u64()), (&json!("cancelled"), Some(0)));
    eventually("its upstream is let go", SECOND * 5, || (teller.left() == 1).then_some(()));
}

#[test]
fn what_is_cancelled_ends_and_takes_its_upstream_along() {
    let teller = teller();
    let tidegate = teller.gateway("");
    let mut socket = tidegate.socket();
    for (n, resume) in ["off", "memory"].into_iter().enumerate() {
        socket.create("a", &json!({"request": asking(900), "resume": resume}));
        socket.until("a", "stream.event");
        socket.send(&json!({"type": "stream.cancel", "id": "a"}));
        let frames = socket.whole("a");
        assert_eq!(frames.last().unwrap()["reason"], "cancelled");
        eventually("its upstream is let go", SECOND * 5, || (teller.left() == n + 1).then_some(()));
    }
    // Others of the same socket, and the socket itself, go on.
    socket.create("a", &json!({"request": asking(2)}));
    assert_eq!(text_of(&socket.whole("a")), told(2));
}

#[test]
fn a_socket_that_goes_takes_its_plain_streams_along_and_leaves_the_others() {
    let teller = teller();
    let tidegate = teller.gateway("");
    let mut socket = tidegate.socket();
    socket.create("plain", &json!({"request": asking(900)}));
    socket.create("kept", &json!({"request": asking(150), "resume": "memory"}));
    let open = socket.until("kept", "stream.open").pop().unwrap();
    socket.until("plain", "stream.event");
    socket.until("kept", "stream.event");
    drop(socket);
    eventually("one upstream is let go", SECOND * 5, || (teller.left() == 1).then_some(()));
    let stream = open["stream"].as_str().unwrap();
    let whole = tidegate.ask(get(&format!("/v1/streams/{stream}"), &[]));
    assert_eq!(whole.events().last().unwrap().0, "message_stop");
    assert_eq!(teller.left(), 1);
}

#[test]
fn streams_take_turns() {
    let teller = Teller::by(|_, asked| (asked["max_tokens"].as_u64().unwrap() as usize, Duration::ZERO));
    let tidegate = teller.gateway("");
    let mut socket = tidegate.socket();
    // One with much to say and ten with little, all of it here, and none may say it.
    let (held, names) = (json!({"resume": "memory", "credit": 0}), (0..10).map(|n| format!("s{n}")));
    let names: Vec<String> = std::iter::once("large".to_owned()).chain(names).collect();
    for name in &names {
        let mut asks = held.clone();
        asks["request"] = asking(if name == "large" { 40_000 } else { 20 });
        socket.create(name, &asks);
        socket.until(name, "stream.open");
    }
    eventually("it is all here", SECOND * 20, || tidegate.streams().is_empty().then_some(()));
    let credit = |name| json!({"type": "stream.credit", "id": name, "bytes": 1 << 30}).to_string();
    socket.send_all(&names.iter().map(credit).collect::<Vec<_>>());
    let (mut before, mut ended) = (0, 0);
    while ended < 10 {
        let frame = socket.any();
        if frame["id"] == "large" {
            before += frame.to_string().len();
        } else {
            ended += usize::from(frame["type"] == "stream.end");
        }
    }
    let rest = socket.whole("large");
    assert!(text_of(&rest).len() > 200_000 && before < 150_000, "{before} bytes of the large one went first");
}

#[test]
fn who_waits_for_quota_is_told_how_far_it_is() {
    let teller = teller();
    let tidegate = teller.gateway("[[tenant]]\nname = \"default\"\nconcurrent_streams = 1\n");
    let mut socket = tidegate.socket();
    socket.create("a", &json!({"request": asking(900)}));
    socket.until("a", "stream.open");
    for name in ["b", "c"] {
        socket.create(name, &json!({"request": asking(3)}));
        let wait = socket.frame_of(name);
        assert_eq!((&wait["type"], wait["position"].is_u64()), (&json!("stream.wait"), true), "{wait}");
    }
    socket.send(&json!({"type": "stream.cancel", "id": "a"}));
    for name in ["a", "b", "c"] {
        socket.whole(name);
    }
    drop(socket);
    tidegate.comes_to_rest();
}

#[test]
fn a_ticket_opens_one_socket_once_as_whoever_asked() {
    let teller = teller();
    let (keys, [one, two]) = two_tenants();
    let tidegate = teller.gateway(&format!("{keys}[sockets]\norigins = [\"https://app.example.com\"]\n"));
    assert_eq!(tidegate.ask(post_to("/v1/stream/ticket", &[], "")).status, 401);
    let ticket = tidegate.ask(post_to("/v1/stream/ticket", &[("x-api-key", &one)], "")).json();
    assert_eq!(ticket["expires_in_ms"], 30_000);
    let target = format!("{DOOR}?ticket={}", ticket["ticket"].as_str().unwrap());
    let anywhere = [("origin", "https://elsewhere.example.com")];
    let mut socket = tidegate.open(&target, &["tidegate.v1"], &anywhere).map_err(|a| a.text()).unwrap();
    socket.create("a", &json!({"request": asking(2), "resume": "memory"}));
    let open = socket.until("a", "stream.open").pop().unwrap();
    let path = format!("/v1/streams/{}", open["stream"].as_str().unwrap());
    socket.whole("a");
    assert_eq!(tidegate.ask(get(&path, &[("x-api-key", &one)])).status, 200);
    assert_eq!(tidegate.ask(get(&path, &[("x-api-key", &two)])).status, 404);
    for again in [&*target, "/v1/stream?ticket=tkt_x"] {
        let refused = tidegate.open(again, &["tidegate.v1"], &anywhere).err().unwrap();
        assert_eq!((refused.status, &*refused.code()), (401, "ticket_unknown"));
    }
    // Without a ticket the page's origin counts, and the credential too.
    let key = ("x-api-key", &*one);
    for (origin, status) in [
        ("https://elsewhere.example.com", 403),
        ("https://app.example.com", 101),
        ("http://tidegate", 101),
        ("null", 403),
    ] {
        let opened = tidegate.open(DOOR, &["tidegate.v1"], &[key, ("origin", origin)]);
        assert_eq!(opened.err().map_or(101, |refused| refused.status), status, "{origin}");
    }
    assert_eq!(tidegate.open(DOOR, &["tidegate.v1"], &[]).err().unwrap().status, 401);
    assert!(!tidegate.output().contains("tkt_"), "no ticket is written down");
}

#[test]
fn pages_need_keys_or_a_ticket() {
    let tidegate = teller().gateway("[sockets]\norigins = [\"https://app.example.com\"]\n");
    let refused = tidegate.open(DOOR, &[], &[("origin", "https://app.example.com")]).err().unwrap();
    assert_eq!((refused.status, &*refused.code()), (403, "origin_not_allowed"));
}

#[test]
fn no_stream_is_begun_while_it_goes_down_and_those_that_run_end() {
    let teller = teller();
    let mut tidegate = teller.gateway("");
    let (mut busy, mut idle) = (tidegate.socket(), tidegate.socket());
    busy.create("a", &json!({"request": asking(100)}));
    busy.until("a", "stream.event");
    tidegate.signal("TERM");
    assert!(matches!(idle.next(), Heard::Close(Some(1001), _)));
    busy.create("b", &json!({}));
    let refused = busy.frame_of("b");
    assert_eq!((refused["status"].as_u64(), code_in(&refused)), (Some(529), "draining"));
    let frames = busy.whole("a");
    assert!(text_of(&frames).ends_with("word99"));
    assert!(matches!(busy.next(), Heard::Close(Some(1001), _)));
    busy.close();
    assert_eq!(tidegate.exit(SECOND * 10), Some(0), "{}", tidegate.output());
}

#[test]
fn what_outlives_the_drain_ends_in_an_error_and_then_the_socket_closes() {
    let teller = teller();
    let mut tidegate = teller.gateway("[clocks]\ndrain = \"500 ms\"\n");
    let mut socket = tidegate.socket();
    socket.create("a", &json!({"request": asking(900)}));
    socket.until("a", "stream.event");
    tidegate.signal("TERM");
    let error = socket.until("a", "stream.error").pop().unwrap();
    assert_eq!((error["status"].as_u64(), code_in(&error)), (Some(529), "draining"), "{error}");
    assert!(matches!(socket.next(), Heard::Close(Some(1001), _)));
    assert_eq!(tidegate.exit(SECOND * 10), Some(0));
}

#[test]
fn a_client_that_answers_no_ping_is_dropped_and_one_that_does_is_not() {
    let tidegate = teller().gateway("[clocks]\nsocket_ping = \"300 ms\"\n");
    let (mut alive, mut dead) = (tidegate.socket(), tidegate.socket());
    let began = Instant::now();
    let (mut pings, mut over) = (0, None);
    while over.is_none() {
        match dead.heard_within(SECOND * 5).unwrap() {
            Heard::Ping => pings += 1,
            other => over = Some(other),
        }
        while let Some(heard) = alive.heard_within(Duration::from_millis(1)) {
            assert_eq!(heard, Heard::Ping);
            alive.send_frame(Opcode::Pong, b"");
        }
    }
    // Two went unanswered when the third was due.
    assert_eq!((pings, over), (2, Some(Heard::Cut)));
    assert!((SECOND / 2..SECOND * 3).contains(&began.elapsed()), "{:?}", began.elapsed());
    alive.send_frame(Opcode::Ping, b"here?");
    assert_eq!(alive.next(), Heard::Pong(b"here?".to_vec()));
    eventually("it is counted", SECOND * 5, || {
        (tidegate.metric("tidegate_sockets_ended_total{end=\"dead\"}") == 1.0).then_some(())
    });
}

#[test]
fn what_breaks_the_rules_closes_with_a_code_that_says_so() {
    let tidegate = teller().gateway("[limits]\nbody_bytes = \"64 KiB\"\n");
    let mut binary = tidegate.socket();
    binary.send_frame(Opcode::Binary, b"x");
    assert!(matches!(binary.next(), Heard::Close(Some(1003), _)));
    let mut large = tidegate.socket();
    large.send_frame(Opcode::Text, &vec![b'x'; 129 * 1024]);
    assert!(matches!(large.next(), Heard::Close(Some(1009), _)));
    let mut not_text = tidegate.socket();
    not_text.send_frame(Opcode::Text, &[0xff]);
    assert!(matches!(not_text.next(), Heard::Close(Some(1007), _)));
    let mut looping = tidegate.socket();
    for n in 0..15 {
        looping.send_frame(Opcode::Text, b"{}");
        assert_eq!(code_in(&looping.frame()), "invalid_frame", "{n}");
    }
    // One that can be read begins the count anew.
    looping.send(&json!({"type": "stream.cancel", "id": "a"}));
    looping.send_all(&vec!["x".to_owned(); 40]);
    for _ in 0..16 {
        assert_eq!(code_in(&looping.frame()), "invalid_frame");
    }
    assert!(matches!(looping.next(), Heard::Close(Some(1008), _)));
    // A body over the limit that fits a frame is an error of its stream.
    let mut socket = tidegate.socket();
    socket.create("a", &json!({"request": {"model": "m", "max_tokens": 1, "x": "y".repeat(65 * 1024)}}));
    let frame = socket.frame_of("a");
    assert_eq!((frame["status"].as_u64(), code_in(&frame)), (Some(413), "body_too_large"));
    drop((binary, large, not_text, looping, socket));
    tidegate.comes_to_rest();
}

#[test]
fn a_socket_whose_message_there_is_no_room_for_is_told_to_come_later() {
    let tidegate = teller().gateway("[limits]\nbody_bytes = \"256 KiB\"\nbodies_bytes = \"256 KiB\"\n");
    // Half of a large message takes most of what there is for all.
    let mut first = tidegate.socket();
    first.send_part(&vec![b'x'; 190 << 10]);
    eventually("it is held", SECOND * 5, || {
        (tidegate.metric("tidegate_budget_bytes{budget=\"bodies\"}") >= f64::from(190 << 10)).then_some(())
    });
    let mut second = tidegate.socket();
    second.send_part(&vec![b'x'; 190 << 10]);
    let Heard::Close(code, why) = second.next() else { panic!("no close") };
    assert_eq!((code, why.contains("as many request bytes as it may")), (Some(1013), true), "{why}");
    drop((first, second));
    eventually("what was held is given back", SECOND * 5, || {
        (tidegate.metric("tidegate_budget_bytes{budget=\"bodies\"}") == 0.0).then_some(())
    });
    let mut third = tidegate.socket();
    third.create("a", &json!({"request": asking(3)}));
    assert_eq!(text_of(&third.whole("a")), told(3));
}

#[test]
fn a_thousand_sockets_leave_nothing_behind() {
    let teller = Teller::by(|nth, _| if nth % 3 == 0 { (1_000, Duration::from_millis(30)) } else { (5, PAUSE) });
    let tidegate = teller.gateway("[clocks]\ndetach_grace = \"100 ms\"\nstream_kept = \"1 s\"\n");
    for round in 0..10 {
        let mut sockets: Vec<Socket> = (0..100).map(|_| tidegate.socket()).collect();
        for (n, socket) in sockets.iter_mut().enumerate() {
            let resume = if n % 2 == 0 { "off" } else { "memory" };
            socket.create("a", &json!({"resume": resume, "request": asking(9)}));
        }
        for (n, mut socket) in sockets.into_iter().enumerate() {
            match n % 4 {
                0 => drop(socket.until("a", "stream.event")),
                1 => socket.close(),
                2 => socket.send(&json!({"type": "stream.cancel", "id": "a"})),
                _ => {}
            }
            drop((round, socket));
        }
    }
    eventually("no socket is left", SECOND * 20, || (tidegate.metric("tidegate_sockets") == 0.0).then_some(()));
    eventually("no log is kept", SECOND * 25, || (tidegate.metric("tidegate_streams_kept") == 0.0).then_some(()));
    tidegate.comes_to_rest();
}
