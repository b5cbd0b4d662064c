//! Other programs at the same file: what they hold up, and what they do not.

use crate::story::{self, address};
use crate::{Folder, open};
use rusqlite::Connection;
use tidegate_store::{Settings, Store, StoreError};

/// More than wait for the writer, with some in the group under way.
const MANY: u32 = 5_000;

#[test]
fn what_cannot_wait_is_refused_at_once_and_what_waits_is_made_when_the_lock_is_gone() {
    let folder = Folder::new();
    let store = open(&folder.log());
    // Made before the lock is taken: the writer waits five seconds for it and no longer.
    let turns: Vec<_> = (0..MANY).map(|conversation| story::turn(conversation, 1)).collect();
    let other = Connection::open(folder.log()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked: Vec<_> = turns.into_iter().map(|turn| store.append(turn)).collect();
    // Readers are not held up by it.
    assert_eq!(store.read(address(0), 1).wait(), Err(StoreError::NotFound));
    other.execute_batch("ROLLBACK").unwrap();
    let answers: Vec<_> = asked.into_iter().map(tidegate_store::Pending::wait).collect();
    let refused = answers.iter().filter(|answer| **answer == Err(StoreError::Overloaded)).count() as u32;
    let made = answers.iter().filter(|answer| answer.is_ok()).count() as u32;
    assert!(refused >= MANY - 4_096 - 512 && made >= 4_096, "{refused} refused, {made} made");
    assert_eq!(refused + made, MANY, "{:?}", answers.iter().find(|answer| answer.is_err()));
    assert_eq!(story::verify(&store, MANY).iter().sum::<u32>(), made);
}

#[test]
fn a_lock_that_is_not_given_back_is_told_and_the_store_goes_on_when_it_is() {
    let folder = Folder::new();
    let store = open(&folder.log());
    let other = Connection::open(folder.log()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(store.append(story::turn(1, 1)).wait(), Err(StoreError::Busy));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.append(story::turn(1, 1)).wait().unwrap().number, 1);
}

#[test]
fn a_log_without_a_name_keeps_everything_and_leaves_nothing() {
    let folder = Folder::new();
    let left = || std::fs::read_dir(&folder.0).unwrap().map(|file| file.unwrap().file_name()).collect::<Vec<_>>();
    let settings = Settings { readers: 4, ..Settings::default() };
    let store = Store::open_unnamed(&folder.0, settings).unwrap();
    assert_eq!(left(), [""; 0]);
    // So much that the write-ahead log is copied, and every reader has been asked.
    for conversation in 0..200 {
        story::tell(&store, conversation, 10);
        drop(store.read(address(conversation), 1));
    }
    assert!(store.delete(address(199)).wait().unwrap().wal_cleared);
    store.compact().wait().unwrap();
    story::tell(&store, 200, 1);
    assert!(store.stats().wait().unwrap().file_bytes > 4 << 20, "more than the log is copied at");
    assert_eq!(store.check().wait().unwrap(), [""; 0]);
    let told = story::verify(&store, 201);
    assert_eq!((told.iter().sum::<u32>(), told[199]), (1_991, 0));
    assert_eq!(left(), [""; 0], "nothing was made anew");
    drop(store);
    assert_eq!(left(), [""; 0]);
}

#[test]
fn a_long_read_keeps_the_log_and_a_deletion_says_so_and_makes_up_for_it() {
    let folder = Folder::new();
    let store = open(&folder.log());
    (0..3).for_each(|conversation| story::tell(&store, conversation, 3));
    let other = Connection::open(folder.log()).unwrap();
    other.execute_batch("BEGIN").unwrap();
    let count = |other: &Connection| -> i64 {
        other.query_row("SELECT count(*) FROM conversations", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count(&other), 3);
    let deleted = store.delete(address(1)).wait().unwrap();
    assert_eq!((deleted.conversations.len(), deleted.wal_cleared), (1, false));
    assert_eq!(count(&other), 3, "its moment stays");
    assert_eq!(store.compact().wait(), Err(StoreError::Busy));
    let wal = || std::fs::metadata(folder.0.join("log.db-wal")).unwrap().len();
    let held = wal();
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(count(&other), 2);
    drop(other);
    story::tell(&store, 5, 1);
    // The turn was acknowledged, then the log cut; the next answer comes after both.
    story::tell(&store, 6, 1);
    // A log only gets shorter by being cut; two turns are far less than what it held.
    assert!(wal() < held, "{held} bytes became {}", wal());
    assert_eq!(story::verify(&store, 7), [3, 0, 3, 0, 0, 1, 1]);
}
