//! A summary from its plan to the window it stands in: asked for behind the cached prefix, sieved,
//! used at the next cut, folded into the one after it.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

use bytes::Bytes;
use tidegate_conversation::budget::{Budget, Rules};
use tidegate_conversation::compress::{Prices, Situation, Summary, plan};
use tidegate_conversation::history::History;
use tidegate_conversation::message::Message;
use tidegate_conversation::valid::{self, End};
use tidegate_conversation::window::{Standing, View, Wanted, Window, build};

const ROOM: u64 = 200_000;

fn estimate(text: &[u8]) -> u64 {
    text.len() as u64 / 4
}

/// A conversation whose caller does what a gateway would.
struct Talk {
    history: History,
    view: View,
    turns: usize,
    ready: Option<(Standing, Summary)>,
}

impl Talk {
    fn say(&mut self, role: &str, text: &str) {
        let message = serde_json::json!({"role": role, "content": text}).to_string();
        let message = Message::read(Bytes::from(message)).unwrap();
        let tokens = message.tokens(&estimate);
        self.history.push(message, tokens).unwrap();
    }

    fn window(&self) -> Window {
        build(&Wanted {
            history: &self.history,
            view: &self.view,
            budget: Budget { window: ROOM, max_tokens: 0, margin: 0, fixed: 0 },
            rules: Rules::default(),
            conversation: 50,
            summary: self.ready.as_ref().map(|(standing, _)| standing),
            recalled: None,
            marks_elsewhere: 0,
            set_marks: true,
            estimate: &estimate,
        })
        .unwrap()
    }

    /// One turn: a question of some 1,500 tokens, its window, its answer.
    fn turn(&mut self) -> Window {
        let nth = self.turns;
        self.turns += 1;
        self.say("user", &format!("Question {nth}: ticket TK-{nth} {}", "about the quiet harbour ".repeat(240)));
        let window = self.window();
        assert_eq!(valid::check(&window.body, End::User, 0), Ok(()));
        self.view = window.view.clone();
        self.say("assistant", &format!("Ticket TK-{nth} is noted."));
        window
    }

    /// Asks for a summary if one is due; `answer` plays the model.
    fn summarise(&mut self, answer: &dyn Fn(&std::ops::Range<usize>) -> String) -> bool {
        let shown = self.window();
        let due = plan(&Situation {
            history: &self.history,
            view: &self.view,
            ready_until: self.ready.as_ref().map_or(0, |(standing, _)| standing.until),
            tokens: shown.tokens,
            marks: Rules::default().marks(ROOM, 50),
            prices: Prices::default(),
            turns_expected: None,
            estimate: &estimate,
        });
        let Some(due) = due else { return false };
        let request = [&shown.body[..shown.body.len() - 1], b",", &due.request, b"]"].concat();
        assert_eq!(valid::check(&request, End::User, 0), Ok(()), "what is asked behind the window is valid");

        let before = self.ready.as_ref().map(|(_, summary)| summary.clone());
        let range = due.range.clone();
        let (summary, _) = Summary::believe(&answer(&range), &self.history, range, before.as_ref()).unwrap();
        let summary = before.as_ref().map_or(summary.clone(), |before| summary.fold(before));
        let from = self.ready.as_ref().map_or(due.range.start, |(standing, _)| standing.from);
        self.ready = Some((summary.stand(from..due.range.end), summary));
        true
    }
}

#[test]
fn a_summary_is_made_ahead_used_at_the_cut_and_folded_into_the_next() {
    let mut talk = Talk { history: History::default(), view: View::default(), turns: 0, ready: None };
    // The model says one true thing about the range's beginning, and one that is made up.
    let begun = std::cell::RefCell::new(Vec::new());
    let answer = |range: &std::ops::Range<usize>| {
        let start = range.start;
        begun.borrow_mut().push(start);
        format!(
            r#"{{"facts":[{{"text":"Ticket TK-{} is noted.","messages":[{start}]}},{{"text":"Ticket XK-1 is lost.","messages":[{start}]}}]}}"#,
            start / 2
        )
    };
    let mut cuts = 0;
    let mut standing: Vec<usize> = Vec::new();
    for _ in 0..260 {
        let window = talk.turn();
        let sent = String::from_utf8(window.body.to_vec()).unwrap();
        if window.is_cut {
            cuts += 1;
            let (ready, _) = talk.ready.as_ref().unwrap();
            assert_eq!(window.view.summary.as_ref(), Some(ready), "it was ready before the cut");
            assert_eq!(window.view.cut, ready.until, "and nothing was lost beside it");
            standing.clone_from(&begun.borrow());
        }
        for start in &standing {
            // Quotes and line ends as JSON writes them.
            assert!(
                sent.contains(&format!("- Ticket TK-{} is noted. [m{start}]\\n", start / 2)),
                "the fact of m{start}"
            );
        }
        assert!(!sent.contains("XK-1"));
        talk.summarise(&answer);
    }
    assert!(cuts >= 3 && standing.len() >= cuts, "{cuts} cuts, {standing:?}");
}
