//! Endpoints whose streams are written otherwise than the API writes them: clients read the API's all
//! the same, and what nobody counted is counted.

use crate::process::Tidegate;
use crate::upstream::{BEGIN, END, FINISH, Upstream, chunk, plain, stream_head};
use crate::wire::{Answer, message, post};
use serde_json::{Value, json};
use std::io::Write;

/// What such an endpoint answers with, and a gateway before it.
fn before(said: String) -> (Upstream, Tidegate) {
    let upstream = Upstream::playing(move |_, _, socket| {
        drop(socket.write_all(said.as_bytes()));
        drop(socket.shutdown(std::net::Shutdown::Both));
    });
    let tidegate = Tidegate::before(upstream.at, "their-key", "[retry]\nattempts_max = 1\n");
    (upstream, tidegate)
}

fn streamed(events: &str) -> String {
    format!("{}{}{END}", stream_head(""), chunk(events))
}

/// The events of `text` with each line of a name as `name` has it.
fn renamed(text: &str, name: impl Fn(&str) -> String) -> String {
    let line = |line: &str| line.strip_prefix("event: ").map_or_else(|| format!("{line}\n"), &name);
    text.lines().map(line).collect()
}

fn ask(tidegate: &Tidegate, stream: bool) -> Answer {
    tidegate.ask(post(&[("tidegate-deadline-ms", "5000")], message(stream, 100, "x")))
}

/// Text and end of a stream, by the names that SDKs go by.
#[track_caller]
fn said(answer: &Answer) -> (String, Value) {
    assert_eq!(answer.status, 200, "{} {}", answer.head, answer.text());
    let events = answer.events();
    assert!(events.iter().all(|(name, data)| data["type"] == **name), "{}", answer.text());
    let first = events.iter().find(|(name, _)| name != "ping").unwrap();
    assert_eq!((first.0.as_str(), events.last().unwrap().0.as_str()), ("message_start", "message_stop"));
    let texts = events.iter().filter_map(|(_, data)| data["delta"]["text"].as_str());
    let end = events.iter().find(|(name, _)| name == "message_delta").unwrap();
    (texts.collect(), end.1.clone())
}

#[test]
fn events_without_names_and_under_other_names_reach_sdks_by_their_own() {
    let whole = format!("{BEGIN}{FINISH}");
    for written in [
        renamed(&whole, |_| String::new()),
        renamed(&whole, |_| "event: message\n".to_owned()),
        renamed(&whole, |_| "id: 1\nretry: 5\n".to_owned()).replace("data: {", "data:{"),
        renamed(&whole, |_| String::new()).replace("\",\"", "\",\ndata:   \""),
        whole.replace("event: message_stop\ndata: {\"type\":\"message_stop\"}", "data: [DONE]"),
        format!("{whole}data: [DONE]\n\n"),
    ] {
        for stream in [true, false] {
            let (_upstream, tidegate) = before(streamed(&written));
            if stream {
                let (text, end) = said(&ask(&tidegate, true));
                assert_eq!((text.as_str(), &end["usage"]["output_tokens"]), ("Hi", &json!(2)), "{written}");
            } else {
                // A long one is put together of a stream.
                let answer = tidegate.ask(post(&[], message(false, 30_000, "x")));
                assert_eq!(answer.json()["content"][0]["text"], "Hi", "{written}");
            }
            tidegate.comes_to_rest();
        }
    }
}

#[test]
fn the_type_of_a_stream_may_be_written_in_capitals() {
    let answer = streamed(&format!("{BEGIN}{FINISH}")).replace("text/event-stream;", "Text/Event-Stream ;");
    let (_upstream, tidegate) = before(answer);
    assert_eq!(said(&ask(&tidegate, true)).0, "Hi");
}

#[test]
fn a_message_that_comes_whole_is_the_stream_that_was_asked_for() {
    let body = r#"{"id":"m","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"All of it"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":4}}"#;
    for (usage, estimated) in [("\"usage\":{\"input_tokens\":3,\"output_tokens\":4}", false), ("\"x\":1", true)] {
        let body = body.replace("\"usage\":{\"input_tokens\":3,\"output_tokens\":4}", usage);
        let lines = "content-type: application/json\r\nrequest-id: req_1\r\n";
        let (upstream, tidegate) = before(plain(200, lines, &body));
        let answer = ask(&tidegate, true);
        let (text, end) = said(&answer);
        assert_eq!((text.as_str(), &end["delta"]["stop_reason"]), ("All of it", &json!("end_turn")));
        assert_eq!(end["usage"]["output_tokens"], if estimated { 2 } else { 4 });
        assert_eq!(answer.header("request-id"), Some("req_1"));
        assert!(answer.header("content-type").unwrap().starts_with("text/event-stream"), "{}", answer.head);
        assert_eq!(upstream.seen().len(), 1, "it is paid for once");
        let record = tidegate.says("end=\"answered\"");
        assert_eq!(record.contains("output_estimated"), estimated, "{record}");
        tidegate.comes_to_rest();
    }
}

#[test]
fn a_long_message_that_comes_whole_is_paid_for_once_and_one_that_is_too_large_too() {
    let large = "All of it, \\u00e9 ".repeat(60_000);
    let body = format!(
        r#"{{"id":"m","type":"message","role":"assistant","model":"m","content":[{{"type":"text","text":"{large}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":3,"output_tokens":4}}}}"#
    );
    assert!(body.len() > 512 * 1024);
    let said_once = plain(200, "content-type: application/json\r\n", &body);
    let upstream = Upstream::saying(said_once.clone());
    let tidegate = Tidegate::before(upstream.at, "their-key", "");
    let (text, _) = said(&ask(&tidegate, true));
    assert_eq!(text, "All of it, é ".repeat(60_000));
    let upstream = Upstream::saying(said_once);
    let tidegate = Tidegate::before(upstream.at, "their-key", "[limits]\nanswer_bytes = \"256 KiB\"\n");
    let answer = ask(&tidegate, true);
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_broken"), "{}", answer.text());
    assert!(answer.text().contains("too large"), "{}", answer.text());
    assert_eq!(upstream.seen().len(), 1, "it would be as large again");
}

#[test]
fn output_that_nobody_counts_is_counted_whatever_its_events_look_like() {
    let uncounted = format!("{BEGIN}{FINISH}")
        .replace(",\"usage\":{\"output_tokens\":2}", "")
        .replace("\"Hi\"", "\"Hi there, this is as long as ten tokens.\"");
    let zero =
        uncounted.replace("\"stop_sequence\":null}}", "\"stop_sequence\":null},\"usage\":{\"output_tokens\":0}}");
    assert!(zero.contains("\"output_tokens\":0"));
    let spaced = renamed(&uncounted, |_| String::new()).replace("\":", "\": ").replace(",\"", ", \"");
    for written in [uncounted, zero, spaced] {
        let (_upstream, tidegate) = before(streamed(&written));
        let (_, end) = said(&ask(&tidegate, true));
        assert_eq!(end["usage"]["output_tokens"], 10, "{written}");
        let record = tidegate.says("end=\"answered\"");
        assert!(record.contains("output_tokens=10 ") && record.contains("output_estimated"), "{record}");
        tidegate.comes_to_rest();
    }
}

#[test]
fn an_error_inside_a_stream_is_told_in_the_apis_shape_whatever_its_own() {
    for (event, kind) in [
        ("data: {\"code\":503,\"msg\":\"busy 0a1b\"}\n\n", "api_error"),
        ("data: {\"error\":{\"message\":\"slow\",\"code\":\"rate_limit_exceeded\"}}\n\n", "overloaded_error"),
        ("data: {\"type\":\"error\",\"error\":\"busy\"}\n\n", "api_error"),
        ("event: error\ndata: {\"type\":\"error\",\"message\":\"busy\"}\n\n", "api_error"),
        ("event: error\ndata: {\"error\":{\"message\":\"busy\",\"code\":529}}\n\n", "overloaded_error"),
        ("event: error\ndata: upstream connect error\n\n", "api_error"),
    ] {
        let (_upstream, tidegate) = before(streamed(&format!("{BEGIN}{event}")));
        let answer = ask(&tidegate, true);
        let error = answer.last_error();
        assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!(kind)), "{event}: {error}");
        assert!(error["error"]["details"]["error_code"].is_string(), "{error}");
        assert_eq!(answer.text().matches("event: error").count(), 1);
        for raw in ["\"msg\"", "rate_limit_exceeded", "connect error"] {
            assert!(!answer.text().contains(raw), "{}", answer.text());
        }
        tidegate.comes_to_rest();
    }
}

#[test]
fn a_redirect_is_told_and_not_followed() {
    let elsewhere = Upstream::saying(plain(200, "content-type: application/json\r\n", "{}"));
    let location = format!("location: http://{}/v1/messages\r\n", elsewhere.at);
    for status in [301, 302, 307, 308] {
        let (upstream, tidegate) = before(plain(status, &location, "<html>moved</html>"));
        for path in ["/v1/messages", "/v1/agents"] {
            let answer = tidegate.ask(crate::wire::post_to(path, &[], message(false, 50, "x")));
            assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_broken"), "{status}");
            assert!(answer.text().contains("redirect") && answer.header("location").is_none(), "{}", answer.text());
        }
        assert_eq!(upstream.seen().len(), 2);
        tidegate.comes_to_rest();
    }
    assert!(elsewhere.seen().is_empty(), "no key goes where an answer says");
}

#[test]
fn limits_that_nobody_can_have_hold_nobody_up() {
    let zero = "anthropic-ratelimit-requests-limit: 0\r\nanthropic-ratelimit-requests-remaining: 0\r\nanthropic-ratelimit-input-tokens-limit: 0\r\nanthropic-ratelimit-input-tokens-remaining: 0\r\nanthropic-ratelimit-output-tokens-limit: 0\r\nanthropic-ratelimit-output-tokens-remaining: 0\r\n";
    let huge = zero.replace(": 0\r", &format!(": {}\r", u64::MAX));
    let none = zero.replace(": 0\r", ": -1\r");
    for lines in [zero.to_owned(), huge, none] {
        let answer = format!("{}{}{END}", stream_head(&lines), chunk(&format!("{BEGIN}{FINISH}")));
        let (_upstream, tidegate) = before(answer);
        for _ in 0..5 {
            assert_eq!(said(&ask(&tidegate, true)).0, "Hi", "{lines}");
        }
        tidegate.comes_to_rest();
    }
}
