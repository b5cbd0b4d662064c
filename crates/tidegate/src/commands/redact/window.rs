//! A text of any length, a piece at a time, so that nothing that is looked for is cut.
//!
//! ```text
//!   written already      to be written now         not yet
//!  ┌───────────────┬──────────────────────────┬──────────────────┐
//!  │ 4 KiB, to be  │ what begins here is      │ 128 KiB, to see  │
//!  │ looked back at│ decided with this piece  │ where it ends    │
//!  └───────────────┴──────────────────────────┴──────────────────┘
//!                  from                       to (a line's end, if one is near)
//! ```
//!
//! A rule looks at most 90 bytes of plain text back for a word, six times that where all of it is
//! escaped; and the longest thing that is looked for is a private key of 32 KiB, or a web token of
//! three parts of 16 KiB, which may stand escaped as well. So whatever begins before `to` is seen as it
//! would be in the whole text. What was found moves the end of its piece on behind itself. What is
//! known only because it was told elsewhere is known in its own piece; a text of less than a megabyte
//! is one piece.

use std::io::{self, Read};

/// Text that is looked through at once: four passes over it take some 20 ms.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// Written text that is looked back at.
const BEHIND_BYTES: usize = 4 << 10;
/// Text that is looked at and not decided yet, unless it is the last.
const AHEAD_BYTES: usize = 128 << 10;
/// How far back a line's end is looked for.
const LINE_BYTES: usize = 64 << 10;
/// One read.
const READ_BYTES: usize = 64 << 10;

/// Why a text cannot be gone on with.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// The system says so.
    Read(io::Error),
    /// It is not UTF-8, behind so much of the window.
    Encoding(usize),
}

/// How a text is taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// Lines are decided as soon as they are there.
    pub(super) by_line: bool,
    /// What is not UTF-8 becomes U+FFFD.
    pub(super) lossy: bool,
}

/// A text that is read, and the part of it that is in memory.
pub(super) struct Window<R> {
    input: R,
    taken: Taken,
    bytes: Vec<u8>,
    /// From here on it is not written yet.
    from: usize,
    /// Bytes of it that are known to be UTF-8.
    valid: usize,
    ended: bool,
}

/// A part of a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'w> {
    /// The text that is in memory.
    pub(super) text: &'w str,
    /// What begins from here on ...
    pub(super) from: usize,
    /// ... and before this is to be decided.
    pub(super) to: usize,
}

impl<R: Read> Window<R> {
    /// The window at a text's beginning.
    pub(super) fn new(input: R, taken: Taken) -> Self {
        Window { input, taken, bytes: Vec::new(), from: 0, valid: 0, ended: false }
    }

    /// Reads on, until something can be decided; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'_>>, Unreadable> {
        loop {
            if !self.is_full() && !self.ended {
                self.ended = read(&mut self.input, &mut self.bytes).map_err(Unreadable::Read)? == 0;
            }
            self.characters()?;
            if self.valid == self.from && self.ended {
                return Ok(None);
            }
            let to = self.decided();
            if to > self.from {
                return Ok(Some(Piece { text: self.text(), from: self.from, to }));
            }
        }
    }

    fn is_full(&self) -> bool {
        self.bytes.len() - self.from >= PIECE_BYTES
    }

    /// What is not written, up to `at` of the window.
    pub(super) fn unwritten(&self, at: usize) -> &str {
        self.text().get(self.from..at).unwrap_or_default()
    }

    /// What of it is text.
    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.valid]).unwrap_or_default()
    }

    /// Finds out how much of it is whole characters.
    fn characters(&mut self) -> Result<(), Unreadable> {
        let Err(error) = std::str::from_utf8(&self.bytes[self.valid..]) else {
            self.valid = self.bytes.len();
            return Ok(());
        };
        if !self.taken.lossy || (error.error_len().is_none() && !self.ended) {
            self.valid += error.valid_up_to();
            // Of a character that is cut the rest may still come.
            let is_cut = error.error_len().is_none() && !self.ended;
            return if is_cut { Ok(()) } else { Err(Unreadable::Encoding(self.valid)) };
        }
        let tail = self.bytes.split_off(self.valid);
        for chunk in tail.utf8_chunks() {
            self.bytes.extend_from_slice(chunk.valid().as_bytes());
            self.valid = self.bytes.len();
            let bad = chunk.invalid();
            let is_last = bad.as_ptr_range().end == tail.as_ptr_range().end;
            let is_cut = is_last && std::str::from_utf8(bad).is_err_and(|e| e.error_len().is_none());
            if is_cut && !self.ended {
                self.bytes.extend_from_slice(bad);
            } else if !bad.is_empty() {
                self.bytes.extend_from_slice(char::REPLACEMENT_CHARACTER.encode_utf8(&mut [0; 4]).as_bytes());
                self.valid = self.bytes.len();
            }
        }
        Ok(())
    }

    /// Up to where everything that begins is seen as a whole.
    fn decided(&self) -> usize {
        let text = &self.bytes[..self.valid];
        if self.ended {
            return text.len();
        }
        let line = |to: usize, least: usize| text[least..to].iter().rposition(|b| *b == b'\n').map(|at| least + at + 1);
        if self.taken.by_line
            && let Some(end) = line(text.len(), self.from)
        {
            return end;
        }
        if !self.is_full() {
            return self.from;
        }
        let to = text.len() - AHEAD_BYTES;
        line(to, to - LINE_BYTES).unwrap_or_else(|| boundary(text, to))
    }

    /// Up to `end` it is written.
    pub(super) fn written(&mut self, end: usize) {
        let kept = boundary(&self.bytes, end.saturating_sub(BEHIND_BYTES));
        self.bytes.drain(..kept);
        self.from = end - kept;
        self.valid -= kept;
    }
}

/// Reads what is there behind `bytes`; how much it was, 0 at the end.
pub(super) fn read(input: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let at = bytes.len();
    bytes.resize(at + READ_BYTES, 0);
    let read = loop {
        match input.read(&mut bytes[at..]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => break other,
        }
    };
    bytes.truncate(at + read.as_ref().map_or(0, |count| *count));
    read
}

/// The beginning of the character at `at`.
fn boundary(text: &[u8], at: usize) -> usize {
    let goes_on = |b: &u8| b & 0xC0 == 0x80;
    (0..=at).rev().find(|at| !text.get(*at).is_some_and(goes_on)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives `bytes` in reads of at most so many.
    struct Steps<'b>(&'b [u8], usize);

    impl Read for Steps<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(self.1).min(into.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn all(bytes: &[u8], step: usize, taken: Taken) -> Result<(String, usize), Unreadable> {
        let mut window = Window::new(Steps(bytes, step), taken);
        let (mut all, mut largest) = (String::new(), 0);
        while let Some(Piece { text, from, to }) = window.next()? {
            all.push_str(&text[from..to]);
            largest = largest.max(text.len());
            window.written(to);
        }
        Ok((all, largest))
    }

    #[test]
    fn every_byte_comes_once_however_it_is_read_and_never_much_at_once() {
        let lines: String = (0..300_000).map(|n| format!("{n} 电话 line\n")).collect();
        let line = "长".repeat(2_000_000);
        for text in [lines.as_str(), line.as_str(), "", "x", "\n"] {
            for step in [READ_BYTES, 8_191] {
                let (whole, largest) = all(text.as_bytes(), step, Taken::default()).unwrap();
                assert!(whole == text, "{} bytes of {}", whole.len(), text.len());
                assert!(largest <= PIECE_BYTES + READ_BYTES + BEHIND_BYTES, "{largest}");
            }
        }
    }

    #[test]
    fn a_line_is_decided_when_it_is_there() {
        let mut window = Window::new(Steps(b"first\nsec", 9), Taken { by_line: true, lossy: false });
        let Piece { text, from, to } = window.next().unwrap().unwrap();
        assert_eq!(&text[from..to], "first\n");
        window.written(to);
        let Piece { text, from, to } = window.next().unwrap().unwrap();
        assert_eq!(&text[from..to], "sec");
    }

    #[test]
    fn what_is_not_utf8_is_told_or_replaced() {
        let text = b"ab\xffcd\xe4\xbd";
        assert!(matches!(all(text, 3, Taken::default()), Err(Unreadable::Encoding(2))));
        assert!(matches!(all(b"ab\xe4", 9, Taken::default()), Err(Unreadable::Encoding(2))));
        let lossy = Taken { by_line: false, lossy: true };
        for step in 1..8 {
            assert_eq!(all(text, step, lossy).unwrap().0, "ab\u{fffd}cd\u{fffd}", "{step}");
            assert_eq!(all("é\u{4f60}".as_bytes(), step, lossy).unwrap().0, "é你", "{step}");
        }
    }
}
