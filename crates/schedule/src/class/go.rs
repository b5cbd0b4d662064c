//! A request goes, and everything it takes is taken.

use super::Class;
use crate::ask::{Ask, Band, Lease, WaitsFor};
use crate::domain::Knowledge;
use crate::flight::Flight;
use crate::meters::coming;
use crate::scheduler::Shared;
use tidegate_base::Moment;

impl Class {
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
        // Known not to be cached is known too: nobody need go ahead for it.
        let warm = ask.prefix.is_none_or(|p| {
            let d = &self.domains[domain];
            shared.warmth.knows(now, d.org, d.workspace, p.key)
        });
        let demand = self.demand(now, shared, domain, ask, tokens);
        let leads = self.leads(now, domain, ask.prefix, tokens, warm);
        let cost = self.cost(demand.input, demand.output);
        let (weight, band_weight) = (shared.weight(ask.tenant), f64::from(shared.rules.band_weights[band as usize]));
        let contested = self.fair.went(now, ask.tenant, band, weight, band_weight, cost);
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
            beside: d.in_flight.saturating_add(1),
            began: None,
            metered,
            told: None,
            input,
            saved: false,
            counted: false,
            reserved: demand.reserved,
            output_max,
            produced: 0.0,
            seen: ask.seen,
            coming: coming(demand.output, d.pace.speed),
            cost,
            tenant_tokens: input + demand.output,
            contested,
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
        if let Some(tenant) = shared.tenants.get_mut(&ask.tenant) {
            tenant.goes(now, flight.tenant_tokens);
        }
        let lane = flight.lane;
        let id = shared.flights.insert(flight);
        if metered {
            self.running.insert(id);
        }
        Lease { id, lane, metered, waited_for, input: input as u64 }
    }
}
