//! Metrics of WebSockets and of streams that can be come back to.

use crate::metrics::{Metrics, times};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndOf {
    end: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Recovery {
    how: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Checkpoint {
    outcome: &'static str,
}

/// The numbers.
#[derive(Clone, Debug)]
pub(crate) struct Sockets {
    open: Gauge,
    ended: Family<EndOf, Counter>,
    late: Histogram,
    kept: Gauge,
    recoveries: Family<Recovery, Counter>,
    checkpoints: Family<Checkpoint, Counter>,
}

impl Default for Sockets {
    fn default() -> Self {
        Sockets {
            open: Gauge::default(),
            ended: Family::default(),
            late: times(),
            kept: Gauge::default(),
            recoveries: Family::default(),
            checkpoints: Family::default(),
        }
    }
}

impl Sockets {
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register("sockets", "WebSockets of clients", self.open.clone());
        r.register("sockets_ended", "WebSockets that ended, by how", self.ended.clone());
        r.register_with_unit(
            "socket_ping_late",
            "How late the latest ping of a WebSocket went out",
            Unit::Seconds,
            self.late.clone(),
        );
        r.register(
            "stream_recoveries",
            "Answers that broke off under tidegate-recover, by whether they were taken up again",
            self.recoveries.clone(),
        );
        r.register(
            "stream_checkpoints",
            "Checkpoints of durable streams, by whether the log took them",
            self.checkpoints.clone(),
        );
        r.register("streams_kept", "Streams that can be come back to, ended ones too", self.kept.clone());
    }
}

impl Metrics {
    /// A client's WebSocket began (+1) or ended (-1).
    pub fn socket(&self, change: i64) {
        self.sockets.open.inc_by(change);
    }

    /// How a WebSocket ended, and how late its latest ping was.
    pub fn socket_ended(&self, end: &'static str, late: Duration) {
        self.sockets.ended.get_or_create(&EndOf { end }).inc();
        self.sockets.late.observe(late.as_secs_f64());
    }

    /// An answer broke off: whether it is taken up again.
    pub fn recovery(&self, how: &'static str, is_taken_up: bool) {
        let outcome = if is_taken_up { "taken_up" } else { "given_up" };
        self.sockets.recoveries.get_or_create(&Recovery { how, outcome }).inc();
    }

    /// A checkpoint of a durable stream: whether the log took it.
    pub fn stream_checkpoint(&self, is_kept: bool) {
        let outcome = if is_kept { "kept" } else { "failed" };
        self.sockets.checkpoints.get_or_create(&Checkpoint { outcome }).inc();
    }

    /// Streams that can be come back to.
    pub fn streams_kept(&self, count: usize) {
        self.sockets.kept.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
