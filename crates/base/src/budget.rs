//! Byte budgets: memory that is counted before it is filled.
//!
//! A [`ByteBudget`] is shared by all threads (one atomic); a [`ByteLease`] is the right to hold so
//! many bytes of it. Dropping a lease gives its bytes back and does nothing else. What cannot be
//! leased is refused by the caller with a message; the budget itself never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A fixed number of bytes, shared out in leases. Cloning shares it.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
}

impl ByteBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        ByteBudget { shared: Arc::new(Shared { limit, used: AtomicU64::new(0) }) }
    }

    /// The most that can be held at once, bytes.
    pub fn limit(&self) -> u64 {
        self.shared.limit
    }

    /// What is held now, bytes.
    pub fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// A lease that holds nothing yet.
    pub fn empty_lease(&self) -> ByteLease {
        ByteLease { shared: Arc::clone(&self.shared), held: 0 }
    }

    /// A lease of `bytes`, or `None` if they are not there.
    pub fn lease(&self, bytes: u64) -> Option<ByteLease> {
        let mut lease = self.empty_lease();
        lease.resize(bytes).then_some(lease)
    }
}

/// The right to hold some bytes of a [`ByteBudget`]; gives them back when dropped.
#[derive(Debug)]
pub struct ByteLease {
    shared: Arc<Shared>,
    held: u64,
}

impl ByteLease {
    /// Bytes held.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Makes the lease hold `bytes`: shrinking always succeeds; growing may find the budget spent,
    /// and then changes nothing and returns false.
    #[must_use]
    pub fn resize(&mut self, bytes: u64) -> bool {
        if bytes <= self.held {
            self.shared.used.fetch_sub(self.held - bytes, Ordering::Relaxed);
        } else {
            let more = bytes - self.held;
            let limit = self.shared.limit;
            let taken = self.shared.used.try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(more).filter(|sum| *sum <= limit)
            });
            if taken.is_err() {
                return false;
            }
        }
        self.held = bytes;
        true
    }
}

impl Drop for ByteLease {
    fn drop(&mut self) {
        self.shared.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_never_exceed_the_budget_and_come_back_on_drop() {
        let budget = ByteBudget::new(100);
        let mut a = budget.lease(60).unwrap();
        assert!(budget.lease(41).is_none());
        let b = budget.lease(40).unwrap();
        assert!(!a.resize(61));
        assert_eq!((a.held(), budget.used()), (60, 100));
        drop(b);
        assert!(a.resize(100));
        assert!(a.resize(1));
        assert_eq!(budget.used(), 1);
        drop(a);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_huge_request_is_refused_without_overflow() {
        let budget = ByteBudget::new(u64::MAX);
        let _one = budget.lease(1).unwrap();
        assert!(budget.lease(u64::MAX).is_none());
    }
}
