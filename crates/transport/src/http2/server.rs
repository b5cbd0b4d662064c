//! The server's side: one object for the connection, one for each of its streams.
//!
//! ```text
//!   connection task ── next ──▶ a ServerStream, to a task of its own on the same thread
//!        ▲  reads and writes frames            │ read_head, read_body, respond, push, end, close
//!        └────────────── h2 ◀──────────────────┘
//! ```
//! A stream can be asked what an HTTP/1.1 connection can be asked, and the answers mean the same.
//! What is pushed stands in the stream until the client's window and a small send buffer take it,
//! so a client that does not read is seen by [`ServerStream::unwritten`] and
//! [`ServerStream::taken`]. A stream that is dropped before its end is reset; one that has
//! answered and left the request's body unread tells the client to stop sending (RFC 9113 section
//! 8.1), and the connection stays good for its others.
//!
//! Limits: streams of a connection by [`ServerRules`]; unread bytes by the windows below. The
//! guards of h2 against rapid resets, floods of empty frames and endless heads are left on.

use crate::clock::Clock;
use crate::http1::HeadEnd;
use crate::io::BoxIo;
use bytes::{Buf, Bytes, BytesMut};
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_wire::http::{HEAD_BYTES_MAX, HeadError, HeadWriter, RequestHead, http2};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Sleep;

/// What a stream's client may send ahead: 10 MB/s over a line of 100 ms, far more on a near one.
const STREAM_WINDOW: u32 = 1 << 20;
/// What all streams of a connection may send ahead together: what one client can make us hold
/// before any of it is counted against a budget. Four uploads at their full speed.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// What a stream hands over before it is written: two frames, so that one is ready while one goes
/// out; more would only hide from a stream that its client does not read.
const SEND_BUFFER: usize = 32 * 1024;
/// Past twice what we accept as a head, h2 refuses it itself, without an envelope.
const HEAD_LIST_MAX: u32 = 2 * HEAD_BYTES_MAX as u32;
/// An output buffer larger than this is given away, not copied from and kept.
const OUT_BYTES_KEPT: usize = 4 * 1024;
/// After a shut-down, how long a connection without streams waits for its client's goodbye: one
/// round trip, and room.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// What is thrown away of a body that nobody reads ends with the window it was granted, or with such
/// a silence.
const LINGER_SILENCE_MAX: Duration = Duration::from_secs(1);
/// The longest a stream may take to close, as in HTTP/1.1.
const LINGER_MAX: Duration = Duration::from_secs(10);

/// What a connection runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerRules {
    /// Streams open at once.
    pub streams: u32,
    /// A connection without streams is kept so long.
    pub idle: Duration,
}

/// What [`ServerConnection::next`] saw.
pub enum Next {
    /// A request.
    Stream(Box<ServerStream>),
    /// There were no streams for as long as the rules allow; a shut-down has begun.
    Idle,
    /// The connection is over.
    Closed,
}

/// One accepted connection. Its frames move only while [`ServerConnection::next`] is awaited.
pub struct ServerConnection {
    conn: Connection<Rewound, Bytes>,
    clock: Clock,
    rules: ServerRules,
    timer: Pin<Box<Sleep>>,
    armed: Moment,
    quiet_since: Option<Moment>,
    closing: bool,
    closed: Arc<Notify>,
}

impl ServerConnection {
    /// Begins a connection on `io`, from which `read` was read already.
    pub async fn handshake(io: BoxIo, read: BytesMut, clock: Clock, rules: ServerRules) -> io::Result<Self> {
        let conn = h2::server::Builder::new()
            .max_concurrent_streams(rules.streams)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEAD_LIST_MAX)
            .handshake(Rewound { io, read })
            .await
            .map_err(io_error)?;
        let now = clock.now();
        let timer = Box::pin(clock.sleep_until(now));
        let closed = Arc::new(Notify::new());
        Ok(ServerConnection { conn, clock, rules, timer, armed: now, quiet_since: None, closing: false, closed })
    }

    /// The next thing that happens. Cancel-safe.
    pub async fn next(&mut self) -> Next {
        let closed = Arc::clone(&self.closed);
        tokio::select! {
            biased;
            next = poll_fn(|cx| self.poll_next(cx)) => next,
            () = closed.notified() => Next::Closed,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        match self.conn.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => {
                self.quiet_since = None;
                let stream = ServerStream::new(request, respond, Arc::clone(&self.closed));
                return Poll::Ready(Next::Stream(Box::new(stream)));
            }
            Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Next::Closed),
            Poll::Pending => {}
        }
        if self.conn.has_streams() {
            self.quiet_since = None;
            return Poll::Pending;
        }
        let since = *self.quiet_since.get_or_insert_with(|| self.clock.now());
        let due = since + if self.closing { GOODBYE_MAX } else { self.rules.idle };
        if due != self.armed {
            self.clock.reset(self.timer.as_mut(), due);
            self.armed = due;
        }
        ready!(self.timer.as_mut().poll(cx));
        if self.closing {
            return Poll::Ready(Next::Closed);
        }
        self.shut_down();
        Poll::Ready(Next::Idle)
    }

    /// Tells the client that no more requests are taken (GOAWAY). Those under way go on; with the
    /// last of them the connection closes.
    pub fn shut_down(&mut self) {
        if !std::mem::replace(&mut self.closing, true) {
            self.conn.graceful_shutdown();
            self.quiet_since = None;
        }
    }

    /// Ends the connection and all its streams with an error (GOAWAY, INTERNAL_ERROR): what a fault
    /// script wants.
    pub fn fail(&mut self) {
        self.closing = true;
        self.conn.abrupt_shutdown(Reason::INTERNAL_ERROR);
    }
}

/// How far the answer is.
enum Answer {
    /// Nothing was handed over yet; the head, once there is one, goes with the first piece.
    Head(SendResponse<Bytes>, Option<Response<()>>),
    Body(SendStream<Bytes>),
    /// Its end was handed over. The stream is kept to hear of a reset, and to send one.
    Ended(SendStream<Bytes>),
    /// The connection failed under it.
    Lost,
}

/// One request and its answer.
pub struct ServerStream {
    head: Option<Result<RequestHead, HeadError>>,
    body: RecvStream,
    body_ended: bool,
    answer: Answer,
    out: BytesMut,
    /// The answer to `HEAD`, a 204 and a 304 have no body, whatever is pushed; clients reset a stream
    /// that has one.
    bodiless: bool,
    /// What the declared length still lacks.
    missing: Option<u64>,
    ended: bool,
    taken: u64,
    connection: Arc<Notify>,
}

impl ServerStream {
    fn new(request: Request<RecvStream>, respond: SendResponse<Bytes>, connection: Arc<Notify>) -> Self {
        let (parts, body) = request.into_parts();
        let body_ended = body.is_end_stream();
        ServerStream {
            head: Some(http2::request_head(&parts, body_ended)),
            body,
            body_ended,
            answer: Answer::Head(respond, None),
            out: BytesMut::new(),
            bodiless: parts.method == Method::HEAD,
            missing: None,
            ended: false,
            taken: 0,
            connection,
        }
    }

    /// Whether there is a request that [`ServerStream::read_head`] has not given out.
    pub fn has_head(&self) -> bool {
        self.head.is_some()
    }

    /// The request's head, once.
    pub fn read_head(&mut self) -> Result<RequestHead, HeadEnd> {
        self.head.take().ok_or(HeadEnd::Closed)?.map_err(HeadEnd::Bad)
    }

    /// Appends the next piece of the body to `into`: its length, or 0 once the body has ended.
    pub async fn read_body(&mut self, into: &mut BytesMut) -> Result<usize, HeadEnd> {
        while !self.body_ended {
            match self.body.data().await {
                Some(Ok(data)) => {
                    into.extend_from_slice(&data);
                    self.body_ended = self.body.is_end_stream();
                    // Fails only where the stream has ended already.
                    let _ = self.body.flow_control().release_capacity(data.len());
                    if !data.is_empty() {
                        return Ok(data.len());
                    }
                }
                Some(Err(e)) => return Err(HeadEnd::Io(io_error(e))),
                None => self.body_ended = true,
            }
        }
        Ok(0)
    }

    /// Whether the request's body has been read to its end.
    pub fn body_read(&self) -> bool {
        self.body_ended
    }

    /// Ready once the client has reset the stream or the connection is gone.
    pub fn poll_departed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.answer {
            Answer::Head(respond, _) => respond.poll_reset(cx),
            Answer::Body(send) | Answer::Ended(send) => send.poll_reset(cx),
            Answer::Lost => return Poll::Ready(()),
        };
        reset.map(drop)
    }

    /// Begins an answer whose body is `length` bytes, or of unknown length if `None`; `lines` adds
    /// its header lines. The answer ends by itself with the last byte of a known length.
    pub fn respond(&mut self, status: u16, length: Option<u64>, lines: impl FnOnce(&mut HeadWriter<'_>)) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut head = HeadWriter::fields(response.headers_mut());
        lines(&mut head);
        let bare = matches!(status, 204 | 304);
        if let Some(n) = length.filter(|_| !bare) {
            head.number("content-length", n);
        }
        self.bodiless |= bare;
        let length = if bare { Some(0) } else { length };
        self.missing = length;
        self.ended = length == Some(0);
        if let Answer::Head(_, waits) = &mut self.answer {
            *waits = Some(response);
        }
    }

    /// Appends a piece of the answer's body; to `HEAD`, with 204 and with 304, leaves it away.
    pub fn push(&mut self, data: &[u8]) {
        if !self.bodiless {
            self.out.extend_from_slice(data);
        }
        if let Some(missing) = &mut self.missing {
            *missing = missing.saturating_sub(data.len() as u64);
            self.ended |= *missing == 0;
        }
    }

    /// Ends the answer's body.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Bytes that wait for the client's window; a head or an end that waits counts as one.
    pub fn unwritten(&self) -> usize {
        let waits = match &self.answer {
            Answer::Head(_, head) => head.is_some(),
            Answer::Body(_) => self.ended,
            Answer::Ended(_) | Answer::Lost => false,
        };
        self.out.len().max(usize::from(waits))
    }

    /// Bytes of the body that were handed over since the stream began; standing still means the
    /// client does not read.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Hands over what the client's window has room for; ready when that is all there is.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.poll_hand_over(cx);
        if let Poll::Ready(Err(_)) = polled {
            self.answer = Answer::Lost;
        }
        polled
    }

    fn poll_hand_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Answer::Head(respond, head) = &mut self.answer {
            let Some(head) = head.take() else { return Poll::Ready(Ok(())) };
            let bare = self.ended && self.out.is_empty();
            let send = respond.send_response(head, bare).map_err(io_error)?;
            self.answer = if bare { Answer::Ended(send) } else { Answer::Body(send) };
        }
        let Answer::Body(send) = &mut self.answer else {
            return Poll::Ready(if self.out.is_empty() { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) });
        };
        while !self.out.is_empty() {
            let mut room = send.capacity();
            if room == 0 {
                send.reserve_capacity(self.out.len());
                let assigned = ready!(send.poll_capacity(cx)).ok_or(io::ErrorKind::BrokenPipe)?;
                room = assigned.map_err(io_error)?;
            }
            let n = room.min(self.out.len());
            let data = handed(&mut self.out, n);
            send.send_data(data, self.ended && self.out.is_empty()).map_err(io_error)?;
            self.taken += n as u64;
            if self.ended && self.out.is_empty() {
                return Poll::Ready(self.finished());
            }
        }
        if self.ended {
            send.send_data(Bytes::new(), true).map_err(io_error)?;
            return Poll::Ready(self.finished());
        }
        Poll::Ready(Ok(()))
    }

    /// The end was handed over.
    fn finished(&mut self) -> io::Result<()> {
        if let Answer::Body(send) = std::mem::replace(&mut self.answer, Answer::Lost) {
            self.answer = Answer::Ended(send);
        }
        Ok(())
    }

    /// Hands over all there is.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Ends the stream once the client's window has taken the answer, or has not for too long. What
    /// is still coming of the request is thrown away for a moment: some clients mistake the word to
    /// stop sending for a failure, and need not hear it if their body ends anyway.
    pub async fn close(mut self, clock: Clock) {
        self.ended = true;
        let _ = clock.within(LINGER_MAX, self.linger(clock)).await;
    }

    async fn linger(&mut self, clock: Clock) {
        poll_fn(|cx| match self.poll_departed(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.poll_flush(cx).map(drop),
        })
        .await;
        let mut coming = STREAM_WINDOW as usize;
        while !self.body_ended && coming > 0 {
            match clock.within(LINGER_SILENCE_MAX, self.body.data()).await {
                // The window is not opened again, so a large upload comes to a stop.
                Some(Some(Ok(data))) => coming = coming.saturating_sub(data.len()),
                _ => return,
            }
            self.body_ended = self.body.is_end_stream();
        }
    }

    /// Breaks the stream off with a reset; the connection's others go on.
    pub fn abort(mut self) {
        match &mut self.answer {
            Answer::Head(respond, _) => respond.send_reset(Reason::INTERNAL_ERROR),
            Answer::Body(send) | Answer::Ended(send) => send.send_reset(Reason::INTERNAL_ERROR),
            Answer::Lost => {}
        }
    }

    /// Closes the connection under this stream and its neighbours, without a goodbye: what a fault
    /// script wants. What was handed over before goes out first.
    pub async fn close_connection(mut self) {
        self.connection.notify_one();
        // Dropped before the connection, it would be reset by a frame of its own.
        if !matches!(self.answer, Answer::Ended(_)) {
            poll_fn(|cx| self.poll_departed(cx)).await;
        }
    }
}

/// Takes the first `n` bytes of `out`: a small piece is copied and its buffer kept, a large one
/// given away.
fn handed(out: &mut BytesMut, n: usize) -> Bytes {
    if out.capacity() > OUT_BYTES_KEPT {
        return if n == out.len() { std::mem::take(out).freeze() } else { out.split_to(n).freeze() };
    }
    let data = Bytes::copy_from_slice(&out[..n]);
    if n == out.len() {
        out.clear();
    } else {
        out.advance(n);
    }
    data
}

fn io_error(error: h2::Error) -> io::Error {
    if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    } else {
        io::Error::other(error)
    }
}

/// A connection from which something was read already, which comes first.
struct Rewound {
    io: BoxIo,
    read: BytesMut,
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let n = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read.split_to(n));
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
