//! A prompt as a line of blocks, each with the hash and the tokens of everything up to its end.
//!
//! Order: tools, system, messages. The hash is over the canonical JSON of each block (key order as it
//! came, no white space) without its `cache_control`, so that a mark may move from turn to turn. It
//! begins with the scope. Before the system prompt it takes in `speed` and whether citations are
//! asked for, before the messages `tool_choice`, `thinking` and whether there are images, so that a
//! change in one of them parts what comes after it, as the API has it.
//!
//! The tokens are those of `tokens.rs`: those of the last block are the whole prompt's.

use super::{Scope, Ttl};
use crate::tokens::{self, Tokenizer};
use serde_json::{Value, json};

/// A place where a prefix can end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Of everything up to here.
    pub(super) hash: u64,
    /// Of everything up to here.
    pub(super) tokens: u64,
    pub(super) mark: Option<Ttl>,
}

/// The blocks of a prompt.
#[derive(Debug)]
pub(super) struct Prefix {
    pub(super) blocks: Vec<Block>,
    hash: u64,
    tokens: u64,
}

/// Whether a body asks for caching at all; most do not, and need not be hashed.
pub(super) fn is_marked(body: &Value) -> bool {
    match body {
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            (key == "cache_control" && !value.is_null())
                || (!matches!(key.as_str(), "input" | "input_schema") && is_marked(value))
        }),
        Value::Array(items) => items.iter().any(is_marked),
        _ => false,
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn ttl(control: &Value) -> Option<Ttl> {
    let hour = control.get("ttl").and_then(Value::as_str) == Some("1h");
    control.is_object().then_some(if hour { Ttl::Hour } else { Ttl::FiveMinutes })
}

/// The mark of a block, or of something inside it (text in a tool's result).
fn mark(block: &Value) -> Option<Ttl> {
    let own = block.get("cache_control").and_then(ttl);
    own.or_else(|| items(block.get("content")).iter().rev().find_map(mark))
}

/// Whether an automatic mark may stand on this block.
fn cacheable(block: &Value) -> bool {
    let kind = block.get("type").and_then(Value::as_str);
    !matches!(kind, Some("thinking" | "redacted_thinking")) && block.get("text").and_then(Value::as_str) != Some("")
}

impl Prefix {
    pub(super) fn of(scope: Scope<'_>, body: &Value, tokenizer: Tokenizer) -> Self {
        let mut prefix = Prefix { blocks: Vec::new(), hash: 0xcbf2_9ce4_8422_2325, tokens: 0 };
        prefix.eat_parts(&[scope.organisation, scope.workspace.unwrap_or(""), scope.model]);
        let messages = items(body.get("messages"));
        for tool in items(body.get("tools")) {
            prefix.block(tool, tokens::of_tool(tokenizer, tool), mark(tool));
        }
        let field = |name: &str| body.get(name).map_or_else(String::new, Value::to_string);
        prefix.eat_parts(&["system", &field("speed"), if cites(messages) { "citations" } else { "" }]);
        if let Some(system) = body.get("system") {
            prefix.tokens += tokens::OF_SYSTEM;
            prefix.content(system, tokenizer);
        }
        let images = if shows(messages) { "images" } else { "" };
        prefix.eat_parts(&["messages", &field("tool_choice"), &field("thinking"), images]);
        for message in messages {
            prefix.eat_parts(&["message", message.get("role").and_then(Value::as_str).unwrap_or("")]);
            prefix.tokens += tokens::OF_MESSAGE;
            if let Some(content) = message.get("content") {
                prefix.content(content, tokenizer);
            }
        }
        prefix.automatic(body);
        prefix
    }

    fn content(&mut self, content: &Value, tokenizer: Tokenizer) {
        match content {
            // A string is the same as one block of text.
            Value::String(text) => {
                self.block(&json!({"type": "text", "text": text}), tokenizer.count(text), None);
            }
            Value::Array(blocks) => {
                for block in blocks {
                    let mark = mark(block).filter(|_| cacheable(block));
                    self.block(block, tokens::of_block(tokenizer, block), mark);
                }
            }
            _ => {}
        }
    }

    fn block(&mut self, block: &Value, tokens: u64, mark: Option<Ttl>) {
        self.eat_block(block);
        self.end_block(tokens, mark);
    }

    fn end_block(&mut self, tokens: u64, mark: Option<Ttl>) {
        self.tokens += tokens;
        self.blocks.push(Block { hash: self.hash, tokens: self.tokens, mark });
    }

    /// The top-level `cache_control`: a mark on the last block that can carry one.
    fn automatic(&mut self, body: &Value) {
        let Some(ttl) = body.get("cache_control").and_then(ttl) else { return };
        let tail = items(body.get("messages")).iter().rev().flat_map(|message| match message.get("content") {
            Some(Value::Array(blocks)) => blocks.iter().rev().map(cacheable).collect(),
            _ => vec![true],
        });
        let skipped = tail.take_while(|cacheable| !cacheable).count();
        if let Some(block) = self.blocks.iter_mut().rev().nth(skipped) {
            block.mark.get_or_insert(ttl);
        }
    }

    /// The blocks that are marked, in order.
    pub(super) fn marks(&self) -> impl Iterator<Item = usize> {
        self.blocks.iter().enumerate().filter(|(_, block)| block.mark.is_some()).map(|(at, _)| at)
    }

    fn eat(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Several texts, told apart.
    fn eat_parts(&mut self, parts: &[&str]) {
        for part in parts {
            self.eat(part.as_bytes());
            self.eat(&[0xff]);
        }
    }

    /// A block as JSON, without marks.
    fn eat_block(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                self.eat(b"{");
                for (key, value) in fields.iter().filter(|(key, _)| *key != "cache_control") {
                    self.eat_parts(&[key]);
                    // What is inside a tool's data is no mark, whatever its name.
                    if matches!(key.as_str(), "input" | "input_schema") {
                        self.eat(value.to_string().as_bytes());
                    } else {
                        self.eat_block(value);
                    }
                }
                self.eat(b"}");
            }
            Value::Array(values) => {
                self.eat(b"[");
                values.iter().for_each(|value| self.eat_block(value));
                self.eat(b"]");
            }
            Value::String(text) => self.eat_parts(&["\"", text]),
            other => self.eat_parts(&[&other.to_string()]),
        }
    }
}

fn blocks(messages: &[Value]) -> impl Iterator<Item = &Value> {
    messages.iter().flat_map(|message| items(message.get("content")))
}

/// Whether any document asks for citations.
fn cites(messages: &[Value]) -> bool {
    let asks = |block: &Value| block.get("citations").and_then(|c| c.get("enabled")) == Some(&Value::Bool(true));
    blocks(messages).any(asks)
}

/// Whether there is an image, in a tool's result included.
fn shows(messages: &[Value]) -> bool {
    let image = |block: &Value| block.get("type").and_then(Value::as_str) == Some("image");
    blocks(messages).any(|block| image(block) || items(block.get("content")).iter().any(image))
}
