//! Continuations: a request that asks to go on with an answer that broke off.
//!
//! ```text
//! request ─▶ ask: which question, and is it a wish to go on? ─▶ truth: the answer it was given ─▶ seam: the rest
//! ```
//! Two forms are known. Models up to 4.5 go on with what a *prefill* begins (the last message is the
//! assistant's, with the text so far); later ones are told in a *user turn*: "Your previous response
//! was interrupted and ended with `...`. Continue from where you left off.", as the API's
//! documentation words it.
//!
//! The simulator knows the whole of every answer it remembers, so it finds the one that broke off by
//! its question (system prompt and messages, without what was added to go on) and its text, and says
//! the true rest. Real models do that with blemishes; [`ContinuationRules`] says how often, and
//! [`Continuation`] which of them this answer has, so that errors at a seam can be counted. A
//! request whose answer is not remembered is answered as if it were a new question.

mod ask;
mod rules;
mod seam;

pub(crate) use ask::Asked;
pub use rules::ContinuationRules;
pub(crate) use rules::{Forced, REPEAT_CHARS_MAX};
pub(crate) use seam::{Blemishes, draw};

use crate::reply::Reply;
use serde_json::{Value, json};
use std::sync::Arc;

/// How it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoOn {
    /// By an assistant message to be continued.
    Prefill,
    /// By a user message that says so.
    UserTurn,
}

/// An answer that broke off, and where.
#[derive(Clone, Debug)]
pub(crate) struct Interrupted {
    /// Its `request-id`.
    pub(crate) of: String,
    pub(crate) reply: Arc<Reply>,
    pub(crate) by: GoOn,
    /// The byte of its text up to which it had been received.
    pub(crate) at: usize,
}

/// What an answer that goes on with another is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// The `request-id` of the answer that broke off.
    pub of: String,
    /// How it was asked for.
    pub by: GoOn,
    /// The byte of that answer's text at which its rest begins.
    pub from_byte: usize,
    /// What was said before it went on: "Sure, ...".
    pub preamble: String,
    /// The code fence or list mark that was opened again.
    pub reopened: String,
    /// White space that was not there.
    pub space: String,
    /// Text that had been received and was said again.
    pub repeated: String,
}

impl Continuation {
    /// Whether it is the true rest and nothing else.
    pub fn is_exact(&self) -> bool {
        [&self.preamble, &self.reopened, &self.space, &self.repeated].iter().all(|added| added.is_empty())
    }

    /// As the ground truth tells it.
    pub(crate) fn json(&self) -> Value {
        let by = match self.by {
            GoOn::Prefill => "prefill",
            GoOn::UserTurn => "user-turn",
        };
        json!({"of": self.of, "by": by, "from_byte": self.from_byte, "exact": self.is_exact(), "preamble": self.preamble,
            "reopened": self.reopened, "space": self.space, "repeated": self.repeated})
    }
}
