//! The account of a window: what is in, elided or out, what it costs, and why.
//!
//! Messages that are out are told in runs, those that are in one by one, so the account is no longer
//! than the window. Images and documents are counted in every line: none goes without one.

use super::{Piece, Source, View, Wanted};
use crate::history::History;
use serde::Serialize;
use std::ops::Range;

/// One line of the account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is about.
    pub what: What,
    /// Its estimated tokens: as sent if it is in, as it was if it is out.
    pub tokens: u64,
    /// Images and documents that belong to it.
    pub media: usize,
    /// What became of it.
    pub fate: Fate,
}

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// System prompt and tools.
    Fixed,
    /// The summary and the note at the window's head.
    Head,
    /// System messages from groups that are gone.
    System,
    /// Stored messages, by their ids.
    Messages {
        /// The first.
        from: usize,
        /// One past the last.
        until: usize,
    },
    /// Excerpts at the end.
    Recalled,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is sent as it is.
    In(Why),
    /// It is sent, with less in it.
    Elided {
        /// Why it is sent at all.
        why: Why,
        /// Tool results whose content is replaced.
        results: usize,
        /// Whether its thinking is left out.
        thinking: bool,
        /// What it would have cost whole.
        tokens_whole: u64,
    },
    /// It is not sent.
    Out(Why),
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It always is.
    Always,
    /// It is pinned.
    Pinned,
    /// It belongs to a tool loop that waits for an answer.
    OpenToolLoop,
    /// It is among the last groups.
    Recent,
    /// There was room at the last cut, or it came since.
    Fits,
    /// A summary stands for it.
    Summarised,
    /// It was the oldest when the window was cut.
    Oldest,
    /// There is no room for it in this window.
    NoRoom,
    /// The list does not end with the user.
    NoPlace,
}

/// Accounts for everything. `late` tells what the excerpts cost and whether they are in.
pub(super) fn account(wanted: &Wanted<'_>, view: &View, pieces: &[Piece], late: Option<(u64, bool)>) -> Vec<Part> {
    let history = wanted.history;
    let mut parts =
        vec![Part { what: What::Fixed, tokens: wanted.budget.fixed, media: 0, fate: Fate::In(Why::Always) }];
    parts.extend(out(history, view));
    let recent = history.group_count().saturating_sub(wanted.rules.keep_groups.max(1));
    let recent = history.group(recent).start;
    for piece in pieces {
        let line = |what, media, fate| Part { what, tokens: piece.tokens, media, fate };
        parts.push(match piece.source {
            Source::Head => line(What::Head, 0, Fate::In(Why::Always)),
            Source::Carried => line(What::System, 0, Fate::In(Why::Always)),
            Source::Recalled => continue,
            Source::Message(id) => {
                let message = &history.entries()[id].message;
                let what = What::Messages { from: id, until: id + 1 };
                line(what, message.media().count(), fate(history, view, id, recent))
            }
        });
    }
    if let Some((tokens, is_in)) = late {
        let room = wanted.budget.room();
        let needed = pieces.iter().map(|piece| piece.tokens).sum::<u64>() + tokens;
        let fate = match is_in {
            true => Fate::In(Why::Recent),
            false if needed > room => Fate::Out(Why::NoRoom),
            false => Fate::Out(Why::NoPlace),
        };
        parts.push(Part { what: What::Recalled, tokens, media: 0, fate });
    }
    parts
}

fn fate(history: &History, view: &View, id: usize, recent: usize) -> Fate {
    let last = history.group(history.group_count().saturating_sub(1));
    let why = if view.is_pinned(history, id) {
        Why::Pinned
    } else if last.contains(&id) && last.len() > 1 && in_a_loop(history, &last) {
        Why::OpenToolLoop
    } else if id >= recent {
        Why::Recent
    } else {
        Why::Fits
    };
    let results = view.elided_in(id).len();
    let thinking = view.without_thinking(history, id);
    if results == 0 && !thinking {
        return Fate::In(why);
    }
    Fate::Elided { why, results, thinking, tokens_whole: history.entries()[id].tokens }
}

/// Whether the group ends with a call or its results, so that the model has still to go on.
fn in_a_loop(history: &History, group: &Range<usize>) -> bool {
    let last = &history.entries()[group.end - 1].message;
    last.calls().next().is_some() || last.answers().next().is_some()
}

/// Runs of messages that are out.
fn out(history: &History, view: &View) -> Vec<Part> {
    let covered = view.summary.as_ref().map_or(0..0, |summary| summary.from..summary.until);
    let mut parts: Vec<Part> = Vec::new();
    let groups = (0..history.group_count()).map(|nth| history.group(nth)).take_while(|group| group.start < view.cut);
    for group in groups.filter(|group| !view.pinned.contains(&group.start)) {
        let why = if covered.contains(&group.start) { Why::Summarised } else { Why::Oldest };
        let entries = &history.entries()[group.clone()];
        let tokens = entries.iter().map(|entry| entry.tokens).sum::<u64>();
        let media = entries.iter().map(|entry| entry.message.media().count()).sum::<usize>();
        match parts.last_mut() {
            Some(Part { what: What::Messages { until, .. }, tokens: t, media: m, fate })
                if *until == group.start && *fate == Fate::Out(why) =>
            {
                *until = group.end;
                *t += tokens;
                *m += media;
            }
            _ => {
                let what = What::Messages { from: group.start, until: group.end };
                parts.push(Part { what, tokens, media, fate: Fate::Out(why) });
            }
        }
    }
    parts
}
