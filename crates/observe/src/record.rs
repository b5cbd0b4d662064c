//! One record per request: the line in the log.
//!
//! It holds numbers, ids and names from closed lists; no text of a message, no credential, no
//! header value but the ids. What an upstream's error said stays out too: it may quote the input.

use serde::Serialize;
use std::time::Duration;
use tidegate_wire::usage::Usage;

/// What is written down about one request when it ends.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// `tidegate-request-id`.
    pub request: String,
    /// Door, as in metrics.
    pub door: &'static str,
    /// Tenant's name.
    pub tenant: String,
    /// Model asked for.
    pub model: String,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// Status the client saw; 0 if it left before one.
    pub status: u16,
    /// How it ended, from the path's closed list.
    pub end: &'static str,
    /// Our error code, if the end was an error of ours.
    pub code: Option<&'static str>,
    /// Attempts made.
    pub attempts: u32,
    /// Label of the last upstream key.
    pub upstream_key: String,
    /// The upstream's own ids.
    pub upstream_request_ids: Vec<String>,
    /// Milliseconds spent waiting for leases.
    pub waited_ms: u64,
    /// Milliseconds to the answer's first byte.
    pub first_byte_ms: Option<u64>,
    /// Milliseconds in all.
    pub total_ms: u64,
    /// Events passed on.
    pub events: u64,
    /// Bytes given to the client.
    pub bytes: u64,
    /// Uncached input tokens.
    pub input_tokens: u64,
    /// Input tokens read from the cache.
    pub cache_read_tokens: u64,
    /// Input tokens written to the cache.
    pub cache_creation_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// The model's stop reason.
    pub stop_reason: Option<String>,
}

impl Record {
    /// Puts the token counts in.
    pub fn used(&mut self, usage: &Usage) {
        self.input_tokens = usage.input;
        self.cache_read_tokens = usage.cache_read;
        self.cache_creation_tokens = usage.cache_creation;
        self.output_tokens = usage.output;
    }

    /// Milliseconds of a span.
    pub fn ms(span: Duration) -> u64 {
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
    }

    /// The record as one line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
