//! The client's side of one connection: one request at a time.
//!
//! The body is handed to the caller as it is read, in place, from the thread's scratch buffer;
//! nothing is copied or allocated per piece. A connection may be used again only after
//! [`ClientConn::is_reusable`] says so.

use super::{forget, keep};
use crate::client_error::{ClientError, SendEnd};
use crate::io::{BoxIo, poll_read_once};
use crate::scratch::with_scratch;
use bytes::{Buf, Bytes, BytesMut};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tidegate_wire::http::{BodyDecoder, BodyError, BodyStep, Framing, HeadError, ResponseHead, parse_response};
use tokio::io::AsyncWrite;

/// Bodies up to this size go out in the same write as the head.
const JOIN_BYTES_MAX: usize = 16 * 1024;
/// Interim (1xx) answers before the real one that are put up with.
const INTERIM_MAX: usize = 8;
/// How an alert of TLS begins: what a server that speaks TLS says to plain HTTP.
const TLS_ALERT: &[u8] = &[0x15, 3];

/// One connection to a server.
pub struct ClientConn {
    io: BoxIo,
    read: BytesMut,
    ended: bool,
    body: BodyDecoder,
    keeps_alive: bool,
    sent: u64,
}

impl ClientConn {
    /// A connection nothing was sent on yet.
    pub fn new(io: BoxIo) -> Self {
        ClientConn {
            io,
            read: BytesMut::new(),
            ended: false,
            body: BodyDecoder::new(Framing::Empty),
            keeps_alive: true,
            sent: 0,
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ClientError>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let n = ready!(with_scratch(|scratch| {
            let n = ready!(poll_read_once(&mut self.io, cx, scratch)).map_err(ClientError::Io)?;
            keep(&mut self.read, &scratch[..n]);
            Poll::Ready(Ok(n))
        }))?;
        self.ended = n == 0;
        Poll::Ready(Ok(n))
    }

    /// Bytes of the current request that the transport has taken.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends a request: its head, then its body. `on_progress` is called after each write, so that
    /// the caller can tell a slow upload from a stalled one.
    pub async fn send(
        &mut self,
        mut head: BytesMut,
        body: Bytes,
        on_progress: impl FnMut(),
    ) -> Result<SendEnd, ClientError> {
        self.keeps_alive = false;
        self.sent = 0;
        let mut body = body;
        if body.len() <= JOIN_BYTES_MAX {
            head.extend_from_slice(&body);
            body = Bytes::new();
        }
        self.write([head.freeze(), body], on_progress).await
    }

    /// Sends a further piece of a body whose head and beginning went out before, with its framing.
    pub async fn send_piece(&mut self, piece: Bytes, on_progress: impl FnMut()) -> Result<SendEnd, ClientError> {
        self.write([piece, Bytes::new()], on_progress).await
    }

    /// Ready once the peer answers a request whose body is not whole yet: what is watched for while
    /// the next piece of it is awaited.
    pub fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        loop {
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(ClientError::ClosedEarly { any: !self.read.is_empty() }));
            }
            if !self.drop_interim().map_err(ClientError::Head)? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    async fn write(&mut self, mut parts: [Bytes; 2], mut on_progress: impl FnMut()) -> Result<SendEnd, ClientError> {
        poll_fn(|cx| {
            for part in &mut parts {
                while part.has_remaining() {
                    match Pin::new(&mut self.io).poll_write(cx, part) {
                        Poll::Ready(Ok(0)) => {
                            return Poll::Ready(Err(ClientError::Io(io::ErrorKind::WriteZero.into())));
                        }
                        Poll::Ready(Ok(n)) => {
                            part.advance(n);
                            self.sent += n as u64;
                            on_progress();
                        }
                        // A peer that refuses an upload answers and closes: the write fails, but
                        // its answer may be there to be read.
                        Poll::Ready(Err(e)) => {
                            return match self.poll_fill(cx) {
                                Poll::Ready(Ok(n)) if n > 0 => Poll::Ready(Ok(SendEnd::AnsweredEarly)),
                                _ => Poll::Ready(Err(ClientError::Io(e))),
                            };
                        }
                        Poll::Pending => {
                            return match self.poll_fill(cx) {
                                Poll::Ready(Ok(n)) if n > 0 => match self.drop_interim() {
                                    Ok(true) => continue,
                                    Ok(false) => Poll::Ready(Ok(SendEnd::AnsweredEarly)),
                                    Err(e) => Poll::Ready(Err(ClientError::Head(e))),
                                },
                                Poll::Ready(Ok(_)) => Poll::Ready(Err(ClientError::ClosedEarly { any: false })),
                                Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
                                Poll::Pending => Poll::Pending,
                            };
                        }
                    }
                }
            }
            Pin::new(&mut self.io).poll_flush(cx).map_ok(|()| SendEnd::Whole).map_err(ClientError::Io)
        })
        .await
    }

    /// Drops the interim (1xx) answers at the front of what was read; true if there was nothing
    /// else. A peer may send one in the middle of an upload, and waits for the rest of it.
    fn drop_interim(&mut self) -> Result<bool, HeadError> {
        const INTERIM: &[u8] = b"HTTP/1.1 1";
        const SWITCHING: &[u8] = b"HTTP/1.1 101";
        while self.read.starts_with(INTERIM) && !self.read.starts_with(SWITCHING) {
            if parse_response(&mut self.read, false)?.is_none() {
                return Ok(true);
            }
        }
        Ok(INTERIM.starts_with(&self.read))
    }

    /// Reads the answer's head and prepares for its body. `to_head` says the request was `HEAD`;
    /// `sent_whole` what [`ClientConn::send`] ended with.
    pub async fn read_head(&mut self, to_head: bool, sent_whole: bool) -> Result<ResponseHead, ClientError> {
        let mut interim = 0;
        loop {
            if self.read.starts_with(TLS_ALERT) {
                return Err(ClientError::SpeaksTls);
            }
            while let Some(head) = parse_response(&mut self.read, to_head).map_err(ClientError::Head)? {
                if (100..200).contains(&head.status) && head.status != 101 {
                    interim += 1;
                    if interim > INTERIM_MAX {
                        return Err(ClientError::Head(HeadError::StartLine));
                    }
                    continue;
                }
                self.body = BodyDecoder::new(head.framing);
                // After a 101 the peer speaks something else.
                self.keeps_alive = sent_whole && head.status != 101 && head.keeps_alive();
                return Ok(head);
            }
            let any = !self.read.is_empty();
            match poll_fn(|cx| self.poll_fill(cx)).await {
                Ok(0) => return Err(ClientError::ClosedEarly { any }),
                Ok(_) => {}
                // A part of an answer came: nobody may take this for a request that never arrived.
                Err(ClientError::Io(_)) if any => return Err(ClientError::ClosedEarly { any }),
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads once and shows every piece of the body that came to `sink`, in order; true once the
    /// body has ended. Pieces are never empty.
    pub fn poll_body(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(&[u8])) -> Poll<Result<bool, ClientError>> {
        if !self.read.is_empty() || self.body.is_done() {
            let (used, done) = decode(&mut self.body, &self.read, sink)?;
            forget(&mut self.read, used);
            return Poll::Ready(Ok(done));
        }
        with_scratch(|scratch| {
            let n = ready!(poll_read_once(&mut self.io, cx, scratch)).map_err(ClientError::Io)?;
            if n == 0 {
                self.ended = true;
                return Poll::Ready(self.body.closed().map(|()| true).map_err(ClientError::Body));
            }
            let (used, done) = decode(&mut self.body, &scratch[..n], sink)?;
            if used < n {
                keep(&mut self.read, &scratch[used..n]);
            }
            Poll::Ready(Ok(done))
        })
    }

    /// Reads the rest of the body into `into`, up to `max` bytes; what is beyond is an error.
    pub async fn read_body(&mut self, into: &mut BytesMut, max: usize) -> Result<(), ClientError> {
        loop {
            let done = poll_fn(|cx| self.poll_body(cx, &mut |piece| into.extend_from_slice(piece))).await?;
            if into.len() > max {
                return Err(ClientError::Body(BodyError::TooLarge));
            }
            if done {
                return Ok(());
            }
        }
    }

    /// The connection, and what was read of it behind the last answer, for whoever speaks something
    /// else on it after a 101.
    pub fn into_parts(self) -> (BoxIo, BytesMut) {
        (self.io, self.read)
    }

    /// Whether another request may be sent: the last answer was read to its end, nothing stray
    /// came after it, and both sides keep the connection.
    pub fn is_reusable(&self) -> bool {
        self.keeps_alive && self.body.is_done() && self.read.is_empty() && !self.ended
    }

    /// Whether an idle connection is still good: no end, no error, no stray byte.
    pub fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        self.read.is_empty() && self.poll_fill(cx).is_pending()
    }
}

/// Shows the data in `read` to `sink`; how many bytes were used and whether the body ended.
fn decode(body: &mut BodyDecoder, read: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<(usize, bool), ClientError> {
    let mut at = 0;
    loop {
        match body.step(&read[at..]).map_err(ClientError::Body)? {
            BodyStep::Data(range) => {
                sink(&read[at + range.start..at + range.end]);
                at += range.end;
            }
            BodyStep::More => return Ok((read.len(), false)),
            BodyStep::End(n) => return Ok((at + n, true)),
        }
    }
}
