//! Conversations: what is sent of them, what is kept, and what a second attempt finds.

use crate::process::{Folder, Tidegate, eventually};
use crate::upstream::{BEGIN, END, Seen, Upstream, chunk, plain, stream_head};
use crate::wire::{Answer, QUICK, Wire, bare, get, post, post_to};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The rest of a small stream.
const REST: &str = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":3}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// A gateway with a log, in front of an upstream that answers "Hi answer N" to its Nth request.
fn kept(settings: &str) -> (Tidegate, Upstream, Folder) {
    let upstream = Upstream::playing(|nth, seen: &Seen, socket| {
        let asked: Value = serde_json::from_slice(&seen.body).unwrap();
        let text = format!("Hi answer {nth}");
        let whole = json!({"id":format!("msg_{nth}"),"type":"message","role":"assistant","model":"m","content":[{"type":"text","text":text}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":3}});
        let answer = if asked["stream"] == true {
            let delta = format!(
                "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\" answer {nth}\"}}}}\n\n"
            );
            stream_head("") + &chunk(BEGIN) + &chunk(&delta) + &chunk(REST) + END
        } else {
            plain(200, "content-type: application/json\r\n", &whole.to_string())
        };
        drop(socket.write_all(answer.as_bytes()));
    });
    let folder = Folder::new();
    let file = folder.path("conversations.db");
    let config = format!("[retry]\nattempts_max = 1\n[conversations]\nfile = \"{file}\"\n{settings}\n");
    (Tidegate::before(upstream.at, "k", &config), upstream, folder)
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn said(text: &str) -> Value {
    json!({"role": "assistant", "content": [{"type": "text", "text": text}]})
}

fn body(stream: bool, messages: &[Value]) -> String {
    json!({"model": "claude-sonnet-4-5", "max_tokens": 500, "stream": stream, "messages": messages}).to_string()
}

fn turn(tidegate: &Tidegate, lines: &[(&str, &str)], body: &str) -> Answer {
    tidegate.ask(post(&[&[("tidegate-conversation", "c")], lines].concat(), body))
}

/// Role and text of each message that was sent upstream, cache marks aside.
fn sent(upstream: &Upstream, nth: usize) -> Vec<(String, String)> {
    let body: Value = serde_json::from_slice(&upstream.seen()[nth].body).unwrap();
    let text = |content: &Value| match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks.iter().filter_map(|b| b["text"].as_str()).collect(),
        _ => String::new(),
    };
    let messages = body["messages"].as_array().unwrap().iter();
    messages.map(|m| (m["role"].as_str().unwrap().to_owned(), text(&m["content"]))).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(role, text)| ((*role).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn the_body_carries_what_is_new_and_the_model_gets_it_all() {
    let (tidegate, upstream, _folder) = kept("");
    for (nth, stream) in [true, false, true, false].into_iter().enumerate() {
        let answer = turn(&tidegate, &[], &body(stream, &[user(&format!("question {nth}"))]));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("tidegate-conversation"), Some("c"));
        assert_eq!(answer.header("tidegate-turn"), Some((nth + 1).to_string().as_str()));
        assert!(answer.text().contains(&format!(" answer {nth}")), "{}", answer.text());
        if stream {
            assert_eq!(answer.events().last().unwrap().0, "message_stop");
        }
    }
    let all = [
        ("user", "question 0"),
        ("assistant", "Hi answer 0"),
        ("user", "question 1"),
        ("assistant", "Hi answer 1"),
        ("user", "question 2"),
        ("assistant", "Hi answer 2"),
        ("user", "question 3"),
    ];
    for nth in 0..4 {
        assert_eq!(sent(&upstream, nth), pairs(&all[..=2 * nth]), "{nth}");
    }
    // Somebody else's of the same name, and none at all, know nothing of it.
    assert_eq!(tidegate.ask(post(&[("tidegate-conversation", "d")], body(false, &[user("x")]))).status, 200);
    assert_eq!(tidegate.ask(post(&[], body(false, &[user("y")]))).header("tidegate-turn"), None);
    assert_eq!((sent(&upstream, 4), sent(&upstream, 5)), (pairs(&[("user", "x")]), pairs(&[("user", "y")])));
    tidegate.comes_to_rest();
}

#[test]
fn a_conversation_outlives_its_process() {
    let (mut tidegate, upstream, folder) = kept("");
    turn(&tidegate, &[], &body(true, &[user("question 0")]));
    tidegate.signal("KILL");
    tidegate.exit(Duration::from_secs(10));
    let file = folder.path("conversations.db");
    let tidegate = Tidegate::before(upstream.at, "k", &format!("[conversations]\nfile = \"{file}\"\n"));
    let answer = turn(&tidegate, &[], &body(false, &[user("question 1")]));
    assert_eq!(answer.header("tidegate-turn"), Some("2"));
    assert_eq!(
        sent(&upstream, 1),
        pairs(&[("user", "question 0"), ("assistant", "Hi answer 0"), ("user", "question 1")])
    );
}

#[test]
fn a_whole_history_is_matched_and_only_its_end_is_new() {
    let (tidegate, upstream, _folder) = kept("");
    let mut history = vec![user("question 0")];
    for nth in 0..3 {
        let answer = turn(&tidegate, &[], &body(nth == 1, &history));
        assert_eq!(answer.header("tidegate-turn"), Some((nth + 1).to_string().as_str()), "{}", answer.text());
        history.extend([said(&format!("Hi answer {nth}")), user(&format!("question {}", nth + 1))]);
    }
    assert_eq!(sent(&upstream, 2).len(), 5);
    // The same again adds nothing; something else is refused with its place.
    history.truncate(4);
    let again = turn(&tidegate, &[("tidegate-body", "whole")], &body(false, &history));
    assert_eq!((again.status, again.code().as_str()), (409, "conversation_diverged"));
    history[1] = said("never said");
    history.push(user("and?"));
    let other = turn(&tidegate, &[], &body(false, &history));
    assert_eq!((other.status, other.code().as_str()), (409, "conversation_diverged"));
    assert_eq!(other.header("x-should-retry"), Some("false"));
    assert!(other.text().contains("messages.1 is not what is stored"), "{}", other.text());
    assert_eq!(upstream.seen().len(), 3);
}

#[test]
fn a_divergent_history_forks_where_that_is_wished_and_comes_to_its_fork_again() {
    let (tidegate, upstream, _folder) = kept("divergence = \"fork\"");
    for nth in 0..2 {
        turn(&tidegate, &[], &body(false, &[user(&format!("question {nth}"))]));
    }
    let mut history = vec![user("question 0"), said("Hi answer 0"), user("something else")];
    let fork = turn(&tidegate, &[], &body(false, &history));
    assert_eq!((fork.status, fork.header("tidegate-turn")), (200, Some("2")), "{}", fork.text());
    let name = fork.header("tidegate-conversation").unwrap().to_owned();
    assert!(name.starts_with("c~"), "{name}");
    history.extend([said("Hi answer 2"), user("more")]);
    let on = turn(&tidegate, &[], &body(false, &history));
    assert_eq!((on.header("tidegate-conversation"), on.header("tidegate-turn")), (Some(name.as_str()), Some("3")));
    assert_eq!(sent(&upstream, 3).len(), 5);
    // The one it came of goes on as it was.
    let first = turn(&tidegate, &[], &body(false, &[user("question 2")]));
    assert_eq!((first.header("tidegate-conversation"), first.header("tidegate-turn")), (Some("c"), Some("3")));
}

#[test]
fn a_retry_finds_its_turn_and_asks_nobody() {
    let (tidegate, upstream, _folder) = kept("");
    let retry = [("x-stainless-retry-count", "1")];
    for stream in [true, false] {
        let asked = body(stream, &[user(if stream { "streamed" } else { "buffered" })]);
        let first = turn(&tidegate, &[("x-stainless-retry-count", "0")], &asked);
        let again = turn(&tidegate, &retry, &asked);
        assert_eq!(again.header("tidegate-replayed"), Some("true"), "{}", again.text());
        assert_eq!(again.header("tidegate-turn"), first.header("tidegate-turn"));
        let number = first.header("tidegate-turn").unwrap();
        let by_number = turn(&tidegate, &[("tidegate-turn", number)], &asked);
        assert_eq!(by_number.header("tidegate-replayed"), Some("true"));
        if stream {
            let text = |answer: &Answer| -> String {
                answer.events().iter().filter_map(|(_, e)| e["delta"]["text"].as_str().map(str::to_owned)).collect()
            };
            assert_eq!(text(&again), text(&first));
            assert_eq!(again.events().last().unwrap().0, "message_stop");
        } else {
            assert_eq!(again.json(), first.json());
        }
    }
    assert_eq!(upstream.seen().len(), 2);
    // The same words without a sign of being a retry are a new turn.
    let repeated = turn(&tidegate, &[], &body(true, &[user("streamed")]));
    assert_eq!(repeated.header("tidegate-turn"), Some("3"));
    let wrong = turn(&tidegate, &[("tidegate-turn", "7")], &body(true, &[user("x")]));
    assert_eq!((wrong.status, wrong.code().as_str()), (409, "turn_conflict"));
    assert_eq!(wrong.header("x-should-retry"), Some("false"));
}

#[test]
fn two_turns_at_once_go_one_after_the_other_or_the_second_is_refused() {
    let slow = ("simulate", "output_tokens=20-20, head_ms=0, first_ms=300, event_ms=20");
    for (settings, want) in [("", 200), ("concurrent_turns = \"refuse\"", 409)] {
        let tidegate = Tidegate::simulated_with(&format!("[conversations]\n{settings}\n"), &[]);
        let mut first = tidegate.client();
        first.send(post(&[("tidegate-conversation", "c"), slow], body(true, &[user("first")])));
        eventually("the first is under way", Duration::from_secs(10), || {
            (tidegate.metric("tidegate_streams_open") > 0.0 && tidegate.streams()[0]["phase"] != "recall").then_some(())
        });
        std::thread::sleep(Duration::from_millis(100));
        let second = turn(&tidegate, &[QUICK], &body(false, &[user("second")]));
        assert_eq!(second.status, want, "{}", second.text());
        assert_eq!(first.answer().header("tidegate-turn"), Some("1"));
        if want == 200 {
            assert_eq!(second.header("tidegate-turn"), Some("2"));
        } else {
            assert_eq!(second.code(), "conversation_busy");
            assert_eq!(second.header("x-should-retry"), Some("false"));
        }
        drop(first);
        tidegate.comes_to_rest();
    }
}

#[test]
fn what_was_passed_on_of_a_broken_turn_is_kept_and_what_was_not_never_was() {
    let upstream = Upstream::playing(|nth, _, socket| {
        let half = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"half a\"}}\n\n";
        let answer = match nth {
            // No content; content and the end of the connection; then whole answers.
            0 => plain(500, "", r#"{"type":"error","error":{"type":"api_error","message":"no"}}"#),
            1 => stream_head("") + &chunk(BEGIN) + &chunk(half) + END,
            _ => stream_head("") + &chunk(BEGIN) + &chunk(half) + &chunk(REST) + END,
        };
        drop(socket.write_all(answer.as_bytes()));
    });
    let folder = Folder::new();
    let config = format!("[retry]\nattempts_max = 1\n[conversations]\nfile = \"{}\"\n", folder.path("c.db"));
    let tidegate = Tidegate::before(upstream.at, "k", &config);
    let lost = turn(&tidegate, &[], &body(true, &[user("lost")]));
    assert_eq!(lost.status, 500);
    let broken = body(true, &[user("broken")]);
    let answer = turn(&tidegate, &[], &broken);
    assert_eq!(answer.header("tidegate-turn"), Some("1"));
    answer.last_error();
    let retried = turn(&tidegate, &[("x-stainless-retry-count", "1")], &broken);
    assert_eq!((retried.status, retried.code().as_str()), (409, "turn_interrupted"));
    let next = turn(&tidegate, &[], &body(true, &[user("go on")]));
    assert_eq!(next.header("tidegate-turn"), Some("2"), "{}", next.text());
    assert_eq!(sent(&upstream, 2), pairs(&[("user", "broken"), ("assistant", "Hihalf a"), ("user", "go on")]));
    assert_eq!(tidegate.metric("tidegate_turns_total{end=\"interrupted\"}"), 1.0);
}

#[test]
fn tool_results_come_with_the_turn_that_calls_for_them() {
    let tidegate = Tidegate::simulated();
    let tools =
        json!([{"name": "look_up", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}]);
    let asked = json!({"model": "claude-sonnet-4-5", "max_tokens": 2000, "tools": tools, "tool_choice": {"type": "any"}, "messages": [user("look it up")]});
    let answer = turn(&tidegate, &[QUICK], &asked.to_string());
    let content = answer.json()["content"].clone();
    let call =
        content.as_array().unwrap().iter().find(|b| b["type"] == "tool_use").unwrap_or_else(|| panic!("{content}"));
    let id = call["id"].as_str().unwrap();
    let next = |messages: Value| {
        json!({"model": "claude-sonnet-4-5", "max_tokens": 2000, "tools": tools, "messages": messages}).to_string()
    };
    let without = turn(&tidegate, &[QUICK], &next(json!([user("never mind")])));
    assert_eq!((without.status, without.code().as_str()), (400, "invalid_turn"), "{}", without.text());
    let result = json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "42"}]}]);
    let with = turn(&tidegate, &[QUICK], &next(result));
    assert_eq!((with.status, with.header("tidegate-turn")), (200, Some("2")), "{}", with.text());
}

#[test]
fn a_long_conversation_is_cut_to_its_budget_and_stays_valid() {
    let tidegate = Tidegate::simulated();
    let budget = ("tidegate-budget", "6000");
    let long = "All work and no play makes a dull day. ".repeat(40);
    for nth in 1..=30 {
        let answer = turn(&tidegate, &[QUICK, budget], &body(nth % 2 == 0, &[user(&format!("{nth}: {long}"))]));
        assert_eq!(answer.status, 200, "{nth}: {}", answer.text());
        assert_eq!(answer.header("tidegate-turn"), Some(nth.to_string().as_str()));
    }
    assert!(tidegate.metric("tidegate_windows_cut_total") >= 3.0);
    assert_eq!(tidegate.metric("tidegate_window_tokens_bucket{le=\"8000.0\"}"), 30.0);
    let huge = turn(&tidegate, &[QUICK, budget], &body(false, &[user(&long.repeat(20))]));
    assert_eq!((huge.status, huge.code().as_str()), (400, "window_too_small"), "{}", huge.text());
    // Refused, it never was.
    assert_eq!(turn(&tidegate, &[QUICK, budget], &body(false, &[user("short")])).header("tidegate-turn"), Some("31"));
}

#[test]
fn without_a_conversation_a_history_can_be_trimmed_and_nothing_is_kept() {
    let tidegate = Tidegate::simulated();
    let long = "All work and no play makes a dull day. ".repeat(40);
    let mut history = Vec::new();
    for nth in 0..20 {
        history.push(user(&format!("{nth}: {long}")));
        let lines = [QUICK, ("tidegate-window", "on"), ("tidegate-budget", "6000")];
        let answer = tidegate.ask(post(&lines, body(false, &history)));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.json()["usage"]["input_tokens"].as_u64().unwrap() < 6_000);
        history.push(said("yes"));
    }
    assert!((1.0..10.0).contains(&tidegate.metric("tidegate_windows_cut_total")));
    assert_eq!(tidegate.metric("tidegate_conversations_held"), 0.0);
}

#[test]
fn tokens_are_counted_of_what_would_be_sent_and_nothing_is_kept() {
    let tidegate = Tidegate::simulated();
    turn(&tidegate, &[QUICK], &body(false, &[user(&"word ".repeat(500))]));
    let asked = json!({"model": "claude-sonnet-4-5", "messages": [user("and?")]}).to_string();
    let count = |lines: &[(&str, &str)]| {
        tidegate.ask(post_to("/v1/messages/count_tokens", lines, &asked)).json()["input_tokens"].as_u64().unwrap()
    };
    let (with, without) = (count(&[("tidegate-conversation", "c")]), count(&[]));
    assert!(with > without + 400, "{with} {without}");
    assert_eq!(turn(&tidegate, &[QUICK], &body(false, &[user("next")])).header("tidegate-turn"), Some("2"));
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let tidegate = Tidegate::simulated();
    let ask = |lines: &[(&str, &str)], body: &str| {
        let answer = tidegate.ask(post(lines, body));
        (answer.status, answer.code())
    };
    let refused = |code: &str| (400, code.to_owned());
    let fine = body(false, &[user("x")]);
    assert_eq!(ask(&[("tidegate-conversation", "")], &fine), refused("invalid_header"));
    assert_eq!(ask(&[("tidegate-turn", "x")], &fine), refused("invalid_header"));
    let c = [("tidegate-conversation", "c")];
    assert_eq!(ask(&c, r#"{"model":"m","max_tokens":5}"#), refused("invalid_messages"));
    assert_eq!(ask(&c, r#"{"model":"m","max_tokens":5,"messages":[]}"#), refused("invalid_turn"));
    assert_eq!(ask(&c, r#"{"model":"m","max_tokens":5,"messages":[{"role":"user"}]}"#), refused("invalid_messages"));
    assert_eq!(ask(&c, r#"{"model":"m","max_tokens":5,"messages":"x"}"#), refused("invalid_messages"));
    let answers = json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]});
    assert_eq!(ask(&c, &body(false, &[answers])), refused("invalid_turn"));
    let upstream = Upstream::saying(plain(200, "", "{}"));
    let off = Tidegate::before(upstream.at, "k", "");
    let answer = off.ask(post(&c, &fine));
    assert_eq!((answer.status, answer.code().as_str()), (400, "conversations_off"));
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_log_that_is_open_elsewhere_ends_the_start_with_its_reason() {
    let (_tidegate, _upstream, folder) = kept("");
    let (code, out, err) = crate::process::finished(&[
        "serve",
        "--simulate",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--simulate-listen",
        "127.0.0.1:0",
        "--truth-listen",
        "127.0.0.1:0",
        "--conversations",
        &folder.path("conversations.db"),
    ]);
    assert_ne!(code, 0, "{out}");
    assert!(err.contains("is open in another process (pid "), "{err}");
}

#[test]
fn a_client_that_leaves_in_mid_stream_leaves_what_it_was_given() {
    let tidegate = Tidegate::simulated();
    let slow = ("simulate", "output_tokens=200-200, head_ms=0, first_ms=0, event_ms=20");
    let mut client: Wire = tidegate.client();
    client.send(post(&[("tidegate-conversation", "c"), slow], body(true, &[user("tell")])));
    client.until("content_block_delta").unwrap();
    drop(client);
    eventually("the turn is kept", Duration::from_secs(10), || {
        (tidegate.metric("tidegate_turns_total{end=\"interrupted\"}") > 0.0).then_some(())
    });
    let next = turn(&tidegate, &[QUICK], &body(false, &[user("go on")]));
    assert_eq!((next.status, next.header("tidegate-turn")), (200, Some("2")), "{}", next.text());
    tidegate.comes_to_rest();
}

/// Answers turns in a word, and whoever asks for a summary with one; `believable` is in what was said.
fn summarising() -> Upstream {
    summarising_when(|| {})
}

/// The same; a summary comes when `ready` has returned.
fn summarising_when(ready: impl Fn() + Send + Sync + 'static) -> Upstream {
    Upstream::playing(move |nth, seen: &Seen, socket| {
        let asked: Value = serde_json::from_slice(&seen.body).unwrap();
        let last = asked["messages"].as_array().unwrap().last().unwrap().to_string();
        let summary = json!({"goals": [], "decisions": [], "facts": [
            {"text": "The order is 7741-X.", "messages": [0]}, {"text": "The price is 99321.", "messages": [0]}
        ], "open_items": [], "artefacts": []});
        let is_errand = last.contains("Summarise this conversation");
        if is_errand {
            ready();
        }
        let text = if is_errand { summary.to_string() } else { format!("fine {nth}") };
        let tokens = seen.body.len() / 4;
        let data = |value: Value| format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap());
        let start = json!({"type": "message_start", "message": {"id": "msg", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": tokens, "output_tokens": 1}}});
        let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
        let delta = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}});
        let answer = stream_head("") + &chunk(&(data(start) + &data(block) + &data(delta) + REST)) + END;
        drop(socket.write_all(answer.as_bytes()));
    })
}

#[test]
fn a_summary_is_made_ahead_of_the_cut_believed_as_far_as_it_is_true_and_outlives_the_process() {
    let upstream = summarising();
    let folder = Folder::new();
    let config = format!("[conversations]\nfile = \"{}\"\nwindow = 200000\nrecall = false\n", folder.path("c.db"));
    let start = || Tidegate::before(upstream.at, "k", &config);
    let mut tidegate = start();
    // A summary pays only where much is read again and again.
    let long = "All work and no play makes a dull day. ".repeat(200);
    let ask = |tidegate: &Tidegate, nth: usize| {
        let words = if nth == 0 { "My order is 7741-X.".to_owned() } else { format!("{nth}: {long}") };
        let answer = turn(tidegate, &[], &body(true, &[user(&words)]));
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let mut nth = 0;
    while tidegate.metric("tidegate_summaries_total{end=\"made\"}") == 0.0 {
        assert!(nth < 100, "no summary: {}", tidegate.admin("/metrics").text());
        ask(&tidegate, nth);
        nth += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(tidegate.metric("tidegate_windows_cut_total"), 0.0, "ahead of the cut");
    assert_eq!(tidegate.metric("tidegate_summary_items_dropped_total"), 1.0);
    let errands: Vec<Seen> = upstream.seen().into_iter().filter(|s| s.all("tidegate-priority").is_empty()).collect();
    assert_eq!(errands.len(), upstream.seen().len(), "our own headers stay here");
    tidegate.signal("KILL");
    tidegate.exit(Duration::from_secs(10));
    let tidegate = start();
    for _ in 0..100 {
        ask(&tidegate, nth);
        nth += 1;
        if tidegate.metric("tidegate_windows_cut_total") > 0.0 {
            break;
        }
    }
    let seen = upstream.seen();
    let cut = seen
        .iter()
        .map(|s| String::from_utf8_lossy(&s.body))
        .find(|b| b.contains("<conversation-summary"))
        .expect("the cut has it");
    assert!(cut.contains("7741-X") && !cut.contains("99321"), "{cut}");
}

#[test]
fn a_summary_that_comes_when_its_conversation_was_begun_anew_is_none_of_that_one() {
    let (asked, let_go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (told, wait) = (Arc::clone(&asked), Arc::clone(&let_go));
    let upstream = summarising_when(move || {
        told.store(true, Ordering::SeqCst);
        eventually("it is let go", Duration::from_secs(60), || wait.load(Ordering::SeqCst).then_some(()));
    });
    let folder = Folder::new();
    let config = format!("[conversations]\nfile = \"{}\"\nwindow = 200000\nrecall = false\n", folder.path("c.db"));
    let tidegate = Tidegate::before(upstream.at, "k", &config);
    let long = "All work and no play makes a dull day. ".repeat(200);
    let mut nth = 0;
    while !asked.load(Ordering::SeqCst) {
        assert!(nth < 100, "no summary is asked for");
        let words = if nth == 0 { "My order is 7741-X.".to_owned() } else { format!("{nth}: {long}") };
        assert_eq!(turn(&tidegate, &[], &body(true, &[user(&words)])).status, 200);
        nth += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    let deleted = tidegate.ask(bare("DELETE", "/v1/conversations/c", &[]));
    assert_eq!((deleted.status, deleted.json()["turns"].as_u64()), (200, Some(nth)));
    // As many messages as before, and the order is among them: only what they are tells them apart.
    let messages: Vec<Value> =
        (0..nth).flat_map(|n| [user(&format!("other words {n}, order 7741-X")), said("fine")]).collect();
    let anew = post_to("/v1/conversations/c/turns", &[], json!({"messages": messages}).to_string());
    assert_eq!(tidegate.ask(anew).status, 200);
    let_go.store(true, Ordering::SeqCst);
    eventually("the errand is over", Duration::from_secs(10), || {
        (tidegate.metric("tidegate_summaries_total{end=\"failed\"}") == 1.0).then_some(())
    });
    assert_eq!(tidegate.metric("tidegate_summaries_total{end=\"made\"}"), 0.0);
    let lines = tidegate.ask(get("/v1/conversations/c?format=jsonl", &[])).text();
    assert!(lines.contains("other words 0") && !lines.contains("\"type\":\"summary\""), "{lines}");
    tidegate.comes_to_rest();
}
