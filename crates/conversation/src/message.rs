//! One entry of `messages`, read as far as a window needs it and kept as the bytes it came as.
//!
//! A message is its JSON text; beside it stands where its blocks are, what kind each is, which tool
//! call it makes or answers, and which images and documents are in it. Nothing is written again from
//! a parsed tree: signatures, key order and blocks newer than this code stay as they are. Content
//! given as a string is one text block.
//!
//! What is checked is only what the room itself stands on: a role, a content, blocks with a type,
//! ids where tools are called and answered. Everything else is the upstream's to judge. Errors name
//! the place in the API's own way (`messages.3.content.0`) and never the text.

use crate::block::{Block, Kind, List, REQUIRED, Sizes, Unreadable, blocks, place};
use crate::media::Media;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::ops::Range;
use tidegate_wire::raw::RawObject;

/// Most entries of `messages`: the API's own limit.
pub const MESSAGES_MAX: usize = 100_000;
/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The user, and whoever answers tool calls.
    User,
    /// The model.
    Assistant,
    /// Instructions inside `messages`, for models that know them.
    System,
}

impl Role {
    /// As the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::System => "system",
        }
    }
}

/// A message: its bytes, and what was found in them.
#[derive(Clone, Debug)]
pub struct Message {
    raw: Bytes,
    role: Role,
    blocks: Vec<Block>,
    /// Where the value of `content` stands.
    content: Range<usize>,
    /// Whether content was given as a string.
    shorthand: bool,
    /// Whether it is an instruction that ends with the next user message.
    passing: bool,
}

/// The messages of the list that `list` is: the value of a body's `messages`.
pub fn read_all(list: &Bytes) -> Result<Vec<Message>, Unreadable> {
    let items: List<'_, MESSAGES_MAX> = serde_json::from_slice(list).map_err(|error| {
        let long = error.is_data() && error.to_string().starts_with("too long");
        let what = if long { "List should have at most 100000 items" } else { "Input should be a valid list" };
        Unreadable::at("messages", what)
    })?;
    let read = |(at, item): (usize, &&RawValue)| {
        Message::read(list.slice(place(list, item))).map_err(|error| error.under(&format!("messages.{at}")))
    };
    items.0.iter().enumerate().map(read).collect()
}

impl Message {
    /// Reads one message; paths in errors begin inside it.
    pub fn read(raw: Bytes) -> Result<Self, Unreadable> {
        let object =
            RawObject::read(&raw).map_err(|_| Unreadable::at("", "Input should be a valid dictionary or object"))?;
        if object.get("role").is_none() {
            return Err(Unreadable::at("role", REQUIRED));
        }
        let role = match object.parse::<String>("role").as_deref() {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("system") => Role::System,
            _ => return Err(Unreadable::at("role", "Input should be 'user' or 'assistant'")),
        };
        let value = object.get("content").ok_or_else(|| Unreadable::at("content", REQUIRED))?;
        let content = place(&raw, value);
        let (blocks, shorthand) = blocks(&raw, value)?;
        let passing =
            role == Role::System && object.parse::<String>("clear_at").as_deref() == Some("next_user_message");
        Ok(Message { role, blocks, content, shorthand, passing, raw })
    }

    /// Its JSON text.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Who speaks.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its blocks; content given as a string is one.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Where the value of `content` stands in its bytes.
    pub fn content(&self) -> Range<usize> {
        self.content.clone()
    }

    /// Whether content was given as a string.
    pub fn is_shorthand(&self) -> bool {
        self.shorthand
    }

    /// Whether it is a system message that ends with the next user message.
    pub fn is_passing(&self) -> bool {
        self.passing
    }

    /// The bytes of its `nth` block.
    pub fn block_bytes(&self, nth: usize) -> &[u8] {
        self.blocks.get(nth).map_or(&[], |block| &self.raw[block.at.clone()])
    }

    /// Ids of the tools it calls.
    pub fn calls(&self) -> impl Iterator<Item = &str> {
        self.ids(Kind::ToolUse)
    }

    /// Ids of the tool calls it answers.
    pub fn answers(&self) -> impl Iterator<Item = &str> {
        self.ids(Kind::ToolResult)
    }

    fn ids(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.blocks.iter().filter(move |block| block.kind == kind).filter_map(|block| block.tool_id.as_deref())
    }

    /// Whether a block of this kind is in it.
    pub fn has(&self, kind: Kind) -> bool {
        self.blocks.iter().any(|block| block.kind == kind)
    }

    /// Images and documents in it.
    pub fn media(&self) -> impl Iterator<Item = &Media> {
        self.blocks.iter().flat_map(|block| &block.media)
    }

    /// Bytes by kind of block.
    pub fn sizes(&self) -> Sizes {
        let mut sizes = Sizes::default();
        for block in &self.blocks {
            sizes.0[block.kind as usize] += block.at.len();
        }
        sizes
    }

    /// Estimated tokens: what `text` says of its JSON without the data of images and documents, and
    /// what those cost by pixel and page.
    pub fn tokens(&self, text: &dyn Fn(&[u8]) -> u64) -> u64 {
        let (mut sum, mut from) = (0, 0);
        for media in self.media() {
            if !media.data.is_empty() && media.data.start >= from {
                sum += text(&self.raw[from..media.data.start]);
                from = media.data.end;
            }
            sum += media.tokens;
        }
        sum + text(&self.raw[from..])
    }

    /// The texts a reader of it would see, block by block: text, what tools were given and what they
    /// answered, documents that are text. No thinking, no base64.
    pub fn texts(&self, each: &mut dyn FnMut(usize, &str)) {
        for (nth, block) in self.blocks.iter().enumerate() {
            let bytes = &self.raw[block.at.clone()];
            match block.kind {
                Kind::Thinking | Kind::Image => {}
                _ if self.shorthand => {
                    if let Ok(text) = serde_json::from_slice::<String>(bytes) {
                        each(nth, &text);
                    }
                }
                _ => {
                    if let Ok(value) = serde_json::from_slice(bytes) {
                        readable(&value, &mut |text| each(nth, text));
                    }
                }
            }
        }
    }
}

/// Fields of a block that name or carry, and say nothing.
const SILENT: [&str; 13] = [
    "type",
    "id",
    "tool_use_id",
    "signature",
    "data",
    "media_type",
    "file_id",
    "cache_control",
    "encrypted_content",
    "encrypted_index",
    "caller",
    "toolset_name",
    "citations",
];

/// The strings and numbers of a block that somebody would read.
fn readable(value: &serde_json::Value, each: &mut dyn FnMut(&str)) {
    use serde_json::Value;
    match value {
        Value::String(text) => each(text),
        Value::Number(number) => each(&number.to_string()),
        Value::Array(items) => items.iter().for_each(|item| readable(item, each)),
        Value::Object(fields) => {
            let plain = fields.get("media_type").and_then(Value::as_str) == Some("text/plain");
            for (key, value) in fields {
                if !SILENT.contains(&key.as_str()) || (plain && key == "data") {
                    readable(value, each);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BLOCKS_MAX;
    use crate::media;

    fn read(text: &str) -> Result<Message, Unreadable> {
        Message::read(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn what_matters_is_found_and_the_bytes_stay() {
        let text = r#"{"role" : "assistant", "content":[ {"type":"thinking","thinking":"t","signature":"s"}, {"type":"tool_use","id":"t1","name":"f","input":{"b":1,"a":2}},{"type":"new_thing","x":[1.50]} ]}"#;
        let message = read(text).unwrap();
        assert_eq!(message.raw(), text.as_bytes());
        let kinds: Vec<Kind> = message.blocks().iter().map(|block| block.kind).collect();
        assert_eq!(kinds, [Kind::Thinking, Kind::ToolUse, Kind::Other]);
        assert_eq!(message.calls().collect::<Vec<_>>(), ["t1"]);
        assert_eq!(message.block_bytes(2), br#"{"type":"new_thing","x":[1.50]}"#);
        assert_eq!(message.sizes().of(Kind::Other), 31);
        let list = Bytes::from(format!(" [{text}, {text}]"));
        let all = read_all(&list).unwrap();
        assert_eq!((all.len(), all[1].raw()), (2, message.raw()));
    }

    #[test]
    fn a_string_is_one_text_block() {
        let message = read(r#"{"content":"caf\u00e9","role":"user"}"#).unwrap();
        assert!(message.is_shorthand() && message.blocks().len() == 1);
        let mut texts = Vec::new();
        message.texts(&mut |nth, text| texts.push((nth, text.to_owned())));
        assert_eq!(texts, [(0, "café".to_owned())]);
    }

    #[test]
    fn errors_name_the_place_and_not_the_text() {
        for (text, want) in [
            ("[]", "messages.0: Input should be a valid dictionary or object"),
            ("{}", "messages.0.role: Field required"),
            (r#"{"role":"bot"}"#, "messages.0.role: Input should be 'user' or 'assistant'"),
            (r#"{"role":"user"}"#, "messages.0.content: Field required"),
            (r#"{"role":"user","content":7}"#, "messages.0.content: Input should be a valid list"),
            (r#"{"role":"user","content":[{}]}"#, "messages.0.content.0.type: Field required"),
            (
                r#"{"role":"user","content":[{"type":"text"},{"type":"tool_result"}]}"#,
                "messages.0.content.1.tool_use_id: Field required",
            ),
        ] {
            let error = read_all(&Bytes::from(format!("[{text}]"))).unwrap_err();
            assert_eq!(error.to_string(), want);
        }
        let blocks = r#"{"type":"x"},"#.repeat(BLOCKS_MAX);
        let error = read(&format!(r#"{{"role":"user","content":[{blocks}{{"type":"x"}}]}}"#)).unwrap_err();
        assert_eq!(error.to_string(), "content: List should have at most 10000 items");
    }

    #[test]
    fn base64_counts_by_pixel_and_not_by_byte() {
        let data = "A".repeat(40_000);
        let message = read(&format!(
            r#"{{"role":"user","content":[{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{data}"}}}}]}}"#
        ))
        .unwrap();
        let tokens = message.tokens(&|text| text.len() as u64);
        assert_eq!(tokens, message.raw().len() as u64 - 40_000 + media::IMAGE_TOKENS_MAX);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, text in r#"\{"role":"user","content":[\[\]{}":,a-z0-9]{0,60}\}"#) {
            let _ = read_all(&Bytes::from(bytes));
            let _ = read(&text);
        }
    }
}
