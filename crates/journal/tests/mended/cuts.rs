//! Any reply, cut anywhere, up to twice, is one whole message in the end, or is given up for a reason
//! the table knows; what a client has seen is never taken back.
//!
//! Texts are of words that occur once, so that no repetition is one by chance: seams have a test of
//! their own. `TIDEGATE_CUTS` says how many seeds (2,000), `TIDEGATE_CUTS_FROM` from which on.

use crate::play::*;
use serde_json::{Value, json};
use tidegate_base::Prng;
use tidegate_journal::recover::{Action, Mode, Rules, Unmendable};

#[derive(Clone, Debug, PartialEq)]
enum Block {
    Thinking(String),
    Text(String),
    Call(String),
}

struct Reply {
    blocks: Vec<Block>,
    number: u64,
}

impl Reply {
    fn new(dice: &mut Prng) -> Self {
        let mut blocks = Vec::new();
        let mut words = 0;
        let mut prose = |dice: &mut Prng| {
            let count = dice.between(1, 40);
            words += count;
            (words - count..words).map(|word| format!("wört{word}x ")).collect::<String>()
        };
        if dice.chance(0.3) {
            blocks.push(Block::Thinking(prose(dice)));
        }
        for _ in 0..dice.between(1, 2) {
            blocks.push(Block::Text(prose(dice)));
        }
        for call in 0..dice.between(0, 2) {
            blocks.push(Block::Call(json!({"call": call, "x": prose(dice)}).to_string()));
        }
        Reply { blocks, number: 1 }
    }

    /// Its events, cut into deltas anywhere.
    fn events(&self, dice: &mut Prng) -> Vec<Vec<u8>> {
        let mut events = vec![start(self.number)];
        for (index, block) in self.blocks.iter().enumerate() {
            let index = index as u32;
            let (begun, piece, whole): (_, fn(u32, &str) -> Vec<u8>, _) = match block {
                Block::Thinking(whole) => (thinking_block(index), thinking, whole),
                Block::Text(whole) => (text_block(index), text, whole),
                Block::Call(whole) => (call(index, &format!("toolu_{}", self.number)), input, whole),
            };
            events.push(begun);
            let chars: Vec<char> = whole.chars().collect();
            let longest = dice.between(1, 60) as usize;
            events.extend(chars.chunks(longest).map(|part| piece(index, &part.iter().collect::<String>())));
            if matches!(block, Block::Thinking(_)) {
                events.push(signature(index, "S"));
            }
            events.push(stop(index));
        }
        events.extend([totals(5), end()]);
        events
    }

    /// What a model says that was asked to go on and does so exactly: its text goes on where the client
    /// is, and it thinks anew if it thought.
    fn rest(&self, seen: &[Block]) -> Reply {
        let all = |blocks: &[Block]| {
            joined(blocks).into_iter().find_map(|block| match block {
                Block::Text(text) => Some(text),
                _ => None,
            })
        };
        let (had, text) = (all(seen).unwrap_or_default(), all(&self.blocks).unwrap_or_default());
        let thought = self.blocks.iter().find(|block| matches!(block, Block::Thinking(_)));
        let left = Some(Block::Text(text[had.len()..].to_owned())).filter(|_| had.len() < text.len());
        let calls = self.blocks.iter().filter(|block| matches!(block, Block::Call(_)));
        Reply {
            blocks: thought.cloned().into_iter().chain(left).chain(calls.cloned()).collect(),
            number: self.number + 1,
        }
    }
}

/// Neighbouring texts as one: where one ends and the next begins, a model that goes on does not say.
fn joined(blocks: &[Block]) -> Vec<Block> {
    let mut out: Vec<Block> = Vec::new();
    for block in blocks {
        match (out.last_mut(), block) {
            (Some(Block::Text(into)), Block::Text(text)) => into.push_str(text),
            _ => out.push(block.clone()),
        }
    }
    out
}

/// What the client has so far, block by block.
fn seen(events: &[Vec<u8>]) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for event in events {
        let data: Value = serde_json::from_slice(&tidegate_wire::sse::parts(event).data.unwrap()).unwrap();
        match data["type"].as_str().unwrap() {
            "content_block_start" => blocks.push(match data["content_block"]["type"].as_str().unwrap() {
                "thinking" => Block::Thinking(String::new()),
                "text" => Block::Text(String::new()),
                _ => Block::Call(String::new()),
            }),
            "content_block_delta" => {
                let delta = &data["delta"];
                let part = delta["text"].as_str().or(delta["thinking"].as_str()).or(delta["partial_json"].as_str());
                let (Block::Thinking(into) | Block::Text(into) | Block::Call(into)) = blocks.last_mut().unwrap();
                into.push_str(part.unwrap_or_default());
            }
            _ => {}
        }
    }
    blocks
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn any_cut_ends_in_the_whole_message_or_in_a_known_reason() {
    let (from, count) = (number("TIDEGATE_CUTS_FROM", 0), number("TIDEGATE_CUTS", 2_000));
    let (mut whole, mut cuts, mut thinking, mut spent) = (0, 0, 0, 0);
    for seed in from..from + count {
        let mut dice = Prng::new(seed).fork("cuts");
        let mode = if dice.chance(0.5) { Mode::Restart } else { Mode::Continue };
        let rules = Rules { holds_thinking: dice.chance(0.5), continuations_max: 2, mode };
        let truth = Reply::new(&mut dice);
        let mut play = Play::new(rules);
        let mut events = truth.events(&mut dice);
        let mut faults = dice.between(1, 3);
        let single = faults == 1;
        let ended = loop {
            if faults == 0 {
                play.feed(&events).unwrap_or_else(|why| panic!("seed {seed}: {why:?}"));
                break None;
            }
            faults -= 1;
            cuts += 1;
            events.truncate(dice.below(events.len() as u64) as usize);
            play.feed(&events).unwrap_or_else(|why| panic!("seed {seed}: {why:?}"));
            let before = play.seen.clone();
            match play.cut() {
                Action::Ended => break None,
                Action::GiveUp(why) => break Some(why),
                Action::Again => {
                    assert!(play.seen == before);
                    events = Reply { blocks: truth.blocks.clone(), number: 9 }.events(&mut dice);
                }
                Action::GoOn => {
                    assert!(mode == Mode::Continue && play.seen == before);
                    events = truth.rest(&seen(&play.seen)).events(&mut dice);
                }
            }
        };
        match ended {
            None => {
                assert_eq!(joined(&seen(&play.seen)), joined(&truth.blocks), "seed {seed}");
                assert!(mode == Mode::Continue || seen(&play.seen) == truth.blocks, "seed {seed}");
                let message = play.message();
                assert_eq!(message["stop_reason"], "end_turn");
                whole += 1;
            }
            Some(Unmendable::Thinking) => {
                assert!(!rules.holds_thinking, "seed {seed}");
                thinking += 1;
            }
            Some(Unmendable::Spent) => {
                assert!(!single, "seed {seed}");
                spent += 1;
            }
            Some(other) => panic!("seed {seed}: {other:?}"),
        }
    }
    println!(
        "{count} replies from seed {from}, {cuts} cuts: {whole} whole, {thinking} cut while they thought, {spent} spent"
    );
    assert!(count < 2_000 || (whole * 100 >= count * 65 && thinking > 0 && spent > 0));
}
