//! Listing, one conversation, its turns, its window.

use super::{ALL, HEADER, KEY_A, KEY_B, ids, import, path, read, refused, say, two_tenants, write};
use crate::process::{Folder, Tidegate, eventually};
use crate::wire::{get, message, post, post_to};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn conversations_and_their_turns_are_read_as_they_are_documented() {
    let tidegate = Tidegate::simulated();
    for id in ["support/17", "a b+c%", "会话"] {
        say(&tidegate, id, "My order is 7741.", Some("u-1"));
        say(&tidegate, id, "Where is it?", None);
        let one = read(&tidegate, &path(id));
        let keys: Vec<&str> = one.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["id", "type", "created_at", "updated_at", "turns", "bytes", "forked_from"]);
        assert_eq!((&one["id"], &one["type"], &one["turns"]), (&json!(id), &json!("conversation"), &json!(2)));
        assert!(one["bytes"].as_u64().unwrap() > 100 && one["forked_from"].is_null());
        assert!(one["created_at"].as_str().unwrap() <= one["updated_at"].as_str().unwrap());
        let turns = read(&tidegate, &format!("{}/turns", path(id)));
        assert_eq!((&turns["has_more"], &turns["next_from"]), (&json!(false), &Value::Null));
        let first = &turns["data"][0];
        assert_eq!(
            (&first["type"], &first["number"], &first["status"]),
            (&json!("turn"), &json!(1), &json!("complete"))
        );
        assert_eq!((&first["user_id"], &first["model"]), (&json!("u-1"), &json!("claude-sonnet-4-5")));
        assert_eq!(first["messages"], json!([{"role": "user", "content": "My order is 7741."}]));
        assert_eq!(
            (&first["answer"]["role"], &first["stop_reason"]),
            (&json!("assistant"), &first["answer"]["stop_reason"])
        );
        assert_eq!(first["usage"]["input_tokens"], first["answer"]["usage"]["input_tokens"]);
        assert!(first["request_id"].as_str().unwrap().starts_with("req_"));
        assert_eq!(turns["data"][1]["user_id"], Value::Null);
    }
    tidegate.comes_to_rest();
}

#[test]
fn pages_begin_where_the_one_before_ended() {
    let tidegate = Tidegate::simulated();
    for nth in 0..5 {
        assert_eq!(write(&tidegate, &format!("c{nth}"), "x").status, 200);
    }
    (1..=5).for_each(|nth| assert_eq!(write(&tidegate, "c2", &format!("turn {nth}")).status, 200));
    let (mut seen, mut page) = (Vec::new(), String::new());
    for pages in 1.. {
        let one = read(&tidegate, &format!("{ALL}?limit=2{page}"));
        seen.extend(ids(&one));
        let Some(next) = one["next_page"].as_str() else {
            assert_eq!((pages, &one["has_more"]), (3, &json!(false)));
            break;
        };
        page = format!("&page={next}");
    }
    assert_eq!(seen[0], "c2", "changed last");
    seen.sort();
    assert_eq!(seen, ["c0", "c1", "c2", "c3", "c4"]);
    let turns = read(&tidegate, &format!("{}/turns?from=2&limit=3", path("c2")));
    let numbers: Vec<u64> = turns["data"].as_array().unwrap().iter().map(|t| t["number"].as_u64().unwrap()).collect();
    assert_eq!((numbers, &turns["has_more"], &turns["next_from"]), (vec![2, 3, 4], &json!(true), &json!(5)));
    let past = read(&tidegate, &format!("{}/turns?from=7", path("c2")));
    assert_eq!((past["data"].as_array().unwrap().len(), &past["has_more"]), (0, &json!(false)));
}

#[test]
fn a_page_of_turns_ends_early_where_they_are_large() {
    let tidegate = Tidegate::simulated();
    let large = "x".repeat(3 << 20);
    (0..3).for_each(|_| assert_eq!(write(&tidegate, "c", &large).status, 200));
    let turns = read(&tidegate, &format!("{}/turns", path("c")));
    assert_eq!((turns["data"].as_array().unwrap().len(), &turns["next_from"]), (1, &json!(2)));
    tidegate.comes_to_rest();
}

#[test]
fn pages_hold_still_while_turns_come() {
    let tidegate = Tidegate::simulated();
    (0..40).for_each(|nth| assert_eq!(write(&tidegate, &format!("c{nth:02}"), "x").status, 200));
    let (done, writes) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for nth in (0..5).cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                assert_eq!(write(&tidegate, &format!("c{nth:02}"), "more").status, 200);
                writes.store(true, Ordering::Relaxed);
            }
        });
        for _ in 0..10 {
            let mut seen: BTreeMap<String, usize> = BTreeMap::new();
            let mut page = String::new();
            loop {
                let one = read(&tidegate, &format!("{ALL}?limit=3{page}"));
                ids(&one).into_iter().for_each(|id| *seen.entry(id).or_default() += 1);
                let Some(next) = one["next_page"].as_str() else { break };
                page = format!("&page={next}");
            }
            // What does not change is there, once; what changes may be ahead or seen again.
            for nth in 5..40 {
                assert_eq!(seen.get(&format!("c{nth:02}")), Some(&1), "{seen:?}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(writes.into_inner());
}

#[test]
fn tenants_see_only_their_own() {
    let tidegate = two_tenants();
    let body = json!({"messages": [{"role": "user", "content": "a's secret"}]}).to_string();
    assert_eq!(tidegate.ask(post_to(&format!("{ALL}/same/turns"), &[KEY_A], &body)).status, 200);
    assert_eq!(tidegate.ask(post_to(&format!("{ALL}/hidden/turns"), &[KEY_A], &body)).status, 200);
    for (path, code) in [
        (format!("{ALL}/hidden"), "conversation_not_found"),
        (format!("{ALL}/hidden?format=jsonl"), "conversation_not_found"),
        (format!("{ALL}/hidden/turns"), "conversation_not_found"),
        (format!("{ALL}/hidden/window"), "conversation_not_found"),
    ] {
        refused(&tidegate.ask(get(&path, &[KEY_B])), 404, code);
    }
    let fork = tidegate.ask(post_to(&format!("{ALL}/hidden/fork"), &[KEY_B], "{\"id\":\"mine\"}"));
    refused(&fork, 404, "conversation_not_found");
    refused(
        &tidegate.ask(crate::wire::bare("DELETE", &format!("{ALL}/hidden"), &[KEY_B])),
        404,
        "conversation_not_found",
    );
    let list = |key| ids(&tidegate.ask(get(ALL, &[key])).json());
    assert_eq!((list(KEY_A), list(KEY_B)), (vec!["hidden".to_owned(), "same".to_owned()], vec![]));
    let lines = super::export(&tidegate, &format!("{ALL}?format=jsonl"), &[KEY_B]);
    assert_eq!(lines, b"{\"tidegate\":\"conversations\",\"version\":1}\n");
    // The same id is another conversation.
    let theirs = json!({"messages": [{"role": "user", "content": "b's"}]}).to_string();
    assert_eq!(tidegate.ask(post_to(&format!("{ALL}/same/turns"), &[KEY_B], theirs)).json()["number"], json!(1));
    let turns = tidegate.ask(get(&format!("{ALL}/same/turns"), &[KEY_B])).text();
    assert!(turns.contains("b's") && !turns.contains("secret"), "{turns}");
    refused(&tidegate.ask(get(ALL, &[])), 401, "missing_key");
}

#[test]
fn the_window_says_what_would_be_sent_and_why() {
    let tidegate = Tidegate::simulated();
    say(&tidegate, "c", "My order is 7741.", None);
    let long = "All work and no play makes a dull day. ".repeat(100);
    (0..8).for_each(|nth| drop(say(&tidegate, "c", &format!("{nth}: {long}"), None)));
    let whole = read(&tidegate, &format!("{}/window?messages=true", path("c")));
    assert_eq!((&whole["type"], whole["messages"].as_array().unwrap().len()), (&json!("window"), 18));
    let budget = &whole["budget"];
    assert_eq!((&budget["window"], &budget["max_tokens"]), (&json!(200_000), &json!(4096)));
    let number = |of: &Value| of.as_u64().unwrap();
    assert_eq!(number(&budget["room"]), 200_000 - 4096 - number(&budget["margin"]) - number(&budget["fixed"]));
    assert!(number(&budget["low"]) < number(&budget["soft"]) && number(&budget["soft"]) < number(&budget["high"]));
    let parts = |window: &Value| -> u64 {
        let lines = window["parts"].as_array().unwrap().iter();
        lines.filter(|part| part["fate"]["out"].is_null()).map(|part| part["tokens"].as_u64().unwrap()).sum()
    };
    // Each line is rounded for itself.
    assert!(parts(&whole).abs_diff(number(&whole["tokens"])) < 20, "{whole}");
    // The API's own count is near.
    let usage = read(&tidegate, &format!("{}/turns?from=9", path("c")))["data"][0]["usage"].clone();
    let kinds = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];
    let counted: u64 = kinds.iter().map(|kind| number(&usage[*kind])).sum();
    let usual = number(&whole["tokens"]) as f64 / counted as f64;
    assert!((0.8..1.25).contains(&usual), "{usual}: {counted} {}", whole["tokens"]);
    // A small budget cuts; what is out has a line, and the stored window is not touched.
    let small = read(&tidegate, &format!("{}/window?budget=6000&max_tokens=500&model=claude-sonnet-4-5", path("c")));
    assert!(small.get("messages").is_none() && number(&small["tokens"]) < 5_500, "{small}");
    let out = small["parts"].as_array().unwrap().iter().find(|part| part["fate"]["out"] == "oldest");
    assert_eq!(out.unwrap()["what"]["messages"]["from"], json!(0), "{small}");
    assert_eq!(read(&tidegate, &format!("{}/window?messages=true", path("c"))), whole);
    let tiny = tidegate.ask(get(&format!("{}/window?budget=1000&max_tokens=10", path("c")), &[]));
    refused(&tiny, 400, "window_too_small");
    tidegate.comes_to_rest();
}

#[test]
fn the_window_is_told_at_once_while_a_turn_is_under_way_and_while_tools_are_run() {
    let tidegate = Tidegate::simulated();
    say(&tidegate, "c", "before", None);
    let slow = ("simulate", "output_tokens=300-300, head_ms=0, first_ms=0, event_ms=50");
    let mut client = tidegate.client();
    client.send(post(&[("tidegate-conversation", "c"), slow], message(true, 500, "under way")));
    client.until("content_block_delta").unwrap();
    let began = Instant::now();
    let window = read(&tidegate, &format!("{}/window?messages=true", path("c")));
    assert!(began.elapsed() < Duration::from_secs(2), "it does not wait");
    assert_eq!(window["messages"].as_array().unwrap().len(), 2);
    drop(client);
    eventually("the stream is gone", Duration::from_secs(10), || tidegate.streams().is_empty().then_some(()));
    let calls = json!({"messages": [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {}}]}]});
    assert_eq!(tidegate.ask(post_to(&format!("{}/turns", path("tools")), &[], calls.to_string())).status, 200);
    let window = read(&tidegate, &format!("{}/window?messages=true", path("tools")));
    assert_eq!(window["messages"].as_array().unwrap().len(), 2);
}

#[test]
fn while_a_long_history_is_read_its_thread_goes_on_with_others() {
    let folder = Folder::new();
    let config = format!("[listen]\nthreads = 1\n[conversations]\nfile = \"{}\"\n", folder.path("c.db"));
    let tidegate = Tidegate::simulated_with(&config, &[]);
    let head = json!({"type": "conversation", "conversation": "c", "created_ms": 1, "updated_ms": 1, "turns": 400});
    let turn = |number: u32| {
        let text: String = (0..4_000).map(|n| format!("order {} ", number * 10_000 + n)).collect();
        json!({"type": "turn", "conversation": "c", "number": number, "status": "complete", "created_ms": 1,
            "request": [{"role": "user", "content": text}],
            "answer": {"role": "assistant", "content": [{"type": "text", "text": "noted"}]}})
    };
    let lines: String = std::iter::once(head).chain((1..=400).map(turn)).map(|line| format!("{line}\n")).collect();
    assert_eq!(import(&tidegate, &[], &[HEADER, lines.as_bytes()].concat()).json()["added"], json!(401));
    drop(tidegate);
    let tidegate = Tidegate::simulated_with(&config, &[]);
    let (mut worst, mut others) = (Duration::ZERO, tidegate.client());
    let took = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let began = Instant::now();
            say(&tidegate, "c", "which order was it?", None);
            began.elapsed()
        });
        while !reading.is_finished() {
            let asked = Instant::now();
            others.send(get("/", &[]));
            assert_eq!(others.answer().status, 200);
            worst = worst.max(asked.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
        reading.join().unwrap()
    });
    println!("{} MiB were read in {took:?}; nobody else waited longer than {worst:?}", lines.len() >> 20);
    assert!(worst < took / 3, "{worst:?} of {took:?}");
    drop(others);
    tidegate.comes_to_rest();
}
