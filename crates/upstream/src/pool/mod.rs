//! A thread's connections to its lanes, and a request's way over one of them.
//!
//! What a lane speaks is known after the first connection; until then one dial is under way and
//! everybody waits for it. HTTP/1.1: one request a connection, kept when it has ended. HTTP/2: many
//! requests a connection, each in a slot.
//!
//! A request that certainly was not taken up goes out again over another connection, which does not
//! count as an attempt: its kept connection was closed by the other side before one byte of an
//! answer, or the peer refused its stream, unread.

mod asking;
mod dialling;
mod lane_pool;
mod sending;
mod slots;

pub(crate) use lane_pool::{Idle, LanePool};
pub(crate) use slots::Slot;

use crate::exchange::{Exchange, ExchangeClocks, ExchangeError, Stage};
use crate::lane::Lane;
use crate::socket::Sockets;
use crate::upload::Upload;
use bytes::Bytes;
use lane_pool::Checkout;
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_observe::Metrics;
use tidegate_transport::{ClientError, Clock, Dial, Tasks};
use tidegate_wire::http::HeadWriter;

/// Times one request goes out again because it was not taken up: a peer that is going away may
/// refuse on a few connections in a row, one that refuses on more is broken.
pub(crate) const UNSENT_MAX: u32 = 3;

/// A pool's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolRules {
    /// Idle HTTP/1.1 connections kept for one lane by one thread.
    pub idle_max: usize,
    /// How long an idle connection is kept (design: 60 s).
    pub idle_keep: Duration,
    /// From the open socket to the peer's SETTINGS, HTTP/2 only.
    pub http2_start: Duration,
    /// How long an HTTP/2 connection takes new streams, give or take a tenth: load balancers spread
    /// connections, not streams, so one that lives for ever pins its load to one machine.
    pub http2_age: Duration,
    /// From the open connection to the answer that opens a WebSocket.
    pub socket_start: Duration,
    /// How long a WebSocket takes new streams, give or take a tenth.
    pub socket_age: Duration,
    /// Between two pings of ours on a WebSocket (design: 15 s); dead after two unanswered ones.
    pub socket_ping: Duration,
    /// From our close of a WebSocket to the peer's.
    pub socket_close: Duration,
    /// WebSockets that a lane keeps open on one thread, whether anybody asks or not.
    pub socket_spares: usize,
    /// Streams on one WebSocket to another Tidegate.
    pub socket_streams: usize,
}

impl Default for PoolRules {
    fn default() -> Self {
        PoolRules {
            idle_max: 256,
            idle_keep: Duration::from_secs(60),
            http2_start: Duration::from_secs(5),
            http2_age: Duration::from_secs(30 * 60),
            socket_start: Duration::from_secs(5),
            socket_age: Duration::from_secs(30 * 60),
            socket_ping: Duration::from_secs(15),
            socket_close: Duration::from_secs(5),
            socket_spares: 1,
            socket_streams: 100,
        }
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
    /// A body that comes while it goes out, in place of `body`.
    pub upload: Option<&'a Upload>,
    /// Whether it is a Messages request that asks for a stream.
    pub is_stream: bool,
    /// Adds the header lines; host, credential and length are the lane's.
    pub lines: &'a (dyn Fn(&mut HeadWriter<'_>) + Sync),
    /// The clocks it runs under.
    pub clocks: ExchangeClocks,
}

/// What a pool is built of.
pub struct PoolParts<'a> {
    /// The clock.
    pub clock: Clock,
    /// The way to the upstreams.
    pub dial: Arc<dyn Dial>,
    /// Its limits.
    pub rules: PoolRules,
    /// The lanes, by number, and whether each is used.
    pub lanes: &'a [(Arc<Lane>, bool)],
    /// Where connections and streams are counted.
    pub metrics: &'a Metrics,
    /// Where dials and HTTP/2 connections live.
    pub tasks: Tasks,
    /// Jitter.
    pub prng: Prng,
}

/// One thread's connections.
pub struct Pool {
    clock: Clock,
    lanes: Vec<Arc<LanePool>>,
    tasks: Tasks,
    kit: Kit,
}

/// What lanes that come later are made of.
struct Kit {
    dial: Arc<dyn Dial>,
    rules: PoolRules,
    metrics: Metrics,
    prng: Prng,
}

impl Pool {
    /// A pool without connections.
    pub fn new(parts: PoolParts<'_>) -> Self {
        let lanes = parts.lanes.iter().map(|(lane, is_open)| LanePool::of(lane, *is_open, &parts)).collect();
        let PoolParts { clock, dial, rules, metrics, tasks, prng, .. } = parts;
        Pool { clock, lanes, tasks, kit: Kit { dial, rules, metrics: metrics.clone(), prng } }
    }

    /// The same pool with these lanes: one that was there before keeps its connections. Those of one
    /// that is used no more are closed, when their last request has ended.
    pub fn renewed(&self, lanes: &[(Arc<Lane>, bool)]) -> Self {
        let Kit { dial, rules, metrics, prng } = &self.kit;
        let parts = PoolParts {
            clock: self.clock,
            dial: Arc::clone(dial),
            rules: *rules,
            lanes,
            metrics,
            tasks: self.tasks.clone(),
            prng: prng.clone(),
        };
        let renewed = lanes.iter().map(|(lane, is_open)| {
            let Some(known) = self.lanes.iter().find(|known| Arc::ptr_eq(&known.lane, lane)) else {
                let made = LanePool::of(lane, *is_open, &parts);
                made.sockets.iter().filter(|_| *is_open).for_each(Sockets::start);
                return made;
            };
            if *is_open {
                return Arc::clone(known);
            }
            known.close();
            Arc::clone(known)
        });
        let renewed: Vec<_> = renewed.collect();
        // What has no number any more, since it was never to be found by one again.
        for known in &self.lanes {
            if !lanes.iter().any(|(lane, _)| Arc::ptr_eq(&known.lane, lane)) {
                known.close();
            }
        }
        let kit = Kit { dial: Arc::clone(dial), rules: *rules, metrics: metrics.clone(), prng: prng.clone() };
        Pool { clock: self.clock, lanes: renewed, tasks: self.tasks.clone(), kit }
    }

    /// Begins to keep spare WebSockets open, on lanes that have any.
    pub fn start(&self) {
        self.lanes.iter().filter_map(|lane| lane.sockets.as_ref()).for_each(Sockets::start);
    }

    /// Closes connections that were idle for too long; those too old take no new streams.
    pub fn sweep(&self, now: Moment) {
        self.lanes.iter().for_each(|lane| lane.sweep(now));
    }

    /// Closes all idle connections, and those in use when their last stream has ended; there will
    /// be no new ones.
    pub fn close(&self) {
        self.lanes.iter().for_each(|lane| lane.close());
    }

    /// The tasks of its connections: none is left some time after [`Pool::close`].
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Sends `request` over the lane numbered `lane` and reads the answer's head. Dropping the
    /// future gives the exchange up and resets its stream or closes its connection.
    pub async fn exchange(
        &self,
        lane: usize,
        request: &Outgoing<'_>,
        told: impl Fn(Stage),
    ) -> Result<Exchange, ExchangeError> {
        let lane = &self.lanes[lane];
        if let Some(sockets) = &lane.sockets {
            match asking::ask(&lane.lane, request) {
                Ok(Some(ask)) => return sockets.exchange(request, &ask, &told).await,
                Ok(None) => {}
                Err(e) => return Err(ExchangeError::Broken(e)),
            }
        }
        let mut unsent = 0;
        // What was taken of an upload cannot be sent again, so it does not go over a connection that
        // may have been closed while it rested.
        let mut fresh = request.upload.is_some();
        loop {
            told(Stage::Connecting);
            let (done, kept) = match lane.checkout(fresh).await.map_err(ExchangeError::Dial)? {
                Checkout::Http1 { conn, kept } => (sending::http1(self.clock, lane, conn, request, &told).await, kept),
                Checkout::Http2 { slot, rested } => {
                    (sending::http2(self.clock, lane, slot, request, &told).await, rested)
                }
            };
            match done {
                Err(ExchangeError::Broken(ClientError::Unsent))
                    if unsent < UNSENT_MAX && !request.upload.is_some_and(Upload::has_begun) =>
                {
                    unsent += 1;
                }
                Err(ExchangeError::Broken(ClientError::ClosedEarly { any: false } | ClientError::Io(_)))
                    if kept && !fresh =>
                {
                    fresh = true;
                }
                done => return done,
            }
        }
    }
}
