//! Header lines as they came, found by name.
//!
//! One buffer holds the head; a line is four numbers into it. Looking a name up is a walk over
//! some twenty lines that compares lengths first, which beats hashing at this size and allocates
//! nothing. Order, spelling and repetition are kept, so that what is passed on is what came.

use bytes::Bytes;

#[derive(Clone, Copy, Debug)]
struct Line {
    name_at: u32,
    name_len: u32,
    value_at: u32,
    value_len: u32,
}

/// An immutable list of header lines over one shared buffer.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    buffer: Bytes,
    lines: Vec<Line>,
}

impl Headers {
    /// The lines that `parsed` points at inside `buffer`.
    pub(super) fn from_parsed(buffer: Bytes, parsed: &[httparse::Header<'_>]) -> Self {
        let base = buffer.as_ptr() as usize;
        let at = |p: *const u8| (p as usize).wrapping_sub(base) as u32;
        let lines = parsed
            .iter()
            .map(|h| Line {
                name_at: at(h.name.as_ptr()),
                name_len: h.name.len() as u32,
                value_at: at(h.value.as_ptr()),
                value_len: h.value.len() as u32,
            })
            .collect();
        Headers { buffer, lines }
    }

    /// Lines made by hand (HTTP/2, tests, the simulator).
    pub fn from_pairs<N: AsRef<str>, V: AsRef<[u8]>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut buffer = Vec::new();
        let mut lines = Vec::new();
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            let name_at = buffer.len() as u32;
            buffer.extend_from_slice(name.as_bytes());
            let value_at = buffer.len() as u32;
            buffer.extend_from_slice(value);
            lines.push(Line { name_at, name_len: name.len() as u32, value_at, value_len: value.len() as u32 });
        }
        Headers { buffer: buffer.into(), lines }
    }

    fn part(&self, at: u32, len: u32) -> &[u8] {
        self.buffer.get(at as usize..at as usize + len as usize).unwrap_or_default()
    }

    /// The bytes that all lines stand in, with what is between them.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Every line, in order: name as it was spelled (a token: plain ASCII), value without
    /// surrounding white space.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|l| (self.part(l.name_at, l.name_len), self.part(l.value_at, l.value_len)))
    }

    /// Every value of `name` (any case), in order.
    pub fn get_all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The first value of `name` (any case).
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// The first value of `name`, if it is UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|v| std::str::from_utf8(v).ok())
    }

    /// Whether `name` is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether the comma-separated list header `name` names `token` (any case).
    pub fn lists(&self, name: &str, token: &(impl AsRef<[u8]> + ?Sized)) -> bool {
        self.get_all(name)
            .flat_map(|v| v.split(|b| *b == b','))
            .any(|t| t.trim_ascii().eq_ignore_ascii_case(token.as_ref()))
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_in_any_case_and_lists_are_read_across_lines() {
        let h = Headers::from_pairs([("X-Api-Key", "a"), ("connection", "keep-alive, X-Foo"), ("Connection", "close")]);
        assert_eq!(h.text("x-api-key"), Some("a"));
        assert!(h.lists("connection", "x-foo") && h.lists("connection", "CLOSE"));
        assert!(!h.lists("connection", "foo"));
        assert_eq!(h.get_all("connection").count(), 2);
    }
}
