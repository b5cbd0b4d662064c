//! The files that a configuration names. A relative path is meant from the folder of the configuration:
//! the gateway, its successor and the commands about it may be started in different places, and have to
//! find the same files.

use super::File;
use std::path::{Path, PathBuf};

/// A file beside the configuration at `config`, as an absolute path.
pub(crate) fn beside(config: &Path, file: &Path) -> PathBuf {
    let joined = config.parent().map_or_else(|| file.to_path_buf(), |folder| folder.join(file));
    // It fails for the empty path, which is told by whoever opens it.
    std::path::absolute(&joined).unwrap_or(joined)
}

/// Makes all paths in `file` absolute, which was read from `config`.
pub(super) fn find(file: &mut File, config: &Path) {
    let File { tls, organisation, own_credentials, keys, conversations, usage, redact, tenant, .. } = file;
    let own = [&mut tls.certificate, &mut tls.key, &mut tls.ca_file, &mut keys.file, &mut conversations.file];
    let mut all: Vec<&mut PathBuf> = own.into_iter().chain([&mut usage.file]).flatten().collect();
    all.extend(organisation.iter_mut().flat_map(|table| table.files()));
    all.extend(own_credentials.iter_mut().flat_map(|table| table.files()));
    all.extend(redact.files());
    all.extend(tenant.iter_mut().flat_map(|table| table.files()));
    for path in all.into_iter().filter(|path| !path.as_os_str().is_empty()) {
        *path = beside(config, path);
    }
}
