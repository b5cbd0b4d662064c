//! Slots on the HTTP/2 connections of one lane: when one more is dialled.
//!
//! For those who wait one for each hundred, several at once; at 80 % full one more ahead. What a lane
//! speaks is unknown until its first connection, and until then one dial is under way for all.

use super::lane_pool::LanePool;
use crate::exchange::Counted;
use crate::shelf::{Policy, Shelf};
use std::sync::Arc;
use tidegate_base::Moment;
use tidegate_transport::http2::Connection;
use tidegate_transport::{BoxIo, DialError};

/// Streams that a connection is expected to take before any has told.
pub(super) const STREAMS_EXPECTED: usize = 100;

/// What a lane's connections speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Unknown,
    Http1,
    Http2,
}

/// What somebody who waits is given.
pub(super) enum Grant {
    /// A place on an HTTP/2 connection that carried others before, or none.
    Slot(Slot),
    /// The lane speaks HTTP/1.1: here is a connection, or nothing but the news.
    Http1(Option<BoxIo>),
    /// The dial failed.
    Failed(DialError),
}

/// When a lane dials for HTTP/2.
pub(super) struct Slots {
    pub(super) protocol: Protocol,
}

impl Policy for Slots {
    type Carrier = Connection;
    type Grant = Grant;

    fn dials(&self, shelf: &Shelf<Self>, now: Moment) -> usize {
        match self.protocol {
            Protocol::Http1 => 0,
            Protocol::Unknown => usize::from(shelf.has_waiters()),
            Protocol::Http2 if shelf.has_waiters() => shelf.dials_for_waiters(),
            Protocol::Http2 if now < shelf.ahead_not_before() => 0,
            Protocol::Http2 => {
                let open = shelf.open();
                // Or the last connection goes while it is in use.
                let gone = open.count == 0 && shelf.is_in_use();
                usize::from(open.is_nearly_full || gone)
            }
        }
    }
}

/// A place for one stream on one connection, given back when it is dropped.
pub(crate) struct Slot {
    pub(crate) conn: Connection,
    pub(super) lane: Arc<LanePool>,
    pub(super) member: u64,
    pub(super) rested: bool,
    pub(super) _stream: Counted,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.lane.slot_freed(self.member);
    }
}
