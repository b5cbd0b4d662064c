//! A token bucket that refills continuously and forgets nothing.
//!
//! The level is kept in units of a sixty-billionth of a token, so that `elapsed nanoseconds x limit
//! per minute` is exact: no rounding, no drift, and the order in which a bucket is asked does not
//! change what it holds. A bucket may fall below zero (output is charged when it is already
//! produced); it is then in debt and refills from there.

use std::time::Duration;
use tidegate_base::Moment;

/// Units of level per token: nanoseconds in a minute.
const TOKEN: i128 = 60_000_000_000;

/// One limit: so much per minute, and at most `capacity` saved up.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    per_minute: u64,
    capacity: i128,
    level: i128,
    at: Moment,
}

impl Bucket {
    /// A full bucket. `burst` is how much refill can be saved up; a minute makes the capacity the
    /// limit itself. It always holds one token, or nothing could pass.
    pub(crate) fn new(per_minute: u64, burst: Duration, now: Moment) -> Self {
        let burst_ns = burst.as_nanos().min(u128::from(u64::MAX)) as i128;
        let capacity = (i128::from(per_minute) * burst_ns).max(TOKEN);
        Bucket { per_minute, capacity, level: capacity, at: now }
    }

    /// The limit, per minute.
    pub(crate) fn limit(&self) -> u64 {
        self.per_minute
    }

    fn refill(&mut self, now: Moment) {
        let elapsed = now.since(self.at).as_nanos() as i128;
        self.level = (self.level + elapsed * i128::from(self.per_minute)).min(self.capacity);
        self.at = self.at.max(now);
    }

    /// Whole tokens that can be taken now; zero while in debt.
    pub(crate) fn left(&mut self, now: Moment) -> u64 {
        self.refill(now);
        u64::try_from(self.level / TOKEN).unwrap_or(0)
    }

    /// Takes `tokens`, into debt if need be.
    pub(crate) fn take(&mut self, tokens: u64, now: Moment) {
        self.refill(now);
        self.level -= i128::from(tokens) * TOKEN;
    }

    /// How long until `tokens` are there; `None` if that never happens.
    pub(crate) fn until(&mut self, tokens: u64, now: Moment) -> Option<Duration> {
        self.refill(now);
        let wanted = i128::from(tokens) * TOKEN;
        if wanted > self.capacity || (self.per_minute == 0 && wanted > self.level) {
            return None;
        }
        Some(self.time_for(wanted - self.level))
    }

    /// How long until the bucket is full.
    pub(crate) fn until_full(&mut self, now: Moment) -> Duration {
        self.refill(now);
        self.time_for(self.capacity - self.level)
    }

    fn time_for(&self, missing: i128) -> Duration {
        if missing <= 0 {
            return Duration::ZERO;
        }
        let ns = (missing + i128::from(self.per_minute.max(1)) - 1) / i128::from(self.per_minute.max(1));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn it_starts_full_and_refills_evenly() {
        let mut bucket = Bucket::new(60, MINUTE, at(0));
        bucket.take(60, at(0));
        assert_eq!(bucket.left(at(0)), 0);
        assert_eq!(bucket.left(at(999)), 0);
        assert_eq!(bucket.left(at(1_000)), 1);
        assert_eq!(bucket.until(1, at(1_000)), Some(Duration::ZERO));
        assert_eq!(bucket.until(5, at(1_500)), Some(Duration::from_millis(3_500)));
        assert_eq!(bucket.until_full(at(30_000)), Duration::from_secs(30));
        assert_eq!(bucket.left(at(600_000)), 60, "never more than its capacity");
    }

    #[test]
    fn a_short_burst_saves_up_less_than_a_minute() {
        let mut bucket = Bucket::new(60, Duration::from_secs(1), at(0));
        assert_eq!(bucket.left(at(0)), 1);
        assert_eq!(bucket.until(2, at(0)), None);
    }

    #[test]
    fn debt_is_paid_back_before_anything_passes() {
        let mut bucket = Bucket::new(60, MINUTE, at(0));
        bucket.take(90, at(0));
        assert_eq!(bucket.left(at(0)), 0);
        assert_eq!(bucket.until(1, at(0)), Some(Duration::from_secs(31)));
    }

    proptest! {
        #[test]
        fn asking_in_between_changes_nothing(limit in 1u64..10_000, steps in proptest::collection::vec((0u64..5_000, 0u64..50), 1..40)) {
            let (mut often, mut seldom) = (Bucket::new(limit, MINUTE, at(0)), Bucket::new(limit, MINUTE, at(0)));
            let mut now = 0;
            for (ms, tokens) in steps {
                now += ms;
                often.left(at(now.saturating_sub(ms / 2)));
                often.take(tokens, at(now));
                seldom.take(tokens, at(now));
            }
            prop_assert_eq!(often.left(at(now)), seldom.left(at(now)));
        }

        #[test]
        fn what_until_promises_is_there_exactly_then(limit in 1u64..1_000_000, taken in 0u64..2_000_000, wanted in 1u64..1_000_000) {
            let mut bucket = Bucket::new(limit, MINUTE, at(0));
            bucket.take(taken, at(0));
            if let Some(wait) = bucket.until(wanted, at(0)) {
                let then = at(0) + wait;
                prop_assert!(bucket.clone().left(then) >= wanted);
                if !wait.is_zero() {
                    let before = then - Duration::from_nanos(1);
                    prop_assert!(bucket.clone().left(before) < wanted);
                }
            }
        }
    }
}
