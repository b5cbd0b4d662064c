//! Streams as fast as 64 connections take them, every event a write of the upstream's: what an
//! event costs. Events are all of a stream's: 50 deltas of 125 bytes and the five around them.

use super::json::closed_loop;
use super::{Row, Values, nginx};
use crate::commands::peers::figures::Figure;
use crate::commands::peers::peer::{NotMeasured, Peer, Site};
use tidegate_bench::Mode;

pub(super) const ROW: Row = Row {
    name: "sse",
    about: "streams of 50 deltas of 125 bytes at 64 connections, each event written on its own",
    figures: &[
        Figure::new("sse_events_per_s", "events/s", 0).more().bounds(nginx(0.8), nginx(1.0)),
        Figure::new("sse_cpu_us_per_event", "CPU us an event", 2).bounds(nginx(1.5), nginx(0.9)),
    ],
    direct: true,
    files: |_| 512,
    measure,
};

fn measure(site: &Site, peer: &Peer, note: &mut dyn FnMut(String)) -> Result<Values, NotMeasured> {
    let measured = closed_loop(site, peer, Mode::Sse, "writes = \"event\"\n", note)?;
    let cpu = measured.cpu_us_per(measured.report.events);
    Ok(vec![("sse_events_per_s", Some(measured.report.events_per_s())), ("sse_cpu_us_per_event", cpu)])
}
