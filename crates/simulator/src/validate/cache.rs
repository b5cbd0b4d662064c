//! Cache breakpoints: what a mark looks like, where it may stand, how many there may be, and that
//! those for an hour come before those for five minutes.

use crate::envelope::Refusal;
use serde_json::Value;

/// Most breakpoints of a request, the automatic one counted.
const MARKS_MAX: usize = 4;

/// A mark: where it stands, how long its entry lives, and whether on a block that is never cached.
struct Mark<'a> {
    path: String,
    control: &'a Value,
    on_thinking: bool,
}

impl Mark<'_> {
    fn hour(&self) -> bool {
        self.control.get("ttl").and_then(Value::as_str) == Some("1h")
    }

    fn well_formed(&self) -> Result<(), Refusal> {
        let path = &self.path;
        let Value::Object(fields) = self.control else {
            return Err(Refusal::invalid(format!(
                "{path}.cache_control: Input should be a valid dictionary or object to extract fields from"
            )));
        };
        if fields.get("type").and_then(Value::as_str) != Some("ephemeral") {
            return Err(Refusal::invalid(format!("{path}.cache_control.type: Input should be 'ephemeral'")));
        }
        match fields.get("ttl") {
            None | Some(Value::Null) => {}
            Some(Value::String(ttl)) if ttl == "5m" || ttl == "1h" => {}
            Some(_) => {
                return Err(Refusal::invalid(format!("{path}.cache_control.ttl: Input should be '5m' or '1h'")));
            }
        }
        if self.on_thinking {
            return Err(Refusal::invalid(format!("{path}.thinking.cache_control: Extra inputs are not permitted")));
        }
        Ok(())
    }
}

/// The marks of a value and what is in it, in order.
fn collect<'a>(value: &'a Value, path: &str, marks: &mut Vec<Mark<'a>>) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                match key.as_str() {
                    // A tool's input and schema are the caller's data: a key of that name in them is no mark.
                    "input" | "input_schema" | "cache_control" => {}
                    _ => collect(inner, &join(path, key), marks),
                }
            }
            if let Some(control) = fields.get("cache_control").filter(|control| !control.is_null()) {
                let kind = fields.get("type").and_then(Value::as_str);
                let on_thinking = matches!(kind, Some("thinking" | "redacted_thinking"));
                marks.push(Mark { path: path.to_owned(), control, on_thinking });
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                collect(item, &join(path, &at.to_string()), marks);
            }
        }
        _ => {}
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The mark of the last block itself, if it has one.
fn on_last_block<'a>(body: &Value, marks: &'a [Mark<'a>]) -> Option<&'a Mark<'a>> {
    let messages = body.get("messages").and_then(Value::as_array)?;
    let blocks = messages.last()?.get("content").and_then(Value::as_array)?;
    let path = format!("messages.{}.content.{}", messages.len() - 1, blocks.len().checked_sub(1)?);
    marks.iter().find(|mark| mark.path == path)
}

/// Checks all marks of a body.
pub(super) fn marks(body: &Value) -> Result<(), Refusal> {
    let mut marks = Vec::new();
    for part in ["tools", "system", "messages"] {
        if let Some(value) = body.get(part) {
            collect(value, part, &mut marks);
        }
    }
    let automatic = body.get("cache_control").filter(|control| !control.is_null());
    let automatic = automatic.map(|control| Mark { path: String::new(), control, on_thinking: false });
    let found = marks.len() + usize::from(automatic.is_some());
    if found > MARKS_MAX {
        return Err(Refusal::invalid(format!(
            "A maximum of {MARKS_MAX} blocks with cache_control may be provided. Found {found}."
        )));
    }
    marks.iter().try_for_each(Mark::well_formed)?;
    if let Some(mark) = &automatic {
        mark.well_formed().map_err(|r| Refusal { message: r.message.trim_start_matches('.').to_owned(), ..r })?;
        if on_last_block(body, &marks).is_some_and(|last| last.hour() != mark.hour()) {
            return Err(Refusal::invalid(
                "cache_control: the last block has a cache_control of its own with a different ttl",
            ));
        }
    }
    let mut short = None;
    for mark in marks.iter().chain(&automatic) {
        match (mark.hour(), short) {
            (true, Some(_)) => {
                let path = if mark.path.is_empty() { String::new() } else { format!("{}.", mark.path) };
                return Err(Refusal::invalid(format!(
                    "{path}cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control \
                     block. Note that blocks are processed in the following order: `tools`, `system`, `messages`."
                )));
            }
            (false, None) => short = Some(()),
            _ => {}
        }
    }
    Ok(())
}
