//! The scheduler: who may ask, what is under way, and how it ends.
//!
//! Classes of models are looked at one by one (`class.rs`); what they share is here: organisations
//! and their keys, tenants, the prompt caches, the table of those who wait and of those under way.

use crate::ask::{
    Ask, ClassId, LaneId, Lease, LeaseId, Levels, Limits, OrgId, OrgSpec, Outcome, Refusal, Spent, TenantId,
    TenantRules, Throttle, Ticket, Verdict, WaitsFor, WorkspaceId,
};
use crate::class::Class;
use crate::domain::Knowledge;
use crate::fair::Place;
use crate::flight::{Flight, Flights, Held, Queue, Waiting};
use crate::retry::{Backoff, Cause, GiveUp, Retry, RetryBudget};
use crate::rules::Rules;
use crate::tenant::{Tenant, TenantLevels};
use crate::warmth::Warmth;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::{Moment, Prng};

/// Organisations behind clients' own credentials that are remembered; the one longest idle goes.
const CREDENTIALS_MAX: usize = 4_096;
/// The first of their numbers.
const CREDENTIALS_FROM: u32 = 1 << 24;
/// How often what has ended is swept out of the prompt caches' memory.
const SWEEP: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lane {
    pub(crate) in_flight: u32,
    pub(crate) rejected_until: Moment,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Org {
    pub(crate) spec: OrgSpec,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) spend_until: Moment,
    /// Behind a client's own credential: its hash, and when it was last used.
    credential: Option<(u64, Moment)>,
}

/// What all classes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) rules: Rules,
    pub(crate) orgs: BTreeMap<OrgId, Org>,
    pub(crate) tenants: BTreeMap<TenantId, Tenant>,
    pub(crate) warmth: Warmth,
    pub(crate) queue: Queue,
    pub(crate) flights: Flights,
}

impl Shared {
    /// When a key is accepted again; the past if it is now.
    pub(crate) fn lane_opens(&self, org: OrgId, key: u16) -> Moment {
        let lane = self.orgs.get(&org).and_then(|o| o.lanes.get(usize::from(key)));
        lane.map_or(Moment::NEVER, |lane| lane.rejected_until)
    }

    pub(crate) fn weight(&self, tenant: TenantId) -> f64 {
        self.tenants.get(&tenant).map_or(1.0, |t| t.weight)
    }

    /// The least busy of these keys that is accepted, another than `avoid` if there is one; counted.
    pub(crate) fn pick_lane(&mut self, now: Moment, org: OrgId, keys: &[u16], avoid: Option<LaneId>) -> LaneId {
        let lane = |key: u16| LaneId { org, key };
        let Some(o) = self.orgs.get_mut(&org) else { return lane(0) };
        let load = |key: &u16| {
            let l = o.lanes.get(usize::from(*key)).copied().unwrap_or_default();
            (l.rejected_until > now, avoid == Some(lane(*key)), l.in_flight, *key)
        };
        let key = keys.iter().map(load).min().map_or(0, |(.., key)| key);
        if let Some(l) = o.lanes.get_mut(usize::from(key)) {
            l.in_flight += 1;
        }
        lane(key)
    }
}

/// One failed attempt, for [`Scheduler::retry`].
#[derive(Clone, Copy, Debug)]
pub struct FailedAttempt {
    /// Over which lane.
    pub lane: LaneId,
    /// Of which class.
    pub class: ClassId,
    /// For whom.
    pub tenant: TenantId,
    /// Why it failed.
    pub cause: Cause,
    /// What the upstream asked to wait.
    pub asked: Option<Duration>,
    /// The last moment at which another would be of use.
    pub deadline: Moment,
}

/// What an audit found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Audit {
    /// Leases that are out.
    pub leases: u64,
    /// By how much counters and the sum over the leases differ, in requests and tokens; 0, or there
    /// is a bug.
    pub difference: f64,
}

/// Hands out leases.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) shared: Shared,
    /// Classes by their number, and by the organisation behind a client's own credential: those
    /// share no queue with anybody.
    numbers: BTreeMap<(ClassId, Option<OrgId>), usize>,
    pub(crate) classes: Vec<Class>,
    by_hash: BTreeMap<u64, OrgId>,
    /// Answers that came out of another's asking, for the next [`Scheduler::advance`].
    answered: Vec<(Ticket, Verdict)>,
    next_credential: u32,
    next_seq: u64,
    swept: Moment,
}

impl Scheduler {
    /// A scheduler for these organisations; their numbers are their places in the list.
    pub fn new(orgs: &[OrgSpec], rules: Rules) -> Self {
        let orgs = orgs.iter().zip(0..).map(|(spec, n)| (OrgId(n), Org::new(spec.clone()))).collect();
        Scheduler {
            shared: Shared {
                rules,
                orgs,
                tenants: BTreeMap::new(),
                warmth: Warmth::default(),
                queue: Queue::default(),
                flights: Flights::default(),
            },
            numbers: BTreeMap::new(),
            classes: Vec::new(),
            by_hash: BTreeMap::new(),
            answered: Vec::new(),
            next_credential: CREDENTIALS_FROM,
            next_seq: 0,
            swept: Moment::ZERO,
        }
    }

    /// Limits from the configuration, of an organisation or of one of its workspaces, in a class.
    /// Without them a domain's limits are learned from what its answers say.
    pub fn know(&mut self, now: Moment, org: OrgId, workspace: Option<WorkspaceId>, class: ClassId, limits: Limits) {
        let number = self.class(now, class, None);
        self.classes[number].know(org, workspace, limits, now);
    }

    /// What a tenant may use; without it, everything, with a weight of 1.
    pub fn tenant(&mut self, now: Moment, tenant: TenantId, rules: &TenantRules) {
        let retries = RetryBudget::new(self.shared.rules.retry.budget);
        self.shared.tenants.insert(tenant, Tenant::new(rules, retries, now));
    }

    /// The organisation behind a client's own upstream credential, by its hash: made when it is
    /// first seen, forgotten when others need its place. Its one key is number 0; requests for it
    /// are pinned to it.
    pub fn credential(&mut self, now: Moment, hash: u64) -> OrgId {
        if let Some(id) = self.by_hash.get(&hash).copied() {
            if let Some(org) = self.shared.orgs.get_mut(&id) {
                org.credential = Some((hash, now));
            }
            return id;
        }
        if self.by_hash.len() >= CREDENTIALS_MAX {
            self.forget_credential();
        }
        let id = OrgId(self.next_credential);
        self.next_credential = self.next_credential.wrapping_add(1).max(CREDENTIALS_FROM);
        let mut org = Org::new(OrgSpec { keys: vec![None], ..OrgSpec::default() });
        org.credential = Some((hash, now));
        self.shared.orgs.insert(id, org);
        self.by_hash.insert(hash, id);
        id
    }

    /// Forgets the credential that was idle longest and has nothing under way or waiting.
    fn forget_credential(&mut self) {
        let busy = |id: OrgId| {
            let of = |(key, n): (&(ClassId, Option<OrgId>), &usize)| key.1 == Some(id) && self.classes[*n].is_busy();
            self.numbers.iter().any(of)
        };
        let used = |id: &OrgId| self.shared.orgs.get(id).and_then(|o| o.credential).map(|(_, at)| at);
        let oldest = self.by_hash.values().copied().filter(|id| !busy(*id)).min_by_key(used);
        let Some(id) = oldest else { return };
        if let Some((hash, _)) = self.shared.orgs.remove(&id).and_then(|o| o.credential) {
            self.by_hash.remove(&hash);
        }
        // Its classes stay as empty places, to be used again.
        let places: Vec<_> = self.numbers.iter().filter(|(key, _)| key.1 == Some(id)).map(|(k, n)| (*k, *n)).collect();
        for (key, n) in places {
            self.numbers.remove(&key);
            self.classes[n] = Class::default();
        }
    }

    /// The place of a class, made when it is first asked for.
    fn class(&mut self, now: Moment, class: ClassId, private: Option<OrgId>) -> usize {
        if let Some(n) = self.numbers.get(&(class, private)) {
            return *n;
        }
        let mut made = Class::default();
        let orgs = self.shared.orgs.iter();
        let members: Vec<OrgId> = match private {
            Some(id) => vec![id],
            None => orgs.filter(|(_, o)| o.credential.is_none()).map(|(id, _)| *id).collect(),
        };
        for org in members {
            made.add_org(org, &self.shared, now);
        }
        let taken: std::collections::BTreeSet<usize> = self.numbers.values().copied().collect();
        let free = (0..self.classes.len()).find(|n| !taken.contains(n));
        let n = match free {
            Some(n) => {
                self.classes[n] = made;
                n
            }
            None => {
                self.classes.push(made);
                self.classes.len() - 1
            }
        };
        self.numbers.insert((class, private), n);
        n
    }

    /// The organisation a request has to itself, if it came with its own credential.
    fn private(&self, ask: &Ask) -> Option<OrgId> {
        ask.pin.map(|pin| pin.org).filter(|org| org.0 >= CREDENTIALS_FROM)
    }

    /// Asks for a lease.
    pub fn ask(&mut self, now: Moment, ask: Ask) -> Verdict {
        let number = self.class(now, ask.class, self.private(&ask));
        if !self.shared.tenants.contains_key(&ask.tenant) {
            self.tenant(now, ask.tenant, &TenantRules::default());
        }
        let class = &mut self.classes[number];
        let tokens = class.estimator.tokens(&ask.input);
        let output = class.output_of(&ask);
        let input = class.least_input(now, &self.shared, &ask, tokens);
        let own = self.shared.tenants.get(&ask.tenant).and_then(|t| t.wait(now, input + output));
        match class.at_once(now, &mut self.shared, &ask, tokens) {
            Err(refusal) => return Verdict::Refuse(refusal),
            Ok(Some(domain)) if own.is_none() => {
                return Verdict::Go(class.go(number, now, &mut self.shared, &ask, tokens, ask.band, domain, None));
            }
            Ok(_) => {}
        }
        let cap = self.shared.rules.queue.wait_max[ask.band as usize].saturating_sub(ask.waited);
        let until = ask.latest.min(now + cap);
        if let Some((limit, wait)) = own {
            let wait = wait.max(self.own_backlog(now, number, &ask, input + output));
            if now + wait > until {
                return Verdict::Refuse(Refusal::Tenant { limit, retry_after: wait });
            }
        }
        let class = &mut self.classes[number];
        let wait = class.predict(now, &self.shared, &ask, input, output);
        if now + wait > until || until <= now {
            let late = (now + wait).since(until).max(Duration::from_secs(1));
            return Verdict::Refuse(Refusal::TooLong { retry_after: late });
        }
        if self.shared.queue.len() >= self.shared.rules.queue.waiting_max {
            return Verdict::Refuse(Refusal::QueueFull { retry_after: wait.max(Duration::from_secs(1)) });
        }
        self.next_seq += 1;
        let place = Place { tenant: ask.tenant, band: ask.band, until, seq: self.next_seq, input, output };
        let reason = own.map_or(WaitsFor::Turn, |(limit, _)| WaitsFor::Tenant(limit));
        let waiting = Waiting { ask, class: number, place, tokens, held: Held::No, reason, saving_since: None };
        let ticket = self.shared.queue.insert(waiting);
        class.enter(now, ticket, &place, self.shared.weight(ask.tenant));
        // It may be its turn at once: those before it may wait for what it does not need.
        class.run(number, now, &mut self.shared, &mut self.answered);
        match self.answered.iter().position(|(other, _)| *other == ticket) {
            Some(n) => self.answered.swap_remove(n).1,
            None => Verdict::Wait(ticket),
        }
    }

    /// How long a tenant's own limits will need for what it has waiting, with `tokens` more.
    fn own_backlog(&self, now: Moment, number: usize, ask: &Ask, tokens: f64) -> Duration {
        let Some(tenant) = self.shared.tenants.get(&ask.tenant) else { return Duration::ZERO };
        let (sum, _) = self.classes[number].fair.own(ask.band, ask.tenant, tenant.weight);
        tenant.backlog(now, sum.count as f64 + 1.0, sum.input + sum.output + tokens)
    }

    /// Leaves the queue. Nothing happens if the ticket was answered already.
    pub fn cancel(&mut self, now: Moment, ticket: Ticket) {
        if let Some(waiting) = self.shared.queue.remove(ticket) {
            let class = &mut self.classes[waiting.class];
            class.leave(ticket, &waiting);
            class.touch(now);
        }
    }

    /// Answers whoever can be answered now. Call it after every other call, and at
    /// [`Scheduler::wake_at`].
    pub fn advance(&mut self, now: Moment) -> Vec<(Ticket, Verdict)> {
        let mut out = std::mem::take(&mut self.answered);
        for number in 0..self.classes.len() {
            if self.classes[number].wake_at().is_some_and(|at| at <= now) {
                self.classes[number].run(number, now, &mut self.shared, &mut out);
            }
        }
        if now.since(self.swept) > SWEEP {
            self.swept = now;
            self.shared.warmth.sweep(now);
        }
        out
    }

    /// When [`Scheduler::advance`] has something to do again, if nothing else happens before.
    pub fn wake_at(&self, now: Moment) -> Option<Moment> {
        if !self.answered.is_empty() {
            return Some(now);
        }
        self.classes.iter().filter_map(Class::wake_at).min()
    }

    /// A lease's request is written to its last byte.
    pub fn sent(&mut self, now: Moment, id: LeaseId) {
        let Some(flight) = self.shared.flights.get(id) else { return };
        self.classes[flight.class].domains[flight.domain].sent(now, flight.went);
    }

    /// The head of a lease's answer came, and told these levels.
    pub fn heard(&mut self, now: Moment, id: LeaseId, levels: &Levels) {
        let Some(flight) = self.shared.flights.get_mut(id).filter(|_| !levels.is_silent()) else { return };
        flight.told = true;
        let class = &mut self.classes[flight.class];
        let d = &mut class.domains[flight.domain];
        let first = d.knowledge != Knowledge::Metered;
        d.knowledge = Knowledge::Metered;
        if first {
            // What runs already was not counted while nothing was known to be metered.
            d.window = None;
        }
        let late = d.late(self.shared.rules.jitter);
        let level = class.level_told(flight.domain, levels);
        let alone = class.meters[level].in_flight == 1;
        class.meters[level].hear(now, flight.went, levels, late, alone);
        if first {
            class.meters[level].forget_assumed();
        }
        class.touch(now);
    }

    /// The first event of a lease's answer came, or the whole of a buffered one: it is no refusal.
    pub fn began(&mut self, now: Moment, id: LeaseId) {
        let Some(flight) = self.shared.flights.get_mut(id).filter(|f| f.began.is_none()) else { return };
        flight.began = Some(now);
        let (class, domain, went) = (flight.class, flight.domain, flight.went);
        let led = flight.leads.then_some(flight.prefix).flatten();
        flight.leads = false;
        let tokens = flight.prefix_tokens;
        let told = flight.told;
        let class = &mut self.classes[class];
        let d = &mut class.domains[domain];
        d.began(now.since(went));
        if d.knowledge == Knowledge::Unknown && !told {
            d.knowledge = Knowledge::Unmetered;
            class.unmetered(domain);
        }
        if let Some(prefix) = led {
            let d = &class.domains[domain];
            self.shared.warmth.learn((went, prefix.ttl), d.org, d.workspace, prefix.key, tokens);
            class.led(now, domain, prefix.key, &mut self.shared);
        }
        class.touch(now);
    }

    /// So many output tokens of these leases have come since the last time.
    pub fn progressed(&mut self, now: Moment, produced: &[(LeaseId, u32)]) {
        for (id, tokens) in produced {
            let Some(flight) = self.shared.flights.get_mut(*id).filter(|f| f.metered) else { continue };
            flight.produced += f64::from(*tokens);
            if flight.reserved > 0.0 {
                continue;
            }
            let class = &mut self.classes[flight.class];
            for level in &class.domains[flight.domain].meters {
                class.meters[*level].take(now, 0.0, 0.0, f64::from(*tokens));
            }
            class.touch(now);
        }
    }

    /// Ends a lease.
    pub fn settle(&mut self, now: Moment, lease: Lease, outcome: Outcome) {
        let Some(flight) = self.shared.flights.remove(lease.id) else { return };
        let class = &mut self.classes[flight.class];
        class.ends_flight(lease.id, &flight);
        if let Some(lane) =
            self.shared.orgs.get_mut(&flight.lane.org).and_then(|o| o.lanes.get_mut(usize::from(flight.lane.key)))
        {
            lane.in_flight = lane.in_flight.saturating_sub(1);
        }
        if let Some(tenant) = self.shared.tenants.get_mut(&flight.tenant) {
            tenant.in_flight = tenant.in_flight.saturating_sub(1);
        }
        self.let_back(flight.tenant);
        self.close(now, &flight, outcome);
        let class = &mut self.classes[flight.class];
        if let (true, Some(prefix)) = (flight.leads, flight.prefix) {
            // Nobody was told that it is there, so the next one goes ahead.
            class.led(now, flight.domain, prefix.key, &mut self.shared);
        }
        class.touch(now);
    }

    /// A tenant that may have waited for one of its own requests to end.
    fn let_back(&mut self, tenant: TenantId) {
        let parked = self.shared.tenants.get_mut(&tenant).is_some_and(|t| std::mem::take(&mut t.parked));
        if parked {
            for class in &mut self.classes {
                class.fair.release(tenant);
            }
        }
    }

    /// What an outcome means for keys, domain, buckets and tenant.
    fn close(&mut self, now: Moment, flight: &Flight, outcome: Outcome) {
        let class = &mut self.classes[flight.class];
        match outcome {
            Outcome::Answered(spent) => self.gave_an_answer(now, flight, spent),
            Outcome::Failed => {
                class.domains[flight.domain].breaker.undecided(now);
                self.charge_output(now, flight, flight.produced);
            }
            Outcome::NotSent => {
                class.domains[flight.domain].breaker.undecided(now);
                self.refund(now, flight);
            }
            Outcome::Broken | Outcome::Overloaded { .. } => {
                let open = class.domains.iter().filter(|d| d.breaker.is_open(now)).count();
                let may = (open + 1) * 2 <= class.domains.len();
                class.domains[flight.domain].breaker.failed(now, may);
                class.maybe_back(flight);
                self.charge_output(now, flight, flight.produced);
            }
            Outcome::Throttled { by, retry_after } => self.throttled(now, flight, by, retry_after),
            Outcome::KeyRejected { retry_after } => {
                class.domains[flight.domain].breaker.undecided(now);
                let org = self.shared.orgs.get_mut(&flight.lane.org);
                if let Some(lane) = org.and_then(|o| o.lanes.get_mut(usize::from(flight.lane.key))) {
                    lane.rejected_until = lane.rejected_until.max(now + retry_after);
                }
                self.refund(now, flight);
            }
        }
    }

    fn gave_an_answer(&mut self, now: Moment, flight: &Flight, spent: Option<Spent>) {
        let class = &mut self.classes[flight.class];
        let d = &mut class.domains[flight.domain];
        d.succeeded(now);
        if d.knowledge == Knowledge::Unknown && !flight.told {
            d.knowledge = Knowledge::Unmetered;
            class.unmetered(flight.domain);
        }
        if let Some(tenant) = self.shared.tenants.get_mut(&flight.tenant) {
            tenant.retries.succeeded();
        }
        let Some(spent) = spent else { return self.charge_output(now, flight, flight.produced) };
        let d = &mut class.domains[flight.domain];
        if let Some(began) = flight.began {
            d.paced(spent.output as f64, now.since(began));
        }
        let (org, workspace) = (d.org, d.workspace);
        class
            .estimator
            .learn(&flight.mix, spent.input.saturating_add(spent.cache_creation).saturating_add(spent.cache_read));
        class.learn_length(flight.tenant, spent.output);
        let cached = spent.cache_creation.saturating_add(spent.cache_read) as f64;
        for (prefix, most) in [(flight.prefix, flight.prefix_tokens), (flight.conversation, f64::INFINITY)] {
            if let Some(p) = prefix {
                self.shared.warmth.learn((flight.went, p.ttl), org, workspace, p.key, cached.min(most));
            }
        }
        let uncached = spent.input.saturating_add(spent.cache_creation) as f64;
        if flight.metered {
            let more = uncached - flight.input;
            for level in &class.domains[flight.domain].meters {
                class.meters[*level].take(now, 0.0, more, 0.0);
            }
        }
        let more = class.cost(uncached, spent.output as f64) - flight.cost;
        class.fair.correct(flight.band, flight.tenant, self.shared.weight(flight.tenant), more);
        if let Some(tenant) = self.shared.tenants.get_mut(&flight.tenant) {
            tenant.correct(now, uncached + spent.output as f64 - flight.tenant_tokens);
        }
        self.charge_output_only(now, flight, spent.output as f64);
    }

    /// The answer ended after `output` tokens and nobody told what it used.
    fn charge_output(&mut self, now: Moment, flight: &Flight, output: f64) {
        if let Some(tenant) = self.shared.tenants.get_mut(&flight.tenant) {
            tenant.correct(now, flight.input + output - flight.tenant_tokens);
        }
        let class = &mut self.classes[flight.class];
        let more = class.cost(flight.input, output) - flight.cost;
        class.fair.correct(flight.band, flight.tenant, self.shared.weight(flight.tenant), more);
        self.charge_output_only(now, flight, output);
    }

    fn charge_output_only(&mut self, now: Moment, flight: &Flight, output: f64) {
        if !flight.metered {
            return;
        }
        let taken = if flight.reserved > 0.0 { flight.reserved } else { flight.produced };
        let class = &mut self.classes[flight.class];
        for level in &class.domains[flight.domain].meters {
            class.meters[*level].take(now, 0.0, 0.0, output - taken);
        }
    }

    /// Nothing of it counts.
    fn refund(&mut self, now: Moment, flight: &Flight) {
        if let Some(tenant) = self.shared.tenants.get_mut(&flight.tenant) {
            tenant.give_back(now, flight.tenant_tokens);
        }
        let class = &mut self.classes[flight.class];
        class.fair.correct(flight.band, flight.tenant, self.shared.weight(flight.tenant), -flight.cost);
        if flight.metered {
            for level in &class.domains[flight.domain].meters {
                class.meters[*level].take(now, -1.0, -flight.input, -flight.reserved.max(flight.produced));
            }
        }
    }

    fn throttled(&mut self, now: Moment, flight: &Flight, by: Throttle, retry_after: Option<Duration>) {
        self.refund(now, flight);
        let class = &mut self.classes[flight.class];
        let d = &mut class.domains[flight.domain];
        d.breaker.undecided(now);
        if by == Throttle::SpendCap {
            d.last_throttle = Some((now, by));
            d.throttled += 1;
            if let Some(org) = self.shared.orgs.get_mut(&flight.lane.org) {
                org.spend_until = org.spend_until.max(now + retry_after.unwrap_or(Duration::from_secs(900)));
            }
            return;
        }
        d.throttled(now, by, retry_after);
        for level in &class.domains[flight.domain].meters {
            class.meters[*level].blame(now, by, flight.input);
        }
    }

    /// Decides about a failed attempt.
    pub fn retry(&mut self, now: Moment, backoff: &mut Backoff, failed: &FailedAttempt, prng: &mut Prng) -> Retry {
        let private = (failed.lane.org.0 >= CREDENTIALS_FROM).then_some(failed.lane.org);
        let number = self.class(now, failed.class, private);
        let class = &mut self.classes[number];
        let lane = failed.lane;
        let domain = class.domains.iter_mut().find(|d| d.org == lane.org && d.keys.contains(&lane.key));
        let tenant = self.shared.tenants.get_mut(&failed.tenant);
        let (Some(domain), Some(tenant)) = (domain, tenant) else { return Retry::GiveUp(GiveUp::Budget) };
        let budgets = &mut [&mut domain.retries, &mut tenant.retries];
        backoff.failed(failed.cause, failed.asked, now, failed.deadline, budgets, prng)
    }

    /// Leases that are out.
    pub fn leased(&self) -> u64 {
        self.shared.flights.len() as u64
    }

    /// Requests that wait, by the band they asked for.
    pub fn waiting(&self) -> [usize; 3] {
        let mut all = [0; 3];
        self.shared.queue.values().for_each(|w| all[w.ask.band as usize] += 1);
        all
    }

    /// A tenant's own limits, as its answers show them; `None` if it has none.
    pub fn tenant_levels(&self, now: Moment, tenant: TenantId) -> Option<TenantLevels> {
        self.shared.tenants.get(&tenant)?.levels(now)
    }

    /// Compares the counters with the sum over the leases, in one pass over these.
    pub fn audit(&self) -> Audit {
        let mut domains: BTreeMap<(usize, usize), i64> = BTreeMap::new();
        let mut lanes: BTreeMap<LaneId, i64> = BTreeMap::new();
        let mut tenants: BTreeMap<TenantId, i64> = BTreeMap::new();
        let mut levels: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        for f in self.shared.flights.values() {
            *domains.entry((f.class, f.domain)).or_default() += 1;
            *lanes.entry(f.lane).or_default() += 1;
            *tenants.entry(f.tenant).or_default() += 1;
            for level in self.classes[f.class].domains[f.domain].meters.iter().filter(|_| f.metered) {
                *levels.entry((f.class, *level)).or_default() += f.coming.iter().sum::<f64>();
            }
        }
        for (n, class) in self.classes.iter().enumerate() {
            for (m, d) in class.domains.iter().enumerate() {
                *domains.entry((n, m)).or_default() -= i64::from(d.in_flight);
            }
            for (m, meters) in class.meters.iter().enumerate() {
                *levels.entry((n, m)).or_default() -= meters.coming.iter().sum::<f64>();
            }
        }
        for (org, o) in &self.shared.orgs {
            for (key, lane) in (0u16..).zip(&o.lanes) {
                *lanes.entry(LaneId { org: *org, key }).or_default() -= i64::from(lane.in_flight);
            }
        }
        for (id, tenant) in &self.shared.tenants {
            *tenants.entry(*id).or_default() -= i64::from(tenant.in_flight);
        }
        let counts = domains.into_values().chain(lanes.into_values()).chain(tenants.into_values());
        let counted: u64 = counts.map(i64::unsigned_abs).sum();
        // Sums of floating numbers, taken apart in another order than they were put together.
        let summed: f64 = levels.into_values().map(f64::abs).filter(|off| *off > 1.0).sum();
        Audit { leases: self.shared.flights.len() as u64, difference: counted as f64 + summed }
    }

    /// The classes with their numbers, those of clients' own credentials included.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        self.numbers.iter().map(|((class, _), n)| (*class, &self.classes[*n]))
    }
}

impl Org {
    fn new(spec: OrgSpec) -> Self {
        Org { lanes: vec![Lane::default(); spec.keys.len()], spec, ..Org::default() }
    }
}
