//! One holder of limits in one model class: an organisation, or one of its workspaces.
//!
//! A pool has a bucket for each limiter that limits it (an organisation's all three or none, a
//! workspace's those it was given), the window of the ramp limit, and its *acts*: what the scenario
//! makes happen to it over time, in order. Before it is asked anything, time is played to the moment
//! of the question, so that a change takes effect when it was planned and not when it was noticed.

use super::bucket::{Balance, Bucket};
use super::limits::{Limiter, PartialLimits};
use super::ramp::Ramp;
use super::rules::{Change, Consumer};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::Moment;

/// Something that happens to a pool at a time.
#[derive(Clone, Debug)]
enum Act {
    Change { limits: PartialLimits, burst: Option<Duration> },
    ConsumerBegins { id: usize, percent: u64, every: Duration },
    ConsumerEnds { id: usize },
}

/// The buckets of one holder in one class.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    buckets: [Option<Bucket>; 3],
    pub(crate) ramp: Option<Ramp>,
    /// Latest first, so that the next one is taken off the end.
    acts: Vec<(Moment, Act)>,
    /// Requests refused, by label.
    pub(crate) refused: BTreeMap<&'static str, u64>,
}

impl Pool {
    /// A pool as it was at the beginning of the run.
    pub(crate) fn new(limits: PartialLimits, burst: Duration, ramp: Option<Ramp>) -> Self {
        let bucket = |limiter| limits.of(limiter).map(|limit| Bucket::new(limit, burst, Moment::ZERO));
        Pool { buckets: Limiter::ALL.map(bucket), ramp, acts: Vec::new(), refused: BTreeMap::new() }
    }

    /// The same with what will happen to it.
    pub(crate) fn with<'a>(
        mut self,
        limits: PartialLimits,
        changes: impl Iterator<Item = &'a Change>,
        consumers: impl Iterator<Item = (usize, &'a Consumer)>,
    ) -> Self {
        let at = |span: Duration| Moment::ZERO + span;
        for change in changes {
            let scaled = limits.map(|limit| (limit as f64 * change.factor).round() as u64);
            let act = Act::Change { limits: change.limits.or(scaled), burst: change.burst };
            self.acts.push((at(change.at), act));
        }
        for (id, consumer) in consumers {
            let act = Act::ConsumerBegins { id, percent: consumer.percent, every: consumer.every };
            self.acts.push((at(consumer.from), act));
            self.acts.extend(consumer.until.map(|until| (at(until), Act::ConsumerEnds { id })));
        }
        // What was written first happens first where two are due at once.
        self.acts.reverse();
        self.acts.sort_by_key(|(at, _)| Reverse(*at));
        self
    }

    /// Plays time to `now`.
    pub(crate) fn advance(&mut self, now: Moment) {
        while let Some((at, act)) = self.acts.pop_if(|(at, _)| *at <= now) {
            self.act(at, &act);
        }
    }

    fn act(&mut self, at: Moment, act: &Act) {
        for limiter in Limiter::ALL {
            let Some(bucket) = &mut self.buckets[limiter as usize] else { continue };
            match act {
                Act::Change { limits, burst } => {
                    let limit = limits.of(limiter).unwrap_or(bucket.limit());
                    bucket.change(limit, *burst, at);
                }
                Act::ConsumerBegins { id, percent, every } => bucket.drain(*id, *percent, *every, at),
                Act::ConsumerEnds { id } => bucket.undrain(*id, at),
            }
        }
    }

    /// The bucket of a limiter, if this holder has one.
    pub(crate) fn bucket(&mut self, limiter: Limiter) -> Option<&mut Bucket> {
        self.buckets[limiter as usize].as_mut()
    }

    /// Takes from a limiter's bucket, if there is one.
    pub(crate) fn take(&mut self, limiter: Limiter, tokens: u64, now: Moment) {
        if let Some(bucket) = self.bucket(limiter) {
            bucket.take(tokens, now);
        }
    }

    /// Gives back to a limiter's bucket, if there is one.
    pub(crate) fn give(&mut self, limiter: Limiter, tokens: u64, now: Moment) {
        if let Some(bucket) = self.bucket(limiter) {
            bucket.give(tokens, now);
        }
    }

    /// Opens new accounts and forgets refusals.
    pub(crate) fn reopen(&mut self, now: Moment) {
        self.advance(now);
        self.refused.clear();
        self.buckets.iter_mut().flatten().for_each(|bucket| bucket.reopen(now));
    }

    /// The accounts: limiter, limit, balance.
    pub(crate) fn balances(&mut self, now: Moment) -> Vec<(Limiter, u64, Balance)> {
        self.advance(now);
        let balance = |limiter: Limiter| {
            let bucket = self.buckets[limiter as usize].as_mut()?;
            Some((limiter, bucket.limit(), bucket.balance(now)))
        };
        Limiter::ALL.into_iter().filter_map(balance).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::Whom;
    use super::*;

    fn at(s: u64) -> Moment {
        Moment::from_nanos(s * 1_000_000_000)
    }

    const LIMITS: PartialLimits = PartialLimits { requests: Some(60), input_tokens: Some(6_000), output_tokens: None };
    const S: fn(u64) -> Duration = Duration::from_secs;

    fn change(at: u64, factor: f64, limits: PartialLimits) -> Change {
        Change { whom: Whom::default(), at: S(at), factor, limits, burst: None }
    }

    #[test]
    fn a_change_takes_effect_when_it_was_planned() {
        let none = PartialLimits::default();
        let changes = [change(20, 0.5, none), change(40, 1.0, PartialLimits { requests: Some(7), ..none })];
        let pool = Pool::new(LIMITS, S(60), None).with(LIMITS, changes.iter(), std::iter::empty());
        let limits = |s| pool.clone().balances(at(s)).iter().map(|(_, limit, _)| *limit).collect::<Vec<_>>();
        assert_eq!((limits(19), limits(20), limits(40)), (vec![60, 6_000], vec![30, 3_000], vec![7, 6_000]));
        let mut late = pool;
        let balance = late.balances(at(40))[0].2;
        assert_eq!(balance.refilled, 20 + 10, "twenty seconds at one a second, twenty at half of that");
    }

    #[test]
    fn a_consumer_takes_from_each_limit_from_its_beginning_to_its_end() {
        let whom = Whom::default();
        let consumer = Consumer { whom, from: S(10), until: Some(S(40)), percent: 30, every: S(1) };
        let mut pool = Pool::new(LIMITS, S(60), None).with(LIMITS, std::iter::empty(), [(0, &consumer)].into_iter());
        let foreign: Vec<i64> = pool.balances(at(100)).iter().map(|(_, _, balance)| balance.foreign).collect();
        assert_eq!(foreign, [9, 900], "three tenths of what half a minute brings, the last second included");
    }
}
