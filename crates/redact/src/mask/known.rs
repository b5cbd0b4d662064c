//! Values that have tokens already, found wherever they stand.
//!
//! What was restored for a reader comes back with the next turn, and then often nothing beside it says
//! what it is. One automaton over the values' shadows finds them in a text's shadow, as whole words;
//! together with what the rules found they make one list without overlaps.

use super::Refusal;
use super::scopes::Scopes;
use crate::detect::Finding;
use crate::kind::Kind;
use crate::shadow::Shadow;
use crate::vault::Vault;
use aho_corasick::{AhoCorasick, MatchKind};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

/// The values of a request's vaults.
pub(super) struct Known {
    /// Over shadows of values, and the kind of each.
    values: Option<AhoCorasick>,
    kinds: Vec<Kind>,
}

/// Shorter values are found by rules only: two digits that a custom pattern once took would be
/// masked everywhere.
const KNOWN_BYTES_MIN: usize = 4;

impl Known {
    pub(super) fn of(scopes: Option<&Scopes<'_>>) -> Result<Known, Refusal> {
        let mut shadow = Shadow::default();
        let mut kinds = Vec::new();
        let mut patterns: Vec<Vec<u8>> = Vec::new();
        for (token, value) in scopes.into_iter().flat_map(Scopes::vaults).flat_map(Vault::values) {
            shadow.cast(value.expose().as_bytes());
            if shadow.text().len() >= KNOWN_BYTES_MIN {
                patterns.push(shadow.text().to_vec());
                kinds.push(token.kind());
            }
        }
        let build = || AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&patterns);
        let values = (!patterns.is_empty()).then(build).transpose().map_err(|_| Refusal::Failed)?;
        Ok(Known { values, kinds })
    }

    /// Known values in the shadow; as whole words, unless `anywhere`.
    pub(super) fn find(&self, shadow: &Shadow, anywhere: bool) -> Vec<Finding> {
        let Some(values) = &self.values else { return Vec::new() };
        let text = shadow.text();
        let joins = |a: Option<&u8>, b: Option<&u8>| {
            a.is_some_and(u8::is_ascii_alphanumeric) && b.is_some_and(u8::is_ascii_alphanumeric)
        };
        let is_whole = |span: &Range<usize>| {
            let before = span.start.checked_sub(1).and_then(|at| text.get(at));
            !joins(before, text.get(span.start)) && !joins(text.get(span.end - 1), text.get(span.end))
        };
        let found = values.find_iter(text).map(|found| (found.range(), self.kinds[found.pattern().as_usize()]));
        found
            .filter(|(span, _)| anywhere || is_whole(span))
            .map(|(span, kind)| Finding { span: shadow.raw(span), kind, rule: KNOWN, pattern: None })
            .collect()
    }
}

/// The rule of values that the vault holds.
pub(super) const KNOWN: &str = "known";

/// Findings and known values as one list without overlaps: the longer stays, of equal ones the known
/// one; a telephone number gives way to a known one inside it, which lacks its country's code. What is
/// dropped overlaps something that stays.
pub(super) fn join(found: Vec<Finding>, known: Vec<Finding>) -> Vec<Finding> {
    if known.is_empty() {
        return found;
    }
    let mut all: Vec<Finding> = found.into_iter().chain(known).collect();
    let is_known_phone = |f: &Finding| f.rule == KNOWN && f.kind == Kind::Phone;
    all.sort_by_key(|f| {
        let rank = if f.kind == Kind::Phone { PHONE_BYTES_MAX.max(f.span.len()) } else { f.span.len() };
        (Reverse((rank, is_known_phone(f), f.rule == KNOWN, f.span.len())), f.span.start)
    });
    let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
    all.retain(|f| {
        let free = taken.range(..f.span.end).next_back().is_none_or(|(_, end)| *end <= f.span.start);
        if free {
            taken.insert(f.span.start, f.span.end);
        }
        free
    });
    all.sort_by_key(|f| f.span.start);
    all
}

/// Telephone numbers are all as long as this when lengths are compared.
const PHONE_BYTES_MAX: usize = 32;
