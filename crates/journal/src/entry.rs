//! What a journal holds: runs of deltas, and other events whole.
//!
//! Nearly every event is a delta in the one shape the API writes, most of it the same for all deltas
//! of a block: 120 bytes around a word. Of a run of such deltas only the texts are kept, one after
//! the other, and where each ends. That loses nothing: any one of them can be written again byte for
//! byte, and any number of neighbours as one delta that says the same. So an entry never changes,
//! a reader who lags needs no copy of its own, and a cursor may point into the middle of a run.

use bytes::BufMut;
use std::borrow::Cow;
use tidegate_wire::event::{Kind, PlainDelta};
use tidegate_wire::sse;

/// A run does not grow past this, so that a reader that comes back gets text in pieces.
pub(crate) const RUN_BYTES_MAX: usize = 64 * 1024;
/// What a place in the list costs: the list doubles when it is full, so at worst half of it is free.
pub(crate) const ENTRY_BYTES: usize = 2 * size_of::<Entry>();

/// Digits of a block's index, as they stood; no stream has a million blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    digits: [u8; 6],
    len: u8,
}

impl Index {
    pub(crate) fn of(text: &[u8]) -> Option<Self> {
        let mut digits = [0; 6];
        digits.get_mut(..text.len())?.copy_from_slice(text);
        Some(Index { digits, len: text.len() as u8 })
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.digits[..usize::from(self.len)]
    }
}

/// Deltas of one kind in one block, without anything between them.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) index: Index,
    pub(crate) opening: &'static [u8],
    pub(crate) text: Vec<u8>,
    /// Where each delta's text ends.
    pub(crate) ends: Vec<u32>,
}

/// Part of the log.
#[derive(Debug)]
pub(crate) enum Entry {
    Run(Run),
    Whole { seq: u64, kind: Kind, event: Box<[u8]> },
}

impl Run {
    pub(crate) fn begin(first: u64, delta: &PlainDelta<'_>) -> Option<Self> {
        let index = Index::of(delta.index)?;
        let end = u32::try_from(delta.text.len()).ok()?;
        Some(Run { first, index, opening: delta.opening, text: delta.text.to_vec(), ends: vec![end] })
    }

    /// Takes `delta` in, if it goes on where this run ends and the run stays within `bytes_max`.
    pub(crate) fn push(&mut self, delta: &PlainDelta<'_>, bytes_max: usize) -> bool {
        let bytes = self.text.len() + delta.text.len() + 4 * (self.ends.len() + 1);
        if self.index.text() != delta.index || self.opening != delta.opening || bytes > bytes_max {
            return false;
        }
        self.text.extend_from_slice(delta.text);
        self.ends.push(self.text.len() as u32);
        true
    }

    /// The deltas `from` to `to`, numbers of events, as one.
    fn delta(&self, from: u64, to: u64) -> PlainDelta<'_> {
        let end = |seq: u64| seq.checked_sub(self.first).map_or(0, |at| self.ends[at as usize] as usize);
        let begin = from.checked_sub(1).map_or(0, end);
        PlainDelta { index: self.index.text(), opening: self.opening, text: &self.text[begin..end(to)] }
    }
}

impl Entry {
    pub(crate) fn last(&self) -> u64 {
        match self {
            Entry::Run(run) => run.first + run.ends.len() as u64 - 1,
            Entry::Whole { seq, .. } => *seq,
        }
    }

    /// What it holds of memory.
    pub(crate) fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Entry::Run(run) => run.text.capacity() + 4 * run.ends.capacity(),
                Entry::Whole { event, .. } => event.len(),
            }
    }

    /// Nothing is added any more: gives back what was reserved for that.
    pub(crate) fn close(&mut self) {
        if let Entry::Run(run) = self {
            run.text.shrink_to_fit();
            run.ends.shrink_to_fit();
        }
    }

    /// The events `from` to `to`, which are here, as one.
    pub(crate) fn item(&self, from: u64, to: u64) -> Item<'_> {
        match self {
            Entry::Run(run) => {
                Item { first_seq: from, seq: to, kind: Kind::BlockDelta, body: Body::Delta(run.delta(from, to)) }
            }
            Entry::Whole { seq, kind, event } => {
                Item { first_seq: *seq, seq: *seq, kind: *kind, body: Body::Whole(event) }
            }
        }
    }
}

/// What a reader gets at once: an event as it came, or one delta that stands for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'j> {
    /// The first event it stands for.
    pub first_seq: u64,
    /// The last one, the reader's place from now on.
    pub seq: u64,
    /// The event's kind.
    pub kind: Kind,
    body: Body<'j>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body<'j> {
    Whole(&'j [u8]),
    Delta(PlainDelta<'j>),
}

impl<'j> Item<'j> {
    /// How long the event is.
    pub fn event_bytes(&self) -> usize {
        match &self.body {
            Body::Whole(event) => event.len(),
            Body::Delta(delta) => delta.event().iter().map(|part| part.len()).sum(),
        }
    }

    /// Writes the Server-Sent Event, blank line included.
    pub fn write_event(&self, out: &mut impl BufMut) {
        match &self.body {
            Body::Whole(event) => out.put_slice(event),
            Body::Delta(delta) => delta.event().iter().for_each(|part| out.put_slice(part)),
        }
    }

    /// The event's data: JSON, as it came.
    pub fn data(&self) -> Cow<'j, [u8]> {
        match &self.body {
            Body::Whole(event) => sse::parts(event).data.unwrap_or_default(),
            Body::Delta(delta) => {
                let event = delta.event().concat();
                Cow::Owned(sse::parts(&event).data.unwrap_or_default().into_owned())
            }
        }
    }
}
