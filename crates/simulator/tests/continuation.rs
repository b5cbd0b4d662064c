//! Answers that broke off and are asked to go on, from outside.
#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

mod reader;

use reader::{Answer, ask, ask_with, assemble, at, events, simulate, simulator};
use serde_json::{Value, json};
use tidegate_simulator::{ContinuationRules, Pace, Range, Scenario, Simulator, Tier};

fn question(model: &str, about: &str) -> Value {
    json!({"model": model, "max_tokens": 4_000, "stream": true, "messages": [{"role": "user", "content": about}]})
}

/// The same with these messages behind it.
fn with(body: &Value, more: &[(&str, &str)]) -> Value {
    let mut body = body.clone();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.extend(more.iter().map(|(role, text)| json!({"role": role, "content": text})));
    body
}

fn told(text: &str) -> String {
    let from = text.char_indices().rev().nth(1_999).map_or(0, |(at, _)| at);
    let end = &text[from..];
    format!("Your previous response was interrupted and ended with `{end}`. Continue from where you left off.")
}

fn text_of(message: &Value) -> String {
    let blocks = message["content"].as_array().unwrap().iter();
    blocks.filter(|block| block["type"] == "text").map(|block| block["text"].as_str().unwrap()).collect()
}

/// The text of a stream that broke off: of its whole events.
fn text_so_far(answer: &Answer) -> String {
    let whole = String::from_utf8_lossy(&answer.body).into_owned();
    let whole = &whole[..whole.rfind("\n\n").map_or(0, |at| at + 2)];
    let text = |(_, data): (String, Value)| data["delta"]["text"].as_str().map(str::to_owned);
    events(whole.as_bytes()).into_iter().filter_map(text).collect()
}

fn record(simulator: &Simulator, answer: &Answer) -> Value {
    let id = answer.header("request-id").unwrap();
    simulator.truth().record(id).unwrap().json()
}

/// What was said before the true rest, as the ground truth has it.
fn added(continuation: &Value) -> String {
    ["preamble", "reopened", "space", "repeated"].iter().map(|part| continuation[part].as_str().unwrap()).collect()
}

fn with_rules(seed: u64, continuation: ContinuationRules) -> Simulator {
    let pace = Pace::immediate();
    Simulator::new(Scenario { pace, tier: Tier::Unlimited, continuation, ..Scenario::calm() }, seed, 0)
}

#[test]
fn either_way_of_asking_gets_the_true_rest() {
    for seed in 0..30 {
        for (model, prefill) in
            [("claude-haiku-4-5", true), ("claude-haiku-5-5", false), ("echo", true), ("echo", false)]
        {
            let mut simulator = with_rules(seed, ContinuationRules::exact());
            let body =
                question(model, "tell me: a long story of Größe and 潮, with many words in it, and more of them");
            let broken = simulate(&mut simulator, &body, "fault=reset-at:in-utf8");
            let so_far = text_so_far(&broken);
            let truth = record(&simulator, &broken);
            let whole = truth["text"].as_str().unwrap();
            assert!(whole.starts_with(&so_far) && so_far.len() < whole.len());
            let more: &[(&str, &str)] = match prefill {
                true => &[("assistant", so_far.trim_end())],
                false => &[("user", &told(&so_far))],
            };
            if prefill && so_far.trim().is_empty() {
                continue;
            }
            let rest = ask(&mut simulator, &with(&body, more));
            let said = text_of(&assemble(&events(&rest.body)));
            let received = if prefill { so_far.trim_end() } else { &so_far };
            if so_far.trim().is_empty() {
                continue;
            }
            assert_eq!(format!("{received}{said}"), whole, "{model} {seed}");
            let of = record(&simulator, &rest);
            assert_eq!(of["continuation"]["of"], truth["request_id"]);
            assert_eq!(of["continuation"]["by"], if prefill { "prefill" } else { "user-turn" });
            assert_eq!((&of["continuation"]["exact"], &of["stop_reason"]), (&json!(true), &truth["stop_reason"]));
        }
    }
}

#[test]
fn a_continuation_that_breaks_off_is_continued_from_the_first_answer() {
    let mut simulator = with_rules(4, ContinuationRules::exact());
    let body = question("claude-haiku-5-5", "a long story");
    let first = simulate(&mut simulator, &body, "output_tokens=200, fault=reset-at:2000");
    let one = text_so_far(&first);
    let second = simulate(&mut simulator, &with(&body, &[("user", &told(&one))]), "fault=end-at:2000");
    let two = one.clone() + &text_so_far(&second);
    let third = ask(&mut simulator, &with(&body, &[("assistant", &two), ("user", &told(&two))]));
    let three = two.clone() + &text_of(&assemble(&events(&third.body)));
    let whole = record(&simulator, &first);
    assert!(one.len() < two.len() && two.len() < three.len());
    assert_eq!(three, whole["text"].as_str().unwrap());
    assert_eq!(record(&simulator, &third)["continuation"]["of"], whole["request_id"]);
    assert_eq!(simulator.truth().summary(at(0))["continued"], 2);
}

#[test]
fn the_calls_behind_a_text_come_behind_its_rest() {
    let mut simulator = with_rules(4, ContinuationRules::exact());
    let mut body = question("claude-haiku-5-5", "use f please");
    body["tools"] = json!([{"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}]);
    let broken = simulate(&mut simulator, &body, "fault=reset-at:in-tool");
    let so_far = text_so_far(&broken);
    let rest = ask(&mut simulator, &with(&body, &[("user", &told(&so_far))]));
    let (rest, whole) = (record(&simulator, &rest), record(&simulator, &broken));
    assert_eq!((&rest["content"][0], &rest["stop_reason"]), (&whole["content"][1], &json!("tool_use")));
    assert_eq!(rest["content"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_added_at_a_seam_is_in_the_ground_truth_and_nothing_else_is() {
    let mut exact = 0;
    for seed in 0..300 {
        let mut simulator = simulator(seed);
        let body = question("claude-sonnet-4-6", "a story");
        let broken = simulate(&mut simulator, &body, "fault=reset-at:in-text");
        let so_far = text_so_far(&broken);
        if so_far.is_empty() {
            continue;
        }
        let rest = ask(&mut simulator, &with(&body, &[("user", &told(&so_far))]));
        let said = text_of(&assemble(&events(&rest.body)));
        let (rest, whole) = (record(&simulator, &rest), record(&simulator, &broken));
        let continuation = &rest["continuation"];
        let from = continuation["from_byte"].as_u64().unwrap() as usize;
        let whole = whole["text"].as_str().unwrap();
        assert_eq!(&whole[..from], so_far);
        assert_eq!(said, added(continuation) + &whole[from..]);
        assert_eq!(continuation["exact"], added(continuation).is_empty());
        assert!(so_far.ends_with(continuation["repeated"].as_str().unwrap()));
        exact += u32::from(continuation["exact"] == true);
    }
    // None of 0.1, 0.1, 0.3 and 0.2, and hardly ever a fence: four to five of ten.
    assert!((110..190).contains(&exact), "{exact}");
}

#[test]
fn a_request_chooses_its_blemishes() {
    let mut simulator = simulator(4);
    let body = question("claude-sonnet-4-6", "a story");
    let so_far = text_so_far(&simulate(&mut simulator, &body, "fault=reset-at:2000"));
    let go_on = with(&body, &[("user", &told(&so_far))]);
    let end: String = so_far.chars().skip(so_far.chars().count() - 12).collect();
    let answer = simulate(&mut simulator, &go_on, "continuation=space+repeat:12");
    assert_eq!(added(&record(&simulator, &answer)["continuation"]), format!(" {end}"));
    let answer = simulate(&mut simulator, &go_on, "continuation=exact");
    assert_eq!(record(&simulator, &answer)["continuation"]["exact"], true);
    let prefill = with(&question("claude-sonnet-4-5", "a story"), &[("assistant", so_far.trim_end())]);
    let rules = ContinuationRules { repeat: 1.0, repeat_chars: Range::exactly(5), ..ContinuationRules::exact() };
    for (rules, repeated) in [(rules, 0), (ContinuationRules { prefill: true, ..rules }, 5)] {
        let mut simulator = with_rules(4, rules);
        simulate(&mut simulator, &body, "fault=reset-at:2000");
        let answer = ask(&mut simulator, &prefill);
        let continuation = &record(&simulator, &answer)["continuation"];
        assert_eq!(added(continuation).chars().count(), repeated);
    }
}

#[test]
fn what_is_not_remembered_is_a_new_question() {
    let mut simulator = simulator(4);
    let body = question("claude-sonnet-4-6", "a story");
    let go_on = with(&body, &[("user", &told("something that was never said"))]);
    let answer = ask(&mut simulator, &go_on);
    assert_eq!(record(&simulator, &answer)["continuation"], Value::Null);
    let so_far = text_so_far(&simulate(&mut simulator, &body, "fault=reset-at:2000"));
    let other = with(&question("claude-sonnet-4-6", "another story"), &[("user", &told(&so_far))]);
    let answer = ask(&mut simulator, &other);
    assert_eq!(record(&simulator, &answer)["continuation"], Value::Null);
    assert_eq!(simulator.truth().summary(at(0))["not_continued"], 2);
    simulator.reset_truth(at(0));
    let answer = ask(&mut simulator, &with(&body, &[("user", &told(&so_far))]));
    assert_eq!(record(&simulator, &answer)["continuation"], Value::Null);
}

#[test]
fn later_models_refuse_a_prefill_and_are_asked_in_words() {
    for (model, status) in [("claude-sonnet-4-5", 200), ("claude-sonnet-4-6", 400), ("claude-opus-5-5", 400)] {
        let mut simulator = simulator(4);
        let body = question(model, "a story");
        let so_far = text_so_far(&simulate(&mut simulator, &body, "fault=end-at:before-delta"));
        let answer = ask(&mut simulator, &with(&body, &[("assistant", so_far.trim_end())]));
        assert_eq!(answer.status, status, "{model}");
        if status == 400 {
            let (_, kind, message) = answer.error();
            assert_eq!(kind, "invalid_request_error");
            assert_eq!(
                message,
                "This model does not support assistant message prefill. The conversation must end with a user message."
            );
        }
    }
}

#[test]
fn faults_can_be_for_the_first_attempts_alone() {
    let mut simulator = simulator(4);
    let body = question("claude-haiku-5-5", "a story");
    let once = "attempts=1, fault=reset-at:2000";
    let broken = simulate(&mut simulator, &body, once);
    assert_eq!(broken.ending, "torn-reset");
    let go_on = with(&body, &[("user", &told(&text_so_far(&broken)))]);
    for again in [&go_on, &body] {
        assert_eq!(simulate(&mut simulator, again, once).ending, "end");
    }
    assert_eq!(simulate(&mut simulator, &question("claude-haiku-5-5", "another"), once).ending, "torn-reset");
    let scenario = "[pace]\nhead = \"0 s\"\n[[fault]]\ndo = [\"status:529\"]\nattempts = 2";
    let mut simulator = Simulator::new(Scenario::parse(scenario).unwrap(), 4, 0);
    let statuses: Vec<u16> = (0..4).map(|_| ask_with(&mut simulator, at(0), &body, &[]).status).collect();
    assert_eq!(statuses, [529, 529, 200, 200]);
}
