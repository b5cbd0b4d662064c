//! What passes through unchanged, what must not pass, and whose credential goes where.

use crate::process::{Tidegate, finished};
use crate::upstream::{BEGIN, END, FINISH, Upstream, chunk, plain, stream_head};
use crate::wire::{get, post, post_to};
use std::io::Write;

const THEIRS: &str = "sk-ant-upstream-SECRETMARK";

fn small() -> String {
    plain(200, "content-type: application/json\r\nrequest-id: req_up\r\n", "{\"type\":\"message\"}")
}

#[test]
fn a_request_goes_upstream_byte_for_byte() {
    let upstream = Upstream::saying(small());
    let tidegate = Tidegate::before(upstream.at, THEIRS, "");
    // Odd spacing, key order, unknown and repeated fields, escapes, numbers no float holds.
    let body = " {\r\n\t\"zeta\" :1e400, \"model\":\"claude-\\u0068aiku-5-5\" ,\"max_tokens\":100,\"a\":{\"b\":[1,2.50,-0,12345678901234567890123]},\"text\":\"\\ud83d\\ude00 \u{1f600} \\/\",\"stream\": false,\"x\":1,\"x\":2,\"new_block\":[{\"type\":\"holo_2027\",\"z\":null}]}\n ";
    let lines = [
        ("anthropic-beta", "one-2026-01-01,two"),
        ("Anthropic-Beta", "three"),
        ("X-Unknown", "a  b\tc; \"d\""),
        ("x-latin", "caf\u{e9}"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "a=b"),
        ("User-Agent", "Anthropic/Python 2.12.0"),
        ("X-Stainless-Retry-Count", "0"),
        ("x-stainless-timeout", "NOT_GIVEN"),
        ("accept", "application/json"),
        ("x-empty", ""),
    ];
    let dropped = [
        ("connection", "keep-alive, X-Mine"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic CLIENTMARK"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("upgrade", "h2c"),
        ("x-api-key", "CLIENTMARK"),
        ("Authorization", "Bearer CLIENTMARK"),
        ("cookie", "CLIENTMARK"),
        ("accept-encoding", "gzip, br"),
        ("tidegate-priority", "interactive"),
        ("Tidegate-Deadline-Ms", "5000"),
    ];
    let answer = tidegate.ask(post_to("/v1/messages?beta=true&x=%2F", &[&lines[..], &dropped[..]].concat(), body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = upstream.seen();
    assert_eq!(seen.len(), 1);
    let seen = &seen[0];
    assert_eq!(String::from_utf8_lossy(&seen.body), body);
    assert!(seen.head.starts_with("POST /v1/messages?beta=true&x=%2F HTTP/1.1\r\n"), "{}", seen.head);
    let passed: Vec<_> = seen.lines().into_iter().filter(|(n, _)| lines.iter().any(|(l, _)| l == n)).collect();
    assert_eq!(passed, lines, "every line, in order, as it was spelled");
    assert_eq!(seen.all("anthropic-version"), ["2023-06-01"]);
    assert_eq!(seen.all("content-type"), ["application/json"]);
    let at = upstream.at.to_string();
    assert_eq!((seen.all("host"), seen.all("x-api-key")), (vec![at.as_str()], vec![THEIRS]));
    assert_eq!(seen.all("accept-encoding"), ["identity"]);
    for name in dropped.map(|(n, _)| n).iter().filter(|n| !["x-api-key", "accept-encoding"].contains(n)) {
        assert!(seen.all(name).is_empty(), "{name} in {}", seen.head);
    }
    assert!(!seen.head.contains("CLIENTMARK"), "{}", seen.head);
    assert!(!answer.head.contains("SECRETMARK") && !answer.text().contains("SECRETMARK"));
}

#[test]
fn what_a_connection_line_names_cannot_take_our_own_lines_away() {
    let upstream = Upstream::saying(small());
    let tidegate = Tidegate::before(upstream.at, THEIRS, "");
    let lines = [("connection", "close, x-api-key, content-length, host, anthropic-version")];
    assert_eq!(tidegate.ask(post(&lines, "{\"model\":\"m\",\"max_tokens\":1}")).status, 200);
    let seen = &upstream.seen()[0];
    assert_eq!((seen.all("x-api-key"), seen.all("content-length").len(), seen.all("host").len()), (vec![THEIRS], 1, 1));
    assert!(seen.all("connection").is_empty() && seen.all("anthropic-version").is_empty());
}

#[test]
fn an_absolute_target_goes_upstream_as_a_path() {
    let upstream = Upstream::saying(plain(200, "", "{}"));
    let tidegate = Tidegate::before(upstream.at, THEIRS, "");
    assert_eq!(tidegate.ask(get("http://elsewhere:1/v1/models?limit=2", &[])).status, 200);
    let seen = upstream.seen();
    assert!(seen[0].head.starts_with("GET /v1/models?limit=2 HTTP/1.1\r\n"), "{}", seen[0].head);
}

#[test]
fn a_stream_comes_back_byte_for_byte() {
    let odd = concat!(
        "event: brand_new\ndata: {\"type\":\"brand_new\",\"b\":1e400,\"a\":[ ]}\nid: 7\n\n",
        ": a comment\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"unheard_of\",\"x\":\"\\u00e9\u{e9}\"},\"z\":0}\n\n",
        "event: ping\ndata: {\"type\": \"ping\"}\n\n",
    );
    let sent = format!("{BEGIN}{odd}{FINISH}");
    let bytes = sent.clone();
    let lines = "request-id: req_up\r\nanthropic-ratelimit-requests-remaining: 7\r\nX-New: a  b\r\nx-new: c\r\ncf-ray: 1\r\nset-cookie: upstream=1\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=9\r\n";
    let upstream = Upstream::playing(move |_, _, socket| {
        socket.write_all(stream_head(lines).as_bytes()).unwrap();
        // Cut wherever it hurts: after every seventh byte.
        for part in bytes.as_bytes().chunks(7) {
            let size = format!("{:x}\r\n", part.len());
            socket.write_all(&[size.as_bytes(), part, b"\r\n"].concat()).unwrap();
        }
        socket.write_all(END.as_bytes()).unwrap();
    });
    let tidegate = Tidegate::before(upstream.at, THEIRS, "");
    let answer = tidegate.ask(post(&[], "{\"model\":\"m\",\"max_tokens\":1,\"stream\":true}"));
    assert_eq!((answer.status, answer.whole), (200, true));
    assert_eq!(answer.text(), sent);
    assert_eq!(answer.all("x-new"), ["a  b", "c"]);
    assert!(answer.head.contains("\r\nX-New: "), "spelling survives: {}", answer.head);
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!((answer.header("request-id"), answer.header("cf-ray")), (Some("req_up"), Some("1")));
    assert_eq!(answer.header("anthropic-ratelimit-requests-remaining"), Some("7"));
    assert!(answer.header("tidegate-request-id").is_some() && answer.header("tidegate-stream").is_some());
    for name in ["set-cookie", "connection", "x-hop", "keep-alive", "x-api-key"] {
        assert_eq!(answer.header(name), None, "{}", answer.head);
    }
}

#[test]
fn a_short_answer_and_a_refusal_come_back_byte_for_byte() {
    let odd =
        "{ \"type\":\"message\",\"z\":1e400,\"a\":[1 ,2],\"usage\":{\"input_tokens\":3,\"x\":{}},\"x\":\"\\u00e9\" }\n";
    let refusal = "{\"type\":\"error\" ,\"error\":{\"type\":\"invalid_request_error\",\"message\":\"max_tokens: nope\",\"new\":1},\"request_id\":\"req_up\"}";
    let upstream = Upstream::playing(move |nth, _, socket| {
        let lines = "content-type: application/json\r\nrequest-id: req_up\r\nX-Should-Retry: false\r\n";
        let said = if nth == 0 { plain(200, lines, odd) } else { plain(400, lines, refusal) };
        socket.write_all(said.as_bytes()).unwrap();
    });
    let tidegate = Tidegate::before(upstream.at, THEIRS, "");
    let ask =
        |stream: bool| tidegate.ask(post(&[], format!("{{\"model\":\"m\",\"max_tokens\":1,\"stream\":{stream}}}")));
    let answer = ask(false);
    assert_eq!((answer.status, answer.text().as_str(), answer.header("request-id")), (200, odd, Some("req_up")));
    for stream in [false, true] {
        let answer = ask(stream);
        assert_eq!((answer.status, answer.text().as_str()), (400, refusal));
        assert_eq!((answer.all("x-should-retry"), answer.all("request-id")), (vec!["false"], vec!["req_up"]));
    }
    assert_eq!(upstream.seen().len(), 3, "a refusal of the request itself is not tried again");
}

#[test]
fn keys_made_by_the_command_open_the_door_and_others_do_not() {
    let (code, out, _) = finished(&["key", "new", "--tenant", "acme"]);
    assert_eq!(code, 0);
    let key = out.lines().map(str::trim).find(|l| l.starts_with("tg_")).unwrap().to_owned();
    let lines = &out[out.find("[[client_key]]").unwrap()..];
    assert!(!lines.contains(&key));
    let upstream = Upstream::saying(small());
    let tidegate = Tidegate::before(upstream.at, THEIRS, lines);
    let body = "{\"model\":\"m\",\"max_tokens\":1}";
    let bearer = format!("Bearer {key}");
    let wrong = format!("{}1", &key[..key.len() - 1]); // a digit no key has
    for (lines, code) in [
        (vec![], "missing_key"),
        (vec![("x-api-key", wrong.as_str())], "unknown_key"),
        (vec![("x-api-key", "")], "missing_key"),
        (vec![("x-api-key", THEIRS)], "unknown_key"),
        (vec![("authorization", key.as_str())], "missing_key"),
        (vec![("authorization", "Basic eDp5")], "missing_key"),
        (vec![("authorization", "Bearer")], "missing_key"),
        (vec![("x-api-key", wrong.as_str()), ("authorization", bearer.as_str())], "unknown_key"),
    ] {
        for request in [post(&lines, body), get("/v1/models", &lines).into()] {
            let answer = tidegate.ask(request);
            assert_eq!((answer.status, answer.code().as_str()), (401, code), "{lines:?}");
            assert_eq!(answer.json()["error"]["type"], "authentication_error");
        }
    }
    assert!(upstream.seen().is_empty(), "nothing of a stranger goes upstream");
    for lines in [[("x-api-key", key.as_str())], [("Authorization", bearer.as_str())]] {
        assert_eq!(tidegate.ask(post(&lines, body)).status, 200);
    }
    for seen in upstream.seen() {
        assert!(!seen.head.contains(&key) && !seen.head.contains("uthorization"), "{}", seen.head);
    }
    let page = tidegate.admin("/metrics").text();
    assert!(page.contains("tenant=\"acme\""), "{page}");
    assert!(!page.contains(&key) && !tidegate.output().contains(&key));
    assert!(tidegate.ask(get("/", &[])).status == 200, "the greeting needs no key");
}

#[test]
fn a_header_of_our_own_that_is_not_understood_is_refused_not_ignored() {
    let upstream = Upstream::saying(small());
    let tidegate = Tidegate::before(upstream.at, THEIRS, "");
    for (name, value) in [
        ("tidegate-priority", "high"),
        ("tidegate-deadline-ms", "-1"),
        ("Tidegate-Conversatoin", "c1"),
        ("tidegate-resume", "always"),
    ] {
        let answer = tidegate.ask(post(&[(name, value)], "{\"model\":\"m\",\"max_tokens\":1}"));
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_header"), "{name}");
        assert!(answer.text().contains(&name.to_lowercase()), "{}", answer.text());
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn pooled_connections_never_mix_answers_up() {
    // The upstream adds bytes after an answer: whoever came next must not read them.
    let stray = format!("{}{}", small(), plain(200, "", "{\"type\":\"STRAY\"}"));
    let upstream = Upstream::saying(stray);
    let tidegate = Tidegate::before(upstream.at, THEIRS, "");
    let mut wire = tidegate.client();
    for _ in 0..20 {
        wire.send(post(&[], "{\"model\":\"m\",\"max_tokens\":1}"));
        assert_eq!(wire.answer().text(), "{\"type\":\"message\"}");
    }
    let streams = Upstream::saying(format!("{}{}{END}", stream_head(""), chunk(&format!("{BEGIN}{FINISH}"))));
    let tidegate = Tidegate::before(streams.at, THEIRS, "");
    let mut wire = tidegate.client();
    for _ in 0..20 {
        wire.send(post(&[], "{\"model\":\"m\",\"max_tokens\":1,\"stream\":true}"));
        assert_eq!(wire.answer().text(), format!("{BEGIN}{FINISH}"));
    }
}
