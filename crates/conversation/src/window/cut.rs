//! A new view for a window that has grown past its mark: what goes first, and how much of it.
//!
//! In this order, each step only as far as the low mark is not reached:
//!
//! 1. results of tools in older groups, the oldest first: elided, with a reference;
//! 2. thinking in older groups, whole;
//! 3. older groups: a summary that is ready takes the place of those it covers, further ones are
//!    dropped whole, the oldest first;
//! 4. if what is left is still more than half way up to the high mark: results of tools in the last
//!    groups, the oldest first, but never those the model has not seen yet (a tool loop can be
//!    longer than any mark);
//! 5. if it does not even fit: the last groups but the very last.
//!
//! "Older" is before the last `keep_groups`. What is pinned is not touched by any step. What the
//! user just said, system messages (see `carry`) and thinking of the last group are never lost.

use super::{Elided, Piece, Source, View, Wanted, pieces, rewrite};
use crate::block::{Block, Kind};
use crate::budget::{Marks, Rules};
use crate::history::History;
use crate::message::Role;
use std::ops::Range;

/// About what stands for an elided result.
const REFERENCE_BYTES: usize = 50;
/// About what the note takes that says how much is left out.
const NOTE_BYTES: usize = 150;

/// A view in the making, with what it costs.
struct Draft<'a> {
    history: &'a History,
    rules: Rules,
    estimate: crate::Estimate<'a>,
    view: View,
    /// Tokens of each message as the view shows it; 0 if it does not.
    tokens: Vec<u64>,
    sum: u64,
}

/// The view after a cut.
pub(super) fn cut(wanted: &Wanted<'_>, marks: &Marks) -> View {
    let history = wanted.history;
    let mut draft = Draft::begin(wanted);
    let keep = wanted.rules.keep_groups.max(1);
    let kept_from = history.group_count().saturating_sub(keep);
    let unseen = history.entries().iter().rposition(|entry| entry.message.role() == Role::Assistant);
    let unseen = unseen.map_or(0, |last| last + 1);

    draft.elide(0..kept_from, unseen, marks.low);
    draft.forget_thinking(kept_from, marks.low);
    draft.summarise(wanted, kept_from, marks.low);
    draft.drop_groups(kept_from, marks.low);
    if draft.sum > marks.middle() {
        draft.elide(kept_from..history.group_count(), unseen, marks.low);
    }
    draft.drop_groups(history.group_count().saturating_sub(1), marks.room);
    let cut = draft.view.cut;
    let view = draft.view;
    let elided = view.elided.iter().filter(|elided| elided.message >= cut).copied().collect();
    View { elided, ..view }
}

impl<'a> Draft<'a> {
    /// The view as it is, with the pins as they are now.
    fn begin(wanted: &Wanted<'a>) -> Self {
        let history = wanted.history;
        let mut view = wanted.view.clone();
        view.pinned = history.pinned_groups();
        let elided = std::mem::take(&mut view.elided);
        view.elided = elided.into_iter().filter(|elided| !view.is_pinned(history, elided.message)).collect();
        let mut tokens = vec![0; history.len()];
        let pieces: Vec<Piece> = pieces(history, &view, wanted.estimate);
        for piece in &pieces {
            if let Source::Message(id) = piece.source {
                tokens[id] = piece.tokens;
            }
        }
        let sum = super::sum(&pieces);
        Draft { history, rules: wanted.rules, estimate: wanted.estimate, view, tokens, sum }
    }

    /// Groups of this range that are in the window and may be touched.
    fn groups(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let history = self.history;
        let (cut, pinned) = (self.view.cut, self.view.pinned.clone());
        let groups = range.map(move |nth| history.group(nth));
        groups.filter(move |group| group.start >= cut && !pinned.contains(&group.start))
    }

    fn elide(&mut self, groups: Range<usize>, before: usize, target: u64) {
        for group in self.groups(groups) {
            for id in group.start..group.end.min(before) {
                if self.sum <= target {
                    return;
                }
                if self.history.entries()[id].message.role() == Role::User {
                    self.elide_in(id, target);
                }
            }
        }
    }

    /// Elides results of one message. It is written anew once and not for each of them: there may be
    /// thousands.
    fn elide_in(&mut self, id: usize, target: u64) {
        let message = &self.history.entries()[id].message;
        let stands = (self.estimate)(&[b'0'; REFERENCE_BYTES]);
        let mut about = self.sum;
        for (nth, block) in message.blocks().iter().enumerate() {
            if about <= target {
                break;
            }
            let Some(content) = worth_eliding(block, self.rules.elide_bytes_min) else { continue };
            let place = self.view.elided.partition_point(|e| (e.message, e.block) < (id, nth));
            if self.view.elided.get(place).is_some_and(|e| (e.message, e.block) == (id, nth)) {
                continue;
            }
            let tokens = rewrite::tokens_between(message, nth, content, self.estimate);
            self.view.elided.insert(place, Elided { message: id, block: nth, tokens });
            about = about.saturating_sub(tokens.saturating_sub(stands));
        }
        self.count(id);
    }

    fn forget_thinking(&mut self, groups_before: usize, target: u64) {
        for group in self.groups(0..groups_before) {
            if self.sum <= target {
                return;
            }
            self.view.thinking_before = self.view.thinking_before.max(group.end);
            for id in group.filter(|id| self.history.entries()[*id].message.has(Kind::Thinking)) {
                self.count(id);
            }
        }
    }

    /// Takes a summary that is ready, if it covers more than the one that stands.
    fn summarise(&mut self, wanted: &Wanted<'_>, groups_before: usize, target: u64) {
        let Some(ready) = wanted.summary.filter(|_| self.sum > target) else { return };
        let until = ready.until.min(self.history.len());
        let covers_more = self.view.summary.as_ref().is_none_or(|standing| standing.until < until);
        let border = self.history.group(self.history.group_of(until)).start == until;
        let protected = self.history.group(groups_before).start;
        if !covers_more || !border || until == 0 || until > protected {
            return;
        }
        let first = self.view.cut == 0;
        for nth in self.history.group_of(self.view.cut)..self.history.group_of(until) {
            self.drop_group(nth);
        }
        self.view.summary = Some(ready.clone());
        // It says itself what it stands for: no note.
        self.sum -= if first { self.note() } else { 0 };
        self.sum += (self.estimate)(ready.text.as_bytes());
    }

    fn drop_groups(&mut self, before: usize, target: u64) {
        let from = self.history.group_of(self.view.cut);
        for nth in from..before {
            if self.sum <= target {
                return;
            }
            self.drop_group(nth);
        }
    }

    fn drop_group(&mut self, nth: usize) {
        let group = self.history.group(nth);
        if self.view.cut == 0 {
            self.sum += self.note();
        }
        self.view.cut = self.view.cut.max(group.end);
        if self.view.pinned.contains(&group.start) {
            return;
        }
        for id in group {
            // System messages go on, see `carry`.
            let message = &self.history.entries()[id].message;
            if message.role() != Role::System || message.is_passing() {
                self.sum -= std::mem::take(&mut self.tokens[id]);
            }
        }
    }

    fn note(&self) -> u64 {
        (self.estimate)(&[b' '; NOTE_BYTES])
    }

    /// Counts a message anew.
    fn count(&mut self, id: usize) {
        let tokens = super::piece(self.history, &self.view, id, self.estimate).tokens;
        self.sum = self.sum + tokens - std::mem::replace(&mut self.tokens[id], tokens);
    }
}

/// The content of a tool result, if something is won by replacing it.
fn worth_eliding(block: &Block, bytes_min: usize) -> Option<Range<usize>> {
    let content = block.content.clone().filter(|_| block.kind == Kind::ToolResult)?;
    (content.len() >= bytes_min || !block.media.is_empty()).then_some(content)
}
