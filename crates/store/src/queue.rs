//! What waits for a thread of this room: first in, first out, bounded in number and in bytes.
//!
//! Whoever puts something in never waits: a full queue refuses. A closed queue takes nothing more
//! and gives out what it holds. [`Queue::take_group`] is group commit's collecting: everything that
//! is there, and for a moment as many as came together the last time.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why an item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It would be too many, or too many bytes.
    Full,
    /// The queue is closed.
    Closed,
}

#[derive(Debug)]
struct Waiting<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    closed: bool,
}

/// A bounded queue between threads.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    changed: Condvar,
    items_max: usize,
    bytes_max: usize,
}

/// The most of one group, and how long it is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) items_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) wait_max: Duration,
}

impl<T> Queue<T> {
    /// An empty queue of at most so many items and bytes.
    pub(crate) fn new(items_max: usize, bytes_max: usize) -> Self {
        let waiting = Waiting { items: VecDeque::new(), bytes: 0, closed: false };
        Queue { waiting: Mutex::new(waiting), changed: Condvar::new(), items_max, bytes_max }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `item`, which holds `bytes`, or gives it back. A single item larger than the bound goes into an empty queue.
    pub(crate) fn push(&self, item: T, bytes: usize) -> Result<(), (T, Refused)> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err((item, Refused::Closed));
        }
        let over = waiting.bytes.saturating_add(bytes) > self.bytes_max && !waiting.items.is_empty();
        if over || waiting.items.len() >= self.items_max {
            return Err((item, Refused::Full));
        }
        waiting.items.push_back((item, bytes));
        waiting.bytes += bytes;
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// The oldest, when there is one; `None` once the queue is closed and empty.
    pub(crate) fn take(&self) -> Option<T> {
        let nothing = |waiting: &mut Waiting<T>| waiting.items.is_empty() && !waiting.closed;
        let mut waiting = self.changed.wait_while(self.waiting(), nothing).unwrap_or_else(PoisonError::into_inner);
        let (item, bytes) = waiting.items.pop_front()?;
        waiting.bytes -= bytes;
        Some(item)
    }

    /// All that is there, within the bounds of `group`, when there is something; `None` once the
    /// queue is closed and empty. If `companions` is more than one, as many are waited for.
    pub(crate) fn take_group(&self, companions: usize, group: Group) -> Option<Vec<T>> {
        let nothing = |waiting: &mut Waiting<T>| waiting.items.is_empty() && !waiting.closed;
        let waiting = self.changed.wait_while(self.waiting(), nothing).unwrap_or_else(PoisonError::into_inner);
        let wanted = companions.min(group.items_max);
        let few = |waiting: &mut Waiting<T>| {
            waiting.items.len() < wanted && waiting.bytes < group.bytes_max && !waiting.closed
        };
        let waited = self.changed.wait_timeout_while(waiting, group.wait_max, few);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some((_, more)) = waiting.items.front() {
            if !taken.is_empty() && (taken.len() >= group.items_max || bytes + more > group.bytes_max) {
                break;
            }
            let Some((item, more)) = waiting.items.pop_front() else { break };
            waiting.bytes -= more;
            bytes += more;
            taken.push(item);
        }
        (!taken.is_empty()).then_some(taken)
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting().items.is_empty()
    }

    /// Takes nothing more.
    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.changed.notify_all();
    }

    /// Takes nothing more and drops what is there.
    pub(crate) fn abandon(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.bytes = 0;
        let dropped = std::mem::take(&mut waiting.items);
        drop(waiting);
        self.changed.notify_all();
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Group = Group { items_max: 3, bytes_max: 100, wait_max: Duration::from_millis(2) };

    #[test]
    fn a_full_queue_refuses_by_number_and_by_bytes_and_a_closed_one_gives_out_the_rest() {
        let queue = Queue::new(2, 100);
        assert_eq!(queue.push(1, 1000), Ok(()), "one large item alone is taken");
        assert_eq!(queue.push(2, 1), Err((2, Refused::Full)));
        assert_eq!(queue.take(), Some(1));
        assert_eq!((queue.push(2, 60), queue.push(3, 60)), (Ok(()), Err((3, Refused::Full))));
        assert_eq!((queue.push(3, 40), queue.push(4, 0)), (Ok(()), Err((4, Refused::Full))));
        queue.close();
        assert_eq!(queue.push(5, 0), Err((5, Refused::Closed)));
        assert_eq!((queue.take(), queue.take(), queue.take()), (Some(2), Some(3), None));
    }

    #[test]
    fn a_group_is_all_that_waits_within_its_bounds() {
        let queue = Queue::new(10, 1000);
        for (item, bytes) in [(1, 10), (2, 10), (3, 10), (4, 90), (5, 90)] {
            assert_eq!(queue.push(item, bytes), Ok(()));
        }
        assert_eq!(queue.take_group(1, GROUP), Some(vec![1, 2, 3]));
        assert_eq!(queue.take_group(2, GROUP), Some(vec![4]), "bytes bound it too");
        assert_eq!(queue.take_group(2, GROUP), Some(vec![5]), "companions that do not come are not waited for long");
        queue.close();
        assert_eq!(queue.take_group(1, GROUP), None);
    }

    #[test]
    fn companions_are_waited_for() {
        let queue = std::sync::Arc::new(Queue::new(10, 1000));
        let patient = Group { wait_max: Duration::from_secs(60), ..GROUP };
        assert_eq!(queue.push(1, 1), Ok(()));
        let other = std::sync::Arc::clone(&queue);
        let pusher = std::thread::spawn(move || other.push(2, 1));
        assert_eq!(queue.take_group(2, patient), Some(vec![1, 2]));
        assert_eq!(pusher.join().unwrap(), Ok(()));
    }
}
