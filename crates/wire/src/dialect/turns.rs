//! Whose turn it is to write, of all streams of one socket.
//!
//! Deficit round robin (Shreedhar and Varghese, 1995): streams that have something to send stand in a
//! ring. The first one writes; once it has written its [`TURN_BYTES`] the next one does. An event is
//! written whole, so a turn may end below zero, and the stream is passed over until that is paid.
//! Whoever leaves the ring keeps its debt and nothing else: silence saves nothing up.
//!
//! A stream alone has nobody to pay, and its turns follow one another. A debt is forgotten past
//! [`DEBT_BYTES_MAX`], so that finding the next one is a bounded walk, and one enormous event does not
//! silence its stream for minutes.

use std::collections::{BTreeMap, VecDeque};

/// What a stream may write before it is another's turn: one record of TLS, some hundred deltas.
pub const TURN_BYTES: u32 = 16 * 1024;

/// The most a stream owes for an event that was larger than its turn: 64 turns.
pub const DEBT_BYTES_MAX: u32 = 64 * TURN_BYTES;

/// The streams of one socket; at most as many as it may have (`limits.connection_streams`).
#[derive(Clone, Debug)]
pub struct Turns<K> {
    ring: VecDeque<K>,
    streams: BTreeMap<K, Stream>,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    /// What is left of its turn; below zero, what it owes.
    balance: i64,
    in_ring: bool,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Turns { ring: VecDeque::new(), streams: BTreeMap::new() }
    }
}

impl<K: Copy + Ord> Turns<K> {
    /// The stream has something to send and may. Said again, it changes nothing.
    pub fn ready(&mut self, key: K) {
        let stream = self.streams.entry(key).or_insert(Stream { balance: i64::from(TURN_BYTES), in_ring: false });
        if !stream.in_ring {
            stream.in_ring = true;
            self.ring.push_back(key);
        }
    }

    /// The stream has nothing to send, or may not.
    pub fn idle(&mut self, key: K) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        if stream.in_ring {
            stream.in_ring = false;
            // A turn that was not used up is over; the next one begins with a whole one.
            stream.balance = if stream.balance < 0 { stream.balance } else { i64::from(TURN_BYTES) };
            self.ring.retain(|k| *k != key);
        }
    }

    /// The stream is over.
    pub fn remove(&mut self, key: K) {
        self.idle(key);
        self.streams.remove(&key);
    }

    /// Whose turn it is; the same one until it has used its turn up or is idle.
    pub fn turn(&mut self) -> Option<K> {
        loop {
            let key = *self.ring.front()?;
            let stream = self.streams.get_mut(&key)?;
            if stream.balance <= 0 {
                stream.balance += i64::from(TURN_BYTES);
            }
            if stream.balance > 0 {
                return Some(key);
            }
            self.ring.rotate_left(1);
        }
    }

    /// The stream, whose turn it is, wrote so many bytes.
    pub fn wrote(&mut self, key: K, bytes: usize) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        let left = stream.balance.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        stream.balance = left.max(-i64::from(DEBT_BYTES_MAX));
        if left <= 0 && self.ring.front() == Some(&key) {
            self.ring.rotate_left(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Who writes, one after another, when each of `sizes` writes events of that size without end.
    fn check(sizes: &[usize], times: usize) -> (Turns<usize>, Vec<usize>) {
        let mut turns = Turns::default();
        (0..sizes.len()).for_each(|key| turns.ready(key));
        let who = (0..times).map(|_| {
            let key = turns.turn().unwrap();
            turns.wrote(key, sizes[key]);
            key
        });
        let who = who.collect();
        (turns, who)
    }

    #[test]
    fn a_turn_is_used_up_before_the_next_begins() {
        assert_eq!(check(&[8192, 16384, 9000], 8).1, [0, 0, 1, 2, 2, 0, 0, 1]);
    }

    #[test]
    fn a_large_event_is_paid_for_in_the_next_turns() {
        let (_, who) = check(&[3 * 16384, 16384], 8);
        assert_eq!(who, [0, 1, 1, 1, 0, 1, 1, 1]);
    }

    #[test]
    fn an_enormous_event_is_paid_for_in_part() {
        let (mut turns, _) = check(&[1 << 30, TURN_BYTES as usize], 1);
        let others = (0..).take_while(|_| {
            let key = turns.turn().unwrap();
            turns.wrote(key, TURN_BYTES as usize);
            key == 1
        });
        assert_eq!(others.count(), 65);
    }

    #[test]
    fn silence_saves_nothing_up_and_cancels_no_debt() {
        let mut turns = Turns::default();
        turns.ready('a');
        turns.ready('b');
        assert_eq!(turns.turn(), Some('a'));
        turns.wrote('a', 40_000);
        turns.idle('a');
        turns.ready('a');
        for _ in 0..2 {
            assert_eq!(turns.turn(), Some('b'));
            turns.wrote('b', TURN_BYTES as usize);
        }
        assert_eq!(turns.turn(), Some('a'));
        turns.idle('b');
        turns.wrote('a', 1_000_000_000);
        assert_eq!(turns.turn(), Some('a'), "alone it owes nobody");
        turns.remove('a');
        assert_eq!(turns.turn(), None);
        assert!(turns.ring.is_empty() && turns.streams.len() == 1);
        turns.ready('a');
        assert_eq!(turns.turn(), Some('a'), "another stream of that name has no past");
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_a_turn_and_an_event_ahead(sizes in prop::collection::vec(1usize..200_000, 2..6)) {
            let (_, who) = check(&sizes, 5000);
            let mut bytes = vec![0usize; sizes.len()];
            for key in who {
                bytes[key] += sizes[key];
                let ahead = TURN_BYTES as usize + sizes.iter().max().unwrap();
                let (most, least) = (bytes.iter().max().unwrap(), bytes.iter().min().unwrap());
                prop_assert!(most - least <= ahead + TURN_BYTES as usize, "{:?} of {:?}", bytes, sizes);
            }
        }
    }
}
