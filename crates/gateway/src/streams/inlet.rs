//! The owner's end of a hosted stream: an answer on its way into the log.

use super::hosted::{Hosted, Wanted};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::Clock;
use tidegate_transport::local::Outlet;
use tidegate_wire::dialect::words::Resume;
use tidegate_wire::http::ResponseHead;
use tidegate_wire::sse::Splitter;
use tokio::time::Sleep;

/// Takes one answer in. What it leaves without an end when it is dropped is called off.
pub(super) struct Inlet {
    hosted: Arc<Hosted>,
    clock: Clock,
    /// How long it goes on without a reader.
    grace: Duration,
    splitter: Splitter,
    /// Rings when the grace is over; and for which end of it that was set.
    timer: Option<(Moment, Pin<Box<Sleep>>)>,
    torn: bool,
}

impl Inlet {
    pub(super) fn new(hosted: Arc<Hosted>, clock: Clock, grace: Duration) -> Self {
        let grace = if hosted.class == Resume::Off { Duration::ZERO } else { grace };
        Inlet { hosted, clock, grace, splitter: Splitter::new(), timer: None, torn: false }
    }
}

impl Outlet for Inlet {
    fn head(&mut self, head: ResponseHead) {
        let is_stream = head.headers.text("content-type").is_some_and(|t| t.starts_with("text/event-stream"));
        self.hosted.change(|state| match is_stream {
            true => state.head = Some(head),
            false => state.whole = Some((head, bytes::BytesMut::new())),
        });
    }

    fn body(&mut self, data: &[u8]) {
        // Without waking anybody: it is given out once it is whole.
        if let Some((_, body)) = &mut self.hosted.state().whole {
            body.extend_from_slice(data);
            return;
        }
        let hosted = &self.hosted;
        self.torn |= self.splitter.feed(data, |event| hosted.append(event)).is_err();
    }

    fn end(&mut self) {}

    fn poll_departed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.clock.now();
        match self.hosted.poll_wanted(cx, now) {
            Wanted::Yes => {
                self.timer = None;
                Poll::Pending
            }
            Wanted::No => Poll::Ready(()),
            Wanted::Since(since) if now >= since + self.grace => Poll::Ready(()),
            Wanted::Since(since) => {
                let (clock, due) = (self.clock, since + self.grace);
                let (set_for, timer) = self.timer.get_or_insert_with(|| (due, Box::pin(clock.sleep_until(due))));
                if *set_for != due {
                    // A reader came and went meanwhile.
                    clock.reset(timer.as_mut(), due);
                    *set_for = due;
                }
                timer.as_mut().poll(cx)
            }
        }
    }

    fn is_broken(&self) -> bool {
        self.torn || self.hosted.is_broken()
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.hosted.end(self.clock.now());
    }
}
