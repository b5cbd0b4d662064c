//! What was used in each second: a curve beside the sums, so that a bench can look at the stretch in
//! which its load was steady.
//!
//! A row for each second in which something happened, of the last [`SECONDS_MAX`] such seconds, for
//! the first [`DOMAINS_MAX`] domains.

use crate::quota::DomainKey;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use tidegate_base::Moment;

/// Seconds remembered of a domain: a quarter of an hour.
pub(crate) const SECONDS_MAX: usize = 900;
/// Domains remembered: a scenario's are a few; those of a fuzzing client need no curve.
pub(crate) const DOMAINS_MAX: usize = 64;

/// One second of one domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Counted from the start of the simulator.
    pub second: u64,
    /// Requests admitted.
    pub requests: u64,
    /// Input tokens of them that count against the limit.
    pub input_tokens: u64,
    /// Output tokens produced.
    pub output_tokens: u64,
    /// Requests refused with 429.
    pub refused: u64,
}

/// The seconds of every domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    domains: BTreeMap<DomainKey, VecDeque<Second>>,
}

impl Series {
    /// Changes the row of this second, if the domain is one of those that are remembered.
    pub(crate) fn note(&mut self, domain: &DomainKey, now: Moment, change: impl FnOnce(&mut Second)) {
        if !self.domains.contains_key(domain) {
            if self.domains.len() >= DOMAINS_MAX {
                return;
            }
            self.domains.insert(domain.clone(), VecDeque::new());
        }
        let Some(rows) = self.domains.get_mut(domain) else { return };
        let second = now.as_nanos() / 1_000_000_000;
        if rows.back().is_none_or(|last| last.second < second) {
            if rows.len() >= SECONDS_MAX {
                rows.pop_front();
            }
            rows.push_back(Second { second, ..Second::default() });
        }
        if let Some(row) = rows.back_mut() {
            change(row);
        }
    }

    /// The rows of a domain, oldest first.
    pub(crate) fn rows(&self, organisation: &str, class: &'static str) -> impl Iterator<Item = &Second> {
        self.domains.get(&(organisation.to_owned(), class)).into_iter().flatten()
    }

    pub(crate) fn json(&self) -> Value {
        let row = |s: &Second| json!([s.second, s.requests, s.input_tokens, s.output_tokens, s.refused]);
        let domain = |((organisation, class), rows): (&DomainKey, &VecDeque<Second>)| json!({"organisation": organisation, "class": class, "seconds": rows.iter().map(row).collect::<Vec<_>>()});
        self.domains.iter().map(domain).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_second_has_a_row_if_something_happened_in_it_and_old_ones_go() {
        let mut series = Series::default();
        let domain = ("acme".to_owned(), "opus-5");
        for ms in [1_000, 1_999, 3_000] {
            series.note(&domain, at(ms), |row| row.requests += 1);
        }
        series.note(&domain, at(3_500), |row| row.output_tokens += 7);
        let rows = |series: &Series| series.rows("acme", "opus-5").map(|r| (r.second, r.requests)).collect::<Vec<_>>();
        assert_eq!(rows(&series), [(1, 2), (3, 1)]);
        assert_eq!(
            series.json(),
            json!([{"organisation": "acme", "class": "opus-5", "seconds": [[1, 2, 0, 0, 0], [3, 1, 0, 7, 0]]}])
        );
        (0..1_000).for_each(|s| series.note(&domain, at(10_000 + s * 1_000), |row| row.refused += 1));
        assert_eq!((rows(&series).len(), rows(&series)[0]), (SECONDS_MAX, (110, 0)));
    }

    #[test]
    fn only_so_many_domains_have_a_curve() {
        let mut series = Series::default();
        for n in 0..100 {
            series.note(&(format!("org{n}"), "opus-5"), at(0), |row| row.requests += 1);
        }
        assert_eq!(series.domains.len(), DOMAINS_MAX);
        assert_eq!((series.rows("org3", "opus-5").count(), series.rows("org99", "opus-5").count()), (1, 0));
    }
}
