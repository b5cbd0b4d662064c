//! What one data-plane thread owns: its connections to the upstreams, its ids, its dice.
//!
//! A client's connection and its upstream exchange live on one thread, so nothing here is ever
//! waited for; the locks only let the code stay `Send`.

use crate::house::House;
use crate::progress::Progress;
use crate::renewal::Current;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_base::{IdSource, Prng, RequestId, StreamId};
use tidegate_transport::{Dial, TaskKind, Tasks};
use tidegate_upstream::{Pool, PoolParts};

/// How often idle upstream connections, and ended streams, are looked through for old ones.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// How long HTTP/2 connections may take to say goodbye when a plane ends; a peer that does not read
/// is left by then.
pub(crate) const POOL_GRACE: Duration = Duration::from_secs(6);

/// The sweeper of one plane.
pub(crate) const SWEEP: TaskKind = TaskKind {
    name: "pool sweep",
    on_cancel: "ends with its thread; what it would have closed is closed with the pool",
    on_error: "cannot fail",
};

/// Who tells the scheduler what one plane's streams produce.
pub(crate) const REPORT: TaskKind = TaskKind {
    name: "output progress",
    on_cancel: "ends with its thread; leases are settled with what the upstream says",
    on_error: "cannot fail",
};

/// One client connection.
pub(crate) const CONNECTION: TaskKind = TaskKind {
    name: "client connection",
    on_cancel: "its stream's upstream exchange is closed, its leases go back",
    on_error: "its client sees a closed connection; nobody else notices",
};

/// One stream of a client's HTTP/2 connection.
pub(crate) const STREAM: TaskKind = TaskKind {
    name: "client stream",
    on_cancel: "its upstream exchange is closed, its leases go back",
    on_error: "its client sees the stream reset; its connection's other streams go on",
};

/// One data-plane thread under one generation of settings: what a request has from its beginning to
/// its end. Its thread's own things are the same in every generation.
#[derive(Clone)]
pub(crate) struct Plane {
    pub(crate) house: Arc<House>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) thread: Arc<Thread>,
}

/// One data-plane thread's own things.
pub(crate) struct Thread {
    current: Current,
    /// The generation that was last looked at here.
    latest: Mutex<(Arc<House>, Arc<Pool>)>,
    pub(crate) tasks: Tasks,
    pub(crate) progress: Progress,
    ids: Mutex<IdSource>,
    prng: Mutex<Prng>,
    load: AtomicUsize,
}

impl Thread {
    /// Its connections to upstreams, as of the generation it looked at last.
    pub(crate) fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.latest.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// Client connections and their HTTP/2 streams on this thread.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }
}

impl Plane {
    /// The plane numbered `number`.
    pub(crate) fn new(current: Current, dial: Arc<dyn Dial>, tasks: Tasks, number: u8) -> Self {
        let house = current.house();
        let settings = &house.settings;
        let prng = Prng::new(settings.seed).fork(&format!("plane {number}"));
        let pool = Arc::new(Pool::new(PoolParts {
            clock: house.clock,
            dial,
            rules: settings.pool,
            lanes: &house.lanes(),
            metrics: &house.metrics,
            tasks: Tasks::new(),
            prng: prng.fork("pool"),
        }));
        let thread = Thread {
            current,
            latest: Mutex::new((Arc::clone(&house), Arc::clone(&pool))),
            ids: Mutex::new(IdSource::new(prng.fork("ids"), number)),
            prng: Mutex::new(prng.fork("jitter")),
            load: AtomicUsize::new(0),
            progress: Progress::default(),
            tasks,
        };
        Plane { house, pool, thread: Arc::new(thread) }
    }

    /// The same thread under the settings of now. Called on the thread itself: a pool may begin to dial.
    pub(crate) fn now(self: &Arc<Self>) -> Arc<Self> {
        let current = self.thread.current.house();
        if Arc::ptr_eq(&current, &self.house) {
            return Arc::clone(self);
        }
        let mut latest = self.thread.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&latest.0, &current) {
            let pool = Arc::new(latest.1.renewed(&current.lanes()));
            *latest = (current, pool);
        }
        let (house, pool) = latest.clone();
        Arc::new(Plane { house, pool, thread: Arc::clone(&self.thread) })
    }

    pub(crate) fn new_ids(&self) -> (RequestId, StreamId) {
        let mut ids = self.thread.ids.lock().unwrap_or_else(PoisonError::into_inner);
        (ids.request(), ids.stream())
    }

    pub(crate) fn with_prng<T>(&self, work: impl FnOnce(&mut Prng) -> T) -> T {
        work(&mut self.thread.prng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Closes the pool and waits until its connections are gone, or have had their time.
    pub(crate) async fn close_pool(&self) {
        let pool = self.thread.pool();
        pool.close();
        self.house.clock.within(POOL_GRACE, pool.tasks().all_ended()).await;
    }

    /// A connection was dealt to this thread; counted until the guard is dropped.
    pub(crate) fn count(self: &Arc<Self>) -> Counted {
        self.thread.load.fetch_add(1, Ordering::Relaxed);
        self.house.metrics.client(1);
        Counted { plane: Arc::clone(self), is_stream: false }
    }

    /// A stream began on one of this thread's connections.
    pub(crate) fn count_stream(self: &Arc<Self>) -> Counted {
        self.thread.load.fetch_add(1, Ordering::Relaxed);
        self.house.metrics.client_stream(1);
        Counted { plane: Arc::clone(self), is_stream: true }
    }

    /// Tells the scheduler what this thread's streams produce, until it is dropped.
    pub(crate) async fn report(self: Arc<Self>) {
        self.thread.progress.report(self.house.clock, &self.house.admission).await;
    }

    /// Opens spare connections where some are kept, and sweeps idle ones, and streams that nobody will come back to, until it is dropped.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let clock = self.house.clock;
        self.pool.start();
        loop {
            clock.sleep_until(clock.now() + SWEEP_EVERY).await;
            // A thread without requests takes up new settings here.
            self.now().pool.sweep(clock.now());
            self.house.streams.sweep(clock.now());
        }
    }
}

/// One client connection or stream, counted.
pub(crate) struct Counted {
    plane: Arc<Plane>,
    is_stream: bool,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.plane.thread.load.fetch_sub(1, Ordering::Relaxed);
        let metrics = &self.plane.house.metrics;
        if self.is_stream { metrics.client_stream(-1) } else { metrics.client(-1) }
    }
}
