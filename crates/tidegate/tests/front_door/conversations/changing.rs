//! A turn without a model, a fork, a deletion; and what is under way meanwhile.

use super::{ALL, delete, path, read, refused, say, write};
use crate::process::{Tidegate, eventually};
use crate::wire::{get, message, post, post_to};
use serde_json::{Value, json};
use std::time::Duration;

/// A turn that takes its time.
const SLOW: (&str, &str) = ("simulate", "output_tokens=60-60, head_ms=0, first_ms=0, event_ms=20");

#[test]
fn a_turn_is_written_without_a_model_and_the_next_one_goes_on_from_it() {
    let tidegate = Tidegate::simulated();
    let text =
        " [ {\"role\":\"user\",\"content\":\"My order is 7741.\"},\n {\"role\":\"assistant\",\"content\":\"Noted.\"} ]";
    let turns = format!("{}/turns", path("c"));
    let body = format!("{{\"messages\":{text}}}");
    let answer = tidegate.ask(post_to(&turns, &[("tidegate-turn", "1")], &body));
    assert_eq!((answer.status, answer.header("tidegate-turn")), (200, Some("1")), "{}", answer.text());
    assert_eq!(answer.header("tidegate-conversation"), Some("c"));
    assert!(answer.text().contains(text.trim()), "the bytes as they came: {}", answer.text());
    let turn = answer.json();
    assert_eq!((&turn["status"], &turn["answer"], &turn["model"]), (&json!("appended"), &Value::Null, &Value::Null));
    assert_eq!(read(&tidegate, &turns)["data"][0], turn);
    let next = say(&tidegate, "c", "And where is it?", None);
    assert_eq!(next.header("tidegate-turn"), Some("2"));
    let window = read(&tidegate, &format!("{}/window?messages=true", path("c")));
    assert_eq!(window["messages"].as_array().unwrap().len(), 4);
    assert_eq!(tidegate.metric("tidegate_turns_total{end=\"appended\"}"), 1.0);
    tidegate.comes_to_rest();
}

#[test]
fn a_written_turn_is_never_doubled() {
    let tidegate = Tidegate::simulated();
    let turns = format!("{}/turns", path("c"));
    let body = json!({"messages": [{"role": "user", "content": "x"}]}).to_string();
    let first = tidegate.ask(post_to(&turns, &[], &body));
    for lines in [[("x-stainless-retry-count", "1")], [("tidegate-turn", "1")]] {
        let again = tidegate.ask(post_to(&turns, &lines, &body));
        assert_eq!((again.status, again.header("tidegate-replayed")), (200, Some("true")), "{}", again.text());
        assert_eq!(again.json(), first.json());
    }
    let conflict = tidegate.ask(post_to(&turns, &[("tidegate-turn", "3")], &body));
    refused(&conflict, 409, "turn_conflict");
    assert_eq!(conflict.header("x-should-retry"), Some("false"));
    // Said twice, without a word of a repeat, it is said twice.
    assert_eq!(tidegate.ask(post_to(&turns, &[], &body)).json()["number"], json!(2));
}

#[test]
fn a_fork_begins_alike_and_goes_its_own_way() {
    let tidegate = Tidegate::simulated();
    (0..3).for_each(|nth| drop(say(&tidegate, "c", &format!("turn {nth}"), None)));
    let fork = |body: &str| tidegate.ask(post_to(&format!("{}/fork", path("c")), &[], body));
    let made = fork("{\"id\":\"d/1\",\"turn\":2}");
    assert_eq!(made.status, 200, "{}", made.text());
    assert_eq!((&made.json()["id"], &made.json()["turns"]), (&json!("d/1"), &json!(2)));
    assert_eq!(made.json()["forked_from"], json!({"id": "c", "turn": 2}));
    assert_eq!(fork("{\"id\":\"all\"}").json()["turns"], json!(3));
    assert_eq!(say(&tidegate, "d/1", "other", None).header("tidegate-turn"), Some("3"));
    assert_eq!(say(&tidegate, "c", "on", None).header("tidegate-turn"), Some("4"));
    refused(&fork("{\"id\":\"d/1\"}"), 409, "conversation_exists");
    refused(&fork("{\"id\":\"c\"}"), 409, "conversation_exists");
    refused(&fork("{\"id\":\"e\",\"turn\":5}"), 400, "invalid_body");
    refused(&fork("{\"id\":\"e\",\"turn\":0}"), 400, "invalid_body");
    refused(&fork("{\"id\":\"\"}"), 400, "invalid_conversation_id");
    refused(&fork("{\"id\":\"e\",\"extra\":1}"), 400, "invalid_body");
    refused(&fork("{}"), 400, "invalid_body");
    refused(&fork("no"), 400, "invalid_body");
    refused(
        &tidegate.ask(post_to(&format!("{}/fork", path("none")), &[], "{\"id\":\"e\"}")),
        404,
        "conversation_not_found",
    );
}

#[test]
fn a_fork_is_found_by_those_who_looked_for_it_before_it_was_made() {
    let tidegate = Tidegate::simulated();
    say(&tidegate, "c", "one", None);
    // A turn that came to nothing leaves an empty conversation in memory, and none in the log.
    let body = json!({"model": "m", "max_tokens": 5, "messages": []}).to_string();
    refused(&tidegate.ask(post(&[("tidegate-conversation", "d")], body)), 400, "invalid_turn");
    assert_eq!(tidegate.ask(post_to(&format!("{}/fork", path("c")), &[], "{\"id\":\"d\"}")).status, 200);
    assert_eq!(say(&tidegate, "d", "two", None).header("tidegate-turn"), Some("2"));
}

#[test]
fn what_is_deleted_is_gone_and_its_id_free() {
    let tidegate = Tidegate::simulated();
    (0..2).for_each(|nth| drop(say(&tidegate, "c/1", &format!("turn {nth}"), None)));
    let there = read(&tidegate, &path("c/1"));
    let gone = delete(&tidegate, &path("c/1"));
    assert_eq!(gone.status, 200);
    let told = json!({"id": "c/1", "type": "conversation_deleted", "turns": 2, "bytes": there["bytes"]});
    assert_eq!(gone.json(), told);
    for path in [path("c/1"), format!("{}/turns", path("c/1")), format!("{}/window", path("c/1"))] {
        refused(&tidegate.ask(get(&path, &[])), 404, "conversation_not_found");
    }
    refused(&delete(&tidegate, &path("c/1")), 404, "conversation_not_found");
    assert_eq!(tidegate.metric("tidegate_conversations_deleted_total{by=\"door\"}"), 1.0);
    assert_eq!(say(&tidegate, "c/1", "anew", None).header("tidegate-turn"), Some("1"));
    let window = read(&tidegate, &format!("{}/window?messages=true", path("c/1")));
    assert_eq!(window["messages"].as_array().unwrap().len(), 2);
    assert!(!tidegate.output().contains("c/1"), "ids are not for the log");
    tidegate.comes_to_rest();
}

#[test]
fn a_deletion_waits_for_the_turn_under_way_which_does_not_bring_it_back() {
    let tidegate = Tidegate::simulated();
    say(&tidegate, "c", "one", None);
    let mut client = tidegate.client();
    client.send(post(&[("tidegate-conversation", "c"), SLOW], message(true, 500, "two")));
    client.until("content_block_delta").unwrap();
    std::thread::scope(|scope| {
        let deleting = scope.spawn(|| delete(&tidegate, &path("c")));
        // One that comes after it finds nothing.
        eventually("the deletion waits", Duration::from_secs(5), || {
            tidegate.streams().iter().any(|row| row["door"] == "conversation").then_some(())
        });
        let after = scope.spawn(|| say(&tidegate, "c", "three", None));
        let streamed = String::from_utf8(client.until("0\r\n\r\n").unwrap()).unwrap();
        assert!(streamed.contains("message_stop") && !streamed.contains("event: error"), "{streamed}");
        assert_eq!(deleting.join().unwrap().json()["turns"], json!(2), "with the turn that was under way");
        assert_eq!(after.join().unwrap().header("tidegate-turn"), Some("1"));
    });
    drop(client);
    assert_eq!(read(&tidegate, &path("c"))["turns"], json!(1));
    tidegate.comes_to_rest();
}

#[test]
fn a_client_that_does_not_wait_for_a_deletion_leaves_the_conversation_usable() {
    let tidegate = Tidegate::simulated();
    say(&tidegate, "c", "one", None);
    let mut client = tidegate.client();
    client.send(post(&[("tidegate-conversation", "c"), SLOW], message(true, 500, "two")));
    client.until("content_block_delta").unwrap();
    let mut impatient = tidegate.client();
    impatient.send(crate::wire::bare("DELETE", &path("c"), &[]));
    eventually("it waits", Duration::from_secs(5), || (tidegate.streams().len() == 2).then_some(()));
    drop(impatient);
    client.until("0\r\n\r\n").unwrap();
    drop(client);
    assert_eq!(say(&tidegate, "c", "three", None).header("tidegate-turn"), Some("3"));
    assert_eq!(read(&tidegate, &format!("{ALL}?limit=1"))["data"][0]["turns"], json!(3));
    assert_eq!(write(&tidegate, "c", "four").json()["number"], json!(4));
    tidegate.comes_to_rest();
}
