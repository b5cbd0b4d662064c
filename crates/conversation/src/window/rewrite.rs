//! New bytes where a view asks for them: elided results, messages without their thinking, and the
//! few messages of our own. Everything else of a message stays the bytes it was.

use super::{Elided, View};
use crate::Estimate;
use crate::block::Kind;
use crate::history::History;
use crate::message::Message;
use bytes::Bytes;
use std::ops::Range;

/// A message as a view shows it; `None` if it is shown as it is.
pub(super) fn shown(message: &Message, elided: &[Elided], without_thinking: bool) -> Option<Message> {
    let thinks = message.blocks().iter().filter(|block| block.kind == Kind::Thinking).count();
    // A message of nothing but thinking would be empty without it.
    let without_thinking = without_thinking && thinks > 0 && thinks < message.blocks().len();
    // Results are the user's and thinking is the assistant's: never both.
    let elided = if without_thinking { &[] } else { elided };
    if elided.is_empty() && !without_thinking {
        return None;
    }
    let raw = message.raw();
    let mut out = Vec::with_capacity(raw.len());
    let mut from = 0;
    let mut copy_to = |out: &mut Vec<u8>, to: usize, next: usize| {
        out.extend_from_slice(&raw[from..to]);
        from = next;
    };
    if without_thinking {
        let content = message.content();
        copy_to(&mut out, content.start, content.end);
        out.push(b'[');
        let kept = message.blocks().iter().filter(|block| block.kind != Kind::Thinking);
        for (nth, block) in kept.enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&raw[block.at.clone()]);
        }
        out.push(b']');
    }
    for elided in elided {
        let block = message.blocks().get(elided.block)?;
        let content = block.content.clone()?;
        copy_to(&mut out, content.start, content.end);
        out.extend_from_slice(reference(elided, block.media.len()).as_bytes());
    }
    copy_to(&mut out, raw.len(), raw.len());
    // Ours, from a message that was read: it reads.
    Message::read(Bytes::from(out)).ok()
}

/// What stands for an elided result, as JSON.
fn reference(elided: &Elided, media: usize) -> String {
    let with = match media {
        0 => String::new(),
        1 => " with 1 image or document".to_owned(),
        n => format!(" with {n} images or documents"),
    };
    format!("\"[elided: {} tokens{with}, ref m{}.{}]\"", grouped(elided.tokens), elided.message, elided.block)
}

/// 48211 as 48,211.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Estimated tokens of a part of a message, the images and documents of its block by pixel and page.
pub(super) fn tokens_between(message: &Message, block: usize, range: Range<usize>, estimate: Estimate<'_>) -> u64 {
    let (mut sum, mut from) = (0, range.start);
    for media in &message.blocks()[block].media {
        if !media.data.is_empty() && media.data.start >= from {
            sum += estimate(&message.raw()[from..media.data.start]);
            from = media.data.end;
        }
        sum += media.tokens;
    }
    sum + estimate(&message.raw()[from..range.end])
}

/// A user message with one text block.
pub fn user_text(text: &str) -> Bytes {
    Bytes::from(format!("{{\"role\":\"user\",\"content\":[{}]}}", text_block(text)))
}

fn text_block(text: &str) -> String {
    // A string always serialises.
    let quoted = serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned());
    format!("{{\"type\":\"text\",\"text\":{quoted}}}")
}

/// The message that stands where the conversation begins no more, and its number of blocks: the
/// summary, and how much was left out without one.
pub(super) fn head(history: &History, view: &View) -> Option<(Bytes, usize)> {
    let covered = view.summary.as_ref().map_or(0..0, |summary| summary.from..summary.until.min(view.cut));
    // Groups may reach over an end of the range: a summary need not begin where a group does.
    let shown = |range: &Range<usize>| -> usize {
        let pinned = view.pinned.range(..range.end).map(|start| history.group(history.group_of(*start)));
        pinned.map(|group| group.end.min(range.end).saturating_sub(group.start.max(range.start))).sum()
    };
    let out = |range: Range<usize>| range.len() - shown(&range);
    let out = out(0..covered.start) + out(covered.end..view.cut);
    let mut blocks = Vec::new();
    if let Some(summary) = &view.summary {
        blocks.push(text_block(&summary.text));
    }
    if out > 0 {
        blocks.push(text_block(&format!(
            "[{out} earlier messages of this conversation are not shown, to fit the token budget]"
        )));
    }
    if blocks.is_empty() {
        return None;
    }
    Some((Bytes::from(format!("{{\"role\":\"user\",\"content\":[{}]}}", blocks.join(","))), blocks.len()))
}

/// Several system messages as one, block by block, and its number of blocks.
pub(super) fn joined_system(messages: &[&Message]) -> (Bytes, usize) {
    let mut out = b"{\"role\":\"system\",\"content\":[".to_vec();
    let mut blocks = 0;
    for message in messages {
        for nth in 0..message.blocks().len() {
            if blocks > 0 {
                out.push(b',');
            }
            blocks += 1;
            if message.is_shorthand() {
                out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
                out.extend_from_slice(message.block_bytes(nth));
                out.push(b'}');
            } else {
                out.extend_from_slice(message.block_bytes(nth));
            }
        }
    }
    out.extend_from_slice(b"]}");
    (Bytes::from(out), blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_parted() {
        assert_eq!([0, 999, 1_000, 48_211, 1_000_000].map(grouped), ["0", "999", "1,000", "48,211", "1,000,000"]);
    }

    #[test]
    fn only_the_content_of_a_result_and_whole_thoughts_go() {
        let text = r#"{"x": 1 ,"role":"user","content":[ {"type":"tool_result", "content":[{"type":"text","text":"long"}],"tool_use_id":"t","is_error":true} , {"type":"text","text":"a\u00e9"}]}"#;
        let message = Message::read(Bytes::from_static(text.as_bytes())).unwrap();
        let new = shown(&message, &[Elided { message: 17, block: 0, tokens: 48_211 }], false).unwrap();
        let want = text.replace(r#"[{"type":"text","text":"long"}]"#, r#""[elided: 48,211 tokens, ref m17.0]""#);
        assert_eq!(new.raw(), want.as_bytes());

        let text = r#"{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"}, {"type":"text","text":"x" }],"id":7}"#;
        let message = Message::read(Bytes::from_static(text.as_bytes())).unwrap();
        let new = shown(&message, &[], true).unwrap();
        assert_eq!(new.raw(), r#"{"role":"assistant","content":[{"type":"text","text":"x" }],"id":7}"#.as_bytes());
        let only = r#"{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"}]}"#;
        assert!(shown(&Message::read(Bytes::from_static(only.as_bytes())).unwrap(), &[], true).is_none());
    }
}
