//! What a tenant may use of us: exact buckets of our own, and a number of requests at once.
//!
//! Nothing is guessed here, since nobody else uses them: a bucket holds a minute's worth and refills
//! continuously. Tokens are charged as estimated when a request goes, and corrected when it is
//! settled; a bucket in debt refills from there.

use crate::ask::{TenantLimit, TenantRules};
use crate::retry::RetryBudget;
use std::time::Duration;
use tidegate_base::Moment;

/// One of a tenant's limits as its answers show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantLevel {
    /// The most per minute.
    pub limit: u64,
    /// What is left now.
    pub remaining: u64,
    /// Until nothing is missing.
    pub full_in: Duration,
}

/// A tenant's limits as its answers show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantLevels {
    /// Requests.
    pub requests: Option<TenantLevel>,
    /// Input and output tokens.
    pub tokens: Option<TenantLevel>,
}

#[derive(Clone, Copy, Debug)]
struct Meter {
    limit: f64,
    level: f64,
    at: Moment,
}

impl Meter {
    fn new(limit: u64, now: Moment) -> Self {
        Meter { limit: limit as f64, level: limit as f64, at: now }
    }

    fn level_at(&self, now: Moment) -> f64 {
        (self.level + now.since(self.at).as_secs_f64() * self.limit / 60.0).min(self.limit)
    }

    fn take(&mut self, now: Moment, amount: f64) {
        self.level = (self.level_at(now) - amount).min(self.limit);
        self.at = self.at.max(now);
    }

    fn span(&self, missing: f64) -> Duration {
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        let seconds = missing * 60.0 / self.limit.max(1e-9);
        // A nanosecond more, so that it is there when the time is over.
        Duration::from_secs_f64(seconds.min(86_400.0)) + Duration::from_nanos(1)
    }

    fn wait(&self, now: Moment, amount: f64) -> Duration {
        self.span(amount.min(self.limit) - self.level_at(now))
    }

    fn show(&self, now: Moment) -> TenantLevel {
        let level = self.level_at(now);
        TenantLevel {
            limit: self.limit as u64,
            remaining: level.max(0.0) as u64,
            full_in: self.span(self.limit - level),
        }
    }
}

/// One tenant.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub(crate) rules: TenantRules,
    pub(crate) weight: f64,
    requests: Option<Meter>,
    tokens: Option<Meter>,
    concurrent: Option<u32>,
    pub(crate) in_flight: u32,
    /// Its own limit keeps it out of the order of some class.
    pub(crate) parked: bool,
    pub(crate) retries: RetryBudget,
}

impl Tenant {
    pub(crate) fn new(rules: &TenantRules, retries: RetryBudget, now: Moment) -> Self {
        Tenant {
            rules: *rules,
            weight: if rules.weight.is_finite() { rules.weight.clamp(0.001, 1_000.0) } else { 1.0 },
            requests: rules.requests.map(|n| Meter::new(n, now)),
            tokens: rules.tokens.map(|n| Meter::new(n, now)),
            concurrent: rules.concurrent,
            in_flight: 0,
            parked: false,
            retries,
        }
    }

    /// Other rules from now on. What is under way still counts; limits begin full.
    pub(crate) fn set_rules(&mut self, rules: &TenantRules, now: Moment) {
        if self.rules != *rules {
            let fresh = Tenant::new(rules, self.retries.clone(), now);
            *self = Tenant { in_flight: self.in_flight, parked: self.parked, ..fresh };
        }
    }

    /// Which of its limits keeps a request of `tokens` waiting, and for how long; for
    /// [`TenantLimit::Concurrent`] nobody knows.
    pub(crate) fn wait(&self, now: Moment, tokens: f64) -> Option<(TenantLimit, Duration)> {
        if self.concurrent.is_some_and(|most| self.in_flight >= most) {
            return Some((TenantLimit::Concurrent, Duration::ZERO));
        }
        let waits = [
            (TenantLimit::Requests, self.requests.map(|m| m.wait(now, 1.0))),
            (TenantLimit::Tokens, self.tokens.map(|m| m.wait(now, tokens))),
        ];
        let longest = waits.into_iter().filter_map(|(limit, wait)| Some((limit, wait?))).max_by_key(|(_, wait)| *wait);
        longest.filter(|(_, wait)| !wait.is_zero())
    }

    /// How long until its queued work has passed its own limits; zero without any.
    pub(crate) fn backlog(&self, now: Moment, requests: f64, tokens: f64) -> Duration {
        let longest =
            |meter: Option<Meter>, amount: f64| meter.map_or(Duration::ZERO, |m| m.span(amount - m.level_at(now)));
        longest(self.requests, requests).max(longest(self.tokens, tokens))
    }

    pub(crate) fn goes(&mut self, now: Moment, tokens: f64) {
        self.in_flight += 1;
        if let Some(meter) = &mut self.requests {
            meter.take(now, 1.0);
        }
        self.correct(now, tokens);
    }

    /// `tokens` more than were charged were used; fewer if negative.
    pub(crate) fn correct(&mut self, now: Moment, tokens: f64) {
        if let Some(meter) = &mut self.tokens {
            meter.take(now, tokens);
        }
    }

    /// The request was not served after all.
    pub(crate) fn give_back(&mut self, now: Moment, tokens: f64) {
        if let Some(meter) = &mut self.requests {
            meter.take(now, -1.0);
        }
        self.correct(now, -tokens);
    }

    pub(crate) fn levels(&self, now: Moment) -> Option<TenantLevels> {
        let levels =
            TenantLevels { requests: self.requests.map(|m| m.show(now)), tokens: self.tokens.map(|m| m.show(now)) };
        (levels != TenantLevels::default()).then_some(levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    fn tenant(rules: TenantRules) -> Tenant {
        Tenant::new(&rules, RetryBudget::new(500), at(0))
    }

    #[test]
    fn each_limit_waits_as_long_as_it_has_to() {
        let mut t = tenant(TenantRules { requests: Some(60), tokens: Some(6_000), ..TenantRules::default() });
        (0..60).for_each(|_| t.goes(at(0), 50.0));
        assert_eq!(t.wait(at(0), 50.0).map(|w| w.0), Some(TenantLimit::Requests));
        assert_eq!(t.wait(at(1_001), 50.0), None);
        t.correct(at(1_001), 4_000.0);
        let (limit, wait) = t.wait(at(1_001), 50.0).unwrap();
        assert_eq!(limit, TenantLimit::Tokens);
        assert!((9.4..9.6).contains(&wait.as_secs_f64()), "{wait:?}: 1,000 and 50 tokens, less 100, at 100 a second");
        let shown = t.levels(at(1_001)).unwrap();
        assert_eq!((shown.requests.unwrap().remaining, shown.tokens.unwrap().remaining), (1, 0));
        t.give_back(at(1_001), 2_000.0);
        assert_eq!(t.wait(at(1_001), 50.0), None);
    }

    #[test]
    fn more_than_a_minutes_worth_goes_when_the_bucket_is_full() {
        let t = tenant(TenantRules { tokens: Some(1_000), ..TenantRules::default() });
        assert_eq!(t.wait(at(0), 5_000.0), None);
    }

    #[test]
    fn only_so_many_at_once() {
        let mut t = tenant(TenantRules { concurrent: Some(1), ..TenantRules::default() });
        t.goes(at(0), 1.0);
        assert_eq!(t.wait(at(0), 1.0), Some((TenantLimit::Concurrent, Duration::ZERO)));
        t.in_flight -= 1;
        assert_eq!((t.wait(at(0), 1.0), t.levels(at(0))), (None, None));
    }
}
