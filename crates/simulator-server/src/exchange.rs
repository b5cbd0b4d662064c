//! One plan, played on one connection.
//!
//! Steps that are due together leave in one write; a step that is not due yet flushes what is there
//! and waits. Whether it waits or writes, it watches for the client leaving, and always looks at
//! that first, so that a run in virtual time has one order of events.

use crate::connection::{Farewell, Stage as Connection};
use bytes::BytesMut;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_simulator::{Action, Exchange, Opening};
use tidegate_transport::{Clock, ServerStream};
use tidegate_wire::http::{RequestHead, Version, chunk_end, chunk_start};
use tokio::time::Sleep;

/// Steps that are due together are written out when they are this many bytes, so that an answer
/// without pauses does not stand in memory as a whole.
const WRITE_BYTES: usize = 16 * 1024;

/// How the connection comes out of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The answer is whole as far as HTTP goes.
    Whole,
    /// So it is, and the connection is to carry no further one.
    WholeAndLast,
    /// The plan closes the connection.
    Close,
    /// The plan closes our half of it.
    HalfClose,
    /// The plan drops it.
    Truncate,
    /// The plan ends it with HTTP/2's GOAWAY and an error.
    GoAway,
    /// The plan resets it.
    Reset,
    /// The client left or the connection failed.
    ClientLeft,
}

struct Left;

impl From<io::Error> for Left {
    fn from(_: io::Error) -> Self {
        Left
    }
}

struct Stage<'a> {
    conn: &'a mut ServerStream,
    connection: &'a Connection,
    clock: Clock,
    sleep: Option<Pin<Box<Sleep>>>,
    chunked: bool,
    one_byte: bool,
    last: bool,
}

pub(crate) async fn play(
    conn: &mut ServerStream,
    exchange: &mut Exchange,
    head: &RequestHead,
    keep: bool,
    connection: &Connection,
) -> Ending {
    let (clock, one_byte) = (connection.clock, exchange.one_byte_packets);
    let mut stage = Stage { conn, connection, clock, sleep: None, chunked: false, one_byte, last: false };
    stage.play(exchange, head.version == Version::Http11, keep).await.unwrap_or(Ending::ClientLeft)
}

impl Stage<'_> {
    async fn play(&mut self, exchange: &mut Exchange, chunks: bool, keep: bool) -> Result<Ending, Left> {
        let began = self.clock.now();
        let started = match &exchange.opening {
            Opening::Reset { after } => {
                self.wait(began + *after).await?;
                return Ok(Ending::Reset);
            }
            Opening::Close { after } => {
                self.wait(began + *after).await?;
                return Ok(Ending::Close);
            }
            Opening::Head(head) => began + head.after,
        };
        self.wait(started).await?;
        self.connection.simulator.with(|simulator| simulator.head_leaves(self.clock.now(), exchange));
        self.head(exchange, chunks, keep);
        while let Some(step) = exchange.playback.next() {
            let due = started + step.at;
            if due > self.clock.now() {
                self.flush().await?;
                self.wait(due).await?;
            }
            match step.action {
                Action::Send(_) if exchange.head_only => {}
                Action::Send(bytes) if self.one_byte => self.dribble(&bytes).await?,
                Action::Send(bytes) => match exchange.bytes_per_second {
                    Some(rate) => self.trickle(&bytes, rate).await?,
                    None => self.conn.push(&bytes),
                },
                Action::Torn { bytes, declared } => self.tear(&bytes, declared),
                Action::End => {
                    let whole = self.conn.end();
                    self.flush().await?;
                    return Ok(match (whole, self.last) {
                        (true, false) => Ending::Whole,
                        (true, true) => Ending::WholeAndLast,
                        (false, _) => Ending::Close,
                    });
                }
                Action::GoAway { error: false } => {
                    self.last = true;
                    self.connection.say(Farewell::NoMore);
                }
                Action::Close | Action::CloseCode(_) => return self.break_off(Ending::Close).await,
                Action::HalfClose => return self.break_off(Ending::HalfClose).await,
                Action::Truncate => return self.break_off(Ending::Truncate).await,
                Action::Reset => return self.break_off(Ending::Reset).await,
                Action::GoAway { error: true } => return self.break_off(Ending::GoAway).await,
            }
            let progress = exchange.playback.progress();
            let out = self
                .connection
                .simulator
                .with(|simulator| simulator.progress(self.clock.now(), exchange.ordinal, progress));
            if let Some(message) = out {
                exchange.playback.run_out(message);
            }
            if self.conn.unwritten() >= WRITE_BYTES {
                self.flush().await?;
            }
        }
        Ok(Ending::Close)
    }

    async fn break_off(&mut self, ending: Ending) -> Result<Ending, Left> {
        self.flush().await?;
        Ok(ending)
    }

    /// Hands out the head, if there is one.
    fn head(&mut self, exchange: &Exchange, chunks: bool, keep: bool) {
        let Opening::Head(head) = &exchange.opening else { return };
        self.chunked = head.length.is_none() && chunks;
        self.conn.respond(head.status, head.length, !keep, |lines| {
            for (name, value) in &head.headers {
                lines.header(name, value.as_bytes());
            }
        });
    }

    /// Waits for a moment, or for the client to leave.
    async fn wait(&mut self, due: Moment) -> Result<(), Left> {
        if due <= self.clock.now() {
            return Ok(());
        }
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                self.clock.reset(sleep.as_mut(), due);
                sleep
            }
            none => none.insert(Box::pin(self.clock.sleep_until(due))),
        };
        let conn = &mut *self.conn;
        poll_fn(|cx| {
            if conn.poll_departed(cx).is_ready() {
                return Poll::Ready(Err(Left));
            }
            sleep.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Writes what is there, or notices that nobody reads it any more.
    async fn flush(&mut self) -> Result<(), Left> {
        let conn = &mut *self.conn;
        poll_fn(|cx| {
            if conn.poll_departed(cx).is_ready() {
                return Poll::Ready(Err(Left));
            }
            conn.poll_flush(cx).map_err(Left::from)
        })
        .await
    }

    /// The beginning of a chunk whose rest never comes; in HTTP/2, a frame after which none does.
    fn tear(&mut self, bytes: &[u8], declared: usize) {
        let mut torn = BytesMut::new();
        if self.chunked {
            chunk_start(&mut torn, declared);
        }
        torn.extend_from_slice(bytes);
        self.conn.push_raw(&torn);
    }

    /// So many bytes a second: what is a tenth of a second's worth at once, and then its time.
    async fn trickle(&mut self, bytes: &[u8], rate: u64) -> Result<(), Left> {
        let most = usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1);
        for piece in bytes.chunks(most) {
            self.conn.push(piece);
            self.flush().await?;
            let span = Duration::from_nanos((piece.len() as u64).saturating_mul(1_000_000_000) / rate);
            self.wait(self.clock.now() + span).await?;
        }
        Ok(())
    }

    /// Every byte in a write of its own, the chunk's frame included; in HTTP/2, in a frame of its
    /// own.
    async fn dribble(&mut self, bytes: &[u8]) -> Result<(), Left> {
        let mut framed = BytesMut::new();
        if self.chunked {
            chunk_start(&mut framed, bytes.len());
            framed.extend_from_slice(bytes);
            chunk_end(&mut framed);
        } else {
            framed.extend_from_slice(bytes);
        }
        self.flush().await?;
        for byte in &framed {
            self.conn.push_raw(std::slice::from_ref(byte));
            self.flush().await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
