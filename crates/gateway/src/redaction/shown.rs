//! An answer on its way to whoever may read it: tokens become values at the last moment, behind every
//! log, journal and store.

use std::borrow::Cow;
use std::sync::Arc;
use tidegate_redact::restore::{self, Live, StreamRestorer};

/// Restores one answer for the client that asked.
pub(crate) struct Restoring {
    live: Arc<Live>,
    stream: StreamRestorer,
    out: Vec<u8>,
}

impl Restoring {
    /// Of an answer that has not begun.
    pub(crate) fn new(live: Arc<Live>) -> Self {
        Restoring { stream: StreamRestorer::new(Arc::clone(&live)), live, out: Vec::new() }
    }

    /// One event, as far as it is certain.
    pub(crate) fn event(&mut self, event: &[u8]) -> &[u8] {
        self.out.clear();
        self.stream.event(event, &mut self.out);
        &self.out
    }

    /// What is held back of a stream that ends.
    pub(crate) fn rest(&mut self) -> &[u8] {
        self.out.clear();
        self.stream.finish(&mut self.out);
        &self.out
    }

    /// A whole answer.
    pub(crate) fn whole<'b>(&self, body: &'b [u8]) -> Cow<'b, [u8]> {
        shown(&self.live, body)
    }
}

/// JSON with its tokens restored; as it came if it has none, or is no JSON.
pub(crate) fn shown<'b>(live: &Live, json: &'b [u8]) -> Cow<'b, [u8]> {
    if live.is_empty() {
        return Cow::Borrowed(json);
    }
    restore::message(live, json).map_or(Cow::Borrowed(json), Cow::Owned)
}
