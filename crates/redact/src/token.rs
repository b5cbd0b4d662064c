//! Tokens: what stands in place of a value, and is put back.
//!
//! ```text
//! Z Q  P  B X K R T  C  N
//! └┬┘  │  └───┬───┘  │  └ check letter: Luhn, modulo 20, over the nine before
//!  │   │      │      └ counts values whose other letters are the same, in first-seen order
//!  │   │      └ of the HMAC of kind and value under the scope's key
//!  │   └ the kind's letter
//!  └ prefix, rare in any language
//! ```
//!
//! Ten capital consonants. Letters only, so that a token is part of no number, survives Markdown,
//! JSON and HTML, and is never taken for something personal itself; no vowels, so that it is no word.
//! Two ways to write one value share seven letters and differ in the counter, so a model sees that
//! they belong together, and each is put back as it was.

use crate::kind::Kind;
use std::fmt;

/// How long every token is, bytes.
pub const TOKEN_BYTES: usize = 10;

/// The letters of tokens.
pub(crate) const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const PREFIX: [u8; 2] = *b"ZQ";
/// Letters that come from the HMAC.
pub(crate) const HASH_LETTERS: usize = 5;

/// A token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token([u8; TOKEN_BYTES]);

fn value(letter: u8) -> Option<u32> {
    LETTERS.iter().position(|l| *l == letter).map(|at| at as u32)
}

/// Luhn's sum over letters: 0 for those that end in their right check letter.
fn luhn(letters: &[u8]) -> Option<u32> {
    letters.iter().rev().enumerate().try_fold(0, |sum, (at, letter)| {
        let value = value(*letter)?;
        let doubled = value * 2;
        Some((sum + if at % 2 == 0 { value } else { doubled / 20 + doubled % 20 }) % 20)
    })
}

impl Token {
    /// The token of a kind, the letters of a value's HMAC (numbers below 20), and a counter below 20.
    pub(crate) fn new(kind: Kind, hash: [u8; HASH_LETTERS], counter: u8) -> Token {
        let letter = |at: u8| LETTERS[usize::from(at) % LETTERS.len()];
        let mut token = [0; TOKEN_BYTES];
        token[..2].copy_from_slice(&PREFIX);
        token[2] = kind.letter();
        for (slot, value) in token[3..8].iter_mut().zip(hash) {
            *slot = letter(value);
        }
        token[8] = letter(counter);
        token[9] = LETTERS[0];
        let sum = luhn(&token).unwrap_or(0);
        token[9] = letter(((20 - sum) % 20) as u8);
        Token(token)
    }

    /// The token that `text` is: capital letters, the prefix, a kind and the right check letter.
    pub fn read(text: &[u8]) -> Option<Token> {
        let token: [u8; TOKEN_BYTES] = text.try_into().ok()?;
        let right = token[..2] == PREFIX && Kind::of_letter(token[2]).is_some() && luhn(&token) == Some(0);
        right.then_some(Token(token))
    }

    /// The least token with these first letters, right or not: where a search begins.
    pub(crate) fn least(letters: [u8; TOKEN_BYTES]) -> Token {
        Token(letters)
    }

    /// Its letters.
    pub fn as_str(&self) -> &str {
        // Made of ASCII letters only.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What it stands for.
    pub fn kind(&self) -> Kind {
        Kind::of_letter(self.0[2]).unwrap_or(Kind::Custom)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_itself_and_with_a_letter_changed_as_none() {
        for kind in Kind::ALL {
            let token = Token::new(kind, [3, 19, 0, 7, 11], 4);
            assert_eq!(Token::read(token.as_bytes()), Some(token));
            assert_eq!(token.kind(), kind);
            for at in 0..TOKEN_BYTES {
                for letter in LETTERS.iter().filter(|l| **l != token.as_bytes()[at]) {
                    let mut changed = token.0;
                    changed[at] = *letter;
                    assert_eq!(Token::read(&changed), None, "{token:?} at {at}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_token_is_not_read() {
        assert_eq!(Token::read(b"ZQPAAAAAAA"), None);
        assert_eq!(Token::read(b"ZQP"), None);
        assert_eq!(Token::read(Token::new(Kind::Phone, [0; 5], 0).as_str().to_ascii_lowercase().as_bytes()), None);
    }
}
