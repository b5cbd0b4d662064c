//! What an answer waits for: the client's leaving, an operator's cancel, the deadline, the heartbeat
//! that is due, and whether the client takes what is there for it.

use super::{Interrupt, Reply};
use bytes::BytesMut;
use std::future::{Future, poll_fn};
use std::task::{Context, Poll};
use tidegate_base::{Deadline, Moment};
use tidegate_wire::sse;

impl Reply<'_> {
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
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
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

    pub(super) fn heartbeat(&mut self, now: Moment) {
        // A client that does not even take what is there needs no heartbeat.
        let idle = self.backlog.is_empty() && self.conn.unwritten() == 0;
        self.house.metrics.clock_expired("heartbeat");
        self.begin_stream(None);
        if idle {
            sse::write(&mut self.backlog, "ping", b"{\"type\": \"ping\"}");
        }
        self.last_sent = now;
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
