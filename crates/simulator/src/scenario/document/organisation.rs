//! `[[organisation]]` and `[[organisation.workspace]]`.

use super::super::{Organisation, Scenario, ScenarioError, Workspace};
use super::values::Time;
use crate::catalog;
use crate::quota::{Limiter, Limits, PartialLimits, Tier};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OrganisationTable {
    name: String,
    keys: Vec<String>,
    revoked: Vec<String>,
    tier: Option<Tier>,
    burst: Option<Time>,
    limits: BTreeMap<String, LimitsTable>,
    workspace: Vec<WorkspaceTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    requests_per_minute: u64,
    input_tokens_per_minute: u64,
    output_tokens_per_minute: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WorkspaceTable {
    name: String,
    keys: Vec<String>,
    limits: BTreeMap<String, PartialLimitsTable>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PartialLimitsTable {
    requests_per_minute: Option<u64>,
    input_tokens_per_minute: Option<u64>,
    output_tokens_per_minute: Option<u64>,
}

/// The key of a limit in its table.
pub(super) fn key_of(limiter: Limiter) -> &'static str {
    match limiter {
        Limiter::Requests => "requests_per_minute",
        Limiter::Input => "input_tokens_per_minute",
        Limiter::Output => "output_tokens_per_minute",
    }
}

fn known_class(table: &str, class: &str) -> Result<(), ScenarioError> {
    if catalog::has_class(class) {
        return Ok(());
    }
    let known = catalog::classes().join(", ");
    Err(ScenarioError(format!("[{table}.{class}]: not a model class; known are {known}")))
}

impl OrganisationTable {
    pub(super) fn build(self, burst: Option<Duration>) -> Result<Organisation, ScenarioError> {
        if self.name.is_empty() {
            return Err(ScenarioError("[[organisation]] name: every organisation has one".to_owned()));
        }
        let own_burst = self.burst.map(|burst| burst.0.0);
        let burst = own_burst.or(burst).unwrap_or(Duration::from_secs(60));
        let limits = self.limits.into_iter().map(|(class, table)| {
            let limits = Limits {
                requests: table.requests_per_minute,
                input_tokens: table.input_tokens_per_minute,
                output_tokens: table.output_tokens_per_minute,
                burst,
            };
            (class, limits)
        });
        let limits: BTreeMap<String, Limits> = limits.collect();
        limits.keys().try_for_each(|class| known_class("organisation.limits", class))?;
        let workspaces: Vec<Workspace> =
            self.workspace.into_iter().map(WorkspaceTable::build).collect::<Result<_, _>>()?;
        for (n, workspace) in workspaces.iter().enumerate() {
            if workspaces[..n].iter().any(|other| other.name == workspace.name) {
                let says = format!("[[organisation.workspace]] name: `{}` is there twice", workspace.name);
                return Err(ScenarioError(says));
            }
        }
        let (name, keys, revoked, tier) = (self.name, self.keys, self.revoked, self.tier);
        Ok(Organisation { name, keys, revoked, tier, burst: own_burst, limits, workspaces })
    }
}

impl WorkspaceTable {
    fn build(self) -> Result<Workspace, ScenarioError> {
        if self.name.is_empty() || self.name == "default" {
            let says = "[[organisation.workspace]] name: every workspace has one, and it is not `default`";
            return Err(ScenarioError(says.to_owned()));
        }
        self.limits.keys().try_for_each(|class| known_class("organisation.workspace.limits", class))?;
        let limits = self.limits.into_iter().map(|(class, table)| {
            let limits = PartialLimits {
                requests: table.requests_per_minute,
                input_tokens: table.input_tokens_per_minute,
                output_tokens: table.output_tokens_per_minute,
            };
            (class, limits)
        });
        Ok(Workspace { name: self.name, keys: self.keys, limits: limits.collect() })
    }
}

/// A workspace's limits are lower than its organisation's.
pub(super) fn within_organisations(scenario: &Scenario) -> Result<(), ScenarioError> {
    for organisation in &scenario.organisations {
        for (class, limits) in organisation.workspaces.iter().flat_map(|workspace| &workspace.limits) {
            let own = scenario.limits(Some(organisation), class).map(Limits::each).unwrap_or_default();
            for limiter in Limiter::ALL {
                if let (Some(inner), Some(own)) = (limits.of(limiter), own.of(limiter))
                    && inner > own
                {
                    return Err(ScenarioError(format!(
                        "[organisation.workspace.limits.{class}] {}: {inner} is more than the {own} of organisation `{}`",
                        key_of(limiter),
                        organisation.name
                    )));
                }
            }
        }
    }
    Ok(())
}
