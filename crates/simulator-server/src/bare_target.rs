//! The bare target: whole responses, heads and chunks included, built once and written as they are.
//!
//! No lock, no header line read beyond what HTTP needs, two counters. Every request is answered
//! alike, whatever its path; a stream if its body asks for one.

use bytes::{Bytes, BytesMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidegate_simulator::Bare;
use tidegate_transport::http1::ServerConn;
use tidegate_transport::{BoxIo, Clock, STAMP_BYTES, stamp};
use tidegate_wire::http::{HeadWriter, chunk_end, chunk_start, last_chunk};

/// Body bytes a bare request may have; what is more ends the connection.
const BODY_BYTES_MAX: usize = 32_000_000;

#[derive(Debug)]
pub(crate) struct BareTarget {
    json: Bytes,
    /// A stream in one piece.
    stream: Bytes,
    opening: Bytes,
    event: Bytes,
    closing: Bytes,
    events: usize,
    interval: Duration,
    event_writes: bool,
    /// Where in `event` the moment of sending goes.
    stamp_at: Option<usize>,
    answers: AtomicU64,
    streams: AtomicU64,
}

fn head(length: Option<usize>, content_type: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    let mut head = HeadWriter::response(&mut out, 200);
    head.header("content-type", content_type).header("request-id", b"req_000000000000000000000000");
    match length {
        Some(length) => head.number("content-length", length as u64),
        None => head.header("transfer-encoding", b"chunked"),
    };
    head.end();
    out
}

fn chunk(out: &mut BytesMut, bytes: &[u8]) {
    chunk_start(out, bytes.len());
    out.extend_from_slice(bytes);
    chunk_end(out);
}

impl BareTarget {
    pub(crate) fn new(bare: Bare) -> Self {
        let mut json = head(Some(bare.json.len()), b"application/json");
        json.extend_from_slice(&bare.json);
        let mut opening = head(None, b"text/event-stream; charset=utf-8");
        chunk(&mut opening, &bare.opening);
        let mut event = BytesMut::new();
        chunk_start(&mut event, bare.event.len());
        let stamp_at = bare.stamp_at.map(|at| event.len() + at);
        event.extend_from_slice(&bare.event);
        chunk_end(&mut event);
        let mut closing = BytesMut::new();
        chunk(&mut closing, &bare.closing);
        last_chunk(&mut closing);
        let mut stream = opening.clone();
        for _ in 0..bare.events {
            stream.extend_from_slice(&event);
        }
        stream.extend_from_slice(&closing);
        BareTarget {
            json: json.freeze(),
            stream: stream.freeze(),
            opening: opening.freeze(),
            event: event.freeze(),
            closing: closing.freeze(),
            events: bare.events,
            interval: bare.interval,
            event_writes: bare.event_writes,
            stamp_at,
            answers: AtomicU64::new(0),
            streams: AtomicU64::new(0),
        }
    }

    /// JSON answers and streams begun.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.answers.load(Ordering::Relaxed), self.streams.load(Ordering::Relaxed))
    }

    pub(crate) async fn serve(&self, io: BoxIo, clock: Clock) {
        let mut conn = ServerConn::new(io);
        let mut body = BytesMut::new();
        while let Ok(head) = conn.read_head().await {
            body.clear();
            if head.expects_continue() && conn.send_continue().await.is_err() {
                return;
            }
            loop {
                match conn.read_body(&mut body).await {
                    Ok(0) => break,
                    Ok(_) if body.len() <= BODY_BYTES_MAX => {}
                    _ => return,
                }
            }
            let written = if Bare::wants_stream(&body) {
                self.streams.fetch_add(1, Ordering::Relaxed);
                self.stream(&mut conn, clock).await
            } else {
                self.answers.fetch_add(1, Ordering::Relaxed);
                conn.push_raw(&self.json);
                conn.flush().await
            };
            if written.is_err() || !head.keeps_alive() {
                return;
            }
        }
    }

    async fn stream(&self, conn: &mut ServerConn, clock: Clock) -> std::io::Result<()> {
        if self.interval.is_zero() && !self.event_writes && self.stamp_at.is_none() {
            conn.push_raw(&self.stream);
            return conn.flush().await;
        }
        conn.push_raw(&self.opening);
        conn.flush().await?;
        let mut due = clock.now();
        let mut sleep = Box::pin(clock.sleep_until(due));
        for _ in 0..self.events {
            if !self.interval.is_zero() {
                due = due + self.interval;
                clock.reset(sleep.as_mut(), due);
                sleep.as_mut().await;
            } else {
                // Streams take turns, as they do where each has a model behind it; in one go a
                // stream's events would lie together before anybody has read the first.
                tokio::task::yield_now().await;
            }
            self.push_event(conn, clock);
            conn.flush().await?;
        }
        conn.push_raw(&self.closing);
        conn.flush().await
    }

    fn push_event(&self, conn: &mut ServerConn, clock: Clock) {
        match self.stamp_at {
            None => conn.push_raw(&self.event),
            Some(at) => {
                conn.push_raw(&self.event[..at]);
                conn.push_raw(&stamp(clock.shared_wall()));
                conn.push_raw(&self.event[at + STAMP_BYTES..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};
    use tidegate_simulator::BareShape;
    use tidegate_transport::Io;
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    /// A client that asks for one stream and counts the writes it is answered with.
    struct Counting {
        request: &'static [u8],
        writes: Arc<AtomicU64>,
    }

    impl AsyncRead for Counting {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buf.put_slice(std::mem::take(&mut self.request));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Io for Counting {
        fn reset_on_drop(&mut self) {}
    }

    async fn writes(shape: BareShape) -> u64 {
        let writes = Arc::new(AtomicU64::new(0));
        let request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 15\r\n\r\n{\"stream\":true}";
        let io = Counting { request, writes: Arc::clone(&writes) };
        BareTarget::new(Bare::new(shape)).serve(Box::new(io), Clock::real()).await;
        writes.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_stream_without_pauses_is_one_write_or_one_for_each_event() {
        assert_eq!(writes(BareShape::default()).await, 1);
        let each = BareShape { event_writes: true, ..BareShape::default() };
        assert_eq!(writes(each).await, 52, "opening, 50 events, closing");
    }
}
