//! Files of other versions: each released one opens, a newer one is refused and left alone.
//!
//! Each file in `tests/fixtures` was written once, when its version was the newest, by
//! `write_the_fixture`, and is never written again.

use crate::story::{self, TENANT};
use crate::streams::checkpoint;
use crate::usage::{all, row};
use crate::{Folder, open};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_base::{IdSource, Prng, StreamId};
use tidegate_store::{
    Address, NewTurn, Settings, Store, StoreError, StreamCheckpoint, StreamHead, Summary, VaultRecord, VaultRecords,
};

/// The newest version.
const NEWEST: u32 = 4;

fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/version-{version}.db"))
}

fn stream() -> StreamId {
    IdSource::new(Prng::new(77), 0).stream()
}

fn summary() -> Summary {
    let body = b"{\"goals\":[]}".to_vec();
    Summary { first_turn: 1, last_turn: 2, created_ms: 77, model: "claude-haiku-4-5".to_owned(), body }
}

#[test]
#[ignore = "writes the file that the others read; only for a new version"]
fn write_the_fixture() {
    let store = open(&fixture(NEWEST));
    (0..6).for_each(|conversation| story::tell(&store, conversation, 3));
    store.add_summary(story::address(5), summary()).wait().unwrap();
    store.put_window(story::address(5), 3, b"state".to_vec()).wait().unwrap();
    store.fork(story::address(5), 2, "fork", 99).wait().unwrap();
    store.checkpoint_stream(sealed(b"one", 7)).wait().unwrap();
    store.checkpoint_stream(sealed(b"two", 8)).wait().unwrap();
    store.checkpoint_stream(of_a_user(b"three")).wait().unwrap();
    store.append(NewTurn { vault: Some(vault()), ..story::turn(6, 1) }).wait().unwrap();
    store.add_usage(vec![row(20_780, "m", 0, 5)]).wait().unwrap();
}

/// What the first turn of conversation 6 tells of its vault.
fn vault() -> VaultRecords {
    let record = |shared, content: &[u8]| VaultRecord { shared, content: content.to_vec() };
    VaultRecords { scope: "conversation-6".to_owned(), records: vec![record(false, b"own"), record(true, b"all")] }
}

/// A checkpoint of a stream with tokens.
fn sealed(segment: &[u8], now_ms: u64) -> StreamCheckpoint {
    let plain = checkpoint(stream(), segment, now_ms);
    let head = StreamHead { vault: Some(b"sealed".to_vec()), ..(*plain.head).clone() };
    StreamCheckpoint { head: Arc::new(head), ..plain }
}

/// A checkpoint of another stream, of an end user's.
fn of_a_user(segment: &[u8]) -> StreamCheckpoint {
    let mut ids = IdSource::new(Prng::new(77), 0);
    let _ = ids.stream();
    let mut checkpoint = checkpoint(ids.stream(), segment, 9);
    let head = Arc::get_mut(&mut checkpoint.head).unwrap();
    (head.end_user, head.conversation) = (Some("user-5".to_owned()), Some("c-0005".to_owned()));
    checkpoint
}

#[test]
fn a_file_of_version_1_is_read_whole_and_goes_on() {
    let folder = Folder::new();
    std::fs::copy(fixture(1), folder.log()).unwrap();
    let store = reads_whole(&folder);
    // What came with version 2 is there.
    assert_eq!(store.stream(TENANT, None, stream()).wait(), Err(StoreError::NotFound));
    store.checkpoint_stream(checkpoint(stream(), b"one", 7)).wait().unwrap();
    assert_eq!(store.stream(TENANT, None, stream()).wait().unwrap().segments, [b"one"]);
    assert_eq!(store.check().wait().unwrap(), [""; 0]);
}

#[test]
fn a_file_of_version_2_is_read_whole_and_goes_on() {
    let folder = Folder::new();
    std::fs::copy(fixture(2), folder.log()).unwrap();
    let store = reads_whole(&folder);
    let kept = store.stream(TENANT, None, stream()).wait().unwrap();
    assert_eq!((kept.created_ms, kept.updated_ms, kept.ended), (7, 8, false));
    assert_eq!(kept.segments, [b"one", b"two"]);
    // What came with version 3 says nothing of it.
    assert_eq!(store.erase_streams(TENANT, "user-5").wait().unwrap().streams, 0);
    assert_eq!(kept.head, *checkpoint(stream(), b"", 0).head);
    // What came with version 3 is there.
    assert_eq!(store.vault(story::address(0)).wait().unwrap(), None);
    store.append(NewTurn { vault: Some(vault()), ..story::turn(0, 4) }).wait().unwrap();
    assert_eq!(store.vault(story::address(0)).wait().unwrap(), Some(vault()));
    assert_eq!(store.check().wait().unwrap(), [""; 0]);
}

#[test]
fn a_file_of_version_3_is_read_whole_and_goes_on() {
    let folder = Folder::new();
    std::fs::copy(fixture(3), folder.log()).unwrap();
    let store = reads_whole(&folder);
    let kept = store.stream(TENANT, None, stream()).wait().unwrap();
    assert_eq!((kept.head, kept.segments), ((*sealed(b"", 0).head).clone(), vec![b"one".to_vec(), b"two".to_vec()]));
    assert_eq!(store.vault(story::address(6)).wait().unwrap(), Some(vault()));
    let want = of_a_user(b"");
    assert_eq!(store.stream(TENANT, None, want.head.stream).wait().unwrap().head, *want.head);
    assert_eq!(store.erase_streams(TENANT, "user-5").wait().unwrap().streams, 1);
    // What came with version 4 is there.
    assert_eq!(store.usage(all()).wait().unwrap(), []);
    store.add_usage(vec![row(1, "m", 0, 5)]).wait().unwrap();
    assert_eq!(store.usage(all()).wait().unwrap(), [row(1, "m", 0, 5)]);
}

#[test]
fn a_file_of_version_4_is_read_whole_and_goes_on() {
    let folder = Folder::new();
    std::fs::copy(fixture(4), folder.log()).unwrap();
    let store = reads_whole(&folder);
    assert_eq!(store.vault(story::address(6)).wait().unwrap(), Some(vault()));
    assert_eq!(store.usage(all()).wait().unwrap(), [row(20_780, "m", 0, 5)]);
}

/// What the fixtures of all versions have.
fn reads_whole(folder: &Folder) -> Store {
    let store = open(&folder.log());
    assert_eq!(story::verify(&store, 6), [3; 6]);
    let fork = store.read(Address::new(TENANT, "fork").unwrap(), 1).wait().unwrap();
    assert_eq!((fork.turns.len(), fork.summaries, fork.conversation.updated_ms), (2, vec![summary()], 99));
    assert_eq!(fork.window, None, "it was made of a later turn");
    let window = store.read(story::address(5), 1).wait().unwrap().window.unwrap();
    assert_eq!((window.turns, window.state), (3, b"state".to_vec()));
    assert!(store.stats().wait().unwrap().blobs > 0, "the fixture has documents");
    assert_eq!(store.append(story::turn(5, 4)).wait().unwrap().number, 4);
    store
}

#[test]
fn a_newer_file_is_refused_and_not_touched() {
    let folder = Folder::new();
    std::fs::copy(fixture(NEWEST), folder.log()).unwrap();
    let other = rusqlite::Connection::open(folder.log()).unwrap();
    other.pragma_update(None, "user_version", NEWEST + 1).unwrap();
    drop(other);
    let before = std::fs::read(folder.log()).unwrap();
    let refused = Store::open(&folder.log(), Settings::default()).unwrap_err();
    let path = folder.log().canonicalize().unwrap();
    assert_eq!(refused, StoreError::NewerSchema { path, found: NEWEST + 1, known: NEWEST });
    assert!(std::fs::read(folder.log()).unwrap() == before);
}

#[test]
fn a_file_of_something_else_is_refused_and_not_touched() {
    let folder = Folder::new();
    let text = "A diary, and no database at all. ".repeat(400);
    std::fs::write(folder.log(), &text).unwrap();
    let refused = Store::open(&folder.log(), Settings::default()).unwrap_err();
    assert!(matches!(refused, StoreError::NotOurs { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(folder.log()).unwrap(), text);
    let gone = Store::open(&folder.0.join("no/such/folder.db"), Settings::default()).unwrap_err();
    assert!(matches!(gone, StoreError::Failed(_)), "{gone}");
}

#[test]
fn a_damaged_page_is_told_and_other_conversations_are_read() {
    let folder = Folder::new();
    let store = open(&folder.log());
    (0..50).for_each(|conversation| story::tell(&store, conversation, 4));
    drop(store);
    let mut bytes = std::fs::read(folder.log()).unwrap();
    let pages = bytes.len() / 4096;
    assert!(pages > 100, "{pages}");
    // Pages in the middle are turns' and documents'.
    bytes[(pages / 2) * 4096..(pages / 2 + 3) * 4096].fill(0xa5);
    std::fs::write(folder.log(), &bytes).unwrap();
    let store = open(&folder.log());
    let read = (0..50).map(|conversation| store.read(story::address(conversation), 1).wait());
    let (whole, damaged): (Vec<_>, Vec<_>) = read.partition(Result::is_ok);
    assert!(whole.len() > 25, "{}", whole.len());
    assert!(damaged.iter().all(|read| matches!(read, Err(StoreError::Corrupt(_)))), "{damaged:?}");
    let findings = store.check().wait();
    assert!(findings.as_ref().map_or(true, |findings| !findings.is_empty()), "{findings:?}");
}
