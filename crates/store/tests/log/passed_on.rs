//! The log passed on to a process that takes over: both write, nobody else may, and the lock goes with the
//! last of the two.

use super::{Folder, open, story};
use std::os::fd::OwnedFd;
use tidegate_store::{Settings, Store, StoreError};

fn beside(store: &Store) -> Store {
    let (path, lock) = store.share().unwrap();
    Store::open_beside(&path, lock, Settings::default()).unwrap()
}

#[test]
fn both_write_and_each_finds_what_the_other_wrote() {
    let folder = Folder::new();
    let elder = open(&folder.log());
    elder.append(story::turn(1, 1)).wait().unwrap();
    let heir = beside(&elder);
    for number in 2..40 {
        // In turns in one conversation, and at once in two.
        let (this, other) = if number % 2 == 0 { (&heir, &elder) } else { (&elder, &heir) };
        let apart = other.append(story::turn(2, number - 1));
        this.append(story::turn(1, number)).wait().unwrap();
        apart.wait().unwrap();
    }
    drop(elder);
    heir.append(story::turn(1, 40)).wait().unwrap();
    for (conversation, turns) in [(1, 40), (2, 38)] {
        let read = heir.read(story::turn(conversation, 1).address, 1).wait().unwrap();
        assert_eq!(read.turns.len(), turns, "conversation {conversation}");
    }
}

#[test]
fn a_process_that_could_not_take_over_leaves_the_lock_where_it_was() {
    let folder = Folder::new();
    let elder = open(&folder.log());
    drop(beside(&elder));
    let held = |why: &str| {
        let refused = Store::open(&folder.log(), Settings::default()).unwrap_err();
        assert!(matches!(refused, StoreError::Held { .. }), "{why}: {refused}");
    };
    held("the heir has gone, the elder has not");
    let heir = beside(&elder);
    drop(elder);
    held("the elder has gone, the heir has not");
    drop(heir);
    open(&folder.log());
}

#[test]
fn only_the_lock_of_this_very_file_is_taken() {
    let (folder, other) = (Folder::new(), Folder::new());
    let (elder, stranger) = (open(&folder.log()), open(&other.log()));
    let (_, lock): (_, OwnedFd) = stranger.share().unwrap();
    let (path, _) = elder.share().unwrap();
    let refused = Store::open_beside(&path, lock, Settings::default()).unwrap_err();
    assert!(refused.to_string().contains("the lock that was passed on is another's"), "{refused}");
}

#[test]
fn an_older_schema_is_not_changed_under_a_process_that_writes() {
    let folder = Folder::new();
    let elder = open(&folder.log());
    let before = rusqlite::Connection::open(folder.log()).unwrap();
    before.pragma_update(None, "user_version", 2).unwrap();
    let (path, lock) = elder.share().unwrap();
    let refused = Store::open_beside(&path, lock, Settings::default()).unwrap_err();
    assert!(refused.to_string().contains("end that one first"), "{refused}");
}
