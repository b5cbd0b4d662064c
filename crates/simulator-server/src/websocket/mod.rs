//! `GET /v1/stream`: the simulated API over WebSocket, in both dialects.
//!
//! ```text
//!   opening ─▶ (never answered) ─▶ socket ─▶ message ─▶ begin ─▶ steps ─▶ frames
//! ```
//! The model's answers are the same as over HTTP, and so are their faults; a fault that breaks a
//! connection breaks the socket here, inside a frame where it strikes inside an event. `opening.rs` is
//! the handshake, `socket.rs` the connection, `live.rs` one answer on it, `say.rs` and `hear.rs` what
//! is said in either dialect. That is written from docs/formats/websocket.md and not with the wire
//! room's types, as the model's JSON is; of the wire room only the frames of RFC 6455 are used.
//!
//! Limits of this server: no stream can be resumed, turns are not kept between streams, and a client
//! that does not read holds up all streams of its socket.

mod hear;
mod live;
mod opening;
mod say;
mod socket;

pub(crate) use opening::{is_opening, serve};

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// `tidegate.v1`: many streams.
    Streams,
    /// Prompts, one after another.
    Simple {
        /// The socket closes after the first answer.
        once: bool,
    },
}
