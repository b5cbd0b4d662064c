//! A thread's connections to its lanes.
//!
//! Idle connections are taken last in, first out, so that a quiet hour lets the rest grow old and
//! be swept. A pooled connection may have been closed by the other side in the meantime: it is
//! looked at before use, and if it still breaks before one byte of an answer the request goes out
//! once more over a new one, which does not count as an attempt.

use crate::exchange::{Counted, Exchange, ExchangeClocks, ExchangeError, Stage};
use crate::lane::Lane;
use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_observe::Metrics;
use tidegate_transport::http1::{ClientConn, ClientError, SendEnd};
use tidegate_transport::{Clock, Dial};
use tidegate_wire::http::HeadWriter;

/// A pool's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolRules {
    /// Idle connections kept for one lane by one thread.
    pub idle_max: usize,
    /// How long an idle connection is kept (design: 60 s).
    pub idle_keep: Duration,
}

impl Default for PoolRules {
    fn default() -> Self {
        PoolRules { idle_max: 256, idle_keep: Duration::from_secs(60) }
    }
}

/// A request to be sent.
pub struct Outgoing<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The body; `None` sends no length either.
    pub body: Option<Bytes>,
    /// Adds the header lines; host, credential and length are the lane's.
    pub lines: &'a (dyn Fn(&mut HeadWriter<'_>) + Sync),
    /// The clocks it runs under.
    pub clocks: ExchangeClocks,
}

pub(crate) struct Idle {
    conn: ClientConn,
    since: Moment,
    _idle: Counted,
}

impl Idle {
    pub(crate) fn new(conn: ClientConn, since: Moment, lane: &LanePool) -> Self {
        Idle { conn, since, _idle: Counted::new(&lane.idle_gauge) }
    }
}

pub(crate) struct LanePool {
    lane: Arc<Lane>,
    idle: Mutex<Vec<Idle>>,
    idle_max: usize,
    idle_gauge: Gauge,
    busy_gauge: Gauge,
    opened: Counter,
    failed: Counter,
}

impl LanePool {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep(&self, idle: Idle) {
        let mut kept = self.idle();
        if kept.len() < self.idle_max {
            kept.push(idle);
        }
    }
}

/// One thread's connections.
pub struct Pool {
    clock: Clock,
    dial: Arc<dyn Dial>,
    rules: PoolRules,
    lanes: Vec<Arc<LanePool>>,
}

impl Pool {
    /// A pool without connections, over these lanes.
    pub fn new(clock: Clock, dial: Arc<dyn Dial>, rules: PoolRules, lanes: &[Arc<Lane>], metrics: &Metrics) -> Self {
        let lanes = lanes.iter().map(|lane| {
            Arc::new(LanePool {
                lane: Arc::clone(lane),
                idle: Mutex::default(),
                idle_max: rules.idle_max,
                idle_gauge: metrics.lane_gauge(&lane.label, "idle"),
                busy_gauge: metrics.lane_gauge(&lane.label, "busy"),
                opened: metrics.connect_counter(&lane.label, "opened"),
                failed: metrics.connect_counter(&lane.label, "failed"),
            })
        });
        Pool { clock, dial, rules, lanes: lanes.collect() }
    }

    /// Closes connections that were idle for too long.
    pub fn sweep(&self, now: Moment) {
        for lane in &self.lanes {
            lane.idle().retain(|idle| now.since(idle.since) < self.rules.idle_keep);
        }
    }

    /// Closes all idle connections.
    pub fn clear(&self) {
        self.lanes.iter().for_each(|lane| lane.idle().clear());
    }

    /// Sends `request` over the lane numbered `lane` and reads the answer's head. Dropping the
    /// future gives the exchange up and closes its connection.
    pub async fn exchange(
        &self,
        lane: usize,
        request: &Outgoing<'_>,
        told: impl Fn(Stage),
    ) -> Result<Exchange, ExchangeError> {
        let lane = &self.lanes[lane];
        told(Stage::Connecting);
        if let Some(conn) = self.pooled(lane).await {
            match self.over(lane, conn, request, &told).await {
                Err(ExchangeError::Broken(ClientError::ClosedEarly { any: false } | ClientError::Io(_))) => {
                    told(Stage::Connecting);
                }
                done => return done,
            }
        }
        let io = self.dial.dial(&lane.lane.target).await;
        if io.is_ok() { &lane.opened } else { &lane.failed }.inc();
        let conn = ClientConn::new(io.map_err(ExchangeError::Dial)?);
        self.over(lane, conn, request, &told).await
    }

    /// A connection that was idle and still is good.
    async fn pooled(&self, lane: &LanePool) -> Option<ClientConn> {
        let now = self.clock.now();
        loop {
            let mut idle = lane.idle().pop()?;
            let fresh = now.since(idle.since) < self.rules.idle_keep;
            if fresh && poll_fn(|cx| Poll::Ready(idle.conn.is_quiet(cx))).await {
                return Some(idle.conn);
            }
        }
    }

    async fn over(
        &self,
        lane: &Arc<LanePool>,
        mut conn: ClientConn,
        request: &Outgoing<'_>,
        told: &impl Fn(Stage),
    ) -> Result<Exchange, ExchangeError> {
        let busy = Counted::new(&lane.busy_gauge);
        let body = request.body.clone();
        let head = lane.lane.head(request.method, request.target, body.as_ref().map(Bytes::len), request.lines);
        let sent = self.send(&mut conn, head, body.unwrap_or_default(), request.clocks.upload_stall).await?;
        told(Stage::Sent);
        let reading = conn.read_head(request.method == "HEAD", sent == SendEnd::Whole);
        let read = match request.clocks.first_byte {
            Some(span) => self.clock.within(span, reading).await.ok_or(ExchangeError::FirstByte)?,
            None => reading.await,
        };
        let head = read.map_err(ExchangeError::Broken)?;
        Ok(Exchange { head, conn, lane: Arc::clone(lane), _busy: busy })
    }

    async fn send(
        &self,
        conn: &mut ClientConn,
        head: bytes::BytesMut,
        body: Bytes,
        stall: Duration,
    ) -> Result<SendEnd, ExchangeError> {
        let progress = AtomicU64::new(self.clock.now().as_nanos());
        let sending = conn.send(head, body, || progress.store(self.clock.now().as_nanos(), Ordering::Relaxed));
        tokio::pin!(sending);
        loop {
            let until = Moment::from_nanos(progress.load(Ordering::Relaxed)) + stall;
            if let Some(end) = self.clock.by(until, &mut sending).await {
                return end.map_err(ExchangeError::Broken);
            }
            if Moment::from_nanos(progress.load(Ordering::Relaxed)) + stall <= self.clock.now() {
                return Err(ExchangeError::UploadStall);
            }
        }
    }
}
