//! An answer as JSON: the whole message of a buffered response, and the parts that begin and end a
//! stream.
//!
//! Key order is the API's. `usage` is the same object everywhere; in a stream `message_start` has
//! the parts that are known before the first token and `message_delta` the totals, and a reader who
//! lays the second over the first has the buffered one.

use super::{Block, Reply};
use serde_json::{Map, Value, json};

fn empty_message(reply: &Reply) -> Map<String, Value> {
    let message = json!({
        "id": reply.id, "type": "message", "role": "assistant", "model": reply.model, "content": [],
        "stop_reason": null, "stop_sequence": null, "stop_details": null, "container": null, "diagnostics": null,
    });
    match message {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// `stop_details`: what the API says of a refusal.
pub(crate) fn stop_details(reply: &Reply) -> Value {
    match reply.stop_reason {
        "refusal" => {
            json!({"type": "refusal", "category": "general_harms", "explanation": "The simulator was asked to refuse."})
        }
        _ => Value::Null,
    }
}

fn start_usage(reply: &Reply, output_tokens: u64) -> Value {
    json!({
        "input_tokens": reply.input_tokens, "cache_creation_input_tokens": reply.cache_5m_tokens + reply.cache_1h_tokens,
        "cache_read_input_tokens": reply.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": reply.cache_5m_tokens, "ephemeral_1h_input_tokens": reply.cache_1h_tokens},
        "output_tokens": output_tokens, "service_tier": "standard", "inference_geo": "global", "speed": "standard",
    })
}

/// The totals, as `message_delta` has them.
pub(crate) fn final_usage(reply: &Reply) -> Value {
    json!({
        "input_tokens": reply.input_tokens, "cache_creation_input_tokens": reply.cache_5m_tokens + reply.cache_1h_tokens,
        "cache_read_input_tokens": reply.cache_read_tokens,
        "output_tokens": reply.output_tokens, "output_tokens_details": {"thinking_tokens": reply.thinking_tokens},
        "server_tool_use": null,
    })
}

/// The message of `message_start`.
pub(crate) fn opening(reply: &Reply) -> Value {
    let mut message = empty_message(reply);
    message.insert("usage".to_owned(), start_usage(reply, reply.output_tokens.min(1)));
    Value::Object(message)
}

/// The message of a buffered response.
pub(crate) fn whole(reply: &Reply) -> Value {
    let mut message = empty_message(reply);
    message.insert("content".to_owned(), reply.blocks.iter().map(block).collect());
    message.insert("stop_reason".to_owned(), json!(reply.stop_reason));
    message.insert("stop_sequence".to_owned(), json!(reply.stop_sequence));
    message.insert("stop_details".to_owned(), stop_details(reply));
    let mut usage = start_usage(reply, reply.output_tokens);
    usage["output_tokens_details"] = json!({"thinking_tokens": reply.thinking_tokens});
    usage["server_tool_use"] = Value::Null;
    message.insert("usage".to_owned(), usage);
    Value::Object(message)
}

fn block(block: &Block) -> Value {
    match block {
        Block::Thinking { text, signature, .. } => {
            json!({"type": "thinking", "thinking": text, "signature": signature})
        }
        Block::Text(text) => json!({"type": "text", "text": text, "citations": null}),
        Block::ToolUse { id, name, input } => {
            let input: Value = serde_json::from_str(input).unwrap_or_else(|_| json!({}));
            json!({"type": "tool_use", "id": id, "name": name, "input": input})
        }
    }
}
