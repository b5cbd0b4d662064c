//! A point in time as the rooms see it: nanoseconds since the process (or the simulation) began.
//!
//! Thinkers never read a clock; they are told `now`. Because a [`Moment`] is a plain number, the
//! same code runs under real time, under a paused clock and inside a property test. Arithmetic
//! saturates: a moment never wraps and a span between moments is never negative.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds since the clock's own beginning; monotonic, meaningless outside this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The clock's beginning.
    pub const ZERO: Moment = Moment(0);
    /// Later than every moment that will be reached.
    pub const NEVER: Moment = Moment(u64::MAX);

    /// The moment `nanos` nanoseconds after the clock's beginning.
    pub const fn from_nanos(nanos: u64) -> Self {
        Moment(nanos)
    }

    /// Nanoseconds since the clock's beginning.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The span from `earlier` to here; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The span from here to `later`; zero if it has passed.
    pub fn until(self, later: Moment) -> Duration {
        later.since(self)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, span: Duration) -> Moment {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Moment(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;
    fn sub(self, span: Duration) -> Moment {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Moment(self.0.saturating_sub(nanos))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", self.0 as f64 / 1e9)
    }
}

/// When the answer is no longer wanted. Every call that can wait takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    at: Moment,
    by_client: bool,
}

impl Deadline {
    /// A deadline the client asked for: it ends even a stream that still progresses.
    pub fn of_client(at: Moment) -> Self {
        Deadline { at, by_client: true }
    }

    /// Our own default: it ends waiting, but never a stream that still progresses.
    pub fn by_default(at: Moment) -> Self {
        Deadline { at, by_client: false }
    }

    /// The moment itself.
    pub fn at(self) -> Moment {
        self.at
    }

    /// Whether the client set it (see [`Deadline::of_client`]).
    pub fn is_clients(self) -> bool {
        self.by_client
    }

    /// What is left of it at `now`.
    pub fn left(self, now: Moment) -> Duration {
        now.until(self.at)
    }

    /// Whether it has passed at `now`.
    pub fn passed(self, now: Moment) -> bool {
        now >= self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_between_moments_are_never_negative_and_never_wrap() {
        let a = Moment::from_nanos(5);
        let b = Moment::from_nanos(9);
        assert_eq!(b.since(a), Duration::from_nanos(4));
        assert_eq!(a.since(b), Duration::ZERO);
        assert_eq!(Moment::NEVER + Duration::from_secs(1), Moment::NEVER);
        assert_eq!(Moment::ZERO - Duration::from_secs(1), Moment::ZERO);
    }

    #[test]
    fn a_deadline_passes_exactly_at_its_moment() {
        let at = Moment::from_nanos(10);
        let d = Deadline::of_client(at);
        assert!(!d.passed(Moment::from_nanos(9)));
        assert!(d.passed(at));
        assert_eq!(d.left(Moment::from_nanos(4)), Duration::from_nanos(6));
    }
}
