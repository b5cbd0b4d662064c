//! Every way an answer can break is counted as what it is, and only once.

use crate::endpoint::Step::{self, Close, End, Head, HeadOf, Raw, Reset, Send, Wait};
use crate::endpoint::{DELTA, ERROR, JSON, SSE, START, STOP, measure};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tidegate_bench::{Mode, Plan, run_here};
use tidegate_transport::{Clock, MemoryNetwork};

/// Two requests in `mode` to an endpoint that answers by `script`: what the one error is called,
/// and how many truncated streams were counted.
async fn check(mode: Mode, script: &'static [Step], error: &str, truncated: u64) {
    let report = measure(script, |plan| {
        plan.mode = mode;
        plan.requests = Some(2);
        plan.request_timeout = Duration::from_secs(30);
    })
    .await;
    assert_eq!((report.started, report.ok, report.failed, report.unfinished), (2, 0, 2, 0), "{script:?}");
    assert_eq!(report.errors.by_name().into_iter().collect::<Vec<_>>(), [(error.to_owned(), 2)], "{script:?}");
    assert_eq!(report.truncated_streams, truncated, "{script:?}");
    assert_eq!(report.total_ms.count, 0, "failures have no total");
}

#[tokio::test(start_paused = true)]
async fn streams_that_end_without_message_stop_are_truncated() {
    check(Mode::Sse, &[SSE, Send(START), Send(DELTA), End], "truncated", 2).await;
    check(Mode::Sse, &[SSE, Send(START), Send(DELTA), Close], "truncated", 2).await;
    check(Mode::Sse, &[SSE, Send(START), Send("event: content_bl"), Close], "truncated", 2).await;
    check(Mode::Sse, &[SSE, End], "truncated", 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_says_stop_but_whose_body_is_cut_is_truncated() {
    check(Mode::Sse, &[SSE, Send(START), Send(DELTA), Send(STOP), Close], "truncated", 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_a_reset_wherever_it_comes() {
    check(Mode::Sse, &[Reset], "reset", 0).await;
    check(Mode::Sse, &[Close], "reset", 0).await;
    check(Mode::Sse, &[Raw("HTTP/1.1 200 O"), Close], "reset", 0).await;
    check(Mode::Sse, &[SSE, Send(START), Wait(10), Reset], "reset", 2).await;
    check(Mode::Json, &[JSON, Send("{\"type\":"), Wait(10), Reset], "reset", 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_event_is_told_by_its_type_and_is_no_truncation() {
    check(Mode::Sse, &[SSE, Send(START), Send(ERROR), End], "stream overloaded_error", 0).await;
    check(Mode::Sse, &[SSE, Send(START), Send(ERROR), Close], "stream overloaded_error", 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_status_is_told_with_its_error_type() {
    const OVERLOADED: &str = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    check(Mode::Sse, &[Head(529, "application/json"), Send(OVERLOADED), End], "http 529 overloaded_error", 0).await;
    check(Mode::Json, &[Head(502, "text/html"), Send("<html>bad gateway</html>"), End], "http 502 -", 0).await;
    check(Mode::Json, &[Head(302, "text/html"), End], "http 302 -", 0).await;
}

#[tokio::test(start_paused = true)]
async fn garbage_is_malformed() {
    check(Mode::Sse, &[SSE, Send(START), Send("event: content_block_delta\ndata: {oops\n\n"), End], "malformed", 0)
        .await;
    check(Mode::Sse, &[SSE, Send(DELTA), End], "malformed", 0).await;
    check(Mode::Sse, &[JSON, Send("{\"type\":\"message\"}"), End], "malformed", 0).await;
    check(Mode::Sse, &[Raw("SSH-2.0-OpenSSH\r\n\r\n"), Close], "malformed", 0).await;
    check(Mode::Sse, &[SSE, Send(START), Raw("zz\r\n"), Close], "malformed", 0).await;
    check(Mode::Json, &[JSON, Send("{\"type\":\"message\""), End], "malformed", 0).await;
    check(Mode::Json, &[JSON, Send("{\"type\":\"error\"}"), End], "malformed", 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_json_body_that_is_cut_is_truncated() {
    check(Mode::Json, &[HeadOf(100), Send("{\"type\":\"message\"}"), Close], "truncated", 0).await;
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_requests_clock_wherever_it_comes() {
    check(Mode::Sse, &[Wait(40_000)], "timeout", 0).await;
    check(Mode::Sse, &[SSE, Send(START), Send(DELTA), Wait(40_000), End], "timeout", 0).await;
    check(Mode::Json, &[JSON, Send("{"), Wait(40_000), End], "timeout", 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_is_asked_at_a_bearable_pace() {
    let mut plan = Plan::new("http://nobody");
    plan.concurrency = 2;
    plan.duration = Some(Duration::from_secs(10));
    let clock = Clock::from_wall(SystemTime::UNIX_EPOCH);
    let report = run_here(&plan, Arc::new(MemoryNetwork::new()), clock).await.expect("a good plan");
    assert_eq!((report.ok, report.errors.connect, report.connections_opened), (0, report.failed, 0));
    assert!((190..=202).contains(&report.failed), "{}", report.failed);
}
