//! The World test: the whole gateway and the simulator in one process, over a network in memory, in
//! virtual time, from a seed.
//!
//! A seed decides everything: the gateway's settings, the API's speed, limits and faults, who calls,
//! how they read, when they vanish, what an operator cancels, when a drain begins (`world/scene.rs`,
//! `world/plan.rs`). The clients speak on raw bytes and read with parsers of their own
//! (`world/client.rs`, `world/streams.rs`, `world/answer.rs`, `world/story.rs`); what has to hold is a list of named
//! checks (`world/checks.rs`). A run is a pure function of its seed, which is tested too.
//!
//! A thousand seeds by default; `TIDEGATE_WORLD_SEEDS` and `TIDEGATE_WORLD_FROM` say otherwise, and
//! `cargo xtask world --seeds N --from S` sets them. A failing seed is named with the command that
//! runs it again.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot set up its scene should stop")]

mod world {
    pub(crate) mod answer;
    pub(crate) mod checks;
    pub(crate) mod client;
    pub(crate) mod faulted;
    pub(crate) mod plan;
    pub(crate) mod quota;
    pub(crate) mod run;
    pub(crate) mod scene;
    pub(crate) mod story;
    pub(crate) mod streams;
}

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use world::checks::Tally;
use world::faulted::plan::{Class, Door, Plan, Visit};
use world::plan::{Reader, Request, What};
use world::run::{run, run_scene};
use world::scene::Scene;

const SEEDS_DEFAULT: u64 = 1_000;
/// One seed in so many is run twice.
const TWICE_EVERY: u64 = 50;
/// Broken seeds that are told in full; the rest are counted.
const TOLD_MAX: usize = 5;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn broken_seed(seed: u64, broken: &[String]) -> String {
    let mut text = format!("seed {seed} is broken; again: cargo xtask world --seeds 1 --from {seed}\n");
    for one in broken.iter().take(4) {
        let _ = writeln!(text, "- {one}");
    }
    if broken.len() > 4 {
        let _ = writeln!(text, "- and {} more", broken.len() - 4);
    }
    text
}

#[test]
fn whatever_fails_the_promises_hold() {
    let from = variable("TIDEGATE_WORLD_FROM").unwrap_or(0);
    let seeds = variable("TIDEGATE_WORLD_SEEDS").unwrap_or(SEEDS_DEFAULT);
    let next = AtomicU64::new(from);
    let broken: Mutex<Vec<(u64, String)>> = Mutex::default();
    let tally: Mutex<Tally> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds || broken.lock().unwrap().len() > 100 {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| run(seed));
                    let mut told = match &outcome {
                        Ok(outcome) => outcome.broken.clone(),
                        Err(_) => vec!["the world itself panicked".to_owned()],
                    };
                    if seed.is_multiple_of(TWICE_EVERY) || seeds == 1 {
                        let again = std::panic::catch_unwind(|| run(seed)).map(|again| again.trace).ok();
                        if again != outcome.as_ref().map(|o| o.trace).ok() {
                            told.push("a second run saw something else".to_owned());
                        }
                    }
                    if let Ok(outcome) = &outcome {
                        tally.lock().unwrap().add(&outcome.tally);
                    }
                    if !told.is_empty() {
                        broken.lock().unwrap().push((seed, broken_seed(seed, &told)));
                    }
                }
            });
        }
    });
    for (what, n) in &tally.into_inner().unwrap().0 {
        eprintln!("{n:>9} {what}");
    }
    let mut broken = broken.into_inner().unwrap();
    broken.sort();
    let told: Vec<_> = broken.iter().take(TOLD_MAX).map(|(_, text)| text.as_str()).collect();
    let numbers: Vec<_> = broken.iter().map(|(seed, _)| seed.to_string()).collect();
    assert!(
        broken.is_empty(),
        "{} of {seeds} seeds are broken: {}\n{}",
        broken.len(),
        numbers.join(" "),
        told.join("\n")
    );
}

/// Streams of one world of faulted streams.
const STREAMS_OF_A_WORLD: u64 = 32;
/// Faulted streams with all other tests.
const STREAMS_DEFAULT: u64 = 3_200;

#[test]
fn faulted_streams_are_told_whole() {
    let from = variable("TIDEGATE_WORLD_FROM").unwrap_or(0);
    let streams = variable("TIDEGATE_WORLD_STREAMS").unwrap_or(STREAMS_DEFAULT);
    let worlds = streams.div_ceil(STREAMS_OF_A_WORLD);
    let next = AtomicU64::new(from);
    let broken: Mutex<Vec<(u64, Vec<String>)>> = Mutex::default();
    let tally: Mutex<world::faulted::tally::Tally> = Mutex::default();
    let threads = variable("TIDEGATE_WORLD_THREADS").map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from).min(8),
        |threads| threads.max(1) as usize,
    );
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + worlds || broken.lock().unwrap().len() > 100 {
                        return;
                    }
                    let told = faulted_world(seed, worlds == 1, &tally);
                    if !told.is_empty() {
                        broken.lock().unwrap().push((seed, told));
                    }
                    let done = seed + 1 - from;
                    if done.is_multiple_of(2_000) {
                        let line = tally.lock().unwrap().line(broken.lock().unwrap().len());
                        eprintln!("{done} of {worlds}: {line}");
                    }
                }
            });
        }
    });
    let mut broken = broken.into_inner().unwrap();
    broken.sort();
    let tally = tally.into_inner().unwrap();
    eprintln!("{}", tally.markdown(broken.len()));
    if std::env::var("TIDEGATE_WORLD_REMARKS").is_ok() {
        tally.remarks.iter().for_each(|remark| eprintln!("{remark}"));
    }
    if let Ok(path) = std::env::var("TIDEGATE_WORLD_MARKDOWN") {
        std::fs::write(path, tally.markdown(broken.len())).unwrap();
    }
    let told: Vec<_> = broken.iter().take(TOLD_MAX).map(|(seed, told)| broken_seed(*seed, told)).collect();
    let numbers: Vec<_> = broken.iter().map(|(seed, _)| seed.to_string()).collect();
    let again = "again: cargo xtask world --streams 32 --from SEED";
    assert!(
        broken.is_empty(),
        "{} of {worlds} worlds are broken: {}; {again}\n{}",
        broken.len(),
        numbers.join(" "),
        told.join("\n")
    );
}

/// Runs one world; what broke.
fn faulted_world(seed: u64, alone: bool, tally: &Mutex<world::faulted::tally::Tally>) -> Vec<String> {
    let once = || std::panic::catch_unwind(|| world::faulted::run(seed, STREAMS_OF_A_WORLD));
    let outcome = once();
    let mut told = match &outcome {
        Ok(outcome) => outcome.broken.clone(),
        Err(_) => vec!["the world itself panicked".to_owned()],
    };
    if (seed.is_multiple_of(TWICE_EVERY) || alone) && !world::faulted::keeps_talks(seed) {
        let again = once().map(|again| again.trace).ok();
        if again != outcome.as_ref().map(|o| o.trace).ok() {
            told.push("a second run saw something else".to_owned());
        }
    }
    if let Ok(outcome) = &outcome {
        tally.lock().unwrap().add(&outcome.tally);
    }
    told
}

/// The same of faulted streams: worlds of one.
fn check_faulted(plan: &Plan) {
    assert_eq!(world::faulted::run_plan(plan).broken, Vec::<String>::new());
}

#[test]
fn whoever_comes_for_an_answer_that_never_began_is_refused() {
    let plan = Plan::small(&["slow-head:20s"], 1, |ask, settings| {
        settings.clocks.heartbeat = Duration::from_millis(500);
        ask.class = Class::Memory;
        // Its name is told with the first heartbeat.
        ask.twin = vec![Visit::to_the_end(Door::Http1)];
        ask.deleted = Some(Duration::from_millis(100));
    });
    check_faulted(&plan);
}

/// Bugs that seeds have found, each as the smallest world that shows it.
fn check(faults: &[&str], once: bool, request: Request, counted: &str) {
    check_all(faults, once, vec![request], counted);
}

fn check_all(faults: &[&str], once: bool, requests: Vec<Request>, counted: &str) {
    check_scene(&Scene::small(faults, once, requests), counted);
}

fn check_scene(scene: &Scene, counted: &str) {
    let times = scene.clients.iter().map(|client| client.requests.len() as u64).sum();
    let outcome = run_scene(scene);
    assert_eq!(outcome.broken, Vec::<String>::new());
    assert_eq!(outcome.tally.0.get(counted), Some(&times), "{:?}", outcome.tally);
}

#[test]
fn requests_side_by_side_over_http2_are_each_answered() {
    let requests = (1..=20).map(|number| Request::message("one of twenty", true).numbered(number));
    let scene = Scene::small_http2(&[], false, requests.collect());
    check_scene(&scene, "Message 200 message_stop");
    check_scene(&scene, "attempts where a lane speaks HTTP/2");
}

#[test]
fn a_head_request_for_which_there_is_no_place_is_refused_without_a_body() {
    let mut request = Request::message("", false);
    request.what = What::RootHead;
    let mut scene = Scene::small_http2(&[], false, vec![request]);
    scene.settings.limits.streams = 0;
    check_scene(&scene, "RootHead Answered 529");
}

#[test]
fn half_a_json_answer_is_tried_again() {
    check(&["garbage-at:0"], true, Request::message("short", false), "good after a retry");
}

#[test]
fn pings_before_the_message_do_not_keep_the_client_in_silence() {
    let pings = "pings-at:event-0:40s";
    check(&[pings], false, Request::message("late", true), "Message 200 message_stop");
}

#[test]
fn what_breaks_after_the_end_of_a_message_breaks_nothing() {
    let faults = ["duplicate-at:before-stop", "reset-at:before-stop"];
    check(&faults, false, Request::message("over", true), "Message 200 message_stop");
}

#[test]
fn an_answer_that_is_cut_ends_in_a_reset_even_where_a_close_would_end_it() {
    let mut request = Request::message(&"word ".repeat(20_000), true);
    request.body["max_tokens"] = 60_000.into();
    (request.http10, request.reader) = (true, Reader::Pauses(1_000, Duration::from_secs(60)));
    check(&[], false, request, "Message Cut 200");
}

#[test]
fn what_comes_late_on_a_connection_is_nobody_elses_answer() {
    let faults = ["duplicate-at:before-stop", "stall-at:before-stop:1500ms"];
    let requests = (1..=4).map(|number| Request::message("one of four", true).numbered(number));
    check_all(&faults, false, requests.collect(), "Message 200 message_stop");
}

#[test]
fn a_deadline_or_a_cancel_after_the_end_of_a_message_changes_nothing() {
    let faults = ["duplicate-at:before-stop", "stall-at:before-stop:900ms"];
    let mut request = Request::message("over", true);
    request.lines.push(("tidegate-deadline-ms", "800".to_owned()));
    check(&faults, false, request, "Message 200 message_stop");
}
