//! `[conversations]`: where they are kept, and how their windows are made.

use super::places::Places;
use super::values::{Becomes, Size, Time};
use super::{Config, ConfigError};
use std::path::PathBuf;
use tidegate_gateway::{Concurrent, Divergent, Keep};

#[derive(serde::Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Divergence {
    Refuse,
    Fork,
}

#[derive(serde::Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Turns {
    Wait,
    Refuse,
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConversationsTable {
    pub(super) file: Option<PathBuf>,
    window: Option<u64>,
    divergence: Option<Divergence>,
    concurrent_turns: Option<Turns>,
    recall: Option<bool>,
    summaries: Option<bool>,
    memory_bytes: Option<Size>,
    conversation_bytes: Option<Size>,
    keep_age: Option<Time>,
    keep_conversations: Option<u64>,
    keep_bytes: Option<Size>,
    compact_every: Option<Time>,
}

/// What is kept, as `[conversations]` or a `[[tenant]]` says it; the key that says nothing can be.
pub(super) fn keep(
    age: Option<&Time>,
    conversations: Option<u64>,
    bytes: Option<&Size>,
) -> Result<Keep, (&'static str, &'static str)> {
    let keep = Keep { age: age.map(Becomes::becomes), conversations, bytes: bytes.map(Becomes::becomes) };
    const ZERO: &str = "is zero: nothing would be kept; leave it out to keep everything";
    match keep {
        Keep { age: Some(age), .. } if age.is_zero() => Err(("keep_age", ZERO)),
        Keep { conversations: Some(0), .. } => Err(("keep_conversations", ZERO)),
        Keep { bytes: Some(0), .. } => Err(("keep_bytes", ZERO)),
        keep => Ok(keep),
    }
}

/// Fewest tokens a window can be set to: what a header can ask for.
const WINDOW_MIN: u64 = 1_000;

impl ConversationsTable {
    /// Every key of it.
    #[cfg(test)]
    pub(super) const KEYS: &[&str] = &[
        "file",
        "window",
        "divergence",
        "concurrent_turns",
        "recall",
        "summaries",
        "memory_bytes",
        "conversation_bytes",
        "keep_age",
        "keep_conversations",
        "keep_bytes",
        "compact_every",
    ];

    /// Sets what stands in the table over the configuration.
    pub(super) fn set(self, places: &Places<'_>, config: &mut Config) -> Result<(), ConfigError> {
        let wrong = |key: &str, why: &str| places.wrong("conversations", 0, key, why);
        let settings = &mut config.settings.conversations;
        settings.window = self.window.unwrap_or(settings.window);
        if settings.window < WINDOW_MIN {
            return Err(wrong("window", "is under 1000 tokens, in which no useful window has room"));
        }
        settings.divergence = match self.divergence {
            Some(Divergence::Refuse) => Divergent::Refuse,
            Some(Divergence::Fork) => Divergent::Fork,
            None => settings.divergence,
        };
        settings.concurrent = match self.concurrent_turns {
            Some(Turns::Wait) => Concurrent::Wait,
            Some(Turns::Refuse) => Concurrent::Refuse,
            None => settings.concurrent,
        };
        settings.recall = self.recall.unwrap_or(settings.recall);
        settings.summaries = self.summaries.unwrap_or(settings.summaries);
        settings.memory_bytes = self.memory_bytes.map_or(settings.memory_bytes, |size| size.becomes());
        settings.keep = keep(self.keep_age.as_ref(), self.keep_conversations, self.keep_bytes.as_ref())
            .map_err(|(key, why)| wrong(key, why))?;
        settings.compact_every = self.compact_every.map_or(settings.compact_every, |every| every.becomes());
        let store = &mut config.store;
        store.conversation_bytes_max =
            self.conversation_bytes.map_or(store.conversation_bytes_max, |size| size.becomes());
        if store.conversation_bytes_max == 0 {
            return Err(wrong("conversation_bytes", "is zero: no turn could be kept"));
        }
        if store.conversation_bytes_max > settings.memory_bytes / 2 {
            return Err(wrong(
                "conversation_bytes",
                "is over half of memory_bytes, so one conversation could take the place of all others; raise memory_bytes",
            ));
        }
        config.conversations = self.file;
        Ok(())
    }
}
