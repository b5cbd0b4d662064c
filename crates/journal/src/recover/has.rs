//! What the client has of a message: its blocks, and the texts that can be gone on from.

use crate::recover::{TEXT_BYTES_MAX, Unmendable};
use tidegate_wire::event::{Kind, OPENINGS, plain_delta};
use tidegate_wire::raw::RawObject;
use tidegate_wire::sse;

/// What a block is, to whoever may have to take it up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Text: can be gone on from.
    Text,
    /// Thinking: its signature belongs to the reply it came in.
    Thinking,
    /// A call of the client's tool: whole, or nothing.
    Call,
    /// A server's tool at work, or something newer than this code.
    Other,
}

impl What {
    /// What the block is that a `content_block_start` begins.
    pub(super) fn begun_by(event: &[u8]) -> Option<What> {
        let data = sse::parts(event).data?;
        let object = RawObject::read(&data).ok()?;
        let block: RawObject<'_> = object.parse("content_block")?;
        Some(match block.parse::<String>("type")?.as_str() {
            "text" => What::Text,
            "thinking" | "redacted_thinking" => What::Thinking,
            "tool_use" => What::Call,
            _ => What::Other,
        })
    }
}

/// What one delta adds to a text or to visible thinking; empty if nothing. Half of a surrogate pair
/// waits in `half` for the other one.
pub(super) fn added(event: &[u8], half: &mut Vec<u8>) -> String {
    if let Some(delta) = plain_delta(event) {
        if delta.opening == OPENINGS[2] {
            return String::new();
        }
        if half.is_empty() && !delta.text.contains(&b'\\') {
            return String::from_utf8_lossy(delta.text).into_owned();
        }
        half.extend_from_slice(delta.text);
        return match serde_json::from_slice(&[b"\"", &half[..], b"\""].concat()) {
            Ok(text) => {
                half.clear();
                text
            }
            Err(_) => String::new(),
        };
    }
    let parts = sse::parts(event);
    let data = parts.data.unwrap_or_default();
    let delta = RawObject::read(&data).ok().and_then(|object| object.parse::<RawObject<'_>>("delta"));
    delta.and_then(|delta| delta.parse("text").or_else(|| delta.parse("thinking"))).unwrap_or_default()
}

/// A text the client has.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    pub(super) text: String,
    half: Vec<u8>,
}

/// What the client has.
#[derive(Clone, Debug, Default)]
pub(super) struct Has {
    pub(super) started: bool,
    /// Blocks begun.
    pub(super) blocks: u32,
    /// The last one, while it has not ended.
    pub(super) open: Option<What>,
    pub(super) texts: Vec<Text>,
    /// Their length.
    pub(super) bytes: usize,
    pub(super) totals: bool,
    pub(super) stopped: bool,
    /// Why it cannot be taken up again, if that is so whatever comes.
    pub(super) unmendable: Option<Unmendable>,
}

impl Has {
    /// Takes in what was passed on.
    pub(super) fn see(&mut self, kind: Kind, event: &[u8]) {
        match kind {
            Kind::MessageStart => self.started = true,
            Kind::BlockStart => {
                let what = What::begun_by(event).unwrap_or(What::Other);
                self.blocks += 1;
                self.open = Some(what);
                match what {
                    What::Text => self.texts.push(Text::default()),
                    What::Other | What::Call => self.unmendable = self.unmendable.or(Some(Unmendable::Block)),
                    What::Thinking => {}
                }
            }
            Kind::BlockDelta if self.open == Some(What::Text) => self.add(event),
            Kind::BlockStop => self.open = None,
            Kind::MessageDelta => self.totals = true,
            Kind::MessageStop => self.stopped = true,
            _ => {}
        }
    }

    fn add(&mut self, event: &[u8]) {
        let Some(last) = self.texts.last_mut() else { return };
        let added = added(event, &mut last.half);
        self.bytes += added.len();
        if self.bytes > TEXT_BYTES_MAX {
            self.unmendable = self.unmendable.or(Some(Unmendable::TooLarge));
            self.texts.clear();
            self.bytes = 0;
        } else {
            last.text.push_str(&added);
        }
    }

    /// Whether a text is open.
    pub(super) fn is_in_text(&self) -> bool {
        self.open == Some(What::Text)
    }

    /// Whether there is a text that could be gone on from.
    pub(super) fn says_something(&self) -> bool {
        self.texts.iter().any(|text| !text.text.trim().is_empty())
    }
}
