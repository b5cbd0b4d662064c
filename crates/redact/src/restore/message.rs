//! Tokens in JSON that is whole: an answer that was not streamed, a stored turn for a reader.

use super::{Escape, Ladder, Live, TextRestorer};
use crate::json::{self, Broken, Seen, Sort, Zone};

/// What is done with the strings of a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    /// Blocks that have such a text.
    ThinkingBlock,
    ClosedBlock,
    /// Comes back signed: exact tokens only.
    Thinking,
    /// Opaque.
    Closed,
}

impl Zone for Place {
    fn enter(self, object: &[u8]) -> Self {
        match json::peek(object, b"type") {
            Some(b"thinking") => Place::ThinkingBlock,
            Some(b"redacted_thinking" | b"base64") => Place::ClosedBlock,
            _ => Place::Text,
        }
    }

    fn member(self, key: &[u8]) -> Self {
        match (self, key) {
            (Place::ThinkingBlock, b"thinking") => Place::Thinking,
            (Place::ThinkingBlock, b"signature") | (Place::ClosedBlock, b"data") => Place::Closed,
            _ => Place::Text,
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
            Place::Text | Place::ThinkingBlock | Place::ClosedBlock => Ladder::Normalised,
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
