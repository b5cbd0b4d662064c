//! `tidegate bench --scenario NAME`: more than the quota of a scenario, offered three ways, and what
//! the clients get of it.
//!
//! ```text
//!   scenario ─▶ quota (requests/s that fit) ─▶ Poisson arrivals at so many times that, from a seed
//!     direct     clients ───────────────▶ simulator       each leg: a fresh simulator, the same
//!     sdk        clients, retrying ─────▶ simulator       requests at the same moments
//!     tidegate   clients, retrying ─▶ Tidegate ─▶ simulator
//!   load generator + ground truth + /metrics ─▶ one table
//! ```
//! The load is open: a request starts when it is due, whatever became of those before it, up to a
//! number under way. Clients say their band (`tidegate-priority`) and, like the official SDKs, no
//! deadline; their patience is a clock of their own that ends a request with all its retries.
//!
//! Simulator and Tidegate are processes of their own on loopback and end with this one.

pub(super) mod leg;
mod metrics;
pub(super) mod offer;
mod output;
pub(super) mod truth;

use super::page::{Facts, write};
use super::stage::{Folder, Stop, raise_files};
use super::{Failed, say};
use crate::cli::{Bench, BenchLeg};
use leg::Site;
use offer::Offer;
use output::Page;
use std::io::Write;
use std::time::Duration;
use tidegate_transport::Clock;

/// How many times the quota is offered, if neither the flag nor the scenario says.
const TIMES: f64 = 2.0;
/// How long.
const SPAN: Duration = Duration::from_secs(60);
/// The shortest and the longest: an answer takes some seconds, and nothing new is learnt in an hour.
const SPANS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
/// What a client waits, if nothing else is said: at twice the quota, all of a minute's requests can
/// be answered in two.
const PATIENCE: Duration = Duration::from_secs(120);
/// The least a client waits, and the most.
const PATIENCES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));

/// Tells how far it is, on standard error.
fn tell(line: &str) {
    // If nobody reads it, the run goes on all the same.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn within(flag: &str, span: Duration, (least, most): (Duration, Duration)) -> Result<Duration, Failed> {
    if span < least || span > most {
        let (least, most) = (least.as_secs(), most.as_secs());
        return Err(Failed(format!("{flag}: with --scenario from {least} s to {most} s")));
    }
    Ok(span)
}

fn legs(chosen: &[BenchLeg]) -> Result<Vec<BenchLeg>, Failed> {
    if chosen.is_empty() {
        return Ok(BenchLeg::ALL.to_vec());
    }
    let twice = BenchLeg::ALL.into_iter().find(|leg| chosen.iter().filter(|one| *one == leg).count() > 1);
    match twice {
        Some(leg) => Err(Failed(format!("--legs: `{}` is named twice", leg.name()))),
        None => Ok(chosen.to_vec()),
    }
}

pub(super) fn run(flags: &Bench, name: &str) -> Result<(), Failed> {
    let scenario = super::simulate::scenario(name)?;
    let span = within("--duration", flags.duration.map_or(SPAN, |span| span.0), SPANS)?;
    let patience = within("--timeout", flags.timeout.map_or(PATIENCE, |span| span.0), PATIENCES)?;
    let legs = legs(&flags.legs)?;
    let offer = Offer::new(&scenario, flags.times.or(scenario.times).unwrap_or(TIMES), span, patience, flags.seed)?;
    let exe = std::env::current_exe().map_err(|e| Failed(format!("this binary cannot find itself: {e}")))?;
    let folder = Folder::new()?;
    let exe_of_gateway = folder.path().join("tidegate");
    std::fs::copy(&exe, &exe_of_gateway).map_err(|e| Failed(format!("cannot copy this binary: {e}")))?;
    let facts = Facts::gather(Clock::real().wall());
    let stop = Stop::on_signals()?;
    let site =
        Site { stop, folder, exe, exe_of_gateway, scenario: name.to_owned(), files: raise_files(), offer, shown: true };
    let mut found = Vec::new();
    for leg in legs {
        tell(&format!("{}: {}", leg.name(), leg.about()));
        found.push(leg::run(&site, leg).map_err(|failed| Failed(format!("{}: {failed}", leg.name())))?);
    }
    let page = Page { facts, scenario: name, about: &scenario.about, offer: &site.offer, legs: &found };
    if flags.json {
        say(format_args!("{:#}", page.json()));
    } else {
        say(page.text().trim_end());
    }
    if let Some(file) = &flags.markdown {
        write(file, &page.markdown())?;
    }
    match found.iter().find(|found| found.report.ok == 0) {
        Some(found) => Err(Failed(format!("{}: not one request was answered well", found.leg.name()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_legs_run_unless_some_are_named_once() {
        assert_eq!(legs(&[]).unwrap(), BenchLeg::ALL);
        assert_eq!(legs(&[BenchLeg::Tidegate]).unwrap(), [BenchLeg::Tidegate]);
        let twice = legs(&[BenchLeg::Sdk, BenchLeg::Direct, BenchLeg::Sdk]).unwrap_err();
        assert!(twice.to_string().contains("`sdk`"), "{twice}");
    }
}
