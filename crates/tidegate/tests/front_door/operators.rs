//! The operators' door: what it shows of a running request, and how one is ended from there.

use crate::process::{Tidegate, eventually};
use crate::wire::{Wire, bare, code_of, get, message, post};
use std::time::{Duration, Instant};

const SLOW: (&str, &str) = ("simulate", "output_tokens=3000, head_ms=0, first_ms=0, event_ms=50");

/// The one live stream, once it is in `phase`.
fn live(tidegate: &Tidegate, phase: &str) -> serde_json::Value {
    eventually(phase, Duration::from_secs(5), || {
        let streams = tidegate.streams();
        (streams.len() == 1 && streams[0]["phase"] == phase).then(|| streams[0].clone())
    })
}

fn cancel(tidegate: &Tidegate, id: &str) -> u16 {
    Wire::to(tidegate.admin).ask(bare("DELETE", &format!("/streams/{id}"), &[])).status
}

#[test]
fn health_readiness_and_metrics_are_there() {
    let tidegate = Tidegate::simulated();
    for (path, text) in [("/healthz", "alive\n"), ("/readyz", "ready\n")] {
        assert_eq!((tidegate.admin(path).status, tidegate.admin(path).text().as_str()), (200, text));
    }
    assert_eq!(tidegate.ask(post(&[crate::wire::QUICK], message(true, 100, "x"))).status, 200);
    tidegate.comes_to_rest();
    let page = tidegate.admin("/metrics");
    assert!(page.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = page.text();
    assert!(text.ends_with("# EOF\n"));
    for name in [
        "tidegate_requests_total{door=\"messages\",tenant=\"default\",status=\"200\",end=\"answered\"} 1",
        "tidegate_streams_open 0",
        "tidegate_first_byte_seconds_count{door=\"messages\"} 1",
        "tidegate_stream_gap_seconds_count",
        "tidegate_tokens_total{tenant=\"default\",model=\"claude-haiku-5-5\",kind=\"output\"} 20",
        "tidegate_upstream_connections{lane=\"default/1\",state=\"idle\"} 1",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert_eq!(tidegate.admin("/nothing").status, 404);
    let wrong = Wire::to(tidegate.admin).ask(bare("POST", "/metrics", &[]));
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET")));
    let mut wire = Wire::to(tidegate.admin);
    wire.send(bare("HEAD", "/healthz", &[]));
    assert_eq!(wire.head().unwrap().status, 200);
    wire.send(get("/snapshot", &[]));
    assert_eq!(wire.answer().json()["leases"], 0);
    assert_eq!(tidegate.ask(get("/metrics", &[])).status, 404, "not on the clients' door");
}

#[test]
fn a_live_stream_is_shown_and_can_be_cancelled() {
    let tidegate = Tidegate::simulated();
    let mut wire = tidegate.client();
    wire.send(post(&[SLOW], message(true, 4000, "x")));
    wire.until("content_block_delta").unwrap();
    let shown = live(&tidegate, "relay");
    for (field, want) in
        [("door", "messages"), ("tenant", "default"), ("model", "claude-haiku-5-5"), ("upstream_key", "default/1")]
    {
        assert_eq!(shown[field], want, "{shown}");
    }
    assert_eq!(shown["attempts"], 1);
    assert!(shown["age_ms"].as_u64() < Some(10_000) && shown["last_byte_age_ms"].as_u64() < Some(2_000), "{shown}");
    assert!(shown["upstream_request_ids"][0].as_str().unwrap().starts_with("req_"), "{shown}");
    assert!(!shown["waits_for"].as_str().unwrap().is_empty());
    assert_eq!(cancel(&tidegate, shown["stream"].as_str().unwrap()), 202);
    let (rest, _) = wire.rest();
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.contains("event: error\n") && rest.contains("cancelled_by_operator"), "{rest}");
    assert!(rest.ends_with("0\r\n\r\n"), "the stream ends as HTTP wants it: {rest}");
    tidegate.comes_to_rest();
    assert_eq!(tidegate.truth("/truth")["open"], 0);
    assert_eq!(cancel(&tidegate, shown["stream"].as_str().unwrap()), 404, "it is over");
}

#[test]
fn a_silent_request_can_be_cancelled_in_every_phase() {
    let tidegate = Tidegate::simulated();
    for (phase, stream, max_tokens, simulate) in [
        ("first_byte", true, 100, "head_ms=30000"),
        ("first_byte", false, 100, "head_ms=30000"),
        ("first_byte", false, 30_000, "head_ms=30000"),
        ("relay", false, 30_000, "head_ms=0, first_ms=30000"),
    ] {
        let mut wire = tidegate.client();
        wire.send(post(&[("simulate", simulate)], message(stream, max_tokens, "x")));
        let shown = live(&tidegate, phase);
        let began = Instant::now();
        assert_eq!(cancel(&tidegate, shown["stream"].as_str().unwrap()), 202);
        let answer = wire.answer();
        assert_eq!((answer.status, answer.code().as_str()), (500, "cancelled_by_operator"), "{phase}");
        assert_eq!(code_of(&answer.json()), "cancelled_by_operator");
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert!(began.elapsed() < Duration::from_secs(3));
        drop(wire);
        tidegate.comes_to_rest();
    }
    for id in ["nonesuch", "", "str_aaaaaaaaaaaaaaaaaaaaaaaa", "..%2f"] {
        assert_eq!(cancel(&tidegate, id), 404, "{id}");
    }
}
