//! The seam: what stands between the text that was received and its true rest.
//!
//! In this order: a preamble, a fence or list mark opened again, a space, characters said again. A
//! blemish that the text gives no occasion for (no fence is open, no word was begun) is not there,
//! whatever was drawn. Every die is thrown for every answer, so that the probability of one blemish
//! does not move the others.

use super::ContinuationRules;
use tidegate_base::Prng;

const PREAMBLES: [&str; 5] = [
    "Continuing from where I left off:\n\n",
    "Continuing from where I left off: ",
    "Continuing:\n\n",
    "Sure, here is the rest:\n\n",
    "Sure, ",
];

/// What is said before the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Blemishes {
    pub(crate) preamble: String,
    pub(crate) reopened: String,
    pub(crate) space: String,
    pub(crate) repeated: String,
}

impl Blemishes {
    /// All of it, in the order in which it is said.
    pub(crate) fn text(&self) -> String {
        [&*self.preamble, &self.reopened, &self.space, &self.repeated].concat()
    }
}

/// Throws the dice for the seam behind `received`, before `rest`.
pub(crate) fn draw(rules: &ContinuationRules, received: &str, rest: &str, prng: &mut Prng) -> Blemishes {
    let preamble = prng.pick(&PREAMBLES).copied().unwrap_or_default();
    let [says, reopens, spaces, begins, repeats] =
        [rules.preamble, rules.reopen, rules.space, rules.word, rules.repeat].map(|p| prng.chance(p));
    let chars = rules.repeat_chars.draw(prng) as usize;
    let if_so = |so: bool, text: &str| if so { text.to_owned() } else { String::new() };
    let repeated = match (repeats, begins) {
        (true, _) => last_chars(received, chars),
        (false, true) => begun_word(received, rest),
        (false, false) => "",
    };
    Blemishes {
        preamble: if_so(says, preamble),
        reopened: if_so(reopens, open_fence(received).unwrap_or_else(|| open_list(received))),
        space: if_so(spaces, " "),
        repeated: repeated.to_owned(),
    }
}

fn last_chars(text: &str, chars: usize) -> &str {
    if chars == 0 {
        return "";
    }
    text.char_indices().nth_back(chars - 1).map_or(text, |(at, _)| &text[at..])
}

/// The beginning of the word that the seam goes through, if it goes through one.
fn begun_word<'a>(received: &'a str, rest: &str) -> &'a str {
    let begun = received.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or("");
    if rest.starts_with(char::is_alphanumeric) { begun } else { "" }
}

/// The line that opened the code fence which is still open.
fn open_fence(received: &str) -> Option<&str> {
    let fences = received.split_inclusive('\n').filter(|line| line.starts_with("```") && line.ends_with('\n'));
    let (count, last) = fences.fold((0, None), |(n, _), line| (n + 1, Some(line)));
    last.filter(|_| count % 2 == 1)
}

/// The mark of the list that the last line is in.
fn open_list(received: &str) -> &'static str {
    let line = received.rsplit('\n').next().unwrap_or("");
    if line.starts_with("- ") { "- " } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::Range;

    fn only(change: impl FnOnce(&mut ContinuationRules), received: &str, rest: &str) -> Blemishes {
        let mut rules = ContinuationRules::exact();
        change(&mut rules);
        draw(&rules, received, rest, &mut Prng::new(1))
    }

    #[test]
    fn each_blemish_comes_where_there_is_occasion_for_it() {
        assert_eq!(only(|_| {}, "some te", "xt").text(), "");
        assert!(PREAMBLES.contains(&&*only(|r| r.preamble = 1.0, "some te", "xt").text()));
        assert_eq!(only(|r| r.space = 1.0, "some te", "xt").text(), " ");
        assert_eq!(only(|r| r.word = 1.0, "some te", "xt").text(), "te");
        assert_eq!(only(|r| r.word = 1.0, "some text", " more").text(), "");
        let again = |chars| move |r: &mut ContinuationRules| (r.repeat, r.repeat_chars) = (1.0, Range::exactly(chars));
        assert_eq!(only(again(4), "some 潮🌊", "").text(), "e 潮🌊");
        assert_eq!(
            (only(again(99), "abc", "").text(), only(again(0), "abc", "").text()),
            ("abc".into(), String::new())
        );
        let code = "Look:\n```rust\nlet a";
        assert_eq!(only(|r| r.reopen = 1.0, code, " = 1;").text(), "```rust\n");
        assert_eq!(only(|r| r.reopen = 1.0, &format!("{code} = 1;\n```\nSo"), " be it").text(), "");
        assert_eq!(only(|r| r.reopen = 1.0, "List:\n- one\n- tw", "o").text(), "- ");
    }

    #[test]
    fn each_comes_as_often_as_it_should_whatever_the_others_are() {
        let rules = ContinuationRules { repeat_chars: Range::exactly(3), ..ContinuationRules::default() };
        let mut seen = [0; 4];
        for seed in 0..20_000 {
            let drawn = draw(&rules, "a list:\n- of wo", "rds", &mut Prng::new(seed));
            for (n, part) in [drawn.preamble, drawn.reopened, drawn.space, drawn.repeated].iter().enumerate() {
                seen[n] += i32::from(!part.is_empty());
            }
        }
        // A word begun again is one way to repeat something: 0.3 + 0.7 * 0.2.
        for (n, permille) in [100, 300, 100, 440].iter().enumerate() {
            assert!((seen[n] / 20 - permille).abs() < 15, "{n}: {seen:?}");
        }
    }
}
