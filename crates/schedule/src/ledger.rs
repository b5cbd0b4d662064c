//! What we used, over time: the running total of one limiter's consumption, in slots of 50 ms.
//!
//! An answer's head tells a level at an instant we do not know; what we used between that instant
//! and now has to be taken off. The ledger answers "how much up to t", for as far back as an answer
//! can be late.

use std::collections::VecDeque;
use std::time::Duration;
use tidegate_base::Moment;

/// Width of a slot.
const SLOT: Duration = Duration::from_millis(50);
/// How far back it remembers: no answer's first byte is later than the longest first-byte clock
/// (120 s) and a probe; a head that took longer is judged as if it had been sent then.
pub(crate) const MEMORY: Duration = Duration::from_secs(150);
/// Slots that can hold something within that time.
const SLOTS_MAX: usize = 3_001;

/// Totals by slot, only of slots in which something changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// Slot number, total at its end. Ascending.
    slots: VecDeque<(u64, f64)>,
    /// Total before the first slot kept.
    before: f64,
    total: f64,
}

fn slot(at: Moment) -> u64 {
    at.as_nanos() / SLOT.as_nanos() as u64
}

impl Ledger {
    /// `amount` more was used; a negative one gives back.
    pub(crate) fn add(&mut self, now: Moment, amount: f64) {
        self.total += amount;
        let this = slot(now);
        match self.slots.back_mut() {
            Some((last, total)) if *last >= this => *total = self.total,
            _ => self.slots.push_back((this, self.total)),
        }
        let oldest = slot(now - MEMORY);
        while self.slots.len() > SLOTS_MAX || self.slots.front().is_some_and(|(n, _)| *n < oldest) {
            match self.slots.pop_front() {
                Some((_, total)) => self.before = total,
                None => break,
            }
        }
    }

    /// `amount` more was used at `then` than was noted; less if negative.
    pub(crate) fn amend(&mut self, then: Moment, amount: f64) {
        self.total += amount;
        let this = slot(then);
        let from = self.slots.partition_point(|(n, _)| *n < this);
        if from == 0 && self.slots.front().is_none_or(|(n, _)| *n > this) {
            self.before += amount;
        }
        self.slots.iter_mut().skip(from).for_each(|(_, total)| *total += amount);
    }

    /// Everything so far.
    pub(crate) fn total(&self) -> f64 {
        self.total
    }

    /// The total at `at`, or at most a slot earlier: what was used in the slot of `at` itself may
    /// have come after it, and is left out.
    pub(crate) fn by(&self, at: Moment) -> f64 {
        let this = slot(at);
        let after = self.slots.partition_point(|(n, _)| *n < this);
        match after.checked_sub(1).and_then(|n| self.slots.get(n)) {
            Some((_, total)) => *total,
            None => self.before,
        }
    }

    /// The same with the slot of `at` counted in.
    pub(crate) fn with(&self, at: Moment) -> f64 {
        self.by(at + SLOT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn totals_are_those_of_the_slot_before_and_the_slot_itself() {
        let mut l = Ledger::default();
        l.add(at(10), 3.0);
        l.add(at(40), 2.0);
        l.add(at(120), 10.0);
        assert_eq!((l.by(at(0)), l.with(at(0))), (0.0, 5.0));
        assert_eq!((l.by(at(60)), l.with(at(60))), (5.0, 5.0));
        assert_eq!((l.by(at(130)), l.with(at(130)), l.total()), (5.0, 15.0, 15.0));
        l.add(at(130), -10.0);
        assert_eq!(l.with(at(130)), 5.0);
    }

    #[test]
    fn what_becomes_known_later_is_noted_where_it_was() {
        let mut l = Ledger::default();
        l.add(at(0), 10.0);
        l.add(at(500), 5.0);
        l.amend(at(10), -4.0);
        assert_eq!((l.by(at(0)), l.with(at(0)), l.by(at(500)), l.total()), (0.0, 6.0, 6.0, 11.0));
        l.add(at(200_000), 1.0);
        l.amend(at(100), 2.0);
        assert_eq!((l.by(at(199_000)), l.total()), (13.0, 14.0), "older than it remembers");
    }

    #[test]
    fn it_forgets_what_is_too_old_and_keeps_its_sum() {
        let mut l = Ledger::default();
        for n in 0..10_000 {
            l.add(at(n * 50), 1.0);
        }
        assert!(l.slots.len() <= SLOTS_MAX);
        assert_eq!(l.total(), 10_000.0);
        assert_eq!(l.by(at(499_950)), 9_999.0);
        assert_eq!(l.by(at(0)), l.before, "older than it remembers: as far back as it can tell");
    }
}
