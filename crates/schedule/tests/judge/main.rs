//! The judge: the scheduler in virtual time, against an upstream that was written without it.
//!
//! A scenario (`scenarios.rs`) and a seed decide everything: who asks, for what, how the network and
//! the upstream behave and what goes wrong (`world.rs`, `load.rs`, `upstream.rs`, `meter.rs`). What
//! a run showed is compared with what the scenario asks (`figures.rs`); the worst of all seeds is a
//! line of a table. Two baselines run in the same worlds (`baseline.rs`).
//!
//! `cargo test` runs one seed of each scenario, shortened. `cargo xtask judge --seeds N` runs them
//! in full length and prints the table; with `--minutes M` it begins no seed after so many.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set up its scene should stop")]
#![allow(clippy::print_stdout, reason = "the table and the trace are what is asked for")]

mod accused;
mod baseline;
mod dice;
mod figures;
mod load;
mod meter;
mod policy;
mod scenario;
mod scenarios;
mod table;
mod upstream;
mod world;

use accused::Accused;
use baseline::{FireAndRetry, MinuteWindow};
use policy::Policy;
use scenario::{Baselines, Binding, Scenario};
use scenarios::Make;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use table::Line;

/// Seconds of a run in `cargo test`; changes of scripts come after it has settled.
const SECONDS_OF_A_SLICE: f64 = 240.0;
/// Misses of one scenario that are told in full.
const TOLD_MAX: usize = 5;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn number(name: &str) -> Option<u64> {
    variable(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// One scenario, its seeds' lines and what they missed.
#[derive(Default)]
struct Judged {
    worst: Option<Line>,
    seeds: usize,
    missed: Vec<(u64, Vec<String>)>,
}

impl Judged {
    fn add(&mut self, seed: u64, line: &Line) {
        self.seeds += 1;
        if !line.broken.is_empty() {
            self.missed.push((seed, line.broken.clone()));
        }
        match &mut self.worst {
            Some(worst) => worst.worst(line),
            none => *none = Some(line.clone()),
        }
    }

    fn row(&self, name: &str) -> String {
        self.worst.as_ref().map_or(String::new(), |worst| table::row(name, self.seeds, self.missed.len(), worst))
    }
}

fn judge(scenario: &Scenario, seed: u64, policy: Box<dyn Policy + '_>) -> Line {
    let figures = world::run(scenario, seed, policy);
    Line::of(scenario, &figures)
}

/// Whether there is time for another seed.
#[allow(clippy::disallowed_methods, reason = "how long a person waits for the table is real time")]
fn in_time() -> impl Fn() -> bool {
    let end = number("TIDEGATE_JUDGE_MINUTES").map(|n| Instant::now() + Duration::from_secs(60 * n));
    move || end.is_none_or(|end| Instant::now() < end)
}

/// Runs every scenario with every seed, on all cores.
fn judge_all(scenarios: &[Make], seeds: &[u64], shorten: bool) -> Vec<Judged> {
    let in_time = &in_time();
    let next = AtomicUsize::new(0);
    let judged: Vec<Mutex<Judged>> = scenarios.iter().map(|_| Mutex::default()).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= scenarios.len() * seeds.len() || !in_time() {
                        return;
                    }
                    let (which, seed) = (job % scenarios.len(), seeds[job / scenarios.len()]);
                    let mut scenario = scenarios[which](seed);
                    // Changes come late, and a short run that ends while a long prompt is saved for seems to
                    // have wasted what it saved.
                    // So does one in which most of the time is spent on finding its rate.
                    let slow = ["ramp limit", "reasoning unseen, burst 60 s"].contains(&scenario.name);
                    let whole = slow || !scenario.script.is_empty() || scenario.binding.contains(&Binding::Input);
                    if shorten && !whole {
                        scenario.seconds = SECONDS_OF_A_SLICE;
                    }
                    let run = || judge(&scenario, seed, Box::new(Accused::new(&scenario, seed)));
                    // A panic has told why on the way; what is needed is where.
                    let line = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
                    let mut judged = judged[which].lock().unwrap();
                    match line {
                        Ok(line) => judged.add(seed, &line),
                        Err(_) => judged.missed.push((seed, vec!["it panicked, see above".to_owned()])),
                    }
                }
            });
        }
    });
    judged.into_iter().map(|judged| judged.into_inner().unwrap()).collect()
}

/// The same worlds for others' ways, one seed each.
fn baselines(scenarios: &[Make], seed: u64) -> String {
    let mut rows = String::new();
    for scenario in scenarios.iter().map(|make| make(seed)).filter(|scenario| scenario.baselines == Baselines::Yes) {
        let keys: Vec<usize> = scenario.orgs.iter().map(|org| org.keys.len()).collect();
        let fire = judge(&scenario, seed, Box::new(FireAndRetry::new(&keys)));
        let window = judge(&scenario, seed, Box::new(MinuteWindow::new(&scenario.orgs[0].limits[0])));
        for (name, line) in [("try, honour retry-after", fire), ("fixed minute window", window)] {
            let mut judged = Judged::default();
            judged.add(seed, &line);
            rows += &judged.row(&format!("{}: *{name}*", scenario.name));
        }
    }
    rows
}

fn told(name: &str, judged: &Judged) -> String {
    let mut text = String::new();
    for (seed, broken) in judged.missed.iter().take(TOLD_MAX) {
        let _ = writeln!(text, "{name}, seed {seed}: {}", broken.join("; "));
        let _ = writeln!(text, "    again: cargo xtask judge --seeds 1 --from {seed} --scenario \"{name}\"");
    }
    if judged.missed.len() > TOLD_MAX {
        let _ = writeln!(text, "{name}: and {} more seeds", judged.missed.len() - TOLD_MAX);
    }
    text
}

#[test]
fn every_scenario_gets_what_it_asks_for() {
    let seeds = number("TIDEGATE_JUDGE_SEEDS");
    let from = number("TIDEGATE_JUDGE_FROM").unwrap_or(0);
    let wanted = variable("TIDEGATE_JUDGE_SCENARIO").unwrap_or_default();
    let scenarios: Vec<Make> =
        scenarios::ALL.iter().copied().filter(|make| make(0).name.contains(wanted.as_str())).collect();
    assert!(!scenarios.is_empty(), "no scenario is called `{wanted}`");
    let list: Vec<u64> = (from..from + seeds.unwrap_or(1)).collect();
    let judged = judge_all(&scenarios, &list, seeds.is_none());
    let (mut text, mut missed) = (table::HEAD.to_owned(), String::new());
    for (make, judged) in scenarios.iter().zip(&judged) {
        let name = make(from).name;
        text += &judged.row(name);
        missed += &told(name, judged);
    }
    if seeds.is_some() {
        text += &baselines(&scenarios, from);
        if let Some(path) = variable("TIDEGATE_JUDGE_MARKDOWN") {
            std::fs::write(&path, &text).unwrap();
        }
    }
    println!("{text}");
    assert!(missed.is_empty(), "targets were missed:\n{missed}");
}

#[test]
fn a_run_is_a_pure_function_of_its_seed() {
    let once = || {
        let mut scenario = scenarios::ALL[2](77);
        scenario.seconds = 100.0;
        format!("{:?}", judge(&scenario, 77, Box::new(Accused::new(&scenario, 77))))
    };
    assert_eq!(once(), once());
}

/// The judge can tell a bad policy: whoever tries and honours `retry-after` fills the log with 429s,
/// and whoever counts minutes wastes what a bucket of five seconds does not hold.
#[test]
fn the_baselines_are_found_wanting() {
    let mut scenario = scenarios::ALL[2](1);
    scenario.seconds = SECONDS_OF_A_SLICE;
    let fire = world::run(&scenario, 1, Box::new(FireAndRetry::new(&[1])));
    assert!(fire.throttled() > 5_000, "{} 429s", fire.throttled());
    let window = world::run(&scenario, 1, Box::new(MinuteWindow::new(&scenario.orgs[0].limits[0])));
    assert!(window.use_percent() < 90.0, "{}", window.use_percent());
}
