//! The conversation log of a `serve`: the configured file, or with the simulator a scratch one.
//!
//! Opened before anything listens, so that a file that is held by another process, too new, or no
//! log at all ends the start with its reason. A scratch file has no name once it is open, so that a
//! process that is killed leaves nothing behind.

use super::{Failed, key};
use crate::config::Config;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use tidegate_gateway::UsageFile;
use tidegate_store::{Durability, Settings, Store};

/// The log, if there is one, and where it lies.
pub(super) struct ConversationLog {
    /// Taken by the gateway.
    pub(super) store: Option<Store>,
    /// Where it lies, if it has a name.
    pub(super) path: Option<PathBuf>,
}

impl ConversationLog {
    /// Opens the configured file; with `simulated` and none, a scratch one. `passed_on` is the log of the
    /// process before this one, if that has one: the same file is opened beside it.
    pub(super) fn open(
        config: &Config,
        simulated: bool,
        passed_on: Option<(PathBuf, OwnedFd)>,
    ) -> Result<Self, Failed> {
        let Some(path) = &config.conversations else {
            let store = if simulated { Some(scratch(config.store)?) } else { None };
            return Ok(ConversationLog { store, path: None });
        };
        let settings = Settings { durability: Durability::PowerLoss, ..config.store };
        let same = passed_on.filter(|(theirs, _)| path.canonicalize().is_ok_and(|ours| ours == *theirs));
        let opened = match same {
            Some((_, lock)) => Store::open_beside(path, lock, settings),
            None => Store::open(path, settings),
        };
        let store = opened.map_err(|e| Failed(format!("conversations cannot be kept in {}: {e}", path.display())))?;
        Ok(ConversationLog { store: Some(store), path: Some(path.clone()) })
    }
}

/// Opens the file that it is kept in what was used; the conversations' own is open by now. A scratch
/// log is no place for it: it would be gone with the process, and look as if it were not.
pub(super) fn usage_file(config: &Config) -> Result<UsageFile, Failed> {
    let Some(path) = &config.usage else {
        return Ok(if config.conversations.is_some() { UsageFile::Conversations } else { UsageFile::Memory });
    };
    // It is read by operators, seldom; and while one process drains, the next begins.
    let settings = Settings { readers: 1, shared: true, ..Settings::default() };
    let store = Store::open(path, settings);
    store.map(UsageFile::Own).map_err(|e| Failed(format!("what was used cannot be kept in {}: {e}", path.display())))
}

/// A log that goes with the process.
fn scratch(settings: Settings) -> Result<Store, Failed> {
    let mark = u64::from_le_bytes(key::random()?);
    let folder = std::env::temp_dir().join(format!("tidegate-conversations-{mark:016x}"));
    let failed = |why: String| Failed(format!("{}: no scratch file for conversations: {why}", folder.display()));
    std::fs::create_dir(&folder).map_err(|e| failed(e.to_string()))?;
    // Nobody asks for a scratch file after the loss of power.
    let settings = Settings { durability: Durability::None, ..settings };
    let store = Store::open_unnamed(&folder, settings).map_err(|e| failed(e.to_string()));
    // Empty by now, unless something went wrong, and then that is told.
    let removed = std::fs::remove_dir_all(&folder).map_err(|e| failed(e.to_string()));
    store.and_then(|store| removed.map(|()| store))
}
