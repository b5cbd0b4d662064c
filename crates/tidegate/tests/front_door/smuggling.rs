//! Requests that two parsers could read differently. Each is refused in the API's envelope, with
//! the connection closed and nothing after it read as a request; nobody else notices.

use crate::process::Tidegate;
use crate::wire::{QUICK, Wire, get, message, post};

/// What a smuggler hopes is taken for a request of its own.
const SMUGGLED: &str = "GET /v1/models HTTP/1.1\r\nhost: tidegate\r\n\r\n";

/// Sends each head (and what follows it) on a connection of its own; what must be said of it.
fn refused(cases: &[(&str, Vec<u8>)], code: &str) {
    let tidegate = Tidegate::simulated();
    let mut innocent = tidegate.client();
    for (what, bytes) in cases {
        let mut wire = tidegate.client();
        wire.send([bytes, SMUGGLED.as_bytes()].concat());
        let answer = wire.try_answer().unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{what}: {}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"), "{what}");
        wire.ends(what);
        innocent.send(get("/", &[]));
        assert_eq!(innocent.answer().status, 200, "after {what}");
    }
    innocent.send(post(&[QUICK], message(false, 100, "hello")));
    assert_eq!(innocent.answer().status, 200);
    drop(innocent);
    assert_eq!(tidegate.truth("/truth")["requests"], 1, "only the innocent request went upstream");
    tidegate.comes_to_rest();
}

fn head(lines: &str) -> Vec<u8> {
    format!("POST /v1/messages HTTP/1.1\r\nhost: tidegate\r\n{lines}\r\n").into()
}

#[test]
fn heads_that_two_parsers_could_read_differently_are_refused() {
    let long = |n: usize| "9".repeat(n);
    let mut cases: Vec<(String, Vec<u8>)> = [
        ("length and chunks", "content-length: 5\r\ntransfer-encoding: chunked\r\n"),
        ("chunks and length", "transfer-encoding: chunked\r\ncontent-length: 5\r\n"),
        ("chunks and a length of zero", "transfer-encoding: chunked\r\ncontent-length: 0\r\n"),
        ("an unknown coding", "transfer-encoding: xchunked\r\n"),
        ("chunked twice in a line", "transfer-encoding: chunked, chunked\r\n"),
        ("chunked on two lines", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        ("chunked and identity", "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n"),
        ("identity", "transfer-encoding: identity\r\n"),
        ("gzip below chunked", "transfer-encoding: gzip, chunked\r\n"),
        ("chunked below gzip", "transfer-encoding: chunked, gzip\r\n"),
        ("an empty coding", "transfer-encoding:\r\n"),
        ("an empty coding before chunked", "transfer-encoding: ,chunked\r\n"),
        ("a coding with a parameter", "transfer-encoding: chunked;q=1\r\n"),
        ("a quoted coding", "transfer-encoding: \"chunked\"\r\n"),
        ("a vertical tab before the coding", "transfer-encoding: \x0bchunked\r\n"),
        ("a form feed after the coding", "transfer-encoding: chunked\x0c\r\n"),
        ("a NUL after the coding", "transfer-encoding: chunked\0\r\n"),
        ("a folded coding", "transfer-encoding:\r\n chunked\r\n"),
        ("a coding folded by a tab", "transfer-encoding: x\r\n\tchunked\r\n"),
        ("a folded first line", " x: y\r\ncontent-length: 5\r\n"),
        ("a space before the colon", "transfer-encoding : chunked\r\n"),
        ("a tab before the colon", "content-length\t: 5\r\n"),
        ("a space in front of the name", "x: y\r\n content-length: 5\r\n"),
        ("a header without a colon", "content-length 5\r\n"),
        ("a header without a name", ": 5\r\n"),
        ("a name in a foreign alphabet", "transfer\u{2010}encoding: chunked\r\n"),
        ("two lengths", "content-length: 5\r\ncontent-length: 6\r\n"),
        ("the same length twice", "content-length: 5\r\ncontent-length: 5\r\n"),
        ("a list of lengths", "content-length: 5, 5\r\n"),
        ("a positive length", "content-length: +5\r\n"),
        ("a negative length", "content-length: -5\r\n"),
        ("a hexadecimal length", "content-length: 0x5\r\n"),
        ("a fractional length", "content-length: 5.0\r\n"),
        ("a length with a space", "content-length: 5 5\r\n"),
        ("an empty length", "content-length:\r\n"),
        ("a length with an exponent", "content-length: 1e1\r\n"),
        ("a length in Arabic digits", "content-length: \u{0665}\r\n"),
        ("a carriage return in a value", "x: a\rcontent-length: 5\r\n"),
        ("a NUL in a value", "x: a\0b\r\n"),
        ("a NUL in a name", "x\0y: a\r\n"),
        ("a second host", "host: elsewhere\r\n"),
        ("the same host again", "host: tidegate\r\n"),
    ]
    .into_iter()
    .map(|(what, lines)| (what.to_owned(), head(lines)))
    .collect();
    for n in [20, 21, 40, 400] {
        cases.push((format!("a length of {n} nines"), head(&format!("content-length: {}\r\n", long(n)))));
    }
    cases.push(("a length of 2^64".into(), head("content-length: 18446744073709551616\r\n")));
    let cases: Vec<(&str, Vec<u8>)> = cases.iter().map(|(what, bytes)| (what.as_str(), bytes.clone())).collect();
    refused(&cases, "malformed_head");
}

#[test]
fn first_lines_and_line_ends_that_are_not_http_are_refused() {
    let cases: Vec<(&str, Vec<u8>)> = [
        ("a bare line feed after the first line", "POST /v1/messages HTTP/1.1\nhost: a\r\n\r\n"),
        ("bare line feeds", "POST /v1/messages HTTP/1.1\nhost: a\n\n"),
        ("a bare line feed after a header", "POST /v1/messages HTTP/1.1\r\nhost: a\r\nx: y\ncontent-length: 3\r\n\r\n"),
        ("a bare line feed before the body", "POST /v1/messages HTTP/1.1\r\nhost: a\r\n\n"),
        ("two carriage returns", "POST /v1/messages HTTP/1.1\r\r\nhost: a\r\n\r\n"),
        ("no host", "POST /v1/messages HTTP/1.1\r\ncontent-length: 0\r\n\r\n"),
        ("no version", "POST /v1/messages\r\nhost: a\r\n\r\n"),
        ("version 0.9", "POST /v1/messages HTTP/0.9\r\nhost: a\r\n\r\n"),
        ("version 1.2", "POST /v1/messages HTTP/1.2\r\nhost: a\r\n\r\n"),
        ("version 2.0", "POST /v1/messages HTTP/2.0\r\nhost: a\r\n\r\n"),
        ("half a preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\n"),
        ("version in small letters", "POST /v1/messages http/1.1\r\nhost: a\r\n\r\n"),
        ("two spaces after the method", "POST  /v1/messages HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("two spaces before the version", "POST /v1/messages  HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("a tab for a space", "POST\t/v1/messages HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("a space in the target", "POST /v1/ messages HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("a space before the method", " POST /v1/messages HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("a NUL in the target", "POST /v1/messages\0 HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("a target in UTF-8", "POST /v1/m\u{e9}ssages HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("a colon in the method", "POST: /v1/messages HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("chunks in HTTP/1.0", "POST /v1/messages HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("the beginning of a TLS handshake", "\x16\x03\x01\x02\0\x01\0\x01\n\r\n\r\n"),
    ]
    .into_iter()
    .map(|(what, text)| (what, text.as_bytes().to_vec()))
    .collect();
    refused(&cases, "malformed_head");
}

#[test]
fn chunks_that_two_parsers_could_read_differently_are_refused() {
    let cases: Vec<(&str, Vec<u8>)> = [
        ("a prefix 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a positive size", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a space before the size", " 5\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("an extension without a size", ";a=b\r\nhello\r\n0\r\n\r\n"),
        ("no hexadecimal size", "5g\r\nhello\r\n0\r\n\r\n"),
        ("a size that overflows", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("a size of many zeros", "00000000000000000000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("a bare line feed after the size", "5\nhello\r\n0\r\n\r\n"),
        ("a bare line feed in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("a bare carriage return in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("a NUL in an extension", "5;a\0b\r\nhello\r\n0\r\n\r\n"),
        ("an extension without its semicolon", "5 x\r\nhello\r\n0\r\n\r\n"),
        ("a trailer that is a request line", "0\r\nGET /v1/models HTTP/1.1\r\n\r\n"),
        ("a folded trailer", "0\r\nx: y\r\n z\r\n\r\n"),
        ("data longer than its size", "5\r\nhello!\r\n0\r\n\r\n"),
        ("data without its end", "5\r\nhello0\r\n\r\n"),
        ("data ended by a bare line feed", "5\r\nhello\n0\r\n\r\n"),
        ("a last chunk ended by a bare line feed", "5\r\nhello\r\n0\n\n"),
        ("a trailer ended by a bare line feed", "5\r\nhello\r\n0\r\nx: y\n\r\n"),
        ("a NUL in a trailer", "5\r\nhello\r\n0\r\nx: \0\r\n\r\n"),
    ]
    .into_iter()
    .map(|(what, body)| (what, [head("transfer-encoding: chunked\r\n").as_slice(), body.as_bytes()].concat()))
    .collect();
    refused(&cases, "invalid_body");
}

#[test]
fn white_space_that_every_parser_takes_off_a_coding_is_taken_off() {
    let tidegate = Tidegate::simulated();
    let body = message(false, 100, "hello");
    for value in ["chunked", "Chunked", " chunked ", "\tchunked\t ", "CHUNKED"] {
        let request = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: a\r\nanthropic-version: 2023-06-01\r\n{}: {}\r\ntransfer-encoding:{value}\r\n\r\n{:X};x=\"y\"\r\n{body}\r\n000\r\nx: y\r\n\r\n",
            QUICK.0,
            QUICK.1,
            body.len()
        );
        let mut wire = tidegate.client();
        wire.send(request.repeat(2));
        assert_eq!((wire.answer().status, wire.answer().status), (200, 200), "{value:?}");
    }
}

#[test]
fn what_follows_a_body_is_the_next_request_and_answers_come_in_order() {
    let tidegate = Tidegate::simulated();
    let mut wire = tidegate.client();
    // A slow answer first, then quick ones of other kinds, then one in chunks.
    let slow = ("simulate", "output_tokens=5, head_ms=400, first_ms=0, event_ms=0");
    let body = message(false, 100, "hello");
    let chunked = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: a\r\nanthropic-version: 2023-06-01\r\n{}: {}\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{{\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        QUICK.0,
        QUICK.1,
        body.len() - 1,
        &body[1..]
    );
    let requests = [
        post(&[slow], &body),
        get("/v1/models/claude-opus-5-5", &[]).into(),
        b"\r\n".to_vec(),
        post(&[QUICK], message(true, 100, "hello")),
        chunked.into(),
        get("/", &[]).into(),
    ];
    wire.send(requests.concat());
    assert_eq!(wire.answer().json()["type"], "message");
    assert_eq!(wire.answer().json()["id"], "claude-opus-5-5");
    assert_eq!(wire.answer().events().last().unwrap().0, "message_stop");
    assert_eq!(wire.answer().json()["type"], "message");
    assert_eq!(wire.answer().json()["service"], "tidegate");
    // A body longer than its length: what is over is the next request, and no good one.
    wire.send([post(&[QUICK], &body), b"{}\r\n\r\n".to_vec()].concat());
    assert_eq!(wire.answer().status, 200);
    assert_eq!(wire.answer().code(), "malformed_head");
    wire.ends("a body longer than its length");
}

#[test]
fn an_absolute_target_is_served_like_its_path() {
    let tidegate = Tidegate::simulated();
    for target in ["http://tidegate/v1/models", "HTTP://else.where:80/v1/models?limit=1", "https://tidegate/v1/models"]
    {
        let answer = tidegate.ask(get(target, &[]));
        assert_eq!(answer.status, 200, "{target} {}", answer.text());
        assert!(answer.json()["data"].is_array(), "{target}");
    }
    assert_eq!(tidegate.ask(get("http://tidegate", &[])).json()["service"], "tidegate");
    for (target, status) in [("*", 404), ("tidegate:80", 404), ("v1/models", 404), ("//v1/models", 404)] {
        assert_eq!(tidegate.ask(get(target, &[])).status, status, "{target}");
    }
}

#[test]
fn garbage_of_every_kind_hurts_nobody() {
    let tidegate = Tidegate::simulated();
    let mut state = 7u64;
    let mut dice = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let valid = post(&[QUICK], message(false, 50, "hello"));
    for _ in 0..300 {
        let mut bytes = valid.clone();
        for _ in 0..1 + dice() % 4 {
            let at = dice() % bytes.len();
            match dice() % 4 {
                0 => bytes[at] = dice() as u8,
                1 => drop(bytes.drain(at..(at + dice() % 9).min(bytes.len()))),
                2 => bytes.insert(at, [b'\r', b'\n', 0, b' ', b':'][dice() % 5]),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let mut wire = Wire::to(tidegate.gateway);
        // The other side may have refused and closed before it had everything.
        let _ = wire.try_send(&bytes);
        wire.half_close();
        let (said, _) = wire.rest();
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 "), "{:?}", String::from_utf8_lossy(&bytes));
    }
    assert_eq!(tidegate.ask(valid).status, 200);
    tidegate.comes_to_rest();
    assert!(!tidegate.output().contains("panicked"), "{}", tidegate.output());
}
