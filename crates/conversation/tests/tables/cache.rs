//! How much of each request the prompt cache holds: windows between two marks, against a window
//! that slides and against none at all.
//!
//! The cache is modelled as the API has it: what was sent before is known by its bytes from the
//! beginning; of a request, the longest beginning that equals what one of this conversation's
//! earlier requests began with is read, the rest is written. Breakpoints are taken to be everywhere
//! and nothing to expire, which is kind to all three alike. The system prompt is left out.
//!
//! Costs are in input tokens: 0.1 for one that is read, 1.25 for one that is written.

use super::{estimate, talks};
use bytes::Bytes;
use tidegate_base::Prng;
use tidegate_conversation::budget::{Budget, Rules};
use tidegate_conversation::history::History;
use tidegate_conversation::message::Message;
use tidegate_conversation::window::{View, Wanted, build};

const TURNS: u64 = 200;
/// The window that is to be held: the room of a model with 200,000 tokens.
const ROOM: u64 = 200_000;

#[derive(Clone, Copy, Default)]
struct Sums {
    turns: u64,
    sent: u64,
    read: u64,
}

impl Sums {
    fn row(&self, name: &str) -> String {
        let turns = self.turns.max(1);
        let uncached = self.sent - self.read;
        let share = 100.0 * self.read as f64 / self.sent.max(1) as f64;
        let cost = 0.1 * self.read as f64 + 1.25 * uncached as f64;
        format!("| {name} | {} | {share:.1} % | {} | {:.0} |", self.sent / turns, uncached / turns, cost / turns as f64)
    }

    fn uncached(&self) -> f64 {
        (self.sent - self.read) as f64
    }
}

/// One cache entry is enough: each request is compared with the one before.
struct Cache {
    before: Vec<(Bytes, u64)>,
    sums: Sums,
    late: Sums,
}

impl Cache {
    fn new() -> Self {
        Cache { before: Vec::new(), sums: Sums::default(), late: Sums::default() }
    }

    /// `full`: whether the conversation has outgrown the window, where the three begin to differ.
    fn send(&mut self, request: Vec<(Bytes, u64)>, full: bool) {
        let same = request.iter().zip(&self.before).take_while(|(now, then)| now.0 == then.0);
        let read: u64 = same.map(|(now, _)| now.1).sum();
        let sent: u64 = request.iter().map(|(_, tokens)| tokens).sum();
        for sums in [Some(&mut self.sums), full.then_some(&mut self.late)].into_iter().flatten() {
            sums.turns += 1;
            sums.sent += sent;
            sums.read += read;
        }
        self.before = request;
    }
}

/// A user's turn and its answer, some 2,000 tokens; a third of them with a tool call.
fn turn(prng: &mut Prng, nth: u64) -> Vec<Vec<String>> {
    let text = |prng: &mut Prng, from: u64, to: u64| {
        let words = ["harbour ", "ledger ", "quiet ", "invoice ", "tide ", "gate "];
        let bytes = prng.between(from, to) as usize;
        let mut text = String::with_capacity(bytes + 8);
        while text.len() < bytes {
            text.push_str(prng.pick(&words).copied().unwrap_or("x"));
        }
        text
    };
    let asked = format!(r#"{{"role":"user","content":"{nth} {}"}}"#, text(prng, 200, 2_000));
    let answer = format!(r#"{{"role":"assistant","content":"{}"}}"#, text(prng, 1_000, 6_000));
    if !prng.chance(0.33) {
        return vec![vec![asked], vec![answer]];
    }
    let call = format!(
        r#"{{"role":"assistant","content":[{{"type":"tool_use","id":"t{nth}","name":"read","input":{{"path":"{nth}"}}}}]}}"#
    );
    let result = format!(
        r#"{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t{nth}","content":"{}"}}]}}"#,
        text(prng, 1_000, 15_000)
    );
    vec![vec![asked], vec![call, result], vec![answer]]
}

struct Three {
    marks: Cache,
    sliding: Cache,
    none: Cache,
}

fn run(seed: u64, three: &mut Three) {
    let mut prng = Prng::new(seed).fork("cache");
    let mut history = History::default();
    let mut view = View::default();
    for cache in [&mut three.marks, &mut three.sliding, &mut three.none] {
        cache.before.clear();
    }
    for nth in 0..TURNS {
        let mut steps = turn(&mut prng, nth);
        let answer = steps.pop().unwrap_or_default();
        for step in steps {
            push(&mut history, step);
            let window = build(&Wanted {
                history: &history,
                view: &view,
                budget: Budget { window: ROOM, max_tokens: 0, margin: 0, fixed: 0 },
                rules: Rules::default(),
                conversation: seed,
                summary: None,
                recalled: None,
                marks_elsewhere: 0,
                set_marks: false,
                estimate: &estimate,
            })
            .unwrap();
            view = window.view;
            let all: Vec<(Bytes, u64)> =
                history.entries().iter().map(|entry| (entry.message.raw().clone(), entry.tokens)).collect();
            let total: u64 = all.iter().map(|(_, tokens)| tokens).sum();
            // A sliding window as one writes it: the newest groups that fit under the same mark.
            let high = Rules::default().marks(ROOM, seed).high;
            let mut from = history.len();
            let mut sum = 0;
            for group in (0..history.group_count()).rev().map(|nth| history.group(nth)) {
                sum += all[group.clone()].iter().map(|(_, tokens)| tokens).sum::<u64>();
                if sum > high && from < history.len() {
                    break;
                }
                from = group.start;
            }
            let full = total > high;
            let sent = window.messages.into_iter().map(|text| (text.clone(), estimate(&text))).collect();
            three.marks.send(sent, full);
            three.sliding.send(all[from..].to_vec(), full);
            three.none.send(all, full);
        }
        push(&mut history, answer);
    }
}

fn push(history: &mut History, texts: Vec<String>) {
    for text in texts {
        let message = Message::read(Bytes::from(text)).unwrap();
        let tokens = message.tokens(&estimate);
        history.push(message, tokens).unwrap();
    }
}

#[test]
fn a_window_between_two_marks_writes_a_tenth_of_what_a_sliding_one_does() {
    let mut three = Three { marks: Cache::new(), sliding: Cache::new(), none: Cache::new() };
    (0..talks()).for_each(|seed| run(seed, &mut three));
    let names = ["between two marks", "sliding", "none (all of it)"];
    let caches = [&three.marks, &three.sliding, &three.none];
    for (title, sums) in [("all requests", caches.map(|c| c.sums)), ("once past the high mark", caches.map(|c| c.late))]
    {
        println!("\n{} conversations of {TURNS} turns, {title}, tokens per request:\n", talks());
        println!("| window | input | of it cached | uncached | cost |\n|---|---|---|---|---|");
        names.iter().zip(&sums).for_each(|(name, sums)| println!("{}", sums.row(name)));
    }
    let ratio = three.sliding.late.uncached() / three.marks.late.uncached();
    println!("\nuncached input once past the mark, sliding over between two marks: {ratio:.1}");
    assert!(ratio >= 10.0, "only {ratio:.1} times less uncached input than sliding");
}
