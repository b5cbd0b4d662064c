//! Finds what a place in the file is called, for errors.

use super::ConfigError;
use crate::withheld::{looks_like_a_key, without_values};
use std::path::Path;

/// Finds what a place in the file is called.
pub(super) struct Places<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Places<'_> {
    fn at_line(&self, line: usize, what: &str) -> ConfigError {
        ConfigError(format!("{}:{line}: {what}", self.path.display()))
    }

    /// An error of the TOML reader: its line, the key on it, and what it says. Neither the line itself nor
    /// a value is shown: it may be a key.
    pub(super) fn unreadable(&self, e: &toml::de::Error) -> ConfigError {
        let at = e.span().map_or(0, |s| s.start.min(self.text.len()));
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let text = self.text.lines().nth(line - 1).unwrap_or_default();
        let key = text
            .split_once('=')
            .map(|(key, _)| key.trim())
            .filter(|k| !k.is_empty() && !k.starts_with('#') && !looks_like_a_key(k));
        let message = &without_values(e.message().trim(), |word| !looks_like_a_key(word));
        self.at_line(line, &key.map_or_else(|| message.to_owned(), |key| format!("{key}: {message}")))
    }

    /// An error about `key` in the `nth` table called `table`.
    pub(super) fn wrong(&self, table: &str, nth: usize, key: &str, why: &str) -> ConfigError {
        self.wrong_in(table, nth, "", key, why)
    }

    /// An error about `key` in the table `inner` of the `nth` table called `table`; if it has no
    /// header of its own, the error is at the outer one.
    pub(super) fn wrong_in(&self, table: &str, nth: usize, inner: &str, key: &str, why: &str) -> ConfigError {
        let header = |line: &str| {
            let name = line.trim().strip_prefix('[')?;
            Some(name.trim_start_matches('[').split(']').next()?.replace(['"', '\'', ' '], ""))
        };
        let lines = || self.text.lines().enumerate().map(|(n, l)| (n + 1, l));
        let headers = || lines().filter_map(|(n, l)| Some((n, header(l)?)));
        let outer = headers().filter(|(_, name)| name == table).nth(nth).map_or(1, |(n, _)| n);
        let next = headers().find(|(n, name)| *n > outer && name == table).map_or(usize::MAX, |(n, _)| n);
        let full = if inner.is_empty() { table.to_owned() } else { format!("{table}.{inner}") };
        let start = headers().find(|(n, name)| (outer..next).contains(n) && *name == full).map_or(outer, |(n, _)| n);
        let end = headers().find(|(n, _)| *n > start).map_or(usize::MAX, |(n, _)| n);
        let is_key = |l: &str| l.split_once('=').is_some_and(|(k, _)| k.trim() == key);
        let line = lines().find(|(n, l)| (start..end).contains(n) && is_key(l)).map_or(start, |(n, _)| n);
        self.at_line(line, &format!("{full}.{key}: {why}"))
    }
}
