//! UTF-8 judged while it comes: a wrong byte is told when it is there, not when the message ends.
//!
//! A message may be cut anywhere, inside a character too. What is held over is the beginning of at
//! most one character, three bytes.

/// Text that has come in pieces so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8 {
    begun: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// Looks at the next piece; false if it cannot belong to UTF-8 text.
    #[must_use]
    pub(super) fn feed(&mut self, mut piece: &[u8]) -> bool {
        while self.len > 0 {
            let Some((byte, rest)) = piece.split_first() else { return true };
            self.begun[usize::from(self.len)] = *byte;
            self.len += 1;
            piece = rest;
            match std::str::from_utf8(&self.begun[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                Err(e) if e.error_len().is_some() => return false,
                // Four bytes are a character or none: here there are fewer.
                Err(_) => {}
            }
        }
        let Err(e) = std::str::from_utf8(piece) else { return true };
        if e.error_len().is_some() {
            return false;
        }
        let begun = &piece[e.valid_up_to()..];
        self.begun[..begun.len()].copy_from_slice(begun);
        self.len = begun.len() as u8;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Utf8;

    /// Where the text goes wrong when it comes byte by byte, and whether its end is one.
    fn check(text: &[u8]) -> (Option<usize>, bool) {
        let mut utf8 = Utf8::default();
        let wrong = text.iter().position(|b| !utf8.feed(&[*b]));
        (wrong, wrong.is_none() && utf8.len == 0)
    }

    #[test]
    fn a_wrong_byte_is_told_at_once() {
        assert_eq!(check("κόσμε 😀".as_bytes()), (None, true));
        assert_eq!(check(b"\xCE\xBA\xED\xA0\x80"), (Some(3), false), "a surrogate");
        assert_eq!(check(b"\xF4\x90"), (Some(1), false), "past the last character");
        assert_eq!(check(b"\xC0\xAF"), (Some(0), false), "a slash in two bytes");
        assert_eq!(check(b"a\x80"), (Some(1), false), "out of nowhere");
        assert_eq!(check(b"\xF0\x9F\x98"), (None, false), "cut");
    }

    proptest::proptest! {
        #[test]
        fn pieces_are_judged_like_the_whole(text in "[a-zé€😀]{0,9}", wrong: Option<(usize, u8)>, piece in 1usize..6) {
            let mut bytes = text.into_bytes();
            if let (Some((at, to)), false) = (wrong, bytes.is_empty()) {
                let at = at % bytes.len();
                bytes[at] = to;
            }
            let mut utf8 = Utf8::default();
            let good = bytes.chunks(piece).all(|p| utf8.feed(p));
            proptest::prop_assert_eq!(good && utf8.len == 0, std::str::from_utf8(&bytes).is_ok());
        }
    }
}
