//! A walk over the strings of a JSON text, with their places in its bytes.
//!
//! Nothing is parsed into a tree: who walks is told where the inside of every string stands, keys
//! included, and which zone of the document it is in. What a zone is, is the visitor's business: it
//! says for each member of an object and each element of a list which zone begins there. Broken JSON
//! is an error, so that nothing is passed on unseen.

use std::fmt::Write;
use std::ops::Range;

/// Objects and lists inside each other; serde's parsers stop at the same number.
pub(crate) const DEPTH_MAX: usize = 128;

/// Strings and other bytes that are passed over in search of one member. Objects inside each other are
/// each searched, so this keeps a body that is made of them from costing its size many times.
const PEEK_STEPS_MAX: usize = 10_000;

/// Why a text could not be walked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Syntax,
    Depth,
}

/// A part of a document, as the visitor sees it.
pub(crate) trait Zone: Copy {
    /// The zone, once it is known to be the object that `object` begins with. Asked once an object.
    fn enter(self, object: &[u8]) -> Self;
    /// The zone of the member `key` of an object.
    fn member(self, key: &[u8]) -> Self;
    /// The zone of a list's elements.
    fn element(self) -> Self;
    /// Whether keys below are the API's and may be named.
    fn is_named(self) -> bool;
}

/// One step of a path.
#[derive(Clone, Debug)]
enum Step {
    Key(Range<usize>),
    Index(usize),
    /// A key that may itself be what must not be said.
    Unnamed(Range<usize>),
}

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Key,
    String,
    Number,
}

/// A string or a number that was come to.
pub(crate) struct Seen<'a, Z> {
    pub(crate) zone: Z,
    /// The inside of its quotes; of a number, its signs.
    pub(crate) span: Range<usize>,
    pub(crate) sort: Sort,
    text: &'a [u8],
    path: &'a [Step],
}

impl<Z> Seen<'_, Z> {
    /// Where it is, in the API's own way: `messages.3.content.0.text`. Keys that a client chose are
    /// not said.
    pub(crate) fn place(&self) -> String {
        let mut place = String::new();
        for step in self.path.iter().take_while(|step| !matches!(step, Step::Unnamed(_))) {
            if !place.is_empty() {
                place.push('.');
            }
            match step {
                Step::Key(key) => place.push_str(&String::from_utf8_lossy(&self.text[key.clone()])),
                // Writing to a string does not fail.
                Step::Index(index) => drop(write!(place, "{index}")),
                Step::Unnamed(_) => {}
            }
        }
        place
    }

    /// The client's own name for it: the nearest key above that is not the API's.
    pub(crate) fn name(&self) -> Option<Range<usize>> {
        self.path.iter().rev().find_map(|step| match step {
            Step::Unnamed(key) => Some(key.clone()),
            _ => None,
        })
    }
}

struct Walk<'a, F> {
    text: &'a [u8],
    at: usize,
    path: Vec<Step>,
    see: F,
}

/// Calls `see` with every string and number of `text`, in order.
pub(crate) fn walk<Z: Zone, E: From<Broken>>(
    text: &[u8],
    zone: Z,
    see: impl FnMut(&Seen<'_, Z>) -> Result<(), E>,
) -> Result<(), E> {
    let mut walk = Walk { text, at: 0, path: Vec::new(), see };
    walk.value(zone)?;
    walk.space();
    if walk.at == text.len() { Ok(()) } else { Err(Broken::Syntax.into()) }
}

/// The end of the string whose inside begins at `at`: the place of its closing quote.
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

impl<F> Walk<'_, F> {
    fn space(&mut self) {
        self.at += self.text[self.at..].iter().take_while(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t')).count();
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        self.space();
        self.text.get(self.at).copied()
    }

    fn string<Z: Zone, E: From<Broken>>(&mut self, zone: Z, sort: Sort) -> Result<Range<usize>, E>
    where
        F: FnMut(&Seen<'_, Z>) -> Result<(), E>,
    {
        let start = self.at + 1;
        let end = string_end(self.text, start).ok_or(Broken::Syntax)?;
        self.at = end + 1;
        let seen = Seen { zone, span: start..end, sort, text: self.text, path: &self.path };
        (self.see)(&seen)?;
        Ok(start..end)
    }

    fn value<Z: Zone, E: From<Broken>>(&mut self, zone: Z) -> Result<(), E>
    where
        F: FnMut(&Seen<'_, Z>) -> Result<(), E>,
    {
        if self.path.len() > DEPTH_MAX {
            return Err(Broken::Depth.into());
        }
        match self.next() {
            Some(b'"') => self.string(zone, Sort::String).map(drop),
            Some(b'{') => self.object(zone),
            Some(b'[') => self.list(zone),
            // Numbers and words; whether they are right is for the API to say.
            Some(b'-' | b'0'..=b'9' | b'a'..=b'z') => {
                let is_part = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.');
                let start = self.at;
                self.at += self.text[start..].iter().take_while(is_part).count();
                if self.text[start].is_ascii_alphabetic() {
                    return Ok(());
                }
                let seen = Seen { zone, span: start..self.at, sort: Sort::Number, text: self.text, path: &self.path };
                (self.see)(&seen)
            }
            _ => Err(Broken::Syntax.into()),
        }
    }

    fn object<Z: Zone, E: From<Broken>>(&mut self, zone: Z) -> Result<(), E>
    where
        F: FnMut(&Seen<'_, Z>) -> Result<(), E>,
    {
        let zone = zone.enter(&self.text[self.at..]);
        self.at += 1;
        if self.next() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.next() != Some(b'"') {
                return Err(Broken::Syntax.into());
            }
            let key = self.string(zone, Sort::Key)?;
            if self.next() != Some(b':') {
                return Err(Broken::Syntax.into());
            }
            self.at += 1;
            let inner = zone.member(&self.text[key.clone()]);
            self.path.push(if zone.is_named() { Step::Key(key) } else { Step::Unnamed(key) });
            self.value(inner)?;
            self.path.pop();
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Broken::Syntax.into()),
            }
        }
    }

    fn list<Z: Zone, E: From<Broken>>(&mut self, zone: Z) -> Result<(), E>
    where
        F: FnMut(&Seen<'_, Z>) -> Result<(), E>,
    {
        self.at += 1;
        if self.next() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        for index in 0.. {
            self.path.push(Step::Index(index));
            self.value(zone.element())?;
            self.path.pop();
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Broken::Syntax.into()),
            }
        }
        Ok(())
    }
}

/// The string that is the value of `key` in the object that `object` begins with; of its own members
/// only. `None` if there is none within [`PEEK_STEPS_MAX`], or if the text is broken, which the walk
/// will find.
pub(crate) fn peek<'a>(object: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let (mut at, mut depth, mut steps) = (0, 0usize, 0);
    loop {
        // Strings are one step however long they are: base64 is passed over at once.
        steps += 1;
        if steps > PEEK_STEPS_MAX {
            return None;
        }
        match *object.get(at)? {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1).filter(|depth| *depth > 0)?;
            }
            b'"' => {
                let end = string_end(object, at + 1)?;
                let is_key = depth == 1 && object[at + 1..end] == *key;
                at = end;
                if is_key {
                    let rest = object[end + 1..].trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
                    if let Some(value) = rest.and_then(|rest| rest.strip_prefix(b"\"")) {
                        return Some(&value[..string_end(value, 0)?]);
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// What the inside of a JSON string stands for.
pub(crate) fn unescape(inside: &str) -> Result<String, Broken> {
    if !inside.contains('\\') {
        return Ok(inside.to_owned());
    }
    serde_json::from_str(&format!("\"{inside}\"")).map_err(|_| Broken::Syntax)
}

/// `text` as it stands inside a JSON string.
pub(crate) fn escape(text: &str, out: &mut Vec<u8>) {
    for b in text.bytes() {
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
            _ => out.push(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Flat(bool);

    impl Zone for Flat {
        fn enter(self, _: &[u8]) -> Self {
            self
        }
        fn member(self, key: &[u8]) -> Self {
            Flat(self.0 && key != b"free")
        }
        fn element(self) -> Self {
            self
        }
        fn is_named(self) -> bool {
            self.0
        }
    }

    fn check(text: &str) -> Result<Vec<(String, String)>, Broken> {
        let mut seen = Vec::new();
        walk(text.as_bytes(), Flat(true), |s| {
            if s.sort == Sort::String {
                seen.push((s.place(), text[s.span.clone()].to_owned()));
            }
            Ok(())
        })
        .map(|()| seen)
    }

    #[test]
    fn strings_are_told_with_their_places() {
        let seen = check(r#"{"a":[1,"x",{"b":"y\"z"}],"free":{"secret":"s"}, "n":null}"#).unwrap();
        let seen: Vec<_> = seen.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(seen, [("a.1", "x"), ("a.2.b", "y\\\"z"), ("free", "s")]);
    }

    #[test]
    fn what_is_broken_is_an_error() {
        for text in ["{", "{\"a\"}", "[1,]x", "\"abc", "{\"a\":1}}", "", "[\"a\" \"b\"]", "{a:1}", "\"x\\"] {
            assert_eq!(check(text), Err(Broken::Syntax), "{text:?}");
        }
        assert_eq!(check(&"[".repeat(1000)), Err(Broken::Depth));
    }

    #[test]
    fn a_member_is_peeked_at_on_its_own_level_only() {
        let object = br#"{"x":{"type":"inner"},"y":["type"],"type" : "outer"}, "type":"later""#;
        assert_eq!(peek(object, b"type"), Some(&b"outer"[..]));
        assert_eq!(peek(br#"{"x":1}"#, b"type"), None);
    }

    proptest::proptest! {
        #[test]
        fn escaping_is_undone_by_unescaping(text in "[ -~\u{0}-\u{1f}é一]{0,20}") {
            let mut escaped = Vec::new();
            escape(&text, &mut escaped);
            proptest::prop_assert_eq!(unescape(std::str::from_utf8(&escaped).unwrap()).unwrap(), text);
        }
    }
}
