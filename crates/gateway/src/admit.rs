//! Phase 7, admit: a lease on a quota domain, now, after waiting, or not at all.
//!
//! This is the host of the pure scheduler: one lock around it, held for microseconds a few times
//! per request and never per event; a channel for each request that waits; one task that wakes the
//! scheduler when time alone changes something. A request that stops waiting takes its ticket
//! back; a lease that was on its way to it goes back as well.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_observe::Metrics;
use tidegate_schedule::{
    Ask, Backoff, Cause, DomainView, LaneId, Lease, Outcome, QueueRules, Refusal, Retry, RetryBudget, RetryRules,
    Scheduler, Ticket, Verdict,
};
use tidegate_transport::Clock;
use tokio::sync::{Notify, oneshot};

struct State {
    scheduler: Scheduler,
    waiting: BTreeMap<Ticket, oneshot::Sender<Verdict>>,
    retry_budgets: Vec<RetryBudget>,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    changed: Notify,
    metrics: Metrics,
}

/// The scheduler with its lock, its waiters and its alarm. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Admission(Arc<Shared>);

impl Admission {
    pub(crate) fn new(
        clock: Clock,
        keys_by_org: &[u16],
        queue: QueueRules,
        retry: RetryRules,
        metrics: Metrics,
    ) -> Self {
        let state = State {
            scheduler: Scheduler::new(keys_by_org, queue),
            waiting: BTreeMap::new(),
            retry_budgets: keys_by_org.iter().map(|_| RetryBudget::new(retry.budget)).collect(),
        };
        Admission(Arc::new(Shared { clock, state: Mutex::new(state), changed: Notify::new(), metrics }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
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
                    Some(waiter) => waiter.send(verdict).err(),
                    None => Some(verdict),
                };
                if let Some(Verdict::Go(lease)) = undelivered {
                    state.scheduler.settle(now, lease, Outcome::Failed);
                }
            }
        }
    }

    /// [`Admission::advance`], and the alarm looks at its hour again.
    fn advance_and_tell(&self, state: &mut State, now: Moment) {
        self.advance(state, now);
        self.0.changed.notify_one();
    }

    /// Asks for a lease and waits for it.
    pub(crate) async fn lease(&self, ask: Ask) -> Result<LeaseGuard, Refusal> {
        let now = self.0.clock.now();
        let (ticket, answer) = {
            let mut state = self.state();
            match state.scheduler.ask(now, ask) {
                Verdict::Go(lease) => return Ok(LeaseGuard::new(self, lease)),
                Verdict::Refuse(refusal) => return Err(refusal),
                Verdict::Wait(ticket) => {
                    let (send, answer) = oneshot::channel();
                    state.waiting.insert(ticket, send);
                    (ticket, answer)
                }
            }
        };
        self.0.changed.notify_one();
        let mut waiter = Waiter { admission: self, ticket, answer };
        match (&mut waiter.answer).await {
            Ok(Verdict::Go(lease)) => Ok(LeaseGuard::new(self, lease)),
            Ok(Verdict::Refuse(refusal)) => Err(refusal),
            // The sender is dropped only together with the scheduler.
            Ok(Verdict::Wait(_)) | Err(_) => Err(Refusal::QueueFull { retry_after: Duration::from_secs(1) }),
        }
    }

    /// Decides about a failed attempt.
    pub(crate) fn retry(
        &self,
        backoff: &mut Backoff,
        lane: LaneId,
        cause: Cause,
        asked: Option<Duration>,
        deadline: Moment,
        prng: &mut Prng,
    ) -> Retry {
        let now = self.0.clock.now();
        let mut state = self.state();
        match state.retry_budgets.get_mut(usize::from(lane.org.0)) {
            Some(budget) => backoff.failed(cause, asked, now, deadline, budget, prng),
            None => Retry::GiveUp(tidegate_schedule::GiveUp::Budget),
        }
    }

    /// Requests that wait, and leases that are out.
    pub(crate) fn counts(&self) -> (usize, u64) {
        let state = self.state();
        (state.scheduler.waiting().iter().sum(), state.scheduler.leased())
    }

    /// The domains as they are now.
    pub(crate) fn domains(&self) -> Vec<DomainView> {
        self.state().scheduler.domains().collect()
    }

    /// The alarm: runs until it is dropped, and wakes the scheduler when time changes something.
    pub(crate) async fn run(self) {
        loop {
            let now = self.0.clock.now();
            let wake_at = {
                let mut state = self.state();
                self.advance(&mut state, now);
                state.scheduler.wake_at(now)
            };
            let changed = self.0.changed.notified();
            match wake_at {
                Some(at) => drop(self.0.clock.by(at.max(now + Duration::from_millis(1)), changed).await),
                None => changed.await,
            }
        }
    }
}

/// A place in the queue; leaving it is a matter of dropping it.
struct Waiter<'a> {
    admission: &'a Admission,
    ticket: Ticket,
    answer: oneshot::Receiver<Verdict>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.answer.close();
        let now = self.admission.0.clock.now();
        let mut state = self.admission.state();
        if state.waiting.remove(&self.ticket).is_some() {
            state.scheduler.cancel(self.ticket);
        }
        if let Ok(Verdict::Go(lease)) = self.answer.try_recv() {
            state.scheduler.settle(now, lease, Outcome::Failed);
            self.admission.advance_and_tell(&mut state, now);
        }
    }
}

/// A lease on its way through the path. It ends in [`LeaseGuard::settle`]; one that is dropped
/// without (a bug, or a panic) goes back and is counted as leaked.
pub(crate) struct LeaseGuard {
    admission: Admission,
    lease: Option<Lease>,
    lane: LaneId,
}

impl LeaseGuard {
    fn new(admission: &Admission, lease: Lease) -> Self {
        LeaseGuard { admission: admission.clone(), lane: lease.lane(), lease: Some(lease) }
    }

    pub(crate) fn lane(&self) -> LaneId {
        self.lane
    }

    /// Gives the lease back with what it led to.
    pub(crate) fn settle(mut self, outcome: Outcome) {
        self.give_back(outcome);
    }

    fn give_back(&mut self, outcome: Outcome) {
        let Some(lease) = self.lease.take() else { return };
        let now = self.admission.0.clock.now();
        let mut state = self.admission.state();
        if outcome == Outcome::Answered
            && let Some(budget) = state.retry_budgets.get_mut(usize::from(self.lane.org.0))
        {
            budget.succeeded();
        }
        state.scheduler.settle(now, lease, outcome);
        if !state.waiting.is_empty() {
            self.admission.advance_and_tell(&mut state, now);
        }
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
    use tidegate_schedule::{Band, ClassId};
    use tidegate_transport::{TaskKind, Tasks};

    const ALARM: TaskKind = TaskKind { name: "alarm", on_cancel: "ends", on_error: "ends" };

    fn scene() -> (Admission, Ask) {
        let clock = Clock::real();
        let admission = Admission::new(clock, &[1], QueueRules::default(), RetryRules::default(), Metrics::new());
        Tasks::new().spawn(&ALARM, admission.clone().run());
        let ask =
            Ask { class: ClassId(0), band: Band::Normal, latest: clock.now() + Duration::from_secs(600), avoid: None };
        (admission, ask)
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_request_goes_when_the_domain_opens_and_not_before() {
        let (admission, ask) = scene();
        let first = admission.lease(ask).await.unwrap();
        first.settle(Outcome::Throttled { retry_after: Duration::from_secs(7) });
        let began = admission.0.clock.now();
        let second = admission.lease(ask).await.unwrap();
        let waited = admission.0.clock.now().since(began);
        assert!((7.0..7.1).contains(&waited.as_secs_f64()), "{waited:?}");
        second.settle(Outcome::Answered);
        assert_eq!(admission.counts(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stops_waiting_leaves_nothing_behind() {
        let (admission, ask) = scene();
        admission.lease(ask).await.unwrap().settle(Outcome::Throttled { retry_after: Duration::from_secs(7) });
        assert!(tokio::time::timeout(Duration::from_secs(1), admission.lease(ask)).await.is_err());
        assert_eq!(admission.counts(), (0, 0));
        assert_eq!(admission.0.metrics.leases_leaked(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_lease_comes_back_and_is_counted_as_leaked() {
        let (admission, ask) = scene();
        drop(admission.lease(ask).await.unwrap());
        assert_eq!((admission.counts(), admission.0.metrics.leases_leaked()), ((0, 0), 1));
    }
}
