//! `[continuation]`.

use super::super::ScenarioError;
use super::values::Numbers;
use super::wrong;
use crate::continuation::{ContinuationRules, REPEAT_CHARS_MAX};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ContinuationTable {
    preamble: Option<f64>,
    reopen: Option<f64>,
    space: Option<f64>,
    word: Option<f64>,
    repeat: Option<f64>,
    repeat_chars: Option<Numbers>,
    prefill: Option<bool>,
}

impl ContinuationTable {
    pub(super) fn build(self) -> Result<ContinuationRules, ScenarioError> {
        let usual = ContinuationRules::default();
        let probability = |key: &str, given: Option<f64>, usual: f64| match given {
            Some(p) if !(0.0..=1.0).contains(&p) => wrong("[continuation]", key, "from 0 to 1"),
            given => Ok(given.unwrap_or(usual)),
        };
        let repeat_chars = self.repeat_chars.map_or(usual.repeat_chars, |numbers| numbers.0);
        if repeat_chars.high > REPEAT_CHARS_MAX {
            return wrong("[continuation]", "repeat_chars", &format!("at most {REPEAT_CHARS_MAX}"));
        }
        Ok(ContinuationRules {
            preamble: probability("preamble", self.preamble, usual.preamble)?,
            reopen: probability("reopen", self.reopen, usual.reopen)?,
            space: probability("space", self.space, usual.space)?,
            word: probability("word", self.word, usual.word)?,
            repeat: probability("repeat", self.repeat, usual.repeat)?,
            repeat_chars,
            prefill: self.prefill.unwrap_or(usual.prefill),
        })
    }
}
