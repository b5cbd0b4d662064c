//! A bounded table of which id lives where, in two generations.
//!
//! What is used moves into the young one; when that is full the old one is dropped and the young one
//! grows old. So it forgets roughly what was not used for longest, and nothing is ever swept.

use crate::references::Place;
use std::collections::BTreeMap;
use std::mem;

/// Ids that are remembered, both generations together: a few megabytes.
const REMEMBERED_MAX: usize = 100_000;

/// Where ids live.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    young: BTreeMap<u64, Place>,
    old: BTreeMap<u64, Place>,
}

impl Generations {
    /// It lives there.
    pub(crate) fn put(&mut self, id: u64, place: Place) {
        if self.young.len() >= REMEMBERED_MAX / 2 && !self.young.contains_key(&id) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(id, place);
    }

    /// Where it lives, if that is known; it is used, and so kept.
    pub(crate) fn get(&mut self, id: u64) -> Option<Place> {
        if let Some(place) = self.young.get(&id) {
            return Some(*place);
        }
        let place = self.old.remove(&id)?;
        self.put(id, place);
        Some(place)
    }

    /// It is not there.
    pub(crate) fn forget(&mut self, id: u64, place: Place) {
        for generation in [&mut self.young, &mut self.old] {
            if generation.get(&id) == Some(&place) {
                generation.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_schedule::OrgId;

    fn place(org: u32) -> Place {
        Place { org: OrgId(org), workspace: None }
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_used() {
        let mut table = Generations::default();
        table.put(7, place(1));
        for id in 1_000..300_000 {
            table.put(id, place(0));
            if id % 10_000 == 0 {
                assert_eq!(table.get(7), Some(place(1)), "{id}");
            }
            assert!(table.young.len() + table.old.len() <= REMEMBERED_MAX);
        }
        assert_eq!(table.get(1_000), None);
    }

    #[test]
    fn only_where_it_was_thought_to_live_is_forgotten() {
        let mut table = Generations::default();
        table.put(7, place(1));
        table.forget(7, place(2));
        assert_eq!(table.get(7), Some(place(1)));
        table.forget(7, place(1));
        assert_eq!(table.get(7), None);
    }
}
