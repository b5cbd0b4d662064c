//! Answers on their way down: of any size, as fast as they are read, and never taken for whole when
//! they are not.

use crate::process::{Tidegate, eventually};
use crate::upstream::{Upstream, chunk, plain};
use crate::wire::get;
use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const CONTENT: &str = "/v1/files/file_1/content";
const BYTES: &str = "content-type: application/octet-stream\r\n";

/// An upstream with a file of so many megabytes; counts how many it got rid of, and is told at the
/// end whether all.
fn large(megabytes: u64) -> (Upstream, Arc<AtomicU64>) {
    let sent: Arc<AtomicU64> = Arc::default();
    let count = Arc::clone(&sent);
    let upstream = Upstream::playing(move |_, _, socket| {
        let head = format!("HTTP/1.1 200 OK\r\n{BYTES}content-length: {}\r\n\r\n", megabytes << 20);
        let _ = socket.write_all(head.as_bytes());
        let piece = vec![b'y'; 1 << 20];
        for _ in 0..megabytes {
            if socket.write_all(&piece).is_err() {
                return;
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (upstream, sent)
}

#[test]
fn a_large_file_comes_whole_and_in_little_memory() {
    let (upstream, _) = large(200);
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
    let before = tidegate.memory();
    let mut wire = tidegate.client();
    wire.send(get(CONTENT, &[]));
    let answer = wire.head().unwrap();
    let answer = wire.body_of(answer);
    assert!(answer.whole && answer.body.len() == 200 << 20);
    assert!(tidegate.memory() < before + (24 << 20), "{} MiB more", (tidegate.memory() - before) >> 20);
    drop(wire);
    tidegate.comes_to_rest();
}

#[test]
fn a_client_that_does_not_read_stops_the_upstream_and_is_given_up() {
    let (upstream, sent) = large(200);
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "[clocks]\nclient_write_stall = \"1 s\"\n");
    let before = tidegate.memory();
    let mut wire = tidegate.client();
    wire.send(get(CONTENT, &[]));
    wire.head().unwrap();
    let log = tidegate.says("end=\"slow_reader\"");
    assert!(log.contains("door=\"files\""), "{log}");
    assert!(sent.load(Ordering::Relaxed) < 100, "what is on its way is in the sockets' buffers");
    assert!(tidegate.memory() < before + (24 << 20));
    assert_eq!(tidegate.metric("tidegate_clock_expired_total{clock=\"client_write_stall\"}"), 1.0);
    drop(wire);
    tidegate.comes_to_rest();
}

#[test]
fn a_client_that_leaves_ends_the_download_upstream() {
    let (upstream, sent) = large(400);
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
    let mut wire = tidegate.client();
    wire.send(get(CONTENT, &[]));
    wire.head().unwrap();
    drop(wire);
    tidegate.says("end=\"client_left\"");
    assert!(sent.load(Ordering::Relaxed) < 200);
    tidegate.comes_to_rest();
}

#[test]
fn a_download_that_breaks_off_is_not_taken_for_whole() {
    let declared = format!("HTTP/1.1 200 OK\r\n{BYTES}content-length: 1000\r\n\r\nhalf of it");
    let chunked = format!("HTTP/1.1 200 OK\r\n{BYTES}transfer-encoding: chunked\r\n\r\n{}", chunk("half of it"));
    for said in [declared, chunked] {
        let upstream = Upstream::playing(move |_, _, socket| {
            drop(socket.write_all(said.as_bytes()));
            drop(socket.shutdown(Shutdown::Both));
        });
        let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
        let answer = tidegate.ask(get(CONTENT, &[]));
        assert_eq!((answer.status, answer.whole), (200, false), "{}", answer.head);
        assert_eq!(answer.body, b"half of it", "and nothing else is in it");
        assert_eq!(upstream.seen().len(), 1, "it was passed on, so it is not asked for again");
        let log = tidegate.says("end=\"upstream_failed\"");
        assert!(log.contains("code=\"upstream_broken\""), "{log}");
        tidegate.comes_to_rest();
    }
}

#[test]
fn one_that_falls_silent_runs_into_the_gap_clock() {
    let upstream = Upstream::playing(|_, _, socket| {
        let head = format!("HTTP/1.1 200 OK\r\n{BYTES}content-length: 1000\r\n\r\nhalf of it");
        drop(socket.write_all(head.as_bytes()));
        std::thread::sleep(SOON);
    });
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "[clocks]\ngap = \"700 ms\"\n");
    let answer = tidegate.ask(get(CONTENT, &[]));
    assert_eq!((answer.status, answer.whole), (200, false));
    assert_eq!(tidegate.metric("tidegate_clock_expired_total{clock=\"gap\"}"), 1.0);
    tidegate.comes_to_rest();
}

#[test]
fn json_that_breaks_off_is_asked_for_again() {
    let upstream = Upstream::playing(|nth, _, socket| {
        let whole = plain(200, "content-type: application/json\r\n", r#"{"id":"file_1"}"#);
        let said = if nth == 0 { &whole[..whole.len() - 3] } else { &whole };
        drop(socket.write_all(said.as_bytes()));
        if nth == 0 {
            drop(socket.shutdown(Shutdown::Both));
        }
    });
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
    let answer = tidegate.ask(get("/v1/files/file_1", &[]));
    assert_eq!((answer.status, answer.text().as_str(), upstream.seen().len()), (200, r#"{"id":"file_1"}"#, 2));
    tidegate.comes_to_rest();
}

#[test]
fn json_too_large_to_be_held_passes_all_the_same() {
    let page = format!("{{\"data\":\"{}\"}}", "x".repeat(9 << 20));
    let upstream = Upstream::saying(plain(200, "content-type: application/json\r\n", &page));
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
    let answer = tidegate.ask(get("/v1/agents", &[]));
    assert!(answer.whole && answer.body == page.as_bytes());
    // Unless there may be addresses in it.
    let answer = tidegate.ask(get("/v1/messages/batches", &[]));
    assert_eq!((answer.status, answer.code().as_str()), (500, "answer_too_large"));
    tidegate.comes_to_rest();
}

#[test]
fn events_of_a_path_nobody_knows_come_one_by_one() {
    let upstream = Upstream::playing(|_, _, socket| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        socket.write_all(head.as_bytes()).unwrap();
        for n in 0..3 {
            socket.write_all(chunk(&format!("event: tick\ndata: {n}\n\n")).as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(300));
        }
        socket.write_all(b"0\r\n\r\n").unwrap();
    });
    let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
    let mut wire = tidegate.client();
    wire.send(get("/v1/sessions/sesn_1/events/stream", &[]));
    let began = std::time::Instant::now();
    assert!(wire.until("data: 0").is_some());
    assert!(began.elapsed() < Duration::from_millis(280), "{:?}", began.elapsed());
    assert!(wire.until("data: 2").is_some());
    drop(wire);
    eventually("the end of it", SOON, || (tidegate.metric("tidegate_streams_open") == 0.0).then_some(()));
}
