//! When two messages are the same: what one client sent, what was stored, and what the client's SDK
//! made of it when it sent the history again.
//!
//! Equal bytes are equal; so is each block. Otherwise the two are compared as JSON, with these allowances and no
//! others:
//!
//! - content given as a string is the same as one text block with that text;
//! - `cache_control` does not count, on blocks and in what they contain;
//! - a field that is `null` is the same as none, order of fields and spelling of strings do not
//!   count, and numbers compare by value (SDKs in JavaScript write 1.0 as 1);
//! - thinking that a client left out altogether, as many do for answers they keep, does not count;
//!   thinking it sent must be the same.
//!
//! A tool's `input` and schemas inside it are the caller's data: there, `cache_control` and `null`
//! count like anything else. Every other field counts, on the message too.

use crate::block::Kind;
use crate::message::{Message, Role};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};
use tidegate_wire::raw::RawObject;

/// In what two messages differ; kinds and places, no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Who speaks.
    Role {
        /// As stored.
        stored: Role,
        /// As sent.
        sent: Role,
    },
    /// The number of blocks.
    Blocks {
        /// As stored.
        stored: usize,
        /// As sent.
        sent: usize,
    },
    /// A block, counted without thinking that was left out.
    Block {
        /// Which.
        nth: usize,
        /// What it is in the stored message.
        stored: Kind,
        /// What it is in the one sent.
        sent: Kind,
    },
    /// Another field of the message.
    Field,
    /// It is stored, and was not sent.
    Missing,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Role { stored, sent } => {
                write!(f, "its role is '{}' where '{}' is stored", sent.name(), stored.name())
            }
            Difference::Blocks { stored, sent } => write!(f, "it has {sent} content blocks where {stored} are stored"),
            Difference::Block { nth, stored, sent } if stored == sent => {
                write!(f, "its content block {nth} ({}) differs from the stored one", sent.name())
            }
            Difference::Block { nth, stored, sent } => {
                write!(f, "its content block {nth} is '{}' where '{}' is stored", sent.name(), stored.name())
            }
            Difference::Missing => f.write_str("it is stored, and the body ends before it"),
            Difference::Field => f.write_str("a field besides role and content differs from the stored one"),
        }
    }
}

/// Compares a stored message with one that was sent; `None` if they are the same.
pub fn difference(stored: &Message, sent: &Message) -> Option<Difference> {
    if stored.raw() == sent.raw() {
        return None;
    }
    if stored.role() != sent.role() {
        return Some(Difference::Role { stored: stored.role(), sent: sent.role() });
    }
    let left_out =
        stored.role() == Role::Assistant && !sent.has(Kind::Thinking) && sent.blocks().len() < stored.blocks().len();
    let kept = |message: &Message| -> Vec<usize> {
        let counts = |nth: &usize| !(left_out && message.blocks()[*nth].kind == Kind::Thinking);
        (0..message.blocks().len()).filter(counts).collect()
    };
    let (ours, theirs) = (kept(stored), kept(sent));
    if ours.len() != theirs.len() {
        return Some(Difference::Blocks { stored: ours.len(), sent: theirs.len() });
    }
    for (nth, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        let kinds = (stored.blocks()[*a].kind, sent.blocks()[*b].kind);
        let same = stored.block_bytes(*a) == sent.block_bytes(*b) && stored.is_shorthand() == sent.is_shorthand();
        if !same && !equal(block(stored, *a), block(sent, *b)) {
            return Some(Difference::Block { nth, stored: kinds.0, sent: kinds.1 });
        }
    }
    (!equal(rest(stored), rest(sent))).then_some(Difference::Field)
}

/// What cannot be read (it is nested too deep) is equal to nothing.
fn equal(stored: Option<Value>, sent: Option<Value>) -> bool {
    stored.is_some() && stored == sent
}

/// A block in the form in which it is compared.
fn block(message: &Message, nth: usize) -> Option<Value> {
    let value: Value = serde_json::from_slice(message.block_bytes(nth)).ok()?;
    let value = match value {
        Value::String(text) if message.is_shorthand() => {
            let fields = [("type", Value::from("text")), ("text", Value::String(text))];
            Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
        }
        other => other,
    };
    Some(plain(value, true))
}

/// The message's fields besides its content.
fn rest(message: &Message) -> Option<Value> {
    let object = RawObject::read(message.raw()).ok()?;
    let fields = object.iter().filter(|(key, _)| *key != "content");
    let read = |(key, value): (&str, &RawValue)| Some((key.to_owned(), serde_json::from_str(value.get()).ok()?));
    let fields: Map<String, Value> = fields.map(read).collect::<Option<_>>()?;
    Some(plain(Value::Object(fields), true))
}

/// Fields sorted, numbers in one spelling; outside a caller's data, without `null` and cache marks.
fn plain(value: Value, ours: bool) -> Value {
    match value {
        Value::Object(fields) => {
            let counts = |(key, value): &(String, Value)| !ours || !(value.is_null() || key == "cache_control");
            let mut fields: Vec<(String, Value)> = fields.into_iter().filter(counts).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            let inner = |(key, value)| {
                let ours = ours && key != "input";
                (key, plain(value, ours))
            };
            Value::Object(fields.into_iter().map(inner).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|item| plain(item, ours)).collect()),
        Value::Number(number) => Value::Number(one_spelling(number)),
        other => other,
    }
}

/// A float that is a whole number, as one.
fn one_spelling(number: Number) -> Number {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT => Number::from(float as i64),
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(text: &str) -> Message {
        Message::read(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn compared(stored: &str, sent: &str) -> Option<Difference> {
        difference(&message(stored), &message(sent))
    }

    #[test]
    fn shorthand_marks_nulls_order_and_spelling_do_not_count() {
        for (stored, sent) in [
            (
                r#"{"role":"user","content":"a\u00e9"}"#,
                r#"{"content":[{"text":"aé","type":"text","cache_control":{"type":"ephemeral"}}],"role":"user"}"#,
            ),
            (
                r#"{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"x":1.0,"y":[]}}]}"#,
                r#"{"role":"assistant","content":[{"input":{"y":[],"x":1},"name":"f","id":"t","type":"tool_use","caller":null}]}"#,
            ),
            (
                r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"x"}]}]}"#,
                r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}]}]}"#,
            ),
            (
                r#"{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},{"type":"text","text":"x"}]}"#,
                r#"{"role":"assistant","content":"x"}"#,
            ),
        ] {
            assert_eq!(compared(stored, sent), None, "{sent}");
        }
    }

    #[test]
    fn everything_else_counts_and_is_named() {
        let text = |text: &str| format!(r#"{{"role":"assistant","content":"{text}"}}"#);
        let call = |input: &str| {
            format!(r#"{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"f","input":{input}}}]}}"#)
        };
        let user = r#"{"role":"user","content":"x"}"#;
        let block = |nth, stored, sent| Some(Difference::Block { nth, stored, sent });
        assert_eq!(compared(&text("x"), &text("y")), block(0, Kind::Text, Kind::Text));
        assert_eq!(compared(&text("x"), user), Some(Difference::Role { stored: Role::Assistant, sent: Role::User }));
        assert_eq!(compared(&call("{}"), &text("x")), block(0, Kind::ToolUse, Kind::Text));
        for (a, b) in [("{}", r#"{"x":null}"#), ("{}", r#"{"cache_control":1}"#), (r#"{"x":1}"#, r#"{"x":1.5}"#)] {
            assert_eq!(compared(&call(a), &call(b)), block(0, Kind::ToolUse, Kind::ToolUse), "{a} {b}");
        }
        let thought = |text: &str| {
            format!(
                r#"{{"role":"assistant","content":[{{"type":"thinking","thinking":"{text}","signature":"s"}},{{"type":"text","text":"x"}}]}}"#
            )
        };
        assert_eq!(compared(&thought("a"), &thought("b")), block(0, Kind::Thinking, Kind::Thinking));
        assert_eq!(compared(&text("x"), &thought("b")), Some(Difference::Blocks { stored: 1, sent: 2 }));
        let deep = |n: usize| call(&format!(r#"{{"x":{}{n}{}}}"#, "[".repeat(200), "]".repeat(200)));
        assert_eq!(compared(&deep(1), &deep(2)), block(0, Kind::ToolUse, Kind::ToolUse));
        assert_eq!(compared(&deep(1), &deep(1)), None);
        let passing = r#"{"role":"user","content":"x","clear_at":"never"}"#;
        assert_eq!(compared(user, passing), Some(Difference::Field));
    }
}
