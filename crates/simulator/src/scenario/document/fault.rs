//! `[[fault]]`.

use super::super::{Rule, ScenarioError};
use super::values::{Text, Time, time};
use crate::fault::Fault;
use serde::Deserialize;
use std::time::Duration;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleTable {
    r#do: Vec<Text<Fault>>,
    probability: Option<f64>,
    every: Option<u64>,
    from: Option<Time>,
    until: Option<Time>,
    period: Option<Time>,
    open_over: Option<u64>,
    #[serde(default)]
    models: Vec<String>,
    attempts: Option<u64>,
    stream: Option<bool>,
}

impl RuleTable {
    pub(super) fn build(self) -> Result<Rule, ScenarioError> {
        let probability = self.probability.unwrap_or(1.0);
        let wrong = |key: &str, says: &str| Err(ScenarioError(format!("[[fault]] {key}: {says}")));
        if !(0.0..=1.0).contains(&probability) {
            return wrong("probability", "from 0 to 1");
        }
        if self.every == Some(0) {
            return wrong("every", "1 or more");
        }
        let (from, until, period) =
            (time(self.from, Duration::ZERO), self.until.map(|t| t.0.0), self.period.map(|t| t.0.0));
        if until.is_some_and(|until| until <= from) {
            return wrong("until", "must be after `from`");
        }
        if period.is_some_and(|period| period.is_zero() || until.is_none_or(|until| until > period)) {
            return wrong("period", "needs an `until` that is not after its end");
        }
        Ok(Rule {
            faults: self.r#do.into_iter().map(|fault| fault.0).collect(),
            probability,
            every: self.every,
            from,
            until,
            period,
            open_over: self.open_over,
            models: self.models,
            attempts: self.attempts,
            stream: self.stream,
        })
    }
}
