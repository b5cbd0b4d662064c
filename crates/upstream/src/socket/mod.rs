//! A lane's WebSockets on one thread: `tidegate.v1` to another Tidegate, many streams over few
//! sockets, or the simple dialect, a prompt at a time on each.
//!
//! | part | what it knows |
//! |---|---|
//! | `inbox` | what has come for one stream |
//! | `link`, `driver` | one socket: as its users see it, and the task that owns it |
//! | `many`, `single` | the two dialects |
//! | `opening` | from nothing to an open socket |
//! | `places` | when one more is dialled |
//!
//! Above here nobody knows: an answer is a head and the bytes of Server-Sent Events. What certainly
//! was not taken up goes out again over another socket, which does not count as an attempt.

mod driver;
mod inbox;
mod link;
mod many;
mod opening;
mod places;
mod single;

pub(crate) use link::{Ask, SocketStream};
pub(crate) use places::SocketSlot;

use crate::exchange::{Counted, Exchange, ExchangeError, Stage, Way};
use crate::lane::{Lane, Transport};
use crate::pool::{Outgoing, PoolParts, PoolRules, UNSENT_MAX};
use crate::shelf::{SharedShelf, Shelf, Taken, closed, failed};
use opening::NotOpened;
use places::{Grant, Places};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::convert::Infallible;
use std::sync::Arc;
use tidegate_base::Moment;
use tidegate_transport::{ClientError, Clock, Dial, DialStage, Target, TaskKind, Tasks};
use tokio::sync::Notify;

const DIALLING: TaskKind = TaskKind {
    name: "upstream socket dial",
    on_cancel: "gives the socket up; nobody waits any more",
    on_error: "those who wait are told; without them the next one waits 1 s, 2 s, 4 s ...",
};

const KEEPER: TaskKind = TaskKind {
    name: "upstream socket keeper",
    on_cancel: "ends; what is missing is dialled by whoever asks",
    on_error: "cannot fail",
};

/// The WebSockets of one lane on one thread.
pub(crate) struct Sockets {
    lane: Arc<Lane>,
    target: Target,
    streams_max: usize,
    streams: Gauge,
    opened: Counter,
    failed: Counter,
    shelf: SharedShelf<Places>,
    /// Tells the keeper that there may be something to dial later.
    put_off: Notify,
    clock: Clock,
    dial: Arc<dyn Dial>,
    rules: PoolRules,
    tasks: Tasks,
}

impl Sockets {
    /// None, for `lane`, on which WebSockets are spoken.
    pub(crate) fn new(lane: &Arc<Lane>, parts: &PoolParts<'_>) -> Arc<Self> {
        let (metrics, rules) = (parts.metrics, parts.rules);
        let (busy, idle) = (metrics.lane_gauge(&lane.label, "busy"), metrics.lane_gauge(&lane.label, "idle"));
        let streams_max = if lane.transport() == Transport::Tidegate { rules.socket_streams.max(1) } else { 1 };
        let prng = parts.prng.fork(&format!("sockets {}", lane.label));
        let places = Places { spares: rules.socket_spares };
        Arc::new(Sockets {
            lane: Arc::clone(lane),
            target: lane.socket_target(),
            streams_max,
            streams: metrics.lane_streams(&lane.label),
            opened: metrics.connect_counter(&lane.label, "opened"),
            failed: metrics.connect_counter(&lane.label, "failed"),
            shelf: SharedShelf::new(Shelf::new(places, streams_max, prng, (busy, idle))),
            put_off: Notify::new(),
            clock: parts.clock,
            dial: Arc::clone(&parts.dial),
            rules,
            tasks: parts.tasks.clone(),
        })
    }

    /// Begins to keep spares open.
    pub(crate) fn start(self: &Arc<Self>) {
        if self.rules.socket_spares > 0 {
            let sockets = Arc::clone(self);
            self.tasks.spawn(&KEEPER, async move {
                sockets.shelf.unless_closed(sockets.keep()).await;
            });
        }
    }

    /// Dials what was put off, when its time has come.
    async fn keep(self: &Arc<Self>) -> Infallible {
        loop {
            self.dial_now();
            let due = self.dials_due();
            let later = async {
                match due {
                    Some(due) => self.clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.put_off.notified() => {}
                () = later => {}
            }
        }
    }

    /// Begins the dials that are needed now, and leaves those of later to the keeper.
    fn dial_as_needed(self: &Arc<Self>) {
        self.dial_now();
        if self.dials_due().is_some() {
            self.put_off.notify_one();
        }
    }

    fn dials_due(&self) -> Option<Moment> {
        places::dials_due(&self.shelf.lock(), self.clock.now())
    }

    fn dial_now(self: &Arc<Self>) {
        self.shelf.begin_dials(self.clock.now(), || self.tasks.spawn(&DIALLING, Arc::clone(self).dialled()));
    }

    async fn dialled(self: Arc<Self>) {
        let Some(opened) = self.shelf.dialled(self.open()).await else { return };
        if opened.is_ok() { &self.opened } else { &self.failed }.inc();
        let now = self.clock.now();
        match opened {
            Ok((id, link)) => {
                let added = self.shelf.lock().add(id, link, now, self.rules.socket_age);
                if !added {
                    let error = failed(DialStage::Socket, "it closed at once".to_owned());
                    self.shelf.dial_failed(now, || Grant::Failed(error.clone()));
                }
            }
            Err(NotOpened::Failed(error)) => self.shelf.dial_failed(now, || Grant::Failed(error.clone())),
            Err(NotOpened::Refused(refusal)) => {
                let refusal = Arc::new(refusal);
                self.shelf.dial_failed(now, || Grant::Refused(Arc::clone(&refusal)));
            }
        }
        self.serve();
        self.dial_as_needed();
    }

    /// A socket takes no new streams, or is gone.
    fn changed(self: &Arc<Self>, id: u64, gone: bool) {
        if gone {
            places::forget(&mut self.shelf.lock(), id, self.clock.now());
        }
        self.serve();
        self.dial_as_needed();
    }

    pub(crate) fn sweep(self: &Arc<Self>, now: Moment) {
        self.shelf.lock().sweep(now, self.rules.idle_keep, self.rules.socket_spares);
        self.dial_as_needed();
    }

    /// Lets all sockets go, those in use when their last stream has ended; there will be no new ones.
    pub(crate) fn close(&self) {
        self.shelf.close();
    }

    /// A place, now or after waiting; or what a dial had to say.
    async fn grant(self: &Arc<Self>) -> Grant {
        let granted = self.shelf.grant(|| self.free(), || self.dial_as_needed()).await;
        granted.unwrap_or_else(|| Grant::Failed(closed()))
    }

    fn free(self: &Arc<Self>) -> Option<Grant> {
        let Taken { member, carrier, .. } = self.shelf.lock().take(self.clock.now())?;
        let (link, sockets) = (carrier, Arc::clone(self));
        Some(Grant::Slot(SocketSlot { link, sockets, member, _stream: Counted::new(&self.streams) }))
    }

    fn slot_freed(self: &Arc<Self>, member: u64) {
        self.shelf.lock().give_back(member, self.clock.now());
        self.serve();
    }

    /// Gives free places to those who wait.
    fn serve(self: &Arc<Self>) {
        self.shelf.serve(|| self.free());
    }

    /// Sends `ask` over one of the sockets and reads the answer's head.
    pub(crate) async fn exchange(
        self: &Arc<Self>,
        request: &Outgoing<'_>,
        ask: &Ask,
        told: &impl Fn(Stage),
    ) -> Result<Exchange, ExchangeError> {
        let mut unsent = 0;
        loop {
            told(Stage::Connecting);
            let slot = match self.grant().await {
                Grant::Slot(slot) => slot,
                Grant::Failed(e) => return Err(ExchangeError::Dial(e)),
                Grant::Refused(refusal) => {
                    let way = Way::Said { body: refusal.body.clone() };
                    return Ok(Exchange::new(&self.lane, refusal.head.clone(), way));
                }
            };
            match self.send(slot, request, ask, told).await {
                Err(ExchangeError::Broken(ClientError::Unsent)) if unsent < UNSENT_MAX => unsent += 1,
                done => return done,
            }
        }
    }

    async fn send(
        &self,
        slot: SocketSlot,
        request: &Outgoing<'_>,
        ask: &Ask,
        told: &impl Fn(Stage),
    ) -> Result<Exchange, ExchangeError> {
        let began = self.clock.now();
        // Declared after the slot: whatever happens, the stream ends before its place is free.
        let stream = Box::new(slot.link.begin(ask.clone()).map_err(ExchangeError::Broken)?);
        let stall = request.clocks.upload_stall;
        let sent = self.while_going_on(stream.sent(), || slot.link.progress().max(began) + stall).await;
        if sent.is_none() {
            // The connection takes nothing: nobody else should have to find out.
            slot.link.retire();
        }
        sent.ok_or(ExchangeError::UploadStall)?.map_err(ExchangeError::Broken)?;
        told(Stage::Sent);
        let sent_at = self.clock.now();
        // Who waits with the peer has its first byte when its turn has come.
        let due = || match request.clocks.first_byte {
            Some(span) => stream.waits_until().unwrap_or(sent_at).max(sent_at) + span,
            None => Moment::NEVER,
        };
        let head = self.while_going_on(stream.read_head(), due).await;
        let head = head.ok_or(ExchangeError::FirstByte)?.map_err(ExchangeError::Broken)?;
        Ok(Exchange::new(&self.lane, head, Way::Socket { stream, _slot: slot }))
    }

    /// `future`'s answer, as long as `due`, which may move, has not passed.
    async fn while_going_on<F: Future>(&self, future: F, due: impl Fn() -> Moment) -> Option<F::Output> {
        tokio::pin!(future);
        loop {
            if let Some(done) = self.clock.by(due(), &mut future).await {
                return Some(done);
            }
            if due() <= self.clock.now() {
                return None;
            }
        }
    }
}
