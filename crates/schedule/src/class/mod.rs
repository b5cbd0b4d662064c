//! One class of models: its domains, their levels of limits, and the queue in front of them.
//!
//! Classes share nothing but keys and tenants, so each is looked at alone. The look ([`Class::run`])
//! goes through the fair order from its head. For each request it asks every domain that could take
//! it how long that would take and what its cold cache would cost, and settles on the least. If
//! that is now, the request goes. If not, the domain is spoken for, and later ones may only go where
//! nobody before them waits; what is spoken for counts as that domain's work, so that a conversation
//! stays with its warm domain until leaving is cheaper. When every domain is spoken for, the look
//! ends.
//!
//! | file | what it is |
//! |---|---|
//! | `choose` | where a request would go, and how long it would wait |
//! | `look` | one look through the queue |
//! | `go` | what a request takes that goes |
//! | `levels` | whose limits an answer told |

mod choose;
mod go;
mod levels;
mod look;

use crate::ask::{LeaseId, Limits, OrgId, Prefix, TenantId, Ticket, WorkspaceId};
use crate::bucket::Source;
use crate::domain::{Domain, Knowledge};
use crate::estimate::Estimator;
use crate::fair::{Fair, Place};
use crate::flight::{Flight, Held, Waiting};
use crate::lengths::Lengths;
use crate::meters::{ASSUMED, Meters};
use crate::retry::RetryBudget;
use crate::scheduler::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate_base::Moment;

/// So long, or three times the usual, followers wait for the one that fills the cache.
const HOLD_LEAST: Duration = Duration::from_secs(2);
/// Tenants whose own lengths of answers are kept; the others share the class'.
const TENANTS_MAX: usize = 1_024;
/// Beginnings shorter than this are not cached by any model (protocol page, 5.6).
const PREFIX_TOKENS_MIN: f64 = 1_024.0;

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
    leaders: BTreeMap<(usize, u64), Moment>,
    held: BTreeMap<(usize, u64), Vec<Ticket>>,
    /// Metered requests under way.
    pub(crate) running: BTreeSet<LeaseId>,
    refreshed: Moment,
    /// When to look again, if nothing happens before.
    wake: Option<Moment>,
}
impl Class {
    /// A domain for each workspace of an organisation, with the keys that it has now. Domains stay
    /// where they are, with all that was learned; one without keys takes nothing new.
    pub(crate) fn set_org(&mut self, org: OrgId, shared: &Shared, now: Moment) {
        let Some(spec) = shared.orgs.get(&org).map(|o| &o.spec) else { return };
        let mut by_workspace: BTreeMap<Option<WorkspaceId>, Vec<u16>> = BTreeMap::new();
        for (key, workspace) in (0u16..).zip(&spec.keys).filter(|(key, _)| !spec.closed.contains(key)) {
            by_workspace.entry(*workspace).or_default().push(key);
        }
        let mut level = None;
        for domain in self.domains.iter_mut().filter(|d| d.org == org) {
            level = level.or(domain.meters.first().copied());
            domain.keys = by_workspace.remove(&domain.workspace).unwrap_or_default();
            domain.reserves_output = spec.reserves_output;
        }
        if by_workspace.is_empty() {
            return;
        }
        let level = level.unwrap_or_else(|| {
            self.meters.push(Meters::new(ASSUMED, Source::Assumed, now));
            self.meters.len() - 1
        });
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
            } else if let Some(level) = self.domains[n].meters.get(1).copied() {
                self.meters[level].limit(limits, Source::Config, now);
            } else {
                // Nothing is known of the organisation's own limits, but that they are metered.
                let level = self.domains[n].meters[0];
                self.meters[level].forget_assumed();
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
    pub(crate) fn leads(
        &mut self,
        now: Moment,
        domain: usize,
        prefix: Option<Prefix>,
        tokens: f64,
        warm: bool,
    ) -> bool {
        match prefix {
            Some(p) if !warm && tokens * f64::from(p.share) >= PREFIX_TOKENS_MIN => {
                !self.leaders.contains_key(&(domain, p.key)) && self.leaders.insert((domain, p.key), now).is_none()
            }
            _ => false,
        }
    }

    /// Until when followers wait for the leader with a beginning, if they do at all: one that takes
    /// much longer than usual holds nobody up.
    pub(crate) fn holds_until(&self, domain: usize, key: u64) -> Option<Moment> {
        let went = self.leaders.get(&(domain, key))?;
        let usual = Duration::from_secs_f64(self.domains[domain].pace.first.clamp(0.0, 60.0));
        Some(*went + (usual * 3).max(HOLD_LEAST))
    }

    /// The leader with a beginning has been answered, or will not be: its followers are let go.
    pub(crate) fn led(&mut self, now: Moment, domain: usize, key: u64, shared: &mut Shared) {
        self.leaders.remove(&(domain, key));
        self.release(now, domain, key, shared);
    }

    /// Those who wait for a leader are back in the order.
    pub(crate) fn release(&mut self, now: Moment, domain: usize, key: u64, shared: &mut Shared) {
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
                if !flight.counted {
                    level.uncounted -= flight.input * flight.input;
                }
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
}
