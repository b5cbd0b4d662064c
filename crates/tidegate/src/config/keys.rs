//! `[keys]`: a file of client keys beside the configuration, which `tidegate key` keeps and the gateway
//! reads.

use super::places::Places;
use super::sources::Sources;
use super::{Config, ConfigError};
use crate::keys_file::KeysFile;
use std::path::PathBuf;
use tidegate_gateway::ClientKey;

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct KeysTable {
    pub(super) file: Option<PathBuf>,
}

impl KeysTable {
    /// Adds the file's keys to the configuration. Where there is such a file nobody is served without a
    /// key, even if it has none: a last key that is revoked must not open the door.
    pub(super) fn set(
        self,
        places: &Places<'_>,
        sources: &dyn Sources,
        config: &mut Config,
    ) -> Result<(), ConfigError> {
        let Some(path) = self.file else { return Ok(()) };
        let wrong = |why: &str| places.wrong("keys", 0, "file", why);
        let Some(file) = KeysFile::of(&path, sources.file(&path)).map_err(|why| wrong(&why))? else {
            let why = format!(
                "{} is not there; make the first key with `tidegate key new --config {}`",
                path.display(),
                places.path.display()
            );
            return Err(wrong(&why));
        };
        config.settings.keys_only = true;
        config.settings.keys.extend(file.keys.iter().map(|key| ClientKey {
            tenant: key.tenant.as_str().into(),
            hash: key.hash,
            expires_ms: key.expires_s.map(|at| at.saturating_mul(1000)),
        }));
        config.keys_file = Some((path, file));
        Ok(())
    }
}
