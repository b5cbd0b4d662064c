//! Costs and budgets on the path, in virtual time: what is counted as what, when a day and a month
//! end, and what a budget does to the requests around its end.
//!
//! The upstream here (`upstream.rs`) says it used what it is told to. The files are real, and know no
//! virtual time: tests with one run in real time.

#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

mod budgets;
mod counted;
mod kept;
mod scene;
mod upstream;
