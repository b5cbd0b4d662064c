//! Where something stands, and how much of each kind there is.

use std::fmt;
use tidegate_redact::kind::{KINDS, Kind};

/// A place in a text, as editors count: lines and characters from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    line: u64,
    column: u64,
}

impl Default for Place {
    fn default() -> Self {
        Place { line: 1, column: 1 }
    }
}

impl Place {
    /// Goes on behind `text`.
    pub(super) fn over(&mut self, text: &str) {
        let lines = text.bytes().filter(|b| *b == b'\n').count() as u64;
        if lines > 0 {
            self.line += lines;
            self.column = 1;
        }
        let last = text.rsplit('\n').next().unwrap_or_default();
        self.column += last.chars().count() as u64;
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// How much was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    kinds: [u64; KINDS],
    /// Base64 media, URLs and file ids that were not looked into.
    pub(super) unscannable: u64,
}

impl Tally {
    pub(super) fn count(&mut self, kind: Kind) {
        self.kinds[kind.index()] += 1;
    }

    /// All of it.
    pub(super) fn found(&self) -> u64 {
        self.kinds.iter().sum()
    }

    /// What was not looked into.
    pub(super) fn unscannable_told(&self) -> String {
        format!("{} (base64, URLs, file ids)", self.unscannable)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found() {
            0 => f.write_str("found nothing")?,
            all => write!(f, "found {all}: ")?,
        }
        let some = Kind::ALL.into_iter().filter(|kind| self.kinds[kind.index()] > 0);
        for (nth, kind) in some.enumerate() {
            write!(f, "{}{kind} {}", if nth > 0 { ", " } else { "" }, self.kinds[kind.index()])?;
        }
        if self.unscannable > 0 {
            write!(f, "; not looked into: {}", self.unscannable_told())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters_across_pieces() {
        let mut place = Place::default();
        for piece in ["电话", " x\n", "\nab", "c"] {
            place.over(piece);
        }
        assert_eq!(place.to_string(), "3:4");
    }

    #[test]
    fn a_tally_tells_kinds_in_order_and_what_was_not_looked_into() {
        let mut tally = Tally::default();
        assert_eq!(tally.to_string(), "found nothing");
        [Kind::Email, Kind::Phone, Kind::Email].into_iter().for_each(|kind| tally.count(kind));
        tally.unscannable = 2;
        assert_eq!(tally.to_string(), "found 3: phone 1, email 2; not looked into: 2 (base64, URLs, file ids)");
    }
}
