//! Errors about files in which keys may stand, told without what stands there.
//!
//! A reader of TOML quotes what it did not understand, and what people paste into the wrong place is a
//! key. So quoted values are left out, and names in backticks unless they are known to be harmless.

/// Characters from which on a word that begins as a key does is taken for one.
const KEY_CHARS: usize = 16;

/// Whether `word` looks like a key, of ours or of the API: what begins as one and is long.
pub(crate) fn looks_like_a_key(word: &str) -> bool {
    let mut parts = word.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')));
    parts.any(|part| part.len() >= KEY_CHARS && ["tg_", "sk-"].iter().any(|begin| part.starts_with(begin)))
}

/// `message` of a reader without the values it quotes: what stands after `string`, and between two backticks
/// unless it `may_show` it; signs of one or two characters stay.
pub(crate) fn without_values(message: &str, may_show: impl Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(['"', '`']) {
        let mark = if rest[at..].starts_with('"') { '"' } else { '`' };
        let is_value = mark == '`' || rest[..at].ends_with("string ");
        out.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        let mut escaped = false;
        let ends = |c: char| {
            let ends = c == mark && !escaped;
            escaped = c == '\\' && !escaped && mark == '"';
            ends
        };
        let end = rest.find(ends).unwrap_or(rest.len());
        let inner = &rest[..end];
        let shown = !is_value || inner.chars().count() <= 2 || mark == '`' && may_show(inner);
        out.push_str(if shown { inner } else { "..." });
        rest = &rest[end..];
        if rest.starts_with(mark) {
            out.push(mark);
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    if looks_like_a_key(&out) { "cannot be read".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_left_out_and_known_names_stay() {
        let check = |message: &str| without_values(message, |word| word == "key");
        assert_eq!(check("missing field `key`"), "missing field `key`");
        assert_eq!(check("unknown field `abc`, expected `key`"), "unknown field `...`, expected `key`");
        assert_eq!(
            check("invalid type: string \"a\\\"bcd\", expected u8"),
            "invalid type: string \"...\", expected u8"
        );
        assert_eq!(check("expected `=`, found `\"`"), "expected `=`, found `\"`");
        assert_eq!(check("such as \"30 s\" or \"5 s\""), "such as \"30 s\" or \"5 s\"");
        assert_eq!(check("open string \"abc"), "open string \"...");
        assert_eq!(check("a `b` c `tg_` tg_aaaaaaaaaaaaaaaaaaaa"), "cannot be read");
    }

    #[test]
    fn keys_are_known_by_how_they_begin_and_by_their_length() {
        assert!(looks_like_a_key("sk-ant-api03-abcdefgh"));
        assert!(looks_like_a_key("x = tg_aaaaaaaaaaaaaaaaaaaa"));
        assert!(!looks_like_a_key("tg_team"));
        assert!(!looks_like_a_key("requests_per_minute"));
    }
}
