//! One lane's connections on one thread: kept and handed out.
//!
//! Idle HTTP/1.1 connections are taken last in, first out, so that a quiet hour lets the rest grow
//! old and be swept; one is looked at before use, since the other side may have closed it. Each
//! request without one dials its own. HTTP/2 connections stand on the [`crate::shelf`]; a request
//! takes a slot on one of them or waits for it.

use super::dialling::Opened;
use super::slots::{Grant, Protocol, STREAMS_EXPECTED, Slot, Slots};
use super::{PoolParts, PoolRules};
use crate::exchange::Counted;
use crate::lane::{Lane, Transport};
use crate::shelf::{SharedShelf, Shelf, Taken, closed};
use crate::socket::Sockets;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use tidegate_base::Moment;
use tidegate_transport::http1::ClientConn;
use tidegate_transport::{Clock, Dial, DialError, HttpOffer, Tasks};

/// An HTTP/1.1 connection that waits for its next request.
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

/// A connection for one request. `kept` and `rested` say that it was idle, and so may have been
/// closed by the other side.
pub(super) enum Checkout {
    Http1 { conn: ClientConn, kept: bool },
    Http2 { slot: Slot, rested: bool },
}

/// One lane of one thread.
pub(crate) struct LanePool {
    pub(super) lane: Arc<Lane>,
    pub(super) busy: Gauge,
    idle_gauge: Gauge,
    streams: Gauge,
    pub(super) opened: Counter,
    pub(super) failed: Counter,
    idle: Mutex<Vec<Idle>>,
    pub(super) shelf: SharedShelf<Slots>,
    pub(super) clock: Clock,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) rules: PoolRules,
    pub(super) tasks: Tasks,
    /// Its WebSockets, where they are spoken.
    pub(super) sockets: Option<Arc<Sockets>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LanePool {
    /// A lane that is used, or one of which only the number is left.
    pub(super) fn of(lane: &Arc<Lane>, is_open: bool, parts: &PoolParts<'_>) -> Arc<Self> {
        let made = LanePool::new(lane, parts);
        if !is_open {
            made.close();
        }
        made
    }

    fn new(lane: &Arc<Lane>, parts: &PoolParts<'_>) -> Arc<Self> {
        let metrics = parts.metrics;
        let (busy, idle) = (metrics.lane_gauge(&lane.label, "busy"), metrics.lane_gauge(&lane.label, "idle"));
        let protocol = match (lane.target.http, lane.target.tls) {
            (HttpOffer::Http1, _) | (HttpOffer::Auto, false) => Protocol::Http1,
            (HttpOffer::Auto, true) => Protocol::Unknown,
            (HttpOffer::Http2, _) => Protocol::Http2,
        };
        let gauges = (busy.clone(), idle.clone());
        let shelf = Shelf::new(Slots { protocol }, STREAMS_EXPECTED, parts.prng.fork(&lane.label), gauges);
        Arc::new(LanePool {
            lane: Arc::clone(lane),
            busy,
            idle_gauge: idle,
            streams: metrics.lane_streams(&lane.label),
            opened: metrics.connect_counter(&lane.label, "opened"),
            failed: metrics.connect_counter(&lane.label, "failed"),
            idle: Mutex::default(),
            shelf: SharedShelf::new(shelf),
            clock: parts.clock,
            dial: Arc::clone(&parts.dial),
            rules: parts.rules,
            tasks: parts.tasks.clone(),
            sockets: (lane.transport() != Transport::Http).then(|| Sockets::new(lane, parts)),
        })
    }

    /// Keeps an HTTP/1.1 connection for the next request.
    pub(crate) fn keep(&self, idle: Idle) {
        let mut kept = locked(&self.idle);
        if kept.len() < self.rules.idle_max && !self.shelf.lock().closed {
            kept.push(idle);
        }
    }

    pub(super) fn sweep(self: &Arc<Self>, now: Moment) {
        locked(&self.idle).retain(|idle| now.since(idle.since) < self.rules.idle_keep);
        self.shelf.lock().sweep(now, self.rules.idle_keep, 0);
        self.dial_as_needed();
        if let Some(sockets) = &self.sockets {
            sockets.sweep(now);
        }
    }

    pub(super) fn close(&self) {
        if let Some(sockets) = &self.sockets {
            sockets.close();
        }
        self.shelf.close();
        locked(&self.idle).clear();
    }

    /// A connection for one request; with `fresh`, none that rested.
    pub(super) async fn checkout(self: &Arc<Self>, fresh: bool) -> Result<Checkout, DialError> {
        loop {
            let protocol = self.shelf.lock().policy.protocol;
            if protocol == Protocol::Http1 {
                if let Some(checkout) = self.http1(fresh).await? {
                    return Ok(checkout);
                }
                // The dial found HTTP/2 and put it on the shelf.
                continue;
            }
            match self.grant().await {
                Grant::Slot(slot) => return Ok(Checkout::Http2 { rested: slot.rested, slot }),
                Grant::Http1(Some(io)) => return Ok(Checkout::Http1 { conn: ClientConn::new(io), kept: false }),
                Grant::Http1(None) => {}
                Grant::Failed(e) => return Err(e),
            }
        }
    }

    async fn http1(self: &Arc<Self>, fresh: bool) -> Result<Option<Checkout>, DialError> {
        if !fresh && let Some(conn) = self.kept().await {
            return Ok(Some(Checkout::Http1 { conn, kept: true }));
        }
        let dialled = self.open().await;
        if dialled.is_ok() { &self.opened } else { &self.failed }.inc();
        match dialled? {
            Opened::Http1(io) => Ok(Some(Checkout::Http1 { conn: ClientConn::new(io), kept: false })),
            Opened::Http2(id, conn) => {
                self.add(id, conn);
                Ok(None)
            }
        }
    }

    /// A connection that was idle and still is good.
    async fn kept(&self) -> Option<ClientConn> {
        let now = self.clock.now();
        loop {
            let mut idle = locked(&self.idle).pop()?;
            let fresh = now.since(idle.since) < self.rules.idle_keep;
            if fresh && poll_fn(|cx| Poll::Ready(idle.conn.is_quiet(cx))).await {
                return Some(idle.conn);
            }
        }
    }

    /// A slot, now or after waiting; or what a dial had to say.
    async fn grant(self: &Arc<Self>) -> Grant {
        let granted = self.shelf.grant(|| self.free(), || self.dial_as_needed()).await;
        granted.unwrap_or_else(|| Grant::Failed(closed()))
    }

    fn free(self: &Arc<Self>) -> Option<Grant> {
        let Taken { member, carrier, rested } = self.shelf.lock().take(self.clock.now())?;
        let (conn, lane) = (carrier, Arc::clone(self));
        Some(Grant::Slot(Slot { conn, lane, member, rested, _stream: Counted::new(&self.streams) }))
    }

    pub(super) fn slot_freed(self: &Arc<Self>, member: u64) {
        self.shelf.lock().give_back(member, self.clock.now());
        self.serve();
    }

    /// Gives free slots to those who wait.
    pub(super) fn serve(self: &Arc<Self>) {
        self.shelf.serve(|| self.free());
    }
}
