//! That an answer says what the API said.

use super::Verdict;
use super::case::Case;
use crate::world::client::End;
use crate::world::plan::What;
use crate::world::story::{Story, Told};
use serde_json::Value;
use tidegate_simulator::Block;

pub(super) fn stream_grammar(case: &Case<'_>) -> Verdict {
    if !case.head("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        let streams = case.request.what == What::Message && case.request.stream;
        let whole = case.seen.end == End::Answered && case.status() == 200;
        return if streams && whole { Err("a stream was asked for".to_owned()) } else { Ok(()) };
    }
    if !case.request.stream {
        return Err("a stream that nobody asked for".to_owned());
    }
    let story = Story::read(&case.seen.reading.body)?;
    if case.seen.end != End::Answered {
        return Ok(());
    }
    match (story.ended(), story.rest) {
        (true, 0) => Ok(()),
        (true, rest) => Err(format!("{rest} bytes after the last event")),
        (false, _) => Err("it ends without message_stop or error".to_owned()),
    }
}

/// What a block of the truth would have told.
pub(crate) fn told_by(block: &Block) -> Told {
    let told = |kind: &str, text: &str| Told { kind: kind.to_owned(), text: text.to_owned(), ..Told::default() };
    match block {
        Block::Thinking { text, signature, .. } => Told { signature: signature.clone(), ..told("thinking", text) },
        Block::Text(text) => told("text", text),
        Block::ToolUse { input, name, .. } => Told { name: name.clone(), ..told("tool_use", input) },
    }
}

/// Whether `got` is `want` with at most `times` pieces of it said twice in a row.
pub(super) fn says(got: &str, want: &str, times: usize) -> bool {
    if times == 0 || got.len() <= want.len() {
        return got == want;
    }
    // One repeated piece: what is before its end and what is after its beginning are both true.
    let (got, want) = (got.as_bytes(), want.as_bytes());
    let before = got.iter().zip(want).take_while(|(a, b)| a == b).count();
    let after = got.iter().rev().zip(want.iter().rev()).take_while(|(a, b)| a == b).count();
    times > 1 || before + after >= want.len()
}

pub(super) fn stream_is_true(case: &Case<'_>) -> Verdict {
    let Some(story) = &case.story else { return Ok(()) };
    let Some(id) = story.message_id() else {
        return if story.blocks.is_empty() { Ok(()) } else { Err("content without a message".to_owned()) };
    };
    let good = case.good.as_ref().filter(|good| good["id"] == id).ok_or_else(|| format!("nobody said {id}"))?;
    // One that was left at the moment it began may have said something at that moment.
    let mut records = case.abandoned.iter().chain(&case.records).rev();
    let record = records.find(|r| r.reply.is_some()).ok_or("the API has no record of it")?;
    let reply = record.reply.as_deref().ok_or("the API has forgotten it")?;
    let doubled: usize =
        case.records.iter().map(|r| r.faults.iter().filter(|f| **f == "duplicate-at").count()).max().unwrap_or(0);
    let truth: Vec<Told> = reply.blocks.iter().map(told_by).collect();
    if story.blocks.len() > truth.len() {
        return Err(format!("{} blocks, truly {}", story.blocks.len(), truth.len()));
    }
    for (n, (told, truth)) in story.blocks.iter().zip(&truth).enumerate() {
        if (&told.kind, &told.name) != (&truth.kind, &truth.name) {
            return Err(format!("block {n} is {told:?}, truly {truth:?}"));
        }
        let whole = told.stopped || story.stopped;
        let prefix = doubled > 0 || truth.text.starts_with(&told.text);
        if whole && !says(&told.text, &truth.text, doubled) || !whole && !prefix {
            return Err(format!("block {n} says {told:?}, truly {truth:?}"));
        }
        if whole && told.signature != truth.signature {
            return Err(format!("block {n} is signed {}, truly {}", told.signature, truth.signature));
        }
    }
    if !story.stopped {
        return Ok(());
    }
    if story.blocks.len() != truth.len() {
        return Err(format!("{} blocks, truly {}", story.blocks.len(), truth.len()));
    }
    let reason = story.stop_reason.as_deref();
    if reason != good["stop_reason"].as_str() || reason != Some(reply.stop_reason) {
        return Err(format!("stop_reason {reason:?}, truly {}", reply.stop_reason));
    }
    if story.usage != good["usage"] {
        return Err(format!("usage {}, truly {}", story.usage, good["usage"]));
    }
    Ok(())
}

pub(super) fn buffered_is_true(case: &Case<'_>) -> Verdict {
    let told = case.request.what == What::Message && case.seen.end == End::Answered && case.status() == 200;
    if !told || case.story.is_some() || case.request.stream {
        return Ok(());
    }
    let json = case.json.as_ref().ok_or("no JSON")?;
    if case.records.iter().any(|r| r.faults.contains(&"duplicate-at")) {
        return Ok(());
    }
    match case.good.as_ref() {
        Some(good) if good == json => Ok(()),
        good => Err(format!("{json}\n  truly {}", good.unwrap_or(&Value::Null))),
    }
}
