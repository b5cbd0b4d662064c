//! Everything of an end user, for good.

use super::{ALL, KEY_A, KEY_B, delete, export, ids, path, read, refused, say, two_tenants, write};
use crate::process::{Folder, Tidegate, eventually};
use crate::wire::{QUICK, bare, get, message, post, post_to};
use serde_json::{Value, json};
use std::time::Duration;

fn erased(answer: &Value) -> Vec<(String, u64)> {
    assert_eq!(answer["type"], "conversations_erased", "{answer}");
    let data = answer["data"].as_array().unwrap().iter();
    let mut data: Vec<_> =
        data.map(|gone| (gone["id"].as_str().unwrap().to_owned(), gone["turns"].as_u64().unwrap())).collect();
    data.sort();
    data
}

#[test]
fn an_end_user_is_erased_with_every_conversation_and_fork_they_took_part_in() {
    let tidegate = Tidegate::simulated();
    say(&tidegate, "theirs", "one", Some("u 1+"));
    say(&tidegate, "shared", "one", Some("u-2"));
    say(&tidegate, "shared", "two", Some("u 1+"));
    say(&tidegate, "other", "one", Some("u-2"));
    write(&tidegate, "nobodys", "one");
    assert_eq!(tidegate.ask(post_to(&format!("{}/fork", path("shared")), &[], "{\"id\":\"fork\"}")).status, 200);
    let fork_before =
        tidegate.ask(post_to(&format!("{}/fork", path("shared")), &[], "{\"id\":\"fork-before\",\"turn\":1}"));
    assert_eq!(fork_before.status, 200);
    let asked = format!("{ALL}?user_id=u%201%2B");
    let lines = export(&tidegate, &format!("{asked}&format=jsonl"), &[]);
    let kept: Vec<Value> =
        lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
    let named: Vec<&str> =
        kept.iter().filter(|l| l["type"] == "conversation").map(|l| l["conversation"].as_str().unwrap()).collect();
    assert_eq!(named, ["fork", "shared", "theirs"]);
    let answer = delete(&tidegate, &asked);
    assert_eq!(answer.status, 200);
    let gone = [("fork", 2), ("shared", 2), ("theirs", 1)].map(|(id, turns)| (id.to_owned(), turns));
    assert_eq!((erased(&answer.json()), &answer.json()["more"]), (gone.to_vec(), &json!(false)));
    let mut left = ids(&read(&tidegate, ALL));
    left.sort();
    assert_eq!(left, ["fork-before", "nobodys", "other"]);
    assert_eq!(erased(&delete(&tidegate, &asked).json()), vec![]);
    assert_eq!(export(&tidegate, &format!("{asked}&format=jsonl"), &[]).iter().filter(|b| **b == b'\n').count(), 1);
    // What memory had of it is gone, too.
    assert_eq!(say(&tidegate, "shared", "anew", None).header("tidegate-turn"), Some("1"));
    assert_eq!(tidegate.metric("tidegate_conversations_deleted_total{by=\"erasure\"}"), 3.0);
    tidegate.comes_to_rest();
}

#[test]
fn turns_under_way_end_before_their_end_user_is_erased_and_a_first_one_is_not_forgotten() {
    let tidegate = Tidegate::simulated();
    say(&tidegate, "known", "one", Some("u-1"));
    let slow = ("simulate", "output_tokens=60-60, head_ms=0, first_ms=0, event_ms=20");
    let body = |text: &str| {
        let mut body: Value = serde_json::from_str(&message(true, 500, text)).unwrap();
        body["metadata"] = json!({"user_id": "u-1"});
        body.to_string()
    };
    let mut clients: Vec<_> = ["known", "first"]
        .map(|id| {
            let mut client = tidegate.client();
            client.send(post(&[("tidegate-conversation", id), slow], body("x")));
            client.until("content_block_delta").unwrap();
            client
        })
        .into_iter()
        .collect();
    std::thread::scope(|scope| {
        let erasing = scope.spawn(|| delete(&tidegate, &format!("{ALL}?user_id=u-1")).json());
        eventually("it waits", Duration::from_secs(5), || (tidegate.streams().len() == 3).then_some(()));
        for client in &mut clients {
            let streamed = String::from_utf8(client.until("0\r\n\r\n").unwrap()).unwrap();
            assert!(streamed.contains("message_stop") && !streamed.contains("event: error"), "{streamed}");
        }
        let gone = [("first".to_owned(), 1), ("known".to_owned(), 2)];
        assert_eq!(erased(&erasing.join().unwrap()), gone);
    });
    drop(clients);
    assert!(ids(&read(&tidegate, ALL)).is_empty());
    tidegate.comes_to_rest();
}

#[test]
fn two_who_erase_the_same_at_once_do_not_wait_for_each_other_for_ever() {
    let tidegate = Tidegate::simulated();
    for round in 0..5 {
        for nth in 0..20 {
            say(&tidegate, &format!("c{nth}"), "x", Some(if nth % 2 == 0 { "u-1" } else { "u-2" }));
            say(&tidegate, &format!("c{nth}"), "y", Some("u-3"));
        }
        std::thread::scope(|scope| {
            let all: Vec<_> = ["u-1", "u-2", "u-3", "u-3"]
                .map(|user| {
                    scope.spawn({
                        let tidegate = &tidegate;
                        move || delete(tidegate, &format!("{ALL}?user_id={user}")).json()
                    })
                })
                .into_iter()
                .map(|erasing| erased(&erasing.join().unwrap()).len())
                .collect();
            assert_eq!(all.iter().sum::<usize>(), 20, "round {round}: {all:?}");
        });
    }
    tidegate.comes_to_rest();
}

#[test]
fn nobody_erases_anothers_nor_everything_by_leaving_the_user_out() {
    let tidegate = two_tenants();
    for key in [KEY_A, KEY_B] {
        let mut body: Value = serde_json::from_str(&message(false, 50, "x")).unwrap();
        body["metadata"] = json!({"user_id": "u-1"});
        let answer = tidegate.ask(post(&[key, QUICK, ("tidegate-conversation", "c")], body.to_string()));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for query in ["", "?user_id=", "?user=u-1"] {
        refused(&tidegate.ask(bare("DELETE", &format!("{ALL}{query}"), &[KEY_A])), 400, "invalid_query");
    }
    let gone = tidegate.ask(bare("DELETE", &format!("{ALL}?user_id=u-1"), &[KEY_A])).json();
    assert_eq!(erased(&gone), [("c".to_owned(), 1)]);
    let left = tidegate.ask(crate::wire::get(ALL, &[KEY_B])).json();
    assert_eq!(ids(&left), ["c"]);
}

/// A resumable stream of an end user, in a conversation or not, read to its end: its id.
fn streamed(tidegate: &Tidegate, class: &str, user: &str, conversation: Option<&str>) -> String {
    let mut body: Value = serde_json::from_str(&message(true, 100, "x")).unwrap();
    body["metadata"] = json!({"user_id": user});
    let within = conversation.map(|id| ("tidegate-conversation", id));
    let lines: Vec<_> = [QUICK, ("tidegate-resume", class)].into_iter().chain(within).collect();
    let answer = tidegate.ask(post(&lines, body.to_string()));
    assert_eq!(answer.events().last().unwrap().0, "message_stop", "{}", answer.text());
    answer.header("tidegate-stream").unwrap().to_owned()
}

fn is_there(tidegate: &Tidegate, stream: &str) -> bool {
    let answer = tidegate.ask(get(&format!("/v1/streams/{stream}"), &[]));
    let gone = answer.status == 404 && answer.code() == "unknown_stream";
    assert!(gone || answer.text().contains("message_stop"), "{}", answer.text());
    !gone
}

#[test]
fn streams_that_can_be_come_back_to_go_with_their_end_user_and_their_conversation() {
    let folder = Folder::new();
    let file = folder.path("c.db");
    let start = || Tidegate::simulated_with("", &["--conversations", &file]);
    // What a process has in memory, and what the next one finds in the log.
    for restarts in [false, true] {
        let mut tidegate = start();
        let classes: &[&str] = if restarts { &["durable"] } else { &["memory", "durable"] };
        let of = |class: &str, user: &str, conversation| streamed(&tidegate, class, user, conversation);
        let theirs: Vec<_> = classes.iter().flat_map(|c| [of(c, "u-1", None), of(c, "u-1", Some("theirs"))]).collect();
        let others: Vec<_> = classes.iter().flat_map(|c| [of(c, "u-2", None), of(c, "u-2", Some("others"))]).collect();
        assert!(theirs.iter().chain(&others).all(|id| is_there(&tidegate, id)));
        if restarts {
            tidegate.signal("KILL");
            tidegate.exit(Duration::from_secs(10));
            tidegate = start();
        }
        let gone = delete(&tidegate, &format!("{ALL}?user_id=u-1"));
        assert_eq!(erased(&gone.json()).len(), 1);
        assert!(theirs.iter().all(|id| !is_there(&tidegate, id)), "restarts: {restarts}");
        assert!(others.iter().all(|id| is_there(&tidegate, id)), "restarts: {restarts}");
        assert_eq!(delete(&tidegate, &path("others")).status, 200);
        for (n, id) in others.iter().enumerate() {
            assert_eq!(is_there(&tidegate, id), n % 2 == 0, "restarts: {restarts}, {n}");
        }
        // Nor does the next process find them.
        tidegate.signal("KILL");
        tidegate.exit(Duration::from_secs(10));
        let tidegate = start();
        assert!(theirs.iter().all(|id| !is_there(&tidegate, id)));
        assert!(!is_there(&tidegate, others.last().unwrap()));
        tidegate.comes_to_rest();
    }
}

#[test]
fn an_end_users_stream_that_still_runs_is_called_off_and_kept_by_nobody() {
    let folder = Folder::new();
    let file = folder.path("c.db");
    let mut tidegate = Tidegate::simulated_with("", &["--conversations", &file]);
    let slow = ("simulate", "output_tokens=2000-2000, head_ms=0, first_ms=0, event_ms=20");
    let mut body: Value = serde_json::from_str(&message(true, 4_000, "x")).unwrap();
    body["metadata"] = json!({"user_id": "u-1"});
    let mut client = tidegate.client();
    client.send(post(&[slow, ("tidegate-resume", "durable")], body.to_string()));
    let id = client.head().unwrap().header("tidegate-stream").unwrap().to_owned();
    client.until("content_block_delta").unwrap();
    eventually("a checkpoint of it is kept", Duration::from_secs(5), || {
        (tidegate.metric("tidegate_stream_checkpoints_total{outcome=\"kept\"}") >= 2.0).then_some(())
    });
    assert_eq!(delete(&tidegate, &format!("{ALL}?user_id=u-1")).status, 200);
    let told = String::from_utf8(client.until("0\r\n\r\n").unwrap()).unwrap();
    assert!(told.contains("stream_cancelled") && !told.contains("message_stop"), "{told}");
    assert!(!is_there(&tidegate, &id));
    drop(client);
    tidegate.comes_to_rest();
    tidegate.signal("KILL");
    tidegate.exit(Duration::from_secs(10));
    let log = rusqlite::Connection::open(&file).unwrap();
    let kept: u32 = log.query_row("SELECT count(*) FROM streams", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 0, "nor was anything kept of it afterwards");
}
