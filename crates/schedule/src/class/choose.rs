//! Where a request would go, and how long it would have to wait.

use super::{Class, PREFIX_TOKENS_MIN};
use crate::ask::{Ask, Band, Prefix, Refusal, Throttle, WaitsFor};
use crate::domain::Knowledge;
use crate::fair::Sum;
use crate::meters::{Blocked, Demand};
use crate::scheduler::Shared;
use std::time::Duration;
use tidegate_base::Moment;

/// How long one waits that would have leapt, until it is looked at again.
const LEAP_WAIT: Duration = Duration::from_millis(50);
/// Tokens a second where no limit says what they are worth: the Start tier's.
const WORTH: Rates = Rates { requests: 1_000.0 / 60.0, input: 2e6 / 60.0, output: 4e5 / 60.0 };

/// What refills per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) requests: f64,
    pub(crate) input: f64,
    pub(crate) output: f64,
}

/// Where a request would go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Choice {
    /// There, now.
    Go(usize),
    /// There, but not yet.
    Wait(usize, Blocked),
    /// There, once the first with its beginning has been answered.
    Hold(usize, u64),
    Refuse(Refusal),
}

impl Class {
    /// Output tokens expected of a request.
    pub(crate) fn output_of(&self, ask: &Ask) -> f64 {
        let most = ask.output_max.map_or(f64::INFINITY, f64::from);
        self.lengths_of(ask.tenant).mean().min(most)
    }

    /// Uncached input tokens of a request in a domain.
    pub(super) fn input_in(&self, now: Moment, shared: &Shared, domain: usize, ask: &Ask, tokens: f64) -> f64 {
        let d = &self.domains[domain];
        let warm =
            |prefix: Option<Prefix>| prefix.map_or(0.0, |p| shared.warmth.tokens(now, d.org, d.workspace, p.key));
        let mut cached = warm(ask.conversation).max(warm(ask.prefix));
        if let Some(prefix) = ask.prefix
            && self.holds_until(domain, prefix.key).is_some_and(|until| now < until)
        {
            cached = cached.max(tokens * f64::from(prefix.share));
        }
        (tokens - cached).max(tokens * 0.01).max(1.0)
    }

    /// Uncached input tokens of a request where it is warmest.
    pub(crate) fn least_input(&self, now: Moment, shared: &Shared, ask: &Ask, tokens: f64) -> f64 {
        if ask.prefix.is_none() && ask.conversation.is_none() {
            return tokens;
        }
        let places = (0..self.domains.len()).filter(|n| self.eligible(*n, ask));
        places.map(|n| self.input_in(now, shared, n, ask, tokens)).fold(tokens, f64::min)
    }

    /// What a request asks of a domain's meters.
    pub(crate) fn demand(&self, now: Moment, shared: &Shared, domain: usize, ask: &Ask, tokens: f64) -> Demand {
        let output = self.output_of(ask);
        let reserves = self.domains[domain].reserves_output;
        Demand {
            input: self.input_in(now, shared, domain, ask, tokens),
            output,
            reserved: if reserves { ask.output_max.map_or(output, f64::from) } else { 0.0 },
        }
    }

    /// Whether a request may be served by a domain at all.
    pub(super) fn eligible(&self, domain: usize, ask: &Ask) -> bool {
        let d = &self.domains[domain];
        !d.keys.is_empty()
            && ask.pin.is_none_or(|pin| pin.org == d.org && pin.workspace.is_none_or(|w| w == d.workspace))
    }

    /// What a domain lets through a second, all its levels together.
    pub(super) fn rates_of(&self, domain: usize) -> Rates {
        let levels = self.domains[domain].meters.iter().map(|n| &self.meters[*n]);
        let mut least = Rates { requests: f64::INFINITY, input: f64::INFINITY, output: f64::INFINITY };
        for level in levels {
            let rate = |bucket: Option<&crate::bucket::Bucket>| bucket.map_or(f64::INFINITY, |b| b.rate());
            let [requests, input, output] = level.buckets().map(rate);
            least.requests = least.requests.min(requests);
            least.input = least.input.min(input);
            least.output = least.output.min(output);
        }
        least
    }

    /// What the class lets through a second, and what its domains have saved up.
    pub(crate) fn rates(&self) -> (Rates, Rates) {
        let (mut all, mut saved) = (Rates::default(), Rates::default());
        // One whose keys were taken away lets nothing through.
        for n in (0..self.domains.len()).filter(|n| !self.domains[*n].keys.is_empty()) {
            let rates = self.rates_of(n);
            all.requests += rates.requests;
            all.input += rates.input;
            all.output += rates.output;
        }
        for level in &self.meters {
            let low = |bucket: Option<&crate::bucket::Bucket>| bucket.map_or(0.0, |b| b.low().max(0.0));
            let [requests, input, output] = level.buckets().map(low);
            saved.requests += requests;
            saved.input += input;
            saved.output += output;
        }
        (all, saved)
    }

    /// The part of the class' quota that a request takes, nanoseconds.
    pub(crate) fn cost(&self, input: f64, output: f64) -> f64 {
        let (rates, _) = self.rates();
        let worth = |rate: f64, usual: f64| if rate.is_finite() && rate > 0.0 { rate } else { usual };
        1e9 * (input / worth(rates.input, WORTH.input) + output / worth(rates.output, WORTH.output))
    }

    /// Whether one request may go whatever the buckets are believed to hold.
    fn may_probe(&self, now: Moment, domain: usize) -> bool {
        let d = &self.domains[domain];
        d.may_probe(now) && d.meters.iter().all(|level| self.meters[*level].in_flight == 0)
    }

    /// Whether nothing can go to a domain for long: no key of its is accepted, or it has spent what
    /// it may.
    pub(super) fn is_out(&self, now: Moment, shared: &Shared, domain: usize) -> bool {
        let d = &self.domains[domain];
        let spent = shared.orgs.get(&d.org).is_some_and(|o| o.spend_until > now);
        spent || d.keys.iter().all(|key| shared.lane_opens(d.org, *key) > now)
    }

    /// Why a domain takes no request of this size now, and for how long; `None`: it does.
    pub(super) fn blocked(&self, now: Moment, shared: &Shared, domain: usize, demand: &Demand) -> Option<Blocked> {
        let d = &self.domains[domain];
        let keys = d.keys.iter().map(|key| shared.lane_opens(d.org, *key)).min().unwrap_or(Moment::NEVER);
        let span = |until: Moment, by| (until > now).then(|| Blocked { wait: now.until(until), by });
        let key = span(keys, WaitsFor::Key);
        let spend = shared.orgs.get(&d.org).and_then(|o| span(o.spend_until, WaitsFor::Limit(Throttle::SpendCap)));
        // What no waiting helps against is told before what it does.
        if let Some(lasting) = key.or(spend) {
            return Some(lasting);
        }
        let closed = d.closed(now);
        if d.knowledge == Knowledge::Unmetered || closed.is_none() && self.may_probe(now, domain) {
            return closed;
        }
        let jitter = shared.rules.jitter;
        let mut levels = closed;
        for level in &d.meters {
            levels =
                Blocked::max(levels, self.meters[*level].blocked(now, demand, self.estimator.error(), &d.pace, jitter));
        }
        if let Some(span) = d.awake_for(now)
            && d.meters.iter().any(|level| self.meters[*level].leaps(now, demand.output, span))
        {
            let leap = Blocked { wait: LEAP_WAIT, by: WaitsFor::Limit(Throttle::Ramp) };
            levels = Blocked::max(levels, Some(leap));
        }
        if d.knowledge == Knowledge::Unknown {
            levels = levels.map(|b| Blocked { by: WaitsFor::Probe, ..b });
        }
        levels
    }

    /// Whether an input is too large for a domain, and what the limit is; `cached` tokens of it are not
    /// metered there.
    fn never(&self, now: Moment, domain: usize, ask: &Ask, cached: f64) -> Option<u64> {
        let mut metered = self.domains[domain].meters.iter().map(|n| &self.meters[*n]).filter(|m| m.input.is_some());
        let first = metered.next()?;
        let (surely, plain) = (self.estimator.surely(&ask.input) - cached, self.estimator.plain(&ask.input) - cached);
        std::iter::once(first).chain(metered).filter_map(|level| level.never(now, surely, plain)).min()
    }

    /// Where a request would go. `work` is what is spoken for, seconds, by domain; nothing where it ends.
    pub(super) fn choose(
        &self,
        now: Moment,
        shared: &Shared,
        ask: &Ask,
        tokens: f64,
        work: &[f64],
        saved: bool,
    ) -> Choice {
        let mut best: Option<(f64, usize, Option<Blocked>, f64)> = None;
        let (mut no_key, mut spend, mut never) = (true, None::<Duration>, None::<u64>);
        let (mut able, mut eligible, mut again) = (0, 0, None::<Duration>);
        for n in (0..self.domains.len()).filter(|n| self.eligible(*n, ask)) {
            eligible += 1;
            let d = &self.domains[n];
            let demand = self.demand(now, shared, n, ask, tokens);
            let limit = self.never(now, n, ask, tokens - demand.input);
            if let Some(limit) = limit {
                never = Some(never.map_or(limit, |other| other.max(limit)));
                continue;
            }
            able += 1;
            let blocked = self.blocked(now, shared, n, &demand);
            match blocked.map(|b| b.by) {
                Some(WaitsFor::Key) => {
                    let wait = blocked.map_or(Duration::ZERO, |b| b.wait);
                    again = Some(again.map_or(wait, |other| other.min(wait)));
                    continue;
                }
                Some(WaitsFor::Limit(Throttle::SpendCap)) => {
                    let wait = blocked.map_or(Duration::ZERO, |b| b.wait);
                    spend = Some(spend.map_or(wait, |other| other.min(wait)));
                    no_key = false;
                    continue;
                }
                _ => no_key = false,
            }
            let rates = self.rates_of(n);
            let cold = if rates.input.is_finite() { demand.input / rates.input } else { demand.input * 1e-6 };
            let load = if d.knowledge == Knowledge::Unmetered {
                f64::from(d.in_flight) * 1e-4
            } else {
                let (output, pace) = (demand.output, &d.pace);
                let most = d.meters.iter().filter_map(|m| self.meters[*m].in_flight_max(output, pace)).min();
                f64::from(d.in_flight) / most.map_or(1e4, f64::from) * 0.05
            };
            let only_avoided = ask.avoid.is_some_and(|avoid| {
                avoid.org == d.org && !d.keys.iter().any(|k| *k != avoid.key && shared.lane_opens(d.org, *k) <= now)
            });
            let wait = blocked.map_or(0.0, |b| b.wait.as_secs_f64());
            let spoken_for = work.get(n).copied().unwrap_or_default();
            let score = wait + spoken_for + cold + load + if only_avoided { 0.25 } else { 0.0 };
            if best.is_none_or(|(least, ..)| score < least) {
                best = Some((score, n, blocked, demand.input));
            }
        }
        let Some((_, n, blocked, _)) = best else {
            return Choice::Refuse(match (eligible > 0 && able == 0, spend) {
                (true, _) => Refusal::TooLarge { tokens: tokens as u64, limit: never.unwrap_or_default() },
                (_, Some(retry_after)) => Refusal::SpendCap { retry_after },
                _ => {
                    debug_assert!(no_key);
                    Refusal::NoKey { again }
                }
            });
        };
        if let Some(blocked) = blocked
            && !(saved && matches!(blocked.by, WaitsFor::Limit(_)) && self.domains[n].closed(now).is_none())
        {
            return Choice::Wait(n, blocked);
        }
        if let Some(work) = work.get(n).copied().filter(|work| *work > 0.0) {
            return Choice::Wait(n, Blocked { wait: Duration::from_secs_f64(work.min(86_400.0)), by: WaitsFor::Turn });
        }
        if let Some(prefix) = ask.prefix
            && tokens * f64::from(prefix.share) >= PREFIX_TOKENS_MIN
            && self.holds_until(n, prefix.key).is_some_and(|until| now < until)
        {
            return Choice::Hold(n, prefix.key);
        }
        Choice::Go(n)
    }

    /// A request that comes while nobody waits: where it may go at once, or why not at all.
    pub(crate) fn at_once(
        &mut self,
        now: Moment,
        shared: &mut Shared,
        ask: &Ask,
        tokens: f64,
    ) -> Result<Option<usize>, Refusal> {
        self.freshen(now, shared);
        match self.choose(now, shared, ask, tokens, &[], false) {
            Choice::Go(domain) if self.fair.is_empty() => Ok(Some(domain)),
            Choice::Refuse(refusal) => Err(refusal),
            _ => Ok(None),
        }
    }

    /// Seconds in which what refills, and what is saved up, serves `sum`.
    fn time_for(&self, sum: Sum) -> f64 {
        let (rates, saved) = self.rates();
        let one = |amount: f64, saved: f64, rate: f64| ((amount - saved) / rate).max(0.0);
        one(sum.count as f64, saved.requests, rates.requests).max(one(sum.input, saved.input, rates.input)).max(one(
            sum.output,
            saved.output,
            rates.output,
        ))
    }

    /// How long a domain lets nothing through, whatever it is.
    fn closed_for(&self, now: Moment, domain: usize) -> Duration {
        let lasts = self.domains[domain].closed(now).filter(|b| b.by != WaitsFor::InFlight);
        lasts.map_or(Duration::ZERO, |b| b.wait)
    }

    /// All that waits.
    fn queued(&self) -> Sum {
        Band::ALL.into_iter().map(|band| self.fair.sum(band)).fold(Sum::default(), Sum::plus)
    }

    /// How long a request that comes now would wait: for its band's share of what refills, and in it
    /// for its tenant's, but never longer than for all that waits.
    pub(crate) fn predict(&self, now: Moment, shared: &Shared, ask: &Ask, input: f64, output: f64) -> Duration {
        let me = Sum { count: 1, input, output };
        let busy = |band: &Band| *band == ask.band || self.fair.sum(*band).count > 0;
        let weight = |band: Band| f64::from(shared.rules.band_weights[band as usize]).max(1.0);
        let of_band = weight(ask.band) / Band::ALL.into_iter().filter(busy).map(weight).sum::<f64>();
        let (own, of_tenant) = self.fair.own(ask.band, ask.tenant, shared.weight(ask.tenant));
        let all = self.time_for(self.queued().plus(me));
        let in_band = self.time_for(self.fair.sum(ask.band).plus(me)) / of_band;
        let own = self.time_for(own.plus(me)) / (of_band * of_tenant);
        let queued = all.min(in_band).min(own).min(1e6);
        let places = (0..self.domains.len()).filter(|n| self.eligible(*n, ask));
        let opens = places.clone().map(|n| self.closed_for(now, n)).min().unwrap_or_default();
        // Its first answer may tell that there is room for all.
        let unknown = places.clone().any(|n| self.domains[n].knowledge == Knowledge::Unknown);
        if unknown { opens } else { opens + Duration::from_secs_f64(queued) }
    }

    /// How long all that waits will take; `None` where nothing tells: the limits are not known, or there
    /// are none and it waits for answers to end.
    pub(crate) fn queue_wait(&self, now: Moment) -> Option<Duration> {
        let places = || (0..self.domains.len()).filter(|n| !self.domains[*n].keys.is_empty());
        let opens = places().map(|n| self.closed_for(now, n)).min().unwrap_or_default();
        let queued = self.queued();
        if places().any(|n| self.domains[n].knowledge == Knowledge::Unknown) {
            // Its first answer may tell that there is room for all.
            return (queued.count == 0 || !opens.is_zero()).then_some(opens);
        }
        if queued.count == 0 || !opens.is_zero() {
            return Some(opens + Duration::from_secs_f64(self.time_for(queued).min(1e6)));
        }
        let (rates, _) = self.rates();
        let metered = [rates.requests, rates.input, rates.output].iter().any(|rate| rate.is_finite() && *rate > 0.0);
        metered.then(|| {
            // What is saved up may be too little for the first of them, though it would do for the sum.
            let first = places().filter_map(|n| self.domains[n].head).map(|head| head.wait).min().unwrap_or_default();
            Duration::from_secs_f64(self.time_for(queued).min(1e6)).max(first)
        })
    }
}
