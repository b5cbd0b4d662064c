//! The messages to send: everything while it fits, and when it no longer does, what matters most.
//!
//! A window is a function of the history and a *view*: where it was cut, which tool results are
//! elided, up to where thinking is left out, which summary stands for what is gone. The caller keeps
//! the view. While the window stays below its high mark the view does not change, so each window
//! begins with the bytes of the one before and the prompt cache holds. A window that passes the mark
//! gets a new view, once, down to the low mark (`cut.rs` has the order of loss).
//!
//! ```text
//! ┌ head: summary, how much was left out        ─┐
//! │ pinned groups from before the cut            │ changes only
//! │ groups from the cut on, older ones elided    │ at a cut
//! │ (after the first user turn: system messages  │
//! │  from groups that are gone)                  │
//! │ ...                                         ─┘
//! │ the last group, its end what the user just said
//! └ recalled excerpts, before a system message that ends the list; never part of the prefix
//! ```
//! Head and excerpts are user messages of their own: the API merges them with their neighbours, and
//! no byte of the client's messages changes for them. Cache breakpoints are put in at the very end
//! (`marks.rs`), as `cache_control` is no part of the cached prefix.

mod cut;
mod marks;
mod part;
mod rewrite;

pub use marks::{BLOCKS_BETWEEN_MARKS, MARKS_MAX};
pub use part::{Fate, Part, What, Why};
pub use rewrite::user_text as user_message;

use crate::Estimate;
use crate::block::Kind;
use crate::budget::{Budget, Marks, Rules};
use crate::history::History;
use crate::message::{Message, Role};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// What a conversation's window leaves out; kept by the caller from one window to the next, and
/// with the conversation if its cached prefix is to outlive a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Messages before this one are out, unless their group is pinned. Always where a group begins.
    pub cut: usize,
    /// Tool results whose content is replaced, in order.
    pub elided: Vec<Elided>,
    /// Messages before this one are sent without their thinking.
    pub thinking_before: usize,
    /// What stands for messages that are out.
    pub summary: Option<Standing>,
    /// First messages of the groups that were pinned at the last cut: whole, whatever else.
    pub pinned: BTreeSet<usize>,
}

/// A tool result whose content is replaced by a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Elided {
    /// Which message.
    pub message: usize,
    /// Which block of it.
    pub block: usize,
    /// What it was estimated at; part of the text that stands for it, so it may not change.
    pub tokens: u64,
}

/// A summary that can stand for the messages from `from` to `until`. What is before was gone when
/// it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The first message it covers.
    pub from: usize,
    /// The first message it does not cover any more; where a group begins.
    pub until: usize,
    /// Its text.
    pub text: String,
}

/// All that one window is made from.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The conversation, the new turn included.
    pub history: &'a History,
    /// The view of the window before; the default for the first.
    pub view: &'a View,
    /// What fits.
    pub budget: Budget,
    /// How to cut.
    pub rules: Rules,
    /// A hash of the conversation's id, for the jitter of its marks.
    pub conversation: u64,
    /// A summary that is ready to be used at the next cut.
    pub summary: Option<&'a Standing>,
    /// Text for the end of the window, as [`crate::recall`] makes it; left out if there is no room.
    pub recalled: Option<&'a str>,
    /// Cache breakpoints on system prompt, tools or the body itself.
    pub marks_elsewhere: usize,
    /// Whether to set breakpoints where the messages have none: so if the client set none at all.
    pub set_marks: bool,
    /// The caller's estimate.
    pub estimate: Estimate<'a>,
}

/// A window.
#[derive(Clone, Debug)]
pub struct Window {
    /// The view it was made with, to be kept.
    pub view: View,
    /// The messages, in order, without the breakpoints set here.
    pub messages: Vec<Bytes>,
    /// The value of the body's `messages`, breakpoints set.
    pub body: Bytes,
    /// Estimated tokens of the messages.
    pub tokens: u64,
    /// Whether the view is new, so that the cached prefix ends at its head.
    pub is_cut: bool,
    /// What is in, elided or out, and why.
    pub parts: Vec<Part>,
}

/// There is no valid window that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// What the smallest one takes.
    pub tokens: u64,
    /// What there is room for.
    pub room: u64,
    /// What the room is made of.
    pub budget: Budget,
    /// Its largest messages with their tokens, the largest first.
    pub largest: Vec<(usize, u64)>,
}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Budget { window, max_tokens, margin, fixed } = self.budget;
        write!(
            f,
            "what has to be sent is about {} tokens, and {} fit: a window of {window} less {max_tokens} of max_tokens, \
             a margin of {margin} and {fixed} of system prompt and tools; largest:",
            self.tokens, self.room
        )?;
        for (nth, (message, tokens)) in self.largest.iter().enumerate() {
            write!(f, "{} messages.{message} with {tokens}", if nth == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl std::error::Error for TooLarge {}

/// Messages named in [`TooLarge`].
const LARGEST_MAX: usize = 5;

/// Where a message of a window comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Head,
    Carried,
    Message(usize),
    Recalled,
}

/// One message of a window before breakpoints are set.
#[derive(Clone, Debug)]
struct Piece {
    source: Source,
    role: Role,
    bytes: Bytes,
    /// The same with a breakpoint.
    marked: Option<Bytes>,
    tokens: u64,
    /// Its content blocks.
    blocks: usize,
}

impl View {
    /// Whether a message is in the window.
    pub fn shows(&self, history: &History, id: usize) -> bool {
        id >= self.cut || self.is_pinned(history, id)
    }

    /// Whether a message is in the window with everything it says.
    pub fn shows_whole(&self, history: &History, id: usize) -> bool {
        self.shows(history, id) && self.elided_in(id).is_empty()
    }

    /// This view where it suits the history. One that does not, because the conversation was forked
    /// or rolled back behind its cut, is of no use: the prefix it would keep is gone.
    fn suited(&self, history: &History) -> Cow<'_, View> {
        let begins = |id: usize| history.group(history.group_of(id)).start == id;
        let suits = (self.cut == 0 || (self.cut < history.len() && begins(self.cut)))
            && self.thinking_before <= history.len()
            && self.pinned.iter().all(|start| *start < history.len() && begins(*start))
            && self.elided.last().is_none_or(|elided| elided.message < history.len());
        if suits { Cow::Borrowed(self) } else { Cow::Owned(View::default()) }
    }

    fn is_pinned(&self, history: &History, id: usize) -> bool {
        !self.pinned.is_empty() && self.pinned.contains(&history.group(history.group_of(id)).start)
    }

    fn elided_in(&self, id: usize) -> &[Elided] {
        let from = self.elided.partition_point(|elided| elided.message < id);
        let to = self.elided.partition_point(|elided| elided.message <= id);
        &self.elided[from..to]
    }

    fn without_thinking(&self, history: &History, id: usize) -> bool {
        id < self.thinking_before && history.entries()[id].message.has(Kind::Thinking) && !self.is_pinned(history, id)
    }
}

impl Piece {
    fn ours(source: Source, role: Role, bytes: Bytes, blocks: usize, estimate: Estimate<'_>) -> Self {
        Piece { source, role, tokens: estimate(&bytes), bytes, marked: None, blocks }
    }
}

/// Makes a window.
pub fn build(wanted: &Wanted<'_>) -> Result<Window, TooLarge> {
    let suited = wanted.view.suited(wanted.history);
    let wanted = &Wanted { view: &suited, ..*wanted };
    let Wanted { history, view, estimate, .. } = *wanted;
    let marks = wanted.rules.marks(wanted.budget.room(), wanted.conversation);
    let now = pieces(history, view, estimate);
    let tokens = sum(&now);
    if tokens <= marks.high {
        return Ok(finish(wanted, view.clone(), now, false));
    }
    let (new, cut) = smaller(wanted, &marks);
    let (view, pieces, is_cut) = if is_worth(tokens, sum(&cut), &marks) {
        let changed = new != *view;
        (new, cut, changed)
    } else {
        (view.clone(), now, false)
    };
    if sum(&pieces) > marks.room {
        return Err(too_large(wanted.budget, &pieces));
    }
    Ok(finish(wanted, view, pieces, is_cut))
}

/// Whether a cut is made: it must be, or it saves enough.
fn is_worth(before: u64, after: u64, marks: &Marks) -> bool {
    before > marks.room || before.saturating_sub(after) >= marks.gain_min().max(1)
}

/// The view after a cut. What a cut counts with is close to the truth but not it (what we write
/// ourselves is known only when it is written); if the window comes out too large, it is cut again
/// with less room, each time by twice as much.
fn smaller(wanted: &Wanted<'_>, marks: &Marks) -> (View, Vec<Piece>) {
    const TRIES_MAX: u32 = 8;
    let mut marks = *marks;
    let room = marks.room;
    let mut tries = 0;
    loop {
        let view = cut::cut(wanted, &marks);
        let pieces = pieces(wanted.history, &view, wanted.estimate);
        let over = sum(&pieces).saturating_sub(room);
        tries += 1;
        if over == 0 || tries == TRIES_MAX {
            return (view, pieces);
        }
        marks.room = marks.room.saturating_sub(over << tries);
        marks.high = marks.high.min(marks.room);
        marks.low = marks.low.min(marks.room);
    }
}

fn sum(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.tokens).sum()
}

fn too_large(budget: Budget, pieces: &[Piece]) -> TooLarge {
    let mut largest: Vec<(usize, u64)> = pieces
        .iter()
        .filter_map(|piece| match piece.source {
            Source::Message(id) => Some((id, piece.tokens)),
            _ => None,
        })
        .collect();
    largest.sort_by_key(|(id, tokens)| (std::cmp::Reverse(*tokens), *id));
    largest.truncate(LARGEST_MAX);
    TooLarge { tokens: sum(pieces), room: budget.room(), budget, largest }
}

/// The messages that a view shows.
fn pieces(history: &History, view: &View, estimate: Estimate<'_>) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(history.len() - view.cut + 8);
    if let Some((bytes, blocks)) = rewrite::head(history, view) {
        pieces.push(Piece::ours(Source::Head, Role::User, bytes, blocks, estimate));
    }
    let before = view.pinned.range(..view.cut).flat_map(|start| history.group(history.group_of(*start)));
    pieces.extend(before.chain(view.cut..history.len()).map(|id| piece(history, view, id, estimate)));
    carry(history, view, &mut pieces, estimate);
    pieces
}

fn piece(history: &History, view: &View, id: usize, estimate: Estimate<'_>) -> Piece {
    let entry = &history.entries()[id];
    let source = Source::Message(id);
    let new = rewrite::shown(&entry.message, view.elided_in(id), view.without_thinking(history, id));
    let tokens = new.as_ref().map_or(entry.tokens, |new| new.tokens(estimate));
    let message = new.as_ref().unwrap_or(&entry.message);
    let (role, blocks) = (message.role(), message.blocks().len());
    Piece { source, role, bytes: message.raw().clone(), marked: None, tokens, blocks }
}

/// System messages of groups that are gone still hold: they stand after the first user turn, where
/// the API takes them, with the one that is there already if there is.
fn carry(history: &History, view: &View, pieces: &mut Vec<Piece>, estimate: Estimate<'_>) {
    let gone = (0..view.cut).filter(|id| history.entries()[*id].message.role() == Role::System);
    let mut gone: Vec<usize> =
        gone.filter(|id| !history.entries()[*id].message.is_passing() && !view.is_pinned(history, *id)).collect();
    if gone.is_empty() {
        return;
    }
    let at = pieces.iter().position(|piece| piece.role != Role::User).unwrap_or(pieces.len());
    let own = pieces.get(at).filter(|piece| piece.role == Role::System).map(|piece| piece.source);
    if let Some(Source::Message(id)) = own {
        // Of two instructions the later one holds: they stay in order.
        gone.insert(gone.partition_point(|other| *other < id), id);
        pieces.remove(at);
    }
    let messages: Vec<&Message> = gone.iter().map(|id| &history.entries()[*id].message).collect();
    let (bytes, blocks) = rewrite::joined_system(&messages);
    pieces.insert(at, Piece::ours(own.unwrap_or(Source::Carried), Role::System, bytes, blocks, estimate));
}

/// Puts in what comes at the end, the breakpoints, and the account of it all.
fn finish(wanted: &Wanted<'_>, view: View, mut pieces: Vec<Piece>, is_cut: bool) -> Window {
    marks::choose(&mut pieces, wanted.marks_elsewhere, wanted.set_marks);
    let mut tokens = sum(&pieces);
    let mut late = None;
    if let Some(text) = wanted.recalled {
        let recalled = Piece::ours(Source::Recalled, Role::User, rewrite::user_text(text), 1, wanted.estimate);
        let end = pieces.iter().rposition(|piece| piece.role != Role::System).map_or(0, |last| last + 1);
        let after_user = end > 0 && pieces[end - 1].role == Role::User;
        let fits = tokens + recalled.tokens <= wanted.budget.room();
        late = Some((recalled.tokens, after_user && fits));
        if after_user && fits {
            tokens += recalled.tokens;
            pieces.insert(end, recalled);
        }
    }
    let parts = part::account(wanted, &view, &pieces, late);
    let body = write(&pieces);
    let messages = pieces.into_iter().map(|piece| piece.bytes).collect();
    Window { view, messages, body, tokens, is_cut, parts }
}

/// The value of `messages`.
fn write(pieces: &[Piece]) -> Bytes {
    let texts = pieces.iter().map(|piece| piece.marked.as_ref().unwrap_or(&piece.bytes));
    let mut out = Vec::with_capacity(texts.clone().map(|text| text.len() + 1).sum::<usize>() + 1);
    out.push(b'[');
    for (nth, text) in texts.enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        out.extend_from_slice(text);
    }
    out.push(b']');
    Bytes::from(out)
}

#[cfg(test)]
mod tests;
