//! What a scan costs: prose of two scripts without a hit, a prompt of 1 KB, logs, tables of numbers, and
//! texts made to be slow.
//!
//! `cargo bench -p tidegate-redact --bench scan` (add `-- --quick` for a first look). One thread; a
//! text is scanned whole, the shadow included, with buffers that were used before.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tidegate_redact::detect::{Detector, Looking, Scratch};

const ENGLISH: &str = "The harbour was quiet that morning, and the keeper of the gate measured the water twice before he \
    opened it. Nobody had asked for a reason; the river rose slowly, as it did every spring, and carried what the winter \
    had left of the old bridge. \"We should wait,\" she said, \"until the boats are back.\" He did not answer at once.\n";
const CHINESE: &str = "那天早晨港口很安静，守闸的人在开闸之前量了两次水位。没有人问过为什么；河水像每年春天一样慢慢上涨，\
    带走了冬天留下的旧桥的残骸。她说：“我们应该等一等，等船都回来。”他没有马上回答，只是望着远处的灯光。\n";
const LOG: &str = "2026-11-23T13:22:34.123Z INFO gateway request=01J9ZK3Q5T7V8W9X0Y1Z2A3B4C status=200 bytes=48213 ms=153 \
    lane=3 trace=4bf92f3577b34da6a3ce929d0e0e4736\n";
const TABLE: &str = "4821 9377 1204 5566 8123 4410 9921 3307 6645 1180 2231 7719\n";

fn text(sample: &str, bytes: usize) -> String {
    let mut text = sample.repeat(bytes / sample.len() + 1);
    let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text
}

fn scan(c: &mut Criterion) {
    let Ok(detector) = Detector::new(&Looking::default()) else { return };
    let mut group = c.benchmark_group("scan");
    let slow = "sk-a@1.2:3 eyJ-(at)".repeat(60_000);
    let texts = [
        ("english prose", text(ENGLISH, 1 << 20)),
        ("chinese prose", text(CHINESE, 1 << 20)),
        ("prompt of 1 KB", text(ENGLISH, 1 << 10)),
        ("logs", text(LOG, 1 << 20)),
        ("table of numbers", text(TABLE, 1 << 20)),
        ("prefixes and nothing else", slow),
    ];
    for (name, text) in &texts {
        let mut scratch = Scratch::default();
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(*name, |b| b.iter(|| detector.find_with(&mut scratch, black_box(text)).len()));
    }
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
