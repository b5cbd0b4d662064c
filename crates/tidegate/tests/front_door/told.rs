//! What clients and operators are told of upstreams, and what only one of them is.

use crate::process::Tidegate;
use crate::quota::{ANSWER, before, good};
use crate::upstream::{BEGIN, END, Upstream, chunk, plain, stream_head};
use crate::wire::{message, post};
use std::io::Write;

const OWN: [(&str, &str); 1] = [("x-api-key", "sk-ant-theirs")];

fn envelope(kind: &str, message: &str, code: &str) -> String {
    format!(
        r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}","details":{{"error_code":"{code}"}}}},"request_id":"req_1"}}"#
    )
}

/// A gateway whose clients' own credentials lead to `upstream`, as does its own.
fn own(upstream: &Upstream) -> Tidegate {
    before(&[("ours", upstream)], &format!("[own_credentials]\nurl = \"http://{}\"\n", upstream.at))
}

#[test]
fn an_error_inside_a_stream_that_is_about_a_clients_own_credential_is_told_as_that() {
    for begun in [false, true] {
        let error = envelope("authentication_error", "your key was revoked", "");
        let event = chunk(&format!("event: error\ndata: {error}\n\n"));
        let answer = [stream_head(""), if begun { chunk(BEGIN) } else { String::new() }, event, END.to_owned()];
        let upstream = Upstream::saying(answer.concat());
        let tidegate = own(&upstream);
        let told = tidegate.ask(post(&OWN, message(true, 50, "hello")));
        let said = if begun { told.last_error() } else { told.json() };
        assert_eq!(told.status, if begun { 200 } else { 401 });
        assert_eq!(said["error"]["message"], "your key was revoked", "{said}");
        assert_eq!(said["error"]["type"], "authentication_error", "{said}");
        assert_eq!(upstream.seen().len(), 1, "it is not tried again");
        assert_eq!(tidegate.logged("rejects this key"), 0);
        // Nothing is closed for it: what is the matter may be over.
        assert_eq!(tidegate.ask(post(&OWN, message(true, 50, "hello"))).status, told.status);
        assert_eq!(upstream.seen().len(), 2);
        tidegate.comes_to_rest();
    }
}

#[test]
fn money_of_a_clients_own_that_is_spent_is_told_in_the_upstreams_words_and_is_no_429() {
    let error = envelope("rate_limit_error", "you have spent it all", "enforced_spend_limit_reached");
    let upstream = Upstream::saying(plain(429, "content-type: application/json\r\n", &error));
    let tidegate = own(&upstream);
    for n in 1..=2 {
        let told = tidegate.ask(post(&OWN, message(false, 50, "hello")));
        assert_eq!((told.status, told.code().as_str()), (529, "spend_cap"), "{}", told.text());
        assert_eq!(told.json()["error"]["message"], "you have spent it all");
        assert_eq!(told.header("x-should-retry"), Some("false"));
        assert_eq!(upstream.seen().len(), n, "once each, and asked again each time");
    }
    assert_eq!(tidegate.logged("has spent what it may"), 0);
}

#[test]
fn a_tenant_with_limits_of_its_own_sees_no_tier_of_the_upstreams() {
    let lines = "content-type: application/json\r\nanthropic-ratelimit-requests-limit: 4000\r\nanthropic-fast-input-tokens-remaining: 7\r\nAnthropic-Priority-Output-Tokens-Limit: 9\r\nanthropic-organization-id: org-1\r\n";
    let upstream = Upstream::saying(plain(200, lines, ANSWER));
    let ask = |config: &str| {
        let told = before(&[("a", &upstream)], config).ask(post(&[], message(false, 50, "hello")));
        let tiers = [
            "anthropic-ratelimit-requests-limit",
            "anthropic-fast-input-tokens-remaining",
            "anthropic-priority-output-tokens-limit",
        ];
        tiers.map(|name| told.header(name).map(str::to_owned))
    };
    let told = |values: [Option<&str>; 3]| values.map(|v| v.map(str::to_owned));
    assert_eq!(ask(""), told([Some("4000"), Some("7"), Some("9")]));
    assert_eq!(ask("[[tenant]]\nname = \"default\"\nrequests_per_minute = 30\n"), told([Some("30"), None, None]));
}

#[test]
fn keys_of_two_organisations_in_one_table_are_told_of_once() {
    let upstream = Upstream::playing(|n, _, socket| {
        let lines = format!("content-type: application/json\r\nanthropic-organization-id: org-{}\r\n", n % 2);
        drop(socket.write_all(plain(200, &lines, ANSWER).as_bytes()));
    });
    let tidegate = before(&[("mixed", &upstream), ("other", &upstream)], "");
    for n in 0..20 {
        let organisation = if n % 4 < 2 { "mixed" } else { "other" };
        let asked = post(&[("tidegate-organisation", organisation)], message(false, 50, "hello"));
        assert_eq!(tidegate.ask(asked).status, 200);
    }
    assert_eq!(tidegate.logged("belong to different organisations"), 2, "one for each table");
    assert_eq!(tidegate.logged("share its limits"), 1);
}

#[test]
fn invented_models_cost_those_that_exist_nothing() {
    let missing = envelope("not_found_error", "model: nonesuch", "");
    let missing = plain(404, "content-type: application/json\r\n", &missing);
    let upstream = Upstream::playing(move |_, seen, socket| {
        let invented = seen.body.windows(9).any(|w| w == b"invented-");
        drop(socket.write_all(if invented { missing.clone() } else { good() }.as_bytes()));
    });
    let tidegate = before(&[("a", &upstream)], "[organisation.limits.\"claude-late-1\"]\nrequests_per_minute = 77\n");
    let mut wire = tidegate.client();
    for n in 0..400 {
        let body = message(false, 50, "hello").replace("claude-haiku-5-5", &format!("invented-{n}"));
        wire.send(post(&[], body));
        assert_eq!(wire.answer().status, 404);
    }
    for model in ["claude-haiku-5-5", "claude-late-1"] {
        wire.send(post(&[], message(false, 50, "hello").replace("claude-haiku-5-5", model)));
        assert_eq!(wire.answer().status, 200);
    }
    let page = tidegate.admin("/domains").json();
    let rows = page["domains"].as_array().unwrap();
    let row = |class: &str| rows.iter().find(|row| row["class"] == class).unwrap_or_else(|| panic!("{class}: {page}"));
    assert!(rows.len() <= 66, "{}", rows.len());
    assert_eq!(row("claude-late-1")["limits"]["requests"]["per_minute"], 77);
    row("claude-haiku-5-5");
    let tokens = "tidegate_tokens_total{tenant=\"default\",model=\"claude-late-1\",kind=\"output\"}";
    assert_eq!(tidegate.metric(tokens), 2.0, "it has a label of its own");
}
