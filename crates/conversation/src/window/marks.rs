//! Cache breakpoints: those of the client, as many as may be, and ours where it set none.
//!
//! The API takes four `cache_control` marks in a request and looks for a cached prefix up to some 20
//! blocks before each. A client that marks each turn it sends has marked every stored message; of
//! those the newest are kept and the others taken out. Ours are: the last block, and before it the
//! blocks of a grid 15 apart, counted from the window's beginning. Between cuts the grid does not
//! move, and a turn that adds fifty blocks is still found by the next one.
//!
//! Not marked: thinking, empty text, system messages, and blocks of kinds not known to take a mark;
//! the next one before stands in. A string that is marked becomes the text block it stands for.

use super::{Piece, Source};
use crate::block::{inner_blocks, place};
use crate::message::Role;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::ops::Range;
use tidegate_wire::raw::RawObject;

/// Marks in one request: the API's limit.
pub const MARKS_MAX: usize = 4;
/// Blocks between two of ours: below the API's look-back of 20.
pub const BLOCKS_BETWEEN_MARKS: usize = 15;
/// How deep marks are looked for: message, content, block, its content, a block of it, and once
/// more for a document made of blocks.
const DEPTH_MAX: usize = 8;

const KEY: &[u8] = b"cache_control";
const MARK: &str = r#""cache_control":{"type":"ephemeral"}"#;

/// Takes away what is too much of the client's, and sets ours if asked to and there are none.
pub(super) fn choose(pieces: &mut [Piece], elsewhere: usize, set: bool) {
    let may = MARKS_MAX.saturating_sub(elsewhere);
    let mut there: usize = 0;
    for piece in pieces.iter_mut().rev().filter(|piece| matches!(piece.source, Source::Message(_))) {
        let found = found(&piece.bytes);
        there += found.len();
        if there > may && !found.is_empty() {
            there -= found.len();
            piece.bytes = without(&piece.bytes, &found);
        }
    }
    if !set || there > 0 || may == 0 {
        return;
    }
    let blocks: usize = pieces.iter().map(|piece| piece.blocks).sum();
    let Some(last) = blocks.checked_sub(1) else { return };
    let grid = (0..last).rev().filter(|block| block.is_multiple_of(BLOCKS_BETWEEN_MARKS));
    for target in std::iter::once(last).chain(grid).take(may) {
        mark_at_or_before(pieces, target);
    }
}

/// Marks the block, or the next before it that takes a mark and has none.
fn mark_at_or_before(pieces: &mut [Piece], target: usize) {
    let mut end: usize = pieces.iter().map(|piece| piece.blocks).sum();
    let least = target.saturating_sub(BLOCKS_BETWEEN_MARKS - 1);
    for piece in pieces.iter_mut().rev() {
        let start = end - piece.blocks;
        if piece.blocks > 0 && start <= target && piece.role != Role::System {
            let from = target.min(end - 1) - start;
            if end <= least {
                return;
            }
            let text = piece.marked.as_ref().unwrap_or(&piece.bytes);
            if let Some(marked) = marked(text, from, least.saturating_sub(start)) {
                piece.marked = Some(marked);
                return;
            }
        }
        end = start;
    }
}

/// The message with a mark on the last block of `least..=from` that takes one.
fn marked(text: &[u8], from: usize, least: usize) -> Option<Bytes> {
    let object = RawObject::read(text).ok()?;
    let content = object.get("content")?;
    let splice = |at: Range<usize>, with: &str| {
        Some(Bytes::from([&text[..at.start], with.as_bytes(), &text[at.end..]].concat()))
    };
    if content.get().starts_with('"') {
        let block = format!("[{{\"type\":\"text\",\"text\":{},{MARK}}}]", content.get());
        return if content.get() == "\"\"" { None } else { splice(place(text, content), &block) };
    }
    let blocks = inner_blocks(content);
    let block =
        blocks.get(least..=from.min(blocks.len().checked_sub(1)?))?.iter().rfind(|block| takes_a_mark(block))?;
    let end = place(text, block).end - 1;
    splice(end..end, &format!(",{MARK}"))
}

fn takes_a_mark(block: &RawValue) -> bool {
    if memchr::memmem::find(block.get().as_bytes(), KEY).is_some() {
        return false;
    }
    let Ok(object) = RawObject::read(block.get().as_bytes()) else { return false };
    match object.parse::<String>("type").as_deref() {
        Some("text") => object.get("text").is_some_and(|text| text.get() != "\"\""),
        Some("image" | "document" | "tool_use" | "tool_result") => true,
        _ => false,
    }
}

/// Where the marks of a message stand, each with the comma that goes with it.
fn found(text: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if memchr::memmem::find(text, KEY).is_some()
        && let Ok(value) = serde_json::from_slice::<&RawValue>(text)
    {
        look(text, value, DEPTH_MAX, &mut found);
    }
    found
}

fn look(text: &[u8], value: &RawValue, depth: usize, found: &mut Vec<Range<usize>>) {
    if depth == 0 || memchr::memmem::find(value.get().as_bytes(), KEY).is_none() {
        return;
    }
    if value.get().starts_with('[') {
        inner_blocks(value).into_iter().for_each(|item| look(text, item, depth - 1, found));
        return;
    }
    let Ok(object) = RawObject::read(value.get().as_bytes()) else { return };
    for (key, value) in object.iter() {
        match key {
            "cache_control" if value.get() != "null" => found.push(with_comma(text, place(text, value))),
            // The caller's data.
            "input" | "input_schema" => {}
            _ if value.get().starts_with(['{', '[']) => look(text, value, depth - 1, found),
            _ => {}
        }
    }
}

/// From the comma before the field, or else to the one after it.
fn with_comma(text: &[u8], value: Range<usize>) -> Range<usize> {
    // Backwards: colon, the key's closing quote, its opening quote. Key and separators are ASCII.
    let before = |byte: u8, end: usize| memchr::memrchr(byte, &text[..end]).unwrap_or(0);
    let key = before(b'"', before(b'"', before(b':', value.start)));
    let kept = text[..key].trim_ascii_end();
    if kept.ends_with(b",") {
        return kept.len() - 1..value.end;
    }
    let after = &text[value.end..];
    let gap = after.len() - after.trim_ascii_start().len();
    let comma = usize::from(after[gap..].starts_with(b","));
    key..value.end + if comma == 1 { gap + 1 } else { 0 }
}

fn without(text: &[u8], marks: &[Range<usize>]) -> Bytes {
    let mut out = Vec::with_capacity(text.len());
    let mut from = 0;
    for mark in marks {
        out.extend_from_slice(&text[from..mark.start.max(from)]);
        from = mark.end.max(from);
    }
    out.extend_from_slice(&text[from..]);
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str) -> Piece {
        let message = crate::message::Message::read(Bytes::copy_from_slice(text.as_bytes())).unwrap();
        let (role, blocks) = (message.role(), message.blocks().len());
        Piece { source: Source::Message(0), role, bytes: message.raw().clone(), marked: None, tokens: 1, blocks }
    }

    fn marked_blocks(pieces: &[Piece]) -> Vec<usize> {
        let mut nth = 0;
        let mut out = Vec::new();
        for piece in pieces {
            let text = piece.marked.as_ref().unwrap_or(&piece.bytes);
            let message = crate::message::Message::read(text.clone()).unwrap();
            for block in 0..message.blocks().len() {
                if memchr::memmem::find(message.block_bytes(block), MARK.as_bytes()).is_some() {
                    out.push(nth);
                }
                nth += 1;
            }
        }
        out
    }

    #[test]
    fn the_end_and_a_grid_that_does_not_move_are_marked() {
        let talk = |messages: usize| -> Vec<Piece> {
            let text = r#"{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#;
            (0..messages).map(|_| piece(text)).collect()
        };
        for (messages, elsewhere, want) in [
            (1, 0, vec![0, 1]),
            (20, 0, vec![0, 15, 30, 39]),
            (24, 0, vec![15, 30, 45, 47]),
            (24, 2, vec![45, 47]),
            (24, 4, vec![]),
        ] {
            let mut pieces = talk(messages);
            choose(&mut pieces, elsewhere, true);
            assert_eq!(marked_blocks(&pieces), want, "{messages} {elsewhere}");
        }
        let mut pieces = talk(3);
        choose(&mut pieces, 0, false);
        assert!(marked_blocks(&pieces).is_empty());
    }

    #[test]
    fn blocks_that_take_no_mark_are_passed_over_and_strings_become_blocks() {
        let mut pieces = vec![
            piece(r#"{"role":"user","content":"a"}"#),
            piece(
                r#"{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},{"type":"new"}]}"#,
            ),
            piece(r#"{"role":"user","content":[{"type":"text","text":""}]}"#),
            piece(r#"{"role":"system","content":"s"}"#),
        ];
        choose(&mut pieces, 0, true);
        let want = format!(r#"{{"role":"user","content":[{{"type":"text","text":"a",{MARK}}}]}}"#);
        assert_eq!(pieces[0].marked.as_deref(), Some(want.as_bytes()));
        assert!(pieces[1..].iter().all(|piece| piece.marked.is_none()));
    }

    #[test]
    fn of_the_clients_marks_the_newest_stay() {
        let text = r#"{"role":"user","content":[{ "cache_control" : {"type":"ephemeral","ttl":"1h"} , "type":"text","text":"a"}]}"#;
        let nested = r#"{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}]},{"type":"text","text":"cache_control"}]}"#;
        let mut pieces: Vec<Piece> = [text, nested, text, text, text, text].iter().map(|text| piece(text)).collect();
        choose(&mut pieces, 0, true);
        let first = r#"{"role":"user","content":[{  "type":"text","text":"a"}]}"#;
        assert_eq!(pieces[0].bytes, first.as_bytes());
        assert_eq!(pieces[1].bytes, nested.replace(r#","cache_control":{"type":"ephemeral"}"#, "").as_bytes());
        assert!(pieces[2..].iter().all(|piece| piece.bytes == text.as_bytes() && piece.marked.is_none()));
    }

    #[test]
    fn a_tools_input_is_not_looked_into() {
        let text =
            r#"{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"cache_control":1}}]}"#;
        assert!(found(text.as_bytes()).is_empty());
        assert!(found(br#"{"role":"user","content":[{"type":"text","text":"x","cache_control":null}]}"#).is_empty());
    }
}
