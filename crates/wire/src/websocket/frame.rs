//! One frame's head, and what may be wrong with a frame.
//!
//! ```text
//!  byte 0      byte 1      0, 2 or 8 bytes   0 or 4 bytes
//! +-+---+----+ +-+-------+ +---------------+ +-----------+ +---------
//! |F|RSV|op  | |M| len   | | longer length | | mask key  | | payload ...
//! +-+---+----+ +-+-------+ +---------------+ +-----------+ +---------
//! ```
//! `len` up to 125 is the length itself; 126 says that two bytes follow, 127 eight. A head is judged
//! byte by byte in this order, so that the verdict does not depend on how the bytes arrive.

use super::CONTROL_BYTES_MAX;
use std::fmt;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with a message that has begun.
    Continuation,
    /// Begins a message of text.
    Text,
    /// Begins a message of bytes.
    Binary,
    /// Ends the connection.
    Close,
    /// Asks for a sign of life.
    Ping,
    /// Gives one.
    Pong,
}

impl Opcode {
    pub(super) fn of(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xA => Opcode::Pong,
            _ => return None,
        })
    }

    pub(super) fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xA,
        }
    }

    /// Whether it is about the connection and may stand between the fragments of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

/// A code that may stand in a close frame (RFC 6455 section 7.4 and its registry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// What was wanted is done.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// The server stops, or the client leaves the page.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL: CloseCode = CloseCode(1002);
    /// A kind of message that is not taken here.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    /// Text that is not UTF-8.
    pub const NOT_TEXT: CloseCode = CloseCode(1007);
    /// Against the rules of this server.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// A message over the limit.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// The fault is on our side.
    pub const INTERNAL: CloseCode = CloseCode(1011);
    /// Too much to do now; come back later.
    pub const TRY_LATER: CloseCode = CloseCode(1013);

    /// The code `number`, if it may be sent: 1004 to 1006 and 1015 are for local use only, 1016 to
    /// 2999 are given to nobody, from 5000 on there is nothing.
    pub fn new(number: u16) -> Option<CloseCode> {
        matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999).then_some(CloseCode(number))
    }

    /// Its number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a peer broke the rules. The connection cannot go on: what follows has no certain meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A reserved bit is set, and no extension was agreed on.
    ReservedBit,
    /// An opcode that means nothing.
    Opcode,
    /// A client's frame without a mask, or a server's with one.
    Masking,
    /// A length that would fit a shorter form, or has its highest bit set.
    LengthForm,
    /// A control frame of more than [`CONTROL_BYTES_MAX`] bytes.
    LongControl,
    /// A control frame in fragments.
    FragmentedControl,
    /// A continuation, but no message has begun.
    NothingToContinue,
    /// A message that begins inside another.
    Interleaved,
    /// A close frame with a payload of one byte.
    HalfCloseCode,
    /// A close code that may not be sent.
    CloseCode,
    /// Text, or a close reason, that is not UTF-8.
    NotText,
    /// A frame or a message over its limit.
    TooBig,
}

impl Violation {
    /// The code to close the connection with.
    pub fn close_code(self) -> CloseCode {
        match self {
            Violation::NotText => CloseCode::NOT_TEXT,
            Violation::TooBig => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::ReservedBit => "a reserved bit is set; no extension was agreed on",
            Violation::Opcode => "a frame has an opcode that RFC 6455 does not define",
            Violation::Masking => "frames of a client are masked, frames of a server are not",
            Violation::LengthForm => "a frame's length is not in its shortest form",
            Violation::LongControl => "a control frame carries more than 125 bytes",
            Violation::FragmentedControl => "a control frame is in fragments",
            Violation::NothingToContinue => "a continuation frame, but no message has begun",
            Violation::Interleaved => "a message begins inside another one",
            Violation::HalfCloseCode => "a close frame carries a single byte",
            Violation::CloseCode => "a close frame carries a code that may not be sent",
            Violation::NotText => "text is not UTF-8",
            Violation::TooBig => "a message is over the limit",
        })
    }
}

impl std::error::Error for Violation {}

/// A frame's head as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    pub(super) length: u64,
    pub(super) key: Option<[u8; 4]>,
}

/// Reads the head that `bytes` begins with, of a peer whose frames are `masked`; with it, how many
/// bytes it has. `None` if it is not whole yet.
pub(super) fn read_head(bytes: &[u8], masked: bool) -> Result<Option<(Head, usize)>, Violation> {
    let Some(first) = bytes.first() else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Violation::ReservedBit);
    }
    let opcode = Opcode::of(first & 0x0F).ok_or(Violation::Opcode)?;
    let fin = first & 0x80 != 0;
    if opcode.is_control() && !fin {
        return Err(Violation::FragmentedControl);
    }
    let Some(second) = bytes.get(1) else { return Ok(None) };
    if (second & 0x80 != 0) != masked {
        return Err(Violation::Masking);
    }
    let short = second & 0x7F;
    if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(Violation::LongControl);
    }
    let (length, after) = match short {
        126 => {
            let Some(&[a, b]) = bytes.get(2..4) else { return Ok(None) };
            (u64::from(u16::from_be_bytes([a, b])), 4)
        }
        127 => {
            let Some(long) = bytes.get(2..10) else { return Ok(None) };
            (long.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)), 10)
        }
        _ => (u64::from(short), 2),
    };
    let least = [0, 126, 1 << 16][match short {
        126 => 1,
        127 => 2,
        _ => 0,
    }];
    if length < least || length >> 63 != 0 {
        return Err(Violation::LengthForm);
    }
    let (key, size) = match masked {
        true => {
            let Some(&[a, b, c, d]) = bytes.get(after..after + 4) else { return Ok(None) };
            (Some([a, b, c, d]), after + 4)
        }
        false => (None, after),
    };
    Ok(Some((Head { fin, opcode, length, key }, size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8]) -> Result<Option<(Head, usize)>, Violation> {
        read_head(bytes, false)
    }

    #[test]
    fn only_codes_that_may_be_sent_are_codes() {
        for bad in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_eq!(CloseCode::new(bad), None, "{bad}");
        }
        for good in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert_eq!(CloseCode::new(good).map(CloseCode::number), Some(good));
        }
    }

    #[test]
    fn a_length_has_its_shortest_form() {
        assert_eq!(check(b"\x82\x7e\x00\x7d"), Err(Violation::LengthForm));
        assert_eq!(check(b"\x82\x7e\x00\x7e").unwrap().unwrap().0.length, 126);
        assert_eq!(check(b"\x82\x7f\0\0\0\0\0\0\xff\xff"), Err(Violation::LengthForm));
        assert_eq!(check(b"\x82\x7f\0\0\0\0\0\x01\0\0").unwrap().unwrap(), {
            (Head { fin: true, opcode: Opcode::Binary, length: 65536, key: None }, 10)
        });
        assert_eq!(check(b"\x82\x7f\x80\0\0\0\0\x01\0\0"), Err(Violation::LengthForm));
    }

    #[test]
    fn a_head_is_judged_as_soon_as_its_byte_is_there() {
        for bits in [0xC1, 0xA1, 0x91] {
            assert_eq!(check(&[bits]), Err(Violation::ReservedBit));
        }
        for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
            assert_eq!(check(&[0x80 | opcode]), Err(Violation::Opcode));
        }
        assert_eq!(check(b"\x09"), Err(Violation::FragmentedControl));
        assert_eq!(check(b"\x89\x7e"), Err(Violation::LongControl));
        assert_eq!(check(b"\x81\x80"), Err(Violation::Masking));
        assert_eq!(read_head(b"\x81\x00", true), Err(Violation::Masking));
        assert_eq!(check(b"\x81"), Ok(None));
        assert_eq!(read_head(b"\x81\x81\x01\x02\x03", true), Ok(None));
    }
}
