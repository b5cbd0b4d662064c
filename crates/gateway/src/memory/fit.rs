//! A window for a history: what the budget is, what is sent, and a last look at it.
//!
//! Estimates are made with what the scheduler has learnt of the class of models, and corrected by
//! what the API counted of this conversation's last window. The correction is applied to the
//! budget and not to each message: a message's tokens are part of texts that may not change.

use super::TurnTrouble;
use super::talk::Talk;
use crate::ask::input;
use crate::house::House;
use std::hash::Hasher;
use tidegate_conversation::budget::{Budget, Rules};
use tidegate_conversation::history::History;
use tidegate_conversation::message::{Message, Role};
use tidegate_conversation::recall::{query, recall};
use tidegate_conversation::valid::{self, End};
use tidegate_conversation::window::{MARKS_MAX, View, Wanted, Window, build};
use tidegate_schedule::Estimator;
use tidegate_wire::models;
use tidegate_wire::request::MessagesRequest;

/// What estimates may be wrong by at least, as a part of the window: they are corrected from turn to
/// turn, so it is what one turn can be wrong by.
const MARGIN_LEAST: f64 = 0.02;
/// The same while nothing has been learnt of the class of models, and at most.
const MARGIN_MOST: f64 = 0.10;
/// Answers after which the estimate's own error says what it may be wrong by.
const LEARNT_ANSWERS: u64 = 10;
/// Most of the room that excerpts may take, as a part of it.
const RECALL_PART: u64 = 20;
/// What is assumed where a request has no `max_tokens`, which the API asks for.
const MAX_TOKENS: u64 = 4_096;

/// Tokens of pieces of requests, as they are estimated for one class of models.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauge(Estimator);

impl Gauge {
    /// What is known of the class that a request to this model draws on.
    pub(super) fn of(house: &House, model: &str, fast: bool) -> Self {
        Gauge(house.admission.estimator(house.class("messages", model, fast).class))
    }

    /// Tokens of a piece of JSON text: what was learnt, but never less than is usual. What was learnt is
    /// of other texts than these, and a budget is not to be overrun; what is too much is put right by
    /// the conversation's own correction.
    pub(super) fn text(&self, text: &[u8]) -> u64 {
        let mix = input(text);
        self.0.piece(&mix).max(Estimator::default().piece(&mix)).ceil() as u64
    }

    /// What estimates may be wrong by, as a part.
    fn doubt(&self) -> f64 {
        if self.0.answers() < LEARNT_ANSWERS {
            return MARGIN_MOST;
        }
        (2.0 * self.0.error()).clamp(MARGIN_LEAST, MARGIN_MOST)
    }

    /// Tokens of a message.
    pub(super) fn message(&self, message: &Message) -> u64 {
        message.tokens(&|text| self.text(text))
    }
}

/// What a window is made for: the request around its messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Most tokens of one request.
    window: u64,
    max_tokens: u64,
    margin: u64,
    /// Estimated tokens of all but the messages.
    fixed: u64,
    /// Bytes of all but the messages.
    bytes: u64,
    marks_elsewhere: usize,
}

impl Frame {
    /// The request's own; `window` is the most tokens it may have.
    pub(super) fn of(body: &[u8], request: &MessagesRequest, window: u64, gauge: &Gauge) -> Self {
        let parts = &request.parts;
        let slices = [&parts.tools, &parts.system, &parts.cache_control].into_iter().flatten();
        let fixed: Vec<&[u8]> = slices.map(|at| &body[at.clone()]).collect();
        // The name inside a string has its quotation marks escaped, and is none.
        let marks = |text: &&[u8]| memchr::memmem::find_iter(text, b"\"cache_control\"").count();
        let whole = usize::from(parts.cache_control.is_some());
        Frame {
            margin: margin(window.min(models::window(&request.model)), gauge),
            window: window.min(models::window(&request.model)),
            max_tokens: request.max_tokens.unwrap_or(MAX_TOKENS),
            fixed: fixed.iter().map(|text| gauge.text(text)).sum(),
            bytes: body.len() as u64 - parts.messages.as_ref().map_or(0, |at| at.len() as u64),
            marks_elsewhere: (fixed.iter().map(marks).sum::<usize>() + whole).min(MARKS_MAX),
        }
    }

    /// A request of which nothing is known but these.
    pub(super) fn bare(model: &str, max_tokens: u64, window: u64, gauge: &Gauge) -> Self {
        let window = window.min(models::window(model));
        Frame { window, max_tokens, margin: margin(window, gauge), fixed: 0, bytes: 0, marks_elsewhere: 0 }
    }

    /// Tokens of system prompt and tools, estimated.
    pub(super) fn fixed(&self) -> u64 {
        self.fixed
    }

    /// The budget in the units of estimates that are `ratio` times too low.
    pub(super) fn budget(&self, ratio: f64) -> Budget {
        let estimated = |tokens: u64| (tokens as f64 / ratio) as u64;
        Budget {
            window: estimated(self.window),
            max_tokens: estimated(self.max_tokens),
            margin: estimated(self.margin),
            fixed: self.fixed,
        }
    }
}

fn margin(window: u64, gauge: &Gauge) -> u64 {
    (window as f64 * gauge.doubt()) as u64
}

/// How windows are made here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fitting<'a> {
    pub(super) rules: Rules,
    /// Whether the history is searched for what suits the new turn.
    pub(super) recalls: bool,
    /// Most bytes of a request.
    pub(super) bytes_max: u64,
    pub(super) gauge: &'a Gauge,
}

/// The window for what the conversation is now, looked at once more before it is sent. `name` is its
/// id.
pub(super) fn fit(talk: &mut Talk, name: &str, frame: &Frame, how: Fitting<'_>) -> Result<Window, TurnTrouble> {
    let window = plain_window(talk, name, frame, how)?;
    let bytes = window.body.len() as u64 + frame.bytes;
    if bytes > how.bytes_max {
        let size = tidegate_base::ByteSize(how.bytes_max);
        return Err(TurnTrouble::TooLarge(format!("the window has {bytes} bytes, more than the limit of {size}")));
    }
    let last = talk.history.entries().last();
    let end = if last.is_some_and(|e| e.message.role() == Role::Assistant) { End::Anyone } else { End::User };
    valid::check(&window.body, end, frame.marks_elsewhere)
        .map_err(|broken| TurnTrouble::Invalid { broken, open_calls: talk.history.open_calls() })?;
    Ok(window)
}

/// The window alone: whether it could be sent as it is, or waits for results of tools, is not asked.
pub(super) fn plain_window(
    talk: &mut Talk,
    name: &str,
    frame: &Frame,
    how: Fitting<'_>,
) -> Result<Window, TurnTrouble> {
    let Fitting { rules, recalls, gauge, .. } = how;
    let estimate = |text: &[u8]| gauge.text(text);
    let budget = frame.budget(talk.ratio());
    let (view, ready) = (talk.view.clone(), talk.ready.clone());
    let make = |history: &History, view: &View, recalled: Option<&str>| {
        let window = build(&Wanted {
            history,
            view,
            budget,
            rules,
            conversation: jitter(name),
            summary: ready.as_ref(),
            recalled,
            marks_elsewhere: frame.marks_elsewhere,
            set_marks: frame.marks_elsewhere == 0,
            estimate: &estimate,
        });
        window.map_err(|error| TurnTrouble::TooLarge(error.to_string()))
    };
    let mut window = make(&talk.history, &view, None)?;
    if recalls && hides(&talk.history, &window) {
        let (history, index) = talk.indexed();
        let query = query(history);
        let excerpts = recall(index, history, &window.view, &query, budget.room() / RECALL_PART, &estimate);
        if let Some(excerpts) = excerpts {
            // The same view again: it was below the high mark, or has just been cut below it.
            let with = make(history, &window.view, Some(&excerpts.text))?;
            window = Window { is_cut: window.is_cut, ..with };
        }
    }
    Ok(window)
}

/// Whether there is anything that the window does not show.
fn hides(history: &History, window: &Window) -> bool {
    window.view.cut > 0 && (0..window.view.cut).any(|id| !window.view.shows(history, id))
        || !window.view.elided.is_empty()
}

/// A number of the conversation's own that stays the same from run to run: where its marks stand.
pub(super) fn jitter(name: &str) -> u64 {
    // FNV-1a: the same in every build, which the standard library's hashers do not promise.
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.write(name.as_bytes());
    hash.finish()
}
