//! Clients that leave: whatever they leave in the middle of, their upstream is let go at once and
//! nothing stays behind.

use crate::process::{Folder, Tidegate, eventually};
use crate::teller::{Teller, told};
use crate::wire::{Wire, message, post};
use std::time::Duration;

/// How soon the upstream has to know: two loopback hops and a busy machine.
const SOON: Duration = Duration::from_secs(3);

/// Asks, leaves once `until` has come (or at once), and waits for the truth to know.
fn leave(tidegate: &Tidegate, what: &str, request: Vec<u8>, until: Option<&str>) {
    let before = tidegate.truth("/truth");
    let mut wire = tidegate.client();
    wire.send(request);
    match until {
        Some(marker) => drop(wire.until(marker).unwrap()),
        None => eventually("the upstream has the request", SOON, || {
            (tidegate.truth("/truth")["open"].as_u64() > before["open"].as_u64()).then_some(())
        }),
    }
    drop(wire);
    eventually(what, SOON, || {
        let truth = tidegate.truth("/truth");
        (truth["open"] == before["open"] && truth["clients_left"].as_u64() > before["clients_left"].as_u64())
            .then_some(())
    });
}

#[test]
fn whoever_leaves_takes_its_upstream_along() {
    let tidegate = Tidegate::simulated();
    let slow = [("simulate", "output_tokens=2000, head_ms=0, first_ms=0, event_ms=50")];
    let silent = [("simulate", "head_ms=30000")];
    let pausing = [("simulate", "head_ms=0, first_ms=30000, ping_ms=600000")];
    leave(&tidegate, "in the middle of a stream", post(&slow, message(true, 4000, "x")), Some("content_block_delta"));
    leave(&tidegate, "before the head of a stream", post(&silent, message(true, 4000, "x")), None);
    leave(&tidegate, "between start and content", post(&pausing, message(true, 4000, "x")), Some("message_start"));
    leave(&tidegate, "waiting for a short answer", post(&silent, message(false, 500, "x")), None);
    leave(&tidegate, "waiting for a short answer under way", post(&slow, message(false, 1000, "x")), None);
    leave(&tidegate, "waiting for a long answer", post(&slow, message(false, 30_000, "x")), None);
    leave(&tidegate, "waiting for a long silent answer", post(&silent, message(false, 30_000, "x")), None);
    let ahead = [post(&silent, message(true, 4000, "x")), vec![b'x'; 1000]].concat();
    leave(&tidegate, "having sent on", ahead, None);
    tidegate.comes_to_rest();
    let page = tidegate.admin("/metrics").text();
    let left = page.lines().filter(|l| l.contains("end=\"client_left\"")).filter_map(|l| l.rsplit(' ').next());
    assert_eq!(left.map(|n| n.parse::<u64>().unwrap()).sum::<u64>(), 8, "{page}");
}

#[test]
fn whoever_leaves_a_queue_or_a_pause_leaves_nothing_in_it() {
    let folder = Folder::new();
    let closed = folder.write("429.toml", "[[fault]]\ndo = [\"status:429:30\"]\n");
    let broken = folder.write("500.toml", "[pace]\nhead = \"0 ms\"\n[[fault]]\ndo = [\"status:500\"]\n");
    for (scenario, phase, config) in
        [(closed, "admit", ""), (broken, "backoff", "[retry]\nbase = \"60 s\"\ncap = \"60 s\"\n")]
    {
        let tidegate = Tidegate::simulated_with(config, &["--scenario", &scenario]);
        let mut wires: Vec<Wire> = (0..20).map(|_| tidegate.client()).collect();
        for (n, wire) in wires.iter_mut().enumerate() {
            wire.send(post(&[], message(n % 2 == 0, 100, "x")));
        }
        eventually(phase, Duration::from_secs(5), || {
            let streams = tidegate.streams();
            (streams.len() == 20 && streams.iter().all(|s| s["phase"] == phase)).then_some(())
        });
        drop(wires);
        tidegate.comes_to_rest();
        assert_eq!(tidegate.truth("/truth")["open"], 0);
    }
}

#[test]
fn whoever_leaves_in_mid_upload_costs_no_lease_and_no_request() {
    let tidegate = Tidegate::simulated();
    for body in ["content-length: 1000\r\n\r\n{\"model\"", "transfer-encoding: chunked\r\n\r\n10\r\n{\"mod"] {
        let mut wire = tidegate.client();
        wire.send(format!("POST /v1/messages HTTP/1.1\r\nhost: a\r\n{body}"));
        eventually("decode", SOON, || tidegate.streams().iter().any(|s| s["phase"] == "decode").then_some(()));
        drop(wire);
        tidegate.comes_to_rest();
    }
    for part in ["", "P", "POST /v1/messages HTTP/1.1\r\nhost"] {
        let mut wire = tidegate.client();
        wire.send(part);
    }
    tidegate.comes_to_rest();
    assert_eq!(tidegate.truth("/truth")["requests"], 0);
}

#[test]
fn what_was_produced_of_an_answer_that_nobody_counted_is_estimated() {
    let teller = Teller::by(|nth, _| (2_000, Duration::from_millis(if nth == 0 { 0 } else { 5 })));
    let tidegate = teller.gateway("");
    let whole = tidegate.ask(post(&[], message(true, 4_000, "x")));
    assert_eq!(whole.events().last().unwrap().0, "message_stop");
    let mut wire = tidegate.client();
    wire.send(post(&[], message(true, 4_000, "x")));
    wire.until("word200\"").unwrap();
    drop(wire);
    let log = tidegate.says("end=\"client_left\"");
    let line = |end: &str| log.lines().find(|line| line.contains(end)).unwrap().to_owned();
    let output = |line: &str| -> u64 {
        let (_, rest) = line.split_once(" output_tokens=").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let (counted, left) = (line("end=\"answered\""), line("end=\"client_left\""));
    // The upstream's word is taken where there is one, however little it is.
    assert!(output(&counted) == 2 && !counted.contains("output_estimated"), "{counted}");
    let seen = told(200).len() as u64 / 4;
    assert!(left.contains(" output_estimated=true") && (seen..seen * 2).contains(&output(&left)), "{seen}: {left}");
    let tokens = tidegate.admin("/metrics").text();
    let tokens = tokens.lines().find(|l| l.starts_with("tidegate_tokens_total{") && l.contains("\"output\"")).unwrap();
    assert_eq!(tokens.rsplit(' ').next().unwrap().parse::<u64>().unwrap(), 2 + output(&left), "{tokens}");
}
