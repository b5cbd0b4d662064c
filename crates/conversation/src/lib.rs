//! Conversations longer than a window: what is kept, what is sent, what is found again.
//!
//! | part | what it knows |
//! |---|---|
//! | `message`, `block`, `media` | one message: its bytes, its blocks, what images and documents cost |
//! | `history`, `same` | messages in order, atomic groups, and where a body belongs |
//! | `budget`, `window` | what fits, what goes first, and the messages to send |
//! | `valid` | what the API refuses, looked at once more before messages go out |
//! | `compress` | when to summarise what, and what of a summary is believed |
//! | `recall` | the history, searchable, and excerpts of it as data |
//!
//! The history is the truth; a window, its state, summaries and the index are derived from it.
//! Everything is a function of values: no clock, no file, no socket. Tokens are estimated by a
//! function the caller brings, which may learn.

pub mod block;
pub mod budget;
pub mod compress;
pub mod history;
pub mod media;
pub mod message;
pub mod recall;
pub mod same;
pub mod valid;
pub mod window;

/// A caller's estimate: tokens of a piece of JSON text. It should be monotone: more text, no fewer
/// tokens.
pub type Estimate<'a> = &'a dyn Fn(&[u8]) -> u64;
