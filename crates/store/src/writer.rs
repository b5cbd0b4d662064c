//! The one thread that writes, and group commit.
//!
//! ```text
//!   queue ──▶ group ──▶ BEGIN IMMEDIATE ──▶ each change in a savepoint ──▶ COMMIT ──▶ tell everybody
//!    ▲                                       │ refused: that one only       (sync)        │
//!    └──── as many as last time, 2 ms ───────┴────────────────────────────────────────────┘
//! ```
//! A sync costs the same for one change and for a hundred, so all that waits shares one. While it
//! runs, the next group gathers by itself; but whoever is told writes again a moment later, and
//! without a short wait groups would alternate between one change and all others. Who writes alone
//! is never kept waiting.
//!
//! Nobody is told anything before the commit: a refusal may rest on a neighbour that is not durable
//! yet. The WAL is copied into the database (a checkpoint) after everybody was told. After a failed
//! sync nothing is written any more: what the kernel has forgotten cannot be synchronised again.

use crate::StoreError;
use crate::pending::{Pending, Reply};
use crate::queue::{Group, Queue};
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;
use std::time::Duration;

/// Changes that may wait: two seconds of a disk that syncs in 4 ms, in groups of eight.
pub(crate) const WAITING_MAX: usize = 4_096;
/// Bytes that may wait.
pub(crate) const WAITING_BYTES_MAX: usize = 256 << 20;
/// One commit: bounds the WAL's growth and what one failure concerns; the wait is half of a sync.
const GROUP: Group = Group { items_max: 512, bytes_max: 64 << 20, wait_max: Duration::from_millis(2) };
/// WAL pages that are copied when nothing waits, as many as SQLite's own default.
const CHECKPOINT_PAGES: i64 = 1_000;
/// WAL pages that are copied even if something waits.
const CHECKPOINT_PAGES_BUSY: i64 = 4_000;
/// WAL pages (256 MiB) from which readers are waited for, so that it can begin anew.
const RESTART_PAGES: i64 = 65_536;
/// How long readers are waited for.
const READERS_WAIT: Duration = Duration::from_secs(2);

/// A change that waits for the writer.
pub(crate) trait Change: Send {
    /// Makes it, inside a savepoint. An error of the storage ends the transaction; any other is kept
    /// for [`Change::tell`], and the savepoint undone. May be called again after a transaction failed.
    fn apply(&mut self, connection: &Connection) -> Result<(), StoreError>;
    /// Whether it asks to rewrite the file: that is done outside of any transaction, and alone.
    fn compacts(&self) -> bool {
        false
    }
    /// Whether what it deletes must be gone from the WAL too before anybody is told.
    fn clears_wal(&self) -> bool;
    /// Tells the caller: the commit's end, and whether the WAL was cleared.
    fn tell(self: Box<Self>, end: Result<bool, StoreError>);
}

/// The usual change: a function, and whom to tell its result.
struct Told<T, F> {
    run: F,
    outcome: Option<Result<T, StoreError>>,
    /// Present if the WAL must be cleared: writes down whether it was.
    note_cleared: Option<fn(&mut T, bool)>,
    reply: Reply<T>,
}

impl<T: Send, F: FnMut(&Connection) -> Result<T, StoreError> + Send> Change for Told<T, F> {
    fn apply(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let outcome = (self.run)(connection);
        let end = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
        self.outcome = Some(outcome);
        end
    }

    fn clears_wal(&self) -> bool {
        self.note_cleared.is_some()
    }

    fn tell(self: Box<Self>, end: Result<bool, StoreError>) {
        let Told { outcome, note_cleared, reply, .. } = *self;
        let answer = end.and_then(|cleared| {
            let mut answer = outcome.unwrap_or(Err(StoreError::Closed));
            if let (Ok(told), Some(note)) = (&mut answer, note_cleared) {
                note(told, cleared);
            }
            answer
        });
        // Who does not listen any more does not want to know.
        let _ = reply.send(answer);
    }
}

/// Somebody waits for the file to be rewritten.
struct Compaction(Reply<()>);

impl Change for Compaction {
    fn apply(&mut self, _connection: &Connection) -> Result<(), StoreError> {
        Ok(())
    }

    fn compacts(&self) -> bool {
        true
    }

    fn clears_wal(&self) -> bool {
        false
    }

    fn tell(self: Box<Self>, end: Result<bool, StoreError>) {
        // Who does not listen any more does not want to know.
        let _ = self.0.send(end.and_then(|cleared| if cleared { Ok(()) } else { Err(StoreError::Busy) }));
    }
}

/// The way to the writer.
#[derive(Clone)]
pub(crate) struct Changes(Arc<Queue<Box<dyn Change>>>);

impl Changes {
    pub(crate) fn new() -> Self {
        Changes(Arc::new(Queue::new(WAITING_MAX, WAITING_BYTES_MAX)))
    }

    /// Asks for a change that holds `bytes` of memory.
    pub(crate) fn ask<T, F>(&self, bytes: usize, run: F) -> Pending<T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, pending) = Pending::new();
        self.push(bytes, Told { run, outcome: None, note_cleared: None, reply });
        pending
    }

    /// Asks for a change that is answered elsewhere.
    pub(crate) fn ask_for<T, F>(&self, bytes: usize, run: F, reply: Reply<T>)
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.push(bytes, Told { run, outcome: None, note_cleared: None, reply });
    }

    /// Asks for a deletion: it is answered when the WAL is cleared, or cannot be at once; `note` is told.
    pub(crate) fn ask_clearing<T, F>(&self, run: F, note: fn(&mut T, bool)) -> Pending<T>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, pending) = Pending::new();
        self.push(0, Told { run, outcome: None, note_cleared: Some(note), reply });
        pending
    }

    /// Asks for the file to be rewritten without what is unused.
    pub(crate) fn ask_compaction(&self) -> Pending<()> {
        let (reply, pending) = Pending::new();
        self.push(0, Compaction(reply));
        pending
    }

    fn push(&self, bytes: usize, change: impl Change + 'static) {
        if let Err((change, refused)) = self.0.push(Box::new(change), bytes) {
            change.tell(Err(refused.into()));
        }
    }

    /// Takes no more changes; those that wait are still made.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

/// Nobody may wait for a thread that is gone, however it went.
struct Gone(Changes);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.0.abandon();
    }
}

/// The writing thread's own.
pub(crate) struct Writer {
    connection: Connection,
    changes: Changes,
    /// Why nothing is written any more.
    last: Option<StoreError>,
    /// The WAL still holds what a deletion deleted.
    uncleared: bool,
}

impl Writer {
    pub(crate) fn new(connection: Connection, changes: Changes) -> Self {
        Writer { connection, changes, last: None, uncleared: false }
    }

    /// Works until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let gone = Gone(self.changes.clone());
        let mut companions = 1;
        while let Some(group) = self.changes.0.take_group(companions, GROUP) {
            companions = group.len();
            let (compactions, changes): (Vec<_>, Vec<_>) = group.into_iter().partition(|change| change.compacts());
            if !changes.is_empty() {
                self.write(changes);
            }
            if !compactions.is_empty() {
                let end = self.compact();
                compactions.into_iter().for_each(|change| change.tell(end.clone()));
            }
            self.tend_wal();
        }
        drop(gone);
    }

    /// Writes a group and tells everybody in it.
    fn write(&mut self, mut group: Vec<Box<dyn Change>>) {
        let end = match &self.last {
            Some(last) => Err(last.clone()),
            None => self.commit(&mut group),
        };
        match end {
            Ok(()) => {
                let (deletions, others): (Vec<_>, Vec<_>) = group.into_iter().partition(|change| change.clears_wal());
                others.into_iter().for_each(|change| change.tell(Ok(false)));
                if !deletions.is_empty() {
                    self.uncleared = true;
                    self.clear_wal(READERS_WAIT);
                    deletions.into_iter().for_each(|change| change.tell(Ok(!self.uncleared)));
                }
            }
            // A small turn is not refused for a large neighbour.
            Err(StoreError::DiskFull) if group.len() > 1 => {
                group.into_iter().for_each(|change| self.write(vec![change]));
            }
            Err(error) => {
                if error.is_last() {
                    self.last = Some(error.clone());
                }
                group.into_iter().for_each(|change| change.tell(Err(error.clone())));
            }
        }
    }

    fn commit(&mut self, group: &mut [Box<dyn Change>]) -> Result<(), StoreError> {
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for change in group {
            let savepoint = transaction.savepoint()?;
            match change.apply(&savepoint) {
                Ok(()) => savepoint.commit()?,
                Err(error) if error.is_storages() => return Err(error),
                Err(_) => savepoint.finish()?,
            }
        }
        Ok(transaction.commit()?)
    }

    /// Rewrites the file; whether the WAL is cleared too. A crash leaves the file as it was.
    fn compact(&mut self) -> Result<bool, StoreError> {
        if let Some(last) = &self.last {
            return Err(last.clone());
        }
        // The copy is as large as the file: on disk, where everything else is in memory.
        let end = self.connection.execute_batch("PRAGMA temp_store = FILE; VACUUM").map_err(StoreError::from);
        let back = self.connection.execute_batch("PRAGMA temp_store = MEMORY").map_err(StoreError::from);
        if let Err(error) = end.and(back) {
            if error.is_last() {
                self.last = Some(error.clone());
            }
            return Err(error);
        }
        self.uncleared = true;
        self.clear_wal(READERS_WAIT);
        Ok(!self.uncleared)
    }

    /// Copies the WAL into the database when it has grown.
    fn tend_wal(&mut self) {
        if self.last.is_some() {
            return;
        }
        if self.uncleared {
            self.clear_wal(Duration::ZERO);
        }
        let Some((pages, copied)) = self.checkpoint("NOOP") else { return };
        let due = if self.changes.0.is_empty() { CHECKPOINT_PAGES } else { CHECKPOINT_PAGES_BUSY };
        if pages - copied >= due {
            self.checkpoint("PASSIVE");
        }
        if pages >= RESTART_PAGES {
            self.with_wait(READERS_WAIT, |writer| writer.checkpoint("RESTART"));
        }
    }

    /// Cuts the WAL to nothing, if readers let go of it within `wait`.
    fn clear_wal(&mut self, wait: Duration) {
        let end = self.with_wait(wait, |writer| writer.checkpoint("TRUNCATE"));
        self.uncleared = end != Some((0, 0));
    }

    fn with_wait<T>(&mut self, wait: Duration, run: impl FnOnce(&mut Self) -> T) -> T {
        // Setting it only fails for a number that is too large.
        let _ = self.connection.busy_timeout(wait);
        let end = run(self);
        let _ = self.connection.busy_timeout(crate::files::OTHERS_WAIT);
        end
    }

    /// One checkpoint: pages in the WAL, and how many of them are copied; `None` if it came to nothing.
    fn checkpoint(&mut self, mode: &str) -> Option<(i64, i64)> {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?));
        let end = self.connection.prepare_cached(&sql).and_then(|mut statement| statement.query_row([], row));
        match end.map_err(StoreError::from) {
            Ok((0, pages, copied)) => Some((pages, copied)),
            // A reader holds it, or the disk is full: later. The WAL itself is whole.
            Ok(_) | Err(StoreError::Busy | StoreError::DiskFull) => None,
            Err(error) => {
                self.last = Some(error);
                None
            }
        }
    }
}
