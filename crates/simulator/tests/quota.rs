//! Limits as a client meets them: heads, errors and streams of the whole machine, and what the
//! ground truth says of them afterwards.
#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

mod reader;

use reader::{Answer, KEY, ask_as, ask_with, at, begin, events, play};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_simulator::{Action, Exchange, Opening, Scenario, Simulator, Step};

fn hello() -> Value {
    json!({"model": "claude-haiku-4-5", "max_tokens": 1_000, "messages": [{"role": "user", "content": "hello"}]})
}

fn stream() -> Value {
    let mut body = hello();
    body["stream"] = json!(true);
    body
}

/// A simulator of calm with these lines in its document.
fn with(lines: &str) -> Simulator {
    Simulator::new(Scenario::parse(lines).unwrap(), 1, 1_795_379_640)
}

fn left(answer: &Answer, limiter: &str) -> u64 {
    answer.header(&format!("anthropic-ratelimit-{limiter}-remaining")).unwrap().parse().unwrap()
}

const FIRST: &str = "[quota]\ntier = \"first\"\n";

#[test]
fn headers_are_sampled_when_the_head_leaves_if_the_switch_says_so() {
    for (switch, before, then) in [("admission", 49, 49), ("first-byte", 49, 47)] {
        let mut simulator = with(&format!("{FIRST}headers = \"{switch}\""));
        let mut first = begin(&mut simulator, at(0), KEY, &stream(), &[]);
        let told = |exchange: &tidegate_simulator::Exchange| {
            let Opening::Head(head) = &exchange.opening else { panic!("{exchange:?}") };
            let name = "anthropic-ratelimit-requests-remaining";
            assert_eq!(head.headers.iter().filter(|(n, _)| *n == name).count(), 1);
            head.headers.iter().find(|(n, _)| *n == name).unwrap().1.parse::<u64>().unwrap()
        };
        assert_eq!(told(&first), before);
        let second = begin(&mut simulator, at(10), KEY, &stream(), &[]);
        let third = begin(&mut simulator, at(20), KEY, &stream(), &[]);
        simulator.head_leaves(at(200), &mut first);
        assert_eq!(told(&first), then, "{switch}");
        for exchange in [first, second, third] {
            play(&mut simulator, at(200), exchange);
        }
    }
}

#[test]
fn headers_may_be_missing_or_not_to_be_believed() {
    let mut simulator = with(&format!("{FIRST}headers = \"none\""));
    let silent = |answer: &Answer| !answer.headers.iter().any(|(name, _)| name.starts_with("anthropic-ratelimit-"));
    for n in 0..51 {
        let answer = ask_as(&mut simulator, at(0), KEY, &hello(), "output_tokens=1");
        assert!(silent(&answer), "{:?}", answer.headers);
        assert_eq!(answer.status, if n < 50 { 200 } else { 429 });
    }
    let told = |seed: u64| {
        let scenario = Scenario::parse(&format!("{FIRST}remaining_error_percent = 20")).unwrap();
        let mut simulator = Simulator::new(scenario, seed, 0);
        left(&ask_as(&mut simulator, at(0), KEY, &hello(), ""), "requests")
    };
    let told_by: Vec<u64> = (0..40).map(told).collect();
    assert!(told_by.iter().all(|told| (39..=50).contains(told)), "{told_by:?}");
    assert!(told_by.iter().any(|told| *told < 43) && told_by.contains(&50), "{told_by:?}");
    assert_eq!(told(3), told(3));
}

/// Plays a stream as the server does: step by step, told of its progress.
fn play_steps(simulator: &mut Simulator, mut exchange: tidegate_simulator::Exchange) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(step) = exchange.playback.next() {
        if let Action::Send(bytes) = &step.action {
            body.extend_from_slice(bytes);
        }
        if let Some(message) = simulator.progress(at(0), exchange.ordinal, exchange.playback.progress()) {
            exchange.playback.run_out(message);
        }
    }
    simulator.ended(at(0), exchange.ordinal, exchange.playback.progress());
    body
}

#[test]
fn a_stream_without_output_left_goes_on_or_ends_in_an_error() {
    let lines = |switch| format!("{FIRST}output_exhausted = \"{switch}\"");
    let mut body = stream();
    body["max_tokens"] = json!(20_000);
    let long = [("simulate", "output_tokens=9000, event_ms=0, first_ms=0")];
    let mut simulator = with(&lines("continue"));
    let exchange = begin(&mut simulator, at(0), KEY, &body, &long);
    assert_eq!(events(&play_steps(&mut simulator, exchange)).last().unwrap().0, "message_stop");
    let mut simulator = with(&lines("error"));
    let exchange = begin(&mut simulator, at(0), KEY, &body, &long);
    let events = events(&play_steps(&mut simulator, exchange));
    let (name, data) = events.last().unwrap();
    assert_eq!((name.as_str(), &data["error"]["type"]), ("error", &json!("rate_limit_error")));
    assert!(data["error"]["message"].as_str().unwrap().contains("8000 output tokens per minute"));
    assert!(data["request_id"].as_str().unwrap().starts_with("req_"));
    let produced = simulator.truth().domains[&("acme".to_owned(), "haiku-4-5")].output_tokens;
    assert!((8_000..8_020).contains(&produced), "{produced}");
}

#[test]
fn a_stream_whose_last_token_is_out_is_not_cut() {
    let mut simulator = with(&format!("{FIRST}output_exhausted = \"error\""));
    let mut body = stream();
    body["max_tokens"] = json!(8_000);
    let exchange = begin(&mut simulator, at(0), KEY, &body, &[("simulate", "output_tokens=9000")]);
    assert_eq!(events(&play_steps(&mut simulator, exchange)).last().unwrap().0, "message_stop");
    assert_eq!(simulator.truth().domains[&("acme".to_owned(), "haiku-4-5")].output_tokens, 8_000);
}

#[test]
fn failed_requests_are_charged_if_the_switch_says_so() {
    for (charged, left_then) in [("false", 49), ("true", 46)] {
        let mut simulator = with(&format!("{FIRST}charge_failed = {charged}"));
        for fault in ["status:529", "status:500", "reset-before-head", "status:404"] {
            ask_with(&mut simulator, at(0), &hello(), &[("simulate", &format!("fault={fault}"))]);
        }
        let answer = ask_with(&mut simulator, at(0), &hello(), &[]);
        assert_eq!(left(&answer, "requests"), left_then, "{charged}");
    }
}

#[test]
fn a_scripted_429_is_charged_like_a_true_one() {
    for (charged, left_then) in [("false", 49), ("true", 48)] {
        let mut simulator = with(&format!("{FIRST}charge_refused = {charged}"));
        ask_with(&mut simulator, at(0), &hello(), &[("simulate", "fault=status:429:7")]);
        assert_eq!(left(&ask_with(&mut simulator, at(0), &hello(), &[]), "requests"), left_then);
        let summary = simulator.summary(at(0));
        assert_eq!(summary["quota"]["limits"][0]["refused"], json!({"fault-429": 1}));
        assert_eq!(summary["refusals_of"]["acme"], json!({"fault-429": 1}));
    }
}

#[test]
fn an_estimate_is_off_by_the_seed_and_right_once_the_answer_has_begun() {
    let mut body = stream();
    body["messages"][0]["content"] = json!("word ".repeat(8_000));
    let first_told = |seed: u64| {
        let text = format!("{FIRST}estimate_error_percent = 30");
        let mut simulator = Simulator::new(Scenario::parse(&text).unwrap(), seed, 0);
        let exchange = begin(&mut simulator, at(0), KEY, &body, &[]);
        let Opening::Head(head) = &exchange.opening else { panic!("{exchange:?}") };
        let told = head.headers.iter().find(|(n, _)| n.ends_with("input-tokens-remaining")).unwrap().1.clone();
        play(&mut simulator, at(0), exchange);
        let input = simulator.truth().domains[&("acme".to_owned(), "haiku-4-5")].input_tokens;
        assert_eq!(simulator.summary(at(0))["quota"]["limits"][0]["input_tokens"]["used"], input);
        (30_000 - told.parse::<i64>().unwrap(), input as i64)
    };
    let off: Vec<(i64, i64)> = (0..40).map(first_told).collect();
    assert!(off.iter().all(|(told, is)| (told - is).abs() * 100 <= is * 30 + 50_000), "{off:?}");
    assert!(
        off.iter().any(|(told, is)| told - is > is / 5) && off.iter().any(|(told, is)| is - told > is / 5),
        "{off:?}"
    );
    assert_eq!(first_told(3), first_told(3));
}

#[test]
fn a_spend_limit_stops_everything_until_it_is_lifted_and_gives_no_time_to_come_back() {
    let mut simulator = with("[[spend_limit]]\norganisation = \"acme\"\ndollars = 0.005\nlifted = \"60 s\"\n");
    // A thousand tokens of output at $5 a million, and a little input.
    let spend = "output_tokens=1000";
    assert_eq!(ask_as(&mut simulator, at(0), KEY, &hello(), spend).status, 200);
    let refused = ask_as(&mut simulator, at(1_000), KEY, &hello(), spend);
    assert_eq!((refused.status, refused.header("retry-after")), (429, None));
    assert_eq!(refused.json()["error"]["details"]["error_code"], "enforced_spend_limit_reached");
    assert!(left(&refused, "requests") > 0 && left(&refused, "output-tokens") > 0);
    assert_eq!(ask_as(&mut simulator, at(1_000), "sk-ant-blue-1", &hello(), spend).status, 200);
    assert_eq!(ask_as(&mut simulator, at(60_000), KEY, &hello(), spend).status, 200);
    let dollars = simulator.summary(at(60_000))["quota"]["dollars"]["acme"].as_f64().unwrap();
    assert!((0.010..0.0101).contains(&dollars), "{dollars}");
    assert_eq!(simulator.truth().refusals_of["acme"]["429-spend-limit"], 1);
    let mut simulator = with("[[spend_limit]]\ndollars = 0\nkind = \"user\"\n");
    let (status, kind, message) = ask_as(&mut simulator, at(0), KEY, &hello(), "").error();
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"));
    assert!(
        message.starts_with("You have reached your specified API usage limits. You will regain access on 2026-12-01")
    );
}

#[test]
fn a_ramp_limit_refuses_below_the_limits_and_says_when_to_come_back() {
    let mut simulator = with("[quota.ramp]\nfloor_requests_per_minute = 60\n");
    for _ in 0..10 {
        assert_eq!(ask_as(&mut simulator, at(0), KEY, &hello(), "output_tokens=1").status, 200);
    }
    let refused = ask_as(&mut simulator, at(3_000), KEY, &hello(), "");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("7")));
    assert_eq!(refused.json()["error"]["details"]["error_code"], "ramp_limit_exceeded");
    assert!(left(&refused, "requests") > 9_000);
    assert_eq!(ask_as(&mut simulator, at(10_000), KEY, &hello(), "").status, 200);
}

#[test]
fn requests_at_once_are_counted_from_their_beginning_to_their_end() {
    let mut simulator = with("[quota]\nconnections = 2\n");
    let first = begin(&mut simulator, at(0), KEY, &stream(), &[]);
    let second = begin(&mut simulator, at(0), KEY, &stream(), &[("simulate", "fault=slow-head:3s, fault=status:500")]);
    let refused = ask_as(&mut simulator, at(10), KEY, &stream(), "");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert!(refused.error().2.starts_with("Number of concurrent connections has exceeded your rate limit"));
    assert_eq!(ask_as(&mut simulator, at(10), "sk-ant-blue-1", &stream(), "").status, 200);
    play(&mut simulator, at(0), second);
    assert_eq!(ask_as(&mut simulator, at(5_000), KEY, &stream(), "").status, 200);
    play(&mut simulator, at(0), first);
    assert_eq!(simulator.truth().refusals_of["acme"]["429-connections"], 1);
}

#[test]
fn a_key_goes_and_comes_back() {
    let lines = "[[key_outage]]\nkey = \"sk-ant-acme-1\"\nfrom = \"30 s\"\nuntil = \"50 s\"\nreason = \"expired\"\n";
    let mut simulator = with(lines);
    let status = |simulator: &mut Simulator, s: u64| ask_as(simulator, at(s * 1_000), KEY, &hello(), "").status;
    assert_eq!([0, 30, 49, 50].map(|s| status(&mut simulator, s)), [200, 401, 401, 200]);
}

#[test]
fn what_is_read_from_the_cache_is_told_in_usage_and_does_not_count() {
    let mut simulator = with(&format!("{FIRST}[cache.minimum_tokens]\nclaude-haiku-4-5 = 1000\n"));
    let mut body = stream();
    body["system"] =
        json!([{"type": "text", "text": "word ".repeat(4_000), "cache_control": {"type": "ephemeral", "ttl": "1h"}}]);
    let usage = |answer: &Answer| reader::assemble(&events(&answer.body))["usage"].clone();
    let first = ask_as(&mut simulator, at(0), KEY, &body, "output_tokens=5");
    let written = usage(&first)["cache_creation_input_tokens"].as_u64().unwrap();
    assert_eq!(written, 8 + 5_000);
    assert_eq!(
        usage(&first)["cache_creation"],
        json!({"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": written})
    );
    let second = ask_as(&mut simulator, at(1_000), KEY, &body, "output_tokens=5");
    let used = usage(&second);
    assert_eq!((&used["cache_read_input_tokens"], &used["cache_creation_input_tokens"]), (&json!(written), &json!(0)));
    assert_eq!(used["input_tokens"], 3 + 2, "what stands after the mark");
    let buffered = {
        body["stream"] = json!(false);
        ask_as(&mut simulator, at(2_000), KEY, &body, "output_tokens=5")
    };
    assert_eq!(buffered.json()["usage"]["cache_read_input_tokens"], written);
    assert_eq!(
        (left(&first, "input-tokens"), left(&second, "input-tokens")),
        (25_000, 25_000),
        "half a thousand came back"
    );
    let domain = simulator.truth().domains[&("acme".to_owned(), "haiku-4-5")];
    assert_eq!(
        (domain.input_tokens, domain.cache_read_tokens, domain.cache_creation_tokens),
        (written + 15, 2 * written, written)
    );
    assert_eq!(simulator.summary(at(2_000))["cache_entries"], 1);
    assert_eq!(
        ask_as(&mut simulator, at(2_000), "sk-ant-blue-1", &body, "").json()["usage"]["cache_read_input_tokens"],
        0
    );
}

#[test]
fn a_client_that_leaves_before_the_answer_begins_leaves_nothing_to_read() {
    let mut simulator = with("[cache.minimum_tokens]\nclaude-haiku-4-5 = 1\n");
    let mut body = stream();
    body["cache_control"] = json!({"type": "ephemeral"});
    let gone = begin(&mut simulator, at(0), KEY, &body, &[]);
    simulator.client_left(at(100), gone.ordinal);
    simulator.ended(at(100), gone.ordinal, gone.playback.progress());
    assert_eq!(simulator.summary(at(100))["cache_entries"], 0);
}

#[test]
fn the_truth_tells_what_a_limit_allowed_and_what_was_used_of_it() {
    let mut simulator = with(FIRST);
    ask_as(&mut simulator, at(0), KEY, &hello(), "output_tokens=500");
    simulator.reset_truth(at(60_000));
    ask_as(&mut simulator, at(60_000), KEY, &hello(), "output_tokens=300");
    let quota = simulator.summary(at(90_000))["quota"].clone();
    assert_eq!(quota["span_ms"], 30_000);
    let output = &quota["limits"][0]["output_tokens"];
    assert_eq!((&output["limit"], &output["allowed"], &output["used"]), (&json!(8_000), &json!(4_000), &json!(300)));
    assert_eq!((&output["level_then"], &output["level_now"]), (&json!(8_000), &json!(8_000)));
    assert_eq!(quota["limits"][0]["requests"]["used"], 1);
    assert_eq!((&quota["limits"][0]["class"], &quota["limits"][0]["workspace"]), (&json!("haiku-4-5"), &Value::Null));
}

#[test]
fn the_truth_has_a_row_for_each_second() {
    let mut simulator = with(FIRST);
    ask_as(&mut simulator, at(1_200), KEY, &hello(), "output_tokens=500, head_ms=0, first_ms=0, event_ms=0");
    for _ in 0..60 {
        ask_as(&mut simulator, at(4_000), KEY, &hello(), "output_tokens=0, head_ms=0, first_ms=0, event_ms=0");
    }
    let rows: Vec<_> =
        simulator.truth().seconds("acme", "haiku-4-5").map(|row| (row.second, row.requests, row.refused)).collect();
    assert_eq!(rows, [(1, 1, 0), (4, 50, 10)]);
    let first = &simulator.truth().seconds_json()[0]["seconds"][0];
    assert_eq!(*first, json!([1, 1, 5, 500, 0]));
    simulator.reset_truth(at(5_000));
    assert_eq!(simulator.truth().seconds_json(), json!([]));
}

/// The next step of each open request, by when it is due.
type Running = BTreeMap<(Moment, u64), (Exchange, Step)>;

/// Plays what is due until then.
fn go_on(simulator: &mut Simulator, running: &mut Running, until: Moment) {
    while let Some(entry) = running.first_entry().filter(|entry| entry.key().0 <= until) {
        let ((now, ordinal), (mut exchange, step)) = entry.remove_entry();
        if matches!(step.action, Action::Send(_) | Action::Torn { .. }) {
            simulator.progress(now, ordinal, exchange.playback.progress());
            let next = exchange.playback.next().unwrap();
            running.insert((now + (next.at - step.at), ordinal), (exchange, next));
        } else {
            simulator.ended(now, ordinal, exchange.playback.progress());
        }
    }
}

/// Asks with every key in turn for a minute, `rate` times a second, everything in the order of time.
fn rush(name: &str, rate: u64, model: &str) -> Simulator {
    let scenario = Scenario::named(name).unwrap();
    let keys: Vec<String> = scenario.callers().map(|caller| caller.key.to_owned()).collect();
    let mut simulator = Simulator::new(scenario, 5, 0);
    let mut running = Running::new();
    for n in 0..60 * rate {
        let now = at(n * 1_000 / rate);
        go_on(&mut simulator, &mut running, now);
        let key = &keys[n as usize % keys.len()];
        let body = json!({"model": model, "max_tokens": 1_000, "stream": true,
                          "messages": [{"role": "user", "content": format!("hello {n}")}]});
        let mut exchange = begin(&mut simulator, now, key, &body, &[]);
        let ordinal = exchange.ordinal;
        match (&exchange.opening, exchange.playback.next()) {
            (Opening::Head(head), Some(step)) => {
                drop(running.insert((now + head.after + step.at, ordinal), (exchange.clone(), step)));
            }
            _ => simulator.ended(now, ordinal, exchange.playback.progress()),
        }
    }
    go_on(&mut simulator, &mut running, at(60_000));
    simulator
}

#[test]
fn quota_429_runs_out_of_output_first() {
    let mut simulator = rush("quota-429", 160, "claude-haiku-5-5");
    let summary = simulator.summary(at(60_000));
    for organisation in ["north", "east", "south", "west"] {
        let refused = &summary["refusals_of"][organisation];
        assert!(refused["429-output-tokens"].as_u64().unwrap() > 500, "{refused}");
        assert_eq!(refused.as_object().unwrap().len(), 1, "{refused}");
    }
    for row in summary["quota"]["limits"].as_array().unwrap() {
        let output = &row["output_tokens"];
        let (used, allowed) = (output["used"].as_f64().unwrap(), output["allowed"].as_f64().unwrap());
        assert_eq!(allowed, 180_000.0);
        assert!((1.0..1.2).contains(&(used / allowed)), "all of it, and what was saved up: {output}");
    }
}

#[test]
fn black_friday_brings_all_of_it() {
    let mut simulator = rush("black-friday", 160, "claude-sonnet-5-5");
    let summary = simulator.summary(at(60_000));
    let of = |organisation: &str, label: &str| summary["refusals_of"][organisation][label].as_u64().unwrap_or(0);
    for organisation in ["north", "east", "south", "west"] {
        assert!(of(organisation, "429-output-tokens") > 300 && of(organisation, "fault-529") > 50, "{summary}");
        assert!(of(organisation, "fault-500") > 5, "{summary}");
    }
    assert!(["east", "south", "west"].iter().all(|name| of(name, "429-ramp") > 0), "{summary}");
    assert!(summary["refusals"]["401"].as_u64().unwrap() > 500);
    let rows = summary["quota"]["limits"].as_array().unwrap();
    let row = |name: &str| &rows.iter().find(|row| row["organisation"] == name).unwrap()["output_tokens"];
    assert_eq!((&row("east")["foreign"], &row("east")["allowed"]), (&json!(27_000), &json!(153_000)));
    assert_eq!((&row("south")["limit"], &row("south")["allowed"]), (&json!(90_000), &json!(120_000)));
    assert_eq!((&row("west")["allowed"], &row("north")["level_then"]), (&json!(180_000), &json!(3_000)));
    assert_eq!(row("west")["level_then"], 15_000);
}

#[test]
fn a_first_second_of_full_speed_is_what_a_burst_holds() {
    for (burst, passes) in [("1 s", 25), ("5 s", 125), ("60 s", 1_500)] {
        let lines = format!(
            "[quota]\nburst = \"{burst}\"\n[[organisation]]\nname = \"acme\"\nkeys = [\"{KEY}\"]\n[organisation.limits.haiku-4-5]\nrequests_per_minute = 1500\ninput_tokens_per_minute = 90000000\noutput_tokens_per_minute = 9000000\n"
        );
        let mut simulator = with(&lines);
        let passed = (0..2_000)
            .filter(|_| ask_as(&mut simulator, at(0), KEY, &hello(), "output_tokens=1").status == 200)
            .count();
        assert_eq!(passed, passes, "{burst}");
    }
}

#[test]
fn time_to_come_back_is_exact_to_the_second() {
    let mut simulator = with(FIRST);
    for _ in 0..50 {
        ask_as(&mut simulator, at(0), KEY, &hello(), "output_tokens=1");
    }
    let refused = ask_as(&mut simulator, at(500), KEY, &hello(), "");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(Duration::from_secs(wait), Duration::from_secs(1), "0.7 s, rounded up");
    assert_eq!(refused.header("anthropic-ratelimit-requests-reset"), Some("2026-11-22T20:35:00Z"));
    assert_eq!(ask_as(&mut simulator, at(500 + wait * 1_000), KEY, &hello(), "").status, 200);
}
