//! Streams that are not tied to the connection they were asked for on.
//!
//! ```text
//!   message.create  ─┐                                  ┌─ the client that asked
//!   POST, resume ────┴▶ owner task ─▶ the path ─▶ log ──┼─ one that comes back with a cursor
//!                       (one a stream)                  └─ nobody, for a while
//! ```
//! The owner task takes the request through the path like any other; its answer goes into a log
//! ([`Journal`](tidegate_journal::Journal)), and whoever has it read is a place in that log. The path never waits for a
//! reader. What becomes of a stream that nobody reads is its class:
//!
//! | class | read by | without a reader | after its end |
//! |---|---|---|---|
//! | plain | one socket, as it comes; what is read is dropped | its upstream is cancelled at once | gone |
//! | memory | anybody of its tenant, from any cursor | cancelled after the detach grace | kept for a while |
//! | durable | the same | the same | the same, in the conversation log too: a restart does not take it |
//!
//! A plain stream over HTTP has none of this: it goes straight from upstream to connection.
//!
//! | file | what it is |
//! |---|---|
//! | `hosted` | one stream: its log, its head, who reads it |
//! | `inlet` | the owner's end: an answer into the log |
//! | `reader` | a reader's end |
//! | `begin` | a request becomes a hosted stream |
//! | `keep` | a durable stream's checkpoints |
//! | `restore` | a stream that is come back to after a restart |
//! | `unmasking` | what was masked in it, put back for a reader |
//! | `follow` | a client over HTTP reads one: the one that asked, or one that resumes |

mod begin;
mod follow;
mod hosted;
mod inlet;
mod keep;
mod reader;
mod restore;
mod unmasking;

pub(crate) use begin::{Asked, Hosting, begin, host};
pub(crate) use follow::{PREFIX, serve};
pub(crate) use hosted::{About, Hosted, Owner};
pub(crate) use keep::forget_old;
pub(crate) use reader::{News, Reader};
pub(crate) use restore::{erasing, find};

use crate::answer::Trouble;
use restore::Restoring;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate_base::{ByteBudget, Moment, StreamId};
use tidegate_journal::Cursor;
use tidegate_wire::dialect::words::{Resume, meaning};

/// What can be the matter with a stream that is asked for again; rows of the table in `answer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamTrouble {
    /// There is no such stream, or it is another tenant's.
    Unknown,
    /// The cursor is none of this stream's.
    BadCursor,
    /// What follows the cursor is not kept any more.
    Gone,
    /// The log cannot hold what came.
    TooLarge,
    /// Its reader took less than came, for too long.
    SlowReader,
    /// Whoever asked for it called it off, or left it.
    Cancelled,
    /// The process that answered it ended before it did.
    Lost,
    /// The process before this one still produces it.
    Elsewhere,
    /// As much is held of streams as may.
    Budget,
    /// As much of durable ones is in the conversation log as may, and all of them still run.
    LogBudget,
}

impl From<StreamTrouble> for Trouble {
    fn from(trouble: StreamTrouble) -> Self {
        Trouble::Stream(trouble)
    }
}

/// What `tidegate-resume` asks for.
pub(crate) fn class(word: &str) -> Result<Resume, Trouble> {
    meaning(Resume::WORDS, word).ok_or_else(|| not_so("`off`, `memory` or `durable`"))
}

/// A `tidegate-resume` that cannot be.
fn not_so(expected: &'static str) -> Trouble {
    Trouble::Header { name: "tidegate-resume".to_owned(), expected }
}

/// Whose streams are erased: a tenant's.
pub(crate) struct Erased<'a> {
    pub(crate) tenant: &'a str,
    /// All that this end user asked for.
    pub(crate) end_user: Option<&'a str>,
    /// Those that are turns of these; their turns are taken.
    pub(crate) conversations: BTreeSet<&'a str>,
}

/// Every stream that can be asked for again.
pub(crate) struct Streams {
    table: Mutex<BTreeMap<StreamId, Arc<Hosted>>>,
    /// Bytes of all their logs.
    pub(crate) journals: ByteBudget,
    /// How long one is kept after its end.
    kept: Duration,
    /// Until when the log is taken to be full of streams that run.
    log_full: Mutex<Option<Moment>>,
    restoring: Restoring,
}

impl Streams {
    pub(crate) fn new(journals_bytes: u64, kept: Duration) -> Self {
        Streams {
            table: Mutex::default(),
            journals: ByteBudget::new(journals_bytes),
            kept,
            log_full: Mutex::default(),
            restoring: Restoring::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<StreamId, Arc<Hosted>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.table().len()
    }

    pub(crate) fn add(&self, hosted: &Arc<Hosted>) {
        self.table().insert(hosted.stream, Arc::clone(hosted));
    }

    /// The stream `id`, if it is `owner`'s. Nobody learns whether another tenant has one.
    pub(crate) fn find(&self, id: StreamId, owner: &Owner) -> Result<Arc<Hosted>, StreamTrouble> {
        let found = self.table().get(&id).cloned();
        found.filter(|hosted| hosted.owner == *owner).ok_or(StreamTrouble::Unknown)
    }

    /// A reader of `owner`'s stream `id`, from `after` on, or from its beginning.
    pub(crate) fn reader(&self, id: StreamId, after: Option<&Cursor>, owner: &Owner) -> Result<Reader, StreamTrouble> {
        Reader::at(self.find(id, owner)?, after)
    }

    /// Forgets those that ended long enough ago. Who still reads one reads on.
    pub(crate) fn sweep(&self, now: Moment) {
        self.table().retain(|_, hosted| hosted.ended_at().is_none_or(|at| now < at + self.kept));
    }

    /// Forgets those that are erased, and calls off those of them that still run: how many. Who reads
    /// one reads on to its end.
    pub(crate) fn erase(&self, of: &Erased<'_>) -> u64 {
        let theirs = |hosted: &Hosted| &*hosted.owner.tenant == of.tenant && hosted.owner.own.is_none();
        let mut erased = 0;
        self.table().retain(|_, hosted| {
            let goes = theirs(hosted) && hosted.erase(of);
            erased += u64::from(goes);
            !goes
        });
        erased
    }

    /// The log has no room for another durable stream, as far as is known; it is asked again soon.
    fn log_is_full(&self, now: Moment) -> bool {
        self.log_full.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }

    fn note_log_full(&self, until: Option<Moment>) {
        *self.log_full.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Whether `owner` has a stream `id` that has not ended.
    pub(crate) fn is_running(&self, id: StreamId, owner: &Owner) -> bool {
        self.find(id, owner).is_ok_and(|hosted| hosted.ended_at().is_none())
    }

    /// Durable streams that have not ended, or not in the log.
    fn running(&self) -> BTreeSet<StreamId> {
        let table = self.table();
        let runs = |hosted: &&Arc<Hosted>| hosted.class == Resume::Durable && hosted.ended_at().is_none();
        table.values().filter(runs).map(|hosted| hosted.stream).collect()
    }

    /// Makes room: forgets the one that ended first, if any has. Whether there was one.
    pub(crate) fn make_room(&self) -> bool {
        let mut table = self.table();
        let ended = table.iter().filter_map(|(id, hosted)| hosted.ended_at().map(|at| (at, *id)));
        let Some((_, first)) = ended.min() else { return false };
        table.remove(&first).is_some()
    }
}
