//! One record per request: the line in the log.
//!
//! It holds numbers, ids and names from closed lists; no text of a message, no credential, no
//! header value but the ids. What an upstream's error said stays out too: it may quote the input.
//! A record is made once for each request, so it borrows what it says and is written by whoever
//! keeps the log, without a detour through a general logger.

use serde::Serialize;
use std::time::Duration;

/// What is written down about one request when it ends.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Record<'a> {
    /// `tidegate-request-id`.
    pub request: &'a str,
    /// Door, as in metrics.
    pub door: &'static str,
    /// Tenant's name.
    pub tenant: &'a str,
    /// Model asked for.
    pub model: &'a str,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// Status the client saw; 0 if it left before one.
    pub status: u16,
    /// How it ended, from the path's closed list.
    pub end: &'static str,
    /// Our error code, if the end was an error of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// Attempts made.
    pub attempts: u32,
    /// How often the answer was taken up again after it broke off.
    #[serde(skip_serializing_if = "is_zero")]
    pub mended: u32,
    /// Label of the last upstream key.
    pub upstream_key: &'a str,
    /// The upstream's own ids, comma between them.
    pub upstream_request_ids: &'a str,
    /// Milliseconds spent waiting for leases.
    pub waited_ms: u64,
    /// Milliseconds to the answer's first byte.
    #[serde(skip_serializing_if = "Option::is_none")]
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
    /// Whether that is partly an estimate: of an answer that did not end nobody says what was produced.
    #[serde(skip_serializing_if = "is_false")]
    pub output_estimated: bool,
    /// Whether the input is an estimate: of an upstream that does not count it.
    #[serde(skip_serializing_if = "is_false")]
    pub input_estimated: bool,
    /// The model's stop reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<&'a str>,
    /// What is known of the last failure.
    pub detail: &'a str,
}

// serde asks by reference.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Record<'_> {
    /// Milliseconds of a span.
    pub fn ms(span: Duration) -> u64 {
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Keeps the records. Called by data-plane threads: it must not wait.
pub trait Records: Send + Sync {
    /// A request ended; `trouble` says that an operator should look at it.
    fn write(&self, trouble: bool, record: &Record<'_>);
}

/// Keeps none.
#[derive(Clone, Copy, Debug)]
pub struct NoRecords;

impl Records for NoRecords {
    fn write(&self, _: bool, _: &Record<'_>) {}
}
