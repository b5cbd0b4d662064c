//! A client on raw bytes: it sends what its plan says, reads as its plan says, leaves when it says.
//!
//! All that a client sees goes into the world's trace with its moment; two runs of one seed have
//! the same trace.

use crate::world::answer::Reading;
use crate::world::plan::{Client, Leave, Reader, Request, Upload, What};
use crate::world::scene::GATEWAY;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::{BoxIo, Clock, Io as _, MemoryNetwork};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// No exchange of these worlds may take longer; one that does hangs.
pub(crate) const HANG: Duration = Duration::from_secs(3_000);
/// How long a client that does not read any more keeps its connection.
pub(crate) const HOLD: Duration = Duration::from_secs(150);

/// A request and the close of an idle connection may cross; whoever waits longer was not served.
pub(crate) const CROSSING: Duration = Duration::from_millis(10);

/// How one request came out, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A whole answer came.
    Answered,
    /// The connection ended, or spoke no HTTP, before the answer was whole.
    Cut,
    /// Nobody took the connection, or it closed before anything was sent.
    Unserved,
    /// The client left, as planned.
    Left,
    /// The client stopped reading, as planned.
    Stopped,
    /// Nothing happened for an hour.
    Hung,
}

/// What a client saw of one request.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) request: Request,
    pub(crate) end: End,
    /// When sending began.
    pub(crate) began: Moment,
    pub(crate) sent: Moment,
    pub(crate) ended: Moment,
    pub(crate) reading: Reading,
}

/// A running hash (FNV-1a) of everything that was seen, in order.
#[derive(Clone, Debug)]
pub(crate) struct Trace(Arc<Mutex<u64>>);

impl Trace {
    pub(crate) fn new() -> Self {
        Trace(Arc::new(Mutex::new(0xcbf2_9ce4_8422_2325)))
    }

    pub(crate) fn add(&self, bytes: &[u8]) {
        let mut hash = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for b in bytes {
            *hash = (*hash ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(crate) fn value(&self) -> u64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all clients share.
#[derive(Clone)]
pub(crate) struct Street {
    pub(crate) network: MemoryNetwork,
    pub(crate) clock: Clock,
    pub(crate) trace: Trace,
    pub(crate) body_limit: u64,
}

/// A connection, what was read of it too early, and whether the next request was sent already.
struct Conn {
    io: BoxIo,
    early: Vec<u8>,
    ahead: bool,
}

impl Street {
    /// Plays one client to its end.
    pub(crate) async fn play(self, client: Client) -> Vec<Seen> {
        if let Some(http2) = client.http2 {
            return self.play_http2(client, http2).await;
        }
        let mut conn = None;
        let mut seen = Vec::new();
        let following = client.requests.iter().skip(1).cloned().map(Some).chain([None]).collect::<Vec<_>>();
        for (request, next) in client.requests.into_iter().zip(following) {
            let next = next.filter(|_| request.pipelined);
            self.clock.sleep_until(self.clock.now() + request.pause).await;
            let began = self.clock.now();
            let mut reading = Reading::new(false, Vec::new());
            let mut sent = began;
            let exchange = self.exchange(&mut conn, &request, next.as_ref(), &mut reading, &mut sent);
            let end = self.clock.within(HANG, exchange).await.unwrap_or(End::Hung);
            let ended = self.clock.now();
            self.note(&request, format!("{end:?}").as_bytes());
            seen.push(Seen { request, end, began, sent, ended, reading });
        }
        seen
    }

    pub(crate) fn note(&self, request: &Request, what: &[u8]) {
        self.trace.add(&request.number.to_le_bytes());
        self.trace.add(&self.clock.now().as_nanos().to_le_bytes());
        self.trace.add(what);
    }

    /// The kept connection if it is still open, else a new one.
    async fn connection(&self, kept: Option<Conn>) -> Option<(Conn, bool)> {
        if let Some(mut conn) = kept {
            let mut byte = [0; 64];
            if conn.ahead {
                return Some((conn, true));
            }
            match self.clock.within(Duration::ZERO, conn.io.read(&mut byte)).await {
                None => return Some((conn, true)),
                Some(Ok(n)) if n > 0 => {
                    conn.early.extend_from_slice(&byte[..n]);
                    return Some((conn, true));
                }
                Some(_) => {}
            }
        }
        Some((Conn { io: self.network.connect(GATEWAY).ok()?, early: Vec::new(), ahead: false }, false))
    }

    async fn exchange(
        &self,
        kept: &mut Option<Conn>,
        request: &Request,
        next: Option<&Request>,
        reading: &mut Reading,
        sent: &mut Moment,
    ) -> End {
        loop {
            let Some((mut conn, reused)) = self.connection(kept.take()).await else { return End::Unserved };
            *reading = Reading::new(request.what == What::RootHead, std::mem::take(&mut conn.early));
            let ahead = conn.ahead;
            let vanished = !ahead && self.send(&mut conn.io, request, next).await;
            *sent = self.clock.now();
            let end = if vanished { End::Left } else { self.read(&mut conn.io, request, reading).await };
            let at_once = self.clock.now().since(*sent) < CROSSING;
            match end {
                // It was closed while the request was on its way, as any idle connection may be.
                End::Cut if reused && reading.came == 0 && at_once => continue,
                End::Cut if reading.came == 0 => return End::Unserved,
                End::Answered if !request.close && !reading.closes() => {
                    let ahead = next.is_some() && !ahead;
                    *kept = Some(Conn { early: reading.rest(), io: conn.io, ahead });
                }
                End::Left if request.resets => conn.io.reset_on_drop(),
                _ => {}
            }
            return end;
        }
    }

    /// Sends a request and what is pipelined after it; true if the client vanishes meanwhile.
    async fn send(&self, io: &mut BoxIo, request: &Request, next: Option<&Request>) -> bool {
        let (head, body) = request.bytes(self.body_limit);
        let mut bytes = [head, body].concat();
        if let Some(next) = next {
            let (head, body) = next.bytes(self.body_limit);
            bytes.extend([head, body].concat());
        }
        let vanishes = match request.leave {
            Some(Leave::Sending(share)) => {
                bytes.truncate(bytes.len() * share as usize / 1000);
                true
            }
            _ => false,
        };
        if request.what == What::SlowBody {
            bytes.truncate(bytes.len().saturating_sub(5));
        }
        let (piece, pause) = match request.upload {
            Upload::Pieces(piece, pause) => (piece, pause),
            _ => (usize::MAX, Duration::ZERO),
        };
        for part in bytes.chunks(piece.min(bytes.len().max(1))) {
            // A server that answers early and closes cannot be written to; its answer can be read.
            if io.write_all(part).await.is_err() {
                break;
            }
            if !pause.is_zero() {
                self.clock.sleep_until(self.clock.now() + pause).await;
            }
        }
        vanishes
    }

    async fn read(&self, io: &mut BoxIo, request: &Request, reading: &mut Reading) -> End {
        let until = match request.leave {
            Some(Leave::After(span)) => self.clock.now() + span,
            _ => Moment::NEVER,
        };
        let most_before_leaving = match request.leave {
            Some(Leave::AtBytes(n)) => n,
            _ => usize::MAX,
        };
        let mut buffer = vec![0; 16 * 1024];
        let mut paused = false;
        let (most, pause) = match request.reader {
            Reader::Slow(most, pause) => (most, pause),
            _ => (buffer.len(), Duration::ZERO),
        };
        reading.feed(&[], self.clock.now());
        while reading.is_open() {
            if reading.came >= most_before_leaving {
                return End::Left;
            }
            let room = match request.reader {
                Reader::Stops(after) if reading.came >= after => {
                    self.clock.sleep_until(self.clock.now() + HOLD).await;
                    return End::Stopped;
                }
                Reader::Pauses(after, span) if !paused && reading.came >= after => {
                    paused = true;
                    self.clock.sleep_until(self.clock.now() + span).await;
                    most
                }
                Reader::Stops(after) | Reader::Pauses(after, _) if !paused => {
                    most.min(after.saturating_sub(reading.came).max(1))
                }
                _ => most,
            };
            let room = room.min(most_before_leaving - reading.came);
            match self.clock.by(until, io.read(&mut buffer[..room])).await {
                None => return End::Left,
                Some(Ok(n)) if n > 0 => {
                    reading.feed(&buffer[..n], self.clock.now());
                    self.note(request, &buffer[..n]);
                }
                Some(end) => {
                    reading.closed(end.is_ok());
                    self.note(request, if end.is_ok() { b"end" } else { b"reset" });
                }
            }
            if !pause.is_zero() && reading.is_open() {
                self.clock.sleep_until(self.clock.now() + pause).await;
            }
        }
        if reading.broken.is_none() { End::Answered } else { End::Cut }
    }
}
