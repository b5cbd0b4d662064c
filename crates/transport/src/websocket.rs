//! A WebSocket on a connection, for either role: bytes moved, pings answered and sent, closes agreed.
//!
//! ```text
//!   open ──close (ours)──▶ closing ──theirs, or 5 s──▶ over
//!     └───close (theirs): echoed, flushed ───────────▶ over
//!     └───three pings due and two unanswered, a broken rule, a cut ─▶ over
//! ```
//! Whoever owns it polls it: [`Socket::poll`] reads what came, shows messages, writes what is there,
//! and sees to its own clocks. No task and no timer stand behind it but one sleep for all of them.
//! A silent socket holds no buffer.
//!
//! Limits: what may come, by [`SocketRules::read`]; what is written and not taken is the owner's to
//! bound, by [`Socket::unwritten`]. Pongs are the exception: past [`PONGS_BYTES_MAX`] unwritten bytes
//! a ping is left unanswered, so a peer that pings and does not read fills nothing.

mod opening;

pub use opening::{OpenError, Opening, open};

use crate::clock::Clock;
use crate::io::{BoxIo, poll_read_once, poll_write_all};
use crate::scratch::with_scratch;
use bytes::BytesMut;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_wire::websocket::{
    Beat, CloseCode, Event, Heartbeat, MessageReader, Opcode, ReadRules, Role, Violation, write_close, write_frame,
};
use tokio::io::AsyncWrite;
use tokio::time::Sleep;

/// Reads in a row before whoever shares the thread gets its turn.
const READS_IN_A_ROW: usize = 16;
/// Unwritten bytes past which pings are not answered.
const PONGS_BYTES_MAX: usize = 64 * 1024;
/// An output buffer larger than this is given away when it is empty.
const OUT_BYTES_KEPT: usize = 4 * 1024;
/// What a closed connection may still send while it is let go, in time and bytes.
const LINGER_MAX: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// What a socket runs under.
#[derive(Clone, Copy, Debug)]
pub struct SocketRules {
    /// Its role, and what may come.
    pub read: ReadRules,
    /// Between two pings of ours.
    pub ping: Duration,
    /// From our close to the peer's.
    pub close: Duration,
}

/// A message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Of text.
    Text(&'a str),
    /// Of bytes.
    Binary(&'a [u8]),
}

/// How a socket ended.
#[derive(Debug)]
pub enum Over {
    /// The peer closed, with this code if it gave one; or agreed to our close.
    Closed(Option<CloseCode>),
    /// The peer broke the rules; it was told.
    Violation(Violation),
    /// The connection ended without a close.
    Cut,
    /// The peer gave no sign of life, or did not agree to our close in time.
    Dead,
    /// The connection broke.
    Broken(io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Our close was written.
    Closing {
        since: Moment,
    },
    /// Both sides have closed; what is written still goes out.
    Closed {
        code: Option<CloseCode>,
    },
    /// The peer broke the rules; the close that says so goes out.
    Failed(Violation),
}

/// One end of a WebSocket.
pub struct Socket {
    io: BoxIo,
    clock: Clock,
    rules: SocketRules,
    reader: MessageReader,
    /// What came together with the handshake.
    early: BytesMut,
    out: BytesMut,
    written: usize,
    taken: u64,
    /// Where masks come from; a server sends none.
    masks: Option<Prng>,
    state: State,
    /// A broken rule behind messages that were just shown: their owner may answer them first.
    broken: Option<Violation>,
    /// Whether this poll has shown a message.
    shown: bool,
    heartbeat: Heartbeat,
    /// After both closes, or a broken rule: until when it is tried to get the last bytes out.
    flushed_by: Moment,
    timer: Option<Pin<Box<Sleep>>>,
    armed: Moment,
    /// The latest a ping went out after it was due.
    late_max: Duration,
    /// When the peer's last ping came.
    pinged: Option<Moment>,
}

impl Socket {
    /// A socket on `io`, from which `early` was read behind the handshake. From `prng` come a client's
    /// masks, which nobody may foresee, and the moment of a server's first ping.
    pub fn new(io: BoxIo, early: BytesMut, rules: SocketRules, clock: Clock, prng: Prng) -> Self {
        let now = clock.now();
        let mut prng = prng;
        // Sockets that were opened together do not ping together: a server has thousands. Nor at once: one
        // that lives for seconds shows by what it says that it does.
        let part = if rules.read.role == Role::Server { 500 + prng.below(500) as u32 + 1 } else { 1000 };
        Socket {
            io,
            clock,
            rules,
            reader: MessageReader::new(rules.read),
            early,
            out: BytesMut::new(),
            written: 0,
            taken: 0,
            masks: (rules.read.role == Role::Client).then_some(prng),
            state: State::Open,
            broken: None,
            shown: false,
            heartbeat: Heartbeat::new(now + rules.ping / 1000 * part, rules.ping),
            flushed_by: Moment::NEVER,
            timer: None,
            armed: Moment::ZERO,
            late_max: Duration::ZERO,
            pinged: None,
        }
    }

    /// Whether messages can be sent.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// A mask for the next frame.
    pub fn mask(&mut self) -> Option<[u8; 4]> {
        self.masks.as_mut().map(|prng| (prng.next_u64() as u32).to_ne_bytes())
    }

    /// Where whole frames are appended by whoever writes their heads; nothing goes out after a close.
    pub fn out(&mut self) -> &mut BytesMut {
        debug_assert!(self.is_open(), "nothing is said after a close");
        &mut self.out
    }

    /// Sends a message of text.
    pub fn send(&mut self, text: &[u8]) {
        self.write(Opcode::Text, text);
    }

    /// Sends a message of bytes.
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.write(Opcode::Binary, bytes);
    }

    fn write(&mut self, opcode: Opcode, payload: &[u8]) {
        if self.is_open() {
            let mask = self.mask();
            write_frame(&mut self.out, opcode, true, mask, payload);
        }
    }

    /// Closes it: what was sent before goes out before that.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        if self.is_open() {
            let mask = self.mask();
            write_close(&mut self.out, Some((code, reason)), mask);
            self.state = State::Closing { since: self.clock.now() };
        }
    }

    /// Bytes that wait to be taken by the transport.
    pub fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    /// Bytes taken so far; standing still means the peer does not read.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes held of messages that are not whole.
    pub fn held(&self) -> usize {
        self.reader.held()
    }

    /// How late a ping has been at most.
    pub fn late_max(&self) -> Duration {
        self.late_max
    }

    /// When the peer's last ping came, if one did.
    pub fn pinged(&self) -> Option<Moment> {
        self.pinged
    }

    /// Moves what can be moved. Messages are shown to `take`; with `reads` false nothing is read, and
    /// the peer is held up. The task is woken at `also` at the latest. Ready when it is over.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reads: bool,
        also: Moment,
        take: &mut dyn FnMut(Message<'_>),
    ) -> Poll<Over> {
        let now = self.clock.now();
        self.shown = false;
        if reads && let Poll::Ready(over) = self.poll_read(cx, now, take) {
            return Poll::Ready(over);
        }
        if let Poll::Ready(over) = self.poll_clocks(now) {
            return Poll::Ready(over);
        }
        if let Poll::Ready(Err(e)) = self.poll_write(cx) {
            return Poll::Ready(Over::Broken(e));
        }
        match self.state {
            State::Closed { code } if self.unwritten() == 0 => return Poll::Ready(Over::Closed(code)),
            State::Failed(violation) if self.unwritten() == 0 => return Poll::Ready(Over::Violation(violation)),
            _ => {}
        }
        self.wake_by(cx, now, self.due().min(also));
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, now: Moment, take: &mut dyn FnMut(Message<'_>)) -> Poll<Over> {
        if let Some(violation) = self.broken.take() {
            self.violated(violation, now);
            return Poll::Pending;
        }
        if !self.early.is_empty() {
            let mut early = std::mem::take(&mut self.early);
            self.take_in(&mut early, now, take);
        }
        for _ in 0..READS_IN_A_ROW {
            if self.broken.is_some() {
                break;
            }
            if matches!(self.state, State::Closed { .. } | State::Failed(_)) {
                return Poll::Pending;
            }
            let read = with_scratch(|scratch| match poll_read_once(&mut self.io, cx, scratch) {
                Poll::Ready(Ok(n)) => {
                    self.take_in(&mut scratch[..n], now, take);
                    Poll::Ready(Ok(n))
                }
                other => other,
            });
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(Over::Cut),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Over::Broken(e)),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take_in(&mut self, mut bytes: &mut [u8], now: Moment, take: &mut dyn FnMut(Message<'_>)) {
        // Any byte is a sign of life: a pong cannot stand in the middle of a large frame.
        self.heartbeat.heard();
        while !bytes.is_empty() && !matches!(self.state, State::Closed { .. } | State::Failed(_)) {
            let mut reader = std::mem::replace(&mut self.reader, MessageReader::new(self.rules.read));
            let step = reader.step(bytes);
            let used = match step {
                Ok(step) => {
                    if let Some(event) = step.event {
                        self.shown |= matches!(event, Event::Text(_) | Event::Binary(_));
                        self.heard(event, take);
                    }
                    step.used
                }
                Err(violation) => {
                    if self.shown && self.is_open() {
                        self.broken = Some(violation);
                    } else {
                        self.violated(violation, now);
                    }
                    bytes.len()
                }
            };
            self.reader = reader;
            bytes = &mut bytes[used..];
        }
    }

    fn heard(&mut self, event: Event<'_>, take: &mut dyn FnMut(Message<'_>)) {
        match event {
            // After our close nothing more is answered.
            Event::Text(_) | Event::Binary(_) | Event::Ping(_) if !self.is_open() => {}
            Event::Text(text) => take(Message::Text(&text)),
            Event::Binary(bytes) => take(Message::Binary(&bytes)),
            Event::Ping(bytes) => {
                self.pinged = Some(self.clock.now());
                if self.unwritten() <= PONGS_BYTES_MAX {
                    self.write(Opcode::Pong, &bytes);
                }
            }
            Event::Pong(_) => {}
            Event::Close(why) => {
                let code = why.map(|(code, _)| code);
                if self.is_open() {
                    let mask = self.mask();
                    write_close(&mut self.out, code.map(|code| (code, "")), mask);
                }
                self.state = State::Closed { code };
                self.flushed_by = self.clock.now() + self.rules.close;
            }
        }
    }

    fn violated(&mut self, violation: Violation, now: Moment) {
        if self.is_open() {
            self.close(violation.close_code(), &violation.to_string());
        }
        self.state = State::Failed(violation);
        // What is left to do is to say so; it is not waited for longer than for a close.
        self.flushed_by = now + self.rules.close;
    }

    fn due(&self) -> Moment {
        match self.state {
            State::Open => self.heartbeat.due(),
            State::Failed(_) | State::Closed { .. } => self.flushed_by,
            State::Closing { since } => since + self.rules.close,
        }
    }

    fn poll_clocks(&mut self, now: Moment) -> Poll<Over> {
        match self.state {
            State::Closing { since } if now >= since + self.rules.close => Poll::Ready(Over::Dead),
            State::Open => {
                let late = now.since(self.heartbeat.due());
                match self.heartbeat.beat(now) {
                    Beat::Dead => return Poll::Ready(Over::Dead),
                    Beat::Rest => {}
                    Beat::Ping => {
                        self.late_max = self.late_max.max(late);
                        self.write(Opcode::Ping, b"");
                    }
                }
                Poll::Pending
            }
            State::Failed(violation) if now >= self.flushed_by => Poll::Ready(Over::Violation(violation)),
            State::Closed { code } if now >= self.flushed_by => Poll::Ready(Over::Closed(code)),
            _ => Poll::Pending,
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let before = self.written;
        let polled = poll_write_all(&mut self.io, cx, &self.out, &mut self.written);
        self.taken += (self.written - before) as u64;
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
            if self.out.capacity() > OUT_BYTES_KEPT {
                self.out = BytesMut::new();
            }
        }
        polled
    }

    fn wake_by(&mut self, cx: &mut Context<'_>, now: Moment, due: Moment) {
        let clock = self.clock;
        let timer = self.timer.get_or_insert_with(|| {
            self.armed = due;
            Box::pin(clock.sleep_until(due))
        });
        while self.armed > due || timer.as_mut().poll(cx).is_ready() {
            self.armed = due.max(now + Duration::from_millis(1));
            clock.reset(timer.as_mut(), self.armed);
            if timer.as_mut().poll(cx).is_pending() {
                break;
            }
        }
    }

    /// Lets the connection go after [`Socket::poll`] was ready: what the peer has not read of our
    /// close can still reach it. A server goes first, so a client's port is free at once (RFC 6455
    /// section 7.1.1).
    pub async fn end(mut self, over: &Over) {
        if matches!(over, Over::Dead | Over::Broken(_)) {
            self.io.reset_on_drop();
            return;
        }
        let clock = self.clock;
        let quietly = async {
            poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await?;
            let mut left = LINGER_BYTES_MAX;
            while left > 0 {
                let n = poll_fn(|cx| with_scratch(|s| poll_read_once(&mut self.io, cx, s))).await?;
                if n == 0 {
                    break;
                }
                left = left.saturating_sub(n);
            }
            io::Result::Ok(())
        };
        // One that does not leave is left.
        let _ = clock.within(LINGER_MAX, quietly).await;
    }
}
