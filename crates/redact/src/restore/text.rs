//! Tokens in a text that comes in pieces.
//!
//! ```text
//!           a letter that begins a live token          letters of one, and no other
//!   passing ───────────────────────────────▶ possible ─────────────┐
//!      ▲                                       │  │  ▲             │
//!      │        another letter, a long gap     │  │  └─────────────┘
//!      ├───────────────────────────────────────┘  │ ten letters
//!      └──────────────────────────────────────────┘ the value is written
//! ```
//!
//! What has passed is never held; what may still become a token is, and nothing else: so the output is
//! the same however the text was cut, and lags behind by less than a token. The ladder: exact letters
//! anywhere; then, at the beginning of a word, letters of either case or full-width, with a few
//! characters between them that models and Markdown put there. Either way the letters must be those of
//! a live token, check letter and all. There is no guessing of near ones: the wrong person's number is
//! worse than a token that is seen.
//!
//! A piece of JSON is the inside of a string, as it stands between its quotes; a value is written with
//! as many escapes as its place needs.

use super::Live;
use crate::json;
use crate::token::{TOKEN_BYTES, Token};

/// Characters between two letters of a token that are looked over: `**ZQ** P`, a line's end.
const GAP_MAX: usize = 3;
/// Most bytes that are held back: ten letters as escapes, and nine gaps of the longest characters.
pub const HELD_BYTES_MAX: usize = TOKEN_BYTES * 7 + (TOKEN_BYTES - 1) * GAP_MAX * 7;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// As it is.
    Plain,
    /// The inside of a JSON string.
    Json,
    /// JSON inside a JSON string: a tool's input in pieces.
    Nested,
}

/// How far from its exact letters a token may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ladder {
    /// Exact letters only: what is signed must become the same bytes again when it is masked.
    Exact,
    /// Also in other dress.
    Normalised,
}

/// Restores one text.
#[derive(Clone, Debug)]
pub struct TextRestorer {
    escape: Escape,
    ladder: Ladder,
    held: Vec<u8>,
    /// The last two bytes that were let go: whether a token that follows begins a word.
    last: [u8; 2],
}

/// One character of the text, and how many bytes it is.
enum Unit {
    Letter(u8, bool, usize),
    Gap(usize),
    Other(usize),
    /// The piece ends inside it.
    Cut,
}

/// What stands at a place where a token could begin.
enum Found {
    Token(Token, usize),
    Nothing,
    /// The piece ends before that is known.
    Possible,
}

impl TextRestorer {
    /// A restorer at a text's beginning.
    pub fn new(escape: Escape, ladder: Ladder) -> TextRestorer {
        TextRestorer { escape, ladder, held: Vec::new(), last: [b' '; 2] }
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes the next piece and writes what is certain. A piece of JSON never ends inside an escape.
    pub fn feed(&mut self, live: &Live, piece: &[u8], out: &mut Vec<u8>) {
        if live.is_empty() && self.held.is_empty() {
            out.extend_from_slice(piece);
            return;
        }
        let held = std::mem::take(&mut self.held);
        let joined;
        let text = if held.is_empty() {
            piece
        } else {
            joined = [&held[..], piece].concat();
            &joined
        };
        let kept = self.pass(live, text, out);
        self.held = text[kept..].to_vec();
    }

    /// The text has ended: what is held is no token.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.last = [b' '; 2];
    }

    /// Writes `text` with its tokens restored, up to where it may be the beginning of one.
    fn pass(&mut self, live: &Live, text: &[u8], out: &mut Vec<u8>) -> usize {
        let (mut from, mut at) = (0, 0);
        let end = loop {
            let starts = |b: &u8| matches!(b, b'Z' | b'z' | b'\\' | 0xEF);
            let Some(found) = text[at..].iter().position(starts) else { break text.len() };
            at += found;
            match self.token(live, text, at) {
                Found::Token(token, bytes) => {
                    self.let_go(&text[from..at], out);
                    self.write(live.value(token).unwrap_or(token.as_str()), out);
                    at += bytes;
                    from = at;
                    self.last = [text[at - 2], text[at - 1]];
                }
                Found::Possible => break at,
                Found::Nothing => {
                    at += match self.unit(text, at) {
                        Unit::Letter(_, _, bytes) | Unit::Gap(bytes) | Unit::Other(bytes) => bytes,
                        Unit::Cut => break at,
                    }
                }
            }
        };
        self.let_go(&text[from..end], out);
        end
    }

    fn let_go(&mut self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(text);
        self.goes_on_after(text);
    }

    /// What was given out already, of which the last two bytes count.
    pub(super) fn goes_on_after(&mut self, text: &[u8]) {
        for b in text.iter().skip(text.len().saturating_sub(2)) {
            self.last = [self.last[1], *b];
        }
    }

    /// Whether a word begins at `at`, of which all before was seen.
    fn is_word_start(&self, text: &[u8], at: usize) -> bool {
        let back = |n: usize| at.checked_sub(n).map_or_else(|| self.last[2 - (n - at)], |at| text[at]);
        // The letter of an escape is no letter: `\n`, and `\\n` inside JSON that is inside JSON.
        !back(1).is_ascii_alphanumeric() || (matches!(back(1), b'n' | b'r' | b't') && back(2) == b'\\')
    }

    /// What stands at `at`.
    fn token(&self, live: &Live, text: &[u8], at: usize) -> Found {
        let normalised = self.ladder == Ladder::Normalised && self.is_word_start(text, at);
        let mut letters = [0; TOKEN_BYTES];
        let (mut count, mut gap, mut next) = (0, 0, at);
        while count < TOKEN_BYTES {
            if next == text.len() {
                return Found::Possible;
            }
            match self.unit(text, next) {
                Unit::Letter(letter, exact, bytes) if exact || normalised => {
                    letters[count] = letter;
                    count += 1;
                    gap = 0;
                    next += bytes;
                    if !live.begins(&letters[..count]) {
                        return Found::Nothing;
                    }
                }
                Unit::Gap(bytes) if normalised && count > 0 && gap < GAP_MAX => {
                    gap += 1;
                    next += bytes;
                }
                Unit::Cut => return Found::Possible,
                _ => return Found::Nothing,
            }
        }
        match Token::read(&letters).filter(|token| live.value(*token).is_some()) {
            Some(token) => Found::Token(token, next - at),
            None => Found::Nothing,
        }
    }

    /// The character at `at`.
    fn unit(&self, text: &[u8], at: usize) -> Unit {
        let rest = &text[at..];
        match rest[0] {
            b'\\' if self.escape != Escape::Plain => match rest.get(1) {
                None => Unit::Cut,
                Some(b'u') => match rest.get(2..6) {
                    None => Unit::Cut,
                    Some(hex) => {
                        let hex = std::str::from_utf8(hex).ok().and_then(|hex| u32::from_str_radix(hex, 16).ok());
                        unit_of(hex.and_then(char::from_u32).unwrap_or('\u{fffd}'), 6)
                    }
                },
                Some(b'\\') if self.escape == Escape::Nested => inner_escape(rest),
                Some(b'n' | b'r' | b't' | b'\\') => Unit::Gap(2),
                Some(_) => Unit::Other(2),
            },
            b @ 0..0x80 => unit_of(char::from(b), 1),
            lead => {
                let bytes = match lead {
                    0xF0.. => 4,
                    0xE0.. => 3,
                    _ => 2,
                };
                match rest.get(..bytes) {
                    None => Unit::Cut,
                    Some(c) => {
                        let c = std::str::from_utf8(c).ok().and_then(|c| c.chars().next());
                        c.map_or(Unit::Other(1), |c| unit_of(c, bytes))
                    }
                }
            }
        }
    }

    fn write(&self, value: &str, out: &mut Vec<u8>) {
        match self.escape {
            Escape::Plain => out.extend_from_slice(value.as_bytes()),
            Escape::Json => json::escape(value, out),
            Escape::Nested => {
                let mut inner = Vec::with_capacity(value.len() + 8);
                json::escape(value, &mut inner);
                json::escape(&String::from_utf8_lossy(&inner), out);
            }
        }
    }
}

/// An escape of the inner JSON: its backslash is written as two.
fn inner_escape(rest: &[u8]) -> Unit {
    match rest.get(2) {
        None => Unit::Cut,
        Some(b'n' | b'r' | b't') => Unit::Gap(3),
        Some(b'u') => match rest.get(3..7) {
            None => Unit::Cut,
            Some(hex) => {
                let hex = std::str::from_utf8(hex).ok().and_then(|hex| u32::from_str_radix(hex, 16).ok());
                unit_of(hex.and_then(char::from_u32).unwrap_or('\u{fffd}'), 7)
            }
        },
        // An escaped backslash, which is four.
        Some(b'\\') => match rest.get(3) {
            None => Unit::Cut,
            Some(_) => Unit::Gap(4),
        },
        Some(_) => Unit::Gap(2),
    }
}

/// What a character is to a token.
fn unit_of(c: char, bytes: usize) -> Unit {
    match c {
        'A'..='Z' => Unit::Letter(c as u8, bytes == 1, bytes),
        'a'..='z' => Unit::Letter(c.to_ascii_uppercase() as u8, false, bytes),
        'Ａ'..='Ｚ' => Unit::Letter((c as u32 - 'Ａ' as u32) as u8 + b'A', false, bytes),
        'ａ'..='ｚ' => Unit::Letter((c as u32 - 'ａ' as u32) as u8 + b'A', false, bytes),
        ' '
        | '\n'
        | '\r'
        | '\t'
        | '*'
        | '_'
        | '`'
        | '~'
        | '-'
        | '\\'
        | '\u{a0}'
        | '\u{ad}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2010}'..='\u{2014}'
        | '\u{2060}'
        | '\u{202f}'
        | '\u{3000}'
        | '\u{feff}' => Unit::Gap(bytes),
        _ => Unit::Other(bytes),
    }
}
