//! 9,500 streams opened within ten seconds, 30 events each at one a second: are all whole, what
//! memory and processor time do they take, and how long does the first byte wait.

use super::{Row, Values, megabytes, nginx, of};
use crate::commands::peers::figures::{Bound, Figure};
use crate::commands::peers::links::Links;
use crate::commands::peers::load::complaint;
use crate::commands::peers::peer::{NotMeasured, Peer, Site};
use std::time::Duration;
use tidegate_bench::Mode;

/// A relay of HTTP/1.1 to HTTP/1.1 holds two files a stream, and 20,000 files are what a process
/// may usually have.
fn streams(site: &Site) -> usize {
    if site.quick { 500 } else { 9_500 }
}

pub(super) const ROW: Row = Row {
    name: "streams",
    about: "9,500 streams opened within 10 s, 30 events each at 1/s",
    figures: &[
        Figure::new("streams_whole", "whole", 0).more(),
        Figure::new("streams_memory_mb", "peak memory, MB", 1).bounds(nginx(1.5), Bound::OfHaproxy),
        Figure::new("streams_cpu_s", "CPU s", 2).bounds(nginx(1.5), nginx(0.9)),
        Figure::new("first_byte_added_ms_p50", "first byte added p50, ms", 3).added(),
        Figure::new("first_byte_added_ms_p99", "first byte added p99, ms", 2).added().bounds(of(50.0), of(10.0)),
    ],
    direct: true,
    files: |site| 2 * streams(site) as u64 + 200,
    measure,
};

fn measure(site: &Site, peer: &Peer, note: &mut dyn FnMut(String)) -> Result<Values, NotMeasured> {
    let (streams, events) = (streams(site), if site.quick { 3 } else { 30 });
    let trial = site.start(peer, Links::Plain, &format!("events = {events}\ninterval = \"1 s\"\n"))?;
    let mut plan = site.plan(&trial, Mode::Sse, streams);
    plan.requests = Some(streams as u64);
    plan.ramp = Duration::from_secs(if site.quick { 1 } else { 10 });
    let measured = site.run(&trial, &plan)?;
    complaint(&measured.report).into_iter().for_each(note);
    let first_byte = measured.report.first_byte_ms;
    Ok(vec![
        ("streams_whole", Some(measured.report.ok as f64)),
        ("streams_memory_mb", megabytes(measured.memory_peak)),
        ("streams_cpu_s", measured.cpu.map(|cpu| cpu.as_secs_f64())),
        ("first_byte_added_ms_p50", Some(first_byte.p50)),
        ("first_byte_added_ms_p99", Some(first_byte.p99)),
    ])
}
