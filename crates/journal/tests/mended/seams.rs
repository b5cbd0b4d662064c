//! How often the join of two replies is exact, before a scripted imitation of models that go on.
//!
//! The text is this repository's own pages: prose, lists, tables and code. It is cut anywhere; the
//! imitation goes on with 0 to 30 characters repeated, evenly, with a preface at three in ten, and
//! opens at every second chance a code block anew that is open. The seam is exact if what the client
//! has is the text, byte for byte. Real models differ: this measures the joining, not them.
//!
//! `TIDEGATE_SEAMS` says how many (2,000), `TIDEGATE_SEAMS_FROM` from which seed on.

use crate::play::{Play, end, start, stop, text, text_block, totals};
use std::collections::BTreeMap;
use tidegate_base::Prng;
use tidegate_journal::recover::{Action, Mode, Rules};

const PAGES: [&str; 4] = [
    include_str!("../../../../ARCHITECTURE.md"),
    include_str!("../../../../README.md"),
    include_str!("../../../../CONTRIBUTING.md"),
    include_str!("../../../../docs/simulator.md"),
];

const PREFACES: [&str; 8] = [
    "Continuing from where I left off:\n\n",
    "Sure, here is the rest:\n\n",
    "Continuing: ",
    "Sure, ",
    "Here's the rest of the response:\n\n",
    "Picking up where I left off:\n",
    "Certainly! Continuing: ",
    "Continuing...\n\n",
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn nineteen_seams_of_twenty_are_exact() {
    let (from, count) = (number("TIDEGATE_SEAMS_FROM", 0), number("TIDEGATE_SEAMS", 2_000));
    let mut tally: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for seed in from..from + count {
        let cut = Cut::new(Prng::new(seed).fork("seam"));
        let exact = cut.joined() == cut.text;
        let repeats = match cut.repeated {
            0 => "repeats nothing",
            1..=2 => "repeats 1 or 2 characters",
            3..=7 => "repeats 3 to 7",
            _ => "repeats 8 or more",
        };
        let plainly = if cut.prefaced { "prefaced" } else { "not prefaced" };
        let fence = if cut.fenced { "opens a fence anew" } else { "opens none" };
        for what in ["all", repeats, plainly, fence] {
            let (all, right) = tally.entry(what).or_default();
            (*all, *right) = (*all + 1, *right + u64::from(exact));
        }
        if !exact && std::env::var_os("TIDEGATE_SEAMS_SHOW").is_some() {
            let (had, _) = cut.text.split_at(cut.at);
            println!(
                "{seed}: {:?} + {:?}",
                &had[had.len() - had.len().min(40)..].trim_start_matches(|c: char| !c.is_ascii()),
                cut.new
            );
        }
    }
    println!("{count} seams from seed {from}");
    for (what, (all, right)) in &tally {
        println!("{what:>28} {right:>8} of {all:>8} exact, {:.2} %", 100.0 * *right as f64 / *all as f64);
    }
    let (all, right) = tally["all"];
    // Of few, one point and a half is chance: the pages change.
    let percent = if all < 20_000 { 94 } else { 95 };
    assert!(right * 100 >= all * percent, "{right} of {all}");
}

struct Cut {
    text: String,
    at: usize,
    new: String,
    repeated: usize,
    prefaced: bool,
    fenced: bool,
    dice: Prng,
}

impl Cut {
    fn new(mut dice: Prng) -> Self {
        let page = dice.pick(&PAGES).unwrap();
        let lines: Vec<&str> = page.split_inclusive('\n').collect();
        let first = dice.below(lines.len() as u64 - 40) as usize;
        let text: String = lines[first..first + dice.between(5, 40) as usize].concat();
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let cut = dice.between(1, places.len() as u64 - 1) as usize;
        let at = places[cut];
        let repeated = (dice.between(0, 30) as usize).min(cut);
        let opened = text[..at].lines().rfind(|line| line.starts_with("```")).filter(|_| is_open(&text[..at]));
        let prefaced = dice.chance(0.3);
        let fenced = opened.is_some_and(|line| line.len() > 3) && dice.chance(0.5);
        let preface = if prefaced { dice.pick(&PREFACES).unwrap() } else { "" };
        let fence = if fenced { format!("{}\n", opened.unwrap_or_default()) } else { String::new() };
        let new = format!("{preface}{fence}{}", &text[places[cut - repeated]..]);
        Cut { at, new, repeated, prefaced, fenced, dice, text }
    }

    /// What the client has in the end.
    fn joined(&self) -> String {
        let mut dice = self.dice.clone();
        let mut play = Play::new(Rules::new(Mode::Continue));
        let reply = |dice: &mut Prng, said: &str, ends: bool| {
            let mut events = vec![start(7), text_block(0)];
            let chars: Vec<char> = said.chars().collect();
            let longest = dice.between(1, 60) as usize;
            events.extend(chars.chunks(longest).map(|piece| text(0, &piece.iter().collect::<String>())));
            if ends {
                events.extend([stop(0), totals(2), end()]);
            }
            events
        };
        play.feed(&reply(&mut dice, &self.text[..self.at], false)).unwrap();
        match play.cut() {
            Action::GoOn => play.feed(&reply(&mut dice, &self.new, true)).unwrap(),
            // Nothing but white space: the whole is said again.
            Action::Again => return self.text.clone(),
            other => panic!("{other:?}"),
        }
        play.message()["content"][0]["text"].as_str().unwrap().to_owned()
    }
}

/// Whether a code block is open: an odd number of its lines.
fn is_open(text: &str) -> bool {
    text.lines().filter(|line| line.starts_with("```")).count() % 2 == 1
}
