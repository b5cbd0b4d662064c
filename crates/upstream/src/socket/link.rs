//! One WebSocket to an upstream as its users see it: a handle, and the streams on it.
//!
//! ```text
//!   Link (a handle) ──begin──▶ SocketStream ─ sent ─ read_head ─ poll_body …
//!       │ shared                    │ inbox
//!       └──────── driver task ──────┘   frames on the socket
//! ```
//! What they want of the driver is laid on a desk, and the driver is woken: requests in their order,
//! cancels and credit before them.

use super::inbox::{Fate, Inbox};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tidegate_base::Moment;
use tidegate_transport::ClientError;
use tidegate_wire::http::{BodyError, Headers, ResponseHead};

/// What is asked for.
#[derive(Clone)]
pub(crate) enum Ask {
    /// A stream of `tidegate.v1`: a body in UTF-8, and the header lines that go along.
    Create { body: Bytes, headers: Arc<Headers> },
    /// A prompt of the simple dialect, as it is sent; and the model that will have answered.
    Prompt { text: Bytes, model: Arc<str> },
}

/// What lies there for the driver.
#[derive(Default)]
pub(super) struct Desk {
    next: u64,
    pub(super) asks: VecDeque<(u64, Ask)>,
    pub(super) cancels: Vec<u64>,
    pub(super) grants: Vec<(u64, u64)>,
    pub(super) inboxes: BTreeMap<u64, Arc<Inbox>>,
    /// One left a stream that only the socket's end can end.
    pub(super) abandoned: bool,
    gone: bool,
    driver: Option<Waker>,
}

/// What handles, streams and the driver know of one socket.
pub(super) struct Shared {
    open: AtomicBool,
    streams_max: AtomicUsize,
    /// When the connection last took a byte of ours.
    progress: AtomicU64,
    /// Whether it ever told anything of a stream.
    proved: AtomicBool,
    /// Whether a stream can be cancelled by itself.
    cancels: bool,
    desk: Mutex<Desk>,
}

impl Shared {
    pub(super) fn new(streams_max: usize, cancels: bool) -> Self {
        Shared {
            open: AtomicBool::new(true),
            streams_max: AtomicUsize::new(streams_max),
            progress: AtomicU64::new(0),
            proved: AtomicBool::new(false),
            cancels,
            desk: Mutex::default(),
        }
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The desk, for the driver: it is woken when something is laid there.
    pub(super) fn desk_of_driver(&self, cx: &Context<'_>) -> MutexGuard<'_, Desk> {
        let mut desk = self.desk();
        if !desk.driver.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            desk.driver = Some(cx.waker().clone());
        }
        desk
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Whether it takes no streams and has none.
    pub(super) fn is_over(&self) -> bool {
        !self.is_open() && self.desk().inboxes.is_empty()
    }

    pub(super) fn retire(&self) {
        if self.open.swap(false, Ordering::AcqRel) {
            let task = self.desk().driver.take();
            task.into_iter().for_each(Waker::wake);
        }
    }

    pub(super) fn progressed(&self, now: Moment) {
        self.progress.store(now.as_nanos(), Ordering::Relaxed);
    }

    pub(super) fn proves(&self) {
        self.proved.store(true, Ordering::Relaxed);
    }

    /// The peer refused one more stream than it takes.
    pub(super) fn is_full(&self) {
        let others = self.desk().inboxes.len().saturating_sub(1);
        self.streams_max.fetch_min(others.max(1), Ordering::AcqRel);
    }

    pub(super) fn inbox(&self, key: u64) -> Option<Arc<Inbox>> {
        self.desk().inboxes.get(&key).cloned()
    }

    /// A stream is over.
    pub(super) fn ended(&self, key: u64, fate: Fate) {
        let inbox = self.desk().inboxes.remove(&key);
        if let Some(inbox) = inbox {
            inbox.ends(fate);
        }
    }

    /// The socket is over, and with it every stream; `fate` judges them.
    pub(super) fn gone(&self, fate: impl Fn(u64, &Inbox) -> Fate) {
        self.open.store(false, Ordering::Release);
        let mut desk = self.desk();
        desk.gone = true;
        let asks = std::mem::take(&mut desk.asks);
        let inboxes = std::mem::take(&mut desk.inboxes);
        drop(desk);
        for (key, inbox) in inboxes {
            let waits = asks.iter().any(|(asked, _)| *asked == key);
            inbox.ends(if waits { Fate::Unsent } else { fate(key, &inbox) });
        }
    }
}

/// A handle on one socket.
#[derive(Clone)]
pub(crate) struct Link(pub(super) Arc<Shared>);

impl Link {
    /// Begins a stream; [`ClientError::Unsent`] if the socket takes none any more.
    pub(super) fn begin(&self, ask: Ask) -> Result<SocketStream, ClientError> {
        let mut desk = self.0.desk();
        if desk.gone {
            return Err(ClientError::Unsent);
        }
        desk.next += 1;
        let key = desk.next;
        let inbox = Arc::new(Inbox::new());
        desk.asks.push_back((key, ask));
        desk.inboxes.insert(key, Arc::clone(&inbox));
        let task = desk.driver.take();
        drop(desk);
        task.into_iter().for_each(Waker::wake);
        Ok(SocketStream { link: self.clone(), key, inbox, spare: BytesMut::new() })
    }

    /// Streams it may carry at once.
    pub(super) fn streams_max(&self) -> usize {
        self.0.streams_max.load(Ordering::Acquire)
    }

    /// Whether it takes new streams.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Whether a stream on it was ever told anything.
    pub(super) fn is_proved(&self) -> bool {
        self.0.proved.load(Ordering::Relaxed)
    }

    /// Takes no new streams from now on; closes when the last has ended.
    pub(super) fn retire(&self) {
        self.0.retire();
    }

    /// When the connection last took a byte of ours.
    pub(super) fn progress(&self) -> Moment {
        Moment::from_nanos(self.0.progress.load(Ordering::Relaxed))
    }

    fn lay(&self, what: impl FnOnce(&mut Desk)) {
        let mut desk = self.0.desk();
        what(&mut desk);
        let task = desk.driver.take();
        drop(desk);
        task.into_iter().for_each(Waker::wake);
    }
}

/// One request and its answer. Dropped before the answer has ended it is cancelled; the socket goes
/// on, unless a prompt was asked on it.
pub(crate) struct SocketStream {
    link: Link,
    key: u64,
    inbox: Arc<Inbox>,
    spare: BytesMut,
}

impl SocketStream {
    /// Waits until the request has gone out.
    pub(super) async fn sent(&self) -> Result<(), ClientError> {
        poll_fn(|cx| self.inbox.poll_sent(cx)).await
    }

    /// When it is going to be its turn with the peer, as far as that is known.
    pub(super) fn waits_until(&self) -> Option<Moment> {
        self.inbox.waits_until()
    }

    /// Waits for the answer's head.
    pub(super) async fn read_head(&self) -> Result<ResponseHead, ClientError> {
        poll_fn(|cx| self.inbox.poll_head(cx)).await
    }

    /// Shows what has come of the body to `sink`; true once it has ended.
    pub(crate) fn poll_body(
        &mut self,
        cx: &Context<'_>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<bool, ClientError>> {
        let polled = self.inbox.poll_body(cx, &mut self.spare, sink);
        polled.map_ok(|(ended, gives)| {
            if gives > 0 {
                let key = self.key;
                self.link.lay(|desk| desk.grants.push((key, gives)));
            }
            ended
        })
    }

    /// Reads the rest of the body into `into`, up to `max` bytes; what is beyond is an error.
    pub(crate) async fn read_body(&mut self, into: &mut BytesMut, max: usize) -> Result<(), ClientError> {
        loop {
            let done = poll_fn(|cx| self.poll_body(cx, &mut |piece| into.extend_from_slice(piece))).await?;
            if into.len() > max {
                return Err(ClientError::Body(BodyError::TooLarge));
            }
            if done {
                return Ok(());
            }
        }
    }
}

impl Drop for SocketStream {
    fn drop(&mut self) {
        let (key, cancels) = (self.key, self.link.0.cancels);
        self.link.lay(|desk| {
            if desk.inboxes.remove(&key).is_none() {
                return;
            }
            let asked = desk.asks.len();
            desk.asks.retain(|(waiting, _)| *waiting != key);
            match desk.asks.len() == asked {
                true if cancels => desk.cancels.push(key),
                true => desk.abandoned = true,
                // It was never sent.
                false => {}
            }
        });
    }
}
