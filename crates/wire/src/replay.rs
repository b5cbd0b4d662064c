//! A message given again as the stream it could have come as.
//!
//! The inverse of `assemble`: what is made of these events is the message, field for field. Each
//! block comes whole: its start without what deltas carry, one delta for each of those, its end.

use crate::sse;
use serde_json::{Map, Value, json};

/// The events of `message`, the JSON of an answer; `None` if it is none.
pub fn events(message: &[u8]) -> Option<Vec<u8>> {
    let Value::Object(mut message) = serde_json::from_slice(message).ok()? else { return None };
    let Some(Value::Array(blocks)) = message.insert("content".to_owned(), Value::Array(Vec::new())) else {
        return None;
    };
    let mut end = Map::new();
    for key in ["stop_reason", "stop_sequence", "stop_details"] {
        if let Some(value) = message.get_mut(key) {
            end.insert(key.to_owned(), value.take());
        }
    }
    let usage = message.get("usage").cloned().unwrap_or_else(|| json!({}));
    let mut out = Vec::new();
    let mut event = |name: &str, data: Value| sse::write(&mut out, name, data.to_string().as_bytes());
    event("message_start", json!({"type": "message_start", "message": message}));
    for (index, block) in blocks.into_iter().enumerate() {
        let Value::Object(mut block) = block else { return None };
        let deltas = deltas(&mut block);
        event("content_block_start", json!({"type": "content_block_start", "index": index, "content_block": block}));
        for delta in deltas {
            event("content_block_delta", json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        event("content_block_stop", json!({"type": "content_block_stop", "index": index}));
    }
    event("message_delta", json!({"type": "message_delta", "delta": end, "usage": usage}));
    event("message_stop", json!({"type": "message_stop"}));
    Some(out)
}

/// Takes out of a block what comes as deltas.
fn deltas(block: &mut Map<String, Value>) -> Vec<Value> {
    let mut deltas = Vec::new();
    let mut text = |block: &mut Map<String, Value>, key: &str, kind: &str| {
        if let Some(value) = block.get_mut(key).filter(|value| value.as_str().is_some_and(|text| !text.is_empty())) {
            let value = std::mem::replace(value, Value::String(String::new()));
            deltas
                .push(Value::Object(Map::from_iter([("type".to_owned(), Value::from(kind)), (key.to_owned(), value)])));
        }
    };
    match block.get("type").and_then(Value::as_str) {
        Some("text") => text(block, "text", "text_delta"),
        Some("thinking") => {
            text(block, "thinking", "thinking_delta");
            text(block, "signature", "signature_delta");
        }
        Some("tool_use" | "server_tool_use" | "mcp_tool_use") => {
            if let Some(input) = block.insert("input".to_owned(), json!({})) {
                deltas.push(json!({"type": "input_json_delta", "partial_json": input.to_string()}));
            }
        }
        _ => {}
    }
    deltas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assemble::Assembler;
    use crate::sse::Splitter;

    #[test]
    fn what_is_made_of_the_events_is_the_message() {
        let message = br#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"thinking","thinking":"hm","signature":"S="},{"type":"text","text":"a\n\u00e9","citations":[{"n":1}]},{"type":"tool_use","id":"t","name":"f","input":{"x":1.5,"y":[]}},{"type":"web_search_tool_result","tool_use_id":"s","content":[{"u":1}]},{"type":"text","text":"","citations":null}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":12,"output_tokens":5,"service_tier":"standard"}}"#;
        let stream = events(message).unwrap();
        let (mut assembler, mut names) = (Assembler::new(), Vec::new());
        Splitter::new()
            .feed(&stream, |event| {
                names.push(sse::parts(event).name.to_vec());
                assembler.add(event).unwrap();
            })
            .unwrap();
        let again: Value = serde_json::from_slice(&assembler.finish().unwrap()).unwrap();
        assert_eq!(again, serde_json::from_slice::<Value>(message).unwrap());
        assert_eq!(names.last().unwrap(), b"message_stop");
    }

    #[test]
    fn what_is_no_message_has_no_events() {
        for text in ["", "[]", "{}", r#"{"content":1}"#, r#"{"content":["x"]}"#] {
            assert!(events(text.as_bytes()).is_none(), "{text}");
        }
    }
}
