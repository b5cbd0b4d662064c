//! One client's life: pause, ask, treat the answer in its crowd's manner, count, again.
//!
//! A stream is looked at as closely as a measurement looks at it: every event is read, and it is
//! whole only with `message_stop`. A buffered answer is read past; that it comes to the end of its
//! framing is what is asked of it.

use super::connection::{Http2Lane, Way};
use super::count::Ended;
use super::{Bounds, Manner, Share};
use crate::failure::Failure;
use crate::plan::Mode;
use crate::request::Request;
use crate::socket::SocketConn;
use crate::watch::{Brought, StreamWatch};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_transport::http1::ClientConn;
use tidegate_wire::error::ErrorBody;
use tidegate_wire::http::ResponseHead;
use tokio::io::AsyncWriteExt;

/// Of an error's body so much is looked at for its type.
const ERROR_BYTES_MAX: usize = 16 * 1024;
/// A client waits so long after a connection that could not be opened: without it, a dead endpoint
/// would be asked as fast as the machine can.
const PAUSE_AFTER_CONNECT_FAILURE: Duration = Duration::from_millis(100);

pub(super) struct Client {
    share: Arc<Share>,
    lane: Arc<Http2Lane>,
    prng: Prng,
    kept: Option<ClientConn>,
    /// Its WebSocket, if it speaks over one.
    socket: Option<SocketConn>,
    /// When it left last.
    pub(super) left_at: Option<Moment>,
}

/// A time within the bounds.
fn draw(prng: &mut Prng, (least, most): Bounds) -> Duration {
    Duration::from_micros(prng.between(least.as_micros() as u64, most.as_micros() as u64))
}

impl Client {
    pub(super) fn new(share: Arc<Share>, lane: Arc<Http2Lane>, prng: Prng) -> Self {
        Client { share, lane, prng, kept: None, socket: None, left_at: None }
    }

    /// Lives until it is dropped.
    pub(super) async fn live(mut self, from: Moment) {
        let clock = self.share.clock;
        clock.sleep_until(from).await;
        loop {
            clock.sleep_until(clock.now() + draw(&mut self.prng, self.share.crowd.pause)).await;
            self.share.count(|c| c.started += 1);
            let ended = self.turn().await;
            let failed_to_connect = ended == Err(Failure::Connect);
            self.share.count(|c| c.ended(ended));
            if failed_to_connect {
                clock.sleep_until(clock.now() + PAUSE_AFTER_CONNECT_FAILURE).await;
            }
        }
    }

    /// One request; when its client left it, if it did before the answer's end.
    pub(super) async fn leave(&mut self) -> Option<Moment> {
        self.left_at = None;
        let ended = self.turn().await;
        self.left_at.filter(|_| ended == Ok(Ended::Left))
    }

    /// One request, or what this client does instead.
    async fn turn(&mut self) -> Result<Ended, Failure> {
        let share = Arc::clone(&self.share);
        let clock = share.clock;
        let Some(request) = self.prng.pick(&share.requests).cloned() else { return Ok(Ended::Left) };
        let limit = clock.now() + share.crowd.plan.request_timeout;
        match share.crowd.manner {
            Manner::Knock => clock.by(limit, self.knock(&request)).await.unwrap_or(Err(Failure::Timeout)),
            Manner::Leave(bounds) => {
                let leave = clock.now() + draw(&mut self.prng, bounds);
                // What it had in hand is dropped with the future: connection closed, stream reset.
                let left = clock.by(leave.min(limit), self.exchange(&request)).await;
                left.unwrap_or_else(|| {
                    self.socket = None;
                    self.left_at = Some(clock.now());
                    Ok(Ended::Left)
                })
            }
            Manner::Cancel(bounds) => {
                let cancel = clock.now() + draw(&mut self.prng, bounds);
                match clock.by(cancel.min(limit), self.exchange(&request)).await {
                    Some(ended) => ended,
                    None => {
                        self.left_at = Some(clock.now());
                        clock.by(limit, self.cancel()).await.unwrap_or(Err(Failure::Timeout))
                    }
                }
            }
            Manner::Read | Manner::Dawdle(_) => {
                clock.by(limit, self.exchange(&request)).await.unwrap_or(Err(Failure::Timeout))
            }
        }
    }

    async fn knock(&mut self, request: &Request) -> Result<Ended, Failure> {
        let dialled = self.share.dial.dial(request.target()).await.map_err(|_| Failure::Connect)?;
        self.share.count(|c| c.connections += 1);
        let mut io = dialled.io;
        if self.prng.chance(0.5) {
            let head = request.head();
            io.write_all(&head[..head.len() / 2]).await.map_err(|_| Failure::Reset)?;
        }
        if self.prng.chance(0.5) {
            io.reset_on_drop();
        }
        Ok(Ended::Knocked)
    }

    async fn exchange(&mut self, request: &Request) -> Result<Ended, Failure> {
        let share = Arc::clone(&self.share);
        if share.crowd.plan.mode == Mode::Socket {
            let ended = self.over_socket(request).await;
            // One that failed is not trusted with another.
            if ended.is_err() || !share.crowd.plan.keep_alive {
                self.socket = None;
            }
            return ended;
        }
        let mut way = match self.kept_and_good().await {
            Some(conn) => Way::Http1(conn),
            None => Way::open(&share, &self.lane, request).await?,
        };
        let head = way.ask(request).await?;
        let outcome = match (head.status, share.crowd.plan.mode) {
            (200, Mode::Sse) => self.read_stream(&mut way, &head).await,
            (200, _) => self.read_past(&mut way, &mut |_| {}).await,
            (status, _) => {
                let mut text = Vec::new();
                let mut keep = |piece: &[u8]| {
                    let room = ERROR_BYTES_MAX - text.len();
                    text.extend_from_slice(&piece[..piece.len().min(room)]);
                };
                self.read_past(&mut way, &mut keep).await?;
                let kind = ErrorBody::read(&text).map_or_else(|| "-".to_owned(), |error| error.kind.into_owned());
                Err(Failure::Http { status, kind })
            }
        };
        self.kept = way.reusable().filter(|_| share.crowd.plan.keep_alive);
        outcome.map(|()| Ended::Whole)
    }

    async fn over_socket(&mut self, request: &Request) -> Result<Ended, Failure> {
        let mut kept = self.socket.take();
        if let Some(socket) = &mut kept
            && !socket.is_good().await
        {
            kept = None;
        }
        let socket = match kept {
            Some(kept) => kept,
            None => {
                let dialled = self.share.dial.dial(request.target()).await.map_err(|_| Failure::Connect)?;
                self.share.count(|c| c.connections += 1);
                let label = self.prng.next_u64().to_string();
                SocketConn::open(dialled.io, request, self.share.clock, self.prng.fork(&label)).await?
            }
        };
        self.socket.insert(socket).ask(request)?;
        let mut watch = StreamWatch::new();
        loop {
            let Some(socket) = &mut self.socket else { return Err(Failure::Reset) };
            let look = socket.look(&mut watch).await;
            self.share.count(|c| {
                c.events += look.brought.events;
                c.bytes += look.brought.bytes;
            });
            match look.ended {
                _ if watch.is_rotten() => return Err(Failure::Malformed),
                Some(ended) => return ended.map(|()| Ended::Whole),
                None => self.dawdle().await,
            }
        }
    }

    /// Cancels what is under way, and waits for the word that it is over.
    async fn cancel(&mut self) -> Result<Ended, Failure> {
        // It may not even have been opened, or asked.
        let Some(socket) = &mut self.socket else { return Ok(Ended::Left) };
        socket.cancel();
        let mut rest = StreamWatch::new();
        loop {
            let look = socket.look(&mut rest).await;
            match look.ended {
                Some(Err(failure)) if !look.cancelled => {
                    self.socket = None;
                    return Err(failure);
                }
                Some(_) => return Ok(Ended::Left),
                None => {}
            }
        }
    }

    async fn kept_and_good(&mut self) -> Option<ClientConn> {
        let mut conn = self.kept.take()?;
        poll_fn(|cx| Poll::Ready(conn.is_quiet(cx))).await.then_some(conn)
    }

    /// Does nothing for a while after a read, if that is its manner.
    async fn dawdle(&mut self) {
        if let Manner::Dawdle(bounds) = self.share.crowd.manner {
            let clock = self.share.clock;
            clock.sleep_until(clock.now() + draw(&mut self.prng, bounds)).await;
        }
    }

    async fn read_stream(&mut self, way: &mut Way, head: &ResponseHead) -> Result<(), Failure> {
        let kind = head.headers.get("content-type").unwrap_or_default();
        if !kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream")) {
            return Err(Failure::Malformed);
        }
        let mut watch = StreamWatch::new();
        loop {
            let mut brought = Brought::default();
            let now = self.share.clock.now();
            let read = poll_fn(|cx| way.poll_body(cx, &mut |piece| watch.see(piece, now, None, &mut brought))).await;
            self.share.count(|c| {
                c.events += brought.events;
                c.bytes += brought.bytes;
            });
            if watch.is_rotten() {
                return Err(Failure::Malformed);
            }
            let ended = read.map_err(|e| match &watch.tap().error {
                Some(error) => Failure::Stream { kind: error.kind.to_string() },
                None => Failure::of(&e),
            })?;
            if ended {
                break;
            }
            self.dawdle().await;
        }
        match &watch.tap().error {
            Some(error) => Err(Failure::Stream { kind: error.kind.to_string() }),
            None if watch.tap().stopped => Ok(()),
            None => Err(Failure::Truncated),
        }
    }

    /// Reads a body to its end, showing it to `see`.
    async fn read_past(&mut self, way: &mut Way, see: &mut (dyn FnMut(&[u8]) + Send)) -> Result<(), Failure> {
        loop {
            let mut bytes = 0;
            let read = poll_fn(|cx| {
                way.poll_body(cx, &mut |piece| {
                    bytes += piece.len() as u64;
                    see(piece);
                })
            });
            let read = read.await;
            self.share.count(|c| c.bytes += bytes);
            if read.map_err(|e| Failure::of(&e))? {
                return Ok(());
            }
            self.dawdle().await;
        }
    }
}
