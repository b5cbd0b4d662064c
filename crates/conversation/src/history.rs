//! A conversation's messages in order, the atomic groups they form, and where a body belongs.
//!
//! ```text
//! user ─ assistant ─ user(result) ─ assistant │ user ─ assistant │ user ...
//! └────────────── a group ──────────────────┘   └── another ──┘
//! ```
//! An *atomic group* is a user turn and the whole tool loop that follows it, up to the next genuine
//! user turn. A turn is a run of messages of one role, as the API merges them; system messages
//! belong to the turn they follow. A user turn is genuine if it answers no tool call and follows the
//! assistant. Whatever is left out of a window is left out in whole groups, so a call never loses
//! its result.
//!
//! A body is placed by [`History::matches`]: it repeats the stored messages and goes on (only the
//! new suffix counts), it holds nothing but new messages, it repeats what is stored and no more, or
//! it says something else from some message on. What counts as the same message is said in
//! `same.rs`.

use crate::block::Kind;
use crate::message::{MESSAGES_MAX, Message, Role};
use crate::same::{Difference, difference};
use std::collections::BTreeSet;
use std::ops::Range;

/// A message and its estimated tokens.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The message.
    pub message: Message,
    /// What the caller estimates it at, see [`Message::tokens`].
    pub tokens: u64,
}

/// A conversation's messages. A message's index is its id: they are dense and never change.
#[derive(Clone, Debug, Default)]
pub struct History {
    entries: Vec<Entry>,
    /// First message of each group.
    starts: Vec<usize>,
    pins: BTreeSet<usize>,
}

/// There is no room for another message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the conversation has {MESSAGES_MAX} messages, the most it can have")
    }
}

impl std::error::Error for Full {}

/// What a body says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing: a body without an assistant's message that does not begin as the history does is
    /// taken for new messages only.
    Unknown,
    /// It holds only new messages.
    OnlyNew,
    /// It holds the whole history.
    Whole,
}

/// Where a body belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Nothing is stored: all of it seeds the conversation.
    Seeds,
    /// Its messages from this one on are new; 0 if it held only new ones.
    Continues {
        /// The first new message of the body.
        from: usize,
    },
    /// It is the first so many stored messages, and nothing more: a repeated request, or a step
    /// back.
    Repeats {
        /// How many.
        messages: usize,
    },
    /// It says something else from this message on.
    Diverges(Divergence),
}

/// Where and how a body departs from what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The first message that differs. A fork keeps the stored ones before it and takes the body's
    /// from it on.
    pub at: usize,
    /// How many messages are stored.
    pub stored: usize,
    /// In what it differs.
    pub difference: Difference,
}

impl std::fmt::Display for Divergence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "messages.{} is not what is stored ({} messages): {}", self.at, self.stored, self.difference)
    }
}

impl std::error::Error for Divergence {}

impl History {
    /// Adds a message at the end.
    pub fn push(&mut self, message: Message, tokens: u64) -> Result<(), Full> {
        if self.entries.len() == MESSAGES_MAX {
            return Err(Full);
        }
        let at = self.entries.len();
        if message.role() == Role::User {
            let answers = message.has(Kind::ToolResult);
            let before = self.entries.iter().rposition(|entry| entry.message.role() == Role::Assistant);
            let turn = before.map_or(0, |assistant| assistant + 1);
            let first = !self.entries[turn..].iter().any(|entry| entry.message.role() == Role::User);
            let genuine = self.starts.last().is_some_and(|start| *start >= turn);
            match (first, answers, genuine) {
                (true, false, _) => self.starts.push(at),
                // Text first and results after it: not a turn of its own after all.
                (false, true, true) if self.starts.len() > 1 => drop(self.starts.pop()),
                _ => {}
            }
        }
        if self.starts.is_empty() {
            self.starts.push(at);
        }
        self.entries.push(Entry { message, tokens });
        Ok(())
    }

    /// Takes away the messages from `len` on: a turn that is rolled back, or a fork's beginning.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.entries.len() {
            return;
        }
        let kept: Vec<Entry> = self.entries.drain(..).take(len).collect();
        self.starts.clear();
        for entry in kept {
            // No more than there were.
            let _ = self.push(entry.message, entry.tokens);
        }
        self.pins.retain(|pin| *pin < len);
    }

    /// Estimates all messages anew, after the estimate has learnt.
    pub fn estimate(&mut self, text: &dyn Fn(&[u8]) -> u64) {
        for entry in &mut self.entries {
            entry.tokens = entry.message.tokens(text);
        }
    }

    /// Pins a message: its group stays in the window, whole, from the next cut on.
    pub fn pin(&mut self, id: usize) {
        if id < self.entries.len() {
            self.pins.insert(id);
        }
    }

    /// Takes a pin away; holds from the next cut on.
    pub fn unpin(&mut self, id: usize) {
        self.pins.remove(&id);
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The messages, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many atomic groups there are.
    pub fn group_count(&self) -> usize {
        self.starts.len()
    }

    /// The messages of the `nth` group.
    pub fn group(&self, nth: usize) -> Range<usize> {
        let end = self.starts.get(nth + 1).copied().unwrap_or(self.entries.len());
        self.starts.get(nth).copied().unwrap_or(end)..end
    }

    /// The group a message is in.
    pub fn group_of(&self, id: usize) -> usize {
        self.starts.partition_point(|start| *start <= id).saturating_sub(1)
    }

    /// The first messages of groups that hold a pinned one.
    pub fn pinned_groups(&self) -> BTreeSet<usize> {
        self.pins.iter().map(|pin| self.starts[self.group_of(*pin)]).collect()
    }

    /// Tool calls of the last assistant turn that nothing has answered yet.
    pub fn open_calls(&self) -> usize {
        let last = self.entries.iter().rposition(|entry| entry.message.role() == Role::Assistant);
        let Some(last) = last else { return 0 };
        let answered: BTreeSet<&str> = self.entries[last..].iter().flat_map(|entry| entry.message.answers()).collect();
        let turn = self.entries[..=last].iter().rev().take_while(|entry| entry.message.role() == Role::Assistant);
        turn.flat_map(|entry| entry.message.calls()).filter(|call| !answered.contains(call)).count()
    }

    /// Where a body's messages belong.
    pub fn matches(&self, body: &[Message], form: Form) -> Match {
        if self.entries.is_empty() {
            return Match::Seeds;
        }
        if form == Form::OnlyNew {
            return Match::Continues { from: 0 };
        }
        let pairs = self.entries.iter().zip(body).enumerate();
        let differs = pairs.map(|(at, (entry, sent))| (at, difference(&entry.message, sent)));
        let first = differs.into_iter().find_map(|(at, difference)| Some((at, difference?)));
        match first {
            None if body.len() > self.entries.len() => Match::Continues { from: self.entries.len() },
            None => Match::Repeats { messages: body.len() },
            Some((0, _)) if form == Form::Unknown && body.iter().all(|m| m.role() != Role::Assistant) => {
                Match::Continues { from: 0 }
            }
            Some((at, difference)) => Match::Diverges(Divergence { at, stored: self.entries.len(), difference }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn user(text: &str) -> String {
        format!(r#"{{"role":"user","content":"{text}"}}"#)
    }
    fn assistant(text: &str) -> String {
        format!(r#"{{"role":"assistant","content":"{text}"}}"#)
    }
    fn call(id: &str) -> String {
        format!(r#"{{"role":"assistant","content":[{{"type":"tool_use","id":"{id}","name":"f","input":{{}}}}]}}"#)
    }
    fn result(id: &str) -> String {
        format!(r#"{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"{id}","content":"ok"}}]}}"#)
    }
    fn system() -> String {
        r#"{"role":"system","content":"be brief"}"#.to_owned()
    }
    fn message(text: &str) -> Message {
        Message::read(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }
    fn history(texts: &[String]) -> History {
        let mut history = History::default();
        texts.iter().for_each(|text| history.push(message(text), 10).unwrap());
        history
    }
    fn body(texts: &[String]) -> Vec<Message> {
        texts.iter().map(|text| message(text)).collect()
    }

    #[test]
    fn a_group_is_a_user_turn_and_its_tool_loop() {
        let h = history(&[
            user("a"),
            user("b"),
            system(),
            call("1"),
            result("1"),
            user("and"),
            call("2"),
            result("2"),
            assistant("x"),
            user("c"),
            assistant("y"),
        ]);
        assert_eq!((h.group_count(), h.group(0), h.group(1)), (2, 0..9, 9..11));
        assert_eq!((h.group_of(0), h.group_of(8), h.group_of(9)), (0, 0, 1));
        let mut shorter = h.clone();
        shorter.truncate(8);
        assert_eq!((shorter.len(), shorter.group_count(), shorter.group(0)), (8, 1, 0..8));
    }

    #[test]
    fn text_before_results_does_not_part_a_call_from_its_result() {
        let h = history(&[user("a"), assistant("b"), user("c"), call("1"), user("wait"), result("1"), assistant("d")]);
        assert_eq!((h.group_count(), h.group(1)), (2, 2..7));
    }

    #[test]
    fn open_calls_are_those_without_a_result() {
        assert_eq!(history(&[user("a"), call("1")]).open_calls(), 1);
        assert_eq!(history(&[user("a"), call("1"), call("2"), result("1")]).open_calls(), 1);
        assert_eq!(history(&[user("a"), call("1"), result("1")]).open_calls(), 0);
    }

    #[test]
    fn a_body_is_placed() {
        let stored = [user("a"), assistant("b")];
        let h = history(&stored);
        let with = |more: &[String]| body(&[&stored[..], more].concat());
        assert_eq!(History::default().matches(&body(&stored), Form::Unknown), Match::Seeds);
        assert_eq!(h.matches(&with(&[user("c")]), Form::Unknown), Match::Continues { from: 2 });
        assert_eq!(h.matches(&body(&[user("c")]), Form::Unknown), Match::Continues { from: 0 });
        assert_eq!(h.matches(&body(&stored), Form::Unknown), Match::Repeats { messages: 2 });
        assert_eq!(h.matches(&body(&[user("a")]), Form::Unknown), Match::Repeats { messages: 1 });
        assert_eq!(h.matches(&body(&[user("a")]), Form::OnlyNew), Match::Continues { from: 0 });
        let Match::Diverges(divergence) = h.matches(&body(&[user("a"), assistant("other"), user("c")]), Form::Unknown)
        else {
            panic!("it does not diverge")
        };
        assert_eq!((divergence.at, divergence.stored), (1, 2));
        assert!(divergence.to_string().starts_with("messages.1 is not what is stored (2 messages): its content"));
        assert!(!divergence.to_string().contains("other"));
        for (texts, form) in
            [(vec![user("z"), assistant("b"), user("c")], Form::Unknown), (vec![user("z")], Form::Whole)]
        {
            assert!(matches!(h.matches(&body(&texts), form), Match::Diverges(Divergence { at: 0, .. })));
        }
    }

    proptest::proptest! {
        #[test]
        fn a_history_cut_short_is_the_history_of_fewer(kinds in proptest::collection::vec(0u8..6, 1..40), at in 0usize..40) {
            let texts: Vec<String> = kinds.iter().enumerate().map(|(n, kind)| match kind {
                0 | 1 => user("a"),
                2 => assistant("b"),
                3 => call(&n.to_string()),
                4 => result(&(n.saturating_sub(1)).to_string()),
                _ => system(),
            }).collect();
            let mut whole = history(&texts);
            whole.truncate(at);
            proptest::prop_assert_eq!(&whole.starts, &history(&texts[..at.min(texts.len())]).starts);
            let groups: usize = (0..whole.group_count()).map(|nth| whole.group(nth).len()).sum();
            proptest::prop_assert_eq!(groups, whole.len());
        }
    }
}
