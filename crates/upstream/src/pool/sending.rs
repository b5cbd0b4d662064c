//! A request over a connection that is there: its head and body out, the answer's head in, each
//! under its clock.

use super::{LanePool, Outgoing, Slot};
use crate::exchange::{Counted, Exchange, ExchangeError, Stage, Way};
use crate::life::Life;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::Clock;
use tidegate_transport::http1::{ClientConn, ClientError, SendEnd};
use tidegate_transport::http2::{Connection, Stream};
use tidegate_wire::http::ResponseHead;

/// Over HTTP/1.1.
pub(super) async fn http1(
    clock: Clock,
    lane: &Arc<LanePool>,
    mut conn: ClientConn,
    request: &Outgoing<'_>,
    told: &impl Fn(Stage),
) -> Result<Exchange, ExchangeError> {
    let busy = Counted::new(&lane.busy);
    let body = request.body.clone();
    let head = lane.lane.head(request.method, request.target, body.as_ref().map(Bytes::len), request.lines);
    let upload = Upload::new(clock, request.clocks.upload_stall);
    let sent = upload.watch(conn.send(head, body.unwrap_or_default(), || upload.progressed())).await?;
    told(Stage::Sent);
    let reading = conn.read_head(request.method == "HEAD", sent == SendEnd::Whole);
    let read = match request.clocks.first_byte {
        Some(span) => clock.within(span, reading).await.ok_or(ExchangeError::FirstByte)?,
        None => reading.await,
    };
    let head = read.map_err(ExchangeError::Broken)?;
    Ok(Exchange { head, way: Way::Http1 { conn, lane: Arc::clone(lane), _busy: busy } })
}

/// Over a stream of HTTP/2.
pub(super) async fn http2(
    clock: Clock,
    lane: &LanePool,
    slot: Slot,
    request: &Outgoing<'_>,
    told: &impl Fn(Stage),
) -> Result<Exchange, ExchangeError> {
    let length = request.body.as_ref().map(Bytes::len);
    let head = lane.lane.http2_head(request.method, request.target, length, request.lines);
    let body = request.body.clone().unwrap_or_default();
    let begun = head.and_then(|head| slot.conn.begin(head, body.is_empty()));
    // Declared after the slot: whatever happens, the stream ends before its slot is free.
    let mut stream = Box::new(begun.map_err(ExchangeError::Broken)?);
    if !body.is_empty() {
        let upload = Upload::new(clock, request.clocks.upload_stall);
        let sent = upload.watch(stream.send_body(body, || upload.progressed())).await;
        if matches!(sent, Err(ExchangeError::UploadStall)) {
            // Window or socket: nobody else should have to find out.
            slot.conn.retire();
        }
        sent?;
    }
    told(Stage::Sent);
    let mut life = Life::new(request.clocks.probe, clock.now());
    let head = read_head(clock, request.clocks.first_byte, &mut stream, &slot.conn, &mut life).await?;
    Ok(Exchange { head, way: Way::Http2 { stream, slot, life } })
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
struct Upload {
    clock: Clock,
    stall: Duration,
    progress: AtomicU64,
}

impl Upload {
    fn new(clock: Clock, stall: Duration) -> Self {
        Upload { clock, stall, progress: AtomicU64::new(clock.now().as_nanos()) }
    }

    fn progressed(&self) {
        self.progress.store(self.clock.now().as_nanos(), Ordering::Relaxed);
    }

    async fn watch(
        &self,
        sending: impl Future<Output = Result<SendEnd, ClientError>>,
    ) -> Result<SendEnd, ExchangeError> {
        tokio::pin!(sending);
        let due = || Moment::from_nanos(self.progress.load(Ordering::Relaxed)) + self.stall;
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
