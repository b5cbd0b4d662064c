//! `tidegate bench compare`: REST, SSE and WebSockets side by side, at any Claude-compatible endpoint.
//!
//! ```text
//!   URL, or a simulator and a Tidegate of its own
//!     ─▶ REST, a connection a request ─▶ REST, kept ─▶ SSE ─▶ WebSocket ─▶ (again) ─▶ one table
//! ```
//! Each way is a closed loop: so many clients, each asks again when it has its answer. A buffered
//! answer shows its first text when it is there whole, so that is what counts for REST. An endpoint
//! that speaks no WebSocket keeps its other rows. What is measured is said as it is, also where it
//! shows no difference.

mod output;

use super::ask::ask;
use super::page::write;
use super::stage::{Folder, Process, Stop, free_address, raise_files};
use super::{Failed, say};
use crate::cli::Compare;
use output::{Figures, Page};
use std::ops::ControlFlow;
use std::time::Duration;
use tidegate_base::Secret;
use tidegate_bench::{Mode, Plan, ProgressView, Report};
use tidegate_transport::{Clock, TlsRoots};

/// The simulator's parameters, unless a file says others.
pub(super) const SCENARIO: &str = r#"about = "A steady pace for comparing ways to the same answers."

[pace]
head = "200 ms"            # from the request to the response head
first = "100 ms"           # from there to the first content
event = "20 ms"            # from one content event to the next
jitter_percent = 50        # each gap varies by so much
chars = "4-24"             # characters in one delta
output_tokens = "80-160"

[quota]
tier = "unlimited"
"#;
/// What answers under way get when a way's time is over.
const GRACE: Duration = Duration::from_secs(30);
/// Files beside those of clients and their upstreams.
const FILES_ASIDE: u64 = 200;

/// A way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) name: &'static str,
    mode: Mode,
    keep_alive: bool,
}

pub(super) const WAYS: [Way; 4] = [
    Way { name: "REST, a connection a request", mode: Mode::Json, keep_alive: false },
    Way { name: "REST, keep-alive", mode: Mode::Json, keep_alive: true },
    Way { name: "SSE, keep-alive", mode: Mode::Sse, keep_alive: true },
    Way { name: "WebSocket", mode: Mode::Socket, keep_alive: true },
];

/// What answers, if it is ours.
struct Site {
    url: String,
    scenario: Option<String>,
    _tidegate: Option<Process>,
    _folder: Option<Folder>,
}

impl Site {
    fn of(flags: &Compare, stop: &Stop) -> Result<Self, Failed> {
        if let Some(url) = &flags.url {
            return Ok(Site { url: url.clone(), scenario: None, _tidegate: None, _folder: None });
        }
        let text = match &flags.scenario {
            Some(file) => std::fs::read_to_string(file).map_err(|e| Failed(format!("{}: {e}", file.display())))?,
            None => SCENARIO.to_owned(),
        };
        let exe = std::env::current_exe().map_err(|e| Failed(format!("this binary cannot find itself: {e}")))?;
        let folder = Folder::new()?;
        let file = folder.write("compare.toml", &text)?.display().to_string();
        let [listen, admin, api, truth] = [free_address()?, free_address()?, free_address()?, free_address()?];
        let at = [listen, admin, api, truth].map(|at| at.to_string());
        let doors = ["--listen", "--admin-listen", "--simulate-listen", "--truth-listen"];
        let mut args = vec!["serve", "--simulate", "--log-level", "warn", "--scenario", &file];
        args.extend(doors.iter().zip(&at).flat_map(|(flag, at)| [*flag, at.as_str()]));
        let mut tidegate = Process::start("tidegate", &exe, &args, &folder, true)?;
        tidegate.until(stop, || ask(admin, "/readyz").is_ok())?;
        Ok(Site {
            url: format!("http://{listen}"),
            scenario: Some(text),
            _tidegate: Some(tidegate),
            _folder: Some(folder),
        })
    }

    fn plan(&self, flags: &Compare, way: Way, seed: u64) -> Plan {
        let mut plan = Plan::new(&self.url);
        (plan.mode, plan.keep_alive) = (way.mode, way.keep_alive);
        plan.concurrency = usize::from(flags.concurrency);
        plan.duration = Some(flags.duration.0);
        plan.grace = GRACE;
        plan.key = flags.key.clone().map(Secret::new);
        plan.model.clone_from(&flags.model);
        plan.max_tokens = flags.max_tokens;
        plan.seed = seed;
        // All at once would be a storm of handshakes and not a load.
        plan.ramp = (flags.duration.0 / 20).min(Duration::from_secs(1));
        plan.tls_roots = flags.ca.clone().map_or(TlsRoots::Machine, TlsRoots::File);
        plan
    }
}

fn measure(plan: &Plan, stop: &Stop) -> Result<Report, Failed> {
    let mut view = ProgressView::on_stderr();
    let report = tidegate_bench::run(plan, |progress| {
        view.show(progress);
        if stop.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    view.finish();
    report.map_err(Failed::because)
}

pub(super) fn run(flags: &Compare) -> Result<(), Failed> {
    if flags.duration.0.is_zero() {
        return Err(Failed("--duration: a way is measured for longer than 0 s".to_owned()));
    }
    let (files, needed) = (raise_files(), 2 * u64::from(flags.concurrency) + FILES_ASIDE);
    if files < needed {
        return Err(Failed(format!("a process may open {files} files and this takes {needed}; `ulimit -n {needed}`")));
    }
    let began = Clock::real().wall();
    let stop = Stop::on_signals()?;
    let site = Site::of(flags, &stop)?;
    let mut figures: Vec<Figures> = WAYS.iter().map(|way| Figures::of(*way)).collect();
    for round in 0..u64::from(flags.rounds) {
        for figures in &mut figures {
            let way = figures.way;
            let report = measure(&site.plan(flags, way, 1 + round), &stop)?;
            stop.pause(Duration::ZERO)?;
            figures.add(&report);
        }
    }
    let page = Page { flags, scenario: site.scenario.as_deref(), figures: &figures };
    say(page.text().trim_end());
    if let Some(file) = &flags.svg {
        write(file, &page.svg())?;
    }
    if let Some(file) = &flags.markdown {
        write(file, &page.markdown(began))?;
    }
    // The WebSocket's row may be missing; one that is there and has nothing is a failure.
    let empty = figures.iter().find(|f| f.is_empty() && f.not_spoken.is_none());
    empty.map_or(Ok(()), |f| Err(Failed(format!("{}: not one request was answered well", f.way.name))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_simulator::Scenario;

    #[test]
    fn the_scenario_is_one_without_limits_and_faults() {
        let scenario = Scenario::parse(SCENARIO).unwrap();
        assert!(scenario.faults.is_empty() && scenario.bare.is_none());
        assert_eq!(scenario.pace.head, Duration::from_millis(200));
    }
}
