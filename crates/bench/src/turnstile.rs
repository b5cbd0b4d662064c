//! When the next request starts.
//!
//! Closed loop: whenever a connection is free. Open loop: at moments laid down beforehand, evenly
//! (`k / rate`, computed from `k` so that nothing drifts) or as a Poisson process. A connection
//! takes the next moment and waits for it; if all connections are busy the moment passes, and the
//! request that takes it later is measured from it all the same (no coordinated omission).
//!
//! A run on several threads has one turnstile each: of an even schedule every n-th moment, of a
//! Poisson process one of `n` independent ones at an n-th of the rate, which together are one.

use crate::plan::{Arrival, Plan};
use std::time::Duration;
use tidegate_base::{Moment, Prng};

enum Pace {
    Closed,
    Even { index: u64, step: u64, interval_ns: f64 },
    Poisson { offset_ns: f64, interval_ns: f64, prng: Prng },
}

/// Lets requests through one by one.
pub(crate) struct Turnstile {
    pace: Pace,
    began: Moment,
    until: Moment,
    left: u64,
}

impl Turnstile {
    /// The turnstile of thread `thread` (from 0) of a run that began at `began`.
    pub(crate) fn new(plan: &Plan, thread: usize, began: Moment) -> Self {
        let (threads, thread) = (plan.threads as u64, thread as u64);
        let pace = match (plan.rate_per_s, plan.arrival) {
            (None, _) => Pace::Closed,
            (Some(rate), Arrival::Even) => Pace::Even { index: thread, step: threads, interval_ns: 1e9 / rate },
            (Some(rate), Arrival::Poisson) => Pace::Poisson {
                offset_ns: 0.0,
                interval_ns: 1e9 / rate * threads as f64,
                prng: Prng::new(plan.seed).fork(&format!("arrivals-{thread}")),
            },
        };
        let share = |n: u64| n / threads + u64::from(thread < n % threads);
        Turnstile {
            pace,
            began,
            until: plan.sending_span().map_or(Moment::NEVER, |span| began + span),
            left: plan.requests.map_or(u64::MAX, share),
        }
    }

    /// The moment at which the next request should start, not later than `now` if it is overdue;
    /// `None` once there is no further one.
    pub(crate) fn take(&mut self, now: Moment) -> Option<Moment> {
        if self.left == 0 {
            return None;
        }
        let start = match &mut self.pace {
            Pace::Closed => now,
            Pace::Even { index, step, interval_ns } => {
                let offset_ns = *index as f64 * *interval_ns;
                *index += *step;
                self.began + Duration::from_nanos(offset_ns as u64)
            }
            Pace::Poisson { offset_ns, interval_ns, prng } => {
                *offset_ns -= (1.0 - prng.unit()).ln() * *interval_ns;
                self.began + Duration::from_nanos(*offset_ns as u64)
            }
        };
        self.left -= 1;
        if start >= self.until {
            self.left = 0;
            return None;
        }
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rate_per_s: Option<f64>, arrival: Arrival, threads: usize) -> Plan {
        Plan { rate_per_s, arrival, threads, duration: Some(Duration::from_secs(10)), ..Plan::new("http://a") }
    }

    fn starts(plan: &Plan) -> Vec<u64> {
        let began = Moment::from_nanos(500);
        let mut all = Vec::new();
        for thread in 0..plan.threads {
            let mut turnstile = Turnstile::new(plan, thread, began);
            all.extend(std::iter::from_fn(|| turnstile.take(began)).map(|m| m.since(began).as_micros() as u64));
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn even_starts_keep_their_distance_over_any_number_of_threads() {
        for threads in [1, 3] {
            let starts = starts(&plan(Some(1000.0), Arrival::Even, threads));
            assert_eq!(starts, (0..10_000).map(|k| k * 1000).collect::<Vec<_>>(), "{threads}");
        }
    }

    #[test]
    fn poisson_starts_have_the_rate_and_the_spread_of_independent_callers() {
        for threads in [1, 4] {
            let plan = plan(Some(2000.0), Arrival::Poisson, threads);
            let all = starts(&plan);
            // 20,000 expected; the standard deviation is 141.
            assert!((19_300..20_700).contains(&all.len()), "{}", all.len());
            let gaps: Vec<f64> = all.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            let spread = variance.sqrt() / mean;
            assert!((0.95..1.05).contains(&spread), "exponential gaps deviate by their mean: {spread}");
            assert_eq!(all, starts(&plan), "the same seed repeats");
        }
    }

    #[test]
    fn a_closed_loop_starts_now_until_its_number_or_its_time_is_up() {
        let mut plan = plan(None, Arrival::Even, 2);
        plan.requests = Some(5);
        let began = Moment::ZERO;
        let (mut a, mut b) = (Turnstile::new(&plan, 0, began), Turnstile::new(&plan, 1, began));
        let now = began + Duration::from_secs(1);
        let taken = |t: &mut Turnstile| std::iter::from_fn(|| t.take(now)).count();
        assert_eq!((taken(&mut a), taken(&mut b)), (3, 2));
        let mut late = Turnstile::new(&plan, 0, began);
        assert_eq!(late.take(began + Duration::from_secs(10)), None);
    }

    #[test]
    fn an_overdue_start_stays_where_it_was() {
        let mut turnstile = Turnstile::new(&plan(Some(10.0), Arrival::Even, 1), 0, Moment::ZERO);
        let late = Moment::ZERO + Duration::from_secs(3);
        assert_eq!(turnstile.take(late), Some(Moment::ZERO));
        assert_eq!(turnstile.take(late), Some(Moment::ZERO + Duration::from_millis(100)));
    }
}
