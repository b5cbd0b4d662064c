//! The upstream's side of a run: requests reach it, are let in or refused, produce and end.

use super::{Event, World, seconds};
use crate::figures::REFUSALS_KEPT;
use crate::scenario::Change;
use crate::upstream::{Admitted, No};

impl World<'_> {
    /// The upstream decides.
    pub(super) fn reaches(&mut self, place: usize, serial: u64) {
        let now = seconds(self.now);
        let Some(exchange) = self.exchanges[place].as_mut().filter(|e| e.serial == serial) else { return };
        let answer = self.orgs[exchange.org].admit(now, &exchange.wanted, &mut self.prng);
        let (handle, back, ttfb) = (exchange.handle, exchange.back, exchange.sizes.first_byte);
        let second = now as usize;
        if self.figures.by_second.len() <= second {
            self.figures.by_second.resize(second + 1, [0; 2]);
        }
        match answer {
            Ok(admitted) => {
                exchange.admitted = Some(admitted);
                self.figures.admitted += 1;
                self.figures.by_second[second][0] += 1;
                self.serves(place, &admitted);
                self.push_in(ttfb, Event::FirstByte(place, serial));
            }
            Err(no) => {
                let throttled = matches!(no, No::Throttled { .. });
                *self.figures.refused.entry(name(&no)).or_default() += 1;
                if self.figures.first_refused.len() < REFUSALS_KEPT {
                    let away = match no {
                        No::Throttled { retry_after, .. } => retry_after.map_or(0, |span| span.as_secs()),
                        _ => 0,
                    };
                    self.figures.first_refused.push((now, name(&no), away));
                }
                self.figures.by_second[second][1] += u32::from(throttled);
                self.exchanges[place] = None;
                self.free_exchanges.push(place);
                let request = &mut self.requests[handle.slot];
                if request.id == handle.request && request.attempt == handle.attempt {
                    request.no = Some(no);
                    self.push_in(0.005 + back, Event::Refused(handle));
                }
            }
        }
    }

    /// Counts what letting it in shows of cache and fairness.
    fn serves(&mut self, place: usize, admitted: &Admitted) {
        let Some(exchange) = &self.exchanges[place] else { return };
        let spent = admitted.spent;
        if exchange.wanted.prefix.is_some() {
            self.figures.sharing[0] += 1;
            self.figures.sharing[1] += u64::from(spent.cache_read == 0);
        }
        if exchange.wanted.conversation.is_some() && exchange.sizes.turn > 0 {
            self.figures.turns[0] += 1;
            self.figures.turns[1] += u64::from(spent.cache_read > 0);
        }
        self.window.served[exchange.tenant] += self.cost[0] * (spent.input + spent.cache_creation) as f64;
    }

    pub(super) fn first_byte(&mut self, place: usize, serial: u64) {
        let now = seconds(self.now);
        let Some(exchange) = self.exchanges[place].as_mut().filter(|e| e.serial == serial) else { return };
        let org = &mut self.orgs[exchange.org];
        exchange.began = now;
        let now_head = org.begins(now, &exchange.wanted, exchange.sizes.speed);
        let Some(admitted) = exchange.admitted else { return };
        let head = if org.plan.sampled_at_admission { admitted.head } else { now_head };
        let (handle, back) = (exchange.handle, exchange.back);
        let lasts = exchange.sizes.output / exchange.sizes.speed;
        let request = &mut self.requests[handle.slot];
        if request.id == handle.request && request.attempt == handle.attempt {
            request.head = head;
            request.spent = admitted.spent;
        }
        self.push_in(lasts, Event::UpstreamEnds(place, serial));
        self.push_in(back, Event::Began(handle));
        self.push_in(lasts + back, Event::Ends(handle));
    }

    /// An exchange is over, or its cancellation arrives.
    pub(super) fn upstream_ends(&mut self, place: usize, serial: u64, cancelled: bool) {
        let Some(exchange) = self.exchanges[place].take_if(|e| e.serial == serial) else { return };
        let now = seconds(self.now);
        self.free_exchanges.push(place);
        let began = exchange.began.is_finite();
        let produced = if began { (now - exchange.began) * exchange.sizes.speed } else { 0.0 };
        let output = if cancelled { produced.min(exchange.sizes.output) } else { exchange.sizes.output };
        let org = &mut self.orgs[exchange.org];
        if began {
            org.draw(now, &exchange.wanted, -exchange.sizes.speed);
        }
        if exchange.admitted.is_some() {
            org.ends(now, &exchange.wanted, output);
        }
    }

    pub(super) fn change(&mut self, n: usize) {
        let now = seconds(self.now);
        match self.scenario.script[n].1 {
            Change::Scale { org, factor, told } => self.orgs[org].scale(now, factor, told),
            Change::Foreign { org, share } => self.orgs[org].foreign = share,
            Change::Revoke { org, key, revoked } => self.orgs[org].revoked[key] = revoked,
            Change::SpendCap { org, reached } => self.orgs[org].spend_capped = reached,
            Change::Overloaded { org, chance } => self.orgs[org].overloaded = chance,
            Change::Broken { org, chance } => self.orgs[org].broken = chance,
        }
    }
}

fn name(no: &No) -> &'static str {
    match no {
        No::Throttled { by, .. } => by.name(),
        No::Overloaded { .. } => "overloaded",
        No::Broken => "broken",
        No::KeyRejected => "key",
    }
}
