//! Whose limits an answer told: an organisation's, or its workspace's.
//!
//! Answers do not say so. But those of all workspaces tell the same limits of their organisation, or
//! the tighter ones of their own; so a limit that one workspace's answers tell lower than another's is
//! its own. It gets a level of its own then, as if the configuration had named it, until its answers
//! tell what all others do. Where only one workspace is known there is nothing to compare with, and
//! nothing to tell apart.

use super::Class;
use crate::ask::{Levels, Limits};
use crate::bucket::Source;
use crate::meters::Meters;
use crate::scheduler::Shared;
use tidegate_base::Moment;

impl Class {
    /// An answer of a domain told limits: which of them are workspaces' own is looked at anew if it
    /// told others than the last.
    pub(crate) fn told(&mut self, now: Moment, domain: usize, levels: &Levels, shared: &Shared) {
        let d = &mut self.domains[domain];
        let news = levels.limits().parts();
        let told = Limits::of_parts(std::array::from_fn(|n| news[n].or(d.told.parts()[n])));
        if std::mem::replace(&mut d.told, told) == told {
            return;
        }
        let org = d.org;
        let members: Vec<usize> = (0..self.domains.len()).filter(|n| self.domains[*n].org == org).collect();
        // Of each limiter, the limits that their answers told.
        let most: [Option<u64>; 3] = std::array::from_fn(|n| {
            let all: Vec<u64> = members.iter().filter_map(|m| self.domains[*m].told.parts()[n]).collect();
            all.iter().max().copied().filter(|_| all.len() > 1)
        });
        // The default workspace has no limits of its own.
        let named: Vec<usize> = members.into_iter().filter(|m| self.domains[*m].workspace.is_some()).collect();
        for member in named {
            let told = self.domains[member].told.parts();
            let level = self.domains[member].meters.get(1).copied();
            let known = level.map_or([None; 3], |level| self.meters[level].buckets().map(|b| b.map(|b| b.limit())));
            let own = Limits::of_parts(std::array::from_fn(|n| match (told[n], most[n]) {
                (Some(told), Some(most)) => (told < most).then_some(told),
                _ => known[n],
            }));
            match level {
                Some(level) => self.meters[level].own(own, now),
                None if own != Limits::default() => self.add_level(now, member, own, shared),
                None => {}
            }
        }
    }

    /// A domain has limits of its own beside its organisation's. What it has under way counts there too.
    fn add_level(&mut self, now: Moment, domain: usize, limits: Limits, shared: &Shared) {
        let mut level = Meters::new(limits, Source::Header, now);
        let running = self.running.iter().filter_map(|id| shared.flights.get(*id));
        for flight in running.filter(|f| f.domain == domain) {
            level.joins(&flight.coming, if flight.counted { 0.0 } else { flight.input });
        }
        self.domains[domain].meters.push(self.meters.len());
        self.meters.push(level);
    }

    /// What an answer of a domain told, by the level of limits it told it of: of each limiter its
    /// workspace's if that has such a limit, else its organisation's.
    pub(crate) fn levels_told(&self, domain: usize, levels: &Levels) -> Vec<(usize, Levels)> {
        let of = |told: &Option<u64>, n: usize| self.level_of(domain, n, *told);
        let whose: Vec<usize> = levels.limits().parts().iter().enumerate().map(|(n, told)| of(told, n)).collect();
        let part = |level: usize| {
            let own = levels.parts();
            Levels::of_parts(std::array::from_fn(|n| if whose[n] == level { own[n] } else { Default::default() }))
        };
        let d = &self.domains[domain];
        d.meters.iter().map(|level| (*level, part(*level))).filter(|(_, levels)| !levels.is_silent()).collect()
    }

    /// The level of a domain that a limiter is of which says of itself that its limit is `told`.
    pub(crate) fn level_of(&self, domain: usize, limiter: usize, told: Option<u64>) -> usize {
        let d = &self.domains[domain];
        let named = |level: &&usize| {
            let own = self.meters[**level].buckets()[limiter].map(|b| b.limit());
            own.is_some() && own == told
        };
        d.meters.iter().rev().find(named).or(d.meters.first()).copied().unwrap_or_default()
    }
}
