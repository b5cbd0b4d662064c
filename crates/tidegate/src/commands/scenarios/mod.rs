//! `tidegate bench scenarios`: each named scenario, as an SDK meets it alone and through Tidegate.
//!
//! ```text
//!   scenario ─▶ arrivals from a seed, the same for all ways
//!     sdk        clients, retrying as the official SDKs do ─▶ simulator
//!     tidegate   the same clients ─▶ Tidegate ─▶ a simulator of its own
//!     recover    the same, with `tidegate-recover: continue` ─▶ Tidegate ─▶ its own
//!   load generator + what the simulators say was spent ─▶ one table, one chart
//! ```
//! Where a scenario lists organisations, twice their quota is offered, because that is what it is
//! about; elsewhere at most half of it, so that nothing but the scenario's faults is in the way. The
//! ways of a scenario are measured at the same time where its load is a small part of a core: they
//! share what the machine does meanwhile. A quota's worth is more, and is offered to one after another.
//! A client waits as long as the SDKs do.

mod output;

use super::page::{Facts, write};
use super::quota::leg::{self, Found, Site};
use super::quota::offer::{FILES_ASIDE, Offer};
use super::stage::{Folder, Stop, raise_files};
use super::{Failed, say, simulate};
use crate::cli::{BenchLeg, Scenarios};
use output::{Page, Row};
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tidegate_simulator::{NAMED, Scenario, Tier};
use tidegate_transport::Clock;

/// How many times the quota is offered where quota is what a scenario is about.
const TIMES: f64 = 2.0;
/// And elsewhere, at most.
const TIMES_ASIDE: f64 = 0.5;
/// Requests a second elsewhere, at most: some forty are then under way at once.
const RATE_PER_S_MAX: f64 = 10.0;
/// What a client waits: the timeout of the official SDKs.
const PATIENCE: Duration = Duration::from_secs(600);
/// The shortest and the longest time a scenario is measured.
const SPANS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));

/// A way to the API.
#[derive(Debug)]
struct Way {
    /// In JSON.
    key: &'static str,
    name: &'static str,
    about: &'static str,
    leg: BenchLeg,
    recover: bool,
}

static WAYS: [Way; 3] = [
    Way {
        key: "sdk",
        name: "SDK alone",
        about: "straight to the API, all keys in turn, two retries by the rules of the official SDKs",
        leg: BenchLeg::Sdk,
        recover: false,
    },
    Way {
        key: "tidegate",
        name: "through Tidegate",
        about: "the same clients, their base URL changed; Tidegate is at its defaults and has the keys",
        leg: BenchLeg::Tidegate,
        recover: false,
    },
    Way {
        key: "recover",
        name: "with recover",
        about: "the same, with the header `tidegate-recover: continue`",
        leg: BenchLeg::Tidegate,
        recover: true,
    },
];

/// A scenario and what is asked of it.
struct Case {
    name: String,
    about: String,
    offer: Offer,
}

impl Case {
    fn of(name: &str, span: Duration, seed: u64) -> Result<Self, Failed> {
        let scenario = simulate::scenario(name)?;
        let offer = load(&scenario, span, seed).map_err(|failed| Failed(format!("{name}: {failed}")))?;
        let stem = Path::new(name).file_stem().map_or_else(|| name.into(), |stem| stem.to_string_lossy());
        Ok(Case { name: stem.into_owned(), about: scenario.about, offer })
    }
}

fn load(scenario: &Scenario, span: Duration, seed: u64) -> Result<Offer, Failed> {
    let about_quota = !scenario.organisations.is_empty();
    let times = if about_quota { TIMES } else { TIMES_ASIDE };
    // One without limits is asked what one with a large customer's is.
    let tier = if scenario.tier == Tier::Unlimited { Tier::Scale } else { scenario.tier };
    let mut offer = Offer::new(&Scenario { tier, ..scenario.clone() }, times, span, PATIENCE, seed)?;
    if !about_quota {
        offer.rate_per_s = offer.rate_per_s.min(RATE_PER_S_MAX);
    }
    Ok(offer)
}

/// What each way may be told of this process's files. A way takes one here for a request and two in its
/// gateway, which is a process with as many of its own; the ways of a scenario share those here.
fn share(files: u64) -> u64 {
    FILES_ASIDE + files.saturating_sub(FILES_ASIDE) * 2 / WAYS.len() as u64
}

/// All ways, each with a simulator of its own.
fn measure(case: &Case, flag: &str, stop: &Stop, files: u64) -> Result<Vec<Found>, Failed> {
    let exe = std::env::current_exe().map_err(|e| Failed(format!("this binary cannot find itself: {e}")))?;
    let at_once = case.offer.rate_per_s <= RATE_PER_S_MAX;
    let one = |way: &Way| {
        let mut offer = case.offer.clone();
        if way.recover {
            offer.headers.push(("tidegate-recover".to_owned(), "continue".to_owned()));
        }
        let site = Site {
            stop: stop.clone(),
            folder: Folder::new()?,
            exe: exe.clone(),
            exe_of_gateway: exe.clone(),
            scenario: flag.to_owned(),
            files: if at_once { share(files) } else { files },
            offer,
            shown: false,
        };
        leg::run(&site, way.leg).map_err(|failed| Failed(format!("{}, {}: {failed}", case.name, way.name)))
    };
    if !at_once {
        return WAYS.iter().map(one).collect();
    }
    std::thread::scope(|scope| {
        let started: Vec<_> = WAYS.iter().map(|way| scope.spawn(|| one(way))).collect();
        let ended = started.into_iter().map(|way| way.join());
        ended.map(|found| found.unwrap_or_else(|_| Err(Failed("a thread of the bench broke".to_owned())))).collect()
    })
}

/// Tells how far it is, on standard error.
fn tell(line: &str) {
    // If nobody reads it, the run goes on all the same.
    let _ = writeln!(std::io::stderr(), "{line}");
}

pub(super) fn run(flags: &Scenarios) -> Result<(), Failed> {
    let span = flags.duration.0;
    if span < SPANS.0 || span > SPANS.1 {
        return Err(Failed(format!("--duration: from {} s to {} s", SPANS.0.as_secs(), SPANS.1.as_secs())));
    }
    let all: Vec<String> = NAMED.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = if flags.only.is_empty() { &all } else { &flags.only };
    // What cannot be measured is told before anything is.
    let cases = names.iter().map(|name| Case::of(name, span, flags.seed)).collect::<Result<Vec<_>, _>>()?;
    let facts = Facts::gather(Clock::real().wall());
    let (stop, files) = (Stop::on_signals()?, raise_files());
    let mut rows = Vec::new();
    for (case, flag) in cases.iter().zip(names) {
        tell(&format!("{}: {}", case.name, case.about));
        let found = measure(case, flag, &stop, files)?;
        rows.push(Row::of(&case.name, &case.about, &case.offer, &found));
    }
    let page = Page { facts, seed: flags.seed, span, rows: &rows };
    if flags.json {
        say(format_args!("{:#}", page.json()));
    } else {
        say(page.text().trim_end());
    }
    if let Some(file) = &flags.svg {
        write(file, &page.svg())?;
    }
    if let Some(file) = &flags.markdown {
        write(file, &page.markdown())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_scenario_can_be_measured() {
        for (name, _) in NAMED {
            let case = Case::of(name, Duration::from_secs(60), 1).unwrap();
            let (rate, quota) = (case.offer.rate_per_s, case.offer.quota_per_s);
            let about_quota = ["quota-429", "black-friday"].contains(name);
            assert!(if about_quota { rate == 2.0 * quota } else { rate <= 10.0 && rate <= quota / 2.0 }, "{name}");
            assert_eq!(case.offer.thinks, *name == "silent-thinker", "{name}");
        }
    }

    #[test]
    fn a_scenario_without_limits_is_measured_too() {
        let scenario = Scenario::parse("[quota]\ntier = \"unlimited\"\n").unwrap();
        assert_eq!(load(&scenario, Duration::from_secs(60), 1).unwrap().rate_per_s, RATE_PER_S_MAX);
    }

    #[test]
    fn what_is_not_there_is_told_by_its_name() {
        let why = Case::of("nothing.toml", Duration::from_secs(60), 1).err().unwrap();
        assert!(why.to_string().contains("nothing.toml"), "{why}");
    }
}
