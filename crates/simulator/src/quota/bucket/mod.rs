//! A token bucket that refills continuously and forgets nothing.
//!
//! The level is kept in units of a sixty-billionth of a token, so that `elapsed nanoseconds x limit
//! per minute` is exact: no rounding, no drift, and the order in which a bucket is asked does not
//! change what it holds. A bucket may fall below zero (output is charged when it is already
//! produced); it is then in debt and refills from there.
//!
//! *Drains* are consumers nobody sees: each takes its share of the refill in lumps, at times that
//! depend on nothing but its beginning, also where that leaves a debt. *The account* says where
//! everything went, so that it can be told what a limit would have allowed:
//! `level = level at its beginning + refilled - overflowed - foreign - used`.

use std::time::Duration;
use tidegate_base::Moment;

/// Units of level per token: nanoseconds in a minute.
const TOKEN: i128 = 60_000_000_000;

/// One limit: so much per minute, and at most `capacity` saved up.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    per_minute: u64,
    burst: Duration,
    capacity: i128,
    level: i128,
    at: Moment,
    drains: Vec<Drain>,
    account: Account,
}

/// A consumer that takes `percent` of the refill, all that is due at once every `every`.
#[derive(Clone, Copy, Debug)]
struct Drain {
    /// Names it, so that it can be stopped.
    id: usize,
    percent: i128,
    every_ns: u64,
    next: Moment,
}

/// Where everything went since the account was opened, in units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    opened_with: i128,
    refilled: i128,
    overflowed: i128,
    foreign: i128,
    used: i128,
}

/// A bucket's account in tokens, rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Balance {
    /// What it held when the account was opened.
    pub(crate) opened_with: i64,
    /// What the limit added since then.
    pub(crate) refilled: i64,
    /// What of it found the bucket full.
    pub(crate) overflowed: i64,
    /// What somebody else took.
    pub(crate) foreign: i64,
    /// What was charged, less what was given back.
    pub(crate) used: i64,
    /// What it holds now.
    pub(crate) level: i64,
}

fn tokens(units: i128) -> i64 {
    i64::try_from(units.div_euclid(TOKEN)).unwrap_or(i64::MAX)
}

/// What a burst of this limit holds. Always one token, or nothing could pass.
fn capacity(per_minute: u64, burst: Duration) -> i128 {
    let burst_ns = burst.as_nanos().min(u128::from(u64::MAX)) as i128;
    (i128::from(per_minute) * burst_ns).max(TOKEN)
}

impl Bucket {
    /// A full bucket. `burst` is how much refill can be saved up; a minute makes the capacity the
    /// limit itself.
    pub(crate) fn new(per_minute: u64, burst: Duration, now: Moment) -> Self {
        let capacity = capacity(per_minute, burst);
        let account = Account { opened_with: capacity, ..Account::default() };
        Bucket { per_minute, burst, capacity, level: capacity, at: now, drains: Vec::new(), account }
    }

    /// The limit, per minute.
    pub(crate) fn limit(&self) -> u64 {
        self.per_minute
    }

    /// Whole tokens it holds when it is full.
    pub(crate) fn holds(&self) -> u64 {
        u64::try_from(self.capacity / TOKEN).unwrap_or(u64::MAX)
    }

    /// Changes the limit; what is saved up beyond the new burst is lost.
    pub(crate) fn change(&mut self, per_minute: u64, burst: Option<Duration>, now: Moment) {
        self.refill(now);
        self.per_minute = per_minute;
        self.burst = burst.unwrap_or(self.burst);
        self.capacity = capacity(per_minute, self.burst);
        self.overflow();
    }

    /// A consumer begins; it takes for the first time when `every` has passed.
    pub(crate) fn drain(&mut self, id: usize, percent: u64, every: Duration, now: Moment) {
        self.refill(now);
        let every = every.max(Duration::from_millis(1));
        let every_ns = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX);
        self.drains.push(Drain { id, percent: percent.min(100).into(), every_ns, next: now + every });
    }

    /// A consumer ends.
    pub(crate) fn undrain(&mut self, id: usize, now: Moment) {
        self.refill(now);
        self.drains.retain(|drain| drain.id != id);
    }

    /// Brings the level to `now`.
    fn refill(&mut self, now: Moment) {
        while let Some(n) = (0..self.drains.len()).min_by_key(|n| self.drains[*n].next) {
            let due = self.drains[n].next;
            if due > now {
                break;
            }
            self.flow(due);
            let lump = self.lump(&self.drains[n]);
            self.level -= lump;
            self.account.foreign += lump;
            self.drains[n].next = due + Duration::from_nanos(self.drains[n].every_ns);
            if self.drains.len() == 1 {
                self.leap(now);
            }
        }
        self.flow(now);
    }

    /// Refill only.
    fn flow(&mut self, now: Moment) {
        let gain = now.since(self.at).as_nanos() as i128 * i128::from(self.per_minute);
        self.level += gain;
        self.account.refilled += gain;
        self.at = self.at.max(now);
        self.overflow();
    }

    fn overflow(&mut self) {
        let over = (self.level - self.capacity).max(0);
        self.level -= over;
        self.account.overflowed += over;
    }

    fn lump(&self, drain: &Drain) -> i128 {
        i128::from(self.per_minute) * i128::from(drain.every_ns) * drain.percent / 100
    }

    /// All whole periods of the only drain up to `now`, from just after one of its lumps. In each,
    /// the level grows by the refill, is cut at the capacity and falls by the lump; as the refill is
    /// never less than the lump, only the last cut is seen.
    fn leap(&mut self, now: Moment) {
        let Some(drain) = self.drains.first().copied() else { return };
        if drain.next > now {
            return;
        }
        let periods = i128::from((now.since(drain.next).as_nanos() as u64) / drain.every_ns) + 1;
        let (gain, lump) = (i128::from(self.per_minute) * i128::from(drain.every_ns), self.lump(&drain));
        let uncut = self.level + periods * (gain - lump);
        let level = uncut.min(self.capacity - lump);
        self.account.refilled += periods * gain;
        self.account.foreign += periods * lump;
        self.account.overflowed += uncut - level;
        self.level = level;
        let span = Duration::from_nanos(u64::try_from(periods * i128::from(drain.every_ns)).unwrap_or(u64::MAX));
        self.at = self.at + span;
        self.drains[0].next = drain.next + span;
    }

    /// Whole tokens that can be taken now; zero while in debt.
    pub(crate) fn left(&mut self, now: Moment) -> u64 {
        self.refill(now);
        u64::try_from(self.level / TOKEN).unwrap_or(0)
    }

    /// Takes `tokens`, into debt if need be.
    pub(crate) fn take(&mut self, tokens: u64, now: Moment) {
        self.refill(now);
        let units = i128::from(tokens) * TOKEN;
        self.level -= units;
        self.account.used += units;
    }

    /// Gives back what was taken; what finds the bucket full is lost.
    pub(crate) fn give(&mut self, tokens: u64, now: Moment) {
        self.refill(now);
        let units = i128::from(tokens) * TOKEN;
        self.level += units;
        self.account.used -= units;
        self.overflow();
    }

    /// How long until `tokens` are there; `None` if that never happens.
    pub(crate) fn until(&mut self, tokens: u64, now: Moment) -> Option<Duration> {
        self.refill(now);
        let wanted = i128::from(tokens) * TOKEN;
        if wanted > self.capacity || (self.per_minute == 0 && wanted > self.level) {
            return None;
        }
        Some(self.time_for(wanted - self.level))
    }

    /// How long until the bucket is full.
    pub(crate) fn until_full(&mut self, now: Moment) -> Duration {
        self.refill(now);
        self.time_for(self.capacity - self.level)
    }

    fn time_for(&self, missing: i128) -> Duration {
        if missing <= 0 {
            return Duration::ZERO;
        }
        let ns = (missing + i128::from(self.per_minute.max(1)) - 1) / i128::from(self.per_minute.max(1));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// Opens a new account.
    pub(crate) fn reopen(&mut self, now: Moment) {
        self.refill(now);
        self.account = Account { opened_with: self.level, ..Account::default() };
    }

    /// The account so far.
    pub(crate) fn balance(&mut self, now: Moment) -> Balance {
        self.refill(now);
        let account = &self.account;
        Balance {
            opened_with: tokens(account.opened_with),
            refilled: tokens(account.refilled),
            overflowed: tokens(account.overflowed),
            foreign: tokens(account.foreign),
            used: tokens(account.used),
            level: tokens(self.level),
        }
    }
}

#[cfg(test)]
mod tests;
