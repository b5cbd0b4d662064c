//! Long base64 texts are cut out of a message, so that a document's bytes are stored once.
//!
//! ```text
//!   {"type":"base64","data":"JVBERi0xLj..."}     the message as it came
//!   {"type":"base64","data":""}                  what stays; the piece goes back at byte 24
//!                            └─▶ decoded, and named by its SHA-256
//! ```
//! A text is cut only if it is canonical: encoding the decoded bytes gives the same characters. So
//! putting back is exact, and nothing in the message can be mistaken for a mark. Encoders that write
//! `\/` for `/` (PHP's does) are served by a second spelling. What is not canonical stays.

use crate::StoreError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// Texts shorter than this stay: a row of its own costs more than it saves.
const CHARS_MIN: usize = 1024;

/// A text that was cut out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The byte of the rest it goes before.
    pub(crate) position: usize,
    /// Whether every `/` was written `\/`.
    pub(crate) slashes_escaped: bool,
    pub(crate) sha256: [u8; 32],
    /// Decoded.
    pub(crate) content: Vec<u8>,
}

/// A message without its long base64 texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) rest: Vec<u8>,
    pub(crate) pieces: Vec<Piece>,
}

/// Cuts a message, which must be JSON whose first character is `opening`.
pub(crate) fn cut(what: &str, message: &[u8], opening: u8) -> Result<Cut, StoreError> {
    let json: Result<&RawValue, _> = serde_json::from_slice(message);
    if !json.is_ok_and(|json| json.get().as_bytes().first() == Some(&opening)) {
        let shape = if opening == b'[' { "array" } else { "object" };
        return Err(StoreError::Invalid(format!("{what} must be a JSON {shape}")));
    }
    let mut cut = Cut::default();
    let mut copied = 0;
    let mut at = 0;
    while let Some(start) = memchr::memchr(b'"', &message[at..]).map(|found| at + found + 1) {
        let end = text_end(message, start);
        if end - start >= CHARS_MIN
            && let Some((slashes_escaped, content)) = decode(&message[start..end])
        {
            cut.rest.extend_from_slice(&message[copied..start]);
            let sha256 = Sha256::digest(&content).into();
            cut.pieces.push(Piece { position: cut.rest.len(), slashes_escaped, sha256, content });
            copied = end;
        }
        at = end + 1;
    }
    cut.rest.extend_from_slice(&message[copied..]);
    Ok(cut)
}

/// Where the text that begins at `start` has its closing quotation mark.
fn text_end(message: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(found) = memchr::memchr2(b'"', b'\\', message.get(at..).unwrap_or_default()) {
        if message[at + found] == b'"' {
            return at + found;
        }
        at += found + 2;
    }
    // JSON was checked before: every text ends.
    message.len()
}

/// The bytes of a canonical base64 text, and whether its slashes are escaped.
fn decode(text: &[u8]) -> Option<(bool, Vec<u8>)> {
    // Prose has a space within a few characters, and is not looked at further.
    if !text[..64].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'\\')) {
        return None;
    }
    if memchr::memchr(b'\\', text).is_none() {
        return STANDARD.decode(text).ok().map(|content| (false, content));
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = memchr::memchr2(b'\\', b'/', rest) {
        // Each slash with its backslash, or it could not be written again in one way.
        if rest[found] != b'\\' || rest.get(found + 1) != Some(&b'/') {
            return None;
        }
        plain.extend_from_slice(&rest[..found]);
        plain.push(b'/');
        rest = &rest[found + 2..];
    }
    plain.extend_from_slice(rest);
    STANDARD.decode(&plain).ok().map(|content| (true, content))
}

/// Puts pieces back, one after the other in the order of their positions.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    whole: Vec<u8>,
    copied: usize,
}

impl Joiner {
    /// The next piece of `rest`; `None` if it cannot be one.
    pub(crate) fn put(&mut self, rest: &[u8], position: usize, slashes_escaped: bool, content: &[u8]) -> Option<()> {
        self.whole.extend_from_slice(rest.get(self.copied..position)?);
        self.copied = position;
        let text = STANDARD.encode(content);
        if slashes_escaped {
            self.whole.extend_from_slice(text.replace('/', "\\/").as_bytes());
        } else {
            self.whole.extend_from_slice(text.as_bytes());
        }
        Some(())
    }

    /// The message, when all pieces are back.
    pub(crate) fn finish(mut self, rest: Vec<u8>) -> Vec<u8> {
        if self.copied == 0 {
            return rest;
        }
        self.whole.extend_from_slice(&rest[self.copied..]);
        self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(cut: &Cut) -> Vec<u8> {
        let mut joiner = Joiner::default();
        for piece in &cut.pieces {
            joiner.put(&cut.rest, piece.position, piece.slashes_escaped, &piece.content).unwrap();
        }
        joiner.finish(cut.rest.clone())
    }

    /// How many pieces a text becomes as the only text of a message; it must come back as it was.
    fn pieces_of(text: &str) -> usize {
        let message = format!("[{{\"data\": \"{text}\"}}]");
        let cut = cut("it", message.as_bytes(), b'[').unwrap();
        assert_eq!(joined(&cut), message.as_bytes());
        cut.pieces.len()
    }

    #[test]
    fn a_canonical_text_is_cut_in_either_spelling_and_no_other_text_is() {
        let content: Vec<u8> = (0..3000u32).map(|n| ((n * n) >> 3) as u8).collect();
        let text = STANDARD.encode(&content);
        assert!(text.contains('/') && text.contains('+'));
        assert_eq!(pieces_of(&text), 1);
        assert_eq!(pieces_of(&text.replace('/', "\\/")), 1);
        assert_eq!(pieces_of(&text.replacen('/', "\\/", 1)), 0, "mixed spelling");
        assert_eq!(pieces_of(&text.replace('A', "\\u0041")), 0, "other escapes");
        assert_eq!(pieces_of(&text[..text.len() - 1]), 0, "no multiple of four");
        assert_eq!(pieces_of(&text.replace('+', "-")), 0, "the alphabet of URLs");
        assert_eq!(pieces_of(&text[..1020]), 0, "short");
        assert_eq!(pieces_of(&"x".repeat(1023)), 0);
        // 3 of the last 4 bits are thrown away by a decoder that is lax about trailing bits.
        assert_eq!(pieces_of(&format!("{}AB==", &text[..1020])), 0, "trailing bits");
        assert_eq!(pieces_of(&format!("{}AA==", &text[..1020])), 1);
        assert_eq!(pieces_of(&"word ".repeat(1000)), 0);
    }

    #[test]
    fn what_is_no_json_of_the_right_shape_is_refused() {
        for (message, opening) in
            [("", b'['), ("[1", b'['), ("{}", b'['), ("[]", b'{'), ("[] []", b'['), ("[\u{0}]", b'[')]
        {
            assert!(matches!(cut("it", message.as_bytes(), opening), Err(StoreError::Invalid(_))), "{message}");
        }
        assert!(cut("it", b"[\"\xff\"]", b'[').is_err(), "not UTF-8");
        assert!(cut("it", b" [ ] ", b'[').is_ok());
    }

    proptest! {
        #[test]
        fn every_message_comes_back_byte_for_byte(
            texts in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..2000), 0..4u8), 0..6),
            prose in ".{0,40}",
        ) {
            let texts = texts.iter().map(|(bytes, how)| match how {
                0 => serde_json::to_string(&String::from_utf8_lossy(bytes)).unwrap(),
                1 => format!("\"{}\"", STANDARD.encode(bytes).replace('/', "\\/")),
                _ => format!("\"{}\"", STANDARD.encode(bytes)),
            });
            let texts = texts.collect::<Vec<_>>().join(" ,\n");
            let message = format!("{{\"a\":[{texts}], \"b\":{}}}", serde_json::to_string(&prose).unwrap());
            let cut = cut("it", message.as_bytes(), b'{').unwrap();
            prop_assert_eq!(joined(&cut), message.into_bytes());
        }
    }
}
