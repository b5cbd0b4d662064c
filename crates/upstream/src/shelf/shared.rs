//! The shelf as tasks share it: places handed out, dials begun and counted, the end.

use super::{Policy, Shelf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidegate_base::Moment;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// A lane's shelf on one thread.
pub(crate) struct SharedShelf<P: Policy> {
    shelf: Mutex<Shelf<P>>,
    closing: Notify,
}

/// A place in the queue; leaves it when dropped.
struct Waiter<'a, P: Policy> {
    shelf: &'a SharedShelf<P>,
    ticket: u64,
    granted: oneshot::Receiver<P::Grant>,
}

impl<P: Policy> Drop for Waiter<'_, P> {
    fn drop(&mut self) {
        self.shelf.lock().leave(self.ticket);
    }
}

/// Counts a dial under way, however it ends.
struct Dialing<'a, P: Policy>(&'a SharedShelf<P>);

impl<P: Policy> Drop for Dialing<'_, P> {
    fn drop(&mut self) {
        self.0.lock().dialing -= 1;
    }
}

impl<P: Policy> SharedShelf<P> {
    pub(crate) fn new(shelf: Shelf<P>) -> Self {
        SharedShelf { shelf: Mutex::new(shelf), closing: Notify::new() }
    }

    /// Never held while a slot, a grant or a connection is dropped: that comes back here.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shelf<P>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is `free`, now or after waiting; or what a dial had to say. `None` once the lane is closed.
    /// `dial` begins the dials that are needed.
    pub(crate) async fn grant(&self, free: impl Fn() -> Option<P::Grant>, dial: impl Fn()) -> Option<P::Grant> {
        if let Some(grant) = free() {
            dial();
            return Some(grant);
        }
        let (ticket, granted) = self.lock().wait()?;
        let mut waiter = Waiter { shelf: self, ticket, granted };
        dial();
        (&mut waiter.granted).await.ok()
    }

    /// Gives what is `free` to those who wait.
    pub(crate) fn serve(&self, free: impl Fn() -> Option<P::Grant>) {
        while self.lock().has_waiters() {
            let Some(grant) = free() else { return };
            let waiter = self.lock().first_waiter();
            // One who just left drops what it was given, and that serves the next.
            let _ = waiter.map(|waiter| waiter.send(grant));
        }
    }

    /// Begins the dials that are needed now, each of which is to go through [`SharedShelf::dialled`].
    pub(crate) fn begin_dials(&self, now: Moment, begin: impl Fn() -> JoinHandle<()>) {
        let mut shelf = self.lock();
        for _ in 0..shelf.dials_needed(now) {
            shelf.dialing += 1;
            // Its task is the pool's, which counts it.
            drop(begin());
        }
    }

    /// What a dial that was begun brings; `None` if the lane is closed meanwhile.
    pub(crate) async fn dialled<T>(&self, open: impl Future<Output = T>) -> Option<T> {
        let _dialing = Dialing(self);
        self.unless_closed(open).await
    }

    /// A dial failed: those it was for are told.
    pub(crate) fn dial_failed(&self, now: Moment, told: impl Fn() -> P::Grant) {
        let mut shelf = self.lock();
        shelf.dial_failed(now);
        let waiters = shelf.failed_waiters();
        drop(shelf);
        for waiter in waiters {
            // Whoever left in the meantime need not know.
            let _ = waiter.send(told());
        }
    }

    /// `work`'s outcome; `None` if the lane is closed before that.
    pub(crate) async fn unless_closed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let closing = self.closing.notified();
        tokio::pin!(closing);
        closing.as_mut().enable();
        if self.lock().closed {
            return None;
        }
        tokio::select! {
            biased;
            () = &mut closing => None,
            done = work => Some(done),
        }
    }

    /// Lets all connections go, those in use when their last stream has ended; there will be no new
    /// ones. Who waits all the same is told.
    pub(crate) fn close(&self) {
        let mut shelf = self.lock();
        shelf.closed = true;
        shelf.retire_all();
        let waiters = shelf.all_waiters();
        drop(shelf);
        drop(waiters);
        self.closing.notify_waiters();
    }
}
