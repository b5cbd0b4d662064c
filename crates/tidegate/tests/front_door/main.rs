//! The binary from outside: real processes, real loopback sockets, bytes written by hand.
//!
//! Each file is one side of what a stranger, a client, an upstream or an operator can do to it.
//! Nothing here waits without a limit, and every process is ended by whoever started it.
#![allow(clippy::unwrap_used, reason = "what cannot be read fails the test")]
#![allow(clippy::print_stdout, reason = "what a failing test saw, kept by the harness")]
#![allow(clippy::disallowed_methods, reason = "these tests live in real time, on threads of their own")]

mod buffered;
mod chat;
mod checked;
mod commands;
mod conversations;
mod costs;
mod crowd;
mod drain;
mod durable;
mod edge;
mod examples;
mod failures;
mod faithful;
mod leaving;
mod limits;
mod listing;
mod mended;
mod odd_endpoints;
mod offered;
mod operators;
mod over_http2;
mod owners;
mod packaging;
mod passing;
mod peers;
mod phases;
mod process;
mod prompts;
mod proofs;
mod proxies;
mod quota;
mod redact;
mod reload;
mod scenarios;
mod secrets;
mod smuggling;
mod soak;
mod socket;
mod sockets;
mod streams;
mod succession;
mod talks;
mod teller;
mod tls;
mod told;
mod turns;
mod upgrade;
mod upstream;
mod wire;
