//! What one run showed, and whether it is what was asked.

use crate::meter::Sums;
use crate::scenario::Scenario;
use std::collections::BTreeMap;

/// The first minute is not counted: it is the longest time in which a limiter that was full at the
/// start gives away its first capacity, and streams are still building up.
pub(crate) const UNCOUNTED: f64 = 60.0;
/// A scheduler that looks so often for each request runs after something.
const WAKES_MAX: u64 = 10;
/// So many refusals are remembered one by one, and so many of them are told.
pub(crate) const REFUSALS_KEPT: usize = 4_000;
const REFUSALS_TOLD: usize = 25;

/// The use of one binding limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Use {
    pub(crate) counted: f64,
    pub(crate) refilled: f64,
    pub(crate) lost: f64,
    /// How far the level fell (above zero) over these times.
    pub(crate) fell: f64,
}

impl Use {
    pub(crate) fn add(&mut self, before: &Sums, after: &Sums) {
        self.counted += after.counted - before.counted;
        self.refilled += after.refilled - before.refilled;
        self.lost += after.lost - before.lost;
        self.fell += before.level - after.level;
    }

    /// In percent of what the rate gave. What was spent from a bucket that had been fuller before
    /// is not use of the rate, and is not counted.
    pub(crate) fn percent(&self) -> f64 {
        if self.refilled <= 0.0 {
            return f64::NAN;
        }
        100.0 * (self.counted - self.fell.max(0.0)) / self.refilled
    }
}

/// Who got how much in one window.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Cost served, by tenant.
    pub(crate) served: Vec<f64>,
    /// Whether the tenant had somebody waiting all the time.
    pub(crate) always: Vec<bool>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// By organisation and class: while somebody waited, and always.
    pub(crate) uses: Vec<[Use; 2]>,
    /// Requests that reached the upstream and were let in, or refused, by kind of refusal.
    pub(crate) admitted: u64,
    pub(crate) refused: BTreeMap<&'static str, u64>,
    /// The first refusals: when, what, and seconds to stay away.
    pub(crate) first_refused: Vec<(f64, &'static str, u64)>,
    /// The same two (429s only), by second.
    pub(crate) by_second: Vec<[u32; 2]>,
    pub(crate) offered: u64,
    pub(crate) answered: u64,
    pub(crate) left: u64,
    /// Upstream 429s that were told to a client although its time was not over.
    pub(crate) shown: u64,
    /// Our own refusals, by name.
    pub(crate) shed: BTreeMap<&'static str, u64>,
    /// Seconds in the queue, by band, of requests that were let go.
    pub(crate) waits: [Vec<f32>; 3],
    /// The same for tenants other than 0.
    pub(crate) others_waits: Vec<f32>,
    pub(crate) late_starts: u64,
    pub(crate) windows: Vec<Window>,
    /// Requests that had a shared beginning, and how many of them paid for it.
    pub(crate) sharing: [u64; 2],
    /// Later turns of conversations, and how many found their cache.
    pub(crate) turns: [u64; 2],
    /// Leases and waiting requests that were left over when everybody was gone.
    pub(crate) left_over: u64,
    /// The largest difference the audit ever showed.
    pub(crate) difference: f64,
    pub(crate) in_flight_max: u64,
    /// Output tokens that clients received, per second.
    pub(crate) goodput: f64,
    /// How often the scheduler woke itself.
    pub(crate) wakes: u64,
}

impl Figures {
    pub(crate) fn throttled(&self) -> u64 {
        self.refused.iter().filter(|(name, _)| !matches!(**name, "overloaded" | "broken" | "key")).map(|(_, n)| n).sum()
    }

    /// The use of the worst organisation and class while somebody waited.
    pub(crate) fn use_percent(&self) -> f64 {
        self.uses.iter().map(|[waiting, _]| waiting.percent()).filter(|p| p.is_finite()).fold(f64::NAN, f64::min)
    }

    /// The same of all the time: of a policy that lets everybody go at once, nobody ever waits.
    pub(crate) fn use_percent_always(&self) -> f64 {
        self.uses.iter().map(|[_, always]| always.percent()).filter(|p| p.is_finite()).fold(f64::NAN, f64::min)
    }

    /// Upstream 429s per 100 requests let in, in the minute after `at`.
    pub(crate) fn after_change(&self, at: f64) -> f64 {
        let minute = self.by_second.iter().skip(at as usize).take(60);
        let sums = minute.fold([0u32; 2], |sums, [admitted, refused]| [sums[0] + admitted, sums[1] + refused]);
        100.0 * f64::from(sums[1]) / f64::from(sums[0].max(1))
    }

    /// Jain's index of weighted service among the tenants that always had somebody waiting: the
    /// mean over the windows after the first minute.
    pub(crate) fn jain(&self, scenario: &Scenario) -> f64 {
        let windows = self.windows.iter().skip((UNCOUNTED / scenario.window) as usize);
        let indices: Vec<f64> = windows.filter_map(|window| window.jain(&scenario.weights)).collect();
        indices.iter().sum::<f64>() / indices.len() as f64
    }

    pub(crate) fn answered_percent(&self) -> f64 {
        100.0 * self.answered as f64 / (self.offered - self.left).max(1) as f64
    }

    /// The first refusals after `at`, in words.
    fn refusals(&self, at: f64) -> String {
        let told = self.first_refused.iter().filter(|(when, ..)| *when >= at);
        // Those of one instant are one event.
        let mut events: Vec<(f64, String, u32)> = Vec::new();
        for (when, what, away) in told {
            if let Some((_, _, times)) = events.last_mut().filter(|(since, ..)| when - *since < 0.1) {
                *times += 1;
            } else if events.len() < REFUSALS_TOLD {
                events.push((*when, format!("{what} ({away} s)"), 1));
            } else {
                break;
            }
        }
        let said = events.into_iter().map(|(when, what, times)| format!("{when:.2} s {times} x {what}"));
        said.collect::<Vec<_>>().join(", ")
    }

    /// What was asked and did not come true.
    pub(crate) fn broken(&self, scenario: &Scenario) -> Vec<String> {
        let t = &scenario.targets;
        let mut broken = Vec::new();
        let mut ask = |holds: bool, told: String| {
            if !holds {
                broken.push(told);
            }
        };
        ask(self.shown == 0, format!("{} upstream 429s were shown to clients", self.shown));
        ask(self.left_over == 0, format!("{} leases or tickets are left over", self.left_over));
        ask(self.difference < 1e-3, format!("leases and counters differ by {}", self.difference));
        ask(self.late_starts == 0, format!("{} requests started after their deadline", self.late_starts));
        let (wakes, offered) = (self.wakes, self.offered.max(1));
        ask(wakes <= WAKES_MAX * offered, format!("{wakes} wakes for {offered} requests"));
        if let Some(least) = t.use_min {
            let used = self.use_percent();
            ask(used >= least, format!("{used:.2} % of the binding limit used, {least} asked"));
        }
        if let Some(most) = t.throttled_max {
            let first = self.refusals(0.0);
            ask(self.throttled() <= most, format!("{} upstream 429s, at most {most} asked: {first}", self.throttled()));
        }
        if let Some(most) = t.per_100_max {
            let (rate, first) = (100.0 * self.throttled() as f64 / self.admitted.max(1) as f64, self.refusals(0.0));
            ask(rate <= most, format!("{rate:.2} upstream 429s per 100 requests, at most {most} asked: {first}"));
        }
        if let (Some(most), Some((at, _))) = (t.after_change_max, scenario.script.first()) {
            let rate = self.after_change(*at);
            let first = self.refusals(*at);
            ask(rate <= most, format!("{rate:.2} upstream 429s per 100 in the minute after, {most} asked: {first}"));
        }
        if let Some(least) = t.jain_min {
            let jain = self.jain(scenario);
            ask(jain >= least, format!("Jain index {jain:.4}, {least} asked"));
        }
        if let Some(least) = t.answered_min {
            let share = self.answered_percent();
            let shed: Vec<String> = self.shed.iter().map(|(why, n)| format!("{n} {why}")).collect();
            ask(share >= least, format!("{share:.2} % answered, {least} asked; shed: {}", shed.join(", ")));
        }
        if let Some(most) = t.others_p99_max {
            let wait = quantile(&self.others_waits, 0.99);
            ask(wait <= most, format!("the others waited {wait:.2} s (p99), at most {most} asked"));
        }
        if let Some(most) = t.paid_again_max {
            let again = per_hundred(self.sharing);
            ask(again <= most, format!("{again:.2} of 100 paid for a beginning that others shared, {most} asked"));
        }
        if let Some(least) = t.warm_turns_min {
            let warm = per_hundred(self.turns);
            ask(warm >= least, format!("{warm:.2} % of later turns found their cache, {least} asked"));
        }
        broken
    }
}

impl Window {
    fn jain(&self, weights: &[f64]) -> Option<f64> {
        let compared = self.served.iter().zip(weights).zip(&self.always).filter(|(_, always)| **always);
        let shares: Vec<f64> = compared.map(|((served, weight), _)| served / weight).collect();
        let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
        (shares.len() >= 2 && squares > 0.0).then(|| sum * sum / (shares.len() as f64 * squares))
    }
}

/// The second of two counts per hundred of the first.
pub(crate) fn per_hundred([of, some]: [u64; 2]) -> f64 {
    100.0 * some as f64 / of.max(1) as f64
}

/// A quantile of what was measured; 0 of nothing.
pub(crate) fn quantile(measured: &[f32], q: f64) -> f64 {
    let mut sorted = measured.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    sorted.get(((sorted.len() as f64 * q) as usize).min(sorted.len().saturating_sub(1))).map_or(0.0, |x| f64::from(*x))
}

/// The unit in which service is compared: shares of the limits, the page's `1/rate` for input and
/// for output.
pub(crate) fn cost_weights(scenario: &Scenario) -> [f64; 2] {
    let limits = scenario.orgs[0].limits[0];
    [limits.input_tokens, limits.output_tokens].map(|limit| limit.map_or(0.0, |limit| 1.0 / limit as f64))
}

#[test]
fn use_does_not_count_what_was_saved_before() {
    let sums = |counted, refilled, lost, level| Sums { counted, refilled, lost, level };
    let mut spent_a_reserve = Use::default();
    spent_a_reserve.add(&sums(0.0, 0.0, 0.0, 50.0), &sums(150.0, 100.0, 0.0, 0.0));
    assert_eq!(spent_a_reserve.percent(), 100.0);
    let mut saved = Use::default();
    saved.add(&sums(0.0, 0.0, 0.0, 0.0), &sums(80.0, 100.0, 5.0, 15.0));
    assert_eq!(saved.percent(), 80.0);
}

#[test]
fn jain_compares_only_those_who_always_wait() {
    let window = Window { served: vec![10.0, 10.0, 20.0, 1.0], always: vec![true, true, true, false] };
    assert_eq!(window.jain(&[1.0, 1.0, 2.0, 1.0]), Some(1.0));
    assert_eq!(window.jain(&[1.0; 4]), Some(1_600.0 / (3.0 * 600.0)));
    let alone = Window { always: vec![true, false, false, false], ..window };
    assert_eq!(alone.jain(&[1.0; 4]), None);
}
