//! One connection's task: take the next start, send, read, count, again.
//!
//! ```text
//!   take ─▶ wait ─▶ (dial) ─▶ send ─▶ head ─┬─ 200, stream ─▶ events … end ─┬─▶ count ─▶ take
//!                      ▲                    ├─ 200, JSON ──▶ body ──────────┤
//!                      └──── again ◀────────┴─ other ──────▶ error's type ──┘
//! ```
//! The whole of a request, dialling and repeated attempts included, is under one clock. Connections that are kept lie on
//! one pile a thread; the last one laid down is the next one used, so that an open loop opens no more
//! than it needs. It is looked at first: one the endpoint has closed meanwhile is no error.

use crate::failure::Failure;
use crate::mix::{Drawn, Requests};
use crate::plan::{Mode, Plan};
use crate::request::Request;
use crate::retry::{self, Advice};
use crate::socket::SocketConn;
use crate::tally::Tally;
use crate::turnstile::Turnstile;
use crate::watch::{Brought, StreamWatch};
use bytes::BytesMut;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_transport::http1::{ClientConn, ClientError, SendEnd};
use tidegate_transport::{Clock, Dial};
use tidegate_wire::error::ErrorBody;
use tidegate_wire::http::{BodyError, ResponseHead};
use tidegate_wire::raw::RawObject;
use tidegate_wire::usage::Usage;

/// The most of a JSON answer that is read; the API's longest are far below.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A closed loop waits so long after a connection that could not be opened: without it, a dead
/// endpoint would be asked as fast as the machine can.
const PAUSE_AFTER_CONNECT_FAILURE: Duration = Duration::from_millis(100);
/// An answer's buffer larger than this is given back between requests.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;

/// What the connections of one thread share.
pub(crate) struct Share {
    pub(crate) clock: Clock,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) requests: Arc<Requests>,
    /// The number of this thread's next request; threads take every n-th.
    number: AtomicU64,
    number_step: u64,
    retries: u32,
    /// Randomness of waits before a repeated attempt, by request.
    jitter: Prng,
    pub(crate) mode: Mode,
    pub(crate) keep_alive: bool,
    pub(crate) is_open_loop: bool,
    pub(crate) stamps: bool,
    pub(crate) request_timeout: Duration,
    pub(crate) turnstile: Mutex<Turnstile>,
    pub(crate) tally: Arc<Mutex<Tally>>,
    /// Connections that may be used again; never more than there are tasks.
    idle: Mutex<Vec<ClientConn>>,
    /// The same, of WebSockets.
    idle_sockets: Mutex<Vec<SocketConn>>,
    /// What masks of WebSockets are made of.
    masks: Mutex<Prng>,
}

impl Share {
    pub(crate) fn new(
        plan: &Plan,
        thread: usize,
        requests: Arc<Requests>,
        clock: Clock,
        dial: Arc<dyn Dial>,
        turnstile: Turnstile,
        tally: Arc<Mutex<Tally>>,
    ) -> Self {
        Share {
            clock,
            dial,
            requests,
            number: AtomicU64::new(thread as u64),
            number_step: plan.threads as u64,
            retries: plan.retries,
            jitter: Prng::new(plan.seed).fork("retries"),
            mode: plan.mode,
            keep_alive: plan.keep_alive,
            is_open_loop: plan.rate_per_s.is_some(),
            stamps: plan.stamps,
            request_timeout: plan.request_timeout,
            turnstile: Mutex::new(turnstile),
            tally,
            idle: Mutex::new(Vec::new()),
            idle_sockets: Mutex::new(Vec::new()),
            masks: Mutex::new(Prng::new(plan.seed).fork(&format!("masks {thread}"))),
        }
    }

    fn tally<T>(&self, count: impl FnOnce(&mut Tally) -> T) -> T {
        count(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of the next request, and when it should start.
    fn take(&self, now: Moment) -> Option<(u64, Moment)> {
        let due = self.turnstile.lock().unwrap_or_else(PoisonError::into_inner).take(now)?;
        Some((self.number.fetch_add(self.number_step, Ordering::Relaxed), due))
    }

    fn keep(&self, conn: ClientConn) {
        if self.keep_alive && conn.is_reusable() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        }
    }

    fn kept(&self) -> Option<ClientConn> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// Works until there is no further request. `from` is when it may begin.
pub(crate) async fn work(share: Arc<Share>, from: Moment) {
    let clock = share.clock;
    clock.sleep_until(from).await;
    let mut worker = Worker::new(&share);
    loop {
        let now = clock.now();
        let Some((number, due)) = share.take(now) else { return };
        if due > now {
            clock.sleep_until(due).await;
        }
        let sent_at = clock.now();
        let drawn = share.requests.draw(number);
        let class = drawn.class;
        share.tally(|t| t.started(class, sent_at.since(due)));
        // A connection that was free and waiting was woken by a timer of a millisecond's accuracy;
        // that lateness is ours and not the endpoint's.
        let start = if due > now { sent_at } else { due };
        let outcome = clock.by(sent_at + share.request_timeout, worker.ask(number, drawn, start)).await;
        let outcome = outcome.unwrap_or(Err(Failure::Timeout));
        let now = clock.now();
        share.tally(|t| t.ended(class, outcome.as_ref().copied(), now, now.since(start)));
        if outcome == Err(Failure::Connect) && !share.is_open_loop {
            clock.sleep_until(now + PAUSE_AFTER_CONNECT_FAILURE).await;
        }
    }
}

struct Worker<'a> {
    share: &'a Share,
    body: BytesMut,
    last: Message,
    /// What the head of the attempt under way said about another.
    advice: Advice,
    /// What the last answer said it used.
    output_tokens: u64,
}

/// The last good message. A target that answers everybody alike is not read anew each time: the
/// generator shares the machine with whom it measures.
#[derive(Default)]
struct Message {
    body: Vec<u8>,
    usage: Usage,
    stop_reason: Option<String>,
}

impl Message {
    fn read(body: &[u8]) -> Option<Self> {
        let message = RawObject::read(body).ok().filter(|m| m.get("type").map(|t| t.get()) == Some("\"message\""))?;
        let mut usage = Usage::default();
        if let Some(told) = message.get("usage") {
            usage.update(told.get());
        }
        Some(Message { body: body.to_vec(), usage, stop_reason: message.parse("stop_reason") })
    }
}

impl<'a> Worker<'a> {
    fn new(share: &'a Share) -> Self {
        let (body, last) = (BytesMut::new(), Message::default());
        Worker { share, body, last, advice: Advice::default(), output_tokens: 0 }
    }

    /// A request with all its attempts; the output tokens of a whole answer.
    async fn ask(&mut self, number: u64, drawn: Drawn, start: Moment) -> Result<u64, Failure> {
        let share = self.share;
        let mut retries = 0;
        loop {
            share.tally(|t| t.attempts += 1);
            self.advice = Advice::default();
            self.output_tokens = 0;
            let request = share.requests.attempt(&drawn);
            let Err(failure) = self.exchange(&request, drawn.class, start).await else { return Ok(self.output_tokens) };
            if retries == share.retries {
                return Err(failure);
            }
            let draw = share.jitter.fork(&format!("{number}/{retries}")).unit();
            let Some(wait) = retry::wait(&failure, &self.advice, retries, draw) else { return Err(failure) };
            retries += 1;
            share.clock.sleep_until(share.clock.now() + wait).await;
        }
    }

    async fn exchange(&mut self, request: &Request, class: usize, start: Moment) -> Result<(), Failure> {
        let share = self.share;
        if share.mode == Mode::Socket {
            return self.over_socket(request, class, start).await;
        }
        let mut conn = self.connection(request).await?;
        let broken = |e: ClientError| Failure::of(&e);
        let sent = conn.send(request.head(), request.body.clone(), || {}).await.map_err(broken)?;
        let head = conn.read_head(false, sent == SendEnd::Whole).await.map_err(broken)?;
        let now = share.clock.now();
        share.tally(|t| t.answered(head.status, now.since(start)));
        if share.retries > 0 {
            self.advice = Advice::of(&head, share.clock.wall_at(now));
        }
        match (head.status, share.mode) {
            (200, Mode::Sse) => self.read_stream(&mut conn, &head, class, start).await?,
            (200, _) => self.read_message(&mut conn).await?,
            (status, _) => {
                self.read_body(&mut conn).await?;
                let error = ErrorBody::read(&self.body);
                let kind = error.map_or_else(|| "-".to_owned(), |error| error.kind.into_owned());
                share.keep(conn);
                return Err(Failure::Http { status, kind });
            }
        }
        share.keep(conn);
        Ok(())
    }

    /// A kept connection that is still good, else a new one.
    async fn connection(&self, request: &Request) -> Result<ClientConn, Failure> {
        while let Some(mut conn) = self.share.kept() {
            if poll_fn(|cx| Poll::Ready(conn.is_quiet(cx))).await {
                return Ok(conn);
            }
        }
        let began = self.share.clock.now();
        let dialled = self.share.dial.dial(request.target()).await.map_err(|_| Failure::Connect)?;
        let took = self.share.clock.now().since(began);
        self.share.tally(|t| t.connected(took));
        Ok(ClientConn::new(dialled.io))
    }

    /// A kept socket that is still good, else a new one.
    async fn socket(&self, request: &Request) -> Result<SocketConn, Failure> {
        let share = self.share;
        loop {
            let kept = share.idle_sockets.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut kept) = kept else { break };
            if kept.is_good().await {
                return Ok(kept);
            }
        }
        let began = share.clock.now();
        let dialled = share.dial.dial(request.target()).await.map_err(|_| Failure::Connect)?;
        let masks = {
            let mut masks = share.masks.lock().unwrap_or_else(PoisonError::into_inner);
            let label = masks.next_u64();
            masks.fork(&label.to_string())
        };
        let opened = SocketConn::open(dialled.io, request, share.clock, masks).await?;
        let took = share.clock.now().since(began);
        share.tally(|t| t.connected(took));
        Ok(opened)
    }

    async fn over_socket(&mut self, request: &Request, class: usize, start: Moment) -> Result<(), Failure> {
        let share = self.share;
        let mut socket = self.socket(request).await?;
        socket.ask(request)?;
        let mut watch = StreamWatch::new();
        let ended = loop {
            let look = socket.look(&mut watch).await;
            let age = look.at.since(start);
            share.tally(|t| {
                if look.opened {
                    t.answered(200, age);
                }
                t.brought(class, &look.brought, age);
                if let Some(gap) = look.ping_gap {
                    t.ping_gap.record(gap);
                }
            });
            match look.ended {
                Some(_) if watch.is_rotten() => break Err(Failure::Malformed),
                Some(ended) => break ended,
                None => {}
            }
        };
        let tap = watch.tap();
        self.output_tokens = tap.usage.output;
        share.tally(|t| {
            t.said(&tap.usage, tap.stop_reason.as_deref());
            t.truncated_streams += u64::from(matches!(ended, Err(Failure::Reset | Failure::Truncated)));
        });
        ended?;
        if share.keep_alive {
            share.idle_sockets.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
        }
        Ok(())
    }

    async fn read_stream(
        &mut self,
        conn: &mut ClientConn,
        head: &ResponseHead,
        class: usize,
        start: Moment,
    ) -> Result<(), Failure> {
        let share = self.share;
        let kind = head.headers.get("content-type").unwrap_or_default();
        if !kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream")) {
            return Err(Failure::Malformed);
        }
        let mut watch = StreamWatch::new();
        let end = loop {
            let mut brought = Brought::default();
            let (mut read_at, mut wall) = (None, None);
            let read = poll_fn(|cx| {
                conn.poll_body(cx, &mut |piece| {
                    let now = *read_at.get_or_insert_with(|| share.clock.now());
                    if share.stamps {
                        wall.get_or_insert_with(|| share.clock.shared_wall());
                    }
                    watch.see(piece, now, wall, &mut brought);
                })
            })
            .await;
            if let Some(now) = read_at {
                share.tally(|t| {
                    t.brought(class, &brought, now.since(start));
                    watch.take_transits(|span| t.transit.record(span));
                });
            }
            match read {
                Ok(_) if watch.is_rotten() => return Err(Failure::Malformed),
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        let tap = watch.tap();
        self.output_tokens = tap.usage.output;
        share.tally(|t| t.said(&tap.usage, tap.stop_reason.as_deref()));
        if let Some(error) = &tap.error {
            return Err(Failure::Stream { kind: error.kind.to_string() });
        }
        let cut_by_peer = match &end {
            Ok(()) => !tap.stopped,
            Err(e) => matches!(e, ClientError::Io(_) | ClientError::Body(BodyError::Cut)),
        };
        share.tally(|t| t.truncated_streams += u64::from(cut_by_peer));
        match end {
            Ok(()) if tap.stopped => Ok(()),
            Ok(()) => Err(Failure::Truncated),
            Err(e) => Err(Failure::of(&e)),
        }
    }

    async fn read_message(&mut self, conn: &mut ClientConn) -> Result<(), Failure> {
        self.read_body(conn).await?;
        if self.body.is_empty() || self.last.body != self.body {
            self.last = Message::read(&self.body).ok_or(Failure::Malformed)?;
        }
        let Message { usage, stop_reason, .. } = &self.last;
        self.output_tokens = usage.output;
        self.share.tally(|t| t.said(usage, stop_reason.as_deref()));
        Ok(())
    }

    /// Reads the whole body into `self.body`.
    async fn read_body(&mut self, conn: &mut ClientConn) -> Result<(), Failure> {
        if self.body.capacity() > BUFFER_BYTES_KEPT {
            self.body = BytesMut::new();
        }
        self.body.clear();
        let read = conn.read_body(&mut self.body, ANSWER_BYTES_MAX).await;
        self.share.tally(|t| t.bytes += self.body.len() as u64);
        read.map_err(|e| Failure::of(&e))
    }
}
