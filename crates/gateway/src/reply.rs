//! The client's side of one request: its answer on the way out, and what the client does meanwhile.
//!
//! Whatever the path waits for, it waits through [`Reply::attend`]: beside the awaited thing it
//! watches for the client leaving, an operator's cancel, the deadline, and the heartbeat that a
//! silent stream owes its client. So a disconnect is an event, not a dropped future.
//!
//! ```text
//!   head withheld ──first event, or 15 s of silence──▶ head sent ──▶ events … ──▶ end
//!        └── refusal with its true status                └── refusal as an `error` event
//! ```
//! Events the client has not taken yet stand in the backlog: merged from 16 KiB on, the stream
//! ended past its limit. The upstream is never made to wait for a client.

mod events;
mod lines;
mod passed;
mod watch;

pub(crate) use events::UNCOUNTED_BYTES;
pub(crate) use lines::{TurnLines, own_lines};

use crate::answer::{Trouble, answer};
use crate::house::House;
use crate::redaction::Restoring;
use crate::streams::Hosted;
use bytes::BytesMut;
use lines::{copy_lines, limit_lines, pass_lines, write_budget, write_limits, write_turn};
use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use tidegate_base::{ByteLease, Deadline, Moment, RequestId, StreamId};
use tidegate_observe::LiveRequest;
use tidegate_redact::restore::Live;
use tidegate_schedule::TenantId;
use tidegate_transport::ServerStream;
use tidegate_wire::http::ResponseHead;
use tidegate_wire::sse;
use tokio::time::Sleep;

/// What ends a request from the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// It closed its connection.
    ClientLeft,
    /// It does not read what it asked for.
    SlowReader,
    /// An operator, or the end of a drain, cancelled it.
    Cancelled,
    /// Its deadline passed.
    Deadline,
}

/// The answer on its way to one client.
pub(crate) struct Reply<'c> {
    conn: &'c mut ServerStream,
    house: &'c House,
    live: Arc<LiveRequest>,
    /// The ids its answer bears: its own, or those of the stream it reads.
    names: (RequestId, StreamId),
    /// One timer for everything that can become due; none before anything is waited for. Set to the
    /// first thing due at once: one that rings now would wake the thread out of its own hands.
    timer: Option<Pin<Box<Sleep>>>,
    armed: Moment,
    /// When the answer is no longer wanted.
    pub(crate) deadline: Deadline,
    /// The tenant whose own limits the answer tells of, in place of the upstream's.
    pub(crate) limits_of: Option<TenantId>,
    /// The turn it answers.
    pub(crate) turn: Option<TurnLines>,
    /// The share that is spent of its tenant's budget, hundredths, once that is warned of.
    pub(crate) budget_spent: Option<u64>,
    /// Whether the client asked for a stream.
    pub(crate) streams: bool,
    /// Whether the model's `message_start` was passed on.
    pub(crate) started: bool,
    /// Whether content was passed on: from here on nothing can be tried again.
    pub(crate) content: bool,
    /// Events passed on.
    pub(crate) events: u64,
    /// The status the client saw; 0 before it saw one.
    pub(crate) status: u16,
    /// Whether the connection has to close after this answer.
    pub(crate) close: bool,
    head_sent: bool,
    /// The answer is JSON Lines, of unknown length.
    in_lines: bool,
    /// The answer is passed on, and is nothing that an error could stand in.
    is_passed: bool,
    /// It ended with an error inside it: its body must not look whole.
    broken_off: bool,
    /// The answer is complete here; only the client's reading is waited for.
    finishing: bool,
    /// What the client's transport has not been given yet, since it does not take what it has.
    backlog: BytesMut,
    /// Whether it took less than it was given when that was last tried.
    blocked: bool,
    lease: ByteLease,
    /// Puts back what was masked, where it goes straight to its client.
    restoring: Option<Box<Restoring>>,
    /// Where it goes instead: a log, whose readers put it back.
    hosted: Option<Arc<Hosted>>,
    merged_to: usize,
    overrun: bool,
    last_sent: Moment,
    taken: u64,
    stalled_since: Option<Moment>,
    taken_before: u64,
}

impl<'c> Reply<'c> {
    pub(crate) fn new(
        conn: &'c mut ServerStream,
        house: &'c House,
        live: Arc<LiveRequest>,
        deadline: Deadline,
        close: bool,
    ) -> Self {
        let now = house.clock.now();
        let taken = conn.taken();
        Reply {
            names: (live.request, live.stream),
            timer: None,
            armed: Moment::ZERO,
            lease: house.backlogs.empty_lease(),
            backlog: BytesMut::new(),
            blocked: false,
            restoring: None,
            hosted: None,
            limits_of: None,
            turn: None,
            budget_spent: None,
            streams: false,
            started: false,
            content: false,
            events: 0,
            status: 0,
            head_sent: false,
            in_lines: false,
            is_passed: false,
            broken_off: false,
            finishing: false,
            merged_to: 0,
            overrun: false,
            last_sent: now,
            stalled_since: None,
            taken_before: taken,
            taken,
            conn,
            house,
            live,
            deadline,
            close,
        }
    }

    /// The request's entry in the table of live ones.
    pub(crate) fn live(&self) -> &Arc<LiveRequest> {
        &self.live
    }

    /// Whether the client has seen a status, and which one can no longer be told otherwise.
    pub(crate) fn head_sent(&self) -> bool {
        self.head_sent
    }

    /// It goes into the log of `hosted`.
    pub(crate) fn goes_to(&mut self, hosted: Option<Arc<Hosted>>) {
        self.hosted = hosted;
    }

    /// Its reader gets these values for their tokens.
    pub(crate) fn restores(&mut self, live: Live) {
        let live = Arc::new(live);
        match &self.hosted {
            Some(hosted) => hosted.restores(live),
            None if live.is_empty() => self.restoring = None,
            None => self.restoring = Some(Box::new(Restoring::new(live))),
        }
    }

    /// A body as its reader is to see it.
    fn shown<'b>(&self, body: &'b [u8]) -> Cow<'b, [u8]> {
        self.restoring.as_ref().map_or(Cow::Borrowed(body), |restoring| restoring.whole(body))
    }

    /// The connection, while the request's body is being read.
    pub(crate) fn conn(&mut self) -> &mut ServerStream {
        self.conn
    }

    /// Bytes of this answer that the client's transport has taken.
    pub(crate) fn bytes(&self) -> u64 {
        self.conn.taken() - self.taken_before
    }

    /// Sends the head of a stream, once; `upstream` has the lines to pass on if it answered.
    pub(crate) fn begin_stream(&mut self, upstream: Option<&ResponseHead>) {
        if std::mem::replace(&mut self.head_sent, true) {
            return;
        }
        self.status = 200;
        let (request, stream) = self.names;
        let limits = self.limits_of.map(|tenant| limit_lines(self.house, tenant));
        let (turn, spent) = (self.turn.as_ref(), self.budget_spent);
        self.conn.respond(200, None, self.close, |head| {
            match upstream {
                Some(upstream) => pass_lines(head, upstream, &[], limits.is_some()),
                None => {
                    head.header("content-type", b"text/event-stream; charset=utf-8");
                    head.header("cache-control", b"no-cache");
                }
            }
            own_lines(head, request, upstream);
            write_limits(head, limits.as_deref());
            write_turn(head, turn);
            write_budget(head, spent);
            head.header("tidegate-stream", stream.as_str().as_bytes());
            // Proxies of the nginx family buffer streams unless they are told not to.
            head.header("x-accel-buffering", b"no");
        });
    }

    /// From here on it is the answer of that request and stream.
    pub(crate) fn answers(&mut self, request: RequestId, stream: StreamId) {
        self.names = (request, stream);
    }

    /// Whether it goes to no connection of its own.
    pub(crate) fn is_local(&self) -> bool {
        self.conn.is_local()
    }

    /// Sends the head of a stream that was answered before, as it was then.
    pub(crate) fn begin_as(&mut self, head: &ResponseHead) {
        if std::mem::replace(&mut self.head_sent, true) {
            return;
        }
        self.status = head.status;
        self.conn.respond(head.status, None, self.close, |out| copy_lines(out, head));
    }

    /// Gives a whole answer that was given before; inside a stream that began meanwhile, as its error.
    pub(crate) fn whole_as(&mut self, head: &ResponseHead, body: &[u8]) {
        if self.head_sent {
            return self.push_error(body);
        }
        (self.head_sent, self.status) = (true, head.status);
        self.conn.respond(head.status, Some(body.len() as u64), self.close, |out| copy_lines(out, head));
        self.conn.push(body);
    }

    /// Gives a whole answer; `upstream` has the lines to pass on, `without` those that no longer
    /// hold. `lease` is what it was read under, kept until the client has it.
    pub(crate) fn whole(
        &mut self,
        upstream: &ResponseHead,
        without: &[&str],
        with: &[(&str, &[u8])],
        body: &[u8],
        lease: ByteLease,
    ) {
        self.lease = lease;
        self.head_sent = true;
        self.status = upstream.status;
        let (request, _) = self.names;
        let limits = self.limits_of.map(|tenant| limit_lines(self.house, tenant));
        let shown = self.restoring.take();
        let body = shown.as_ref().map_or(Cow::Borrowed(body), |restoring| restoring.whole(body));
        let (turn, spent) = (self.turn.as_ref(), self.budget_spent);
        self.conn.respond(upstream.status, Some(body.len() as u64), self.close, |head| {
            pass_lines(head, upstream, without, limits.is_some());
            write_limits(head, limits.as_deref());
            write_budget(head, spent);
            for (name, value) in with {
                head.header(name, value);
            }
            own_lines(head, request, Some(upstream));
            write_turn(head, turn);
        });
        self.conn.push(&body);
    }

    /// Gives a whole answer of our own, in JSON.
    pub(crate) fn whole_of_ours(&mut self, body: &[u8]) {
        self.head_sent = true;
        self.status = 200;
        let (request, _) = self.names;
        let limits = self.limits_of.map(|tenant| limit_lines(self.house, tenant));
        let shown = self.restoring.take();
        let body = shown.as_ref().map_or(Cow::Borrowed(body), |restoring| restoring.whole(body));
        let turn = self.turn.as_ref();
        self.conn.respond(200, Some(body.len() as u64), self.close, |head| {
            head.header("content-type", b"application/json");
            write_limits(head, limits.as_deref());
            own_lines(head, request, None);
            write_turn(head, turn);
        });
        self.conn.push(&body);
    }

    /// Holds `lease` until the client has the answer.
    pub(crate) fn holds(&mut self, lease: ByteLease) {
        self.lease = lease;
    }

    /// Sends the head of an answer of our own in JSON Lines.
    pub(crate) fn begin_lines(&mut self) {
        (self.head_sent, self.in_lines, self.status) = (true, true, 200);
        let (request, _) = self.names;
        self.conn.respond(200, None, self.close, |head| {
            head.header("content-type", b"application/x-ndjson");
            own_lines(head, request, None);
        });
    }

    /// Adds to it. What the client has not taken is not bounded here: see [`Reply::all_taken`].
    pub(crate) fn push_lines(&mut self, lines: &[u8]) {
        self.conn.push(lines);
    }

    /// Tells the client what went wrong: with its true status if the head was withheld, as an
    /// `error` event if not. Returns the public code.
    pub(crate) fn refuse(&mut self, trouble: &Trouble) -> &'static str {
        let row = answer(trouble);
        let (request, _) = self.names;
        let body = row.body.envelope(Some(request.as_str()));
        let body = self.shown(&body).into_owned();
        if self.is_passed {
            self.broken_off = true;
        } else if self.in_lines {
            // What came before may have ended inside a line.
            self.backlog.extend_from_slice(&[b"\n", body.as_slice(), b"\n"].concat());
            self.broken_off = true;
        } else if self.head_sent {
            self.push_rest();
            sse::write(&mut self.backlog, "error", &body);
        } else {
            self.head_sent = true;
            self.status = row.status;
            let limits = self.limits_of.map(|tenant| limit_lines(self.house, tenant));
            self.conn.respond(row.status, Some(body.len() as u64), self.close, |head| {
                row.lines(head);
                write_limits(head, limits.as_deref());
                own_lines(head, request, None);
            });
            self.conn.push(&body);
        }
        row.code
    }
}
