//! The blocks of a message: what kind each is, where it stands, which tool call it makes or answers.
//!
//! Read one level deep; of a tool result its content's place is kept, so that it can be replaced and
//! nothing else. Errors name the place in the API's own way (`messages.3.content.0`) and never the
//! text.

use crate::media::{self, Media};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::ops::Range;
use tidegate_wire::raw::RawObject;

/// Most blocks of one message. Agents send some hundred; 32 MB of the smallest would take ten times
/// that in memory to list.
pub const BLOCKS_MAX: usize = 10_000;

/// What a block is, as far as a window cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Text.
    Text,
    /// An image.
    Image,
    /// A document, in whatever way it is given.
    Document,
    /// Thinking, open or redacted: goes back unchanged, or not at all.
    Thinking,
    /// A call of a tool of the client's.
    ToolUse,
    /// The answer to one.
    ToolResult,
    /// A call of a tool at the provider, or its result; both stand in the same message.
    ServerTool,
    /// Anything else, known or not.
    Other,
}

impl Kind {
    /// Every kind, in the order of [`Sizes`].
    pub const ALL: [Kind; 8] = [
        Kind::Text,
        Kind::Image,
        Kind::Document,
        Kind::Thinking,
        Kind::ToolUse,
        Kind::ToolResult,
        Kind::ServerTool,
        Kind::Other,
    ];

    fn of(name: &str) -> Kind {
        match name {
            "text" => Kind::Text,
            "image" => Kind::Image,
            "document" => Kind::Document,
            "thinking" | "redacted_thinking" => Kind::Thinking,
            "tool_use" => Kind::ToolUse,
            "tool_result" => Kind::ToolResult,
            "server_tool_use" | "mcp_tool_use" => Kind::ServerTool,
            _ if name.ends_with("_tool_result") => Kind::ServerTool,
            _ => Kind::Other,
        }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Image => "image",
            Kind::Document => "document",
            Kind::Thinking => "thinking",
            Kind::ToolUse => "tool_use",
            Kind::ToolResult => "tool_result",
            Kind::ServerTool => "server_tool",
            Kind::Other => "other",
        }
    }
}

/// Bytes of a message by kind of block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes(pub(crate) [usize; Kind::ALL.len()]);

impl Sizes {
    /// Bytes of the blocks of this kind.
    pub fn of(&self, kind: Kind) -> usize {
        self.0[kind as usize]
    }
}

/// One block of a message.
#[derive(Clone, Debug)]
pub struct Block {
    /// What it is.
    pub kind: Kind,
    /// The id of a tool call, or of the call that a result answers.
    pub tool_id: Option<Box<str>>,
    /// Images and documents in it, its own or inside a tool result.
    pub media: Vec<Media>,
    /// Where it stands in its message's bytes.
    pub at: Range<usize>,
    /// Where the `content` of a tool result stands there.
    pub content: Option<Range<usize>>,
    /// A text block without text.
    pub empty: bool,
}

/// A message that cannot be read: where, and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// `messages.3.content.0.id`
    pub path: String,
    /// In the API's words where it has some.
    pub what: &'static str,
}

impl Unreadable {
    pub(crate) fn at(path: impl Into<String>, what: &'static str) -> Self {
        Unreadable { path: path.into(), what }
    }

    pub(crate) fn under(mut self, before: &str) -> Self {
        self.path = if self.path.is_empty() { before.to_owned() } else { format!("{before}.{}", self.path) };
        self
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

impl std::error::Error for Unreadable {}

pub(crate) const REQUIRED: &str = "Field required";

/// A list of raw values with a maximum.
pub(crate) struct List<'a, const MAX: usize>(pub(crate) Vec<&'a RawValue>);

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for List<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Items<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for Items<MAX> {
            type Value = Vec<&'de RawValue>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    if items.len() == MAX {
                        return Err(A::Error::custom("too long"));
                    }
                    items.push(item);
                }
                Ok(items)
            }
        }
        d.deserialize_seq(Items::<MAX>).map(List)
    }
}

/// Where `part` stands in `whole`, of which it is a part.
pub(crate) fn place(whole: &[u8], part: &RawValue) -> Range<usize> {
    let at = (part.get().as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    at..at + part.get().len()
}

pub(crate) fn blocks(raw: &[u8], content: &RawValue) -> Result<(Vec<Block>, bool), Unreadable> {
    if content.get().starts_with('"') {
        let block = Block {
            kind: Kind::Text,
            tool_id: None,
            media: Vec::new(),
            at: place(raw, content),
            content: None,
            empty: content.get() == "\"\"",
        };
        return Ok((vec![block], true));
    }
    let items: List<'_, BLOCKS_MAX> = serde_json::from_str(content.get()).map_err(|error| {
        let long = error.is_data() && error.to_string().starts_with("too long");
        let what = if long { "List should have at most 10000 items" } else { "Input should be a valid list" };
        Unreadable::at("content", what)
    })?;
    let read =
        |(nth, item): (usize, &&RawValue)| block(raw, item).map_err(|error| error.under(&format!("content.{nth}")));
    Ok((items.0.iter().enumerate().map(read).collect::<Result<_, _>>()?, false))
}

fn block(raw: &[u8], item: &RawValue) -> Result<Block, Unreadable> {
    let object = RawObject::read(item.get().as_bytes())
        .map_err(|_| Unreadable::at("", "Input should be a valid dictionary or object"))?;
    let name: String = object.parse("type").ok_or_else(|| Unreadable::at("type", REQUIRED))?;
    let kind = Kind::of(&name);
    let id_field = match kind {
        Kind::ToolUse => Some("id"),
        Kind::ToolResult => Some("tool_use_id"),
        _ => None,
    };
    let tool_id = match id_field {
        Some(field) => {
            let id: String = object.parse(field).ok_or_else(|| Unreadable::at(field, REQUIRED))?;
            Some(id.into_boxed_str())
        }
        None => None,
    };
    let inner = (kind == Kind::ToolResult).then(|| object.get("content")).flatten();
    Ok(Block {
        kind,
        tool_id,
        media: media::find(raw, kind, &object, inner),
        at: place(raw, item),
        content: inner.map(|value| place(raw, value)),
        empty: kind == Kind::Text && object.get("text").is_none_or(|text| text.get() == "\"\""),
    })
}

/// The blocks of a list inside a block, unread; none if it is no list, or one that is too long.
pub(crate) fn inner_blocks(list: &RawValue) -> Vec<&RawValue> {
    serde_json::from_str::<List<'_, BLOCKS_MAX>>(list.get()).map(|list| list.0).unwrap_or_default()
}
