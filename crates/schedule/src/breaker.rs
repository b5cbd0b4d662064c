//! When a domain is left alone because it fails.
//!
//! Five failures in a row, or more than half of at least twenty within ten seconds, open it for 5 s,
//! doubled each time up to a minute; then one request goes as a probe, and its end closes the
//! breaker or opens it again (scheduling page, A2.8). A 429 is no failure.

use std::time::Duration;
use tidegate_base::Moment;

const IN_A_ROW: u32 = 5;
const WINDOW: Duration = Duration::from_secs(10);
const WINDOW_LEAST: u32 = 20;
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);

/// A breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Closed,
    /// Until then.
    Open(Moment),
    /// One probe may go, or is under way.
    HalfOpen {
        probing: bool,
    },
}

/// One domain's breaker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Breaker {
    state: State,
    in_a_row: u32,
    window_began: Moment,
    failures: u32,
    ends: u32,
    opened: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker { state: State::Closed, in_a_row: 0, window_began: Moment::ZERO, failures: 0, ends: 0, opened: 0 }
    }
}

impl Breaker {
    /// Its state at `now`.
    pub(crate) fn state(&self, now: Moment) -> State {
        match self.state {
            State::Open(until) if until <= now => State::HalfOpen { probing: false },
            state => state,
        }
    }

    /// How long nothing may go; zero if something may now.
    pub(crate) fn wait(&self, now: Moment) -> Duration {
        match self.state(now) {
            State::Open(until) => now.until(until),
            State::HalfOpen { probing: true } => FIRST,
            State::Closed | State::HalfOpen { probing: false } => Duration::ZERO,
        }
    }

    /// A request goes.
    pub(crate) fn goes(&mut self, now: Moment) {
        if self.state(now) == (State::HalfOpen { probing: false }) {
            self.state = State::HalfOpen { probing: true };
        }
    }

    fn count(&mut self, now: Moment, failed: bool) {
        if now.since(self.window_began) > WINDOW {
            (self.window_began, self.failures, self.ends) = (now, 0, 0);
        }
        self.ends += 1;
        self.failures += u32::from(failed);
        self.in_a_row = if failed { self.in_a_row + 1 } else { 0 };
    }

    /// A request ended well.
    pub(crate) fn succeeded(&mut self, now: Moment) {
        self.count(now, false);
        if matches!(self.state(now), State::HalfOpen { .. }) {
            *self = Breaker::default();
        }
    }

    /// A request ended without saying anything of the upstream's health.
    pub(crate) fn undecided(&mut self, now: Moment) {
        if self.state(now) == (State::HalfOpen { probing: true }) {
            self.state = State::HalfOpen { probing: false };
        }
    }

    /// A request failed; says whether the breaker opened, which it does only if it `may`.
    pub(crate) fn failed(&mut self, now: Moment, may: bool) -> bool {
        self.count(now, true);
        let probe_failed = matches!(self.state(now), State::HalfOpen { .. });
        let many = self.ends >= WINDOW_LEAST && self.failures * 2 > self.ends;
        if !(probe_failed || may && self.state == State::Closed && (self.in_a_row >= IN_A_ROW || many)) {
            return false;
        }
        let span = (FIRST * 2u32.pow(self.opened.min(8))).min(LONGEST);
        self.opened += 1;
        self.state = State::Open(now + span);
        (self.in_a_row, self.failures, self.ends) = (0, 0, 0);
        true
    }

    /// Whether it keeps requests away at `now`.
    pub(crate) fn is_open(&self, now: Moment) -> bool {
        !matches!(self.state(now), State::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Moment {
        Moment::from_nanos(s * 1_000_000_000)
    }

    #[test]
    fn five_in_a_row_open_it_a_probe_closes_it_or_doubles_the_time() {
        let mut b = Breaker::default();
        assert!((0..4).all(|_| !b.failed(at(1), true)));
        assert!(b.failed(at(1), true));
        assert_eq!((b.wait(at(1)), b.wait(at(5)), b.wait(at(6))), (FIRST, Duration::from_secs(1), Duration::ZERO));
        b.goes(at(6));
        assert!(!b.wait(at(6)).is_zero(), "one probe at a time");
        assert!(b.failed(at(7), true));
        assert_eq!(b.wait(at(7)), FIRST * 2);
        b.goes(at(17));
        b.undecided(at(18));
        b.goes(at(18));
        b.succeeded(at(19));
        assert_eq!(b.state(at(19)), State::Closed);
        assert!((0..4).all(|_| !b.failed(at(20), true)), "and it begins anew");
    }

    #[test]
    fn most_of_many_open_it_but_not_where_it_may_not() {
        let mut b = Breaker::default();
        let opened = (0..40).any(|n| {
            if n % 3 == 0 {
                b.succeeded(at(1));
                false
            } else {
                b.failed(at(1), true)
            }
        });
        assert!(opened);
        let mut only = Breaker::default();
        assert!((0..100).all(|_| !only.failed(at(1), false)));
        assert_eq!(only.wait(at(1)), Duration::ZERO);
    }
}
