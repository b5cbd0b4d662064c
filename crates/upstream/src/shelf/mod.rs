//! The connections of one lane that carry many streams each, and who waits for a place on them.
//!
//! ```text
//!   dial ─▶ open ──old, idle, the peer leaves──▶ takes no new streams ──last one ends──▶ closed
//!    ▲                                                    (forgotten)
//!    └── for those who wait at once; ahead of them not before 1 s, 2 s, 4 s … after a failure
//! ```
//! A request takes a place on the emptier of two connections drawn at random. If none is free it
//! waits, first come first served. This file keeps the books, under the lane's lock; what is dialled
//! when, the two pools' policies say.

mod shared;

pub(crate) use shared::SharedShelf;

use crate::exchange::Counted;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_transport::http2::Connection;
use tidegate_transport::{DialError, DialStage};
use tokio::sync::oneshot;

/// Connections of one lane on one thread: of HTTP/2 25,600 streams, more than a thread has clients; of
/// prompts so many at once. Who comes later waits.
const CONNECTIONS_MAX: usize = 256;
/// Dials of one lane that run at once: 1,600 waiting requests get their connections in one go.
const DIALS_MAX: usize = 16;
/// The first and the longest wait between dials that nobody waits for.
const AHEAD_WAIT: Duration = Duration::from_secs(1);
const AHEAD_WAIT_MAX: Duration = Duration::from_secs(60);

/// A dial that failed at this stage, not by its clock.
pub(crate) fn failed(stage: DialStage, message: String) -> DialError {
    DialError { stage, timed_out: false, message, todo: None }
}

/// What those are told who would wait on a closed lane.
pub(crate) fn closed() -> DialError {
    failed(DialStage::Connect, "the gateway is closing".to_owned())
}

/// A connection that carries streams.
pub(crate) trait Carrier: Clone {
    /// Whether it takes new streams.
    fn is_open(&self) -> bool;
    /// How many at once.
    fn streams_max(&self) -> usize;
    /// It takes no more, and ends with its last.
    fn retire(&self);
}

impl Carrier for Connection {
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

/// What differs between the pools, and what they know besides.
pub(crate) trait Policy: Sized {
    type Carrier: Carrier;
    /// What somebody who waits is given.
    type Grant;

    /// How many dials should be under way now.
    fn dials(&self, shelf: &Shelf<Self>, now: Moment) -> usize;
}

pub(crate) struct Member<C> {
    pub(crate) carrier: C,
    used: usize,
    /// Whether it carried a stream before.
    used_before: bool,
    idle_since: Moment,
    pub(crate) opened: Moment,
    retire_at: Moment,
    /// Let go by us: that it ends then is no loss.
    pub(crate) is_let_go: bool,
    _counted: Counted,
}

impl<C: Carrier> Member<C> {
    fn has_room(&self) -> bool {
        self.carrier.is_open() && self.used < self.carrier.streams_max()
    }

    fn let_go(&mut self) {
        self.is_let_go = true;
        self.carrier.retire();
    }
}

/// A place that was taken.
pub(crate) struct Taken<C> {
    /// The member's number, for [`Shelf::give_back`].
    pub(crate) member: u64,
    pub(crate) carrier: C,
    /// It had no stream, and one before: the other side may have closed it.
    pub(crate) rested: bool,
}

/// What is told of all open members together.
pub(crate) struct Open {
    pub(crate) count: usize,
    /// Whether 80 % of all places are taken, and no member stands warm.
    pub(crate) is_nearly_full: bool,
}

/// The books of one lane.
pub(crate) struct Shelf<P: Policy> {
    pub(crate) policy: P,
    pub(crate) closed: bool,
    /// Dials under way.
    pub(crate) dialing: usize,
    /// What one connection is expected to carry, at least 1.
    streams_expected: usize,
    members: BTreeMap<u64, Member<P::Carrier>>,
    waiters: BTreeMap<u64, oneshot::Sender<P::Grant>>,
    next_id: u64,
    failures: u32,
    ahead_not_before: Moment,
    prng: Prng,
    busy: Gauge,
    idle: Gauge,
}

impl<P: Policy> Shelf<P> {
    pub(crate) fn new(policy: P, streams_expected: usize, prng: Prng, (busy, idle): (Gauge, Gauge)) -> Self {
        Shelf {
            policy,
            closed: false,
            dialing: 0,
            streams_expected: streams_expected.max(1),
            members: BTreeMap::new(),
            waiters: BTreeMap::new(),
            next_id: 0,
            failures: 0,
            ahead_not_before: Moment::ZERO,
            prng,
            busy,
            idle,
        }
    }

    /// A number for a connection or a waiter, never used before.
    pub(crate) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Dice of a connection's own: its masks are nobody else's to foresee.
    pub(crate) fn dice(&mut self) -> Prng {
        Prng::new(self.prng.next_u64())
    }

    /// A connection has told how many it takes.
    pub(crate) fn expect(&mut self, streams: usize) {
        self.streams_expected = streams.max(1);
    }

    /// Puts a new connection on the shelf, unless it ended in the meantime. It takes new streams for
    /// `age`, give or take a tenth.
    pub(crate) fn add(&mut self, id: u64, carrier: P::Carrier, now: Moment, age: Duration) -> bool {
        if self.closed || !carrier.is_open() {
            carrier.retire();
            return false;
        }
        let retire_at = now + age.mul_f64(0.9 + 0.2 * self.prng.unit());
        let member = Member {
            carrier,
            used: 0,
            used_before: false,
            idle_since: now,
            opened: now,
            retire_at,
            is_let_go: false,
            _counted: Counted::new(&self.idle),
        };
        self.members.insert(id, member);
        true
    }

    /// Takes a place, if there is one.
    pub(crate) fn take(&mut self, now: Moment) -> Option<Taken<P::Carrier>> {
        self.retire_old(now);
        let (a, b) = match self.members.values().filter(|m| m.has_room()).count() as u64 {
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
        Some(Taken { member: *id, carrier: member.carrier.clone(), rested })
    }

    /// Gives a place back.
    pub(crate) fn give_back(&mut self, id: u64, now: Moment) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.used = member.used.saturating_sub(1);
        if member.used == 0 {
            member.idle_since = now;
            member._counted = Counted::new(&self.idle);
        }
    }

    /// A connection is gone.
    pub(crate) fn forget(&mut self, id: u64) -> Option<Member<P::Carrier>> {
        self.members.remove(&id)
    }

    fn retire_old(&mut self, now: Moment) {
        self.members.values_mut().filter(|m| m.retire_at <= now).for_each(Member::let_go);
    }

    /// Lets connections go that are old, or were idle for `keep` and are more than the `spares`.
    pub(crate) fn sweep(&mut self, now: Moment, keep: Duration, spares: usize) {
        self.retire_old(now);
        let mut open = self.members.values().filter(|m| m.carrier.is_open()).count();
        for member in self.members.values_mut() {
            let idle = member.carrier.is_open() && member.used == 0 && now.since(member.idle_since) >= keep;
            if idle && open > spares {
                member.let_go();
                open -= 1;
            }
        }
    }

    /// Lets all connections go.
    pub(crate) fn retire_all(&mut self) {
        self.members.values_mut().for_each(Member::let_go);
    }

    /// Somebody begins to wait; `None` once the lane is closed.
    pub(crate) fn wait(&mut self) -> Option<(u64, oneshot::Receiver<P::Grant>)> {
        if self.closed {
            return None;
        }
        let ticket = self.id();
        let (to, granted) = oneshot::channel();
        self.waiters.insert(ticket, to);
        Some((ticket, granted))
    }

    /// Somebody waits no more.
    pub(crate) fn leave(&mut self, ticket: u64) {
        self.waiters.remove(&ticket);
    }

    /// Whoever waits longest.
    pub(crate) fn first_waiter(&mut self) -> Option<oneshot::Sender<P::Grant>> {
        self.waiters.pop_first().map(|(_, to)| to)
    }

    pub(crate) fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Those who a failed dial was for: its share, or all if there is nothing else to wait for.
    pub(crate) fn failed_waiters(&mut self) -> Vec<oneshot::Sender<P::Grant>> {
        let alone = self.dialing == 0 && self.open().count == 0;
        let share = if alone { usize::MAX } else { self.streams_expected };
        std::iter::from_fn(|| self.first_waiter()).take(share).collect()
    }

    /// All who wait.
    pub(crate) fn all_waiters(&mut self) -> Vec<oneshot::Sender<P::Grant>> {
        std::mem::take(&mut self.waiters).into_values().collect()
    }

    /// Counts a failed dial, or a loss that is one; the next dial that nobody waits for is put off.
    pub(crate) fn dial_failed(&mut self, now: Moment) {
        let ceiling = AHEAD_WAIT.saturating_mul(1 << self.failures.min(6)).min(AHEAD_WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        self.ahead_not_before = now + ceiling.mul_f64(0.5 + 0.5 * self.prng.unit());
    }

    /// A connection has proved itself: the next failure is a first one.
    pub(crate) fn dial_proved(&mut self) {
        self.failures = 0;
    }

    /// One that opens is proof enough: dials that nobody waits for are put off no longer.
    pub(crate) fn dial_worked(&mut self, now: Moment) {
        (self.failures, self.ahead_not_before) = (0, now);
    }

    /// The moment before which nothing is dialled that nobody waits for.
    pub(crate) fn ahead_not_before(&self) -> Moment {
        self.ahead_not_before
    }

    /// Dials that are needed for those who wait.
    pub(crate) fn dials_for_waiters(&self) -> usize {
        self.waiters.len().div_ceil(self.streams_expected)
    }

    /// How many dials should be begun now.
    pub(crate) fn dials_needed(&self, now: Moment) -> usize {
        let wanted = if self.closed { 0 } else { self.policy.dials(self, now) };
        let room = CONNECTIONS_MAX.saturating_sub(self.members.len() + self.dialing);
        wanted.min(DIALS_MAX).saturating_sub(self.dialing).min(room)
    }

    pub(crate) fn open(&self) -> Open {
        let open = || self.members.values().filter(|m| m.carrier.is_open());
        let used: usize = open().map(|m| m.used).sum();
        let places: usize = open().map(|m| m.carrier.streams_max()).sum();
        let is_nearly_full = used > 0 && used * 5 >= places * 4 && open().all(|m| m.used > 0);
        Open { count: open().count(), is_nearly_full }
    }

    /// Whether any member carries a stream, those that take no new ones among them.
    pub(crate) fn is_in_use(&self) -> bool {
        self.members.values().any(|m| m.used > 0)
    }
}
