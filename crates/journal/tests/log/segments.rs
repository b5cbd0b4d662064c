//! Checkpoints that are damaged, late, doubled, or of somebody who is no longer the owner.

use std::ops::RangeInclusive;
use tidegate_base::{IdSource, Prng, StreamId};
use tidegate_journal::{Cursor, End, Epoch, Journal, Lost, Missed, Next, Segment, Shape};
use tidegate_wire::event::Kind;

fn stream() -> StreamId {
    IdSource::new(Prng::new(11), 2).stream()
}

fn event(who: &str, seq: u64) -> Vec<u8> {
    let data = format!(
        "{{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{who}{seq} \"}}}}"
    );
    format!("event: content_block_delta\ndata: {data}\n\n").into_bytes()
}

/// Appends events of `who` and takes a checkpoint of just those.
fn write(journal: &mut Journal, who: &str, seqs: RangeInclusive<u64>) -> Vec<u8> {
    let after = seqs.start() - 1;
    assert_eq!(after, journal.last());
    for seq in seqs {
        journal.append(journal.epoch(), Kind::BlockDelta, &event(who, seq)).unwrap();
    }
    journal.checkpoint(after).unwrap().1
}

fn restore(segments: &[Vec<u8>]) -> Result<Journal, Lost> {
    Journal::restore(stream(), 1 << 20, segments.iter().map(Vec::as_slice)).map(|restored| restored.journal)
}

/// All that is left, joined.
fn text(journal: &Journal) -> String {
    let (mut after, mut out) = (journal.floor(), Vec::new());
    while let Next::Item(item) = journal.next(after, Shape::AsItCame).unwrap() {
        assert_eq!(item.seq, after + 1);
        item.write_event(&mut out);
        after = item.seq;
    }
    let text = String::from_utf8_lossy(&out);
    text.split("\"text\":\"").skip(1).map(|part| part.split('"').next().unwrap()).collect()
}

#[test]
fn what_came_after_the_last_checkpoint_is_gone_and_so_is_a_cursor_there() {
    let mut journal = Journal::new(stream(), 1 << 20);
    let first = write(&mut journal, "a", 1..=3);
    let lost = write(&mut journal, "a", 4..=6);
    let (before, beyond) = (journal.cursor(3), journal.cursor(5));
    let mut back = restore(&[first]).unwrap();
    assert_eq!(text(&back), "a1 a2 a3 ");
    assert_eq!((back.locate(&before), back.locate(&beyond)), (Ok(3), Err(Missed::Gone)));
    // The next owner's events have the same numbers, and are others.
    write(&mut back, "b", 4..=6);
    assert_eq!((back.locate(&before), back.locate(&beyond)), (Ok(3), Err(Missed::Gone)));
    assert_eq!(back.locate(&back.cursor(5)), Ok(5));
    assert_eq!(back.locate(&Cursor { seq: 2, ..back.cursor(5) }), Err(Missed::OtherEpoch));
    drop(lost);
}

#[test]
fn a_later_owner_overrules_and_a_former_one_counts_for_nothing() {
    let mut one = Journal::new(stream(), 1 << 20);
    let shared = write(&mut one, "a", 1..=3);
    let mut two = restore(std::slice::from_ref(&shared)).unwrap();
    let (late_1, late_2) = (write(&mut one, "a", 4..=6), write(&mut one, "a", 7..=9));
    let by_two = write(&mut two, "b", 4..=5);
    let want = "a1 a2 a3 b4 b5 ";
    for order in [
        vec![&shared, &late_1, &late_2, &by_two],
        vec![&shared, &late_1, &by_two, &late_2],
        vec![&shared, &by_two, &late_1, &late_2],
    ] {
        let order: Vec<Vec<u8>> = order.into_iter().cloned().collect();
        let back = restore(&order).unwrap();
        assert_eq!(text(&back), want);
        assert_eq!(back.locate(&one.cursor(5)), Err(Missed::Gone));
        assert_eq!(back.locate(&two.cursor(5)), Ok(5));
        assert!(back.epoch() > two.epoch());
    }
}

#[test]
fn an_owner_that_dies_before_its_first_checkpoint_is_not_mistaken_for_the_next() {
    let mut one = Journal::new(stream(), 1 << 20);
    let first = write(&mut one, "a", 1..=3);
    let back = Journal::restore(stream(), 1 << 20, [&first[..]]).unwrap();
    let (mut two, claim) = (back.journal, back.claim.unwrap());
    write(&mut two, "b", 4..=6);
    let seen_of_two = two.cursor(5);
    let mut three = restore(&[first, claim]).unwrap();
    write(&mut three, "c", 4..=6);
    assert_eq!(three.locate(&seen_of_two), Err(Missed::Gone));
}

#[test]
fn a_segment_written_twice_counts_once() {
    let mut journal = Journal::new(stream(), 1 << 20);
    let a = write(&mut journal, "a", 1..=3);
    let b = write(&mut journal, "a", 4..=6);
    let both = journal.checkpoint(1).unwrap().1;
    assert_eq!(text(&restore(&[a.clone(), a, both, b]).unwrap()), "a1 a2 a3 a4 a5 a6 ");
}

#[test]
fn no_flipped_bit_and_no_cut_is_read_as_a_segment() {
    let mut journal = Journal::new(stream(), 1 << 20);
    journal.append(Epoch::FIRST, Kind::Other, b"event: x\ndata: {}\n\n").unwrap();
    let segment = {
        write(&mut journal, "a", 2..=4);
        journal.checkpoint(0).unwrap().1
    };
    assert_eq!(Segment::read(&segment).map(|s| (s.first, s.last, s.end)), Some((1, 4, None)));
    for at in 0..segment.len() {
        let mut wrong = segment.clone();
        wrong[at] ^= 1 << (at % 8);
        assert_eq!(Segment::read(&wrong), None, "byte {at}");
        assert_eq!(Segment::read(&segment[..at]), None, "cut at {at}");
    }
    assert_eq!(restore(&[segment[..20].to_vec()]).err(), Some(Lost::Nothing));
}

#[test]
fn where_a_segment_is_missing_everything_before_it_is_gone() {
    let mut journal = Journal::new(stream(), 1 << 20);
    let a = write(&mut journal, "a", 1..=3);
    let mut damaged = write(&mut journal, "a", 4..=6);
    let c = write(&mut journal, "a", 7..=8);
    damaged[90] ^= 1;
    let back = Journal::restore(stream(), 1 << 20, [&a[..], &damaged[..], &c[..]]).unwrap();
    assert_eq!((text(&back.journal).as_str(), back.unreadable, back.journal.floor()), ("a7 a8 ", 1, 6));
    assert_eq!(back.journal.locate(&journal.cursor(3)), Err(Missed::Gone));
    assert_eq!(back.journal.locate(&journal.cursor(6)), Ok(6));
}

#[test]
fn the_end_survives_and_stays_the_end() {
    for (kind, end) in [(Kind::MessageStop, End::Stopped), (Kind::Error, End::Error)] {
        let mut journal = Journal::new(stream(), 1 << 20);
        write(&mut journal, "a", 1..=2);
        journal.append(Epoch::FIRST, kind, b"event: end\ndata: {}\n\n").unwrap();
        let back = restore(&[journal.checkpoint(0).unwrap().1]).unwrap();
        assert_eq!((back.end(), back.next(3, Shape::Merged)), (Some(end), Ok(Next::Done(end))));
    }
    let mut journal = Journal::new(stream(), 1 << 20);
    journal.cancel(Epoch::FIRST, b"event: error\ndata: {}\n\n").unwrap();
    let cancelled = journal.checkpoint(0).unwrap().1;
    assert_eq!(restore(std::slice::from_ref(&cancelled)).unwrap().end(), Some(End::Cancelled));
    let other = IdSource::new(Prng::new(12), 2).stream();
    assert_eq!(Journal::restore(other, 1 << 20, [&cancelled[..]]).err(), Some(Lost::Nothing));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        proptest::prop_assert!(Segment::read(&bytes).is_none());
    }

    /// Behind a right checksum anything may stand; it is read or refused, and never trusted for its
    /// sizes.
    #[test]
    fn records_that_lie_are_refused(at in 0usize..220, byte: u8) {
        let mut journal = Journal::new(stream(), 1 << 20);
        journal.append(Epoch::FIRST, Kind::Other, b"event: x\ndata: {}\n\n").unwrap();
        write(&mut journal, "a", 2..=4);
        let mut segment = journal.checkpoint(0).unwrap().1;
        let body = segment.len() - 8;
        segment[at % body] = byte;
        let sum = segment[..body].iter().fold(0xcbf2_9ce4_8422_2325u64, |sum, b| {
            (sum ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        segment[body..].copy_from_slice(&sum.to_le_bytes());
        if let Ok(back) = Journal::restore(stream(), 1 << 20, [&segment[..]]) {
            text(&back.journal);
        }
    }
}
