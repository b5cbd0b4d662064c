//! What a window costs and what it still knows, as tables (`cargo test -p tidegate-conversation
//! --test tables -- --nocapture`).
//!
//! The runs are small by default; `TIDEGATE_TABLE_TALKS=1000` makes them those that are kept in the
//! measurements. Everything comes from seeds, so a table is the same on every machine.

#![allow(clippy::print_stdout, reason = "tables are printed")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

mod cache;
mod chatter;
mod needles;

/// How many conversations each table is made from.
fn talks() -> u64 {
    std::env::var("TIDEGATE_TABLE_TALKS").ok().map_or(10, |text| text.parse().unwrap())
}

/// Four bytes to a token, and some for the message itself: what most estimates come to.
fn estimate(text: &[u8]) -> u64 {
    text.len() as u64 / 4
}
