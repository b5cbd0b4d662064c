//! A request over a connection that is there: its head and body out, the answer's head in, each
//! under its clock.

use super::{LanePool, Outgoing, Slot};
use crate::exchange::{Counted, Exchange, ExchangeError, Stage, Way};
use crate::life::Life;
use crate::upload::{Piece, Upload};
use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::Clock;
use tidegate_transport::http1::{ClientConn, ClientError, SendEnd};
use tidegate_transport::http2::{Connection, Stream};
use tidegate_wire::http::{BodyError, HeadWriter, ResponseHead, chunk_end, chunk_start, last_chunk};

/// Over HTTP/1.1.
pub(super) async fn http1(
    clock: Clock,
    lane: &Arc<LanePool>,
    mut conn: ClientConn,
    request: &Outgoing<'_>,
    told: &impl Fn(Stage),
) -> Result<Exchange, ExchangeError> {
    let busy = Counted::new(&lane.busy);
    let in_chunks = request.upload.is_some_and(|upload| upload.length().is_none());
    let lines = |out: &mut HeadWriter<'_>| {
        (request.lines)(out);
        if in_chunks {
            out.header("transfer-encoding", b"chunked");
        }
    };
    let head = lane.lane.head(request.method, request.target, length(request), lines);
    let stall = Stall::new(clock, request.clocks.upload_stall);
    let body = request.body.clone().unwrap_or_default();
    let mut sent = stall.watch(conn.send(head, body, || stall.progressed())).await?;
    while let (Some(upload), SendEnd::Whole) = (request.upload, sent) {
        let Some(piece) = next(upload, poll_fn(|cx| conn.poll_answered(cx))).await? else {
            sent = SendEnd::AnsweredEarly;
            break;
        };
        let is_last = matches!(piece, Piece::End);
        stall.progressed();
        sent = stall.watch(conn.send_piece(framed(piece, in_chunks), || stall.progressed())).await?;
        if is_last {
            break;
        }
    }
    told(Stage::Sent);
    let reading = conn.read_head(request.method == "HEAD", sent == SendEnd::Whole);
    let read = match request.clocks.first_byte {
        Some(span) => clock.within(span, reading).await.ok_or(ExchangeError::FirstByte)?,
        None => reading.await,
    };
    let head = read.map_err(ExchangeError::Broken)?;
    Ok(Exchange::new(&lane.lane, head, Way::Http1 { conn, lane: Arc::clone(lane), _busy: busy }))
}

/// Over a stream of HTTP/2.
pub(super) async fn http2(
    clock: Clock,
    lane: &LanePool,
    slot: Slot,
    request: &Outgoing<'_>,
    told: &impl Fn(Stage),
) -> Result<Exchange, ExchangeError> {
    let head = lane.lane.http2_head(request.method, request.target, length(request), request.lines);
    let body = request.body.clone().unwrap_or_default();
    let begun = head.and_then(|head| slot.conn.begin(head, body.is_empty() && request.upload.is_none()));
    // Declared after the slot: whatever happens, the stream ends before its slot is free.
    let mut stream = Box::new(begun.map_err(ExchangeError::Broken)?);
    let stall = Stall::new(clock, request.clocks.upload_stall);
    let sent = match request.upload {
        None if body.is_empty() => Ok(()),
        None => stall.watch(stream.send_body(body, || stall.progressed())).await.map(drop),
        Some(upload) => http2_pieces(&mut stream, upload, &stall).await,
    };
    if matches!(sent, Err(ExchangeError::UploadStall)) {
        // Window or socket: nobody else should have to find out.
        slot.conn.retire();
    }
    sent?;
    told(Stage::Sent);
    let mut life = Life::new(request.clocks.probe, clock.now());
    let head = read_head(clock, request.clocks.first_byte, &mut stream, &slot.conn, &mut life).await?;
    Ok(Exchange::new(&lane.lane, head, Way::Http2 { stream, slot, life }))
}

/// The length that a request's head tells.
fn length(request: &Outgoing<'_>) -> Option<usize> {
    match request.upload {
        Some(upload) => upload.length().and_then(|n| usize::try_from(n).ok()),
        None => request.body.as_ref().map(Bytes::len),
    }
}

/// The next piece of an upload; `None` if the peer answers before it has come.
async fn next(
    upload: &Upload,
    answered: impl Future<Output = Result<(), ClientError>>,
) -> Result<Option<Piece>, ExchangeError> {
    tokio::select! {
        biased;
        answered = answered => answered.map(|()| None).map_err(ExchangeError::Broken),
        // One that broke off was given up by whoever reads it, and this with it.
        piece = upload.next() => piece.map(Some).ok_or(ExchangeError::Broken(ClientError::Body(BodyError::Cut))),
    }
}

/// A piece as HTTP/1.1 frames it.
fn framed(piece: Piece, in_chunks: bool) -> Bytes {
    let mut out = BytesMut::new();
    match piece {
        Piece::Data(data) if !in_chunks => return data,
        Piece::Data(data) => {
            chunk_start(&mut out, data.len());
            out.extend_from_slice(&data);
            chunk_end(&mut out);
        }
        Piece::End if in_chunks => last_chunk(&mut out),
        Piece::End => {}
    }
    out.freeze()
}

async fn http2_pieces(stream: &mut Stream, upload: &Upload, stall: &Stall) -> Result<(), ExchangeError> {
    while let Some(piece) = next(upload, poll_fn(|cx| stream.poll_answered(cx))).await? {
        let (data, is_last) = match piece {
            Piece::Data(data) => (data, false),
            Piece::End => (Bytes::new(), true),
        };
        stall.progressed();
        let sent = stall.watch(stream.send_piece(data, is_last, || stall.progressed())).await?;
        if is_last || sent == SendEnd::AnsweredEarly {
            break;
        }
    }
    Ok(())
}

/// Waits for the answer's head as long as the connection is alive and the clock allows.
async fn read_head(
    clock: Clock,
    first_byte: Option<Duration>,
    stream: &mut Stream,
    conn: &Connection,
    life: &mut Life,
) -> Result<ResponseHead, ExchangeError> {
    let sent_at = clock.now();
    let until = first_byte.map(|span| sent_at + span);
    let reading = stream.read_head();
    tokio::pin!(reading);
    loop {
        let look = life.due(sent_at);
        let due = until.map_or(look, |until| until.min(look));
        if let Some(read) = clock.by(due, &mut reading).await {
            return read.map_err(ExchangeError::Broken);
        }
        let now = clock.now();
        if until.is_some_and(|until| until <= now) {
            return Err(ExchangeError::FirstByte);
        }
        if !life.look(now, sent_at, conn) {
            conn.retire();
            return Err(ExchangeError::Dead);
        }
    }
}

/// The clock of an upload: runs since the peer last took a byte.
struct Stall {
    clock: Clock,
    span: Duration,
    progress: AtomicU64,
}

impl Stall {
    fn new(clock: Clock, stall: Duration) -> Self {
        Stall { clock, span: stall, progress: AtomicU64::new(clock.now().as_nanos()) }
    }

    fn progressed(&self) {
        self.progress.store(self.clock.now().as_nanos(), Ordering::Relaxed);
    }

    async fn watch(
        &self,
        sending: impl Future<Output = Result<SendEnd, ClientError>>,
    ) -> Result<SendEnd, ExchangeError> {
        tokio::pin!(sending);
        let due = || Moment::from_nanos(self.progress.load(Ordering::Relaxed)) + self.span;
        loop {
            if let Some(end) = self.clock.by(due(), &mut sending).await {
                return end.map_err(ExchangeError::Broken);
            }
            if due() <= self.clock.now() {
                return Err(ExchangeError::UploadStall);
            }
        }
    }
}
