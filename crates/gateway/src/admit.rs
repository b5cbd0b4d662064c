//! Phase 7, admit: a lease on a quota domain, now, after waiting, or not at all.
//!
//! This is the host of the pure scheduler: one lock around it, held for microseconds a few times
//! per request and never per event; a channel for each request that waits; one task that wakes the
//! scheduler when time alone changes something. A request that stops waiting takes its ticket
//! back; a lease that was on its way to it goes back as well.

use crate::alarms::Alarms;
use crate::settings::Settings;
use crate::tenants::{OWN, Tenants};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_base::{Moment, Prng, StreamId};
use tidegate_observe::Metrics;
use tidegate_schedule::{
    Ask, Backoff, ClassId, DomainView, Estimator, FailedAttempt, LaneId, Lease, LeaseId, Levels, Limits, OrgId,
    Outcome, Refusal, Retry, Scheduler, TenantId, TenantLevels, Ticket, Verdict, WaitView, WaitsFor, WorkspaceId,
};
use tidegate_transport::Clock;
use tidegate_wire::usage::Usage;
use tokio::sync::{Notify, oneshot};

/// How often the sum of the leases is compared with the scheduler's counters, and breakers are
/// looked at.
const AUDIT_EVERY: Duration = Duration::from_secs(1);

/// How old what is told to waiting streams may be.
const WAITS_SEEN_FOR: Duration = Duration::from_millis(500);

struct Waiting {
    stream: StreamId,
    answer: oneshot::Sender<Verdict>,
}

struct State {
    scheduler: Scheduler,
    waiting: BTreeMap<Ticket, Waiting>,
    alarms: Alarms,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    changed: Notify,
    metrics: Metrics,
    /// What all waited for, and when that was looked up.
    waits_seen: Mutex<(Moment, BTreeMap<StreamId, WaitView>)>,
}

/// The scheduler with its lock, its waiters and its alarm. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Admission(Arc<Shared>);

impl Admission {
    pub(crate) fn new(clock: Clock, settings: &Settings, tenants: &Tenants, metrics: Metrics) -> Self {
        let specs: Vec<_> = settings.organisations.iter().map(|o| o.spec()).collect();
        let mut scheduler = Scheduler::new(&specs, settings.schedule);
        tenants.iter().for_each(|t| scheduler.tenant(clock.now(), t.id, &t.rules));
        tenants.named(OWN).into_iter().for_each(|own| scheduler.own_tenants(&own.rules));
        let state = State { scheduler, waiting: BTreeMap::new(), alarms: Alarms::new(&settings.organisations) };
        Admission(Arc::new(Shared {
            clock,
            state: Mutex::new(state),
            changed: Notify::new(),
            metrics,
            waits_seen: Mutex::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the scheduler that may let waiting requests go, and lets them.
    fn change<T>(&self, change: impl FnOnce(&mut State, Moment) -> T) -> T {
        let now = self.0.clock.now();
        let mut state = self.state();
        let changed = change(&mut state, now);
        if !state.waiting.is_empty() {
            self.advance(&mut state, now);
            // What is waited for next may have another hour.
            self.0.changed.notify_one();
        }
        changed
    }

    /// Hands out what the scheduler can answer now. A lease for somebody who has left goes back,
    /// which may let another go, so it is asked until nothing changes.
    fn advance(&self, state: &mut State, now: Moment) {
        loop {
            let answers = state.scheduler.advance(now);
            if answers.is_empty() {
                break;
            }
            for (ticket, verdict) in answers {
                let undelivered = match state.waiting.remove(&ticket) {
                    Some(waiting) => waiting.answer.send(verdict).err(),
                    None => Some(verdict),
                };
                if let Some(Verdict::Go(lease)) = undelivered {
                    state.scheduler.settle(now, lease, Outcome::NotSent);
                }
            }
        }
    }

    /// Asks for a lease and waits for it; `stream` is whose.
    pub(crate) async fn lease(&self, ask: Ask, stream: StreamId) -> Result<LeaseGuard, Refusal> {
        // Others may get their turn by this asking, so it is a change like any.
        let asked = self.change(|state, now| match state.scheduler.ask(now, ask) {
            Verdict::Go(lease) => Ok(Ok(lease)),
            Verdict::Refuse(refusal) => Ok(Err(refusal)),
            Verdict::Wait(ticket) => {
                let (send, answer) = oneshot::channel();
                state.waiting.insert(ticket, Waiting { stream, answer: send });
                Err((ticket, answer))
            }
        });
        let (ticket, answer) = match asked {
            Ok(answered) => return answered.map(|lease| LeaseGuard::new(self, lease)),
            Err(waits) => waits,
        };
        let mut waiter = Waiter { admission: self, ticket, answer, is_answered: false };
        let answer = (&mut waiter.answer).await;
        waiter.is_answered = true;
        match answer {
            Ok(Verdict::Go(lease)) => Ok(LeaseGuard::new(self, lease)),
            Ok(Verdict::Refuse(refusal)) => Err(refusal),
            // The sender is dropped only together with the scheduler.
            Ok(Verdict::Wait(_)) | Err(_) => Err(Refusal::QueueFull { retry_after: Duration::from_secs(1) }),
        }
    }

    /// The settings are these now.
    pub(crate) fn renew(&self, settings: &Settings, tenants: &Tenants) {
        let specs: Vec<_> = settings.organisations.iter().map(|o| o.spec()).collect();
        self.change(|state, now| {
            state.alarms.are_about(&settings.organisations);
            let scheduler = &mut state.scheduler;
            scheduler.set_rules(now, settings.schedule);
            scheduler.set_organisations(now, &specs);
            tenants.iter().for_each(|t| scheduler.set_tenant(now, t.id, &t.rules));
            tenants.named(OWN).into_iter().for_each(|own| scheduler.own_tenants(&own.rules));
        });
    }

    /// Decides about a failed attempt.
    pub(crate) fn retry(&self, backoff: &mut Backoff, failed: &FailedAttempt, prng: &mut Prng) -> Retry {
        let now = self.0.clock.now();
        self.state().scheduler.retry(now, backoff, failed, prng)
    }

    /// The organisation behind a client's own credential, by its hash, and the tenant that it is: no
    /// two credentials share limits, a share or a retry budget.
    pub(crate) fn credential(&self, hash: u64) -> (OrgId, TenantId) {
        let now = self.0.clock.now();
        let org = self.state().scheduler.credential(now, hash);
        (org, org.own_tenant())
    }

    /// What is known of how many tokens an input to this class of models has.
    pub(crate) fn estimator(&self, class: ClassId) -> Estimator {
        self.state().scheduler.estimator(class)
    }

    /// Forgets what was learned of a class; false if something of it waits or is under way.
    pub(crate) fn forget(&self, class: ClassId) -> bool {
        self.state().scheduler.forget(class)
    }

    /// What the configuration says of the limits of a class.
    pub(crate) fn know(&self, org: OrgId, workspace: Option<WorkspaceId>, class: ClassId, limits: Limits) {
        let now = self.0.clock.now();
        self.state().scheduler.know(now, org, workspace, class, limits);
    }

    /// Output tokens of leases since the last time.
    pub(crate) fn progressed(&self, produced: &[(LeaseId, u32)]) {
        self.change(|state, now| state.scheduler.progressed(now, produced));
    }

    /// What is left of a tenant's own limits, if it has any.
    pub(crate) fn tenant_levels(&self, tenant: TenantId) -> Option<TenantLevels> {
        let now = self.0.clock.now();
        self.state().scheduler.tenant_levels(now, tenant)
    }

    /// Requests that wait, and leases that are out.
    pub(crate) fn counts(&self) -> (usize, u64) {
        let state = self.state();
        (state.scheduler.waiting().iter().sum(), state.scheduler.leased())
    }

    /// The domains as they are now.
    pub(crate) fn domains(&self) -> Vec<DomainView> {
        let now = self.0.clock.now();
        self.state().scheduler.domains(now)
    }

    /// What each waiting request waits for.
    pub(crate) fn waits(&self) -> BTreeMap<StreamId, WaitView> {
        let now = self.0.clock.now();
        let state = self.state();
        let waits = state.scheduler.all_waits(now);
        waits.into_iter().filter_map(|(ticket, wait)| Some((state.waiting.get(&ticket)?.stream, wait))).collect()
    }

    /// What `stream` waits for, as of half a second ago at most: asked for by every stream that tells
    /// its client, so all are looked up at once.
    pub(crate) fn wait_of(&self, stream: StreamId, now: Moment) -> Option<WaitView> {
        let mut seen = self.0.waits_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= seen.0 + WAITS_SEEN_FOR {
            *seen = (now, self.waits());
        }
        seen.1.get(&stream).copied()
    }

    /// Compares the leases with the counters.
    fn audit(&self) {
        let now = self.0.clock.now();
        let mut state = self.state();
        self.0.metrics.lease_audit(state.scheduler.audit().difference);
        let domains = state.scheduler.domains(now);
        state.alarms.looked(&domains);
    }

    /// The alarm: runs until it is dropped, and wakes the scheduler when time changes something.
    pub(crate) async fn run(self) {
        let mut audit_at = self.0.clock.now() + AUDIT_EVERY;
        loop {
            let now = self.0.clock.now();
            if now >= audit_at {
                self.audit();
                audit_at = now + AUDIT_EVERY;
            }
            let wake_at = {
                let mut state = self.state();
                self.advance(&mut state, now);
                state.scheduler.wake_at(now)
            };
            let wake_at = wake_at.map_or(audit_at, |at| at.max(now + Duration::from_millis(1)).min(audit_at));
            self.0.clock.by(wake_at, self.0.changed.notified()).await;
        }
    }
}

/// A place in the queue; leaving it is a matter of dropping it.
struct Waiter<'a> {
    admission: &'a Admission,
    ticket: Ticket,
    answer: oneshot::Receiver<Verdict>,
    is_answered: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        self.answer.close();
        self.admission.change(|state, now| {
            if state.waiting.remove(&self.ticket).is_some() {
                state.scheduler.cancel(now, self.ticket);
            }
            if let Ok(Verdict::Go(lease)) = self.answer.try_recv() {
                state.scheduler.settle(now, lease, Outcome::NotSent);
            }
        });
    }
}

/// A lease on its way through the path. It ends in [`LeaseGuard::settle`]; one that is dropped
/// without (a bug, or a panic) goes back and is counted as leaked.
pub(crate) struct LeaseGuard {
    admission: Admission,
    lease: Option<Lease>,
    id: LeaseId,
    lane: LaneId,
    metered: bool,
    waited_for: Option<WaitsFor>,
    input: u64,
    sent: AtomicBool,
}

impl LeaseGuard {
    fn new(admission: &Admission, lease: Lease) -> Self {
        LeaseGuard {
            admission: admission.clone(),
            id: lease.id(),
            lane: lease.lane(),
            metered: lease.metered(),
            waited_for: lease.waited_for(),
            input: lease.input(),
            lease: Some(lease),
            sent: AtomicBool::new(false),
        }
    }

    pub(crate) fn lane(&self) -> LaneId {
        self.lane
    }

    pub(crate) fn id(&self) -> LeaseId {
        self.id
    }

    /// Whether the scheduler wants to know what is produced.
    pub(crate) fn is_metered(&self) -> bool {
        self.metered
    }

    /// Why it was waited for, if it was.
    pub(crate) fn waited_for(&self) -> Option<WaitsFor> {
        self.waited_for
    }

    /// Uncached input tokens it was thought to have.
    pub(crate) fn input(&self) -> u64 {
        self.input
    }

    /// Whether the request was sent whole.
    pub(crate) fn was_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// The request's last byte was written.
    pub(crate) fn sent(&self) {
        self.sent.store(true, Ordering::Relaxed);
        if !self.metered {
            // How late it was says something of limits only.
            return;
        }
        let now = self.admission.0.clock.now();
        self.admission.state().scheduler.sent(now, self.id);
    }

    /// The answer's head came; `organisation` is what the upstream calls it.
    pub(crate) fn heard(&self, levels: &Levels, organisation: Option<&str>) {
        if levels.is_silent() && organisation.is_none() {
            return;
        }
        self.admission.change(|state, now| {
            state.scheduler.heard(now, self.id, levels);
            if let Some(id) = organisation {
                state.alarms.called(self.lane.org, id);
            }
        });
    }

    /// The answer's first event came, and told this of its input; nothing if all is zero.
    pub(crate) fn began(&self, usage: &Usage) {
        let uncached = usage.input.saturating_add(usage.cache_creation);
        let told = uncached > 0 || usage.cache_read > 0;
        self.admission.change(|state, now| {
            state.scheduler.began(now, self.id);
            if told {
                state.scheduler.counted(now, self.id, uncached);
            }
        });
    }

    /// Gives the lease back with what it led to.
    pub(crate) fn settle(mut self, outcome: Outcome) {
        self.give_back(outcome);
    }

    fn give_back(&mut self, outcome: Outcome) {
        let Some(lease) = self.lease.take() else { return };
        self.admission.change(|state, now| {
            state.alarms.settled(self.lane, &outcome);
            state.scheduler.settle(now, lease, outcome);
        });
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        if self.lease.is_some() {
            self.admission.0.metrics.lease_leaked();
            self.give_back(Outcome::Failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Organisation;
    use tidegate_base::{IdSource, Secret};
    use tidegate_schedule::{Band, Mix, Throttle};
    use tidegate_transport::{TaskKind, Tasks};
    use tidegate_upstream::{Lane, Scheme};

    const ALARM: TaskKind = TaskKind { name: "alarm", on_cancel: "ends", on_error: "ends" };

    struct Scene {
        admission: Admission,
        ask: Ask,
        stream: StreamId,
    }

    fn scene() -> Scene {
        let clock = Clock::real();
        let lane = Lane::new("a/1", "http://a", Scheme::ApiKey, Secret::new("k")).unwrap();
        let organisations = vec![Organisation::new("a", vec![Arc::new(lane)])];
        let settings = Settings { organisations, ..Settings::default() };
        let tenants = Tenants::new(&settings);
        let admission = Admission::new(clock, &settings, &tenants, Metrics::new());
        Tasks::new().spawn(&ALARM, admission.clone().run());
        let ask = Ask {
            class: ClassId(0),
            tenant: TenantId(0),
            band: Band::Normal,
            latest: clock.now() + Duration::from_secs(600),
            waited: Duration::ZERO,
            input: Mix { words: 1_000, ..Mix::default() },
            output_max: Some(100),
            seen: true,
            prefix: None,
            conversation: None,
            pin: None,
            avoid: None,
        };
        Scene { admission, ask, stream: IdSource::new(Prng::new(1), 0).stream() }
    }

    impl Scene {
        async fn lease(&self) -> Result<LeaseGuard, Refusal> {
            self.admission.lease(self.ask, self.stream).await
        }

        async fn throttle(&self) {
            let by = Throttle::Unnamed;
            let lease = self.lease().await.unwrap();
            lease.sent();
            lease.settle(Outcome::Throttled { by, retry_after: Some(Duration::from_secs(7)) });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_request_goes_when_the_domain_opens_and_not_before() {
        let s = scene();
        s.throttle().await;
        let began = s.admission.0.clock.now();
        let second = s.lease().await.unwrap();
        let waited = s.admission.0.clock.now().since(began);
        assert!((7.0..7.3).contains(&waited.as_secs_f64()), "{waited:?}");
        assert!(second.waited_for().is_some());
        second.settle(Outcome::Answered(None));
        assert_eq!(s.admission.counts(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stops_waiting_leaves_nothing_behind() {
        let s = scene();
        s.throttle().await;
        let waiting = tokio::time::timeout(Duration::from_secs(1), s.lease());
        let looking = async {
            s.admission.0.clock.sleep_until(s.admission.0.clock.now() + Duration::from_millis(500)).await;
            s.admission.waits()
        };
        let (waited, waits) = tokio::join!(waiting, looking);
        assert!(waited.is_err());
        let wait = &waits[&s.stream];
        assert!((6.0..7.0).contains(&wait.expected.unwrap().as_secs_f64()), "{wait:?}");
        assert_eq!(s.admission.counts(), (0, 0));
        assert!(s.admission.waits().is_empty());
        assert_eq!(s.admission.0.metrics.leases_leaked(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_lease_comes_back_and_is_counted_as_leaked() {
        let s = scene();
        drop(s.lease().await.unwrap());
        assert_eq!((s.admission.counts(), s.admission.0.metrics.leases_leaked()), ((0, 0), 1));
    }
}
