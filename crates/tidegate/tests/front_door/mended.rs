//! Replies that break off and are taken up again, through both doors: the table of the journal room's
//! `recover`, row by row, and what is billed, logged and stored of it.

use crate::process::{Folder, Tidegate};
use crate::upstream::{END, Seen, Upstream, chunk, plain, stream_head};
use crate::wire::{get, post};
use serde_json::{Value, json};
use std::io::Write;

const MODES: [&str; 2] = ["restart", "continue"];
const DOORS: [&str; 2] = ["sse", "websocket"];

/// One answer of the upstream: events and then the end, whole or not; or a refusal.
#[derive(Clone)]
enum Plays {
    Events(Vec<Value>),
    Refuses(u16, &'static str),
}

fn start(input: u64) -> Value {
    json!({"type": "message_start", "message": {"id": format!("msg_{input}"), "type": "message", "role": "assistant",
        "model": "m", "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": input, "output_tokens": 1}}})
}

fn begin(index: u64, block: Value) -> Value {
    json!({"type": "content_block_start", "index": index, "content_block": block})
}

fn text_block(index: u64) -> Value {
    begin(index, json!({"type": "text", "text": ""}))
}

fn delta(index: u64, delta: Value) -> Value {
    json!({"type": "content_block_delta", "index": index, "delta": delta})
}

fn text(index: u64, text: &str) -> Value {
    delta(index, json!({"type": "text_delta", "text": text}))
}

fn thinking(index: u64) -> Vec<Value> {
    vec![
        begin(index, json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta(index, json!({"type": "thinking_delta", "thinking": "hm"})),
    ]
}

fn call(index: u64, id: &str) -> Value {
    begin(index, json!({"type": "tool_use", "id": id, "name": "f", "input": {}}))
}

fn input(index: u64, json: &str) -> Value {
    delta(index, json!({"type": "input_json_delta", "partial_json": json}))
}

fn stop(index: u64) -> Value {
    json!({"type": "content_block_stop", "index": index})
}

fn totals(output: u64) -> Vec<Value> {
    vec![
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": output}}),
        json!({"type": "message_stop"}),
    ]
}

/// A reply of one text.
fn reply(input: u64, words: &str) -> Vec<Value> {
    let mut events = vec![start(input), text_block(0)];
    events.extend(words.split_inclusive(' ').map(|word| text(0, word)));
    events.push(stop(0));
    events.extend(totals(5));
    events
}

/// The same up to the end of its text.
fn cut(input: u64, words: &str) -> Vec<Value> {
    let whole = reply(input, words);
    whole[..whole.len() - 3].to_vec()
}

/// An upstream that plays these answers in turn, over and over.
fn playing(plays: &[Plays]) -> Upstream {
    let plays = plays.to_vec();
    Upstream::playing(move |nth, _: &Seen, socket| {
        let answer = match &plays[nth % plays.len()] {
            Plays::Refuses(status, body) => {
                plain(*status, "content-type: application/json\r\nretry-after: 1\r\n", body)
            }
            Plays::Events(events) => {
                let events =
                    events.iter().map(|e| chunk(&format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap())));
                stream_head("") + &events.collect::<String>() + END
            }
        };
        drop(socket.write_all(answer.as_bytes()));
    })
}

/// What a client has seen of one answer.
#[derive(Debug, Default)]
struct Told {
    /// The message, put together.
    message: Value,
    error: Option<Value>,
    /// Each time it was told that the answer was taken up: after which event, how, and which part.
    recovered: Vec<(u64, String, u64)>,
    /// The number of the last event.
    last: u64,
    stopped: usize,
}

impl Told {
    fn event(&mut self, event: &Value) {
        self.last += 1;
        let at = event["index"].as_u64().unwrap_or_default() as usize;
        match event["type"].as_str().unwrap() {
            "message_start" => {
                assert!(self.message.is_null(), "one message, one start");
                self.message = event["message"].clone();
            }
            "content_block_start" => {
                let content = self.message["content"].as_array_mut().unwrap();
                assert_eq!(content.len(), at, "indices go on");
                content.push(event["content_block"].clone());
            }
            "content_block_delta" => {
                let block = &mut self.message["content"][at];
                let (field, more) = [("text", "text"), ("thinking", "thinking"), ("json", "partial_json")]
                    .into_iter()
                    .find_map(|(field, name)| Some((field, event["delta"][name].as_str()?)))
                    .unwrap();
                block[field] = json!(block[field].as_str().unwrap_or_default().to_owned() + more);
            }
            "message_delta" => {
                self.message["stop_reason"] = event["delta"]["stop_reason"].clone();
                self.message["usage"] = event["usage"].clone();
            }
            "message_stop" => self.stopped += 1,
            _ => {}
        }
    }

    fn content(&self) -> &Vec<Value> {
        self.message["content"].as_array().unwrap()
    }

    fn text(&self) -> String {
        self.content().iter().filter_map(|block| block["text"].as_str()).collect()
    }

    fn code(&self) -> &str {
        self.error.as_ref().map_or("", |e| e["error"]["details"]["error_code"].as_str().unwrap_or_default())
    }

    #[track_caller]
    fn is_whole(&self) {
        assert!(self.error.is_none() && self.stopped == 1, "{self:?}");
    }
}

fn asked(more: &Value) -> Value {
    let mut body =
        json!({"model": "claude-sonnet-4-5", "max_tokens": 500, "messages": [{"role": "user", "content": "x"}]});
    more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    body
}

/// Asks through `door` for a reply that is mended as `how` says.
fn ask(tidegate: &Tidegate, door: &str, how: &str, lines: &[(&str, &str)], more: &Value) -> Told {
    let mut told = Told::default();
    let mut body = asked(more);
    if door == "sse" {
        body["stream"] = json!(true);
        let answer = tidegate.ask(post(&[&[("tidegate-recover", how)], lines].concat(), body.to_string()));
        assert_eq!(answer.status, 200, "{}", answer.text());
        for block in answer.text().split("\n\n") {
            if let Some(said) = block.strip_prefix(": tidegate-recovered how=") {
                let (how, segment) = said.split_once(" segment=").unwrap();
                told.recovered.push((told.last, how.to_owned(), segment.parse().unwrap()));
            } else if let Some((_, data)) = block.split_once("data: ") {
                let event: Value = serde_json::from_str(data).unwrap();
                if event["type"] == "error" { told.error = Some(event) } else { told.event(&event) }
            }
        }
        return told;
    }
    let mut socket = tidegate.socket();
    let mut frame = json!({"type": "message.create", "id": "a", "request": body, "recover": how});
    for (name, value) in lines {
        frame[name.trim_start_matches("tidegate-")] = json!(value);
    }
    socket.send(&frame);
    loop {
        let frame = socket.frame();
        match frame["type"].as_str().unwrap() {
            "stream.event" => {
                told.event(&frame["event"]);
                told.last = frame["seq"].as_u64().unwrap();
            }
            "stream.recovered" => {
                assert_eq!(frame["seq"].as_u64(), Some(told.last), "{frame}");
                let how = frame["how"].as_str().unwrap().to_owned();
                told.recovered.push((told.last, how, frame["segment"].as_u64().unwrap()));
            }
            "stream.error" => {
                told.error = Some(frame);
                return told;
            }
            "stream.end" => return told,
            _ => {}
        }
    }
}

/// Asks through both doors, of a new gateway each.
fn through_both(plays: &[Plays], how: &str, more: &Value, check: impl Fn(&Told, &[Value], &str)) {
    for door in DOORS {
        let upstream = playing(plays);
        let tidegate = Tidegate::before(upstream.at, "k", "");
        let told = ask(&tidegate, door, how, &[], more);
        let seen: Vec<Value> = upstream.seen().iter().map(|s| serde_json::from_slice(&s.body).unwrap()).collect();
        check(&told, &seen, door);
        tidegate.comes_to_rest();
    }
}

fn events(of: Vec<Value>) -> Plays {
    Plays::Events(of)
}

const TEXT: &str = "One two three four five six seven eight nine ten. ";

#[test]
fn without_content_the_same_request_goes_out_again_and_nobody_is_told() {
    for how in MODES {
        through_both(&[events(vec![start(7)]), events(reply(9, TEXT))], how, &json!({}), |told, seen, door| {
            told.is_whole();
            assert_eq!((told.text(), told.recovered.len()), (TEXT.to_owned(), 0), "{door}");
            assert_eq!((seen.len(), &seen[0]), (2, &seen[1]));
        });
    }
}

#[test]
fn a_text_that_was_cut_is_taken_up_where_it_broke() {
    let first = cut(7, "One two three four ");
    let again = [events(first.clone()), events(reply(9, TEXT))];
    through_both(&again, "restart", &json!({}), |told, seen, door| {
        told.is_whole();
        assert_eq!((told.text(), told.content().len()), (TEXT.to_owned(), 1), "{door}");
        assert_eq!(told.recovered, [(6, "restart".to_owned(), 2)]);
        assert_eq!((seen.len(), &seen[0]), (2, &seen[1]));
        assert_eq!(told.message["id"], "msg_7");
    });
    let on = [events(first), events(reply(9, "five six seven eight nine ten. "))];
    through_both(&on, "continue", &json!({}), |told, seen, door| {
        told.is_whole();
        assert_eq!((told.text(), told.content().len()), (TEXT.to_owned(), 1), "{door}");
        assert_eq!(told.recovered, [(6, "continue".to_owned(), 2)]);
        assert_eq!(seen[1]["messages"][1]["content"][0]["text"], "One two three four");
        assert_eq!((&told.message["usage"]["input_tokens"], &seen[1]["stream"]), (&json!(16), &json!(true)));
    });
}

#[test]
fn never_is_as_it_was() {
    through_both(&[events(cut(7, TEXT)), events(reply(9, TEXT))], "never", &json!({}), |told, seen, door| {
        assert_eq!((told.code(), seen.len(), told.recovered.len()), ("upstream_broken", 1, 0), "{door}");
        assert_eq!(told.text(), TEXT);
    });
}

#[test]
fn whole_thinking_stays_and_thinking_that_was_cut_was_never_seen() {
    let mut whole = [vec![start(7)], thinking(0), vec![stop(0)]].concat();
    let mut new = [vec![start(9)], thinking(0), vec![stop(0), text_block(1), text(1, TEXT), stop(1)]].concat();
    new.extend(totals(5));
    for how in MODES {
        through_both(&[events(whole.clone()), events(new.clone())], how, &json!({}), |told, _, door| {
            told.is_whole();
            let kinds: Vec<&Value> = told.content().iter().map(|block| &block["type"]).collect();
            assert_eq!(kinds, ["thinking", "text"], "{door}");
        });
    }
    whole.pop();
    for how in MODES {
        through_both(&[events(whole.clone()), events(new.clone())], how, &json!({}), |told, seen, door| {
            told.is_whole();
            let kinds: Vec<&Value> = told.content().iter().map(|block| &block["type"]).collect();
            assert_eq!((kinds, seen.len()), (vec![&json!("thinking"), &json!("text")], 2), "{door}");
            assert_eq!(told.content()[0]["thinking"], "hm", "of one of the two");
        });
    }
}

#[test]
fn a_call_that_was_cut_was_never_seen() {
    let half = [cut(7, TEXT), vec![stop(0), call(1, "dead"), input(1, "{\"x\":")]].concat();
    let calls = vec![stop(0), call(1, "live"), input(1, "{\"x\":2}"), stop(1)];
    let again = [cut(9, TEXT), calls.clone(), totals(5)].concat();
    let on = [vec![start(9), call(0, "live"), input(0, "{\"x\":2}"), stop(0)], totals(5)].concat();
    for (how, second) in [("restart", again), ("continue", on)] {
        through_both(&[events(half.clone()), events(second)], how, &json!({}), |told, _, door| {
            told.is_whole();
            assert_eq!(told.text(), TEXT, "{door}");
            assert_eq!((&told.content()[1]["id"], &told.content()[1]["json"]), (&json!("live"), &json!("{\"x\":2}")));
        });
    }
}

#[test]
fn a_servers_tool_is_not_set_to_work_twice() {
    let half =
        vec![start(7), begin(0, json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}))];
    for how in MODES {
        through_both(&[events(half.clone()), events(reply(9, TEXT))], how, &json!({}), |told, seen, door| {
            assert_eq!((told.code(), seen.len()), ("upstream_broken", 1), "{door}");
        });
    }
}

#[test]
fn of_a_reply_that_lacks_only_its_end_the_end_is_supplied() {
    let whole = reply(7, TEXT);
    for how in MODES {
        through_both(&[events(whole[..whole.len() - 1].to_vec())], how, &json!({}), |told, seen, door| {
            told.is_whole();
            assert_eq!((told.text(), seen.len(), told.recovered.len()), (TEXT.to_owned(), 1, 0), "{door}");
        });
    }
}

#[test]
fn a_second_reply_that_is_another_one_ends_in_an_error_and_is_not_shown() {
    through_both(
        &[events(cut(7, "One two ")), events(reply(9, "No three "))],
        "restart",
        &json!({}),
        |told, _, door| {
            assert_eq!((told.code(), told.text()), ("upstream_broken", "One two ".to_owned()), "{door}");
        },
    );
}

#[test]
fn a_continuation_that_is_refused_ends_as_that_and_one_too_many_is_not_asked_for() {
    let no = r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"},"request_id":"r"}"#;
    through_both(&[events(cut(7, "One two ")), Plays::Refuses(400, no)], "continue", &json!({}), |told, seen, door| {
        assert_eq!(seen.len(), 2, "{door}");
        assert_eq!(told.error.as_ref().unwrap()["error"]["message"], "no");
    });
    through_both(&[events(cut(7, TEXT))], "restart", &json!({}), |told, seen, door| {
        assert_eq!((seen.len(), told.code(), told.text()), (3, "upstream_broken", TEXT.to_owned()), "{door}");
    });
}

#[test]
fn a_continuation_waits_for_quota_as_any_request_does() {
    let limit = r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow"},"request_id":"r"}"#;
    let plays = [events(cut(7, "One two ")), Plays::Refuses(429, limit), events(reply(9, "three "))];
    through_both(&plays, "continue", &json!({}), |told, seen, door| {
        told.is_whole();
        assert_eq!((told.text(), seen.len()), ("One two three ".to_owned(), 3), "{door}");
        assert_eq!((&seen[1], told.recovered.len()), (&seen[2], 1));
    });
}

#[test]
fn all_parts_are_billed_together_and_once() {
    let plays = [events(cut(7, "One two three four ")), events(reply(9, "five "))];
    for door in DOORS {
        let upstream = playing(&plays);
        let tidegate = Tidegate::before(upstream.at, "k", "[log]\nformat = \"json\"\n");
        let told = ask(&tidegate, door, "continue", &[], &json!({}));
        told.is_whole();
        let log = tidegate.says("\"input_tokens\":16");
        let records: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let record = records.iter().find(|record| record["input_tokens"] == 16).unwrap();
        assert_eq!(records.iter().filter(|record| record["output_tokens"].as_u64() > Some(0)).count(), 1, "{door}");
        assert_eq!(
            (&record["output_tokens"], &record["attempts"]),
            (&told.message["usage"]["output_tokens"], &json!(2))
        );
        let page = tidegate.admin("/metrics").text();
        let counted = |kind: &str| -> f64 {
            let lines = page.lines().filter(|l| l.starts_with("tidegate_tokens_total") && l.contains(kind));
            lines.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
        };
        assert_eq!(counted("kind=\"input\""), 16.0, "{page}");
        assert_eq!(counted("kind=\"output\"") as u64, record["output_tokens"].as_u64().unwrap());
        assert!(page.contains("tidegate_stream_recoveries_total{how=\"continue\",outcome=\"taken_up\"} 1"), "{page}");
    }
}

#[test]
fn a_conversation_stores_what_its_client_was_shown() {
    for how in MODES {
        for door in DOORS {
            let second = if how == "restart" { TEXT } else { "three four five six seven eight nine ten. " };
            let upstream = playing(&[events(cut(7, "One two ")), events(reply(9, second))]);
            let folder = Folder::new();
            let config = format!("[conversations]\nfile = \"{}\"\n", folder.path("c.db"));
            let tidegate = Tidegate::before(upstream.at, "k", &config);
            let told = ask(&tidegate, door, how, &[("tidegate-conversation", "c")], &json!({}));
            told.is_whole();
            assert_eq!(told.text(), TEXT, "{how} {door}");
            // The next turn sends it upstream as one message.
            ask(&tidegate, door, how, &[("tidegate-conversation", "c")], &json!({}));
            let next: Value = serde_json::from_slice(&upstream.seen()[2].body).unwrap();
            assert_eq!(next["messages"][1]["role"], "assistant");
            let content = next["messages"][1]["content"].as_array().unwrap();
            assert_eq!((content.len(), &content[0]["text"]), (1, &json!(TEXT)), "{how} {door}");
            tidegate.comes_to_rest();
        }
    }
}

#[test]
fn whoever_comes_back_is_told_of_the_joint_where_it_is() {
    let upstream =
        playing(&[events(cut(7, "One two three four five six seven eight nine ")), events(reply(9, "ten. "))]);
    let tidegate = Tidegate::before(upstream.at, "k", "");
    let lines = [("tidegate-resume", "memory"), ("tidegate-recover", "continue")];
    let mut body = asked(&json!({}));
    body["stream"] = json!(true);
    let first = tidegate.ask(post(&lines, body.to_string()));
    let id = first.header("tidegate-stream").unwrap();
    let joint = first.text().find(": tidegate-recovered").unwrap();
    let cursor = |text: &str| text.rsplit("id: ").next().unwrap().lines().next().unwrap().to_owned();
    let text = first.text();
    let (before, after) = text.split_at(joint);
    let again = |after: &str| tidegate.ask(get(&format!("/v1/streams/{id}?after={after}"), &[])).text();
    // From the beginning, joined as it may be; from just before it; and from after it, where it is past.
    let whole = again("");
    let (head, tail) = whole.split_once(": tidegate-recovered how=continue segment=2\n\n").unwrap();
    assert!(head.contains("nine ") && !head.contains("ten.") && tail.contains("ten."), "{whole}");
    assert!(again(&cursor(before)).starts_with(": tidegate-recovered"));
    let past = cursor(&after[..after.find("event: message_delta").unwrap()]);
    assert!(!again(&past).contains("tidegate-recovered"));
}
