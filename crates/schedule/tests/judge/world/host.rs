//! The host's side of a run: requests come, ask, go, are answered, refused or left.
//!
//! It does what the gateway does: one request holds one lease at a time, a 429 is repeated when the
//! scheduler says so and asks again with the time it has waited, and every end is settled once.

use super::{Event, Exchange, Request, State, World, seconds, span};
use crate::dice;
use crate::load::{Arrivals, Sizes};
use crate::policy::{Failed, Next, Said};
use crate::upstream::{No, Wanted};
use std::time::Duration;
use tidegate_schedule::{Ask, Cause, ClassId, LaneId, Levels, OrgId, Outcome, Spent, TenantId, Throttle};

/// How long a client that was refused without a word on when to come back stays away.
const AWAY: f64 = 5.0;
/// The longest pause of the scheduler's own choosing.
const BACKOFF_MAX: Duration = Duration::from_secs(20);

impl World<'_> {
    /// One way over the network.
    fn way(&mut self) -> f64 {
        let n = self.scenario.network;
        let spike = self.prng.chance(n.spikes);
        dice::uniform(&mut self.prng, n.low, if spike { n.spike } else { n.high })
    }

    pub(super) fn offer(&mut self, client: usize) {
        let crowd = self.clients[client].crowd;
        if self.stopped || seconds(self.now) >= self.scenario.crowds[crowd].until {
            return;
        }
        let sizes = self.clients[client].next(&self.scenario.crowds[crowd]);
        self.comes(crowd, Some(client), sizes);
    }

    pub(super) fn arrival(&mut self, crowd: usize) {
        let plan = &self.scenario.crowds[crowd];
        let Arrivals::Open { per_second, cv } = plan.arrivals else { return };
        let Some((client, gaps)) = self.open.get_mut(&crowd) else { return };
        if self.stopped || seconds(self.now) >= plan.until {
            return;
        }
        let (sizes, gap) = (client.next(plan), dice::gap(gaps, per_second, cv));
        self.push_in(gap, Event::Arrival(crowd));
        self.comes(crowd, None, sizes);
    }

    /// A new request.
    fn comes(&mut self, crowd: usize, client: Option<usize>, sizes: Sizes) {
        let plan = &self.scenario.crowds[crowd];
        let ask = Ask {
            class: ClassId(plan.class as u32),
            tenant: TenantId(plan.tenant),
            band: plan.band,
            latest: self.now + span(plan.patience),
            waited: Duration::ZERO,
            input: sizes.mix,
            output_max: Some(plan.output_max),
            seen: plan.seen,
            prefix: sizes.prefix,
            conversation: sizes.conversation,
            pin: None,
            avoid: None,
        };
        self.figures.offered += 1;
        let request = Request {
            id: self.figures.offered,
            attempt: 0,
            client,
            ask,
            sizes,
            state: State::Pausing,
            seen: 0,
            lane: LaneId { org: OrgId(0), key: 0 },
            no: None,
            head: Levels::default(),
            spent: Spent::default(),
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.requests[slot] = request;
                slot
            }
            None => {
                self.requests.push(request);
                self.requests.len() - 1
            }
        };
        self.live += 1;
        self.waits(slot, 1);
        if self.prng.chance(plan.leaves) {
            let when = dice::log_normal(&mut self.prng, 8.0, 1.0);
            self.push_in(when, Event::Leave(self.handle(slot)));
        }
        self.ask(slot);
        self.settle_down();
    }

    pub(super) fn ask(&mut self, slot: usize) {
        let ask = self.requests[slot].ask;
        self.requests[slot].state = State::Waiting(seconds(self.now));
        let said = self.policy.ask(self.now, slot, &ask);
        self.told(slot, said);
    }

    fn told(&mut self, slot: usize, said: Said) {
        match said {
            Said::Wait => {}
            Said::Go(lane) => self.goes(slot, lane),
            Said::Refuse(why, retry_after) => {
                *self.figures.shed.entry(why).or_default() += 1;
                let away = retry_after.map_or(AWAY, |span| span.as_secs_f64().clamp(0.5, 30.0));
                self.over(slot, away);
            }
        }
    }

    /// Has it a lease? Then it is on its way.
    fn goes(&mut self, slot: usize, lane: LaneId) {
        let now = seconds(self.now);
        let (there, back, written) = (self.way(), self.way(), dice::uniform(&mut self.prng, 0.0, 0.005));
        let request = &mut self.requests[slot];
        if let State::Waiting(since) = request.state {
            request.ask.waited += span(now - since);
        }
        request.attempt += 1;
        request.lane = lane;
        request.no = None;
        request.seen = 0;
        self.figures.late_starts += u64::from(self.now > request.ask.latest);
        if request.attempt == 1 {
            let waited = request.ask.waited.as_secs_f64() as f32;
            self.figures.waits[request.ask.band as usize].push(waited);
            if request.ask.tenant.0 != 0 {
                self.figures.others_waits.push(waited);
            }
        }
        let wanted = Wanted {
            class: request.ask.class.0 as usize,
            key: lane.key,
            input: request.sizes.input,
            output_max: request.ask.output_max.map_or(0.0, f64::from),
            prefix: request.sizes.prefix,
            conversation: request.sizes.conversation,
        };
        let sizes = request.sizes;
        let tenant = request.ask.tenant.0 as usize;
        self.born += 1;
        let serial = self.born;
        let exchange = Exchange {
            serial,
            handle: self.handle(slot),
            tenant,
            org: lane.org.0 as usize,
            wanted,
            sizes,
            back,
            admitted: None,
            began: f64::INFINITY,
        };
        let place = self.free_exchanges.pop().unwrap_or(self.exchanges.len());
        if place == self.exchanges.len() {
            self.exchanges.push(None);
        }
        self.exchanges[place] = Some(exchange);
        self.requests[slot].state = State::Sent(place);
        self.waits(slot, -1);
        self.push_in(written, Event::Sent(self.handle(slot)));
        self.push_in(there.max(written), Event::Reaches(place, serial));
    }

    pub(super) fn began(&mut self, slot: usize) {
        let State::Sent(exchange) = self.requests[slot].state else { return };
        self.requests[slot].state = State::Streaming(exchange, seconds(self.now));
        let head = self.requests[slot].head;
        self.policy.heard(self.now, slot, &head);
        self.policy.began(self.now, slot);
        // A stream's first event tells the input's usage, also where the thinking after it is not shown.
        let spent = self.requests[slot].spent;
        self.policy.counted(self.now, slot, spent.input + spent.cache_creation);
    }

    /// The whole answer is there.
    pub(super) fn ends(&mut self, slot: usize) {
        let request = &mut self.requests[slot];
        let output = request.sizes.output;
        let rest = output as u32 - request.seen;
        request.spent.output = output as u64;
        request.seen += rest;
        let (spent, tenant, seen) = (request.spent, request.ask.tenant.0 as usize, request.ask.seen);
        self.window.served[tenant] += self.cost[1] * f64::from(rest);
        self.figures.goodput += output;
        self.figures.answered += 1;
        if seen && rest > 0 {
            self.policy.progressed(self.now, &[(slot, rest)]);
        }
        self.policy.settle(self.now, slot, Outcome::Answered(Some(spent)));
        self.over(slot, 0.0);
    }

    /// A refusal of the upstream has come back.
    pub(super) fn refused(&mut self, slot: usize) {
        let Some(no) = self.requests[slot].no.take() else { return };
        let (cause, retry_after, outcome) = match no {
            No::Throttled { by, retry_after, head } => {
                if !head.is_silent() {
                    self.policy.heard(self.now, slot, &head);
                }
                // The cap's end is not told; a host knows that it is the first of the next month.
                let lasts = if by == Throttle::SpendCap { Some(Duration::from_secs(300)) } else { retry_after };
                (Cause::Throttled, lasts, Outcome::Throttled { by, retry_after: lasts })
            }
            No::Overloaded { retry_after } => (Cause::Overloaded, retry_after, Outcome::Overloaded { retry_after }),
            No::Broken => (Cause::ServerError, None, Outcome::Broken),
            No::KeyRejected => {
                let retry_after = Duration::from_secs(60);
                (Cause::KeyRejected, None, Outcome::KeyRejected { retry_after })
            }
        };
        self.policy.settle(self.now, slot, outcome);
        let request = &mut self.requests[slot];
        request.ask.avoid = (cause != Cause::Throttled).then_some(request.lane);
        request.state = State::Pausing;
        let (ask, lane) = (request.ask, request.lane);
        self.waits(slot, 1);
        // After a 429 the wait is the scheduler's: it has closed the domain.
        let asked = if cause == Cause::Throttled { None } else { retry_after };
        match self.policy.retry(self.now, slot, &ask, &Failed { lane, cause, retry_after: asked }) {
            Next::At(at) => self.push_at(at, Event::AskAgain(self.handle(slot))),
            Next::GiveUp => {
                // Unless its time is nearly over, a client is not to see that the API was full.
                let in_time = self.now + asked.unwrap_or_default() + BACKOFF_MAX < ask.latest;
                self.figures.shown += u64::from(in_time && matches!(cause, Cause::Throttled | Cause::Overloaded));
                *self.figures.shed.entry("gave_up").or_default() += 1;
                self.over(slot, AWAY);
            }
        }
    }

    /// The client is gone.
    pub(super) fn leaves(&mut self, slot: usize) {
        self.figures.left += 1;
        let state = self.requests[slot].state;
        match state {
            State::Waiting(_) | State::Pausing => self.policy.cancel(self.now, slot),
            State::Sent(place) | State::Streaming(place, _) => {
                let cut = matches!(state, State::Streaming(..));
                let outcome = if cut { Outcome::Answered(None) } else { Outcome::Failed };
                self.policy.settle(self.now, slot, outcome);
                let handle = self.handle(slot);
                let current = self.exchanges[place].as_ref().filter(|e| e.handle == handle).map(|e| e.serial);
                // Never before the request itself.
                let way = self.way().max(self.scenario.network.spike).max(self.scenario.network.high);
                if let Some(serial) = current {
                    self.push_in(way, Event::CancelReaches(place, serial));
                }
            }
            State::Over => return,
        }
        self.over(slot, 1.0);
    }

    /// The request is done with; its client comes back after `away` seconds.
    fn over(&mut self, slot: usize, away: f64) {
        let request = &mut self.requests[slot];
        let (waits, client) = (matches!(request.state, State::Waiting(_) | State::Pausing), request.client);
        request.state = State::Over;
        if waits {
            self.waits(slot, -1);
        }
        self.live -= 1;
        self.free.push(slot);
        if let Some(client) = client {
            self.push_in(away, Event::Offer(client));
        }
    }

    /// It begins or ceases to wait.
    fn waits(&mut self, slot: usize, change: i32) {
        let ask = &self.requests[slot].ask;
        for count in [&mut self.backlog[ask.tenant.0 as usize], &mut self.class_backlog[ask.class.0 as usize]] {
            *count = count.checked_add_signed(change).expect("as many stop waiting as began to");
        }
    }

    /// After whatever happened: who can go now, and when to look again.
    pub(super) fn settle_down(&mut self) {
        for (slot, said) in self.policy.advance(self.now) {
            self.told(slot, said);
        }
        self.figures.in_flight_max = self.figures.in_flight_max.max(self.policy.leased());
        if let Some(at) = self.policy.wake_at(self.now) {
            let at = at.max(self.now);
            if at < self.wake {
                self.wake = at;
                self.push_at(at, Event::Wake(at.as_nanos()));
            }
        }
    }
}
