//! Whatever is asked, the stream keeps the API's grammar and says what the buffered answer says.

mod reader;

use proptest::prelude::*;
use reader::{ask, ask_with, assemble, at, events, simulate, simulator};
use serde_json::{Value, json};

fn tool(name: &str) -> Value {
    json!({"name": name, "input_schema": {"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}, "units": {"enum": ["C", "F"]}}}})
}

prop_compose! {
    fn requests()(
        model in prop::sample::select(vec!["claude-sonnet-5-5", "claude-fable-5-2", "claude-opus-4-8", "claude-sonnet-4-6", "claude-haiku-4-5", "echo", "claude-opus-5-5"]),
        words in "[a-zA-Zäöü日🌊 .,\"\\\\]{1,80}",
        max_tokens in prop::sample::select(vec![1u64, 2, 7, 40, 200, 5_000]),
        thinks in 0u8..4,
        tools in 0u8..5,
        stop in prop::option::of(prop::sample::select(vec!["tide", ". ", "a", "\n\n"])),
    ) -> Value {
        let mut body = json!({"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": words}]});
        match (thinks, model) {
            (1, "claude-haiku-4-5") if max_tokens > 1_024 => body["thinking"] = json!({"type": "enabled", "budget_tokens": 1_024}),
            (1 | 2, "claude-haiku-4-5") => {}
            (1, _) => body["thinking"] = json!({"type": "adaptive", "display": "summarized"}),
            (2, _) => body["thinking"] = json!({"type": "adaptive", "display": "omitted"}),
            _ => {}
        }
        if tools > 0 {
            body["tools"] = json!([tool("get_weather"), tool("say")]);
        }
        match tools {
            2 if thinks != 1 => body["tool_choice"] = json!({"type": "any"}),
            3 if thinks != 1 => body["tool_choice"] = json!({"type": "tool", "name": "say"}),
            4 => body["messages"][0]["content"] = json!("get_weather and say, please"),
            _ => {}
        }
        if let Some(stop) = stop.filter(|stop| !stop.trim().is_empty()) {
            body["stop_sequences"] = json!([stop]);
        }
        body
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn the_stream_assembled_is_the_buffered_answer(mut body in requests(), seed in any::<u64>()) {
        let buffered = ask(&mut simulator(seed), &body);
        prop_assert_eq!(buffered.status, 200, "{}", buffered.text());
        body["stream"] = json!(true);
        let streamed = ask(&mut simulator(seed), &body);
        prop_assert_eq!(streamed.header("content-type"), Some("text/event-stream; charset=utf-8"));
        let message = assemble(&events(&streamed.body));
        prop_assert_eq!(&message, &buffered.json());
        prop_assert!(message["usage"]["output_tokens"].as_u64() <= body["max_tokens"].as_u64());
        let calls = message["content"].as_array().unwrap().iter().any(|block| block["type"] == "tool_use");
        prop_assert_eq!(message["stop_reason"] == "tool_use", calls && message["stop_reason"] != "max_tokens");
        if message["stop_reason"] == "stop_sequence" {
            let stop = message["stop_sequence"].as_str().unwrap();
            for block in message["content"].as_array().unwrap() {
                prop_assert!(block["type"] != "text" || !block["text"].as_str().unwrap().contains(stop));
            }
        }
    }

    #[test]
    fn same_seed_and_request_same_bytes(mut body in requests(), seed in any::<u64>(), stream in any::<bool>()) {
        body["stream"] = json!(stream);
        let first = ask(&mut simulator(seed), &body);
        let mut second = simulator(seed);
        ask(&mut second, &json!({}));
        prop_assert_eq!(&first.packets, &ask(&mut second, &body).packets, "another request before makes no difference");
    }

    #[test]
    fn echo_says_what_was_said(words in "\\PC{1,300}", seed in any::<u64>()) {
        let body = json!({"model": "echo-1", "max_tokens": 4_000, "stream": true, "messages": [{"role": "user", "content": words}]});
        let message = assemble(&events(&simulate(&mut simulator(seed), &body, "chars=1-5").body));
        prop_assert_eq!(message["content"][0]["text"].as_str(), Some(words.as_str()));
    }
}

fn hello(model: &str) -> Value {
    json!({"model": model, "max_tokens": 1_000, "messages": [{"role": "user", "content": "hello"}]})
}

#[test]
fn an_answer_has_every_field_of_the_api() {
    let answer = ask(&mut simulator(1), &hello("echo")).json();
    let fields: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "id",
            "type",
            "role",
            "model",
            "content",
            "stop_reason",
            "stop_sequence",
            "stop_details",
            "container",
            "diagnostics",
            "usage"
        ]
    );
    assert_eq!(answer["content"], json!([{"type": "text", "text": "hello", "citations": null}]));
    assert_eq!(answer["model"], "echo");
    assert_eq!(
        answer["usage"],
        json!({"input_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
               "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
               "output_tokens": 2, "output_tokens_details": {"thinking_tokens": 0}, "server_tool_use": null,
               "service_tier": "standard", "inference_geo": "global", "speed": "standard"})
    );
}

#[test]
fn a_seed_changes_the_answer() {
    let body = hello("claude-haiku-4-5");
    assert_ne!(ask(&mut simulator(1), &body).body, ask(&mut simulator(2), &body).body);
    let directed = simulate(&mut simulator(1), &body, "seed=2").body;
    assert_eq!(directed, ask(&mut simulator(2), &body).body);
}

#[test]
fn a_length_asked_for_is_kept_exactly() {
    let mut body = hello("claude-haiku-4-5");
    body["max_tokens"] = json!(10_000);
    let answer = simulate(&mut simulator(3), &body, "output_tokens=2000").json();
    assert_eq!((&answer["usage"]["output_tokens"], &answer["stop_reason"]), (&json!(2_000), &json!("end_turn")));
    body["max_tokens"] = json!(300);
    let answer = simulate(&mut simulator(3), &body, "output_tokens=2000").json();
    assert_eq!((&answer["usage"]["output_tokens"], &answer["stop_reason"]), (&json!(300), &json!("max_tokens")));
}

#[test]
fn thinking_omitted_shows_its_signature_and_counts_its_tokens() {
    let mut body = hello("claude-opus-4-8");
    body["thinking"] = json!({"type": "adaptive"});
    let answer = simulate(&mut simulator(3), &body, "thinking_tokens=77, output_tokens=10").json();
    let thought = &answer["content"][0];
    assert_eq!((&thought["type"], &thought["thinking"]), (&json!("thinking"), &json!("")));
    assert!(thought["signature"].as_str().unwrap().len() > 90);
    assert_eq!(answer["usage"]["output_tokens_details"]["thinking_tokens"], 77);
    assert_eq!(answer["usage"]["output_tokens"], 87);
    body["thinking"]["display"] = json!("summarized");
    let answer = simulate(&mut simulator(3), &body, "thinking_tokens=77").json();
    assert!(answer["content"][0]["thinking"].as_str().unwrap().len() > 100);
}

#[test]
fn a_tool_loop_goes_round() {
    let mut body = json!({"model": "claude-fable-5-2", "max_tokens": 4_000, "thinking": {"type": "adaptive", "display": "summarized"},
        "tools": [tool("get_weather")], "messages": [{"role": "user", "content": "use a tool"}]});
    let mut simulator = simulator(5);
    let first = ask(&mut simulator, &body).json();
    assert_eq!(first["stop_reason"], "tool_use");
    let call = first["content"].as_array().unwrap().last().unwrap().clone();
    assert!(
        call["id"].as_str().unwrap().starts_with("toolu_")
            && (1..=9).contains(&call["input"]["days"].as_u64().unwrap())
    );
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": first["content"]}));
    messages.push(
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "rain"}]}),
    );
    let second = ask(&mut simulator, &body);
    assert_eq!(second.status, 200, "{}", second.text());
    assert_eq!(second.json()["stop_reason"], "end_turn");
}

#[test]
fn a_format_asked_for_is_kept() {
    let mut body = hello("claude-sonnet-4-6");
    body["output_config"] = json!({"format": {"type": "json_schema", "schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}});
    let answer = ask(&mut simulator(5), &body).json();
    let text: Value = serde_json::from_str(answer["content"][0]["text"].as_str().unwrap()).unwrap();
    assert!(text["n"].is_u64());
}

#[test]
fn warming_the_cache_answers_nothing() {
    let mut body = hello("claude-sonnet-5-5");
    body["max_tokens"] = json!(0);
    let answer = ask(&mut simulator(5), &body).json();
    assert_eq!((&answer["content"], &answer["stop_reason"]), (&json!([]), &json!("max_tokens")));
    assert_eq!(answer["usage"]["output_tokens"], 0);
}

#[test]
fn counting_says_what_usage_says() {
    let mut simulator = simulator(1);
    let body = json!({"model": "claude-fable-5-2", "max_tokens": 9, "system": "be brief", "tools": [tool("say")],
        "messages": [{"role": "user", "content": "how long is this, in tokens? 港口"}]});
    let answered = ask(&mut simulator, &body).json()["usage"]["input_tokens"].clone();
    let mut count = body.clone();
    count.as_object_mut().unwrap().shift_remove("max_tokens");
    let headers = [("anthropic-version", "2026-10-21"), ("authorization", "Bearer sk-ant-acme-1")];
    let text = count.to_string();
    let facts = tidegate_simulator::RequestFacts {
        method: "POST",
        target: "/v1/messages/count_tokens",
        headers: &headers,
        body: text.as_bytes(),
    };
    let exchange = simulator.begin(at(0), &facts);
    assert_eq!(reader::play(&mut simulator, at(0), exchange).json(), json!({"input_tokens": answered}));
}

#[test]
fn pace_is_kept_and_silence_is_broken_by_pings() {
    let mut body = hello("claude-haiku-4-5");
    body["stream"] = json!(true);
    let directives =
        "head_ms=500, first_ms=7000, event_ms=100, ping_ms=2000, jitter_percent=0, chars=10, output_tokens=50";
    let answer = ask_with(&mut simulator(1), at(0), &body, &[("simulate", directives)]);
    assert_eq!(answer.after.as_millis(), 500);
    let kinds: Vec<(u128, String)> =
        answer.packets.iter().map(|(at, bytes)| (at.as_millis(), events(bytes)[0].0.clone())).collect();
    let pings: Vec<u128> = kinds.iter().filter(|(_, kind)| kind == "ping").map(|(at, _)| *at).collect();
    assert_eq!(pings, [0, 2_000, 4_000, 6_000]);
    let deltas: Vec<u128> = kinds.iter().filter(|(_, kind)| kind == "content_block_delta").map(|(at, _)| *at).collect();
    assert_eq!(deltas[..3], [7_000, 7_100, 7_200]);
    body["stream"] = json!(false);
    let buffered = ask_with(&mut simulator(1), at(0), &body, &[("simulate", directives)]);
    assert_eq!(
        buffered.after,
        answer.after + answer.ended_at,
        "a buffered answer comes when the stream would have ended"
    );
}

#[test]
fn unseen_thinking_takes_its_time_in_pings() {
    let mut body = hello("claude-opus-4-8");
    body["thinking"] = json!({"type": "adaptive"});
    body["max_tokens"] = json!(20_000);
    body["stream"] = json!(true);
    let answer = simulate(
        &mut simulator(1),
        &body,
        "thinking_tokens=6000, tokens_per_second=100, jitter_percent=0, ping_ms=10000",
    );
    let (signed, _) =
        answer.packets.iter().find(|(_, bytes)| String::from_utf8_lossy(bytes).contains("signature_delta")).unwrap();
    assert!((59..=61).contains(&signed.as_secs()), "{signed:?}");
    assert!(answer.packets.iter().filter(|(_, bytes)| bytes.starts_with(b"event: ping")).count() >= 6);
}
