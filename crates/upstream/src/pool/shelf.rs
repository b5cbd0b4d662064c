//! The HTTP/2 connections of one lane and who waits for a slot on them.
//!
//! A request takes a slot on the emptier of two connections drawn at random. If none is free it
//! waits, first come first served, and connections are dialled for those who wait: one for each
//! hundred, several at once. At 80 % full one more is dialled ahead. This file keeps the books, under
//! the lane's lock; dialling and handing out are [`super::lane_pool`]'s.

use super::lane_pool::LanePool;
use crate::exchange::Counted;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_transport::http2::Connection;
use tidegate_transport::{BoxIo, DialError};
use tokio::sync::oneshot;

/// HTTP/2 connections of one lane on one thread: 25,600 streams, more than a thread has clients.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// Dials of one lane that run at once: 1,600 waiting requests get their connections in one go.
pub(super) const DIALS_MAX: usize = 16;
/// Streams that a connection is expected to take before any has told.
const STREAMS_EXPECTED: usize = 100;
/// The first and the longest wait between dials that nobody waits for.
const AHEAD_WAIT: Duration = Duration::from_secs(1);
const AHEAD_WAIT_MAX: Duration = Duration::from_secs(60);

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

struct Member {
    conn: Connection,
    used: usize,
    /// Whether it carried a stream before.
    used_before: bool,
    idle_since: Moment,
    retire_at: Moment,
    _counted: Counted,
}

impl Member {
    fn has_room(&self) -> bool {
        self.conn.is_open() && self.used < self.conn.streams_max()
    }
}

/// The books of one lane.
pub(super) struct Shelf {
    pub(super) protocol: Protocol,
    pub(super) closed: bool,
    /// Dials under way.
    pub(super) dialing: usize,
    members: BTreeMap<u64, Member>,
    waiters: BTreeMap<u64, oneshot::Sender<Grant>>,
    next_id: u64,
    streams_expected: usize,
    failures: u32,
    ahead_not_before: Moment,
    prng: Prng,
    busy: Gauge,
    idle: Gauge,
}

impl Shelf {
    pub(super) fn new(protocol: Protocol, prng: Prng, busy: Gauge, idle: Gauge) -> Self {
        Shelf {
            protocol,
            closed: false,
            dialing: 0,
            members: BTreeMap::new(),
            waiters: BTreeMap::new(),
            next_id: 0,
            streams_expected: STREAMS_EXPECTED,
            failures: 0,
            ahead_not_before: Moment::from_nanos(0),
            prng,
            busy,
            idle,
        }
    }

    /// A number for a connection or a waiter, never used before.
    pub(super) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Puts a new connection on the shelf, unless it closed in the meantime.
    pub(super) fn add(&mut self, id: u64, conn: Connection, now: Moment, age: Duration) -> bool {
        if self.closed || !conn.is_open() {
            conn.retire();
            return false;
        }
        self.protocol = Protocol::Http2;
        self.streams_expected = conn.streams_max();
        (self.failures, self.ahead_not_before) = (0, now);
        let retire_at = now + age.mul_f64(0.9 + 0.2 * self.prng.unit());
        let _counted = Counted::new(&self.idle);
        let member = Member { conn, used: 0, used_before: false, idle_since: now, retire_at, _counted };
        self.members.insert(id, member);
        true
    }

    /// Takes a slot: the member's number, its connection, and whether it rested until now.
    pub(super) fn take(&mut self, now: Moment) -> Option<(u64, Connection, bool)> {
        self.retire_old(now);
        let with_room = |members: &BTreeMap<u64, Member>| members.values().filter(|m| m.has_room()).count() as u64;
        let count = with_room(&self.members);
        let (a, b) = match count {
            0 => return None,
            1 => (0, 0),
            n => (self.prng.below(n), self.prng.below(n)),
        };
        let mut free = self.members.iter_mut().filter(|(_, m)| m.has_room());
        let first = free.nth(a.min(b) as usize)?;
        let second = if a == b { None } else { free.nth(a.abs_diff(b) as usize - 1) };
        let (id, member) = match second {
            Some(second) if second.1.used < first.1.used => second,
            _ => first,
        };
        let rested = member.used == 0 && member.used_before;
        if member.used == 0 {
            member._counted = Counted::new(&self.busy);
        }
        member.used += 1;
        member.used_before = true;
        Some((*id, member.conn.clone(), rested))
    }

    /// Gives a slot back.
    pub(super) fn give_back(&mut self, id: u64, now: Moment) {
        if let Some(member) = self.members.get_mut(&id) {
            member.used = member.used.saturating_sub(1);
            if member.used == 0 {
                member.idle_since = now;
                member._counted = Counted::new(&self.idle);
            }
        }
    }

    /// A connection is gone.
    pub(super) fn forget(&mut self, id: u64) {
        self.members.remove(&id);
    }

    fn retire_old(&mut self, now: Moment) {
        self.members.values().filter(|m| m.retire_at <= now).for_each(|m| m.conn.retire());
    }

    /// Lets connections go that are old or were idle for `keep`.
    pub(super) fn sweep(&mut self, now: Moment, keep: Duration) {
        self.retire_old(now);
        let idle = self.members.values().filter(|m| m.used == 0 && now.since(m.idle_since) >= keep);
        idle.for_each(|m| m.conn.retire());
    }

    /// Lets all connections go.
    pub(super) fn retire_all(&mut self) {
        self.members.values().for_each(|m| m.conn.retire());
    }

    /// Somebody begins to wait; `None` once the lane is closed.
    pub(super) fn wait(&mut self) -> Option<(u64, oneshot::Receiver<Grant>)> {
        if self.closed {
            return None;
        }
        let ticket = self.id();
        let (to, granted) = oneshot::channel();
        self.waiters.insert(ticket, to);
        Some((ticket, granted))
    }

    /// Somebody waits no more.
    pub(super) fn leave(&mut self, ticket: u64) {
        self.waiters.remove(&ticket);
    }

    /// Whoever waits longest.
    pub(super) fn first_waiter(&mut self) -> Option<oneshot::Sender<Grant>> {
        self.waiters.pop_first().map(|(_, to)| to)
    }

    pub(super) fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Those who a failed dial was for: its share, or all if there is nothing else to wait for.
    pub(super) fn failed_waiters(&mut self) -> Vec<oneshot::Sender<Grant>> {
        let alone = self.dialing == 0 && !self.members.values().any(|m| m.conn.is_open());
        let share = if alone { usize::MAX } else { self.streams_expected.max(1) };
        std::iter::from_fn(|| self.first_waiter()).take(share).collect()
    }

    /// All who wait.
    pub(super) fn all_waiters(&mut self) -> Vec<oneshot::Sender<Grant>> {
        std::mem::take(&mut self.waiters).into_values().collect()
    }

    /// Counts a failed dial; the next one that nobody waits for is put off.
    pub(super) fn dial_failed(&mut self, now: Moment) {
        let ceiling = AHEAD_WAIT.saturating_mul(1 << self.failures.min(6)).min(AHEAD_WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        self.ahead_not_before = now + ceiling.mul_f64(0.5 + 0.5 * self.prng.unit());
    }

    /// How many dials should be begun now.
    pub(super) fn dials_needed(&self, now: Moment) -> usize {
        let wanted = match self.protocol {
            _ if self.closed => 0,
            Protocol::Http1 => 0,
            Protocol::Unknown => usize::from(self.has_waiters()),
            Protocol::Http2 if self.has_waiters() => self.waiters.len().div_ceil(self.streams_expected.max(1)),
            Protocol::Http2 => usize::from(now >= self.ahead_not_before && self.is_nearly_full()),
        };
        let room = CONNECTIONS_MAX.saturating_sub(self.members.len() + self.dialing);
        wanted.min(DIALS_MAX).saturating_sub(self.dialing).min(room)
    }

    /// Whether 80 % of all slots are taken and no connection stands warm; or the last connection
    /// goes while it is in use.
    fn is_nearly_full(&self) -> bool {
        let open = || self.members.values().filter(|m| m.conn.is_open());
        let used: usize = open().map(|m| m.used).sum();
        let slots: usize = open().map(|m| m.conn.streams_max()).sum();
        match open().next() {
            Some(_) => used * 5 >= slots * 4 && open().all(|m| m.used > 0),
            None => self.members.values().any(|m| m.used > 0),
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
