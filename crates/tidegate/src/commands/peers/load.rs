//! One run of the load generator at a peer, and what the peer's processes took meanwhile.

use super::peer::{Site, Trial};
use crate::commands::{Failed, proc};
use std::ops::ControlFlow;
use std::time::Duration;
use tidegate_base::Secret;
use tidegate_bench::{Mode, Plan, Report};
use tidegate_transport::TlsRoots;

/// How often memory is looked at; a look takes the kernel up to some milliseconds.
const MEMORY_EVERY: Duration = Duration::from_secs(1);
/// What the generator's requests may take: streams of the longest rows last a minute.
const REQUEST_MAX: Duration = Duration::from_secs(180);

/// A look at a run while it ran.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) events: u64,
    pub(super) under_way: u64,
    pub(super) cpu: Option<Duration>,
}

/// What a run found.
pub(super) struct Measured {
    pub(super) report: Report,
    /// Processor time of the peer.
    pub(super) cpu: Option<Duration>,
    /// The most memory it was seen to hold.
    pub(super) memory_peak: Option<u64>,
    pub(super) looks: Vec<Look>,
}

impl Measured {
    /// Microseconds of processor time on each of `n`.
    pub(super) fn cpu_us_per(&self, n: u64) -> Option<f64> {
        self.cpu.filter(|_| n > 0).map(|cpu| cpu.as_secs_f64() * 1e6 / n as f64)
    }

    /// The same on each event of the part of the run during which all `streams` were open.
    pub(super) fn steady_cpu_us_per_event(&self, streams: u64) -> Option<f64> {
        steady(&self.looks, streams)
    }
}

fn steady(looks: &[Look], streams: u64) -> Option<f64> {
    let mut open = looks.iter().filter(|look| look.under_way >= streams);
    let first = open.next()?;
    let last = open.next_back()?;
    let events = last.events.checked_sub(first.events).filter(|n| *n > 0)?;
    Some(last.cpu?.saturating_sub(first.cpu?).as_secs_f64() * 1e6 / events as f64)
}

impl Site {
    /// A plan at a peer that has what every row has; the row adds the rest.
    pub(super) fn plan(&self, trial: &Trial, mode: Mode, concurrency: usize) -> Plan {
        let mut plan = Plan::new(&trial.url);
        plan.mode = mode;
        plan.concurrency = concurrency;
        plan.key = Some(Secret::new(&trial.key));
        plan.request_timeout = REQUEST_MAX;
        plan.threads = self.cores.min(concurrency).min(2);
        plan.tls_roots = trial.ca.clone().map_or(TlsRoots::Machine, TlsRoots::File);
        plan
    }

    /// Runs a plan.
    pub(super) fn run(&self, trial: &Trial, plan: &Plan) -> Result<Measured, Failed> {
        let (mut looks, mut memory_peak, mut memory_due) = (Vec::new(), None, Duration::ZERO);
        let before = proc::cpu(&trial.pids);
        let report = tidegate_bench::run(plan, |progress| {
            let cpu = proc::cpu(&trial.pids);
            looks.push(Look { events: progress.events, under_way: progress.under_way(), cpu });
            if progress.elapsed >= memory_due && !trial.pids.is_empty() {
                memory_due = progress.elapsed + MEMORY_EVERY;
                memory_peak = memory_peak.max(proc::memory(&trial.pids));
            }
            if self.stop.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let after = proc::cpu(&trial.pids);
        self.stop.pause(Duration::ZERO)?;
        let report = report.map_err(Failed::because)?;
        let cpu =
            before.zip(after).filter(|_| !trial.pids.is_empty()).map(|(before, after)| after.saturating_sub(before));
        Ok(Measured { report, cpu, memory_peak, looks })
    }
}

/// Says in a few words that not everything was answered well, for the log of a comparison.
pub(super) fn complaint(report: &Report) -> Option<String> {
    let kinds: Vec<String> = report.errors.by_name().into_iter().map(|(kind, n)| format!("{kind}: {n}")).collect();
    let lost = report.failed + report.unfinished;
    (lost > 0).then(|| format!("{lost} of {} not answered well ({})", report.started, kinds.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(events: u64, under_way: u64, cpu_ms: u64) -> Look {
        Look { events, under_way, cpu: Some(Duration::from_millis(cpu_ms)) }
    }

    #[test]
    fn what_opening_and_ending_cost_is_not_the_events() {
        let looks =
            [look(0, 10, 0), look(100, 100, 900), look(1100, 100, 905), look(2100, 100, 910), look(2200, 50, 999)];
        assert_eq!(steady(&looks, 100), Some(5.0));
        assert_eq!(steady(&looks, 101), None);
        assert_eq!(steady(&looks[..2], 100), None, "one look is no span");
    }
}
