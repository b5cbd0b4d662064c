//! Lists, newest first: by `after_id` and `before_id` (batches, and files in their beta shape), or by
//! the opaque `page` of the answer before.

use super::{Call, Given};
use crate::envelope::Refusal;
use serde_json::{Value, json};

/// The pairs of a query; escapes are read where ids have none.
pub(super) fn read(query: &str) -> Vec<(String, String)> {
    let plain = |text: &str| text.replace("%5B", "[").replace("%5D", "]").replace("%5b", "[").replace("%5d", "]");
    query.split('&').filter_map(|item| item.split_once('=')).map(|(k, v)| (plain(k), plain(v))).collect()
}

impl Call<'_> {
    pub(super) fn asked(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    fn limit(&self) -> Result<usize, Refusal> {
        let Some(text) = self.asked("limit") else { return Ok(20) };
        let limit = text.parse().ok().filter(|n| (1..=1_000).contains(n));
        limit.ok_or_else(|| Refusal::invalid("limit: Input should be a valid integer between 1 and 1000"))
    }
}

fn id(row: &Value) -> Option<&str> {
    row.get("id").and_then(Value::as_str)
}

/// A page of `rows` by ids.
pub(super) fn by_ids(call: &Call<'_>, rows: &[Value]) -> Result<Given, Refusal> {
    let limit = call.limit()?;
    let place = |wanted: &str| {
        let found = rows.iter().position(|row| id(row) == Some(wanted));
        found.ok_or_else(|| Refusal::invalid(format!("`{wanted}` is not in this list")))
    };
    let (slice, has_more) = match (call.asked("after_id"), call.asked("before_id")) {
        (Some(_), Some(_)) => return Err(Refusal::invalid("Only one of after_id and before_id may be given")),
        (None, Some(before)) => {
            let end = place(before)?;
            let start = end.saturating_sub(limit);
            (&rows[start..end], start > 0)
        }
        (after, None) => {
            let start = after.map(place).transpose()?.map_or(0, |at| at + 1);
            let end = (start + limit).min(rows.len());
            (&rows[start..end], end < rows.len())
        }
    };
    let (first, last) = (slice.first().and_then(id), slice.last().and_then(id));
    Ok(json!({"data": slice, "has_more": has_more, "first_id": first, "last_id": last}).into())
}

/// A page of `rows` by the cursor of the one before.
pub(super) fn by_cursor(call: &Call<'_>, rows: &[Value]) -> Result<Given, Refusal> {
    let limit = call.limit()?;
    let start = match call.asked("page") {
        None => 0,
        Some(cursor) => {
            let after = cursor.strip_prefix("page_");
            let at = after.and_then(|after| rows.iter().position(|row| id(row) == Some(after)));
            at.ok_or_else(|| Refusal::invalid("page: Invalid cursor"))? + 1
        }
    };
    let end = (start + limit).min(rows.len());
    let slice = &rows[start..end];
    let next = slice.last().and_then(id).filter(|_| end < rows.len()).map(|id| format!("page_{id}"));
    Ok(json!({"data": slice, "has_more": next.is_some(), "next_page": next}).into())
}
