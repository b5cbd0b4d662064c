//! The log of one reply.
//!
//! ```text
//!   upstream ─▶ append ─▶ [gone …][ run ][whole][   run   ][ … last ]
//!                                    ▲               ▲            ▲
//!                          reader: floor..    reader: lags    reader: waits
//! ```
//! - S1: event k is appended once, has number k from then on, and is never changed.
//! - S2: readers read from here and from nowhere else, so nobody has seen what the log could not
//!   have held.
//! - S3: appending never waits. A reader is a number; what it has not read costs nothing but the
//!   log itself.
//! - S4: the last event is terminal, and only the last: `message_stop`, an `error`, or what was made
//!   of a cancellation.
//! - S5: only the holder of the newest epoch appends.
//!
//! Pings and comments say that a line is alive. They belong to a line and not to the reply, are not
//! recorded and have no number; each reader's own line has its own heartbeat.
//!
//! *Limits.* Memory is counted as it is reserved, and is never above the limit: the oldest entries
//! go first, and a place before what is left is gone. An event that would not fit alone is refused;
//! the stream has to end then, since its next reader could not be told the truth.

use crate::cursor::{Cursor, Epoch};
use crate::entry::{ENTRY_BYTES, Entry, Item, RUN_BYTES_MAX, Run};
use std::collections::VecDeque;
use tidegate_base::StreamId;
use tidegate_wire::event::{Kind, plain_delta};

/// The least a journal may hold, bytes: an error and a few events around it always fit.
pub const LIMIT_BYTES_MIN: usize = 8 * 1024;
/// The most owners one journal may have had. Each restart makes one; a reply does not outlast many.
pub(crate) const EPOCHS_MAX: usize = 64;

/// How a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With `message_stop`.
    Stopped,
    /// With an `error` event.
    Error,
    /// Somebody called it off.
    Cancelled,
}

/// Why an event was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The reply has ended; nothing comes after that.
    Ended(End),
    /// Whoever appends is no longer the owner.
    Fenced,
    /// The event alone is larger than the journal may be.
    TooLarge,
}

/// Why a place cannot be read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// No event has that number yet: the cursor was never given out.
    Beyond,
    /// What follows was there, and is not kept any more or did not survive a restart.
    Gone,
    /// The cursor is one of another stream.
    OtherStream,
    /// The cursor's epoch never appended an event with that number.
    OtherEpoch,
}

/// How what has not been read is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Event by event, each as it came: to a reader that keeps up.
    AsItCame,
    /// A run of deltas as one: to a reader that lags.
    Merged,
    /// The same, but nothing that came after this event is joined to what came before.
    MergedTo(u64),
}

/// What comes after a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'j> {
    /// This.
    Item(Item<'j>),
    /// Nothing yet.
    Wait,
    /// Nothing ever: the reply ended so.
    Done(End),
}

/// The log of one reply.
#[derive(Debug)]
pub struct Journal {
    stream: StreamId,
    /// The owners so far, with the first number each could append. Never empty.
    epochs: Vec<(Epoch, u64)>,
    entries: VecDeque<Entry>,
    /// The last event that is gone; 0 if none is.
    floor: u64,
    /// The last event.
    last: u64,
    end: Option<End>,
    bytes: usize,
    limit: usize,
}

impl Journal {
    /// An empty journal that holds at most `limit` bytes, or [`LIMIT_BYTES_MIN`] if that is more.
    pub fn new(stream: StreamId, limit: usize) -> Self {
        Journal::after(0, stream, limit, vec![(Epoch::FIRST, 1)])
    }

    /// One whose events up to `floor` are gone.
    pub(crate) fn after(floor: u64, stream: StreamId, limit: usize, epochs: Vec<(Epoch, u64)>) -> Self {
        let limit = limit.max(LIMIT_BYTES_MIN);
        Journal { stream, epochs, entries: VecDeque::new(), floor, last: floor, end: None, bytes: 0, limit }
    }

    /// The stream it is the log of.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// The owner's epoch.
    pub fn epoch(&self) -> Epoch {
        self.epochs.last().map_or(Epoch::FIRST, |(epoch, _)| *epoch)
    }

    /// The last event's number; 0 before the first.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The number of the last event that is gone; 0 if none is.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// How the reply ended, if it did.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// What it holds of memory, bytes; never above the limit.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets the limit, for instance where memory is short; what is beyond it goes at once.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(LIMIT_BYTES_MIN);
        self.shed();
    }

    /// Makes the caller the owner, and everybody who was it a stranger. `None` after too many. Of a
    /// stream with checkpoints the new owner's [`claim`](Journal::claim) is to be written first.
    pub fn fence(&mut self) -> Option<Epoch> {
        let next = self.epoch().next().filter(|_| self.epochs.len() < EPOCHS_MAX)?;
        self.epochs.push((next, self.last + 1));
        Some(next)
    }

    /// Appends one whole event, of the kind a tap found, and returns the number of the last event
    /// recorded. `message_stop` and `error` end the reply.
    pub fn append(&mut self, epoch: Epoch, kind: Kind, event: &[u8]) -> Result<u64, Refused> {
        let end = match kind {
            Kind::MessageStop => Some(End::Stopped),
            Kind::Error => Some(End::Error),
            _ => None,
        };
        self.record(epoch, kind, event, end)
    }

    /// Appends the event that tells readers that the reply was called off, and ends it.
    pub fn cancel(&mut self, epoch: Epoch, event: &[u8]) -> Result<u64, Refused> {
        self.record(epoch, Kind::Error, event, Some(End::Cancelled))
    }

    pub(crate) fn record(&mut self, epoch: Epoch, kind: Kind, event: &[u8], end: Option<End>) -> Result<u64, Refused> {
        if epoch != self.epoch() {
            return Err(Refused::Fenced);
        }
        if let Some(end) = self.end {
            return Err(Refused::Ended(end));
        }
        if matches!(kind, Kind::Ping | Kind::Comment) {
            return Ok(self.last);
        }
        if event.len() + ENTRY_BYTES > self.limit {
            return Err(Refused::TooLarge);
        }
        self.push(kind, event);
        self.last += 1;
        self.end = end;
        self.shed();
        Ok(self.last)
    }

    fn push(&mut self, kind: Kind, event: &[u8]) {
        let delta = if kind == Kind::BlockDelta { plain_delta(event) } else { None };
        if let Some(entry) = self.entries.back_mut() {
            let before = entry.bytes();
            let taken = match (&mut *entry, &delta) {
                (Entry::Run(run), Some(delta)) => run.push(delta, RUN_BYTES_MAX.min(self.limit / 8)),
                _ => false,
            };
            if !taken {
                entry.close();
            }
            self.bytes = self.bytes - before + entry.bytes();
            if taken {
                return;
            }
        }
        let seq = self.last + 1;
        let run = delta.and_then(|delta| Run::begin(seq, &delta)).map(Entry::Run);
        let entry = run.unwrap_or_else(|| Entry::Whole { seq, kind, event: event.into() });
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
    }

    /// Lets the oldest go until the rest is within the limit. An event just appended fits alone, and
    /// stays.
    fn shed(&mut self) {
        while self.bytes > self.limit
            && let Some(entry) = self.entries.pop_front()
        {
            self.bytes -= entry.bytes();
            self.floor = entry.last();
        }
        // A list that was long once does not keep its places.
        if self.entries.capacity() > 16 + 4 * self.entries.len() {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    /// Lets go of all entries whose last event is `seq` or an earlier one: whoever reads has them, and
    /// nobody else will. A run that goes on after `seq` stays whole.
    pub fn forget(&mut self, seq: u64) {
        while let Some(entry) = self.entries.front()
            && entry.last() <= seq
        {
            self.bytes -= entry.bytes();
            self.floor = entry.last();
            self.entries.pop_front();
        }
    }

    /// The place of whoever has all events up to `seq`.
    pub fn cursor(&self, seq: u64) -> Cursor {
        let of = self.epochs.iter().rev().find(|(_, from)| *from <= seq).or(self.epochs.first());
        Cursor { stream: self.stream, epoch: of.map_or(Epoch::FIRST, |(epoch, _)| *epoch), seq }
    }

    /// The number to read after, for whoever comes with `cursor`.
    pub fn locate(&self, cursor: &Cursor) -> Result<u64, Missed> {
        if cursor.stream != self.stream {
            return Err(Missed::OtherStream);
        }
        let found = self.epochs.iter().position(|(epoch, _)| *epoch == cursor.epoch);
        let known = self.epochs.first().map_or(Epoch::FIRST, |(epoch, _)| *epoch);
        let at = found.ok_or(if cursor.epoch < known { Missed::Gone } else { Missed::OtherEpoch })?;
        if cursor.seq > self.last_of(at) {
            let newest = at + 1 == self.epochs.len();
            return Err(if newest { Missed::Beyond } else { Missed::Gone });
        }
        if self.cursor(cursor.seq).epoch != cursor.epoch {
            return Err(Missed::OtherEpoch);
        }
        if cursor.seq < self.floor { Err(Missed::Gone) } else { Ok(cursor.seq) }
    }

    /// The last event of the owner at `at`; what it appended beyond did not survive.
    fn last_of(&self, at: usize) -> u64 {
        self.epochs.get(at + 1).map_or(self.last, |(_, from)| from - 1)
    }

    /// What comes after event `after`. A reader goes on with the item's `seq`.
    pub fn next(&self, after: u64, shape: Shape) -> Result<Next<'_>, Missed> {
        if after > self.last {
            return Err(Missed::Beyond);
        }
        if after < self.floor {
            return Err(Missed::Gone);
        }
        let seq = after + 1;
        let at = self.entries.partition_point(|entry| entry.last() < seq);
        Ok(match (self.entries.get(at), shape) {
            (Some(entry), Shape::AsItCame) => Next::Item(entry.item(seq, seq)),
            (Some(entry), Shape::Merged) => Next::Item(entry.item(seq, entry.last())),
            (Some(entry), Shape::MergedTo(to)) => Next::Item(entry.item(seq, entry.last().min(to.max(seq)))),
            (None, _) => self.end.map_or(Next::Wait, Next::Done),
        })
    }

    /// The part of the log from event `from` on.
    pub(crate) fn entries_from(&self, from: u64) -> impl Iterator<Item = &Entry> {
        let at = self.entries.partition_point(|entry| entry.last() < from);
        self.entries.range(at..)
    }

    pub(crate) fn epochs(&self) -> &[(Epoch, u64)] {
        &self.epochs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_base::{IdSource, Prng};

    fn journal(limit: usize) -> Journal {
        Journal::new(IdSource::new(Prng::new(5), 0).stream(), limit)
    }

    fn delta(text: &str) -> Vec<u8> {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
        )
        .into_bytes()
    }

    fn other(len: usize) -> Vec<u8> {
        format!("event: other\ndata: {{\"type\":\"other\",\"x\":\"{}\"}}\n\n", "x".repeat(len)).into_bytes()
    }

    /// The events from `after` on, as texts with their ranges.
    fn read(journal: &Journal, mut after: u64, shape: Shape) -> Vec<(u64, u64, String)> {
        let mut out = Vec::new();
        while let Next::Item(item) = journal.next(after, shape).unwrap() {
            let mut event = Vec::new();
            item.write_event(&mut event);
            assert_eq!(event.len(), item.event_bytes());
            out.push((item.first_seq, item.seq, String::from_utf8(event).unwrap()));
            after = item.seq;
        }
        out
    }

    #[test]
    fn a_cursor_inside_a_run_gets_what_comes_after_it() {
        let mut journal = journal(1 << 20);
        for text in ["a", "\\ud83d", "\\ude00", "d"] {
            journal.append(Epoch::FIRST, Kind::BlockDelta, &delta(text)).unwrap();
        }
        let whole = |text: &str| String::from_utf8(delta(text)).unwrap();
        assert_eq!(read(&journal, 0, Shape::Merged), [(1, 4, whole("a\\ud83d\\ude00d"))]);
        assert_eq!(read(&journal, 2, Shape::Merged), [(3, 4, whole("\\ude00d"))]);
        assert_eq!(read(&journal, 3, Shape::AsItCame), [(4, 4, whole("d"))]);
        assert_eq!(read(&journal, 0, Shape::MergedTo(1)).len(), 4, "what is past the border comes singly");
        let Next::Item(item) = journal.next(0, Shape::MergedTo(3)).unwrap() else { panic!("nothing") };
        assert_eq!((item.first_seq, item.seq), (1, 3));
        let Next::Item(item) = journal.next(1, Shape::Merged).unwrap() else { panic!("nothing") };
        assert_eq!(
            item.data().as_ref(),
            br#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\ud83d\ude00d"}}"#
        );
    }

    #[test]
    fn memory_is_counted_as_it_is_and_stays_within_the_limit() {
        for seed in 0..50 {
            let mut dice = Prng::new(seed);
            let mut journal = journal(dice.between(0, 40_000) as usize);
            let mut shed = false;
            for _ in 0..2_000 {
                let event = match dice.below(20) {
                    0 => (Kind::Other, other(dice.below(2_000) as usize)),
                    1 => (Kind::BlockDelta, delta(&"y".repeat(dice.below(4_000) as usize))),
                    _ => (Kind::BlockDelta, delta(&"z".repeat(dice.below(9) as usize))),
                };
                journal.append(Epoch::FIRST, event.0, &event.1).unwrap();
                if dice.chance(0.001) {
                    journal.set_limit(dice.below(20_000) as usize);
                }
                assert_eq!(journal.bytes(), journal.entries.iter().map(Entry::bytes).sum::<usize>());
                assert!(journal.bytes() <= journal.limit, "{} > {}", journal.bytes(), journal.limit);
                assert!(
                    journal.entries.capacity() * size_of::<Entry>() <= (journal.entries.len() + 16) * 2 * ENTRY_BYTES
                );
                shed |= journal.floor() > 0;
            }
            assert!(shed);
        }
    }

    #[test]
    fn small_deltas_cost_little_more_than_their_text() {
        let mut journal = journal(1 << 20);
        for _ in 0..10_000 {
            journal.append(Epoch::FIRST, Kind::BlockDelta, &delta("four ")).unwrap();
        }
        assert_eq!(journal.floor(), 0);
        assert!(journal.bytes() < 2 * 10_000 * 9, "{}", journal.bytes());
    }

    #[test]
    fn an_event_that_would_never_fit_is_refused_and_changes_nothing() {
        let mut journal = journal(LIMIT_BYTES_MIN);
        journal.append(Epoch::FIRST, Kind::Other, &other(10)).unwrap();
        let before = journal.bytes();
        assert_eq!(journal.append(Epoch::FIRST, Kind::Other, &other(LIMIT_BYTES_MIN)), Err(Refused::TooLarge));
        assert_eq!((journal.last(), journal.bytes(), journal.floor()), (1, before, 0));
    }

    #[test]
    fn a_smaller_limit_lets_go_at_once_even_of_the_newest() {
        let mut journal = journal(1 << 20);
        for _ in 0..9_000 {
            journal.append(Epoch::FIRST, Kind::BlockDelta, &delta("xyz")).unwrap();
        }
        journal.set_limit(0);
        assert!(journal.bytes() <= LIMIT_BYTES_MIN);
        assert_eq!((journal.floor(), journal.next(9_000, Shape::Merged)), (9_000, Ok(Next::Wait)));
        assert_eq!(journal.next(8_999, Shape::Merged), Err(Missed::Gone));
    }

    #[test]
    fn pings_have_no_number_and_the_end_is_the_end() {
        let mut journal = journal(1 << 20);
        assert_eq!(journal.append(Epoch::FIRST, Kind::Ping, b"event: ping\ndata: {}\n\n"), Ok(0));
        assert_eq!(journal.append(Epoch::FIRST, Kind::Comment, b": x\n\n"), Ok(0));
        assert_eq!(journal.cancel(Epoch::FIRST, &other(1)), Ok(1));
        let refused = Err(Refused::Ended(End::Cancelled));
        assert_eq!(journal.append(Epoch::FIRST, Kind::MessageStop, &other(1)), refused);
        assert_eq!(journal.append(Epoch::FIRST, Kind::Ping, b": x\n\n"), refused);
        assert_eq!(journal.next(1, Shape::AsItCame), Ok(Next::Done(End::Cancelled)));
    }

    #[test]
    fn owners_are_numbered_and_only_so_many() {
        let mut journal = journal(1 << 20);
        let owners = std::iter::from_fn(|| journal.fence()).count();
        assert_eq!(owners, EPOCHS_MAX - 1);
        assert_eq!(journal.append(Epoch::FIRST, Kind::Other, &other(1)), Err(Refused::Fenced));
        assert_eq!(journal.append(journal.epoch(), Kind::Other, &other(1)), Ok(1));
    }
}
