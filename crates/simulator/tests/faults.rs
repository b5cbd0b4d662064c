//! Every fault strikes where it was put, and nowhere else.

mod reader;

use proptest::prelude::*;
use reader::{Answer, ask, assemble, events, simulate, simulator};
use serde_json::{Value, json};
use std::time::Duration;

fn hello(stream: bool) -> Value {
    json!({"model": "claude-haiku-4-5", "max_tokens": 1_000, "stream": stream, "messages": [{"role": "user", "content": "hello"}]})
}

/// The answer under a fault, and the whole one without.
fn struck(fault: &str) -> (Answer, Answer) {
    let answer = simulate(&mut simulator(4), &hello(true), &format!("fault={fault}"));
    (answer, ask(&mut simulator(4), &hello(true)))
}

#[track_caller]
fn cut(fault: &str, ending: &str, follows: &str) -> Answer {
    let (answer, whole) = struck(fault);
    assert_eq!(answer.ending, ending, "{fault}");
    assert!(whole.body.starts_with(&answer.body), "{fault}: what came is the beginning of the answer");
    let rest = String::from_utf8_lossy(&whole.body[answer.body.len()..]).into_owned();
    assert!(rest.starts_with(follows), "{fault}: the rest is {rest:.80}");
    answer
}

#[test]
fn a_cut_at_a_byte_is_at_that_byte() {
    for (fault, ending) in [("reset-at:300", "torn-reset"), ("close-at:300", "torn-close"), ("end-at:300", "end")] {
        assert_eq!(cut(fault, ending, "").body.len(), 300);
    }
    assert_eq!(cut("reset-at:0", "reset", "event: message_start").body.len(), 0);
}

proptest! {
    #[test]
    fn any_byte_of_the_answer_can_be_cut_at(n in 0usize..6_000, seed in any::<u64>(), stream in any::<bool>()) {
        let whole = ask(&mut simulator(seed), &hello(stream)).body;
        let answer = simulate(&mut simulator(seed), &hello(stream), &format!("fault=reset-at:{n}"));
        prop_assert_eq!(answer.body, &whole[..n.min(whole.len())]);
        prop_assert_eq!(answer.ending.ends_with("reset"), n < whole.len());
    }
}

#[test]
fn a_cut_inside_a_character_leaves_half_of_it() {
    for seed in 0..50 {
        let answer = simulate(&mut simulator(seed), &hello(true), "fault=reset-at:in-utf8");
        let error = std::str::from_utf8(&answer.body).unwrap_err();
        assert_eq!(error.error_len(), None, "an unfinished character, not a wrong one");
        assert!(error.valid_up_to() < answer.body.len());
    }
}

#[test]
fn a_cut_inside_data_leaves_an_open_line_of_content() {
    for seed in 0..50 {
        let answer = simulate(&mut simulator(seed), &hello(true), "fault=close-at:in-data");
        let text = String::from_utf8_lossy(&answer.body);
        let last = text.rsplit("\n\n").next().unwrap();
        assert!(last.starts_with("event: content_block_delta\ndata: {"), "{last}");
        assert!(serde_json::from_str::<Value>(last.split_once("data: ").unwrap().1).is_err());
    }
}

#[test]
fn a_cut_between_the_last_events_is_between_them() {
    cut("end-at:before-delta", "end", "event: message_delta\n");
    cut("reset-at:before-delta", "reset", "event: message_delta\n");
    cut("end-at:before-stop", "end", "event: message_stop\n");
    cut("close-at:before-stop", "close", "event: message_stop\n");
    cut("end-at:event-1", "end", "event: content_block_start\n");
}

#[test]
fn a_cut_inside_a_tools_input_leaves_it_unfinished() {
    let mut body = hello(true);
    body["tools"] = json!([{"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}]);
    body["tool_choice"] = json!({"type": "any"});
    let answer = simulate(&mut simulator(4), &body, "fault=reset-at:in-tool");
    let text = String::from_utf8_lossy(&answer.body);
    assert!(
        text.contains("\"tool_use\"") && text.rsplit("\n\n").next().unwrap().starts_with("event: content_block_delta"),
        "{text}"
    );
}

#[test]
fn a_stall_is_silent_and_its_answer_arrives_whole_after_it() {
    let (answer, whole) = struck("stall-at:400:90s");
    assert_eq!(answer.body, whole.body);
    let sent_before: usize = answer.packets.iter().filter(|(at, _)| at.is_zero()).map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(sent_before, 400);
    assert_eq!(answer.ended_at, Duration::from_secs(90));
}

#[test]
fn a_stall_with_pings_has_nothing_else() {
    let answer = simulate(&mut simulator(4), &hello(true), "ping_ms=10000, fault=pings-at:in-data:35s");
    let quiet: Vec<&(Duration, Vec<u8>)> =
        answer.packets.iter().filter(|(at, _)| !at.is_zero() && *at < Duration::from_secs(35)).collect();
    assert_eq!(quiet.iter().map(|(at, _)| at.as_secs()).collect::<Vec<_>>(), [10, 20, 30]);
    assert!(quiet.iter().all(|(_, bytes)| bytes.starts_with(b"event: ping\n")));
    assemble(&events(&answer.body));
}

#[test]
fn an_error_event_is_the_last() {
    let (answer, _) = struck("error-at:in-data");
    let events = events(&answer.body);
    let (name, last) = events.last().unwrap();
    assert_eq!((name.as_str(), &last["error"]["type"]), ("error", &json!("overloaded_error")));
    assert_eq!(last["request_id"].as_str(), answer.header("request-id"));
    assert_eq!((answer.status, answer.ending.as_str()), (200, "end"));
    let (answer, _) = struck("error-at:event-0:api_error");
    assert!(answer.text().starts_with("event: error\n"));
}

#[test]
fn garbage_is_one_event_and_the_rest_is_well() {
    let (answer, whole) = struck("garbage-at:in-data");
    let blocks =
        |body: &[u8]| String::from_utf8(body.to_vec()).unwrap().split("\n\n").map(str::to_owned).collect::<Vec<_>>();
    let (rotten, good) = (blocks(&answer.body), blocks(&whole.body));
    assert_eq!(rotten.len(), good.len());
    let differ: Vec<usize> = (0..good.len()).filter(|n| rotten[*n] != good[*n]).collect();
    assert_eq!(differ.len(), 1);
    let data = rotten[differ[0]].split_once("data: ").unwrap().1;
    assert!(serde_json::from_str::<Value>(data).is_err(), "{data}");
}

#[test]
fn added_events_leave_the_answer_as_it_is() {
    let (answer, whole) = struck("unknown-at:in-data");
    let extra =
        events(&answer.body).into_iter().filter(|(name, _)| name != "content_block_glimmer").collect::<Vec<_>>();
    assert_eq!(extra, events(&whole.body));
    assert_eq!(events(&answer.body).len(), extra.len() + 1);
    let (answer, whole) = struck("duplicate-at:in-data");
    let twice = events(&answer.body);
    assert_eq!(twice.len(), events(&whole.body).len() + 1);
    assert_eq!(twice.windows(2).filter(|pair| pair[0] == pair[1]).count(), 1);
}

/// Thinking that is shown, some text, and two calls side by side.
fn every_block() -> Value {
    let tool =
        |name: &str| json!({"name": name, "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}});
    json!({"model": "claude-sonnet-4-5", "max_tokens": 5_000, "stream": true,
        "thinking": {"type": "enabled", "budget_tokens": 2_000}, "tools": [tool("alpha"), tool("beta")],
        "messages": [{"role": "user", "content": "use alpha and beta"}]})
}

#[test]
fn a_place_has_the_name_of_what_it_is_in() {
    for seed in 0..50 {
        let whole = ask(&mut simulator(seed), &every_block());
        let message = assemble(&events(&whole.body));
        let kinds: Vec<&str> =
            message["content"].as_array().unwrap().iter().map(|b| b["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["thinking", "text", "tool_use", "tool_use"]);
        for (place, piece) in
            [("in-text", "\"text_delta\""), ("in-thinking", "thinking"), ("in-tool", "\"input_json_delta\"")]
        {
            let answer = simulate(&mut simulator(seed), &every_block(), &format!("fault=close-at:{place}"));
            assert_eq!(answer.ending, "torn-close", "{place}");
            assert!(whole.body.starts_with(&answer.body));
            let at = String::from_utf8_lossy(&answer.body).rfind("\n\n").unwrap() + 2;
            let hit = String::from_utf8_lossy(&whole.body[at..]).into_owned();
            let hit = hit.split("\n\n").next().unwrap();
            let signed = place == "in-thinking" && hit.contains("\"signature_delta\"");
            assert!(hit.starts_with("event: content_block_delta") && (hit.contains(piece) || signed), "{place}: {hit}");
            assert!(answer.body.len() > at + "event: content_block_delta\ndata: ".len(), "{place}");
        }
        let answer = simulate(&mut simulator(seed), &every_block(), "fault=reset-at:between-tools");
        let rest = String::from_utf8_lossy(&whole.body[answer.body.len()..]).into_owned();
        assert!(rest.starts_with("event: content_block_start\n"), "{rest:.80}");
        assert_eq!((rest.matches("\"tool_use\",\"id\"").count(), answer.ending.as_str()), (1, "reset"));
    }
    let answer = simulate(&mut simulator(4), &every_block(), "fault=error-at:in-thinking, fault=one-byte");
    assert!(!answer.text().contains("text_delta") && answer.text().contains("overloaded_error"));
}

#[test]
fn thinking_that_is_not_shown_is_cut_in_its_signature() {
    let mut body = every_block();
    body["thinking"]["display"] = json!("omitted");
    let answer = simulate(&mut simulator(4), &body, "fault=reset-at:in-thinking");
    assert_eq!(answer.ending, "torn-reset");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let last = text.rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("event: content_block_delta\ndata: {") && !text.contains("thinking_delta"), "{last}");
}

#[test]
fn a_connection_ends_in_every_way_there_is() {
    for (fault, ending) in [
        ("half-close-at:in-data", "torn-half-close"),
        ("truncate-at:in-data", "torn-truncate"),
        ("goaway-at:in-data:error", "torn-goaway-error"),
        ("goaway-at:event-4:error", "goaway-error"),
    ] {
        cut(fault, ending, "");
    }
    let (answer, whole) = struck("goaway-at:event-4");
    assert_eq!((answer.ending.as_str(), answer.body), ("goaway-end", whole.body));
}

#[test]
fn two_events_change_places_and_a_ping_is_none_of_them() {
    for (place, first, second) in
        [("before-delta", "message_stop", "message_delta"), ("event-1", "content_block_delta", "content_block_start")]
    {
        let (answer, whole) = struck(&format!("swap-at:{place}"));
        let (swapped, good) = (events(&answer.body), events(&whole.body));
        assert_eq!((swapped.len(), answer.ending.as_str()), (good.len(), "end"), "{place}");
        let away: Vec<usize> = (0..good.len()).filter(|n| swapped[*n] != good[*n]).collect();
        let names: Vec<&str> = swapped.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "ping").collect();
        assert!(names.windows(2).any(|pair| pair == [first, second]), "{place}: {names:?}");
        assert!((2..=3).contains(&away.len()), "{place}: {away:?}");
    }
    // Nothing follows the last event, so it stays where it is.
    let (answer, whole) = struck("swap-at:before-stop");
    assert_eq!(answer.body, whole.body);
}

#[test]
fn a_huge_event_is_as_large_as_asked_and_the_answer_is_whole_around_it() {
    for (fault, bytes) in [("huge-at:in-text", 10_000_000), ("huge-at:in-text:300 KB", 300_000)] {
        let (answer, whole) = struck(fault);
        assert_eq!(answer.body.len(), whole.body.len() + bytes);
        let mut all = events(&answer.body);
        all.retain(|(name, _)| name != "content_block_glimmer");
        assert_eq!(all, events(&whole.body));
    }
}

#[test]
fn several_faults_meet_in_one_answer() {
    let answer = simulate(
        &mut simulator(4),
        &hello(true),
        "fault=unknown-at:event-3, fault=stall-at:event-4:5s, fault=end-at:before-stop, fault=one-byte",
    );
    assert!(answer.one_byte && answer.text().contains("glimmer") && !answer.text().contains("event: message_stop"));
    assert_eq!(answer.ended_at, Duration::from_secs(5));
}

#[test]
fn nothing_is_put_inside_an_event_that_is_half_out() {
    let whole = ask(&mut simulator(4), &hello(true));
    let answer =
        simulate(&mut simulator(4), &hello(true), "fault=stall-at:100:5s, fault=unknown-at:120, fault=error-at:130");
    let events = events(&answer.body);
    assert_eq!(events[0], reader::events(&whole.body)[0]);
    assert_eq!(
        events.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>()[1..],
        ["content_block_glimmer", "error"]
    );
}

#[test]
fn statuses_come_in_their_envelopes() {
    for (status, kind) in [
        (500, "api_error"),
        (503, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
        (429, "rate_limit_error"),
    ] {
        let answer = simulate(&mut simulator(4), &hello(true), &format!("fault=slow-head:3s, fault=status:{status}"));
        assert_eq!((answer.error().0, answer.error().1.as_str()), (status, kind));
        assert_eq!((answer.header("retry-after"), answer.after), (None, Duration::from_secs(3)));
    }
    let answer = simulate(&mut simulator(4), &hello(true), "fault=status:529:11");
    assert_eq!(answer.header("retry-after"), Some("11"));
    let edge = simulate(&mut simulator(4), &hello(true), "fault=status:502");
    assert_eq!((edge.header("content-type"), edge.header("request-id")), (Some("text/html"), None));
}

#[test]
fn a_connection_can_break_before_the_answer() {
    for (fault, ending) in [("reset-before-head", "reset"), ("close-before-head", "close")] {
        let answer = simulate(&mut simulator(4), &hello(true), &format!("fault={fault}"));
        assert_eq!((answer.status, answer.ending.as_str()), (0, ending));
    }
}

#[test]
fn a_buffered_answer_meets_the_faults_it_can_meet() {
    let with = |fault: &str| simulate(&mut simulator(4), &hello(false), &format!("fault={fault}"));
    assert_eq!(with("error-at:in-data").status, 529);
    assert_eq!(with("stall-at:in-data:30s").after, Duration::from_secs(30));
    assert_eq!(with("end-at:before-stop").ending, "torn-close");
    assert!(serde_json::from_slice::<Value>(&with("garbage-at:in-data").body).is_err());
    for added in ["unknown-at:event-1", "swap-at:event-1", "huge-at:event-1"] {
        assert_eq!(with(added).body, ask(&mut simulator(4), &hello(false)).body, "{added}");
    }
    assert_eq!(with("truncate-at:in-text").ending, "torn-truncate");
}
