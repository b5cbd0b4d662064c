//! How much output one data-plane thread's streams have produced, told to the scheduler in slots.
//!
//! The scheduler wants to know what streams produce while they do, not at their end; and an event
//! must not cost a lock. So each metered stream has a number that its events add to, and one task
//! of its thread collects all of them every 50 ms and hands them over at once. While no metered
//! stream lives, it sleeps.

use crate::admit::Admission;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_schedule::LeaseId;
use tidegate_transport::Clock;
use tokio::sync::Notify;

/// How often progress is told (scheduling page, A2.2).
const SLOT: Duration = Duration::from_millis(50);
/// The unit that is counted in is a twelfth of a token.
const TWELFTHS: u32 = 12;

#[derive(Debug)]
struct Stream {
    lease: LeaseId,
    twelfths: AtomicU32,
    /// Its place in the list.
    at: AtomicUsize,
}

/// The metered streams of one thread.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    streams: Mutex<Vec<Arc<Stream>>>,
    begun: Notify,
}

impl Progress {
    fn streams(&self) -> MutexGuard<'_, Vec<Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A metered stream begins.
    pub(crate) fn meter(&self, lease: LeaseId) -> Meter<'_> {
        let mut streams = self.streams();
        let at = AtomicUsize::new(streams.len());
        let stream = Arc::new(Stream { lease, twelfths: AtomicU32::new(0), at });
        streams.push(Arc::clone(&stream));
        if streams.len() == 1 {
            self.begun.notify_one();
        }
        drop(streams);
        Meter { progress: self, stream }
    }

    /// Collects whole tokens into `into`; what is left of one stays. False if there are no streams.
    fn collect(&self, into: &mut Vec<(LeaseId, u32)>) -> bool {
        let streams = self.streams();
        for stream in streams.iter() {
            let tokens = stream.twelfths.load(Ordering::Relaxed) / TWELFTHS;
            if tokens > 0 {
                stream.twelfths.fetch_sub(tokens * TWELFTHS, Ordering::Relaxed);
                into.push((stream.lease, tokens));
            }
        }
        !streams.is_empty()
    }

    /// Tells the scheduler, until it is dropped.
    pub(crate) async fn report(&self, clock: Clock, admission: &Admission) {
        let mut produced = Vec::new();
        loop {
            self.begun.notified().await;
            loop {
                clock.sleep_until(clock.now() + SLOT).await;
                produced.clear();
                let some = self.collect(&mut produced);
                if !produced.is_empty() {
                    admission.progressed(&produced);
                }
                if !some {
                    break;
                }
            }
        }
    }
}

/// One metered stream; it ends by being dropped.
#[derive(Debug)]
pub(crate) struct Meter<'p> {
    progress: &'p Progress,
    stream: Arc<Stream>,
}

impl Meter<'_> {
    /// So many twelfths of a token came.
    pub(crate) fn add(&self, twelfths: u32) {
        self.stream.twelfths.fetch_add(twelfths, Ordering::Relaxed);
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        let mut streams = self.progress.streams();
        let at = self.stream.at.load(Ordering::Relaxed);
        streams.swap_remove(at);
        if let Some(moved) = streams.get(at) {
            moved.at.store(at, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> LeaseId {
        LeaseId::default()
    }

    #[test]
    fn whole_tokens_are_told_once_and_the_rest_is_kept() {
        let progress = Progress::default();
        let mut told = Vec::new();
        assert!(!progress.collect(&mut told));
        let (a, b) = (progress.meter(lease()), progress.meter(lease()));
        a.add(29);
        assert!(progress.collect(&mut told));
        assert_eq!(told, [(lease(), 2)]);
        told.clear();
        a.add(7);
        b.add(11);
        progress.collect(&mut told);
        assert_eq!(told, [(lease(), 1)]);
    }

    #[test]
    fn streams_leave_in_any_order() {
        let progress = Progress::default();
        let mut meters: Vec<_> = (0..100).map(|_| progress.meter(lease())).collect();
        let mut dice = tidegate_base::Prng::new(5);
        while !meters.is_empty() {
            meters.swap_remove(dice.below(meters.len() as u64) as usize);
            let mut told = Vec::new();
            meters.iter().for_each(|m| m.add(12));
            progress.collect(&mut told);
            assert_eq!(told.len(), meters.len());
        }
    }
}
