//! Starting, accepting, draining.
//!
//! In production one acceptor deals new connections to data-plane threads, each a current-thread
//! runtime of its own, to the one with the fewest of them and of HTTP/2 streams; a kernel hash over few long-lived connections
//! would leave a core idle. In a World test everything runs on the caller's runtime. Either way a
//! connection permit is taken before a connection is accepted.

use crate::accepting::Accepting;
use crate::connection::connection;
use crate::costs::{self, UsageFile};
use crate::house::{House, Leaving};
use crate::memory::{ERRANDS, UPKEEP, run_errands, upkeep};
use crate::operators::Wishes;
use crate::plane::{CONNECTION, POOL_GRACE, Plane, REPORT, SWEEP, Thread};
use crate::renewal::Current;
use crate::settings::Settings;
use crate::succession::{self, Claim, Claimed, Word};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tidegate_observe::{Live, Metrics, NoRecords, Records};
use tidegate_store::{Store, StoreError};
use tidegate_transport::{Accepted, Clock, Dial, Listen, TaskKind, Tasks};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Connections on their way to a thread.
const DEALT_MAX: usize = 1024;
/// After the drain's time is over, how long cancelled streams have to tell their clients.
const CANCELLED_GRACE: Duration = Duration::from_secs(5);
/// How long it may take to write what was used when everybody has left.
const WRITTEN_MAX: Duration = Duration::from_secs(5);
/// A pause after an accept that failed (out of file descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const ALARM: TaskKind =
    TaskKind { name: "scheduler alarm", on_cancel: "ends with the process", on_error: "cannot fail" };
const ACCEPTOR: TaskKind =
    TaskKind { name: "acceptor", on_cancel: "closes the listening socket", on_error: "pauses 50 ms and accepts again" };

/// The gateway could not be set up.
#[derive(Debug)]
pub struct SetupError(String);

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SetupError {}

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Streams that were cut because the time was over.
    pub cut: usize,
}

/// A gateway: its house and its planes.
#[derive(Clone)]
pub struct Gateway {
    current: Current,
    dial: Arc<dyn Dial>,
    /// Connections and streams, on all threads; awaited by a drain.
    connections: Tasks,
    /// Everything that lives as long as the process.
    background: Tasks,
    /// Every thread that was made and still lives.
    threads: Arc<Mutex<Vec<Weak<Thread>>>>,
    accepting: Arc<Accepting>,
    /// What operators wish of whoever runs it.
    pub(crate) wishes: Arc<Wishes>,
}

impl Gateway {
    /// A gateway that serves nobody yet and keeps no records. `dial` is the way to the upstreams.
    pub fn new(settings: Settings, clock: Clock, dial: Arc<dyn Dial>) -> Self {
        Gateway::recording(settings, clock, dial, Arc::new(NoRecords))
    }

    /// The same, with somebody who keeps a record of every request.
    pub fn recording(settings: Settings, clock: Clock, dial: Arc<dyn Dial>, records: Arc<dyn Records>) -> Self {
        Gateway::remembering(settings, clock, dial, records, None)
    }

    /// The same, with a log that conversations are kept in.
    pub fn remembering(
        settings: Settings,
        clock: Clock,
        dial: Arc<dyn Dial>,
        records: Arc<dyn Records>,
        store: Option<Store>,
    ) -> Self {
        Gateway::of(House::new(clock, settings, records, store, UsageFile::Memory), dial)
    }

    /// The same, with a place where it is kept what was used, after that was read.
    pub async fn keeping(
        settings: Settings,
        clock: Clock,
        dial: Arc<dyn Dial>,
        records: Arc<dyn Records>,
        store: Option<Store>,
        usage: UsageFile,
    ) -> Result<Self, SetupError> {
        let house = House::new(clock, settings, records, store, usage);
        let read = house.costs.restore(&house.memory).await;
        read.map_err(|e| SetupError(format!("what was used cannot be read: {e}")))?;
        Ok(Gateway::of(house, dial))
    }

    fn of(house: House, dial: Arc<dyn Dial>) -> Self {
        Gateway {
            current: Current::new(Arc::new(house)),
            dial,
            connections: Tasks::new(),
            background: Tasks::new(),
            threads: Arc::default(),
            accepting: Arc::default(),
            wishes: Arc::default(),
        }
    }

    /// Everything, under the settings of now.
    pub(crate) fn house(&self) -> Arc<House> {
        self.current.house()
    }

    /// Serves under `settings` from now on: requests that come have them, those under way keep what they
    /// began with. What cannot change while the process runs stays as it was ([`Settings::fixed`]).
    pub fn renew(&self, settings: Settings) -> Result<(), SetupError> {
        self.current.renew(settings).map_err(SetupError)
    }

    /// Its metrics.
    pub fn metrics(&self) -> Metrics {
        self.house().metrics.clone()
    }

    /// Its live requests.
    pub fn live(&self) -> Live {
        self.house().live.clone()
    }

    /// How long a drain that begins now waits for streams.
    pub fn drain_time(&self) -> Duration {
        self.house().settings.clocks.drain
    }

    /// Brings the gauges that are read, not counted, up to date.
    pub fn refresh_gauges(&self) {
        self.house().refresh_gauges();
    }

    /// Bytes held of bodies and backlogs, leases out, requests waiting: all zero at rest.
    pub fn held(&self) -> (u64, u64, u64, usize) {
        let house = self.house();
        let (waiting, leased) = house.admission.counts();
        (house.bodies.used(), house.backlogs.used(), leased, waiting)
    }

    /// The living tasks that belong to connections, of clients and to upstreams.
    pub fn living(&self) -> BTreeMap<&'static str, usize> {
        let mut living = self.connections.living();
        for thread in self.threads() {
            for (name, count) in thread.pool().tasks().living() {
                *living.entry(name).or_default() += count;
            }
        }
        living
    }

    fn plane(&self, number: u8) -> Arc<Plane> {
        let plane = Plane::new(self.current.clone(), Arc::clone(&self.dial), self.connections.clone(), number);
        let plane = Arc::new(plane);
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&plane.thread));
        plane
    }

    fn threads(&self) -> Vec<Arc<Thread>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }

    /// Serves connections from `listen` on this runtime, in tasks of their own.
    pub fn serve_here(&self, listen: Box<dyn Listen>) {
        let plane = self.plane(0);
        self.background.spawn(&ALARM, self.house().admission.clone().run());
        self.background.spawn(&SWEEP, Arc::clone(&plane).sweep());
        self.background.spawn(&REPORT, Arc::clone(&plane).report());
        self.background.spawn(&ERRANDS, run_errands(Arc::clone(&plane)));
        self.keep_up();
        let deal = move |accepted, permit| {
            let counted = plane.count();
            plane.thread.tasks.spawn(&CONNECTION, connection(plane.now(), accepted, permit, counted));
            std::future::ready(())
        };
        self.background.spawn(&ACCEPTOR, self.clone().accept(listen, deal));
    }

    /// Serves connections from `listen` on `threads` data-plane threads; the acceptor and the
    /// scheduler's alarm stay on this runtime. The threads end when the acceptor has ended and
    /// their last connection with it.
    pub fn serve_on_threads(&self, listen: Box<dyn Listen>, threads: u8) -> Result<(), SetupError> {
        let mut planes = Vec::new();
        for number in 0..threads.max(1) {
            let plane = self.plane(number);
            let (deal, dealt) = mpsc::channel(DEALT_MAX);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|e| SetupError(format!("a data-plane runtime could not be made: {e}")))?;
            let on_thread = Arc::clone(&plane);
            std::thread::Builder::new()
                .name(format!("plane-{number}"))
                .spawn(move || runtime.block_on(run_plane(on_thread, dealt)))
                .map_err(|e| SetupError(format!("a data-plane thread could not be started: {e}")))?;
            planes.push((plane, deal));
        }
        self.background.spawn(&ALARM, self.house().admission.clone().run());
        self.keep_up();
        let deal = move |accepted: Accepted, permit: OwnedSemaphorePermit| {
            let least = planes.iter().min_by_key(|(plane, _)| plane.thread.load());
            let sent = least.map(|(plane, deal)| (plane.count(), deal.clone()));
            async move {
                if let Some((counted, deal)) = sent {
                    // A thread that is gone cannot serve; its connection closes.
                    let _ = deal.send((accepted, permit, counted)).await;
                }
            }
        };
        self.background.spawn(&ACCEPTOR, self.clone().accept(listen, deal));
        Ok(())
    }

    /// Sees to what is kept in files, if something is.
    fn keep_up(&self) {
        let house = self.house();
        if house.costs.is_kept(&house.memory) {
            self.background.spawn(&costs::KEEPER, costs::keep(Arc::clone(&house)));
        }
        if house.memory.store().is_ok() {
            self.background.spawn(&UPKEEP, upkeep(self.current.clone()));
        }
    }

    /// Accepts until the process begins to leave, but for when it is to rest.
    async fn accept<D, F>(self, mut listen: Box<dyn Listen>, deal: D)
    where
        D: Fn(Accepted, OwnedSemaphorePermit) -> F + Send,
        F: Future<Output = ()> + Send,
    {
        // What is used of it here is the same in every generation.
        let house = self.house();
        let accepts = self.accepting.begins();
        loop {
            let next = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&house.connection_permits).acquire_owned().await.ok()?;
                Some((listen.accept().await, permit))
            };
            let next = tokio::select! {
                biased;
                () = house.leave_begun() => return,
                () = accepts.to_rest() => {
                    tokio::select! {
                        biased;
                        () = house.leave_begun() => return,
                        () = accepts.rest() => continue,
                    }
                }
                next = next => next,
            };
            match next {
                Some((Ok(accepted), permit)) => deal(accepted, permit).await,
                Some((Err(e), _)) => {
                    tracing::warn!(target: "tidegate::door", error = %e, "a connection could not be accepted");
                    house.clock.sleep_until(house.clock.now() + ACCEPT_PAUSE).await;
                }
                None => return,
            }
        }
    }

    /// Stops accepting, lets streams end for the drain's time, then cuts what is left, telling
    /// each client; at last closes the connections to upstreams.
    pub async fn drain(&self) -> Drained {
        self.end(Leaving::Draining, self.drain_time()).await
    }

    /// Stops accepting, since another process does; serves what comes on connections that are there,
    /// each for one more request, and lets all end, for `within` at most. As long as the process before
    /// this one has not ended, this one stays too: what the next claims may be that one's. Then as
    /// [`Gateway::drain`].
    pub async fn hand_over(&self, within: Duration) -> Drained {
        self.end(Leaving::HandedOver, within).await
    }

    /// Accepts nothing for the time being: another process is about to, from the same sockets. When this
    /// returns, the last connection that was accepted is on its thread.
    pub async fn accepts_no_more(&self) {
        self.accepting.rest().await;
    }

    /// Accepts again: the process that was about to has ended before it did. What it was given is this
    /// process' again.
    pub fn accepts_again(&self) {
        self.house().memory.succession.take_back();
        self.accepting.go_on();
    }

    /// Another process accepts in the place of this one: from now on this one goes.
    pub fn handed_over(&self) {
        self.house().leave(Leaving::HandedOver);
    }

    /// Waits for a drain to begin.
    pub async fn drain_begun(&self) {
        self.house().drain_begun().await;
    }

    /// How long [`Gateway::hand_over`] is to wait, by the settings of now.
    pub fn hand_over_time(&self) -> Duration {
        self.house().settings.clocks.hand_over
    }

    /// There is a process before this one that has not ended yet: what it holds is asked for.
    pub fn follows(&self, elder: mpsc::Sender<Claim>) {
        self.house().memory.succession.follows(elder);
    }

    /// This process' word on what the one after it claims; it may come as late as a turn ends.
    pub async fn answer(&self, claimed: Claimed) -> Word {
        succession::answer(&self.house(), claimed).await
    }

    /// The log of conversations, as its right to write is passed on to the process after this one; `None`
    /// if there is none.
    pub fn share_log(&self) -> Option<Result<(PathBuf, OwnedFd), StoreError>> {
        self.house().memory.store().ok().map(Store::share)
    }

    /// Says beside the log of conversations that this process holds it: one that it was passed on to has
    /// ended, and had said so of itself.
    pub fn holds_log(&self) -> Result<(), StoreError> {
        self.house().memory.store().map_or(Ok(()), Store::holds)
    }

    async fn end(&self, how: Leaving, within: Duration) -> Drained {
        let drained = self.drain_streams(how, within).await;
        let house = self.house();
        let written = house.clock.within(WRITTEN_MAX, house.costs.write(&house.memory)).await;
        if !matches!(written, Some(Ok(()))) {
            tracing::error!(target: "tidegate::costs", ?written, "what was used last could not be written");
        }
        let pools: Vec<_> = self.threads().iter().map(|thread| thread.pool()).collect();
        pools.iter().for_each(|pool| pool.close());
        let gone = async {
            for pool in &pools {
                pool.tasks().all_ended().await;
            }
        };
        house.clock.within(POOL_GRACE, gone).await;
        drained
    }

    async fn drain_streams(&self, how: Leaving, within: Duration) -> Drained {
        let house = self.house();
        let clock = house.clock;
        house.leave(how);
        let mut cut = 0;
        if clock.within(within, self.connections.all_ended()).await.is_none() {
            house.metrics.clock_expired("drain");
            house.leave(Leaving::Draining);
            cut = house.live.len();
            house.live.cancel_all();
            clock.within(CANCELLED_GRACE, self.connections.all_ended()).await;
        }
        let succession = &house.memory.succession;
        if how == Leaving::HandedOver && succession.has_elder() {
            // That one has a clock of its own, and what is asked of it comes through here.
            succession.elder_ended().await;
        }
        Drained { cut }
    }
}

/// One data-plane thread: takes connections until there are no more to come and none is left.
async fn run_plane(
    plane: Arc<Plane>,
    mut dealt: mpsc::Receiver<(Accepted, OwnedSemaphorePermit, crate::plane::Counted)>,
) {
    let local = Tasks::new();
    let sweep = local.spawn(&SWEEP, Arc::clone(&plane).sweep());
    let report = local.spawn(&REPORT, Arc::clone(&plane).report());
    let errands = local.spawn(&ERRANDS, run_errands(Arc::clone(&plane)));
    while let Some((accepted, permit, counted)) = dealt.recv().await {
        plane.thread.tasks.spawn(&CONNECTION, connection(plane.now(), accepted, permit, counted));
    }
    plane.thread.tasks.all_ended().await;
    plane.close_pool().await;
    sweep.abort();
    report.abort();
    errands.abort();
}
