//! The WebSockets of one lane and who waits for a place on them.
//!
//! ```text
//!   dial ─▶ open ──old, idle, the peer drains──▶ takes no new streams ──last one ends──▶ closed
//!             └──lost──▶ 1 s, 2 s, 4 s … with jitter ─▶ dial      (for spares; who waits dials at once)
//! ```
//! A request takes a place on the emptier of two sockets drawn at random. So many sockets are kept
//! open whether anybody asks or not, and one more is dialled ahead when 80 % of all places are taken.
//! This file keeps the books, under the lane's lock.

use super::Sockets;
use super::link::Link;
use super::opening::Refusal;
use crate::exchange::Counted;
use crate::pool::PoolRules;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_transport::DialError;
use tokio::sync::oneshot;

/// WebSockets of one lane on one thread: more streams than a thread has clients, or so many prompts
/// at once; who comes later waits.
pub(super) const SOCKETS_MAX: usize = 256;
/// Dials of one lane that run at once.
pub(super) const DIALS_MAX: usize = 16;
/// The first and the longest wait between dials that nobody waits for.
const AHEAD_WAIT: Duration = Duration::from_secs(1);
const AHEAD_WAIT_MAX: Duration = Duration::from_secs(60);
/// A socket that has lived so long was no failure, whatever it carried.
const PROVED_BY_AGE: Duration = Duration::from_secs(60);

/// What somebody who waits is given.
pub(super) enum Grant {
    Slot(SocketSlot),
    /// The peer opens no socket for us, and says why.
    Refused(Arc<Refusal>),
    Failed(DialError),
}

struct Member {
    link: Link,
    used: usize,
    idle_since: Moment,
    opened: Moment,
    retire_at: Moment,
    /// Let go by us: that it ends then is no loss.
    is_let_go: bool,
    _counted: Counted,
}

impl Member {
    fn has_room(&self) -> bool {
        self.link.is_open() && self.used < self.link.streams_max()
    }

    fn let_go(&mut self) {
        self.is_let_go = true;
        self.link.retire();
    }
}

/// The books of one lane.
pub(super) struct Shelf {
    pub(super) closed: bool,
    /// Dials under way.
    pub(super) dialing: usize,
    rules: PoolRules,
    /// What one socket is expected to carry.
    streams: usize,
    members: BTreeMap<u64, Member>,
    waiters: BTreeMap<u64, oneshot::Sender<Grant>>,
    next_id: u64,
    failures: u32,
    ahead_not_before: Moment,
    prng: Prng,
    busy: Gauge,
    idle: Gauge,
}

impl Shelf {
    pub(super) fn new(rules: PoolRules, streams: usize, prng: Prng, busy: Gauge, idle: Gauge) -> Self {
        Shelf {
            closed: false,
            dialing: 0,
            rules,
            streams,
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

    /// A number for a socket or a waiter, never used before.
    pub(super) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Dice of a socket's own: its masks are nobody else's to foresee.
    pub(super) fn dice(&mut self) -> Prng {
        Prng::new(self.prng.next_u64())
    }

    /// Puts a new socket on the shelf, unless it ended in the meantime.
    pub(super) fn add(&mut self, id: u64, link: Link, now: Moment) -> bool {
        if self.closed || !link.is_open() {
            link.retire();
            return false;
        }
        let retire_at = now + self.rules.socket_age.mul_f64(0.9 + 0.2 * self.prng.unit());
        let _counted = Counted::new(&self.idle);
        let member = Member { link, used: 0, idle_since: now, opened: now, retire_at, is_let_go: false, _counted };
        self.members.insert(id, member);
        true
    }

    /// Takes a place: the member's number and its socket.
    pub(super) fn take(&mut self, now: Moment) -> Option<(u64, Link)> {
        self.retire_old(now);
        let count = self.members.values().filter(|m| m.has_room()).count() as u64;
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
        if member.used == 0 {
            member._counted = Counted::new(&self.busy);
        }
        member.used += 1;
        Some((*id, member.link.clone()))
    }

    /// Gives a place back.
    pub(super) fn give_back(&mut self, id: u64, now: Moment) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.used = member.used.saturating_sub(1);
        if member.used == 0 {
            member.idle_since = now;
            member._counted = Counted::new(&self.idle);
        }
    }

    /// A socket is gone. One that was lost is not replaced at once: a peer that starts again has
    /// all of its clients come back.
    pub(super) fn forget(&mut self, id: u64, now: Moment) {
        let Some(member) = self.members.remove(&id) else { return };
        if member.link.is_proved() || now.since(member.opened) >= PROVED_BY_AGE {
            self.failures = 0;
        }
        if !member.is_let_go {
            self.dial_failed(now);
        }
    }

    fn retire_old(&mut self, now: Moment) {
        self.members.values_mut().filter(|m| m.retire_at <= now).for_each(Member::let_go);
    }

    /// Lets sockets go that are old, or were idle for long and are no spares.
    pub(super) fn sweep(&mut self, now: Moment) {
        self.retire_old(now);
        let mut open = self.members.values().filter(|m| m.link.is_open()).count();
        let keep = self.rules.idle_keep;
        for member in self.members.values_mut() {
            let idle = member.link.is_open() && member.used == 0 && now.since(member.idle_since) >= keep;
            if idle && open > self.rules.socket_spares {
                member.let_go();
                open -= 1;
            }
        }
    }

    /// Lets all sockets go.
    pub(super) fn retire_all(&mut self) {
        self.members.values_mut().for_each(Member::let_go);
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
        let alone = self.dialing == 0 && !self.members.values().any(|m| m.link.is_open());
        let share = if alone { usize::MAX } else { self.streams };
        std::iter::from_fn(|| self.first_waiter()).take(share).collect()
    }

    /// All who wait.
    pub(super) fn all_waiters(&mut self) -> Vec<oneshot::Sender<Grant>> {
        std::mem::take(&mut self.waiters).into_values().collect()
    }

    /// Counts a failed dial or a lost socket; the next dial that nobody waits for is put off.
    pub(super) fn dial_failed(&mut self, now: Moment) {
        let ceiling = AHEAD_WAIT.saturating_mul(1 << self.failures.min(6)).min(AHEAD_WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        self.ahead_not_before = now + ceiling.mul_f64(0.5 + 0.5 * self.prng.unit());
    }

    /// How many dials should be begun now.
    pub(super) fn dials_needed(&self, now: Moment) -> usize {
        let wanted = if self.closed {
            0
        } else if self.has_waiters() {
            self.waiters.len().div_ceil(self.streams).saturating_sub(self.dialing)
        } else if now >= self.ahead_not_before {
            self.ahead_needed()
        } else {
            0
        };
        let room = SOCKETS_MAX.saturating_sub(self.members.len() + self.dialing);
        wanted.min(DIALS_MAX.saturating_sub(self.dialing)).min(room)
    }

    /// When to look again for dials that nobody waits for, if they are put off.
    pub(super) fn dials_due(&self, now: Moment) -> Option<Moment> {
        (!self.closed && now < self.ahead_not_before && self.ahead_needed() > 0).then_some(self.ahead_not_before)
    }

    /// Dials that nobody waits for: for missing spares, or since 80 % of all places are taken and no
    /// socket stands warm.
    fn ahead_needed(&self) -> usize {
        let open = || self.members.values().filter(|m| m.link.is_open());
        let used: usize = open().map(|m| m.used).sum();
        let places: usize = open().map(|m| m.link.streams_max()).sum();
        let is_nearly_full = used > 0 && used * 5 >= places * 4 && open().all(|m| m.used > 0);
        let count = open().count() + self.dialing;
        let ahead = usize::from(is_nearly_full && self.dialing == 0);
        self.rules.socket_spares.saturating_sub(count).max(ahead)
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
