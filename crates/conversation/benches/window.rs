//! What a turn of a long conversation costs before it is sent: its window, its place in the index,
//! the search for what it needs.
//!
//! `cargo bench -p tidegate-conversation` (add `-- --quick` for a first look). The conversation has
//! 200 turns of some 4 KB. Figures are for comparing two states of the code on one quiet machine.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tidegate_base::Prng;
use tidegate_conversation::budget::{Budget, Rules};
use tidegate_conversation::history::{Form, History, Match};
use tidegate_conversation::message::{Message, read_all};
use tidegate_conversation::recall::{Index, recall};
use tidegate_conversation::window::{View, Wanted, build};

const TURNS: usize = 200;

fn estimate(text: &[u8]) -> u64 {
    text.len() as u64 / 4
}

fn texts() -> Vec<String> {
    let mut prng = Prng::new(1);
    let words = ["harbour", "ledger", "quiet", "invoice", "tide", "gate", "port", "wall", "oak", "pump"];
    let mut text = |bytes: usize| {
        let mut text = String::new();
        while text.len() < bytes {
            text.push_str(prng.pick(&words).copied().unwrap_or("x"));
            text.push_str(&format!(" {} ", prng.below(1_000)));
        }
        text
    };
    let turn = |nth: usize| {
        [
            format!(r#"{{"role":"user","content":[{{"type":"text","text":"{nth} {}"}}]}}"#, text(1_000)),
            format!(r#"{{"role":"assistant","content":[{{"type":"text","text":"{}"}}]}}"#, text(3_000)),
        ]
    };
    let mut texts: Vec<String> = (0..TURNS).flat_map(turn).collect();
    texts.push(r#"{"role":"user","content":"where was invoice 17 in the harbour?"}"#.to_owned());
    texts
}

fn history(texts: &[String]) -> History {
    let mut history = History::default();
    for text in texts {
        let message = Message::read(Bytes::copy_from_slice(text.as_bytes())).expect("a message");
        let tokens = message.tokens(&estimate);
        history.push(message, tokens).expect("room");
    }
    history
}

fn wanted<'a>(history: &'a History, view: &'a View, window: u64) -> Wanted<'a> {
    Wanted {
        history,
        view,
        budget: Budget { window, max_tokens: 0, margin: 0, fixed: 0 },
        rules: Rules::default(),
        conversation: 50,
        summary: None,
        recalled: None,
        marks_elsewhere: 0,
        set_marks: true,
        estimate: &estimate,
    }
}

fn windows(c: &mut Criterion) {
    let texts = texts();
    let history = history(&texts);
    let mut group = c.benchmark_group("window of 200 turns");
    let first = View::default();
    group.bench_function("all fits", |b| b.iter(|| build(black_box(&wanted(&history, &first, 1_000_000)))));
    group.bench_function("the turn that cuts", |b| b.iter(|| build(black_box(&wanted(&history, &first, 150_000)))));
    let view = build(&wanted(&history, &first, 150_000)).expect("a window").view;
    group.bench_function("a turn after the cut", |b| b.iter(|| build(black_box(&wanted(&history, &view, 150_000)))));
    group.finish();
}

fn bodies(c: &mut Criterion) {
    let texts = texts();
    let history = history(&texts[..texts.len() - 1]);
    let body = Bytes::from(format!("[{}]", texts.join(",")));
    let mut group = c.benchmark_group("body of 200 turns");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("read", |b| b.iter(|| read_all(black_box(&body))));
    let read = read_all(&body).expect("messages");
    group.bench_function("matched", |b| {
        b.iter(|| assert_eq!(history.matches(black_box(&read), Form::Unknown), Match::Continues { from: 2 * TURNS }))
    });
    group.finish();
}

fn search(c: &mut Criterion) {
    let history = history(&texts());
    let mut group = c.benchmark_group("recall in 200 turns");
    group.sample_size(50);
    group.bench_function("index all", |b| {
        b.iter(|| {
            let mut index = Index::default();
            index.add(black_box(&history));
            index.len()
        })
    });
    let mut index = Index::default();
    index.add(&history);
    let view = View { cut: 300, ..View::default() };
    let query = "where was invoice 17 in the harbour?";
    group.bench_function("query to block", |b| {
        b.iter(|| recall(&index, &history, &view, black_box(query), 2_000, &estimate))
    });
    group.finish();
}

criterion_group!(benches, windows, bodies, search);
criterion_main!(benches);
