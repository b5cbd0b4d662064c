//! Whether an event costs the same among many streams as among few.
//!
//! 100, 1,000 and 9,500 streams at one and the same number of events a second, so that only the
//! number of streams differs; taken while all are open, without what opening and ending them cost.

use super::{Row, Values, of};
use crate::commands::peers::figures::Figure;
use crate::commands::peers::links::Links;
use crate::commands::peers::load::complaint;
use crate::commands::peers::peer::{NotMeasured, Peer, Site};
use std::time::Duration;
use tidegate_bench::Mode;

/// Events a second of all streams together, about what 9,500 at one a second send.
const EVENTS_PER_S: usize = 10_000;
/// Streams opened in a second.
const OPENED_PER_S: usize = 2_000;

const SIZES: [(usize, &str); 3] =
    [(100, "cpu_us_per_event_100"), (1_000, "cpu_us_per_event_1000"), (9_500, "cpu_us_per_event_9500")];

fn streams(site: &Site, streams: usize) -> usize {
    if site.quick { streams / 5 } else { streams }
}

pub(super) const ROW: Row = Row {
    name: "scaling",
    about: "CPU us an event at 10,000 events/s over 100, 1,000 and 9,500 streams",
    figures: &[
        Figure::new(SIZES[0].1, "100 streams", 2),
        Figure::new(SIZES[1].1, "1,000 streams", 2),
        Figure::new(SIZES[2].1, "9,500 streams", 2),
        Figure::new("cpu_us_per_event_spread", "most over least, %", 0).bounds(of(25.0), of(25.0)),
    ],
    direct: false,
    files: |site| 2 * streams(site, 9_500) as u64 + 200,
    measure,
};

fn measure(site: &Site, peer: &Peer, note: &mut dyn FnMut(String)) -> Result<Values, NotMeasured> {
    let mut values = Values::new();
    for (of, key) in SIZES {
        let streams = streams(site, of);
        let interval_us = streams * 1_000_000 / EVENTS_PER_S;
        let ramp = Duration::from_secs_f64(streams as f64 / OPENED_PER_S as f64);
        // The last stream to open sees the first ones still going for as long as is measured.
        let span = ramp + Duration::from_secs(if site.quick { 2 } else { 8 });
        let events = (span.as_micros() as usize).div_ceil(interval_us);
        let scenario = format!("events = {events}\ninterval = \"{} ms\"\n", interval_us / 1_000);
        let trial = site.start(peer, Links::Plain, &scenario)?;
        let mut plan = site.plan(&trial, Mode::Sse, streams);
        plan.requests = Some(streams as u64);
        plan.ramp = ramp;
        let measured = site.run(&trial, &plan)?;
        complaint(&measured.report).into_iter().for_each(&mut *note);
        values.push((key, measured.steady_cpu_us_per_event(streams as u64)));
    }
    let known: Vec<f64> = values.iter().filter_map(|(_, value)| *value).collect();
    let spread = spread_percent(&known).filter(|_| known.len() == SIZES.len());
    values.push(("cpu_us_per_event_spread", spread));
    Ok(values)
}

/// By how much the greatest is above the least.
fn spread_percent(values: &[f64]) -> Option<f64> {
    let least = values.iter().copied().reduce(f64::min).filter(|least| *least > 0.0)?;
    Some((values.iter().copied().reduce(f64::max)? / least - 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_of_the_greatest_over_the_least() {
        assert_eq!(spread_percent(&[8.0, 10.0, 9.0]), Some(25.0));
        assert_eq!(spread_percent(&[]), None);
        assert_eq!(spread_percent(&[0.0, 1.0]), None);
    }
}
