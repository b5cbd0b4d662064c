//! What a request asks: its question, and whether it wants an answer to go on.
//!
//! The question is a hash of the system prompt and the messages, without marks of the prompt cache,
//! without white space around texts, and without what a client adds to go on: a last assistant
//! message, a last user turn in the documented words, or those words behind the last user's own. So a
//! retry, a continuation and the second continuation have the question of the first request.

use super::GoOn;
use serde_json::Value;

/// The documented words.
const BEFORE: &str = "Your previous response was interrupted and ended with";
const AFTER: &str = "Continue from where you left off";

/// What may stand around the quoted end, innermost first.
const QUOTES: [(&str, &str); 5] = [("```\n", "\n```"), ("`", "`"), ("\"", "\""), ("[", "]"), ("“", "”")];

/// What a request asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) question: u64,
    /// Text of a last assistant message, with which the answer is to begin.
    pub(crate) prefill: String,
    pub(crate) wish: Option<Wish>,
}

/// A wish to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) by: GoOn,
    /// What was received, or its end: with and without the quotes around it.
    tails: Vec<String>,
}

impl Asked {
    pub(crate) fn read(body: &Value) -> Self {
        let messages = body.get("messages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let (mut rest, mut last, mut wish) = (messages, None, None);
        if let Some((message, before)) = messages.split_last().filter(|(message, _)| is(message, "user"))
            && let Some((kept, tails)) = told_to_go_on(message)
        {
            (rest, last, wish) = (before, kept, Some(Wish { by: GoOn::UserTurn, tails }));
        }
        let mut prefill = String::new();
        if let Some((message, before)) =
            rest.split_last().filter(|(message, _)| last.is_none() && is(message, "assistant"))
        {
            (rest, prefill) = (before, texts(message.get("content")));
            if wish.is_none() && !prefill.is_empty() {
                wish = Some(Wish { by: GoOn::Prefill, tails: vec![prefill.clone()] });
            }
        }
        let mut hash = Hash::new();
        hash.content(body.get("system"));
        for message in rest.iter().chain(&last) {
            hash.eat(message.get("role").and_then(Value::as_str).unwrap_or("").as_bytes());
            hash.content(message.get("content"));
        }
        Asked { question: hash.0, prefill, wish }
    }
}

impl Wish {
    /// Where in an answer's text what was received ends, if it is that answer; `prefill` stood before it.
    pub(crate) fn place(&self, text: &str, prefill: &str) -> Option<usize> {
        let received = |tail: &String| {
            let own = tail.strip_prefix(prefill).filter(|_| self.by == GoOn::Prefill).unwrap_or(tail);
            match self.by {
                _ if text.starts_with(own) => Some(own.len()),
                // What is quoted may be the end alone; a prefill is all of it.
                GoOn::UserTurn => text.find(own).map(|at| at + own.len()),
                GoOn::Prefill => None,
            }
        };
        if let Some(at) = self.tails.iter().find_map(received) {
            return Some(at);
        }
        // A seam that was not mended well stands in the quoted end; what came after it still tells.
        [400, 200, 100, 50, 25].iter().find_map(|chars| {
            self.tails.iter().rev().find_map(|tail| {
                let (start, _) = tail.char_indices().nth_back(chars - 1)?;
                text.rfind(&tail[start..]).map(|at| at + tail.len() - start)
            })
        })
    }
}

fn is(message: &Value, role: &str) -> bool {
    message.get("role").and_then(Value::as_str) == Some(role)
}

fn texts(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(blocks)) => blocks.iter().filter_map(|b| b.get("text").and_then(Value::as_str)).collect(),
        _ => String::new(),
    }
}

/// If a user message ends in the documented words: what is left of it, and what they quote.
fn told_to_go_on(message: &Value) -> Option<(Option<Value>, Vec<String>)> {
    let content = message.get("content")?;
    let last = match content {
        Value::Array(blocks) => blocks.last()?.get("text")?,
        text => text,
    };
    let text = last.as_str()?;
    let at = text.find(BEFORE)?;
    let quoted = text[at + BEFORE.len()..].trim_end().trim_end_matches(['.', '!']).strip_suffix(AFTER)?;
    let own = text[..at].trim();
    let mut kept = message.clone();
    kept["content"] = match content {
        Value::Array(blocks) => {
            let mut blocks = blocks.clone();
            blocks.pop();
            blocks.extend((!own.is_empty()).then(|| serde_json::json!({"type": "text", "text": own})));
            Value::Array(blocks)
        }
        _ => Value::String(own.to_owned()),
    };
    let nothing = own.is_empty() && kept["content"].as_array().is_none_or(Vec::is_empty);
    Some(((!nothing).then_some(kept), readings(quoted)))
}

/// What a quotation may mean: the words bare, and with each pair of quotes taken off. The full stop
/// behind it is the sentence's.
fn readings(quoted: &str) -> Vec<String> {
    let bare = quoted.trim_start();
    let bare = bare.strip_prefix(':').map_or(bare, str::trim_start);
    let bare = bare.strip_suffix(' ').unwrap_or(bare);
    let mut readings = Vec::new();
    for ended in [bare.strip_suffix('.').unwrap_or(bare), bare] {
        let unquoted = |(open, close): &(&str, &str)| Some(ended.strip_prefix(open)?.strip_suffix(close)?.to_owned());
        readings.extend(QUOTES.iter().filter_map(unquoted));
        readings.push(ended.to_owned());
    }
    readings.retain(|reading| !reading.trim().is_empty());
    readings
}

/// FNV-1a of contents.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Hash(0xcbf2_9ce4_8422_2325)
    }

    fn eat(&mut self, bytes: &[u8]) {
        for b in bytes.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn content(&mut self, content: Option<&Value>) {
        match content {
            Some(Value::String(text)) => self.eat(text.trim().as_bytes()),
            Some(Value::Array(blocks)) => blocks.iter().for_each(|block| self.block(block)),
            _ => {}
        }
    }

    fn block(&mut self, block: &Value) {
        match (block.get("type").and_then(Value::as_str), block.get("text").and_then(Value::as_str)) {
            (Some("text"), Some(text)) => self.eat(text.trim().as_bytes()),
            _ => {
                let mut block = block.clone();
                if let Value::Object(fields) = &mut block {
                    fields.remove("cache_control");
                }
                self.eat(block.to_string().as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(messages: Value) -> Asked {
        Asked::read(&json!({"system": "be brief", "messages": messages}))
    }

    fn told(tail: &str) -> String {
        format!("{BEFORE} `{tail}`. {AFTER}.")
    }

    #[test]
    fn a_continuation_has_the_question_of_what_it_continues() {
        let user = json!({"role": "user", "content": "tell me"});
        let so_far = json!({"role": "assistant", "content": "Once upon"});
        let go_on = json!({"role": "user", "content": told("Once upon")});
        let first = asked(json!([user]));
        assert_eq!(first.wish, None);
        let marked = json!({"type": "text", "text": "tell me ", "cache_control": {"type": "ephemeral"}});
        for (messages, by) in [
            (json!([user, so_far]), GoOn::Prefill),
            (json!([user, so_far, go_on]), GoOn::UserTurn),
            (json!([user, go_on]), GoOn::UserTurn),
            (
                json!([{"role": "user", "content": [marked, {"type": "text", "text": told("Once upon")}]}]),
                GoOn::UserTurn,
            ),
            (json!([{"role": "user", "content": format!("tell me\n\n{}", told("Once upon"))}]), GoOn::UserTurn),
        ] {
            let asked = asked(messages.clone());
            assert_eq!(asked.question, first.question, "{messages}");
            let wish = asked.wish.unwrap();
            assert_eq!((wish.by, wish.place("Once upon a tide", "")), (by, Some(9)), "{messages}");
        }
        for other in ["tell me more", "Tell me"] {
            assert_ne!(asked(json!([{"role": "user", "content": other}])).question, first.question);
        }
        let elsewhere = Asked::read(&json!({"system": "be long", "messages": [user]}));
        assert_ne!(elsewhere.question, first.question);
    }

    #[test]
    fn whatever_quotes_the_end_it_is_found() {
        for quoted in ["`upon a`", "\"upon a\"", "[upon a]", "```\nupon a\n```", "upon a", ": `upon a`"] {
            let text = format!("{BEFORE} {quoted}. {AFTER}.");
            let wish = asked(json!([{"role": "user", "content": text}])).wish.unwrap();
            assert_eq!(wish.place("Once upon a tide", ""), Some(11), "{quoted}");
            assert_eq!(wish.place("Something else", ""), None, "{quoted}");
        }
        let own = asked(json!([{"role": "user", "content": told("it is `code`")}])).wish.unwrap();
        assert_eq!(own.place("And it is `code` here", ""), Some(16));
        let stop = asked(json!([{"role": "user", "content": told("an end.")}])).wish.unwrap();
        assert_eq!(stop.place("It has an end. Or two", ""), Some(14));
    }

    #[test]
    fn a_prefill_of_its_own_is_not_searched_in_the_answer() {
        let wish =
            asked(json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "{\"a\": \"b"}])).wish;
        let wish = wish.unwrap();
        assert_eq!(wish.place("\"b\"}", "{\"a\": "), Some(2));
        assert_eq!(wish.place("and so {\"a\": \"b\"}", ""), None);
    }

    #[test]
    fn an_end_with_a_bad_seam_in_it_is_known_by_what_came_after() {
        let text = "One sentence of the answer, and then another sentence that goes on and on.";
        let wish = asked(json!([{"role": "user", "content": told("One Sure, sentence of the answer, and then ano")}]));
        assert_eq!(wish.wish.unwrap().place(text, ""), text.find("ther sentence"));
    }

    #[test]
    fn other_words_are_no_wish() {
        for text in ["Continue from where you left off.", &format!("{BEFORE} `a`. What is 2 and 2?"), ""] {
            assert_eq!(asked(json!([{"role": "user", "content": text}])).wish, None, "{text}");
        }
    }
}
