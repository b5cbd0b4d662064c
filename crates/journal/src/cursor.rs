//! A reader's place in a reply: `<stream>:<epoch>-<seq>`.
//!
//! To a client it is an opaque string. Its numbers are hexadecimal and of fixed width, so that of two
//! places in one stream the earlier one sorts first, byte by byte. It names the last event its
//! holder has; place 0 is before the first. The epoch is that of the owner who appended the event,
//! so an event has the same cursor for ever, whoever reads it when.

use std::fmt;
use tidegate_base::StreamId;

/// Who may append: the journal's owners, counted. A restart makes a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u32);

impl Epoch {
    /// The first owner's.
    pub const FIRST: Epoch = Epoch(1);

    pub(crate) fn of(number: u32) -> Option<Self> {
        (number > 0).then_some(Epoch(number))
    }

    pub(crate) fn number(self) -> u32 {
        self.0
    }

    pub(crate) fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Epoch)
    }
}

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The stream.
    pub stream: StreamId,
    /// Who appended the event.
    pub epoch: Epoch,
    /// The event's number; 0 before the first.
    pub seq: u64,
}

const EPOCH_DIGITS: usize = 8;
const SEQ_DIGITS: usize = 16;

impl Cursor {
    /// Reads a cursor a client sent back; `None` if it is not of our shape.
    pub fn parse(text: &str) -> Option<Self> {
        let (stream, place) = text.split_once(':')?;
        let (epoch, seq) = place.split_once('-')?;
        Some(Cursor {
            stream: StreamId::parse(stream)?,
            epoch: Epoch::of(hexadecimal(epoch, EPOCH_DIGITS)? as u32)?,
            seq: hexadecimal(seq, SEQ_DIGITS)?,
        })
    }
}

/// Exactly so many digits, lower case: a cursor has one spelling.
fn hexadecimal(text: &str, digits: usize) -> Option<u64> {
    let shaped = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    shaped.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:08x}-{:016x}", self.stream, self.epoch.0, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_base::{IdSource, Prng};

    fn at(epoch: u32, seq: u64) -> Cursor {
        Cursor { stream: IdSource::new(Prng::new(1), 3).stream(), epoch: Epoch(epoch), seq }
    }

    #[test]
    fn a_cursor_survives_text_and_has_one_spelling() {
        for cursor in [at(1, 0), at(7, 42), at(u32::MAX, u64::MAX)] {
            assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        }
        let text = at(7, 42).to_string();
        let (stream, _) = text.split_once(':').unwrap();
        for wrong in [
            "",
            &text[..text.len() - 1],
            &format!("{text}0"),
            &text.replace("2a", "2A"),
            &text.replace(":0", ":+"),
            &format!("{stream}:00000000-0000000000000001"),
            &format!("{stream}:7-42"),
            "str_:00000001-0000000000000001",
        ] {
            assert_eq!(Cursor::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_earlier_place_sorts_first_as_text() {
        let places = [at(1, 0), at(1, 9), at(1, 10), at(1, 255), at(2, 256), at(10, 257), at(10, 1 << 40)];
        for pair in places.windows(2) {
            assert!(pair[0].to_string() < pair[1].to_string(), "{pair:?}");
        }
    }
}
