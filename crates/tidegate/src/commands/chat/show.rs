//! What a chat shows of turns and of what they used: JSON of the doors to lines for a person. Pure;
//! what is not understood is left out or shown by its name, so that a newer gateway is no obstacle.

use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;
use tidegate_wire::usage::Usage;

/// A tool's result or input is told by its first characters.
const TOOL_CHARS_MAX: usize = 80;

/// A number as people read it: 1,204,000.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `one turn`, `2 turns`
pub(super) fn turns(n: u64) -> String {
    if n == 1 { "one turn".to_owned() } else { format!("{} turns", number(n)) }
}

/// The text, or its first characters and how many more there are.
pub(super) fn short(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some((at, _)) => {
            let more = text[at..].chars().count() as u64;
            format!("{} ... ({} more characters)", &text[..at], number(more))
        }
    }
}

/// What a turn was, once it is over.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// Its number, if the gateway said it.
    pub(super) turn: Option<u64>,
    /// Whether it was there already.
    pub(super) is_replayed: bool,
    /// Tokens.
    pub(super) usage: Usage,
    /// Why it stopped.
    pub(super) stop_reason: Option<String>,
    /// From the request to its first word.
    pub(super) first_text: Option<Duration>,
}

/// The line under an answer.
pub(super) fn told(told: &Told) -> String {
    let usage = &told.usage;
    let input = usage.input + usage.cache_creation + usage.cache_read;
    let mut line = told.turn.map_or_else(|| "no turn".to_owned(), |n| format!("turn {}", number(n)));
    // Writing into a string cannot fail, here and below.
    let _ = write!(line, " | {} in", number(input));
    if let Some(percent) = (usage.cache_read * 100).checked_div(input) {
        let _ = write!(line, ", {percent} % of it cached");
    }
    let _ = write!(line, " | {} out", number(usage.output));
    if let Some(first) = told.first_text {
        let _ = write!(line, " | first text after {:.2} s", first.as_secs_f64());
    }
    if told.is_replayed {
        line.push_str(" | it was there already: its stored answer");
    }
    match told.stop_reason.as_deref() {
        None | Some("end_turn" | "stop_sequence") => {}
        Some("max_tokens") => line.push_str(" | cut off at --max-tokens"),
        Some(reason) => {
            let _ = write!(line, " | stopped: {reason}");
        }
    }
    line
}

/// A turn: its heading and its lines, each message at most so many characters.
pub(super) fn turn(turn: &Value, chars_max: usize) -> (String, Vec<String>) {
    let mut heading = format!("turn {}", turn["number"].as_u64().map_or_else(|| "?".to_owned(), number));
    if let Some(at) = turn["created_at"].as_str() {
        let _ = write!(heading, " | {}", at.replace('T', " "));
    }
    if let Some(model) = turn["model"].as_str() {
        let _ = write!(heading, " | {model}");
    }
    if let Some(status) = turn["status"].as_str().filter(|status| *status != "complete") {
        let _ = write!(heading, " | {status}");
    }
    let mut lines = Vec::new();
    for message in turn["messages"].as_array().into_iter().flatten().chain(Some(&turn["answer"])) {
        let who = match message["role"].as_str() {
            Some("user") => "you  ",
            Some("assistant") => "model",
            Some(other) => other,
            None => continue,
        };
        let text = short(content(&message["content"]).trim_end(), chars_max);
        let mut text = text.lines();
        lines.push(format!("  {who}  {}", text.next().unwrap_or_default()));
        lines.extend(text.map(|line| format!("         {line}").trim_end().to_owned()));
    }
    (heading, lines)
}

/// What a message says, and the names of what is no text.
fn content(content: &Value) -> String {
    if let Some(text) = content.as_str() {
        return text.to_owned();
    }
    let blocks = content.as_array().into_iter().flatten().map(|block| {
        let kind = block["type"].as_str().unwrap_or("?");
        match kind {
            "text" => block["text"].as_str().unwrap_or_default().to_owned(),
            "tool_use" | "server_tool_use" | "mcp_tool_use" => {
                let name = block["name"].as_str().unwrap_or("?");
                format!("[{kind}: {name} {}]", short(&block["input"].to_string(), TOOL_CHARS_MAX))
            }
            "tool_result" => format!("[tool_result: {}]", short(&self::content(&block["content"]), TOOL_CHARS_MAX)),
            _ => format!("[{kind}]"),
        }
    });
    blocks.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
}

/// A word of a shell's command, quoted if it has to be.
pub(super) fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_and_texts_are_made_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((turns(1), turns(2_000)), ("one turn".to_owned(), "2,000 turns".to_owned()));
        assert_eq!(short("潮の満ち引き", 6), "潮の満ち引き");
        assert_eq!(short("潮の満ち引き", 2), "潮の ... (4 more characters)");
    }

    #[test]
    fn words_of_a_command_survive_a_shell() {
        for word in ["plain-1.x", "", "it's", "a b", "$(rm x)", "`x`", "a\\b", "\"q\"", "*"] {
            let echoed =
                std::process::Command::new("sh").args(["-c", &format!("printf %s {}", shell_word(word))]).output();
            assert_eq!(String::from_utf8(echoed.unwrap().stdout).unwrap(), word);
        }
    }

    #[test]
    fn the_line_under_an_answer_has_turn_tokens_and_cache() {
        let usage = Usage { input: 100, cache_creation: 101, cache_read: 1_003, output: 152, ..Usage::default() };
        let mut it = Told { turn: Some(3), usage, first_text: Some(Duration::from_millis(314)), ..Told::default() };
        it.stop_reason = Some("end_turn".to_owned());
        assert_eq!(told(&it), "turn 3 | 1,204 in, 83 % of it cached | 152 out | first text after 0.31 s");
        it.stop_reason = Some("max_tokens".to_owned());
        it.is_replayed = true;
        assert!(told(&it).contains("already") && told(&it).ends_with("--max-tokens"), "{}", told(&it));
        assert_eq!(told(&Told::default()), "no turn | 0 in | 0 out");
    }

    #[test]
    fn a_turn_is_shown_by_who_said_what() {
        let value = json!({
            "number": 4, "created_at": "2026-11-23T08:00:05Z", "model": "claude-x", "status": "interrupted",
            "messages": [
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "2.4 m"}]},
                    {"type": "image", "source": {}},
                    {"type": "text", "text": "one\ntwo"},
                ]},
            ],
            "answer": {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "x", "signature": "y"},
                {"type": "text", "text": "half an ans"},
                {"type": "tool_use", "id": "t", "name": "tide_at", "input": {"place": "Brest"}},
            ]},
        });
        let (heading, lines) = turn(&value, 100);
        assert_eq!(heading, "turn 4 | 2026-11-23 08:00:05Z | claude-x | interrupted");
        assert_eq!(
            lines,
            [
                "  you    [tool_result: 2.4 m]",
                "         [image]",
                "         one",
                "         two",
                "  model  [thinking]",
                "         half an ans",
                "         [tool_use: tide_at {\"place\":\"Brest\"}]",
            ]
        );
        let appended =
            json!({"number": 1, "status": "appended", "messages": [{"role": "user", "content": "x"}], "answer": null});
        assert_eq!(turn(&appended, 9), ("turn 1 | appended".to_owned(), vec!["  you    x".to_owned()]));
    }
}
