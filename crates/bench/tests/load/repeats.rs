//! Requests that are sent again as an SDK would, and mixes of requests: what is counted of them.

use crate::endpoint::Step::{Close, End, Head, Refuse, Reset, Send, Wait};
use crate::endpoint::{BLOCK, DELTA, ERROR, SSE, START, STOP, Step, measure, measure_in_turn};
use std::time::Duration;
use tidegate_bench::{Arrival, Class, Mix, Plan};

const WHOLE: &[Step] = &[Wait(10), SSE, Send(START), Send(BLOCK), Wait(20), Send(DELTA), Send(STOP), End];
const LATER: &[Step] = &[Wait(10), Refuse(429, "retry-after", "3"), End];
const OVERLOADED: &[Step] = &[Head(529, "application/json"), Send("{}"), End];

fn retrying(plan: &mut Plan) {
    plan.retries = 2;
}

fn seconds(report: &tidegate_bench::Report) -> f64 {
    report.elapsed.as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_whole_after_the_wait_it_was_told() {
    let report = measure_in_turn(vec![LATER, WHOLE], retrying).await;
    assert_eq!((report.started, report.ok, report.failed, report.attempts), (1, 1, 0, 2));
    assert!((3.0..3.1).contains(&seconds(&report)), "{report:?}");
    // The caller waited for all of it.
    assert!((3_020.0..3_060.0).contains(&report.first_content_ms.p50), "{:?}", report.first_content_ms);
    assert_eq!(report.answers_by_status.into_iter().collect::<Vec<_>>(), [(200, 1), (429, 1)]);
    assert!(report.errors.by_name().is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_two_retries_the_last_refusal_is_the_outcome() {
    let report = measure(OVERLOADED, retrying).await;
    assert_eq!((report.started, report.failed, report.attempts), (1, 1, 3));
    // Half a second and a second, each less up to a quarter.
    assert!((1.125..1.52).contains(&seconds(&report)), "{report:?}");
    assert_eq!(report.errors.http.values().sum::<u64>(), 1);
    let without = measure(OVERLOADED, |_| {}).await;
    assert_eq!((without.failed, without.attempts), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_tried_again_and_a_stream_that_began_is_not() {
    let report = measure_in_turn(vec![&[Reset], &[Close], WHOLE], retrying).await;
    assert_eq!((report.ok, report.failed, report.attempts), (1, 0, 3));
    for broken in [&[SSE, Send(START), Reset] as &[Step], &[SSE, Send(START), Send(ERROR), End]] {
        let report = measure_in_turn(vec![broken, WHOLE], retrying).await;
        assert_eq!((report.ok, report.failed, report.attempts), (0, 1, 1), "{broken:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn patience_is_for_all_attempts_together() {
    let report = measure(LATER, |plan| {
        plan.retries = 2;
        plan.request_timeout = Duration::from_secs(4);
    })
    .await;
    assert_eq!((report.errors.timeout, report.attempts), (1, 2));
    assert!((4.0..4.01).contains(&seconds(&report)), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn classes_are_counted_apart_and_make_the_whole() {
    let class = |name: &str, weight| Class { name: name.to_owned(), weight, headers: Vec::new() };
    let report = measure_in_turn(vec![WHOLE, WHOLE, OVERLOADED], |plan| {
        plan.requests = Some(300);
        plan.concurrency = 50;
        plan.rate_per_s = Some(100.0);
        plan.arrival = Arrival::Even;
        plan.mix = Some(Mix { classes: vec![class("a", 3), class("b", 1)], keys: Vec::new(), prompt_bytes_max: 2_000 });
    })
    .await;
    assert_eq!((report.started, report.ok, report.failed), (300, 200, 100));
    let [a, b] = report.classes.as_slice() else { panic!("{report:?}") };
    assert_eq!((a.started + b.started, a.ok + b.ok, a.failed + b.failed), (300, 200, 100));
    assert_eq!((a.started, b.started), (a.ok + a.failed, b.ok + b.failed));
    assert!((190..260).contains(&a.started), "three of four: {}", a.started);
    assert_eq!((a.output_tokens + b.output_tokens, report.output_tokens), (1_000, 1_000));
    assert_eq!(a.first_content_ms.count + b.first_content_ms.count, report.first_content_ms.count);
    let json = report.json();
    assert_eq!(json["classes"][1]["name"], "b");
    assert_eq!(json["classes"][1]["started"], b.started);
    assert!(report.table().contains("first content, a"), "{}", report.table());
}
