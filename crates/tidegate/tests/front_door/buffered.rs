//! Answers that are not streamed to the client: long ones are streamed upstream and put together,
//! short ones go as they are.

use crate::process::Tidegate;
use crate::upstream::{Upstream, plain};
use crate::wire::{message, post};
use std::time::{Duration, Instant};

const OURS: (&str, &str) = ("x-api-key", "sk-ant-x");

#[test]
fn a_long_buffered_answer_is_one_attempt_and_equal_to_the_apis() {
    // Clocks that an answer of many seconds would break, were they not meant for its pieces.
    let clocks =
        "[clocks]\nfirst_byte = \"2 s\"\ngap = \"1 s\"\nprogress = \"2 s\"\nclient_idle = \"1 s\"\nwhole = \"2 s\"\n";
    let tidegate = Tidegate::simulated_with(clocks, &[]);
    let text = message(false, 30_000, "hello");
    let tools = text.replace("\"messages\"", "\"tools\":[{\"name\":\"look_up\",\"input_schema\":{\"type\":\"object\",\"properties\":{\"q\":{\"type\":\"string\"},\"n\":{\"type\":\"integer\"}},\"required\":[\"q\",\"n\"]}}],\"tool_choice\":{\"type\":\"any\"},\"messages\"");
    let thinking = text
        .replace("\"messages\"", "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":2000},\"messages\"")
        .replace("haiku-5-5", "haiku-4-5");
    let stop = text.replace("\"messages\"", "\"stop_sequences\":[\"e\"],\"messages\"");
    for (what, body, simulate) in [
        ("text", &text, "output_tokens=300-300, head_ms=0, first_ms=100, event_ms=60"),
        ("a tool", &tools, "output_tokens=100-100, head_ms=0, first_ms=100, event_ms=20"),
        ("thinking", &thinking, "output_tokens=50-50, thinking_tokens=50-50, head_ms=0, first_ms=100, event_ms=20"),
        ("a stop sequence", &stop, "output_tokens=50-50, head_ms=0, first_ms=0, event_ms=20"),
    ] {
        let began = Instant::now();
        let direct = tidegate.ask_simulator(post(&[OURS, ("simulate", simulate)], body));
        assert_eq!(direct.status, 200, "{what}: {}", direct.text());
        let took = began.elapsed();
        let through = tidegate.ask(post(&[("simulate", simulate)], body));
        assert_eq!(through.status, 200, "{what}: {}", through.text());
        assert_eq!(through.json(), direct.json(), "{what}");
        let keys = |text: &str| {
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
            object.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(keys(&through.text()), keys(&direct.text()), "{what}: in the same order");
        assert_eq!(through.header("content-type"), Some("application/json"));
        assert!(through.header("content-length").is_some() && through.header("request-id").is_some());
        if what == "text" {
            assert!(took > Duration::from_secs(3), "long enough to outlast every clock above: {took:?}");
        }
    }
    assert_eq!(tidegate.truth("/truth")["requests"], 8, "one attempt each, direct and through");
    tidegate.comes_to_rest();
}

#[test]
fn a_short_buffered_request_goes_as_it_is_and_a_long_one_asks_for_a_stream() {
    let upstream = Upstream::saying(plain(200, "content-type: application/json\r\n", "{\"type\":\"message\"}"));
    let tidegate = Tidegate::before(upstream.at, "k", "[retry]\nattempts_max = 1\n");
    let short = message(false, 1024, "hello");
    assert_eq!(tidegate.ask(post(&[], &short)).text(), "{\"type\":\"message\"}");
    assert_eq!(upstream.seen()[0].body, short.as_bytes());
    let long = message(false, 1025, "hello");
    tidegate.ask(post(&[], &long));
    let asked = String::from_utf8(upstream.seen()[1].body.clone()).unwrap();
    assert_eq!(asked, long.replace("\"stream\":false", "\"stream\":true"));
}
