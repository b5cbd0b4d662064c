//! A client over HTTP/2: its requests side by side, each on a stream of one connection.
//!
//! Frames are the `h2` crate's. A client that vanishes resets its stream, or takes the connection
//! and so its neighbours along; one that reads slowly gives its window back slowly.

use crate::world::answer::Reading;
use crate::world::client::{CROSSING, End, HANG, HOLD, Seen, Street};
use crate::world::plan::{Client, Http2, Leave, Reader, Request, Upload, What};
use crate::world::scene::GATEWAY;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::{BoxIo, Io, TaskKind, Tasks};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

const STREAM: TaskKind = TaskKind { name: "stream", on_cancel: "the world is over", on_error: "the seed fails" };
const WIRE: TaskKind = TaskKind { name: "wire", on_cancel: "the connection closes", on_error: "the seed fails" };

/// Whether and how the client has dropped a connection. Whoever waits for it is woken in the order of
/// waiting, which tokio's `watch` would not promise, and a run has to repeat.
#[derive(Debug, Default)]
struct Hold {
    dropped: Mutex<Option<Leaving>>,
    told: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    Closes,
    Resets,
}

impl Hold {
    fn how(&self) -> Option<Leaving> {
        *self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn let_go(&self, how: Leaving) {
        *self.dropped.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
        self.told.notify_waiters();
    }

    async fn gone(&self) {
        let mut told = std::pin::pin!(self.told.notified());
        told.as_mut().enable();
        if self.how().is_none() {
            told.await;
        }
    }
}

/// One connection of the client.
#[derive(Clone)]
struct Conn {
    send: SendRequest<Bytes>,
    hold: Arc<Hold>,
}

/// What a client's streams share.
struct Line {
    street: Street,
    http2: Http2,
    conn: Mutex<Option<Conn>>,
}

impl Street {
    /// Plays a client of HTTP/2 to its end.
    pub(crate) async fn play_http2(self, client: Client, http2: Http2) -> Vec<Seen> {
        let tasks = Tasks::new();
        let mut begin = self.clock.now();
        let line = Arc::new(Line { street: self, http2, conn: Mutex::default() });
        let mut streams = Vec::new();
        for request in client.requests {
            begin = begin + request.pause;
            streams.push(tasks.spawn(&STREAM, Arc::clone(&line).play(request, begin)));
        }
        // With the last stream the line goes, and the connection closes.
        drop(line);
        let mut seen = Vec::new();
        for stream in streams {
            seen.extend(stream.await);
        }
        seen
    }
}

/// How far one try at a request came.
enum Try {
    Done(End),
    /// The connection or the stream failed.
    Failed(h2::Error),
}

impl From<h2::Error> for Try {
    fn from(error: h2::Error) -> Self {
        Try::Failed(error)
    }
}

impl Line {
    async fn play(self: Arc<Self>, request: Request, begin: Moment) -> Seen {
        let clock = self.street.clock;
        clock.sleep_until(begin).await;
        let mut reading = Reading::new(false, Vec::new());
        let mut sent = begin;
        let exchange = self.exchange(&request, &mut reading, &mut sent);
        let end = clock.within(HANG, exchange).await.unwrap_or(End::Hung);
        self.street.note(&request, format!("{end:?}").as_bytes());
        Seen { request, end, began: begin, sent, ended: clock.now(), reading }
    }

    /// The connection there is if it takes streams, else a new one; and whether it was there.
    async fn connection(&self) -> Option<(Conn, bool)> {
        let kept = self.conn.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(conn) = kept
            && conn.hold.how().is_none()
            && let Ok(send) = conn.send.ready().await
        {
            return Some((Conn { send, hold: conn.hold }, true));
        }
        let hold = Arc::new(Hold::default());
        let wire = Wire { io: self.street.network.connect(GATEWAY).ok()?, hold: Arc::clone(&hold) };
        let shaking = h2::client::Builder::new()
            .initial_window_size(self.http2.window)
            .initial_connection_window_size((1 << 31) - 1)
            .enable_push(false)
            .handshake::<_, Bytes>(wire);
        let (send, driver) = shaking.await.ok()?;
        let held = Arc::clone(&hold);
        Tasks::new().spawn(&WIRE, async move {
            tokio::select! {
                biased;
                // Either way the connection is dropped here.
                () = held.gone() => {}
                _ = driver => {}
            }
        });
        let conn = Conn { send, hold };
        *self.conn.lock().unwrap_or_else(PoisonError::into_inner) = Some(conn.clone());
        Some((conn, false))
    }

    async fn exchange(&self, request: &Request, reading: &mut Reading, sent: &mut Moment) -> End {
        loop {
            let Some((conn, reused)) = self.connection().await else { return End::Unserved };
            *reading = Reading::new(request.what == What::RootHead, Vec::new());
            let hold = Arc::clone(&conn.hold);
            let tried = tokio::select! {
                biased;
                // A neighbour took the connection along.
                () = hold.gone() => return End::Left,
                tried = self.once(conn, request, reading, sent) => tried.unwrap_or_else(|failed| failed),
            };
            let clock = self.street.clock;
            let error = match tried {
                Try::Done(end) => return end,
                Try::Failed(error) => error,
            };
            self.street.note(request, error.to_string().as_bytes());
            reading.cut(format!("{error}"));
            let at_once = clock.now().since(*sent) < CROSSING;
            let untouched = error.is_io() || error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM);
            match reading.came {
                // It was closed while the request was on its way, as any idle connection may be.
                0 if reused && at_once && untouched => {}
                0 if untouched => return End::Unserved,
                _ => return End::Cut,
            }
        }
    }

    async fn once(&self, conn: Conn, request: &Request, reading: &mut Reading, sent: &mut Moment) -> Result<Try, Try> {
        let clock = self.street.clock;
        *sent = clock.now();
        let Conn { mut send, hold } = conn;
        let (head, body) = request.http2(self.street.body_limit);
        let (answer, mut upload) = send.send_request(head, body.is_empty())?;
        // What is kept here must not keep the connection.
        drop(send);
        let vanished = self.send(&mut upload, request, body).await;
        *sent = clock.now();
        let end = if vanished { End::Left } else { self.answer(answer, request, reading).await? };
        if end == End::Left {
            match (request.drops, request.resets) {
                (false, _) => upload.send_reset(Reason::CANCEL),
                (true, false) => hold.let_go(Leaving::Closes),
                (true, true) => hold.let_go(Leaving::Resets),
            }
        }
        Ok(Try::Done(end))
    }

    /// Sends the body; true if the client vanishes meanwhile.
    async fn send(&self, upload: &mut SendStream<Bytes>, request: &Request, mut body: Vec<u8>) -> bool {
        if body.is_empty() {
            return matches!(request.leave, Some(Leave::Sending(_)));
        }
        let mut ends = true;
        if let Some(Leave::Sending(share)) = request.leave {
            body.truncate(body.len() * share as usize / 1000);
            ends = false;
        }
        if request.what == What::SlowBody {
            body.truncate(body.len().saturating_sub(5));
            ends = false;
        }
        let (piece, pause) = match request.upload {
            Upload::Pieces(piece, pause) => (piece, pause),
            Upload::Chunks(piece) => (piece, Duration::ZERO),
            Upload::Whole => (usize::MAX, Duration::ZERO),
        };
        let clock = self.street.clock;
        let pieces = body.len().div_ceil(piece.min(body.len().max(1)));
        for (n, part) in body.chunks(piece.min(body.len().max(1))).enumerate() {
            // A server that answers early stops the upload; its answer can be read.
            if upload.send_data(Bytes::copy_from_slice(part), ends && n + 1 == pieces).is_err() {
                break;
            }
            if !pause.is_zero() {
                clock.sleep_until(clock.now() + pause).await;
            }
        }
        matches!(request.leave, Some(Leave::Sending(_)))
    }

    async fn answer(
        &self,
        answer: h2::client::ResponseFuture,
        request: &Request,
        reading: &mut Reading,
    ) -> Result<End, Try> {
        let clock = self.street.clock;
        let until = match request.leave {
            Some(Leave::After(span)) => clock.now() + span,
            _ => Moment::NEVER,
        };
        let Some(come) = clock.by(until, answer).await else { return Ok(End::Left) };
        let (head, mut body) = come?.into_parts();
        let lines = head.headers.iter().map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes())));
        let lines: Vec<_> = lines.map(|(n, v)| (n, v.into_owned())).collect();
        self.street.note(request, format!("{} {lines:?}", head.status).as_bytes());
        reading.http2_head(head.status.as_u16(), lines, clock.now());
        self.body(&mut body, request, reading, until).await
    }

    async fn body(
        &self,
        body: &mut RecvStream,
        request: &Request,
        reading: &mut Reading,
        until: Moment,
    ) -> Result<End, Try> {
        let clock = self.street.clock;
        let mut paused = false;
        loop {
            match request.leave {
                Some(Leave::AtBytes(n)) if reading.came >= n => return Ok(End::Left),
                _ => {}
            }
            match request.reader {
                Reader::Stops(after) if reading.came >= after => {
                    clock.sleep_until(clock.now() + HOLD).await;
                    return Ok(End::Stopped);
                }
                Reader::Pauses(after, span) if !paused && reading.came >= after => {
                    paused = true;
                    clock.sleep_until(clock.now() + span).await;
                }
                _ => {}
            }
            match clock.by(until, body.data()).await {
                None => return Ok(End::Left),
                Some(Some(data)) => {
                    let data = data?;
                    reading.http2_data(&data, clock.now());
                    self.street.note(request, &data);
                    // Half a window is told back at once; slower than this it would seem to stand still.
                    let (most, pause) = match request.reader {
                        Reader::Slow(most, pause) => (most.max(self.http2.window as usize / 64), pause),
                        _ => (usize::MAX, Duration::ZERO),
                    };
                    for piece in data.chunks(most) {
                        if !pause.is_zero() {
                            clock.sleep_until(clock.now() + pause).await;
                        }
                        // Fails only where the stream has ended already.
                        let _ = body.flow_control().release_capacity(piece.len());
                    }
                }
                Some(None) => {
                    let trailers = body.trailers().await?;
                    reading.http2_end(trailers.is_some());
                    self.street.note(request, b"end");
                    return Ok(if reading.broken.is_none() { End::Answered } else { End::Cut });
                }
            }
        }
    }
}

/// The client's end of a connection, which closes or resets it as it was told.
struct Wire {
    io: BoxIo,
    hold: Arc<Hold>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.hold.how() == Some(Leaving::Resets) {
            self.io.reset_on_drop();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
