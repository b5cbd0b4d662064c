//! `tidegate bench sockets`: ten thousand WebSockets at one Tidegate, each with a stream, then the
//! same with a thousand more that stop reading.
//!
//! ```text
//!   start simulator, Tidegate (HTTP/2 upstream)
//!     ─▶ N sockets come within a fifth of the span, read ─▶ heartbeats, event gaps, memory
//!     ─▶ the same, and others that read a little and then nothing ─▶ how much worse for those who read
//! ```
//! Heartbeats are the pings of Tidegate, timed by the client that gets them: a gap beyond 15 s is
//! lateness. All processes share the machine, the generator too, whose own delays are in every figure.

use super::ask::ask;
use super::page::{Facts, aligned, number, write};
use super::stage::{Folder, Process, Stop, free_address, raise_files};
use super::{Failed, proc, say};
use crate::cli::Sockets;
use std::fmt::Write;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};
use tidegate_base::Secret;
use tidegate_bench::{Crowd, Manner, Mode, Plan, Report};
use tidegate_gateway::KeyHash;
use tidegate_transport::Clock;

const CLIENT_KEY: &str = "tg_bench_sockets_client_key";
/// Tidegate's own default.
const PING_MS: f64 = 15_000.0;
/// The latest heartbeat that 99 of 100 stay below, ms.
const LATE_MAX_MS: f64 = 250.0;
/// How much worse it may be for others, beside what the generator's timer cannot tell apart, ms.
const WORSE_MAX: f64 = 0.10;
const WORSE_FLOOR_MS: f64 = 5.0;
/// From so many heartbeats on they are judged.
const PINGS_JUDGED: u64 = 100;
/// Those that stop read for so long at most, then nothing for the rest of the run.
const STOPPED: (Duration, Duration) = (Duration::from_secs(3_600), Duration::from_secs(3_600));
/// What requests under way get at the end of a half.
const GRACE: Duration = Duration::from_millis(200);
const FILES_ASIDE: u64 = 600;

/// Answers that outlast the run, in events of `event_ms`.
fn scenario(event_ms: u32) -> String {
    format!(
        "about = \"Long answers at an even pace, for many sockets at once.\"\n\n[quota]\ntier = \"unlimited\"\n\n\
         [pace]\nhead = \"20 ms\"\nfirst = \"20 ms\"\nevent = \"{event_ms} ms\"\njitter_percent = 0\noutput_tokens = \"20000-20000\"\n"
    )
}

/// Long enough that no answer ends before its run.
const MAX_TOKENS: u32 = 64_000;

fn config(listen: SocketAddr, admin: SocketAddr, upstream: SocketAddr) -> String {
    let hash = KeyHash::of(CLIENT_KEY.as_bytes());
    format!(
        "[listen]\naddress = \"{listen}\"\nadmin = \"{admin}\"\n\n[[organisation]]\nname = \"one\"\nurl = \"http://{upstream}\"\nhttp = \"2\"\nkeys = [{{ value = \"sk-ant-one-1\" }}]\n\n[[client_key]]\ntenant = \"sockets\"\nhash = \"{hash}\"\n"
    )
}

/// What was found in one half.
struct Half {
    name: &'static str,
    report: Report,
    /// Bytes more than before anybody came, at the most that was seen.
    memory: u64,
}

impl Half {
    fn late_ms(&self, of: impl Fn(&Report) -> f64) -> f64 {
        (of(&self.report) - PING_MS).max(0.0)
    }

    fn cells(&self, clients: u16) -> Vec<String> {
        let r = &self.report;
        vec![
            self.name.to_owned(),
            number(r.connections_opened as f64, 0),
            number(r.events as f64, 0),
            number(r.event_gap_ms.p50, 1),
            number(r.event_gap_ms.p99, 1),
            number(r.ping_gap_ms.count as f64, 0),
            number(self.late_ms(|r| r.ping_gap_ms.p99), 1),
            number(self.late_ms(|r| r.ping_gap_ms.max), 1),
            number(self.memory as f64 / f64::from(clients) / 1024.0, 1),
            number((r.failed + r.truncated_streams) as f64, 0),
        ]
    }
}

const HEAD: [&str; 10] = [
    "",
    "sockets opened",
    "events",
    "event gap, ms: median",
    "p99",
    "heartbeats",
    "late by, ms: p99",
    "longest",
    "memory a socket, KiB",
    "failed",
];

struct Found<'a> {
    flags: &'a Sockets,
    halves: [Half; 2],
}

impl Found<'_> {
    /// Each question, its answer, and whether it is good; `None` where there is too little to judge.
    fn checks(&self) -> Vec<(String, Option<bool>)> {
        let mut checks = Vec::new();
        for half in &self.halves {
            let late = half.late_ms(|r| r.ping_gap_ms.p99);
            let enough = half.report.ping_gap_ms.count >= PINGS_JUDGED;
            let what = format!("{}: heartbeats are late by {} ms at most, 99 of 100", half.name, number(late, 1));
            checks.push((what, enough.then_some(late < LATE_MAX_MS)));
            let failed = half.report.failed + half.report.truncated_streams;
            checks.push((format!("{}: {failed} streams of readers failed", half.name), Some(failed == 0)));
        }
        let [alone, beside] = [0, 1].map(|n: usize| self.halves[n].report.event_gap_ms.p99);
        let allowed = alone * (1.0 + WORSE_MAX) + WORSE_FLOOR_MS;
        let what = format!(
            "p99 of the event gap beside readers that stopped: {} ms, alone {} ms",
            number(beside, 1),
            number(alone, 1)
        );
        checks.push((what, Some(beside <= allowed)));
        checks
    }

    fn text(&self) -> String {
        let rows = self.halves.iter().map(|half| half.cells(self.flags.clients));
        let head = HEAD.map(str::to_owned).to_vec();
        let mut out = aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
        out.push('\n');
        for (what, good) in self.checks() {
            let word = good.map_or("too few to judge", |good| if good { "good" } else { "BAD" });
            // Writing into a string cannot fail.
            let _ = writeln!(out, "- {what}: {word}");
        }
        out
    }

    fn markdown(&self, began: SystemTime) -> String {
        let facts = Facts::gather(began);
        format!(
            "# Many WebSockets at once\n\n| | |\n|---|---|\n| machine | {} |\n| date | {} |\n| commit | {} |\n| command | `{}` |\n| sockets | {}, each with a stream of an event each {} ms; upstream over HTTP/2 |\n| that stop reading, in the second half | {} |\n\n{}",
            facts.machine,
            facts.date,
            facts.commit,
            facts.command,
            self.flags.clients,
            self.flags.event_ms,
            self.flags.stopped,
            self.text()
        )
    }
}

struct Scene {
    tidegate: Process,
    _simulator: Process,
    url: String,
}

impl Scene {
    fn start(flags: &Sockets, folder: &Folder, stop: &Stop) -> Result<Self, Failed> {
        let exe = std::env::current_exe().map_err(|e| Failed(format!("this binary cannot find itself: {e}")))?;
        let [listen, admin, api, truth] = [free_address()?, free_address()?, free_address()?, free_address()?];
        let file = folder.write("sockets.toml", &scenario(flags.event_ms))?.display().to_string();
        let (api_text, truth_text) = (api.to_string(), truth.to_string());
        let args = ["simulate", "--scenario", &file, "--listen", &api_text, "--truth-listen", &truth_text];
        let mut simulator = Process::start("upstream", &exe, &args, folder, true)?;
        simulator.until(stop, || ask(api, "/").is_ok())?;
        let file = folder.write("tidegate.toml", &config(listen, admin, api))?.display().to_string();
        let args = ["serve", "--config", &file, "--log-level", "error"];
        let mut tidegate = Process::start("tidegate", &exe, &args, folder, true)?;
        tidegate.until(stop, || ask(admin, "/readyz").is_ok())?;
        Ok(Scene { tidegate, _simulator: simulator, url: format!("http://{listen}") })
    }

    fn memory(&self) -> u64 {
        proc::memory(&[self.tidegate.pid()]).unwrap_or_default()
    }

    fn plan(&self, flags: &Sockets, clients: u16) -> Plan {
        let mut plan = Plan::new(&self.url);
        plan.mode = Mode::Socket;
        plan.key = Some(Secret::new(CLIENT_KEY));
        plan.concurrency = usize::from(clients);
        plan.duration = Some(flags.duration.0);
        plan.request_timeout = 2 * flags.duration.0;
        // What is under way then has been measured already.
        plan.grace = GRACE;
        plan.ramp = flags.duration.0 / 5;
        plan.max_tokens = MAX_TOKENS;
        plan
    }

    /// One half: the readers, and `others` beside them.
    fn half(&self, name: &'static str, flags: &Sockets, others: u16, stop: &Stop) -> Result<Half, Failed> {
        let before = self.memory();
        let crowd = (others > 0).then(|| {
            let plan = self.plan(flags, others);
            Crowd { manner: Manner::Dawdle(STOPPED), ..Crowd::new("stopped", plan) }
        });
        let span = flags.duration.0;
        let (mut memory, ended) = (before, Stop::default());
        let report = std::thread::scope(|scope| {
            let beside = crowd.map(|crowd| {
                let ended = ended.clone();
                scope.spawn(move || {
                    tidegate_bench::churn(&[crowd], span, |_| {
                        if ended.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    })
                })
            });
            let report = tidegate_bench::run(&self.plan(flags, flags.clients), |_| {
                memory = memory.max(self.memory());
                if stop.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            ended.set();
            let beside = beside.map(|thread| thread.join());
            match beside {
                Some(Ok(Err(e))) => Err(Failed::because(e)),
                Some(Err(_)) => Err(Failed("the crowd that stops reading broke".to_owned())),
                _ => report.map_err(Failed::because),
            }
        })?;
        stop.pause(Duration::ZERO)?;
        Ok(Half { name, report, memory: memory.saturating_sub(before) })
    }
}

pub(super) fn run(flags: &Sockets) -> Result<(), Failed> {
    let sockets = u64::from(flags.clients) + u64::from(flags.stopped);
    let (files, needed) = (raise_files(), sockets + sockets / 50 + FILES_ASIDE);
    if files < needed {
        return Err(Failed(format!("a process may open {files} files and this takes {needed}; `ulimit -n {needed}`")));
    }
    if flags.duration.0 < Duration::from_secs(1) {
        return Err(Failed("--duration: a half is measured for at least 1 s".to_owned()));
    }
    let began = Clock::real().wall();
    let stop = Stop::on_signals()?;
    let folder = Folder::new()?;
    let scene = Scene::start(flags, &folder, &stop)?;
    let alone = scene.half("readers alone", flags, 0, &stop)?;
    // Sockets of the first half go before those of the second come.
    stop.pause(Duration::from_secs(3))?;
    let beside = scene.half("beside some that stopped", flags, flags.stopped, &stop)?;
    let found = Found { flags, halves: [alone, beside] };
    say(found.text());
    if let Some(file) = &flags.markdown {
        write(file, &found.markdown(began))?;
    }
    let bad = found.checks().iter().any(|(_, good)| *good == Some(false));
    if bad { Err(Failed("not as it should be; see above".to_owned())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::path::Path;
    use tidegate_bench::Percentiles;
    use tidegate_simulator::Scenario;

    #[test]
    fn upstream_and_configuration_are_read() {
        assert_eq!(Scenario::parse(&scenario(250)).unwrap().pace.event, Duration::from_millis(250));
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let text = config(at(4600), at(4601), at(4610));
        assert!(crate::config::Config::parse(Path::new("tidegate.toml"), &text, &|_| None).unwrap().check().is_ok());
    }

    fn half(name: &'static str, gap_p99: f64, ping_p99: f64, pings: u64) -> Half {
        let mut report = Report::default();
        report.event_gap_ms = Percentiles { count: 1, p99: gap_p99, ..Percentiles::default() };
        report.ping_gap_ms = Percentiles { count: pings, p99: ping_p99, ..Percentiles::default() };
        Half { name, report, memory: 0 }
    }

    fn bad(halves: [Half; 2]) -> usize {
        let cli = crate::cli::Cli::parse_from(["tidegate", "bench", "sockets"]);
        let crate::cli::Command::Bench(bench) = cli.command else { panic!("another command") };
        let Some(crate::cli::BenchCommand::Sockets(flags)) = bench.command else { panic!("another command") };
        Found { flags: &flags, halves }.checks().iter().filter(|(_, good)| *good == Some(false)).count()
    }

    #[test]
    fn late_heartbeats_and_harmed_readers_are_bad() {
        assert_eq!(bad([half("a", 1_000.0, 15_010.0, 500), half("b", 1_100.0, 15_240.0, 500)]), 0);
        assert_eq!(bad([half("a", 1_000.0, 15_010.0, 500), half("b", 1_000.0, 15_260.0, 500)]), 1);
        assert_eq!(bad([half("a", 1_000.0, 15_010.0, 500), half("b", 1_200.0, 15_010.0, 500)]), 1);
        assert_eq!(bad([half("a", 1_000.0, 19_000.0, 99), half("b", 1_000.0, 15_000.0, 99)]), 0);
    }
}
