//! What is measured: each row a file, with its figures and how they are taken.

mod footprint;
mod idle;
mod json;
mod latency;
mod scaling;
mod sse;
mod streams;
mod tls;

use super::figures::{Bound, Figure};
use super::peer::{NotMeasured, Peer, Site};

/// Values by the key of their figure.
pub(super) type Values = Vec<(&'static str, Option<f64>)>;

/// A row of a comparison.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) figures: &'static [Figure],
    /// Whether the upstream is measured without anybody in front of it too.
    pub(super) direct: bool,
    /// Open files that one of its processes needs.
    pub(super) files: fn(&Site) -> u64,
    /// Measures a peer once; what went wrong without ending it is said to `note`.
    pub(super) measure: Measure,
}

/// One measurement of a row.
pub(super) type Measure = fn(&Site, &Peer, note: &mut dyn FnMut(String)) -> Result<Values, NotMeasured>;

/// The row, and its figure, by which it is told whether proxies are measured or the harness.
pub(super) const YARDSTICK: Row = json::ROW;
pub(super) const JSON_RATE: &str = json::RATE;

/// Every row, in the order in which they are measured.
pub(super) const ROWS: &[Row] =
    &[json::ROW, sse::ROW, latency::ROW, streams::ROW, scaling::ROW, tls::ROW, idle::ROW, footprint::ROW];

/// A bound that is a multiple of nginx.
const fn nginx(times: f64) -> Bound {
    Bound::OfNginx(times)
}

const fn of(value: f64) -> Bound {
    Bound::Of(value)
}

fn megabytes(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| bytes as f64 / 1e6)
}
