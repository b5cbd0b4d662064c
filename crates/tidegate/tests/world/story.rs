//! What a stream told: its events, and the message put together from them.
//!
//! A reader of its own, as strict as an SDK: names and order of events, one start, one end, blocks
//! opened before they are filled. Texts are simply joined.

use serde_json::{Map, Value};

/// One block, as far as it was told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) kind: String,
    /// Text, thinking or the JSON text of a tool's input.
    pub(crate) text: String,
    pub(crate) signature: String,
    pub(crate) name: String,
    pub(crate) stopped: bool,
}

/// A stream as it was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    /// The `message` of `message_start`.
    pub(crate) start: Option<Value>,
    pub(crate) blocks: Vec<Told>,
    pub(crate) stop_reason: Option<String>,
    /// `message_start`'s usage with `message_delta`'s laid over it.
    pub(crate) usage: Value,
    /// The envelope of the `error` event that ended it.
    pub(crate) error: Option<Value>,
    /// `message_stop` ended it.
    pub(crate) stopped: bool,
    /// Where in the body the first content event ended.
    pub(crate) content_from: Option<usize>,
    /// Where in the body each event ended that shows progress of the model.
    pub(crate) progress: Vec<usize>,
    /// Bytes after the last whole event.
    pub(crate) rest: usize,
}

impl Story {
    /// Reads a body; an error says which rule of the grammar it broke.
    pub(crate) fn read(body: &[u8]) -> Result<Story, String> {
        let mut story = Story::default();
        let mut from = 0;
        while let Some(len) = body[from..].windows(2).position(|pair| pair == b"\n\n") {
            let event =
                std::str::from_utf8(&body[from..from + len]).map_err(|e| format!("an event is not text: {e}"))?;
            from += len + 2;
            story.event(event, from).map_err(|why| format!("{why}, at `{event}`"))?;
        }
        story.rest = body.len() - from;
        Ok(story)
    }

    pub(crate) fn message_id(&self) -> Option<&str> {
        self.start.as_ref()?["id"].as_str()
    }

    /// Bytes of text, thinking and input.
    pub(crate) fn content_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.text.len() as u64).sum()
    }

    pub(crate) fn ended(&self) -> bool {
        self.stopped || self.error.is_some()
    }

    fn event(&mut self, event: &str, end: usize) -> Result<(), String> {
        if event.starts_with(':') && !event.contains('\n') {
            return Ok(());
        }
        let (name, data) = event
            .strip_prefix("event: ")
            .and_then(|e| e.split_once("\ndata: "))
            .ok_or("an event is not a name and one line of data")?;
        if self.ended() {
            return Err("an event after the last one".to_owned());
        }
        let data: Value = serde_json::from_str(data).map_err(|e| format!("an event's data is not JSON: {e}"))?;
        if data["type"] != name {
            return Err("an event's name is not its type".to_owned());
        }
        if name != "ping" {
            self.progress.push(end);
        }
        if self.take(&data)? {
            self.content_from.get_or_insert(end);
        }
        Ok(())
    }

    /// Takes one event in; whether it is content.
    pub(crate) fn take(&mut self, data: &Value) -> Result<bool, String> {
        if self.ended() {
            return Err("an event after the last one".to_owned());
        }
        let begun = self.start.is_some();
        match data["type"].as_str().unwrap_or_default() {
            "ping" => return Ok(false),
            "error" => {
                self.error = Some(data.clone());
                return Ok(false);
            }
            "message_start" if begun => return Err("a second message_start".to_owned()),
            "message_start" => {
                self.usage = data["message"]["usage"].clone();
                self.start = Some(data["message"].clone());
                return Ok(false);
            }
            // A type that no client knows yet may be anywhere, and every client passes over it.
            "content_block_glimmer" => {}
            _ if !begun => return Err("an event before message_start".to_owned()),
            "content_block_start" => self.block_start(data)?,
            "content_block_delta" => self.delta(data)?,
            "content_block_stop" => self.block(data)?.stopped = true,
            "message_delta" => self.message_delta(data),
            "message_stop" => self.stopped = true,
            other => return Err(format!("an event called {other}")),
        }
        Ok(true)
    }

    fn block_start(&mut self, data: &Value) -> Result<(), String> {
        let index = data["index"].as_u64().ok_or("a block without an index")? as usize;
        let text = |key: &str| data["content_block"][key].as_str().unwrap_or_default().to_owned();
        let told = Told { kind: text("type"), name: text("name"), ..Told::default() };
        // A doubled start says nothing new while the block is empty.
        let doubled = index + 1 == self.blocks.len() && self.blocks.last().is_some_and(|b| b.text.is_empty());
        match doubled {
            true => Ok(()),
            false if index == self.blocks.len() => {
                self.blocks.push(told);
                Ok(())
            }
            false => Err(format!("block {index} begins after {} blocks", self.blocks.len())),
        }
    }

    fn block(&mut self, data: &Value) -> Result<&mut Told, String> {
        let index = data["index"].as_u64().ok_or("no index")? as usize;
        self.blocks.get_mut(index).ok_or_else(|| format!("block {index} has not begun"))
    }

    fn delta(&mut self, data: &Value) -> Result<(), String> {
        let delta = &data["delta"];
        let block = self.block(data)?;
        let mut add = |key: &str| -> Result<(), String> {
            block.text += delta[key].as_str().ok_or("a delta lacks its field")?;
            Ok(())
        };
        match delta["type"].as_str() {
            Some("text_delta") => add("text"),
            Some("thinking_delta") => add("thinking"),
            Some("input_json_delta") => add("partial_json"),
            Some("signature_delta") => {
                block.signature = delta["signature"].as_str().ok_or("a signature is no text")?.to_owned();
                Ok(())
            }
            other => Err(format!("a delta of type {other:?}")),
        }
    }

    fn message_delta(&mut self, data: &Value) {
        if let Some(reason) = data["delta"]["stop_reason"].as_str() {
            self.stop_reason = Some(reason.to_owned());
        }
        let mut usage = self.usage.as_object().cloned().unwrap_or_else(Map::new);
        if let Some(totals) = data["usage"].as_object() {
            usage.extend(totals.clone());
        }
        self.usage = Value::Object(usage);
    }
}
