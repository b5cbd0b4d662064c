//! A journal against an oracle that was written apart from it.
//!
//! A seed is a reply of random blocks, appended event by event while readers read in either shape,
//! leave, and come back with cursors old, new and made up; checkpoints are taken and processes die.
//! The oracle (`oracle.rs`) keeps every event as it was made and knows nothing of runs or limits.
//! What must hold is S1 to S5 (`crates/journal/src/journal.rs`), that what anybody reads is what was
//! written, and that a cursor is answered in one way only.
//!
//! `TIDEGATE_JOURNALS` says how many seeds (400), `TIDEGATE_JOURNALS_FROM` from which on.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

mod oracle;
mod script;
mod segments;

use oracle::{Oracle, Tally};
use script::{Reply, Said};
use tidegate_base::{IdSource, Prng, StreamId};
use tidegate_journal::{Cursor, End, Epoch, Journal, Lost, Missed, Next, Refused, Shape};
use tidegate_wire::event::Kind;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn whatever_readers_and_processes_do_a_reply_is_read_as_it_was_written() {
    let (from, count) = (number("TIDEGATE_JOURNALS_FROM", 0), number("TIDEGATE_JOURNALS", 400));
    let mut tally = Tally::default();
    for seed in from..from + count {
        let run = std::panic::AssertUnwindSafe(|| run(seed, &mut tally));
        if std::panic::catch_unwind(run).is_err() {
            panic!("seed {seed}; again with TIDEGATE_JOURNALS_FROM={seed} TIDEGATE_JOURNALS=1");
        }
    }
    println!("{count} replies from seed {from}: {tally:?}");
    // What did not happen was not shown.
    let seen = tally.0.len();
    assert!(count < 400 || seen == oracle::SIGHTS.len(), "only {seen} of {:?} in {tally:?}", oracle::SIGHTS);
}

/// A reader: what it has, and nothing else.
struct Reader {
    cursor: Cursor,
}

struct Scene<'t> {
    dice: Prng,
    stream: StreamId,
    limit: usize,
    journal: Journal,
    oracle: Oracle,
    readers: Vec<Reader>,
    segments: Vec<Vec<u8>>,
    tally: &'t mut Tally,
}

fn run(seed: u64, tally: &mut Tally) {
    let mut dice = Prng::new(seed).fork("journal");
    let stream = IdSource::new(dice.fork("ids"), 7).stream();
    let limit = if dice.chance(0.3) { dice.between(8_192, 30_000) as usize } else { 4 << 20 };
    let journal = Journal::new(stream, limit);
    let readers = (0..4).map(|_| Reader { cursor: journal.cursor(0) }).collect();
    let oracle = Oracle::new(limit > 1 << 20);
    let mut scene = Scene { stream, limit, journal, oracle, readers, segments: Vec::new(), tally, dice };
    let mut reply = Reply::new(scene.dice.fork("reply"));
    while let Some(said) = reply.next() {
        scene.say(&said);
        scene.meanwhile();
        if scene.dice.chance(0.004) {
            let kept = scene.crash();
            reply.go_back(kept, scene.dice.next_u64());
        }
    }
    scene.finish(&reply);
}

impl Scene<'_> {
    fn say(&mut self, said: &Said) {
        let epoch = self.journal.epoch();
        let last = self.journal.last();
        let appended = match said.end {
            Some(End::Cancelled) => self.journal.cancel(epoch, &said.event),
            _ => self.journal.append(epoch, said.kind, &said.event),
        };
        let counted = !matches!(said.kind, Kind::Ping | Kind::Comment);
        assert_eq!(appended, Ok(last + u64::from(counted)), "S1: numbers are dense");
        if counted {
            self.oracle.add(said, self.journal.epoch());
        }
        self.tally.saw_if("ping", !counted);
        assert!(self.journal.bytes() <= self.limit);
        self.oracle.floor(self.journal.floor());
        if self.dice.chance(0.01) {
            self.strangers();
        }
    }

    /// S5, and S4: whoever is not the owner changes nothing, and after the end nobody does.
    fn strangers(&mut self) {
        let (last, bytes) = (self.journal.last(), self.journal.bytes());
        let epoch = self.journal.epoch();
        if self.dice.chance(0.5) && self.journal.fence().is_some() {
            self.oracle.owner(self.journal.epoch());
            self.segments.push(self.journal.claim(self.oracle.checkpointed));
            self.oracle.checkpointed = last;
            let event = b"event: error\ndata: {\"type\":\"error\"}\n\n";
            assert_eq!(self.journal.append(epoch, Kind::Error, event), Err(Refused::Fenced));
            assert_eq!(self.journal.cancel(epoch, event), Err(Refused::Fenced));
            self.tally.saw("fenced");
        }
        assert_eq!((self.journal.last(), self.journal.bytes()), (last, bytes));
    }

    fn meanwhile(&mut self) {
        for reader in 0..self.readers.len() {
            // The first one keeps up, the last one hardly ever looks.
            if self.dice.chance([1.0, 0.3, 0.05, 0.01][reader]) {
                let most = self.dice.between(1, 30);
                self.read(reader, most);
            }
        }
        if self.dice.chance(0.05) {
            self.come_back_anywhere();
        }
        if self.dice.chance(0.03) {
            self.checkpoint();
        }
    }

    /// Comes back with its cursor, as text, and reads some.
    fn read(&mut self, reader: usize, most: u64) {
        let cursor = Cursor::parse(&self.readers[reader].cursor.to_string()).unwrap();
        let located = self.journal.locate(&cursor);
        assert_eq!(located, self.oracle.expects(&cursor), "{cursor}");
        let Ok(mut after) = located else {
            assert_eq!(located, Err(Missed::Gone));
            self.tally.saw(if cursor.seq < self.journal.floor() { "gone" } else { "lost to a crash" });
            self.readers[reader].cursor = self.journal.cursor(self.journal.floor());
            return;
        };
        for _ in 0..most {
            let shape = if self.dice.chance(0.5) { Shape::Merged } else { Shape::AsItCame };
            match self.journal.next(after, shape).unwrap() {
                Next::Item(item) => {
                    let mut event = Vec::new();
                    item.write_event(&mut event);
                    self.oracle.check(after, item.first_seq, item.seq, &event, &item.data());
                    assert!(shape == Shape::Merged || item.first_seq == item.seq);
                    self.tally.saw_if("merged", item.seq > item.first_seq);
                    after = item.seq;
                }
                Next::Wait => {
                    assert_eq!((after, self.oracle.end()), (self.oracle.last(), None));
                    self.tally.saw("wait");
                    break;
                }
                Next::Done(end) => {
                    assert_eq!((after, self.oracle.end()), (self.oracle.last(), Some(end)));
                    self.tally.saw("done");
                    break;
                }
            }
        }
        let cursor = self.journal.cursor(after);
        assert!(cursor.to_string() >= self.readers[reader].cursor.to_string(), "places sort as text");
        self.readers[reader].cursor = cursor;
    }

    /// A cursor nobody was given, or given long ago.
    fn come_back_anywhere(&mut self) {
        let last = self.journal.last();
        let here = self.journal.cursor(self.dice.between(0, last));
        let other = IdSource::new(self.dice.fork("other"), 9).stream();
        let epoch = self.journal.epoch();
        let (cursor, sight) = match self.dice.below(5) {
            0 => (Cursor { seq: last + 1 + self.dice.below(9), ..self.journal.cursor(last) }, "beyond"),
            1 => (Cursor { stream: other, ..here }, "other stream"),
            2 => (Cursor { epoch: oracle::after(epoch, here.stream), ..here }, "other epoch"),
            3 => (Cursor { epoch: Epoch::FIRST, ..here }, "first epoch"),
            _ => (here, "anywhere"),
        };
        // Of an epoch that is over, what is beyond its end is gone, not unheard of.
        let cursor = if sight == "beyond" { Cursor { epoch, ..cursor } } else { cursor };
        let expected = if sight == "other stream" { Err(Missed::OtherStream) } else { self.oracle.expects(&cursor) };
        assert_eq!(self.journal.locate(&cursor), expected, "{sight}: {cursor}");
        let wanted = match sight {
            "beyond" => expected == Err(Missed::Beyond),
            "other epoch" => expected == Err(Missed::OtherEpoch),
            _ => true,
        };
        assert!(wanted, "{sight}: {expected:?}");
        self.tally.saw(sight);
    }

    fn checkpoint(&mut self) {
        let after = self.oracle.checkpointed;
        match self.journal.checkpoint(after) {
            Some((upto, segment)) => {
                assert_eq!(upto, self.journal.last());
                self.segments.push(segment);
                self.oracle.checkpointed = upto;
                self.tally.saw("checkpoint");
            }
            None => assert_eq!(after, self.journal.last()),
        }
    }

    /// The process dies; another one takes over what was checkpointed. Returns how many events are
    /// left.
    fn crash(&mut self) -> u64 {
        let segments = self.segments.iter().map(Vec::as_slice);
        let restored = match Journal::restore(self.stream, self.limit, segments) {
            Ok(restored) => restored,
            Err(why) => {
                // Then this process has not died after all.
                assert!(why == Lost::TooManyOwners || self.segments.is_empty());
                return u64::MAX;
            }
        };
        assert_eq!(restored.unreadable, 0);
        self.journal = restored.journal;
        self.segments.extend(restored.claim);
        self.oracle.crash(self.journal.epoch());
        assert_eq!(self.journal.last(), self.oracle.last());
        self.oracle.floor_after_crash(self.journal.floor());
        self.tally.saw("crash");
        self.journal.last()
    }

    /// Everybody reads to the end, and somebody reads it all again.
    fn finish(&mut self, reply: &Reply) {
        for reader in 0..self.readers.len() {
            self.read(reader, 1);
            self.read(reader, u64::MAX);
            assert_eq!(self.readers[reader].cursor.seq, self.journal.last());
        }
        if self.journal.floor() > 0 {
            return self.tally.saw("shed");
        }
        let mut after = 0;
        let mut whole = Vec::new();
        while let Next::Item(item) = self.journal.next(after, Shape::Merged).unwrap() {
            item.write_event(&mut whole);
            after = item.seq;
        }
        reply.check(&whole);
        self.tally.saw("whole");
    }
}
