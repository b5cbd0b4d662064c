//! The prompt cache: what of a prompt was sent before, byte for byte, and is still remembered.
//!
//! A prompt is a line of blocks: tools, then system, then messages (`prefix.rs`). A request marks up
//! to four of them with `cache_control`; for each mark, its block and the 19 before it are looked up
//! by the hash of everything up to there, and the longest prefix found is read. What stands between
//! that and the last mark is written, at each mark, for five minutes or an hour. Then
//! `cache_read_input_tokens` is the prefix that was found, `cache_creation_input_tokens` what was
//! written, and `input_tokens` what stands after the last mark. Prefixes shorter than the model's
//! minimum are neither read nor written, without an error.
//!
//! An entry lives for its time from the start of the request that wrote or last read it, and can be
//! read once the writer's answer has begun. It belongs to one organisation, workspace and model.
//! At most [`CacheRules::entries_max`] are kept; those not used for longest go first.

mod prefix;

use prefix::{Block, Prefix};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::Moment;

use crate::tokens::Tokenizer;

/// Blocks looked at for each mark, its own among them.
const LOOK_BACK: usize = 20;

/// Most entries that can be asked for: some 150 MB of them.
pub(crate) const ENTRIES_MAX: usize = 1_000_000;

/// How long an entry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ttl {
    FiveMinutes,
    Hour,
}

impl Ttl {
    fn span(self) -> Duration {
        Duration::from_secs(if self == Ttl::Hour { 3_600 } else { 300 })
    }
}

/// What of a prompt came from where, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InputUse {
    /// Neither read from the cache nor written to it: `input_tokens`.
    pub(crate) uncached: u64,
    /// Read from the cache.
    pub(crate) read: u64,
    /// Written for five minutes.
    pub(crate) created_5m: u64,
    /// Written for an hour.
    pub(crate) created_1h: u64,
}

impl InputUse {
    /// Written to the cache.
    pub(crate) fn created(&self) -> u64 {
        self.created_5m + self.created_1h
    }

    /// What counts as input per minute: what was not read from the cache.
    pub(crate) fn counted(&self) -> u64 {
        self.uncached + self.created()
    }

    /// The whole prompt.
    pub(crate) fn total(&self) -> u64 {
        self.counted() + self.read
    }
}

/// How the cache is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRules {
    /// Whether there is one.
    pub enabled: bool,
    /// Most entries, of all organisations together.
    pub entries_max: usize,
    /// Fewest tokens of a prefix, by model id, where the documented number does not hold.
    pub minimum_tokens: BTreeMap<String, u64>,
}

impl Default for CacheRules {
    fn default() -> Self {
        CacheRules { enabled: true, entries_max: 16_384, minimum_tokens: BTreeMap::new() }
    }
}

/// Whose entries a request may read: organisation, workspace and model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) organisation: &'a str,
    pub(crate) workspace: Option<&'a str>,
    pub(crate) model: &'a str,
}

#[derive(Clone, Debug)]
struct Entry {
    ttl: Ttl,
    readable_from: Moment,
    expires: Moment,
    /// Which request wrote it.
    writer: u64,
    used: u64,
}

/// The entries of everybody.
#[derive(Clone, Debug)]
pub(crate) struct PromptCache {
    rules: CacheRules,
    entries: BTreeMap<u64, Entry>,
    /// Entries by when they were used, as a running number.
    by_use: BTreeMap<u64, u64>,
    uses: u64,
}

/// What a request finds and will write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) input: InputUse,
    read: Option<u64>,
    writes: Vec<(u64, Ttl)>,
}

impl PromptCache {
    pub(crate) fn new(rules: CacheRules) -> Self {
        PromptCache { rules, entries: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    fn minimum(&self, model: &str) -> u64 {
        self.rules.minimum_tokens.get(model).copied().unwrap_or_else(|| minimum_tokens(model))
    }

    /// What a request would find now; nothing is changed. `total` is its whole input.
    pub(crate) fn look(&self, scope: Scope<'_>, body: &Value, tokenizer: Tokenizer, total: u64, now: Moment) -> Found {
        let plain = || Found { input: InputUse { uncached: total, ..InputUse::default() }, ..Found::default() };
        if !self.rules.enabled || !prefix::is_marked(body) {
            return plain();
        }
        let prefix = Prefix::of(scope, body, tokenizer);
        let minimum = self.minimum(scope.model);
        let marks: Vec<usize> = prefix.marks().filter(|at| prefix.blocks[*at].tokens >= minimum).collect();
        let Some(last) = marks.last().copied() else { return plain() };
        let read = marks.iter().filter_map(|mark| self.nearest(&prefix.blocks, *mark, minimum, now)).max();
        let after_read = |at: &&usize| read.is_none_or(|read| **at > read);
        let mark = |at: &usize| (prefix.blocks[*at].hash, prefix.blocks[*at].mark.unwrap_or(Ttl::FiveMinutes));
        let writes: Vec<(u64, Ttl)> = marks.iter().filter(after_read).map(mark).collect();
        let tokens = |at: Option<usize>| at.map_or(0, |at| prefix.blocks[at].tokens);
        let hour = marks.iter().filter(after_read).rfind(|at| prefix.blocks[**at].mark == Some(Ttl::Hour)).copied();
        let (to_read, to_hour, to_last) = (tokens(read), tokens(hour).max(tokens(read)), tokens(Some(last)));
        let input = InputUse {
            uncached: total.saturating_sub(to_last),
            read: to_read,
            created_5m: to_last - to_hour,
            created_1h: to_hour - to_read,
        };
        Found { input, read: read.map(|at| prefix.blocks[at].hash), writes }
    }

    /// The longest readable prefix that ends at this mark or shortly before it.
    fn nearest(&self, blocks: &[Block], mark: usize, minimum: u64, now: Moment) -> Option<usize> {
        let first = (mark + 1).saturating_sub(LOOK_BACK);
        (first..=mark).rev().find(|at| {
            let readable = |entry: &Entry| entry.readable_from <= now && now < entry.expires;
            blocks[*at].tokens >= minimum && self.entries.get(&blocks[*at].hash).is_some_and(readable)
        })
    }

    /// A request that found this was admitted: what it read lives on, what it writes can be read once
    /// its answer has begun. Returns what [`forget`](PromptCache::forget) needs.
    pub(crate) fn keep(&mut self, found: &Found, writer: u64, now: Moment, begins: Moment) -> Vec<u64> {
        if let Some(hash) = found.read
            && let Some(entry) = self.entries.get_mut(&hash)
        {
            entry.expires = now + entry.ttl.span();
            self.use_now(hash);
        }
        for (hash, ttl) in &found.writes {
            let expires = now + ttl.span();
            let fresh = Entry { ttl: *ttl, readable_from: begins, expires, writer, used: 0 };
            match self.entries.get_mut(hash) {
                // Somebody else is writing the same: it can be read when the first of them begins.
                Some(entry) if now < entry.expires => {
                    if begins < entry.readable_from {
                        (entry.readable_from, entry.writer) = (begins, writer);
                    }
                    (entry.ttl, entry.expires) = (entry.ttl.max(*ttl), entry.expires.max(expires));
                }
                Some(entry) => *entry = Entry { used: entry.used, ..fresh },
                None => {
                    self.entries.insert(*hash, fresh);
                }
            }
            self.use_now(*hash);
        }
        while self.entries.len() > self.rules.entries_max {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.entries.remove(&oldest);
        }
        found.writes.iter().map(|(hash, _)| *hash).collect()
    }

    fn use_now(&mut self, hash: u64) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        self.by_use.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.by_use.insert(self.uses, hash);
    }

    /// The request that wrote these ended before its answer began: there is nothing to read.
    pub(crate) fn forget(&mut self, writes: &[u64], writer: u64, now: Moment) {
        for hash in writes {
            let unborn = |entry: &&Entry| entry.writer == writer && now < entry.readable_from;
            if let Some(used) = self.entries.get(hash).filter(unborn).map(|entry| entry.used) {
                self.by_use.remove(&used);
                self.entries.remove(hash);
            }
        }
    }

    /// Entries kept.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Fewest tokens of a cached prefix, as documented; where nothing is, as for the model's predecessor.
fn minimum_tokens(model: &str) -> u64 {
    match model {
        "claude-opus-4-7" => 2_048,
        "claude-opus-4-6" | "claude-opus-4-5" | "claude-haiku-4-5" | "claude-haiku-5-5" => 4_096,
        "claude-opus-4-8" => 1_024,
        _ if model.starts_with("claude-sonnet") => 1_024,
        "echo" => 64,
        _ => 512,
    }
}

#[cfg(test)]
mod tests;
