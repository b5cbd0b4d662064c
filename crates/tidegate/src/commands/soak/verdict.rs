//! What a soak is judged by: no growth while it ran, nothing held when it was over, and no answer
//! that was spoilt on its way.
//!
//! Growth is the median of the last fifth of the run against that of the second fifth. By then
//! everybody has come and pools are warm, which takes minutes: in a short run growth is told and not
//! judged.

use super::sample::Sample;
use crate::commands::page::{median, number};
use std::time::Duration;
use tidegate_bench::{Crowd, CrowdCount, Manner, Mode};

/// Runs from this on are judged by growth.
pub(super) const GROWTH_SPAN_MIN: Duration = Duration::from_secs(5 * 60);
/// Growth that is none: this share of what there was, or so many bytes, whichever is more.
const GROWTH_SHARE: f64 = 0.05;
const GROWTH_BYTES: f64 = 4e6;

/// One question and its answer.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::commands) struct Check {
    pub(in crate::commands) what: &'static str,
    pub(in crate::commands) found: String,
    /// `None`: it is told and not judged.
    pub(in crate::commands) good: Option<bool>,
}

/// Bytes as people read them.
pub(super) fn megabytes(bytes: f64) -> String {
    number(bytes / 1e6, 1)
}

/// The median of a fifth of the run, the first being 0.
fn fifth(samples: &[Sample], n: u32, span: Duration, of: impl Fn(&Sample) -> f64) -> Option<f64> {
    let (from, to) = (span * n / 5, span * (n + 1) / 5);
    let values: Vec<f64> = samples.iter().filter(|s| s.at >= from && s.at <= to).map(of).collect();
    median(&values)
}

/// Growth of memory and threads.
pub(super) fn growth(samples: &[Sample], span: Duration) -> Vec<Check> {
    let judged = span >= GROWTH_SPAN_MIN;
    let of = |n, of: fn(&Sample) -> f64| fifth(samples, n, span, of);
    let mut checks = Vec::new();
    if let (Some(early), Some(late)) = (of(1, |s| s.memory), of(4, |s| s.memory)) {
        let allowed = (early * GROWTH_SHARE).max(GROWTH_BYTES);
        checks.push(Check {
            what: "memory does not grow",
            found: format!(
                "median of the second fifth {} MB, of the last {} MB; {} MB more would be growth",
                megabytes(early),
                megabytes(late),
                megabytes(allowed)
            ),
            good: judged.then_some(late <= early + allowed),
        });
    }
    if let (Some(early), Some(late)) = (of(1, |s| s.threads as f64), of(4, |s| s.threads as f64)) {
        checks.push(Check {
            what: "threads do not grow",
            found: format!("{} in the second fifth, {} in the last", number(early, 0), number(late, 0)),
            good: judged.then_some(late <= early),
        });
    }
    checks
}

/// What is held at rest, against before the load.
pub(in crate::commands) fn at_rest(before: &Sample, rest: &Sample) -> Vec<Check> {
    let held = rest.held.to_be_zero().into_iter().filter(|(_, n)| *n != 0.0);
    let held: Vec<String> = held.map(|(name, n)| format!("{} {name}", number(n, 0))).collect();
    let nothing = held.is_empty();
    let kept = rest.held.kept;
    vec![
        Check {
            what: "nothing is held at rest",
            found: if nothing { "streams, leases, budgets, clients: 0".to_owned() } else { held.join(", ") },
            good: Some(nothing),
        },
        Check {
            what: "open files are those from before",
            found: format!(
                "{} before, {} at rest, of those {} kept upstream connections",
                before.files,
                rest.files,
                number(kept, 0)
            ),
            good: Some(rest.files as f64 <= before.files as f64 + kept),
        },
    ]
}

/// How the clients were answered. A crowd nobody of which got anything was no load; a stream that
/// was read to its end has an end, an error told in it included.
pub(super) fn answers(crowds: &[(Crowd, CrowdCount)]) -> Vec<Check> {
    let idle: Vec<&str> = crowds
        .iter()
        .filter(|(_, c)| c.whole + c.left + c.knocks + c.events == 0)
        .map(|(crowd, _)| crowd.name)
        .collect();
    let malformed: u64 = crowds.iter().map(|(_, c)| c.errors.malformed).sum();
    let readers = crowds.iter().filter(|(crowd, _)| crowd.manner == Manner::Read && crowd.plan.mode == Mode::Sse);
    let cut: u64 = readers.map(|(_, c)| c.errors.truncated).sum();
    vec![
        Check {
            what: "every crowd was served",
            found: if idle.is_empty() { "all".to_owned() } else { format!("not {}", idle.join(", ")) },
            good: Some(idle.is_empty()),
        },
        Check {
            what: "no answer was spoilt",
            found: format!("{malformed} malformed answers, {cut} streams of readers without an end"),
            good: Some(malformed + cut == 0),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::super::sample::Held;
    use super::*;
    use tidegate_bench::Plan;

    const SPAN: Duration = Duration::from_secs(1_000);

    /// A run whose memory in MB is a function of the second.
    fn run(megabytes: impl Fn(f64) -> f64) -> Vec<Sample> {
        let sample = |s: u64| Sample {
            at: Duration::from_secs(s),
            memory: megabytes(s as f64) * 1e6,
            threads: 4,
            ..Sample::default()
        };
        (0..=1_000).step_by(10).map(sample).collect()
    }

    fn grows(megabytes: impl Fn(f64) -> f64) -> Option<bool> {
        growth(&run(megabytes), SPAN)[0].good.map(|good| !good)
    }

    #[test]
    fn growth_is_what_goes_on_after_everybody_has_come() {
        assert_eq!(grows(|s| if s < 150.0 { s } else { 150.0 }), Some(false), "coming is no growth");
        assert_eq!(grows(|_| 40.0), Some(false));
        assert_eq!(grows(|s| 40.0 + s * 0.004), Some(false), "2.4 MB are less than 4");
        assert_eq!(grows(|s| 40.0 + s * 0.01), Some(true), "6 MB are more");
        assert_eq!(grows(|s| 400.0 + s * 0.01), Some(false), "but not a twentieth of 400");
        assert_eq!(grows(|s| 400.0 + s * 0.05), Some(true));
        assert_eq!(grows(|s| if (900.0..920.0).contains(&s) { 90.0 } else { 40.0 }), Some(false), "a peak is none");
        let short = growth(&run(|s| 40.0 + s), Duration::from_secs(60));
        assert!(short.iter().all(|check| check.good.is_none()) && short.len() == 2, "{short:?}");
    }

    #[test]
    fn more_threads_are_growth() {
        let mut samples = run(|_| 40.0);
        samples.iter_mut().filter(|s| s.at > SPAN / 2).for_each(|s| s.threads += 1);
        assert_eq!(growth(&samples, SPAN)[1].good, Some(false));
    }

    #[test]
    fn at_rest_nothing_is_held_and_files_are_those_from_before() {
        let before = Sample { files: 20, ..Sample::default() };
        let good = |rest: &Sample| at_rest(&before, rest).iter().map(|c| c.good).collect::<Vec<_>>();
        assert_eq!(good(&before), [Some(true); 2]);
        assert_eq!(good(&Sample { files: 21, ..before }), [Some(true), Some(false)]);
        let kept = Held { kept: 3.0, ..Held::default() };
        assert_eq!(good(&Sample { files: 23, held: kept, ..before }), [Some(true); 2]);
        let leased = Sample { held: Held { leases: 1.0, ..Held::default() }, ..before };
        let checks = at_rest(&before, &leased);
        assert!(checks[0].good == Some(false) && checks[0].found == "1 leases", "{checks:?}");
    }

    #[test]
    fn a_spoilt_answer_or_a_crowd_that_got_nothing_is_a_failure() {
        let crowd = Crowd::new("readers", Plan::new("http://a"));
        let good = |change: fn(&mut CrowdCount)| {
            let mut count = CrowdCount { whole: 5, ..CrowdCount::default() };
            change(&mut count);
            answers(&[(crowd.clone(), count)]).iter().map(|c| c.good).collect::<Vec<_>>()
        };
        assert_eq!(good(|_| {}), [Some(true), Some(true)]);
        assert_eq!(good(|c| c.whole = 0), [Some(false), Some(true)]);
        assert_eq!(good(|c| c.errors.malformed = 1), [Some(true), Some(false)]);
        assert_eq!(good(|c| c.errors.truncated = 1), [Some(true), Some(false)]);
        assert_eq!(good(|c| c.errors.timeout = 1), [Some(true), Some(true)], "faults are what they ask for");
        let slow = Crowd { manner: Manner::Dawdle((Duration::ZERO, Duration::ZERO)), ..crowd.clone() };
        let mut cut = CrowdCount { whole: 1, ..CrowdCount::default() };
        cut.errors.truncated = 1;
        assert_eq!(answers(&[(slow, cut)])[1].good, Some(true), "who reads too slowly is cut");
    }
}
