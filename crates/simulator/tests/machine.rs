//! The machine as a whole: doors, keys, quotas over time, scenarios, and the ground truth.
#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

mod reader;

use reader::{KEY, ask, ask_as, ask_with, at, play, simulate, simulator};
use serde_json::{Value, json};
use tidegate_simulator::{NAMED, RequestFacts, Scenario, Simulator};

fn hello() -> Value {
    json!({"model": "claude-haiku-4-5", "max_tokens": 1_000, "messages": [{"role": "user", "content": "hello"}]})
}

fn knock(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> reader::Answer {
    let mut simulator = simulator(1);
    let exchange = simulator.begin(at(0), &RequestFacts { method, target, headers, body: body.as_bytes() });
    play(&mut simulator, at(0), exchange)
}

const GOOD: &[(&str, &str)] = &[("X-Api-Key", KEY), ("Anthropic-Version", "2026-10-21")];

#[test]
fn doors() {
    assert_eq!(knock("GET", "/", &[], "").status, 200);
    assert_eq!(knock("HEAD", "/", &[], "").status, 200);
    assert_eq!(
        knock("GET", "/v1/nowhere", GOOD, "").error(),
        (404, "not_found_error".to_owned(), "Not Found".to_owned())
    );
    let wrong = knock("GET", "/v1/messages", GOOD, "");
    assert_eq!((wrong.error().0, wrong.header("allow")), (405, Some("POST")));
    assert_eq!(knock("GET", "/v1/models?limit=3", GOOD, "").json()["data"].as_array().unwrap().len(), 3);
    assert_eq!(knock("GET", "/v1/models/claude-opus-5", GOOD, "").json()["display_name"], "Claude Opus 5");
    assert_eq!(knock("GET", "/v1/models/nope", GOOD, "").status, 404);
    assert_eq!(knock("GET", "/v1/models/a/b", GOOD, "").status, 404);
}

#[test]
fn credentials_and_version_come_before_the_body() {
    let version = ("anthropic-version", "2023-06-01");
    assert_eq!(knock("POST", "/v1/messages", &[version], "{").error().0, 401);
    assert_eq!(
        knock("POST", "/v1/messages", &[version, ("x-api-key", "nonsense")], "{").error().1,
        "authentication_error"
    );
    let (status, _, message) = knock("POST", "/v1/messages", &[("x-api-key", KEY)], "{").error();
    assert_eq!((status, message.as_str()), (400, "anthropic-version: header is required"));
    let (status, _, message) =
        knock("POST", "/v1/messages", &[("x-api-key", KEY), ("anthropic-version", "2020-01-01")], "{").error();
    assert!(status == 400 && message.contains("not a valid version"));
    let encoded = knock("POST", "/v1/messages", &[GOOD[0], GOOD[1], ("content-encoding", "gzip")], "{");
    assert_eq!(encoded.json()["error"]["details"]["error_code"], "request_body_encoding_unsupported");
}

#[test]
fn a_body_too_large_is_refused() {
    let large = "x".repeat(tidegate_simulator::BODY_BYTES_MAX + 1);
    assert_eq!(
        knock("POST", "/v1/messages", GOOD, &large).error(),
        (413, "request_too_large".to_owned(), "Request exceeds the maximum size".to_owned())
    );
}

#[test]
fn every_answer_names_its_request_and_the_organisation() {
    let answer = ask(&mut simulator(1), &hello());
    assert!(answer.header("request-id").unwrap().starts_with("req_"));
    assert_eq!(answer.header("anthropic-organization-id"), Some("acme"));
    assert_eq!(answer.header("anthropic-workspace-id"), Some("wrkspc_acme_default"));
    let refused = simulate(&mut simulator(1), &json!({"model": "claude-haiku-4-5"}), "");
    assert_eq!((refused.status, refused.header("anthropic-workspace-id")), (400, Some("wrkspc_acme_default")));
}

fn first_tier() -> Simulator {
    let scenario = Scenario::parse("[quota]\ntier = \"first\"\n[pace]\nhead = \"0 s\"").unwrap();
    Simulator::new(scenario, 1, 1_795_379_640)
}

#[test]
fn the_fifty_first_request_of_a_minute_is_told_when_to_come_back() {
    let mut simulator = first_tier();
    for _ in 0..50 {
        let answer = ask_with(&mut simulator, at(0), &hello(), &[("simulate", "output_tokens=1")]);
        assert_eq!(answer.status, 200);
    }
    let answer = ask_with(&mut simulator, at(0), &hello(), &[]);
    let (status, kind, message) = answer.error();
    assert_eq!((status, kind.as_str(), answer.header("retry-after")), (429, "rate_limit_error", Some("2")));
    assert!(message.contains("50 requests per minute"), "{message}");
    assert_eq!(answer.header("anthropic-ratelimit-requests-remaining"), Some("0"));
    let other = ask_with(
        &mut simulator,
        at(0),
        &json!({"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}),
        &[],
    );
    assert_eq!(other.status, 200, "another class has its own bucket");
    assert_eq!(ask_with(&mut simulator, at(2_000), &hello(), &[]).status, 200);
    let truth = simulator.truth();
    assert_eq!(truth.refusals.get("429-requests"), Some(&1));
    assert_eq!(truth.domains[&("acme".to_owned(), "haiku-4-5")].requests, 51);
}

#[test]
fn output_is_charged_as_it_is_produced() {
    let mut simulator = first_tier();
    let mut body = hello();
    body["max_tokens"] = json!(20_000);
    let long = ask_with(&mut simulator, at(0), &body, &[("simulate", "output_tokens=9000, event_ms=0, first_ms=0")]);
    assert_eq!(
        long.header("anthropic-ratelimit-output-tokens-remaining"),
        Some("8000"),
        "not charged before it is produced"
    );
    let refused = ask_with(&mut simulator, at(0), &hello(), &[]);
    assert!(refused.error().2.contains("8000 output tokens per minute"));
    assert_eq!(refused.header("anthropic-ratelimit-output-tokens-remaining"), Some("0"));
    assert_eq!(simulator.truth().domains[&("acme".to_owned(), "haiku-4-5")].output_tokens, 9_000);
}

#[test]
fn faults_before_the_answer_are_not_charged() {
    let mut simulator = first_tier();
    for _ in 0..60 {
        assert_eq!(simulate(&mut simulator, &hello(), "fault=status:529").status, 529);
    }
    assert_eq!(simulate(&mut simulator, &hello(), "fault=none").status, 200);
}

#[test]
fn listed_organisations_have_their_own_limits_and_revoked_keys() {
    let scenario = Scenario::parse(
        "[[organisation]]\nname = \"blue\"\nkeys = [\"sk-ant-blue-1\"]\nrevoked = [\"sk-ant-blue-0\"]\n[organisation.limits.haiku-4-5]\nrequests_per_minute = 1\ninput_tokens_per_minute = 1000\noutput_tokens_per_minute = 1000\n",
    )
    .unwrap();
    let mut simulator = Simulator::new(scenario, 1, 0);
    let mut call = |key: &str| {
        let headers = [("x-api-key", key), ("anthropic-version", "2023-06-01")];
        let body = hello().to_string();
        let exchange = simulator.begin(
            at(0),
            &RequestFacts { method: "POST", target: "/v1/messages", headers: &headers, body: body.as_bytes() },
        );
        play(&mut simulator, at(0), exchange).status
    };
    assert_eq!((call("sk-ant-blue-0"), call("sk-ant-green-1")), (401, 401));
    assert_eq!((call("sk-ant-blue-1"), call("sk-ant-blue-1")), (200, 429));
}

#[test]
fn a_scenario_replays_from_its_seed() {
    for (name, _) in NAMED {
        let run = |seed| {
            let scenario = Scenario::named(name).unwrap();
            let listed: Vec<String> = scenario.callers().map(|caller| caller.key.to_owned()).collect();
            let mut simulator = Simulator::new(scenario, seed, 0);
            (0..60u64)
                .map(|n| {
                    let mut body = hello();
                    body["stream"] = json!(n % 3 != 0);
                    let key = listed.get(n as usize % listed.len().max(1)).map_or(KEY, String::as_str);
                    let answer = ask_as(&mut simulator, at(n * 900), key, &body, "");
                    (answer.status, answer.ending, answer.body, answer.headers)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7), "{name}");
        assert_ne!(run(7), run(8), "{name}");
    }
}

#[test]
fn scenarios_do_what_they_say() {
    let tally = |name: &str| {
        let mut simulator = Simulator::new(Scenario::named(name).unwrap(), 3, 0);
        let mut body = hello();
        body["stream"] = json!(true);
        let answers: Vec<reader::Answer> =
            (0..400u64).map(|n| ask_with(&mut simulator, at(n * 150), &body, &[])).collect();
        answers
    };
    assert!(
        tally("calm").iter().all(
            |a| a.status == 200 && a.text().ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
        )
    );
    let overloaded = tally("overloaded-529");
    let hit = |window: std::ops::Range<usize>| overloaded[window].iter().filter(|a| a.status == 529).count();
    assert!(hit(0..133) == 0 && hit(134..266) > 50 && hit(267..400) == 0);
    let broken = tally("flaky-streams")
        .iter()
        .filter(|a| a.ending != "end" || !a.body.ends_with(b"message_stop\"}\n\n"))
        .count();
    assert!((50..150).contains(&broken), "{broken}");
}

#[test]
fn a_burst_ends_in_504() {
    let mut simulator = Simulator::new(Scenario::named("burst-504").unwrap(), 3, 0);
    let headers = [("x-api-key", KEY), ("anthropic-version", "2023-06-01")];
    let body = hello().to_string();
    let facts = RequestFacts { method: "POST", target: "/v1/messages", headers: &headers, body: body.as_bytes() };
    let burst: Vec<_> = (0..100).map(|_| simulator.begin(at(0), &facts)).collect();
    let timed_out = |e: &&tidegate_simulator::Exchange| matches!(&e.opening, tidegate_simulator::Opening::Head(head) if head.status == 504 && head.after.as_secs() >= 20);
    assert_eq!(burst[..40].iter().filter(timed_out).count(), 0);
    assert!(burst[40..].iter().filter(timed_out).count() > 30);
}

#[test]
fn the_truth_knows_streams_and_leavers() {
    let mut simulator = simulator(2);
    let headers =
        [("x-api-key", KEY), ("anthropic-version", "2023-06-01"), ("simulate", "event_ms=100, output_tokens=200")];
    let mut body = hello();
    body["stream"] = json!(true);
    let body = body.to_string();
    let facts = RequestFacts { method: "POST", target: "/v1/messages", headers: &headers, body: body.as_bytes() };
    let mut first = simulator.begin(at(0), &facts);
    let second = simulator.begin(at(10), &facts);
    assert_eq!((simulator.truth().open_streams, simulator.truth().peak_streams), (2, 2));
    let sent: usize = first
        .playback
        .by_ref()
        .take(6)
        .map(|step| if let tidegate_simulator::Action::Send(b) = step.action { b.len() } else { 0 })
        .sum();
    simulator.progress(at(500), first.ordinal, first.playback.progress());
    simulator.client_left(at(600), first.ordinal);
    simulator.ended(at(602), first.ordinal, first.playback.progress());
    play(&mut simulator, at(10), second);
    let truth = simulator.truth();
    assert_eq!((truth.open, truth.open_streams, truth.clients_left, truth.streams_played), (0, 0, 1, 1));
    assert_eq!(truth.closing_max.as_millis(), 2);
    let record = truth.records().next().unwrap();
    let json = record.json();
    assert_eq!((&json["left_ms"], &json["ended_ms"], &json["closing_us"]), (&json!(600), &json!(602), &json!(2_000)));
    assert_eq!(json["sent_body_bytes"], sent as u64);
    let content = json["sent_content_bytes"].as_u64().unwrap() as usize;
    assert!(content > 0 && content < json["text"].as_str().unwrap().len());
    assert_eq!(truth.record(&record.request_id).unwrap().ordinal, 0);
    let output: u64 = truth.records().map(|r| r.progress.output_tokens).sum();
    assert_eq!(truth.domains[&("acme".to_owned(), "haiku-4-5")].output_tokens, output);
    simulator.reset_truth(at(700));
    assert_eq!(simulator.truth().summary(at(700))["requests"], 0);
}

#[test]
fn records_are_bounded_and_counters_are_not() {
    let mut simulator = simulator(2);
    for _ in 0..20_500 {
        simulate(&mut simulator, &hello(), "output_tokens=1");
    }
    assert_eq!(simulator.truth().records().count(), 20_000);
    assert_eq!(simulator.truth().records().next().unwrap().ordinal, 500);
    assert_eq!(simulator.truth().requests, 20_500);
}

const PAGE: &str = include_str!("../../../docs/simulator.md");

#[test]
fn the_documented_scenario_reads_and_names_every_scenario() {
    let documented = |n| Scenario::parse(PAGE.split("```toml\n").nth(n).unwrap().split("```").next().unwrap()).unwrap();
    assert!(documented(1).bare.is_none() && documented(1).faults[0].open_over == Some(40));
    assert!(documented(2).bare.is_some());
    assert!(documented(3).continuation == tidegate_simulator::ContinuationRules::default());
    let limits = PAGE.split("```toml\n").nth(4).unwrap().split("```").next().unwrap();
    let acme = PAGE.split("[[organisation]] ").nth(1).unwrap().split("[[fault]]").next().unwrap();
    let limits = Scenario::parse(&format!("{limits}\n[[organisation]] {acme}")).unwrap();
    assert!(limits.changes[0].factor == 0.5 && limits.consumers[0].percent == 30 && limits.key_outages.len() == 1);
    for (name, _) in NAMED {
        let about = Scenario::named(name).unwrap().about;
        assert!(PAGE.contains(&format!("| `{name}` | {about} |")), "{name}");
    }
}

/// The keys of each table are those that the error for a wrong one names.
#[test]
fn every_key_of_a_scenario_is_documented() {
    let documents: String = PAGE.split("```toml\n").skip(1).map(|part| part.split("```").next().unwrap()).collect();
    let organisation = "[[organisation]]\nname = \"a\"\n";
    for table in [
        "",
        "[pace]",
        "[quota]",
        "[quota.ramp]",
        "[cache]",
        "[continuation]",
        "[[organisation]]",
        "[organisation.limits.opus-5]",
        "[[organisation.workspace]]",
        "[organisation.workspace.limits.opus-5]",
        "[[change]]",
        "[[consumer]]",
        "[[spend_limit]]",
        "[[key_outage]]",
        "[[fault]]",
        "[bare]",
    ] {
        let before = match table {
            "[organisation.limits.opus-5]" | "[[organisation.workspace]]" => organisation.to_owned(),
            "[organisation.workspace.limits.opus-5]" => {
                format!("{organisation}[[organisation.workspace]]\nname = \"b\"\n")
            }
            _ => String::new(),
        };
        let error = Scenario::parse(&format!("{before}{table}\nno_such_key = 1")).unwrap_err().to_string();
        let named = error.split("expected ").nth(1).unwrap_or_else(|| panic!("{table}: {error}"));
        let keys: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        assert!(keys.len() >= 2, "{table}: {error}");
        for key in keys {
            let written = |line: &str| {
                line.starts_with(&format!("{key} = "))
                    || ["[", "[["].iter().any(|open| line.starts_with(&format!("{open}{key}")))
                    || line.contains(&format!("organisation.{key}"))
                    || line.contains(&format!("quota.{key}"))
                    || line.contains(&format!("cache.{key}"))
            };
            assert!(documents.lines().any(written), "{table}: `{key}` is not on the page");
        }
    }
}

#[test]
fn every_documented_fault_reads() {
    let table = PAGE.split("## Faults").nth(1).unwrap().split("PLACE is").next().unwrap();
    let faults: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next()).collect();
    assert_eq!(faults.len(), 25);
    for fault in faults.iter().flat_map(|cell| cell.split('`')).filter(|text| text.len() > 2) {
        let fault = fault.replace("PLACE", "in-data");
        fault.parse::<tidegate_simulator::Fault>().unwrap_or_else(|error| panic!("{error}"));
    }
}
