//! Slow, large, packed and wrong requests: each is refused with its own status and code, and its
//! refusal arrives.

use crate::process::{Tidegate, eventually};
use crate::wire::{Answer, QUICK, Wire, bare, get, message, post, post_to};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use std::io::Write;
use std::time::{Duration, Instant};

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}{}", answer.head, answer.text());
    assert!(answer.header("request-id").is_some() && answer.header("tidegate-request-id").is_some());
}

#[test]
fn a_slow_head_is_answered_408_at_its_clock() {
    let tidegate = Tidegate::simulated_with("[clocks]\nclient_head = \"700 ms\"\n", &[]);
    for begin in ["P", "POST /v1/messages HTTP/1.1\r\nhost: a\r\nx: ", "\r\n\r\n"] {
        let mut wire = tidegate.client();
        wire.send(begin);
        let began = Instant::now();
        // A byte now and then does not move the clock.
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(100));
            wire.send(if begin == "\r\n\r\n" { "\r\n" } else { "x" });
        }
        refused(&wire.answer(), 408, "head_timeout");
        wire.ends(begin);
        assert!((Duration::from_millis(600)..Duration::from_secs(5)).contains(&began.elapsed()));
    }
    assert_eq!(tidegate.metric("tidegate_clock_expired_total{clock=\"client_head\"}"), 3.0);
}

#[test]
fn a_body_that_stops_is_answered_408_and_one_that_only_dawdles_is_served() {
    let tidegate = Tidegate::simulated_with("[clocks]\nclient_body_stall = \"700 ms\"\n", &[]);
    let whole = post(&[QUICK], message(false, 50, "hello"));
    for cut in [whole.len() - 1, whole.len() - 60] {
        let mut wire = tidegate.client();
        wire.send(&whole[..cut]);
        refused(&wire.answer(), 408, "body_timeout");
        wire.ends("a stalled body");
    }
    let mut wire = tidegate.client();
    wire.send("POST /v1/messages HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe");
    refused(&wire.answer(), 408, "body_timeout");
    let mut wire = tidegate.client();
    wire.send(&whole[..whole.len() - 6]);
    for byte in &whole[whole.len() - 6..] {
        std::thread::sleep(Duration::from_millis(300));
        wire.send([*byte]);
    }
    assert_eq!(wire.answer().status, 200);
    drop(wire);
    assert_eq!(tidegate.metric("tidegate_clock_expired_total{clock=\"client_body_stall\"}"), 3.0);
    tidegate.comes_to_rest();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let tidegate = Tidegate::simulated_with("[clocks]\nclient_idle = \"500 ms\"\n", &[]);
    let mut silent = tidegate.client();
    let mut used = tidegate.client();
    used.send(get("/", &[]));
    assert_eq!(used.answer().status, 200);
    silent.ends("a connection that was never used");
    used.ends("a connection between requests");
    tidegate.comes_to_rest();
}

#[test]
fn a_head_over_its_limit_is_answered_431() {
    let tidegate = Tidegate::simulated();
    let long = "y".repeat(70_000);
    let many: Vec<(&str, &str)> = vec![("x", "y"); 127];
    for request in [
        get("/v1/models", &[("x", &long)]),
        get(&format!("/v1/models?{long}"), &[]),
        get("/v1/models", &many),
        format!("GET /v1/models HTTP/1.1\r\nhost: a\r\nx: {long}{long}"),
    ] {
        let mut wire = tidegate.client();
        wire.send(request);
        refused(&wire.answer(), 431, "head_too_large");
        wire.ends("a large head");
    }
    let just_under = "y".repeat(60_000);
    assert_eq!(tidegate.ask(get("/v1/models", &[("x", &just_under)])).status, 200);
}

/// Sends a body that is far over the limit to its end, as most clients do, before it looks for an
/// answer. True if all of it was taken.
fn sends_on(wire: &mut Wire, head: &str, piece: &[u8], pieces: usize) -> bool {
    wire.send(head);
    (0..pieces).all(|_| wire.try_send(piece).is_ok())
}

#[test]
fn a_body_over_the_limit_is_answered_413_though_the_client_sends_it_whole() {
    let tidegate = Tidegate::simulated_with("[limits]\nbody_bytes = \"1 MiB\"\n", &[]);
    let (piece, pieces) = (vec![b' '; 1 << 20], 40);
    let head = format!("POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", pieces << 20);
    let mut wire = tidegate.client();
    assert!(sends_on(&mut wire, &head, &piece, pieces), "a client that cannot send does not read either");
    refused(&wire.answer(), 413, "body_too_large");
    wire.ends("a body over the limit");

    let chunk = [b"100000\r\n", &piece[..], b"\r\n"].concat();
    let mut wire = tidegate.client();
    let head = "POST /v1/messages HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    assert!(sends_on(&mut wire, head, &chunk, pieces));
    refused(&wire.answer(), 413, "body_too_large");
    wire.ends("chunks over the limit");

    let exact = [b"{\"model\":\"m\",\"x\":\"", vec![b'x'; (1 << 20) - 20].as_slice(), b"\"}"].concat();
    assert_eq!(exact.len(), 1 << 20);
    assert_eq!(tidegate.ask(post(&[], exact)).code(), "", "the limit itself is not over it: the upstream judges");
    tidegate.comes_to_rest();
}

#[test]
fn bodies_share_a_budget_that_is_leased_before_they_are_read() {
    let limits = "[limits]\nbody_bytes = \"1 MiB\"\nbodies_bytes = \"1 MiB\"\n";
    let tidegate = Tidegate::simulated_with(limits, &[]);
    let mut greedy = tidegate.client();
    greedy.send("POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 1048576\r\n\r\n{");
    eventually("the lease", Duration::from_secs(5), || {
        (tidegate.metric("tidegate_budget_bytes{budget=\"bodies\"}") > 0.0).then_some(())
    });
    let answer = tidegate.ask(post(&[QUICK], message(false, 50, "hello")));
    refused(&answer, 529, "body_budget_spent");
    assert_eq!(answer.header("retry-after"), Some("1"));
    drop(greedy);
    tidegate.comes_to_rest();
    assert_eq!(tidegate.ask(post(&[QUICK], message(false, 50, "hello"))).status, 200);
}

#[test]
fn connections_over_the_limit_wait_until_one_is_free() {
    let tidegate = Tidegate::simulated_with("[limits]\nconnections = 2\n", &[]);
    let (mut first, mut second) = (tidegate.client(), tidegate.client());
    for wire in [&mut first, &mut second] {
        wire.send(get("/", &[]));
        assert_eq!(wire.answer().status, 200);
    }
    let mut third = tidegate.client();
    third.send(get("/", &[]));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(tidegate.metric("tidegate_client_connections"), 2.0);
    drop(first);
    assert_eq!(third.answer().status, 200);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut out = ZlibEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

#[test]
fn packed_bodies_are_unpacked_within_the_limit() {
    let tidegate = Tidegate::simulated_with("[limits]\nbody_bytes = \"1 MiB\"\n", &[]);
    let body = message(false, 50, "hello");
    let ask = |coding: &str, body: &[u8]| tidegate.ask(post(&[("content-encoding", coding), QUICK], body));
    let plain = tidegate.ask(post(&[QUICK], &body)).json();
    for answer in [
        ask("gzip", &gzip(body.as_bytes())),
        ask("GZip", &gzip(body.as_bytes())),
        ask("deflate", &deflate(body.as_bytes())),
        ask("identity", body.as_bytes()),
    ] {
        assert_eq!((answer.status, &answer.json()["content"]), (200, &plain["content"]));
    }
    let bomb = vec![b' '; 300 << 20];
    refused(&ask("gzip", &gzip(&bomb)), 413, "body_too_large");
    let mut twice = gzip(body.as_bytes());
    twice.extend(gzip(b"{}"));
    for (coding, bad) in [
        ("gzip", body.as_bytes()),
        ("gzip", &gzip(body.as_bytes())[..40]),
        ("gzip", b""),
        ("gzip", &twice),
        ("deflate", &gzip(body.as_bytes())),
        ("deflate", &[deflate(body.as_bytes()), b"tail".to_vec()].concat()),
    ] {
        refused(&ask(coding, bad), 400, "request_body_encoding_invalid");
    }
    for coding in ["br", "zstd", "gzip, gzip", "compress"] {
        refused(&ask(coding, &gzip(body.as_bytes())), 400, "request_body_encoding_unsupported");
    }
    tidegate.comes_to_rest();
}

#[test]
fn a_client_that_waits_for_continue_is_told_so_or_refused_before_it_sends() {
    let tidegate = Tidegate::simulated_with("[limits]\nbody_bytes = \"1 MiB\"\n", &[]);
    let request = post(&[QUICK, ("expect", "100-continue")], message(false, 50, "hello"));
    let body_at = request.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let mut wire = tidegate.client();
    wire.send(&request[..body_at]);
    assert_eq!(wire.until("\r\n\r\n").unwrap(), b"HTTP/1.1 100 Continue\r\n\r\n");
    wire.send(&request[body_at..]);
    assert_eq!(wire.answer().status, 200);
    let mut wire = tidegate.client();
    wire.send("POST /v1/messages HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n\r\n");
    let said = String::from_utf8(wire.until("\r\n").unwrap()).unwrap();
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
}

#[test]
fn a_body_that_is_no_request_is_answered_400_with_the_place() {
    let tidegate = Tidegate::simulated();
    for (body, wants) in [
        ("", &["no body"][..]),
        ("{\"model\": \"m\",\n  \"stream\": tru}", &["line 2", "column"]),
        ("{\"model\": \"m\"", &["line 1 column 13"]),
        ("{\"model\": \"m\"} x", &["line 1 column"]),
        ("[]", &["not an object"]),
        ("{}", &["model"]),
        ("{\"model\": 7}", &["model"]),
        ("{\"model\": \"m\", \"stream\": \"yes\"}", &["stream"]),
        ("{\"model\": \"m\", \"max_tokens\": 1}\0", &["line 1 column"]),
    ] {
        let mut wire = tidegate.client();
        wire.send(post(&[], body));
        let answer = wire.answer();
        refused(&answer, 400, "invalid_body");
        assert!(wants.iter().all(|w| answer.text().contains(w)), "{body}: {}", answer.text());
        // Its body was read, so the connection is good for more.
        wire.send(get("/", &[]));
        assert_eq!(wire.answer().status, 200, "{body}");
    }
    let deep = format!("{{\"model\":\"m\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let answer = tidegate.ask(post(&[], deep));
    assert!(answer.status == 400, "{}", answer.text());
}

#[test]
fn paths_and_methods_that_are_not_served_are_named() {
    let tidegate = Tidegate::simulated_with("[pass_through]\nenabled = false\n", &[]);
    for path in [
        "/v1/complete",
        "/v1/files",
        "/v1/messages/",
        "/V1/messages",
        "/v1/messages/batches",
        "/v1/models/a/b",
        "/v1//messages",
    ] {
        refused(&tidegate.ask(get(path, &[])), 404, "unknown_path");
        let post = tidegate.ask(post_to(path, &[], "{}"));
        refused(&post, 404, "unknown_path");
        assert_eq!(post.json()["error"]["type"], "not_found_error");
    }
    for (method, path, allowed) in [
        ("GET", "/v1/messages", "POST"),
        ("PUT", "/v1/messages?beta=true", "POST"),
        ("DELETE", "/v1/messages/count_tokens", "POST"),
        ("POST", "/v1/models", "GET"),
        ("get", "/v1/models", "GET"),
        ("POST", "/", "GET, HEAD"),
    ] {
        let answer = tidegate.ask(bare(method, path, &[]));
        refused(&answer, 405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allowed));
    }
    let mut wire = tidegate.client();
    wire.send(bare("HEAD", "/v1/nothing", &[]));
    assert_eq!(wire.head().unwrap().status, 404);
    wire.ends("an answer to HEAD has no body");
}

#[test]
fn the_root_greets_and_the_beta_flag_is_no_other_path() {
    let tidegate = Tidegate::simulated();
    let mut wire = tidegate.client();
    wire.send(bare("HEAD", "/", &[]));
    let greeting = wire.head().unwrap();
    assert_eq!((greeting.status, greeting.header("content-length")), (200, Some("23")));
    wire.send(get("/?x=y", &[]));
    let greeting = wire.answer();
    assert_eq!((greeting.status, greeting.body.len()), (200, 23));
    assert!(greeting.header("request-id").is_some());
    wire.send(post_to("/v1/messages?beta=true", &[QUICK], message(false, 50, "hello")));
    assert_eq!(wire.answer().json()["type"], "message");
    wire.send(post_to("/v1/messages/count_tokens?beta=true", &[], message(false, 50, "hello")));
    assert!(wire.answer().json()["input_tokens"].as_u64().unwrap() > 0);
    // A body where none belongs is not taken for a request, and the connection says that it ends.
    wire.send(
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 40\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n\r\n\r\n",
    );
    assert_eq!(wire.answer().header("connection"), Some("close"));
    wire.ends("a greeting with a body");
}

#[test]
fn a_client_of_http_1_0_is_served_in_its_own_way() {
    let tidegate = Tidegate::simulated();
    let request = |stream, lines: &str| {
        let body = message(stream, 50, "hello");
        format!(
            "POST /v1/messages HTTP/1.0\r\nanthropic-version: 2023-06-01\r\n{}: {}\r\n{lines}content-length: {}\r\n\r\n{body}",
            QUICK.0,
            QUICK.1,
            body.len()
        )
    };
    let mut wire = tidegate.client();
    wire.send(request(true, ""));
    let answer = wire.answer();
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.events().last().unwrap().0, "message_stop");
    let mut wire = tidegate.client();
    wire.send(request(false, "connection: keep-alive\r\n").repeat(2));
    assert_eq!((wire.answer().status, wire.answer().status), (200, 200));
}
