//! What is said over a WebSocket on `/v1/stream` (docs/formats/websocket.md draws every frame).
//!
//! | part | what it knows |
//! |---|---|
//! | `tidegate_v1` | many streams over one socket: the frames of either side, read and written |
//! | `simple` | a prompt in, its text out |
//! | `credit` | how much one stream may still send |
//! | `words` | what both headers and frames name: resume, recover |
//! | `strict` | objects in which nothing may be that is not known |
//!
//! What clients send is read strictly: a field that is not known, twice there or of another type is
//! an error that names its place, so that `"credits"` is not a stream without credit. What servers
//! send is read leniently: a newer one may say more.

pub mod credit;
pub mod simple;
mod strict;
pub mod tidegate_v1;
pub mod words;

use std::fmt;

/// A message of a client that cannot be read; `text` says what is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFrame {
    /// The stream it is about, if that could be told.
    pub id: Option<Box<str>>,
    /// For people: the place, a colon, what is wrong with it.
    pub text: String,
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for BadFrame {}
