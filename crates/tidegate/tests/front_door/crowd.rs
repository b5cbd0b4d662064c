//! Many at once, and one who does not read: the rest is served as if they were not there, and
//! afterwards nothing is left of any of them.

use crate::process::{Folder, Tidegate, eventually};
use crate::wire::{QUICK, Wire, events, message, post};
use std::time::{Duration, Instant};

#[test]
fn two_thousand_streams_at_once_all_end_whole_and_leave_nothing() {
    // This is about streams and not about quota, which lets 2,000 go one after another.
    let folder = Folder::new();
    let scenario = folder.write("unlimited.toml", "[quota]\ntier = \"unlimited\"\n");
    let tidegate = Tidegate::simulated_with("", &["--log-level", "warn", "--scenario", &scenario]);
    // Three seconds each: all of them are open together once the last has begun.
    let slow = ("simulate", "output_tokens=20-20, head_ms=0, first_ms=3000, event_ms=100");
    let request = post(&[slow], message(true, 100, "x"));
    let mut wires: Vec<Wire> = (0..2000).map(|_| tidegate.client()).collect();
    wires.iter_mut().for_each(|wire| wire.send(&request));
    eventually("all are open", Duration::from_secs(20), || {
        (tidegate.truth("/truth")["peak_streams"].as_u64() >= Some(1900)).then_some(())
    });
    // Half of them leave, the other half read to the end.
    let mut left = 0;
    for (n, mut wire) in wires.into_iter().enumerate() {
        if n % 2 == 0 {
            left += 1;
            continue;
        }
        let answer = wire.answer();
        assert_eq!((answer.status, answer.whole), (200, true));
        assert_eq!(answer.events().last().unwrap().0, "message_stop");
    }
    tidegate.comes_to_rest();
    let truth = tidegate.truth("/truth");
    assert_eq!((truth["open"].as_u64(), truth["requests"].as_u64()), (Some(0), Some(2000)), "{truth}");
    assert!(truth["clients_left"].as_u64() <= Some(left));
    assert_eq!(tidegate.streams().len(), 0);
    assert!(!tidegate.output().contains("panicked"));
}

#[test]
fn who_does_not_read_is_closed_at_a_limit_and_harms_nobody() {
    for config in [
        "[limits]\nbacklog_bytes = \"64 KiB\"\nbacklog_merge_bytes = \"16 KiB\"\n",
        "[clocks]\nclient_write_stall = \"700 ms\"\n[limits]\nbacklog_bytes = \"64 MiB\"\n",
    ] {
        let tidegate = Tidegate::simulated_with(config, &[]);
        // Single characters, tens of megabytes of events: more than the kernel keeps for anybody.
        let flood = ("simulate", "output_tokens=120000-120000, chars=1, head_ms=0, first_ms=0, event_ms=0");
        let mut deaf = tidegate.client();
        deaf.send(post(&[flood], message(true, 128_000, "x").replace("haiku-5-5", "opus-5-5")));
        deaf.until("message_start").unwrap();
        let mut quickest = Duration::MAX;
        eventually("the reader who does not read is closed", Duration::from_secs(60), || {
            let began = Instant::now();
            let answer = tidegate.ask(post(&[QUICK], message(true, 100, "x")));
            assert_eq!(answer.events().last().unwrap().0, "message_stop");
            quickest = quickest.min(began.elapsed());
            tidegate.admin("/metrics").text().contains("end=\"slow_reader\"").then_some(())
        });
        assert!(quickest < Duration::from_secs(1), "{quickest:?}");
        tidegate.comes_to_rest();
        assert_eq!(tidegate.truth("/truth")["open"], 0);
        let (got, _) = deaf.rest();
        let got = String::from_utf8_lossy(&got);
        assert!(!got.contains("message_stop"), "it was cut, and can tell");
    }
}

#[test]
fn who_reads_slowly_gets_every_character_in_fewer_events() {
    let config = "[limits]\nbacklog_merge_bytes = \"8 KiB\"\nbacklog_bytes = \"16 MiB\"\n";
    let tidegate = Tidegate::simulated_with(config, &[]);
    let flood = ("simulate", "output_tokens=60000-60000, chars=1, head_ms=0, first_ms=0, event_ms=0, seed=5");
    let body = message(true, 128_000, "x").replace("haiku-5-5", "opus-5-5");
    let mut slow = tidegate.client();
    slow.send(post(&[flood], &body));
    std::thread::sleep(Duration::from_secs(3));
    let answer = slow.answer();
    let said = |events: &[(String, serde_json::Value)]| {
        let text = events.iter().filter_map(|(_, data)| data["delta"]["text"].as_str());
        text.collect::<String>()
    };
    let got = answer.events();
    assert_eq!(got.last().unwrap().0, "message_stop", "{:?}", got.last());
    let direct = tidegate.ask_simulator(post(&[flood, ("x-api-key", "sk-ant-x")], &body));
    let whole = events(&direct.text());
    assert_eq!(said(&got), said(&whole));
    assert!(got.len() < whole.len(), "{} events of {}", got.len(), whole.len());
    assert!(tidegate.metric("tidegate_backlog_merges_total") > 0.0);
}
