//! What masking a request and restoring its answer cost, by how many values the conversation has.
//!
//! `cargo bench -p tidegate-redact --bench mask` (add `-- --quick` for a first look). A body of 4 KB
//! with two values that have tokens already; a delta of the usual size, without a token and with one.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use tidegate_redact::detect::Scratch;
use tidegate_redact::mask::{Filter, Scopes};
use tidegate_redact::restore::{Live, StreamRestorer};
use tidegate_redact::rules::{Policy, Rules};
use tidegate_redact::vault::{ScopeKey, Vault};

const PROSE: &str = "The harbour was quiet that morning, and the keeper of the gate measured the water twice. ";

fn delta(text: &str) -> String {
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
    )
}

fn mask(c: &mut Criterion) {
    let Ok(filter) = Filter::new(Rules::all(Policy::Mask)) else { return };
    let body = format!(
        r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"{0}call 13800000000{0}mail 1@example.com"}}]}}"#,
        PROSE.repeat(22)
    );
    let mut group = c.benchmark_group("mask");
    for values in [0u64, 10, 100, 1_000] {
        let mut vault = Vault::new(ScopeKey::derive(&[3; 32], "t", Some("c")));
        let mut scratch = Scratch::default();
        for n in 0..values {
            let mut scopes = Scopes { own: &mut vault, shared: None };
            let text = format!("call {}, mail {n}@example.com", 13_800_000_000 + n);
            if filter.mask_text(&text, Some(&mut scopes), &mut scratch).is_err() {
                return;
            }
        }
        let mut run = || {
            let mut scopes = Scopes { own: &mut vault, shared: None };
            filter.mask_request(black_box(body.as_bytes()), Some(&mut scopes), &mut scratch).is_ok()
        };
        group.bench_function(BenchmarkId::new("4 KB, known values", 2 * values), |b| b.iter(&mut run));
        let live = Arc::new(Live::of([&vault]));
        let token = vault.known("13800000000").map_or(String::new(), |token| token.as_str().to_owned());
        for (name, text) in
            [("delta without a token", " quiet harbour"), ("delta with one", &format!(" call {token}."))]
        {
            let event = delta(text);
            let mut restorer = StreamRestorer::new(Arc::clone(&live));
            let mut out = Vec::with_capacity(1024);
            group.bench_function(BenchmarkId::new(name, 2 * values), |b| {
                b.iter(|| {
                    out.clear();
                    restorer.event(black_box(event.as_bytes()), &mut out);
                    out.len()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, mask);
criterion_main!(benches);
