//! Files and what else lives at one organisation: what names one, where it is looked for, and what
//! is told if it cannot be.

use crate::process::Tidegate;
use crate::quota::{before, good, refusing};
use crate::upstream::{Upstream, plain};
use crate::wire::{Answer, post};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request whose prompt is this file.
fn with_file(tidegate: &Tidegate, id: &str) -> Answer {
    let body = format!(
        r#"{{"model":"claude-haiku-5-5","max_tokens":50,"messages":[{{"role":"user","content":[{{"type":"document","source":{{"type":"file","file_id":"{id}"}}}}]}}]}}"#
    );
    tidegate.ask(post(&[], body))
}

fn missing(message: &str) -> Upstream {
    refusing(404, "not_found_error", message, "")
}

#[test]
fn a_tools_arguments_are_no_references() {
    let (a, b) = (missing("File not found"), missing("File not found"));
    let tidegate = before(&[("a", &a), ("b", &b)], "");
    let call = r#"{"role":"assistant","content":[{"type":"tool_use","id":"toolu_1","name":"open","input":{"file_id":"file_1","source":{"type":"file","file_id":"file_2"}}}]}"#;
    let body = format!(r#"{{"model":"claude-haiku-5-5","max_tokens":50,"messages":[{call}]}}"#);
    assert_eq!(tidegate.ask(post(&[], body)).status, 404);
    assert_eq!(a.seen().len() + b.seen().len(), 1, "there was nothing to look for");
    assert_eq!(with_file(&tidegate, "file_1").status, 404);
    assert_eq!(a.seen().len() + b.seen().len(), 3, "now there was");
}

#[test]
fn a_model_that_does_not_exist_is_looked_for_once() {
    let (a, b) = (missing("model: claude-haiku-5-5"), missing("model: claude-haiku-5-5"));
    let tidegate = before(&[("a", &a), ("b", &b)], "");
    assert_eq!(with_file(&tidegate, "file_1").status, 404);
    assert_eq!(a.seen().len() + b.seen().len(), 1);
}

/// An upstream that has its files as long as `has` says so.
fn keeper(has: &Arc<AtomicBool>) -> Upstream {
    let has = Arc::clone(has);
    let envelope = r#"{"type":"error","error":{"type":"not_found_error","message":"File not found: file_1"},"request_id":"req_1"}"#;
    let missing = plain(404, "content-type: application/json\r\nrequest-id: req_1\r\n", envelope);
    Upstream::playing(move |_, _, socket| {
        let said = if has.load(Ordering::Relaxed) { good() } else { missing.clone() };
        drop(socket.write_all(said.as_bytes()));
    })
}

#[test]
fn an_owner_that_has_it_no_more_is_not_asked_for_ever() {
    let (first, then) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (a, b) = (keeper(&first), keeper(&then));
    let tidegate = before(&[("a", &a), ("b", &b)], "");
    assert_eq!(with_file(&tidegate, "file_1").status, 200);
    let asked = || (a.seen().len(), b.seen().len());
    first.store(false, Ordering::Relaxed);
    then.store(true, Ordering::Relaxed);
    assert_eq!(with_file(&tidegate, "file_1").status, 200, "the old owner's 404 is not the last word");
    let (at_a, at_b) = asked();
    (0..3).for_each(|_| assert_eq!(with_file(&tidegate, "file_1").status, 200));
    assert_eq!(asked(), (at_a, at_b + 3), "and the new one is known");
    then.store(false, Ordering::Relaxed);
    assert_eq!(with_file(&tidegate, "file_1").status, 404, "nobody has it");
}

#[test]
fn a_place_that_cannot_be_asked_is_passed_by_and_not_taken_for_one_without_it() {
    let spent = "You have reached your specified API usage limits.";
    for (status, kind, said, code) in [
        (401, "authentication_error", "invalid x-api-key", "no_upstream_key"),
        (400, "invalid_request_error", spent, "spend_cap"),
    ] {
        let (shut, owner) = (refusing(status, kind, said, ""), Upstream::saying(good()));
        let tidegate = before(&[("shut", &shut), ("owner", &owner)], "");
        for n in 0..12 {
            let answer = with_file(&tidegate, &format!("file_{n}"));
            assert_eq!(answer.status, 200, "{said}: {}", answer.text());
        }
        assert_eq!((shut.seen().len(), owner.seen().len()), (1, 12), "{said}");

        let (shut, other) = (refusing(status, kind, said, ""), missing("File not found"));
        let tidegate = before(&[("shut", &shut), ("other", &other)], "");
        let told: Vec<_> = (0..8).map(|n| with_file(&tidegate, &format!("file_{n}"))).collect();
        assert_eq!(other.seen().len(), 8, "it is asked for each of them");
        let codes: Vec<_> = told.iter().map(Answer::code).collect();
        assert!(codes.iter().all(|c| c == code), "it may live where nobody could ask: {codes:?}");
        tidegate.comes_to_rest();
    }
}
