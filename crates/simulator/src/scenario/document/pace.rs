//! `[pace]`.

use super::super::ScenarioError;
use super::values::{Numbers, Time, time};
use crate::pace::Pace;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PaceTable {
    head: Option<Time>,
    first: Option<Time>,
    event: Option<Time>,
    tokens_per_second: Option<u64>,
    jitter_percent: Option<u64>,
    ping: Option<Time>,
    chars: Option<Numbers>,
    output_tokens: Option<Numbers>,
    thinking_tokens: Option<Numbers>,
}

impl PaceTable {
    pub(super) fn build(self) -> Result<Pace, ScenarioError> {
        let calm = Pace::default();
        let ping = time(self.ping, calm.ping);
        if ping.is_zero() {
            return Err(ScenarioError("[pace] ping: must be longer than 0 s".to_owned()));
        }
        let jitter_percent = self.jitter_percent.unwrap_or(calm.jitter_percent);
        if jitter_percent > 100 {
            return Err(ScenarioError("[pace] jitter_percent: at most 100".to_owned()));
        }
        Ok(Pace {
            head: time(self.head, calm.head),
            first: time(self.first, calm.first),
            event: time(self.event, calm.event),
            tokens_per_second: self.tokens_per_second,
            jitter_percent,
            ping,
            chars: self.chars.map_or(calm.chars, |n| n.0),
            output_tokens: self.output_tokens.map_or(calm.output_tokens, |n| n.0),
            thinking_tokens: self.thinking_tokens.map_or(calm.thinking_tokens, |n| n.0),
        })
    }
}
