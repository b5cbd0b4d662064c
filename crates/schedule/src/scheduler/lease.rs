//! What is told of a lease while it lasts, and what its end means: for its key, its domain, the
//! buckets and its tenant.

use super::Scheduler;
use crate::ask::{Lease, LeaseId, Levels, Outcome, Spent, TenantId, Throttle};
use crate::domain::Knowledge;
use crate::flight::Flight;
use crate::meters::DOUBT;
use std::time::Duration;
use tidegate_base::Moment;

impl Scheduler {
    /// A lease's request is written to its last byte.
    pub fn sent(&mut self, now: Moment, id: LeaseId) {
        let Some(flight) = self.shared.flights.get(id) else { return };
        self.classes[flight.class].domains[flight.domain].sent(now, flight.went);
    }

    /// The head of a lease's answer came, and told these levels.
    pub fn heard(&mut self, now: Moment, id: LeaseId, levels: &Levels) {
        let Some(flight) = self.shared.flights.get_mut(id).filter(|_| !levels.is_silent()) else { return };
        let class = &mut self.classes[flight.class];
        let d = &mut class.domains[flight.domain];
        let first = d.knowledge != Knowledge::Metered;
        d.knowledge = Knowledge::Metered;
        if first {
            // What runs already was not counted while nothing was known to be metered.
            d.window = None;
        }
        let late = d.late(self.shared.rules.jitter);
        let (domain, went) = (flight.domain, flight.went);
        let off = if flight.counted { 0.0 } else { DOUBT * class.estimator.error() * flight.input };
        class.told(now, domain, levels, &self.shared);
        let limits = levels.limits().parts();
        let whose = std::array::from_fn(|n| class.level_of(domain, n, limits[n]));
        if let Some(flight) = self.shared.flights.get_mut(id) {
            flight.told = Some((whose, levels.input_tokens.remaining));
        }
        for (level, levels) in class.levels_told(domain, levels) {
            let alone = class.meters[level].in_flight == 1;
            class.meters[level].hear(now, went, &levels, off, late, alone);
        }
        if first {
            class.domains[domain].meters.iter().for_each(|level| class.meters[*level].forget_assumed());
        }
        class.touch(now);
    }

    /// The first event of a lease's answer came, or the whole of a buffered one: it is no refusal.
    pub fn began(&mut self, now: Moment, id: LeaseId) {
        let Some(flight) = self.shared.flights.get_mut(id).filter(|f| f.began.is_none()) else { return };
        flight.began = Some(now);
        let (class, domain, went, beside) = (flight.class, flight.domain, flight.went, flight.beside);
        let led = flight.leads.then_some(flight.prefix).flatten();
        flight.leads = false;
        let tokens = flight.prefix_tokens;
        let told = flight.told.is_some();
        let class = &mut self.classes[class];
        let d = &mut class.domains[domain];
        d.tried(went, true);
        d.crowd.answered(now, went, beside);
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

    /// The upstream has counted a lease's input: so many tokens of it were not in the cache. A
    /// stream's first event says so, long before its end.
    pub fn counted(&mut self, now: Moment, id: LeaseId, uncached: u64) {
        let uncached = Spent { input: uncached, ..Spent::default() }.within_reason().input;
        let Some(flight) = self.shared.flights.get_mut(id).filter(|f| !f.counted) else { return };
        flight.counted = true;
        let before = std::mem::replace(&mut flight.input, uncached as f64);
        let went = flight.went;
        flight.tenant_tokens += flight.input - before;
        let more = flight.input - before;
        if let Some(tenant) = self.shared.tenants.get_mut(&flight.tenant) {
            tenant.correct(now, more);
        }
        let class = &mut self.classes[flight.class];
        if flight.metered {
            for level in &class.domains[flight.domain].meters {
                let level = &mut class.meters[*level];
                level.uncounted -= before * before;
                level.amend(went, 0.0, more);
            }
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
        self.let_back(now, flight.tenant);
        self.classes[flight.class].domains[flight.domain].tried(flight.went, false);
        self.close(now, &flight, outcome);
        let class = &mut self.classes[flight.class];
        if let (true, Some(prefix)) = (flight.leads, flight.prefix) {
            // Nobody was told that it is there, so the next one goes ahead.
            class.led(now, flight.domain, prefix.key, &mut self.shared);
        }
        class.touch(now);
    }

    /// A tenant that may have waited for one of its own requests to end.
    fn let_back(&mut self, now: Moment, tenant: TenantId) {
        let parked = self.shared.tenants.get_mut(&tenant).is_some_and(|t| std::mem::take(&mut t.parked));
        if parked {
            for class in &mut self.classes {
                class.fair.release(tenant);
                class.touch(now);
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
            Outcome::Rejected => {
                class.domains[flight.domain].breaker.undecided(now);
                self.rejected(now, flight);
            }
            Outcome::NotSent => {
                class.domains[flight.domain].breaker.undecided(now);
                self.refund(now, flight);
            }
            Outcome::Broken | Outcome::Overloaded { .. } | Outcome::TimedOut => {
                let open = class.domains.iter().filter(|d| d.breaker.is_open(now)).count();
                let may = (open + 1) * 2 <= class.domains.len();
                let d = &mut class.domains[flight.domain];
                let timed_out = outcome == Outcome::TimedOut && flight.began.is_none();
                if timed_out && d.crowd.timed_out(now, flight.went, flight.beside) {
                    // With fewer at once it is well.
                    d.breaker.undecided(now);
                } else {
                    d.breaker.failed(now, may);
                }
                class.maybe_back(flight);
                // The upstream's failure is not the tenant's use.
                self.forgive(now, flight);
                self.charge_output_only(now, flight, flight.produced);
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
        if d.knowledge == Knowledge::Unknown && flight.told.is_none() {
            d.knowledge = Knowledge::Unmetered;
            class.unmetered(flight.domain);
        }
        if let Some(tenant) = self.shared.tenants.get_mut(&flight.tenant) {
            tenant.retries.succeeded(tenant.in_flight.saturating_add(1));
        }
        let Some(spent) = spent else { return self.charge_output(now, flight, flight.produced) };
        let spent = spent.within_reason();
        let d = &mut class.domains[flight.domain];
        if let Some(began) = flight.began {
            d.paced(spent.output as f64, began.since(flight.went), now.since(began));
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
                class.meters[*level].amend(flight.went, 0.0, more);
            }
        }
        self.cost_came_to(flight, uncached, spent.output as f64);
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
        self.cost_came_to(flight, flight.input, output);
        self.charge_output_only(now, flight, output);
    }

    /// It used so much of the class' quota, and not what was thought when it went. Who was served while
    /// nobody else waited took it from nobody, and whoever came since began where its tenant stood.
    fn cost_came_to(&mut self, flight: &Flight, input: f64, output: f64) {
        if flight.contested {
            let weight = self.shared.weight(flight.tenant);
            let class = &mut self.classes[flight.class];
            let more = class.cost(input, output) - flight.cost;
            class.fair.correct(flight.band, flight.tenant, weight, more);
        }
    }

    fn charge_output_only(&mut self, now: Moment, flight: &Flight, output: f64) {
        if !flight.metered {
            return;
        }
        let taken = if flight.reserved > 0.0 { flight.reserved } else { flight.produced };
        let class = &mut self.classes[flight.class];
        let d = &class.domains[flight.domain];
        let late = d.late(self.shared.rules.jitter);
        for level in &d.meters {
            let level = &mut class.meters[*level];
            match flight.began {
                _ if flight.reserved > 0.0 => level.unreserve(now, taken - output, late),
                Some(began) if !flight.seen => level.amend_unseen(began, output - taken),
                _ => level.take(now, 0.0, 0.0, output - taken),
            }
        }
    }

    /// Its tenant is charged nothing for it.
    fn forgive(&mut self, now: Moment, flight: &Flight) {
        if let Some(tenant) = self.shared.tenants.get_mut(&flight.tenant) {
            tenant.give_back(now, flight.tenant_tokens);
        }
        self.cost_came_to(flight, 0.0, 0.0);
    }

    /// Nothing of it counts, but for what had begun to come.
    fn refund(&mut self, now: Moment, flight: &Flight) {
        self.forgive(now, flight);
        if flight.began.is_some() {
            // It was let in, read and answered in part: that was used.
            return self.charge_output_only(now, flight, flight.produced);
        }
        let class = &mut self.classes[flight.class];
        if flight.metered {
            for level in &class.domains[flight.domain].meters {
                class.meters[*level].amend(flight.went, -1.0, -flight.input);
                class.meters[*level].take(now, 0.0, 0.0, -flight.reserved);
            }
        }
    }

    /// The upstream refused the request itself. It counts as a request, there and for its tenant; its
    /// input was not read by any model.
    fn rejected(&mut self, now: Moment, flight: &Flight) {
        if flight.began.is_some() {
            return self.charge_output(now, flight, flight.produced);
        }
        if let Some(tenant) = self.shared.tenants.get_mut(&flight.tenant) {
            tenant.correct(now, -flight.tenant_tokens);
        }
        self.cost_came_to(flight, 0.0, 0.0);
        let class = &mut self.classes[flight.class];
        if flight.metered {
            let late = class.domains[flight.domain].late(self.shared.rules.jitter);
            for level in &class.domains[flight.domain].meters {
                let remaining = flight.told.filter(|(told, _)| told[1] == *level).and_then(|(_, remaining)| remaining);
                class.meters[*level].unread(now, flight.went, flight.input, remaining, late);
                class.meters[*level].take(now, 0.0, 0.0, -flight.reserved);
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
        let slows = by == Throttle::Ramp && d.slows(now, flight.went);
        let asked = d.throttled(now, by, retry_after);
        let limiter = [Throttle::Requests, Throttle::InputTokens, Throttle::OutputTokens].iter().position(|x| *x == by);
        let whose = flight.told.zip(limiter).map(|((whose, _), limiter)| whose[limiter]);
        for level in &class.domains[flight.domain].meters {
            // Where the refusal's head told of it, it is known whose it was.
            if whose.is_none_or(|whose| whose == *level) {
                class.meters[*level].blame(now, by, asked, if flight.saved { flight.input } else { 0.0 });
            }
            if slows {
                class.meters[*level].slow(now);
            }
        }
    }
}
