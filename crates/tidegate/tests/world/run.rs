//! One world, from its first connection to the silence after its last.

use crate::world::checks;
use crate::world::client::{Seen, Street, Trace};
use crate::world::scene::{API, API_TLS, GATEWAY, Scene};
use serde_json::Value;
use std::cell::RefCell;
use std::future::pending;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use tidegate_base::{Moment, StreamId};
use tidegate_gateway::Gateway;
use tidegate_observe::Filter;
use tidegate_simulator::{Record, Simulator};
use tidegate_simulator_server::{Doors, SharedSimulator};
use tidegate_transport::{Clock, MemoryNetwork, TaskKind, Tasks};

/// The wall time at which every world begins, seconds since 1970.
const EPOCH_S: u64 = 1_795_000_000;
/// After the last client has left, everything has to be over: the slowest thing there is, a
/// connection the API takes up late, with room to spare.
const SILENCE: Duration = Duration::from_secs(300);

/// A sweep of the pools, and the last words of a connection, with room to spare.
const GOING: Duration = Duration::from_secs(15);

const CLIENT: TaskKind = TaskKind { name: "client", on_cancel: "the world is over", on_error: "the seed fails" };
const API_SERVER: TaskKind = TaskKind { name: "api", on_cancel: "the world is over", on_error: "the seed fails" };
const OPERATOR: TaskKind = TaskKind { name: "operator", on_cancel: "the world is over", on_error: "the seed fails" };

/// A world that is over, as the checks see it.
pub(crate) struct Over<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) seen: Vec<Seen>,
    pub(crate) records: Vec<Record>,
    /// The API in a good mood, to be asked what it would have said.
    pub(crate) judge: Simulator,
    pub(crate) drain: Option<Drain>,
    pub(crate) gateway: Gateway,
    /// What the API counted.
    pub(crate) summary: Value,
    pub(crate) panics: Vec<String>,
}

/// A drain, as it went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    pub(crate) began: Moment,
    pub(crate) ended: Moment,
}

/// What is left of a run: the hash of all that was seen, and what broke.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) trace: u64,
    pub(crate) broken: Vec<String>,
    pub(crate) tally: checks::Tally,
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A panic inside a task is swallowed by its runtime; here none is.
pub(crate) fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with(|panics| panics.borrow_mut().push(info.to_string()));
            before(info);
        }));
    });
}

/// What panicked on this thread since it was last asked.
pub(crate) fn panics() -> Vec<String> {
    PANICS.take()
}

/// Runs the world of `seed` and checks it.
pub(crate) fn run(seed: u64) -> Outcome {
    run_scene(&Scene::of(seed))
}

/// Runs this world and checks it.
pub(crate) fn run_scene(scene: &Scene) -> Outcome {
    watch_panics();
    panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime for the world");
    let trace = Trace::new();
    let over = runtime.block_on(live(scene, trace.clone()));
    let mut broken = Vec::new();
    let tally = checks::check(over, &mut broken);
    drop(runtime);
    Outcome { trace: trace.value(), broken, tally }
}

async fn live(scene: &Scene, trace: Trace) -> Over<'_> {
    let clock = Clock::from_wall(UNIX_EPOCH + Duration::from_secs(EPOCH_S));
    let network = MemoryNetwork::new();
    let tasks = Tasks::new();

    let simulator = SharedSimulator::new(Simulator::new(scene.scenario.clone(), scene.seed, EPOCH_S));
    for door in [API, API_TLS] {
        let doors = Doors { api: Box::new(network.listen(door)), truth: None, http2_streams: scene.api.http2_streams };
        let served = tidegate_simulator_server::run(doors, simulator.clone(), clock, Tasks::new(), pending());
        tasks.spawn(&API_SERVER, served);
    }
    network.choose_http2(API_TLS, scene.api.chooses_http2);
    if let Some(after) = scene.api.changes_at {
        let (network, chooses) = (network.clone(), !scene.api.chooses_http2);
        tasks.spawn(&OPERATOR, async move {
            clock.sleep_until(Moment::ZERO + after).await;
            network.choose_http2(API_TLS, chooses);
        });
    }

    let gateway = Gateway::new(scene.settings.clone(), clock, Arc::new(network.clone()));
    gateway.serve_here(Box::new(network.listen(GATEWAY)));

    let drain = Arc::new(Mutex::new(None));
    if let Some(after) = scene.drain_at {
        let (gateway, drain) = (gateway.clone(), Arc::clone(&drain));
        tasks.spawn(&OPERATOR, async move {
            clock.sleep_until(Moment::ZERO + after).await;
            let began = clock.now();
            *drain.lock().unwrap_or_else(PoisonError::into_inner) = Some(Drain { began, ended: Moment::NEVER });
            gateway.drain().await;
            let ended = clock.now();
            *drain.lock().unwrap_or_else(PoisonError::into_inner) = Some(Drain { began, ended });
        });
    }
    for (at, which) in scene.cancels.clone() {
        let gateway = gateway.clone();
        tasks.spawn(&OPERATOR, async move {
            clock.sleep_until(Moment::ZERO + at).await;
            let live = gateway.live().view(clock.now(), 1_000, &Filter::default(), |_| None);
            let chosen = live.get(which as usize % live.len().max(1)).and_then(|view| StreamId::parse(&view.stream));
            if let Some(stream) = chosen {
                gateway.live().cancel(stream);
            }
        });
    }

    let street = Street { network, clock, trace: trace.clone(), body_limit: scene.settings.limits.body_bytes };
    let clients: Vec<_> =
        scene.clients.iter().map(|client| tasks.spawn(&CLIENT, street.clone().play(client.clone()))).collect();
    let mut seen = Vec::new();
    for client in clients {
        seen.extend(client.await.unwrap_or_default());
    }
    let still = |simulator: &mut Simulator| simulator.truth().open > 0;
    let silence = clock.now() + SILENCE;
    while (simulator.with(still) || !gateway.living().is_empty()) && clock.now() < silence {
        clock.sleep_until(clock.now() + Duration::from_millis(500)).await;
    }
    // What is kept for the next request is let go in its time too.
    clock.sleep_until(clock.now() + scene.settings.pool.idle_keep + GOING).await;
    // A drain that has begun tells when it is over.
    clock.sleep_until(clock.now() + Duration::from_millis(500)).await;

    let (records, summary) =
        simulator.with(|s| (s.truth().records().cloned().collect::<Vec<_>>(), s.truth().summary(clock.now())));
    trace.add(summary.to_string().as_bytes());
    let drain = *drain.lock().unwrap_or_else(PoisonError::into_inner);
    let judge = Simulator::new(scene.good_mood(), scene.seed, EPOCH_S);
    Over { scene, seen, records, judge, drain, gateway, summary, panics: panics() }
}
