//! Durable appends per second by how many come together, and reading a conversation of 40 turns.
//!
//! Each append is on the disk before it is counted. The file is in `TIDEGATE_BENCH_DIR`, or in the
//! target's folder: a disk, where a temporary folder may be memory. *Hot* reads from an open store;
//! *cold* opens the file first, with SQLite's caches empty and the kernel's not.

#![allow(clippy::unwrap_used, reason = "a bench ends when it cannot go on")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::path::PathBuf;
use tidegate_store::{Address, NewTurn, Settings, Status, Store, TurnContent};

/// A turn of the usual size: two kilobytes in, three out.
fn turn(conversation: usize) -> NewTurn {
    let mut content =
        TurnContent::appended(format!("[{{\"role\":\"user\",\"content\":\"{}\"}}]", "word ".repeat(400)).into());
    content.status = Status::Complete;
    content.answer = Some(format!("{{\"role\":\"assistant\",\"content\":\"{}\"}}", "word ".repeat(600)).into());
    content.end_user = Some(format!("user-{}", conversation % 50));
    let address = address(conversation);
    NewTurn { address, expected: None, now_ms: 1, content, window: None, vault: None }
}

fn address(conversation: usize) -> Address {
    Address::new("bench", &format!("c-{conversation}")).unwrap()
}

fn file(name: &str) -> PathBuf {
    let folder = std::env::var_os("TIDEGATE_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let folder = folder.join(format!("bench-log-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

fn appends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("durable appends");
    for together in [1, 16, 128] {
        let store = Store::open(&file(&format!("{together}.db")), Settings::default()).unwrap();
        group.throughput(Throughput::Elements(together as u64));
        group.bench_function(format!("{together} together"), |bencher| {
            bencher.iter(|| {
                let asked: Vec<_> = (0..together).map(|conversation| store.append(turn(conversation))).collect();
                asked.into_iter().for_each(|answer| assert!(answer.wait().is_ok()));
            });
        });
    }
    // The closed loop of a gateway's clients: each asks again when it was answered.
    let store = Store::open(&file("loop.db"), Settings::default()).unwrap();
    group.throughput(Throughput::Elements(16 * 8));
    group.bench_function("16 writers, each waits for its own", |bencher| {
        bencher.iter(|| {
            std::thread::scope(|scope| {
                for writer in 0..16 {
                    let store = &store;
                    scope.spawn(move || (0..8).for_each(|_| assert!(store.append(turn(writer)).wait().is_ok())));
                }
            });
        });
    });
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    let path = file("reads.db");
    let store = Store::open(&path, Settings::default()).unwrap();
    for _ in 0..40 {
        let asked: Vec<_> = (0..200).map(|conversation| store.append(turn(conversation))).collect();
        asked.into_iter().for_each(|answer| assert!(answer.wait().is_ok()));
    }
    let read = |store: &Store, conversation| {
        let history = store.read(address(conversation), 1).wait().unwrap();
        assert_eq!(history.turns.len(), 40);
        history
    };
    let mut group = criterion.benchmark_group("40 turns");
    group.bench_function("hot", |bencher| bencher.iter(|| read(&store, 7)));
    drop(store);
    let mut next = 0;
    group.bench_function("cold", |bencher| {
        bencher.iter_batched(
            || {
                next = (next + 37) % 200;
                (Store::open(&path, Settings { readers: 1, ..Settings::default() }).unwrap(), next)
            },
            |(store, conversation)| (read(&store, conversation), store),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    let _ = std::fs::remove_dir_all(path.parent().unwrap());
}

criterion_group!(benches, appends, reads);
criterion_main!(benches);
