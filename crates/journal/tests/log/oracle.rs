//! What is true of a reply, kept in the simplest way there is: every event in a list.

use crate::script::Said;
use std::collections::BTreeMap;
use tidegate_base::StreamId;
use tidegate_journal::{Cursor, End, Epoch, Missed};
use tidegate_wire::event::Kind;

/// What a run of many seeds has to have met.
pub(crate) const SIGHTS: [&str; 16] = [
    "anywhere",
    "beyond",
    "checkpoint",
    "crash",
    "done",
    "fenced",
    "first epoch",
    "gone",
    "merged",
    "other epoch",
    "other stream",
    "ping",
    "shed",
    "wait",
    "whole",
    "lost to a crash",
];

/// How often each was met.
#[derive(Debug, Default)]
pub(crate) struct Tally(pub(crate) BTreeMap<&'static str, u64>);

impl Tally {
    pub(crate) fn saw(&mut self, what: &'static str) {
        assert!(SIGHTS.contains(&what), "{what}");
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn saw_if(&mut self, what: &'static str, is: bool) {
        if is {
            self.saw(what);
        }
    }
}

/// The epoch after `epoch`, spelt as a client could.
pub(crate) fn after(epoch: Epoch, stream: StreamId) -> Epoch {
    let text = Cursor { stream, epoch, seq: 0 }.to_string();
    let number = u32::from_str_radix(&text[27..35], 16).unwrap();
    Cursor::parse(&format!("{stream}:{:08x}-{:016x}", number + 1, 0)).unwrap().epoch
}

struct Event {
    said: Said,
    epoch: Epoch,
}

/// Every event, and who was the owner when.
pub(crate) struct Oracle {
    events: Vec<Event>,
    owner: Epoch,
    floor: u64,
    roomy: bool,
    pub(crate) checkpointed: u64,
}

impl Oracle {
    /// `roomy`: the journal's limit is never reached.
    pub(crate) fn new(roomy: bool) -> Self {
        let owner = Epoch::FIRST;
        Oracle { events: Vec::new(), owner, floor: 0, roomy, checkpointed: 0 }
    }

    pub(crate) fn add(&mut self, said: &Said, epoch: Epoch) {
        assert_eq!(epoch, self.owner);
        assert_eq!(self.end(), None, "S4: nothing after the end");
        self.events.push(Event { said: said.clone(), epoch });
    }

    pub(crate) fn owner(&mut self, epoch: Epoch) {
        assert!(epoch > self.owner);
        self.owner = epoch;
    }

    pub(crate) fn last(&self) -> u64 {
        self.events.len() as u64
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.events.last().and_then(|event| event.said.end)
    }

    /// Told where the journal begins now: it never goes back, nor anywhere for want of room if there
    /// is room.
    pub(crate) fn floor(&mut self, floor: u64) {
        assert!(floor >= self.floor && floor <= self.last());
        assert!(!self.roomy || floor == 0, "gone although there was room");
        self.floor = floor;
    }

    pub(crate) fn floor_after_crash(&mut self, floor: u64) {
        self.floor = 0;
        self.floor(floor);
    }

    /// What was not checkpointed is forgotten. A reply that had ended needs no new owner.
    pub(crate) fn crash(&mut self, epoch: Epoch) {
        self.events.truncate(self.checkpointed as usize);
        match self.end() {
            Some(_) => assert_eq!(epoch, self.owner),
            None => self.owner(epoch),
        }
    }

    /// What a journal has to say to `cursor`, one of this stream.
    pub(crate) fn expects(&self, cursor: &Cursor) -> Result<u64, Missed> {
        let given = match cursor.seq {
            0 => cursor.epoch == Epoch::FIRST,
            seq => self.events.get(seq as usize - 1).is_some_and(|event| event.epoch == cursor.epoch),
        };
        if given {
            return if cursor.seq < self.floor { Err(Missed::Gone) } else { Ok(cursor.seq) };
        }
        let newest = cursor.epoch == self.owner;
        match cursor.epoch > self.owner {
            true => Err(Missed::OtherEpoch),
            false if cursor.seq > self.last() && newest => Err(Missed::Beyond),
            // Beyond what is left of an owner that is no more.
            false if !newest && self.last_of(cursor.epoch) < cursor.seq => Err(Missed::Gone),
            false => Err(Missed::OtherEpoch),
        }
    }

    /// The last event up to which `epoch` or one before it wrote.
    fn last_of(&self, epoch: Epoch) -> u64 {
        self.events.iter().filter(|event| event.epoch <= epoch).count() as u64
    }

    /// One thing a reader got, being at `after`: the events `first` to `last`, as one.
    pub(crate) fn check(&self, after: u64, first: u64, last: u64, event: &[u8], data: &[u8]) {
        assert_eq!(first, after + 1, "ranges are contiguous");
        let range = &self.events[first as usize - 1..last as usize];
        let text = String::from_utf8(event.to_vec()).unwrap();
        assert!(text.ends_with("\n\n") && text.contains(&*String::from_utf8_lossy(data)));
        if let [one] = range {
            assert_eq!(text.as_bytes(), one.said.event, "S1: as it was appended");
            return;
        }
        let (block, field) = range[0].said.delta.clone().map(|(block, field, _)| (block, field)).unwrap();
        let mut whole = String::new();
        for event in range {
            let (b, f, text) = event.said.delta.clone().expect("only deltas are merged");
            assert_eq!((b, &f, event.said.kind), (block, &field, Kind::BlockDelta), "not across a border");
            whole.push_str(&text);
        }
        let head = format!("event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{block},");
        let tail = format!("\"{field}\":\"{whole}\"}}}}\n\n");
        assert!(text.starts_with(&head) && text.ends_with(&tail), "{text}");
        assert_eq!(text.matches("\"delta\"").count(), 1);
    }
}
