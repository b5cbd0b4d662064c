//! What a chat shows of a window: what would be sent now, a line for each part and its fate. Neighbours
//! with the same fate share a line, and of a long account the middle is left out.

use super::show::number;
use serde_json::Value;

/// Lines of a window's account that are shown.
const LINES_MAX: usize = 30;

/// What would be sent now: a heading and a line for each part.
pub(super) fn account(window: &Value) -> (String, Vec<String>) {
    let budget = &window["budget"];
    let of = |name: &str| number(budget[name].as_u64().unwrap_or_default());
    let tokens = number(window["tokens"].as_u64().unwrap_or_default());
    let heading = format!(
        "window: {tokens} tokens; room for {} ({} less {} of max_tokens, {} of margin, {} of system and tools); cut past {}, down to {}",
        of("room"),
        of("window"),
        of("max_tokens"),
        of("margin"),
        of("fixed"),
        of("high"),
        of("low"),
    );
    let mut parts: Vec<Part> = Vec::new();
    for part in window["parts"].as_array().into_iter().flatten().map(Part::read) {
        match parts.last_mut() {
            Some(last) if last.goes_on_in(&part) => last.take(part),
            _ => parts.push(part),
        }
    }
    let mut lines: Vec<String> = parts.iter().map(Part::line).collect();
    if lines.len() > LINES_MAX {
        let middle = LINES_MAX / 2;
        let gone = lines.len() - LINES_MAX;
        lines.splice(middle..middle + gone, [format!("  ... {gone} more lines ...")]);
    }
    (heading, lines)
}

/// A part of a window, or neighbours with the same fate.
struct Part {
    what: String,
    /// Ids of the first message and of the one after the last.
    messages: Option<(u64, u64)>,
    tokens: u64,
    media: u64,
    fate: String,
}

impl Part {
    fn read(part: &Value) -> Self {
        let range = &part["what"]["messages"];
        let messages = range["from"].as_u64().zip(range["until"].as_u64());
        let count = |name: &str| part[name].as_u64().unwrap_or_default();
        Part {
            what: word(&part["what"]),
            messages,
            tokens: count("tokens"),
            media: count("media"),
            fate: fate(&part["fate"]),
        }
    }

    fn goes_on_in(&self, next: &Part) -> bool {
        let ends = self.messages.map(|(_, until)| until);
        ends.is_some() && ends == next.messages.map(|(from, _)| from) && self.fate == next.fate
    }

    fn take(&mut self, next: Part) {
        self.messages = self.messages.zip(next.messages).map(|((from, _), (_, until))| (from, until));
        self.tokens += next.tokens;
        self.media += next.media;
    }

    fn line(&self) -> String {
        let what = match self.messages {
            // Ids count from 0; people count from 1.
            Some((from, until)) if until > from + 1 => format!("messages {} to {}", number(from + 1), number(until)),
            Some((from, _)) => format!("message {}", number(from + 1)),
            None => self.what.clone(),
        };
        let media = if self.media == 0 { String::new() } else { format!(", {} of media", number(self.media)) };
        format!("  {what:<24} {:>10}  {}{media}", number(self.tokens), self.fate)
    }
}

/// A name: a string, or the key of an object with one.
fn word(value: &Value) -> String {
    let key = || value.as_object().and_then(|object| object.keys().next().cloned());
    value.as_str().map(str::to_owned).or_else(key).unwrap_or_else(|| "?".to_owned()).replace('_', " ")
}

/// `{"in":"recent"}`, `{"elided":{"why":"fits",...}}`, `{"out":"oldest"}`, or what else it is.
fn fate(value: &Value) -> String {
    let name = word(value);
    let inner = value.as_object().and_then(|object| object.values().next()).unwrap_or(&Value::Null);
    match inner {
        Value::String(why) => format!("{name}: {}", why.replace('_', " ")),
        Value::Object(_) => {
            let mut less = Vec::new();
            if let Some(results) = inner["results"].as_u64().filter(|n| *n > 0) {
                less.push(format!("{} results", number(results)));
            }
            if inner["thinking"] == true {
                less.push("thinking".to_owned());
            }
            let whole = inner["tokens_whole"].as_u64().map(|n| format!(", {} whole", number(n))).unwrap_or_default();
            format!("{name}: without {}{whole}", if less.is_empty() { "a part".to_owned() } else { less.join(" and ") })
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_window_is_shown_part_by_part_and_neighbours_are_one() {
        let message = |id: u64, fate: Value| json!({"what": {"messages": {"from": id, "until": id + 1}}, "tokens": 500, "media": 1, "fate": fate});
        let mut parts = vec![
            json!({"what": "fixed", "tokens": 120, "media": 0, "fate": {"in": "always"}}),
            json!({"what": {"messages": {"from": 0, "until": 8}}, "tokens": 9_000, "media": 2, "fate": {"out": "oldest"}}),
            json!({"what": "head", "tokens": 30, "media": 0, "fate": {"in": "always"}}),
            message(8, json!({"elided": {"why": "fits", "results": 2, "thinking": true, "tokens_whole": 9_500}})),
        ];
        parts.extend((9..12).map(|id| message(id, json!({"in": "recent"}))));
        parts.push(json!({"what": "brand_new", "tokens": 1, "fate": "odd"}));
        let budget = json!({"window": 200_000, "max_tokens": 4_096, "margin": 1_000, "fixed": 120, "room": 194_784, "low": 1, "soft": 2, "high": 3});
        let (heading, lines) = account(&json!({"tokens": 2_150, "budget": budget, "parts": parts}));
        assert!(heading.starts_with("window: 2,150 tokens; room for 194,784 (200,000 less 4,096"), "{heading}");
        let squeezed: Vec<_> = lines.iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            squeezed,
            [
                "fixed 120 in: always",
                "messages 1 to 8 9,000 out: oldest, 2 of media",
                "head 30 in: always",
                "message 9 500 elided: without 2 results and thinking, 9,500 whole, 1 of media",
                "messages 10 to 12 1,500 in: recent, 3 of media",
                "brand new 1 odd",
            ]
        );
    }

    #[test]
    fn a_window_of_many_parts_is_still_a_page() {
        let parts: Vec<_> = (0..100)
            .map(|id| {
                let fate = if id % 2 == 0 { "recent" } else { "pinned" };
                json!({"what": {"messages": {"from": id, "until": id + 1}}, "tokens": 1, "fate": {"in": fate}})
            })
            .collect();
        let (_, lines) = account(&json!({"parts": parts}));
        assert_eq!(lines.len(), LINES_MAX + 1);
        assert!(lines[15].contains("70 more lines") && lines[30].contains("message 100"), "{lines:?}");
    }
}
