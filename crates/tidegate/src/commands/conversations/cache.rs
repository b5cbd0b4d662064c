//! Long conversations against the simulator's prompt cache: what each turn's input costs with our
//! windows, with a window that the client slides, and with none.
//!
//! All clients say the same things. Those that keep their history themselves mark the system prompt
//! and their last block for the cache, as is recommended; those that leave it to Tidegate mark
//! nothing and send what is new. The window that slides holds the newest turns that fit under the
//! high mark, counted by bytes, as one writes it. Tokens are the API's own, from each answer's
//! `usage`. Cost is in tokens of base input: 0.1 for one read from the cache, 1.25 for one written.

use super::client::{Client, crowd};
use super::site::{Scene, Site};
use super::texts::Kind;
use crate::commands::Failed;
use crate::commands::page::number;
use serde_json::{Value, json};
use std::collections::VecDeque;
use tidegate_base::Prng;

/// The model: its cache wants 1,024 tokens at least, and whole histories fit its window.
const MODEL: &str = "claude-sonnet-4-6";
/// `max_tokens`, as a part of the window.
const MAX_TOKENS_PART: u64 = 20;
/// Bytes of the system prompt, some 1,200 tokens: it is worth caching by itself.
const SYSTEM_BYTES: usize = 4_800;
/// Bytes of what is asked, for a thousand tokens of the window: what counts is how many turns fit.
const ASKED_BYTES: (u64, u64) = (4, 40);
/// Tokens of an answer, for a thousand of the window.
const ANSWERED: (u64, u64) = (4, 12);
/// Tokens a byte of these texts has, as a client would guess.
const BYTES_PER_TOKEN: u64 = 4;
/// The high mark, as a part of the room in percent.
const HIGH_PERCENT: u64 = 75;
/// Clients at once.
const CLIENTS: usize = 8;

/// How much is said, in which window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) talks: usize,
    pub(super) turns: usize,
    pub(super) window: u64,
}

/// Who keeps the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    Kept,
    KeptWithoutRecall,
    Sliding,
    None,
}

impl Leg {
    const ALL: [Leg; 4] = [Leg::None, Leg::Sliding, Leg::Kept, Leg::KeptWithoutRecall];

    fn name(self) -> &'static str {
        match self {
            Leg::Kept => "Tidegate, between two marks",
            Leg::KeptWithoutRecall => "the same, `recall = false`",
            Leg::Sliding => "sliding, by the client",
            Leg::None => "none: all of it, each time",
        }
    }
}

/// Input tokens of some requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    requests: u64,
    plain: u64,
    written: u64,
    read: u64,
}

impl Sums {
    fn add(&mut self, other: Sums) {
        self.requests += other.requests;
        self.plain += other.plain;
        self.written += other.written;
        self.read += other.read;
    }

    fn input(&self) -> u64 {
        self.plain + self.written + self.read
    }

    fn uncached(&self) -> f64 {
        (self.plain + self.written) as f64 / self.requests.max(1) as f64
    }

    fn cells(&self, name: &str) -> Vec<String> {
        let each = |tokens: f64| tokens / self.requests.max(1) as f64;
        let share = 100.0 * self.read as f64 / self.input().max(1) as f64;
        let cost = self.plain as f64 + 1.25 * self.written as f64 + 0.1 * self.read as f64;
        vec![
            name.to_owned(),
            number(each(self.input() as f64), 0),
            format!("{} %", number(share, 1)),
            number(self.uncached(), 0),
            number(each(cost), 0),
        ]
    }
}

/// A client's own history: its messages, and what it takes their tokens to be.
#[derive(Default)]
struct Own {
    messages: VecDeque<(String, u64)>,
}

impl Own {
    fn push(&mut self, role: &str, content: &Value) {
        let text = json!({"role": role, "content": content}).to_string();
        let tokens = text.len() as u64 / BYTES_PER_TOKEN;
        self.messages.push_back((text, tokens));
    }

    /// Drops the oldest turns until the rest fits.
    fn slide(&mut self, high: u64) {
        while self.messages.iter().map(|(_, tokens)| tokens).sum::<u64>() > high && self.messages.len() > 2 {
            self.messages.drain(..2);
        }
    }
}

/// One conversation from its first turn to its last; each turn's input.
fn talk(client: &mut Client, leg: Leg, nth: usize, load: Load, seed: u64) -> Result<Vec<Sums>, Failed> {
    let Load { turns, window, .. } = load;
    let (thousands, max_tokens) = (window / 1_000, window / MAX_TOKENS_PART);
    let mut dice = Prng::new(seed).fork(&format!("talk {nth}"));
    let system = Kind::English.text(&mut Prng::new(seed).fork("system"), SYSTEM_BYTES);
    let mark = json!({"type": "ephemeral"});
    let (mut own, name, budget) = (Own::default(), format!("talk-{nth}"), window.to_string());
    let answered = format!("output_tokens={}-{}", ANSWERED.0 * thousands, ANSWERED.1 * thousands);
    let high = (window - max_tokens - SYSTEM_BYTES as u64 / BYTES_PER_TOKEN) * HIGH_PERCENT / 100;
    let mut sums = Vec::with_capacity(turns);
    for turn in 0..turns {
        let bytes = dice.between(ASKED_BYTES.0 * thousands, ASKED_BYTES.1 * thousands) as usize;
        let asked = format!("{nth}.{turn} {}", Kind::English.text(&mut dice, bytes));
        let is_kept = matches!(leg, Leg::Kept | Leg::KeptWithoutRecall);
        let mut lines = vec![("simulate", answered.as_str())];
        let body = if is_kept {
            lines.extend([("tidegate-conversation", name.as_str()), ("tidegate-budget", &budget)]);
            let system = json!([{"type": "text", "text": system}]);
            let messages = json!([{"role": "user", "content": asked}]).to_string();
            body(max_tokens, &system, &messages)
        } else {
            if leg == Leg::Sliding {
                own.slide(high);
            }
            // The last block has the mark, and none of those before it.
            let new = json!([{"type": "text", "text": asked, "cache_control": mark}]);
            let last = json!({"role": "user", "content": new}).to_string();
            let before: String = own.messages.iter().map(|(text, _)| format!("{text},")).collect();
            own.push("user", &json!([{"type": "text", "text": asked}]));
            let system = json!([{"type": "text", "text": system, "cache_control": mark}]);
            body(max_tokens, &system, &format!("[{before}{last}]"))
        };
        let answer = client.ask(&lines, body.as_bytes())?.json()?;
        if !is_kept {
            own.push("assistant", &answer["content"]);
        }
        let count = |name: &str| answer["usage"][name].as_u64().unwrap_or(0);
        sums.push(Sums {
            requests: 1,
            plain: count("input_tokens"),
            written: count("cache_creation_input_tokens"),
            read: count("cache_read_input_tokens"),
        });
    }
    Ok(sums)
}

fn body(max_tokens: u64, system: &Value, messages: &str) -> String {
    format!("{{\"model\":\"{MODEL}\",\"max_tokens\":{max_tokens},\"system\":{system},\"messages\":{messages}}}")
}

/// Runs the legs; rows for all turns and for those after which the whole history is past the high
/// mark, and a remark for each table.
pub(super) fn run(site: &Site, load: Load) -> Result<Vec<super::Section>, Failed> {
    let Load { talks, turns, window } = load;
    let mut legs = Vec::new();
    for leg in Leg::ALL {
        super::tell(&format!("cache: {}", leg.name()));
        let settings = if leg == Leg::KeptWithoutRecall { "recall = false" } else { "" };
        let scene = Scene::start(site, &format!("cache-{leg:?}"), settings)?;
        let found =
            crowd(&site.stop, scene.gateway, CLIENTS, talks, |client, nth| talk(client, leg, nth, load, site.seed))?;
        let by_turn: Vec<Sums> = (0..turns)
            .map(|turn| {
                let mut sums = Sums::default();
                found.iter().for_each(|talk| sums.add(talk[turn]));
                sums
            })
            .collect();
        legs.push((leg, by_turn));
    }
    let high = window * HIGH_PERCENT / 100;
    // The first turn at which the whole history has outgrown the window: from there they differ.
    let whole = legs.iter().find(|(leg, _)| *leg == Leg::None).map(|(_, sums)| sums);
    let from = whole.and_then(|sums| sums.iter().position(|s| s.input() > high * s.requests)).unwrap_or(turns);
    let mut sections = Vec::new();
    for (what, first) in [("all turns".to_owned(), 0), (format!("from turn {} on, past the high mark", from + 1), from)]
    {
        let mut rows = vec![["window", "input", "of it cached", "uncached", "cost"].map(str::to_owned).to_vec()];
        let mut uncached = Vec::new();
        for (leg, by_turn) in &legs {
            let mut sums = Sums::default();
            by_turn.iter().skip(first).for_each(|turn| sums.add(*turn));
            uncached.push((*leg, sums.uncached()));
            rows.push(sums.cells(leg.name()));
        }
        let of = |leg: Leg| uncached.iter().find(|(one, _)| *one == leg).map_or(0.0, |(_, tokens)| *tokens);
        let ratio = |leg| number(of(Leg::Sliding) / of(leg).max(1.0), 1);
        let note = format!(
            "{talks} conversations of {turns} turns, {what}, in a window of {window} tokens; tokens per request. Uncached input, sliding over Tidegate's: {} times; without recall {} times.",
            ratio(Leg::Kept),
            ratio(Leg::KeptWithoutRecall)
        );
        sections.push(super::Section { title: format!("Prompt cache, {what}"), rows, note });
        if from == turns {
            break;
        }
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_slides_by_whole_turns_and_keeps_the_last() {
        let mut own = Own::default();
        for nth in 0..5 {
            own.push("user", &json!(format!("{nth}{}", "x".repeat(400))));
            own.push("assistant", &json!("y".repeat(400)));
        }
        own.slide(500);
        assert_eq!(own.messages.len(), 4);
        assert!(own.messages[0].0.contains("\"3x"), "{}", own.messages[0].0);
        own.slide(1);
        assert_eq!(own.messages.len(), 2);
    }

    #[test]
    fn a_token_that_is_read_costs_a_tenth_and_one_that_is_written_a_quarter_more() {
        let sums = Sums { requests: 2, plain: 100, written: 400, read: 1_500 };
        assert_eq!(sums.cells("x"), ["x", "1,000", "75.0 %", "250", "375"]);
    }
}
