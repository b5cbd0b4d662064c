//! Tokens in the events of a Messages stream: whole events in, whole events out.
//!
//! Each content block has a text of its own. Its deltas are rewritten in place: the event around the
//! text stays as it came. A delta of which everything may be the beginning of a token is not passed on
//! yet; its text comes with the next one, or before the block's end. Events without a token pass as
//! the bytes they came as. Text and tool inputs take the whole ladder, thinking takes exact tokens
//! only, as it has to become the same bytes again when the client sends it back. Signatures are left
//! alone. Other events (a block's start, citations, a message's own fields, errors that echo what was
//! sent) are restored as a whole.

use super::{Escape, Ladder, Live, TextRestorer};
use std::sync::Arc;
use tidegate_wire::event::{Kind, PlainDelta, plain_delta};
use tidegate_wire::raw::RawObject;
use tidegate_wire::sse;

/// Blocks that are open at once; the API opens one after the other.
const BLOCKS_MAX: usize = 64;

/// Restores one stream for one reader.
#[derive(Debug)]
pub struct StreamRestorer {
    live: Arc<Live>,
    blocks: Vec<Block>,
    scratch: Vec<u8>,
}

/// A content block whose end has not come.
#[derive(Debug)]
struct Block {
    index: u32,
    restorer: TextRestorer,
    /// The last delta's event up to the inside of its text, and from there on.
    head: Vec<u8>,
    tail: Vec<u8>,
}

/// A delta's field that holds text, and how it is written there.
fn field(kind: &str) -> Option<(&'static str, Escape, Ladder)> {
    match kind {
        "text_delta" => Some(("text", Escape::Json, Ladder::Normalised)),
        "thinking_delta" => Some(("thinking", Escape::Json, Ladder::Exact)),
        "input_json_delta" => Some(("partial_json", Escape::Nested, Ladder::Normalised)),
        _ => None,
    }
}

impl StreamRestorer {
    /// A restorer of a stream that has not begun.
    pub fn new(live: Arc<Live>) -> StreamRestorer {
        StreamRestorer { live, blocks: Vec::new(), scratch: Vec::new() }
    }

    /// Bytes that are held back, of all blocks. A place in the stream may be handed out as a cursor
    /// where this is 0.
    pub fn held(&self) -> usize {
        self.blocks.iter().map(|block| block.restorer.held()).sum()
    }

    /// An event before a place where nothing was held back, for a reader that comes back there: a word
    /// that it ends in goes on. Two of them, in order, are enough: two bytes count.
    pub fn comes_after(&mut self, event: &[u8]) {
        let Some(delta) = plain_delta(event) else { return self.blocks.clear() };
        let (index, Some((_, escape, ladder))) = (index_of(&delta), field(kind_of(&delta))) else { return };
        if !self.blocks.iter().any(|block| block.index == index) {
            let restorer = TextRestorer::new(escape, ladder);
            self.blocks = vec![Block { index, restorer, head: Vec::new(), tail: Vec::new() }];
        }
        self.blocks.iter_mut().for_each(|block| block.restorer.goes_on_after(delta.text));
    }

    /// Takes one whole event and writes what of it is certain.
    pub fn event(&mut self, event: &[u8], out: &mut Vec<u8>) {
        if self.live.is_empty() {
            out.extend_from_slice(event);
            return;
        }
        match plain_delta(event) {
            Some(delta) => {
                let text_at = delta.text.as_ptr() as usize - event.as_ptr() as usize;
                let text_at = text_at..text_at + delta.text.len();
                self.delta(event, index_of(&delta), kind_of(&delta), text_at, out);
            }
            None => self.other(event, out),
        }
    }

    /// The stream has ended: writes what is held.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        for block in &mut self.blocks {
            block.end(out);
        }
        self.blocks.clear();
    }

    /// A delta whose text stands at `span` of its event.
    fn delta(&mut self, event: &[u8], index: u32, kind: &str, span: std::ops::Range<usize>, out: &mut Vec<u8>) {
        let Some((_, escape, ladder)) = field(kind) else { return out.extend_from_slice(event) };
        let at = match self.blocks.iter().position(|block| block.index == index) {
            Some(at) => at,
            None if self.blocks.len() == BLOCKS_MAX => return out.extend_from_slice(event),
            None => {
                let restorer = TextRestorer::new(escape, ladder);
                self.blocks.push(Block { index, restorer, head: Vec::new(), tail: Vec::new() });
                self.blocks.len() - 1
            }
        };
        let block = &mut self.blocks[at];
        let held = block.restorer.held();
        self.scratch.clear();
        block.restorer.feed(&self.live, &event[span.clone()], &mut self.scratch);
        if held == 0 && block.restorer.held() == 0 && self.scratch == event[span.clone()] {
            out.extend_from_slice(event);
            return;
        }
        block.head.clear();
        block.head.extend_from_slice(&event[..span.start]);
        block.tail.clear();
        block.tail.extend_from_slice(&event[span.end..]);
        if !self.scratch.is_empty() || span.is_empty() {
            block.write(&self.scratch, out);
        }
    }

    fn other(&mut self, event: &[u8], out: &mut Vec<u8>) {
        let parts = sse::parts(event);
        let Some(data) = &parts.data else { return out.extend_from_slice(event) };
        let Ok(object) = RawObject::read(data) else { return out.extend_from_slice(event) };
        let kind = match parts.name {
            b"" => Kind::of_name(object.parse::<String>("type").unwrap_or_default().as_bytes()),
            name => Kind::of_name(name),
        };
        let index = object.parse::<u32>("index");
        match (kind, index) {
            (Kind::Ping, _) => out.extend_from_slice(event),
            (Kind::BlockDelta, Some(index)) => self.odd_delta(event, parts.name, data, &object, index, out),
            (Kind::BlockStop, Some(index)) => {
                if let Some(at) = self.blocks.iter().position(|block| block.index == index) {
                    self.blocks.swap_remove(at).end(out);
                }
                out.extend_from_slice(event);
            }
            (Kind::BlockStart, _) => self.whole(event, parts.name, data, out),
            _ => {
                self.finish(out);
                self.whole(event, parts.name, data, out);
            }
        }
    }

    /// A delta in another shape than the usual one: the event is written anew, on one line.
    fn odd_delta(
        &mut self,
        event: &[u8],
        name: &[u8],
        data: &[u8],
        object: &RawObject<'_>,
        index: u32,
        out: &mut Vec<u8>,
    ) {
        let delta: RawObject<'_> = object.parse("delta").unwrap_or_default();
        let kind: String = delta.parse("type").unwrap_or_default();
        if kind == "signature_delta" {
            return out.extend_from_slice(event);
        }
        let text = field(&kind).and_then(|(key, ..)| delta.place(key, data)).filter(|at| data[at.start] == b'"');
        match text {
            Some(at) => {
                let event = written(name, data);
                let shift = event.len() - data.len() - 2;
                self.delta(&event, index, &kind, at.start + 1 + shift..at.end - 1 + shift, out);
            }
            None => self.whole(event, name, data, out),
        }
    }

    /// An event that is restored at once; as it came if it has no token.
    fn whole(&mut self, event: &[u8], name: &[u8], data: &[u8], out: &mut Vec<u8>) {
        match super::message(&self.live, data) {
            Some(restored) if restored != data => out.extend_from_slice(&written(name, &restored)),
            _ => out.extend_from_slice(event),
        }
    }
}

/// What kind of delta it is.
fn kind_of(delta: &PlainDelta<'_>) -> &'static str {
    match delta.opening.get(OPENING_TYPE..OPENING_TYPE + 2) {
        Some(b"te") => "text_delta",
        Some(b"th") => "thinking_delta",
        _ => "input_json_delta",
    }
}

/// Which block it is of.
fn index_of(delta: &PlainDelta<'_>) -> u32 {
    delta.index.iter().fold(0, |n: u32, b| n.saturating_mul(10).saturating_add(u32::from(b - b'0')))
}

/// Where the type's letters stand in a plain delta's opening.
const OPENING_TYPE: usize = b",\"delta\":{\"type\":\"".len();

/// An event of one data line. Line ends between JSON's tokens are spaces as well.
fn written(name: &[u8], data: &[u8]) -> Vec<u8> {
    let mut event = Vec::with_capacity(name.len() + data.len() + 24);
    if !name.is_empty() {
        event.extend_from_slice(b"event: ");
        event.extend_from_slice(name);
        event.push(b'\n');
    }
    event.extend_from_slice(b"data: ");
    event.extend(data.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }));
    event.extend_from_slice(b"\n\n");
    event
}

impl Block {
    fn write(&self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(text);
        out.extend_from_slice(&self.tail);
    }

    /// Writes what is held as one more delta.
    fn end(&mut self, out: &mut Vec<u8>) {
        let mut text = Vec::new();
        self.restorer.finish(&mut text);
        if !text.is_empty() {
            self.write(&text, out);
        }
    }
}
