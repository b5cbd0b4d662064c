//! One request and its answer on a connection.
//!
//! It can be asked what an HTTP/1.1 connection can be asked. The body is shown to the caller in
//! place, as the frames hold it; its window is given back at once. h2 checks what the protocol asks
//! for (order of frames, content-length against data, nothing after the end); what a head may be
//! is checked by the wire room. Trailers are dropped.

use super::Shared;
use crate::client_error::{ClientError, SendEnd};
use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::Response;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tidegate_wire::http::{BodyError, ResponseHead, http2};

/// Body bytes handed to h2 at once.
const PIECE_BYTES_MAX: usize = 64 * 1024;
/// Bytes shown in one poll, about what one read of a socket brings.
const SHOWN_MAX: usize = 64 * 1024;

enum Answer {
    Awaited(ResponseFuture),
    Come(Box<Response<RecvStream>>),
    Read(RecvStream),
    Over,
}

/// One request and its answer. Dropped before both have ended it is reset with CANCEL; the
/// connection goes on.
pub struct Stream {
    conn: Arc<Shared>,
    send: SendStream<Bytes>,
    answer: Answer,
    sent_whole: bool,
}

impl Stream {
    pub(super) fn new(conn: Arc<Shared>, send: SendStream<Bytes>, answer: ResponseFuture, sent_whole: bool) -> Self {
        conn.streams.fetch_add(1, Ordering::AcqRel);
        Stream { conn, send, answer: Answer::Awaited(answer), sent_whole }
    }

    /// Sends the body that [`super::Connection::begin`] announced. `on_progress` is called whenever the
    /// peer's window and the socket let some of it through.
    pub async fn send_body(&mut self, body: Bytes, on_progress: impl FnMut()) -> Result<SendEnd, ClientError> {
        self.send_piece(body, true, on_progress).await
    }

    /// Sends a piece of it; `last` says that the body ends with it.
    pub async fn send_piece(
        &mut self,
        mut body: Bytes,
        last: bool,
        mut on_progress: impl FnMut(),
    ) -> Result<SendEnd, ClientError> {
        poll_fn(|cx| {
            loop {
                if self.poll_answer(cx)?.is_ready() {
                    return Poll::Ready(Ok(SendEnd::AnsweredEarly));
                }
                self.send.reserve_capacity(body.len().min(PIECE_BYTES_MAX));
                while !body.is_empty() && self.send.capacity() == 0 {
                    // "Capacity" of nothing is window without room in the buffer: asked again, it waits.
                    match ready!(self.send.poll_capacity(cx)) {
                        Some(Ok(_)) => {}
                        Some(Err(e)) => return Poll::Ready(Err(ClientError::of_http2(e, false))),
                        // The peer wants no more of it; what it has to say is the answer's business.
                        None => return Poll::Ready(Ok(SendEnd::AnsweredEarly)),
                    }
                }
                let piece = body.split_to(self.send.capacity().min(body.len()));
                self.sent_whole = last && body.is_empty();
                let sent = self.send.send_data(piece, self.sent_whole);
                sent.map_err(|e| ClientError::of_http2(e, false))?;
                on_progress();
                if body.is_empty() {
                    return Poll::Ready(Ok(SendEnd::Whole));
                }
            }
        })
        .await
    }

    /// Waits for the answer's head.
    pub async fn read_head(&mut self) -> Result<ResponseHead, ClientError> {
        poll_fn(|cx| self.poll_answer(cx)).await?;
        let Answer::Come(response) = std::mem::replace(&mut self.answer, Answer::Over) else {
            return Err(ClientError::ClosedEarly { any: true });
        };
        let (parts, body) = response.into_parts();
        let head = http2::response_head(&parts, body.is_end_stream()).map_err(ClientError::Head)?;
        self.answer = Answer::Read(body);
        Ok(head)
    }

    /// Ready once the peer answers: what is watched for while the next piece of a body is awaited.
    pub fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        self.poll_answer(cx)
    }

    /// Ready when the head has come.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if let Answer::Awaited(answer) = &mut self.answer {
            let come = ready!(Pin::new(answer).poll(cx));
            self.answer = Answer::Over;
            self.answer = Answer::Come(Box::new(come.map_err(|e| ClientError::of_http2(e, false))?));
        }
        Poll::Ready(Ok(()))
    }

    /// Shows every piece of the body that has come to `sink`, in order; true once the body has
    /// ended. Pieces are never empty.
    pub fn poll_body(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(&[u8])) -> Poll<Result<bool, ClientError>> {
        let Answer::Read(body) = &mut self.answer else { return Poll::Ready(Ok(true)) };
        let mut shown = 0;
        let end = loop {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
                Poll::Ready(Some(Ok(data))) => {
                    sink(&data);
                    shown += data.len();
                    if shown >= SHOWN_MAX {
                        break Poll::Ready(Ok(false));
                    }
                }
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Err(ClientError::of_http2(e, true))),
                Poll::Ready(None) => break Poll::Ready(Ok(true)),
                Poll::Pending if shown > 0 => break Poll::Ready(Ok(false)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if shown > 0 {
            // It fails only where more is given back than was taken.
            let _ = body.flow_control().release_capacity(shown);
        }
        if matches!(end, Poll::Ready(Ok(true))) {
            self.answer = Answer::Over;
        }
        end
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
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !(self.sent_whole && matches!(self.answer, Answer::Over)) {
            self.send.send_reset(Reason::CANCEL);
        }
        if self.conn.streams.fetch_sub(1, Ordering::AcqRel) == 1 && !self.conn.open.load(Ordering::Acquire) {
            self.conn.wake();
        }
    }
}
