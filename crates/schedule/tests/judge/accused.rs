//! The scheduler, as a world sees it: slots for tickets and leases.

use crate::policy::{Failed, Next, Policy, Said};
use crate::scenario::Scenario;
use crate::upstream::Counting;
use std::collections::BTreeMap;
use tidegate_base::{Moment, Prng};
use tidegate_schedule::{
    Ask, Backoff, ClassId, FailedAttempt, Lease, LeaseId, Levels, OrgId, OrgSpec, Outcome, Refusal, Retry, RetryRules,
    Rules, Scheduler, TenantId, TenantRules, Ticket, Verdict, WorkspaceId,
};

/// What a request holds of the scheduler.
#[derive(Default)]
struct Held {
    lease: Option<Lease>,
    ticket: Option<Ticket>,
    backoff: Option<Backoff>,
}

pub(crate) struct Accused {
    scheduler: Scheduler,
    held: Vec<Held>,
    slots: BTreeMap<Ticket, usize>,
    prng: Prng,
    rules: RetryRules,
    progress: Vec<(LeaseId, u32)>,
}

impl Accused {
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        let specs: Vec<OrgSpec> = scenario.orgs.iter().map(spec).collect();
        let mut scheduler = Scheduler::new(&specs, Rules::default());
        for (org, plan) in scenario.orgs.iter().enumerate().filter(|_| scenario.told) {
            let org = OrgId(org as u32);
            for (class, limits) in plan.limits.iter().enumerate() {
                let class = ClassId(class as u32);
                scheduler.know(Moment::ZERO, org, None, class, *limits);
                for (workspace, limits) in plan.workspaces.iter().enumerate() {
                    scheduler.know(Moment::ZERO, org, Some(WorkspaceId(workspace as u16)), class, *limits);
                }
            }
        }
        for (tenant, weight) in scenario.weights.iter().enumerate() {
            let rules = TenantRules { weight: *weight, ..TenantRules::default() };
            scheduler.tenant(Moment::ZERO, TenantId(tenant as u32), &rules);
        }
        let prng = Prng::new(seed).fork("scheduler");
        let rules = Rules::default().retry;
        Accused { scheduler, held: Vec::new(), slots: BTreeMap::new(), prng, rules, progress: Vec::new() }
    }

    fn held(&mut self, slot: usize) -> &mut Held {
        if self.held.len() <= slot {
            self.held.resize_with(slot + 1, Held::default);
        }
        &mut self.held[slot]
    }

    fn lease_of(&self, slot: usize) -> Option<LeaseId> {
        self.held.get(slot)?.lease.as_ref().map(Lease::id)
    }

    fn said(&mut self, slot: usize, verdict: Verdict) -> Said {
        match verdict {
            Verdict::Go(lease) => {
                let lane = lease.lane();
                let rules = self.rules;
                let held = self.held(slot);
                held.ticket = None;
                held.backoff.get_or_insert_with(|| Backoff::new(rules)).begin();
                assert!(held.lease.replace(lease).is_none(), "a second lease for the same request");
                Said::Go(lane)
            }
            Verdict::Wait(ticket) => {
                self.held(slot).ticket = Some(ticket);
                assert!(self.slots.insert(ticket, slot).is_none(), "a ticket was given out twice");
                Said::Wait
            }
            Verdict::Refuse(refusal) => {
                *self.held(slot) = Held::default();
                Said::Refuse(refusal.name(), retry_after(&refusal))
            }
        }
    }
}

fn spec(plan: &crate::upstream::OrgPlan) -> OrgSpec {
    OrgSpec {
        keys: plan.keys.iter().map(|workspace| workspace.map(WorkspaceId)).collect(),
        workspaces: plan.workspaces.len() as u16,
        reserves_output: plan.counting == Counting::Reserved,
        ..OrgSpec::default()
    }
}

fn retry_after(refusal: &Refusal) -> Option<std::time::Duration> {
    match refusal {
        Refusal::NoKey { .. } | Refusal::TooLarge { .. } => None,
        Refusal::SpendCap { retry_after }
        | Refusal::TooLong { retry_after }
        | Refusal::QueueFull { retry_after }
        | Refusal::Tenant { retry_after, .. } => Some(*retry_after),
    }
}

impl Policy for Accused {
    fn ask(&mut self, now: Moment, slot: usize, ask: &Ask) -> Said {
        let verdict = self.scheduler.ask(now, *ask);
        self.said(slot, verdict)
    }

    fn cancel(&mut self, now: Moment, slot: usize) {
        if let Some(ticket) = self.held(slot).ticket.take() {
            self.slots.remove(&ticket);
            self.scheduler.cancel(now, ticket);
        }
        self.held(slot).backoff = None;
    }

    fn advance(&mut self, now: Moment) -> Vec<(usize, Said)> {
        let answers = self.scheduler.advance(now);
        let answer = |(ticket, verdict): (Ticket, Verdict)| {
            let slot = self.slots.remove(&ticket).expect("an answer for a ticket that nobody holds");
            (slot, self.said(slot, verdict))
        };
        answers.into_iter().map(answer).collect()
    }

    fn wake_at(&self, now: Moment) -> Option<Moment> {
        self.scheduler.wake_at(now)
    }

    fn sent(&mut self, now: Moment, slot: usize) {
        if let Some(id) = self.lease_of(slot) {
            self.scheduler.sent(now, id);
        }
    }

    fn heard(&mut self, now: Moment, slot: usize, levels: &Levels) {
        if let Some(id) = self.lease_of(slot) {
            self.scheduler.heard(now, id, levels);
        }
    }

    fn began(&mut self, now: Moment, slot: usize) {
        if let Some(id) = self.lease_of(slot) {
            self.scheduler.began(now, id);
        }
    }

    fn counted(&mut self, now: Moment, slot: usize, uncached: u64) {
        if let Some(id) = self.lease_of(slot) {
            self.scheduler.counted(now, id, uncached);
        }
    }

    fn progressed(&mut self, now: Moment, produced: &[(usize, u32)]) {
        self.progress.clear();
        for (slot, tokens) in produced {
            let lease = self.held.get(*slot).and_then(|held| held.lease.as_ref());
            self.progress.extend(lease.filter(|lease| lease.metered()).map(|lease| (lease.id(), *tokens)));
        }
        self.scheduler.progressed(now, &self.progress);
    }

    fn settle(&mut self, now: Moment, slot: usize, outcome: Outcome) {
        let lease = self.held(slot).lease.take().expect("a lease to settle");
        if matches!(outcome, Outcome::Answered(_) | Outcome::Failed | Outcome::NotSent) {
            self.held(slot).backoff = None;
        }
        self.scheduler.settle(now, lease, outcome);
    }

    fn retry(&mut self, now: Moment, slot: usize, ask: &Ask, failed: &Failed) -> Next {
        let Failed { lane, cause, retry_after: asked } = *failed;
        let attempt = FailedAttempt { lane, class: ask.class, tenant: ask.tenant, cause, asked, deadline: ask.latest };
        let mut backoff = self.held(slot).backoff.take().expect("an attempt was begun");
        let decided = self.scheduler.retry(now, &mut backoff, &attempt, &mut self.prng);
        match decided {
            Retry::At(at) => {
                self.held(slot).backoff = Some(backoff);
                Next::At(at)
            }
            Retry::GiveUp(_) => Next::GiveUp,
        }
    }

    fn leased(&self) -> u64 {
        self.scheduler.leased()
    }

    fn waiting(&self) -> usize {
        self.scheduler.waiting().iter().sum()
    }

    fn believed(&self, now: Moment, org: usize, which: usize) -> Option<[f64; 4]> {
        let views = self.scheduler.domains(now);
        let meter = views.iter().find(|view| view.org.0 as usize == org && view.class.0 == 0)?.meters[which];
        meter.limit.map(|_| [meter.low, meter.high, meter.rate, meter.foreign])
    }

    fn difference(&self) -> f64 {
        let audit = self.scheduler.audit();
        assert_eq!(audit.leases, self.scheduler.leased(), "the audit counts other leases");
        audit.difference
    }
}
