//! A message given again as the stream it could have come as.
//!
//! The inverse of `assemble`: what is made of these events is the message, field for field. Each
//! block comes whole: its start without what deltas carry, one delta for each of those, its end.
//! Values are moved as the bytes they are, however large their numbers and however deep they are.

use crate::raw::{Fields, RawObject};
use crate::sse;
use serde_json::value::{RawValue, to_raw_value};

/// The events of `message`, the JSON of an answer; `None` if it is none.
pub fn events(message: &[u8]) -> Option<Vec<u8>> {
    let object = RawObject::read(message).ok()?;
    let blocks: Vec<&RawValue> = object.parse("content")?;
    let mut begin = Fields::read(message).ok()?;
    begin.set("content", RawValue::from_string("[]".to_owned()).ok()?);
    let mut end = Fields::default();
    for key in ["stop_reason", "stop_sequence", "stop_details"] {
        if let Some(value) = object.get(key) {
            end.put(key, value);
            begin.put(key, &());
        }
    }
    let mut out = Vec::new();
    event(&mut out, "message_start", &[("message", &to_raw_value(&begin).ok()?)]);
    for (index, block) in blocks.into_iter().enumerate() {
        let (block, deltas) = split(block)?;
        let index = to_raw_value(&index).ok()?;
        event(&mut out, "content_block_start", &[("index", &index), ("content_block", &to_raw_value(&block).ok()?)]);
        for delta in deltas {
            event(&mut out, "content_block_delta", &[("index", &index), ("delta", &to_raw_value(&delta).ok()?)]);
        }
        event(&mut out, "content_block_stop", &[("index", &index)]);
    }
    let usage = RawValue::from_string(object.get("usage").map_or("{}", RawValue::get).to_owned()).ok()?;
    event(&mut out, "message_delta", &[("delta", &to_raw_value(&end).ok()?), ("usage", &usage)]);
    event(&mut out, "message_stop", &[]);
    Some(out)
}

/// Writes the event `name` with these fields.
fn event(out: &mut Vec<u8>, name: &str, fields: &[(&str, &RawValue)]) {
    let mut data = Fields::default();
    data.put("type", name);
    fields.iter().for_each(|(key, value)| data.put(key, value));
    // Texts and raw values: there is nothing that could not be written.
    sse::write(out, name, &serde_json::to_vec(&data).unwrap_or_default());
}

/// A block without what comes as deltas, and those.
fn split(block: &RawValue) -> Option<(Fields, Vec<Fields>)> {
    let object = RawObject::read(block.get().as_bytes()).ok()?;
    let mut begin = Fields::read(block.get().as_bytes()).ok()?;
    let mut deltas = Vec::new();
    let mut text = |key: &str, kind: &str| {
        if let Some(value) = object.get(key).filter(|value| value.get().starts_with('"') && value.get() != "\"\"") {
            begin.put(key, "");
            deltas.push(delta(kind, key, value));
        }
    };
    match object.parse::<String>("type").as_deref() {
        Some("text") => text("text", "text_delta"),
        Some("thinking") => {
            text("thinking", "thinking_delta");
            text("signature", "signature_delta");
        }
        Some("tool_use" | "server_tool_use" | "mcp_tool_use") => {
            if let Some(input) = object.get("input") {
                begin.set("input", RawValue::from_string("{}".to_owned()).ok()?);
                deltas.push(delta("input_json_delta", "partial_json", input.get()));
            }
        }
        _ => {}
    }
    Some((begin, deltas))
}

fn delta<T: serde::Serialize + ?Sized>(kind: &str, key: &str, value: &T) -> Fields {
    let mut delta = Fields::default();
    delta.put("type", kind);
    delta.put(key, value);
    delta
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assemble::Assembler;
    use crate::sse::Splitter;
    use serde_json::Value;

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
    fn numbers_and_depth_stay_as_they_are() {
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        let input =
            format!(r#"{{"order":123456789012345678901234567890,"price":0.10000000000000000001,"deep":{deep}}}"#);
        let message = format!(
            r#"{{"type":"message","content":[{{"type":"tool_use","id":"t","name":"f","input":{input}}}],"stop_reason":"tool_use"}}"#
        );
        let stream = String::from_utf8(events(message.as_bytes()).unwrap()).unwrap();
        assert!(stream.contains(&serde_json::to_string(&input).unwrap()), "{stream}");
    }

    #[test]
    fn what_is_no_message_has_no_events() {
        for text in ["", "[]", "{}", r#"{"content":1}"#, r#"{"content":["x"]}"#] {
            assert!(events(text.as_bytes()).is_none(), "{text}");
        }
    }
}
