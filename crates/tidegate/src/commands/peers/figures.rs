//! Numbers of several rounds, and what may be said of them: medians, and ratios to nginx taken
//! within a round and told with their spread.
//!
//! Two runs of one round lie close together in time, so a machine that is slower for a while is
//! slower for both; a ratio of medians would not know that.

use crate::commands::page::median;
use std::collections::BTreeMap;

/// The name of the upstream without anything in front of it.
pub(super) const DIRECT: &str = "upstream alone";
/// What ratios are taken to.
pub(super) const NGINX: &str = "nginx";
/// Whose value may be an aim.
pub(super) const HAPROXY: &str = "haproxy";
/// The one that is measured for its own sake.
pub(super) const TIDEGATE: &str = "tidegate";

/// Where a bound lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// So many times nginx.
    OfNginx(f64),
    /// What HAProxy has.
    OfHaproxy,
    /// This number.
    Of(f64),
}

/// One kind of number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    /// Its name in the JSON of a comparison.
    pub(super) key: &'static str,
    /// Its name for people, with its unit.
    pub(super) title: &'static str,
    /// Digits behind the point.
    pub(super) digits: usize,
    /// Whether more is better.
    pub(super) more: bool,
    /// Whether the upstream's own share, measured in the same round, is taken off.
    pub(super) added: bool,
    /// What has to be met, and what is aimed at.
    pub(super) must: Option<Bound>,
    pub(super) aim: Option<Bound>,
}

impl Figure {
    /// A figure of which less is better, told as it is measured.
    pub(super) const fn new(key: &'static str, title: &'static str, digits: usize) -> Self {
        Figure { key, title, digits, more: false, added: false, must: None, aim: None }
    }

    pub(super) const fn more(self) -> Self {
        Figure { more: true, ..self }
    }

    pub(super) const fn added(self) -> Self {
        Figure { added: true, ..self }
    }

    /// An aim without anything that must be.
    pub(super) const fn aim(self, aim: Bound) -> Self {
        Figure { aim: Some(aim), ..self }
    }

    pub(super) const fn bounds(self, must: Bound, aim: Bound) -> Self {
        Figure { must: Some(must), aim: Some(aim), ..self }
    }
}

/// A ratio and how it was spread over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// What was measured of one figure: by peer, one value a round, or none.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(BTreeMap<String, Vec<Option<f64>>>);

impl Series {
    /// Notes a round's value; rounds that were left out before it have none.
    pub(super) fn note(&mut self, peer: &str, round: usize, value: f64) {
        let rounds = self.0.entry(peer.to_owned()).or_default();
        rounds.resize(rounds.len().max(round + 1), None);
        rounds[round] = Some(value).filter(|value| value.is_finite());
    }

    /// What the figure is of a peer, round by round.
    pub(super) fn rounds(&self, figure: &Figure, peer: &str) -> Vec<Option<f64>> {
        let raw = self.0.get(peer).map_or(&[][..], Vec::as_slice);
        if !figure.added || peer == DIRECT {
            return raw.to_vec();
        }
        let own = self.0.get(DIRECT).map_or(&[][..], Vec::as_slice);
        let added = |(round, value): (usize, &Option<f64>)| Some((*value)? - own.get(round).copied()??);
        raw.iter().enumerate().map(added).collect()
    }

    /// Its median over the rounds.
    pub(super) fn median(&self, figure: &Figure, peer: &str) -> Option<f64> {
        median(&self.rounds(figure, peer).into_iter().flatten().collect::<Vec<_>>())
    }

    /// A peer's ratio to another, of the rounds that have both.
    pub(super) fn ratio(&self, figure: &Figure, peer: &str, to: &str) -> Option<Ratio> {
        // What the upstream takes by itself is no multiple of what somebody adds to it.
        if figure.added && peer == DIRECT {
            return None;
        }
        let (ours, theirs) = (self.rounds(figure, peer), self.rounds(figure, to));
        let pairs = ours.into_iter().zip(theirs).filter_map(|(ours, theirs)| Some((ours?, theirs?)));
        // An added latency that is lost in the noise may be zero or less; nothing is a multiple of it.
        let ratios: Vec<f64> = pairs.filter(|(_, theirs)| *theirs > 0.0).map(|(ours, theirs)| ours / theirs).collect();
        let (min, max) = (ratios.iter().copied().reduce(f64::min)?, ratios.iter().copied().reduce(f64::max)?);
        Some(Ratio { median: median(&ratios)?, min, max })
    }

    /// Whether Tidegate keeps within a bound; `None` if it cannot be told.
    pub(super) fn meets(&self, figure: &Figure, bound: Bound) -> Option<bool> {
        let (value, limit) = match bound {
            Bound::OfNginx(times) => (self.ratio(figure, TIDEGATE, NGINX)?.median, times),
            Bound::OfHaproxy => (self.ratio(figure, TIDEGATE, HAPROXY)?.median, 1.0),
            Bound::Of(limit) => (self.median(figure, TIDEGATE)?, limit),
        };
        Some(if figure.more { value >= limit } else { value <= limit })
    }
}

/// How many times nginx' rate the upstream alone must have: with less, the upstream and the load
/// generator take so much of the machine that a ratio says little of the proxies.
pub(super) const UPSTREAM_MIN: f64 = 1.8;

/// Why no ratio may be shown, if so, by how many times nginx' rate of JSON the upstream alone has.
pub(super) fn refusal(times_nginx: Option<f64>) -> Option<String> {
    let remedy = "measure on a machine that does nothing else, with more cores";
    match times_nginx {
        None => Some(format!("no ratios: the upstream alone was not measured beside {NGINX}")),
        Some(times) if times < UPSTREAM_MIN => Some(format!(
            "no ratios: the upstream alone answers {times:.3} times as many JSON requests as nginx, and below {UPSTREAM_MIN} the harness is measured and not the proxies; {remedy}"
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Figure = Figure::new("x", "x", 1);

    fn series(rows: &[(&str, &[f64])]) -> Series {
        let mut series = Series::default();
        for (peer, values) in rows {
            values.iter().enumerate().for_each(|(round, value)| series.note(peer, round, *value));
        }
        series
    }

    #[test]
    fn ratios_are_of_one_round_so_a_slow_round_is_slow_for_both() {
        let series = series(&[(NGINX, &[10.0, 20.0, 10.0]), (TIDEGATE, &[15.0, 32.0, 14.0])]);
        let ratio = series.ratio(&PLAIN, TIDEGATE, NGINX).unwrap();
        assert_eq!(ratio, Ratio { median: 1.5, min: 1.4, max: 1.6 });
        assert_eq!(series.ratio(&PLAIN, "nobody", NGINX), None);
    }

    #[test]
    fn a_round_that_one_of_both_lacks_is_no_pair() {
        let mut series = series(&[(NGINX, &[10.0, 20.0])]);
        series.note(TIDEGATE, 1, 30.0);
        series.note(TIDEGATE, 2, 90.0);
        assert_eq!(series.ratio(&PLAIN, TIDEGATE, NGINX), Some(Ratio { median: 1.5, min: 1.5, max: 1.5 }));
        series.note(NGINX, 0, f64::NAN);
        assert_eq!(series.rounds(&PLAIN, NGINX), [None, Some(20.0)]);
    }

    #[test]
    fn what_is_added_is_without_the_upstreams_own_of_the_same_round() {
        let figure = PLAIN.added();
        let series = series(&[(DIRECT, &[1.0, 3.0]), (NGINX, &[2.0, 5.0]), (TIDEGATE, &[4.0, 4.0])]);
        assert_eq!(series.rounds(&figure, NGINX), [Some(1.0), Some(2.0)]);
        assert_eq!(series.rounds(&figure, DIRECT), [Some(1.0), Some(3.0)]);
        assert_eq!(series.ratio(&figure, TIDEGATE, NGINX), Some(Ratio { median: 1.75, min: 0.5, max: 3.0 }));
        assert_eq!(series.ratio(&figure, DIRECT, NGINX), None);
    }

    #[test]
    fn a_bound_is_below_or_above_as_better_goes() {
        let series = series(&[(NGINX, &[10.0]), (HAPROXY, &[13.0]), (TIDEGATE, &[12.0])]);
        assert_eq!(series.meets(&PLAIN, Bound::OfNginx(1.2)), Some(true));
        assert_eq!(series.meets(&PLAIN, Bound::OfNginx(1.1)), Some(false));
        assert_eq!(series.meets(&PLAIN.more(), Bound::OfNginx(1.1)), Some(true));
        assert_eq!(series.meets(&PLAIN, Bound::OfHaproxy), Some(true));
        assert_eq!(series.meets(&PLAIN, Bound::Of(11.0)), Some(false));
        assert_eq!(Series::default().meets(&PLAIN, Bound::Of(11.0)), None);
    }

    #[test]
    fn no_ratio_is_shown_where_the_harness_is_the_limit() {
        assert_eq!(refusal(Some(1.8)), None);
        assert!(refusal(Some(1.79)).is_some_and(|why| why.contains("1.790 times") && why.contains("nginx")));
        assert!(refusal(None).is_some());
    }
}
