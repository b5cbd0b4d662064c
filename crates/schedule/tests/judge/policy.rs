//! What a world asks of whoever decides when a request may go: the scheduler, or a baseline.
//!
//! A request is named by its slot in the world; it holds at most one lease at a time.

use std::time::Duration;
use tidegate_base::Moment;
use tidegate_schedule::{Ask, Cause, LaneId, Levels, Outcome};

/// The answer to a question whether a request may go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Said {
    Go(LaneId),
    Wait,
    /// No: why, and when to come back.
    Refuse(&'static str, Option<Duration>),
}

/// What comes after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask again then.
    At(Moment),
    /// The client is told.
    GiveUp,
}

/// An attempt that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    pub(crate) lane: LaneId,
    pub(crate) cause: Cause,
    pub(crate) retry_after: Option<Duration>,
}

pub(crate) trait Policy {
    fn ask(&mut self, now: Moment, slot: usize, ask: &Ask) -> Said;
    fn cancel(&mut self, now: Moment, slot: usize);
    fn advance(&mut self, now: Moment) -> Vec<(usize, Said)>;
    fn wake_at(&self, now: Moment) -> Option<Moment>;
    fn sent(&mut self, _now: Moment, _slot: usize) {}
    fn heard(&mut self, _now: Moment, _slot: usize, _levels: &Levels) {}
    fn began(&mut self, _now: Moment, _slot: usize) {}
    /// The upstream has told how much of its input was not in the cache.
    fn counted(&mut self, _now: Moment, _slot: usize, _uncached: u64) {}
    fn progressed(&mut self, _now: Moment, _produced: &[(usize, u32)]) {}
    fn settle(&mut self, now: Moment, slot: usize, outcome: Outcome);
    fn retry(&mut self, now: Moment, slot: usize, ask: &Ask, failed: &Failed) -> Next;
    /// Leases that are out.
    fn leased(&self) -> u64;
    /// Requests that wait in it.
    fn waiting(&self) -> usize;
    /// What it believes is in a limiter of an organisation, at least and at most, its rate, what others used.
    fn believed(&self, _now: Moment, _org: usize, _which: usize) -> Option<[f64; 4]> {
        None
    }
    /// By how much its sums over leases and its counters differ.
    fn difference(&self) -> f64 {
        0.0
    }
}
