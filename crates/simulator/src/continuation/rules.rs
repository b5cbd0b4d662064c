//! How often a continuation has which blemish, and how a request asks for some.
//!
//! The probabilities are made up: of real models nobody has published any. They are here to be known,
//! not to be right.

use crate::pace::Range;

/// Blemishes of continuations, each with its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContinuationRules {
    /// Something is said before it goes on.
    pub preamble: f64,
    /// A code fence or a list that is open is opened again.
    pub reopen: f64,
    /// It begins with a space that was not there.
    pub space: f64,
    /// A word that was begun is begun again.
    pub word: f64,
    /// So many of the last characters are said again ...
    pub repeat: f64,
    /// ... drawn from here.
    pub repeat_chars: Range,
    /// Whether all this is so of a prefill too, which real models go on with exactly.
    pub prefill: bool,
}

/// The most that is said again, in characters.
pub(crate) const REPEAT_CHARS_MAX: u64 = 1_000;

impl Default for ContinuationRules {
    fn default() -> Self {
        ContinuationRules {
            preamble: 0.1,
            reopen: 0.3,
            space: 0.1,
            word: 0.2,
            repeat: 0.3,
            repeat_chars: Range { low: 0, high: 30 },
            prefill: false,
        }
    }
}

impl ContinuationRules {
    /// The true rest and nothing else.
    pub fn exact() -> Self {
        let none = ContinuationRules { preamble: 0.0, reopen: 0.0, space: 0.0, ..ContinuationRules::default() };
        ContinuationRules { word: 0.0, repeat: 0.0, ..none }
    }
}

/// The blemishes a request asked for, instead of drawn ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forced(pub(crate) ContinuationRules);

impl Forced {
    /// Reads `exact`, or a list such as `preamble+repeat:12`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut rules = ContinuationRules { prefill: true, ..ContinuationRules::exact() };
        if text == "exact" {
            return Some(Forced(rules));
        }
        for item in text.split('+') {
            match item {
                "preamble" => rules.preamble = 1.0,
                "reopen" => rules.reopen = 1.0,
                "space" => rules.space = 1.0,
                "word" => rules.word = 1.0,
                _ => {
                    let chars = item.strip_prefix("repeat:")?.parse().ok().filter(|n| *n <= REPEAT_CHARS_MAX)?;
                    (rules.repeat, rules.repeat_chars) = (1.0, Range::exactly(chars));
                }
            }
        }
        Some(Forced(rules))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_asks_for_blemishes_by_name() {
        let rules = Forced::parse("preamble+repeat:12").unwrap().0;
        assert_eq!((rules.preamble, rules.repeat, rules.repeat_chars), (1.0, 1.0, Range::exactly(12)));
        assert_eq!((rules.reopen, rules.space, rules.word), (0.0, 0.0, 0.0));
        assert_eq!(
            Forced::parse("exact").unwrap().0,
            ContinuationRules { prefill: true, ..ContinuationRules::exact() }
        );
        for bad in ["", "repeat", "repeat:1001", "exact+space", "sorry"] {
            assert_eq!(Forced::parse(bad), None, "{bad}");
        }
    }
}
