//! What a peer takes before anybody asks anything: time to its first answer, memory, the binary.

use super::{Row, Values, megabytes, of};
use crate::commands::peers::figures::Figure;
use crate::commands::peers::links::Links;
use crate::commands::peers::peer::{Kind, NotMeasured, Peer, Site, size};
use crate::commands::proc;
use std::time::Duration;

pub(super) const ROW: Row = Row {
    name: "footprint",
    about: "idle memory, start to first answer of GET /, the binary",
    figures: &[
        Figure::new("idle_memory_mb", "idle memory, MB", 1).bounds(of(20.0), of(8.0)),
        Figure::new("ready_ms", "start to first answer, ms", 1).bounds(of(100.0), of(30.0)),
        Figure::new("binary_mb", "binary, MB", 2).bounds(of(25.0), of(12.0)),
    ],
    direct: false,
    files: |_| 100,
    measure,
};

fn measure(site: &Site, peer: &Peer, _note: &mut dyn FnMut(String)) -> Result<Values, NotMeasured> {
    let trial = site.start(peer, Links::Plain, "")?;
    site.stop.pause(Duration::from_millis(500))?;
    let binary = match &peer.kind {
        Kind::Tidegate => size(&site.exe),
        Kind::Nginx(program) | Kind::Haproxy(program) => size(program),
        Kind::Direct | Kind::Own(_) => None,
    };
    let memory = if trial.pids.is_empty() { None } else { proc::memory(&trial.pids) };
    Ok(vec![
        ("idle_memory_mb", megabytes(memory)),
        ("ready_ms", trial.ready_after.map(|after| after.as_secs_f64() * 1e3)),
        ("binary_mb", megabytes(binary)),
    ])
}
