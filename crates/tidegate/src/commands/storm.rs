//! `tidegate bench storm`: a hundred thousand clients that leave or cancel at random phases of their
//! requests, over every way there is, and a look at what is left behind.
//!
//! ```text
//!   start simulator, Tidegate ─▶ look ─▶ crowds that leave, in rounds, until enough have left
//!     ─▶ wait until nothing is held ─▶ judge: held 0, files as before, billed at most what was produced
//!     ─▶ one leaves alone, 200 times a way: how long until the upstream's connection or stream is closed
//! ```
//! A third of the upstream's answers have gone silent before anybody leaves, some before their head.
//! Both processes are on loopback and end with this one.

use super::ask::ask;
use super::page::{Facts, aligned, number, write};
use super::soak::rest::{Eye, Sample, at_rest};
use super::stage::{Folder, Process, Stop, free_address, raise_files};
use super::{Failed, say};
use crate::cli::Storm;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};
use tidegate_base::Secret;
use tidegate_bench::{Bounds, Crowd, CrowdCount, Manner, Mode, OneLeaves, Plan};
use tidegate_gateway::KeyHash;
use tidegate_transport::Clock;

/// The upstream: answers that last, some of them silent from early on.
pub(super) const SCENARIO: &str = r#"about = "A storm of cancellations: answers that last, some of which say nothing."

[quota]
tier = "unlimited"

[pace]
head = "20 ms"
first = "20 ms"
event = "5 ms"
output_tokens = "400-4000"

[[fault]]
do = ["slow-head:60 s"]
probability = 0.1

[[fault]]
do = ["stall-at:in-data:60 s"]
probability = 0.25
"#;
const CLIENT_KEY: &str = "tg_bench_storm_client_key";
/// When clients leave: about half of them before the first content.
const LEAVE: Bounds = (Duration::ZERO, Duration::from_millis(120));
/// Alone, they leave in the middle of what goes on then.
const LEAVE_ALONE: Bounds = (Duration::from_millis(60), Duration::from_millis(160));
/// A round of the storm; at its end everybody leaves at once.
const ROUND: Duration = Duration::from_secs(5);
/// Rounds at most: a machine that is too slow for the storm is told so.
const ROUNDS_MAX: u64 = 2_000;
/// What everything gets to be given back. Kept upstream connections are not waited for.
const REST_MAX: Duration = Duration::from_secs(30);
/// What the upstream gets to notice one that left.
const NOTICE_MAX: Duration = Duration::from_secs(5);
/// The longest wait until the upstream is closed, that 99 of 100 stay below. From so many on it is
/// judged; of fewer the longest is the machine's.
const ALONE_JUDGED: usize = 100;
const CLOSED_WITHIN: Duration = Duration::from_millis(20);
const FILES_ASIDE: u64 = 600;

fn config(listen: SocketAddr, admin: SocketAddr, upstream: SocketAddr) -> String {
    let hash = KeyHash::of(CLIENT_KEY.as_bytes());
    let organisation = |name: &str, http: &str| {
        format!(
            "[[organisation]]\nname = \"{name}\"\nurl = \"http://{upstream}\"\nhttp = \"{http}\"\nkeys = [{{ value = \"sk-ant-{name}-1\" }}]\n\n"
        )
    };
    format!(
        "[listen]\naddress = \"{listen}\"\nadmin = \"{admin}\"\n\n{}{}[[client_key]]\ntenant = \"storm\"\nhash = \"{hash}\"\n",
        organisation("one", "1.1"),
        organisation("two", "2"),
    )
}

/// Every way to leave, each with its share of `clients`.
fn crowds(url: &str, clients: usize, leave: Bounds, seed: u64) -> Vec<Crowd> {
    let ways = [
        ("HTTP/1.1, SSE", Mode::Sse, false, Manner::Leave(leave)),
        ("HTTP/1.1, JSON", Mode::Json, false, Manner::Leave(leave)),
        ("HTTP/2, SSE", Mode::Sse, true, Manner::Leave(leave)),
        ("HTTP/2, JSON", Mode::Json, true, Manner::Leave(leave)),
        ("WebSocket, stream.cancel", Mode::Socket, false, Manner::Cancel(leave)),
        ("WebSocket, dead socket", Mode::Socket, false, Manner::Leave(leave)),
    ];
    let crowd = |(n, (name, mode, http2, manner)): (usize, _)| {
        let mut plan = Plan::new(url);
        plan.mode = mode;
        plan.concurrency = (clients / ways.len()).max(1);
        plan.key = Some(Secret::new(CLIENT_KEY));
        plan.max_tokens = 8_192;
        plan.seed = seed + n as u64;
        plan.ramp = LEAVE.1;
        Crowd { manner, http2, ..Crowd::new(name, plan) }
    };
    ways.into_iter().enumerate().map(crowd).collect()
}

/// The sum of a metric over all its labels that hold `label`.
fn metric(page: &str, name: &str, label: &str) -> f64 {
    let values = page.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        value.parse::<f64>().ok().filter(|_| labels.starts_with('{') && labels.contains(label))
    });
    values.sum()
}

/// What was asked of the upstream and produced by it, and what Tidegate counted of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bill {
    produced: [f64; 2],
    counted: [f64; 2],
}

impl Bill {
    fn read(truth: &str, metrics: &str) -> Option<Self> {
        let truth: serde_json::Value = serde_json::from_str(truth).ok()?;
        let sum =
            |field: &str| truth["domains"].as_array().map(|all| all.iter().filter_map(|d| d[field].as_f64()).sum());
        let counted = |kind: &str| metric(metrics, "tidegate_tokens_total", kind);
        Some(Bill {
            produced: [sum("input_tokens")?, sum("output_tokens")?],
            counted: [counted("kind=\"input\""), counted("kind=\"output\"")],
        })
    }

    /// Whether something was counted, and nothing twice.
    fn is_fair(&self) -> bool {
        self.counted[0] > 0.0 && self.counted.iter().zip(self.produced).all(|(counted, produced)| *counted <= produced)
    }
}

struct Scene {
    tidegate: Process,
    _simulator: Process,
    eye: Eye,
    admin: SocketAddr,
    truth: SocketAddr,
    url: String,
}

impl Scene {
    fn start(folder: &Folder, stop: &Stop) -> Result<Self, Failed> {
        let exe = std::env::current_exe().map_err(|e| Failed(format!("this binary cannot find itself: {e}")))?;
        let [listen, admin, api, truth] = [free_address()?, free_address()?, free_address()?, free_address()?];
        let scenario = folder.write("storm.toml", SCENARIO)?.display().to_string();
        let (api_text, truth_text) = (api.to_string(), truth.to_string());
        let args = ["simulate", "--scenario", &scenario, "--listen", &api_text, "--truth-listen", &truth_text];
        let mut simulator = Process::start("upstream", &exe, &args, folder, true)?;
        simulator.until(stop, || ask(api, "/").is_ok())?;
        let file = folder.write("tidegate.toml", &config(listen, admin, api))?.display().to_string();
        let args = ["serve", "--config", &file, "--log-level", "error"];
        let mut tidegate = Process::start("tidegate", &exe, &args, folder, true)?;
        tidegate.until(stop, || ask(admin, "/readyz").is_ok())?;
        let eye = Eye { pid: tidegate.pid(), admin };
        Ok(Scene { tidegate, _simulator: simulator, eye, admin, truth, url: format!("http://{listen}") })
    }

    fn look(&mut self) -> Result<Sample, Failed> {
        self.eye.look(Duration::ZERO, &mut self.tidegate)
    }

    fn truth(&self) -> Result<serde_json::Value, Failed> {
        let page = ask(self.truth, "/truth").map_err(|e| Failed(format!("the simulator's truth: {e}")))?;
        serde_json::from_str(&page).map_err(Failed::because)
    }

    /// Waits until nothing is held any more, or for as long as it is given.
    fn rest(&mut self, before: &Sample, stop: &Stop) -> Result<Sample, Failed> {
        let clock = Clock::real();
        loop {
            stop.pause(Duration::from_millis(500))?;
            let sample = self.look()?;
            let rests = at_rest(before, &sample).iter().all(|check| check.good == Some(true));
            let open = self.truth()?["open"].as_u64();
            if (rests && open == Some(0)) || clock.now().since(tidegate_base::Moment::ZERO) > REST_MAX {
                return Ok(sample);
            }
        }
    }

    /// How long it takes the upstream to notice one that leaves, `times` times.
    fn notices(&self, crowd: &Crowd, times: u16, stop: &Stop) -> Result<Vec<Duration>, Failed> {
        let clock = Clock::real();
        let alone = OneLeaves::start(crowd, clock).map_err(Failed::because)?;
        let mut spans = Vec::new();
        for _ in 0..times {
            let before = self.truth()?["clients_left"].as_u64();
            // An answer may have ended before its client left; that one says nothing.
            let Some(left) = alone.leave().map_err(Failed::because)? else { continue };
            loop {
                stop.pause(Duration::ZERO)?;
                let (open, now) = (self.truth()?, clock.now());
                if open["clients_left"].as_u64() > before && open["open"] == 0 {
                    spans.push(now.since(left));
                    break;
                }
                if now.since(left) > NOTICE_MAX {
                    return Err(Failed(format!("{}: the upstream does not notice within {NOTICE_MAX:?}", crowd.name)));
                }
            }
        }
        spans.sort_unstable();
        Ok(spans)
    }
}

/// What was found.
struct Found {
    counts: Vec<(&'static str, CrowdCount)>,
    left: u64,
    rest: Vec<(String, bool)>,
    bill: Bill,
    notices: Vec<(&'static str, Vec<Duration>)>,
}

fn at(spans: &[Duration], share: f64) -> Duration {
    let last = spans.len().saturating_sub(1);
    spans.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

impl Found {
    fn is_good(&self) -> bool {
        let soon = |spans: &[Duration]| match spans.len() {
            0 => false,
            n => n < ALONE_JUDGED || at(spans, 0.99) <= CLOSED_WITHIN,
        };
        let malformed: u64 = self.counts.iter().map(|(_, count)| count.errors.malformed).sum();
        self.rest.iter().all(|(_, good)| *good)
            && self.bill.is_fair()
            && malformed == 0
            && self.notices.iter().all(|(_, spans)| soon(spans))
    }

    fn text(&self) -> String {
        let head = ["way", "left", "answered first", "failed", "upstream closed, ms: median", "p99", "longest"];
        let row = |(n, (name, count)): (usize, &(&str, CrowdCount))| {
            let spans = self.notices.get(n).map_or(&[][..], |(_, spans)| spans);
            let ms = |span: Duration| number(span.as_secs_f64() * 1e3, 1);
            let failed = count.started - count.left - count.whole;
            let mut cells = vec![(*name).to_owned()];
            cells.extend([count.left, count.whole, failed].map(|n| number(n as f64, 0)));
            cells.extend([at(spans, 0.5), at(spans, 0.99), at(spans, 1.0)].map(ms));
            cells
        };
        let rows = self.counts.iter().enumerate().map(row);
        let table = aligned(&std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>());
        let rest: Vec<String> =
            self.rest.iter().map(|(what, good)| format!("- {what}: {}", if *good { "yes" } else { "NO" })).collect();
        let [input, output] = [0, 1].map(|n| (number(self.bill.counted[n], 0), number(self.bill.produced[n], 0)));
        format!(
            "{} cancellations\n\n{table}\n{}\n- billed once: {}; counted {} of {} input and {} of {} output tokens that the upstream took and made\n\n\
             \"failed\" counts what was under way when a round ended too. \"Upstream closed\" is asked over HTTP, so it is an upper bound; one client at a time, some of their upstreams silent.\nverdict: {}\n",
            number(self.left as f64, 0),
            rest.join("\n"),
            if self.bill.is_fair() { "yes" } else { "NO" },
            input.0,
            input.1,
            output.0,
            output.1,
            if self.is_good() { "passed" } else { "failed" }
        )
    }

    fn markdown(&self, began: SystemTime) -> String {
        let facts = Facts::gather(began);
        format!(
            "# A storm of cancellations\n\n| | |\n|---|---|\n| machine | {} |\n| date | {} |\n| commit | {} |\n| command | `{}` |\n\n{}",
            facts.machine,
            facts.date,
            facts.commit,
            facts.command,
            self.text()
        )
    }
}

/// Lets the crowds loose until enough have left; what became of them.
fn rage(scene: &Scene, flags: &Storm, stop: &Stop) -> Result<Vec<(&'static str, CrowdCount)>, Failed> {
    let mut sums: Vec<(&'static str, CrowdCount)> = Vec::new();
    for round in 0..ROUNDS_MAX {
        let crowds = crowds(&scene.url, usize::from(flags.clients), LEAVE, flags.seed + 100 * round);
        let report = tidegate_bench::churn(&crowds, ROUND, |_| {
            if stop.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        stop.pause(Duration::ZERO)?;
        for (n, (name, count)) in report.map_err(Failed::because)?.crowds.into_iter().enumerate() {
            match sums.get_mut(n) {
                Some((_, sum)) => sum.add(&count),
                None => sums.push((name, count)),
            }
        }
        let left: u64 = sums.iter().map(|(_, count)| count.left).sum();
        say(format_args!("round {}: {} have left", round + 1, number(left as f64, 0)));
        if left >= flags.cancels {
            return Ok(sums);
        }
    }
    Err(Failed(format!("too few have left in {ROUNDS_MAX} rounds")))
}

pub(super) fn run(flags: &Storm) -> Result<(), Failed> {
    let (files, needed) = (raise_files(), 2 * u64::from(flags.clients) + FILES_ASIDE);
    if files < needed {
        return Err(Failed(format!("a process may open {files} files and this takes {needed}; `ulimit -n {needed}`")));
    }
    let began = Clock::real().wall();
    let stop = Stop::on_signals()?;
    let folder = Folder::new()?;
    let mut scene = Scene::start(&folder, &stop)?;
    stop.pause(Duration::from_secs(1))?;
    let before = scene.look()?;
    let counts = rage(&scene, flags, &stop)?;
    let rest = scene.rest(&before, &stop)?;
    let checks = at_rest(&before, &rest);
    let mut rest: Vec<(String, bool)> =
        checks.into_iter().map(|c| (format!("{} ({})", c.what, c.found), c.good == Some(true))).collect();
    let open = scene.truth()?["open"].as_u64();
    rest.push((format!("the upstream works on nothing ({} open)", open.unwrap_or_default()), open == Some(0)));
    let pages = (ask(scene.truth, "/truth"), ask(scene.admin, "/metrics"));
    let (Ok(truth), Ok(metrics)) = pages else { return Err(Failed("truth or metrics cannot be asked".to_owned())) };
    let bill = Bill::read(&truth, &metrics).ok_or_else(|| Failed("the simulator's truth cannot be read".to_owned()))?;
    let mut notices = Vec::new();
    for crowd in crowds(&scene.url, 6, LEAVE_ALONE, flags.seed) {
        notices.push((crowd.name, scene.notices(&crowd, flags.alone, &stop)?));
    }
    let left = counts.iter().map(|(_, count)| count.left).sum();
    let found = Found { counts, left, rest, bill, notices };
    say(found.text());
    if let Some(file) = &flags.markdown {
        write(file, &found.markdown(began))?;
    }
    if found.is_good() { Ok(()) } else { Err(Failed("something was left behind, or too long".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use tidegate_simulator::Scenario;

    #[test]
    fn upstream_and_configuration_are_read() {
        assert_eq!(Scenario::parse(SCENARIO).unwrap().faults.len(), 2);
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let text = config(at(4600), at(4601), at(4610));
        assert!(crate::config::Config::parse(Path::new("tidegate.toml"), &text, &|_| None).unwrap().check().is_ok());
        assert_eq!(crowds("http://a", 60, LEAVE, 1).iter().map(|c| c.plan.concurrency).sum::<usize>(), 60);
    }

    #[test]
    fn what_is_counted_twice_is_seen() {
        let truth = r#"{"domains":[{"input_tokens":60,"output_tokens":100},{"input_tokens":40,"output_tokens":0}]}"#;
        let metrics = |input, output| {
            format!(
                "tidegate_tokens_total{{tenant=\"a\",kind=\"input\"}} {input}\ntidegate_tokens_total{{tenant=\"a\",kind=\"output\"}} {output}\n"
            )
        };
        let fair = |input, output| Bill::read(truth, &metrics(input, output)).unwrap().is_fair();
        assert!(fair(100, 100) && fair(1, 0));
        assert!(!fair(101, 0) && !fair(1, 101) && !fair(0, 0));
    }

    #[test]
    fn late_ones_are_seen_behind_many_that_are_not() {
        let spans: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!((at(&spans, 0.99), at(&spans, 1.0)), (Duration::from_millis(198), Duration::from_millis(200)));
        assert_eq!(at(&[], 0.99), Duration::ZERO);
    }
}
