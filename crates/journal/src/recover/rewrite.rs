//! Events as the client has to see them: other block indexes, other totals, and those that nobody
//! upstream sent.

use serde_json::json;
use std::borrow::Cow;
use tidegate_wire::event::{OPENINGS, PlainDelta, plain_delta};
use tidegate_wire::raw::{Fields, RawObject};
use tidegate_wire::sse;
use tidegate_wire::usage::Usage;

/// The same event about block `index`; not one other byte is changed, but for the line breaks
/// between its fields. `None` if it is about no block.
pub(super) fn with_index(event: &[u8], index: u32) -> Option<Cow<'_, [u8]>> {
    let digits = index.to_string();
    if let Some(delta) = plain_delta(event) {
        if delta.index == digits.as_bytes() {
            return Some(Cow::Borrowed(event));
        }
        return Some(Cow::Owned(PlainDelta { index: digits.as_bytes(), ..delta }.event().concat()));
    }
    let parts = sse::parts(event);
    let data = parts.data?;
    let at = RawObject::read(&data).ok()?.place("index", &data)?;
    if data[at.clone()] == *digits.as_bytes() {
        return Some(Cow::Borrowed(event));
    }
    let data = [&data[..at.start], digits.as_bytes(), &data[at.end..]].concat();
    let mut out = Vec::with_capacity(event.len() + 4);
    sse::write(&mut out, std::str::from_utf8(parts.name).ok()?, &data);
    Some(Cow::Owned(out))
}

/// The same `message_delta` with `usage` as its totals.
pub(super) fn with_usage(event: &[u8], usage: &Usage) -> Option<Vec<u8>> {
    let parts = sse::parts(event);
    let mut fields = Fields::read(&parts.data?).ok()?;
    let mut totals = fields.get("usage").and_then(|u| Fields::read(u.get().as_bytes()).ok()).unwrap_or_default();
    totals.put("input_tokens", &usage.input);
    totals.put("cache_creation_input_tokens", &usage.cache_creation);
    totals.put("cache_read_input_tokens", &usage.cache_read);
    totals.put("output_tokens", &usage.output);
    fields.put("usage", &totals);
    Some(event_of("message_delta", &serde_json::to_vec(&fields).ok()?))
}

fn event_of(name: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 64);
    sse::write(&mut out, name, data);
    out
}

/// A delta of `text` in block `index`, as the API spells it.
pub(super) fn text_delta(index: u32, text: &str) -> Vec<u8> {
    let quoted = json!(text).to_string();
    let inside = &quoted.as_bytes()[1..quoted.len() - 1];
    PlainDelta { index: index.to_string().as_bytes(), opening: OPENINGS[0], text: inside }.event().concat()
}

/// The end of block `index`.
pub(super) fn block_stop(index: u32) -> Vec<u8> {
    event_of("content_block_stop", json!({"type": "content_block_stop", "index": index}).to_string().as_bytes())
}

/// The end of the message.
pub(super) fn message_stop() -> Vec<u8> {
    event_of("message_stop", br#"{"type":"message_stop"}"#)
}
