//! What looking into a request's body costs: its bytes by class, what may be cached, what it refers
//! to.
//!
//! `cargo bench -p tidegate-wire --bench body` (add `-- --quick` for a first look). Throughput is in
//! bytes of the body; 1 GiB/s is a nanosecond a byte.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tidegate_wire::cached::cached;
use tidegate_wire::mix::mix;
use tidegate_wire::references::named;
use tidegate_wire::request::MessagesRequest;

fn body(content: &str) -> String {
    format!(
        "{{\"model\":\"claude-haiku-5-5\",\"max_tokens\":100,\"messages\":[{{\"role\":\"user\",\"content\":[{{\"type\":\"text\",\"text\":\"{content}\",\"cache_control\":{{\"type\":\"ephemeral\"}}}}]}}]}}"
    )
}

/// Contents of some 100 KB: prose, Chinese, Chinese in escapes, and an image.
fn contents() -> [(&'static str, String); 5] {
    [
        ("short", "How is the harbour today?".to_owned()),
        ("prose", "The harbour was quiet at 6 in the morning, as it always is. ".repeat(1_700)),
        ("chinese", "今天早上六点的港口很安静，一如既往。".repeat(1_900)),
        ("escapes", "\\u4eca\\u5929\\u65e9\\u4e0a\\n".repeat(3_800)),
        ("base64", "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ".repeat(2_300)),
    ]
}

fn of_a_body(c: &mut Criterion) {
    for (name, content) in contents() {
        let text = body(&content);
        let bytes = text.as_bytes();
        let read = MessagesRequest::read(bytes);
        assert!(read.is_ok());
        let Ok(request) = read else { return };
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("mix", |b| b.iter(|| mix(black_box(bytes))));
        group.bench_function("cached", |b| {
            b.iter(|| cached(black_box(bytes), &request.parts, &request.model, "tenant", [1, 2]));
        });
        group.bench_function("references", |b| {
            b.iter(|| {
                let mut ids = 0;
                named(black_box(bytes), &request.parts, |_| ids += 1);
                ids
            });
        });
        group.bench_function("read", |b| b.iter(|| MessagesRequest::read(black_box(bytes))));
        group.finish();
    }
}

criterion_group!(benches, of_a_body);
criterion_main!(benches);
