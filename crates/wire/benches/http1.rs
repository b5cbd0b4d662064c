//! What HTTP/1.1 costs as bytes: a request's head, and a chunked body of small events.
//!
//! `cargo bench -p tidegate-wire --bench http1` (add `-- --quick` for a first look). The figures
//! are for comparing two states of the code on one quiet machine, not for the docs.

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tidegate_wire::http::{BodyDecoder, BodyStep, Framing, chunk_end, chunk_start, last_chunk};
use tidegate_wire::http::{parse_request, parse_response};

/// What the Python SDK sends, line for line.
const REQUEST: &str = "POST /v1/messages HTTP/1.1\r\n\
    Host: 127.0.0.1:4600\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Connection: keep-alive\r\n\
    Accept: application/json\r\n\
    Content-Type: application/json\r\n\
    User-Agent: Anthropic/Python 2.4.0\r\n\
    X-Stainless-Lang: python\r\n\
    X-Stainless-Package-Version: 2.4.0\r\n\
    X-Stainless-OS: Linux\r\n\
    X-Stainless-Arch: x64\r\n\
    X-Stainless-Runtime: CPython\r\n\
    X-Stainless-Runtime-Version: 3.11.2\r\n\
    X-Api-Key: sk-ant-api03-0000000000000000000000000000000000000000000000000000\r\n\
    X-Stainless-Async: false\r\n\
    anthropic-version: 2023-06-01\r\n\
    x-stainless-retry-count: 0\r\n\
    x-stainless-read-timeout: 600\r\n\
    Content-Length: 412\r\n\r\n";

const RESPONSE: &str = "HTTP/1.1 200 OK\r\n\
    date: Sun, 22 Nov 2026 12:00:00 GMT\r\n\
    content-type: text/event-stream; charset=utf-8\r\n\
    cache-control: no-cache\r\n\
    anthropic-ratelimit-requests-limit: 4000\r\n\
    anthropic-ratelimit-requests-remaining: 3999\r\n\
    anthropic-ratelimit-requests-reset: 2026-11-22T12:00:00Z\r\n\
    anthropic-ratelimit-input-tokens-limit: 2000000\r\n\
    anthropic-ratelimit-input-tokens-remaining: 1999000\r\n\
    anthropic-ratelimit-input-tokens-reset: 2026-11-22T12:00:00Z\r\n\
    anthropic-ratelimit-output-tokens-limit: 400000\r\n\
    anthropic-ratelimit-output-tokens-remaining: 399000\r\n\
    anthropic-ratelimit-output-tokens-reset: 2026-11-22T12:00:00Z\r\n\
    request-id: req_011CUx7bJ9Q5r8WmZk3nYtEa\r\n\
    anthropic-organization-id: 00000000-0000-0000-0000-000000000000\r\n\
    transfer-encoding: chunked\r\n\r\n";

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    for (name, text) in [("request", REQUEST), ("response", RESPONSE)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| {
            b.iter_batched(
                || BytesMut::from(text),
                |mut read| match name {
                    "request" => assert!(black_box(parse_request(&mut read)).is_ok_and(|head| head.is_some())),
                    _ => assert!(black_box(parse_response(&mut read, false)).is_ok_and(|head| head.is_some())),
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A chunked body, walked in reads of 64 KiB and of 125 bytes (one event a read).
fn chunked(c: &mut Criterion) {
    const CHUNKS: usize = 500;
    let mut wire = BytesMut::new();
    for _ in 0..CHUNKS {
        chunk_start(&mut wire, 125);
        wire.extend_from_slice(&[b'x'; 125]);
        chunk_end(&mut wire);
    }
    last_chunk(&mut wire);
    let mut group = c.benchmark_group("chunked decode, per chunk of 125 B");
    group.throughput(Throughput::Elements(CHUNKS as u64));
    for (name, read_bytes) in [("read at once", wire.len()), ("a read each", 131)] {
        group.bench_function(name, |b| b.iter(|| assert_eq!(decoded(black_box(&wire), read_bytes), CHUNKS * 125)));
    }
    group.finish();
}

fn decoded(wire: &[u8], read_bytes: usize) -> usize {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut data = 0;
    for read in wire.chunks(read_bytes) {
        let mut at = 0;
        loop {
            match decoder.step(&read[at..]) {
                Ok(BodyStep::Data(range)) => {
                    data += range.len();
                    at += range.end;
                }
                Ok(BodyStep::More) => break,
                Ok(BodyStep::End(_)) | Err(_) => return data,
            }
        }
    }
    data
}

criterion_group!(benches, heads, chunked);
criterion_main!(benches);
