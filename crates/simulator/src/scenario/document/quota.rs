//! `[quota]`, `[quota.ramp]` and `[cache]`: the switches.

use super::super::ScenarioError;
use super::values::Time;
use super::wrong;
use crate::cache::{CacheRules, ENTRIES_MAX};
use crate::catalog;
use crate::quota::{
    CancelCharge, Estimate, OutputCharge, OutputExhausted, Oversize, QuotaRules, RampRule, Sampled, Tier,
    WorkspaceHeaders,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct QuotaTable {
    pub(super) tier: Option<Tier>,
    burst: Option<Time>,
    headers: Sampled,
    workspace_headers: WorkspaceHeaders,
    remaining_error_percent: u64,
    output: OutputCharge,
    output_exhausted: OutputExhausted,
    charge_refused: bool,
    charge_failed: bool,
    charge_cancelled: CancelCharge,
    oversize: Oversize,
    estimate: Estimate,
    estimate_error_percent: u64,
    connections: Option<u64>,
    ramp: Option<RampTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RampTable {
    floor_requests_per_minute: Option<u64>,
    floor_input_tokens_per_minute: Option<u64>,
    factor: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CacheTable {
    enabled: Option<bool>,
    entries_max: Option<usize>,
    minimum_tokens: BTreeMap<String, u64>,
}

impl QuotaTable {
    pub(super) fn burst(&self) -> Option<Duration> {
        self.burst.as_ref().map(|burst| burst.0.0)
    }

    pub(super) fn build(self) -> Result<QuotaRules, ScenarioError> {
        for (key, percent) in [
            ("estimate_error_percent", self.estimate_error_percent),
            ("remaining_error_percent", self.remaining_error_percent),
        ] {
            if percent > 100 {
                return wrong("[quota]", key, "at most 100");
            }
        }
        if self.connections == Some(0) {
            return wrong("[quota]", "connections", "1 or more; leave it out for no limit");
        }
        Ok(QuotaRules {
            headers: self.headers,
            workspace_headers: self.workspace_headers,
            remaining_error_percent: self.remaining_error_percent,
            output: self.output,
            output_exhausted: self.output_exhausted,
            charge_refused: self.charge_refused,
            charge_failed: self.charge_failed,
            charge_cancelled: self.charge_cancelled,
            oversize: self.oversize,
            estimate: self.estimate,
            estimate_error_percent: self.estimate_error_percent,
            connections: self.connections,
            ramp: self.ramp.map(RampTable::build).transpose()?,
        })
    }
}

impl RampTable {
    fn build(self) -> Result<RampRule, ScenarioError> {
        let usual = RampRule::default();
        let rule = RampRule {
            floor_requests: self.floor_requests_per_minute.unwrap_or(usual.floor_requests),
            floor_input_tokens: self.floor_input_tokens_per_minute.unwrap_or(usual.floor_input_tokens),
            factor: self.factor.unwrap_or(usual.factor),
        };
        if rule.floor_requests < 6 {
            return wrong("[quota.ramp]", "floor_requests_per_minute", "6 or more, or nobody could ever begin");
        }
        if rule.floor_input_tokens == 0 {
            return wrong("[quota.ramp]", "floor_input_tokens_per_minute", "1 or more");
        }
        if !(1.0..=1_000.0).contains(&rule.factor) {
            return wrong("[quota.ramp]", "factor", "from 1 to 1000");
        }
        Ok(rule)
    }
}

impl CacheTable {
    pub(super) fn build(self) -> Result<CacheRules, ScenarioError> {
        let usual = CacheRules::default();
        let entries_max = self.entries_max.unwrap_or(usual.entries_max);
        if !(1..=ENTRIES_MAX).contains(&entries_max) {
            return wrong("[cache]", "entries_max", &format!("from 1 to {ENTRIES_MAX}"));
        }
        if let Some(model) =
            self.minimum_tokens.keys().find(|model| catalog::find(model).is_none_or(|m| m.id != **model))
        {
            return wrong("[cache.minimum_tokens]", model, "not the id of a model; GET /v1/models lists them");
        }
        let minimum_tokens = self.minimum_tokens;
        Ok(CacheRules { enabled: self.enabled.unwrap_or(usual.enabled), entries_max, minimum_tokens })
    }
}
