//! Token usage as the API reports it.
//!
//! In a stream the numbers of `message_delta` are totals so far: they overwrite those of
//! `message_start`, they are never added (protocol page, section 2). What is absent keeps its
//! value.

use serde::Deserialize;

/// Token counts of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input after the last cache breakpoint.
    pub input: u64,
    /// Input written to the prompt cache.
    pub cache_creation: u64,
    /// Input read from the prompt cache.
    pub cache_read: u64,
    /// Output, thinking included.
    pub output: u64,
}

#[derive(Deserialize)]
struct Wire {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

impl Usage {
    /// Takes over what the `usage` object in `json` says. False if it is none.
    pub fn update(&mut self, json: &str) -> bool {
        let Ok(wire) = serde_json::from_str::<Wire>(json) else { return false };
        let take = |slot: &mut u64, value: Option<u64>| *slot = value.unwrap_or(*slot);
        take(&mut self.input, wire.input_tokens);
        take(&mut self.cache_creation, wire.cache_creation_input_tokens);
        take(&mut self.cache_read, wire.cache_read_input_tokens);
        take(&mut self.output, wire.output_tokens);
        true
    }

    /// Whether the `usage` object in `json` counts input, and output.
    pub fn counts(json: &str) -> [bool; 2] {
        let wire = serde_json::from_str::<Wire>(json).ok();
        wire.map_or([false; 2], |wire| [wire.input_tokens.is_some(), wire.output_tokens.is_some()])
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
        assert!(usage.update(r#"{"input_tokens":12,"cache_read_input_tokens":100,"output_tokens":1,"new":{}}"#));
        assert!(usage.update(r#"{"output_tokens":40,"cache_read_input_tokens":null}"#));
        assert_eq!(usage, Usage { input: 12, cache_creation: 0, cache_read: 100, output: 40 });
        assert!(!usage.update("[]"));
        assert_eq!(
            ["{}", r#"{"input_tokens":0}"#, "null", ""].map(Usage::counts),
            [[false; 2], [true, false], [false; 2], [false; 2]]
        );
    }
}
