//! `tidegate.v1`: many streams over one socket.
//!
//! Both sides are here, since a Tidegate may stand before another one. Events are embedded as the
//! bytes they came as, and taken out again as such: nothing in between parses them.

mod client_frame;
mod event_frame;
mod lines;
mod server_frame;

pub use client_frame::{ClientFrame, Create};
pub use event_frame::{EventPlace, write_event, write_sse};
pub use lines::BadLine;
pub use server_frame::{EndReason, Failed, ServerFrame};

/// The name of the subprotocol in the opening handshake.
pub const SUBPROTOCOL: &str = "tidegate.v1";

/// JSON's numbers are whole up to here in every language.
const NUMBER_MAX: u64 = (1 << 53) - 1;
