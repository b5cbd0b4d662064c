//! What an organisation's endpoint wants that is not the API itself: its own names of models, and
//! header lines of its own.

use super::secrets::secret;
use super::sources::Sources;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tidegate_base::Secret;
use tidegate_wire::http::is_hop_by_hop;

/// Names of models that are mapped, and the longest of them.
const MODELS_MAX: usize = 1_000;
const NAME_BYTES_MAX: usize = 256;
/// Header lines of one organisation.
const HEADERS_MAX: usize = 32;

/// Lines that are Tidegate's to write: the connection's, the credential's, the body's.
const RESERVED: [&str; 9] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "accept-encoding",
    "authorization",
    "x-api-key",
    "cookie",
    "expect",
];

/// A header's value: as it stands here, or from where it is kept.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "expected a text, { env = \"NAME\" } or { file = \"...\" }")]
pub(super) enum HeaderValue {
    Text(String),
    Kept(Kept),
}

impl HeaderValue {
    /// The file it is kept in.
    pub(super) fn file(&mut self) -> Option<&mut PathBuf> {
        match self {
            HeaderValue::Kept(kept) => kept.file.as_mut(),
            HeaderValue::Text(_) => None,
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    env: Option<String>,
    file: Option<PathBuf>,
}

/// The names of models, checked.
pub(super) fn models(table: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    if table.len() > MODELS_MAX {
        return Err(format!("has {} names, more than {MODELS_MAX}; write `\"*\"` for all others", table.len()));
    }
    let is_name =
        |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.bytes().any(|b| b.is_ascii_control());
    match table.iter().flat_map(|(ours, theirs)| [ours, theirs]).find(|name| !is_name(name)) {
        Some(_) => Err(format!("a model's name has 1 to {NAME_BYTES_MAX} characters")),
        None if table.values().any(|theirs| theirs == "*") => Err("`*` stands for clients' names only".to_owned()),
        None => Ok(table.clone()),
    }
}

/// The header lines, checked.
pub(super) fn headers(
    table: &BTreeMap<String, HeaderValue>,
    sources: &dyn Sources,
) -> Result<Vec<(String, Secret)>, String> {
    if table.len() > HEADERS_MAX {
        return Err(format!("has {} lines, more than {HEADERS_MAX}", table.len()));
    }
    let one = |(name, value): (&String, &HeaderValue)| {
        let lower = name.to_ascii_lowercase();
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_token) {
            return Err(format!("`{name}` is not the name of a header"));
        }
        if RESERVED.contains(&lower.as_str()) || is_hop_by_hop(&lower) || lower.starts_with("tidegate-") {
            return Err(format!(
                "`{name}` is Tidegate's to write; a credential stands in `keys`, and `auth` says how it is sent"
            ));
        }
        let value = match value {
            HeaderValue::Text(text) => text.clone(),
            HeaderValue::Kept(kept) => secret(None, kept.env.as_ref(), kept.file.as_ref(), sources)?,
        };
        // What it says may be a secret, so it is not shown.
        if value.is_empty() || value.len() > 4096 || value.bytes().any(|b| !(0x20..0x7f).contains(&b)) {
            return Err(format!("the value of `{name}` has to be 1 to 4096 characters of ASCII in one line"));
        }
        Ok((name.clone(), Secret::new(value)))
    };
    table.iter().map(one).collect()
}
