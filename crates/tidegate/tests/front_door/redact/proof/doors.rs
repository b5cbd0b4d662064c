//! The doors, one after another: what is said by each, and what has to come back.

use super::{Prompt, Site};
use crate::socket::text_of as text_in;
use crate::streams::{again, events, text_of};
use crate::wire::{Answer, bare, get, post, post_to};
use serde_json::{Value, json};

/// A stream that is come back to after a restart: its id and its text.
pub(super) struct Kept {
    stream: String,
    text: String,
}

const WAYS: [fn(&mut Site, u64, &mut Vec<Kept>); 10] =
    [buffered, streamed, counted, socket, prompts, conversation, resumed, durable, tool, thinking];

pub(super) fn walk(site: &mut Site, nth: u64, streams: &mut Vec<Kept>) {
    WAYS[(nth % WAYS.len() as u64) as usize](site, nth, streams);
}

fn body(model: &str, stream: bool, text: &str) -> Value {
    json!({"model": model, "max_tokens": 8_000, "stream": stream, "messages": [{"role": "user", "content": text}]})
}

#[track_caller]
fn good(answer: Answer) -> Answer {
    assert_eq!(answer.status, 200, "{}{}", answer.head, answer.text());
    answer
}

/// What a buffered answer says.
fn said(message: &Value) -> String {
    message["content"].as_array().unwrap().iter().filter_map(|block| block["text"].as_str()).collect()
}

fn buffered(site: &mut Site, _: u64, _: &mut Vec<Kept>) {
    let Prompt { text, .. } = site.prompt();
    // Short enough to pass as it is, and long enough to be streamed and assembled.
    for max_tokens in [1_000, 8_000] {
        let mut body = body("echo-mangled", false, &text);
        body["max_tokens"] = json!(max_tokens);
        let answer = good(site.tidegate().ask(post(&[], body.to_string()))).json();
        if answer["stop_reason"] == "end_turn" {
            site.score.answer("buffered", &said(&answer), &text);
        }
    }
}

fn streamed(site: &mut Site, _: u64, _: &mut Vec<Kept>) {
    let Prompt { mark, text } = site.prompt();
    let answer = good(site.tidegate().ask(post(&[], body("echo-mangled", true, &text).to_string())));
    site.score.answer("streamed", &text_of(&events(&answer.text())), &text);
    // With its history, as a client without conversations sends it, and then something plain.
    let plain = site.corpus.nothing();
    let mut next = body("echo", true, &plain.text);
    let history = [json!({"role": "user", "content": text}), json!({"role": "assistant", "content": "x"})];
    next["messages"].as_array_mut().unwrap().splice(0..0, history);
    let answer = good(site.tidegate().ask(post(&[], next.to_string())));
    site.score.answer("streamed with history", &text_of(&events(&answer.text())), &plain.text);
    unheld(site, &answer);
    let asked = site.tap.asked(&mark);
    let first: Vec<Value> = asked.iter().map(|body| first_message(body)).collect();
    assert!(first.len() == 2 && first[0] == first[1], "the history keeps its bytes: {first:?}");
}

fn first_message(body: &str) -> Value {
    serde_json::from_str::<Value>(body).unwrap()["messages"][0]["content"].clone()
}

/// Whether a stream without a token came event by event as the upstream sent it.
fn unheld(site: &mut Site, answer: &Answer) {
    let sent = site.tap.answer(answer.header("request-id").unwrap()).unwrap();
    let deltas = |text: &str| -> Vec<Value> {
        let all = events(text).into_iter().map(|(_, _, data)| data);
        all.filter(|data| data["type"] == "content_block_delta").collect()
    };
    let (sent, came) = (deltas(&sent), deltas(&answer.text()));
    site.score.plain += 1;
    let differ = sent.iter().zip(&came).filter(|(a, b)| a != b).count() + sent.len().abs_diff(came.len());
    site.score.delayed += differ as u64;
    if differ > 0 {
        let at = sent.iter().zip(&came).position(|(a, b)| a != b);
        site.score.first.get_or_insert(format!("held: {:?}", at.map(|at| (&sent[at], &came[at]))));
    }
}

fn counted(site: &mut Site, _: u64, _: &mut Vec<Kept>) {
    let Prompt { text, .. } = site.prompt();
    let mut body = body("echo", false, &text);
    body.as_object_mut().unwrap().remove("max_tokens");
    body.as_object_mut().unwrap().remove("stream");
    body["system"] = json!(text);
    let answer = good(site.tidegate().ask(post_to("/v1/messages/count_tokens", &[], body.to_string())));
    assert!(answer.json()["input_tokens"].as_u64().is_some_and(|tokens| tokens > 5), "{}", answer.text());
}

fn socket(site: &mut Site, _: u64, _: &mut Vec<Kept>) {
    let (a, b) = (site.prompt(), site.prompt());
    let mut socket = site.tidegate().socket();
    for (id, prompt) in [("a", &a), ("b", &b)] {
        let mut request = body("echo-mangled", true, &prompt.text);
        request.as_object_mut().unwrap().remove("stream");
        socket.create(id, &json!({"request": request}));
    }
    for (id, prompt) in [("b", &b), ("a", &a)] {
        let frames = socket.whole(id);
        site.score.answer("tidegate.v1", &text_in(&frames), &prompt.text);
    }
}

fn prompts(site: &mut Site, _: u64, _: &mut Vec<Kept>) {
    let Prompt { text, .. } = site.prompt();
    let mut socket = site.tidegate().prompts("?once=1");
    socket.send(&json!({"prompt": text}));
    let mut said = String::new();
    loop {
        let message = socket.said();
        match message["event"].as_str().unwrap() {
            "completion" => said += message["text"].as_str().unwrap(),
            _ => break assert_eq!(message["event"], "done", "{message}"),
        }
    }
    site.score.answer("prompts", &said, &text);
}

fn turn(site: &Site, id: &str, stream: bool, text: &str) -> Answer {
    let body = body("echo-mangled", stream, text).to_string();
    good(site.tidegate().ask(post(&[("tidegate-conversation", id)], body)))
}

/// The texts of a conversation's turns as its door tells them.
fn told(site: &Site, id: &str) -> Vec<String> {
    let page = good(site.tidegate().ask(get(&format!("/v1/conversations/{id}/turns"), &[]))).json();
    let turns = page["data"].as_array().unwrap();
    let text = |turn: &Value| turn["request"][0]["content"].as_str().map(str::to_owned);
    turns.iter().filter_map(text).collect()
}

fn conversation(site: &mut Site, nth: u64, _: &mut Vec<Kept>) {
    let (id, fork) = (format!("talk-{nth}"), format!("fork-{nth}"));
    let (a, b) = (site.prompt(), site.prompt());
    let first = turn(site, &id, false, &a.text).json();
    site.score.answer("turn", &said(&first), &a.text);
    // The second turn says the first one's values again, and nothing beside them.
    let text = format!("{} again {}", b.mark, a.text);
    let second = turn(site, &id, true, &text);
    site.score.answer("second turn", &text_of(&events(&second.text())), &text);
    let asked = site.tap.asked(&a.mark);
    assert_eq!(first_message(&asked[0]), first_message(asked.last().unwrap()), "the history keeps its bytes");
    let plain = site.corpus.nothing();
    let third =
        good(site.tidegate().ask(post(&[("tidegate-conversation", &id)], body("echo", true, &plain.text).to_string())));
    site.score.answer("plain turn", &text_of(&events(&third.text())), &plain.text);
    unheld(site, &third);
    for (told, want) in told(site, &id).iter().zip([&a.text, &text, &plain.text]) {
        site.score.answer("turns", told, want);
    }
    let window = good(site.tidegate().ask(get(&format!("/v1/conversations/{id}/window"), &[]))).text();
    assert!(super::tokens_in(&window) == 0, "{window}");
    let forked = post_to(&format!("/v1/conversations/{id}/fork"), &[], json!({"id": fork, "turn": 1}).to_string());
    good(site.tidegate().ask(forked));
    let answer = turn(site, &fork, false, &format!("once more {}", a.text)).json();
    site.score.answer("fork", &said(&answer), &format!("once more {}", a.text));
    carried(site, &id, &format!("copy-{nth}"), &[&a.text, &text, &plain.text]);
    if nth % 20 == 5 {
        let gone = site.tidegate().ask(bare("DELETE", &format!("/v1/conversations/{id}"), &[]));
        assert!(matches!(gone.status, 200 | 204), "{}", gone.text());
    }
}

/// A conversation exported, and imported under another name.
fn carried(site: &mut Site, id: &str, copy: &str, texts: &[&String]) {
    let lines = good(site.tidegate().ask(get(&format!("/v1/conversations/{id}?format=jsonl"), &[]))).text();
    assert_eq!(super::tokens_in(&lines), 0, "{lines}");
    let renamed = lines.replace(&format!("\"conversation\":\"{id}\""), &format!("\"conversation\":\"{copy}\""));
    assert_ne!(renamed, lines);
    let head = format!(
        "POST /v1/conversations HTTP/1.1\r\nhost: tidegate\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        renamed.len()
    );
    good(site.tidegate().ask([head.as_bytes(), renamed.as_bytes()].concat()));
    for (told, want) in told(site, copy).iter().zip(texts) {
        site.score.answer("import", told, want);
    }
}

fn kept(site: &mut Site, class: &str) -> (String, String) {
    let Prompt { text, .. } = site.prompt();
    let lines = [("tidegate-resume", class)];
    let answer = good(site.tidegate().ask(post(&lines, body("echo-mangled", true, &text).to_string())));
    let id = answer.header("tidegate-stream").unwrap().to_owned();
    let all = events(&answer.text());
    let whole = text_of(&all);
    site.score.answer(class, &whole, &text);
    // From a few of its cursors; each is a place at which nothing is held.
    for _ in 0..4 {
        let at = site.corpus.dice().below(all.len() as u64) as usize;
        let Some(cursor) = &all[at].0 else { continue };
        let rest = good(again(site.tidegate(), &id, cursor, &[]));
        let joined = text_of(&all[..=at]) + &text_of(&events(&rest.text()));
        site.score.answer("from a cursor", &joined, &text);
    }
    (id, whole)
}

fn resumed(site: &mut Site, _: u64, _: &mut Vec<Kept>) {
    kept(site, "memory");
}

fn durable(site: &mut Site, _: u64, streams: &mut Vec<Kept>) {
    let (stream, text) = kept(site, "durable");
    streams.push(Kept { stream, text });
}

fn tool(site: &mut Site, nth: u64, _: &mut Vec<Kept>) {
    let Prompt { text, .. } = site.prompt();
    let mut body = body("echo-mangled-tool", nth.is_multiple_of(20), &text);
    let schema = json!({"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]});
    body["tools"] = json!([{"name": "send", "description": "Sends it.", "input_schema": schema}]);
    body["tool_choice"] = json!({"type": "any"});
    let answer = good(site.tidegate().ask(post(&[], body.to_string())));
    let input: Value = if nth.is_multiple_of(20) {
        let all = events(&answer.text());
        let pieces: String = all.iter().filter_map(|(_, _, data)| data["delta"]["partial_json"].as_str()).collect();
        serde_json::from_str(&pieces).unwrap_or_else(|e| panic!("{e}: {pieces}"))
    } else {
        answer.json()["content"][0]["input"].clone()
    };
    site.score.answer("tool", input["to"].as_str().unwrap(), &text);
}

fn thinking(site: &mut Site, nth: u64, _: &mut Vec<Kept>) {
    let Prompt { text, .. } = site.prompt();
    let mut body = body("echo-thinking", false, &text);
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 5_000, "display": "summarized"});
    let id = format!("thought-{nth}");
    // With a conversation, and without: the client sends it all back, signature and all.
    for lines in [&[("tidegate-conversation", &*id)][..], &[]] {
        let answer = good(site.tidegate().ask(post(lines, body.to_string()))).json();
        let block = &answer["content"][0];
        site.score.answer("thinking", block["thinking"].as_str().unwrap(), &text);
        site.score.answer("after thinking", &said(&answer), &text);
        let mut next = body.clone();
        let messages = next["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": answer["content"]}));
        messages.push(json!({"role": "user", "content": "go on"}));
        // A thinking block that is not what it was is a 400 there.
        good(site.tidegate().ask(post(lines, next.to_string())));
    }
}

/// Durable streams and conversations, from the next process.
pub(super) fn after_a_restart(site: &mut Site, streams: &[Kept]) {
    for Kept { stream, text } in streams {
        let answer = good(again(site.tidegate(), stream, "", &[]));
        site.score.answer("after a restart", &text_of(&events(&answer.text())), text);
    }
    let page = good(site.tidegate().ask(get("/v1/conversations", &[]))).json();
    for conversation in page["data"].as_array().unwrap() {
        let id = conversation["id"].as_str().unwrap();
        for text in told(site, id) {
            site.score.answers += 1;
            site.score.leaked += super::tokens_in(&text) as u64;
        }
    }
}
