//! Events on their way to the client: straight into its connection, or into the backlog, which is
//! merged when it grows and bounded.

use super::Reply;
use bytes::BytesMut;
use tidegate_base::Moment;
use tidegate_wire::{merge, sse};

/// Backlogs up to this size are not counted against the shared budget: they come and go with every
/// wake-up, and ten thousand of them are 40 MiB.
pub(crate) const UNCOUNTED_BYTES: usize = 4 * 1024;
/// From this size on a backlog is offered to the client before the upstream is read again.
const BURST_BYTES: usize = 64 * 1024;

impl Reply<'_> {
    /// Passes one whole event on; the heartbeat's clock starts anew. To a client that keeps up it
    /// goes straight into its connection's output: one copy from what was read.
    pub(crate) fn push_event(&mut self, event: &[u8], now: Moment) {
        self.events += 1;
        self.last_sent = now;
        if self.restoring.is_none() { self.push_bytes(event) } else { self.push_restored(event) }
    }

    fn push_restored(&mut self, event: &[u8]) {
        if let Some(mut restoring) = self.restoring.take() {
            self.push_bytes(restoring.event(event));
            self.restoring = Some(restoring);
        }
    }

    /// Passes whole events on that were made at once.
    pub(crate) fn push_events(&mut self, events: &[u8], now: Moment) {
        if self.restoring.is_none() {
            return self.push_event(events, now);
        }
        let mut splitter = sse::Splitter::new();
        if splitter.feed(events, |event| self.push_event(event, now)).is_err() {
            // One that is larger than any the upstream may send: as it is, but not left out.
            self.push_bytes(events);
        }
    }

    #[inline]
    pub(super) fn push_bytes(&mut self, event: &[u8]) {
        if self.blocked || !self.backlog.is_empty() {
            self.backlog.extend_from_slice(event);
        } else {
            self.conn.push(event);
        }
        if self.held() > UNCOUNTED_BYTES {
            self.bound_backlog(event.len());
        }
    }

    /// Bytes that are here for the client.
    pub(super) fn held(&self) -> usize {
        self.backlog.len() + self.conn.unwritten()
    }

    /// Whether so much is there to be sent that it should be offered to the client before more is
    /// read: a burst is not the reader's slowness.
    pub(crate) fn wants_flush(&self) -> bool {
        self.held() >= BURST_BYTES
    }

    /// Merges a backlog that has grown, and gives the stream up when that no longer helps. `newest`
    /// is the length of the event just added, which alone never breaks the limit: a tool's result
    /// can be megabytes in one event.
    fn bound_backlog(&mut self, newest: usize) {
        let limits = &self.house.settings.limits;
        // Merged again only once it has doubled: a backlog that will not shrink costs little.
        let worthwhile =
            self.backlog.len() as u64 >= limits.backlog_merge_bytes && self.backlog.len() >= 2 * self.merged_to;
        if worthwhile && self.blocked {
            self.backlog = BytesMut::from(merge::merge(&self.backlog).as_slice());
            self.merged_to = self.backlog.len();
            self.house.metrics.backlog_merged();
        }
        let over = self.backlog.len() as u64 > limits.backlog_bytes + newest as u64;
        if over || !self.lease.resize(self.held() as u64) {
            self.overrun = true;
        }
    }

    /// Passes an error envelope on inside a stream whose head was sent.
    pub(crate) fn push_error(&mut self, envelope: &[u8]) {
        // An event's data is one line; the API's envelopes are, others may not be.
        let line: Vec<u8> = envelope.iter().copied().filter(|b| !matches!(b, b'\n' | b'\r')).collect();
        self.push_rest();
        let line = self.shown(&line).into_owned();
        sse::write(&mut self.backlog, "error", &line);
    }

    /// What is held back of a stream that breaks off is no token any more.
    pub(super) fn push_rest(&mut self) {
        if let Some(mut restoring) = self.restoring.take() {
            self.push_bytes(restoring.rest());
            self.restoring = Some(restoring);
        }
    }
}
