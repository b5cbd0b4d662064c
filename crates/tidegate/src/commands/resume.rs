//! `tidegate bench resume`: a hundred thousand streams whose readers lose their connections, over SSE
//! and WebSockets, from an upstream with faults, compared with what it truly produced.
//!
//! Both processes are on loopback and end with this one. Tidegate's defaults hold: no stream is
//! mended (`tidegate-recover: never`), so one that breaks off upstream has to end in one error, and
//! what came before it has to be a beginning of the answer.

use super::ask::ask;
use super::page::{Facts, number, write};
use super::stage::{Folder, Process, Stop, free_address, raise_files};
use super::{Failed, say};
use crate::cli::Resume;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};
use tidegate_bench::{Plan, ResumeReport, Resuming, resume};
use tidegate_transport::Clock;

/// The upstream: answers of some dozens of events, a third of which meet a fault.
pub(super) const SCENARIO: &str = r#"about = "Answers that are read in pieces, a third of which meet a fault."

[quota]
tier = "unlimited"

[pace]
head = "2 ms"
first = "2 ms"
event = "2 ms"
output_tokens = "40-400"

[[fault]]
do = ["reset-at:in-data"]
probability = 0.1

[[fault]]
do = ["end-at:before-stop"]
probability = 0.05

[[fault]]
do = ["error-at:event-6"]
probability = 0.05

[[fault]]
do = ["unknown-at:event-5"]
probability = 0.05

[[fault]]
do = ["reset-before-head"]
probability = 0.05

[[fault]]
do = ["status:529"]
probability = 0.03

[[fault]]
do = ["one-byte"]
probability = 0.02
"#;
const FILES_ASIDE: u64 = 600;
/// How often a line is printed.
const LINE_EVERY: Duration = Duration::from_secs(30);

struct Scene {
    url: String,
    truth_url: String,
    _tidegate: Process,
}

impl Scene {
    fn start(folder: &Folder, stop: &Stop) -> Result<Self, Failed> {
        let exe = std::env::current_exe().map_err(|e| Failed(format!("this binary cannot find itself: {e}")))?;
        let file = folder.write("resume.toml", SCENARIO)?.display().to_string();
        let [listen, admin, api, truth] = [free_address()?, free_address()?, free_address()?, free_address()?];
        let at = [listen, admin, api, truth].map(|at| at.to_string());
        let doors = ["--listen", "--admin-listen", "--simulate-listen", "--truth-listen"];
        let mut args = vec!["serve", "--simulate", "--log-level", "error", "--scenario", &file];
        args.extend(doors.iter().zip(&at).flat_map(|(flag, at)| [*flag, at.as_str()]));
        let mut tidegate = Process::start("tidegate", &exe, &args, folder, true)?;
        tidegate.until(stop, || ask(admin, "/readyz").is_ok())?;
        Ok(Scene { url: format!("http://{listen}"), truth_url: format!("http://{truth}"), _tidegate: tidegate })
    }
}

/// Whether all is as it should be, and there was something to see.
fn is_good(report: &ResumeReport) -> bool {
    let lost: u64 = report.not_begun.values().sum();
    report.wrong == 0 && report.whole > 0 && report.resumed > 0 && lost * 10 <= report.whole
}

fn text(report: &ResumeReport) -> String {
    let n = |n: u64| number(n as f64, 0);
    let mut out = format!(
        "- {} streams whole, each byte as produced, numbers without a gap, one end\n- {} broken off upstream, told so once, what came is a beginning of what was sent\n- {} wrong\n- {} connections lost and taken up again, at random cursors\n",
        n(report.whole),
        n(report.broken),
        n(report.wrong),
        n(report.resumed)
    );
    for (why, count) in &report.not_begun {
        // Writing into a string cannot fail.
        let _ = writeln!(out, "- {} not begun: {}", n(*count), why.escape_debug());
    }
    for example in &report.examples {
        let _ = writeln!(out, "- wrong: {}", example.escape_debug());
    }
    let _ = writeln!(out, "\nverdict: {}", if is_good(report) { "passed" } else { "failed" });
    out
}

fn markdown(report: &ResumeReport, began: SystemTime) -> String {
    let facts = Facts::gather(began);
    format!(
        "# Streams whose readers lose their connections\n\n| | |\n|---|---|\n| machine | {} |\n| date | {} |\n| commit | {} |\n| command | `{}` |\n\n{}\nThe upstream:\n```toml\n{}```\n",
        facts.machine,
        facts.date,
        facts.commit,
        facts.command,
        text(report),
        SCENARIO
    )
}

pub(super) fn run(flags: &Resume) -> Result<(), Failed> {
    let (files, needed) = (raise_files(), 4 * u64::from(flags.readers) + FILES_ASIDE);
    if files < needed {
        return Err(Failed(format!("a process may open {files} files and this takes {needed}; `ulimit -n {needed}`")));
    }
    let clock = Clock::real();
    let (began, stop) = (clock.wall(), Stop::on_signals()?);
    let folder = Folder::new()?;
    let scene = Scene::start(&folder, &stop)?;
    let mut plan = Plan::new(&scene.url);
    plan.concurrency = usize::from(flags.readers);
    plan.seed = flags.seed;
    plan.max_tokens = 1_024;
    let wish = Resuming { plan, truth_url: scene.truth_url.clone(), streams: flags.streams };
    let mut told = clock.now();
    let report = resume(&wish, |so_far| {
        if clock.now().since(told) >= LINE_EVERY {
            told = clock.now();
            let read = number((so_far.whole + so_far.broken) as f64, 0);
            say(format_args!("{read} streams, {} resumed, {} wrong", number(so_far.resumed as f64, 0), so_far.wrong));
        }
        if stop.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let report = report.map_err(Failed::because)?;
    stop.pause(Duration::ZERO)?;
    say(text(&report));
    if let Some(file) = &flags.markdown {
        write(file, &markdown(&report, began))?;
    }
    if is_good(&report) { Ok(()) } else { Err(Failed("not every stream was as it should be".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_simulator::Scenario;

    #[test]
    fn the_scenario_is_one_with_faults() {
        assert_eq!(Scenario::parse(SCENARIO).unwrap().faults.len(), 7);
    }

    #[test]
    fn one_wrong_stream_or_many_that_never_began_fail() {
        let good = ResumeReport { whole: 100, broken: 20, resumed: 200, ..ResumeReport::default() };
        assert!(is_good(&good) && text(&good).contains("verdict: passed"));
        assert!(!is_good(&ResumeReport { wrong: 1, ..good.clone() }));
        assert!(!is_good(&ResumeReport { resumed: 0, ..good.clone() }));
        let refused = [("529".to_owned(), 11)].into();
        assert!(!is_good(&ResumeReport { not_begun: refused, ..good }));
    }
}
