//! HTTP/2 connections: the `h2` crate's frames and flow control on a real or imagined socket.
//!
//! A connection is one task, its streams are objects held elsewhere on the same thread; what
//! HTTP/1.1 connections can be asked, these streams can be asked too.

mod client;
mod server;

pub use client::{Connection, Stream};
pub use server::{Next, ServerConnection, ServerRules, ServerStream};
