//! What happens to limits and keys over time: `[[change]]`, `[[consumer]]`, `[[spend_limit]]`,
//! `[[key_outage]]`.

use super::super::{Scenario, ScenarioError};
use super::values::{Time, time};
use super::wrong;
use crate::catalog;
use crate::quota::{Change, Consumer, KeyOutage, KeyTrouble, PartialLimits, SpendLimit, SpendLimitKind, Whom};
use serde::Deserialize;
use std::time::Duration;

/// How often a consumer takes its share at least; between two times it is not there.
const EVERY_MIN: Duration = Duration::from_millis(10);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeTable {
    organisation: Option<String>,
    workspace: Option<String>,
    #[serde(default)]
    classes: Vec<String>,
    at: Time,
    factor: Option<f64>,
    requests_per_minute: Option<u64>,
    input_tokens_per_minute: Option<u64>,
    output_tokens_per_minute: Option<u64>,
    burst: Option<Time>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsumerTable {
    organisation: Option<String>,
    #[serde(default)]
    classes: Vec<String>,
    from: Option<Time>,
    until: Option<Time>,
    percent: u64,
    every: Option<Time>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpendLimitTable {
    organisation: Option<String>,
    workspace: Option<String>,
    dollars: f64,
    #[serde(default)]
    kind: SpendLimitKind,
    lifted: Option<Time>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyOutageTable {
    key: String,
    from: Option<Time>,
    until: Option<Time>,
    #[serde(default)]
    reason: KeyTrouble,
}

/// Whom a table means, if they exist.
fn whom(
    scenario: &Scenario,
    table: &str,
    organisation: Option<String>,
    workspace: Option<String>,
    classes: Vec<String>,
) -> Result<Whom, ScenarioError> {
    if let Some(class) = classes.iter().find(|class| !catalog::has_class(class)) {
        let known = catalog::classes().join(", ");
        return wrong(table, "classes", &format!("`{class}` is not a model class; known are {known}"));
    }
    let rows = scenario.organisations.iter();
    let mut meant = rows.filter(|row| organisation.as_ref().is_none_or(|name| *name == row.name)).peekable();
    if let Some(name) = organisation.as_ref().filter(|_| !scenario.organisations.is_empty() && meant.peek().is_none()) {
        return wrong(table, "organisation", &format!("there is no organisation `{name}` in this scenario"));
    }
    if let Some(name) = &workspace
        && !meant.any(|row| row.workspaces.iter().any(|workspace| workspace.name == *name))
    {
        return wrong(table, "workspace", &format!("there is no workspace `{name}` there"));
    }
    Ok(Whom { organisation, workspace, classes })
}

fn later(table: &str, from: Duration, until: Option<Duration>) -> Result<(), ScenarioError> {
    if until.is_some_and(|until| until <= from) { wrong(table, "until", "must be after `from`") } else { Ok(()) }
}

impl ChangeTable {
    pub(super) fn build(self, scenario: &Scenario) -> Result<Change, ScenarioError> {
        const TABLE: &str = "[[change]]";
        let limits = PartialLimits {
            requests: self.requests_per_minute,
            input_tokens: self.input_tokens_per_minute,
            output_tokens: self.output_tokens_per_minute,
        };
        if self.factor.is_none() && limits == PartialLimits::default() && self.burst.is_none() {
            return wrong(TABLE, "factor", "write a factor, new limits or a burst, or nothing changes");
        }
        let factor = self.factor.unwrap_or(1.0);
        if !(0.0..=1_000.0).contains(&factor) {
            return wrong(TABLE, "factor", "from 0 to 1000");
        }
        let whom = whom(scenario, TABLE, self.organisation, self.workspace, self.classes)?;
        Ok(Change { whom, at: self.at.0.0, factor, limits, burst: self.burst.map(|burst| burst.0.0) })
    }
}

impl ConsumerTable {
    pub(super) fn build(self, scenario: &Scenario) -> Result<Consumer, ScenarioError> {
        const TABLE: &str = "[[consumer]]";
        if !(1..=100).contains(&self.percent) {
            return wrong(TABLE, "percent", "from 1 to 100");
        }
        let (from, until) = (time(self.from, Duration::ZERO), self.until.map(|until| until.0.0));
        later(TABLE, from, until)?;
        let every = time(self.every, Duration::from_secs(1));
        if every < EVERY_MIN {
            return wrong(TABLE, "every", "10 ms or more");
        }
        let whom = whom(scenario, TABLE, self.organisation, None, self.classes)?;
        Ok(Consumer { whom, from, until, percent: self.percent, every })
    }
}

impl SpendLimitTable {
    pub(super) fn build(self, scenario: &Scenario) -> Result<SpendLimit, ScenarioError> {
        const TABLE: &str = "[[spend_limit]]";
        if !(0.0..=1e9).contains(&self.dollars) {
            return wrong(TABLE, "dollars", "from 0 to 1000000000");
        }
        let whom = whom(scenario, TABLE, self.organisation, self.workspace, Vec::new())?;
        Ok(SpendLimit {
            organisation: whom.organisation,
            workspace: whom.workspace,
            nanodollars: (self.dollars * 1e9).round() as u64,
            kind: self.kind,
            lifted: self.lifted.map(|lifted| lifted.0.0),
        })
    }
}

impl KeyOutageTable {
    pub(super) fn build(self, scenario: &Scenario) -> Result<KeyOutage, ScenarioError> {
        const TABLE: &str = "[[key_outage]]";
        if !scenario.organisations.is_empty() && !scenario.callers().any(|caller| caller.key == self.key) {
            return wrong(TABLE, "key", &format!("no organisation has the key `{}`", self.key));
        }
        let (from, until) = (time(self.from, Duration::ZERO), self.until.map(|until| until.0.0));
        later(TABLE, from, until)?;
        Ok(KeyOutage { key: self.key, from, until, trouble: self.reason })
    }
}
