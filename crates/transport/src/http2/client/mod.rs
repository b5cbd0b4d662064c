//! The client's side: one connection, many streams.
//!
//! ```text
//!   Connection (a handle) ──begin──▶ Stream ─ send_body ─ read_head ─ poll_body …
//!        │ shared                       │
//!        └──────── driver task ─────────┘   h2's state machine on the socket
//! ```
//! The driver owns the socket and is the only one who reads and writes it; handles and streams talk
//! to it through h2's state. It publishes what only the connection knows (how many streams the peer
//! allows, whether it takes new ones, whether a PING was answered) and tells its owner by `changed`.
//!
//! Limits: h2 charges unread small DATA frames against a budget that is half of the connection's
//! window, and ends the connection when it is spent. Token deltas are small, so the window is as
//! wide as the protocol has it, and what one stream may leave unread is bounded by its own window.
//! That also means that no stream can starve another of window. The caller must still read every
//! stream as data comes.

mod driver;
mod stream;

pub use stream::Stream;

use crate::client_error::ClientError;
use crate::clock::Clock;
use crate::io::BoxIo;
use crate::tasks::{TaskKind, Tasks};
use bytes::Bytes;
use driver::Driver;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use http::Request;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Streams on one connection, whatever the peer allows: beyond it a broken connection takes too
/// many with it, and edges commonly close one that carries more.
const STREAMS_MAX: usize = 100;
/// What one stream's peer may send before it is read. Streams are read at once; this is for the
/// time between two polls. A hundred full ones are 12.8 MB.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The widest window there is (RFC 9113 section 6.9.1).
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// An answer's head, as for HTTP/1.1.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// Body bytes of one stream that wait for the socket; progress of an upload is told as it takes
/// them.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that were cancelled and are remembered, so that frames under way to them are expected.
const CANCELLED_KEPT: usize = 1024;
/// Frames to cancelled streams that are not remembered any more. h2 takes each for an error of the
/// peer's and ends the connection at this number; a gateway cancels all day, so it is high.
const STRAY_FRAMES_MAX: usize = 1 << 20;
/// Stands for "the peer's SETTINGS have not come yet". A peer that sets no limit means `usize::MAX`.
const NOT_YET: usize = usize::MAX - 1;

const DRIVER: TaskKind = TaskKind {
    name: "upstream http2",
    on_cancel: "the connection closes when its last stream has ended, or 5 s after it if the peer does not read",
    on_error: "its streams fail and are tried again elsewhere; the pool forgets it",
};

/// What handles, streams and the driver know of one connection.
struct Shared {
    end: Mutex<End>,
    open: AtomicBool,
    streams_max: AtomicUsize,
    streams: AtomicUsize,
    probes: Mutex<Probes>,
}

/// The way to the driver.
struct End {
    /// `None` once the connection takes no new streams.
    send: Option<SendRequest<Bytes>>,
    /// Wakes the driver. h2 wakes it too, but not while the socket takes nothing, and that is when
    /// somebody has to look at the clock.
    driver: Option<Waker>,
}

/// PINGs: one at a time, for all streams that ask.
struct Probes {
    pings: PingPong,
    sent: u64,
    answered: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn retire(&self) {
        self.open.store(false, Ordering::Release);
        // Dropped outside the lock: it wakes the driver.
        let send = locked(&self.end).send.take();
        drop(send);
        self.wake();
    }

    fn wake(&self) {
        let driver = locked(&self.end).driver.take();
        driver.into_iter().for_each(Waker::wake);
    }

    /// Whether the peer still takes new streams; whoever asks is woken when somebody retires it.
    fn accepts(&self, cx: &mut Context<'_>) -> bool {
        let mut end = locked(&self.end);
        if !end.driver.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            end.driver = Some(cx.waker().clone());
        }
        end.send.as_mut().is_some_and(|s| !matches!(s.poll_ready(cx), Poll::Ready(Err(_))))
    }

    /// Whether the answer to the PING under way has come.
    fn hear(&self, cx: &mut Context<'_>) {
        let mut probes = locked(&self.probes);
        if probes.sent > probes.answered && matches!(probes.pings.poll_pong(cx), Poll::Ready(Ok(_))) {
            probes.answered = probes.sent;
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.wake();
    }
}

/// A handle on one connection. When all handles and streams are dropped it closes.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

impl Connection {
    /// Begins HTTP/2 on `io` and waits for the peer's SETTINGS, so that it is known how many
    /// streams it takes and that it speaks HTTP/2 at all. The driver is spawned through `tasks`;
    /// `changed` is called whenever [`Connection::streams_max`] or [`Connection::is_open`] changed,
    /// and once more, with `true`, when the connection is gone.
    pub async fn open(
        io: BoxIo,
        clock: Clock,
        tasks: &Tasks,
        changed: impl Fn(bool) + Send + Sync + 'static,
    ) -> Result<Self, ClientError> {
        let shaking = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(CANCELLED_KEPT)
            .max_local_error_reset_streams(Some(STRAY_FRAMES_MAX))
            .initial_max_send_streams(NOT_YET)
            .enable_push(false)
            .handshake::<_, Bytes>(io);
        let broken = |e| ClientError::of_http2(e, false);
        let (send, mut conn) = shaking.await.map_err(broken)?;
        let pings = conn.ping_pong().ok_or(ClientError::ClosedEarly { any: false })?;
        poll_fn(|cx| match Pin::new(&mut conn).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(ClientError::ClosedEarly { any: false })),
            Poll::Ready(Err(e)) => Poll::Ready(Err(broken(e))),
            Poll::Pending if conn.max_concurrent_send_streams() == NOT_YET => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await?;
        let shared = Arc::new(Shared {
            end: Mutex::new(End { send: Some(send), driver: None }),
            open: AtomicBool::new(true),
            streams_max: AtomicUsize::new(conn.max_concurrent_send_streams().min(STREAMS_MAX)),
            streams: AtomicUsize::new(0),
            probes: Mutex::new(Probes { pings, sent: 0, answered: 0 }),
        });
        tasks.spawn(&DRIVER, Driver::new(conn, Arc::downgrade(&shared), clock).run(changed));
        Ok(Connection(shared))
    }

    /// Begins a request; `ended` says that it has no body. [`ClientError::Unsent`] if the
    /// connection takes no streams any more.
    pub fn begin(&self, request: Request<()>, ended: bool) -> Result<Stream, ClientError> {
        // A clone, since each remembers at most one stream that waits for the peer to allow it.
        let send = locked(&self.0.end).send.clone();
        let begun = send.ok_or(ClientError::Unsent)?.send_request(request, ended);
        let (answer, send) = begun.map_err(|e| match ClientError::of_http2(e, false) {
            // h2 refuses what it cannot write before anything happened.
            ClientError::Io(e) if e.kind() == std::io::ErrorKind::InvalidInput => ClientError::Unwritable,
            _ => ClientError::Unsent,
        })?;
        Ok(Stream::new(Arc::clone(&self.0), send, answer, ended))
    }

    /// Streams it may carry at once: the peer's number, at most 100.
    pub fn streams_max(&self) -> usize {
        self.0.streams_max.load(Ordering::Acquire)
    }

    /// Whether it takes new streams.
    pub fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Acquire)
    }

    /// Takes no new streams from now on; closes when the last has ended.
    pub fn retire(&self) {
        self.0.retire();
    }

    /// Asks the peer for a sign of life; a number for [`Connection::answered`]. All who ask while a
    /// PING is under way share it.
    pub fn probe(&self) -> u64 {
        let mut probes = locked(&self.0.probes);
        // It fails only on a connection that is gone, and then there will be no answer.
        if probes.sent == probes.answered && probes.pings.send_ping(Ping::opaque()).is_ok() {
            probes.sent += 1;
        } else if probes.sent == probes.answered {
            return u64::MAX;
        }
        probes.sent
    }

    /// Whether the peer has answered `probe`.
    pub fn answered(&self, probe: u64) -> bool {
        locked(&self.0.probes).answered >= probe
    }
}
