//! What Tidegate's `/metrics` says of its queue: who waited how long, and who was sent away and why.
//!
//! A metric that is not there is told as such and never as zero. A percentile of a histogram is the
//! geometric middle of the bucket it lies in, half of the first bound in the first one and the last
//! bound beyond it. Prometheus would spread a bucket evenly, which puts a p99 near its upper bound
//! wherever one bucket has all of a tail.

use std::collections::BTreeMap;

/// One page of metrics.
pub(super) struct Metrics<'a>(pub(super) &'a str);

/// Its p50 and p99.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// The value of a label; none of ours has a quote in it.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let at = |start: usize| labels.get(start..)?.strip_prefix(name)?.strip_prefix("=\"");
    let begins = |start: &usize| *start == 0 || labels[..*start].ends_with([',', '{']);
    let value = labels.match_indices(name).map(|(start, _)| start).filter(begins).find_map(at)?;
    value.split('"').next()
}

impl<'a> Metrics<'a> {
    /// Labels and value of each line of `name`.
    fn lines(&self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            let ours = labels.is_empty() || labels.starts_with('{');
            value.parse().ok().filter(|_| ours).map(|value| (labels, value))
        })
    }

    /// The sum over all labels.
    pub(super) fn sum(&self, name: &'static str) -> Option<f64> {
        self.lines(name).map(|(_, value)| value).reduce(|a, b| a + b)
    }

    /// The sums by one label.
    pub(super) fn by_label(&self, name: &'static str, by: &str) -> Option<BTreeMap<String, f64>> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.lines(name) {
            *sums.entry(label(labels, by).unwrap_or("-").to_owned()).or_insert(0.0) += value;
        }
        // A family without a member is told by its name only.
        let announced = || self.0.lines().any(|line| is_announced(line, name));
        (!sums.is_empty() || announced()).then_some(sums)
    }

    /// Percentiles of a histogram whose label `by` is `value`; `buckets` is its name with `_bucket`.
    pub(super) fn spread(&self, buckets: &'static str, by: &str, value: &str) -> Option<Spread> {
        let mut counts: Vec<(f64, f64)> = Vec::new();
        for (labels, count) in self.lines(buckets).filter(|(labels, _)| label(labels, by) == Some(value)) {
            let Some(bound) = label(labels, "le").and_then(|le| le.parse::<f64>().ok()) else { continue };
            match counts.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count,
                None => counts.push((bound, count)),
            }
        }
        counts.sort_by(|a, b| a.0.total_cmp(&b.0));
        Some(Spread { p50: quantile(&counts, 0.5)?, p99: quantile(&counts, 0.99)? })
    }
}

/// Whether a line says what kind of metric `name` is; counters are announced without `_total`.
fn is_announced(line: &str, name: &str) -> bool {
    let announced = line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next());
    announced.is_some_and(|announced| announced == name || name.strip_suffix("_total") == Some(announced))
}

/// A quantile of cumulative counts by upper bound.
fn quantile(counts: &[(f64, f64)], quantile: f64) -> Option<f64> {
    let all = counts.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let rank = quantile * all;
    let at = counts.iter().position(|(_, count)| *count >= rank)?;
    let below = at.checked_sub(1).map(|below| counts[below].0);
    Some(match (below, counts[at].0) {
        (None, bound) => bound / 2.0,
        (Some(below), bound) if bound.is_infinite() => below,
        (Some(below), bound) => (below * bound).sqrt(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP tidegate_queue_waiting Requests that wait for a lease.
# TYPE tidegate_queue_waiting gauge
tidegate_queue_waiting 12
# TYPE tidegate_queue_wait_seconds histogram
tidegate_queue_wait_seconds_sum{band="normal"} 900.5
tidegate_queue_wait_seconds_count{band="normal"} 100
tidegate_queue_wait_seconds_bucket{le="1.0",band="normal"} 20
tidegate_queue_wait_seconds_bucket{le="4.0",band="normal"} 60
tidegate_queue_wait_seconds_bucket{le="10.0",band="normal"} 98
tidegate_queue_wait_seconds_bucket{le="+Inf",band="normal"} 100
tidegate_queue_wait_seconds_bucket{le="1.0",band="interactive"} 0
tidegate_queue_wait_seconds_bucket{le="+Inf",band="interactive"} 0
# TYPE tidegate_queue_shed counter
tidegate_queue_shed_total{tenant="one",band="normal",reason="wait_too_long"} 3
tidegate_queue_shed_total{tenant="band",band="interactive",reason="wait_too_long"} 4
tidegate_queue_shed_total{tenant="one",band="normal",reason="queue_full"} 1
# TYPE tidegate_nothing counter
"#;

    #[test]
    fn counters_are_summed_by_a_label_and_what_is_not_there_is_none() {
        let metrics = Metrics(PAGE);
        assert_eq!(metrics.sum("tidegate_queue_waiting"), Some(12.0));
        assert_eq!(metrics.sum("tidegate_queue_wait"), None);
        let sums = |by| metrics.by_label("tidegate_queue_shed_total", by).unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(sums("reason"), [("queue_full".to_owned(), 1.0), ("wait_too_long".to_owned(), 7.0)]);
        assert_eq!(sums("band"), [("interactive".to_owned(), 4.0), ("normal".to_owned(), 4.0)]);
        assert_eq!(metrics.by_label("tidegate_nothing_total", "reason"), Some(BTreeMap::new()));
        assert_eq!(metrics.by_label("tidegate_nobody_total", "reason"), None);
    }

    #[test]
    fn percentiles_are_the_middle_of_their_bucket_and_not_past_the_last_bound() {
        let spread = |value| Metrics(PAGE).spread("tidegate_queue_wait_seconds_bucket", "band", value);
        // The fiftieth of a hundred lies between 1 and 4 s, the last but one beyond 10 s.
        assert_eq!(spread("normal"), Some(Spread { p50: 2.0, p99: 10.0 }));
        assert_eq!(spread("interactive"), None, "nobody was admitted");
        assert_eq!(spread("background"), None);
        assert_eq!(quantile(&[(1.0, 10.0), (f64::INFINITY, 10.0)], 0.5), Some(0.5));
    }
}
