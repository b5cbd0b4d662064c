//! Durable streams: their segments in order, within their bytes, their owner's only, for their time.

use crate::story::{self, TENANT};
use crate::{Folder, open};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_base::{IdSource, Prng, StreamId};
use tidegate_store::{StoreError, StreamCheckpoint, StreamHead};

/// A checkpoint of `stream` at `now_ms`.
pub(crate) fn checkpoint(stream: StreamId, segment: &[u8], now_ms: u64) -> StreamCheckpoint {
    let head = b"HTTP/1.1 200 OK\r\nrequest-id: r\r\n\r\n".to_vec();
    let (tenant, request_id) = (TENANT.to_owned(), "req_1".to_owned());
    let head =
        StreamHead { stream, tenant, own: None, request_id, head, end_user: None, conversation: None, vault: None };
    let (segment, bytes_max, all_bytes_max) = (segment.to_vec(), 1 << 20, 1 << 30);
    StreamCheckpoint { head: Arc::new(head), segment, ended: false, now_ms, bytes_max, all_bytes_max }
}

fn ids() -> impl Iterator<Item = StreamId> {
    let mut ids = IdSource::new(Prng::new(3), 0);
    std::iter::repeat_with(move || ids.stream())
}

#[test]
fn segments_come_back_in_their_order_also_after_another_opening() {
    let folder = Folder::new();
    let store = open(&folder.log());
    let two: Vec<_> = ids().take(2).collect();
    for n in 0..20_u8 {
        for (at, id) in two.iter().enumerate() {
            let ended = n == 19 && at == 1;
            let checkpoint = StreamCheckpoint { ended, ..checkpoint(*id, &[at as u8, n], 100 + u64::from(n)) };
            store.checkpoint_stream(checkpoint).wait().unwrap();
        }
    }
    drop(store);
    let store = open(&folder.log());
    for (at, id) in two.iter().enumerate() {
        let kept = store.stream(TENANT, None, *id).wait().unwrap();
        assert_eq!(kept.segments, (0..20).map(|n| vec![at as u8, n]).collect::<Vec<_>>());
        assert_eq!((kept.created_ms, kept.updated_ms, kept.ended), (100, 119, at == 1));
    }
    assert_eq!(store.check().wait().unwrap(), [""; 0]);
}

#[test]
fn past_its_bytes_the_oldest_segments_go_and_the_newest_never() {
    let folder = Folder::new();
    let store = open(&folder.log());
    let id = ids().next().unwrap();
    let put = |segment: &[u8]| {
        let checkpoint = StreamCheckpoint { bytes_max: 10, ..checkpoint(id, segment, 1) };
        store.checkpoint_stream(checkpoint).wait().unwrap();
        store.stream(TENANT, None, id).wait().unwrap().segments
    };
    assert_eq!(put(b"aaaa").len(), 1);
    assert_eq!(put(b"bbbb").len(), 2);
    assert_eq!(put(b"cc"), [&b"aaaa"[..], b"bbbb", b"cc"]);
    assert_eq!(put(b"d"), [&b"bbbb"[..], b"cc", b"d"]);
    assert_eq!(put(&[b'e'; 30]), [vec![b'e'; 30]]);
    assert_eq!(put(b"f"), [b"f"]);
    assert_eq!(store.check().wait().unwrap(), [""; 0]);
}

#[test]
fn a_stream_is_its_owners_and_nobody_elses() {
    let folder = Folder::new();
    let store = open(&folder.log());
    let id = ids().next().unwrap();
    let mut own = checkpoint(id, b"x", 1);
    Arc::get_mut(&mut own.head).unwrap().own = Some(u64::MAX - 1);
    store.checkpoint_stream(own).wait().unwrap();
    assert_eq!(store.stream(TENANT, Some(u64::MAX - 1), id).wait().unwrap().head.own, Some(u64::MAX - 1));
    for (tenant, own) in [(TENANT, None), (TENANT, Some(1)), ("other", Some(u64::MAX - 1))] {
        assert_eq!(store.stream(tenant, own, id).wait(), Err(StoreError::NotFound), "{tenant} {own:?}");
    }
    let mut theirs = checkpoint(id, b"y", 2);
    Arc::get_mut(&mut theirs.head).unwrap().tenant = "other".to_owned();
    assert_eq!(store.checkpoint_stream(theirs).wait(), Err(StoreError::Exists));
    let large = StreamCheckpoint { segment: vec![0; (64 << 20) + 1], ..checkpoint(id, b"", 3) };
    assert!(matches!(store.checkpoint_stream(large).wait(), Err(StoreError::TooLarge { .. })));
}

#[test]
fn what_is_old_goes_but_not_what_still_runs() {
    let folder = Folder::new();
    let store = open(&folder.log());
    let many: Vec<_> = ids().take(600).collect();
    for (n, id) in many.iter().enumerate() {
        drop(store.checkpoint_stream(checkpoint(*id, b"segment", n as u64)));
    }
    let running: BTreeSet<_> = many[..2].iter().copied().collect();
    let (mut deleted, mut calls) = (0, 0);
    loop {
        let (gone, more) = store.retain_streams(500, 10_000, running.clone()).wait().unwrap();
        (deleted, calls) = (deleted + gone, calls + 1);
        if !more {
            break;
        }
    }
    assert_eq!((deleted, calls), (498, 2));
    let there = |n: usize| store.stream(TENANT, None, many[n]).wait().map(|kept| kept.updated_ms);
    assert_eq!((there(0), there(1)), (Ok(10_000), Ok(10_000)));
    assert_eq!((there(2), there(499)), (Err(StoreError::NotFound), Err(StoreError::NotFound)));
    assert_eq!((there(500), there(599)), (Ok(500), Ok(599)));
    assert_eq!(store.check().wait().unwrap(), [""; 0]);
    assert_eq!(store.retain_streams(20_000, 20_000, BTreeSet::new()).wait(), Ok((102, false)));
}

/// The same of an end user, in a conversation.
fn about(id: StreamId, end_user: Option<&str>, conversation: Option<&str>) -> StreamCheckpoint {
    let mut checkpoint = checkpoint(id, b"segment", 1);
    let head = Arc::get_mut(&mut checkpoint.head).unwrap();
    (head.end_user, head.conversation) = (end_user.map(str::to_owned), conversation.map(str::to_owned));
    checkpoint
}

#[test]
fn all_together_have_a_limit_and_what_does_not_run_makes_room() {
    let folder = Folder::new();
    let store = open(&folder.log());
    let many: Vec<_> = ids().take(600).collect();
    let put = |n: usize, bytes: usize| {
        let segment = vec![b's'; bytes];
        store.checkpoint_stream(StreamCheckpoint { all_bytes_max: 6_000, ..checkpoint(many[n], &segment, n as u64) })
    };
    assert!((0..599).all(|n| put(n, 10).wait().is_ok()));
    assert_eq!(put(599, 11).wait(), Err(StoreError::StreamsFull { max: 6_000 }));
    assert_eq!(store.stream(TENANT, None, many[599]).wait(), Err(StoreError::NotFound), "nothing of it is there");
    assert_eq!(put(599, 10).wait(), Ok(()), "to the byte");
    // One that grows within its own limit takes no more than before.
    let within = StreamCheckpoint { bytes_max: 10, all_bytes_max: 6_000, ..checkpoint(many[599], &[b't'; 10], 599) };
    assert_eq!(store.checkpoint_stream(within).wait(), Ok(()));
    assert_eq!(store.stream(TENANT, None, many[599]).wait().unwrap().segments, [[b't'; 10]]);
    // The oldest go, in steps, but for the one that runs.
    let running = BTreeSet::from([many[0]]);
    assert_eq!(store.shed_streams(3_000, running.clone(), false).wait(), Ok((256, true)));
    assert_eq!(store.shed_streams(3_000, running.clone(), false).wait(), Ok((44, false)));
    assert_eq!(store.shed_streams(3_000, running.clone(), false).wait(), Ok((0, false)));
    let there = |n: usize| store.stream(TENANT, None, many[n]).wait().is_ok();
    assert_eq!([0, 1, 300, 301, 599].map(there), [true, false, false, true, true]);
    assert_eq!(put(0, 3_000).wait(), Ok(()));
    // Only such as run are left.
    let all: BTreeSet<_> = many.iter().copied().collect();
    assert_eq!(store.shed_streams(0, all, false).wait(), Ok((0, false)));
    assert_eq!(put(1, 1).wait(), Err(StoreError::StreamsFull { max: 6_000 }));
    assert_eq!(store.check().wait().unwrap(), [""; 0]);
    // Another opening knows what there is.
    drop(store);
    let store = open(&folder.log());
    let more = |bytes: usize| StreamCheckpoint { all_bytes_max: 6_000, ..checkpoint(many[1], &vec![0; bytes], 1) };
    assert_eq!(store.checkpoint_stream(more(1)).wait(), Err(StoreError::StreamsFull { max: 6_000 }));
}

#[test]
fn streams_go_with_their_end_user_and_with_their_conversation() {
    let folder = Folder::new();
    let store = open(&folder.log());
    story::tell(&store, 1, 1);
    story::tell(&store, 2, 1);
    let (one, two) = (story::address(1), story::address(2));
    let rows = [
        (Some("u-1"), None),
        (Some("u-1"), Some(two.name())),
        (Some("u-2"), Some(one.name())),
        (None, Some(one.name())),
        (None, Some("another")),
        (None, None),
    ];
    let many: Vec<_> = ids().take(rows.len() + 1).collect();
    for (id, (user, conversation)) in many.iter().zip(rows) {
        store.checkpoint_stream(about(*id, user, conversation)).wait().unwrap();
    }
    // Somebody else's of the same names.
    let mut theirs = about(many[6], Some("u-1"), Some(one.name()));
    Arc::get_mut(&mut theirs.head).unwrap().tenant = "other".to_owned();
    store.checkpoint_stream(theirs).wait().unwrap();
    let there = || {
        let kept = |(n, id): (usize, &StreamId)| store.stream(TENANT, None, *id).wait().is_ok().then_some(n);
        many.iter().enumerate().filter_map(kept).collect::<Vec<_>>()
    };
    let kept = store.stream(TENANT, None, many[1]).wait().unwrap().head;
    assert_eq!((kept.end_user.as_deref(), kept.conversation.as_deref()), (Some("u-1"), Some(two.name())));
    let erased = store.erase_streams(TENANT, "u-1").wait().unwrap();
    assert_eq!((erased.streams, erased.wal_cleared, there()), (2, true, vec![2, 3, 4, 5]));
    store.delete(one).wait().unwrap();
    assert_eq!(there(), [4, 5]);
    assert!(store.stream("other", None, many[6]).wait().is_ok());
    assert_eq!(store.check().wait().unwrap(), [""; 0]);
}
