//! Models whose id begins with `echo`: what they say back, and how.
//!
//! Words behind the first one, joined by `-`, say more:
//!
//! - `mangled`: codes are said as models and Markdown garble them. A code is a word of eight or more
//!   capital letters of ASCII; it comes in one of [`DRESSES`], or as it is, by the dice.
//! - `thinking`: thinking that is shown says the same text, codes untouched.
//! - `tool`: the input of a tool that is called says it too, in its first property that is a string.
//!
//! Everything else in the id is just a name.

use serde_json::Value;
use tidegate_base::Prng;

/// Shorter words are abbreviations that anybody uses.
const CODE_LETTERS_MIN: usize = 8;

/// What a model of this id does besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Echo {
    pub(super) mangled: bool,
    pub(super) thinking: bool,
    pub(super) tool: bool,
}

impl Echo {
    pub(super) fn of(model: &str) -> Echo {
        let has = |word: &str| model.split('-').skip(1).any(|w| w == word);
        Echo { mangled: has("mangled"), thinking: has("thinking"), tool: has("tool") }
    }

    /// `text` as it is said.
    pub(super) fn say(self, text: &str, prng: &mut Prng) -> String {
        if self.mangled { mangle(text, prng) } else { text.to_owned() }
    }
}

/// A way to garble a code.
type Dress = fn(code: &str) -> String;

/// Puts `sign` into the middle.
fn broken(code: &str, sign: &str) -> String {
    let (head, tail) = code.split_at(code.len() / 2);
    [head, sign, tail].concat()
}

const DRESSES: [Dress; 14] = [
    |code| code.to_ascii_lowercase(),
    |code| code[..1].to_owned() + &code[1..].to_ascii_lowercase(),
    |code| code.chars().map(String::from).collect::<Vec<_>>().join(" "),
    |code| broken(code, " "),
    |code| broken(code, "\n"),
    |code| broken(code, "-"),
    |code| broken(code, "\\"),
    |code| broken(code, "\u{200b}"),
    |code| broken(code, "\u{2011}"),
    |code| format!("**{}", broken(code, "** ")),
    |code| format!("**{code}**"),
    |code| format!("`{code}`"),
    |code| format!("_{code}_'s"),
    |code| code.chars().map(|c| char::from_u32(c as u32 + 0xFEE0).unwrap_or(c)).collect(),
];

/// `text` with its codes garbled.
fn mangle(text: &str, prng: &mut Prng) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        let end = rest[start..].find(|c: char| !c.is_ascii_alphanumeric()).map_or(rest.len(), |len| start + len);
        let word = &rest[start..end];
        out.push_str(&rest[..start]);
        let is_code = word.len() >= CODE_LETTERS_MIN && word.bytes().all(|b| b.is_ascii_uppercase());
        // As it is, one time in so many as there are dresses.
        match DRESSES.get(prng.below(DRESSES.len() as u64 + 1) as usize).filter(|_| is_code) {
            Some(dress) => out.push_str(&dress(word)),
            None => out.push_str(word),
        }
        rest = &rest[end..];
    }
    out + rest
}

/// `input` with its first property that the schema calls a string set to `text`; a property called
/// `text` where there is none.
pub(super) fn tell(input: &mut Value, schema: &Value, text: &str) {
    let properties = schema.get("properties").and_then(Value::as_object);
    let is_text = |schema: &Value| schema.get("type").and_then(Value::as_str) == Some("string");
    let name = properties.and_then(|all| all.iter().find(|(_, one)| is_text(one)).map(|(name, _)| name.clone()));
    if let Value::Object(object) = input {
        object.insert(name.unwrap_or_else(|| "text".to_owned()), Value::from(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_id_says_what_is_done() {
        assert_eq!(Echo::of("echo"), Echo::default());
        assert_eq!(Echo::of("echo-00000001"), Echo::default());
        assert_eq!(Echo::of("echo-mangled-tool-7"), Echo { mangled: true, thinking: false, tool: true });
    }

    #[test]
    fn codes_are_garbled_in_every_way_and_nothing_else_is() {
        let mut prng = Prng::new(1);
        let text = "Dear HTTP user, ABCDEFGHJK owes 12; abcdefghjk; ABCDEFGH1.";
        let said: std::collections::BTreeSet<String> = (0..400).map(|_| mangle(text, &mut prng)).collect();
        assert_eq!(said.len(), DRESSES.len() + 1);
        for said in said {
            assert!(
                said.starts_with("Dear HTTP user, ") && said.ends_with(" owes 12; abcdefghjk; ABCDEFGH1."),
                "{said}"
            );
        }
    }

    #[test]
    fn a_tool_is_told_in_its_first_string() {
        let schema = json!({"properties": {"n": {"type": "integer"}, "to": {"type": "string"}}});
        let mut input = json!({"n": 3, "to": "x"});
        tell(&mut input, &schema, "hello");
        assert_eq!(input, json!({"n": 3, "to": "hello"}));
        let mut input = json!({});
        tell(&mut input, &json!({}), "hello");
        assert_eq!(input, json!({"text": "hello"}));
    }
}
