//! What many seeds of a scenario showed: the worst of each figure, as a line of a table.

use crate::figures::{Figures, per_hundred, quantile};
use crate::scenario::Scenario;
use std::fmt::Write as _;

/// One run, reduced to what the table shows.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    used: f64,
    used_always: f64,
    throttled: u64,
    per_10k: f64,
    after_change: Option<f64>,
    shown: u64,
    jain: f64,
    /// p50 and p99 by band, and of the tenants that do not flood.
    waits: [Option<(f64, f64)>; 3],
    others: Option<f64>,
    answered: f64,
    shed: u64,
    goodput: f64,
    in_flight: u64,
    late: u64,
    left_over: u64,
    paid_again: Option<f64>,
    warm_turns: Option<f64>,
    wakes_per_request: f64,
    pub(crate) broken: Vec<String>,
}

impl Line {
    pub(crate) fn of(scenario: &Scenario, figures: &Figures) -> Self {
        let reached = figures.admitted + figures.throttled();
        let quantiles = |waits: &Vec<f32>| (!waits.is_empty()).then(|| (quantile(waits, 0.5), quantile(waits, 0.99)));
        let change = scenario.targets.after_change_max.and(scenario.script.first());
        let counted = |count: [u64; 2]| (count[0] > 0).then(|| per_hundred(count));
        let others = (scenario.weights.len() > 1).then(|| quantile(&figures.others_waits, 0.99));
        Line {
            used: figures.use_percent(),
            used_always: figures.use_percent_always(),
            throttled: figures.throttled(),
            per_10k: 1e4 * figures.throttled() as f64 / reached.max(1) as f64,
            after_change: change.map(|(at, _)| figures.after_change(*at)),
            shown: figures.shown,
            jain: figures.jain(scenario),
            waits: std::array::from_fn(|band| quantiles(&figures.waits[band])),
            others,
            answered: figures.answered_percent(),
            shed: figures.shed.values().sum(),
            goodput: figures.goodput,
            in_flight: figures.in_flight_max,
            late: figures.late_starts,
            left_over: figures.left_over,
            paid_again: counted(figures.sharing),
            warm_turns: counted(figures.turns),
            wakes_per_request: figures.wakes as f64 / figures.offered.max(1) as f64,
            broken: figures.broken(scenario),
        }
    }

    /// The worse of each figure.
    pub(crate) fn worst(&mut self, other: &Line) {
        let most = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a.max(b)).or(a).or(b);
        let least = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a.min(b)).or(a).or(b);
        self.used = self.used.min(other.used);
        self.used_always = self.used_always.min(other.used_always);
        self.throttled = self.throttled.max(other.throttled);
        self.per_10k = self.per_10k.max(other.per_10k);
        self.after_change = most(self.after_change, other.after_change);
        self.shown = self.shown.max(other.shown);
        self.jain = self.jain.min(other.jain);
        for (mine, theirs) in self.waits.iter_mut().zip(other.waits) {
            *mine = mine.zip(theirs).map(|(a, b)| (a.0.max(b.0), a.1.max(b.1))).or(*mine).or(theirs);
        }
        self.others = most(self.others, other.others);
        self.answered = self.answered.min(other.answered);
        self.shed = self.shed.max(other.shed);
        self.goodput = self.goodput.min(other.goodput);
        self.in_flight = self.in_flight.max(other.in_flight);
        self.late = self.late.max(other.late);
        self.left_over = self.left_over.max(other.left_over);
        self.paid_again = most(self.paid_again, other.paid_again);
        self.warm_turns = least(self.warm_turns, other.warm_turns);
        self.wakes_per_request = self.wakes_per_request.max(other.wakes_per_request);
    }
}

/// The head of the table.
pub(crate) const HEAD: &str = "\
| scenario | seeds | use of the binding limit, % (min) | upstream 429s (max) | per 10k | shown to clients | wait, s: p50 / p99 | answered, % (min) | output tokens/s (min) | in flight (max) | also | missed |
|---|---|---|---|---|---|---|---|---|---|---|---|
";

/// One scenario's line.
pub(crate) fn row(name: &str, seeds: usize, missed: usize, line: &Line) -> String {
    let waits = ["interactive ", "", "background "].into_iter().zip(line.waits).filter_map(|(band, wait)| {
        let (p50, p99) = wait?;
        Some(format!("{band}{p50:.1} / {p99:.1}"))
    });
    let waits = waits.collect::<Vec<_>>().join(", ");
    let mut also = Vec::new();
    let mut tell = |name: &str, value: Option<f64>| also.extend(value.map(|value| format!("{name} {value:.2}")));
    tell("429s per 100 after the change", line.after_change);
    tell("others' p99 wait", line.others);
    tell("paid again, %", line.paid_again);
    tell("warm turns, %", line.warm_turns);
    let counted = |count: u64| (count > 0).then_some(count as f64);
    tell("late starts", counted(line.late));
    tell("left over", counted(line.left_over));
    tell("wakes per request", Some(line.wakes_per_request));
    if line.jain.is_finite() {
        also.insert(0, format!("Jain {:.4}", line.jain));
    }
    let used = if line.used.is_finite() { format!("{:.2}", line.used) } else { "-".to_owned() };
    let mut row = String::new();
    let _ = writeln!(
        row,
        "| {name} | {seeds} | {used} | {} | {:.1} | {} | {waits} | {:.2} | {:.0} | {} | {} | {} |",
        line.throttled,
        line.per_10k,
        line.shown,
        line.answered,
        line.goodput,
        line.in_flight,
        also.join(", "),
        if missed == 0 { "-".to_owned() } else { format!("{missed}") },
    );
    row
}
