//! The conversation log of a `serve`: the configured file, or with the simulator a scratch one.
//!
//! Opened before anything listens, so that a file that is held by another process, too new, or no
//! log at all ends the start with its reason. A scratch file has no name once it is open, so that a
//! process that is killed leaves nothing behind.

use super::{Failed, key};
use crate::config::Config;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tidegate_gateway::UsageFile;
use tidegate_store::{Durability, Settings, Store};

/// Opens the configured file; with `simulated` and none, a scratch one. `passed_on` is the log of the process
/// before this one, if that has one: the same file is opened beside it.
pub(super) fn conversation_log(
    config: &Config,
    simulated: bool,
    passed_on: Option<(PathBuf, OwnedFd)>,
) -> Result<Option<Store>, Failed> {
    if let Some((theirs, _)) = &passed_on {
        same_log(theirs, config.conversations.as_deref())?;
    }
    let Some(path) = &config.conversations else {
        return if simulated { scratch(config.store).map(Some) } else { Ok(None) };
    };
    let settings = Settings { durability: Durability::PowerLoss, ..config.store };
    let opened = match passed_on {
        Some((_, lock)) => Store::open_beside(path, lock, settings),
        None => Store::open(path, settings),
    };
    opened.map(Some).map_err(|e| Failed(format!("conversations cannot be kept in {}: {e}", path.display())))
}

/// Whether `ours` is the log of the process before this one, `theirs`: conversations that are under way go
/// on in it, so in another one they would be unknown.
fn same_log(theirs: &Path, ours: Option<&Path>) -> Result<(), Failed> {
    if ours.is_some_and(|ours| ours.canonicalize().is_ok_and(|ours| ours == theirs)) {
        return Ok(());
    }
    let ours = ours.map_or_else(|| "nowhere".to_owned(), |ours| ours.display().to_string());
    Err(Failed(format!(
        "the process before this one keeps conversations in {}, and this one would in {ours}: an upgrade goes on with the same file. Write it as `file` under [conversations] (or --conversations), or stop the other process and start this one without --upgrade",
        theirs.display()
    )))
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
