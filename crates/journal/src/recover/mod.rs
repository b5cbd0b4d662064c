//! What is done about a reply that was cut, decided from what its client has.
//!
//! A [`Mender`] stands between upstream and journal. What it passes on is what the client has; what
//! it holds back nobody has seen, and it can be dropped. After a cut it says what to do, and the next
//! reply's events go through it too: whatever came before and after, the client sees one message.
//!
//! | the client has | [`Mode::Restart`] | [`Mode::Continue`] |
//! |---|---|---|
//! | nothing but `message_start` | the same request again | the same |
//! | whole thinking, nothing else | the same request again, its thinking left out | the same |
//! | text, the last block whole or not | the same request again; what the client has of it is left out, and has to be the same | asked to go on: the partial text as a prefill, or a user turn |
//! | any of that, and a call of a tool was held | the call is dropped, as above | the call is dropped, as above |
//! | nothing, or text, and part of thinking was held | the thinking is dropped, as above | the same |
//! | part of thinking that was passed on | an error | an error |
//! | a server's tool at work, or any other block | an error: it would do its work twice | an error |
//! | `message_delta` | `message_stop` is supplied | the same |
//!
//! `restart` never shows a text no model wrote in one piece: where the new reply is another one, it
//! ends in an error. So it helps where replies repeat. `continue` shows two replies joined at a seam
//! (`seam.rs`), which can be inexact.
//!
//! Calls of tools are held until `message_delta`: one that was passed on could be followed by nothing
//! but its result, so the reply could not be taken up again after it. Thinking is held until its block
//! is whole, or passed on as it comes ([`Rules::holds_thinking`]); a continuation's own thinking is left
//! out where text is open, as nothing may stand inside a block.
//!
//! *Limits.* Held are at most [`HELD_BYTES_MAX`] bytes; past that everything is passed on and a cut
//! is an error. So it is for a text longer than [`TEXT_BYTES_MAX`], and after
//! [`Rules::continuations_max`] continuations.

mod has;
mod mender;
mod request;
mod rewrite;
mod seam;

pub use mender::{Action, Mender};
pub use seam::Seam;

/// What may be held of calls and thinking, bytes: 128K tokens of output, the most a model says, are
/// about half of it.
pub const HELD_BYTES_MAX: usize = 1 << 20;
/// The longest text that is kept to be gone on from, bytes; as above.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// How a reply is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By the same reply again.
    Restart,
    /// By asking the model to go on.
    Continue,
}

/// What a mender goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How.
    pub mode: Mode,
    /// Visible thinking is held until it is whole, so that a cut inside it can be mended.
    pub holds_thinking: bool,
    /// How often a reply is taken up again once the client has content.
    pub continuations_max: u32,
}

impl Rules {
    /// The usual ones: thinking is held until it is whole, two continuations.
    pub fn new(mode: Mode) -> Self {
        Rules { mode, holds_thinking: true, continuations_max: 2 }
    }
}

/// Why a reply cannot be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmendable {
    /// It was taken up again as often as it may be.
    Spent,
    /// It broke off inside thinking the client saw.
    Thinking,
    /// It had begun something that must not be done twice, or is not known.
    Block,
    /// More was to be held or kept than may be.
    TooLarge,
    /// The new reply is not the old one.
    Diverged,
    /// What was asked for cannot be taken up: an answer in a given format, or in a thread.
    Request,
    /// The upstream's events make no message.
    Broken,
}

impl Unmendable {
    /// Why, for people.
    pub fn reason(self) -> &'static str {
        match self {
            Unmendable::Spent => "it was taken up again as often as it may be",
            Unmendable::Thinking => "it broke off inside its thinking",
            Unmendable::Block => "it broke off after a block that cannot be asked for again",
            Unmendable::TooLarge => "it is too long to be taken up again",
            Unmendable::Diverged => "the same request was answered otherwise the second time",
            Unmendable::Request => "an answer in a given format or in a thread cannot be taken up again",
            Unmendable::Broken => "its events make no message",
        }
    }
}
