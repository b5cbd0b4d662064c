//! Prompts with values of every kind in them, and what of them has to be nowhere afterwards.

use super::super::values;
use std::collections::BTreeSet;
use tidegate_base::Prng;
use tidegate_redact::detect::Scratch;
use tidegate_redact::kind::Kind;
use tidegate_redact::mask::Filter;
use tidegate_redact::rules::{Policy, Rules, Style};
use tidegate_redact::token::Token;

/// Sentences with a word, `W`, and a value, `@`.
const SENTENCES: [&str; 9] = [
    "my W is @, thanks.",
    "W: @",
    "Please note the new W @ .",
    "我的W是@，请保存。",
    "W：@",
    "{\"W\": \"@\"}",
    "W=@;",
    "客户资料\nW @\n备注：无",
    "we got (W) @ from them yesterday, didn't we?",
];
/// Words of a stretch with nothing in it, and without the letter that every token begins with: a piece
/// that ends in one is rightly held.
const WORDS: [&str; 12] =
    ["tide", "Köln", "gate", "QX", "harbour", "queue", "请核对，", "谢谢", "river", "und dann", "C:\\temp\\", "😀"];

/// A text, and a word that stands nowhere else.
pub(super) struct Prompt {
    pub(super) mark: String,
    pub(super) text: String,
}

/// Makes prompts, and remembers every value that is found in them.
pub(super) struct Corpus {
    dice: Prng,
    filter: Filter,
    scratch: Scratch,
    count: u64,
    pub(super) values: BTreeSet<String>,
    /// Values that were written, and of these such as no rule finds.
    pub(super) written: u64,
    pub(super) missed: u64,
}

impl Corpus {
    pub(super) fn new(seed: u64) -> Corpus {
        let rules = Rules { style: Style::Tag, ..Rules::all(Policy::Mask) };
        Corpus {
            dice: Prng::new(seed),
            filter: Filter::new(rules).unwrap(),
            scratch: Scratch::default(),
            count: 0,
            values: BTreeSet::new(),
            written: 0,
            missed: 0,
        }
    }

    /// A word for the next prompt: small letters, its number in base 26.
    fn mark(&mut self) -> String {
        self.count += 1;
        let letter = |at: u32| char::from(b'a' + (self.count / 26u64.pow(at) % 26) as u8);
        format!("entry{}", (0..5).rev().map(letter).collect::<String>())
    }

    /// A prompt of so many sentences, each with a value.
    pub(super) fn prompt(&mut self, sentences: usize) -> Prompt {
        let kinds: Vec<Kind> =
            Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Name | Kind::Address | Kind::Custom)).collect();
        let mark = self.mark();
        let mut text = format!("{mark} ");
        for _ in 0..sentences {
            let kind = *self.dice.pick(&kinds).unwrap();
            let (word, value) = values::of(&mut self.dice, kind);
            let value =
                if kind == Kind::Password { format!("postgres://app:{value}@db.internal:5432/x") } else { value };
            let value = self.dressed(kind, value);
            let sentence = self.dice.pick(&SENTENCES).unwrap().replace('W', word);
            text.push_str(&sentence.replacen('@', &value, 1));
            text.push_str(if self.dice.chance(0.5) { " \n" } else { " and " });
        }
        self.written += sentences as u64;
        self.find(&text, sentences);
        Prompt { mark, text }
    }

    /// One value in three in another dress.
    fn dressed(&mut self, kind: Kind, value: String) -> String {
        let long = matches!(kind, Kind::PrivateKey | Kind::Jwt | Kind::Password | Kind::Secret);
        match self.dice.below(9) {
            0 if !long => value
                .chars()
                .map(|c| if c.is_ascii_graphic() { char::from_u32(c as u32 + 0xFEE0).unwrap_or(c) } else { c })
                .collect(),
            1 if !long => {
                let middle = value.char_indices().map(|(at, _)| at).nth(value.chars().count() / 2).unwrap_or(0);
                format!("{}\u{200b}{}", &value[..middle], &value[middle..])
            }
            2 if matches!(kind, Kind::Card | Kind::BankCard) => values::in_fours(&value, " "),
            _ => value,
        }
    }

    /// Remembers what the rules find: what they do not find may go anywhere, and is counted.
    fn find(&mut self, text: &str, sentences: usize) {
        let looked = self.filter.look_through_text(text, None, &mut self.scratch).unwrap();
        self.missed += (sentences as u64).saturating_sub(looked.sightings.len() as u64);
        self.values.extend(looked.sightings.iter().map(|sighting| text[sighting.span.clone()].to_owned()));
    }

    /// A prompt with nothing in it.
    pub(super) fn nothing(&mut self) -> Prompt {
        let mark = self.mark();
        let words: Vec<&str> = (0..60).map(|_| *self.dice.pick(&WORDS).unwrap()).collect();
        let text = format!("{mark} {}", words.join(" "));
        assert!(self.filter.look_through_text(&text, None, &mut self.scratch).unwrap().sightings.is_empty(), "{text}");
        Prompt { mark, text }
    }

    pub(super) fn dice(&mut self) -> &mut Prng {
        &mut self.dice
    }

    /// Which of the values stand in `bytes`: as they were written, as JSON writes them, and numbers
    /// without what stands between their digits. Never the value itself: its kind would be told anyway.
    pub(super) fn count_in(&self, bytes: &[u8]) -> u64 {
        let mut forms: BTreeSet<Vec<u8>> = BTreeSet::new();
        for value in &self.values {
            forms.insert(value.clone().into_bytes());
            let json = serde_json::to_string(value).unwrap();
            forms.insert(json.as_bytes()[1..json.len() - 1].to_vec());
            let digits: Vec<u8> = value.bytes().filter(u8::is_ascii_digit).collect();
            let numeric = value.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '-' | '.' | '(' | ')' | '+'));
            if numeric && digits.len() >= 9 {
                forms.insert(digits);
            }
        }
        let forms: Vec<&Vec<u8>> = forms.iter().filter(|form| form.len() >= 6).collect();
        aho_corasick::AhoCorasick::new(&forms).unwrap().find_overlapping_iter(bytes).count() as u64
    }
}

/// An answer without what Markdown puts around a code: bold, quotes, a possessive. The same is taken
/// from what is expected.
pub(super) fn bare(text: &str) -> String {
    text.replace("_'s", "").replace("'s", "").replace(['*', '_', '`'], "")
}

/// How many whole tokens stand in a text, as words of their own and with the right check letter: ids
/// made of random letters are none.
pub(super) fn tokens_in(text: &str) -> usize {
    let upper = bare(text).to_ascii_uppercase();
    let words = upper.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| Token::read(word.as_bytes()).is_some()).count()
}
