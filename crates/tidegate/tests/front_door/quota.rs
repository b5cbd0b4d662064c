//! Quota: the upstream's, which no client is to notice, and tenants' own, which they are.

use crate::process::{Folder, Tidegate, eventually};
use crate::upstream::{Upstream, plain};
use crate::wire::{Answer, QUICK, message, post};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Ten requests a second with two seconds' worth saved up.
const TEN_A_SECOND: &str = r#"
about = "ten requests a second"
[pace]
head = "20 ms"
first = "20 ms"
event = "2 ms"
output_tokens = "20-40"
[quota]
burst = "2 s"
[[organisation]]
name = "simulated"
keys = ["sk-ant-simulated"]
[organisation.limits.haiku-5-5]
requests_per_minute = 600
input_tokens_per_minute = 1000000
output_tokens_per_minute = 1000000
"#;

fn limited(config: &str, folder: &Folder) -> Tidegate {
    let scenario = folder.write("scenario.toml", TEN_A_SECOND);
    Tidegate::simulated_with(config, &["--scenario", &scenario])
}

/// So many requests at once, each by a client of its own.
fn crowd(tidegate: &Tidegate, many: usize, lines: &[(&str, &str)]) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let ask = || tidegate.ask(post(lines, message(true, 100, "hello")));
        let asked: Vec<_> = (0..many).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

pub(crate) fn domain(tidegate: &Tidegate, class: &str) -> Value {
    let page = tidegate.admin("/domains").json();
    let found = page["domains"].as_array().unwrap().iter().find(|d| d["class"] == class).cloned();
    found.unwrap_or_else(|| panic!("{class}: {page}"))
}

#[test]
fn more_than_the_quota_waits_and_nobody_sees_a_429() {
    let folder = Folder::new();
    let tidegate = limited("", &folder);
    // Limits are learned from the first answer.
    assert_eq!(tidegate.ask(post(&[], message(true, 100, "hello"))).status, 200);
    let began = Instant::now();
    let answers = crowd(&tidegate, 60, &[("tidegate-priority", "interactive")]);
    assert!(answers.iter().all(|a| a.status == 200 && a.text().contains("message_stop")), "{answers:?}");
    assert!(began.elapsed() > Duration::from_secs(3), "forty of them have to wait: {:?}", began.elapsed());
    let refused = tidegate.truth("/truth")["refusals"].clone();
    let refused: u64 = refused.as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert!(refused <= 3, "{refused} refused upstream");
    assert!(tidegate.metric("tidegate_queue_wait_seconds_count{band=\"interactive\"}") >= 60.0);
    let waited: f64 = ["requests", "turn", "in_flight", "probe"]
        .map(|reason| {
            format!("tidegate_queue_waited_total{{tenant=\"default\",band=\"interactive\",reason=\"{reason}\"}}")
        })
        .iter()
        .map(|name| tidegate.metric(name))
        .sum();
    assert!(waited >= 20.0, "{waited} waited");
    tidegate.comes_to_rest();
    assert_eq!(tidegate.metric("tidegate_lease_audit_difference"), 0.0);
}

#[test]
fn what_a_request_waits_for_is_shown_while_it_waits() {
    let folder = Folder::new();
    let tidegate = limited("", &folder);
    assert_eq!(tidegate.ask(post(&[], message(true, 100, "hello"))).status, 200);
    std::thread::scope(|scope| {
        let crowd = scope.spawn(|| crowd(&tidegate, 60, &[]));
        let waiting = eventually("a request that waits for quota", Duration::from_secs(3), || {
            let reasons = ["requests", "turn", "in_flight", "probe"];
            let waits = |s: &Value| s["waits_for"].as_str().is_some_and(|reason| reasons.contains(&reason));
            tidegate.streams().into_iter().find(waits)
        });
        assert_eq!(waiting["phase"], "admit", "{waiting}");
        let expected = waiting.get("expected_ms").map(|ms| ms.as_u64().unwrap());
        assert!(expected.is_none_or(|ms| (1..600_000).contains(&ms)), "left out where nothing can be told: {waiting}");
        let shown = domain(&tidegate, "claude-haiku-5-5");
        assert_eq!(shown["knowledge"], "metered", "{shown}");
        assert_eq!(shown["limits"]["requests"]["per_minute"], 600, "{shown}");
        assert_eq!(shown["limits"]["requests"]["from"], "header", "{shown}");
        assert_eq!(shown["breaker"]["state"], "closed", "{shown}");
        let queued = shown["queue"]["by_tenant"].as_array().unwrap();
        assert!(queued.iter().all(|q| q["tenant"] == "default"), "{shown}");
        assert!(crowd.join().unwrap().iter().all(|a| a.status == 200));
    });
}

#[test]
fn a_wait_that_cannot_end_in_time_is_refused_at_once_as_overload() {
    let folder = Folder::new();
    let tidegate = limited("", &folder);
    assert_eq!(tidegate.ask(post(&[], message(true, 100, "hello"))).status, 200);
    let answers = crowd(&tidegate, 60, &[("tidegate-deadline-ms", "2500")]);
    let late: Vec<_> = answers.iter().filter(|a| a.status != 200).collect();
    assert!(!late.is_empty() && answers.len() - late.len() >= 20, "{} late", late.len());
    for answer in late {
        assert!(matches!(answer.status, 529 | 504), "{} {}", answer.head, answer.text());
        assert!(["queue_wait_too_long", "deadline_passed"].contains(&answer.code().as_str()), "{}", answer.text());
    }
    let shed = "tidegate_queue_shed_total{tenant=\"default\",band=\"normal\",reason=\"too_long\"}";
    assert!(tidegate.metric(shed) > 0.0);
    tidegate.comes_to_rest();
}

#[test]
fn a_tenants_own_limits_are_told_in_the_apis_headers() {
    let config = "[[tenant]]\nname = \"default\"\nrequests_per_minute = 3\ntokens_per_minute = 100000\n";
    let tidegate = Tidegate::simulated_with(config, &[]);
    for (stream, left) in [(true, "2"), (false, "1"), (true, "0")] {
        let answer = tidegate.ask(post(&[QUICK], message(stream, 50, "hello")));
        assert_eq!(answer.status, 200);
        let header = |what: &str| answer.all(&format!("anthropic-ratelimit-{what}"));
        assert_eq!((header("requests-limit"), header("requests-remaining")), (vec!["3"], vec![left]));
        assert_eq!(header("tokens-limit"), ["100000"]);
        assert!(header("requests-reset")[0].ends_with('Z'));
        assert_eq!(header("input-tokens-limit"), Vec::<&str>::new(), "the upstream's are not the tenant's business");
    }
    let refused = tidegate.ask(post(&[QUICK, ("tidegate-deadline-ms", "2000")], message(true, 50, "hello")));
    assert_eq!((refused.status, refused.code().as_str()), (429, "tenant_requests"), "{}", refused.text());
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((15..=21).contains(&after), "{after}");
    assert_eq!(
        (refused.header("x-should-retry"), refused.header("anthropic-ratelimit-requests-remaining")),
        (None, Some("0"))
    );
    let shed = "tidegate_queue_shed_total{tenant=\"default\",band=\"normal\",reason=\"tenant_requests\"}";
    assert_eq!(tidegate.metric(shed), 1.0);
    assert_eq!(tidegate.truth("/truth")["requests"], 3, "the upstream never saw it");
}

#[test]
fn a_credential_of_the_clients_own_goes_upstream_and_nobody_elses_does() {
    let wrong = r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"},"request_id":"req_1"}"#;
    let wrong = plain(401, "content-type: application/json\r\nrequest-id: req_1\r\n", wrong);
    let upstream = Upstream::playing(move |_, seen, socket| {
        let said = if seen.all("x-api-key") == ["sk-ant-bad-OWNMARK"] { wrong.clone() } else { good() };
        drop(std::io::Write::write_all(socket, said.as_bytes()));
    });
    let own = format!("[own_credentials]\nurl = \"http://{}\"\n", upstream.at);
    let tidegate = before(&[("ours", &upstream)], &own);
    let ask = |lines: &[(&str, &str)]| tidegate.ask(post(lines, message(false, 50, "hello")));
    assert_eq!(ask(&[("x-api-key", "sk-ant-theirs-OWNMARK")]).status, 200);
    assert_eq!(ask(&[("authorization", "Bearer sk-ant-other-OWNMARK")]).status, 200);
    let lines =
        [("x-api-key", ""), ("Authorization", "bearer  sk-ant-oat01-OWNMARK"), ("anthropic-beta", "oauth-2025-04-20")];
    assert_eq!(ask(&lines).status, 200, "what is empty is none");
    // Of several the one that is looked at goes up.
    let lines =
        [("x-api-key", "sk-ant-theirs-OWNMARK"), ("x-api-key", "sk-ant-2-OWNMARK"), ("authorization", "Bearer a")];
    assert_eq!(ask(&lines).status, 200);
    assert_eq!(upstream.seen()[2].all("anthropic-beta"), ["oauth-2025-04-20"]);
    assert_eq!(ask(&[("x-api-key", "tg_whatever")]).status, 200, "no keys are configured");
    let answer = ask(&[("x-api-key", "sk-ant-bad-OWNMARK")]);
    assert_eq!((answer.status, answer.code().as_str()), (401, ""), "its own key is its own business");
    let sent: Vec<_> =
        upstream.seen().iter().map(|s| (s.all("x-api-key").join(","), s.all("authorization").join(","))).collect();
    let want = [
        ("sk-ant-theirs-OWNMARK", ""),
        ("", "Bearer sk-ant-other-OWNMARK"),
        ("", "bearer  sk-ant-oat01-OWNMARK"),
        ("sk-ant-theirs-OWNMARK", ""),
        ("sk-ant-ours", ""),
        ("sk-ant-bad-OWNMARK", ""),
    ];
    assert_eq!(sent, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    let domains = tidegate.admin("/domains").json()["domains"].as_array().unwrap().clone();
    assert_eq!(domains.iter().filter(|d| d["organisation"] == "own").count(), 4, "a domain for each credential");
    assert_eq!(tidegate.metric("tidegate_upstream_keys_aside{organisation=\"ours\"}"), 0.0);
    let pinned = ask(&[("x-api-key", "sk-ant-theirs-OWNMARK"), ("tidegate-organisation", "ours")]);
    assert_eq!((pinned.status, pinned.code().as_str()), (400, "invalid_header"));
    tidegate.comes_to_rest();
    assert_eq!(tidegate.logged("OWNMARK"), 0, "{}", tidegate.output());
}

/// A gateway in front of these upstreams, each an organisation of its own.
pub(crate) fn before(upstreams: &[(&str, &Upstream)], config: &str) -> Tidegate {
    let tables: String = upstreams
        .iter()
        .map(|(name, upstream)| {
            format!(
                "[[organisation]]\nname = \"{name}\"\nurl = \"http://{}\"\nkeys = [{{ value = \"sk-ant-{name}\" }}]\n",
                upstream.at
            )
        })
        .collect();
    Tidegate::configured(&format!("{tables}{config}"))
}

pub(crate) const ANSWER: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":2}}"#;

pub(crate) fn good() -> String {
    plain(200, "content-type: application/json\r\nanthropic-organization-id: org-1\r\n", ANSWER)
}

pub(crate) fn refusing(status: u16, kind: &str, message: &str, code: &str) -> Upstream {
    let details = if code.is_empty() { "null".to_owned() } else { format!("{{\"error_code\":\"{code}\"}}") };
    let body = format!(
        "{{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"{message}\",\"details\":{details}}},\"request_id\":\"req_1\"}}"
    );
    Upstream::saying(plain(status, "content-type: application/json\r\nrequest-id: req_1\r\n", &body))
}

pub(crate) fn ask(tidegate: &Tidegate) -> Answer {
    tidegate.ask(post(&[], message(false, 50, "hello")))
}

#[test]
fn money_that_is_spent_sends_requests_elsewhere_and_is_told_once() {
    for (status, kind, said, code) in [
        (400, "invalid_request_error", "You have reached your specified API usage limits.", ""),
        (429, "rate_limit_error", "Your monthly limit is reached", "enforced_spend_limit_reached"),
    ] {
        let poor = refusing(status, kind, said, code);
        let rich = Upstream::saying(good());
        let tidegate = before(&[("poor", &poor), ("rich", &rich)], "");
        for _ in 0..12 {
            assert_eq!(ask(&tidegate).status, 200);
        }
        assert_eq!((poor.seen().len(), rich.seen().len()), (1, 12), "{said}");
        let refusals = "tidegate_upstream_refusals_total{organisation=\"poor\",kind=\"spend_cap\"}";
        assert_eq!(tidegate.metric(refusals), 1.0);
        assert_eq!(tidegate.logged("has spent what it may"), 1);
        assert!(domain(&tidegate, "claude-haiku-5-5")["spend_cap_for_ms"].as_u64() > Some(600_000));

        let tidegate = before(&[("poor", &poor)], "");
        for _ in 0..3 {
            let answer = ask(&tidegate);
            assert_eq!((answer.status, answer.code().as_str()), (529, "spend_cap"), "{}", answer.text());
            assert_eq!(answer.header("x-should-retry"), Some("false"));
        }
        assert_eq!(poor.seen().len(), 2, "it is not asked again for a while");
    }
}

#[test]
fn a_disabled_organisation_is_put_aside_and_a_forbidden_model_is_told() {
    let disabled = refusing(403, "permission_error", "This organization has been disabled.", "");
    let good = Upstream::saying(good());
    let tidegate = before(&[("disabled", &disabled), ("good", &good)], "");
    (0..6).for_each(|_| assert_eq!(ask(&tidegate).status, 200));
    assert_eq!((disabled.seen().len(), good.seen().len()), (1, 6));
    assert_eq!(tidegate.metric("tidegate_upstream_keys_aside{organisation=\"disabled\"}"), 1.0);
    assert_eq!(tidegate.logged("rejects this key"), 1);
    let forbidden = refusing(403, "permission_error", "Your organization does not have access to this model", "");
    let answer = ask(&before(&[("a", &forbidden)], ""));
    assert_eq!(answer.status, 403, "it is the request's own");
}

#[test]
fn two_names_for_one_organisation_are_noticed() {
    let (a, b) = (Upstream::saying(good()), Upstream::saying(good()));
    let tidegate = before(&[("a", &a), ("b", &b)], "");
    for name in ["a", "b", "a", "b"] {
        let answer = tidegate.ask(post(&[("tidegate-organisation", name)], message(false, 50, "hello")));
        assert_eq!(answer.status, 200);
    }
    assert_eq!((a.seen().len(), b.seen().len()), (2, 2), "a request goes where its client says");
    assert_eq!(tidegate.logged("share its limits"), 1);
    let unknown = tidegate.ask(post(&[("tidegate-organisation", "c")], message(false, 50, "hello")));
    assert_eq!((unknown.status, unknown.code().as_str()), (400, "invalid_header"));
}

#[test]
fn a_file_is_looked_for_where_it_may_live_and_then_known() {
    let missing = || refusing(404, "not_found_error", "File not found: file_1", "");
    let (a, b, owner) = (missing(), missing(), Upstream::saying(good()));
    let tidegate = before(&[("a", &a), ("b", &b), ("owner", &owner)], "");
    let with = |id: &str| {
        let body = format!(
            r#"{{"model":"claude-haiku-5-5","max_tokens":50,"messages":[{{"role":"user","content":[{{"type":"document","source":{{"type":"file","file_id":"{id}"}}}}]}}]}}"#
        );
        tidegate.ask(post(&[], body))
    };
    assert_eq!(with("file_1").status, 200);
    let asked = a.seen().len() + b.seen().len();
    (0..5).for_each(|_| assert_eq!(with("file_1").status, 200));
    assert_eq!((a.seen().len() + b.seen().len(), owner.seen().len()), (asked, 6), "its owner is known");
    let nowhere = before(&[("a", &a), ("b", &b)], "");
    let before_it = a.seen().len() + b.seen().len();
    let answer =
        nowhere.ask(post(&[], r#"{"model":"claude-haiku-5-5","max_tokens":50,"container":"cnt_1","messages":[]}"#));
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert_eq!(a.seen().len() + b.seen().len(), before_it + 2, "everybody was asked");
    nowhere.comes_to_rest();
    assert_eq!(
        nowhere.metric(
            "tidegate_requests_total{door=\"messages\",tenant=\"default\",status=\"404\",end=\"upstream_refused\"}"
        ),
        1.0
    );
}

#[test]
fn a_conversation_stays_where_its_cache_is() {
    let cached = ANSWER.replace("\"input_tokens\":3", "\"input_tokens\":3,\"cache_read_input_tokens\":20000");
    let answer = plain(200, "content-type: application/json\r\n", &cached);
    let (a, b) = (Upstream::saying(answer.clone()), Upstream::saying(answer));
    let tidegate = before(&[("a", &a), ("b", &b)], "");
    let turn = |talk: usize, turns: usize| {
        let said: String = (0..turns)
            .map(|n| {
                format!(
                    r#"{{"role":"user","content":"{} of {talk}"}},{{"role":"assistant","content":"yes {n}"}},"#,
                    if n == 0 { "first" } else { "next" }
                )
            })
            .collect();
        let word = if turns == 0 { "first" } else { "next" };
        let mark = r#""cache_control":{"type":"ephemeral"}"#;
        let last = format!(r#"{{"role":"user","content":[{{"type":"text","text":"{word} of {talk}",{mark}}}]}}"#);
        let system = "word ".repeat(2_000);
        let body = format!(
            r#"{{"model":"claude-haiku-5-5","max_tokens":50,"system":[{{"type":"text","text":"{system}",{mark}}}],"messages":[{said}{last}]}}"#
        );
        assert_eq!(tidegate.ask(post(&[], body)).status, 200);
    };
    for turns in 0..4 {
        (0..6).for_each(|talk| turn(talk, turns));
    }
    let talks = |upstream: &Upstream| -> Vec<String> {
        let body = |s: &crate::upstream::Seen| String::from_utf8(s.body.clone()).unwrap();
        let talk = |text: &str| text.split("first of ").nth(1).unwrap()[..1].to_owned();
        upstream.seen().iter().map(|s| talk(&body(s))).collect()
    };
    let (at_a, at_b) = (talks(&a), talks(&b));
    assert_eq!(at_a.len() + at_b.len(), 24);
    let apart: Vec<_> = at_a.iter().filter(|talk| at_b.contains(talk)).collect();
    assert!(apart.is_empty(), "in two places: {apart:?}");
}
