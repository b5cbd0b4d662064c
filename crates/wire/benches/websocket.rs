//! What WebSocket frames cost: unmasking, reading messages, writing events.
//!
//! `cargo bench -p tidegate-wire --bench websocket` (add `-- --quick` for a first look). Figures per
//! element are per message. They are for comparing two states of the code on one quiet machine.

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tidegate_wire::dialect::tidegate_v1::{EventPlace, ServerFrame, write_event};
use tidegate_wire::websocket::{Event, MessageReader, Opcode, ReadRules, Role, mask, write_frame};

const MESSAGES: usize = 500;
const RULES: ReadRules = ReadRules { role: Role::Server, frame_bytes_max: 1 << 20, message_bytes_max: 1 << 20 };
const EVENT: &str = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" quiet harbour"}}"#;

fn masking(c: &mut Criterion) {
    let mut group = c.benchmark_group("mask");
    for size in [100, 64 * 1024] {
        let mut bytes = vec![7u8; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("{size} bytes"), |b| b.iter(|| mask(black_box(&mut bytes), [1, 2, 3, 4], 1)));
    }
    group.finish();
}

/// Reads `stream` in pieces of `read_bytes`; how many messages came.
fn read(stream: &mut [u8], read_bytes: usize) -> usize {
    let (mut reader, mut messages) = (MessageReader::new(RULES), 0);
    for piece in stream.chunks_mut(read_bytes) {
        let (mut at, end) = (0, piece.len());
        while at < end {
            let Ok(step) = reader.step(&mut piece[at..]) else { return messages };
            at += step.used;
            messages += usize::from(matches!(step.event, Some(Event::Text(_))));
        }
    }
    messages
}

fn reading(c: &mut Criterion) {
    let mut stream = BytesMut::new();
    (0..MESSAGES).for_each(|_| write_frame(&mut stream, Opcode::Text, true, Some([1, 2, 3, 4]), EVENT.as_bytes()));
    let mut group = c.benchmark_group("messages read");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for (name, read_bytes) in [("at once", stream.len()), ("cut anywhere", 70)] {
        group.bench_function(name, |b| {
            let run = |mut stream: BytesMut| assert_eq!(read(&mut stream, read_bytes), MESSAGES);
            b.iter_batched(|| stream.clone(), run, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn events(c: &mut Criterion) {
    let mut group = c.benchmark_group("stream.event");
    group.throughput(Throughput::Elements(1));
    let place = EventPlace { id: "a1", first_seq: 41, seq: 42, cursor: None };
    let mut out = BytesMut::with_capacity(1 << 16);
    group.bench_function("written", |b| {
        b.iter(|| {
            out.clear();
            write_event(&mut out, black_box(&place), EVENT.as_bytes(), None);
        });
    });
    let text = format!(r#"{{"type":"stream.event","id":"a1","first_seq":41,"seq":42,"event":{EVENT}}}"#);
    group.bench_function("read", |b| b.iter(|| assert!(ServerFrame::read(black_box(&text)).is_ok())));
    group.finish();
}

criterion_group!(benches, masking, reading, events);
criterion_main!(benches);
