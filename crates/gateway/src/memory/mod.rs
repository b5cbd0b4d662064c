//! Phase 6, recall, and what belongs to it after the answer: conversations that are kept.
//!
//! ```text
//! request ─▶ hold ──────▶ place ──────▶ window ─▶ ... model ... ─▶ keep ─▶ message_stop
//!            one turn of   what of the   what                     on the
//!            it at a time  body is new   fits                     disk
//! ```
//! | file | what it is |
//! |---|---|
//! | `wish` | what the headers say of it |
//! | `shelf` | conversations in memory, bounded in bytes; who holds one has its turn |
//! | `talk` | one of them: history, view, the last turns' hashes |
//! | `recall` | the phase: a body becomes a turn and a window |
//! | `masking` | a body masked against what its conversation told before |
//! | `fit` | a window for a history: budget, estimate, excerpts, the last check |
//! | `turn` | a turn under way; kept, interrupted, or as if it had never been asked |
//! | `summarise` | summaries ahead of a cut, asked for in the background |
//! | `trimmed` | windows without a conversation, where only the view is remembered |
//! | `doors` | the conversations' own doors: reading, changing, carrying over, erasing |
//! | `upkeep` | what is no longer kept is deleted, and the file rewritten after deletions |
//!
//! The log is the truth. What is in memory can be dropped at any time and read again; a turn counts
//! when the store says so, and not before.

mod doors;
mod fit;
#[cfg(test)]
mod histories;
mod masking;
mod recall;
mod shelf;
mod summarise;
mod talk;
mod trimmed;
mod turn;
mod upkeep;
mod wish;

pub(crate) use doors::{Place, import, is_import, serve};
pub(crate) use recall::{Asking, Recalled, Replay, end_user, recall};
pub(crate) use summarise::{ERRANDS, run as run_errands};
pub(crate) use turn::{Heard, Turn};
pub(crate) use upkeep::{UPKEEP, upkeep};
pub(crate) use wish::Wish;

use crate::answer::Trouble;
use crate::identify::Caller;
use crate::settings::Settings;
use crate::succession::Succession;
use shelf::Shelf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;
use summarise::Errands;
use tidegate_conversation::history::Divergence;
use tidegate_conversation::valid::Broken;
use tidegate_observe::Metrics;
use tidegate_redact::vault::VaultError;
use tidegate_store::{Address, Deleted, ErasedStreams, Store, StoreError};
use tidegate_transport::Clock;
use trimmed::Trimmed;

/// Every conversation there is.
pub(crate) struct Memory {
    /// The log, if conversations are on.
    store: Option<Store>,
    shelf: Shelf,
    trimmed: Trimmed,
    /// Exports under way.
    exports: doors::Exports,
    /// Whether something was deleted since the file was last rewritten.
    deleted: AtomicBool,
    errands: Errands,
    /// Which conversations are another process'.
    pub(crate) succession: Succession,
    clock: Clock,
}

/// What can go wrong with a turn; rows of the table in `answer`.
#[derive(Debug)]
pub(crate) enum TurnTrouble {
    /// No conversation log is configured.
    Off,
    /// Who brings an upstream credential has no conversations.
    Own,
    /// There is no such conversation.
    Unknown,
    /// The conversation's id cannot be one.
    BadId(String),
    /// The body says something else than what is stored.
    Diverged(Divergence),
    /// Another number than the next was expected.
    Number { expected: u32, next: u32 },
    /// Another turn is under way, and waiting was not wanted.
    Busy,
    /// It is a repeat of a turn that was interrupted.
    Interrupted { number: u32 },
    /// The body repeats what is stored and adds nothing.
    NothingNew,
    /// The messages cannot be read; says where and why.
    Messages(String),
    /// With what is stored the request would break a rule of the API.
    Invalid { broken: Broken, open_calls: usize },
    /// What has to be sent does not fit.
    TooLarge(String),
    /// As many conversations are in use as memory is there for.
    Budget,
    /// The query says something that cannot be.
    Query(String),
    /// A line of an import cannot be taken; how many lines were written before it.
    Line { line: u64, error: StoreError, added: u64 },
    /// As many exports are under way as may.
    Exports,
    /// The conversation is the process' that has taken over.
    Given,
    /// What stands behind the conversation's tokens cannot be had.
    Vault(VaultError),
    /// The log says no.
    Log(StoreError),
}

impl From<TurnTrouble> for Trouble {
    fn from(trouble: TurnTrouble) -> Self {
        Trouble::Turn(Box::new(trouble))
    }
}

impl From<StoreError> for TurnTrouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => TurnTrouble::Unknown,
            StoreError::Conflict { expected, next } => TurnTrouble::Number { expected, next },
            StoreError::Invalid(why) => TurnTrouble::BadId(why),
            other => TurnTrouble::Log(other),
        }
    }
}

impl Memory {
    pub(crate) fn new(clock: Clock, settings: &Settings, store: Option<Store>) -> Self {
        Memory {
            store,
            shelf: Shelf::new(settings.conversations.memory_bytes),
            trimmed: Trimmed::default(),
            exports: doors::Exports::default(),
            deleted: AtomicBool::new(false),
            errands: Errands::new(),
            succession: Succession::default(),
            clock,
        }
    }

    /// The log.
    pub(crate) fn store(&self) -> Result<&Store, TurnTrouble> {
        self.store.as_ref().ok_or(TurnTrouble::Off)
    }

    /// Gives a conversation away to the next process, when its turn under way has ended.
    pub(crate) async fn give(&self, address: Address) {
        // Without a place on the shelf it is in nobody's use.
        let slot = self.shelf.slot(&address);
        let mut turn = match &slot {
            Some(slot) => Some(Arc::clone(slot).lock_owned().await),
            None => None,
        };
        match turn.as_deref_mut() {
            Some(talk) if talk.is_some() => {
                *talk = None;
                self.shelf.weigh(&address, 0);
            }
            // It may be another's still; only then is it this one's to give.
            Some(_) => self.succession.own(&address).await,
            None => {
                // Nobody's turn is in hand, so whoever comes for it meanwhile has to find it given.
                self.succession.give(address.clone());
                return self.succession.own(&address).await;
            }
        }
        self.succession.give(address);
    }

    /// Conversations in memory, and their bytes.
    pub(crate) fn held(&self) -> (usize, u64) {
        self.shelf.held()
    }

    /// Notes what was deleted, and by what: counted, logged, and to be followed by a compaction.
    fn deleted(&self, metrics: &Metrics, by: &'static str, deleted: &Deleted) {
        let gone = &deleted.conversations;
        if let Some(error) = &deleted.stopped_by {
            tracing::error!(target: "tidegate::memory", by, %error, "a deletion stopped half way; what is left is deleted with the next");
        }
        let Some(first) = gone.first() else { return };
        self.deleted.store(true, Ordering::Relaxed);
        let bytes = gone.iter().map(|gone| gone.bytes).sum();
        metrics.conversations_deleted(by, gone.len() as u64, bytes);
        let (conversations, wal_cleared) = (gone.len(), deleted.wal_cleared);
        tracing::info!(target: "tidegate::memory", by, tenant = first.tenant, conversations, bytes, wal_cleared, "deleted");
        for gone in gone {
            tracing::debug!(target: "tidegate::memory", by, id = gone.name, turns = gone.turns, "deleted");
        }
    }

    /// Notes that an end user's streams were erased; of those in the log, copies may be left until the
    /// file is rewritten.
    fn streams_deleted(&self, in_memory: u64, in_log: &ErasedStreams) {
        if in_log.streams > 0 {
            self.deleted.store(true, Ordering::Relaxed);
        }
        if in_memory > 0 || in_log.streams > 0 {
            let (in_log, wal_cleared) = (in_log.streams, in_log.wal_cleared);
            tracing::info!(target: "tidegate::memory", in_memory, in_log, wal_cleared, "streams were erased");
        }
    }

    /// Now, wall clock, ms since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        let since = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whose conversations a caller's are. Those who bring an upstream credential are one tenant, and
    /// nobody has looked at their credentials: they would read each other's, and fill the disk.
    pub(crate) fn owner<'a>(&self, caller: &'a Caller) -> Result<&'a str, TurnTrouble> {
        self.store()?;
        if caller.own.is_some() { Err(TurnTrouble::Own) } else { Ok(&caller.tenant.name) }
    }

    /// The caller's conversation `name`.
    pub(crate) fn address(&self, caller: &Caller, name: &str) -> Result<Address, TurnTrouble> {
        Ok(Address::new(self.owner(caller)?, name)?)
    }
}
