//! An answer of the store that is on its way.
//!
//! Await it, or on a thread of one's own [`Pending::wait`] for it. Dropping it takes nothing back: a
//! change that was asked for is made.

use crate::StoreError;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// Where an answer is sent to.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// An answer on its way from one of the store's threads.
#[derive(Debug)]
#[must_use = "only the answer tells whether the change is durable"]
pub struct Pending<T>(oneshot::Receiver<Result<T, StoreError>>);

impl<T> Pending<T> {
    /// An answer to come, and where it is to be sent.
    pub(crate) fn new() -> (Reply<T>, Self) {
        let (reply, answer) = oneshot::channel();
        (reply, Pending(answer))
    }

    /// An error that is known at once.
    pub(crate) fn failed(error: StoreError) -> Self {
        let (reply, pending) = Self::new();
        // The receiver is in `pending`: it is there.
        let _ = reply.send(Err(error));
        pending
    }

    /// Blocks until the answer is there. Not for an asynchronous task: it panics there.
    pub fn wait(self) -> Result<T, StoreError> {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(StoreError::Closed)))
    }
}
