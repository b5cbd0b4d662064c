//! Where two replies are joined: what the client has, and what a model says that was asked to go on.
//!
//! Models repeat the last words, say first that they go on, open a code block anew that is open
//! already. The beginning of what comes is held, at most [`HELD_CHARS_MAX`] characters, then:
//!
//! 1. what is a repetition from the first character on is left out;
//! 2. else a known preamble is left out, then a fence that opens what is open, then a repetition;
//! 3. what is left goes on exactly where the text ended: in the middle of a word, without a space.
//!
//! A repetition is the longest beginning that the text ends with, white space and all; failing that,
//! white space aside. It counts from two characters on if there is a letter or digit in it, from
//! three on if not, and never if it is of the kind that rules a table; one letter counts if the text
//! never doubles it. So a short repetition may be left in, and one by chance be taken out; how often
//! is measured in `crates/journal/tests/mended/seams.rs`.

/// The most that is held of a continuation, characters: a preamble, a fence and a repeated line.
pub(super) const HELD_CHARS_MAX: usize = 96;
/// How much of the end is looked at, characters: what may be repeated, and which letters it doubles.
const TAIL_CHARS_MAX: usize = 4_000;
/// How often a letter must have been there to say that it is never doubled.
const LETTER_SEEN_MIN: usize = 10;
/// The longest first line of a code block that is taken for one opened anew, characters.
const FENCE_CHARS_MAX: usize = 24;

/// How a model begins that says that it goes on.
const OPENERS: [&str; 12] = [
    "continuing",
    "continued",
    "sure",
    "certainly",
    "of course",
    "here's the",
    "here is the",
    "picking up",
    "resuming",
    "i'll continue",
    "let me continue",
    "apologies",
];
/// What such a sentence speaks of.
const SUBJECTS: [&str; 9] =
    ["continu", "left off", "the rest", "remain", "resum", "interrupt", "stopped", "picking up", "cut off"];

/// A seam being made.
#[derive(Clone, Debug)]
pub struct Seam {
    /// The end of what the client has.
    tail: String,
    /// What was cut off from that before it was sent as a prefill: white space the model may repeat.
    trimmed: String,
    /// Whether the text ends inside a code block.
    in_fence: bool,
    held: String,
    made: bool,
}

impl Seam {
    /// A seam after `text`, all that the client has of it; `trimmed` says that the model was not
    /// shown the white space it ends in.
    pub fn new(text: &str, trimmed: bool) -> Self {
        let trimmed = if trimmed { &text[text.trim_end().len()..] } else { "" };
        let tail = last_chars(text, TAIL_CHARS_MAX);
        Seam { tail: tail.into(), trimmed: trimmed.into(), in_fence: in_fence(text), held: String::new(), made: false }
    }

    /// Takes in the next piece of the continuation; returns what can be passed on now.
    pub fn feed(&mut self, piece: &str) -> String {
        if self.made {
            return piece.to_owned();
        }
        self.held.push_str(piece);
        if self.held.chars().nth(HELD_CHARS_MAX - 1).is_none() { String::new() } else { self.finish() }
    }

    /// Nothing comes any more in this block: returns what was held and is new.
    pub fn finish(&mut self) -> String {
        self.made = true;
        let held = std::mem::take(&mut self.held);
        self.join(&held).to_owned()
    }

    fn join<'a>(&self, new: &'a str) -> &'a str {
        if let Some(rest) = self.without_repetition(new) {
            return rest;
        }
        // "Sure! Continuing where I left off:" are two of them.
        let told = without_preamble(new).map(|rest| without_preamble(rest).unwrap_or(rest));
        let opened = if self.in_fence { without_fence(told.unwrap_or(new)) } else { None };
        let left = opened.or(told).unwrap_or(new);
        if left.len() < new.len()
            && let Some(rest) = self.without_repetition(left)
        {
            return rest;
        }
        left.strip_prefix(self.trimmed.as_str()).unwrap_or(left)
    }

    /// `new` without what it repeats of the tail; `None` if that is nothing.
    fn without_repetition<'a>(&self, new: &'a str) -> Option<&'a str> {
        let ends: Vec<usize> = new.char_indices().map(|(at, c)| at + c.len_utf8()).take(HELD_CHARS_MAX).collect();
        let exact = ends
            .iter()
            .enumerate()
            .rev()
            .find(|(chars, end)| self.tail.ends_with(&new[..**end]) && self.counts(&new[..**end], chars + 1));
        if let Some((_, end)) = exact {
            return Some(&new[*end..]);
        }
        let (_, end) = ends.iter().enumerate().rev().find(|(_, end)| {
            let repeated = &new[..**end];
            !repeated.ends_with(char::is_whitespace)
                && ends_with_loosely(&self.tail, repeated)
                && self.counts(repeated, repeated.chars().filter(|c| !c.is_whitespace()).count())
        })?;
        let rest = &new[*end..];
        let had = &self.tail[self.tail.trim_end().len()..];
        Some(rest.strip_prefix(had).unwrap_or(rest))
    }

    /// Whether so much in common is no chance. Rules and borders repeat themselves.
    fn counts(&self, repeated: &str, chars: usize) -> bool {
        let rules = |c: char| c.is_whitespace() || "-=|+:*_~#.".contains(c);
        let word = repeated.contains(char::is_alphanumeric);
        match chars {
            0 | 1 => self.never_doubles(repeated),
            2 => word,
            _ => word || !repeated.chars().all(rules),
        }
    }

    /// Whether `letter` is one that this text uses and never doubles.
    fn never_doubles(&self, letter: &str) -> bool {
        letter.chars().all(char::is_alphabetic)
            && self.tail.matches(letter).nth(LETTER_SEEN_MIN).is_some()
            && !self.tail.contains(&letter.repeat(2))
    }
}

/// The last `count` characters of `text`.
pub(super) fn last_chars(text: &str, count: usize) -> &str {
    let from = text.char_indices().rev().take(count).last().map_or(0, |(at, _)| at);
    &text[from..]
}

/// Whether `text` ends with `end`, white space left out of account on both sides.
fn ends_with_loosely(text: &str, end: &str) -> bool {
    let mut text = text.chars().rev().filter(|c| !c.is_whitespace());
    let mut end = end.chars().rev().filter(|c| !c.is_whitespace()).peekable();
    end.peek().is_some() && end.all(|c| text.next() == Some(c))
}

/// Whether a code block of Markdown is open at the end of `text`. A last line that is not whole
/// counts as it stands.
fn in_fence(text: &str) -> bool {
    let mut open: Option<(char, usize)> = None;
    for line in text.lines() {
        let line = line.trim_start();
        let Some(mark) = line.chars().next().filter(|c| matches!(c, '`' | '~')) else { continue };
        let count = line.chars().take_while(|c| *c == mark).count();
        match open {
            None if count >= 3 => open = Some((mark, count)),
            Some((m, c)) if m == mark && count >= c && line[count..].trim().is_empty() => open = None,
            _ => {}
        }
    }
    open.is_some()
}

/// `new` without a first line that opens a code block: one that names its language, since a bare
/// one closes what is open.
fn without_fence(new: &str) -> Option<&str> {
    let line = new.trim_start_matches('\n');
    let (first, rest) = line.split_once('\n')?;
    let info = first.strip_prefix("```")?.trim();
    let named = info.starts_with(char::is_alphanumeric) && !info.contains('`');
    (named && info.chars().count() <= FENCE_CHARS_MAX).then_some(rest)
}

/// `new` without the sentence that says that it goes on.
fn without_preamble(new: &str) -> Option<&str> {
    let lower = new.to_ascii_lowercase();
    let opener = OPENERS.iter().find(|opener| lower.starts_with(**opener))?;
    let ends = [":", "\n", "...", "…", ". ", "! "];
    let end = ends.iter().filter_map(|mark| lower.find(mark).map(|at| (at, mark.trim_end().len()))).min();
    let told = end.filter(|(at, _)| SUBJECTS.iter().any(|subject| lower[..*at].contains(subject)));
    let rest = match told {
        Some((at, mark)) => {
            let rest = &new[at + mark..];
            rest.strip_prefix("..").unwrap_or(rest)
        }
        // A bare "Sure, ".
        None if ["sure", "certainly", "of course"].contains(opener) => {
            new[opener.len()..].strip_prefix([',', '!', '.', ':'])?
        }
        None => return None,
    };
    Some(without_gap(rest))
}

/// Without the one space, or the line break or two, that sets a preamble apart.
fn without_gap(text: &str) -> &str {
    let text = text.strip_prefix(' ').unwrap_or(text);
    let text = text.strip_prefix('\n').unwrap_or(text);
    text.strip_prefix('\n').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str, new: &str) -> String {
        let mut seam = Seam::new(text, false);
        let mut out = text.to_owned();
        // In pieces, as it comes.
        let chars: Vec<char> = new.chars().collect();
        for piece in chars.chunks(5) {
            out.push_str(&seam.feed(&piece.iter().collect::<String>()));
        }
        out + &seam.finish()
    }

    #[test]
    fn whatever_is_put_before_the_continuation_is_left_out() {
        for (text, new, want) in [
            // Exactly.
            ("The quick bro", "wn fox", "The quick brown fox"),
            ("The quick", " brown fox", "The quick brown fox"),
            // Repeated, from the word's beginning, its middle, and over white space.
            ("The quick bro", "brown fox", "The quick brown fox"),
            ("The quick brown", "ick brown fox", "The quick brown fox"),
            ("one\ntwo ", "one two three", "one\ntwo three"),
            ("The quick brown", "the quick", "The quick brownthe quick"),
            // Said first.
            ("The quick bro", "Continuing from where I left off:\n\nwn fox", "The quick brown fox"),
            ("The quick bro", "Sure, here is the rest: quick brown fox", "The quick brown fox"),
            ("The quick bro", "Sure, wn fox", "The quick brown fox"),
            ("The quick bro", "Continuing... brown fox", "The quick brown fox"),
            // A sentence of the text's own.
            ("It ended. ", "Sure enough, it began anew: so", "It ended. Sure enough, it began anew: so"),
            // A fence opened anew, one that closes, one that is the text's own.
            ("```rust\nlet a = fo", "```rust\no();", "```rust\nlet a = foo();"),
            ("```rust\nlet a = fo", "Sure, continuing:\n```rust\nlet a = foo();", "```rust\nlet a = foo();"),
            ("```rust\nfoo();\n", "```\nDone.", "```rust\nfoo();\n```\nDone."),
            ("So:\n", "```rust\nfoo();", "So:\n```rust\nfoo();"),
            // Met by chance: letters, lines.
            ("al", "lowed", "allowed"),
            (
                "the hat that he had the other day, when he was there: th",
                "he one",
                "the hat that he had the other day, when he was there: the one",
            ),
            ("{\n    ", "    deep", "{\n        deep"),
            ("|---", "|---|", "|---|---|"),
        ] {
            assert_eq!(joined(text, new), want, "{text:?} + {new:?}");
        }
    }

    #[test]
    fn white_space_the_model_was_not_shown_is_not_doubled() {
        let mut seam = Seam::new("one ", true);
        assert_eq!(seam.feed(" two") + &seam.finish(), "two");
        let mut seam = Seam::new("one ", true);
        assert_eq!(seam.feed("two") + &seam.finish(), "two");
    }

    #[test]
    fn no_more_is_held_than_may_be() {
        let mut seam = Seam::new("x", false);
        assert_eq!(seam.feed(&"é".repeat(HELD_CHARS_MAX - 1)), "");
        assert_eq!(seam.feed("é").chars().count(), HELD_CHARS_MAX);
        assert_eq!(seam.feed("next"), "next");
    }
}
