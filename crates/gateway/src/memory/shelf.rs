//! The conversations in memory: bounded in bytes, least recently used goes first.
//!
//! Who has a conversation's lock has its turn; the others wait in the order in which they came. A
//! conversation that somebody holds or waits for is pinned: it is counted, and never dropped.
//! Dropping one forgets nothing: the log has it.

use super::talk::Talk;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_store::Address;

/// How many are looked at in search of one to drop: the first few are pinned only if they are in
/// use and nevertheless the oldest.
const LOOKS_MAX: usize = 64;
/// What a conversation takes beside its content: address, slot, places in two maps.
const SLOT_BYTES: u64 = 512;

/// A place on the shelf. `None` in it has to be read from the log.
pub(super) type Slot = Arc<tokio::sync::Mutex<Option<Talk>>>;

struct Kept {
    slot: Slot,
    used: u64,
    bytes: u64,
    /// The end user of its last turn, whether or not that is in the log.
    user: Option<String>,
}

#[derive(Default)]
struct State {
    kept: BTreeMap<Address, Kept>,
    /// By last use.
    order: BTreeMap<u64, Address>,
    uses: u64,
    bytes: u64,
}

/// The shelf.
pub(super) struct Shelf {
    state: Mutex<State>,
    bytes_max: u64,
}

impl Shelf {
    pub(super) fn new(bytes_max: u64) -> Self {
        Shelf { state: Mutex::default(), bytes_max }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The conversation's slot, which is now the last used one; `None` if those in use fill the
    /// shelf already.
    pub(super) fn slot(&self, address: &Address) -> Option<Slot> {
        let mut state = self.state();
        state.uses += 1;
        let now = state.uses;
        if let Some(kept) = state.kept.get_mut(address) {
            let (slot, before) = (Arc::clone(&kept.slot), std::mem::replace(&mut kept.used, now));
            state.order.remove(&before);
            state.order.insert(now, address.clone());
            return Some(slot);
        }
        if !state.make_room(self.bytes_max.saturating_sub(SLOT_BYTES)) {
            return None;
        }
        let slot = Slot::default();
        state.bytes += SLOT_BYTES;
        state.kept.insert(address.clone(), Kept { slot: Arc::clone(&slot), used: now, bytes: SLOT_BYTES, user: None });
        state.order.insert(now, address.clone());
        Some(slot)
    }

    /// The conversation has so many bytes now; others go if that is too much.
    pub(super) fn weigh(&self, address: &Address, bytes: u64) {
        let mut state = self.state();
        let Some(kept) = state.kept.get_mut(address) else { return };
        let before = std::mem::replace(&mut kept.bytes, bytes + SLOT_BYTES);
        state.bytes = state.bytes - before + bytes + SLOT_BYTES;
        state.make_room(self.bytes_max);
    }

    /// The turn under way is for this end user. Whoever has the conversation's turn says so.
    pub(super) fn is_for(&self, address: &Address, user: Option<&str>) {
        if let Some(kept) = self.state().kept.get_mut(address) {
            kept.user = user.map(str::to_owned);
        }
    }

    /// The conversations here whose last turn is for this end user.
    pub(super) fn of_user(&self, tenant: &str, user: &str) -> Vec<Address> {
        let state = self.state();
        let theirs = state.kept.iter().filter(|(at, kept)| at.tenant() == tenant && kept.user.as_deref() == Some(user));
        theirs.map(|(address, _)| address.clone()).collect()
    }

    /// Takes a conversation's place away, unless somebody is there.
    pub(super) fn remove(&self, address: &Address) {
        let mut state = self.state();
        if state.kept.get(address).is_some_and(|kept| Arc::strong_count(&kept.slot) == 1) {
            state.take_away(address);
        }
    }

    /// Forgets what is here of `addresses` and in nobody's use.
    pub(super) fn forget_idle(&self, addresses: &BTreeSet<Address>) {
        addresses.iter().for_each(|address| self.remove(address));
    }

    /// How many there are, and their bytes.
    pub(super) fn held(&self) -> (usize, u64) {
        let state = self.state();
        (state.kept.len(), state.bytes)
    }
}

impl State {
    /// Drops what was not used for longest until at most `bytes` are left; whether that went.
    fn make_room(&mut self, bytes: u64) -> bool {
        while self.bytes > bytes {
            // Only the shelf hands slots out, under its lock: a count of one stays one.
            let free = self
                .order
                .values()
                .take(LOOKS_MAX)
                .find(|address| self.kept.get(address).is_some_and(|kept| Arc::strong_count(&kept.slot) == 1));
            let Some(address) = free.cloned() else { return false };
            self.take_away(&address);
        }
        true
    }

    fn take_away(&mut self, address: &Address) {
        if let Some(gone) = self.kept.remove(address) {
            self.order.remove(&gone.used);
            self.bytes -= gone.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(name: &str) -> Address {
        Address::new("t", name).unwrap()
    }

    #[test]
    fn the_least_recently_used_goes_and_what_is_held_stays() {
        let shelf = Shelf::new(10_000);
        let held = shelf.slot(&address("held")).unwrap();
        shelf.weigh(&address("held"), 2_000);
        for name in ["a", "b"] {
            drop(shelf.slot(&address(name)).unwrap());
            shelf.weigh(&address(name), 2_000);
        }
        assert_eq!(shelf.held(), (3, 3 * 2_512));
        // "a" is used again, so "b" is the oldest that is free.
        drop(shelf.slot(&address("a")));
        drop(shelf.slot(&address("c")));
        shelf.weigh(&address("c"), 3_000);
        let state = shelf.state();
        let names: Vec<&str> = state.kept.keys().map(Address::name).collect();
        assert_eq!(names, ["a", "c", "held"]);
        drop(state);
        drop(held);
    }

    #[test]
    fn a_place_is_taken_away_when_nobody_is_there() {
        let shelf = Shelf::new(10_000);
        let both = BTreeSet::from([address("a"), address("b")]);
        let held = shelf.slot(&address("a")).unwrap();
        drop(shelf.slot(&address("b")).unwrap());
        shelf.is_for(&address("a"), Some("u-1"));
        assert_eq!((shelf.of_user("t", "u-1"), shelf.of_user("other", "u-1")), (vec![address("a")], vec![]));
        shelf.forget_idle(&both);
        assert_eq!(shelf.held(), (1, SLOT_BYTES), "who is there keeps its place");
        drop(held);
        shelf.remove(&address("a"));
        assert_eq!((shelf.held(), shelf.of_user("t", "u-1")), ((0, 0), vec![]));
    }

    #[test]
    fn what_is_in_use_is_never_dropped_and_no_more_is_taken_on() {
        let shelf = Shelf::new(4_000);
        let slots: Vec<Slot> = ["a", "b"].iter().map(|name| shelf.slot(&address(name)).unwrap()).collect();
        shelf.weigh(&address("a"), 5_000);
        assert!(shelf.slot(&address("c")).is_none());
        assert!(shelf.slot(&address("a")).is_some());
        drop(slots);
        assert!(shelf.slot(&address("c")).is_some());
    }
}
