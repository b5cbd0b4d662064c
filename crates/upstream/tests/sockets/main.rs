//! Lanes of WebSockets, against a peer that is played: over a network in memory, in virtual time.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

mod any;
mod lifetime;
mod peer;
mod prompts;
mod scene;
mod streams;
