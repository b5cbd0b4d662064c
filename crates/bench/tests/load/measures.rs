//! What the generator measures against an endpoint whose timing is known to the millisecond.

use crate::endpoint::Step::{Close, End, Head, Send, Wait};
use crate::endpoint::{BLOCK, DELTA, JSON, SSE, START, STOP, Step, measure};
use serde_json::Value;
use std::time::Duration;
use tidegate_bench::{Arrival, Mode, Percentiles};

/// A stream of 9 events: head at 100 ms, content at 300 ms, five deltas 50 ms apart.
const STREAM: &[Step] = &[
    Wait(100),
    SSE,
    Send(START),
    Wait(200),
    Send(BLOCK),
    Wait(50),
    Send(DELTA),
    Wait(50),
    Send(DELTA),
    Wait(50),
    Send(DELTA),
    Wait(50),
    Send(DELTA),
    Wait(50),
    Send(DELTA),
    Send(STOP),
    End,
];

fn near(got: f64, want: f64) {
    assert!((got - want).abs() <= want / 500.0, "{got} is not {want}");
}

fn all_near(spans: &Percentiles, count: u64, want: f64) {
    assert_eq!(spans.count, count);
    near(spans.p50, want);
    near(spans.max, want);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_measured_event_by_event() {
    let report = measure(STREAM, |plan| plan.requests = Some(3)).await;
    assert_eq!((report.ok, report.failed, report.unfinished), (3, 0, 0));
    assert_eq!((report.events, report.connections_opened), (27, 1));
    assert_eq!((report.input_tokens, report.output_tokens), (21, 15));
    assert_eq!(report.stop_reasons.get("end_turn"), Some(&3));
    all_near(&report.first_byte_ms, 3, 100.0);
    all_near(&report.first_content_ms, 3, 300.0);
    all_near(&report.total_ms, 3, 550.0);
    // 8 gaps a stream: 200, five of 50, and two of the events that came together with others.
    assert_eq!(report.event_gap_ms.count, 24);
    near(report.event_gap_ms.p50, 50.0);
    near(report.event_gap_ms.max, 200.0);
    near(report.elapsed.as_secs_f64(), 1.65);
    near(report.events_per_s(), 27.0 / 1.65);
}

#[tokio::test(start_paused = true)]
async fn a_json_answer_is_measured_whole() {
    const ANSWER: &[Step] = &[
        Wait(40),
        JSON,
        Send("{\"type\":\"message\",\"stop_reason\":\"max_tokens\","),
        Wait(60),
        Send("\"usage\":{\"input_tokens\":3,\"output_tokens\":9}}"),
        End,
    ];
    let report = measure(ANSWER, |plan| {
        plan.mode = Mode::Json;
        plan.concurrency = 4;
        plan.requests = Some(10);
    })
    .await;
    assert_eq!((report.ok, report.connections_opened, report.output_tokens), (10, 4, 90));
    assert_eq!(report.stop_reasons.get("max_tokens"), Some(&10));
    all_near(&report.first_byte_ms, 10, 40.0);
    all_near(&report.total_ms, 10, 100.0);
    assert_eq!(report.first_content_ms.count, 0);
    near(report.elapsed.as_secs_f64(), 0.3);
}

#[tokio::test(start_paused = true)]
async fn connections_are_not_kept_if_the_plan_says_so() {
    let report = measure(STREAM, |plan| {
        plan.requests = Some(5);
        plan.keep_alive = false;
    })
    .await;
    assert_eq!((report.ok, report.connections_opened), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_was_closed_meanwhile_is_no_error() {
    let report = measure(&[JSON, Send("{\"type\":\"message\"}"), End, Close], |plan| {
        plan.mode = Mode::Json;
        plan.requests = Some(3);
    })
    .await;
    assert_eq!((report.ok, report.failed, report.connections_opened), (3, 0, 3));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_too_slow_for_the_rate_is_charged_for_the_waiting() {
    const SLOW: &[Step] = &[Wait(100), JSON, Send("{\"type\":\"message\"}"), End];
    let report = measure(SLOW, |plan| {
        plan.mode = Mode::Json;
        plan.rate_per_s = Some(20.0);
        plan.arrival = Arrival::Even;
        plan.requests = Some(100);
    })
    .await;
    assert_eq!(report.ok, 100);
    // One connection can do 10 a second: request k is due at 50k ms and starts at 100k ms.
    near(report.start_delay_ms.max, 99.0 * 50.0);
    near(report.total_ms.max, 99.0 * 50.0 + 100.0);
    near(report.total_ms.p50, 49.0 * 50.0 + 100.0);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_keeps_up_is_charged_for_nothing_else() {
    const QUICK: &[Step] = &[Wait(10), JSON, Send("{\"type\":\"message\"}"), End];
    let report = measure(QUICK, |plan| {
        plan.mode = Mode::Json;
        plan.concurrency = 50;
        plan.rate_per_s = Some(333.0);
        plan.requests = None;
        plan.duration = Some(Duration::from_secs(10));
    })
    .await;
    assert!((3100..3600).contains(&report.ok), "{}", report.ok);
    assert!(report.connections_opened < 20, "kept connections are used first: {}", report.connections_opened);
    // Timers are accurate to a millisecond; neither end's rounding is more than that.
    assert!(report.start_delay_ms.max <= 1.1, "{:?}", report.start_delay_ms);
    assert!((10.0..11.1).contains(&report.total_ms.max), "{:?}", report.total_ms);
}

#[tokio::test(start_paused = true)]
async fn what_outlives_the_grace_is_given_up_and_counted() {
    let report = measure(&[SSE, Send(START), Wait(3_600_000), End], |plan| {
        plan.concurrency = 7;
        plan.requests = None;
        plan.duration = Some(Duration::from_secs(5));
        plan.grace = Duration::from_secs(2);
    })
    .await;
    assert_eq!((report.started, report.ok, report.failed, report.unfinished), (7, 0, 0, 7));
    near(report.elapsed.as_secs_f64(), 7.0);
    assert_eq!((report.events, report.truncated_streams), (7, 0));
}

#[tokio::test(start_paused = true)]
async fn a_ramp_spreads_the_beginnings() {
    let report = measure(&[Wait(20_000), Head(529, "text/plain"), End], |plan| {
        plan.concurrency = 10;
        plan.requests = Some(10);
        plan.ramp = Duration::from_secs(10);
    })
    .await;
    near(report.elapsed.as_secs_f64(), 29.0);
}

#[tokio::test(start_paused = true)]
async fn the_json_form_has_stable_names_and_no_secret() {
    let report = measure(STREAM, |plan| {
        plan.key = Some(tidegate_base::Secret::new("sk-secret"));
        plan.headers = vec![("x-other".into(), "also-secret".into())];
    })
    .await;
    let json = report.json();
    assert!(!json.to_string().contains("secret"), "{json}");
    for (pointer, want) in [
        ("/plan/mode", "\"sse\""),
        ("/plan/header_names", "[\"x-other\"]"),
        ("/requests/ok", "1"),
        ("/answers_by_status", "{\"200\":1}"),
        ("/errors/timeout", "0"),
        ("/errors/http", "{}"),
        ("/truncated_streams", "0"),
        ("/event_gap_ms/count", "8"),
        ("/generator", "null"),
    ] {
        assert_eq!(json.pointer(pointer).map(Value::to_string).as_deref(), Some(want), "{pointer}");
    }
    for span in ["connect_ms", "start_delay_ms", "first_byte_ms", "first_content_ms", "event_gap_ms", "total_ms"] {
        for name in ["count", "mean", "p50", "p90", "p99", "p99_9", "max"] {
            assert!(json[span][name].is_number(), "{span} {name}");
        }
    }
}
