//! What a query says: `key=value` pairs, encoded as in forms. Each key is known and comes once, or the
//! request is refused: a filter that is misspelt must not mean "all".

use crate::answer::Trouble;
use crate::memory::TurnTrouble;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The text that `encoded` stands for; `plus` says that "+" is a space, as in a query. `None` if an
/// escape is cut or no escape, or if it is not UTF-8.
pub(crate) fn decoded(encoded: &str, plus: bool) -> Option<String> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                out.push((high << 4 | low) as u8);
            }
            b'+' if plus => out.push(b' '),
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

/// A query.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(BTreeMap<String, String>);

fn wrong(why: String) -> Trouble {
    TurnTrouble::Query(why).into()
}

impl Query {
    /// Reads it; only keys of `known` may be there.
    pub(crate) fn read(text: &str, known: &[&str]) -> Result<Self, Trouble> {
        let mut pairs = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let both = decoded(key, true).zip(decoded(value, true));
            let (key, value) = both.ok_or_else(|| wrong("the query is not percent-encoded UTF-8".to_owned()))?;
            if !known.contains(&key.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(wrong(format!("the query has a key that is not known here; known: {known}")));
            }
            if pairs.insert(key.clone(), value).is_some() {
                return Err(wrong(format!("{key} is there twice")));
            }
        }
        Ok(Query(pairs))
    }

    /// A value as it is.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// A number of a range.
    pub(crate) fn number(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Trouble> {
        let Some(text) = self.text(key) else { return Ok(None) };
        // A sign would be taken by the parser.
        let number = if text.starts_with('+') { None } else { text.parse().ok() };
        let expected = || wrong(format!("{key}: expected a number from {} to {}", range.start(), range.end()));
        number.filter(|n| range.contains(n)).map(Some).ok_or_else(expected)
    }

    /// `1` or `0`: what is written into a URL by hand.
    pub(crate) fn switch(&self, key: &str) -> Result<bool, Trouble> {
        match self.text(key) {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(_) => Err(wrong(format!("{key}: expected `1` or `0`"))),
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, Trouble> {
        match self.text(key) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(wrong(format!("{key}: expected `true` or `false`"))),
        }
    }

    /// Whether lines are asked for.
    pub(crate) fn wants_lines(&self) -> Result<bool, Trouble> {
        match self.text("format") {
            None | Some("json") => Ok(false),
            Some("jsonl") => Ok(true),
            Some(_) => Err(wrong("format: expected `json` or `jsonl`".to_owned())),
        }
    }

    /// The end user, if one is named; not everybody by an empty name.
    pub(crate) fn user(&self) -> Result<Option<&str>, Trouble> {
        match self.text("user_id") {
            Some("") => Err(wrong("user_id: expected the id of an end user".to_owned())),
            user => Ok(user),
        }
    }

    /// Refuses keys that mean nothing beside what else is asked for.
    pub(crate) fn without(&self, keys: &[&str], beside: &str) -> Result<(), Trouble> {
        match keys.iter().find(|key| self.0.contains_key(**key)) {
            Some(key) => Err(wrong(format!("{key} means nothing {beside}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn why(result: Result<impl std::fmt::Debug, Trouble>) -> String {
        let Err(Trouble::Turn(trouble)) = result else { panic!("not refused: {result:?}") };
        let TurnTrouble::Query(why) = *trouble else { panic!("refused as another thing") };
        why
    }

    #[test]
    fn known_keys_are_read_once() {
        let query = Query::read("limit=20&&user_id=a%26b+c&flag", &["limit", "user_id", "flag"]).unwrap();
        assert_eq!(query.number("limit", 1..=1000).unwrap(), Some(20));
        assert_eq!((query.user().unwrap(), query.text("flag")), (Some("a&b c"), Some("")));
        assert_eq!(Query::read("", &[]).unwrap(), Query::default());
        assert!(why(Query::read("limt=1", &["limit", "page"])).contains("limit, page"));
        assert!(why(Query::read("limit=1&limit=1", &["limit"])).contains("twice"));
        for bad in ["limit=%", "%zz=1", "limit=%ff"] {
            assert!(why(Query::read(bad, &["limit"])).contains("percent"), "{bad}");
        }
    }

    #[test]
    fn values_are_what_they_have_to_be() {
        for bad in ["0", "1001", "-1", "+5", "", "1e2", "99999999999999999999"] {
            let query = Query(BTreeMap::from([("limit".to_owned(), bad.to_owned())]));
            assert_eq!(why(query.number("limit", 1..=1000)), "limit: expected a number from 1 to 1000", "{bad}");
        }
        let query = Query::read("format=xml&messages=1&user_id=", &["format", "messages", "user_id"]).unwrap();
        assert!(why(query.wants_lines()).contains("jsonl") && why(query.flag("messages")).contains("true"));
        assert!(why(query.user()).contains("user_id"));
        assert!(why(query.without(&["page", "format"], "here")).contains("format means nothing here"));
    }

    proptest! {
        #[test]
        fn no_query_panics_or_lets_an_unknown_key_through(text in "[a-f%=&+0-9\\PC]{0,60}") {
            if let Ok(query) = Query::read(&text, &["a", "b"]) {
                prop_assert!(query.0.keys().all(|key| key == "a" || key == "b"));
            }
        }
    }
}
