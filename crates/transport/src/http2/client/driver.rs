//! The task that owns a connection's socket.
//!
//! Each time it is woken it lets h2 read and write whatever it can, then looks at what may have
//! changed. A connection that takes no new streams and has none left closes with a GOAWAY; a peer
//! that does not read even that is left after a few seconds.

use super::{STREAMS_MAX, Shared};
use crate::clock::Clock;
use crate::io::BoxIo;
use bytes::Bytes;
use h2::client::Connection as Http2;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// How long a peer may take to read the last words of a connection.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);

/// Drives one connection to its end.
pub(super) struct Driver {
    conn: Http2<BoxIo, Bytes>,
    /// Weak: handles and streams keep a connection alive, its driver does not.
    shared: Weak<Shared>,
    clock: Clock,
    last_words: Option<Pin<Box<Sleep>>>,
}

impl Driver {
    pub(super) fn new(conn: Http2<BoxIo, Bytes>, shared: Weak<Shared>, clock: Clock) -> Self {
        Driver { conn, shared, clock, last_words: None }
    }

    /// Runs until the connection is gone; `changed` is told whether it is.
    pub(super) async fn run(mut self, changed: impl Fn(bool)) {
        poll_fn(|cx| self.poll(cx, &changed)).await;
        if let Some(shared) = self.shared.upgrade() {
            shared.retire();
        }
        drop(self);
        changed(true);
    }

    fn poll(&mut self, cx: &mut Context<'_>, changed: &impl Fn(bool)) -> Poll<()> {
        // How it ended is told to each stream by h2; a connection without streams has nobody to tell.
        if Pin::new(&mut self.conn).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(shared) = self.shared.upgrade() else { return self.poll_last_words(cx) };
        shared.hear(cx);
        let streams_max = self.conn.max_concurrent_send_streams().min(STREAMS_MAX);
        let mut news = shared.streams_max.swap(streams_max, Ordering::AcqRel) != streams_max;
        if !shared.accepts(cx) && shared.open.load(Ordering::Acquire) {
            shared.retire();
            news = true;
        }
        if news {
            changed(false);
        }
        let over = !shared.open.load(Ordering::Acquire) && shared.streams.load(Ordering::Acquire) == 0;
        // Dropped first: it may be the last, and then h2 wants to be polled once more.
        drop(shared);
        if over { self.poll_last_words(cx) } else { Poll::Pending }
    }

    fn poll_last_words(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock;
        let sleep = self.last_words.get_or_insert_with(|| Box::pin(clock.sleep_until(clock.now() + LAST_WORDS_MAX)));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(())
    }
}
