//! Personal data on the path: nothing of it leaves, is kept or is logged in clear, and whoever asked
//! gets it back, over every door and however the answer was cut.
//!
//! The upstream here (`echo.rs`) keeps what it was sent, says the last message again in pieces of one
//! byte, signs its thinking and refuses what it did not sign. What it was sent must hold no value.

#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]

mod answers;
mod carried;
mod echo;
mod hosted;
mod kept;
mod refused;
mod scene;
mod sockets;
mod talks;
