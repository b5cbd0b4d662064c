//! What these doors do not take, and in which words.

use super::{ALL, LINES, path, refused, write};
use crate::process::Tidegate;
use crate::upstream::{Upstream, plain};
use crate::wire::{bare, get, post_to};

#[test]
fn wrong_paths_methods_queries_and_headers_are_named() {
    let tidegate = Tidegate::simulated();
    assert_eq!(write(&tidegate, "c", "x").status, 200);
    for (path, code) in [
        (format!("{ALL}?limit=0"), "invalid_query"),
        (format!("{ALL}?limit=1001"), "invalid_query"),
        (format!("{ALL}?limt=5"), "invalid_query"),
        (format!("{ALL}?limit=5&limit=5"), "invalid_query"),
        (format!("{ALL}?page=x"), "invalid_query"),
        (format!("{ALL}?page=1-"), "invalid_query"),
        (format!("{ALL}?format=xml"), "invalid_query"),
        (format!("{ALL}?user_id=u"), "invalid_query"),
        (format!("{ALL}?format=jsonl&limit=5"), "invalid_query"),
        (format!("{ALL}?format=jsonl&user_id="), "invalid_query"),
        (format!("{ALL}?format=%zz"), "invalid_query"),
        (format!("{ALL}/c?x=1"), "invalid_query"),
        (format!("{ALL}/c/turns?from=0"), "invalid_query"),
        (format!("{ALL}/c/turns?from=-1"), "invalid_query"),
        (format!("{ALL}/c/turns?limit=99999999999999999999"), "invalid_query"),
        (format!("{ALL}/c/window?messages=1"), "invalid_query"),
        (format!("{ALL}/c/window?budget=999"), "invalid_query"),
        (format!("{ALL}/c/window?max_tokens=0"), "invalid_query"),
        (format!("{ALL}/c/window?model="), "invalid_query"),
        (format!("{ALL}/%zz"), "invalid_conversation_id"),
        (format!("{ALL}/%ff"), "invalid_conversation_id"),
        (format!("{ALL}/a%00b"), "invalid_conversation_id"),
        (format!("{ALL}/{}", "x".repeat(129)), "invalid_conversation_id"),
    ] {
        refused(&tidegate.ask(get(&path, &[])), 400, code);
    }
    for path in [format!("{ALL}/"), format!("{ALL}/a/b"), format!("{ALL}/c/turns/1"), format!("{ALL}/a/b/c")] {
        refused(&tidegate.ask(get(&path, &[])), 404, "unknown_path");
    }
    for path in [path("none"), format!("{}/turns", path("none")), format!("{}/window", path("none"))] {
        refused(&tidegate.ask(get(&path, &[])), 404, "conversation_not_found");
    }
    refused(&tidegate.ask(get(&format!("{}?format=jsonl", path("none")), &[])), 404, "conversation_not_found");
    for (method, path, allowed) in [
        ("PUT", ALL.to_owned(), "GET, POST, DELETE"),
        ("POST", path("c"), "GET, DELETE"),
        ("DELETE", format!("{}/turns", path("c")), "GET, POST"),
        ("POST", format!("{}/window", path("c")), "GET"),
        ("GET", format!("{}/fork", path("c")), "POST"),
        ("HEAD", path("c"), "GET, DELETE"),
    ] {
        let mut wire = tidegate.client();
        wire.send(bare(method, &path, &[]));
        let answer = wire.head().unwrap();
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}");
    }
    for (name, value) in [
        ("tidegate-conversation", "d"),
        ("tidegate-turn", "1"),
        ("tidegate-body", "new"),
        ("tidegate-window", "on"),
        ("tidegate-budget", "5000"),
        ("tidegate-typo", "x"),
    ] {
        refused(&tidegate.ask(get(&path("c"), &[(name, value)])), 400, "invalid_header");
    }
    tidegate.comes_to_rest();
}

#[test]
fn bodies_are_small_objects_without_anything_unknown() {
    let tidegate = Tidegate::simulated();
    let turns = format!("{}/turns", path("c"));
    for (body, code) in [
        ("", "invalid_body"),
        ("[]", "invalid_body"),
        ("{}", "invalid_body"),
        ("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"model\":\"m\"}", "invalid_body"),
        ("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]} x", "invalid_body"),
        ("{\"messages\":\"x\"}", "invalid_messages"),
        ("{\"messages\":[]}", "invalid_messages"),
        ("{\"messages\":[{\"role\":\"user\"}]}", "invalid_messages"),
        ("{\"messages\":[{\"role\":\"robot\",\"content\":\"x\"}]}", "invalid_messages"),
        ("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},5]}", "invalid_messages"),
    ] {
        let answer = tidegate.ask(post_to(&turns, &[], body));
        refused(&answer, 400, code);
    }
    refused(&tidegate.ask(get(&path("c"), &[])), 404, "conversation_not_found");
    tidegate.comes_to_rest();
}

#[test]
fn without_a_log_every_door_says_so() {
    let upstream = Upstream::saying(plain(200, "", "{}"));
    let off = Tidegate::before(upstream.at, "k", "");
    for (method, path) in [("GET", ALL.to_owned()), ("GET", path("c")), ("DELETE", format!("{ALL}?user_id=u"))] {
        refused(&off.ask(bare(method, &path, &[])), 400, "conversations_off");
    }
    let lines = format!("POST {ALL} HTTP/1.1\r\nhost: a\r\n{}: {}\r\ncontent-length: 2\r\n\r\n{{}}", LINES.0, LINES.1);
    refused(&off.ask(lines), 400, "conversations_off");
    assert!(upstream.seen().is_empty());
}
