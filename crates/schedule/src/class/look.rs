//! One look through the queue: who can go goes, whose time is over is told.

use super::Class;
use super::choose::{Choice, Rates};
use crate::ask::{Band, Refusal, TenantId, TenantLimit, Throttle, Ticket, Verdict, WaitsFor};
use crate::fair::Place;
use crate::flight::{Held, Waiting};
use crate::meters::{Blocked, Coming, Demand, LOOK_AGAIN};
use crate::scheduler::Shared;
use std::time::Duration;
use tidegate_base::Moment;

/// Requests looked at in one look: domains are few, and behind so many that all prefer a busy one
/// nobody is likely to want an idle one.
const LOOKS: usize = 64;
/// And passed over, since where they are bound to go others wait before them.
const SKIPS: usize = 1_024;
/// How often what answers will still produce is reckoned anew.
const REFRESH: Duration = Duration::from_millis(50);
/// By what part of it the speed at which an answer is taken to produce unseen may be off.
const UNSURE: f64 = 0.35;
/// A request that is next in turn and needs more than was ever seen at once goes when enough time
/// for it has passed, and so much more.
const SAVED_AFTER: Duration = Duration::from_secs(2);

impl Class {
    /// Refills the buckets, and reckons what answers under way will still produce.
    pub(super) fn freshen(&mut self, now: Moment, shared: &mut Shared) {
        for level in &mut self.meters {
            level.advance(now);
        }
        if now.since(self.refreshed) < REFRESH || self.running.is_empty() {
            return;
        }
        let before = std::mem::replace(&mut self.refreshed, now);
        for level in &mut self.meters {
            (level.coming, level.unsure) = (Coming::default(), 0.0);
        }
        for id in &self.running {
            let Some(flight) = shared.flights.get_mut(*id) else { continue };
            let d = &self.domains[flight.domain];
            if !flight.seen && flight.reserved == 0.0 {
                // Nobody tells what it has produced, so it is taken to run as others do now. What was taken
                // before is not reckoned anew: another opinion of the speed, times all that runs, is no use.
                let ran = flight.began.map_or(0.0, |at| now.since(at.max(before)).as_secs_f64());
                let more = (ran * d.pace.speed).min(flight.output_max - flight.produced).max(0.0);
                for level in &d.meters {
                    self.meters[*level].take(now, 0.0, 0.0, more);
                }
                flight.produced += more;
            }
            let lengths = self.tenant_lengths.get(&flight.tenant).filter(|l| l.is_known()).unwrap_or(&self.lengths);
            flight.coming = flight.still_coming(lengths, d.pace.speed);
            let unseen = !flight.seen && flight.began.is_some();
            let unsure = if unseen { UNSURE * d.pace.speed } else { 0.0 };
            for level in &d.meters {
                self.meters[*level].comes(&flight.coming, 1.0);
                self.meters[*level].unsure += unsure;
            }
        }
    }

    /// Looks through the queue: who can go goes, whose time is over is told. `number` is the class'
    /// own.
    pub(crate) fn run(&mut self, number: usize, now: Moment, shared: &mut Shared, out: &mut Vec<(Ticket, Verdict)>) {
        self.freshen(now, shared);
        self.give_up(now, shared, out);
        self.fair.unpark(now);
        self.let_late_followers_go(now, shared);
        self.age(now, shared);
        let mut heads = Heads::default();
        // Each turn takes one from the order, so there are no more turns than there were waiting.
        for _ in 0..=self.ends.len() {
            match self.look(now, shared, &mut heads) {
                Step::Go(ticket, domain) => {
                    let Some(waiting) = self.take(ticket, shared) else { continue };
                    let saved = waiting.saving_since.is_some_and(|at| now >= at);
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
                    shared.flights.get_mut(lease.id).into_iter().for_each(|f| f.saved = saved);
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

    /// A leader that takes much longer than usual holds nobody up.
    fn let_late_followers_go(&mut self, now: Moment, shared: &mut Shared) {
        let late = |(domain, key): &(usize, u64)| self.holds_until(*domain, *key).is_none_or(|until| until <= now);
        let late: Vec<_> = self.held.keys().copied().filter(late).collect();
        for (domain, key) in late {
            self.release(now, domain, key, shared);
        }
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
        for n in (0..self.domains.len()).filter(|n| self.is_out(now, shared, *n)) {
            heads.out[n] = true;
        }
        let mut looks = 0;
        for ticket in self.fair.order().take(SKIPS) {
            let Some(waiting) = shared.queue.get(ticket) else { continue };
            // One that may only go where others wait before it costs no look, or those who are bound
            // to one place would hide all the others.
            // One whose place is gone is looked at, and told.
            let mut places = (0..self.domains.len()).filter(|n| self.eligible(*n, &waiting.ask)).peekable();
            let is_bound = waiting.ask.pin.is_some() && places.peek().is_some();
            if is_bound && places.all(|n| heads.heads[n].is_some()) {
                continue;
            }
            looks += 1;
            if looks > LOOKS {
                break;
            }
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
        let soon = now + Duration::from_millis(2);
        let mut sooner = |at: Moment| wake = Some(wake.map_or(at, |w| w.min(at)).max(soon));
        for level in &mut self.meters {
            level.no_room();
        }
        for (n, head) in heads.heads.iter().enumerate() {
            let d = &mut self.domains[n];
            d.head = head.map(|h| h.blocked);
            let Some(head) = head else { continue };
            let depends = matches!(head.blocked.by, WaitsFor::InFlight | WaitsFor::Limit(Throttle::OutputTokens));
            sooner(now + if depends { head.blocked.wait.min(LOOK_AGAIN) } else { head.blocked.wait });
            let (jitter, error) = (shared.rules.jitter, self.estimator.error());
            let mut saving = Duration::ZERO;
            for level in &d.meters {
                saving = saving.max(self.meters[*level].make_room(&head.demand, error, jitter));
            }
            let Some(waiting) = shared.queue.get_mut(head.ticket) else { continue };
            if saving.is_zero() {
                waiting.saving_since = None;
            } else {
                let at = *waiting.saving_since.get_or_insert(now + saving + SAVED_AFTER);
                if at > now {
                    sooner(at);
                }
            }
        }
        for at in self.held.keys().filter_map(|(domain, key)| self.holds_until(*domain, *key)) {
            sooner(at);
        }
        for at in [self.fair.next_aged(shared.rules.ageing), self.fair.next_unparked()].into_iter().flatten() {
            sooner(at);
        }
        self.wake = wake;
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
    /// Nothing can go there for long.
    out: Vec<bool>,
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
        self.out.clear();
        self.out.resize(domains, false);
    }

    fn speak_for(&mut self, domain: usize, ticket: Ticket, blocked: Blocked, demand: Demand, rates: Rates) {
        self.heads[domain].get_or_insert(Head { ticket, blocked, demand });
        let part = |amount: f64, rate: f64| if rate.is_finite() && rate > 0.0 { amount / rate } else { 0.0 };
        let own = part(demand.input, rates.input).max(part(demand.output, rates.output)).max(part(1.0, rates.requests));
        self.work[domain] += own.max(1e-6);
    }

    fn all_spoken_for(&self) -> bool {
        self.heads.iter().zip(&self.out).all(|(head, out)| head.is_some() || *out)
    }
}
