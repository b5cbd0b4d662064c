//! Where a secret comes from: an environment variable, a file, or (least well) the configuration.

use super::sources::{Sources, text};
use crate::withheld::looks_like_a_key;
use std::path::PathBuf;

/// The secret of a table in which exactly one of the three stands.
pub(super) fn secret(
    value: Option<&String>,
    variable: Option<&String>,
    file: Option<&PathBuf>,
    sources: &dyn Sources,
) -> Result<String, String> {
    match (value, variable, file) {
        (Some(key), None, None) => Ok(key.clone()),
        (None, Some(name), None) if sources.variable(name).is_none() && looks_like_a_key(name) => {
            Err("`env` takes the name of a variable, and what stands there looks like the key itself; put the key into a variable or a file".to_owned())
        }
        (None, Some(name), None) => sources.variable(name).ok_or_else(|| format!("the environment variable {name} is not set; set it, or take the key from a file with {{ file = \"...\" }}")),
        (None, None, Some(path)) => match text(sources, path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(_) if path.to_str().is_some_and(looks_like_a_key) => {
                Err("`file` takes the path of a file, and what stands there looks like the key itself; put the key into a file".to_owned())
            }
            Err(e) => Err(format!("the key file {} cannot be read: {e}", path.display())),
        },
        _ => Err("each key comes from one of env, file and value".to_owned()),
    }
}
