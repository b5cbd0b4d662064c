//! The client's side of HTTP/2 against scripted peers, over a network in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

mod failures;
mod peer;
mod streams;
mod windows;
