//! What these doors answer, as JSON: a conversation, a turn.
//!
//! A turn's messages are put in as the bytes they are stored as.

use serde::Serialize;
use tidegate_base::rfc3339;
use tidegate_store::{Conversation, Status, Turn};

#[derive(Serialize)]
struct ConversationShape<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    created_at: String,
    updated_at: String,
    turns: u32,
    bytes: u64,
    forked_from: Option<Parent<'a>>,
}

#[derive(Serialize)]
struct Parent<'a> {
    id: &'a str,
    turn: u32,
}

#[derive(Serialize)]
struct TurnShape<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    number: u32,
    status: &'static str,
    created_at: String,
    request_id: Option<&'a str>,
    user_id: Option<&'a str>,
    model: Option<&'a str>,
    stop_reason: Option<&'a str>,
    usage: UsageShape,
}

#[derive(Serialize)]
struct UsageShape {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

/// JSON of what is told of; all of it can be written.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// Puts a member at the end of the object that `out` is; `value` is JSON.
pub(super) fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    debug_assert!(out.last() == Some(&b'}') && out.len() > 2, "an object with members");
    out.pop();
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(value);
    out.push(b'}');
}

/// A page: `items`, whether there are more, and under `next` where they begin.
pub(super) fn page(items: &[Vec<u8>], next_name: &str, next: Option<&impl Serialize>) -> Vec<u8> {
    let mut out = [b"{\"data\":[", items.join(&b","[..]).as_slice(), b"]}"].concat();
    put(&mut out, "has_more", if next.is_some() { b"true" } else { b"false" });
    put(&mut out, next_name, &json(&next));
    out
}

/// A conversation.
pub(super) fn conversation(of: &Conversation) -> Vec<u8> {
    json(&ConversationShape {
        id: &of.name,
        kind: "conversation",
        created_at: rfc3339(of.created_ms / 1000),
        updated_at: rfc3339(of.updated_ms / 1000),
        turns: of.turns,
        bytes: of.bytes,
        forked_from: of.parent.as_ref().map(|(id, turn)| Parent { id, turn: *turn }),
    })
}

/// A turn.
pub(super) fn turn(of: &Turn) -> Vec<u8> {
    let (content, tokens) = (&of.content, &of.content.tokens);
    let mut out = json(&TurnShape {
        kind: "turn",
        number: of.number,
        status: match content.status {
            Status::Complete => "complete",
            Status::Interrupted => "interrupted",
            Status::Appended => "appended",
        },
        created_at: rfc3339(of.created_ms / 1000),
        request_id: content.request_id.as_deref(),
        user_id: content.end_user.as_deref(),
        model: content.model.as_deref(),
        stop_reason: content.stop_reason.as_deref(),
        usage: UsageShape {
            input_tokens: tokens.input,
            output_tokens: tokens.output,
            cache_creation_input_tokens: tokens.cache_creation,
            cache_read_input_tokens: tokens.cache_read,
        },
    });
    put(&mut out, "messages", &content.request);
    put(&mut out, "answer", content.answer.as_deref().unwrap_or(b"null"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use tidegate_store::TurnContent;

    #[test]
    fn shapes_are_json_and_messages_stay_as_they_are() {
        let mut content = TurnContent::appended(b"[ {\"b\":1.50,\"a\":\"\\u00e9\"}]".to_vec());
        content.end_user = Some("u\"1".to_owned());
        let bytes = turn(&Turn { number: 3, created_ms: 1_795_379_640_999, content });
        assert!(memchr::memmem::find(&bytes, b"[ {\"b\":1.50,\"a\":\"\\u00e9\"}]").is_some());
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&value["number"], &value["status"]), (&json!(3), &json!("appended")));
        assert_eq!((&value["created_at"], &value["user_id"]), (&json!("2026-11-22T20:34:00Z"), &json!("u\"1")));
        assert_eq!((&value["answer"], &value["usage"]["input_tokens"]), (&Value::Null, &Value::Null));
        let value: Value = serde_json::from_slice(&page(&[bytes.clone(), bytes], "next_from", Some(&5))).unwrap();
        assert_eq!((value["data"].as_array().unwrap().len(), &value["has_more"]), (2, &json!(true)));
        assert_eq!(value["next_from"], json!(5));
        let none: Value = serde_json::from_slice(&page(&[], "next_page", None::<&String>)).unwrap();
        assert_eq!(none, json!({"data": [], "has_more": false, "next_page": null}));
    }
}
