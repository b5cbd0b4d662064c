//! The scenario document: its tables, key by key, and what each turns into.
//!
//! Types that read themselves (`values.rs`) report a wrong value with its line and key; what two keys
//! must agree on is checked afterwards and names its table.

mod bare;
mod continuation;
mod fault;
mod organisation;
mod pace;
mod quota;
mod timeline;
mod values;

use super::{RULES_MAX, Scenario, ScenarioError, TIMELINE_MAX};
use serde::Deserialize;
use std::collections::BTreeSet;

/// A load of more times the quota tells nothing that this one does not.
const TIMES_MAX: f64 = 100.0;

/// Reads a document.
pub(super) fn read(text: &str) -> Result<Scenario, ScenarioError> {
    let file: File = toml::from_str(text).map_err(|error| ScenarioError(error.to_string()))?;
    file.build()
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    about: Option<String>,
    times: Option<f64>,
    pace: pace::PaceTable,
    quota: quota::QuotaTable,
    cache: quota::CacheTable,
    continuation: continuation::ContinuationTable,
    organisation: Vec<organisation::OrganisationTable>,
    change: Vec<timeline::ChangeTable>,
    consumer: Vec<timeline::ConsumerTable>,
    spend_limit: Vec<timeline::SpendLimitTable>,
    key_outage: Vec<timeline::KeyOutageTable>,
    fault: Vec<fault::RuleTable>,
    bare: Option<bare::BareTable>,
}

/// The error of a table: what is wrong with which key.
fn wrong<T>(table: &str, key: &str, says: &str) -> Result<T, ScenarioError> {
    Err(ScenarioError(format!("{table} {key}: {says}")))
}

fn at_most(table: &str, entries: usize, most: usize, what: &str) -> Result<(), ScenarioError> {
    if entries > most { Err(ScenarioError(format!("{table}: at most {most} {what}"))) } else { Ok(()) }
}

impl File {
    fn build(self) -> Result<Scenario, ScenarioError> {
        let calm = Scenario::calm();
        at_most("[[fault]]", self.fault.len(), RULES_MAX, "rules")?;
        for (table, entries) in [
            ("[[change]]", self.change.len()),
            ("[[consumer]]", self.consumer.len()),
            ("[[spend_limit]]", self.spend_limit.len()),
            ("[[key_outage]]", self.key_outage.len()),
        ] {
            at_most(table, entries, TIMELINE_MAX, "of them")?;
        }
        if self.times.is_some_and(|times| !(times > 0.0 && times <= TIMES_MAX)) {
            return wrong("the document's", "times", "above 0, and at most 100");
        }
        let (tier, burst) = (self.quota.tier.unwrap_or(calm.tier), self.quota.burst());
        let mut scenario = Scenario {
            about: self.about.unwrap_or(calm.about),
            times: self.times,
            pace: self.pace.build()?,
            tier,
            burst,
            quota: self.quota.build()?,
            cache: self.cache.build()?,
            continuation: self.continuation.build()?,
            faults: self.fault.into_iter().map(fault::RuleTable::build).collect::<Result<_, _>>()?,
            bare: self.bare.map(bare::BareTable::build).transpose()?,
            organisations: self.organisation.into_iter().map(|table| table.build(burst)).collect::<Result<_, _>>()?,
            ..calm
        };
        keys_differ(&scenario)?;
        organisation::within_organisations(&scenario)?;
        scenario.changes = self.change.into_iter().map(|table| table.build(&scenario)).collect::<Result<_, _>>()?;
        scenario.consumers = self.consumer.into_iter().map(|table| table.build(&scenario)).collect::<Result<_, _>>()?;
        scenario.spend_limits =
            self.spend_limit.into_iter().map(|table| table.build(&scenario)).collect::<Result<_, _>>()?;
        scenario.key_outages =
            self.key_outage.into_iter().map(|table| table.build(&scenario)).collect::<Result<_, _>>()?;
        Ok(scenario)
    }
}

fn keys_differ(scenario: &Scenario) -> Result<(), ScenarioError> {
    let mut keys = BTreeSet::new();
    let listed = scenario.callers().map(|caller| caller.key);
    for key in listed.chain(scenario.organisations.iter().flat_map(|o| o.revoked.iter().map(String::as_str))) {
        if !keys.insert(key) {
            return Err(ScenarioError(format!("[[organisation]] keys: `{key}` is listed twice")));
        }
    }
    Ok(())
}
