//! What is said over a WebSocket on `/v1/stream` (docs/formats/websocket.md draws every frame).
//!
//! | part | what it knows |
//! |---|---|
//! | `tidegate_v1` | many streams over one socket: the frames of either side, read and written |
//! | `simple` | a prompt in, its text out |
//! | `credit` | how much one stream may still send |
//! | `turns` | whose turn it is to write, of all streams of a socket |
//! | `words` | what both headers and frames name: resume, recover |
//! | `strict`, `members` | objects in which nothing may be that is not known; objects put together |
//!
//! What clients send is read strictly: a field that is not known, twice there or of another type is
//! an error that names its place, so that `"credits"` is not a stream without credit. What servers
//! send is read leniently: a newer one may say more.

pub mod credit;
mod members;
pub mod simple;
mod strict;
pub mod tidegate_v1;
pub mod turns;
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

/// A message of a server that cannot be what it claims to be: what is wrong with it. It goes into
/// our log, and the socket is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAFrame(pub &'static str);

impl fmt::Display for NotAFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server's message {}", self.0)
    }
}

impl std::error::Error for NotAFrame {}
