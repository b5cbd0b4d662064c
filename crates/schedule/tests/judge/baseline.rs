//! Two ways of living with a quota that others have: to try and to honour `retry-after`, and to
//! count what was used in each minute of the wall clock.

use crate::policy::{Failed, Next, Policy, Said};
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_schedule::{Ask, Estimator, LaneId, Limits, OrgId, Outcome};

/// Sends everything at once, over the keys in turn; a 429 is repeated after its `retry-after`.
#[derive(Default)]
pub(crate) struct FireAndRetry {
    keys: Vec<LaneId>,
    turn: usize,
    leased: u64,
}

impl FireAndRetry {
    /// With so many keys in each organisation.
    pub(crate) fn new(keys: &[usize]) -> Self {
        let lane = |org: usize, key: usize| LaneId { org: OrgId(org as u32), key: key as u16 };
        let keys = keys.iter().enumerate().flat_map(|(org, keys)| (0..*keys).map(move |key| lane(org, key)));
        FireAndRetry { keys: keys.collect(), turn: 0, leased: 0 }
    }

    fn next(&mut self) -> LaneId {
        self.turn = (self.turn + 1) % self.keys.len();
        self.leased += 1;
        self.keys[self.turn]
    }
}

impl Policy for FireAndRetry {
    fn ask(&mut self, _: Moment, _: usize, _: &Ask) -> Said {
        Said::Go(self.next())
    }

    fn cancel(&mut self, _: Moment, _: usize) {}

    fn advance(&mut self, _: Moment) -> Vec<(usize, Said)> {
        Vec::new()
    }

    fn wake_at(&self, _: Moment) -> Option<Moment> {
        None
    }

    fn settle(&mut self, _: Moment, _: usize, _: Outcome) {
        self.leased -= 1;
    }

    fn retry(&mut self, now: Moment, _: usize, ask: &Ask, failed: &Failed) -> Next {
        let at = now + failed.retry_after.unwrap_or(Duration::from_secs(1));
        if at < ask.latest { Next::At(at) } else { Next::GiveUp }
    }

    fn leased(&self) -> u64 {
        self.leased
    }

    fn waiting(&self) -> usize {
        0
    }
}

/// Counts requests and input when they go and output when it has come, and starts again at zero
/// with each minute; what is over the limits waits, first come first served.
pub(crate) struct MinuteWindow {
    limits: [f64; 3],
    used: [f64; 3],
    minute: u64,
    queue: BTreeMap<u64, (usize, f64)>,
    place: BTreeMap<usize, u64>,
    next: u64,
    lane: LaneId,
    leased: u64,
}

impl MinuteWindow {
    pub(crate) fn new(limits: &Limits) -> Self {
        let each = [limits.requests, limits.input_tokens, limits.output_tokens];
        MinuteWindow {
            limits: each.map(|limit| limit.map_or(f64::INFINITY, |limit| limit as f64)),
            used: [0.0; 3],
            minute: 0,
            queue: BTreeMap::new(),
            place: BTreeMap::new(),
            next: 0,
            lane: LaneId { org: OrgId(0), key: 0 },
            leased: 0,
        }
    }

    fn turn_over(&mut self, now: Moment) {
        let minute = now.as_nanos() / 60_000_000_000;
        if minute != self.minute {
            self.minute = minute;
            self.used = [0.0; 3];
        }
    }

    fn takes(&mut self, input: f64) -> bool {
        let fits = self.used[0] + 1.0 <= self.limits[0]
            && self.used[1] + input <= self.limits[1]
            && self.used[2] < self.limits[2];
        if fits {
            self.used[0] += 1.0;
            self.used[1] += input;
            self.leased += 1;
        }
        fits
    }
}

impl Policy for MinuteWindow {
    fn ask(&mut self, now: Moment, slot: usize, ask: &Ask) -> Said {
        self.turn_over(now);
        let input = Estimator::default().tokens(&ask.input);
        if self.queue.is_empty() && self.takes(input) {
            return Said::Go(self.lane);
        }
        self.queue.insert(self.next, (slot, input));
        self.place.insert(slot, self.next);
        self.next += 1;
        Said::Wait
    }

    fn cancel(&mut self, _: Moment, slot: usize) {
        if let Some(place) = self.place.remove(&slot) {
            self.queue.remove(&place);
        }
    }

    fn advance(&mut self, now: Moment) -> Vec<(usize, Said)> {
        self.turn_over(now);
        let mut went = Vec::new();
        while let Some((place, (slot, input))) = self.queue.first_key_value().map(|(place, who)| (*place, *who)) {
            if !self.takes(input) {
                break;
            }
            self.queue.remove(&place);
            self.place.remove(&slot);
            went.push((slot, Said::Go(self.lane)));
        }
        went
    }

    fn wake_at(&self, _: Moment) -> Option<Moment> {
        let next = Moment::from_nanos((self.minute + 1) * 60_000_000_000);
        (!self.queue.is_empty()).then_some(next)
    }

    fn settle(&mut self, now: Moment, _: usize, outcome: Outcome) {
        self.turn_over(now);
        self.leased -= 1;
        if let Outcome::Answered(Some(spent)) = outcome {
            self.used[2] += spent.output as f64;
        }
    }

    fn retry(&mut self, now: Moment, _: usize, ask: &Ask, failed: &Failed) -> Next {
        let at = now + failed.retry_after.unwrap_or(Duration::from_secs(1));
        if at < ask.latest { Next::At(at) } else { Next::GiveUp }
    }

    fn leased(&self) -> u64 {
        self.leased
    }

    fn waiting(&self) -> usize {
        self.queue.len()
    }
}
