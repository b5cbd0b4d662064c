//! A journal as bytes, for streams that outlive their process (`docs/formats/journal.md`).
//!
//! A checkpoint is a segment: the events since the last one, with who owned the journal until now.
//! A journal is restored from the segments of its stream, in the order they were written. What
//! cannot be read is passed over; where events are missing, everything before is gone. A later
//! owner's segment overrules what an earlier one wrote from its first event on, and an earlier
//! owner's that comes after it counts for nothing (S5).
//!
//! Restoring a reply that has not ended makes a new owner, whose claim, a segment without events, is
//! to be written before it appends anything. Without that the next process could take the same epoch
//! for itself, and give its own events to a reader who asks for what came after this one's.
//!
//! The caller writes a segment whole or not at all, as a transaction does; the checksum is for what
//! disks do. Sizes are read before anything of that size is made.

use crate::cursor::Epoch;
use crate::entry::{Entry, Index};
use crate::journal::{EPOCHS_MAX, End, Journal};
use tidegate_base::StreamId;
use tidegate_wire::event::{Kind, OPENINGS, PlainDelta};

const MAGIC: &[u8; 4] = b"TGJL";
const VERSION: u16 = 1;
const RUN: u8 = 1;
const WHOLE: u8 = 2;
/// What a kind is called in a file: its place here. Only ever added to.
const KINDS: [Kind; 8] = [
    Kind::MessageStart,
    Kind::BlockStart,
    Kind::BlockDelta,
    Kind::BlockStop,
    Kind::MessageDelta,
    Kind::MessageStop,
    Kind::Error,
    Kind::Other,
];
/// The same of ends; 0 is none.
const ENDS: [End; 3] = [End::Stopped, End::Error, End::Cancelled];

/// Why there is no journal to go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// No segment of the stream can be read.
    Nothing,
    /// It had as many owners as one may have.
    TooManyOwners,
}

/// A journal that is back.
#[derive(Debug)]
pub struct Restored {
    /// The journal; its owner is whoever restored it.
    pub journal: Journal,
    /// What to write before anything is appended; nothing if the reply has ended.
    pub claim: Option<Vec<u8>>,
    /// How many segments could not be read.
    pub unreadable: usize,
}

/// A segment's head, for whoever stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment<'b> {
    /// The stream.
    pub stream: StreamId,
    /// Who wrote it.
    pub epoch: Epoch,
    /// Its first event.
    pub first: u64,
    /// Its last event; the one before the first in a claim.
    pub last: u64,
    /// How the reply ended, if it did with the last event.
    pub end: Option<End>,
    epochs: Vec<(Epoch, u64)>,
    records: &'b [u8],
}

impl Journal {
    /// The events after `after` as a segment, with how far it goes; `None` if there are none. Events
    /// that are gone already are not in it.
    pub fn checkpoint(&self, after: u64) -> Option<(u64, Vec<u8>)> {
        let first = after.max(self.floor()) + 1;
        (first <= self.last()).then(|| (self.last(), self.segment(first)))
    }

    /// What makes the owner known to whoever restores the journal: the events after `after` as a
    /// segment, be it of none.
    pub fn claim(&self, after: u64) -> Vec<u8> {
        self.segment(after.clamp(self.floor(), self.last()) + 1)
    }

    fn segment(&self, first: u64) -> Vec<u8> {
        let end = self.end().filter(|_| first <= self.last());
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(end.and_then(|end| ENDS.iter().position(|e| *e == end)).map_or(0, |at| at as u8 + 1));
        out.push(self.epochs().len() as u8);
        out.extend_from_slice(self.stream().as_str().as_bytes());
        out.extend_from_slice(&first.to_le_bytes());
        out.extend_from_slice(&self.last().to_le_bytes());
        for (epoch, from) in self.epochs() {
            out.extend_from_slice(&epoch.number().to_le_bytes());
            out.extend_from_slice(&from.to_le_bytes());
        }
        self.entries_from(first).for_each(|entry| write(entry, first, &mut out));
        let sum = checksum(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// The journal of `stream` from its segments, oldest first, with at most `limit` bytes.
    pub fn restore<'b>(
        stream: StreamId,
        limit: usize,
        segments: impl IntoIterator<Item = &'b [u8]>,
    ) -> Result<Restored, Lost> {
        let mut unreadable = 0;
        let mut kept: Vec<Segment<'b>> = Vec::new();
        for bytes in segments {
            match Segment::read(bytes).filter(|segment| segment.stream == stream) {
                None => unreadable += 1,
                Some(segment) if kept.iter().any(|earlier| earlier.epoch > segment.epoch) => {}
                Some(segment) => kept.push(segment),
            }
        }
        let newest = kept.last().ok_or(Lost::Nothing)?;
        let mut journal = Journal::after(kept[0].first - 1, stream, limit, newest.epochs.clone());
        for (at, segment) in kept.iter().enumerate() {
            // Later owners began before this segment's end: they never had what comes after.
            let overruled = kept[at + 1..].iter().filter(|later| later.epoch > segment.epoch);
            let upto = overruled.map(|later| later.first - 1).min().unwrap_or(u64::MAX);
            if upto < segment.first {
                continue;
            }
            if segment.first > journal.last() + 1 {
                journal = Journal::after(segment.first - 1, stream, limit, newest.epochs.clone());
            }
            segment.replay(&mut journal, upto);
        }
        let claim = match journal.end() {
            Some(_) => None,
            None => journal.fence().map(|_| Some(journal.claim(journal.last()))).ok_or(Lost::TooManyOwners)?,
        };
        Ok(Restored { journal, claim, unreadable })
    }
}

fn write(entry: &Entry, first: u64, out: &mut Vec<u8>) {
    match entry {
        Entry::Run(run) => {
            let skipped = first.saturating_sub(run.first) as usize;
            let begin = skipped.checked_sub(1).map_or(0, |at| run.ends[at]);
            let opening = OPENINGS.iter().position(|opening| *opening == run.opening).unwrap_or(0);
            out.extend_from_slice(&[RUN, opening as u8, run.index.text().len() as u8]);
            out.extend_from_slice(run.index.text());
            out.extend_from_slice(&((run.ends.len() - skipped) as u32).to_le_bytes());
            run.ends[skipped..].iter().for_each(|end| out.extend_from_slice(&(end - begin).to_le_bytes()));
            out.extend_from_slice(&run.text[begin as usize..]);
        }
        Entry::Whole { kind, event, .. } => {
            let kind = KINDS.iter().position(|k| k == kind).unwrap_or(KINDS.len() - 1);
            out.extend_from_slice(&[WHOLE, kind as u8]);
            out.extend_from_slice(&(event.len() as u32).to_le_bytes());
            out.extend_from_slice(event);
        }
    }
}

/// FNV-1a, 64 bits: against what a disk does, not against an enemy.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, b| (sum ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// Bytes being read from the front.
struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
}

impl<'b> Segment<'b> {
    /// Reads a segment; `None` if it is none, of a newer version, or not as it was written.
    pub fn read(bytes: &'b [u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<8>()?;
        if checksum(body) != u64::from_le_bytes(*sum) {
            return None;
        }
        let mut input = Input(body);
        if input.take(4)? != MAGIC || input.take(2)? != VERSION.to_le_bytes() {
            return None;
        }
        let (end, owners) = (input.byte()?, usize::from(input.byte()?));
        let end = end.checked_sub(1).map(|at| ENDS.get(usize::from(at)).copied().ok_or(())).transpose().ok()?;
        let stream = StreamId::parse(std::str::from_utf8(input.take(26)?).ok()?)?;
        let (first, last) = (input.u64()?, input.u64().filter(|last| *last < u64::MAX / 2)?);
        let epochs: Option<Vec<_>> = (0..owners.min(EPOCHS_MAX + 1))
            .map(|_| Some((input.u32().and_then(Epoch::of)?, input.u64().filter(|from| *from > 0)?)))
            .collect();
        let epochs = epochs.filter(|list| list.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1))?;
        let epoch = epochs.last()?.0;
        let whole = first > 0 && last + 1 >= first && owners <= EPOCHS_MAX;
        let segment = Segment { stream, epoch, first, last, end, epochs, records: input.0 };
        (whole && segment.counts()).then_some(segment)
    }

    /// Whether its records are as many events as it says, to the last byte.
    fn counts(&self) -> bool {
        let mut events = 0;
        let whole = self.each(|_, _| {
            events += 1;
            true
        });
        whole && events == self.last + 1 - self.first
    }

    /// Calls `see` with each event until it says no; false if a record makes no sense.
    fn each(&self, mut see: impl FnMut(Kind, &[u8]) -> bool) -> bool {
        let mut input = Input(self.records);
        while !input.0.is_empty() {
            match record(&mut input, &mut see) {
                Some(true) => {}
                Some(false) => return true,
                None => return false,
            }
        }
        true
    }

    /// Appends its events up to `upto` that are not there yet. They were within a limit when they
    /// were appended first; one that is too large for this one's ends what can be had.
    fn replay(&self, journal: &mut Journal, upto: u64) {
        let mut seq = self.first;
        self.each(|kind, event| {
            let end = self.end.filter(|_| seq == self.last);
            let wanted =
                seq <= upto && (seq <= journal.last() || journal.record(journal.epoch(), kind, event, end).is_ok());
            seq += 1;
            wanted
        });
    }
}

/// Reads one record: a whole event, or a run of deltas.
fn record(input: &mut Input<'_>, see: &mut impl FnMut(Kind, &[u8]) -> bool) -> Option<bool> {
    match input.byte()? {
        WHOLE => {
            let kind = *KINDS.get(usize::from(input.byte()?))?;
            let len = input.u32()?;
            Some(see(kind, input.take(len as usize)?))
        }
        RUN => {
            let opening = OPENINGS.get(usize::from(input.byte()?))?;
            let digits = input.byte()?;
            let index = Index::of(input.take(usize::from(digits))?)?;
            let count = input.u32()?;
            let ends = input.take(usize::try_from(count).ok()?.checked_mul(4)?)?;
            let ends: Vec<usize> = ends.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b) as usize).collect();
            let text = input.take(*ends.last()?)?;
            let mut from = 0;
            for to in ends {
                let text = text.get(from..to)?;
                let event = PlainDelta { index: index.text(), opening, text }.event().concat();
                if !see(Kind::BlockDelta, &event) {
                    return Some(false);
                }
                from = to;
            }
            Some(true)
        }
        _ => None,
    }
}
