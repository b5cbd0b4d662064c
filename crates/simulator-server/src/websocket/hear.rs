//! What clients say, in either dialect: JSON to what is asked for.

use super::Dialect;
use serde_json::{Map, Value, json};

/// The simple dialect's request where the client leaves it open.
const MODEL: &str = "claude-haiku-4-5";
const MAX_TOKENS: u64 = 1_024;

/// A message, read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    /// Begin an answer.
    Create(Box<Create>),
    /// End a stream.
    Cancel(String),
    /// A stream may send so many bytes more.
    Credit(String, i64),
    /// Go on with a stream, which nobody can here.
    Resume(String),
    /// It cannot be read: why.
    Bad(&'static str),
}

/// An answer that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Create {
    /// The client's name for it; none in the simple dialect.
    pub(super) id: Option<String>,
    /// The body of `POST /v1/messages`.
    pub(super) body: Value,
    /// Header lines that members stand for.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) credit: Option<i64>,
}

pub(super) fn hear(text: &str, dialect: Dialect) -> Heard {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return Heard::Bad("is no JSON object") };
    match dialect {
        Dialect::Streams => streams(&fields),
        Dialect::Simple { .. } => prompt(&fields),
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    fields.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn streams(fields: &Map<String, Value>) -> Heard {
    let known = |id: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
        (1..=64).contains(&id.len()) && id.chars().all(allowed)
    };
    let Some(id) = text(fields, "id").filter(|id| known(id)) else { return Heard::Bad("id: is none") };
    match fields.get("type").and_then(Value::as_str) {
        Some("message.create") => create(id, fields),
        Some("stream.cancel") => Heard::Cancel(id),
        Some("stream.resume") => Heard::Resume(id),
        Some("stream.credit") => match fields.get("bytes").and_then(Value::as_i64).filter(|bytes| *bytes >= 0) {
            Some(bytes) => Heard::Credit(id, bytes),
            None => Heard::Bad("bytes: is no number of bytes"),
        },
        _ => Heard::Bad("type: is not known"),
    }
}

fn create(id: String, fields: &Map<String, Value>) -> Heard {
    let Some(Value::Object(request)) = fields.get("request") else { return Heard::Bad("request: is no object") };
    let mut body = request.clone();
    body.insert("stream".to_owned(), json!(true));
    let mut headers = vec![("anthropic-version", text(fields, "version").unwrap_or_else(|| "2023-06-01".to_owned()))];
    let betas: Vec<&str> =
        fields.get("betas").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if !betas.is_empty() {
        headers.push(("anthropic-beta", betas.join(",")));
    }
    // No part of the dialect: how a test asks for one stream's faults.
    headers.extend(text(fields, "simulate").map(|directives| ("simulate", directives)));
    let credit = fields.get("credit").and_then(Value::as_i64);
    Heard::Create(Box::new(Create { id: Some(id), body: Value::Object(body), headers, credit }))
}

fn prompt(fields: &Map<String, Value>) -> Heard {
    let Some(prompt) = text(fields, "prompt") else { return Heard::Bad("prompt: is no text") };
    let mut body = json!({
        "model": text(fields, "model").unwrap_or_else(|| MODEL.to_owned()),
        "max_tokens": fields.get("max_tokens").and_then(Value::as_u64).unwrap_or(MAX_TOKENS),
        "messages": [{"role": "user", "content": prompt}], "stream": true,
    });
    if let Some(system) = text(fields, "system") {
        body["system"] = json!(system);
    }
    let headers = vec![("anthropic-version", "2023-06-01".to_owned())];
    Heard::Create(Box::new(Create { id: None, body, headers, credit: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_says_where() {
        let bad = |text: &str, dialect| match hear(text, dialect) {
            Heard::Bad(why) => why,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(bad("[]", Dialect::Streams), "is no JSON object");
        assert_eq!(bad(r#"{"type":"message.create","id":"a b"}"#, Dialect::Streams), "id: is none");
        assert_eq!(bad(r#"{"type":"message.create","id":"a"}"#, Dialect::Streams), "request: is no object");
        assert_eq!(
            bad(r#"{"type":"stream.credit","id":"a","bytes":-1}"#, Dialect::Streams),
            "bytes: is no number of bytes"
        );
        assert_eq!(bad(r#"{"type":"hello","id":"a"}"#, Dialect::Streams), "type: is not known");
        assert_eq!(bad(r#"{"text":"hello"}"#, Dialect::Simple { once: false }), "prompt: is no text");
    }

    #[test]
    fn a_prompt_is_a_request_with_defaults() {
        let Heard::Create(create) = hear(r#"{"prompt":"hi","system":"short"}"#, Dialect::Simple { once: true }) else {
            panic!()
        };
        assert_eq!(create.body["messages"], json!([{"role": "user", "content": "hi"}]));
        assert_eq!((&create.body["system"], &create.body["max_tokens"]), (&json!("short"), &json!(1_024)));
    }
}
