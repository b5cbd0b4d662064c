//! One conversation in memory: what the log has of it, in the form in which windows are made.

use super::fit::Gauge;
use super::summarise;
use crate::redaction::Vaults;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use tidegate_conversation::compress::Summary;
use tidegate_conversation::history::History;
use tidegate_conversation::message::{Message, Role, read_all};
use tidegate_conversation::recall::{INDEX_BYTES_MAX, Index};
use tidegate_conversation::window::{Standing, View};
use tidegate_redact::restore::Live;
use tidegate_store::{Address, History as Kept, Status, Store, StoreError, Turn};
use tidegate_wire::raw::RawObject;

/// How many of the last turns a retry may be one of (`docs/formats/conversations.md`).
const RECENT_MAX: usize = 8;
/// What a message takes in memory beside its bytes: its entry, and where its blocks are.
const MESSAGE_BYTES: usize = 256;
/// Bytes from which on a conversation is indexed as soon as it is read, where its index will be wanted:
/// it takes a few milliseconds, and more with more.
const INDEXED_AHEAD_BYTES: usize = 256 << 10;
/// How far the correction of estimates may go.
const RATIO: std::ops::RangeInclusive<f64> = 0.25..=4.0;
/// Version of a kept window's state.
const STATE_VERSION: u32 = 1;

/// A turn that a retry may be of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent {
    pub(super) number: u32,
    hash: [u8; 32],
    pub(super) status: Status,
}

/// A conversation.
#[derive(Default)]
pub(super) struct Talk {
    pub(super) history: History,
    /// What its last window left out.
    pub(super) view: View,
    /// A summary for the next cut.
    pub(super) ready: Option<Standing>,
    /// The newest summary, and the messages it stands for.
    pub(super) summarised: Option<(Summary, Range<usize>)>,
    /// Whether one is being made.
    pub(super) summarising: bool,
    /// The turn after which none came of it.
    pub(super) summary_failed: Option<u32>,
    /// How many messages there were after each turn.
    ends: Vec<usize>,
    recent: VecDeque<Recent>,
    index: Option<Index>,
    /// What the API counted of the last window over what was estimated.
    ratio: Option<f64>,
    /// Whether the model paused its last turn and is to be asked to go on.
    pub(super) paused: bool,
    /// What stands behind its tokens; gone while a body is being masked.
    pub(super) vaults: Option<Box<Vaults>>,
    bytes: usize,
}

/// What is kept of a window beside the turns. Derived: one that cannot be read is left out.
#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    view: View,
    ratio: Option<f64>,
}

impl Talk {
    /// An empty conversation of which the last window's view is known.
    pub(super) fn seen(view: View) -> Self {
        Talk { view, ..Talk::default() }
    }

    /// Reads a conversation from the log; an empty one if there is none. It may be as large as memory
    /// has room for, so it is taken apart on the log's reading thread, and this one goes on with its
    /// streams. `indexes` says that it may have to be searched.
    pub(super) async fn load(
        store: &Store,
        address: &Address,
        gauge: &Gauge,
        indexes: bool,
    ) -> Result<Self, StoreError> {
        let (mut talk, mut from) = (Talk::default(), 1);
        loop {
            let gauge = gauge.clone();
            let read = store.read_into(address.clone(), from, move |read| {
                talk.take_in(&read, &gauge, indexes)?;
                Ok((talk, read.next))
            });
            match read.await {
                Ok((whole, None)) => return Ok(whole),
                Ok((part, Some(next))) => (talk, from) = (part, next),
                Err(StoreError::NotFound) => return Ok(Talk::default()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Adds what was read of it; after the last turns, what stands beside them.
    fn take_in(&mut self, read: &Kept, gauge: &Gauge, indexes: bool) -> Result<(), StoreError> {
        for turn in &read.turns {
            self.add(turn, gauge)?;
        }
        if read.next.is_some() {
            return Ok(());
        }
        let window = read.window.as_ref().filter(|w| usize::try_from(w.turns).is_ok_and(|n| n <= self.ends.len()));
        if let Some(window) = window {
            self.put_state(&window.state);
        }
        let summaries = read.summaries.iter().filter_map(|summary| summarise::read(&summary.body));
        let newest = summaries.filter(|(_, range)| range.end <= self.history.len()).max_by_key(|(_, range)| range.end);
        if let Some((summary, range)) = newest {
            self.put_summary(summary, range);
        }
        if indexes && self.bytes >= INDEXED_AHEAD_BYTES {
            self.indexed();
        }
        Ok(())
    }

    /// There is a new summary.
    pub(super) fn put_summary(&mut self, summary: Summary, range: Range<usize>) {
        self.ready = Some(summary.stand(range.clone()));
        self.summarised = Some((summary, range));
    }

    fn add(&mut self, turn: &Turn, gauge: &Gauge) -> Result<(), StoreError> {
        let unreadable =
            |why: &dyn std::fmt::Display| StoreError::Corrupt(format!("turn {} cannot be read: {why}", turn.number));
        let asked = read_all(&Bytes::copy_from_slice(&turn.content.request)).map_err(|e| unreadable(&e))?;
        for message in asked {
            self.push(message, gauge).map_err(|e| unreadable(&e))?;
        }
        if let Some(answer) = &turn.content.answer {
            self.push_answer(answer, gauge).map_err(|e| unreadable(&e))?;
        }
        let paused = turn.content.stop_reason.as_deref() == Some("pause_turn");
        self.ended(turn.number, turn.content.request_hash, turn.content.status, paused);
        Ok(())
    }

    /// Adds a message, with its tokens as they are estimated today: what estimates learn later is in
    /// the conversation's own correction.
    pub(super) fn push(&mut self, message: Message, gauge: &Gauge) -> Result<(), String> {
        let (bytes, tokens) = (message.raw().len(), gauge.message(&message));
        self.history.push(message, tokens).map_err(|full| full.to_string())?;
        self.bytes += bytes + MESSAGE_BYTES;
        Ok(())
    }

    /// Adds an answer as the API gave it. One without content is none: the API takes no such message
    /// back.
    pub(super) fn push_answer(&mut self, answer: &[u8], gauge: &Gauge) -> Result<(), String> {
        let Some(message) = said(answer)? else { return Ok(()) };
        self.push(message, gauge)
    }

    /// A turn is in the log, and all of its messages are here.
    pub(super) fn ended(&mut self, number: u32, hash: Option<[u8; 32]>, status: Status, paused: bool) {
        self.ends.push(self.history.len());
        self.paused = paused;
        if let Some(hash) = hash {
            self.recent.push_back(Recent { number, hash, status });
        }
        while self.recent.front().is_some_and(|turn| number - turn.number >= RECENT_MAX as u32) {
            self.recent.pop_front();
        }
    }

    /// Takes back what was added since there were `len` messages.
    pub(super) fn take_back(&mut self, len: usize) {
        let gone: usize = self.history.entries().iter().skip(len).map(|e| e.message.raw().len() + MESSAGE_BYTES).sum();
        self.bytes -= gone;
        self.history.truncate(len);
        self.vaults.iter_mut().for_each(|vaults| vaults.forget_fresh());
        // It knows messages by number, and those after `len` will be others.
        self.index = None;
    }

    /// What its readers get for its tokens.
    pub(super) fn live(&self) -> Live {
        self.vaults.as_ref().map_or_else(Live::default, |vaults| vaults.live())
    }

    /// Turns in the log.
    pub(super) fn turns(&self) -> u32 {
        self.ends.len() as u32
    }

    /// The last turn that ends before message `id`, and how many messages there are up to it.
    pub(super) fn before(&self, id: usize) -> (u32, usize) {
        let turns = self.ends.partition_point(|end| *end <= id);
        (turns as u32, turns.checked_sub(1).map_or(0, |n| self.ends[n]))
    }

    /// The number of the turn that message `id` is of.
    pub(super) fn turn_of(&self, id: usize) -> u32 {
        self.ends.partition_point(|end| *end <= id) as u32 + 1
    }

    /// The recent turn that came of a body with this hash.
    pub(super) fn repeated(&self, hash: &[u8; 32]) -> Option<Recent> {
        self.recent.iter().rev().find(|turn| turn.hash == *hash).copied()
    }

    /// The history, and its index up to date.
    pub(super) fn indexed(&mut self) -> (&History, &Index) {
        let index = self.index.get_or_insert_with(|| Index::new(INDEX_BYTES_MAX));
        index.add(&self.history);
        (&self.history, index)
    }

    /// What estimates have to be multiplied by for this conversation.
    pub(super) fn ratio(&self) -> f64 {
        self.ratio.unwrap_or(1.0)
    }

    /// The API counted `actual` tokens where `estimated` were expected before any correction.
    pub(super) fn learn(&mut self, estimated: u64, actual: u64) {
        if estimated > 0 && actual > 0 {
            self.ratio = Some((actual as f64 / estimated as f64).clamp(*RATIO.start(), *RATIO.end()));
        }
    }

    /// What is kept of the window beside the turns.
    pub(super) fn state(&self, view: &View) -> Option<Vec<u8>> {
        serde_json::to_vec(&State { version: STATE_VERSION, view: view.clone(), ratio: self.ratio }).ok()
    }

    pub(super) fn put_state(&mut self, state: &[u8]) {
        if let Ok(state) = serde_json::from_slice::<State>(state)
            && state.version == STATE_VERSION
        {
            self.view = state.view;
            self.ratio = state.ratio.filter(|ratio| RATIO.contains(ratio));
        }
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> u64 {
        let summary = self.summarised.as_ref().map_or(0, |(summary, _)| 2 * summary.bytes());
        let vaults = self.vaults.as_ref().map_or(0, |vaults| vaults.bytes());
        (self.bytes + summary + vaults + self.index.as_ref().map_or(0, Index::bytes)) as u64
    }
}

/// What the model said, as a message that can be sent back: role and content, and none of the fields
/// that only answers have, nor texts without text, which the API gives but does not take. `None` if
/// it said nothing.
fn said(answer: &[u8]) -> Result<Option<Message>, String> {
    let object = RawObject::read(answer).map_err(|error| error.to_string())?;
    let content = object.get("content").ok_or("an answer without content")?.get();
    let content = without_empty_texts(content);
    if matches!(&*content, "[]" | "\"\"") {
        return Ok(None);
    }
    let raw = Bytes::from([b"{\"role\":\"assistant\",\"content\":", content.as_bytes(), b"}"].concat());
    let message = Message::read(raw).map_err(|error| error.to_string())?;
    debug_assert_eq!(message.role(), Role::Assistant);
    Ok(Some(message))
}

/// Blocks without those that are a text of nothing; the same bytes where there are none.
fn without_empty_texts(content: &str) -> Cow<'_, str> {
    let Ok(blocks) = serde_json::from_str::<Vec<&RawValue>>(content) else { return content.into() };
    let says = |block: &&RawValue| {
        let Ok(object) = RawObject::read(block.get().as_bytes()) else { return true };
        let text = || object.parse::<String>("text").is_some_and(|text| text.trim().is_empty());
        !(object.is("type", "text") && text())
    };
    let left: Vec<&str> = blocks.iter().copied().filter(says).map(RawValue::get).collect();
    if left.len() == blocks.len() { content.into() } else { format!("[{}]", left.join(",")).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::read(Bytes::from(format!(r#"{{"role":"user","content":"{text}"}}"#))).unwrap()
    }

    #[test]
    fn what_only_answers_have_is_not_sent_back() {
        let answer = br#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"a"}],"stop_reason":"end_turn","usage":{"input_tokens":1}}"#;
        let message = said(answer).unwrap().unwrap();
        assert_eq!(message.raw(), &br#"{"role":"assistant","content":[{"type":"text","text":"a"}]}"#[..]);
        assert!(said(br#"{"content":[]}"#).unwrap().is_none());
        // The API says such things, and refuses whoever says them back.
        let empty = br#"{"content":[{"type":"text","text":""},{"type":"text","text":"a", "b":1.50}]}"#;
        let left = br#"{"role":"assistant","content":[{"type":"text","text":"a", "b":1.50}]}"#;
        assert_eq!(said(empty).unwrap().unwrap().raw(), &left[..]);
        assert!(said(br#"{"content":[{"type":"text","text":"\n"}]}"#).unwrap().is_none());
        assert!(said(br#"{"role":"assistant"}"#).is_err());
    }

    #[test]
    fn turns_are_found_by_message_and_by_hash() {
        let (mut talk, gauge) = (Talk::default(), Gauge::default());
        for number in 1..=10u8 {
            talk.push(message("q"), &gauge).unwrap();
            talk.push_answer(br#"{"content":[{"type":"text","text":"a"}]}"#, &gauge).unwrap();
            talk.ended(number.into(), Some([number; 32]), Status::Complete, false);
        }
        assert_eq!(
            (talk.before(0), talk.before(1), talk.before(2), talk.before(19)),
            ((0, 0), (0, 0), (1, 2), (9, 18))
        );
        assert_eq!(talk.repeated(&[10; 32]).unwrap().number, 10);
        assert_eq!(talk.repeated(&[3; 32]).unwrap().number, 3);
        assert!(talk.repeated(&[2; 32]).is_none());
        let bytes = talk.bytes();
        talk.push(message("more"), &gauge).unwrap();
        talk.take_back(20);
        assert_eq!((talk.bytes(), talk.history.len(), talk.turns()), (bytes, 20, 10));
    }

    #[test]
    fn a_windows_state_survives_and_a_strange_one_is_left_out() {
        let mut talk = Talk::default();
        talk.learn(1_000, 1_500);
        let view = View { cut: 4, ..View::default() };
        let state = talk.state(&view).unwrap();
        let mut again = Talk::default();
        again.put_state(&state);
        assert_eq!((again.view, again.ratio), (view, Some(1.5)));
        for state in [&b"{}"[..], b"", br#"{"version":2,"view":{},"ratio":1.0}"#] {
            let mut other = Talk::default();
            other.put_state(state);
            assert_eq!(other.view, View::default());
        }
    }
}
