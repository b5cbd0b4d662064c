//! One class of models: its domains, their levels of limits, and the queue in front of them.
//!
//! Classes share nothing but keys and tenants, so each is looked at alone. The look ([`Class::run`])
//! goes through the fair order from its head. For each request it asks every domain that could take
//! it how long that would take and what its cold cache would cost, and settles on the least. If
//! that is now, the request goes. If not, the domain is spoken for, and later ones may only go where
//! nobody before them waits; what is spoken for counts as that domain's work, so that a conversation
//! stays with its warm domain until leaving is cheaper. When every domain is spoken for, the look
//! ends.

use crate::ask::{
    Ask, Band, Lease, LeaseId, Levels, Limits, OrgId, Prefix, Refusal, TenantId, TenantLimit, Throttle, Ticket,
    Verdict, WaitsFor, WorkspaceId,
};
use crate::bucket::Source;
use crate::domain::{Domain, Knowledge};
use crate::estimate::Estimator;
use crate::fair::{Fair, Place, Sum};
use crate::flight::{Flight, Held, Waiting};
use crate::lengths::Lengths;
use crate::meters::{ASSUMED, Blocked, Coming, Demand, LOOK_AGAIN, Meters, coming};
use crate::retry::RetryBudget;
use crate::scheduler::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate_base::Moment;

/// Requests looked at in one look: domains are few, and behind so many that all prefer a busy one
/// nobody is likely to want an idle one.
const LOOKS: usize = 64;
/// Beginnings shorter than this are not cached by any model (protocol page, 5.6).
const PREFIX_TOKENS_MIN: f64 = 1_024.0;
/// How often what answers will still produce is reckoned anew.
const REFRESH: Duration = Duration::from_millis(50);
/// Tokens a second where no limit says what they are worth: the Start tier's.
const WORTH: Rates = Rates { requests: 1_000.0 / 60.0, input: 2e6 / 60.0, output: 4e5 / 60.0 };
/// Tenants whose own lengths of answers are kept; the others share the class'.
const TENANTS_MAX: usize = 1_024;
/// A request that is next in turn and needs more than was ever seen at once goes when enough time
/// for it has passed, and so much more.
const SAVED_AFTER: Duration = Duration::from_secs(2);

/// What refills per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) requests: f64,
    pub(crate) input: f64,
    pub(crate) output: f64,
}

/// Where a request would go.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Choice {
    /// There, now.
    Go(usize),
    /// There, but not yet.
    Wait(usize, Blocked),
    /// There, once the first with its beginning has been answered.
    Hold(usize, u64),
    Refuse(Refusal),
}

/// One class of models.
#[derive(Debug, Default)]
pub(crate) struct Class {
    pub(crate) domains: Vec<Domain>,
    pub(crate) meters: Vec<Meters>,
    pub(crate) fair: Fair,
    pub(crate) estimator: Estimator,
    pub(crate) lengths: Lengths,
    tenant_lengths: BTreeMap<TenantId, Lengths>,
    /// When the time of each that waits ends.
    ends: BTreeSet<(Moment, Ticket)>,
    /// Who leads with a beginning, and who waits for it.
    leaders: BTreeSet<(usize, u64)>,
    held: BTreeMap<(usize, u64), Vec<Ticket>>,
    /// Metered requests under way.
    pub(crate) running: BTreeSet<LeaseId>,
    refreshed: Moment,
    /// When to look again, if nothing happens before.
    wake: Option<Moment>,
}

impl Class {
    /// A domain for each workspace of an organisation.
    pub(crate) fn add_org(&mut self, org: OrgId, shared: &Shared, now: Moment) {
        let Some(spec) = shared.orgs.get(&org).map(|o| &o.spec) else { return };
        let level = self.meters.len();
        self.meters.push(Meters::new(ASSUMED, Source::Assumed, now));
        let mut by_workspace: BTreeMap<Option<WorkspaceId>, Vec<u16>> = BTreeMap::new();
        for (key, workspace) in (0u16..).zip(&spec.keys) {
            by_workspace.entry(*workspace).or_default().push(key);
        }
        for (workspace, keys) in by_workspace {
            let retries = RetryBudget::new(shared.rules.retry.budget);
            let mut domain = Domain::new(org, workspace, keys, spec.reserves_output, retries);
            domain.meters.push(level);
            self.domains.push(domain);
        }
    }

    /// Limits from the configuration.
    pub(crate) fn know(&mut self, org: OrgId, workspace: Option<WorkspaceId>, limits: Limits, now: Moment) {
        for n in 0..self.domains.len() {
            if self.domains[n].org != org || workspace.is_some() && self.domains[n].workspace != workspace {
                continue;
            }
            self.domains[n].knowledge = Knowledge::Metered;
            if workspace.is_none() {
                let level = self.domains[n].meters[0];
                self.meters[level].forget_assumed();
                self.meters[level].limit(limits, Source::Config, now);
            } else if self.domains[n].meters.len() == 1 {
                self.domains[n].meters.push(self.meters.len());
                self.meters.push(Meters::new(limits, Source::Config, now));
            }
        }
    }

    /// How long a tenant's answers are.
    fn lengths_of(&self, tenant: TenantId) -> &Lengths {
        self.tenant_lengths.get(&tenant).filter(|l| l.is_known()).unwrap_or(&self.lengths)
    }

    /// An answer of so many tokens was whole.
    pub(crate) fn learn_length(&mut self, tenant: TenantId, tokens: u64) {
        self.lengths.add(tokens);
        if self.tenant_lengths.len() < TENANTS_MAX || self.tenant_lengths.contains_key(&tenant) {
            self.tenant_lengths.entry(tenant).or_default().add(tokens);
        }
    }

    /// Output tokens expected of a request.
    pub(crate) fn output_of(&self, ask: &Ask) -> f64 {
        let most = ask.output_max.map_or(f64::INFINITY, f64::from);
        self.lengths_of(ask.tenant).mean().min(most)
    }

    /// Uncached input tokens of a request in a domain.
    fn input_in(&self, now: Moment, shared: &Shared, domain: usize, ask: &Ask, tokens: f64) -> f64 {
        let d = &self.domains[domain];
        let warm =
            |prefix: Option<Prefix>| prefix.map_or(0.0, |p| shared.warmth.tokens(now, d.org, d.workspace, p.key));
        let mut cached = warm(ask.conversation).max(warm(ask.prefix));
        if let Some(prefix) = ask.prefix
            && self.leaders.contains(&(domain, prefix.key))
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
    fn eligible(&self, domain: usize, ask: &Ask) -> bool {
        let d = &self.domains[domain];
        ask.pin.is_none_or(|pin| pin.org == d.org && pin.workspace.is_none_or(|w| w == d.workspace))
    }

    /// What a domain lets through a second, all its levels together.
    fn rates_of(&self, domain: usize) -> Rates {
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
        for n in 0..self.domains.len() {
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

    /// Why a domain takes no request of this size now, and for how long; `None`: it does.
    fn blocked(&self, now: Moment, shared: &Shared, domain: usize, demand: &Demand) -> Option<Blocked> {
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
        if d.knowledge == Knowledge::Unmetered || closed.is_none() && d.may_probe(now) {
            return closed;
        }
        let jitter = shared.rules.jitter;
        let mut levels = closed;
        for level in &d.meters {
            levels = Blocked::max(levels, self.meters[*level].blocked(demand, &d.pace, jitter));
        }
        if d.knowledge == Knowledge::Unknown {
            levels = levels.map(|b| Blocked { by: WaitsFor::Probe, ..b });
        }
        levels
    }

    /// Where a request would go. `work` is what is spoken for, seconds, by domain.
    fn choose(&self, now: Moment, shared: &Shared, ask: &Ask, tokens: f64, work: &[f64], saved: bool) -> Choice {
        let mut best: Option<(f64, usize, Option<Blocked>, f64)> = None;
        let (mut no_key, mut spend, mut never) = (true, None::<Duration>, None::<u64>);
        let (mut able, mut eligible) = (0, 0);
        for n in (0..self.domains.len()).filter(|n| self.eligible(*n, ask)) {
            eligible += 1;
            let d = &self.domains[n];
            let demand = self.demand(now, shared, n, ask, tokens);
            let limit = d.meters.iter().filter_map(|level| self.meters[*level].never(now, demand.input)).min();
            if let Some(limit) = limit {
                never = Some(never.map_or(limit, |other| other.max(limit)));
                continue;
            }
            able += 1;
            let blocked = self.blocked(now, shared, n, &demand);
            match blocked.map(|b| b.by) {
                Some(WaitsFor::Key) => continue,
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
            let score = wait + work[n] + cold + load + if only_avoided { 0.25 } else { 0.0 };
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
                    Refusal::NoKey
                }
            });
        };
        if let Some(blocked) = blocked
            && !(saved && matches!(blocked.by, WaitsFor::Limit(_)))
        {
            return Choice::Wait(n, blocked);
        }
        if work[n] > 0.0 {
            return Choice::Wait(n, Blocked { wait: Duration::from_secs_f64(work[n]), by: WaitsFor::Turn });
        }
        if let Some(prefix) = ask.prefix
            && tokens * f64::from(prefix.share) >= PREFIX_TOKENS_MIN
            && self.leaders.contains(&(n, prefix.key))
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
        let none = vec![0.0; self.domains.len()];
        match self.choose(now, shared, ask, tokens, &none, false) {
            Choice::Go(domain) if self.fair.is_empty() => Ok(Some(domain)),
            Choice::Refuse(refusal) => Err(refusal),
            _ => Ok(None),
        }
    }

    /// How long a request that comes now would wait: for its band's share of what refills, and in it
    /// for its tenant's, but never longer than for all that waits.
    pub(crate) fn predict(&self, now: Moment, shared: &Shared, ask: &Ask, input: f64, output: f64) -> Duration {
        let (rates, saved) = self.rates();
        let time = |sum: Sum| {
            let one = |amount: f64, saved: f64, rate: f64| ((amount - saved) / rate).max(0.0);
            one(sum.count as f64, saved.requests, rates.requests)
                .max(one(sum.input, saved.input, rates.input))
                .max(one(sum.output, saved.output, rates.output))
        };
        let me = Sum { count: 1, input, output };
        let busy = |band: &Band| *band == ask.band || self.fair.sum(*band).count > 0;
        let weight = |band: Band| f64::from(shared.rules.band_weights[band as usize]).max(1.0);
        let of_band = weight(ask.band) / Band::ALL.into_iter().filter(busy).map(weight).sum::<f64>();
        let (own, of_tenant) = self.fair.own(ask.band, ask.tenant, shared.weight(ask.tenant));
        let all = time(Band::ALL.into_iter().map(|band| self.fair.sum(band)).fold(me, Sum::plus));
        let in_band = time(self.fair.sum(ask.band).plus(me)) / of_band;
        let own = time(own.plus(me)) / (of_band * of_tenant);
        let queued = all.min(in_band).min(own).min(1e6);
        let closed = |n: &usize| {
            let lasts = self.domains[*n].closed(now).filter(|b| b.by != WaitsFor::InFlight);
            lasts.map_or(Duration::ZERO, |b| b.wait)
        };
        let places = (0..self.domains.len()).filter(|n| self.eligible(*n, ask));
        if places.clone().any(|n| self.domains[n].knowledge == Knowledge::Unknown) {
            // Its first answer may tell that there is room for all.
            return places.map(|n| closed(&n)).min().unwrap_or_default();
        }
        let opens = places.map(|n| closed(&n)).min();
        opens.unwrap_or_default() + Duration::from_secs_f64(queued)
    }

    /// How long all that waits will take.
    pub(crate) fn queue_wait(&self, now: Moment, shared: &Shared) -> Duration {
        let ask = Ask {
            class: crate::ask::ClassId(0),
            tenant: TenantId(u32::MAX),
            band: Band::Background,
            latest: Moment::NEVER,
            waited: Duration::ZERO,
            input: crate::estimate::Mix::default(),
            output_max: None,
            seen: true,
            prefix: None,
            conversation: None,
            pin: None,
            avoid: None,
        };
        self.predict(now, shared, &ask, 0.0, 0.0)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.ends.len()
    }

    /// How many domains it has.
    pub(crate) fn len(&self) -> usize {
        self.domains.len()
    }

    /// One comes to wait.
    pub(crate) fn enter(&mut self, now: Moment, ticket: Ticket, place: &Place, weight: f64) {
        self.fair.enter(now, ticket, place, weight);
        self.ends.insert((place.until, ticket));
        self.wake = Some(now);
    }

    /// One stops waiting, however.
    pub(crate) fn leave(&mut self, ticket: Ticket, waiting: &Waiting) {
        self.ends.remove(&(waiting.place.until, ticket));
        match waiting.held {
            Held::No => self.fair.leave(ticket, &waiting.place),
            Held::ForPrefix(domain, key) => {
                if let Some(others) = self.held.get_mut(&(domain, key)) {
                    others.retain(|other| *other != ticket);
                }
            }
        }
    }

    /// The first request with a beginning goes to a domain: others wait for it.
    pub(crate) fn leads(&mut self, domain: usize, prefix: Option<Prefix>, tokens: f64, warm: bool) -> bool {
        match prefix {
            Some(p) if !warm && tokens * f64::from(p.share) >= PREFIX_TOKENS_MIN => {
                self.leaders.insert((domain, p.key))
            }
            _ => false,
        }
    }

    /// The leader with a beginning has been answered, or will not be: its followers are let go.
    pub(crate) fn led(&mut self, now: Moment, domain: usize, key: u64, shared: &mut Shared) {
        self.leaders.remove(&(domain, key));
        for ticket in self.held.remove(&(domain, key)).unwrap_or_default() {
            let weight = shared.queue.get(ticket).map_or(1.0, |w| shared.weight(w.place.tenant));
            if let Some(waiting) = shared.queue.get_mut(ticket) {
                waiting.held = Held::No;
                self.fair.enter(now, ticket, &waiting.place, weight);
            }
        }
        self.wake = Some(now);
    }

    /// Whether anything waits or is under way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.ends.is_empty() || self.domains.iter().any(|d| d.in_flight > 0)
    }

    /// Which level of a domain's limits an answer spoke of: the workspace's if the limits it named
    /// are its, else the organisation's.
    pub(crate) fn level_told(&self, domain: usize, levels: &Levels) -> usize {
        let d = &self.domains[domain];
        let told = [levels.requests.limit, levels.input_tokens.limit, levels.output_tokens.limit];
        let named = |level: &&usize| {
            let limits = self.meters[**level].buckets().map(|b| b.map(|b| b.limit()));
            limits.into_iter().zip(told).any(|(own, told)| own.is_some() && own == told)
        };
        d.meters.iter().rev().find(named).or(d.meters.first()).copied().unwrap_or_default()
    }

    /// An answer of a domain told of no limits at all.
    pub(crate) fn unmetered(&mut self, domain: usize) {
        for level in &self.domains[domain].meters {
            self.meters[*level].forget_assumed();
        }
    }

    /// A request is over: it no longer counts as under way.
    pub(crate) fn ends_flight(&mut self, id: LeaseId, flight: &Flight) {
        self.running.remove(&id);
        let d = &mut self.domains[flight.domain];
        d.in_flight = d.in_flight.saturating_sub(1);
        if flight.metered {
            for level in &d.meters {
                let level = &mut self.meters[*level];
                level.in_flight = level.in_flight.saturating_sub(1);
                level.comes(&flight.coming, -1.0);
            }
        }
    }

    /// What was taken for a request may or may not have been charged.
    pub(crate) fn maybe_back(&mut self, flight: &Flight) {
        if flight.metered {
            for level in &self.domains[flight.domain].meters {
                self.meters[*level].maybe_back(flight.input);
            }
        }
    }

    /// Something changed that may let somebody go.
    pub(crate) fn touch(&mut self, now: Moment) {
        self.wake = Some(now);
    }

    /// When to look again.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        if self.ends.is_empty() { None } else { self.wake }
    }

    /// Refills the buckets, and reckons what answers under way will still produce.
    fn freshen(&mut self, now: Moment, shared: &mut Shared) {
        for level in &mut self.meters {
            level.advance(now);
        }
        if now.since(self.refreshed) < REFRESH || self.running.is_empty() {
            return;
        }
        self.refreshed = now;
        for level in &mut self.meters {
            level.coming = Coming::default();
        }
        for id in &self.running {
            let Some(flight) = shared.flights.get_mut(*id) else { continue };
            let d = &self.domains[flight.domain];
            if !flight.seen && flight.reserved == 0.0 {
                // Nobody tells what it has produced, so it is taken to run as others do.
                let ran = flight.began.map_or(0.0, |at| now.since(at).as_secs_f64());
                let likely = (ran * d.pace.speed).min(flight.output);
                if likely > flight.produced {
                    for level in &d.meters {
                        self.meters[*level].take(now, 0.0, 0.0, likely - flight.produced);
                    }
                    flight.produced = likely;
                }
            }
            let lengths = self.tenant_lengths.get(&flight.tenant).filter(|l| l.is_known()).unwrap_or(&self.lengths);
            flight.coming = flight.still_coming(lengths, d.pace.speed);
            for level in &d.meters {
                self.meters[*level].comes(&flight.coming, 1.0);
            }
        }
    }

    /// Looks through the queue: who can go goes, whose time is over is told. `number` is the class'
    /// own.
    pub(crate) fn run(&mut self, number: usize, now: Moment, shared: &mut Shared, out: &mut Vec<(Ticket, Verdict)>) {
        self.freshen(now, shared);
        self.give_up(now, shared, out);
        self.fair.unpark(now);
        self.age(now, shared);
        let mut heads = Heads::default();
        // Each turn takes one from the order, so there are no more turns than there were waiting.
        for _ in 0..=self.ends.len() {
            match self.look(now, shared, &mut heads) {
                Step::Go(ticket, domain) => {
                    let Some(waiting) = self.take(ticket, shared) else { continue };
                    let lease = self.go(
                        number,
                        now,
                        shared,
                        &waiting.ask,
                        waiting.tokens,
                        waiting.place.band,
                        domain,
                        Some(waiting.reason),
                    );
                    out.push((ticket, Verdict::Go(lease)));
                }
                Step::Refuse(ticket, refusal) => {
                    if self.take(ticket, shared).is_some() {
                        out.push((ticket, Verdict::Refuse(refusal)));
                    }
                }
                Step::Hold(ticket, domain, key) => {
                    let Some(waiting) = shared.queue.get_mut(ticket) else { continue };
                    self.fair.leave(ticket, &waiting.place);
                    (waiting.held, waiting.reason) = (Held::ForPrefix(domain, key), WaitsFor::Prefix);
                    self.held.entry((domain, key)).or_default().push(ticket);
                }
                Step::Park(tenant, until) => {
                    self.fair.park(tenant, until);
                    shared.tenants.entry(tenant).and_modify(|t| t.parked = true);
                }
                Step::Done => break,
            }
        }
        self.settle_heads(now, shared, &heads);
    }

    fn take(&mut self, ticket: Ticket, shared: &mut Shared) -> Option<Waiting> {
        let waiting = shared.queue.remove(ticket)?;
        self.leave(ticket, &waiting);
        Some(waiting)
    }

    /// Tells those whose time is over.
    fn give_up(&mut self, now: Moment, shared: &mut Shared, out: &mut Vec<(Ticket, Verdict)>) {
        while let Some((_, ticket)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            let Some(waiting) = self.take(ticket, shared) else {
                self.ends.pop_first();
                continue;
            };
            let Place { input, output, .. } = waiting.place;
            let ask = &waiting.ask;
            let own = shared.tenants.get(&ask.tenant).and_then(|t| t.wait(now, input + output));
            let refusal = match own {
                Some((limit, wait)) => Refusal::Tenant { limit, retry_after: wait.max(Duration::from_secs(1)) },
                None => {
                    let wait = self.predict(now, shared, ask, input, output);
                    Refusal::TooLong { retry_after: wait.max(Duration::from_secs(1)) }
                }
            };
            out.push((ticket, Verdict::Refuse(refusal)));
        }
    }

    /// Moves up those who have waited long enough.
    fn age(&mut self, now: Moment, shared: &mut Shared) {
        for (band, higher) in [(Band::Normal, Band::Interactive), (Band::Background, Band::Normal)] {
            while let Some(ticket) = self.fair.aged(now, band, shared.rules.ageing) {
                let weight = shared.queue.get(ticket).map_or(1.0, |w| shared.weight(w.place.tenant));
                // It may have gone or left long ago.
                let Some(waiting) = shared.queue.get_mut(ticket).filter(|w| w.place.band == band && w.held == Held::No)
                else {
                    continue;
                };
                self.fair.leave(ticket, &waiting.place);
                waiting.place.band = higher;
                self.fair.enter(now, ticket, &waiting.place, weight);
            }
        }
    }

    /// The next thing to do.
    fn look(&self, now: Moment, shared: &mut Shared, heads: &mut Heads) -> Step {
        heads.clear(self.domains.len());
        for ticket in self.fair.order().take(LOOKS) {
            let Some(waiting) = shared.queue.get(ticket) else { continue };
            let Place { tenant, input, output, .. } = waiting.place;
            let (ask, tokens) = (waiting.ask, waiting.tokens);
            let limited = shared.tenants.get(&tenant).and_then(|t| t.wait(now, input + output));
            if let Some((limit, wait)) = limited {
                if let Some(waiting) = shared.queue.get_mut(ticket) {
                    waiting.reason = WaitsFor::Tenant(limit);
                }
                let until = if limit == TenantLimit::Concurrent { Moment::NEVER } else { now + wait };
                return Step::Park(tenant, until);
            }
            let saved = waiting.saving_since.is_some_and(|since| now >= since);
            match self.choose(now, shared, &ask, tokens, &heads.work, saved) {
                Choice::Go(domain) => return Step::Go(ticket, domain),
                Choice::Hold(domain, key) => return Step::Hold(ticket, domain, key),
                Choice::Refuse(refusal) => return Step::Refuse(ticket, refusal),
                Choice::Wait(domain, blocked) => {
                    let demand = self.demand(now, shared, domain, &ask, tokens);
                    heads.speak_for(domain, ticket, blocked, demand, self.rates_of(domain));
                    if let Some(waiting) = shared.queue.get_mut(ticket) {
                        waiting.reason = blocked.by;
                    }
                }
            }
            if heads.all_spoken_for() {
                break;
            }
        }
        Step::Done
    }

    /// What the look found: who waits for which domain, and when to look again.
    fn settle_heads(&mut self, now: Moment, shared: &mut Shared, heads: &Heads) {
        let mut wake = self.ends.first().map(|(until, _)| *until);
        let mut sooner = |at: Moment| wake = Some(wake.map_or(at, |w| w.min(at)));
        for level in &mut self.meters {
            level.no_room();
        }
        for (n, head) in heads.heads.iter().enumerate() {
            let d = &mut self.domains[n];
            d.head = head.map(|h| h.blocked);
            let Some(head) = head else { continue };
            let depends = matches!(head.blocked.by, WaitsFor::InFlight | WaitsFor::Limit(Throttle::OutputTokens));
            sooner(now + if depends { head.blocked.wait.min(LOOK_AGAIN) } else { head.blocked.wait });
            let jitter = shared.rules.jitter;
            let mut saving = Duration::ZERO;
            for level in &d.meters {
                saving = saving.max(self.meters[*level].make_room(&head.demand, jitter));
            }
            let Some(waiting) = shared.queue.get_mut(head.ticket) else { continue };
            if saving.is_zero() {
                waiting.saving_since = None;
            } else {
                let at = *waiting.saving_since.get_or_insert(now + saving + SAVED_AFTER);
                sooner(at);
            }
        }
        for at in [self.fair.next_aged(shared.rules.ageing), self.fair.next_unparked()].into_iter().flatten() {
            sooner(at);
        }
        self.wake = wake;
    }

    /// A request goes: everything it takes is taken.
    #[allow(clippy::too_many_arguments, reason = "what a request is and where it goes, once")]
    pub(crate) fn go(
        &mut self,
        number: usize,
        now: Moment,
        shared: &mut Shared,
        ask: &Ask,
        tokens: f64,
        band: Band,
        domain: usize,
        waited_for: Option<WaitsFor>,
    ) -> Lease {
        let warm = ask.prefix.is_none_or(|p| {
            let d = &self.domains[domain];
            shared.warmth.tokens(now, d.org, d.workspace, p.key) > 0.0
        });
        let demand = self.demand(now, shared, domain, ask, tokens);
        let leads = self.leads(domain, ask.prefix, tokens, warm);
        let cost = self.cost(demand.input, demand.output);
        let (weight, band_weight) = (shared.weight(ask.tenant), f64::from(shared.rules.band_weights[band as usize]));
        let d = &mut self.domains[domain];
        let metered = d.knowledge != Knowledge::Unmetered;
        let (input, output_max) = (demand.input, ask.output_max.map_or(f64::INFINITY, f64::from));
        let flight = Flight {
            lane: shared.pick_lane(now, d.org, &d.keys, ask.avoid),
            class: number,
            domain,
            tenant: ask.tenant,
            band,
            mix: ask.input,
            went: now,
            began: None,
            metered,
            told: false,
            input,
            reserved: demand.reserved,
            output: demand.output,
            output_max,
            produced: 0.0,
            seen: ask.seen,
            coming: coming(demand.output, d.pace.speed),
            cost,
            tenant_tokens: input + demand.output,
            prefix: ask.prefix,
            prefix_tokens: ask.prefix.map_or(0.0, |p| tokens * f64::from(p.share)),
            conversation: ask.conversation,
            leads,
        };
        d.goes(now);
        if metered {
            for level in &d.meters {
                self.meters[*level].goes(now, &demand, &flight.coming);
            }
        }
        self.fair.went(now, ask.tenant, band, weight, band_weight, cost);
        if let Some(tenant) = shared.tenants.get_mut(&ask.tenant) {
            tenant.goes(now, flight.tenant_tokens);
        }
        let lane = flight.lane;
        let id = shared.flights.insert(flight);
        if metered {
            self.running.insert(id);
        }
        Lease { id, lane, metered, waited_for }
    }
}

/// The next thing a look does.
enum Step {
    Go(Ticket, usize),
    Hold(Ticket, usize, u64),
    Refuse(Ticket, Refusal),
    Park(TenantId, Moment),
    Done,
}

/// Who waits at the head of each domain, in one look.
#[derive(Debug, Default)]
struct Heads {
    heads: Vec<Option<Head>>,
    /// What is spoken for, seconds.
    work: Vec<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    ticket: Ticket,
    blocked: Blocked,
    demand: Demand,
}

impl Heads {
    fn clear(&mut self, domains: usize) {
        self.heads.clear();
        self.heads.resize(domains, None);
        self.work.clear();
        self.work.resize(domains, 0.0);
    }

    fn speak_for(&mut self, domain: usize, ticket: Ticket, blocked: Blocked, demand: Demand, rates: Rates) {
        self.heads[domain].get_or_insert(Head { ticket, blocked, demand });
        let part = |amount: f64, rate: f64| if rate.is_finite() && rate > 0.0 { amount / rate } else { 0.0 };
        let own = part(demand.input, rates.input).max(part(demand.output, rates.output)).max(part(1.0, rates.requests));
        self.work[domain] += own.max(1e-6);
    }

    fn all_spoken_for(&self) -> bool {
        self.heads.iter().all(Option::is_some)
    }
}
