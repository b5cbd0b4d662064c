//! Replies that are cut and mended: what is done in each state, that the client sees one message of
//! the API's shape, and how often a seam is exact.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

mod cuts;
mod play;
mod seams;
mod table;
