//! Random histories as turns of a conversation, made into requests by the code that serves turns,
//! and each of them put before the simulated API's validator: none may be refused.
//!
//! The histories are those of the conversation room's own test (`talk.rs` there); what only this room
//! does is added: system prompt, tools and marks around the messages, budgets and margins from the
//! headers' numbers, answers that broke off, answers without content, windows whose state was kept and
//! read again, summaries, and what the API's own count teaches. The validator was written apart from
//! all of it and shares no code with it.
//!
//! Seeds `TIDEGATE_HISTORIES_SEED` (0) to as many as `TIDEGATE_HISTORIES` says (300 if unset);
//! `cargo xtask histories` runs more. A failure prints its seed.

#![allow(clippy::print_stdout, reason = "how much was tried is told")]

#[path = "../../../conversation/tests/windows/talk.rs"]
#[allow(dead_code, reason = "the other test that is made from it uses all of it")]
mod talk;

use super::TurnTrouble;
use super::fit::{Fitting, Frame, Gauge, fit};
use super::talk::Talk;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use talk::Payload;
use tidegate_base::{Moment, Prng};
use tidegate_conversation::budget::Rules;
use tidegate_conversation::compress::Summary;
use tidegate_conversation::message::Message;
use tidegate_conversation::window::{View, What, Window};
use tidegate_simulator::{Action, Opening, RequestFacts, Scenario, Simulator};
use tidegate_store::Status;
use tidegate_wire::assemble::Assembler;
use tidegate_wire::request::MessagesRequest;
use tidegate_wire::sse;

/// Histories after which a long run tells how far it is.
const TOLD_EVERY: u64 = 50_000;

/// How many there were of what.
type Tally = BTreeMap<&'static str, u64>;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn no_window_of_any_history_is_refused_by_the_api() {
    let (from, count) = (number("TIDEGATE_HISTORIES_SEED", 0), number("TIDEGATE_HISTORIES", 300));
    let payloads = talk::payloads();
    let mut judge = Judge::new();
    let mut tally = Tally::new();
    for seed in from..from + count {
        if seed > from && (seed - from).is_multiple_of(TOLD_EVERY) {
            println!("{} of {count} histories: {} requests", seed - from, tally["requests"]);
        }
        if let Err(why) = run(seed, &payloads, &mut judge, &mut tally) {
            panic!("seed {seed}: {why}\nagain with TIDEGATE_HISTORIES_SEED={seed} TIDEGATE_HISTORIES=1");
        }
    }
    println!("{count} histories from seed {from}, none of their windows refused: {tally:?}");
    let rare = ["requests", "cut", "elided", "thoughtless", "dropped", "summaries", "recalled", "pinned", "too large"];
    for what in rare.into_iter().chain(["broken off", "read again", "marked elsewhere"]) {
        assert!(count < 300 || tally.get(what).is_some_and(|n| *n > 0), "no {what} in {tally:?}");
    }
}

#[test]
fn a_window_that_breaks_a_rule_is_refused_here() {
    let mut judge = Judge::new();
    let body = |messages: Value| json!({"model": "claude-opus-4-8", "max_tokens": 9, "messages": messages}).to_string();
    let sealed = json!({"type": "thinking", "thinking": "hm", "signature": "forged"});
    let wrong = [
        (json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]), "unexpected"),
        (json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": [sealed]}]), "signature"),
        (json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]), "prefill"),
    ];
    for (messages, says) in wrong {
        let why = judge.counts(body(messages).as_bytes()).unwrap_err();
        assert!(why.contains(says), "{why}");
    }
    assert!(judge.counts(body(json!([{"role": "user", "content": "a"}])).as_bytes()).is_ok_and(|tokens| tokens > 0));
}

/// The simulated API.
struct Judge(Simulator, u64);

impl Judge {
    fn new() -> Self {
        Judge(Simulator::new(Scenario::parse("[quota]\ntier = \"unlimited\"\n").unwrap(), 1, 0), 0)
    }

    /// The input tokens it counts in a request that it takes, or what it says.
    fn counts(&mut self, body: &[u8]) -> Result<u64, String> {
        let headers = [("x-api-key", "sk-ant-test-1"), ("anthropic-version", "2026-10-21")];
        let facts = RequestFacts { method: "POST", target: "/v1/messages/count_tokens", headers: &headers, body };
        let mut exchange = self.0.begin(Moment::ZERO, &facts);
        let mut text = Vec::new();
        for step in exchange.playback.by_ref() {
            if let Action::Send(bytes) = step.action {
                text.extend_from_slice(&bytes);
            }
        }
        self.0.ended(Moment::ZERO, exchange.ordinal, exchange.playback.progress());
        self.1 += 1;
        if self.1.is_multiple_of(1_000) {
            self.0.reset_truth(Moment::ZERO);
        }
        let Opening::Head(head) = &exchange.opening else { return Err("no answer".into()) };
        let answer: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let tokens = answer["input_tokens"].as_u64().filter(|_| head.status == 200);
        tokens.ok_or_else(|| format!("the API says {}: {answer}", head.status))
    }
}

/// A turn that is under way.
struct Asked {
    /// Messages there were before.
    before: usize,
    new: Vec<String>,
    view: View,
    estimated: u64,
    counted: u64,
}

/// One history with its settings.
struct Case {
    prng: Prng,
    talk: Talk,
    name: String,
    gauge: Gauge,
    rules: Rules,
    /// The request around its messages.
    around: String,
    window: u64,
    recalls: bool,
    asked: Option<Asked>,
}

fn run(seed: u64, payloads: &[Payload; 2], judge: &mut Judge, tally: &mut Tally) -> Result<(), String> {
    let history = talk::talk(seed, payloads);
    let mut prng = Prng::new(seed).fork("turns");
    let max_tokens = prng.between(1, 5_000);
    let around = around(&mut prng, max_tokens);
    let whole: u64 = history.steps.iter().flatten().map(|text| about(text, payloads)).sum();
    // From far too little to more than enough.
    let window = (whole as f64 * (0.1 + 1.5 * prng.unit())) as u64 + max_tokens + 1_000;
    let mut case = Case {
        talk: Talk::default(),
        name: format!("history-{seed}"),
        gauge: Gauge::default(),
        rules: Rules { keep_groups: prng.between(1, 4) as usize, ..Rules::default() },
        around,
        window,
        recalls: prng.chance(0.7),
        asked: None,
        prng,
    };
    *tally.entry("marked elsewhere").or_default() += u64::from(case.around.contains("cache_control"));
    match case.play(history.steps, judge, tally) {
        Err(TurnTrouble::TooLarge(_)) => *tally.entry("too large").or_default() += 1,
        Err(TurnTrouble::Invalid { broken, .. }) => return Err(format!("the last look says {broken}")),
        Err(TurnTrouble::Messages(why)) => return Err(why),
        Err(other) => return Err(format!("{other:?}")),
        Ok(()) => {}
    }
    Ok(())
}

/// About what a text costs: four bytes to a token, what is base64 by pixel and page.
fn about(text: &str, payloads: &[Payload; 2]) -> u64 {
    payloads.iter().fold(text.len() as u64 / 4, |sum, payload| {
        let count = text.matches(payload.base64.as_str()).count() as u64;
        sum + count * payload.tokens - count * payload.base64.len() as u64 / 4
    })
}

/// A request without messages: model, system prompt, tools, and marks on some of them.
fn around(prng: &mut Prng, max_tokens: u64) -> String {
    // Those that take system messages.
    let models = ["claude-opus-4-8", "claude-opus-5-5", "claude-fable-5-2", "echo"];
    let mut body = json!({"model": prng.pick(&models).copied().unwrap_or("echo"), "max_tokens": max_tokens});
    let mark = json!({"type": "ephemeral", "ttl": "1h"});
    if prng.chance(0.5) {
        let mut block = json!({"type": "text", "text": "You help. ".repeat(prng.between(1, 200) as usize)});
        if prng.chance(0.3) {
            block["cache_control"] = mark.clone();
        }
        body["system"] = json!([block]);
    }
    if prng.chance(0.5) {
        let mut tool = json!({"name": "read", "input_schema": {"type": "object", "properties": {"a": {}, "z": {}}}});
        if prng.chance(0.3) {
            tool["cache_control"] = mark;
        }
        body["tools"] = json!([tool]);
    }
    if prng.chance(0.1) {
        body["cache_control"] = json!({"type": "ephemeral"});
    }
    if prng.chance(0.5) {
        body["thinking"] = json!({"type": "adaptive"});
    }
    body["messages"] = json!([]);
    body.to_string()
}

impl Case {
    /// Each step is the answer of the turn before, if there was one, and what is asked next.
    fn play(&mut self, steps: Vec<Vec<String>>, judge: &mut Judge, tally: &mut Tally) -> Result<(), TurnTrouble> {
        let mut steps = steps.into_iter();
        while let Some(step) = steps.next() {
            let (answer, mut new) = parted(step);
            let breaks = self.prng.chance(0.1);
            match answer {
                Some(answer) if breaks => {
                    *tally.entry("broken off").or_default() += 1;
                    let Some(kept) = broken(&answer, &mut self.prng).map_err(TurnTrouble::Messages)? else {
                        self.ask_again(&answer, judge, tally)?;
                        self.ask(new, judge, tally)?;
                        continue;
                    };
                    self.keep(&kept, Status::Interrupted)?;
                    // Calls are lost with the answer: their loop is over, the client says something new.
                    while answer.contains(r#""type":"tool_use""#) && answers_a_tool(&new) {
                        let Some(step) = steps.next() else { return Ok(()) };
                        new = parted(step).1;
                    }
                }
                Some(answer) => self.keep(answer.as_bytes(), Status::Complete)?,
                None => {}
            }
            self.ask(new, judge, tally)?;
        }
        Ok(())
    }

    /// Nothing was kept of the turn, and the client asks once more.
    fn ask_again(&mut self, answer: &str, judge: &mut Judge, tally: &mut Tally) -> Result<(), TurnTrouble> {
        if let Some(asked) = self.asked.take() {
            self.talk.take_back(asked.before);
            *tally.entry("asked again").or_default() += 1;
            self.ask(asked.new, judge, tally)?;
        }
        self.keep(answer.as_bytes(), Status::Complete)
    }

    /// The turn's answer, as `turn.rs` keeps it.
    fn keep(&mut self, answer: &[u8], status: Status) -> Result<(), TurnTrouble> {
        self.talk.push_answer(answer, &self.gauge).map_err(TurnTrouble::Messages)?;
        let number = self.talk.turns() + 1;
        if let Some(asked) = self.asked.take() {
            if status == Status::Complete {
                self.talk.learn(asked.estimated, asked.counted);
            }
            self.talk.view = asked.view;
        }
        self.talk.ended(number, None, status, false);
        Ok(())
    }

    /// A turn with these messages: its window, and what the API says of it.
    fn ask(&mut self, new: Vec<String>, judge: &mut Judge, tally: &mut Tally) -> Result<(), TurnTrouble> {
        let before = self.talk.history.len();
        for text in &new {
            let message = Message::read(text.clone().into_bytes().into());
            let message = message.map_err(|error| TurnTrouble::Messages(error.to_string()))?;
            self.talk.push(message, &self.gauge).map_err(TurnTrouble::Messages)?;
        }
        self.change(tally);
        let request = MessagesRequest::read(self.around.as_bytes());
        let request = request.map_err(|error| TurnTrouble::Messages(error.to_string()))?;
        let frame = Frame::of(self.around.as_bytes(), &request, self.window, &self.gauge);
        let how = Fitting { rules: self.rules, recalls: self.recalls, bytes_max: 32_000_000, gauge: &self.gauge };
        let window = fit(&mut self.talk, &self.name, &frame, how)?;
        let body = request.with_messages(self.around.as_bytes(), &window.body).unwrap_or_default();
        let counted = judge.counts(&body).map_err(TurnTrouble::Messages)?;
        let estimated = frame.fixed() + window.tokens;
        let budget = frame.budget(self.talk.ratio());
        if estimated + budget.max_tokens + budget.margin > budget.window {
            return Err(TurnTrouble::Messages(format!("{estimated} tokens are over {budget:?}")));
        }
        count(&window, tally);
        self.asked = Some(Asked { before, new, view: window.view, estimated, counted });
        Ok(())
    }

    /// What may happen between turns: a pin, a summary, a restart.
    fn change(&mut self, tally: &mut Tally) {
        let len = self.talk.history.len() as u64;
        if self.prng.chance(0.05) {
            self.talk.history.pin(self.prng.below(len) as usize);
            *tally.entry("pinned").or_default() += 1;
        }
        if self.prng.chance(0.2) {
            let groups = self.talk.history.group_count() as u64;
            let until = self.talk.history.group(self.prng.below(groups) as usize).start;
            let from = self.prng.below(until as u64 + 1) as usize;
            let goals = vec!["to go on with what was asked".to_owned(); self.prng.between(1, 9) as usize];
            if from < until {
                self.talk.put_summary(Summary { goals, ..Summary::default() }, from..until);
            }
        }
        if self.prng.chance(0.1)
            && let Some(state) = self.talk.state(&self.talk.view)
        {
            self.talk.view = View::default();
            self.talk.put_state(&state);
            *tally.entry("read again").or_default() += 1;
        }
    }
}

/// The answer that a step begins with, and what is asked next.
fn parted(step: Vec<String>) -> (Option<String>, Vec<String>) {
    let (mut answers, new): (Vec<String>, Vec<String>) =
        step.into_iter().partition(|text| text.starts_with(r#"{"role":"assistant""#));
    (answers.pop(), new)
}

fn answers_a_tool(new: &[String]) -> bool {
    new.iter().any(|text| text.contains(r#""type":"tool_result""#))
}

fn count(window: &Window, tally: &mut Tally) {
    let mut count = |what, holds: bool| *tally.entry(what).or_default() += u64::from(holds);
    count("requests", true);
    count("cut", window.is_cut);
    count("elided", !window.view.elided.is_empty());
    count("thoughtless", window.view.thinking_before > window.view.cut);
    count("dropped", window.view.cut > 0);
    count("summaries", window.view.summary.is_some());
    count("recalled", window.parts.iter().any(|part| part.what == What::Recalled));
}

/// What is kept of an answer whose stream broke off somewhere.
fn broken(answer: &str, prng: &mut Prng) -> Result<Option<Vec<u8>>, String> {
    let events = events(answer)?;
    let mut assembler = Assembler::new();
    for data in events.iter().take(prng.between(1, events.len() as u64) as usize) {
        let mut event = Vec::new();
        sse::write(&mut event, "x", data.to_string().as_bytes());
        assembler.add(&event).map_err(|error| error.to_string())?;
    }
    Ok(assembler.finish_broken())
}

/// An answer's content as the events it would have come as, the end of the message left out.
fn events(answer: &str) -> Result<Vec<Value>, String> {
    let answer: Value = serde_json::from_str(answer).map_err(|error| error.to_string())?;
    let content = match &answer["content"] {
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        other => other.as_array().cloned().unwrap_or_default(),
    };
    let start = json!({"type": "message_start", "message": {"role": "assistant", "content": [], "usage": {}}});
    let mut events = vec![start];
    for (index, mut block) in content.into_iter().enumerate() {
        let delta = |kind: &str, field: &str, value: Value| json!({"type": "content_block_delta", "index": index, "delta": {"type": kind, field: value}});
        let mut deltas = Vec::new();
        match block["type"].as_str() {
            Some("text") => {
                let text = block["text"].take();
                let text: Vec<char> = text.as_str().unwrap_or("").chars().collect();
                let halves = [&text[..text.len() / 2], &text[text.len() / 2..]];
                deltas.extend(halves.map(|half| delta("text_delta", "text", half.iter().collect::<String>().into())));
                block["text"] = "".into();
            }
            Some("thinking") => {
                deltas.push(delta("thinking_delta", "thinking", block["thinking"].take()));
                deltas.push(delta("signature_delta", "signature", block["signature"].take()));
                block["thinking"] = "".into();
                block["signature"] = "".into();
            }
            Some("tool_use") => {
                deltas.push(delta("input_json_delta", "partial_json", block["input"].to_string().into()));
                block["input"] = json!({});
            }
            _ => {}
        }
        events.push(json!({"type": "content_block_start", "index": index, "content_block": block}));
        events.append(&mut deltas);
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    Ok(events)
}
