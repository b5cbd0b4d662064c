//! What is kept, over HTTP/2: the conversations' doors, and streams that are come back to. The client is
//! curl, which speaks HTTP/2 in cleartext if it is told to; where there is none the tests say so.

use crate::process::Tidegate;
use crate::streams::{events, last_cursor, text_of};
use crate::teller::{Teller, told};
use crate::tls::curl_is_here;
use crate::wire::{get, message};
use serde_json::{Value, json};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A request over HTTP/2, to a path, with a body if there is one.
fn asked(tidegate: &Tidegate, method: &str, path: &str, lines: &[&str], body: Option<&str>) -> Child {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "30", "--no-buffer", "--noproxy", "*"]);
    curl.args(["--http2-prior-knowledge", "--request", method, "--include"]);
    curl.args(["--header", "anthropic-version: 2023-06-01"]);
    for line in lines {
        curl.args(["--header", line]);
    }
    if let Some(body) = body {
        curl.args(["--data-binary", body]);
    }
    curl.arg(format!("http://{}{path}", tidegate.gateway));
    curl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Status, head and body of a whole answer.
fn answered(child: Child) -> (u16, String, String) {
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text}"));
    let status = head.strip_prefix("HTTP/2 ").unwrap_or_else(|| panic!("{head}"))[..3].parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

fn line<'h>(head: &'h str, name: &str) -> &'h str {
    head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_else(|| panic!("{name}: {head}"))
}

const JSON: &str = "content-type: application/json";
const QUICK: &str = "simulate: output_tokens=20, head_ms=0, first_ms=0, event_ms=0";

#[test]
fn the_doors_of_conversations_say_the_same_over_http2() {
    if !curl_is_here() {
        return;
    }
    let tidegate = Tidegate::simulated();
    let ask = |method: &str, path: &str, lines: &[&str], body: Option<&str>| {
        answered(asked(&tidegate, method, path, lines, body))
    };
    for (nth, stream) in [false, true].into_iter().enumerate() {
        let lines = [JSON, QUICK, "tidegate-conversation: c/1"];
        let (status, head, body) = ask("POST", "/v1/messages", &lines, Some(&message(stream, 100, "x")));
        assert_eq!((status, line(&head, "tidegate-turn")), (200, (nth + 1).to_string().as_str()), "{body}");
    }
    let append = json!({"messages": [{"role": "user", "content": "written"}]}).to_string();
    let (status, _, body) = ask("POST", "/v1/conversations/c%2F1/turns", &[JSON], Some(&append));
    assert_eq!(status, 200, "{body}");
    let fork = ask("POST", "/v1/conversations/c%2F1/fork", &[JSON], Some("{\"id\":\"fork\",\"turn\":1}"));
    assert_eq!(fork.0, 200, "{}", fork.2);
    for path in [
        "/v1/conversations?limit=1",
        "/v1/conversations/c%2F1",
        "/v1/conversations/c%2F1/turns?limit=2",
        "/v1/conversations/c%2F1/window?messages=true",
        "/v1/conversations?format=jsonl",
        "/v1/conversations/none",
    ] {
        let (status, head, body) = ask("GET", path, &[], None);
        let plain = tidegate.ask(get(path, &[]));
        assert_eq!((status, line(&head, "content-type")), (plain.status, plain.header("content-type").unwrap()));
        let same = |text: &str| match serde_json::from_str::<Value>(text) {
            Ok(mut value) => {
                value["request_id"] = Value::Null;
                value.to_string()
            }
            Err(_) => text.to_owned(),
        };
        assert_eq!(same(&body), same(&plain.text()), "{path}");
    }
    // Import reads as it comes: more than a window of it, in lines that are written some at a time.
    let head = json!({"type": "conversation", "conversation": "big", "created_ms": 1, "updated_ms": 1, "turns": 40});
    let turn = |number: u32| {
        json!({"type": "turn", "conversation": "big", "number": number, "status": "appended", "created_ms": 1,
            "request": [{"role": "user", "content": "all work ".repeat(10_000)}]})
    };
    let lines: String = std::iter::once(head).chain((1..=40).map(turn)).map(|line| format!("{line}\n")).collect();
    let folder = crate::process::Folder::new();
    let file = format!("@{}", folder.write("lines.jsonl", &lines));
    let ndjson = "content-type: application/x-ndjson";
    let (status, _, body) = ask("POST", "/v1/conversations", &[ndjson], Some(&file));
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()["added"].as_u64()), (200, Some(41)), "{body}");
    let (status, _, exported) = ask("GET", "/v1/conversations/big?format=jsonl", &[], None);
    assert_eq!((status, exported.lines().count(), exported.ends_with('\n')), (200, 42, true));
    assert!(exported.lines().nth(2).unwrap().contains("all work all work"));
    let broken = ask("POST", "/v1/conversations", &[ndjson], Some("garbage\n"));
    assert!(broken.0 == 400 && broken.2.contains("invalid_line"), "{}", broken.2);
    let (status, _, body) = ask("DELETE", "/v1/conversations/big", &[], None);
    assert!(status == 200 && body.contains("\"turns\":40"), "{status} {body}");
    assert_eq!(ask("DELETE", "/v1/conversations/big", &[], None).0, 404);
    tidegate.comes_to_rest();
}

#[test]
fn a_stream_is_come_back_to_over_http2() {
    if !curl_is_here() {
        return;
    }
    let teller = Teller::of(300, Duration::from_millis(5));
    let tidegate = teller.gateway("");
    let lines = [JSON, "tidegate-resume: memory"];
    let mut first = asked(&tidegate, "POST", "/v1/messages", &lines, Some(&message(true, 4_000, "x")));
    let (mut out, mut seen) = (first.stdout.take().unwrap(), Vec::new());
    while !String::from_utf8_lossy(&seen).contains("word20\"") {
        let mut some = [0; 4_096];
        let n = out.read(&mut some).unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&some[..n]);
    }
    // It leaves, and its connection with it.
    first.kill().unwrap();
    first.wait().unwrap();
    let seen = String::from_utf8(seen).unwrap();
    let (head, seen) = seen.split_once("\r\n\r\n").unwrap();
    let id = line(head, "tidegate-stream");
    let whole = |text: &str| text.rsplit_once("\n\n").map_or(String::new(), |(whole, _)| format!("{whole}\n\n"));
    let seen = whole(seen);
    let path = format!("/v1/streams/{id}?after={}", last_cursor(&seen));
    let (status, head, rest) = answered(asked(&tidegate, "GET", &path, &[], None));
    assert_eq!((status, line(&head, "tidegate-stream"), line(&head, "request-id")), (200, id, "req_theirs"));
    assert_eq!(text_of(&events(&seen)) + &text_of(&events(&rest)), told(300));
    // By the header that browsers send, and from the beginning; and what is wrong has its status.
    let by_line = format!("last-event-id: {}", last_cursor(&seen));
    let again = answered(asked(&tidegate, "GET", &format!("/v1/streams/{id}"), &[&by_line], None));
    assert_eq!(text_of(&events(&again.2)), text_of(&events(&rest)));
    let all = answered(asked(&tidegate, "GET", &format!("/v1/streams/{id}"), &[], None));
    assert_eq!(text_of(&events(&all.2)), told(300));
    let wrong = answered(asked(&tidegate, "GET", &format!("/v1/streams/{id}?after=x"), &[], None));
    assert!(wrong.0 == 400 && wrong.2.contains("invalid_cursor"), "{}", wrong.2);
    let ended = answered(asked(&tidegate, "DELETE", &format!("/v1/streams/{id}"), &[], None));
    assert!(ended.0 == 200 && ended.2.contains("stream_ended"), "{}", ended.2);
    assert_eq!((teller.upstream.seen().len(), teller.left()), (1, 0), "the upstream did not notice");
    assert_eq!(tidegate.streams().len(), 0);
}
