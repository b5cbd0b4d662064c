//! `tidegate bench soak`: a load of clients that come, go, dawdle and leave, for as long as is
//! wanted, and a look now and then at what Tidegate holds on to.
//!
//! ```text
//!   start simulator, Tidegate ─▶ look ─▶ crowds for N minutes, a look every 10 s ─▶ all leave at once
//!     ─▶ wait until nothing is held ─▶ look ─▶ judge: grown? anything left? anything spoilt?
//! ```
//! Both are processes of their own on loopback and end with this one. The load is moderate on
//! purpose: what is looked for shows by time and churn and not by speed, and other work can go on
//! beside it.

mod load;
mod output;
mod sample;
mod verdict;

/// What is held at rest, for other loads.
pub(super) mod rest {
    pub(in crate::commands) use super::sample::{Eye, Sample};
    pub(in crate::commands) use super::verdict::at_rest;
}

use super::ask::ask;
use super::page::{Facts, write};
use super::stage::{Folder, Process, Stop, free_address, raise_files};
use super::{Failed, say};
use crate::cli::Soak;
use output::Page;
use sample::{Eye, Sample};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_bench::{ChurnReport, Crowd};
use tidegate_transport::Clock;

/// How often is looked, in a run that is long enough.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often is looked in a short one, at least: a look costs Tidegate some milliseconds.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(500);
/// Looks of a short run.
const LOOKS: u32 = 30;
/// How often a line is printed.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// So long the load goes on after its last look.
const TAIL: Duration = Duration::from_secs(1);
/// What a process that has just answered gets to close what it was asked by.
const SETTLE: Duration = Duration::from_secs(1);
/// What everything gets to be given back. The longest wait that is right is for kept upstream
/// connections: a minute, and a sweep each 10 s.
const REST_MAX: Duration = Duration::from_secs(100);
/// Shorter runs do not wait for kept upstream connections to be closed; they count them.
const KEPT_SPAN_MIN: Duration = Duration::from_secs(60);
/// Files beside those of streams and their upstreams.
const FILES_ASIDE: u64 = 600;

/// The processes under load, and who looks at them.
struct Scene {
    tidegate: Process,
    _simulator: Process,
    eye: Eye,
    url: String,
}

impl Scene {
    fn start(flags: &Soak, folder: &Folder, stop: &Stop) -> Result<Self, Failed> {
        let exe = std::env::current_exe().map_err(|e| Failed(format!("this binary cannot find itself: {e}")))?;
        let (listen, admin, upstream) = (free_address()?, free_address()?, free_address()?);
        let simulator = start_simulator(&exe, upstream, folder, stop)?;
        let program = match &flags.program {
            Some(program) => program.clone(),
            // A copy: pages of a file that runs thrice would count for a third.
            None => {
                let copy = folder.path().join("tidegate");
                std::fs::copy(&exe, &copy).map_err(|e| Failed(format!("cannot copy this binary: {e}")))?;
                copy
            }
        };
        let config = folder.write("tidegate.toml", &load::config(listen, admin, upstream))?.display().to_string();
        let args = ["serve", "--config", &config, "--log-level", &flags.log_level];
        // Its log goes where nobody reads it, as a service's does; in a file it would fill the disk.
        let mut tidegate = Process::start("tidegate", &program, &args, folder, false)?;
        tidegate.until(stop, || ask(admin, "/readyz").is_ok())?;
        let eye = Eye { pid: tidegate.pid(), admin };
        Ok(Scene { tidegate, _simulator: simulator, eye, url: format!("http://{listen}") })
    }

    fn look(&mut self, at: Duration) -> Result<Sample, Failed> {
        self.eye.look(at, &mut self.tidegate)
    }

    /// Waits until nothing is held any more, or for as long as it is given; the last look.
    fn rest(
        &mut self,
        began: (Clock, Moment),
        before: &Sample,
        wait_for_kept: bool,
        stop: &Stop,
    ) -> Result<Sample, Failed> {
        let (clock, began) = began;
        let ended = clock.now();
        loop {
            stop.pause(SETTLE)?;
            let now = clock.now();
            let sample = self.look(now.since(began))?;
            let kept = wait_for_kept && sample.held.kept > 0.0;
            let at_rest = verdict::at_rest(before, &sample).iter().all(|check| check.good == Some(true));
            if (at_rest && !kept) || now.since(ended) > REST_MAX {
                return Ok(sample);
            }
        }
    }
}

fn start_simulator(exe: &Path, at: SocketAddr, folder: &Folder, stop: &Stop) -> Result<Process, Failed> {
    let file = folder.write("upstream.toml", load::SCENARIO)?.display().to_string();
    let (at_text, truth) = (at.to_string(), free_address()?.to_string());
    let args = ["simulate", "--scenario", &file, "--listen", &at_text, "--truth-listen", &truth];
    let mut process = Process::start("upstream", exe, &args, folder, true)?;
    process.until(stop, || ask(at, "/").is_ok())?;
    Ok(process)
}

/// Looks while the crowds are there.
struct Watch<'a> {
    scene: &'a mut Scene,
    stop: &'a Stop,
    span: Duration,
    look_every: Duration,
    line_every: Duration,
    look_due: Duration,
    line_due: Duration,
    told: Sample,
    samples: Vec<Sample>,
    failed: Option<Failed>,
}

impl Watch<'_> {
    fn look(&mut self, elapsed: Duration) -> ControlFlow<()> {
        if self.stop.is_set() {
            return ControlFlow::Break(());
        }
        if elapsed < self.look_due || self.look_due > self.span {
            return ControlFlow::Continue(());
        }
        self.look_due += self.look_every;
        match self.scene.look(elapsed) {
            Ok(sample) => {
                if elapsed >= self.line_due {
                    self.line_due += self.line_every;
                    say(output::line(&self.told, &sample));
                    self.told = sample;
                }
                self.samples.push(sample);
                ControlFlow::Continue(())
            }
            Err(failed) => {
                self.failed = Some(failed);
                ControlFlow::Break(())
            }
        }
    }
}

/// Runs the crowds, looking meanwhile.
fn under_load(
    scene: &mut Scene,
    stop: &Stop,
    crowds: &[Crowd],
    span: Duration,
    before: Sample,
) -> Result<(ChurnReport, Vec<Sample>), Failed> {
    let look_every = (span / LOOKS).clamp(LOOK_EVERY_MIN, LOOK_EVERY);
    let line_every = LINE_EVERY.min(span / 5);
    let mut watch = Watch {
        scene,
        stop,
        span,
        look_every,
        line_every,
        look_due: look_every,
        line_due: line_every,
        told: before,
        samples: Vec::new(),
        failed: None,
    };
    let report = tidegate_bench::churn(crowds, span + TAIL, |elapsed| watch.look(elapsed));
    let Watch { failed, samples, .. } = watch;
    failed.map_or(Ok(()), Err)?;
    stop.pause(Duration::ZERO)?;
    Ok((report.map_err(Failed::because)?, samples))
}

pub(super) fn run(flags: &Soak) -> Result<(), Failed> {
    let streams = usize::from(flags.streams);
    let (files, needed) = (raise_files(), 2 * streams as u64 + FILES_ASIDE);
    if files < needed {
        return Err(Failed(format!(
            "a process may open {files} files and {streams} streams take {needed}; raise it with `ulimit -n {needed}`, or soak fewer with --streams"
        )));
    }
    let span = Duration::from_secs_f64(flags.minutes * 60.0);
    let stop = Stop::on_signals()?;
    let folder = Folder::new()?;
    let clock = Clock::real();
    let facts = Facts::gather(clock.wall());
    let mut scene = Scene::start(flags, &folder, &stop)?;
    stop.pause(SETTLE)?;
    let before = scene.look(Duration::ZERO)?;
    let crowds = load::crowds(&scene.url, streams, span);
    say(format_args!(
        "{} clients for {} minutes; Tidegate is process {}",
        clients(&crowds),
        flags.minutes,
        scene.eye.pid
    ));
    let began = clock.now();
    let (report, samples) = under_load(&mut scene, &stop, &crowds, span, before)?;
    let ended = clock.now();
    let rest = scene.rest((clock, began), &before, span >= KEPT_SPAN_MIN, &stop)?;
    say(output::line(samples.last().unwrap_or(&before), &rest));
    let counts = report.crowds.into_iter().map(|(_, count)| count);
    let crowds: Vec<_> = crowds.into_iter().zip(counts).collect();
    let mut checks = verdict::growth(&samples, span);
    checks.extend(verdict::at_rest(&before, &rest));
    checks.extend(verdict::answers(&crowds));
    let page = Page {
        facts,
        span,
        before,
        samples,
        rest,
        rest_after: rest.at.saturating_sub(ended.since(began)),
        crowds,
        generator_cpu_s: report.cpu_s,
        checks,
    };
    say(page.summary());
    if let Some(file) = &flags.markdown {
        write(file, &page.markdown())?;
    }
    let failed: Vec<&str> = page.failed().iter().map(|check| check.what).collect();
    if failed.is_empty() { Ok(()) } else { Err(Failed(format!("the soak failed: not true: {}", failed.join("; ")))) }
}

fn clients(crowds: &[Crowd]) -> usize {
    crowds.iter().map(|crowd| crowd.plan.concurrency).sum()
}
