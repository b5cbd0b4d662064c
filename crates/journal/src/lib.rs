//! One reply's log and its readers, and what is done about a reply that breaks off.
//!
//! [`Journal`] holds what came of a reply, numbered without gaps, within a number of bytes. Whoever
//! reads it has a [`Cursor`] and comes back with it, over any connection; a slow one is a number that
//! lags, not memory. [`recover`] decides from what such a log holds how a reply that was cut is
//! mended, and joins what comes after to what came before.
//!
//! Both are about the same thing, what a client has and can have, and so live in one room. Pure and
//! synchronous: no clock, no socket, no store. Who owns a journal, when it is let go and where its
//! checkpoints are kept is the gateway's and the store's.

mod checkpoint;
mod cursor;
mod entry;
mod journal;
pub mod recover;

pub use checkpoint::{Lost, Restored, Segment};
pub use cursor::{Cursor, Epoch};
pub use entry::Item;
pub use journal::{End, Journal, LIMIT_BYTES_MIN, Missed, Next, Refused, Shape};
