//! What the API meters: per organisation and model class three buckets, and what it says of them.
//!
//! Requests, input tokens and output tokens per minute, each a continuously refilled [`Bucket`]. A
//! request passes if all that covers it has room, in this order: the number of requests at once, the
//! spend limit, the ramp limit, then requests, input and output, of the organisation and of the
//! caller's workspace. It is charged a request and an estimate of its uncached input at once; the
//! estimate is corrected when its answer begins, and output is charged as it is produced. What else
//! is conceivable is a switch in [`QuotaRules`].
//!
//! An admitted request is a [`Lease`], which comes back in [`Quota::settle`] once all work for it has
//! ended. Pools are made when first seen, at most [`DOMAINS_MAX`]: later organisations are `others`.

mod bucket;
mod headers;
mod lease;
mod limits;
mod pool;
mod ramp;
mod refusal;
mod report;
mod rules;
mod spend;
#[cfg(test)]
mod tests;

pub(crate) use headers::Lines;
use lease::PoolKey;
pub(crate) use lease::{Ask, DomainKey, Holder, Lease, Settlement};
pub(crate) use limits::Limiter;
pub use limits::{Limits, PartialLimits, Tier};
pub(crate) use refusal::OverLimit;
pub use rules::{
    CancelCharge, Change, Consumer, Estimate, KeyOutage, KeyTrouble, OutputCharge, OutputExhausted, Oversize,
    QuotaRules, RampRule, Sampled, SpendLimit, SpendLimitKind, Whom, WorkspaceHeaders,
};

use crate::scenario::Scenario;
use pool::Pool;
use ramp::Ramp;
use spend::{Price, Spending};
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::{Moment, Prng};

/// Most domains that are kept apart: a desk has a few, a fuzzing client could invent millions.
pub(crate) const DOMAINS_MAX: usize = 4_096;

/// The pools of every holder.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    pub(crate) rules: QuotaRules,
    changes: Vec<Change>,
    consumers: Vec<Consumer>,
    pools: BTreeMap<PoolKey, Pool>,
    spending: Spending,
    /// Requests that count as connections, by organisation.
    at_once: BTreeMap<String, u64>,
    /// Since when the accounts are kept.
    since: Moment,
    /// Wall time at moment zero, seconds since the Unix epoch: reset headers are wall time.
    epoch_s: u64,
}

impl Quota {
    pub(crate) fn new(scenario: &Scenario, epoch_s: u64) -> Self {
        Quota {
            rules: scenario.quota.clone(),
            changes: scenario.changes.clone(),
            consumers: scenario.consumers.clone(),
            pools: BTreeMap::new(),
            spending: Spending::new(scenario.spend_limits.clone()),
            at_once: BTreeMap::new(),
            since: Moment::ZERO,
            epoch_s,
        }
    }

    /// The domain of an organisation in a class; the common one once there are too many.
    pub(crate) fn domain(&self, organisation: &str, class: &'static str) -> DomainKey {
        let room = self.pools.len() < DOMAINS_MAX || self.pools.contains_key(&(organisation.to_owned(), None, class));
        (if room { organisation.to_owned() } else { "others".to_owned() }, class)
    }

    fn make(&self, key: &PoolKey, limits: PartialLimits, burst: Duration) -> Pool {
        let (organisation, workspace, class) = (key.0.as_str(), key.1.as_deref(), key.2);
        let of_models = class != COUNT_CLASS;
        let ramp = self.rules.ramp.filter(|_| workspace.is_none() && of_models).map(Ramp::new);
        let mine = |whom: &Whom| of_models && whom.is(organisation, workspace, class);
        let changes = self.changes.iter().filter(|change| mine(&change.whom));
        let consumers = self.consumers.iter().enumerate().filter(|(_, consumer)| mine(&consumer.whom));
        let mut pool = Pool::new(limits, burst, ramp).with(limits, changes, consumers);
        // A pool that is first seen now has existed all the time.
        pool.reopen(self.since);
        pool
    }

    fn ensure(&mut self, key: &PoolKey, limits: PartialLimits, burst: Duration, now: Moment) {
        if !self.pools.contains_key(key) {
            let pool = self.make(key, limits, burst);
            self.pools.insert(key.clone(), pool);
        }
        if let Some(pool) = self.pools.get_mut(key) {
            pool.advance(now);
        }
    }

    /// Makes what does not exist yet and plays time to `now`.
    fn prepare(&mut self, holder: &Holder, now: Moment) {
        let burst = holder.limits.map_or(MINUTE, |limits| limits.burst);
        let limits = holder.limits.map_or(PartialLimits::default(), Limits::each);
        self.ensure(&holder.own, limits, burst, now);
        if let Some(inner) = &holder.inner {
            self.ensure(inner, holder.inner_limits, burst, now);
        }
    }

    /// The pools of a holder: the organisation's, then the workspace's.
    fn each(&mut self, holder: &Holder, now: Moment, mut visit: impl FnMut(Option<&str>, &mut Pool)) {
        for key in [Some(&holder.own), holder.inner.as_ref()].into_iter().flatten() {
            if let Some(pool) = self.pools.get_mut(key) {
                pool.advance(now);
                visit(key.1.as_deref(), pool);
            }
        }
    }

    /// One request more of an organisation at once, or the refusal of it.
    pub(crate) fn connect(&mut self, holder: &Holder, organisation: &str, now: Moment) -> Result<(), OverLimit> {
        let open = self.at_once.get(organisation).copied().unwrap_or(0);
        if self.rules.connections.is_some_and(|most| open >= most) {
            let over = refusal::by_connections();
            self.refused(holder, over.label, now);
            return Err(over);
        }
        self.at_once.insert(organisation.to_owned(), open + 1);
        Ok(())
    }

    /// One less.
    pub(crate) fn disconnect(&mut self, organisation: &str) {
        if let Some(open) = self.at_once.get_mut(organisation) {
            *open -= 1;
            if *open == 0 {
                self.at_once.remove(organisation);
            }
        }
    }

    /// Admits a request, or says which limit it is over.
    pub(crate) fn admit(&mut self, holder: &Holder, ask: Ask, now: Moment) -> Result<Lease, OverLimit> {
        self.prepare(holder, now);
        let reserved = if self.rules.output == OutputCharge::Reserve { ask.max_tokens } else { 0 };
        if let Some(over) = self.over(holder, ask, reserved, now) {
            self.refused(holder, over.label, now);
            return Err(over);
        }
        self.each(holder, now, |_, pool| {
            pool.take(Limiter::Requests, 1, now);
            pool.take(Limiter::Input, ask.estimate, now);
            pool.take(Limiter::Output, reserved, now);
            if let Some(ramp) = &mut pool.ramp {
                ramp.admitted(ask.estimate, now);
            }
        });
        let (holder, input, charged_input) = (holder.clone(), ask.input, ask.estimate);
        Ok(Lease { holder, input, charged_input, reserved, produced: 0, begun: false, cost: 0 })
    }

    /// Which limit refuses a request, if one does.
    fn over(&mut self, holder: &Holder, ask: Ask, reserved: u64, now: Moment) -> Option<OverLimit> {
        let organisation = holder.organisation();
        let spent = self.spending.refusal(organisation, holder.workspace(), now, self.epoch_s);
        if let Some((label, refusal)) = spent {
            return Some(OverLimit { label, refusal });
        }
        let oversize_passes = self.rules.oversize == Oversize::WhenFull;
        let mut over = None;
        self.each(holder, now, |_, pool| {
            let wait = pool.ramp.as_mut().and_then(|ramp| ramp.wait(ask.estimate, now));
            over = over.take().or_else(|| wait.map(|wait| refusal::by_ramp(organisation, wait)));
        });
        for (limiter, wanted) in
            [(Limiter::Requests, 1), (Limiter::Input, ask.estimate), (Limiter::Output, reserved.max(1))]
        {
            self.each(holder, now, |workspace, pool| {
                let Some(bucket) = pool.bucket(limiter).filter(|_| over.is_none()) else { return };
                let wanted = if oversize_passes { wanted.min(bucket.holds()) } else { wanted };
                let wait = bucket.until(wanted, now);
                if wait != Some(Duration::ZERO) {
                    over = Some(refusal::by_limiter(limiter, bucket.limit(), organisation, workspace, wait));
                }
            });
        }
        over
    }

    /// Counts a request that was refused, and charges it if refused requests are.
    pub(crate) fn refused(&mut self, holder: &Holder, label: &'static str, now: Moment) {
        self.prepare(holder, now);
        let charge = self.rules.charge_refused && label != spend::USER_LIMIT;
        self.each(holder, now, |workspace, pool| {
            if workspace.is_none() {
                *pool.refused.entry(label).or_default() += 1;
            }
            if charge && pool.bucket(Limiter::Requests).is_some_and(|bucket| bucket.left(now) > 0) {
                pool.take(Limiter::Requests, 1, now);
            }
        });
    }

    /// The answer begins: from now on its input is known.
    pub(crate) fn begun(&mut self, lease: &mut Lease, now: Moment) {
        if std::mem::replace(&mut lease.begun, true) {
            return;
        }
        let (charged, counted) = (lease.charged_input, lease.input.counted());
        lease.charged_input = counted;
        self.each(&lease.holder, now, |_, pool| match counted.checked_sub(charged) {
            Some(more) => pool.take(Limiter::Input, more, now),
            None => pool.give(Limiter::Input, charged - counted, now),
        });
        let cost = Price::of(lease.holder.domain.1).of_input(lease.input);
        self.book(lease, cost);
    }

    fn book(&mut self, lease: &mut Lease, nanodollars: u64) {
        lease.cost += nanodollars;
        let amount = i64::try_from(nanodollars).unwrap_or(i64::MAX);
        self.spending.book(lease.holder.organisation(), lease.holder.workspace(), amount);
    }

    /// Charges output that has been produced. Returns the words of the error that ends the stream, if
    /// no output is left and that is what happens then.
    pub(crate) fn produced(&mut self, lease: &mut Lease, tokens: u64, now: Moment) -> Option<String> {
        lease.produced += tokens;
        let cost = tokens * Price::of(lease.holder.domain.1).output;
        self.book(lease, cost);
        if self.rules.output == OutputCharge::Reserve {
            return None;
        }
        let ends = self.rules.output_exhausted == OutputExhausted::Error;
        let mut error = None;
        let organisation = lease.holder.organisation();
        self.each(&lease.holder, now, |workspace, pool| {
            let Some(bucket) = pool.bucket(Limiter::Output) else { return };
            bucket.take(tokens, now);
            if ends && bucket.left(now) == 0 {
                error = Some(refusal::out_of_output(bucket.limit(), organisation, workspace));
            }
        });
        error
    }

    /// All work for a request has ended.
    pub(crate) fn settle(&mut self, mut lease: Lease, how: Settlement, now: Moment) {
        let cancel = if how.cancelled { self.rules.charge_cancelled } else { CancelCharge::Produced };
        if cancel == CancelCharge::Whole {
            let rest = how.whole.saturating_sub(lease.produced);
            self.produced(&mut lease, rest, now);
        }
        let realtime = self.rules.output == OutputCharge::Realtime;
        let nothing = cancel == CancelCharge::Nothing;
        // In the buckets stands what was reserved, or else what was produced.
        let (stands, stays) = match (realtime, nothing) {
            (true, false) => (lease.produced, lease.produced),
            (true, true) => (lease.produced, 0),
            (false, false) => (lease.reserved, lease.produced),
            (false, true) => (lease.reserved, 0),
        };
        self.each(&lease.holder, now, |_, pool| {
            match stays.checked_sub(stands) {
                Some(more) => pool.take(Limiter::Output, more, now),
                None => pool.give(Limiter::Output, stands - stays, now),
            }
            if nothing {
                pool.give(Limiter::Requests, 1, now);
                pool.give(Limiter::Input, lease.charged_input, now);
            }
        });
        if nothing {
            let refund = -i64::try_from(lease.cost).unwrap_or(i64::MAX);
            self.spending.book(lease.holder.organisation(), lease.holder.workspace(), refund);
        }
    }

    /// One request to count tokens, or the refusal of it; they have a request bucket of their own.
    pub(crate) fn count(&mut self, organisation: &str, per_minute: Option<u64>, now: Moment) -> Result<(), OverLimit> {
        let Some(per_minute) = per_minute else { return Ok(()) };
        let (organisation, class) = self.domain(organisation, COUNT_CLASS);
        let key = (organisation, None, class);
        let limits = PartialLimits { requests: Some(per_minute), ..PartialLimits::default() };
        self.ensure(&key, limits, MINUTE, now);
        let Some(bucket) = self.pools.get_mut(&key).and_then(|pool| pool.bucket(Limiter::Requests)) else {
            return Ok(());
        };
        let wait = bucket.until(1, now);
        if wait != Some(Duration::ZERO) {
            let over = refusal::by_limiter(Limiter::Requests, bucket.limit(), &key.0, None, wait);
            return Err(OverLimit { label: "429-count-tokens", ..over });
        }
        bucket.take(1, now);
        Ok(())
    }

    /// The rate-limit headers of a holder, on success and on 429. `dice` are the answer's own, for
    /// headers that are not to be believed.
    pub(crate) fn headers(&mut self, holder: &Holder, mut dice: Prng, now: Moment) -> Lines {
        if self.rules.headers == Sampled::None {
            return Vec::new();
        }
        self.prepare(holder, now);
        let off = 10 * self.rules.remaining_error_percent;
        let permille = 1_000 - off + dice.between(0, 2 * off);
        // Taken out, so that both can be looked at.
        let mut inner = holder.inner.as_ref().and_then(|key| self.pools.remove(key));
        let (rule, epoch_s) = (self.rules.workspace_headers, self.epoch_s);
        let lines = match self.pools.get_mut(&holder.own) {
            Some(own) => headers::lines(own, inner.as_mut(), rule, permille, epoch_s, now),
            None => Vec::new(),
        };
        if let (Some(key), Some(pool)) = (&holder.inner, inner) {
            self.pools.insert(key.clone(), pool);
        }
        lines
    }

    /// Opens new accounts.
    pub(crate) fn reopen(&mut self, now: Moment) {
        self.since = now;
        self.pools.values_mut().for_each(|pool| pool.reopen(now));
    }
}

const MINUTE: Duration = Duration::from_secs(60);
/// The class of `count_tokens`, which is metered apart from all models.
pub(crate) const COUNT_CLASS: &str = "count-tokens";
