//! An upstream that fails in every way: what is tried again without the client noticing, and what
//! the client is told when nothing helps.

use crate::process::{Folder, Tidegate};
use crate::upstream::{BEGIN, END, FINISH, Upstream, chunk, plain, stream_head};
use crate::wire::{Answer, QUICK, message, post};
use serde_json::Value;
use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Two attempts each, so that a failure that stays is told soon.
const TWICE: &str = "[retry]\nattempts_max = 2\n";
/// The simulator's pace with a fault.
fn fault(fault: &str) -> String {
    format!("{}, fault={fault}", QUICK.1)
}

fn ask(tidegate: &Tidegate, simulate: &str, stream: bool, max_tokens: u32) -> Answer {
    let patience = ("tidegate-deadline-ms", "3000");
    tidegate.ask(post(&[("simulate", simulate), patience], message(stream, max_tokens, "hello")))
}

#[test]
fn a_failure_that_stays_is_told_in_the_apis_envelope_with_its_status() {
    let tidegate = Tidegate::simulated_with(TWICE, &[]);
    for (name, status, kind, code, retry_after) in [
        ("status:500", 500, "api_error", "upstream_error", None),
        ("status:502", 502, "api_error", "upstream_error", None),
        ("status:503", 503, "api_error", "upstream_error", None),
        ("status:504", 504, "timeout_error", "upstream_error", None),
        ("reset-before-head", 502, "api_error", "upstream_broken", None),
        ("close-before-head", 502, "api_error", "upstream_broken", None),
    ] {
        for (stream, max_tokens) in [(true, 100), (false, 100), (false, 30_000)] {
            let before = tidegate.truth("/truth")["requests"].as_u64().unwrap();
            let answer = ask(&tidegate, &fault(name), stream, max_tokens);
            let what = format!("{name} {stream} {max_tokens}: {}", answer.text());
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}");
            assert_eq!(
                (answer.json()["error"]["type"].as_str(), answer.header("retry-after")),
                (Some(kind), retry_after),
                "{what}"
            );
            assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
            // A pooled connection that breaks before any answer is replaced once without counting.
            let replaced = u64::from(name.ends_with("before-head"));
            let sent = tidegate.truth("/truth")["requests"].as_u64().unwrap() - before;
            assert!((2..=2 + replaced).contains(&sent), "{sent} {what}");
        }
    }
    tidegate.comes_to_rest();
}

#[test]
fn an_overloaded_upstream_is_asked_again_as_long_as_there_is_time() {
    let tidegate = Tidegate::simulated_with(TWICE, &[]);
    for (stream, max_tokens) in [(true, 100), (false, 100), (false, 30_000)] {
        let before = tidegate.truth("/truth")["requests"].as_u64().unwrap();
        let answer = ask(&tidegate, &fault("status:529"), stream, max_tokens);
        assert_eq!((answer.status, answer.json()["error"]["type"].as_str()), (529, Some("overloaded_error")));
        assert!(["upstream_overloaded", "queue_wait_too_long"].contains(&answer.code().as_str()), "{}", answer.text());
        assert!(answer.header("retry-after").is_some(), "{}", answer.head);
        let sent = tidegate.truth("/truth")["requests"].as_u64().unwrap() - before;
        assert!(sent > 2, "{sent}: attempts_max is for failures, not for a refusal under load");
    }
    assert!(tidegate.metric("tidegate_upstream_refusals_total{organisation=\"default\",kind=\"overloaded\"}") > 6.0);
    tidegate.comes_to_rest();
}

#[test]
fn no_429_reaches_a_client_and_the_wait_is_told() {
    let tidegate = Tidegate::simulated_with(TWICE, &[]);
    let answer = ask(&tidegate, &fault("status:429:40"), true, 100);
    assert_eq!((answer.status, answer.code().as_str()), (529, "queue_wait_too_long"), "{}", answer.text());
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((35..=40).contains(&wait) && answer.header("x-should-retry").is_none(), "{}", answer.head);
    let again = ask(&tidegate, QUICK.1, true, 100);
    assert_eq!((again.status, again.code().as_str()), (529, "queue_wait_too_long"), "the domain stays closed");

    let tidegate = Tidegate::simulated_with(TWICE, &[]);
    let answer = ask(&tidegate, &fault("status:429:90"), false, 100);
    assert_eq!((answer.status, answer.header("x-should-retry")), (529, Some("false")), "{}", answer.head);

    let tidegate = Tidegate::simulated();
    let began = Instant::now();
    let scenario = Folder::new();
    let path = scenario.write("one-429.toml", "[[fault]]\ndo = [\"status:429:1\"]\nevery = 2\n");
    drop(tidegate);
    let tidegate = Tidegate::simulated_with("", &["--scenario", &path]);
    for _ in 0..2 {
        assert_eq!(
            tidegate
                .ask(post(&[("simulate", "head_ms=0, first_ms=0, event_ms=0")], message(true, 100, "hello")))
                .status,
            200
        );
    }
    assert!(began.elapsed() >= Duration::from_secs(1), "the second waited as long as it was told to");
}

#[test]
fn a_rejected_upstream_key_is_the_operators_trouble_not_the_clients() {
    let tidegate = Tidegate::simulated_with(TWICE, &[]);
    let answer = ask(&tidegate, &fault("status:401"), true, 100);
    assert_eq!(answer.header("x-should-retry"), Some("false"), "{}", answer.head);
    assert!((500..600).contains(&answer.status), "{}", answer.head);
    assert!(["no_upstream_key", "upstream_key_rejected"].contains(&answer.code().as_str()), "{}", answer.text());
    tidegate.says("rejects this key; it is put aside and tried again later key=\"default/1\"");
    assert!(!tidegate.says("tidegate::request: ").contains("sk-ant-simulated"));
    assert_eq!(tidegate.logged("rejects this key"), 1);
}

#[test]
fn a_refusal_of_the_request_itself_is_passed_on_at_once() {
    let tidegate = Tidegate::simulated();
    for (status, kind) in [
        (400, "invalid_request_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
    ] {
        for stream in [true, false] {
            let before = tidegate.truth("/truth")["requests"].as_u64().unwrap();
            let answer = ask(&tidegate, &fault(&format!("status:{status}")), stream, 100);
            assert_eq!((answer.status, answer.json()["error"]["type"].as_str()), (status, Some(kind)));
            assert_eq!(answer.header("request-id"), answer.json()["request_id"].as_str());
            assert_eq!(tidegate.truth("/truth")["requests"], before + 1);
        }
    }
    let answer = tidegate.ask(post(&[], message(true, 100, "x").replace("haiku-5-5", "nonesuch-9")));
    assert_eq!((answer.status, answer.json()["error"]["type"].as_str()), (404, Some("not_found_error")));
}

#[test]
fn an_html_page_never_reaches_a_client() {
    for status in [400, 403, 404, 500, 502, 503, 520, 301, 200] {
        let page = plain(status, "content-type: text/html\r\nserver: edge\r\n", "<html>EDGEMARK</html>");
        let upstream = Upstream::saying(page);
        let tidegate = Tidegate::before(upstream.at, "k", TWICE);
        for body in [message(true, 100, "x"), message(false, 100, "x"), message(false, 30_000, "x")] {
            let answer = tidegate.ask(post(&[], body));
            // What concerns the request keeps its status; the rest is the upstream's failure.
            let told = if (400..500).contains(&status) { answer.status == status } else { answer.status >= 500 };
            assert!(told, "{status}: {}{}", answer.head, answer.text());
            assert!(!answer.code().is_empty() && !answer.text().contains("EDGEMARK"), "{}", answer.text());
        }
    }
}

#[test]
fn what_fails_before_content_is_tried_again_and_nobody_notices() {
    let folder = Folder::new();
    for (nth, name) in [
        "status:500",
        "status:502",
        "status:529",
        "reset-before-head",
        "close-before-head",
        "end-at:0",
        "reset-at:0",
        "reset-at:120",
        "close-at:event-1",
        "end-at:event-1",
        "error-at:event-0",
        "error-at:event-1:api_error",
        "garbage-at:event-1",
        "stall-at:event-1:60s",
        "stall-at:0:60s",
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!(
            "[pace]\nhead = \"0 ms\"\nfirst = \"0 ms\"\nevent = \"0 ms\"\n[[fault]]\ndo = [\"{name}\"]\nevery = 2\n"
        );
        let path = folder.write(&format!("{nth}.toml"), &text);
        let tidegate =
            Tidegate::simulated_with("[clocks]\ngap = \"500 ms\"\nfirst_byte = \"500 ms\"\n", &["--scenario", &path]);
        for (n, stream) in [true, true, true, false].into_iter().enumerate() {
            let max_tokens = if stream { 100 } else { 30_000 };
            let answer = tidegate.ask(post(&[], message(stream, max_tokens, &format!("hello {n}"))));
            assert_eq!(answer.status, 200, "{name} {n}: {}", answer.text());
            if stream {
                let names: Vec<_> = answer.events().into_iter().map(|(name, _)| name).collect();
                assert_eq!(names.iter().filter(|n| *n == "message_start").count(), 1, "{name} {n}: {names:?}");
                assert_eq!(names.last().unwrap(), "message_stop", "{name} {n}: {names:?}");
                assert!(!names.contains(&"error".to_owned()));
            }
        }
        let truth = tidegate.truth("/truth");
        assert!(truth["requests"].as_u64() > Some(4), "{name}: {truth}");
        tidegate.comes_to_rest();
    }
}

#[test]
fn what_fails_inside_the_answer_ends_in_one_error_event() {
    let tidegate = Tidegate::simulated_with(
        "[clocks]\ngap = \"700 ms\"\nprogress = \"1200 ms\"\nprogress_unseen = \"1200 ms\"\n",
        &[],
    );
    for (name, kind, code) in [
        ("end-at:event-4", "api_error", "upstream_broken"),
        ("close-at:event-4", "api_error", "upstream_broken"),
        ("reset-at:event-4", "api_error", "upstream_broken"),
        ("close-at:in-data", "api_error", "upstream_broken"),
        ("end-at:before-delta", "api_error", "upstream_broken"),
        ("end-at:before-stop", "api_error", "upstream_broken"),
        ("garbage-at:event-4", "api_error", "upstream_broken"),
        ("error-at:event-4", "overloaded_error", "upstream_overloaded"),
        ("error-at:event-4:api_error", "api_error", "upstream_error"),
        ("stall-at:event-4:60s", "timeout_error", "upstream_timeout"),
        ("pings-at:event-4:60s", "timeout_error", "upstream_timeout"),
    ] {
        let before = tidegate.truth("/truth")["requests"].as_u64().unwrap();
        let simulate = format!("output_tokens=60, head_ms=0, first_ms=0, event_ms=1, ping_ms=100, fault={name}");
        let answer = tidegate.ask(post(&[("simulate", &simulate)], message(true, 1000, "hello")));
        assert_eq!((answer.status, answer.whole), (200, true), "{name}");
        let error = answer.last_error();
        assert_eq!(
            (error["error"]["type"].as_str(), crate::wire::code_of(&error).as_str()),
            (Some(kind), code),
            "{name}: {error}"
        );
        assert_eq!(error["request_id"].as_str(), answer.header("tidegate-request-id"), "{name}");
        let events = answer.events();
        assert!(events.iter().any(|(n, _)| n == "content_block_delta"), "{name}");
        assert_eq!(events.iter().filter(|(n, _)| n == "error").count(), 1, "{name}");
        assert!(!events.iter().any(|(n, _)| n == "message_stop"), "{name}");
        assert!(events.iter().all(|(_, data)| data.is_object()), "{name}: no half event is passed on");
        assert_eq!(tidegate.truth("/truth")["requests"], before + 1, "{name}: nothing is tried again after content");
    }
    // The gateway let go of the stalled streams at once.
    assert_eq!(tidegate.metric("tidegate_clock_expired_total{clock=\"gap\"}"), 1.0);
    assert_eq!(tidegate.metric("tidegate_clock_expired_total{clock=\"progress\"}"), 1.0);
    tidegate.comes_to_rest();
    assert_eq!(tidegate.truth("/truth")["open"], 0);
}

#[test]
fn what_breaks_inside_an_answer_that_is_put_together_is_tried_again() {
    let folder = Folder::new();
    let path = folder.write("s.toml", "[pace]\nhead = \"0 ms\"\nfirst = \"0 ms\"\nevent = \"0 ms\"\n[[fault]]\ndo = [\"reset-at:in-data\"]\nevery = 2\n");
    let tidegate = Tidegate::simulated_with("", &["--scenario", &path]);
    let direct = tidegate.ask_simulator(post(&[("x-api-key", "sk-ant-x")], message(false, 30_000, "hello"))).json();
    let answer = tidegate.ask(post(&[], message(false, 30_000, "hello")));
    assert_eq!((answer.status, &answer.json()["content"]), (200, &direct["content"]));
    assert_eq!(tidegate.truth("/truth")["requests"], 3, "the second was reset and repeated");
}

#[test]
fn unknown_and_doubled_events_and_single_bytes_are_no_failure() {
    let tidegate = Tidegate::simulated();
    for name in ["unknown-at:event-3", "one-byte"] {
        let answer = tidegate.ask(post(&[("simulate", &fault(name))], message(true, 100, "hello")));
        let names: Vec<_> = answer.events().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.last().unwrap(), "message_stop", "{name}");
        let known = [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
            "ping",
        ];
        assert_eq!(names.iter().any(|n| !known.contains(&n.as_str())), name.starts_with("unknown"), "{names:?}");
    }
}

#[test]
fn an_upstream_that_is_not_there_or_says_nothing_is_told_with_its_clock() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = taken.local_addr().unwrap();
    let config = format!("{TWICE}[clocks]\nfirst_byte = \"400 ms\"\nfirst_byte_large = \"400 ms\"\n");
    let silent = Tidegate::before(nobody, "k", &config);
    let answer = silent.ask(post(&[], message(true, 100, "x")));
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"), "{}", answer.text());
    assert!(answer.text().contains("first_byte"), "{}", answer.text());
    assert_eq!(silent.metric("tidegate_clock_expired_total{clock=\"first_byte\"}"), 2.0);
    silent.comes_to_rest();
    drop(taken);
    let absent = Tidegate::before(nobody, "k", &config);
    for stream in [true, false] {
        let answer = absent.ask(post(&[], message(stream, 100, "x")));
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_unreachable"), "{}", answer.text());
    }
    absent.comes_to_rest();
}

#[test]
fn a_refusal_after_our_own_heartbeat_becomes_an_error_event() {
    let config = format!("{TWICE}[clocks]\nheartbeat = \"200 ms\"\n");
    let tidegate = Tidegate::simulated_with(&config, &[]);
    let simulate = "fault=slow-head:1s, fault=status:400";
    let answer = tidegate.ask(post(&[("simulate", simulate)], message(true, 100, "hello")));
    if answer.status == 200 {
        let events = answer.events();
        assert_eq!(events[0].0, "ping", "{}", answer.text());
        assert_eq!(answer.last_error()["error"]["type"], "invalid_request_error");
    } else {
        panic!("a second of silence without a heartbeat: {}", answer.head);
    }
    let simulate = "output_tokens=20, head_ms=700, first_ms=700, event_ms=0";
    let answer = tidegate.ask(post(&[("simulate", simulate)], message(true, 100, "hello")));
    let names: Vec<_> = answer.events().into_iter().map(|(name, _)| name).collect();
    assert_eq!((names[0].as_str(), names.last().unwrap().as_str()), ("ping", "message_stop"), "{names:?}");
}

#[test]
fn hostile_answers_are_the_upstreams_failure_and_nothing_worse() {
    let json = "{\"type\":\"message\"}";
    let two = format!("{}{}{END}", stream_head("content-length: 5\r\n"), chunk(BEGIN));
    let cases: Vec<(&str, String)> = vec![
        ("no HTTP", "SSH-2.0-OpenSSH_9\r\n\r\n".into()),
        ("a head without end", format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(80_000))),
        ("length and chunks", two),
        ("two lengths", format!("HTTP/1.1 200 OK\r\ncontent-length: 18\r\ncontent-length: 19\r\n\r\n{json}")),
        ("a folded header", format!("HTTP/1.1 200 OK\r\nx: y\r\n z\r\ncontent-length: 18\r\n\r\n{json}")),
        ("a bare line feed", format!("HTTP/1.1 200 OK\ncontent-length: 18\n\n{json}")),
        ("a switch of protocols", "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n".into()),
        ("no content", "HTTP/1.1 204 No Content\r\n\r\n".into()),
        ("endless interim answers", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)),
        (
            "packed although plain was asked for",
            plain(200, "content-encoding: gzip\r\ncontent-type: text/event-stream\r\n", "xx"),
        ),
        ("a malformed chunk", format!("{}zz\r\n", stream_head(""))),
        ("an empty stream", format!("{}{END}", stream_head(""))),
        ("a stream that stops before it starts", format!("{}{}{END}", stream_head(""), chunk(FINISH))),
    ];
    for (what, bytes) in cases {
        let upstream = Upstream::playing(move |_, _, socket| {
            let _ = socket.write_all(bytes.as_bytes());
            let _ = socket.shutdown(std::net::Shutdown::Both);
        });
        let tidegate =
            Tidegate::before(upstream.at, "k", &format!("{TWICE}[clocks]\ngap = \"1 s\"\nfirst_byte = \"1 s\"\n"));
        let answer = tidegate.ask(post(&[], message(true, 100, "x")));
        assert!((500..600).contains(&answer.status), "{what}: {}{}", answer.head, answer.text());
        assert!(!answer.code().is_empty(), "{what}");
        assert!(!tidegate.output().contains("panicked"), "{what}: {}", tidegate.output());
        tidegate.comes_to_rest();
    }
}

#[test]
fn an_answer_too_large_to_be_put_together_is_refused_and_let_go() {
    let tidegate = Tidegate::simulated_with("[limits]\nanswer_bytes = \"4 KiB\"\n", &[]);
    let simulate = "output_tokens=20000, head_ms=0, first_ms=0, event_ms=0";
    let answer = tidegate.ask(post(&[("simulate", simulate)], message(false, 30_000, "hello")));
    assert_eq!((answer.status, answer.code().as_str()), (500, "answer_too_large"), "{}", answer.text());
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    tidegate.comes_to_rest();
    assert_eq!(tidegate.truth("/truth")["requests"], 1);
}

#[test]
fn a_deadline_of_the_client_ends_what_it_can_no_longer_use() {
    let tidegate = Tidegate::simulated();
    // Until an answer has told of the limits, little is let go at once.
    assert_eq!(ask(&tidegate, QUICK.1, false, 100).status, 200);
    for (stream, max_tokens) in [(true, 100), (false, 100), (false, 30_000)] {
        let began = Instant::now();
        let lines = [("simulate", "head_ms=20000"), ("tidegate-deadline-ms", "500")];
        let answer = tidegate.ask(post(&lines, message(stream, max_tokens, "hello")));
        assert_eq!((answer.status, answer.code().as_str()), (504, "deadline_passed"), "{}", answer.text());
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    tidegate.comes_to_rest();
    let left: &Value = &tidegate.truth("/truth")["clients_left"];
    assert_eq!(left, 3, "the upstream was let go each time");
}
