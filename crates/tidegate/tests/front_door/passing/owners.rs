//! Which organisation a path leads to: its owner's, where that is known; the first, where it is not.

use super::upload;
use crate::process::Tidegate;
use crate::quota::{before, refusing};
use crate::upstream::{Upstream, plain};
use crate::wire::{bare, get, post_to};
use std::io::Write;

/// An upstream that has one file, and makes it when it is asked to.
fn keeper(id: &'static str) -> Upstream {
    Upstream::playing(move |_, seen, socket| {
        let line = seen.head.lines().next().unwrap();
        let json = "content-type: application/json\r\n";
        let file = format!("{{\"id\":\"{id}\",\"type\":\"file\"}}");
        let said = if line.contains(id) || line.starts_with("POST") {
            plain(200, json, &file)
        } else if line.starts_with("GET /v1/files ") {
            plain(200, json, &format!("{{\"data\":[{file}],\"next_page\":null}}"))
        } else {
            plain(
                404,
                json,
                r#"{"type":"error","error":{"type":"not_found_error","message":"no such file"},"request_id":"r"}"#,
            )
        };
        drop(socket.write_all(said.as_bytes()));
    })
}

fn lines(upstream: &Upstream) -> Vec<String> {
    upstream.seen().iter().map(|s| s.head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned()).collect()
}

fn two() -> (Upstream, Upstream, Tidegate) {
    let (a, b) = (keeper("file_a"), keeper("file_b"));
    let tidegate = before(&[("a", &a), ("b", &b)], "");
    (a, b, tidegate)
}

#[test]
fn what_is_new_and_what_is_listed_is_the_first_organisations() {
    let (a, b, tidegate) = two();
    for _ in 0..4 {
        assert_eq!(tidegate.ask(upload("x.txt", b"x")).status, 200);
        assert_eq!(tidegate.ask(get("/v1/files", &[])).status, 200);
    }
    assert_eq!((a.seen().len(), b.seen().len()), (8, 0));
    // Unless the client names another.
    let named = [("tidegate-organisation", "b")];
    assert!(tidegate.ask(get("/v1/files", &named)).text().contains("file_b"));
    assert_eq!(b.seen().len(), 1);
}

#[test]
fn what_was_seen_once_is_asked_for_where_it_lives() {
    let (a, b, tidegate) = two();
    // Learned from a list; nobody else is asked.
    assert_eq!(tidegate.ask(get("/v1/files", &[("tidegate-organisation", "b")])).status, 200);
    assert_eq!(tidegate.ask(get("/v1/files/file_b/content", &[])).status, 200);
    assert_eq!(tidegate.ask(bare("DELETE", "/v1/files/file_b", &[])).status, 200);
    assert_eq!(
        (lines(&a).len(), lines(&b)),
        (
            0,
            vec![
                "GET /v1/files".to_owned(),
                "GET /v1/files/file_b/content".to_owned(),
                "DELETE /v1/files/file_b".to_owned()
            ]
        )
    );
    // And so is a message that names it.
    let body = r#"{"model":"claude-haiku-5-5","max_tokens":50,"messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":"file_b"}}]}]}"#;
    tidegate.ask(post_to("/v1/messages", &[("tidegate-deadline-ms", "300")], body));
    assert_eq!((a.seen().len(), lines(&b)[3].as_str()), (0, "POST /v1/messages"));
}

#[test]
fn an_unknown_id_is_looked_for_from_the_first_on_and_then_known() {
    let (a, b, tidegate) = two();
    for _ in 0..3 {
        let answer = tidegate.ask(get("/v1/files/file_b", &[]));
        assert!(answer.status == 200 && answer.text().contains("file_b"), "{}", answer.text());
    }
    assert_eq!((a.seen().len(), b.seen().len()), (1, 3));
    let nowhere = tidegate.ask(get("/v1/files/file_c", &[]));
    assert!(nowhere.status == 404 && nowhere.text().contains("no such file"), "{}", nowhere.text());
    assert_eq!((a.seen().len(), b.seen().len()), (2, 4), "each was asked once");
    // One that is asked for at an organisation is looked for there and nowhere else.
    assert_eq!(tidegate.ask(get("/v1/files/file_b", &[("tidegate-organisation", "a")])).status, 404);
    assert_eq!((a.seen().len(), b.seen().len()), (3, 4));
    tidegate.comes_to_rest();
}

#[test]
fn a_place_that_cannot_be_asked_is_not_one_without_it() {
    let shut = refusing(401, "authentication_error", "invalid x-api-key", "");
    let b = keeper("file_b");
    let tidegate = before(&[("shut", &shut), ("b", &b)], "");
    assert_eq!(tidegate.ask(get("/v1/files/file_b", &[])).status, 200, "it is passed by");
    assert_eq!(
        tidegate.ask(get("/v1/files/file_c", &[])).code(),
        "no_upstream_key",
        "it may live where nobody could ask"
    );
}
