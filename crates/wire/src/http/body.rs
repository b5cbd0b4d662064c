//! Bodies as they arrive: by length, in chunks, or until the connection closes.
//!
//! ```text
//!   Length(n) ──data──▶ Length(n-k) ─▶ Done
//!   Size ──"1f ;ext\r\n"─▶ Data(31) ──data──▶ DataEnd ──"\r\n"──▶ Size
//!     └──"0\r\n"──▶ Trailer ──"x: y\r\n"──▶ Trailer ──"\r\n"──▶ Done
//!   UntilClose ──data──▶ UntilClose
//! ```
//! The decoder is shown what was read and points at the data in it; nothing is copied. Chunk
//! extensions and trailers are dropped, both within a limit; a line that does not end in CR LF is
//! an error. `Done` is the only state in which the connection may be used again.

use super::Framing;
use std::fmt;
use std::ops::Range;

/// The most bytes of one chunk-size line or of all trailers.
const LINE_BYTES_MAX: u32 = 8 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    SizeDigits { size: u64, digits: u8 },
    SizeSpace { size: u64 },
    SizeExtension { size: u64 },
    SizeLineFeed { size: u64 },
    Data(u64),
    DataReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    EndLineFeed,
    UntilClose,
    Done,
}

/// What the decoder found at the front of what it was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyStep {
    /// These bytes are data; everything before their end is used up.
    Data(Range<usize>),
    /// All of it is used up and the body goes on.
    More,
    /// The body ended after so many bytes; what follows belongs to the next message.
    End(usize),
}

/// A body that is not what its framing says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// A chunk-size line or the end of a chunk is malformed.
    Chunk,
    /// A chunk-size line or the trailers are over 8 KiB.
    TooLarge,
    /// The connection closed inside the body.
    Cut,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyError::Chunk => "the body's chunked framing is malformed",
            BodyError::TooLarge => "a chunk-size line or the trailers are over 8 KiB",
            BodyError::Cut => "the connection closed inside the body",
        })
    }
}

impl std::error::Error for BodyError {}

/// Reads one body; made anew for each message.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    line: u32,
}

impl BodyDecoder {
    /// A decoder for a body framed so.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::SizeDigits { size: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        BodyDecoder { state, line: 0 }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// What the end of the connection means here: the end of the body, or a cut.
    pub fn closed(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Cut),
        }
    }

    /// Looks at `read` and says what is at its front. Call again with what follows.
    pub fn step(&mut self, read: &[u8]) -> Result<BodyStep, BodyError> {
        let mut at = 0;
        loop {
            let left = &read[at..];
            match self.state {
                State::Done => return Ok(BodyStep::End(at)),
                _ if left.is_empty() => return Ok(BodyStep::More),
                State::UntilClose => return Ok(BodyStep::Data(at..read.len())),
                State::Length(n) => {
                    let k = (left.len() as u64).min(n);
                    self.state = if k == n { State::Done } else { State::Length(n - k) };
                    return Ok(BodyStep::Data(at..at + k as usize));
                }
                State::Data(n) => {
                    let k = (left.len() as u64).min(n);
                    self.state = if k == n { State::DataReturn } else { State::Data(n - k) };
                    return Ok(BodyStep::Data(at..at + k as usize));
                }
                State::DataReturn if left.starts_with(b"\r\n") => {
                    (self.state, self.line) = (State::SizeDigits { size: 0, digits: 0 }, 0);
                    at += 2;
                }
                State::SizeDigits { digits: 0, .. } if let Some((size, line)) = plain_size(left) => {
                    (self.state, self.line) = (State::Data(size), 0);
                    at += line;
                }
                _ => {
                    self.framing_byte(left[0])?;
                    at += 1;
                }
            }
        }
    }

    fn framing_byte(&mut self, byte: u8) -> Result<(), BodyError> {
        self.line += 1;
        if self.line > LINE_BYTES_MAX {
            return Err(BodyError::TooLarge);
        }
        self.state = match (self.state, byte) {
            (State::SizeDigits { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == 15 {
                    return Err(BodyError::Chunk);
                }
                let digit = u64::from((byte as char).to_digit(16).unwrap_or(0));
                State::SizeDigits { size: size << 4 | digit, digits: digits + 1 }
            }
            (State::SizeDigits { digits: 0, .. }, _) => return Err(BodyError::Chunk),
            (State::SizeDigits { size, .. } | State::SizeSpace { size }, b' ' | b'\t') => State::SizeSpace { size },
            (State::SizeDigits { size, .. } | State::SizeSpace { size }, b';') => State::SizeExtension { size },
            (State::SizeDigits { size, .. } | State::SizeSpace { size } | State::SizeExtension { size }, b'\r') => {
                State::SizeLineFeed { size }
            }
            (State::SizeExtension { size }, b) if is_text(b) => State::SizeExtension { size },
            (State::SizeLineFeed { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLineFeed { size }, b'\n') => {
                self.line = 0;
                State::Data(size)
            }
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => {
                self.line = 0;
                State::SizeDigits { size: 0, digits: 0 }
            }
            (State::TrailerStart, b'\r') => State::EndLineFeed,
            (State::TrailerStart | State::TrailerName, b) if is_name(b) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLineFeed,
            (State::TrailerValue, b) if is_text(b) => State::TrailerValue,
            (State::TrailerLineFeed, b'\n') => State::TrailerStart,
            (State::EndLineFeed, b'\n') => State::Done,
            _ => return Err(BodyError::Chunk),
        };
        Ok(())
    }
}

/// The usual chunk-size line, whole at the front of `read`: one to four digits, not zero, and CR LF.
/// Its size, and how many bytes it takes. Everything else goes byte by byte.
fn plain_size(read: &[u8]) -> Option<(u64, usize)> {
    let (mut size, mut at) = (0, 0);
    while at < 4
        && let Some(digit) = read.get(at).and_then(|b| char::from(*b).to_digit(16))
    {
        size = size << 4 | u64::from(digit);
        at += 1;
    }
    (size > 0 && read[at..].starts_with(b"\r\n")).then_some((size, at + 2))
}

/// Whether a header's name may have this byte (a token, RFC 9110 section 5.6.2).
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a header's value may have this byte; controls, among them both line ends, may not.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_size_line_takes_the_short_way() {
        assert_eq!(plain_size(b"1f\r\nx"), Some((31, 4)));
        assert_eq!(plain_size(b"00aB\r\n"), Some((0xab, 6)));
        for other in
            [&b""[..], b"1f", b"1f\r", b"1f\n", b"0\r\n", b"0000\r\n", b"1f \r\n", b"1f;x\r\n", b"12345\r\n", b"g\r\n"]
        {
            assert_eq!(plain_size(other), None, "{other:?}");
        }
    }

    /// Feeds `wire` in pieces of `piece` bytes; the data, and how many bytes were used.
    fn check(framing: Framing, wire: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), BodyError> {
        let mut decoder = BodyDecoder::new(framing);
        let (mut data, mut used) = (Vec::new(), 0);
        for part in wire.chunks(piece.max(1)) {
            let mut at = 0;
            loop {
                match decoder.step(&part[at..])? {
                    BodyStep::Data(range) => {
                        data.extend_from_slice(&part[at + range.start..at + range.end]);
                        at += range.end;
                    }
                    BodyStep::More => {
                        used += part.len();
                        break;
                    }
                    BodyStep::End(n) => return Ok((data, used + at + n, true)),
                }
            }
        }
        Ok((data, used, decoder.is_done()))
    }

    const WIRE: &[u8] = b"5;a=b\r\nhello\r\n1\r\n \r\n005\r\nworld\r\n0\r\nx: y\r\n\r\nGET";

    #[test]
    fn chunks_come_out_whole_however_they_are_cut() {
        for piece in 1..WIRE.len() {
            let (data, used, done) = check(Framing::Chunked, WIRE, piece).unwrap();
            assert_eq!((data.as_slice(), used, done), (&b"hello world"[..], WIRE.len() - 3, true), "{piece}");
        }
    }

    #[test]
    fn a_length_ends_where_it_says() {
        assert_eq!(check(Framing::Length(4), b"abcdGET", 3), Ok((b"abcd".to_vec(), 4, true)));
        assert_eq!(check(Framing::Empty, b"GET", 3), Ok((vec![], 0, true)));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for wire in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "5\nhello",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n",
            "0\r\n\n",
            "1000000000000000\r\n",
            "0x5\r\n",
            "5;\n\r\n",
            "5;\x01\r\n",
            "5 x\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\n: y\r\n\r\n",
            "0\r\nx : y\r\n\r\n",
            "0\r\n x: y\r\n\r\n",
            "0\r\nx: \x01\r\n\r\n",
        ] {
            assert_eq!(check(Framing::Chunked, wire.as_bytes(), 64), Err(BodyError::Chunk), "{wire:?}");
        }
        let long = format!("5;{}", "x".repeat(9000));
        assert_eq!(check(Framing::Chunked, long.as_bytes(), 64), Err(BodyError::TooLarge));
        let trailers = format!("0\r\n{}", "x: y\r\n".repeat(2000));
        assert_eq!(check(Framing::Chunked, trailers.as_bytes(), 64), Err(BodyError::TooLarge));
    }

    #[test]
    fn a_close_ends_only_a_body_that_lasts_until_it() {
        assert_eq!(BodyDecoder::new(Framing::UntilClose).closed(), Ok(()));
        assert_eq!(BodyDecoder::new(Framing::Chunked).closed(), Err(BodyError::Cut));
        assert_eq!(BodyDecoder::new(Framing::Length(1)).closed(), Err(BodyError::Cut));
        assert_eq!(BodyDecoder::new(Framing::Empty).closed(), Ok(()));
    }

    proptest::proptest! {
        #[test]
        fn what_is_chunked_comes_back(parts: Vec<Vec<u8>>, piece in 1usize..50) {
            let mut wire = bytes::BytesMut::new();
            for p in parts.iter().filter(|p| !p.is_empty()) {
                super::super::chunk_start(&mut wire, p.len());
                wire.extend_from_slice(p);
                super::super::chunk_end(&mut wire);
            }
            super::super::last_chunk(&mut wire);
            let (data, used, done) = check(Framing::Chunked, &wire, piece).unwrap();
            proptest::prop_assert_eq!(data, parts.concat());
            proptest::prop_assert!(done && used == wire.len());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, piece in 1usize..9) {
            let _ = check(Framing::Chunked, &bytes, piece);
        }
    }
}
