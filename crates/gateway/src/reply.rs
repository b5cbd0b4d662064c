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

mod lines;
mod passed;

pub(crate) use lines::{TurnLines, own_lines};

use crate::answer::{Trouble, answer};
use crate::house::House;
use crate::redaction::Restoring;
use crate::streams::Hosted;
use bytes::BytesMut;
use lines::{copy_lines, limit_lines, pass_lines, write_budget, write_limits, write_turn};
use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tidegate_base::{ByteLease, Deadline, Moment, RequestId, StreamId};
use tidegate_observe::LiveRequest;
use tidegate_redact::restore::Live;
use tidegate_schedule::TenantId;
use tidegate_transport::ServerStream;
use tidegate_wire::http::ResponseHead;
use tidegate_wire::{merge, sse};
use tokio::time::Sleep;

/// Backlogs up to this size are not counted against the shared budget: they come and go with every
/// wake-up, and ten thousand of them are 40 MiB.
pub(crate) const UNCOUNTED_BYTES: usize = 4 * 1024;
/// From this size on a backlog is offered to the client before the upstream is read again.
const BURST_BYTES: usize = 64 * 1024;

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

    /// Waits for `work` and for nothing else: whatever the client does meanwhile ends the wait.
    pub(crate) async fn attend<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Interrupt> {
        tokio::pin!(work);
        poll_fn(|cx| {
            let now = self.house.clock.now();
            if let Poll::Ready(why) = self.poll_watch(cx, now, Moment::NEVER, false) {
                return Poll::Ready(Err(why));
            }
            work.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Writes what can be written and looks at everything that can happen on this side. Wakes the
    /// task at `also` at the latest. `progresses` says that the stream does, which keeps our own
    /// deadline (not the client's) from ending it.
    pub(crate) fn poll_watch(
        &mut self,
        cx: &mut Context<'_>,
        now: Moment,
        also: Moment,
        progresses: bool,
    ) -> Poll<Interrupt> {
        if !self.finishing && self.live.poll_cancelled(cx).is_ready() {
            return Poll::Ready(Interrupt::Cancelled);
        }
        if self.overrun {
            return Poll::Ready(Interrupt::SlowReader);
        }
        let deadline_holds = !self.finishing && (self.deadline.is_clients() || !progresses);
        if deadline_holds && self.deadline.passed(now) {
            return Poll::Ready(Interrupt::Deadline);
        }
        let clocks = &self.house.settings.clocks;
        let mut due = also;
        if deadline_holds {
            due = due.min(self.deadline.at());
        }
        if self.streams && !self.finishing && !self.conn.is_local() {
            if now >= self.last_sent + clocks.heartbeat {
                self.heartbeat(now);
            }
            due = due.min(self.last_sent + clocks.heartbeat);
        }
        if self.poll_flush(cx).is_err() || self.conn.poll_departed(cx).is_ready() {
            return Poll::Ready(Interrupt::ClientLeft);
        }
        if let Some(since) = self.stalled(now) {
            if now >= since + clocks.client_write_stall {
                self.house.metrics.clock_expired("client_write_stall");
                return Poll::Ready(Interrupt::SlowReader);
            }
            due = due.min(since + clocks.client_write_stall);
        }
        self.wake_by(cx, now, due);
        Poll::Pending
    }

    /// Sees to it that the task is woken at `due`. An alarm that rings too early costs one poll; one
    /// is set anew only when it has rung or when something is due before it. So nothing is done per
    /// event.
    fn wake_by(&mut self, cx: &mut Context<'_>, now: Moment, due: Moment) {
        let clock = self.house.clock;
        let timer = self.timer.get_or_insert_with(|| {
            self.armed = due;
            Box::pin(clock.sleep_until(due))
        });
        while self.armed > due || timer.as_mut().poll(cx).is_ready() {
            self.armed = due.max(now + std::time::Duration::from_millis(1));
            clock.reset(timer.as_mut(), self.armed);
            if timer.as_mut().poll(cx).is_pending() {
                break;
            }
        }
    }

    /// Since when the client has taken nothing of what is there for it.
    fn stalled(&mut self, now: Moment) -> Option<Moment> {
        let taken = self.conn.taken();
        if self.conn.unwritten() == 0 {
            self.stalled_since = None;
        } else if taken != self.taken || self.stalled_since.is_none() {
            self.stalled_since = Some(now);
        }
        self.taken = taken;
        self.stalled_since
    }

    /// Hands the backlog to the connection whenever that has taken what it was given before.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        loop {
            match self.conn.poll_flush(cx) {
                Poll::Ready(done) => done?,
                Poll::Pending => {
                    self.blocked = true;
                    return Ok(());
                }
            }
            self.blocked = false;
            if self.lease.held() > 0 {
                // Shrinking always succeeds; what moves on now was counted until now.
                let _ = self.lease.resize(self.backlog.len() as u64);
            }
            if self.backlog.is_empty() {
                return Ok(());
            }
            self.conn.push(&self.backlog);
            self.backlog = BytesMut::new();
            self.merged_to = 0;
        }
    }

    fn heartbeat(&mut self, now: Moment) {
        // A client that does not even take what is there needs no heartbeat.
        let idle = self.backlog.is_empty() && self.conn.unwritten() == 0;
        self.house.metrics.clock_expired("heartbeat");
        self.begin_stream(None);
        if idle {
            sse::write(&mut self.backlog, "ping", b"{\"type\": \"ping\"}");
        }
        self.last_sent = now;
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
    fn push_bytes(&mut self, event: &[u8]) {
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
    fn held(&self) -> usize {
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

    /// Waits until the client has taken all that is there for it, within the clock that watches
    /// whether it takes anything: a byte now and then is not enough. Our own deadline does not end
    /// that.
    pub(crate) async fn all_taken(&mut self) -> Result<(), Interrupt> {
        let by = self.house.clock.now() + self.house.settings.clocks.client_write_stall;
        poll_fn(|cx| {
            let now = self.house.clock.now();
            let why = self.poll_watch(cx, now, by, true);
            if self.conn.unwritten() == 0 && self.backlog.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if why.is_pending() && now >= by {
                self.house.metrics.clock_expired("client_write_stall");
                return Poll::Ready(Err(Interrupt::SlowReader));
            }
            why.map(Err)
        })
        .await
    }

    /// Gives work that has come further a deadline of its own; a client's own deadline stays.
    pub(crate) fn renew_deadline(&mut self) {
        if !self.deadline.is_clients() {
            self.deadline = Deadline::by_default(self.house.clock.now() + self.house.settings.clocks.whole);
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
    fn push_rest(&mut self) {
        if let Some(mut restoring) = self.restoring.take() {
            self.push_bytes(restoring.rest());
            self.restoring = Some(restoring);
        }
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

    /// Ends the answer and waits until the client has it: whether the connection can be used again,
    /// or what kept the client from having it all.
    pub(crate) async fn finish(&mut self) -> Result<bool, Interrupt> {
        self.finishing = true;
        let flushed = |reply: &mut Self, cx: &mut Context<'_>| {
            // This writes. Whether all is written is asked after it: once it is, nobody wakes us.
            let why = reply.poll_watch(cx, reply.house.clock.now(), Moment::NEVER, true);
            if reply.conn.unwritten() == 0 && reply.backlog.is_empty() {
                return Poll::Ready(Ok(()));
            }
            why.map(Err)
        };
        poll_fn(|cx| flushed(self, cx)).await?;
        if self.broken_off {
            // Closed in the middle, it can be seen to be cut, and all that was written still arrives.
            return if self.conn.close_breaks_off() { Ok(false) } else { Err(Interrupt::Cancelled) };
        }
        let reusable = self.conn.end();
        match poll_fn(|cx| flushed(self, cx)).await {
            Ok(()) => Ok(reusable && !self.close),
            // Only the frame that ends the body is missing: some clients leave on `message_stop`.
            Err(Interrupt::ClientLeft) => Ok(false),
            Err(why) => Err(why),
        }
    }
}
