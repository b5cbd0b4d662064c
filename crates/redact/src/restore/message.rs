//! Tokens in JSON that is whole: an answer that was not streamed, a stored turn for a reader.

use super::{Escape, Ladder, Live, TextRestorer};
use crate::json::{self, Broken, Seen, Sort, Zone};

/// What is done with the strings of a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    /// Comes back signed: exact tokens only.
    Thinking,
    /// Opaque.
    Closed,
}

impl Zone for Place {
    fn member(self, key: &[u8], object: &[u8]) -> Self {
        let is = |kind: &[u8]| json::peek(object, b"type") == Some(kind);
        match key {
            b"thinking" if is(b"thinking") => Place::Thinking,
            b"signature" if is(b"thinking") => Place::Closed,
            b"data" if is(b"redacted_thinking") || is(b"base64") => Place::Closed,
            _ => self,
        }
    }

    fn element(self) -> Self {
        self
    }

    fn is_named(self) -> bool {
        false
    }
}

/// `json` with its tokens restored, every other byte as it was. `None` if it is no JSON.
pub fn message(live: &Live, json: &[u8]) -> Option<Vec<u8>> {
    if live.is_empty() {
        return Some(json.to_vec());
    }
    let mut out = Vec::with_capacity(json.len() + 64);
    let mut at = 0;
    let walked = json::walk(json, Place::Text, |seen: &Seen<'_, Place>| -> Result<(), Broken> {
        if seen.sort == Sort::Number {
            return Ok(());
        }
        let ladder = match seen.zone {
            Place::Text => Ladder::Normalised,
            Place::Thinking => Ladder::Exact,
            Place::Closed => return Ok(()),
        };
        out.extend_from_slice(&json[at..seen.span.start]);
        let mut restorer = TextRestorer::new(Escape::Json, ladder);
        restorer.feed(live, &json[seen.span.clone()], &mut out);
        restorer.finish(&mut out);
        at = seen.span.end;
        Ok(())
    });
    walked.ok()?;
    out.extend_from_slice(&json[at..]);
    Some(out)
}
