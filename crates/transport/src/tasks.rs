//! Tasks that are declared: each kind has a name and says what happens at its end.
//!
//! There is no bare `spawn` in this project. A task is spawned through [`Tasks`], which counts the
//! living by kind, so that drain can wait for them, metrics can show them and a test can prove
//! that none is left. A task that panics is counted as ended all the same.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A kind of background task.
#[derive(Debug, PartialEq, Eq)]
pub struct TaskKind {
    /// Its name in metrics and logs.
    pub name: &'static str,
    /// What it does when it is told to stop.
    pub on_cancel: &'static str,
    /// What happens when it fails.
    pub on_error: &'static str,
}

#[derive(Debug, Default)]
struct Living {
    by_kind: Mutex<BTreeMap<&'static str, usize>>,
    changed: Notify,
}

impl Living {
    fn change(&self, name: &'static str, by: isize) {
        let mut map = self.by_kind.lock().unwrap_or_else(PoisonError::into_inner);
        let count = map.entry(name).or_default();
        *count = count.saturating_add_signed(by);
        drop(map);
        if by < 0 {
            self.changed.notify_waiters();
        }
    }
}

/// Counts one living task for as long as it exists.
struct Alive(Arc<Living>, &'static str);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.change(self.1, -1);
    }
}

/// Spawns and counts tasks. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    living: Arc<Living>,
}

impl Tasks {
    /// A set with no tasks.
    pub fn new() -> Self {
        Tasks::default()
    }

    /// Starts a task on the current runtime.
    #[expect(clippy::disallowed_methods, reason = "this is the room that spawns")]
    pub fn spawn<F>(&self, kind: &'static TaskKind, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.living.change(kind.name, 1);
        let alive = Alive(Arc::clone(&self.living), kind.name);
        // Boxed: a block that awaits what it has captured holds it twice, once as each.
        let task = Box::pin(task);
        tokio::spawn(async move {
            let _alive = alive;
            task.await
        })
    }

    /// How many tasks live, by kind; kinds that have none left are not listed.
    pub fn living(&self) -> BTreeMap<&'static str, usize> {
        let map = self.living.by_kind.lock().unwrap_or_else(PoisonError::into_inner);
        map.iter().filter(|(_, n)| **n > 0).map(|(k, n)| (*k, *n)).collect()
    }

    /// Waits until no task of this set lives.
    pub async fn all_ended(&self) {
        loop {
            let changed = self.living.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.living().is_empty() {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAP: TaskKind = TaskKind { name: "nap", on_cancel: "ends", on_error: "ends" };

    #[tokio::test(start_paused = true)]
    async fn the_living_are_counted_until_they_end_even_by_panic() {
        let tasks = Tasks::new();
        let nap = tasks.spawn(&NAP, tokio::time::sleep(std::time::Duration::from_secs(1)));
        let bad = tasks.spawn(&NAP, async { assert!(std::hint::black_box(false), "on purpose") });
        assert_eq!(tasks.living().get("nap"), Some(&2));
        tasks.all_ended().await;
        assert!(nap.await.is_ok() && bad.await.is_err());
        assert!(tasks.living().is_empty());
    }
}
