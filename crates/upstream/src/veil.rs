//! What an upstream is let in by, covered where it comes back.
//!
//! Some endpoints repeat what they were asked with: a key in the message of an error, header lines in
//! an answer for debugging. An operator's key is nobody else's to see, so its place is taken by as many
//! stars: no length changes, and nothing has to be understood of what is around it. Of a body that goes
//! by in pieces only an end is held back that a key may begin with.
//!
//! What is encoded otherwise (Base64, percent signs) is not found. What may be a word (`none`,
//! `production`, `lm-studio`) is not looked for: it would be found where it is one, in a model's own text.

use memchr::{memchr_iter, memmem};
use std::borrow::Cow;
use std::sync::Arc;
use tidegate_base::Secret;
use tidegate_wire::http::Headers;

/// The shortest secret that is looked for; and from how many bytes on one is that has no digit and does not
/// begin as keys do.
const SECRET_BYTES_MIN: usize = 8;
const LETTERS_MIN: usize = 24;

/// Letters from the most seldom on, in JSON and in header lines.
const SELDOM: &[u8] = b"QZXJKWVYUGHBPFMLNORDSIETCAzqjxkwvybgfpm";

/// Whether it is no word that stands for itself.
fn is_secret(secret: &Secret) -> bool {
    let text = secret.expose();
    let has = |is: fn(&char) -> bool| text.chars().any(|c| is(&c));
    let is_mixed = has(char::is_ascii_digit) && has(char::is_ascii_alphabetic) || text.starts_with("sk-");
    text.len() >= if is_mixed { SECRET_BYTES_MIN } else { LETTERS_MIN }
}

/// Covers the secrets of one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Veil(Arc<[Hidden]>);

/// A secret, and where in it a byte stands that is seldom in what upstreams answer. Looking for that
/// byte finds in a short answer what a searcher would, which costs more to make than to run, or would
/// keep a copy of the secret that nobody wipes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hidden {
    secret: Secret,
    seldom: usize,
}

impl Hidden {
    fn new(secret: Secret) -> Self {
        let bytes = secret.expose().as_bytes();
        let seldom = SELDOM.iter().find_map(|seldom| bytes.iter().position(|byte| byte == seldom));
        let seldom = seldom.unwrap_or(bytes.len().saturating_sub(1));
        Hidden { secret, seldom }
    }

    fn bytes(&self) -> &[u8] {
        self.secret.expose().as_bytes()
    }

    fn stands_in(&self, bytes: &[u8]) -> bool {
        let secret = self.bytes();
        let begins = |at: usize| at.checked_sub(self.seldom);
        memchr_iter(secret[self.seldom], bytes).filter_map(begins).any(|from| bytes[from..].starts_with(secret))
    }
}

impl Veil {
    /// One for these.
    pub(crate) fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        Veil(secrets.into_iter().filter(is_secret).map(Hidden::new).collect())
    }

    /// One for what this covers, and for these.
    pub(crate) fn with(&self, more: impl IntoIterator<Item = Secret>) -> Self {
        Veil::new(self.0.iter().map(|hidden| hidden.secret.clone()).chain(more))
    }

    fn shows(&self, bytes: &[u8]) -> bool {
        self.0.iter().any(|hidden| hidden.stands_in(bytes))
    }

    /// `bytes` with stars where a secret stands.
    pub fn bytes<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        if !self.shows(bytes) {
            return Cow::Borrowed(bytes);
        }
        let mut covered = bytes.to_vec();
        for secret in self.0.iter().map(Hidden::bytes) {
            let found: Vec<usize> = memmem::find_iter(&covered, secret).collect();
            found.into_iter().for_each(|at| covered[at..at + secret.len()].fill(b'*'));
        }
        Cow::Owned(covered)
    }

    /// The same of a text.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Whole characters are replaced by whole characters.
            Cow::Owned(covered) => Cow::Owned(String::from_utf8_lossy(&covered).into_owned()),
        }
    }

    /// The same of a text that was cut off at its end, where a secret may have been cut too.
    pub fn cut_text(&self, text: &str) -> String {
        let mut covered = self.text(text).into_owned().into_bytes();
        let whole = covered.len() - self.begun(&covered);
        covered[whole..].fill(b'*');
        String::from_utf8_lossy(&covered).into_owned()
    }

    /// The same of header lines.
    pub(crate) fn headers(&self, headers: Headers) -> Headers {
        // All at once: nearly always there is nothing.
        if !self.shows(headers.bytes()) {
            return headers;
        }
        let name = |name| String::from_utf8_lossy(&self.bytes(name)).into_owned();
        Headers::from_pairs(headers.iter().map(|(n, value)| (name(n), self.bytes(value))))
    }

    /// How many bytes at the end of `bytes` may be the beginning of a secret.
    fn begun(&self, bytes: &[u8]) -> usize {
        let begins = |secret: &[u8]| (1..secret.len()).rev().find(|n| bytes.ends_with(&secret[..*n]));
        self.0.iter().filter_map(|hidden| begins(hidden.bytes())).max().unwrap_or(0)
    }
}

/// A body that goes by in pieces.
#[derive(Debug)]
pub struct Covered {
    veil: Veil,
    /// What may be the beginning of a secret.
    tail: Vec<u8>,
}

impl Covered {
    /// One of which nothing has come yet.
    pub fn new(veil: Veil) -> Self {
        Covered { veil, tail: Vec::new() }
    }

    /// Takes the next piece and gives `put` what can go on.
    pub fn feed(&mut self, piece: &[u8], put: impl FnOnce(&[u8])) {
        let joined = (!self.tail.is_empty()).then(|| {
            let mut joined = std::mem::take(&mut self.tail);
            joined.extend_from_slice(piece);
            joined
        });
        // Covered first: what is left at the end is no part of a whole secret.
        let covered = self.veil.bytes(joined.as_deref().unwrap_or(piece));
        let (now, later) = covered.split_at(covered.len() - self.veil.begun(&covered));
        self.tail = later.to_vec();
        if !now.is_empty() {
            put(now);
        }
    }

    /// What was held back of a body that has ended.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn veil() -> Veil {
        Veil::new(["sk-ant-1234", "ab1bab1b", "none", "production"].map(Secret::new))
    }

    #[test]
    fn secrets_are_covered_and_words_are_not() {
        let covered = veil().text("bad key sk-ant-1234, ab1bab1bab; none: ñ, production").into_owned();
        assert_eq!(covered, "bad key ***********, ********ab; none: ñ, production");
        assert!(matches!(veil().text("sk-ant-123"), Cow::Borrowed(_)));
        let upper = Veil::new([Secret::new("sk-AbCdefg1")]);
        assert_eq!(upper.text("CCsk-AbCdefgC, sk-AbCdefg1"), "CCsk-AbCdefgC, ***********");
        assert_eq!(veil().cut_text("sk-ant-1234 is sk-ant-123"), "*********** is **********");
        assert_eq!(veil().cut_text("it is ñ"), "it is ñ");
        assert_eq!(Veil::new([Secret::new("********")]).text("a *********"), "a *********", "and ends");
        let lines = Headers::from_pairs([("x-echo", "Bearer sk-ant-1234"), ("x-sk-ant-1234", "a")]);
        let lines = veil().headers(lines);
        let lines: Vec<_> = lines.iter().map(|(name, value)| [name, value].map(String::from_utf8_lossy)).collect();
        assert_eq!(lines, [["x-echo", "Bearer ***********"], ["x-***********", "a"]]);
    }

    #[test]
    fn only_what_may_become_a_secret_is_held_back() {
        let mut covered = Covered::new(veil());
        let mut fed = |piece: &str| {
            let mut out = Vec::new();
            covered.feed(piece.as_bytes(), |bytes| out.extend_from_slice(bytes));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            [fed("a line\n"), fed("its sk-"), fed("ant-12"), fed("34.")],
            ["a line\n", "its ", "", "***********."]
        );
        assert_eq!([fed("sk-a"), fed("re "), fed("sk")], ["", "sk-are ", ""]);
        assert_eq!(covered.rest(), b"sk");
    }

    #[test]
    fn a_body_is_covered_the_same_however_it_is_cut() {
        let text = "xababababab sk-ant-1234sk-ant-1234 sk-sk-ant-1234 abab";
        let whole = veil().text(text).into_owned();
        for size in 1..text.len() {
            let (mut covered, mut out) = (Covered::new(veil()), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                covered.feed(piece, |bytes| out.extend_from_slice(bytes));
            }
            out.extend(covered.rest());
            assert_eq!(String::from_utf8(out).unwrap(), whole, "{size}");
        }
    }
}
