//! The conversation log of a `serve`: the configured file, or with the simulator a scratch one.
//!
//! Opened before anything listens, so that a file that is held by another process, too new, or no
//! log at all ends the start with its reason.

use super::{Failed, key};
use crate::config::Config;
use std::path::PathBuf;
use tidegate_store::{Durability, Settings, Store};

/// The log, if there is one, and where it lies.
pub(super) struct ConversationLog {
    /// Taken by the gateway.
    pub(super) store: Option<Store>,
    pub(super) path: Option<PathBuf>,
    /// The folder of a scratch log; removed with this value.
    pub(super) scratch: Option<Folder>,
}

/// A folder that goes with its value.
pub(super) struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays in the machine's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl ConversationLog {
    /// Opens the configured file; with `simulated` and none, a scratch one.
    pub(super) fn open(config: &Config, simulated: bool) -> Result<Self, Failed> {
        let (path, scratch) = match &config.conversations {
            Some(path) => (path.clone(), None),
            None if simulated => {
                let mark = u64::from_le_bytes(key::random()?);
                let folder = std::env::temp_dir().join(format!("tidegate-conversations-{mark:016x}"));
                std::fs::create_dir(&folder)
                    .map_err(|e| Failed(format!("{}: no scratch folder: {e}", folder.display())))?;
                (folder.join("conversations.db"), Some(Folder(folder)))
            }
            None => return Ok(ConversationLog { store: None, path: None, scratch: None }),
        };
        // Nobody asks for a scratch file after the loss of power.
        let durability = if scratch.is_some() { Durability::None } else { Durability::PowerLoss };
        let settings = Settings { durability, ..config.store };
        let store = Store::open(&path, settings)
            .map_err(|e| Failed(format!("conversations cannot be kept in {}: {e}", path.display())))?;
        Ok(ConversationLog { store: Some(store), path: Some(path), scratch })
    }
}
