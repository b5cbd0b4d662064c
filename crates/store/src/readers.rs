//! The few threads that read, each with a connection of its own.
//!
//! A read runs in one transaction, so it sees one moment of the log whatever the writer does. The
//! threads also do what would keep an asynchronous task or the writer too long: cutting and hashing
//! large messages, and leading deletions of many steps. The writer never waits for them.

use crate::StoreError;
use crate::pending::{Pending, Reply};
use crate::queue::Queue;
use rusqlite::Connection;
use std::sync::Arc;

/// Reads that may wait, and bytes of messages that wait to be cut.
const WAITING_MAX: usize = 1_024;
const WAITING_BYTES_MAX: usize = 256 << 20;

type Work = Box<dyn FnOnce(&Connection) + Send>;

/// The way to the reading threads.
#[derive(Clone)]
pub(crate) struct Reads(Arc<Queue<Work>>);

impl Reads {
    pub(crate) fn new() -> Self {
        Reads(Arc::new(Queue::new(WAITING_MAX, WAITING_BYTES_MAX)))
    }

    /// Asks for a read of one moment of the log.
    pub(crate) fn ask<T, F>(&self, run: F) -> Pending<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.ask_with(0, move |connection, reply| {
            // Who does not listen any more does not want to know.
            let _ = reply.send(in_one_moment(connection, run));
        })
    }

    /// Asks for work that sees to its own answer and holds `bytes` of memory.
    pub(crate) fn ask_with<T, F>(&self, bytes: usize, run: F) -> Pending<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, Reply<T>) + Send + 'static,
    {
        let (reply, pending) = Pending::new();
        match self.0.push(Box::new(move |connection| run(connection, reply)), bytes) {
            Ok(()) => pending,
            Err((_, refused)) => Pending::failed(refused.into()),
        }
    }

    /// Takes no more; what waits is still done.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    /// One thread's work, until the queue is closed and empty.
    pub(crate) fn run(&self, connection: &Connection) {
        let unwinding = Unwinding(self);
        while let Some(work) = self.0.take() {
            work(connection);
        }
        drop(unwinding);
    }
}

/// A thread that panics takes the queue along: with fewer threads than it was given, somebody might
/// wait for ever.
struct Unwinding<'a>(&'a Reads);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.0.abandon();
        }
    }
}

/// Runs `run` in a transaction that only reads.
pub(crate) fn in_one_moment<T>(
    connection: &Connection,
    run: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let moment = connection.unchecked_transaction()?;
    let answer = run(&moment)?;
    moment.finish()?;
    Ok(answer)
}
