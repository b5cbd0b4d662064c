//! A client of the model for tests: asks, plays the steps, and reads the stream with a reader of
//! its own, written from the API's documentation and nothing else.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

use serde_json::{Value, json};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_simulator::{Action, Exchange, Opening, Pace, RequestFacts, Scenario, Simulator};

pub(crate) const KEY: &str = "sk-ant-acme-1";

/// A simulator without waiting times and limits.
pub(crate) fn simulator(seed: u64) -> Simulator {
    let scenario = Scenario { pace: Pace::immediate(), tier: tidegate_simulator::Tier::Unlimited, ..Scenario::calm() };
    Simulator::new(scenario, seed, 1_795_379_640)
}

pub(crate) fn at(ms: u64) -> Moment {
    Moment::from_nanos(ms * 1_000_000)
}

/// What came of one request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) ordinal: u64,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) after: Duration,
    pub(crate) body: Vec<u8>,
    /// The packets the body came in, with their times.
    pub(crate) packets: Vec<(Duration, Vec<u8>)>,
    /// `end`, `close`, `reset`; `torn-` before it if an HTTP chunk was left unfinished.
    pub(crate) ending: String,
    pub(crate) ended_at: Duration,
    pub(crate) one_byte: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    #[track_caller]
    pub(crate) fn error(&self) -> (u16, String, String) {
        let body = self.json();
        assert_eq!(body["type"], "error");
        assert_eq!(body["request_id"].as_str(), self.header("request-id"));
        (
            self.status,
            body["error"]["type"].as_str().unwrap().to_owned(),
            body["error"]["message"].as_str().unwrap().to_owned(),
        )
    }
}

/// Begins a request with this key and these headers besides the usual ones.
pub(crate) fn begin(
    simulator: &mut Simulator,
    now: Moment,
    key: &str,
    body: &Value,
    more: &[(&str, &str)],
) -> Exchange {
    let mut headers = vec![("anthropic-version", "2023-06-01"), ("x-api-key", key)];
    headers.extend_from_slice(more);
    let body = body.to_string();
    let target = "/v1/messages?beta=true";
    simulator.begin(now, &RequestFacts { method: "POST", target, headers: &headers, body: body.as_bytes() })
}

/// Sends a request with these headers besides the usual ones.
pub(crate) fn ask_with(simulator: &mut Simulator, now: Moment, body: &Value, more: &[(&str, &str)]) -> Answer {
    let exchange = begin(simulator, now, KEY, body, more);
    play(simulator, now, exchange)
}

/// Sends a request with this key.
pub(crate) fn ask_as(simulator: &mut Simulator, now: Moment, key: &str, body: &Value, directives: &str) -> Answer {
    let exchange = begin(simulator, now, key, body, &[("simulate", directives)]);
    play(simulator, now, exchange)
}

pub(crate) fn ask(simulator: &mut Simulator, body: &Value) -> Answer {
    ask_with(simulator, at(0), body, &[])
}

pub(crate) fn simulate(simulator: &mut Simulator, body: &Value, directives: &str) -> Answer {
    ask_with(simulator, at(0), body, &[("simulate", directives)])
}

/// Plays an exchange to its end.
pub(crate) fn play(simulator: &mut Simulator, now: Moment, mut exchange: Exchange) -> Answer {
    let mut answer = Answer {
        ordinal: exchange.ordinal,
        status: 0,
        headers: Vec::new(),
        after: Duration::ZERO,
        body: Vec::new(),
        packets: Vec::new(),
        ending: String::new(),
        ended_at: Duration::ZERO,
        one_byte: exchange.one_byte_packets,
    };
    match &exchange.opening {
        Opening::Head(head) => {
            answer.status = head.status;
            answer.after = head.after;
            answer.headers = head.headers.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        }
        Opening::Reset { after } => (answer.after, answer.ending) = (*after, "reset".to_owned()),
        Opening::Close { after } => (answer.after, answer.ending) = (*after, "close".to_owned()),
    }
    if answer.ending.is_empty() {
        let mut last = Duration::ZERO;
        for step in exchange.playback.by_ref() {
            assert!(step.at >= last, "time runs forward");
            last = step.at;
            answer.ended_at = step.at;
            match step.action {
                Action::Send(bytes) => {
                    answer.body.extend_from_slice(&bytes);
                    answer.packets.push((step.at, bytes.to_vec()));
                }
                Action::Torn { bytes, declared } => {
                    assert!(bytes.len() < declared);
                    answer.body.extend_from_slice(&bytes);
                    answer.ending.push_str("torn-");
                }
                Action::End => answer.ending.push_str("end"),
                Action::Close => answer.ending.push_str("close"),
                Action::HalfClose => answer.ending.push_str("half-close"),
                Action::CloseCode(code) => answer.ending.push_str(&format!("close-{code}")),
                Action::Truncate => answer.ending.push_str("truncate"),
                Action::GoAway { error: true } => answer.ending.push_str("goaway-error"),
                Action::GoAway { error: false } => answer.ending.push_str("goaway-"),
                Action::Reset => answer.ending.push_str("reset"),
            }
        }
        let length = if let Opening::Head(head) = &exchange.opening { head.length } else { None };
        if answer.ending == "end" && length.is_some() {
            assert_eq!(length, Some(answer.body.len() as u64));
        }
    }
    assert!(exchange.playback.next().is_none(), "nothing comes after the end");
    let progress = exchange.playback.progress();
    let sent = if answer.status == 0 { 0 } else { answer.body.len() as u64 };
    assert_eq!(progress.body_bytes, sent);
    simulator.ended(now + answer.after + answer.ended_at, exchange.ordinal, progress);
    answer
}

/// The events of a stream: name and data. Panics on anything that is not well formed.
#[track_caller]
pub(crate) fn events(body: &[u8]) -> Vec<(String, Value)> {
    let text = std::str::from_utf8(body).unwrap();
    assert!(text.ends_with("\n\n"), "the last event is whole");
    let read = |block: &str| {
        let (name, data) = block.split_once('\n').unwrap();
        let name = name.strip_prefix("event: ").unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["type"], name);
        (name.to_owned(), data)
    };
    text[..text.len() - 2].split("\n\n").map(read).collect()
}

/// Reads a whole stream by the grammar and puts the message together from it.
#[track_caller]
pub(crate) fn assemble(events: &[(String, Value)]) -> Value {
    let mut events = events.iter().filter(|(name, _)| name != "ping").peekable();
    let (name, start) = events.next().unwrap();
    assert_eq!(name, "message_start");
    let mut message = start["message"].clone();
    assert_eq!(message["content"], json!([]));
    assert_eq!(message["stop_reason"], Value::Null);
    let mut index = 0;
    let mut tokens = 0;
    while events.peek().is_some_and(|(name, _)| name == "content_block_start") {
        let (_, start) = events.next().unwrap();
        assert_eq!(start["index"], index);
        let mut block = start["content_block"].clone();
        let mut partial = String::new();
        let mut signed = false;
        while events.peek().is_some_and(|(name, _)| name == "content_block_delta") {
            let (_, delta) = events.next().unwrap();
            assert_eq!(delta["index"], index);
            assert!(!signed, "the signature comes last");
            let delta = &delta["delta"];
            let piece = |field: &str| delta[field].as_str().unwrap().to_owned();
            let append = |slot: &mut Value, piece: String| *slot = json!(slot.as_str().unwrap().to_owned() + &piece);
            match (block["type"].as_str().unwrap(), delta["type"].as_str().unwrap()) {
                ("text", "text_delta") => append(&mut block["text"], piece("text")),
                ("thinking", "thinking_delta") => append(&mut block["thinking"], piece("thinking")),
                ("thinking", "signature_delta") => {
                    block["signature"] = json!(piece("signature"));
                    signed = true;
                }
                ("tool_use", "input_json_delta") => partial += &piece("partial_json"),
                other => panic!("{other:?}"),
            }
        }
        match block["type"].as_str().unwrap() {
            "tool_use" => {
                assert_eq!(block["input"], json!({}));
                block["input"] = if partial.is_empty() { json!({}) } else { serde_json::from_str(&partial).unwrap() };
            }
            "thinking" => assert!(signed),
            _ => block["citations"] = Value::Null,
        }
        message["content"].as_array_mut().unwrap().push(block);
        let (name, stop) = events.next().unwrap();
        assert_eq!((name.as_str(), &stop["index"]), ("content_block_stop", &json!(index)));
        index += 1;
    }
    while events.peek().is_some_and(|(name, _)| name == "message_delta") {
        let (_, delta) = events.next().unwrap();
        for (key, value) in delta["delta"].as_object().unwrap() {
            message[key] = value.clone();
        }
        for (key, value) in delta["usage"].as_object().unwrap() {
            message["usage"][key] = value.clone();
        }
        let now = delta["usage"]["output_tokens"].as_u64().unwrap();
        assert!(now >= tokens, "usage is cumulative");
        tokens = now;
    }
    assert!(message["stop_reason"].is_string());
    assert_eq!(events.next().unwrap().0, "message_stop");
    assert!(events.next().is_none(), "nothing comes after message_stop");
    message
}
