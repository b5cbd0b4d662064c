//! Going down: no stream is cut that could end in time, nobody new is let in, and it does end.

use crate::process::{Tidegate, eventually};
use crate::wire::{QUICK, events, get, message, post};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_running_stream_ends_whole_and_nobody_new_is_let_in() {
    let mut tidegate = Tidegate::simulated();
    // Some three seconds of stream, and an answer that is put together as long.
    let slow = ("simulate", "output_tokens=150-150, head_ms=0, first_ms=0, event_ms=60");
    let (mut streaming, mut waiting, mut idle) = (tidegate.client(), tidegate.client(), tidegate.client());
    streaming.send(post(&[slow], message(true, 4000, "x")));
    waiting.send(post(&[slow], message(false, 30_000, "x")));
    idle.send(get("/", &[]));
    assert_eq!(idle.answer().status, 200);
    streaming.until("content_block_delta").unwrap();
    eventually("both run", SECOND * 2, || (tidegate.streams().len() == 2).then_some(()));
    tidegate.signal("TERM");
    eventually("not ready any more", SECOND * 2, || (tidegate.admin("/readyz").status == 503).then_some(()));
    assert_eq!(tidegate.admin("/healthz").status, 200);
    assert_eq!(tidegate.metric("tidegate_draining"), 1.0);
    idle.ends("an idle connection");
    eventually("new connections are refused", SECOND * 2, || TcpStream::connect(tidegate.gateway).err());
    assert_eq!(tidegate.streams().len(), 2, "both are still running");
    let (rest, _) = streaming.rest();
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.contains("event: message_stop\n") && rest.ends_with("0\r\n\r\n") && !rest.contains("event: error"));
    assert_eq!(waiting.answer().json()["stop_reason"], "end_turn");
    assert_eq!(tidegate.exit(SECOND * 10), Some(0), "{}", tidegate.output());
    tidegate.says("drained");
}

#[test]
fn a_stream_longer_than_the_drain_ends_in_an_error_event() {
    let mut tidegate = Tidegate::simulated_with("[clocks]\ndrain = \"1 s\"\n", &[]);
    let slow = ("simulate", "output_tokens=3000, head_ms=0, first_ms=0, event_ms=50");
    let (mut streaming, mut waiting) = (tidegate.client(), tidegate.client());
    streaming.send(post(&[slow], message(true, 4000, "x")));
    waiting.send(post(&[slow], message(false, 30_000, "x")));
    streaming.until("content_block_delta").unwrap();
    eventually("both run", SECOND * 2, || (tidegate.streams().len() == 2).then_some(()));
    let began = Instant::now();
    tidegate.signal("TERM");
    let (rest, _) = streaming.rest();
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.contains("event: error\n") && rest.contains("\"draining\"") && rest.ends_with("0\r\n\r\n"), "{rest}");
    let answer = waiting.answer();
    assert_eq!((answer.status, answer.code().as_str()), (529, "draining"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!((SECOND..SECOND * 5).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(tidegate.exit(SECOND * 10), Some(0));
}

#[test]
fn a_request_on_an_old_connection_is_told_to_go_elsewhere_and_one_under_way_is_not_hurried() {
    let mut tidegate = Tidegate::simulated();
    let slow = ("simulate", "output_tokens=60-60, head_ms=0, first_ms=0, event_ms=60");
    let mut wire = tidegate.client();
    // The second is already there when the drain begins.
    wire.send([post(&[slow], message(true, 4000, "x")), post(&[QUICK], message(true, 100, "x"))].concat());
    wire.until("content_block_delta").unwrap();
    tidegate.signal("INT");
    let (rest, _) = wire.rest();
    let text = String::from_utf8(rest).unwrap();
    let (first, second) = text.split_once("0\r\n\r\n").unwrap();
    assert!(first.contains("message_stop"), "{first}");
    assert!(second.is_empty() || second.starts_with("HTTP/1.1 529") && second.contains("draining"), "{second}");
    assert!(events(first).len() > 1);
    assert_eq!(tidegate.exit(SECOND * 10), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let mut tidegate = Tidegate::simulated();
        let mut wire = tidegate.client();
        wire.send(post(&[("simulate", "output_tokens=3000, event_ms=50")], message(true, 4000, "x")));
        wire.until("content_block_delta").unwrap();
        tidegate.signal(first);
        eventually("a drain", SECOND * 2, || (tidegate.admin("/readyz").status == 503).then_some(()));
        tidegate.signal(second);
        let code = tidegate.exit(SECOND * 2);
        assert!(code.is_some_and(|c| c != 0), "{code:?}");
    }
}

#[test]
fn with_nothing_to_wait_for_it_goes_at_once() {
    let mut tidegate = Tidegate::simulated();
    let mut idle = tidegate.client();
    idle.send(get("/", &[]));
    assert_eq!(idle.answer().status, 200);
    let began = Instant::now();
    tidegate.signal("TERM");
    assert_eq!(tidegate.exit(SECOND * 5), Some(0));
    assert!(began.elapsed() < SECOND * 3, "{:?}", began.elapsed());
}
