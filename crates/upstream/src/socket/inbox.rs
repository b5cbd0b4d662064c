//! What has come for one stream, between the driver of its socket and whoever reads it.
//!
//! The driver puts events here as the bytes of Server-Sent Events, so that nothing above a pool knows
//! what they came over. What a reader leaves unread is bounded by the stream's credit: an event that
//! comes without any ends the stream.

use bytes::{BufMut, BytesMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tidegate_base::Moment;
use tidegate_transport::{ClientError, SocketEnd};
use tidegate_wire::dialect::tidegate_v1::write_sse;
use tidegate_wire::http::ResponseHead;

/// What a stream may send unread, bytes: as over HTTP/2. Given back when half of it was read.
pub(super) const CREDIT: u64 = 128 * 1024;
/// A buffer larger than this is not kept for the next events.
const BUFFER_KEPT: usize = 64 * 1024;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// All of its answer has come.
    Whole,
    /// It certainly was not taken up.
    Unsent,
    /// Its socket took it along, or it was broken itself.
    Over(SocketEnd),
}

impl Fate {
    fn error(self) -> Option<ClientError> {
        match self {
            Fate::Whole => None,
            Fate::Unsent => Some(ClientError::Unsent),
            Fate::Over(end) => Some(ClientError::Socket(end)),
        }
    }
}

#[derive(Default)]
struct State {
    /// All of the request was taken by the connection.
    sent: bool,
    /// Anything was said about it.
    heard: bool,
    /// When it is going to be its turn, as far as the peer can tell.
    waits_until: Option<Moment>,
    opened: bool,
    head: Option<ResponseHead>,
    body: BytesMut,
    /// Bytes of events in `body`, and what was read of them since credit was last given.
    unread: u64,
    read: u64,
    /// What the peer may still send: below zero by one event at most.
    balance: i64,
    seq: u64,
    fate: Option<Fate>,
    task: Option<Waker>,
}

/// One stream's.
pub(super) struct Inbox(Mutex<State>);

impl Inbox {
    pub(super) fn new() -> Self {
        Inbox(Mutex::new(State { balance: CREDIT as i64, ..State::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it and wakes whoever waits for that.
    fn change<T>(&self, how: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let told = how(&mut state);
        let task = state.task.take();
        drop(state);
        task.into_iter().for_each(Waker::wake);
        told
    }

    /// The request has gone out.
    pub(super) fn sent(&self) {
        self.change(|state| state.sent = true);
    }

    pub(super) fn was_heard(&self) -> bool {
        self.state().heard
    }

    pub(super) fn is_open(&self) -> bool {
        self.state().opened
    }

    /// It waits with the peer, probably until `until`.
    pub(super) fn waits(&self, until: Moment) {
        self.change(|state| {
            state.heard = true;
            state.waits_until = Some(until);
        });
    }

    pub(super) fn waits_until(&self) -> Option<Moment> {
        self.state().waits_until
    }

    /// The answer begins.
    pub(super) fn opens(&self, head: ResponseHead) {
        self.change(|state| {
            (state.heard, state.sent, state.opened) = (true, true, true);
            state.head = Some(head);
        });
    }

    /// An event of `tidegate.v1`; an error says what is wrong with it.
    pub(super) fn event(&self, first_seq: u64, seq: u64, event: &str) -> Result<(), &'static str> {
        self.change(|state| {
            if !state.opened {
                return Err("sent an event before its answer began");
            }
            if first_seq != state.seq + 1 {
                return Err("left out events, or sent some twice");
            }
            if state.balance <= 0 {
                return Err("sent more than it had credit for");
            }
            state.balance -= event.len() as i64;
            state.seq = seq;
            state.unread += event.len() as u64;
            write_sse(&mut state.body, event).map_err(|e| e.0)
        })
    }

    /// Bytes of the body, whatever they are.
    pub(super) fn push(&self, bytes: &[u8]) {
        self.change(|state| {
            state.unread += bytes.len() as u64;
            state.body.put_slice(bytes);
        });
    }

    /// Bytes that nobody has read.
    pub(super) fn unread(&self) -> u64 {
        self.state().unread
    }

    /// It is over; what has come can still be read.
    pub(super) fn ends(&self, fate: Fate) {
        self.change(|state| {
            state.fate.get_or_insert(fate);
        });
    }

    fn wait(state: &mut State, cx: &Context<'_>) {
        if !state.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            state.task = Some(cx.waker().clone());
        }
    }

    /// Ready when the request has gone out.
    pub(super) fn poll_sent(&self, cx: &Context<'_>) -> Poll<Result<(), ClientError>> {
        let mut state = self.state();
        if state.sent {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = state.fate.and_then(Fate::error) {
            return Poll::Ready(Err(error));
        }
        Self::wait(&mut state, cx);
        Poll::Pending
    }

    /// Ready when the answer's head has come.
    pub(super) fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<ResponseHead, ClientError>> {
        let mut state = self.state();
        if let Some(head) = state.head.take() {
            return Poll::Ready(Ok(head));
        }
        if let Some(fate) = state.fate {
            let none = SocketEnd::Broken("ended a stream that had not begun");
            return Poll::Ready(Err(fate.error().unwrap_or(ClientError::Socket(none))));
        }
        Self::wait(&mut state, cx);
        Poll::Pending
    }

    /// Shows what has come of the body to `sink`; with it, the credit to give back.
    pub(super) fn poll_body(
        &self,
        cx: &Context<'_>,
        spare: &mut BytesMut,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<(bool, u64), ClientError>> {
        let mut state = self.state();
        if state.body.is_empty() {
            if let Some(fate) = state.fate {
                return Poll::Ready(fate.error().map_or(Ok((true, 0)), Err));
            }
            Self::wait(&mut state, cx);
            return Poll::Pending;
        }
        std::mem::swap(&mut state.body, spare);
        state.read += std::mem::take(&mut state.unread);
        let gives = if state.read >= CREDIT / 2 && state.fate.is_none() { std::mem::take(&mut state.read) } else { 0 };
        state.balance += gives as i64;
        drop(state);
        sink(spare);
        spare.clear();
        if spare.capacity() > BUFFER_KEPT {
            *spare = BytesMut::new();
        }
        Poll::Ready(Ok((false, gives)))
    }
}
