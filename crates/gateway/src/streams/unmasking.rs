//! A log's masked events on their way to a reader who may see what was masked.
//!
//! A place in a log is handed out as a cursor only where nothing is held back: whoever comes back there
//! gets what follows, and nothing twice. So an event of which something is held back is not shown in
//! part; it waits for those that complete it and is shown with them, as one that stands for all.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use tidegate_journal::Item;
use tidegate_redact::restore::{Live, StreamRestorer};
use tidegate_wire::event::{Kind, plain_delta};
use tidegate_wire::{merge, sse};

/// What a reader is shown: an event as it came, or as it is for this reader.
pub(crate) struct Shown<'e> {
    pub(crate) kind: Kind,
    /// The events of the log that it stands for.
    pub(crate) first_seq: u64,
    pub(crate) seq: u64,
    event: Event<'e>,
}

enum Event<'e> {
    Item(&'e Item<'e>),
    Restored(&'e [u8]),
}

impl<'e> Shown<'e> {
    pub(super) fn item(item: &'e Item<'e>) -> Self {
        Shown { kind: item.kind, first_seq: item.first_seq, seq: item.seq, event: Event::Item(item) }
    }

    /// The event's data: JSON.
    pub(crate) fn data(&self) -> Cow<'e, [u8]> {
        match &self.event {
            Event::Item(item) => item.data(),
            Event::Restored(event) => sse::parts(event).data.unwrap_or_default(),
        }
    }

    /// Writes the Server-Sent Event, blank line included.
    pub(crate) fn write_event(&self, out: &mut Vec<u8>) {
        match &self.event {
            Event::Item(item) => item.write_event(out),
            Event::Restored(event) => out.extend_from_slice(event),
        }
    }
}

/// An event that is ready to be shown.
pub(super) struct Ready {
    pub(super) kind: Kind,
    first_seq: u64,
    pub(super) seq: u64,
    event: Vec<u8>,
}

impl Ready {
    pub(super) fn shown(&self) -> Shown<'_> {
        let Ready { kind, first_seq, seq, event } = self;
        Shown { kind: *kind, first_seq: *first_seq, seq: *seq, event: Event::Restored(event) }
    }
}

/// Restores one log for one reader.
pub(super) struct Unmasking {
    stream: StreamRestorer,
    /// What came out since nothing was held back, and the first event that it stands for.
    out: Vec<u8>,
    first_seq: Option<u64>,
    ready: VecDeque<Ready>,
}

impl Unmasking {
    /// For a reader that begins after the events `before`, the last two that it has, or at the log's
    /// beginning.
    pub(super) fn new<'j>(live: &Arc<Live>, before: impl Iterator<Item = Item<'j>>) -> Self {
        let mut stream = StreamRestorer::new(Arc::clone(live));
        for item in before {
            let mut event = Vec::with_capacity(item.event_bytes());
            item.write_event(&mut event);
            stream.comes_after(&event);
        }
        Unmasking { stream, out: Vec::new(), first_seq: None, ready: VecDeque::new() }
    }

    /// Whether something is held back.
    pub(super) fn holds(&self) -> bool {
        self.first_seq.is_some()
    }

    /// What is ready to be shown.
    pub(super) fn next(&mut self) -> Option<Ready> {
        self.ready.pop_front()
    }

    /// The next to be shown.
    pub(super) fn peek(&self) -> Option<&Ready> {
        self.ready.front()
    }

    /// Takes the next event of the log.
    pub(super) fn take(&mut self, item: &Item<'_>) {
        // It only says that the line is alive, and the reader is waiting for what completes the one before.
        if self.holds() && item.kind == Kind::Ping {
            return;
        }
        let mut event = Vec::with_capacity(item.event_bytes());
        item.write_event(&mut event);
        self.stream.event(&event, &mut self.out);
        let first_seq = *self.first_seq.get_or_insert(item.first_seq);
        if self.stream.held() > 0 {
            return;
        }
        self.first_seq = None;
        let out = std::mem::take(&mut self.out);
        if first_seq == item.first_seq {
            let ready = Ready { kind: item.kind, first_seq, seq: item.seq, event: out };
            return self.ready.push_back(ready);
        }
        let mut events = Vec::new();
        // What was let through whole is whole, and no larger than the log.
        let _ = sse::Splitter::new().feed(&merge::merge(&out), |event| events.push(event.to_vec()));
        let last = events.len().saturating_sub(1);
        for (nth, event) in events.into_iter().enumerate() {
            // The last one stands for the event that completed it all, if there are others before it.
            let (kind, first_seq, seq) = match (nth == last, last) {
                (true, 0) => (item.kind, first_seq, item.seq),
                (true, _) => (item.kind, item.first_seq, item.seq),
                (false, _) => (Kind::BlockDelta, first_seq, item.first_seq - 1),
            };
            let kind = if plain_delta(&event).is_some() { Kind::BlockDelta } else { kind };
            self.ready.push_back(Ready { kind, first_seq, seq, event });
        }
    }
}
