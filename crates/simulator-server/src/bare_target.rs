//! The bare target: whole responses, heads and chunks included, built once and written as they are;
//! over HTTP/2, one frame for each event.
//!
//! No lock, no header line read beyond what HTTP needs, two counters. Every request is answered
//! alike, whatever its path; a stream if its body asks for one.

use bytes::{Bytes, BytesMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidegate_simulator::Bare;
use tidegate_transport::http1::HeadEnd;
use tidegate_transport::{Clock, STAMP_BYTES, ServerStream, stamp};
use tidegate_wire::http::{HeadWriter, chunk_end, chunk_start, last_chunk};

/// Body bytes a bare request may have; what is more ends the connection.
const BODY_BYTES_MAX: usize = 32_000_000;

#[derive(Debug)]
pub(crate) struct BareTarget {
    json: Bytes,
    /// A stream in one piece.
    stream: Bytes,
    opening: Bytes,
    event: Event,
    /// The same in no frame, as HTTP/2 takes it.
    unframed: Event,
    closing: Bytes,
    events: usize,
    interval: Duration,
    event_writes: bool,
    /// The same without HTTP/1.1's framing.
    bare: Bare,
    answers: AtomicU64,
    streams: AtomicU64,
}

/// A delta, and where in it the moment of sending goes.
#[derive(Debug)]
struct Event {
    bytes: Bytes,
    stamp_at: Option<usize>,
}

impl Event {
    fn push(&self, conn: &mut ServerStream, clock: Clock) {
        match self.stamp_at {
            None => conn.push_raw(&self.bytes),
            Some(at) => {
                conn.push_raw(&self.bytes[..at]);
                conn.push_raw(&stamp(clock.shared_wall()));
                conn.push_raw(&self.bytes[at + STAMP_BYTES..]);
            }
        }
    }
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
            event: Event { bytes: event.freeze(), stamp_at },
            unframed: Event { bytes: Bytes::copy_from_slice(&bare.event), stamp_at: bare.stamp_at },
            closing: closing.freeze(),
            events: bare.events,
            interval: bare.interval,
            event_writes: bare.event_writes,
            bare,
            answers: AtomicU64::new(0),
            streams: AtomicU64::new(0),
        }
    }

    /// JSON answers and streams begun.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.answers.load(Ordering::Relaxed), self.streams.load(Ordering::Relaxed))
    }

    /// Answers requests until there are no more; `Some` if HTTP/2 begins instead.
    pub(crate) async fn serve(&self, conn: &mut ServerStream, clock: Clock) -> Option<()> {
        let mut body = BytesMut::new();
        loop {
            let head = match conn.read_head().await {
                Ok(head) => head,
                Err(HeadEnd::Http2) => return Some(()),
                Err(_) => return None,
            };
            body.clear();
            if head.expects_continue() {
                conn.send_continue().await.ok()?;
            }
            loop {
                match conn.read_body(&mut body).await {
                    Ok(0) => break,
                    Ok(_) if body.len() <= BODY_BYTES_MAX => {}
                    _ => return None,
                }
            }
            let streams = Bare::wants_stream(&body);
            let counter = if streams { &self.streams } else { &self.answers };
            counter.fetch_add(1, Ordering::Relaxed);
            let framed = matches!(conn, ServerStream::Http2(_));
            let answered = match (framed, streams) {
                (true, _) => self.framed(conn, clock, streams).await,
                (false, true) => self.stream(conn, clock).await,
                (false, false) => {
                    conn.push_raw(&self.json);
                    conn.flush().await
                }
            };
            answered.ok()?;
            if !head.keeps_alive() {
                return None;
            }
        }
    }

    async fn stream(&self, conn: &mut ServerStream, clock: Clock) -> std::io::Result<()> {
        if self.interval.is_zero() && !self.event_writes && self.event.stamp_at.is_none() {
            conn.push_raw(&self.stream);
            return conn.flush().await;
        }
        conn.push_raw(&self.opening);
        self.paced(conn, clock, &self.event).await?;
        conn.push_raw(&self.closing);
        conn.flush().await
    }

    /// The same answers in HTTP/2's frames.
    async fn framed(&self, conn: &mut ServerStream, clock: Clock, streams: bool) -> std::io::Result<()> {
        let (length, kind) = match streams {
            true => (None, &b"text/event-stream; charset=utf-8"[..]),
            false => (Some(self.bare.json.len() as u64), &b"application/json"[..]),
        };
        conn.respond(200, length, false, |head| {
            head.header("content-type", kind).header("request-id", b"req_000000000000000000000000");
        });
        if !streams {
            conn.push(&self.bare.json);
            return conn.flush().await;
        }
        conn.push(&self.bare.opening);
        self.paced(conn, clock, &self.unframed).await?;
        conn.push(&self.bare.closing);
        conn.end();
        conn.flush().await
    }

    /// What was pushed, and then every event at its time.
    async fn paced(&self, conn: &mut ServerStream, clock: Clock, event: &Event) -> std::io::Result<()> {
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
            event.push(conn, clock);
            conn.flush().await?;
        }
        Ok(())
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
    use tidegate_transport::http1::ServerConn;
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
        let mut conn = ServerStream::Http1(ServerConn::new(Box::new(io)));
        BareTarget::new(Bare::new(shape)).serve(&mut conn, Clock::real()).await;
        writes.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_stream_without_pauses_is_one_write_or_one_for_each_event() {
        assert_eq!(writes(BareShape::default()).await, 1);
        let each = BareShape { event_writes: true, ..BareShape::default() };
        assert_eq!(writes(each).await, 52, "opening, 50 events, closing");
    }
}
