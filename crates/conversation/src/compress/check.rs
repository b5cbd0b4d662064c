//! What a summary may say: nothing its source does not.
//!
//! A model that summarises invents seldom, but when it does, the invention outlives the source. So
//! of each item all *claims* are looked up in the source:
//!
//! - numbers, with their separators taken away (`48,211` is `48211`);
//! - identifiers: words with a digit, `_`, `.`, `/`, `:`, `@` or `#` inside, in camel case or in
//!   capitals, and names: capitalised words that do not begin a sentence;
//! - whatever stands in quotes or backticks, of any alphabet, as one piece of text.
//!
//! An item with a claim that is not found is dropped. Numbers written as words, and names in
//! alphabets without capitals, are not recognised; a wrong sentence made of right words passes. This
//! is a sieve and no proof.

use std::collections::BTreeSet;

/// The text a summary may draw on.
pub(super) struct Source {
    words: BTreeSet<String>,
    /// Lower case, blanks as one space.
    text: String,
}

/// Quotes that enclose a wording, opening and closing.
const QUOTES: [(char, char); 8] =
    [('"', '"'), ('`', '`'), ('“', '”'), ('„', '“'), ('«', '»'), ('「', '」'), ('『', '』'), ('《', '》')];
/// Punctuation that may stand inside an identifier or a number.
const JOINTS: [char; 9] = ['_', '.', '/', ':', '@', '#', '-', '\\', ','];

impl Source {
    pub(super) fn new() -> Self {
        Source { words: BTreeSet::new(), text: String::new() }
    }

    pub(super) fn add(&mut self, text: &str) {
        for word in words(text) {
            self.words.insert(folded(word.text));
            self.words.extend(word.text.strip_suffix("'s").map(folded));
            // `a.b/c:7` is also known by its parts: a path by its file's name.
            let names = word.text.split(['/', '\\']);
            for part in word.text.split(JOINTS).chain(names).filter(|part| !part.is_empty()) {
                self.words.insert(folded(part));
            }
        }
        self.text.push_str(&flat(text));
        self.text.push('\n');
    }

    /// Whether everything the text claims is in the source.
    pub(super) fn bears(&self, text: &str) -> bool {
        quoted(text).iter().all(|wording| self.text.contains(flat(wording).trim()))
            && words(text).filter(Word::claims).all(|word| self.has(word.text))
    }

    fn has(&self, word: &str) -> bool {
        let word = folded(word);
        self.words.contains(&word) || word.strip_suffix("'s").is_some_and(|stem| self.words.contains(stem))
    }
}

/// Lower case, each run of blanks one space.
fn flat(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (nth, part) in text.split_whitespace().enumerate() {
        if nth > 0 {
            out.push(' ');
        }
        out.extend(part.chars().flat_map(char::to_lowercase));
    }
    out
}

/// Lower case; a number without what parts its thousands.
fn folded(word: &str) -> String {
    let number = word.chars().all(|c| c.is_ascii_digit() || c == ',');
    word.chars().filter(|c| !(number && *c == ',')).flat_map(char::to_lowercase).collect()
}

struct Word<'a> {
    text: &'a str,
    begins_sentence: bool,
}

impl Word<'_> {
    /// Whether it is a number, an identifier or a name.
    fn claims(&self) -> bool {
        let digit = self.text.chars().any(|c| c.is_numeric());
        let upper = self.text.chars().filter(|c| c.is_uppercase()).count();
        let first = self.text.chars().next().is_some_and(char::is_uppercase);
        let joined = self.text.contains(['_', '/', ':', '@', '#', '\\']) || inner_dot(self.text);
        digit || joined || upper > 1 || (upper == 1 && !(first && self.begins_sentence) && self.text.len() > 1)
    }
}

fn inner_dot(word: &str) -> bool {
    word.trim_matches('.').contains('.')
}

/// Words with what joins them inside; a joint at either end belongs to the sentence.
fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let inside = |c: char| is_word(c) || c == '\'' || JOINTS.contains(&c);
    let mut rest = text;
    let mut begins = true;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(inside)?;
            begins |= rest[..start].contains(['.', '!', '?', '\n', '(', '"', '。']);
            rest = &rest[start..];
            let end = rest.find(|c| !inside(c)).unwrap_or(rest.len());
            let (whole, after) = rest.split_at(end);
            rest = after;
            let trimmed = whole.trim_matches(|c| JOINTS.contains(&c) || c == '\'');
            let sentence = whole.ends_with(['.', ':']);
            if trimmed.is_empty() {
                begins |= sentence;
                continue;
            }
            let word = Word { text: trimmed, begins_sentence: begins };
            begins = sentence;
            return Some(word);
        }
    })
}

/// Alphabets with words; CJK runs have no borders to look words up by.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() && !crate::recall::is_cjk(c)
}

fn quoted(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((at, (open, close))) =
        rest.char_indices().find_map(|(at, c)| Some((at, *QUOTES.iter().find(|(open, _)| *open == c)?)))
    {
        let after = &rest[at + open.len_utf8()..];
        let Some(end) = after.find(close) else {
            rest = after;
            continue;
        };
        found.push(&after[..end]);
        rest = &after[end + close.len_utf8()..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_borne_and_what_is_not_is_not() {
        let mut source = Source::new();
        source.add("Alice wants invoice INV-2041 for 48,211 EUR in src/ledger.rs; call parseAll() and say \"no  refunds\" by 2026-11-30.");
        source.add("她说「周五 之前」交付,预算 3000 元。");
        for good in [
            "The invoice INV-2041 is for 48211 EUR.",
            "Edit ledger.rs and src/ledger.rs, then parseAll.",
            "Rule: \"No refunds\" until 2026-11-30.",
            "Tell Alice's team.",
            "交付:「周五 之前」, 3000 元",
            "Nothing special",
        ] {
            assert!(source.bears(good), "{good}");
        }
        for bad in [
            "The invoice is for 48212 EUR.",
            "Edit src/ledgers.rs.",
            "Call parseNone.",
            "The rule is \"all refunds\".",
            "It is for Bob.",
            "Due 2026-11-29.",
            "交付:「周六之前」",
        ] {
            assert!(!source.bears(bad), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_text_bears_itself(text in "\\PC{0,80}") {
            let mut source = Source::new();
            source.add(&text);
            proptest::prop_assert!(source.bears(&text), "{text}");
        }
    }
}
