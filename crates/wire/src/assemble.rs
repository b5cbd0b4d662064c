//! A stream put together into the JSON answer the API would have given (protocol page, section 2).
//!
//! For a client that did not ask for a stream. Fields are kept raw, so whatever the API adds to a
//! message or a block is in the answer, number for number. The rule: `message_start` is the frame;
//! a block begins with its start event; `text`, `thinking` and `partial_json` deltas are appended,
//! a signature replaces, a citation is added; `message_delta` overwrites fields and, number by
//! number, usage.

use crate::raw::{Fields, RawObject};
use crate::sse;
use serde_json::value::RawValue;
use std::fmt;

/// The stream is not one an answer can be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unassemblable(pub &'static str);

impl fmt::Display for Unassemblable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unassemblable {}

#[derive(Debug, Default)]
struct Block {
    fields: Fields,
    text: String,
    thinking: String,
    partial_json: String,
    citations: Vec<Box<RawValue>>,
    /// Whether its stop event came.
    ended: bool,
}

/// Puts one answer together.
#[derive(Debug, Default)]
pub struct Assembler {
    message: Option<Fields>,
    blocks: Vec<Block>,
    bytes: usize,
}

impl Assembler {
    /// Nothing yet.
    pub fn new() -> Self {
        Assembler::default()
    }

    /// Bytes held so far, for the budget.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in one whole event.
    pub fn add(&mut self, event: &[u8]) -> Result<(), Unassemblable> {
        let parts = sse::parts(event);
        let Some(data) = parts.data else { return Ok(()) };
        let object = RawObject::read(&data).map_err(|_| Unassemblable("an event is not valid JSON"))?;
        let name = object.parse::<String>("type").unwrap_or_default();
        match name.as_str() {
            "message_start" => {
                let message = object.get("message").ok_or(Unassemblable("message_start has no message"))?;
                let fields = Fields::read(message.get().as_bytes());
                self.message = Some(fields.map_err(|_| Unassemblable("message_start has no message object"))?);
                self.bytes += data.len();
            }
            "content_block_start" => {
                let index: usize = object.parse("index").ok_or(Unassemblable("a block has no index"))?;
                if index != self.blocks.len() {
                    return Err(Unassemblable("blocks are out of order"));
                }
                let start = object.get("content_block").ok_or(Unassemblable("a block has no content_block"))?;
                let fields =
                    Fields::read(start.get().as_bytes()).map_err(|_| Unassemblable("a block is not an object"))?;
                self.blocks.push(Block::begin(fields));
                self.bytes += data.len();
            }
            "content_block_delta" => {
                let index: usize = object.parse("index").ok_or(Unassemblable("a delta has no index"))?;
                let block =
                    self.blocks.get_mut(index).ok_or(Unassemblable("a delta for a block that did not begin"))?;
                let delta: RawObject<'_> = object.parse("delta").ok_or(Unassemblable("a delta is not an object"))?;
                block.add(&delta)?;
                self.bytes += data.len();
            }
            "content_block_stop" => {
                let index: usize = object.parse("index").ok_or(Unassemblable("a block's end has no index"))?;
                if let Some(block) = self.blocks.get_mut(index) {
                    block.ended = true;
                }
            }
            "message_delta" => {
                self.message_delta(&object)?;
                self.bytes += data.len();
            }
            _ => {}
        }
        Ok(())
    }

    fn message_delta(&mut self, object: &RawObject<'_>) -> Result<(), Unassemblable> {
        let message = self.message.as_mut().ok_or(Unassemblable("message_delta before message_start"))?;
        for (key, value) in object.iter() {
            match key {
                "type" => {}
                "delta" => {
                    let delta = RawObject::read(value.get().as_bytes())
                        .map_err(|_| Unassemblable("message_delta has no delta object"))?;
                    for (key, value) in delta.iter() {
                        message.set(key, value.to_owned());
                    }
                }
                "usage" => {
                    let mut usage =
                        message.get("usage").and_then(|u| Fields::read(u.get().as_bytes()).ok()).unwrap_or_default();
                    let update =
                        RawObject::read(value.get().as_bytes()).map_err(|_| Unassemblable("usage is not an object"))?;
                    // Null is no number: it overwrites none, though the field is there.
                    for (key, value) in update.iter() {
                        if value.get() != "null" || usage.get(key).is_none() {
                            usage.set(key, value.to_owned());
                        }
                    }
                    message.put("usage", &usage);
                }
                _ => message.set(key, value.to_owned()),
            }
        }
        Ok(())
    }

    /// The answer. Call it after `message_stop`.
    pub fn finish(self) -> Result<Vec<u8>, Unassemblable> {
        let blocks = self.blocks;
        write(self.message, blocks)
    }

    /// What there is of an answer that broke off, as far as it can be sent again: whole blocks, and
    /// a text as far as it came. Calls of tools are left out, the client's because nobody will have
    /// run them, the server's if their result is missing; so is thinking that nothing follows.
    /// `None` if nothing is left.
    pub fn finish_broken(self) -> Option<Vec<u8>> {
        let kind = |block: &Block| block.fields.get("type").map(|t| t.get().trim_matches('"').to_owned());
        let ended = self.blocks.iter().filter(|block| block.ended);
        let answered: Vec<String> = ended.filter_map(|block| block.string("tool_use_id")).collect();
        let mut blocks: Vec<Block> = self.blocks;
        blocks.retain(|block| match kind(block).as_deref() {
            Some("text") => !block.text.trim().is_empty(),
            Some("tool_use") => false,
            Some("server_tool_use" | "mcp_tool_use") => block.string("id").is_some_and(|id| answered.contains(&id)),
            _ => block.ended,
        });
        let thinks = |block: &Block| matches!(kind(block).as_deref(), Some("thinking" | "redacted_thinking"));
        while blocks.last().is_some_and(thinks) {
            blocks.pop();
        }
        if blocks.is_empty() { None } else { write(self.message, blocks).ok() }
    }
}

fn write(message: Option<Fields>, blocks: Vec<Block>) -> Result<Vec<u8>, Unassemblable> {
    let mut message = message.ok_or(Unassemblable("the stream had no message_start"))?;
    let blocks: Result<Vec<Fields>, _> = blocks.into_iter().map(Block::end).collect();
    message.put("content", &blocks?);
    serde_json::to_vec(&message).map_err(|_| Unassemblable("the answer could not be written"))
}

fn string(object: &RawObject<'_>, key: &str) -> Result<String, Unassemblable> {
    object.parse(key).ok_or(Unassemblable("a delta lacks its field"))
}

impl Block {
    fn begin(fields: Fields) -> Self {
        let text = |key: &str| fields.get(key).and_then(|v| serde_json::from_str(v.get()).ok()).unwrap_or_default();
        let citations = fields.get("citations").and_then(|v| serde_json::from_str(v.get()).ok()).unwrap_or_default();
        Block {
            text: text("text"),
            thinking: text("thinking"),
            partial_json: String::new(),
            citations,
            fields,
            ended: false,
        }
    }

    fn string(&self, key: &str) -> Option<String> {
        self.fields.get(key).and_then(|value| serde_json::from_str(value.get()).ok())
    }

    fn add(&mut self, delta: &RawObject<'_>) -> Result<(), Unassemblable> {
        match string(delta, "type")?.as_str() {
            "text_delta" => self.text.push_str(&string(delta, "text")?),
            "thinking_delta" => self.thinking.push_str(&string(delta, "thinking")?),
            "input_json_delta" => self.partial_json.push_str(&string(delta, "partial_json")?),
            "signature_delta" => {
                let signature = delta.get("signature").ok_or(Unassemblable("a delta lacks its field"))?;
                self.fields.set("signature", signature.to_owned());
            }
            "citations_delta" => {
                let citation = delta.get("citation").ok_or(Unassemblable("a delta lacks its field"))?;
                self.citations.push(citation.to_owned());
            }
            // A delta newer than this code: its fields replace the block's, as compaction_delta's do.
            _ => {
                for (key, value) in delta.iter().filter(|(key, _)| *key != "type") {
                    self.fields.set(key, value.to_owned());
                }
            }
        }
        Ok(())
    }

    fn end(mut self) -> Result<Fields, Unassemblable> {
        if self.fields.get("text").is_some() || !self.text.is_empty() {
            self.fields.put("text", &self.text);
        }
        if self.fields.get("thinking").is_some() || !self.thinking.is_empty() {
            self.fields.put("thinking", &self.thinking);
        }
        if !self.citations.is_empty() {
            self.fields.put("citations", &self.citations);
        } else if self.fields.get("type").is_some_and(|t| t.get() == "\"text\"")
            && self.fields.get("citations").is_none()
        {
            // The API's buffered answer says null where its stream says nothing.
            self.fields.put("citations", &());
        }
        if !self.partial_json.is_empty() {
            let input = RawValue::from_string(self.partial_json)
                .map_err(|_| Unassemblable("a tool's input is not valid JSON"))?;
            self.fields.set("input", input);
        }
        Ok(self.fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(datas: &[&str]) -> Result<String, Unassemblable> {
        let mut assembler = Assembler::new();
        for data in datas {
            let mut event = Vec::new();
            sse::write(&mut event, "x", data.as_bytes());
            assembler.add(&event)?;
        }
        assembler.finish().map(|v| String::from_utf8(v).expect("text"))
    }

    const START: &str = r#"{"type":"message_start","message":{"id":"m","content":[],"new":1.50,"stop_reason":null,"usage":{"input_tokens":12,"output_tokens":1,"service_tier":"standard"}}}"#;
    const DELTA: &str = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_details":null},"usage":{"output_tokens":5,"input_tokens":null},"context_management":{"applied_edits":[]}}"#;

    #[test]
    fn every_kind_of_block_is_put_together() {
        let answer = check(&[
            START,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"S="}}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":"","citations":null,"added":true}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"a\n"}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"citations_delta","citation":{"n":1}}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"é"}}"#,
            r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}"#,
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"x\": 1."}}"#,
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"0}"}}"#,
            r#"{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"u","name":"g","input":{}}}"#,
            DELTA,
            r#"{"type":"message_stop"}"#,
        ]);
        let want = concat!(
            r#"{"id":"m","content":[{"type":"thinking","thinking":"hm","signature":"S="},"#,
            r#"{"type":"text","text":"a\né","citations":[{"n":1}],"added":true},"#,
            r#"{"type":"tool_use","id":"t","name":"f","input":{"x": 1.0}},"#,
            r#"{"type":"tool_use","id":"u","name":"g","input":{}}],"new":1.50,"stop_reason":"end_turn","#,
            r#""usage":{"input_tokens":12,"output_tokens":5,"service_tier":"standard"},"stop_details":null,"context_management":{"applied_edits":[]}}"#
        );
        assert_eq!(answer.as_deref(), Ok(want));
    }

    fn broken(datas: &[&str]) -> Option<String> {
        let mut assembler = Assembler::new();
        for data in datas {
            let mut event = Vec::new();
            sse::write(&mut event, "x", data.as_bytes());
            assembler.add(&event).unwrap();
        }
        assembler.finish_broken().map(|v| String::from_utf8(v).expect("text"))
    }

    #[test]
    fn of_an_answer_that_broke_off_only_what_can_be_sent_again_is_left() {
        let think = r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"hm","signature":"S"}}"#;
        let stop0 = r#"{"type":"content_block_stop","index":0}"#;
        let text = r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#;
        let half = r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"half an"}}"#;
        let stop1 = r#"{"type":"content_block_stop","index":1}"#;
        let tool = r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#;
        let json =
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"x"}}"#;
        assert_eq!(broken(&[START]), None);
        assert_eq!(broken(&[START, think, stop0]), None);
        assert_eq!(broken(&[START, think, stop0, text]), None);
        let kept = broken(&[START, think, stop0, text, half, stop1, tool, json]).unwrap();
        assert!(kept.contains(r#""content":[{"type":"thinking","thinking":"hm","signature":"S"},{"type":"text","text":"half an","citations":null}]"#), "{kept}");
        let unsigned = broken(&[START, think, text, half]).unwrap();
        assert!(!unsigned.contains("thinking"), "{unsigned}");
    }

    #[test]
    fn null_in_the_totals_is_a_field_but_overwrites_no_number() {
        let delta = r#"{"type":"message_delta","delta":{},"usage":{"input_tokens":null,"server_tool_use":null}}"#;
        let answer = check(&[START, delta, r#"{"type":"message_stop"}"#]).unwrap();
        let usage = r#""usage":{"input_tokens":12,"output_tokens":1,"service_tier":"standard","server_tool_use":null}"#;
        assert!(answer.contains(usage), "{answer}");
    }

    #[test]
    fn whatever_is_kept_is_counted() {
        let mut assembler = Assembler::new();
        let mut before = 0;
        for data in [START, DELTA, r#"{"type":"message_delta","delta":{"new":"field"}}"#] {
            let mut event = Vec::new();
            sse::write(&mut event, "x", data.as_bytes());
            assembler.add(&event).unwrap();
            assert!(assembler.bytes() > before, "{data}");
            before = assembler.bytes();
        }
    }

    #[test]
    fn a_stream_that_makes_no_sense_is_refused_with_a_reason() {
        assert_eq!(check(&[DELTA]), Err(Unassemblable("message_delta before message_start")));
        assert_eq!(check(&[]), Err(Unassemblable("the stream had no message_start")));
        let orphan = r#"{"type":"content_block_delta","index":4,"delta":{"type":"text_delta","text":"x"}}"#;
        assert_eq!(check(&[START, orphan]), Err(Unassemblable("a delta for a block that did not begin")));
        let tool = r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","input":{}}}"#;
        let half =
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"x"}}"#;
        assert_eq!(check(&[START, tool, half]), Err(Unassemblable("a tool's input is not valid JSON")));
    }
}
