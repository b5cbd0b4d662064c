//! Production's failures as data: what goes wrong, and where exactly.
//!
//! A fault is written the same way in a scenario file and in a `simulate:` header:
//!
//! ```text
//! slow-connect:2s           the connection is taken up late (scenario only)
//! slow-head:30s             the response head comes late
//! status:529  status:429:7  answered with this status (and `retry-after: 7`); 502 is the edge's HTML
//! reset-before-head         the connection is reset instead of an answer
//! close-before-head         the connection is closed instead of an answer
//! reset-at:PLACE            TCP reset there, in the middle of an HTTP chunk
//! close-at:PLACE            connection closed there, in the middle of an HTTP chunk
//! half-close-at:PLACE       the server's half of the connection ends there, the client's stays open
//! truncate-at:PLACE         connection dropped there, under TLS without its close_notify
//! goaway-at:PLACE[:error]   HTTP/2: a GOAWAY there; the streams go on, or with `error` all of them end
//! close-code-at:PLACE:1013   WebSocket: a close frame with this code
//! end-at:PLACE              the body ends there, properly as far as HTTP goes
//! stall-at:PLACE:90s        silence there
//! pings-at:PLACE:90s        nothing but pings there
//! error-at:PLACE[:TYPE]     an `error` event (default overloaded_error), then the end
//! garbage-at:PLACE          the event there is broken JSON
//! unknown-at:PLACE          an event of an unknown type before that one
//! huge-at:PLACE[:10MB]      an event of an unknown type and that many bytes before that one
//! duplicate-at:PLACE        the event there comes twice
//! swap-at:PLACE             the event there comes after the one that follows it
//! trickle:1KB               the body comes at so many bytes a second
//! one-byte                  every byte of the response in a packet of its own
//! no-pong                   WebSocket: pings are not answered any more
//! no-upgrade                WebSocket: the opening is never answered
//! odd:NAME                  as an endpoint answers that is not the API: what the names are says `odd.rs`
//! ```
//!
//! What a PLACE is says `place.rs`, how all this is read `read.rs`. What works on events takes effect
//! at the border of the event the place is in. A place the body never reaches has no effect; the
//! ground truth says which faults had.

mod place;
mod read;

pub use place::Place;

use crate::odd::Odd;
use std::fmt;
use std::time::Duration;

/// How a body is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// TCP reset.
    Reset,
    /// TCP close, HTTP body unfinished.
    Close,
    /// The same, but what the client sends is read on until it leaves.
    HalfClose,
    /// TCP close and nothing else: no close_notify of TLS.
    Truncate,
    /// A GOAWAY with an error, and the end of the connection.
    GoAway,
    /// A close frame of WebSocket with this code.
    Code(u16),
    /// HTTP body finished, answer unfinished.
    End,
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is taken up late.
    SlowConnect(Duration),
    /// The response head comes late.
    SlowHead(Duration),
    /// An error status, with or without `retry-after`.
    Status {
        /// 400 to 599.
        status: u16,
        /// Whole seconds.
        retry_after_s: Option<u64>,
    },
    /// Reset (or, if not, close) before any byte of an answer.
    NoHead {
        /// TCP reset instead of close.
        reset: bool,
    },
    /// The body is cut.
    Cut(Cut, Place),
    /// Nothing (or only pings) comes for a while.
    Stall {
        /// How long.
        span: Duration,
        /// Whether pings come.
        pings: bool,
        /// From where on.
        place: Place,
    },
    /// An `error` event of this type, then the end.
    ErrorEvent(Place, &'static str),
    /// An event with broken JSON.
    Garbage(Place),
    /// An event of an unknown type.
    Unknown(Place),
    /// An event of an unknown type and so many bytes.
    Huge(Place, u64),
    /// An event twice.
    Duplicate(Place),
    /// An event after the one that follows it.
    Swap(Place),
    /// A GOAWAY without an error; the stream goes on.
    GoAway(Place),
    /// So many bytes a second.
    Trickle(u64),
    /// One byte per packet.
    OneByte,
    /// Pings of WebSocket are not answered.
    NoPong,
    /// The opening of a WebSocket is not answered.
    NoUpgrade,
    /// As an endpoint does that is not the API.
    Odd(Odd),
}

impl Fault {
    /// The name under which the ground truth counts it.
    pub fn label(&self) -> &'static str {
        match self {
            Fault::SlowConnect(_) => "slow-connect",
            Fault::SlowHead(_) => "slow-head",
            Fault::Status { .. } => "status",
            Fault::NoHead { reset: true } => "reset-before-head",
            Fault::NoHead { reset: false } => "close-before-head",
            Fault::Cut(Cut::Reset, _) => "reset-at",
            Fault::Cut(Cut::Close, _) => "close-at",
            Fault::Cut(Cut::HalfClose, _) => "half-close-at",
            Fault::Cut(Cut::Truncate, _) => "truncate-at",
            Fault::Cut(Cut::GoAway, _) | Fault::GoAway(_) => "goaway-at",
            Fault::Cut(Cut::Code(_), _) => "close-code-at",
            Fault::Cut(Cut::End, _) => "end-at",
            Fault::Stall { pings: false, .. } => "stall-at",
            Fault::Stall { pings: true, .. } => "pings-at",
            Fault::ErrorEvent(..) => "error-at",
            Fault::Garbage(_) => "garbage-at",
            Fault::Unknown(_) => "unknown-at",
            Fault::Huge(..) => "huge-at",
            Fault::Duplicate(_) => "duplicate-at",
            Fault::Swap(_) => "swap-at",
            Fault::Trickle(_) => "trickle",
            Fault::OneByte => "one-byte",
            Fault::NoPong => "no-pong",
            Fault::NoUpgrade => "no-upgrade",
            Fault::Odd(_) => "odd",
        }
    }
}

/// Why a fault could not be read; the text says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultError(String);

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FaultError {}
