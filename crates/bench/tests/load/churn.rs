//! Crowds of clients, each with its manner, at an endpoint that answers by a script.

use crate::endpoint::{DELTA, JSON, SSE, START, STOP, Step, serve};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tidegate_bench::{Crowd, CrowdCount, Manner, Mode, Plan, churn_here};
use tidegate_transport::{Clock, MemoryNetwork, Tasks};

const SECOND: Duration = Duration::from_secs(1);

/// A stream of ten events in ten seconds.
const TEN_SECONDS: &[Step] = &[
    SSE,
    Step::Send(START),
    Step::Send(DELTA),
    Step::Wait(5_000),
    Step::Send(DELTA),
    Step::Wait(5_000),
    Step::Send(STOP),
    Step::End,
];

/// How a crowd fares in 35 s of virtual time.
async fn fares(script: &'static [Step], change: impl FnOnce(&mut Crowd)) -> CrowdCount {
    let network = MemoryNetwork::new();
    serve(&network, &Tasks::new(), script);
    let mut plan = Plan::new("http://endpoint");
    plan.concurrency = 4;
    let mut crowd = Crowd::new("crowd", plan);
    change(&mut crowd);
    let clock = Clock::from_wall(SystemTime::UNIX_EPOCH);
    let report = churn_here(&[crowd], 35 * SECOND, Arc::new(network), clock).await.expect("a good crowd");
    assert_eq!((report.crowds[0].0, report.stopped_early), ("crowd", false));
    report.crowds[0].1.clone()
}

#[tokio::test(start_paused = true)]
async fn readers_read_one_answer_after_another_on_their_connections() {
    let count = fares(TEN_SECONDS, |_| {}).await;
    assert_eq!((count.whole, count.started, count.left), (12, 16, 0), "the fourth of each is under way at the end");
    assert_eq!((count.connections, count.errors.by_name().len()), (4, 0), "{count:?}");
    assert_eq!(count.events, 12 * 5 + 4 * 2, "{count:?}");
    let count = fares(TEN_SECONDS, |crowd| crowd.plan.keep_alive = false).await;
    assert_eq!((count.whole, count.connections), (12, 16), "{count:?}");
}

#[tokio::test(start_paused = true)]
async fn pauses_come_before_requests() {
    let count = fares(TEN_SECONDS, |crowd| crowd.pause = (20 * SECOND, 20 * SECOND)).await;
    assert_eq!((count.started, count.whole), (4, 4), "{count:?}");
}

#[tokio::test(start_paused = true)]
async fn leavers_are_gone_in_mid_stream() {
    let count = fares(TEN_SECONDS, |crowd| crowd.manner = Manner::Leave((2 * SECOND, 3 * SECOND))).await;
    assert_eq!((count.whole, count.errors.by_name().len()), (0, 0), "{count:?}");
    assert!((4 * 11..=4 * 17).contains(&count.left), "{count:?}");
    assert_eq!(count.connections, count.started, "nobody comes back on the connection it left");
}

#[tokio::test(start_paused = true)]
async fn dawdlers_take_as_long_as_their_pauses() {
    const AT_ONCE: &[Step] = &[SSE, Step::Send(START), Step::Wait(1), Step::Send(DELTA), Step::Send(STOP), Step::End];
    let quick = fares(AT_ONCE, |crowd| crowd.pause = (SECOND, SECOND)).await;
    let slow = fares(AT_ONCE, |crowd| {
        crowd.pause = (SECOND, SECOND);
        crowd.manner = Manner::Dawdle((4 * SECOND, 4 * SECOND));
    });
    let slow = slow.await;
    assert!(slow.whole >= 4 && slow.whole * 3 < quick.whole, "{slow:?} {quick:?}");
}

#[tokio::test(start_paused = true)]
async fn knocks_ask_for_nothing() {
    let count = fares(TEN_SECONDS, |crowd| {
        crowd.manner = Manner::Knock;
        crowd.pause = (SECOND, SECOND);
    });
    let count = count.await;
    assert!(count.knocks >= 4 * 30 && count.knocks == count.connections, "{count:?}");
    assert_eq!((count.whole, count.bytes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_ends_badly_is_counted_by_its_kind() {
    let pause = |crowd: &mut Crowd| crowd.pause = (SECOND, SECOND);
    let cut = fares(&[SSE, Step::Send(START), Step::End], pause).await;
    assert!(cut.whole == 0 && cut.errors.truncated > 4, "{cut:?}");
    let refused = fares(
        &[
            Step::Head(529, "application/json"),
            Step::Send(r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#),
            Step::End,
        ],
        pause,
    );
    let refused = refused.await;
    assert!(refused.errors.http["529 overloaded_error"] > 4 && refused.connections == 4, "{refused:?}");
    let late = fares(TEN_SECONDS, |crowd| crowd.plan.request_timeout = SECOND).await;
    assert!(late.whole == 0 && late.errors.timeout > 4 * 30, "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn buffered_answers_are_read_to_their_end() {
    let count = fares(&[JSON, Step::Send("{}"), Step::Wait(1_000), Step::End], |crowd| {
        crowd.plan.mode = Mode::Json;
        crowd.variants = 3;
        crowd.prompt_bytes_max = 900;
    });
    let count = count.await;
    assert!(count.whole >= 4 * 34 && count.bytes >= 2 * count.whole && count.events == 0, "{count:?}");
}

#[tokio::test(start_paused = true)]
async fn impossible_crowds_are_refused_by_name() {
    let network: Arc<MemoryNetwork> = Arc::new(MemoryNetwork::new());
    let clock = Clock::from_wall(SystemTime::UNIX_EPOCH);
    let mut crowd = Crowd::new("the many", Plan::new("http://endpoint"));
    crowd.variants = 65;
    let refused = churn_here(&[crowd], SECOND, network, clock).await.unwrap_err().to_string();
    assert!(refused.contains("`the many`") && refused.contains("64"), "{refused}");
}
