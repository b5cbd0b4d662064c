//! An answer that is passed on piece by piece, of which nothing is understood.

use super::Reply;
use super::lines::{limit_lines, own_lines, pass_lines, write_limits};
use tidegate_wire::http::ResponseHead;

impl Reply<'_> {
    /// Sends the head of such an answer, `length` bytes long or of unknown length.
    pub(crate) fn begin_passed(&mut self, upstream: &ResponseHead, length: Option<u64>) {
        (self.head_sent, self.is_passed, self.status) = (true, true, upstream.status);
        let (request, _) = self.names;
        let limits = self.limits_of.map(|tenant| limit_lines(self.house, tenant));
        self.conn.respond(upstream.status, length, self.close, |head| {
            pass_lines(head, upstream, &[], limits.is_some());
            write_limits(head, limits.as_deref());
            own_lines(head, request, Some(upstream));
        });
    }

    /// Adds a piece of it. What the client has not taken is bounded by whoever reads the upstream.
    pub(crate) fn push_piece(&mut self, piece: &[u8]) {
        self.conn.push(piece);
    }

    /// Bytes that wait for the client.
    pub(crate) fn waiting(&self) -> usize {
        self.conn.unwritten()
    }
}
