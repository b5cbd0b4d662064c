//! Who cancels, in every phase of the path, over every way there is: the upstream is let go, and
//! nothing is held.
//!
//! Each test is a phase, each row of it a way: HTTP/1.1 and HTTP/2, streamed, passed whole and
//! assembled, and a WebSocket that cancels or dies.

use crate::process::{Folder, Tidegate, eventually};
use std::time::Duration;
use tidegate_bench::{Crowd, Manner, Mode, OneLeaves, Plan};
use tidegate_transport::Clock;

/// When the client leaves: the phase was reached long before, also on a busy machine.
const LEAVES: Duration = Duration::from_millis(1_000);
/// How soon the upstream has to know, on a busy machine.
const SOON: Duration = Duration::from_secs(3);

fn ways(url: &str) -> Vec<Crowd> {
    let way = |name, mode, http2, cancels, max_tokens| {
        let mut plan = Plan::new(url);
        (plan.mode, plan.max_tokens, plan.concurrency) = (mode, max_tokens, 1);
        let at = (LEAVES, LEAVES);
        let manner = if cancels { Manner::Cancel(at) } else { Manner::Leave(at) };
        Crowd { http2, manner, ..Crowd::new(name, plan) }
    };
    vec![
        way("HTTP/1.1, streamed", Mode::Sse, false, false, 8_000),
        way("HTTP/1.1, whole", Mode::Json, false, false, 1_000),
        way("HTTP/1.1, assembled", Mode::Json, false, false, 8_000),
        way("HTTP/2, streamed", Mode::Sse, true, false, 8_000),
        way("HTTP/2, whole", Mode::Json, true, false, 1_000),
        way("HTTP/2, assembled", Mode::Json, true, false, 8_000),
        way("WebSocket, stream.cancel", Mode::Socket, false, true, 8_000),
        way("WebSocket, dead socket", Mode::Socket, false, false, 8_000),
    ]
}

/// Leaves in `phase`, in every way, with the upstream of `scenario` and Tidegate of `config`.
fn leave_in(phase: &str, config: &str, scenario: &str) {
    let folder = Folder::new();
    let tidegate = Tidegate::simulated_with(config, &["--scenario", &folder.write("phase.toml", scenario)]);
    for crowd in ways(&format!("http://{}", tidegate.gateway)) {
        let one = OneLeaves::start(&crowd, Clock::real()).unwrap();
        std::thread::scope(|scope| {
            let leaving = scope.spawn(|| one.leave().unwrap());
            // Of an answer that is passed on whole nothing comes before all of it.
            let phase = if crowd.name.ends_with("whole") && phase == "relay" { "first_byte" } else { phase };
            eventually(&format!("{phase}: {}", crowd.name), SOON, || {
                tidegate.streams().iter().any(|stream| stream["phase"] == phase).then_some(())
            });
            assert!(leaving.join().unwrap().is_some(), "{phase}: {} was answered before it left", crowd.name);
        });
        eventually(&format!("{phase}: {} is let go", crowd.name), SOON, || {
            (tidegate.truth("/truth")["open"] == 0 && tidegate.streams().is_empty()).then_some(())
        });
        drop(one);
        tidegate.comes_to_rest();
    }
}

#[test]
fn in_the_queue() {
    leave_in("admit", "", "[[fault]]\ndo = [\"status:429:30\"]\n");
}

#[test]
fn in_a_pause_before_another_attempt() {
    leave_in(
        "backoff",
        "[retry]\nbase = \"60 s\"\ncap = \"60 s\"\n",
        "[pace]\nhead = \"0 ms\"\n[[fault]]\ndo = [\"status:500\"]\n",
    );
}

#[test]
fn before_the_upstream_answers() {
    leave_in("first_byte", "", "[pace]\nhead = \"60 s\"\n");
}

#[test]
fn between_the_beginning_and_content() {
    leave_in("relay", "", "[pace]\nhead = \"0 ms\"\nfirst = \"60 s\"\n");
}

#[test]
fn in_the_middle_of_an_answer() {
    leave_in(
        "relay",
        "",
        "[pace]\nhead = \"0 ms\"\nfirst = \"0 ms\"\nevent = \"50 ms\"\noutput_tokens = \"900-900\"\n",
    );
}

#[test]
fn in_a_silence_of_the_upstream() {
    leave_in(
        "relay",
        "",
        "[pace]\nhead = \"0 ms\"\noutput_tokens = \"900-900\"\n[[fault]]\ndo = [\"stall-at:in-data:60 s\"]\n",
    );
}
