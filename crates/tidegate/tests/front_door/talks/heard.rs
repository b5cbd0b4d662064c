//! An answer as an SDK puts it together from its events, and as much of one that broke off as the
//! rule keeps. Written from the API's documentation and the format's page, apart from the gateway.

use serde_json::{Map, Value, json};

/// What came of an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    message: Option<Value>,
    blocks: Vec<Block>,
    /// Whether `message_stop` came.
    pub(super) ended: bool,
    /// The `error` event, if one came.
    pub(super) error: Option<Value>,
    /// How many there were.
    pub(super) events: usize,
    /// Bytes of the body that were read.
    read: usize,
}

#[derive(Clone, Debug)]
struct Block {
    value: Value,
    input: String,
    ended: bool,
}

impl Heard {
    /// Takes in the whole events of a body that are new since the last time.
    pub(super) fn read(&mut self, body: &[u8]) {
        while let Some(at) = body[self.read..].windows(2).position(|two| two == b"\n\n") {
            let event = std::str::from_utf8(&body[self.read..self.read + at]).expect("whole characters");
            self.read += at + 2;
            self.events += 1;
            if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data:")) {
                self.add(&serde_json::from_str(data.trim()).expect("an event's JSON"));
            }
        }
    }

    fn add(&mut self, event: &Value) {
        let index = event["index"].as_u64().unwrap_or(0) as usize;
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => self.message = Some(event["message"].clone()),
            "content_block_start" => {
                assert_eq!(index, self.blocks.len(), "blocks come in order");
                self.blocks.push(Block { value: event["content_block"].clone(), input: String::new(), ended: false });
            }
            "content_block_delta" => self.blocks[index].add(&event["delta"]),
            "content_block_stop" => self.blocks[index].end(),
            "message_delta" => {
                let message = self.message.as_mut().and_then(Value::as_object_mut).expect("a message");
                merge(message, &event["delta"]);
                merge(message["usage"].as_object_mut().expect("usage"), &event["usage"]);
            }
            "message_stop" => self.ended = true,
            "error" => self.error = Some(event.clone()),
            _ => {}
        }
    }

    /// The message, once it is whole.
    pub(super) fn message(&self) -> Option<Value> {
        let mut message = self.message.clone().filter(|_| self.ended)?;
        message["content"] = self.blocks.iter().map(|block| block.value.clone()).collect();
        Some(message)
    }

    /// What the rule keeps of an answer that ended here: texts as far as they came, blocks that are
    /// whole, no call that nobody answers, no thinking at the end. Empty if nothing is kept.
    pub(super) fn rest(&self) -> Vec<Value> {
        let kind = |block: &&Block| block.value["type"].as_str().unwrap_or_default().to_owned();
        let stays = |block: &&Block| match kind(block).as_str() {
            "text" => block.value["text"].as_str().is_some_and(|text| !text.trim().is_empty()),
            "tool_use" => false,
            _ => block.ended,
        };
        let mut blocks: Vec<&Block> = self.blocks.iter().filter(stays).collect();
        while blocks.last().is_some_and(|block| kind(block).contains("thinking")) {
            blocks.pop();
        }
        blocks.iter().map(|block| block.value.clone()).collect()
    }

    /// All text that came.
    pub(super) fn text(&self) -> String {
        self.blocks.iter().filter_map(|block| block.value["text"].as_str()).collect()
    }
}

impl Block {
    fn add(&mut self, delta: &Value) {
        let (from, to) = match delta["type"].as_str().unwrap_or_default() {
            "text_delta" => ("text", "text"),
            "thinking_delta" => ("thinking", "thinking"),
            "signature_delta" => {
                self.value["signature"] = delta["signature"].clone();
                return;
            }
            "input_json_delta" => {
                self.input.push_str(delta["partial_json"].as_str().expect("a string"));
                return;
            }
            other => panic!("the simulator sends no {other}"),
        };
        let more = delta[from].as_str().expect("a string");
        let so_far = self.value[to].as_str().unwrap_or_default();
        self.value[to] = json!(format!("{so_far}{more}"));
    }

    fn end(&mut self) {
        self.ended = true;
        if !self.input.is_empty() {
            self.value["input"] = serde_json::from_str(&self.input).expect("a tool's input");
        }
    }
}

fn merge(into: &mut Map<String, Value>, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        if !value.is_null() || !into.contains_key(key) {
            into.insert(key.clone(), value.clone());
        }
    }
}

/// A message without the fields that are null in it: an answer that was put together may spell out
/// what the stream left unsaid.
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Array(all) => all.iter().map(without_nulls).collect(),
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}
