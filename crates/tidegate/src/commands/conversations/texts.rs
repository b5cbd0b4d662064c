//! What is said in the conversations: made up from a seed, in four kinds that tokenizers see
//! differently.

use tidegate_base::Prng;

/// A kind of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    English,
    Chinese,
    Code,
    Json,
}

impl Kind {
    pub(super) const ALL: [Kind; 4] = [Kind::English, Kind::Chinese, Kind::Code, Kind::Json];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::English => "English",
            Kind::Chinese => "Chinese",
            Kind::Code => "code",
            Kind::Json => "JSON",
        }
    }

    /// One piece of it.
    fn piece(self, dice: &mut Prng) -> String {
        let mut word = |words: &[&'static str]| dice.pick(words).copied().unwrap_or_default();
        match self {
            Kind::English => format!("{} ", english(dice)),
            Kind::Chinese => format!("{}{}\u{ff0c}", word(&CHINESE), word(&CHINESE)),
            Kind::Code => {
                let (name, other) = (word(&NAMES), word(&NAMES));
                let n = dice.below(900);
                format!("    if {name}.{other}(i + {n}) != 0x{n:02x} {{ return {name}[{n}]; }}\n")
            }
            Kind::Json => {
                let (name, other) = (word(&NAMES), word(&ENGLISH));
                let (id, n) = (dice.below(1 << 40), dice.below(100_000));
                format!("{{\"{name}\":\"{other}\",\"id\":\"{id:010x}\",\"n\":{n}.{:02}}},", n % 97)
            }
        }
    }

    /// Text of some `bytes` bytes.
    pub(super) fn text(self, dice: &mut Prng, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 64);
        while text.len() < bytes {
            text.push_str(&self.piece(dice));
        }
        text
    }
}

/// A word as often as words are used: the nth most frequent one an nth as often as the first, of some
/// eight thousand. What is searched for words must not find all of them everywhere.
fn english(dice: &mut Prng) -> String {
    let rank = (dice.unit() * (WORDS as f64).ln()).exp() as usize;
    match ENGLISH.get(rank - 1) {
        Some(word) => (*word).to_owned(),
        None => {
            let syllable = |n: usize| SYLLABLES[n % SYLLABLES.len()];
            let n = SYLLABLES.len();
            format!("{}{}{}", syllable(rank), syllable(rank / n), syllable(rank / n / n + 7))
        }
    }
}

const WORDS: usize = 8_000;
const SYLLABLES: [&str; 20] = [
    "ran", "to", "mi", "ver", "sal", "ke", "or", "din", "pa", "lu", "est", "ga", "ning", "fo", "re", "ter", "bal",
    "cu", "mon", "ti",
];
const ENGLISH: [&str; 24] = [
    "the",
    "order",
    "arrived",
    "yesterday",
    "but",
    "nobody",
    "answered",
    "when",
    "I",
    "called",
    "about",
    "a",
    "refund",
    "please",
    "explain",
    "which",
    "invoice",
    "belongs",
    "to",
    "harbour",
    "quiet",
    "and",
    "international",
    "shipping",
];
const CHINESE: [&str; 16] = [
    "\u{8bf7}\u{95ee}",
    "\u{8ba2}\u{5355}",
    "\u{5df2}\u{7ecf}",
    "\u{5230}\u{8fbe}",
    "\u{4f46}\u{662f}",
    "\u{53d1}\u{7968}",
    "\u{6ca1}\u{6709}",
    "\u{8bf4}\u{660e}",
    "\u{54ea}\u{4e00}\u{5929}",
    "\u{8d27}\u{7269}",
    "\u{6e2f}\u{53e3}",
    "\u{56fd}\u{9645}",
    "\u{8fd0}\u{8f93}",
    "\u{6211}\u{4eec}",
    "\u{9700}\u{8981}",
    "\u{9000}\u{6b3e}",
];
const NAMES: [&str; 10] =
    ["index", "buffer", "tide_gate", "onMessage", "k", "requests", "parse_header", "left", "x_api_key", "leaseId"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_from_their_seed_and_have_the_length_they_should() {
        for kind in Kind::ALL {
            let text = |seed| kind.text(&mut Prng::new(seed), 500);
            assert_eq!(text(1), text(1));
            assert_ne!(text(1), text(2));
            assert!((500..600).contains(&text(3).len()), "{}", kind.name());
        }
    }
}
