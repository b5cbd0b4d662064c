//! The hand-over from a running process to one that takes its place.
//!
//! ```text
//!   heir                                        elder
//!    connect to @tidegate/ADDRESS ────────────▶ the same user? nobody else taking over? not going?
//!    take over ───────────────────────────────▶
//!       ◀──── the listening sockets, the lock of the conversation log ── goes on serving
//!    read the configuration, open the log
//!    ready ───────────────────────────────────▶ accepts nothing
//!       ◀──────────────────────────────── go ──  │
//!    accept                                       │
//!    serving ─────────────────────────────────▶ ends what it began
//!    claim a conversation ────────────────────▶  when its turn has ended
//!       ◀────────────────────────────── given ──  │
//!       ◀────────────── the end of the socket ── its last stream has ended, or its time is over
//! ```
//! The listening sockets are the same ones, so there is no moment in which nobody listens, and what is in
//! the kernel's queue is lost to nobody. Until the heir says that it serves the elder can go back: an heir
//! whose binary, configuration or log does not work ends, and the elder accepts again.
//!
//! The socket between them has an abstract name made of the address that the gateway listens on: it
//! needs no file, is gone with the last process that has it, and lies in the same network namespace as
//! the address. It is passed on like the others. Only processes of the same user are talked to.

mod elder;
mod heir;
mod link;

pub(super) use elder::Elder;
pub(super) use heir::{Heir, Inherited, spawn, start, tell_failed};
