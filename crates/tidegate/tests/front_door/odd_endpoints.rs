//! Endpoints that speak the API for somebody else's models: their names, their headers, what they
//! leave out, and how they say no. Nothing of it reaches a client as it came.

use crate::process::Tidegate;
use crate::upstream::{BEGIN, FINISH, Upstream, chunk, plain, stream_head};
use crate::wire::{Answer, QUICK, message, post, post_to};
use serde_json::{Value, json};
use std::io::Write;

/// A gateway before an endpoint with settings of its own.
fn endpoint(upstream: &Upstream, lines: &str) -> Tidegate {
    Tidegate::configured(&format!(
        "[[organisation]]\nname = \"odd\"\nurl = \"http://{}/compatible\"\nkeys = [{{ value = \"their-key\" }}]\n{lines}",
        upstream.at
    ))
}

/// An answer of a model called `theirs`, streamed if that was asked for.
fn answering() -> Upstream {
    Upstream::playing(|_, seen, socket| {
        let said = if seen.head.contains("count_tokens") {
            plain(200, "content-type: application/json\r\n", r#"{"input_tokens":5}"#)
        } else if String::from_utf8_lossy(&seen.body).contains("\"stream\":true") {
            let events = format!("{BEGIN}{FINISH}").replace("claude-haiku-5-5", "theirs");
            format!("{}{}0\r\n\r\n", stream_head(""), chunk(&events))
        } else {
            let body = r#"{"id":"m","type":"message","role":"assistant","model":"theirs","content":[],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":2}}"#;
            plain(200, "content-type: application/json\r\n", body)
        };
        drop(socket.write_all(said.as_bytes()));
    })
}

/// The message of an answer, streamed or not, as far as these tests look at it.
fn told(answer: &Answer, stream: bool) -> Value {
    assert_eq!(answer.status, 200, "{} {}", answer.head, answer.text());
    if !stream {
        return answer.json();
    }
    let events = answer.events();
    let mut message = events.iter().find(|(name, _)| name == "message_start").unwrap().1["message"].clone();
    let delta = &events.iter().find(|(name, _)| name == "message_delta").unwrap().1;
    assert_eq!(events.last().unwrap().0, "message_stop");
    message["usage"]["output_tokens"] = delta["usage"]["output_tokens"].clone();
    message
}

#[test]
fn models_have_their_own_names_there_and_the_clients_here() {
    let upstream = answering();
    let tidegate = endpoint(
        &upstream,
        "auth = \"bearer\"\nmodels = { \"claude-haiku-5-5\" = \"small/one\", \"*\" = \"large\" }\nheaders = { X-Team = \"tides\", X-Title = \"gateway\" }\n",
    );
    for (model, theirs) in [("claude-haiku-5-5", "small/one"), ("claude-opus-5-5", "large"), ("anything", "large")] {
        for stream in [false, true] {
            let body = message(stream, 50, "model: claude-haiku-5-5")
                .replace("\"model\":\"claude-haiku-5-5\"", &format!("\"model\":\"{model}\""));
            let answer = tidegate.ask(post(&[("x-title", "the client's")], &body));
            assert_eq!(told(&answer, stream)["model"], model);
            let seen = upstream.seen().pop().unwrap();
            let want = body.replacen(&format!("\"model\":\"{model}\""), &format!("\"model\":\"{theirs}\""), 1);
            assert_eq!(String::from_utf8(seen.body.clone()).unwrap(), want);
            assert!(seen.head.starts_with("POST /compatible/v1/messages HTTP/1.1"), "{}", seen.head);
            assert_eq!((seen.all("authorization"), seen.all("x-api-key")), (vec!["Bearer their-key"], vec![]));
            assert_eq!((seen.all("x-team"), seen.all("x-title")), (vec!["tides"], vec!["gateway"]));
        }
    }
    let body = r#"{"model":"claude-haiku-5-5","messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(tidegate.ask(post_to("/v1/messages/count_tokens", &[], body)).json(), json!({"input_tokens": 5}));
    assert!(String::from_utf8(upstream.seen().pop().unwrap().body).unwrap().contains("small/one"));
    // A long answer is put together here, of a stream.
    let long = tidegate.ask(post(&[], message(false, 9_000, "x")));
    assert_eq!(told(&long, false)["model"], "claude-haiku-5-5");
    // A name that nothing is said of stays what it is, and so does the answer's.
    let plain = endpoint(&upstream, "models = { other = \"x\" }\n");
    assert_eq!(told(&plain.ask(post(&[], message(false, 50, "x"))), false)["model"], "theirs");
    assert_eq!(plain.logged("estimated"), 0, "and what is counted is not estimated");
}

/// Asks the simulator for an oddity.
fn odd(tidegate: &Tidegate, stream: bool, odd: &str, more: &str) -> Answer {
    let fault = format!("fault=odd:{odd}{more}");
    tidegate.ask(post(
        &[QUICK, ("simulate", &fault), ("tidegate-deadline-ms", "1500")],
        message(stream, 100, "How is the sea?"),
    ))
}

#[test]
fn usage_that_is_missing_is_estimated_and_marked() {
    for (missing, estimates) in
        [("no-usage", "input_estimated=true output_estimated=true"), ("part-usage", "input_estimated=true")]
    {
        for stream in [false, true] {
            let tidegate = Tidegate::simulated();
            let answer = odd(&tidegate, stream, missing, "");
            let usage = told(&answer, stream)["usage"].clone();
            let counted = |key: &str| usage[key].as_u64().unwrap_or_else(|| panic!("{missing} {key}: {usage}"));
            assert!(
                (1..200).contains(&counted("input_tokens")) && (1..200).contains(&counted("output_tokens")),
                "{usage}"
            );
            let record = tidegate.says("end=\"answered\"");
            assert!(record.contains(estimates), "{missing} {stream}: {record}");
            assert!(!record.contains("input_tokens=0 ") && !record.contains("output_tokens=0 "), "{record}");
            tidegate.comes_to_rest();
        }
    }
}

#[test]
fn an_endpoint_that_tells_no_limits_is_asked_as_fast_as_any() {
    let tidegate = Tidegate::simulated();
    for _ in 0..20 {
        let answer = odd(&tidegate, true, "no-limits", "");
        assert_eq!((answer.status, answer.header("anthropic-ratelimit-requests-limit")), (200, None));
    }
}

const REFUSALS: [(&str, u16, &str, &str); 11] = [
    ("html-answer", 502, "api_error", "upstream_broken"),
    ("error-answer", 529, "overloaded_error", "upstream_rate_limited"),
    ("html-error", 502, "api_error", "upstream_error"),
    ("text-error", 503, "api_error", "upstream_error"),
    ("empty-error", 500, "api_error", "upstream_error"),
    ("openai-error", 529, "overloaded_error", "upstream_rate_limited"),
    ("openai-refusal", 400, "invalid_request_error", "upstream_refused"),
    ("code-error", 503, "api_error", "upstream_error"),
    ("no-start", 502, "api_error", "upstream_broken"),
    ("chat-chunks", 502, "api_error", "upstream_broken"),
    ("error-event", 529, "overloaded_error", "upstream_rate_limited"),
];

#[test]
fn every_way_of_saying_no_becomes_the_apis() {
    let begun = || Tidegate::simulated_with("[retry]\nattempts_max = 1\n", &[]);
    for (name, status, kind, code) in REFUSALS {
        for stream in [false, true] {
            // Of its own: one that is refused for its quota is asked more slowly afterwards.
            let tidegate = begun();
            let answer = odd(&tidegate, stream, name, "");
            // One that is asked to wait may be told so by the queue as well.
            let told = answer.code().replace("queue_wait_too_long", "upstream_rate_limited");
            assert_eq!((answer.status, told.as_str()), (status, code), "{name} {stream}: {}", answer.text());
            assert_eq!(answer.json()["error"]["type"], kind, "{name} {stream}");
            assert_eq!(answer.header("content-type"), Some("application/json"), "{name}");
            for raw in ["<html", "chatcmpl", "connect error", "\"param\"", "\"msg\"", "0a1b"] {
                assert!(!answer.text().contains(raw), "{name} {stream}: {}", answer.text());
            }
            tidegate.comes_to_rest();
        }
    }
    let tidegate = begun();
    let answer = odd(&tidegate, false, "openai-refusal", "");
    assert_eq!(
        answer.json()["error"]["message"],
        "This model's maximum context length is exceeded",
        "in its own words"
    );
    assert!(odd(&tidegate, false, "code-error", "").text().contains("The service is busy"));
    tidegate.comes_to_rest();
}

#[test]
fn what_may_be_tried_again_is() {
    let tidegate = Tidegate::simulated();
    for (name, ..) in REFUSALS.into_iter().filter(|(name, ..)| *name != "openai-refusal") {
        for stream in [false, true] {
            // Another question each time, so that its first attempt is the first.
            let body = message(stream, 100, &format!("{name} {stream}"));
            let fault = format!("fault=odd:{name}, attempts=1");
            let answer = tidegate.ask(post(&[QUICK, ("simulate", &fault)], body));
            assert!(told(&answer, stream)["usage"]["output_tokens"].as_u64().unwrap() > 1, "{name}");
        }
    }
    tidegate.comes_to_rest();
}

#[test]
fn a_key_or_money_refused_in_other_words_is_still_the_operators() {
    for (status, body, code) in [
        (403, r#"{"code":"InvalidApiKey","message":"Incorrect API key their-key"}"#, "no_upstream_key"),
        (
            401,
            r#"{"error":{"message":"Incorrect API key provided: their-key","type":"invalid_request_error","code":"invalid_api_key"}}"#,
            "no_upstream_key",
        ),
        (
            429,
            r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            "spend_cap",
        ),
        (200, r#"{"code":"Arrearage","message":"Access denied, account in arrears"}"#, "spend_cap"),
    ] {
        let upstream = Upstream::saying(plain(status, "content-type: application/json\r\n", body));
        let tidegate = endpoint(&upstream, "");
        for stream in [false, true] {
            let answer = tidegate.ask(post(&[("tidegate-deadline-ms", "1500")], message(stream, 50, "x")));
            let told = answer.code();
            assert!(told == code || told == "upstream_key_rejected", "{status} {body}: {}", answer.text());
            assert!(answer.status >= 500 && !answer.text().contains("their-key"), "{}", answer.text());
        }
        assert_eq!(upstream.seen().len(), 1, "it is left alone: {body}");
    }
}

#[test]
fn the_scenario_plays_an_odd_endpoint_and_clients_notice_nothing() {
    let tidegate = Tidegate::simulated_with("", &["--scenario", "odd-endpoint", "--seed", "5"]);
    for n in 0..60 {
        let stream = n % 2 == 0;
        let pace = ("simulate", "output_tokens=20, head_ms=0, first_ms=0, event_ms=0");
        let answer = tidegate.ask(post(&[pace], message(stream, 100, &format!("number {n}"))));
        let usage = told(&answer, stream)["usage"].clone();
        assert!(usage["input_tokens"].as_u64() > Some(0) && usage["output_tokens"].as_u64() > Some(0), "{usage}");
    }
    assert!(tidegate.truth("/truth")["faults_planned"]["odd"].as_u64() > Some(60));
    tidegate.comes_to_rest();
}
