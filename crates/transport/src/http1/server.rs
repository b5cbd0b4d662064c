//! The server's side of one connection.
//!
//! ```text
//!   wait_byte ─▶ read_head ─▶ read_body* ─▶ respond ─▶ body* ─▶ finish ─┐
//!       ▲                                                              │ keep alive
//!       └──────────────────────────────────────────────────────────────┘
//! ```
//! Between the head and the end of the answer, [`ServerConn::poll_departed`] watches for the
//! client leaving. Bytes that arrive early (pipelining) are kept up to a limit, past which the
//! socket is simply not read.

use super::{forget, keep};
use crate::clock::Clock;
use crate::io::{BoxIo, poll_read_once, poll_write_all};
use crate::scratch::with_scratch;
use bytes::BytesMut;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tidegate_wire::http::{
    BodyDecoder, BodyError, BodyStep, Framing, HeadError, HeadWriter, RequestHead, Version, chunk_end, chunk_start,
    last_chunk, parse_request,
};
use tokio::io::AsyncWrite;

/// Bytes of a next request that are kept while an answer is under way.
const PIPELINED_BYTES_MAX: usize = 64 * 1024;
/// An output buffer larger than this is given back once it is empty.
const OUT_BYTES_KEPT: usize = 1024;
/// The head of a chunk whose length is not known yet, and the most bytes one may have, that head
/// included: four digits are enough for what leaves in one write.
const OPEN_CHUNK: &[u8] = b"0000\r\n";
const OPEN_CHUNK_MAX: usize = 0xffff;
/// What is read and thrown away from a client that was refused in mid-upload. Most clients look for
/// an answer only once they have sent everything, and a reset would take it from them: so about
/// twice the largest body the API takes, for as long as bytes keep coming, within bounds.
const LINGER_BYTES_MAX: usize = 64 << 20;
const LINGER_SILENCE_MAX: Duration = Duration::from_secs(1);
const LINGER_MAX: Duration = Duration::from_secs(10);

/// Why there is no (further) request or body.
#[derive(Debug)]
pub enum HeadEnd {
    /// The client closed; between requests that is how it should be.
    Closed,
    /// What came is not HTTP/1.1 as we accept it.
    Bad(HeadError),
    /// The body is not what its framing says; where it would end is not known.
    Body(BodyError),
    /// The transport failed.
    Io(io::Error),
    /// The client opens the connection with HTTP/2's preface: see [`ServerConn::into_parts`].
    Http2,
}

/// How the answer's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    None,
    /// It has none: what is pushed is left out, or the client would take it for its next answer.
    Bodiless,
    Length,
    Chunked,
    UntilClose,
}

/// One accepted connection.
pub struct ServerConn {
    io: BoxIo,
    read: BytesMut,
    out: BytesMut,
    written: usize,
    /// Where in `out` the chunk begins that is still being added to.
    open_chunk: Option<usize>,
    taken: u64,
    ended: bool,
    body: BodyDecoder,
    answer: Answer,
    /// The request was `HEAD`: nobody reads a body of its answer.
    to_head: bool,
    peer_is_10: bool,
    /// No request came yet, so the first bytes may be HTTP/2's preface.
    fresh: bool,
}

/// How an HTTP/2 connection begins (RFC 9113 section 3.4): no request of HTTP/1.1 does.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl ServerConn {
    /// A connection nothing was read from yet.
    pub fn new(io: BoxIo) -> Self {
        ServerConn {
            io,
            read: BytesMut::new(),
            out: BytesMut::new(),
            written: 0,
            open_chunk: None,
            taken: 0,
            ended: false,
            body: BodyDecoder::new(Framing::Empty),
            answer: Answer::None,
            to_head: false,
            peer_is_10: false,
            fresh: true,
        }
    }

    /// The connection and what was read from it, for whoever speaks another protocol there.
    pub fn into_parts(self) -> (BoxIo, BytesMut) {
        (self.io, self.read)
    }

    /// Reads once; the number of bytes added to `self.read`, 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let n = ready!(with_scratch(|scratch| {
            let n = ready!(poll_read_once(&mut self.io, cx, scratch))?;
            keep(&mut self.read, &scratch[..n]);
            Poll::Ready(io::Result::Ok(n))
        }))?;
        self.ended = n == 0;
        Poll::Ready(Ok(n))
    }

    /// Waits for the first byte of the next request; false if the client closed instead.
    pub async fn wait_byte(&mut self) -> io::Result<bool> {
        while self.read.is_empty() {
            if poll_fn(|cx| self.poll_fill(cx)).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether what was read so far is HTTP/2's preface, or could become it.
    fn may_be_http2(&self) -> bool {
        let n = self.read.len().min(HTTP2_PREFACE.len());
        self.fresh && n > 0 && self.read[..n] == HTTP2_PREFACE[..n]
    }

    /// Reads a request's head and prepares for its body.
    pub async fn read_head(&mut self) -> Result<RequestHead, HeadEnd> {
        self.to_head = false;
        loop {
            if self.may_be_http2() {
                if self.read.len() >= HTTP2_PREFACE.len() {
                    return Err(HeadEnd::Http2);
                }
            } else if let Some(head) = parse_request(&mut self.read).map_err(HeadEnd::Bad)? {
                self.fresh = false;
                self.body = BodyDecoder::new(head.framing);
                self.answer = Answer::None;
                self.to_head = head.method() == "HEAD";
                self.peer_is_10 = head.version == Version::Http10;
                return Ok(head);
            }
            match poll_fn(|cx| self.poll_fill(cx)).await {
                Ok(0) => return Err(HeadEnd::Closed),
                Ok(_) => {}
                Err(e) => return Err(HeadEnd::Io(e)),
            }
        }
    }

    /// Tells a client that waits for it to send its body (`expect: 100-continue`).
    pub async fn send_continue(&mut self) -> io::Result<()> {
        self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        self.flush().await
    }

    /// Appends the next piece of the body to `into`: its length, or 0 once the body has ended.
    pub async fn read_body(&mut self, into: &mut BytesMut) -> Result<usize, HeadEnd> {
        let cut = || HeadEnd::Io(io::Error::new(io::ErrorKind::UnexpectedEof, BodyError::Cut));
        loop {
            match self.body.step(&self.read).map_err(HeadEnd::Body)? {
                BodyStep::Data(range) => {
                    into.extend_from_slice(&self.read[range.clone()]);
                    forget(&mut self.read, range.end);
                    return Ok(range.len());
                }
                BodyStep::End(n) => {
                    forget(&mut self.read, n);
                    return Ok(0);
                }
                BodyStep::More => self.read = BytesMut::new(),
            }
            match poll_fn(|cx| self.poll_fill(cx)).await {
                Ok(0) => return Err(cut()),
                Ok(_) => {}
                Err(e) => return Err(HeadEnd::Io(e)),
            }
        }
    }

    /// Whether the request's body has been read to its end.
    pub fn body_read(&self) -> bool {
        self.body.is_done()
    }

    /// Ready once the client has closed or the connection failed. Keeps what a pipelining client
    /// sends, up to a limit.
    pub fn poll_departed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.read.len() >= PIPELINED_BYTES_MAX {
                return Poll::Pending;
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Begins an answer whose body is `length` bytes, or of unknown length if `None`; `lines` adds
    /// its header lines. Framing and connection lines are written here and only here. To `HEAD`, and
    /// with status 204 or 304, there is no body whatever is pushed.
    pub fn respond(&mut self, status: u16, length: Option<u64>, close: bool, lines: impl FnOnce(&mut HeadWriter<'_>)) {
        let mut head = HeadWriter::response(&mut self.out, status);
        lines(&mut head);
        let bodiless = self.to_head || matches!(status, 204 | 304);
        self.answer = match length {
            length if bodiless => {
                // What a GET would bring may be told; of a 204 there is nothing to be told.
                if let Some(n) = length.filter(|_| self.to_head && !matches!(status, 204 | 304)) {
                    head.number("content-length", n);
                }
                Answer::Bodiless
            }
            Some(n) => {
                head.number("content-length", n);
                Answer::Length
            }
            None if self.peer_is_10 => Answer::UntilClose,
            None => {
                head.header("transfer-encoding", b"chunked");
                Answer::Chunked
            }
        };
        if close || self.answer == Answer::UntilClose {
            head.header("connection", b"close");
        } else if self.peer_is_10 {
            head.header("connection", b"keep-alive");
        }
        head.end();
    }

    /// Appends a piece of the answer's body. Pieces that leave together leave in one chunk.
    pub fn push(&mut self, data: &[u8]) {
        if self.answer == Answer::Bodiless {
            return;
        }
        if self.answer == Answer::Chunked && !data.is_empty() {
            let room = self.open_chunk.map_or(0, |at| OPEN_CHUNK_MAX.saturating_sub(self.out.len() - at));
            if data.len() > room {
                self.close_chunk();
                if data.len() > OPEN_CHUNK_MAX {
                    chunk_start(&mut self.out, data.len());
                    self.out.extend_from_slice(data);
                    chunk_end(&mut self.out);
                    return;
                }
                self.open_chunk = Some(self.out.len());
                self.out.extend_from_slice(OPEN_CHUNK);
            }
        }
        self.out.extend_from_slice(data);
    }

    /// Writes the open chunk's length into its place.
    fn close_chunk(&mut self) {
        let Some(at) = self.open_chunk.take() else { return };
        let len = self.out.len() - at - OPEN_CHUNK.len();
        for (nth, digit) in self.out[at..at + OPEN_CHUNK.len() - 2].iter_mut().rev().enumerate() {
            *digit = b"0123456789abcdef"[len >> (4 * nth) & 15];
        }
        chunk_end(&mut self.out);
    }

    /// Ends the answer's body. False if only closing the connection tells the client so.
    pub fn end(&mut self) -> bool {
        self.close_chunk();
        if self.answer == Answer::Chunked {
            last_chunk(&mut self.out);
        }
        self.answer != Answer::UntilClose
    }

    /// Whether closing before the body's end tells the client that it is not whole.
    pub fn close_breaks_off(&self) -> bool {
        self.answer != Answer::UntilClose
    }

    /// Puts bytes out that are no message of ours: what a fault script wants on the wire.
    pub fn push_raw(&mut self, bytes: &[u8]) {
        self.close_chunk();
        self.out.extend_from_slice(bytes);
    }

    /// Bytes that wait to be taken by the transport; what it has taken but still holds (a TLS
    /// record that did not go out whole) counts as one.
    pub fn unwritten(&self) -> usize {
        if self.out.is_empty() { 0 } else { (self.out.len() - self.written).max(1) }
    }

    /// Bytes the transport has taken since the connection began; standing still means the client
    /// does not read.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Writes what is there to be written; ready when all of it is.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.close_chunk();
        let before = self.written;
        let polled = poll_write_all(&mut self.io, cx, &self.out, &mut self.written);
        self.taken += (self.written - before) as u64;
        ready!(polled)?;
        self.written = 0;
        if self.out.capacity() > OUT_BYTES_KEPT {
            self.out = BytesMut::new();
        } else {
            self.out.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes all there is to be written.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Closes so that the client can still read what was written: our side first, then what it is
    /// still sending is thrown away for a moment.
    pub async fn close(mut self, clock: Clock) {
        let quietly = async {
            self.flush().await?;
            poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await?;
            let mut left = LINGER_BYTES_MAX;
            while left > 0 {
                let reading = poll_fn(|cx| with_scratch(|s| poll_read_once(&mut self.io, cx, s)));
                match clock.within(LINGER_SILENCE_MAX, reading).await {
                    Some(Ok(n)) if n > 0 => left = left.saturating_sub(n),
                    _ => break,
                }
            }
            io::Result::Ok(())
        };
        let _ = clock.within(LINGER_MAX, quietly).await;
    }

    /// Breaks the connection off with a reset.
    pub fn abort(mut self) {
        self.io.reset_on_drop();
    }
}
