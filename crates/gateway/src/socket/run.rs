//! The life of a socket: one task, from the handshake to the last byte.

use super::open::{Opened, Spoken};
use super::{Dialect, hear, is_quiet, speak};
use super::{echo::Echo, many::Many, simple::Simple};
use crate::plane::Plane;
use bytes::BytesMut;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tidegate_base::{ByteLease, Moment, Prng};
use tidegate_transport::BoxIo;
use tidegate_transport::websocket::{Over, Socket, SocketRules};
use tidegate_wire::websocket::{CloseCode, ReadRules, Role};

/// What a frame needs around a request of the largest size.
const FRAME_ROOM: u64 = 64 * 1024;
/// A message that is not whole yet is leased in such steps, bytes.
const LEASE_STEP: u64 = 64 * 1024;
/// While so many bytes wait to be taken, nothing more is read: a client that asks and does not read
/// what it is told is held up.
const UNWRITTEN_MAX: usize = 256 * 1024;

/// Serves one socket to its end.
pub(crate) async fn run(plane: Arc<Plane>, io: BoxIo, early: BytesMut, opened: Opened) {
    let house = Arc::clone(&plane.house);
    let clocks = &house.settings.clocks;
    let bytes_max = usize::try_from(house.settings.limits.body_bytes + FRAME_ROOM).unwrap_or(usize::MAX);
    let rules = SocketRules {
        read: ReadRules { role: Role::Server, frame_bytes_max: bytes_max, message_bytes_max: bytes_max },
        ping: clocks.socket_ping,
        close: clocks.socket_close,
    };
    let prng = plane.with_prng(|prng| Prng::new(prng.next_u64()));
    let mut socket = Socket::new(io, early, rules, house.clock, prng);
    let dialect = match opened.spoken {
        Spoken::Many => Dialect::Many(Box::new(Many::new(house.settings.limits.connection_streams as usize))),
        Spoken::Simple { once } => Dialect::Simple(Box::new(Simple::new(once))),
        Spoken::Echo => Dialect::Echo(Echo::default()),
    };
    house.metrics.socket(1);
    let mut life = Life { plane: &plane, opened: &opened, dialect, lease: house.bodies.empty_lease(), stall: None };
    let mut drain = pin!(house.leave_begun());
    let mut draining = false;
    let over = poll_fn(|cx| {
        draining = draining || drain.as_mut().poll(cx).is_ready();
        life.poll(cx, &mut socket, draining)
    })
    .await;
    // Its readers leave with it.
    drop(life);
    house.metrics.socket_ended(name(&over), socket.late_max());
    tracing::debug!(target: "tidegate::socket", ?over, tenant = %opened.owner.tenant, "a socket is over");
    socket.end(&over).await;
    house.metrics.socket(-1);
}

fn name(over: &Over) -> &'static str {
    match over {
        Over::Closed(_) => "closed",
        Over::Violation(_) => "violation",
        Over::Cut => "cut",
        Over::Dead => "dead",
        Over::Broken(_) => "broken",
    }
}

struct Life<'s> {
    plane: &'s Arc<Plane>,
    opened: &'s Opened,
    dialect: Dialect,
    /// For what has come of a message that is not whole.
    lease: ByteLease,
    /// Since when the client takes nothing of what is there, and how much it had taken then.
    stall: Option<(Moment, u64)>,
}

impl Life<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, socket: &mut Socket, draining: bool) -> Poll<Over> {
        let house = &self.plane.house;
        // Twice: what was heard is answered, and what was answered is written.
        for _ in 0..2 {
            let now = house.clock.now();
            let (mut due, mut more) = (Moment::NEVER, false);
            if socket.is_open() {
                (due, more) = speak(&mut self.dialect, self.plane, self.opened, cx, socket, now);
            }
            if socket.is_open() && draining && is_quiet(&self.dialect) {
                socket.close(CloseCode::GOING_AWAY, "this Tidegate is going down");
            }
            if let Some(late) = self.stalled(socket, now) {
                due = due.min(late);
                if now >= late {
                    house.metrics.clock_expired("client_write_stall");
                    return Poll::Ready(Over::Dead);
                }
            }
            let reads = socket.unwritten() < UNWRITTEN_MAX;
            let (dialect, plane, opened) = (&mut self.dialect, self.plane, self.opened);
            let mut heard = false;
            let over = socket.poll(cx, reads, due, &mut |message| {
                heard = true;
                hear(dialect, plane, opened, message);
            });
            if over.is_ready() {
                return over;
            }
            if !self.leases(socket) {
                socket.close(CloseCode::TRY_LATER, "Tidegate holds as many request bytes as it may");
            } else if !(heard || more && socket.unwritten() == 0) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Counts what is held of a message that is not whole; false if that cannot be had.
    fn leases(&mut self, socket: &Socket) -> bool {
        let held = socket.held() as u64;
        let wanted = if held <= 4096 { 0 } else { held.next_multiple_of(LEASE_STEP) };
        self.lease.held() == wanted || self.lease.resize(wanted) || !socket.is_open()
    }

    /// When a client that takes nothing has had its time.
    fn stalled(&mut self, socket: &Socket, now: Moment) -> Option<Moment> {
        if socket.unwritten() == 0 {
            self.stall = None;
            return None;
        }
        let since = match self.stall {
            Some((since, taken)) if taken == socket.taken() => since,
            _ => now,
        };
        self.stall = Some((since, socket.taken()));
        Some(since + self.plane.house.settings.clocks.client_write_stall)
    }
}
