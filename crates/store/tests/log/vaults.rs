//! Vaults: records come and go with the turns that told them.

use crate::story::{self, TENANT};
use crate::{Folder, open};
use tidegate_store::{Address, NewTurn, StoreError, VaultRecord, VaultRecords};

fn records(scope: &str, contents: &[&str]) -> VaultRecords {
    let record =
        |content: &&str| VaultRecord { shared: content.starts_with('s'), content: content.as_bytes().to_vec() };
    VaultRecords { scope: scope.to_owned(), records: contents.iter().map(record).collect() }
}

fn told(conversation: u32, number: u32, contents: &[&str]) -> NewTurn {
    NewTurn { vault: Some(records("c", contents)), ..story::turn(conversation, number) }
}

#[test]
fn a_turn_and_what_it_told_are_there_together_or_not_at_all() {
    let folder = Folder::new();
    let store = open(&folder.log());
    assert_eq!(store.vault(story::address(1)).wait().unwrap(), None);
    store.append(told(1, 1, &["a", "s1"])).wait().unwrap();
    store.append(story::turn(1, 2)).wait().unwrap();
    // The number is taken, and the records are not there either.
    assert!(matches!(store.append(told(1, 2, &["x"])).wait(), Err(StoreError::Conflict { .. })));
    let other = NewTurn { vault: Some(records("other", &["y"])), ..story::turn(1, 3) };
    assert_eq!(store.append(other).wait(), Err(StoreError::Exists));
    store.append(told(1, 3, &["b"])).wait().unwrap();
    drop(store);
    let store = open(&folder.log());
    assert_eq!(store.vault(story::address(1)).wait().unwrap(), Some(records("c", &["a", "s1", "b"])));
    assert_eq!(store.check().wait().unwrap(), [""; 0]);
}

#[test]
fn a_fork_has_what_its_turns_told_and_goes_on_in_the_same_scope() {
    let folder = Folder::new();
    let store = open(&folder.log());
    store.append(told(1, 1, &["a"])).wait().unwrap();
    store.append(told(1, 2, &["s1", "b"])).wait().unwrap();
    store.append(told(1, 3, &["c"])).wait().unwrap();
    store.fork(story::address(1), 2, "fork", 9).wait().unwrap();
    let fork = Address::new(TENANT, "fork").unwrap();
    assert_eq!(store.vault(fork.clone()).wait().unwrap(), Some(records("c", &["a", "s1", "b"])));
    let turn = NewTurn { address: fork.clone(), expected: Some(3), ..told(1, 3, &["d"]) };
    store.append(turn).wait().unwrap();
    assert!(store.delete(story::address(1)).wait().unwrap().wal_cleared);
    assert_eq!(store.vault(fork.clone()).wait().unwrap(), Some(records("c", &["a", "s1", "b", "d"])));
    assert_eq!(store.vaults(0, 10).wait().unwrap().0, [fork]);
    assert_eq!(store.check().wait().unwrap(), [""; 0]);
}

#[test]
fn records_go_with_their_conversation_and_leave_no_byte() {
    let folder = Folder::new();
    let store = open(&folder.log());
    store.append(told(1, 1, &["sealed-bytes-of-a-value"])).wait().unwrap();
    store.append(told(2, 1, &["of another"])).wait().unwrap();
    store.delete(story::address(1)).wait().unwrap();
    assert_eq!(store.vault(story::address(1)).wait().unwrap(), None);
    // Somebody begins anew under the name.
    store.append(story::turn(1, 1)).wait().unwrap();
    assert_eq!(store.vault(story::address(1)).wait().unwrap(), None);
    store.compact().wait().unwrap();
    drop(store);
    let bytes = std::fs::read(folder.log()).unwrap();
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(!has(b"sealed-bytes-of-a-value") && has(b"of another"));
}

#[test]
fn records_sealed_anew_take_the_place_of_the_old_ones_under_their_turns() {
    let folder = Folder::new();
    let store = open(&folder.log());
    store.append(told(1, 1, &["a"])).wait().unwrap();
    store.append(told(1, 2, &["s1"])).wait().unwrap();
    let address = story::address(1);
    store.reseal(address.clone(), records("c", &["A", "S1"])).wait().unwrap();
    // A record came meanwhile.
    store.append(told(1, 3, &["b"])).wait().unwrap();
    assert_eq!(store.reseal(address.clone(), records("c", &["X", "Y"])).wait(), Err(StoreError::Busy));
    store.fork(address, 1, "fork", 9).wait().unwrap();
    let fork = store.vault(Address::new(TENANT, "fork").unwrap()).wait().unwrap();
    assert_eq!(fork, Some(records("c", &["A"])));
}
