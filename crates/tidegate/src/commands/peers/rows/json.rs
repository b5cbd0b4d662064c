//! Buffered answers as fast as 64 connections take them: what a request costs.

use super::{Row, Values, nginx};
use crate::commands::peers::figures::Figure;
use crate::commands::peers::links::Links;
use crate::commands::peers::load::{Measured, complaint};
use crate::commands::peers::peer::{NotMeasured, Peer, Site};
use std::time::Duration;
use tidegate_bench::Mode;

/// Figure that the harness is judged by.
pub(super) const RATE: &str = "json_requests_per_s";

pub(super) const ROW: Row = Row {
    name: "json",
    about: "JSON answers of 480 bytes at 64 connections",
    figures: &[
        Figure::new(RATE, "requests/s", 0).more().bounds(nginx(0.6), nginx(1.0)),
        Figure::new("json_cpu_us_per_request", "CPU us a request", 1).bounds(nginx(2.0), nginx(1.0)),
    ],
    direct: true,
    files: |_| 512,
    measure,
};

/// A closed loop of 64 connections, after a second of the same to warm up.
pub(super) fn closed_loop(
    site: &Site,
    peer: &Peer,
    mode: Mode,
    scenario: &str,
    note: &mut dyn FnMut(String),
) -> Result<Measured, NotMeasured> {
    let trial = site.start(peer, Links::Plain, scenario)?;
    let mut plan = site.plan(&trial, mode, 64);
    plan.grace = Duration::from_secs(5);
    plan.duration = Some(Duration::from_millis(if site.quick { 300 } else { 1_000 }));
    site.run(&trial, &plan)?;
    plan.duration = Some(Duration::from_millis(if site.quick { 1_000 } else { 5_000 }));
    let measured = site.run(&trial, &plan)?;
    complaint(&measured.report).into_iter().for_each(note);
    Ok(measured)
}

fn measure(site: &Site, peer: &Peer, note: &mut dyn FnMut(String)) -> Result<Values, NotMeasured> {
    let measured = closed_loop(site, peer, Mode::Json, "", note)?;
    let cpu = measured.cpu_us_per(measured.report.ok);
    Ok(vec![(RATE, Some(measured.report.requests_per_s())), ("json_cpu_us_per_request", cpu)])
}
