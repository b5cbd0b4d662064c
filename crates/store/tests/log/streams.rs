//! Durable streams: their segments in order, within their bytes, their owner's only, for their time.

use crate::story::TENANT;
use crate::{Folder, open};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_base::{IdSource, Prng, StreamId};
use tidegate_store::{StoreError, StreamCheckpoint, StreamHead};

/// A checkpoint of `stream` at `now_ms`.
pub(crate) fn checkpoint(stream: StreamId, segment: &[u8], now_ms: u64) -> StreamCheckpoint {
    let head = b"HTTP/1.1 200 OK\r\nrequest-id: r\r\n\r\n".to_vec();
    let (tenant, request_id) = (TENANT.to_owned(), "req_1".to_owned());
    let head = StreamHead { stream, tenant, own: None, request_id, head, vault: None };
    StreamCheckpoint { head: Arc::new(head), segment: segment.to_vec(), ended: false, now_ms, bytes_max: 1 << 20 }
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
