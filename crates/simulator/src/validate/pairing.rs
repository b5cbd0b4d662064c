//! Which tool result answers which tool call.
//!
//! Consecutive messages of one role are one turn. Every `tool_use` of an assistant turn must have a
//! `tool_result` in the turn that follows at once, and every `tool_result` a `tool_use` in the turn
//! before it. `system` messages in between do not count as turns. The index in the message is that
//! of the entry of `messages`, as the caller wrote it.

use crate::envelope::Refusal;
use serde_json::Value;
use std::collections::BTreeSet;

#[derive(Default)]
struct Turn<'a> {
    assistant: bool,
    /// Index of the last message of the turn.
    last: usize,
    calls: Vec<&'a str>,
    /// Tool id, message index, block index.
    results: Vec<(&'a str, usize, usize)>,
}

fn turns(messages: &[Value]) -> Vec<Turn<'_>> {
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let role = message.get("role").and_then(Value::as_str).unwrap_or("");
        if role == "system" {
            continue;
        }
        let assistant = role == "assistant";
        if turns.last().is_none_or(|turn| turn.assistant != assistant) {
            turns.push(Turn { assistant, ..Turn::default() });
        }
        let Some(turn) = turns.last_mut() else { continue };
        turn.last = at;
        let blocks = message.get("content").and_then(Value::as_array).into_iter().flatten();
        for (nth, block) in blocks.enumerate() {
            let text = |field: &str| block.get(field).and_then(Value::as_str);
            match text("type") {
                Some("tool_use") => turn.calls.extend(text("id")),
                Some("tool_result") => turn.results.extend(text("tool_use_id").map(|id| (id, at, nth))),
                _ => {}
            }
        }
    }
    turns
}

pub(super) fn tool_calls(body: &Value) -> Result<(), Refusal> {
    let messages = body.get("messages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let turns = turns(messages);
    let mut seen = BTreeSet::new();
    for (nth, turn) in turns.iter().enumerate() {
        for call in &turn.calls {
            if !seen.insert(*call) {
                return Err(Refusal::invalid(format!("messages.{}: `tool_use` ids must be unique", turn.last)));
            }
        }
        let before = nth.checked_sub(1).and_then(|n| turns.get(n));
        let mut answered = BTreeSet::new();
        for (id, message, block) in &turn.results {
            if !before.is_some_and(|before| before.calls.contains(id)) {
                return Err(Refusal::invalid(format!(
                    "messages.{message}.content.{block}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. \
                     Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                )));
            }
            if !answered.insert(*id) {
                return Err(Refusal::invalid(format!(
                    "messages.{message}.content.{block}: each tool_use must have a single result. \
                     Found multiple `tool_result` blocks with id: {id}"
                )));
            }
        }
        let after = turns.get(nth + 1);
        let open: Vec<&str> = turn
            .calls
            .iter()
            .filter(|call| !after.is_some_and(|after| after.results.iter().any(|(id, ..)| id == *call)))
            .copied()
            .collect();
        if !open.is_empty() {
            return Err(Refusal::invalid(format!(
                "messages.{}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. \
                 Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
                turn.last,
                open.join(", ")
            )));
        }
    }
    Ok(())
}
