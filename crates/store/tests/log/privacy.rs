//! Deleted is deleted for good: no byte of it is left in any of the files.
//!
//! A deletion overwrites rows and pages. SQLite moves rows between pages too, and leaves copies in
//! the unused space of the pages they came from; a compaction takes those.

use crate::{Folder, story};
use tidegate_base::Prng;
use tidegate_store::{Address, NewTurn, Store, StoreError, TurnContent};

const TENANT: &str = "team-a";

/// A word that stands for what `conversation` said.
fn secret(conversation: u64) -> String {
    format!("secret<{conversation:05}>")
}

/// Appends a turn full of the conversation's secret, as text and in a document.
fn confide(store: &Store, conversation: u64, dice: &mut Prng) {
    use base64::Engine;
    let name = format!("of {}", secret(conversation));
    let most = if dice.chance(0.2) { 2000 } else { 20 };
    let words = secret(conversation).repeat(1 + dice.below(most) as usize);
    let document = base64::engine::general_purpose::STANDARD.encode(secret(conversation).repeat(100));
    let mut content = TurnContent::appended(format!("[\"{words}\",{{\"data\":\"{document}\"}}]").into_bytes());
    content.end_user = Some(format!("user {}", secret(conversation)));
    content.model = Some(secret(conversation));
    let address = Address::new(TENANT, &name).unwrap();
    let window = Some(secret(conversation).into_bytes());
    store
        .append(NewTurn { address, expected: None, now_ms: dice.below(1000), content, window, vault: None })
        .wait()
        .unwrap();
}

/// Conversations whose secret is in one of the folder's files.
fn found(folder: &Folder) -> std::collections::BTreeSet<u64> {
    let mut found = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(&folder.0).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for at in memchr::memmem::find_iter(&bytes, "secret<") {
            let digits = bytes.get(at + 7..at + 12).and_then(|digits| std::str::from_utf8(digits).ok());
            found.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
        }
    }
    found
}

#[test]
fn a_deletion_overwrites_its_rows_and_pages_and_clears_the_log_beside_the_file() {
    let folder = Folder::new();
    let store = crate::open(&folder.log());
    let mut dice = Prng::new(12);
    (0..3).for_each(|conversation| confide(&store, conversation, &mut dice));
    assert_eq!(found(&folder), (0..3).collect());
    let name = format!("of {}", secret(1));
    let deleted = store.delete(Address::new(TENANT, &name).unwrap()).wait().unwrap();
    assert!(deleted.wal_cleared);
    assert_eq!(found(&folder), [0, 2].into());
}

#[test]
fn after_a_compaction_nothing_deleted_is_left_in_any_file() {
    let folder = Folder::new();
    let store = crate::open(&folder.log());
    let mut dice = Prng::new(11);
    let mut kept: std::collections::BTreeSet<u64> = (0..120).collect();
    for _ in 0..600 {
        confide(&store, dice.below(120), &mut dice);
    }
    kept.iter().for_each(|conversation| confide(&store, *conversation, &mut dice));
    assert_eq!(found(&folder), kept, "the search finds what is there");
    let mut left_behind = 0;
    for step in 0..60 {
        let gone = *dice.pick(&kept.iter().copied().collect::<Vec<_>>()).unwrap();
        let deleted = if step % 2 == 0 {
            store.delete(Address::new(TENANT, &format!("of {}", secret(gone))).unwrap()).wait().unwrap()
        } else {
            store.erase_end_user(TENANT, &format!("user {}", secret(gone))).wait().unwrap()
        };
        assert_eq!((deleted.conversations.len(), deleted.wal_cleared, deleted.more), (1, true, false));
        kept.remove(&gone);
        // What others write in between moves rows about.
        confide(&store, *dice.pick(&kept.iter().copied().collect::<Vec<_>>()).unwrap(), &mut dice);
        left_behind += found(&folder).difference(&kept).count();
        if step % 30 == 29 {
            store.compact().wait().unwrap();
            assert_eq!(found(&folder), kept, "after deleting {gone}, while the store is open");
        }
    }
    assert!(left_behind > 0, "if a deletion alone leaves nothing any more, compaction is not needed for it");
    assert_eq!(store.check().wait(), Ok(Vec::new()));
    drop(store);
    assert_eq!(found(&folder), kept);
}

#[test]
fn erasing_an_end_user_takes_every_conversation_they_took_part_in() {
    let folder = Folder::new();
    let store = crate::open(&folder.log());
    for conversation in 0..21 {
        story::tell(&store, conversation, 2);
    }
    let mut visit = story::turn(1, 3);
    visit.content.end_user = Some("user-3".to_owned());
    store.append(visit).wait().unwrap();
    store.fork(story::address(10), 1, "fork", 5).wait().unwrap();
    let deleted = store.erase_end_user(story::TENANT, "user-3").wait().unwrap();
    let mut names: Vec<_> = deleted.conversations.iter().map(|gone| (gone.name.as_str(), gone.turns)).collect();
    names.sort_unstable();
    assert_eq!(names, [("c-0001", 3), ("c-0003", 2), ("c-0010", 2), ("c-0017", 2), ("fork", 1)]);
    assert_eq!(store.read(story::address(3), 1).wait(), Err(StoreError::NotFound));
    assert_eq!(store.erase_end_user("team-b", "user-4").wait().unwrap().conversations, [], "another tenant's");
    assert_eq!(story::verify(&store, 21).iter().sum::<u32>(), 17 * 2);
}
