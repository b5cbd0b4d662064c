//! Metrics of the configuration: how often it was read anew, and which one is in force.

use crate::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// The numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configuration {
    reloads: Family<Outcome, Counter>,
    generation: Gauge,
    loaded: Gauge,
    needs_restart: Gauge,
}

impl Configuration {
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register("config_reloads", "Times the configuration was read anew, by outcome", self.reloads.clone());
        r.register("config_generation", "Which configuration is in force: 1 at the start", self.generation.clone());
        r.register_with_unit("config_loaded", "When it was read, since 1970", Unit::Seconds, self.loaded.clone());
        r.register(
            "config_needs_restart",
            "Settings that stand in the file otherwise than they are in force, until a restart",
            self.needs_restart.clone(),
        );
    }
}

impl Metrics {
    /// The configuration was read anew: `applied`, `unchanged` or `refused`.
    pub fn config_reload(&self, outcome: &'static str) {
        self.configuration.reloads.get_or_create(&Outcome { outcome }).inc();
    }

    /// The configuration of this number is in force, since `at_s` (seconds since 1970); so many of its
    /// settings need a restart.
    pub fn config_in_force(&self, generation: u64, at_s: u64, needs_restart: usize) {
        self.configuration.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.configuration.loaded.set(i64::try_from(at_s).unwrap_or(i64::MAX));
        self.configuration.needs_restart.set(i64::try_from(needs_restart).unwrap_or(i64::MAX));
    }
}
