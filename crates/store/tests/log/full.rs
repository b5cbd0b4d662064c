//! No room, and no permission to write: a clear error, and nothing acknowledged is lost.
//!
//! A file system of three megabytes in memory is a disk that really is full. Mounting one needs a
//! mount namespace; where there is none, the limit of the file's own size still shows the rule.

use crate::child;
use crate::story;
use crate::{Folder, open};
use std::path::Path;
use std::process::{Command, Stdio};
use tidegate_store::{Settings, Store, StoreError};

/// Appends turns of one conversation until one is refused; returns how many were acknowledged.
fn fill(store: &Store, from: u32) -> (u32, StoreError) {
    for number in from..100_000 {
        if let Err(error) = store.append(story::turn(1, number)).wait() {
            return (number - 1, error);
        }
    }
    panic!("the disk is never full");
}

#[test]
fn a_file_at_its_limit_refuses_and_goes_on_when_there_is_room() {
    let folder = Folder::new();
    let settings = Settings { file_bytes_max: Some(1 << 20), ..Settings::default() };
    let store = Store::open(&folder.log(), settings).unwrap();
    story::tell(&store, 2, 100);
    let (told, refused) = fill(&store, 1);
    assert_eq!(refused, StoreError::DiskFull);
    assert!(told > 20, "{told}");
    assert_eq!(story::verify(&store, 3), [0, told, 100]);
    assert_eq!(store.delete(story::address(2)).wait().unwrap().conversations.len(), 1);
    let (more, refused) = fill(&store, told + 1);
    assert_eq!(refused, StoreError::DiskFull);
    assert!(more > told, "what was deleted makes room");
    drop(store);
    assert_eq!(story::verify(&open(&folder.log()), 3), [0, more, 0]);
}

#[test]
fn a_small_turn_is_not_refused_for_a_large_neighbour() {
    let folder = Folder::new();
    let settings = Settings { file_bytes_max: Some(4 << 20), ..Settings::default() };
    let store = Store::open(&folder.log(), settings).unwrap();
    for round in 1..=20 {
        let mut large = story::turn(1, 1);
        large.content.request = format!("[\"{}\"]", "a b ".repeat(2 << 20)).into_bytes();
        let asked: Vec<_> = (10..20).map(|conversation| store.append(story::turn(conversation, round))).collect();
        let large = store.append(large);
        let others: Vec<_> = (20..30).map(|conversation| store.append(story::turn(conversation, round))).collect();
        assert_eq!(large.wait(), Err(StoreError::DiskFull));
        for small in asked.into_iter().chain(others) {
            assert_eq!(small.wait().map(|appended| appended.number), Ok(round));
        }
    }
}

#[test]
fn a_full_disk_and_a_read_only_one_lose_nothing() {
    let folder = Folder::new();
    let script = "mount -t tmpfs -o size=3m tmpfs \"$0\" && exec \"$@\"";
    let place = folder.0.to_str().unwrap();
    let unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, place];
    let mut probe = Command::new(unshare[0]);
    let tried = probe.args(&unshare[1..]).arg("true").stdin(Stdio::null()).output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: no file system can be mounted here: {tried:?}");
        return;
    }
    let output = child::command(&unshare, "full", &folder.log()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
}

/// The child's part, on a small file system of its own.
pub(crate) fn until_full(log: &Path) {
    let ballast = log.with_file_name("ballast");
    std::fs::write(&ballast, vec![1; 512 << 10]).unwrap();
    let store = open(log);
    let (told, refused) = fill(&store, 1);
    assert_eq!(refused, StoreError::DiskFull);
    assert!(told > 50, "{told}");
    assert_eq!(fill(&store, told + 1), (told, StoreError::DiskFull), "and again");
    assert_eq!(story::verify(&store, 2), [0, told]);
    std::fs::remove_file(&ballast).unwrap();
    let (more, refused) = fill(&store, told + 1);
    assert_eq!(refused, StoreError::DiskFull);
    assert!(more > told + 10, "there was room again: {told}, {more}");
    drop(store);
    let store = open(log);
    assert_eq!(story::verify(&store, 2), [0, more]);
    drop(store);
    let folder = log.parent().unwrap();
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(folder).status().unwrap();
    assert!(remount.success());
    let before = std::fs::read(log).unwrap();
    let refused = Store::open(log, Settings::default()).unwrap_err();
    assert_eq!(refused, StoreError::ReadOnly);
    assert!(std::fs::read(log).unwrap() == before);
}
