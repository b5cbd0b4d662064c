//! Text that looks like an answer: sentences, paragraphs, now and then a list or some code.
//!
//! Its first sentence always has characters of two, three and four bytes in it, so that a fault
//! inside a character finds one in every answer longer than a dozen tokens.

use crate::tokens::Tokenizer;
use tidegate_base::Prng;

const WORDS: &[&str] = &[
    "the",
    "a",
    "tide",
    "gate",
    "water",
    "river",
    "harbour",
    "and",
    "then",
    "when",
    "with",
    "without",
    "slowly",
    "quickly",
    "opens",
    "closes",
    "rises",
    "falls",
    "carries",
    "holds",
    "measures",
    "returns",
    "every",
    "boat",
    "signal",
    "request",
    "answer",
    "stream",
    "bridge",
    "morning",
    "evening",
    "light",
    "keeper",
    "from",
    "toward",
    "between",
    "under",
    "above",
    "small",
    "large",
    "quiet",
    "steady",
    "current",
    "channel",
    "count",
    "number",
    "second",
    "minute",
    "again",
    "because",
    "although",
    "therefore",
    "first",
    "last",
    "some",
    "most",
    "three",
    "seven",
    "café",
    "naïve",
    "façade",
    "Größe",
    "piñata",
    "Ελλάδα",
    "мост",
    "潮",
    "港口",
    "水門",
    "東京",
    "바다",
    "→",
    "…",
    "“quoted”",
    "🌊",
    "⚓",
    "e\u{301}tude",
];

/// Continues `text` until it is `tokens` long, exactly.
pub(super) fn write(text: &mut String, tokens: u64, tokenizer: Tokenizer, prng: &mut Prng) {
    let start = text.len();
    let mut weight = 0u64;
    let mut word_of_sentence = 0;
    let mut sentence_words = 9;
    let mut sentences = 0;
    let mut push = |text: &mut String, piece: &str| {
        text.push_str(piece);
        weight += piece.chars().map(|c| tokenizer.weight(c)).sum::<u64>();
        tokenizer.of_weight(weight) <= tokens
    };
    loop {
        let fixed = if sentences == 0 {
            ["The", "Größe", "of", "🌊", "港口"].get(word_of_sentence).copied()
        } else {
            None
        };
        let word = fixed.or_else(|| prng.pick(WORDS).copied()).unwrap_or("tide");
        if word_of_sentence > 0 && !push(text, " ") {
            break;
        }
        let on = if word_of_sentence == 0 { push(text, &capital(word)) } else { push(text, word) };
        word_of_sentence += 1;
        if !on {
            break;
        }
        if word_of_sentence >= sentence_words {
            sentences += 1;
            word_of_sentence = 0;
            sentence_words = prng.between(4, 16) as usize;
            let end = match prng.below(14) {
                0 => "?\n\n",
                1 | 2 => ".\n\n",
                3 => ":\n- ",
                4 => ".\n\n```rust\nlet tide = gate.open(7)?; // \"λ\\n\"\n```\n\n",
                _ => ". ",
            };
            if !push(text, end) {
                break;
            }
        }
    }
    let fits = tokenizer.fit(&text[start..], tokens);
    text.truncate(start + fits);
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_exactly_the_tokens_asked_for() {
        for tokens in [0, 1, 2, 13, 100, 2_000] {
            for tokenizer in [Tokenizer::Older, Tokenizer::Newer] {
                let mut text = String::new();
                write(&mut text, tokens, tokenizer, &mut Prng::new(tokens));
                assert_eq!(tokenizer.count(&text), tokens, "{text}");
            }
        }
    }

    #[test]
    fn the_first_sentence_has_characters_of_every_width() {
        let mut text = String::new();
        write(&mut text, 16, Tokenizer::Newer, &mut Prng::new(1));
        let widths: std::collections::BTreeSet<usize> = text.chars().map(char::len_utf8).collect();
        assert_eq!(widths.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4], "{text}");
    }
}
