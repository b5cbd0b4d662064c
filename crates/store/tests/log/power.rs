//! Power loss, as far as files can show it: a write-ahead log that ends early or is torn.
//!
//! What was synchronised before an acknowledgement cannot be lost; anything behind it may be, in any
//! way. So the log's length at each acknowledgement is written down, the files are copied as they
//! are, and behind a random point bytes are cut off or changed.

use crate::{Folder, story};
use tidegate_base::Prng;

const TURNS: u32 = 40;

#[test]
fn a_torn_log_keeps_what_was_acknowledged_before_the_tear_and_nothing_half() {
    let folder = Folder::new();
    let store = crate::open(&folder.log());
    let wal = |folder: &Folder| folder.0.join("log.db-wal");
    let mut lengths = vec![0];
    for number in 1..=TURNS {
        store.append(story::turn(1, number)).wait().unwrap();
        lengths.push(std::fs::metadata(wal(&folder)).unwrap().len());
    }
    let (file, log) = (std::fs::read(folder.log()).unwrap(), std::fs::read(wal(&folder)).unwrap());
    drop(store);
    assert!(lengths.is_sorted() && lengths[1] > 0, "the log only grows: {lengths:?}");
    let mut dice = Prng::new(5);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..150u32 {
        let tear = match round {
            // Each acknowledgement's own length, and one byte less.
            0..80 => lengths[(round / 2 + 1) as usize] - u64::from(round % 2),
            _ => dice.below(log.len() as u64),
        };
        let mut torn = log.clone();
        if round % 3 == 0 {
            torn.truncate(tear as usize);
        } else if round % 3 == 1 {
            torn[tear as usize..].iter_mut().for_each(|byte| *byte ^= dice.next_u64() as u8);
        } else if let Some(byte) = torn.get_mut(tear as usize) {
            *byte ^= 1 << dice.below(8);
        }
        let copy = Folder::new();
        std::fs::write(copy.log(), &file).unwrap();
        std::fs::write(wal(&copy), &torn).unwrap();
        let kept = story::verify(&crate::open(&copy.log()), 2)[1];
        let acknowledged = lengths.iter().rposition(|length| *length <= tear).unwrap() as u32;
        assert!(kept >= acknowledged, "torn at {tear}: {acknowledged} were synchronised, {kept} are there");
        seen.insert(kept);
    }
    assert!(seen.len() > 10, "the tears were at many places: {seen:?}");
}
