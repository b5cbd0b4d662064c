//! What the prompt caches are believed to hold: beginnings of inputs, by place, until when.
//!
//! Learned from the usage answers report, never assumed. It decides how much of an input will be
//! metered where, and so whether leaving a place is worth its cold cost.

use crate::ask::{OrgId, WorkspaceId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate_base::Moment;

/// Entries kept; the one that ends first goes first. A place for each of ten thousand conversations
/// and their beginnings, a few MB.
const ENTRIES_MAX: usize = 32_768;

/// A cached beginning in one place: caches are per workspace.
type Key = (OrgId, Option<WorkspaceId>, u64);

#[derive(Clone, Copy, Debug)]
struct Warm {
    tokens: f64,
    until: Moment,
}

/// The caches, as believed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warmth {
    entries: BTreeMap<Key, Warm>,
    ends: BTreeSet<(Moment, Key)>,
}

impl Warmth {
    /// Tokens of `prefix` that a request there would read from the cache now.
    pub(crate) fn tokens(&self, now: Moment, org: OrgId, workspace: Option<WorkspaceId>, prefix: u64) -> f64 {
        let warm = self.entries.get(&(org, workspace, prefix));
        warm.filter(|w| w.until > now).map_or(0.0, |w| w.tokens)
    }

    /// Whether it is known, of the time since, what the cache there holds of `prefix`, be it nothing.
    pub(crate) fn knows(&self, now: Moment, org: OrgId, workspace: Option<WorkspaceId>, prefix: u64) -> bool {
        self.entries.get(&(org, workspace, prefix)).is_some_and(|w| w.until > now)
    }

    /// An answer read or wrote `tokens` of it; the time to live runs from the request's `start`.
    pub(crate) fn learn(
        &mut self,
        (start, ttl): (Moment, Duration),
        org: OrgId,
        workspace: Option<WorkspaceId>,
        prefix: u64,
        tokens: f64,
    ) {
        let key = (org, workspace, prefix);
        let until = start + ttl;
        if let Some(old) = self.entries.get(&key) {
            if old.until > until {
                return;
            }
            self.ends.remove(&(old.until, key));
        }
        self.entries.insert(key, Warm { tokens, until });
        self.ends.insert((until, key));
        while self.entries.len() > ENTRIES_MAX {
            let Some((_, oldest)) = self.ends.pop_first() else { break };
            self.entries.remove(&oldest);
        }
    }

    /// Forgets what has ended.
    pub(crate) fn sweep(&mut self, now: Moment) {
        while let Some((until, key)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.ends.remove(&(until, key));
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Moment {
        Moment::from_nanos(s * 1_000_000_000)
    }

    const TTL: Duration = Duration::from_secs(300);

    #[test]
    fn a_beginning_is_warm_in_one_place_until_its_time_is_over() {
        let mut w = Warmth::default();
        let (a, b) = (OrgId(0), OrgId(1));
        w.learn((at(10), TTL), a, None, 7, 5_000.0);
        assert_eq!(w.tokens(at(309), a, None, 7), 5_000.0);
        assert_eq!(w.tokens(at(310), a, None, 7), 0.0);
        assert_eq!(w.tokens(at(20), b, None, 7) + w.tokens(at(20), a, Some(WorkspaceId(0)), 7), 0.0);
        w.learn((at(200), TTL), a, None, 7, 6_000.0);
        w.learn((at(150), TTL), a, None, 7, 1.0);
        assert_eq!(w.tokens(at(499), a, None, 7), 6_000.0, "refreshed, and not by an older one");
        w.sweep(at(500));
        assert!(w.entries.is_empty() && w.ends.is_empty());
    }

    #[test]
    fn it_has_a_number() {
        let mut w = Warmth::default();
        (0..40_000).for_each(|n| w.learn((at(n), TTL), OrgId(0), None, n, 1.0));
        assert_eq!((w.entries.len(), w.ends.len()), (ENTRIES_MAX, ENTRIES_MAX));
        assert_eq!(w.tokens(at(39_999), OrgId(0), None, 39_999), 1.0);
    }
}
