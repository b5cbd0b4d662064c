//! How much later an event comes through a peer than without it, at 1,000 streams of 50 events/s.
//!
//! Each event carries the moment at which the upstream wrote it; the load generator takes the span
//! to its own read. What is added is that span through the peer less the same span without it, in
//! the same round.

use super::{Row, Values, nginx};
use crate::commands::peers::figures::Figure;
use crate::commands::peers::links::Links;
use crate::commands::peers::load::complaint;
use crate::commands::peers::peer::{NotMeasured, Peer, Site};
use std::time::Duration;
use tidegate_bench::Mode;

const STREAMS: usize = 1_000;

pub(super) const ROW: Row = Row {
    name: "latency",
    about: "added to each event at 1,000 streams of 50 events/s",
    figures: &[
        Figure::new("event_added_ms_p50", "added p50, ms", 3).added(),
        Figure::new("event_added_ms_p99", "added p99, ms", 3).added().bounds(nginx(2.0), nginx(0.8)),
        Figure::new("paced_cpu_us_per_event", "CPU us an event", 2),
    ],
    direct: true,
    files: |_| 2 * STREAMS as u64 + 200,
    measure,
};

fn measure(site: &Site, peer: &Peer, note: &mut dyn FnMut(String)) -> Result<Values, NotMeasured> {
    let events = if site.quick { 150 } else { 500 };
    let trial = site.start(peer, Links::Plain, &format!("events = {events}\ninterval = \"20 ms\"\nstamp = true\n"))?;
    let mut plan = site.plan(&trial, Mode::Sse, STREAMS);
    plan.requests = Some(STREAMS as u64);
    plan.ramp = Duration::from_secs(1);
    plan.stamps = true;
    let measured = site.run(&trial, &plan)?;
    complaint(&measured.report).into_iter().for_each(note);
    let transit = measured.report.transit_ms;
    let known = |value: f64| Some(value).filter(|_| transit.count > 0);
    Ok(vec![
        ("event_added_ms_p50", known(transit.p50)),
        ("event_added_ms_p99", known(transit.p99)),
        ("paced_cpu_us_per_event", measured.cpu_us_per(measured.report.events)),
    ])
}
