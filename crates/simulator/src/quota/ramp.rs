//! The limit on sharp increases: what the last ten seconds may be beside the last five minutes.
//!
//! A request passes if, itself counted, the rate of the last 10 s is at most the greater of a floor
//! and `factor` times the mean of the last 5 min; for requests and for input tokens. The mean counts
//! time before the first request as silence, so a new customer begins at the floor. Only admitted
//! requests count.
//!
//! Time is kept in slots of a quarter of a second, empty ones not at all: at most 1,200 of them.

use super::rules::RampRule;
use std::collections::VecDeque;
use std::time::Duration;
use tidegate_base::Moment;

const SLOT_NS: u64 = 250_000_000;
/// Slots of the short window: 10 s.
const SHORT: u64 = 40;
/// Slots of the long one: 5 min.
const LONG: u64 = 1_200;

/// Requests and input tokens.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    requests: u64,
    tokens: u64,
}

impl Load {
    fn add(&mut self, other: Load) {
        self.requests += other.requests;
        self.tokens += other.tokens;
    }
}

/// What was admitted lately.
#[derive(Clone, Debug)]
pub(crate) struct Ramp {
    rule: RampRule,
    slots: VecDeque<(u64, Load)>,
}

impl Ramp {
    pub(crate) fn new(rule: RampRule) -> Self {
        Ramp { rule, slots: VecDeque::new() }
    }

    /// What was admitted in the `window` slots up to and with this one.
    fn within(&self, slot: u64, window: u64) -> Load {
        let mut sum = Load::default();
        for (_, load) in self.slots.iter().rev().take_while(|(at, _)| at + window > slot) {
            sum.add(*load);
        }
        sum
    }

    /// Whether a request of `tokens` may pass in this slot.
    fn passes(&self, slot: u64, tokens: u64) -> bool {
        let (short, long) = (self.within(slot, SHORT), self.within(slot, LONG));
        let below = |now: u64, mean: u64, floor: u64| {
            let per_minute = now as f64 * 6.0;
            per_minute <= (floor as f64).max(self.rule.factor * mean as f64 / 5.0)
        };
        below(short.requests + 1, long.requests, self.rule.floor_requests)
            && below(short.tokens + tokens, long.tokens, self.rule.floor_input_tokens)
    }

    /// `None` if the request may pass; otherwise how long until it might.
    pub(crate) fn wait(&mut self, tokens: u64, now: Moment) -> Option<Duration> {
        let slot = now.as_nanos() / SLOT_NS;
        while self.slots.front().is_some_and(|(at, _)| at + LONG <= slot) {
            self.slots.pop_front();
        }
        if self.passes(slot, tokens) {
            return None;
        }
        let then = (1..=SHORT).find(|n| self.passes(slot + n, tokens)).unwrap_or(SHORT);
        Some(now.until(Moment::from_nanos((slot + then) * SLOT_NS)))
    }

    /// Counts a request that was admitted.
    pub(crate) fn admitted(&mut self, tokens: u64, now: Moment) {
        let slot = now.as_nanos() / SLOT_NS;
        let load = Load { requests: 1, tokens };
        match self.slots.back_mut() {
            Some((at, sum)) if *at >= slot => sum.add(load),
            _ => self.slots.push_back((slot, load)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    fn ramp(floor_requests: u64, floor_input_tokens: u64) -> Ramp {
        Ramp::new(RampRule { floor_requests, floor_input_tokens, factor: 1.5 })
    }

    /// Asks for so many requests at once and says how many passed.
    fn offer(ramp: &mut Ramp, n: u64, tokens: u64, now: Moment) -> u64 {
        let pass = |_: &u64| {
            let passes = ramp.wait(tokens, now).is_none();
            if passes {
                ramp.admitted(tokens, now);
            }
            passes
        };
        (0..n).filter(pass).count() as u64
    }

    #[test]
    fn a_new_customer_begins_at_the_floor() {
        let mut ramp = ramp(60, 1_000_000);
        assert_eq!(offer(&mut ramp, 30, 10, at(0)), 10, "sixty a minute are ten in ten seconds");
        assert_eq!(ramp.wait(10, at(0)), Some(Duration::from_secs(10)));
        assert_eq!(ramp.wait(10, at(4_100)), Some(Duration::from_millis(5_900)));
        assert_eq!(offer(&mut ramp, 30, 10, at(9_999)), 0);
        assert_eq!(offer(&mut ramp, 30, 10, at(10_000)), 10);
    }

    #[test]
    fn input_tokens_have_a_floor_of_their_own() {
        let mut ramp = ramp(1_000, 6_000);
        assert_eq!(offer(&mut ramp, 30, 400, at(0)), 2, "a thousand in ten seconds");
        assert_eq!(offer(&mut ramp, 30, 200, at(0)), 1);
        assert_eq!(ramp.wait(1_001, at(60_000)), Some(Duration::from_secs(10)), "too large to say when");
    }

    #[test]
    fn a_steady_customer_may_grow_by_half_of_his_mean() {
        let mut ramp = ramp(60, 1_000_000);
        // Two a second for five minutes need a floor of 120; they are let in without asking.
        for n in 0..600 {
            ramp.admitted(10, at(n * 500));
        }
        // The mean is two a second, so thirty may come in ten seconds; the last ten had twenty.
        assert_eq!(offer(&mut ramp, 50, 10, at(299_900)), 10);
        assert_eq!(offer(&mut ramp, 50, 10, at(310_000)), 30, "589 in five minutes, and what passes counts too");
        assert_eq!(offer(&mut ramp, 50, 10, at(700_000)), 10, "after six minutes of silence he is new");
        assert!(ramp.slots.len() <= 1_200);
    }
}
