//! The WebSocket door, `GET /v1/stream`: what is said on it is drawn in `docs/formats/websocket.md`.
//!
//! ```text
//!   handshake ─▶ one task per socket ── message.create ─▶ a hosted stream, its own task
//!                        ▲  reads, writes, pings               │ its log
//!                        └──── in turns, as far as credit and the client allow ◀┘
//! ```
//! A request that comes over a socket goes through the same path as any other; the socket is one of
//! its readers. So nothing here knows of quotas, upstreams or retries, and a socket that dies is a
//! reader that left.
//!
//! | file | what it is |
//! |---|---|
//! | `open` | the handshake: who, from what page, in which dialect |
//! | `tickets` | credentials for pages, which cannot send headers |
//! | `run` | the life of a socket |
//! | `asking` | a request of a socket, as one over HTTP would be |
//! | `many` | `tidegate.v1`: many streams over one socket |
//! | `simple` | prompts, one after another |
//! | `echo` | what comes goes back, for conformance tests |

mod asking;
mod echo;
mod many;
mod open;
mod run;
mod simple;
mod tickets;

pub(crate) use open::{Opened, open};
pub(crate) use run::run;
pub(crate) use tickets::{Tickets, issue};

use crate::plane::Plane;
use many::Many;
use simple::Simple;
use std::sync::Arc;
use std::task::Context;
use tidegate_base::Moment;
use tidegate_transport::websocket::{Message, Socket};

/// What a socket speaks.
enum Dialect {
    Many(Box<Many>),
    Simple(Box<Simple>),
    Echo(echo::Echo),
}

/// A message of the client.
fn hear(dialect: &mut Dialect, plane: &Arc<Plane>, opened: &Opened, message: Message<'_>) {
    match dialect {
        Dialect::Many(many) => many.hear(plane, opened, message),
        Dialect::Simple(simple) => simple.hear(plane, message),
        Dialect::Echo(echo) => echo.hear(message),
    }
}

/// Writes what there is to be said, as far as `socket` takes it: when it is to be asked again at the
/// latest, whatever else happens, and whether there is more to say than there was room for.
fn speak(
    dialect: &mut Dialect,
    plane: &Arc<Plane>,
    opened: &Opened,
    cx: &mut Context<'_>,
    socket: &mut Socket,
    now: Moment,
) -> (Moment, bool) {
    match dialect {
        Dialect::Many(many) => many.speak(&plane.house, cx, socket, now),
        Dialect::Simple(simple) => simple.speak(plane, opened, cx, socket),
        Dialect::Echo(echo) => echo.speak(socket),
    }
}

/// Whether nothing is under way.
fn is_quiet(dialect: &Dialect) -> bool {
    match dialect {
        Dialect::Many(many) => many.is_quiet(),
        Dialect::Simple(simple) => simple.is_quiet(),
        Dialect::Echo(_) => true,
    }
}
