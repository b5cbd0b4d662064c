//! 15,000 streams with TLS to the client and TLS with HTTP/2 to the upstream: whole, memory,
//! processor time. nginx speaks HTTP/1.1 upstream, as it cannot speak HTTP/2 there.

use super::{Row, Values, megabytes, nginx};
use crate::commands::peers::figures::Figure;
use crate::commands::peers::links::Links;
use crate::commands::peers::load::complaint;
use crate::commands::peers::peer::{NotMeasured, Peer, Site};
use std::time::Duration;
use tidegate_bench::Mode;

fn streams(site: &Site) -> usize {
    if site.quick { 500 } else { 15_000 }
}

pub(super) const ROW: Row = Row {
    name: "tls",
    about: "15,000 streams, TLS to the client, TLS and HTTP/2 upstream (nginx: HTTP/1.1), 30 events each at 1/s",
    figures: &[
        Figure::new("tls_whole", "whole", 0).more(),
        Figure::new("tls_memory_mb", "peak memory, MB", 1),
        Figure::new("tls_cpu_s", "CPU s", 2).aim(nginx(1.0)),
    ],
    direct: false,
    files: |site| streams(site) as u64 + 600,
    measure,
};

fn measure(site: &Site, peer: &Peer, note: &mut dyn FnMut(String)) -> Result<Values, NotMeasured> {
    let (streams, events) = (streams(site), if site.quick { 3 } else { 30 });
    let trial = site.start(peer, Links::Tls, &format!("events = {events}\ninterval = \"1 s\"\n"))?;
    let mut plan = site.plan(&trial, Mode::Sse, streams);
    plan.requests = Some(streams as u64);
    // Handshakes take the client some tenths of a millisecond too, and it shares the processors.
    plan.ramp = Duration::from_secs(if site.quick { 1 } else { 20 });
    let measured = site.run(&trial, &plan)?;
    complaint(&measured.report).into_iter().for_each(note);
    Ok(vec![
        ("tls_whole", Some(measured.report.ok as f64)),
        ("tls_memory_mb", megabytes(measured.memory_peak)),
        ("tls_cpu_s", measured.cpu.map(|cpu| cpu.as_secs_f64())),
    ])
}
