//! The scheduler: who may ask, what is under way, and how it ends.
//!
//! Classes of models are looked at one by one (`class.rs`); what they share is here: organisations
//! and their keys, tenants, the prompt caches, the table of those who wait and of those under way.

mod audit;
mod lease;
mod renewal;

pub use audit::Audit;

use crate::ask::{
    Ask, ClassId, LaneId, Limits, OrgId, OrgSpec, Refusal, TenantId, TenantRules, Ticket, Verdict, WaitsFor,
    WorkspaceId,
};
use crate::class::Class;
use crate::fair::Place;
use crate::flight::{Flights, Held, Queue, Waiting};
use crate::retry::{Backoff, Cause, GiveUp, Retry, RetryBudget};
use crate::rules::{JITTER_MAX, Rules};
use crate::tenant::{Tenant, TenantLevels};
use crate::warmth::Warmth;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::{Moment, Prng};

/// Organisations behind clients' own credentials that are remembered; the one longest idle goes.
const CREDENTIALS_MAX: usize = 1_024;
/// Classes of models that one of them has apart; the others share one.
const CREDENTIAL_CLASSES_MAX: usize = 8;
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

/// Hands out leases.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) shared: Shared,
    /// Classes by their number, and by the organisation behind a client's own credential: those
    /// share no queue with anybody.
    numbers: BTreeMap<(ClassId, Option<OrgId>), usize>,
    pub(crate) classes: Vec<Class>,
    by_hash: BTreeMap<u64, OrgId>,
    /// What each tenant may use that is a client's own credential.
    own: TenantRules,
    /// Answers that came out of another's asking, for the next [`Scheduler::advance`].
    answered: Vec<(Ticket, Verdict)>,
    next_credential: u32,
    next_seq: u64,
    swept: Moment,
}

impl Scheduler {
    /// A scheduler for these organisations; their numbers are their places in the list.
    pub fn new(orgs: &[OrgSpec], rules: Rules) -> Self {
        let rules = Rules { jitter: rules.jitter.min(JITTER_MAX), ..rules };
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
            own: TenantRules::default(),
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

    /// What a client's own credential may use, each of those that come.
    pub fn own_tenants(&mut self, rules: &TenantRules) {
        self.own = *rules;
    }

    /// The organisation behind a client's own upstream credential, by its hash: made when it is
    /// first seen, forgotten when others need its place. Its one key is number 0; requests for it
    /// are pinned to it. It is a tenant too ([`OrgId::own_tenant`]), as long as it is known.
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
        let rules = self.own;
        self.tenant(now, id.own_tenant(), &rules);
        id
    }

    /// Forgets the credential that was idle longest and has nothing under way or waiting.
    fn forget_credential(&mut self) {
        let busy = self.numbers.iter().filter(|(_, n)| self.classes[**n].is_busy());
        let busy: std::collections::BTreeSet<OrgId> = busy.filter_map(|(key, _)| key.1).collect();
        let used = |id: &OrgId| self.shared.orgs.get(id).and_then(|o| o.credential).map(|(_, at)| at);
        let oldest = self.by_hash.values().copied().filter(|id| !busy.contains(id)).min_by_key(used);
        let Some(id) = oldest else { return };
        if let Some((hash, _)) = self.shared.orgs.remove(&id).and_then(|o| o.credential) {
            self.by_hash.remove(&hash);
        }
        self.shared.tenants.remove(&id.own_tenant());
        let places = self.numbers.iter().filter(|(key, _)| key.1 == Some(id)).map(|(k, n)| (*k, *n)).collect();
        self.empty(places);
    }

    /// The place of a class, made when it is first asked for.
    fn class(&mut self, now: Moment, class: ClassId, private: Option<OrgId>) -> usize {
        if let Some(n) = self.numbers.get(&(class, private)) {
            return *n;
        }
        let of_it = |key: &&(ClassId, Option<OrgId>)| private.is_some() && key.1 == private;
        let many = self.numbers.keys().filter(of_it).count() >= CREDENTIAL_CLASSES_MAX;
        let class = if many { ClassId(u32::MAX) } else { class };
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
            made.set_org(org, &self.shared, now);
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

    /// Forgets what was learned of a class, so that its number can be another's; false if something of
    /// it waits or is under way.
    pub fn forget(&mut self, class: ClassId) -> bool {
        let places: Vec<_> = self.numbers.iter().filter(|(key, _)| key.0 == class).map(|(k, n)| (*k, *n)).collect();
        if places.iter().any(|(_, n)| self.classes[*n].is_busy()) {
            return false;
        }
        self.empty(places);
        true
    }

    /// Classes stay as empty places, to be used again.
    fn empty(&mut self, places: Vec<((ClassId, Option<OrgId>), usize)>) {
        for (key, n) in places {
            self.numbers.remove(&key);
            self.classes[n] = Class::default();
        }
    }

    /// The organisation a request has to itself, if it came with its own credential.
    fn private(&self, ask: &Ask) -> Option<OrgId> {
        ask.pin.map(|pin| pin.org).filter(|org| org.0 >= CREDENTIALS_FROM)
    }

    /// What is known so far of how many tokens an input to this class of models has.
    pub fn estimator(&self, class: ClassId) -> crate::Estimator {
        self.numbers.get(&(class, None)).map(|n| self.classes[*n].estimator.clone()).unwrap_or_default()
    }

    /// Asks for a lease.
    pub fn ask(&mut self, now: Moment, ask: Ask) -> Verdict {
        let private = self.private(&ask);
        if private.is_some_and(|org| !self.shared.orgs.contains_key(&org)) {
            // Forgotten meanwhile; the next request makes it known again.
            return Verdict::Refuse(Refusal::QueueFull { retry_after: Duration::from_secs(1) });
        }
        let number = self.class(now, ask.class, private);
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

    /// Decides about a failed attempt.
    pub fn retry(&mut self, now: Moment, backoff: &mut Backoff, failed: &FailedAttempt, prng: &mut Prng) -> Retry {
        let private = (failed.lane.org.0 >= CREDENTIALS_FROM).then_some(failed.lane.org);
        if private.is_some_and(|org| !self.shared.orgs.contains_key(&org)) {
            return Retry::GiveUp(GiveUp::Budget);
        }
        let number = self.class(now, failed.class, private);
        let class = &mut self.classes[number];
        let lane = failed.lane;
        // By its workspace: the key itself may have been taken away meanwhile.
        let workspace = self.shared.orgs.get(&lane.org).and_then(|o| o.spec.keys.get(usize::from(lane.key)).copied());
        let domain = class.domains.iter_mut().find(|d| d.org == lane.org && workspace == Some(d.workspace));
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

    /// The classes with their numbers, those of clients' own credentials included.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (ClassId, usize)> {
        self.numbers.iter().map(|((class, _), n)| (*class, *n))
    }
}

impl Org {
    fn new(spec: OrgSpec) -> Self {
        Org { lanes: vec![Lane::default(); spec.keys.len()], spec, ..Org::default() }
    }
}
