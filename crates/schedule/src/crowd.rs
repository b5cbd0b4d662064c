//! How many requests at once an upstream takes before it lets them time out.
//!
//! An upstream that has too much at once does not say so. It keeps a part of what comes in a queue of
//! its own and lets that end in 504, or says nothing at all, long after it was sent; a plain loop over
//! many calls meets this first of all. How many there were beside each request when it went tells the
//! level from which they time out: the lowest of which, and above which, at least three of the last
//! ends, and a quarter of them, timed out. A few that time out here and there, whatever stands beside
//! them, have no such level and change nothing.
//!
//! ```text
//!   at once │              ∙ ∙ ∙ ∙                  ∙ ∙ ∙ ∙  four go beyond it
//!   ceiling │┈┈┈┈┈┈┈┈┈┈┈┈┈╱┈┈┈┈┈┈╲┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈╱┈┈┈┈┈
//!     0.9 × │────────────╱        ╲───────────────╱
//!           └── 30 s ──▶ ◀─ what becomes of them ─▶
//! ```
//! What times out is noticed late, after many others have gone the same way, so the ceiling is not
//! crept over: now and then a few go beyond it, and nothing more until it is known what became of them.
//! Were all of them answered it is raised by a quarter, and the next go; if one timed out it stays, and
//! the next wait longer. Whatever times out is asked for again.

use std::collections::VecDeque;
use std::time::Duration;
use tidegate_base::Moment;

/// The last ends that are looked at.
const ENDS_MAX: usize = 64;
/// An end says nothing any more after so long: models and their queues change.
const ENDS_AGE: Duration = Duration::from_secs(120);
/// Fewer are chance.
const TIMED_OUT_LEAST: usize = 3;
/// And of all ends at that level one in so many.
const TIMED_OUT_SHARE: usize = 4;
/// What is kept of the ceiling: as it is found, a few were lost there already.
const KEPT: f64 = 0.9;
/// So long it is kept to before some go beyond it, doubled each time in vain.
const HOLD: Duration = Duration::from_secs(30);
const HOLD_MAX: Duration = Duration::from_secs(300);
/// So many go beyond it at a time.
const PROBES: u32 = 4;
/// Those that neither began nor ended by then are not waited for: their clients may have left.
const PROBES_AGE: Duration = Duration::from_secs(120);
/// By how much it is raised.
const RAISED: f64 = 1.25;
/// One that has grown so far stops mattering.
const OPEN: u32 = 4_096;
/// Where it is reached by so few at once, the upstream fails, and is not crowded.
const CROWD_LEAST: u32 = 4;

#[derive(Clone, Copy, Debug)]
struct Ended {
    beside: u32,
    timed_out: bool,
    at: Moment,
}

/// The level from which requests time out, as was seen at `since`.
#[derive(Clone, Copy, Debug)]
struct Ceiling {
    level: u32,
    since: Moment,
    hold: Duration,
    /// Those that went beyond it: when the first did, how many did, were answered, timed out.
    probes: Option<(Moment, u32, u32, u32)>,
}

impl Ceiling {
    fn new(level: u32, since: Moment, hold: Duration) -> Self {
        Ceiling { level, since, hold, probes: None }
    }

    fn kept(&self) -> f64 {
        (f64::from(self.level) * KEPT).max(1.0)
    }

    /// What becomes of it when another of those that went beyond it has ended.
    fn judged(&self, now: Moment) -> Ceiling {
        match self.probes {
            Some((.., 1..)) => Ceiling::new(self.level, now, (self.hold * 2).clamp(HOLD, HOLD_MAX)),
            Some((_, _, answered, 0)) if answered >= PROBES => {
                let raised = (f64::from(self.level) * RAISED) as u32;
                Ceiling::new(raised.max(self.level + PROBES), now, Duration::ZERO)
            }
            _ => *self,
        }
    }
}

/// What is known of it, for one domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd {
    ends: VecDeque<Ended>,
    ceiling: Option<Ceiling>,
}

impl Crowd {
    /// How many may be under way at once; `None` where nothing is known to be too much.
    pub(crate) fn allows(&self, now: Moment) -> Option<f64> {
        let ceiling = self.ceiling?;
        let beyond = match ceiling.probes {
            None => now.since(ceiling.since) >= ceiling.hold,
            Some((began, went, ..)) => went < PROBES || now.since(began) >= PROBES_AGE,
        };
        // The first that goes beyond it has all of it beside it.
        Some(if beyond { f64::from(ceiling.level + PROBES) } else { ceiling.kept() })
    }

    /// One goes, with so many under way, itself among them.
    pub(crate) fn goes(&mut self, now: Moment, beside: u32) {
        let Some(ceiling) = self.ceiling.as_mut().filter(|ceiling| beside >= ceiling.level) else { return };
        if now.since(ceiling.since) < ceiling.hold {
            return;
        }
        match &mut ceiling.probes {
            Some((began, went, ..)) if now.since(*began) < PROBES_AGE => *went += 1,
            probes => *probes = Some((now, 1, 0, 0)),
        }
    }

    /// One that went at `went`, with so many under way, was answered.
    pub(crate) fn answered(&mut self, now: Moment, went: Moment, beside: u32) {
        self.ended(now, went, beside, false);
    }

    /// It timed out. Whether that comes of there being too many.
    pub(crate) fn timed_out(&mut self, now: Moment, went: Moment, beside: u32) -> bool {
        self.ended(now, went, beside, true);
        if let Some(level) = self.level() {
            self.ceiling = Some(Ceiling::new(level, now, HOLD));
            self.ends.clear();
        }
        self.ceiling.is_some_and(|ceiling| ceiling.level >= CROWD_LEAST && beside >= ceiling.level)
    }

    fn ended(&mut self, now: Moment, went: Moment, beside: u32, timed_out: bool) {
        if let Some(ceiling) = &mut self.ceiling {
            if let Some((began, _, answered, lost)) = &mut ceiling.probes
                && went >= *began
                && beside >= ceiling.level
            {
                if timed_out {
                    *lost += 1
                } else {
                    *answered += 1
                }
                self.ceiling = Some(ceiling.judged(now)).filter(|ceiling| ceiling.level < OPEN);
                return;
            }
            // What went before the ceiling was found was part of what it was found by.
            if went < ceiling.since {
                return;
            }
        }
        while self.ends.len() >= ENDS_MAX || self.ends.front().is_some_and(|end| now.since(end.at) > ENDS_AGE) {
            self.ends.pop_front();
        }
        self.ends.push_back(Ended { beside, timed_out, at: now });
    }

    /// The lowest level from which too many timed out.
    fn level(&self) -> Option<u32> {
        let timed_out = || self.ends.iter().filter(|end| end.timed_out);
        let is_too_much = |level: &u32| {
            let lost = timed_out().filter(|end| end.beside >= *level).count();
            let all = self.ends.iter().filter(|end| end.beside >= *level).count();
            lost >= TIMED_OUT_LEAST && lost * TIMED_OUT_SHARE >= all
        };
        timed_out().map(|end| end.beside).filter(is_too_much).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Moment {
        Moment::from_nanos(s * 1_000_000_000)
    }

    /// As many go at `s` as may, up to `many`, one after the other; those beyond `limit` time out 20 s
    /// later, the others are answered after 5 s. How many went.
    fn burst(crowd: &mut Crowd, s: u64, many: u32, limit: u32) -> u32 {
        let mut went = 0;
        while went < many && crowd.allows(at(s)).is_none_or(|most| f64::from(went) < most) {
            went += 1;
            crowd.goes(at(s), went);
        }
        (1..=went.min(limit)).for_each(|beside| crowd.answered(at(s + 5), at(s), beside));
        for beside in limit + 1..=went {
            crowd.timed_out(at(s + 20), at(s), beside);
        }
        went
    }

    #[test]
    fn the_level_from_which_requests_time_out_is_found_from_one_burst() {
        let mut crowd = Crowd::default();
        assert_eq!(burst(&mut crowd, 0, 100, 40), 100);
        assert_eq!(crowd.allows(at(20)), Some(41.0 * KEPT));
        assert_eq!(crowd.allows(at(49)), Some(41.0 * KEPT), "kept for half a minute");
    }

    #[test]
    fn now_and_then_a_few_go_beyond_it_and_less_often_if_in_vain() {
        let mut crowd = Crowd::default();
        burst(&mut crowd, 0, 100, 40);
        let tried: Vec<u64> = (20..1_000).filter(|s| burst(&mut crowd, *s, 100, 40) > 40).collect();
        let lost: u32 = tried.len() as u32 * PROBES;
        assert!(lost <= 24, "{tried:?}");
        assert_eq!(crowd.allows(at(1_000)), Some(41.0 * KEPT));
    }

    #[test]
    fn it_is_raised_while_what_goes_beyond_it_is_answered_until_it_stops_mattering() {
        let mut crowd = Crowd::default();
        burst(&mut crowd, 0, 100, 40);
        let mut s = 20;
        while s < 400 && crowd.allows(at(s)).is_some() {
            burst(&mut crowd, s, 10_000, 10_000);
            s += 5;
        }
        assert!((60..300).contains(&s), "{s}");
    }

    #[test]
    fn an_upstream_that_takes_less_than_before_is_given_less() {
        let mut crowd = Crowd::default();
        burst(&mut crowd, 0, 100, 40);
        burst(&mut crowd, 21, 100, 15);
        assert_eq!(crowd.allows(at(45)), Some(16.0 * KEPT));
    }

    #[test]
    fn few_that_time_out_whatever_stands_beside_them_change_nothing() {
        let (mut crowd, mut prng) = (Crowd::default(), tidegate_base::Prng::new(7));
        for n in 0..20_000u64 {
            let beside = prng.between(1, 200) as u32;
            if prng.chance(0.02) {
                assert!(!crowd.timed_out(at(n / 10), at(n / 10), beside), "{n}");
            } else {
                crowd.answered(at(n / 10), at(n / 10), beside);
            }
            assert_eq!(crowd.allows(at(n / 10)), None, "{n}");
        }
    }

    #[test]
    fn an_upstream_that_answers_nobody_fails_and_is_not_crowded() {
        let mut crowd = Crowd::default();
        assert!((0..10).all(|n| !crowd.timed_out(at(n), at(n), 1)));
        assert_eq!(crowd.allows(at(9)), Some(1.0));
    }
}
