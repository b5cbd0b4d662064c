//! What a client costs that only holds its connection: 15,000 of them, each with one answer behind
//! it, while 3,000 others stream and the upstream is spoken to over HTTP/2 (nginx: HTTP/1.1).

use super::{Row, Values, of};
use crate::commands::peers::figures::Figure;
use crate::commands::peers::links::Links;
use crate::commands::peers::load::complaint;
use crate::commands::peers::peer::{NotMeasured, Peer, Site};
use crate::commands::proc;
use std::ops::ControlFlow;
use std::time::Duration;
use tidegate_bench::{IdleClients, Mode};

/// What memory gets to settle before it is looked at.
const SETTLE: Duration = Duration::from_secs(1);

/// Idle clients, streams.
fn sizes(site: &Site) -> (usize, usize) {
    if site.quick { (1_000, 200) } else { (15_000, 3_000) }
}

pub(super) const ROW: Row = Row {
    name: "idle",
    about: "15,000 idle clients while 3,000 stream, HTTP/2 upstream (nginx: HTTP/1.1), 15 events each at 1/s",
    figures: &[
        Figure::new("idle_clients_kept", "idle clients kept", 0).more(),
        Figure::new("idle_streams_whole", "streams whole", 0).more(),
        Figure::new("idle_client_bytes", "bytes an idle client", 0).aim(of(8_000.0)),
    ],
    direct: false,
    files: |site| sizes(site).0 as u64 + sizes(site).1 as u64 + 600,
    measure,
};

fn measure(site: &Site, peer: &Peer, note: &mut dyn FnMut(String)) -> Result<Values, NotMeasured> {
    let (idle, streams) = sizes(site);
    let events = if site.quick { 3 } else { 15 };
    let trial = site.start(peer, Links::Http2, &format!("events = {events}\ninterval = \"1 s\"\n"))?;
    let memory = || proc::memory(&trial.pids).filter(|_| !trial.pids.is_empty());
    site.stop.pause(SETTLE)?;
    let before = memory();
    let plan = site.plan(&trial, Mode::Json, idle);
    let open = IdleClients::open(&plan, |_| match site.stop.is_set() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    let mut clients = match open {
        Ok(clients) => clients,
        Err(e) => return Err(NotMeasured::Cannot(e.to_string())),
    };
    site.stop.pause(SETTLE)?;
    let held = before.zip(memory()).map(|(before, with)| with.saturating_sub(before) as f64 / idle as f64);
    let mut plan = site.plan(&trial, Mode::Sse, streams);
    plan.requests = Some(streams as u64);
    plan.ramp = Duration::from_secs(if site.quick { 1 } else { 3 });
    let measured = site.run(&trial, &plan)?;
    complaint(&measured.report).into_iter().for_each(note);
    Ok(vec![
        ("idle_clients_kept", Some(clients.still_open() as f64)),
        ("idle_streams_whole", Some(measured.report.ok as f64)),
        ("idle_client_bytes", held),
    ])
}
