//! Spans of time, collected in a histogram and told as percentiles in milliseconds.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

/// Finest difference told apart; a loopback answer takes some fifty times longer.
const RESOLUTION_NS: u64 = 1_000;
/// Longer spans count as this long: no request may take an hour.
const SPAN_NS_MAX: u64 = 3_600_000_000_000;
/// Three digits: 23 halving ranges of 1,024 slots, 190 KB a histogram.
const DIGITS: u8 = 3;

/// One kind of span.
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(RESOLUTION_NS, SPAN_NS_MAX, DIGITS);
        Latency(histogram.expect("the bounds are constants that hdrhistogram accepts"))
    }

    pub(crate) fn record(&mut self, span: Duration) {
        self.0.saturating_record(u64::try_from(span.as_nanos()).unwrap_or(SPAN_NS_MAX));
    }

    /// `count` spans of no length.
    pub(crate) fn record_zeros(&mut self, count: u64) {
        self.0.saturating_record_n(0, count);
    }

    pub(crate) fn add(&mut self, more: &Latency) {
        // Both have the same bounds, so nothing can be left out.
        let _ = self.0.add(&more.0);
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let ms = |ns: u64| ns as f64 / 1e6;
        let at = |quantile| ms(self.0.value_at_quantile(quantile));
        Percentiles {
            count: self.0.len(),
            mean: self.0.mean() / 1e6,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: ms(self.0.max()),
        }
    }
}

/// How a kind of span was spread, in milliseconds, to three digits. All zero if `count` is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Percentiles {
    /// How many spans there were.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Half were at most this long.
    pub p50: f64,
    /// Nine in ten were.
    pub p90: f64,
    /// 99 in a hundred were.
    pub p99: f64,
    /// 999 in a thousand were.
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    /// The object of the JSON report; a span that never occurred has nulls.
    pub(crate) fn json(&self) -> Value {
        let ms = |x: f64| if self.count == 0 { Value::Null } else { json!((x * 1e4).round() / 1e4) };
        json!({
            "count": self.count,
            "mean": ms(self.mean),
            "p50": ms(self.p50),
            "p90": ms(self.p90),
            "p99": ms(self.p99),
            "p99_9": ms(self.p99_9),
            "max": ms(self.max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_spans_to_three_digits() {
        let (mut a, mut b) = (Latency::new(), Latency::new());
        for ms in 1..=1000 {
            if ms % 2 == 0 { &mut a } else { &mut b }.record(Duration::from_millis(ms));
        }
        a.add(&b);
        let p = a.percentiles();
        assert_eq!(p.count, 1000);
        for (got, want) in [(p.p50, 500.0), (p.p90, 900.0), (p.p99, 990.0), (p.p99_9, 999.0), (p.max, 1000.0)] {
            assert!((got - want).abs() <= want / 1000.0, "{got} {want}");
        }
    }

    #[test]
    fn nothing_recorded_is_null_and_too_long_is_an_hour() {
        let mut latency = Latency::new();
        assert_eq!(latency.percentiles().json()["p99"], Value::Null);
        latency.record(Duration::MAX);
        assert!(latency.percentiles().max >= 3_600_000.0);
    }
}
