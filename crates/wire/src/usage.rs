//! Token usage as the API reports it.
//!
//! In a stream the numbers of `message_delta` are totals so far: they overwrite those of
//! `message_start`, they are never added (protocol page, section 2). What is absent keeps its
//! value.
//!
//! What is told of a price once, in `message_start`, stays too: how much of what was written to the
//! cache is for an hour, and whether the answer was a batch's or a fast one.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Token counts of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input after the last cache breakpoint.
    pub input: u64,
    /// Input written to the prompt cache.
    pub cache_creation: u64,
    /// Of that, what is kept for an hour; the rest is for five minutes.
    pub cache_creation_1h: u64,
    /// Input read from the prompt cache.
    pub cache_read: u64,
    /// Output, thinking included.
    pub output: u64,
    /// It was answered in a batch.
    pub batch: bool,
    /// It was answered at the higher speed.
    pub fast: bool,
}

#[derive(Deserialize)]
struct Wire<'a> {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    // Of whatever type: what is said beside the counts must not cost the counts.
    #[serde(borrow)]
    cache_creation: Option<&'a RawValue>,
    #[serde(borrow)]
    service_tier: Option<&'a RawValue>,
    #[serde(borrow)]
    speed: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CacheCreation {
    ephemeral_1h_input_tokens: Option<u64>,
}

impl Usage {
    /// Takes over what the `usage` object in `json` says, and says whether it counts input, and output.
    /// `None` if it is no such object.
    pub fn update(&mut self, json: &str) -> Option<[bool; 2]> {
        let wire = serde_json::from_str::<Wire<'_>>(json).ok()?;
        let take = |slot: &mut u64, value: Option<u64>| *slot = value.unwrap_or(*slot);
        // What was read was read: some end with zeros what they began with a count.
        let take_input = |slot: &mut u64, value: Option<u64>| take(slot, value.filter(|value| *value > 0));
        take_input(&mut self.input, wire.input_tokens);
        take_input(&mut self.cache_creation, wire.cache_creation_input_tokens);
        take_input(&mut self.cache_read, wire.cache_read_input_tokens);
        take(&mut self.output, wire.output_tokens);
        let kinds = wire.cache_creation.and_then(|kinds| serde_json::from_str::<CacheCreation>(kinds.get()).ok());
        take(&mut self.cache_creation_1h, kinds.and_then(|kinds| kinds.ephemeral_1h_input_tokens));
        let is = |slot: &mut bool, value: Option<&RawValue>, word: &str| {
            *slot = value.map_or(*slot, |value| value.get() == word);
        };
        is(&mut self.batch, wire.service_tier, "\"batch\"");
        is(&mut self.fast, wire.speed, "\"fast\"");
        Some([wire.input_tokens.is_some(), wire.output_tokens.is_some()])
    }

    /// Whether it counts any input at all.
    pub fn has_input(&self) -> bool {
        self.input > 0 || self.cache_creation > 0 || self.cache_read > 0
    }

    /// The counts as a `usage` object.
    pub fn object(&self) -> serde_json::Value {
        serde_json::json!({
            "input_tokens": self.input,
            "cache_creation_input_tokens": self.cache_creation,
            "cache_read_input_tokens": self.cache_read,
            "output_tokens": self.output,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_totals_overwrite_and_absent_ones_stay() {
        let mut usage = Usage::default();
        assert!(
            usage.update(r#"{"input_tokens":12,"cache_read_input_tokens":100,"output_tokens":1,"new":{}}"#).is_some()
        );
        assert!(usage.update(r#"{"output_tokens":40,"cache_read_input_tokens":null}"#).is_some());
        let sum = Usage { input: 12, cache_read: 100, output: 40, ..Usage::default() };
        assert_eq!(usage, sum);
        let zeros = usage.update(r#"{"input_tokens":0,"cache_read_input_tokens":0,"output_tokens":50}"#);
        assert_eq!((usage, zeros), (Usage { output: 50, ..sum }, Some([true; 2])), "input does not become less");
        assert_eq!(usage.update("[]"), None);
        assert_eq!(
            ["{}", r#"{"input_tokens":0}"#, "null", ""].map(|json| Usage::default().update(json)),
            [Some([false; 2]), Some([true, false]), None, None]
        );
    }

    #[test]
    fn what_is_told_of_a_price_is_told_once_and_stays() {
        let mut usage = Usage::default();
        let start = r#"{"input_tokens":1,"cache_creation_input_tokens":30,"cache_creation":{"ephemeral_5m_input_tokens":10,
            "ephemeral_1h_input_tokens":20},"service_tier":"batch","speed":"fast","output_tokens":1}"#;
        assert!(usage.update(start).is_some() && usage.update(r#"{"output_tokens":9}"#).is_some());
        let want = Usage {
            input: 1,
            cache_creation: 30,
            cache_creation_1h: 20,
            output: 9,
            batch: true,
            fast: true,
            cache_read: 0,
        };
        assert_eq!(usage, want);
        assert!(usage.update(r#"{"service_tier":"standard","speed":null,"cache_creation":null}"#).is_some());
        assert_eq!(usage, Usage { batch: false, ..want });
        assert!(usage.update(r#"{"output_tokens":11,"cache_creation":7,"service_tier":[],"speed":{}}"#).is_some());
        assert_eq!(
            (usage.output, usage.cache_creation_1h, usage.fast),
            (11, 20, false),
            "odd, and no reason to lose the rest"
        );
    }
}
