//! The rules of a valid window, written from the API's documentation and not with the room's code:
//! JSON as serde_json gives it, and the conversation as the client said it.
//!
//! 1. The first message is the user's and answers no tool.
//! 2. Each tool call has one result in the turn that follows, before anything else there; no result
//!    without a call.
//! 3. The last word is the user's.
//! 4. Thinking is sent as it came, a message's all or none, and all of the current tool loop.
//! 5. No empty text.
//! 6. No more tokens than there is room for.
//! 7. System messages stand where the API takes them.
//! 8. At most four cache marks; ours are close enough together.
//! 9. What is sent is what was said: in order, in whole groups, changed only by elision; the last
//!    turn and all system messages are there, and no image or document is gone without a line.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Verdict = Result<(), String>;

macro_rules! must {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

fn role(message: &Value) -> &str {
    message["role"].as_str().unwrap_or("")
}

/// A message with its content as blocks, marks taken away: the form in which all are compared.
pub(crate) fn plain(mut message: Value) -> Value {
    let content = match message["content"].take() {
        Value::String(text) => vec![serde_json::json!({"type": "text", "text": text})],
        Value::Array(mut blocks) => {
            for fields in blocks.iter_mut().filter_map(Value::as_object_mut) {
                fields.shift_remove("cache_control");
            }
            blocks
        }
        _ => Vec::new(),
    };
    message["content"] = Value::Array(content);
    message
}

/// The blocks of a plain message.
fn blocks(message: &Value) -> &[Value] {
    message["content"].as_array().map_or(&[], Vec::as_slice)
}

fn kind(block: &Value) -> &str {
    block["type"].as_str().unwrap_or("")
}

fn thinks(block: &Value) -> bool {
    matches!(kind(block), "thinking" | "redacted_thinking")
}

/// Runs of one role, system messages aside.
fn turns(messages: &[Value]) -> Vec<(&str, Vec<&Value>)> {
    let mut turns: Vec<(&str, Vec<&Value>)> = Vec::new();
    for message in messages.iter().filter(|message| role(message) != "system") {
        match turns.last_mut() {
            Some((who, all)) if *who == role(message) => all.extend(blocks(message)),
            _ => turns.push((role(message), blocks(message).iter().collect())),
        }
    }
    turns
}

/// Rules 1, 2, 3, 5 and 7.
pub(crate) fn well_formed(messages: &[Value]) -> Verdict {
    let turns = turns(messages);
    let first = turns.first().ok_or("no messages")?;
    must!(first.0 == "user", "the first message is not the user's");
    must!(turns.last().is_some_and(|turn| turn.0 == "user"), "the last word is not the user's");
    let mut before: BTreeSet<String> = BTreeSet::new();
    for (nth, (who, blocks)) in turns.iter().enumerate() {
        let id = |block: &Value, field: &str| block[field].as_str().unwrap_or("").to_owned();
        let mut open = std::mem::take(&mut before);
        let mut results_over = false;
        for block in blocks {
            must!(!(kind(block) == "text" && block["text"] == ""), "turn {nth}: an empty text");
            if kind(block) == "tool_result" {
                must!(!results_over, "turn {nth}: a result after something else");
                must!(open.remove(&id(block, "tool_use_id")), "turn {nth}: a result without a call");
            } else {
                results_over = true;
            }
            if kind(block) == "tool_use" {
                must!(before.insert(id(block, "id")), "turn {nth}: two calls of one id");
            }
        }
        must!(!blocks.is_empty(), "turn {nth} is empty");
        must!(open.is_empty(), "turn {nth}: {} calls have no result", open.len());
        must!(*who == "assistant" || before.is_empty(), "turn {nth}: the user calls a tool");
    }
    for at in (0..messages.len()).filter(|at| role(&messages[*at]) == "system") {
        must!(at > 0 && role(&messages[at - 1]) == "user", "message {at}: a system message that follows no user");
        must!(messages.get(at + 1).is_none_or(|next| role(next) == "assistant"), "message {at}: a system message amid");
    }
    Ok(())
}

/// Rule 8. `ours`: whether the client set none, so that the marks are ours.
pub(crate) fn marked(messages: &[Value], elsewhere: usize, ours: bool) -> Verdict {
    let mut at = Vec::new();
    let mut total = 0;
    // System messages take no mark; a run of them too long to be looked across cannot be helped.
    for message in messages.iter().filter(|message| role(message) != "system") {
        match &message["content"] {
            Value::Array(blocks) => {
                for block in blocks {
                    if block["cache_control"].is_object() {
                        must!(!thinks(block) && block["text"] != "", "a mark where none may be");
                        at.push(total);
                    }
                    total += 1;
                }
            }
            _ => total += 1,
        }
    }
    must!(at.len() + elsewhere <= 4, "{} marks and {elsewhere} elsewhere", at.len());
    if ours && elsewhere < 4 {
        // Where thinking or a system message is in the way, a mark stands a few blocks earlier.
        let last = at.last().copied().ok_or("no mark of ours")?;
        must!(total - last <= 6, "the last mark is {} blocks before the end", total - last);
        let wide = at.windows(2).find(|pair| pair[1] - pair[0] > 20);
        must!(wide.is_none(), "marks at {wide:?} are too far apart to be found");
        let enough = at.len() + elsewhere == 4 || at[0] <= 20;
        must!(enough, "only {} marks for {total} blocks", at.len());
    }
    Ok(())
}

/// What was sent beside what was said.
pub(crate) struct Account {
    /// Source index of each message sent; `None` for ours.
    pub(crate) from: Vec<Option<usize>>,
}

/// Rules 4 and 9. `said` is the whole conversation, `pinned` groups of it must be there.
pub(crate) fn faithful(sent: &[Value], said: &[Value], pinned: &BTreeSet<usize>) -> Result<Account, String> {
    let mut from = Vec::new();
    let mut next = 0;
    for (at, message) in sent.iter().enumerate() {
        let found = if is_head(message) { None } else { find(message, &said[next..], next) };
        if let Some(id) = found {
            next = id + 1;
        } else {
            must!(
                at == 0 || role(message) == "system" || is_recalled(message),
                "message {at} was never said: {message:.600}"
            );
        }
        from.push(found);
    }
    let groups = groups(said);
    let there: BTreeSet<usize> = from.iter().flatten().copied().collect();
    let mut suffix = false;
    for (nth, group) in groups.iter().enumerate() {
        let members: Vec<usize> = group.clone().filter(|id| role(&said[*id]) != "system").collect();
        let count = members.iter().filter(|id| there.contains(id)).count();
        must!(count == 0 || count == members.len(), "group {nth} is torn: {count} of {}", members.len());
        let kept_before = pinned.iter().any(|pin| group.contains(pin));
        must!(count > 0 || !suffix, "group {nth} is missing from the middle");
        must!(count > 0 || !kept_before, "group {nth} is pinned and gone");
        suffix |= count > 0 && !kept_before;
    }
    let last = groups.last().cloned().unwrap_or(0..0);
    let unseen = said.iter().rposition(|message| role(message) == "assistant").map_or(0, |at| at + 1);
    for (message, id) in sent.iter().zip(&from) {
        let Some(id) = *id else { continue };
        let (ours, theirs) = (blocks(message), blocks(&said[id]));
        let thoughts = theirs.iter().filter(|block| thinks(block)).count();
        let kept = ours.iter().filter(|block| thinks(block)).count();
        must!(kept == 0 || kept == thoughts, "message {id}: {kept} of {thoughts} thoughts");
        must!(kept == thoughts || !last.contains(&id), "message {id}: thinking of the current loop is gone");
        if role(message) != "system" {
            must!(id < unseen || ours == theirs, "message {id} is of the last turn and was changed");
        }
    }
    must!((unseen..said.len()).all(|id| there.contains(&id)), "the last turn is not whole");
    let system = |all: &[Value]| -> BTreeSet<String> {
        all.iter().filter(|message| role(message) == "system").flat_map(blocks).map(Value::to_string).collect()
    };
    must!(system(sent) == system(said), "system messages are not what they were");
    Ok(Account { from })
}

fn find(message: &Value, said: &[Value], first: usize) -> Option<usize> {
    if role(message) == "system" {
        // Its own, with those of groups that are gone: right behind the turn it follows.
        let own = said.first().filter(|own| role(own) == "system");
        let there = own.is_some_and(|own| blocks(own).iter().all(|block| blocks(message).contains(block)));
        return there.then_some(first);
    }
    let same = said.iter().enumerate().position(|(nth, said)| same_but_elided(message, said, first + nth));
    same.map(|nth| first + nth)
}

fn is_head(message: &Value) -> bool {
    message["content"][0]["text"]
        .as_str()
        .is_some_and(|text| text.starts_with("<conversation-summary>") || text.contains(" earlier messages of this"))
}

pub(crate) fn is_recalled(message: &Value) -> bool {
    message["content"][0]["text"].as_str().is_some_and(|text| text.starts_with("<recalled>"))
}

/// Whether a message sent is this one, as it was or with results elided and thinking left out.
fn same_but_elided(sent: &Value, said: &Value, id: usize) -> bool {
    if role(sent) != role(said) {
        return false;
    }
    let (ours, theirs) = (blocks(sent), blocks(said));
    if !ours.iter().any(thinks) && ours.len() < theirs.len() {
        return ours.iter().eq(theirs.iter().filter(|block| !thinks(block)));
    }
    let same = |(nth, (ours, theirs)): (usize, (&Value, &Value))| {
        ours == theirs || (kind(ours) == "tool_result" && elided(ours, theirs, &format!(", ref m{id}.{nth}]")))
    };
    ours.len() == theirs.len() && ours.iter().zip(theirs).enumerate().all(same)
}

/// Whether a result is another one with its content replaced by this reference.
fn elided(ours: &Value, theirs: &Value, reference: &str) -> bool {
    let (Some(ours), Some(theirs)) = (ours.as_object(), theirs.as_object()) else { return false };
    let replaced = |text: &str| text.starts_with("[elided: ") && text.ends_with(reference);
    ours.keys().eq(theirs.keys())
        && ours.iter().all(|(key, value)| {
            if key == "content" { value.as_str().is_some_and(replaced) } else { theirs.get(key) == Some(value) }
        })
}

/// Groups of a conversation, by the rule's words: from a user's turn that answers no tool to the next.
pub(crate) fn groups(said: &[Value]) -> Vec<std::ops::Range<usize>> {
    let mut starts = Vec::new();
    let mut speaker = "";
    for (at, message) in said.iter().enumerate().filter(|(_, message)| role(message) != "system") {
        let answers = blocks(message).iter().any(|block| kind(block) == "tool_result");
        if role(message) == "user" && speaker != "user" && (!answers || starts.is_empty()) {
            starts.push(at);
        }
        speaker = role(message);
    }
    let ends = starts.iter().skip(1).copied().chain([said.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// Images and documents anywhere in a value.
pub(crate) fn media(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(media).sum(),
        Value::Object(fields) => {
            let here = matches!(fields.get("type").and_then(Value::as_str), Some("image" | "document"));
            usize::from(here) + fields.values().map(media).sum::<usize>()
        }
        _ => 0,
    }
}

/// Results shorter than this stay: what would stand for them is no shorter by much.
const WORTH_BYTES: usize = 400;

/// Rule 6, and the lower bound below which no valid window goes: how many tokens the messages have
/// that may not be left out.
pub(crate) fn least(said: &[Value], texts: &[String], pinned: &BTreeSet<usize>, cost: &dyn Fn(&str) -> u64) -> u64 {
    let groups = groups(said);
    let unseen = said.iter().rposition(|message| role(message) == "assistant").map_or(0, |at| at + 1);
    let mut sum = 0;
    for (nth, group) in groups.iter().enumerate() {
        let is_pinned = pinned.iter().any(|pin| group.contains(pin));
        let last = nth + 1 == groups.len();
        for id in group.clone() {
            let whole = cost(&texts[id]);
            if role(&said[id]) == "system" || is_pinned || (last && id >= unseen) {
                sum += whole;
            } else if last {
                let mut shorter = said[id].clone();
                for block in shorter["content"].as_array_mut().into_iter().flatten() {
                    let worth = |content: &Value| content.to_string().len() >= WORTH_BYTES || media(content) > 0;
                    if kind(block) == "tool_result" && block.get("content").is_some_and(worth) {
                        block["content"] =
                            Value::from("[elided: 999,999 tokens with 1 image or document, ref m999.99]");
                    }
                }
                sum += cost(&shorter.to_string()).min(whole);
            }
        }
    }
    sum
}

/// Counts by kind, for the report.
pub(crate) type Tally = BTreeMap<&'static str, u64>;
