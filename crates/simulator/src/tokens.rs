//! How many tokens a text counts for: a plain estimate, but the same one everywhere.
//!
//! The real tokenizer is not public, and its exact numbers do not matter to a simulation; what
//! matters is that `usage`, `count_tokens`, quotas and the ground truth agree with each other, and
//! that long or non-Latin text costs about what it would. Every character has a weight in twelfths
//! of a token: ASCII letters, digits and spaces 3 (four to a token), other ASCII 6, other alphabets
//! up to U+07FF 6, everything above 12. Newer models (4.7 and later) count 30 % more for the same
//! text. The sum is rounded up once per text, so a text never costs more than its pieces together.
//!
//! Fixed costs: 3 tokens per message, 4 per content block that is not text, 8 for a system prompt,
//! 12 for each tool over its JSON, 1,600 for an image, 1 for each 12 bytes of base64 document.

use serde_json::Value;

/// Which of the two generations of tokenizer a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tokenizer {
    Older,
    Newer,
}

/// One token in the units that [`weight`] counts: twelfths times percent.
const TOKEN: u64 = 12 * 100;

impl Tokenizer {
    fn percent(self) -> u64 {
        match self {
            Tokenizer::Older => 100,
            Tokenizer::Newer => 130,
        }
    }

    /// What one character adds, in units of a 1,200th of a token.
    pub(crate) fn weight(self, c: char) -> u64 {
        let twelfths = match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | ' ' => 3,
            '\0'..='\u{7ff}' => 6,
            _ => 12,
        };
        twelfths * self.percent()
    }

    /// Tokens for so many units of weight, rounded up.
    pub(crate) fn of_weight(self, weight: u64) -> u64 {
        weight.div_ceil(TOKEN)
    }

    /// Tokens of a text.
    pub(crate) fn count(self, text: &str) -> u64 {
        self.of_weight(text.chars().map(|c| self.weight(c)).sum())
    }

    /// How many bytes of `text` fit into `tokens`, at a character border.
    pub(crate) fn fit(self, text: &str, tokens: u64) -> usize {
        let room = tokens.saturating_mul(TOKEN);
        let mut weight = 0;
        for (at, c) in text.char_indices() {
            weight += self.weight(c);
            if weight > room {
                return at;
            }
        }
        text.len()
    }
}

/// What a system prompt costs besides its blocks.
pub(crate) const OF_SYSTEM: u64 = 8;
/// What a message costs besides its blocks.
pub(crate) const OF_MESSAGE: u64 = 3;

/// Input tokens of a whole request body: system, tools and messages.
pub(crate) fn of_request(tokenizer: Tokenizer, body: &Value) -> u64 {
    let system = body.get("system").map_or(0, |system| OF_SYSTEM + of_content(tokenizer, system));
    let tools = body.get("tools").and_then(Value::as_array).into_iter().flatten();
    let tools: u64 = tools.map(|tool| of_tool(tokenizer, tool)).sum();
    let messages = body.get("messages").and_then(Value::as_array).into_iter().flatten();
    let messages: u64 = messages.map(|m| OF_MESSAGE + m.get("content").map_or(0, |c| of_content(tokenizer, c))).sum();
    system + tools + messages
}

/// Input tokens of a tool's definition.
pub(crate) fn of_tool(tokenizer: Tokenizer, tool: &Value) -> u64 {
    12 + tokenizer.count(&tool.to_string())
}

fn of_content(tokenizer: Tokenizer, content: &Value) -> u64 {
    match content {
        Value::String(text) => tokenizer.count(text),
        Value::Array(blocks) => blocks.iter().map(|block| of_block(tokenizer, block)).sum(),
        _ => 0,
    }
}

/// Input tokens of a content block.
pub(crate) fn of_block(tokenizer: Tokenizer, block: &Value) -> u64 {
    let text = |key: &str| block.get(key).and_then(Value::as_str).map_or(0, |text| tokenizer.count(text));
    let inner = || block.get("content").map_or(0, |content| of_content(tokenizer, content));
    match block.get("type").and_then(Value::as_str) {
        Some("text") => text("text"),
        Some("thinking") => 4 + text("thinking"),
        Some("image") => 4 + 1_600,
        Some("document") => {
            4 + text("title") + text("context") + block.get("source").map_or(0, |s| of_source(tokenizer, s))
        }
        Some("tool_result" | "search_result") => 4 + text("title") + inner(),
        Some("tool_use" | "server_tool_use") => {
            4 + text("name") + block.get("input").map_or(0, |input| tokenizer.count(&input.to_string()))
        }
        _ => 4 + tokenizer.count(&block.to_string()),
    }
}

fn of_source(tokenizer: Tokenizer, source: &Value) -> u64 {
    let data = source.get("data").and_then(Value::as_str).unwrap_or("");
    match source.get("type").and_then(Value::as_str) {
        Some("text") => tokenizer.count(data),
        Some("base64") => (data.len() as u64).div_ceil(12),
        Some("content") => source.get("content").map_or(0, |content| of_content(tokenizer, content)),
        _ => 2_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn four_plain_characters_make_a_token_and_newer_models_count_more() {
        assert_eq!(Tokenizer::Older.count("abcd efgh"), 3);
        assert_eq!(Tokenizer::Older.count(""), 0);
        assert_eq!(Tokenizer::Older.count("日本"), 2);
        assert_eq!(Tokenizer::Newer.count(&"a".repeat(400)), 130);
    }

    #[test]
    fn a_request_counts_all_its_parts() {
        let bare = json!({"messages": [{"role": "user", "content": "abcd"}]});
        assert_eq!(of_request(Tokenizer::Older, &bare), 3 + 1);
        let blocks = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "abcd"}]}]});
        assert_eq!(of_request(Tokenizer::Older, &blocks), 3 + 1);
        let system = json!({"system": "abcd", "messages": []});
        assert_eq!(of_request(Tokenizer::Older, &system), 8 + 1);
    }

    proptest! {
        #[test]
        fn what_fits_costs_no_more_than_the_room_and_one_more_character_would(text in "\\PC{0,200}", room in 0u64..60) {
            for tokenizer in [Tokenizer::Older, Tokenizer::Newer] {
                let cut = tokenizer.fit(&text, room);
                prop_assert!(tokenizer.count(&text[..cut]) <= room);
                if let Some(c) = text[cut..].chars().next() {
                    prop_assert!(tokenizer.count(&text[..cut + c.len_utf8()]) > room);
                }
            }
        }
    }
}
