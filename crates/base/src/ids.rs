//! Identifiers Tidegate gives out.
//!
//! A request id is `req_` and 24 characters of base32 (Crockford, lower case): 120 random bits, in
//! the shape of the API's own `request-id`. A stream id names the data-plane thread that owns the
//! stream, so that whoever resumes it on another thread knows whom to ask: `str_` + two hex digits
//! of the owner + 20 characters.

use crate::Prng;
use std::fmt;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn fill(out: &mut [u8], prng: &mut Prng) {
    let mut bits = 0u64;
    for (i, slot) in out.iter_mut().enumerate() {
        if i % 12 == 0 {
            bits = prng.next_u64();
        }
        *slot = ALPHABET[(bits & 31) as usize];
        bits >>= 5;
    }
}

/// The id of one request to Tidegate, returned as `tidegate-request-id`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId([u8; 28]);

impl RequestId {
    /// The id as text, `req_...`, 28 ASCII characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("req_")
    }

    /// Reads an id that was written down; `None` if it is not of our shape.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 28] = text.as_bytes().try_into().ok()?;
        let shaped = bytes.starts_with(b"req_") && bytes[4..].iter().all(|b| ALPHABET.contains(b));
        shaped.then_some(RequestId(bytes))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The id of one answer being produced; names the data-plane thread that owns it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId([u8; 26]);

impl StreamId {
    /// The id as text, `str_...`, 26 ASCII characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("str_")
    }

    /// Reads an id a client sent back; `None` if it is not of our shape.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 26] = text.as_bytes().try_into().ok()?;
        let shaped = bytes.starts_with(b"str_")
            && bytes[4..6].iter().all(u8::is_ascii_hexdigit)
            && bytes[6..].iter().all(|b| ALPHABET.contains(b));
        shaped.then_some(StreamId(bytes))
    }

    /// The data-plane thread that owns the stream.
    pub fn owner(&self) -> u8 {
        let hex = |b: u8| (b as char).to_digit(16).unwrap_or(0) as u8;
        hex(self.0[4]) << 4 | hex(self.0[5])
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Gives out ids for one data-plane thread.
#[derive(Clone, Debug)]
pub struct IdSource {
    prng: Prng,
    owner: u8,
}

impl IdSource {
    /// The source of thread `owner`, drawing from `prng`.
    pub fn new(prng: Prng, owner: u8) -> Self {
        IdSource { prng, owner }
    }

    /// A new request id.
    pub fn request(&mut self) -> RequestId {
        let mut out = *b"req_000000000000000000000000";
        fill(&mut out[4..], &mut self.prng);
        RequestId(out)
    }

    /// A new stream id that names this thread.
    pub fn stream(&mut self) -> StreamId {
        let mut out = *b"str_0000000000000000000000";
        out[4] = b"0123456789abcdef"[usize::from(self.owner >> 4)];
        out[5] = b"0123456789abcdef"[usize::from(self.owner & 15)];
        fill(&mut out[6..], &mut self.prng);
        StreamId(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_id_survives_text_and_names_its_owner() {
        let mut ids = IdSource::new(Prng::new(3), 0xa7);
        let id = ids.stream();
        assert_eq!(StreamId::parse(id.as_str()), Some(id));
        assert_eq!(id.owner(), 0xa7);
        assert_eq!(StreamId::parse("str_zz00000000000000000000"), None);
        assert_eq!(StreamId::parse("short"), None);
    }

    #[test]
    fn a_request_id_survives_text_and_nothing_else_is_one() {
        let id = IdSource::new(Prng::new(3), 0).request();
        assert_eq!(RequestId::parse(id.as_str()), Some(id));
        for wrong in ["", "req_", &id.as_str()[1..], &id.as_str().replace("req_", "str_"), &id.as_str().to_uppercase()]
        {
            assert_eq!(RequestId::parse(wrong), None, "{wrong}");
        }
        assert_eq!(RequestId::parse(&format!("req_{}", "!".repeat(24))), None);
    }

    #[test]
    fn ids_differ() {
        let mut ids = IdSource::new(Prng::new(3), 0);
        assert_ne!(ids.request(), ids.request());
        assert!(ids.request().as_str().starts_with("req_"));
    }
}
