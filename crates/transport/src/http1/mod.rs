//! HTTP/1.1 connections: the codec of the wire room on a real or imagined socket.
//!
//! One task owns a connection, so reading, writing and noticing that the other side left are polls
//! of one object, not three tasks with channels between them. Every method that waits is
//! cancel-safe: what was read or is still to be written lives in the connection, never in the
//! future.

mod client;
mod server;

pub use crate::client_error::{ClientError, SendEnd};
pub use client::ClientConn;
pub use server::{HeadEnd, ServerConn};
