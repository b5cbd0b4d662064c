//! What an event of a Messages stream costs on its way past: splitting, tapping, merging, and
//! putting a stream together into JSON.
//!
//! `cargo bench -p tidegate-wire --bench stream` (add `-- --quick` for a first look). Figures per
//! element are per event. They are for comparing two states of the code on one quiet machine.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tidegate_wire::assemble::Assembler;
use tidegate_wire::event::{Kind, Tap, plain_delta};
use tidegate_wire::merge::merge;
use tidegate_wire::sse::Splitter;

const DELTAS: usize = 500;
const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_01\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-haiku-5-5\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n";
const BLOCK: &str = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
const END: &str = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":500}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

fn delta(text: &str) -> String {
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
    )
}

/// The texts that are measured: as most deltas are, and with an escape, which takes the slow way.
const TEXTS: [(&str, &str); 2] = [("plain", " quiet harbour"), ("escaped", " quiet\\nharbour")];

fn stream(text: &str) -> String {
    [START, BLOCK, &delta(text).repeat(DELTAS), END].concat()
}

/// Splits and taps `stream`, read in pieces of `read_bytes`; how many deltas went by.
fn tapped(stream: &[u8], read_bytes: usize) -> usize {
    let (mut splitter, mut tap, mut deltas) = (Splitter::new(), Tap::new(), 0);
    for read in stream.chunks(read_bytes) {
        let fed = splitter.feed(read, |event| deltas += usize::from(tap.see(event) == Ok(Kind::BlockDelta)));
        assert!(fed.is_ok());
    }
    assert!(tap.stopped);
    deltas
}

fn tap(c: &mut Criterion) {
    let mut group = c.benchmark_group("splitter and tap");
    group.throughput(Throughput::Elements(DELTAS as u64));
    for (name, text) in TEXTS {
        let stream = stream(text);
        group.bench_function(name, |b| {
            b.iter(|| assert_eq!(tapped(black_box(stream.as_bytes()), stream.len()), DELTAS))
        });
    }
    let stream = stream(TEXTS[0].1);
    group.bench_function("plain, cut anywhere", |b| {
        b.iter(|| assert_eq!(tapped(black_box(stream.as_bytes()), 100), DELTAS))
    });
    group.finish();
}

fn deltas(c: &mut Criterion) {
    let mut group = c.benchmark_group("plain_delta");
    for (name, text) in TEXTS {
        let event = delta(text);
        group.bench_function(name, |b| b.iter(|| assert!(plain_delta(black_box(event.as_bytes())).is_some())));
    }
    group.finish();
}

fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("whole stream");
    group.throughput(Throughput::Elements(DELTAS as u64));
    let stream = stream(TEXTS[0].1);
    group.bench_function("merge", |b| b.iter(|| black_box(merge(black_box(stream.as_bytes()))).len()));
    group.bench_function("assemble", |b| {
        b.iter(|| {
            let (mut splitter, mut assembler) = (Splitter::new(), Assembler::new());
            let fed = splitter.feed(black_box(stream.as_bytes()), |event| assert!(assembler.add(event).is_ok()));
            assert!(fed.is_ok());
            let answer = assembler.finish();
            assert!(answer.is_ok());
            answer
        });
    });
    group.finish();
}

criterion_group!(benches, tap, deltas, whole);
criterion_main!(benches);
