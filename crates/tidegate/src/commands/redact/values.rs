//! JSON values one after the other: bodies, one a line or over many lines, with nothing around them.
//!
//! Only where a value ends is found out here, by brackets outside of strings; whether it is JSON is for
//! whoever looks through it.

use super::window::read;
use std::io::{self, Read};

/// One value: the largest body that the gateway takes.
pub(super) const VALUE_BYTES_MAX: usize = 32 << 20;

/// Why there is no next value.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// The system says so.
    Read(io::Error),
    /// It is longer than [`VALUE_BYTES_MAX`].
    TooLong,
    /// It is no object, or ends in the middle; it begins behind so much white space.
    Broken(usize),
}

/// How far the reader of a value has come.
#[derive(Clone, Copy, Default)]
struct State {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

/// The values of an input.
pub(super) struct Values<R> {
    input: R,
    bytes: Vec<u8>,
    /// What was given out last.
    given: usize,
    ended: bool,
}

/// A value, and the white space before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spaced<'v> {
    pub(super) space: &'v [u8],
    /// Empty behind the last one.
    pub(super) value: &'v [u8],
}

impl<R: Read> Values<R> {
    /// The values of `input`, none of them read.
    pub(super) fn new(input: R) -> Self {
        Values { input, bytes: Vec::new(), given: 0, ended: false }
    }

    /// The next value; behind the last one the white space that is left, and then `None`.
    pub(super) fn next(&mut self) -> Result<Option<Spaced<'_>>, Unreadable> {
        self.bytes.drain(..std::mem::take(&mut self.given));
        let mut space = 0;
        loop {
            space += self.bytes[space..].iter().take_while(|b| b.is_ascii_whitespace()).count();
            if space < self.bytes.len() || self.ended || space > VALUE_BYTES_MAX {
                break;
            }
            self.read()?;
        }
        if space == self.bytes.len() || space > VALUE_BYTES_MAX {
            self.given = space;
            return Ok((space > 0).then(|| Spaced { space: &self.bytes[..space], value: &[] }));
        }
        if self.bytes[space] != b'{' {
            return Err(Unreadable::Broken(space));
        }
        let (mut at, mut state) = (space, State::default());
        let end = loop {
            if let Some(end) = state.end(&self.bytes, &mut at) {
                break end;
            }
            if at - space > VALUE_BYTES_MAX {
                return Err(Unreadable::TooLong);
            }
            if self.ended {
                return Err(Unreadable::Broken(space));
            }
            self.read()?;
        };
        self.given = end;
        Ok(Some(Spaced { space: &self.bytes[..space], value: &self.bytes[space..end] }))
    }

    /// White space that stands before what could not be read.
    pub(super) fn space(&self, bytes: usize) -> &str {
        self.bytes.get(..bytes).and_then(|space| std::str::from_utf8(space).ok()).unwrap_or_default()
    }

    fn read(&mut self) -> Result<(), Unreadable> {
        self.ended = read(&mut self.input, &mut self.bytes).map_err(Unreadable::Read)? == 0;
        Ok(())
    }
}

impl State {
    /// Goes on from `at`; the value's end, if it comes.
    fn end(&mut self, bytes: &[u8], at: &mut usize) -> Option<usize> {
        while let Some(byte) = bytes.get(*at) {
            *at += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(*at);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Vec<String>, Unreadable> {
        let mut values = Values::new(text.as_bytes());
        let (mut all, mut out) = (String::new(), Vec::new());
        while let Some(Spaced { space, value }) = values.next()? {
            let (space, value) = (std::str::from_utf8(space).unwrap(), std::str::from_utf8(value).unwrap());
            all.extend([space, value]);
            out.extend((!value.is_empty()).then(|| value.to_owned()));
        }
        assert_eq!(all, text);
        Ok(out)
    }

    #[test]
    fn values_end_where_their_brackets_do() {
        let text = " {\"a\":[{}]}\n{\"b\":\"}\\\"{\"}{} \n\n";
        assert_eq!(check(text).unwrap(), ["{\"a\":[{}]}", "{\"b\":\"}\\\"{\"}", "{}"]);
        assert_eq!(check("").unwrap(), Vec::<String>::new());
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
        assert_eq!(check(&[long.as_str(), &long].concat()).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_object_or_has_no_end_is_an_error() {
        for text in ["x", "[{}]", "\"a\"", "{\"a\":1", "{} 1"] {
            assert!(matches!(check(text), Err(Unreadable::Broken(_))), "{text}");
        }
        let endless = format!("{{\"a\":\"{}", "x".repeat(VALUE_BYTES_MAX + (1 << 20)));
        assert!(matches!(check(&endless), Err(Unreadable::TooLong)));
    }
}
