//! WebSocket without a socket (RFC 6455), for both roles: frames, messages, the opening handshake.
//!
//! | part | what it knows |
//! |---|---|
//! | `frame` | one frame's head, close codes, and every way a peer can break the rules |
//! | `mask`, `utf8` | masking, eight bytes at a time; UTF-8 judged while it comes |
//! | `read` | bytes in any pieces to whole messages and control frames |
//! | `write` | frames on their way out, among them ones that many sockets share |
//! | `heartbeat` | when to ping, and when to give a peer up |
//! | `handshake` | the two heads that begin it, from either side |
//!
//! Strict where RFC 6455 lets an endpoint be: a reserved bit or opcode, a length not in its
//! shortest form, a frame masked or bare against its role, a control frame that is long or in
//! fragments, text that is not UTF-8, a close code that may not be sent ends the connection with
//! the code that says so. No extension is spoken, permessage-deflate included: model output comes
//! in small messages, and a compressor with memory costs hundreds of KiB for each connection.

mod frame;
pub mod handshake;
mod heartbeat;
mod mask;
mod read;
mod utf8;
mod write;

pub use frame::{CloseCode, Opcode, Violation};
pub use heartbeat::{Beat, Heartbeat};
pub use mask::mask;
pub use read::{Event, MessageReader, ReadRules, Role, Step};
pub use write::{frame_head, shared_frame, write_close, write_frame};

/// The most bytes the payload of a control frame may have (RFC 6455 section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The longest head a frame may have: two bytes, eight of length, four of masking key.
pub const FRAME_HEAD_BYTES_MAX: usize = 14;
