//! The fair order of those who wait, in one class of models.
//!
//! Three bands share what there is by weight, so that none starves. In a band tenants share by
//! weight what they *use* (virtual token counter: each tenant's counter rises by what its requests
//! cost, and the lowest goes first), so a flood delays its sender and nobody else. A tenant that
//! comes back begins at the lowest counter of those who wait: nobody saves up by being idle. Nor does
//! anybody run into debt with those who were idle: what a request turns out to have used beyond what
//! it was charged counts only if others waited when it went, since whoever came later began where its
//! tenant stood without that. Within a tenant the one whose time ends first goes first. A tenant that got nothing out of a band for
//! [`crate::Rules::ageing`] has its first there moved up a band: no band starves, and a flood, which
//! is served all the time, does not climb over the others.
//!
//! Costs are in nanoseconds of the class' whole quota; the order holds tickets and numbers only.

use crate::ask::{Band, TenantId, Ticket};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate_base::Moment;

/// What the waiting ask for, in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) input: f64,
    pub(crate) output: f64,
}

impl Sum {
    /// Both together.
    pub(crate) fn plus(self, other: Sum) -> Sum {
        Sum { count: self.count + other.count, input: self.input + other.input, output: self.output + other.output }
    }

    fn add(&mut self, place: &Place, sign: f64) {
        self.count = if sign > 0.0 { self.count + 1 } else { self.count.saturating_sub(1) };
        self.input += sign * place.input;
        self.output += sign * place.output;
        if self.count == 0 {
            *self = Sum::default();
        }
    }
}

/// What the order needs to know of one that waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) tenant: TenantId,
    /// The band it stands in now.
    pub(crate) band: Band,
    /// When its time ends.
    pub(crate) until: Moment,
    /// Order of arrival.
    pub(crate) seq: u64,
    pub(crate) input: f64,
    pub(crate) output: f64,
}

#[derive(Clone, Debug, Default)]
struct TenantQueue {
    counter: u64,
    weight: f64,
    waiting: BTreeSet<(Moment, u64, Ticket)>,
    sum: Sum,
    /// Last served here, or began to wait.
    since: Moment,
    /// Its own limit keeps it away until then.
    parked: Option<Moment>,
}

#[derive(Clone, Debug, Default)]
struct BandQueue {
    /// Tenants with somebody waiting and not parked, lowest counter first.
    order: BTreeSet<(u64, TenantId)>,
    tenants: BTreeMap<TenantId, TenantQueue>,
    /// The counter of the last that went: where those who come back begin if nobody waits.
    floor: u64,
    /// The band's own counter.
    counter: f64,
    sum: Sum,
    /// Tenants with somebody waiting, by when they were last served here or began to wait.
    stale: BTreeSet<(Moment, TenantId)>,
    /// Sum of the weights of tenants with somebody waiting.
    weights: f64,
}

/// The order of one class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fair {
    bands: [BandQueue; 3],
    parked: BTreeSet<(Moment, TenantId)>,
}

impl BandQueue {
    fn enter(&mut self, now: Moment, ticket: Ticket, place: &Place, weight: f64) {
        let floor = self.order.first().map_or(self.floor, |(counter, _)| *counter);
        let queue = self.tenants.entry(place.tenant).or_default();
        if queue.waiting.is_empty() {
            queue.counter = queue.counter.max(floor);
            queue.weight = weight;
            queue.since = now;
            self.weights += weight;
            self.stale.insert((now, place.tenant));
            if queue.parked.is_none() {
                self.order.insert((queue.counter, place.tenant));
            }
        }
        queue.waiting.insert((place.until, place.seq, ticket));
        queue.sum.add(place, 1.0);
        self.sum.add(place, 1.0);
    }

    fn leave(&mut self, ticket: Ticket, place: &Place) {
        let Some(queue) = self.tenants.get_mut(&place.tenant) else { return };
        if !queue.waiting.remove(&(place.until, place.seq, ticket)) {
            return;
        }
        queue.sum.add(place, -1.0);
        self.sum.add(place, -1.0);
        if queue.waiting.is_empty() {
            self.order.remove(&(queue.counter, place.tenant));
            self.stale.remove(&(queue.since, place.tenant));
            self.weights -= queue.weight;
        }
        if self.sum.count == 0 {
            self.weights = 0.0;
        }
    }

    /// A tenant got something.
    fn served(&mut self, now: Moment, tenant: TenantId) {
        if let Some(queue) = self.tenants.get_mut(&tenant).filter(|q| !q.waiting.is_empty()) {
            self.stale.remove(&(queue.since, tenant));
            queue.since = now;
            self.stale.insert((now, tenant));
        }
    }

    /// Moves a tenant's counter by `cost` (negative: back).
    fn charge(&mut self, tenant: TenantId, weight: f64, cost: f64) {
        let queue = self.tenants.entry(tenant).or_default();
        let active = !queue.waiting.is_empty() && queue.parked.is_none();
        if active {
            self.order.remove(&(queue.counter, tenant));
        }
        let moved = queue.counter as f64 + cost / weight;
        queue.counter = moved.max(0.0) as u64;
        if active {
            self.order.insert((queue.counter, tenant));
        }
    }
}

impl Fair {
    /// One comes to wait.
    pub(crate) fn enter(&mut self, now: Moment, ticket: Ticket, place: &Place, weight: f64) {
        let band = place.band as usize;
        if self.bands[band].sum.count == 0 {
            // A band that comes back does not catch up on what it did not want.
            let others = self.bands.iter().filter(|b| b.sum.count > 0).map(|b| b.counter);
            let least = others.fold(f64::INFINITY, f64::min);
            if least.is_finite() {
                self.bands[band].counter = self.bands[band].counter.max(least);
            }
        }
        self.bands[band].enter(now, ticket, place, weight);
    }

    /// One stops waiting, however.
    pub(crate) fn leave(&mut self, ticket: Ticket, place: &Place) {
        self.bands[place.band as usize].leave(ticket, place);
    }

    /// Those who wait, in order: bands by their counters, tenants by theirs, then by time's end.
    pub(crate) fn order(&self) -> impl Iterator<Item = Ticket> + '_ {
        let mut bands = [0, 1, 2];
        bands.sort_by(|a, b| self.bands[*a].counter.total_cmp(&self.bands[*b].counter));
        bands.into_iter().flat_map(|n| {
            let band = &self.bands[n];
            band.order
                .iter()
                .filter_map(|(_, tenant)| band.tenants.get(tenant))
                .flat_map(|q| q.waiting.iter().map(|w| w.2))
        })
    }

    /// One went, at a `cost`: its tenant and its band have had so much. Whether it was taken from
    /// others, who wait in the same band.
    pub(crate) fn went(
        &mut self,
        now: Moment,
        tenant: TenantId,
        band: Band,
        weight: f64,
        band_weight: f64,
        cost: f64,
    ) -> bool {
        let band = &mut self.bands[band as usize];
        band.counter += cost / band_weight.max(1.0);
        if let Some(queue) = band.tenants.get(&tenant) {
            band.floor = band.floor.max(queue.counter);
        }
        band.charge(tenant, weight, cost);
        band.served(now, tenant);
        band.order.iter().take(2).any(|(_, other)| *other != tenant)
    }

    /// What one that went while others waited really used is `more` than it was charged.
    pub(crate) fn correct(&mut self, band: Band, tenant: TenantId, weight: f64, more: f64) {
        self.bands[band as usize].charge(tenant, weight, more);
    }

    /// A tenant's own limit keeps it away until `until`, in every band.
    pub(crate) fn park(&mut self, tenant: TenantId, until: Moment) {
        for band in &mut self.bands {
            if let Some(queue) = band.tenants.get_mut(&tenant) {
                band.order.remove(&(queue.counter, tenant));
                if let Some(before) = queue.parked.replace(until) {
                    self.parked.remove(&(before, tenant));
                }
            }
        }
        self.parked.insert((until, tenant));
    }

    /// Lets parked tenants back whose time has come.
    pub(crate) fn unpark(&mut self, now: Moment) {
        while let Some((until, tenant)) = self.parked.first().copied().filter(|(until, _)| *until <= now) {
            self.parked.remove(&(until, tenant));
            self.release(tenant);
        }
    }

    /// Lets a tenant back at once: one of its requests has ended.
    pub(crate) fn release(&mut self, tenant: TenantId) {
        for band in &mut self.bands {
            let Some(queue) = band.tenants.get_mut(&tenant) else { continue };
            if let Some(until) = queue.parked.take() {
                self.parked.remove(&(until, tenant));
                if !queue.waiting.is_empty() {
                    band.order.insert((queue.counter, tenant));
                }
            }
        }
    }

    /// The first of a tenant that got nothing out of this band for `ageing`.
    pub(crate) fn aged(&mut self, now: Moment, band: Band, ageing: Duration) -> Option<Ticket> {
        let band = &mut self.bands[band as usize];
        let (_, tenant) = band.stale.first().copied().filter(|(since, _)| *since + ageing <= now)?;
        band.served(now, tenant);
        band.tenants.get(&tenant)?.waiting.first().map(|(.., ticket)| *ticket)
    }

    /// When somebody's ageing is next to be looked at, if it takes `ageing`.
    pub(crate) fn next_aged(&self, ageing: Duration) -> Option<Moment> {
        [Band::Normal, Band::Background]
            .into_iter()
            .filter_map(|band| self.bands[band as usize].stale.first())
            .map(|(since, _)| *since + ageing)
            .min()
    }

    /// When the first parked tenant comes back.
    pub(crate) fn next_unparked(&self) -> Option<Moment> {
        self.parked.first().map(|(until, _)| *until)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bands.iter().all(|b| b.sum.count == 0)
    }

    /// What waits in a band.
    pub(crate) fn sum(&self, band: Band) -> Sum {
        self.bands[band as usize].sum
    }

    /// What waits of one tenant in a band, and its share of the band among those who wait.
    pub(crate) fn own(&self, band: Band, tenant: TenantId, weight: f64) -> (Sum, f64) {
        let band = &self.bands[band as usize];
        match band.tenants.get(&tenant) {
            Some(queue) if !queue.waiting.is_empty() => (queue.sum, queue.weight / band.weights.max(queue.weight)),
            _ => (Sum::default(), weight / (band.weights + weight)),
        }
    }

    /// Who waits, by tenant.
    pub(crate) fn by_tenant(&self) -> BTreeMap<TenantId, usize> {
        let mut all = BTreeMap::new();
        for (tenant, queue) in self.bands.iter().flat_map(|b| &b.tenants) {
            if !queue.waiting.is_empty() {
                *all.entry(*tenant).or_default() += queue.waiting.len();
            }
        }
        all
    }
}
