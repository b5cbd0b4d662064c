//! The generator against endpoints that are known: what it measures, what it makes of broken
//! answers, and the whole of it over loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

mod broken_answers;
mod churn;
mod endpoint;
mod measures;
mod real_sockets;
mod repeats;
