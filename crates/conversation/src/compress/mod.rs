//! Summaries made ahead of a cut: when, of what, by which request, and what of the answer is
//! believed.
//!
//! 1. [`plan`] looks at a conversation whose window has passed its soft mark and says which messages
//!    a summary should stand for, if it pays.
//! 2. The caller sends the window as it is with [`Plan::request`] at its end, in the background: all
//!    of it but the last message is a cache read. The request asks for JSON in words; asking by
//!    `output_config` would change what the API puts before the messages, and with it the prefix.
//! 3. [`Summary::believe`] reads the answer and drops every item that says what its source does not
//!    (`check.rs`).
//! 4. [`Summary::fold`] joins it with the summary before it, [`Summary::stand`] makes the text that
//!    the next cut puts in the messages' place. If it comes late, the cut is made without it.
//!
//! # Whether it pays
//! In units of uncached input tokens, with r the price of reading from the cache, w of writing to
//! it, o of output:
//! ```text
//! costs   r·T + w·q + o·s + (w - r)·A     one summary: the window T is read, the request q written,
//!                                         the summary s produced; what stays (A, the low mark) is written anew
//! saves   r·(R - s)·b                     in each of b later turns, s is read and not the range R
//! b     = min(m - u, n),  u = (H - T)/g   turns after the cut and before the next: of the m that
//! n     = (H - A)/g                       are expected, those to the cut do not count
//! ```
//! g is what a turn has added on average. A conversation is expected to go on for as many turns as
//! it has had, unless the caller knows better. Prices are shares of that of input; the usual ones are
//! r = 0.1, w = 1.25, o = 5.

mod check;
mod summary;

pub use summary::{Doubt, Dropped, Fact, NotASummary, Summary};

use crate::Estimate;
use crate::budget::Marks;
use crate::history::History;
use crate::message::Role;
use crate::window::View;
use bytes::Bytes;
use std::fmt::Write;
use std::ops::Range;

/// Prices relative to uncached input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// Reading from the cache.
    pub read: f64,
    /// Writing to it.
    pub write: f64,
    /// Output.
    pub output: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Prices { read: 0.1, write: 1.25, output: 5.0 }
    }
}

/// What a plan is made from.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// The conversation, the last answer included.
    pub history: &'a History,
    /// The view of its last window.
    pub view: &'a View,
    /// A summary that is ready and not in the window yet covers the messages before this one.
    pub ready_until: usize,
    /// Tokens of its last window with the answer.
    pub tokens: u64,
    /// Its marks.
    pub marks: Marks,
    /// Prices.
    pub prices: Prices,
    /// Turns that are still to come, if the caller knows; otherwise as many as there were.
    pub turns_expected: Option<u64>,
    /// The caller's estimate.
    pub estimate: Estimate<'a>,
}

/// A summary that should be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The messages it stands for; what a summary before it covers is taken over by a fold.
    pub range: Range<usize>,
    /// The user message that asks for it, to be put behind the window's last message.
    pub request: Bytes,
    /// What it costs, in uncached input tokens.
    pub costs: f64,
    /// What it saves.
    pub saves: f64,
}

/// What a summary is expected to take, tokens; also the `max_tokens` to ask with.
pub const SUMMARY_TOKENS: u64 = 2_000;
/// Turns by which a window passes its high mark before it is cut.
const TURNS_LATE: u64 = 2;
/// Places that are named in the request. More would only be paid for.
const PLACES_MAX: usize = 100;
/// Characters of a place's first words.
const PLACE_CHARS: usize = 48;

/// Whether a summary should be made now, and of what.
///
/// `None` if the window is below its soft mark, if it ends in an open tool call or with the user (a
/// request can only be put behind an answer), if there is nothing old enough, or if it does not pay.
pub fn plan(now: &Situation<'_>) -> Option<Plan> {
    let Situation { history, view, marks, .. } = *now;
    let answered = history.entries().last().is_some_and(|entry| entry.message.role() == Role::Assistant);
    if now.tokens < marks.soft || !answered || history.open_calls() > 0 {
        return None;
    }
    let standing = view.summary.as_ref().map_or(0, |summary| summary.until);
    if now.ready_until > standing.max(view.cut) {
        return None;
    }
    let covered = standing.max(now.ready_until);
    // By the time of the cut the window has grown to its high mark, and a turn or two beyond. What
    // stays is what will then fit under the low mark, beside what is still to come and the summary.
    let to_come = marks.high.saturating_sub(now.tokens) + TURNS_LATE * growth(history);
    let keep = marks.low.saturating_sub(to_come);
    let mut stays = SUMMARY_TOKENS;
    let mut until = history.len();
    for nth in (0..history.group_count()).rev() {
        let group = history.group(nth);
        let tokens: u64 = history.entries()[group.clone()].iter().map(|entry| entry.tokens).sum();
        if until < history.len() && stays + tokens > keep {
            break;
        }
        stays += tokens;
        until = group.start;
    }
    // What was cut away before is not there to be summarised.
    let range = covered.max(view.cut)..until;
    if range.is_empty() {
        return None;
    }
    let request = crate::window::user_message(&request(history, range.clone()));
    let (costs, saves) = balance(now, &range, (now.estimate)(&request));
    (saves > costs).then_some(Plan { range, request, costs, saves })
}

/// What a turn has added on average.
fn growth(history: &History) -> u64 {
    let all: u64 = history.entries().iter().map(|entry| entry.tokens).sum();
    (all / history.group_count().max(1) as u64).max(1)
}

/// What a summary costs and saves, see above.
fn balance(now: &Situation<'_>, range: &Range<usize>, request: u64) -> (f64, f64) {
    let Prices { read, write, output } = now.prices;
    let history = now.history;
    let (turns, growth, stays) = (history.group_count() as u64, growth(history), now.marks.low);
    let replaced: u64 = history.entries()[range.clone()].iter().map(|entry| entry.tokens).sum();
    let until_cut = now.marks.high.saturating_sub(now.tokens) / growth;
    let until_next = now.marks.high.saturating_sub(stays) / growth;
    let turns_expected = now.turns_expected.unwrap_or(turns);
    let better = turns_expected.saturating_sub(until_cut).min(until_next);
    let summary = SUMMARY_TOKENS as f64;
    let costs =
        read * now.tokens as f64 + write * request as f64 + output * summary + (write - read).max(0.0) * stays as f64;
    (costs, read * (replaced as f64 - summary) * better as f64)
}

/// What the model is asked. It sees no ids, so the places of the range are named with their first
/// words, for facts to refer to.
fn request(history: &History, range: Range<usize>) -> String {
    let groups: Vec<usize> = (history.group_of(range.start)..history.group_count())
        .filter(|n| history.group(*n).start < range.end)
        .collect();
    let step = groups.len().div_ceil(PLACES_MAX).max(1);
    let mut places = String::new();
    for nth in groups.into_iter().step_by(step) {
        let id = history.group(nth).start;
        let mut first = String::new();
        history.entries()[id].message.texts(&mut |_, text| {
            if first.is_empty() {
                first = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(PLACE_CHARS).collect();
            }
        });
        let _ = writeln!(places, "{id}: {first}");
    }
    format!(
        "Summarise this conversation for your own later use, from its beginning up to, and without, the place after \
         the last one listed here. What you leave out is gone. Answer with one JSON object and nothing else:\n\
         {{\"goals\": [text], \"decisions\": [text], \"facts\": [{{\"text\": text, \"messages\": [number]}}], \
         \"open_items\": [text], \"artefacts\": [text]}}\n\
         Each text is one sentence. Copy every number, name, identifier, path and quoted wording exactly as it stands \
         there; what does not occur there is thrown away. Constraints the user has set belong to \"decisions\", \
         files, links and their states to \"artefacts\". If a summary stands at the beginning, take over what still \
         holds. \"messages\" names the places a fact is from, by the numbers of this list (number: first words):\n\
         {places}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Rules;
    use crate::message::Message;

    fn history(turns: usize, tokens: u64) -> History {
        let mut history = History::default();
        for nth in 0..turns {
            for text in [
                format!(r#"{{"role":"user","content":"question {nth}"}}"#),
                format!(r#"{{"role":"assistant","content":"answer {nth}"}}"#),
            ] {
                history.push(Message::read(Bytes::from(text)).unwrap(), tokens / 2).unwrap();
            }
        }
        history
    }

    fn at<'a>(history: &'a History, view: &'a View) -> Situation<'a> {
        Situation {
            history,
            view,
            ready_until: 0,
            tokens: history.entries().iter().map(|entry| entry.tokens).sum(),
            marks: Rules::default().marks(200_000, 50),
            prices: Prices::default(),
            turns_expected: None,
            estimate: &|text| text.len() as u64 / 4,
        }
    }

    #[test]
    fn from_the_soft_mark_on_what_is_older_than_the_low_mark_is_summarised() {
        let view = View::default();
        assert_eq!(plan(&at(&history(59, 2_000), &view)), None);
        let h = history(61, 2_000);
        let plan = plan(&at(&h, &view)).unwrap();
        // 80,000 less 28,000 to the high mark, two turns and the summary: 23 groups stay.
        assert_eq!(plan.range, 0..76);
        let request = String::from_utf8(plan.request.to_vec()).unwrap();
        assert!(request.contains("\\n0: question 0\\n2: question 1\\n") && request.contains("74: question 37"));
        assert!(!request.contains("76: question 38"));
    }

    #[test]
    fn the_balance_is_the_formula() {
        let (h, view) = (history(61, 2_000), View::default());
        let now = at(&h, &view);
        let plan = plan(&now).unwrap();
        let asked = plan.request.len() as u64 / 4;
        let costs = 0.1 * 122_000.0 + 1.25 * asked as f64 + 5.0 * 2_000.0 + 1.15 * 80_000.0;
        // 14 turns to the high mark, then min(61 - 14, 70_000 / 2_000) = 35 better ones.
        let saves = 0.1 * (76_000.0 - 2_000.0) * 35.0;
        assert!((plan.costs - costs).abs() < 0.01, "{} {costs}", plan.costs);
        assert!((plan.saves - saves).abs() < 0.01, "{} {saves}", plan.saves);
    }

    #[test]
    fn no_summary_that_costs_more_than_it_saves_or_cannot_be_asked_for() {
        let (h, view) = (history(61, 2_000), View::default());
        assert_eq!(plan(&Situation { turns_expected: Some(14), ..at(&h, &view) }), None);
        assert_eq!(plan(&Situation { turns_expected: Some(28), ..at(&h, &view) }), None);
        assert_eq!(plan(&Situation { ready_until: 44, ..at(&h, &view) }), None);
        // Half of it is gone already: what is left above the low mark is not worth it, or nothing.
        let gone = View { cut: 44, ..View::default() };
        assert_eq!(plan(&at(&h, &gone)), None);
        let gone = View { cut: 4, ..View::default() };
        assert_eq!(plan(&at(&h, &gone)).map(|plan| plan.range), Some(4..76));
        let mut asking = h.clone();
        asking.truncate(121);
        assert_eq!(plan(&at(&asking, &view)), None);
        let call = r#"{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{}}]}"#;
        asking.push(Message::read(Bytes::from(call)).unwrap(), 1_000).unwrap();
        assert_eq!(plan(&at(&asking, &view)), None);
    }
}
