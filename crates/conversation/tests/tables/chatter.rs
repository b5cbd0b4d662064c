//! What is recalled for talk that asks for nothing: excerpts at the end of a window are paid for in
//! full, turn by turn, so little should be.
//!
//! Words are as frequent as in a language (the nth an nth as often as the first, of eight thousand), so
//! that any two texts share some by chance. Passages found so must stay below the least share that
//! `recall` asks for, in all but a few turns.

use super::{estimate, talks};
use bytes::Bytes;
use tidegate_base::Prng;
use tidegate_conversation::budget::{Budget, Rules};
use tidegate_conversation::history::History;
use tidegate_conversation::message::Message;
use tidegate_conversation::recall::{Index, query, recall};
use tidegate_conversation::window::{View, Wanted, build};

const TURNS: u64 = 60;
const ROOM: u64 = 16_000;
const WORDS: f64 = 8_000.0;

fn text(prng: &mut Prng, from: u64, to: u64) -> String {
    let bytes = prng.between(from, to) as usize;
    let mut text = String::with_capacity(bytes + 8);
    while text.len() < bytes {
        text.push_str(&format!("w{}x ", (prng.unit() * WORDS.ln()).exp() as usize));
    }
    text
}

/// Turns of windows that hide something, how many of them got excerpts, and the tokens of those.
#[derive(Default)]
struct Sums {
    turns: u64,
    recalled: u64,
    tokens: u64,
}

fn run(seed: u64, sums: &mut Sums) {
    let mut prng = Prng::new(seed).fork("chatter");
    let (mut history, mut index, mut view) = (History::default(), Index::default(), View::default());
    for turn in 0..2 * TURNS {
        let asked = turn % 2 == 0;
        let (role, text) =
            if asked { ("user", text(&mut prng, 80, 800)) } else { ("assistant", text(&mut prng, 320, 960)) };
        let message = Message::read(Bytes::from(format!(r#"{{"role":"{role}","content":"{text}"}}"#))).unwrap();
        let tokens = message.tokens(&estimate);
        history.push(message, tokens).unwrap();
        index.add(&history);
        if !asked {
            continue;
        }
        let budget = Budget { window: ROOM, max_tokens: 0, margin: 0, fixed: 0 };
        let wanted = Wanted {
            history: &history,
            view: &view,
            budget,
            rules: Rules::default(),
            conversation: seed,
            summary: None,
            recalled: None,
            marks_elsewhere: 0,
            set_marks: true,
            estimate: &estimate,
        };
        view = build(&wanted).unwrap().view;
        if view.cut > 0 {
            let found = recall(&index, &history, &view, &query(&history), ROOM / 20, &estimate);
            sums.turns += 1;
            sums.recalled += u64::from(found.is_some());
            sums.tokens += found.map_or(0, |found| estimate(found.text.as_bytes()));
        }
    }
}

#[test]
fn small_talk_seldom_recalls_anything() {
    let mut sums = Sums::default();
    (0..talks()).for_each(|seed| run(seed, &mut sums));
    let share = 100.0 * sums.recalled as f64 / sums.turns as f64;
    let each = sums.tokens as f64 / sums.turns as f64;
    println!("\n{} turns of small talk past a cut, room for {} tokens of excerpts:", sums.turns, ROOM / 20);
    println!("{share:.1} % of them got some, {each:.0} tokens a turn on average");
    assert!(sums.turns > 0 && share < 20.0, "{share:.1} % of {} turns recall something", sums.turns);
}
