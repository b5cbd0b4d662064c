//! Everything that has a shape on the wire: HTTP heads and bodies, Server-Sent Events, WebSocket
//! frames and what is said in them, the Messages API's requests, events, errors, usage and
//! rate-limit headers.
//!
//! Pure: bytes in, facts out, and back. Nothing here opens a socket, reads a clock or knows a
//! configuration. What is not understood is kept as the bytes it came as.

pub mod assemble;
pub mod blame;
pub mod cached;
pub mod dialect;
pub mod error;
pub mod event;
pub mod foreign;
pub mod http;
pub mod merge;
pub mod mix;
pub mod models;
pub mod ratelimit;
pub mod raw;
pub mod references;
pub mod replay;
pub mod request;
pub mod sse;
pub mod usage;
pub mod websocket;
