//! Places on the WebSockets of one lane: when one more is dialled.
//!
//! So many sockets are kept open whether anybody asks or not, and one more is dialled ahead when 80 %
//! of all places are taken. One that is lost is not replaced at once: a peer that starts again has all
//! of its clients come back. Who waits never waits for that time.

use super::Sockets;
use super::link::Link;
use super::opening::Refusal;
use crate::exchange::Counted;
use crate::shelf::{Carrier, Policy, Shelf};
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::DialError;

/// A socket that has lived so long was no failure, whatever it carried.
const PROVED_BY_AGE: Duration = Duration::from_secs(60);

/// What somebody who waits is given.
pub(super) enum Grant {
    Slot(SocketSlot),
    /// The peer opens no socket for us, and says why.
    Refused(Arc<Refusal>),
    Failed(DialError),
}

impl Carrier for Link {
    fn is_open(&self) -> bool {
        self.is_open()
    }

    fn streams_max(&self) -> usize {
        self.streams_max()
    }

    fn retire(&self) {
        self.retire();
    }
}

/// When a lane dials for WebSockets.
pub(super) struct Places {
    /// Sockets that are kept open.
    pub(super) spares: usize,
}

impl Policy for Places {
    type Carrier = Link;
    type Grant = Grant;

    fn dials(&self, shelf: &Shelf<Self>, now: Moment) -> usize {
        if shelf.has_waiters() {
            shelf.dials_for_waiters()
        } else if now >= shelf.ahead_not_before() {
            shelf.dialing + ahead_needed(shelf)
        } else {
            0
        }
    }
}

/// When to look again for dials that nobody waits for, if they are put off.
pub(super) fn dials_due(shelf: &Shelf<Places>, now: Moment) -> Option<Moment> {
    let due = shelf.ahead_not_before();
    (!shelf.closed && now < due && ahead_needed(shelf) > 0).then_some(due)
}

/// Dials that nobody waits for: for missing spares, or since 80 % of all places are taken and no
/// socket stands warm.
fn ahead_needed(shelf: &Shelf<Places>) -> usize {
    let open = shelf.open();
    let ahead = usize::from(open.is_nearly_full && shelf.dialing == 0);
    shelf.policy.spares.saturating_sub(open.count + shelf.dialing).max(ahead)
}

/// A socket is gone; one that was lost counts as a failed dial.
pub(super) fn forget(shelf: &mut Shelf<Places>, id: u64, now: Moment) {
    let Some(member) = shelf.forget(id) else { return };
    if member.carrier.is_proved() || now.since(member.opened) >= PROVED_BY_AGE {
        shelf.dial_proved();
    }
    if !member.is_let_go {
        shelf.dial_failed(now);
    }
}

/// A place for one stream on one socket, given back when it is dropped.
pub(crate) struct SocketSlot {
    pub(super) link: Link,
    pub(super) sockets: Arc<Sockets>,
    pub(super) member: u64,
    pub(super) _stream: Counted,
}

impl Drop for SocketSlot {
    fn drop(&mut self) {
        self.sockets.slot_freed(self.member);
    }
}
