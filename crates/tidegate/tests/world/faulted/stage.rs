//! One world of faulted streams, from its first connection to the silence after its last.

use crate::world::client::Trace;
use crate::world::faulted::asker::{Line, Place, Street};
use crate::world::faulted::plan::{Ask, Plan, Spoken};
use crate::world::faulted::talk::{self, Folder};
use crate::world::faulted::visit::{Town, locked};
use crate::world::run::{panics, watch_panics};
use crate::world::scene::{API, API_TLS, GATEWAY};
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};
use tidegate_gateway::Gateway;
use tidegate_observe::Records;
use tidegate_simulator::{Record, Scenario, Simulator};
use tidegate_simulator_server::{Doors, SharedSimulator};
use tidegate_transport::{Clock, MemoryNetwork, TaskKind, Tasks};

/// The wall time at which every world begins, seconds since 1970.
pub(crate) const EPOCH_S: u64 = 1_795_000_000;
/// After the last reader has left everything has to be over: a stream that nobody reads, and a
/// connection of which the API has closed its half.
const SILENCE: Duration = Duration::from_secs(900);
/// A sweep of the streams and of the pools, with room to spare.
const SWEEPS: Duration = Duration::from_secs(15);

const READER: TaskKind = TaskKind { name: "reader", on_cancel: "the world is over", on_error: "the seed fails" };
const API_SERVER: TaskKind = TaskKind { name: "api", on_cancel: "the world is over", on_error: "the seed fails" };

/// What the gateway wrote down of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bill {
    pub(crate) model: String,
    pub(crate) input: u64,
    pub(crate) output: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Bills(Mutex<Vec<Bill>>);

impl Records for Bills {
    fn write(&self, _trouble: bool, record: &tidegate_observe::Record<'_>) {
        let input = record.input_tokens + record.cache_creation_tokens + record.cache_read_tokens;
        locked(&self.0).push(Bill { model: record.model.to_owned(), input, output: record.output_tokens });
    }
}

/// A world that is over.
pub(crate) struct Over<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) trace: u64,
    /// In the order of `plan.asks`; a reader that panicked left none.
    pub(crate) lines: Vec<Option<Line>>,
    pub(crate) records: Vec<Record>,
    pub(crate) bills: Vec<Bill>,
    /// The API in a good mood.
    pub(crate) judge: Simulator,
    pub(crate) gateway: Gateway,
    pub(crate) summary: Value,
    /// What the log has of each conversation.
    pub(crate) logs: BTreeMap<u64, Vec<Value>>,
    /// What was wrong with sockets, and with conversations, as a whole.
    pub(crate) sockets: Vec<String>,
    pub(crate) panics: Vec<String>,
    /// Goes after the gateway, whose log is in it.
    #[expect(dead_code, reason = "held for its drop")]
    folder: Option<Folder>,
}

/// Plays it.
pub(crate) fn live(plan: &Plan) -> Over<'_> {
    watch_panics();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let folder = plan.talks.then(Folder::new);
    if plan.talks {
        builder.on_thread_park(talk::pause);
    }
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime for the world");
    runtime.block_on(play(plan, folder))
}

async fn play(plan: &Plan, folder: Option<Folder>) -> Over<'_> {
    let clock = Clock::from_wall(UNIX_EPOCH + Duration::from_secs(EPOCH_S));
    let network = MemoryNetwork::new();
    let tasks = Tasks::new();
    let simulator = SharedSimulator::new(Simulator::new(plan.scenario.clone(), plan.seed, EPOCH_S));
    for door in [API, API_TLS] {
        let doors = Doors { api: Box::new(network.listen(door)), truth: None, http2_streams: plan.http2_streams };
        let served = tidegate_simulator_server::run(doors, simulator.clone(), clock, Tasks::new(), pending());
        tasks.spawn(&API_SERVER, served);
    }
    network.choose_http2(API_TLS, plan.spoken == Spoken::Http2);
    let bills = Arc::new(Bills::default());
    let store = folder.as_ref().map(Folder::store);
    let dial = Arc::new(network.clone());
    let gateway = Gateway::remembering(plan.settings.clone(), clock, dial, Arc::clone(&bills) as _, store);
    gateway.serve_here(Box::new(network.listen(GATEWAY)));

    let trace = Trace::new();
    let town = Town { network, clock, trace: trace.clone(), tasks: tasks.clone() };
    let places = plan.slots.iter().map(|_| tokio::sync::Mutex::new(Place::default())).collect();
    let keyed = !plan.settings.keys.is_empty();
    let street = Arc::new(Street { town, slots: plan.slots.clone(), places, keyed, asked: AtomicU64::new(0) });
    let mut groups: Vec<Vec<Ask>> = Vec::new();
    for ask in plan.asks.iter().cloned() {
        match groups.last_mut() {
            Some(group) if ask.talk.is_some() && group[0].talk == ask.talk => group.push(ask),
            _ => groups.push(vec![ask]),
        }
    }
    let counts: Vec<_> = groups.iter().map(Vec::len).collect();
    let readers: Vec<_> =
        groups.into_iter().map(|asks| tasks.spawn(&READER, Arc::clone(&street).play_all(asks))).collect();
    let mut lines = Vec::new();
    for (reader, count) in readers.into_iter().zip(counts) {
        match reader.await {
            Ok(told) => lines.extend(told.into_iter().map(Some)),
            Err(_) => lines.extend(std::iter::repeat_with(|| None).take(count)),
        }
    }
    let mut sockets = Vec::new();
    for place in &street.places {
        if let Some(shared) = place.lock().await.shared.take() {
            sockets.extend(locked(&shared.broken).drain(..));
            shared.hang_up();
        }
    }
    let still = |simulator: &mut Simulator| simulator.truth().open > 0;
    let silence = clock.now() + SILENCE;
    while (simulator.with(still) || !gateway.living().is_empty()) && clock.now() < silence {
        clock.sleep_until(clock.now() + Duration::from_millis(500)).await;
    }
    let (logs, told) = if plan.talks { talk::logged(&street, plan).await } else { Default::default() };
    sockets.extend(told);
    let clocks = &plan.settings.clocks;
    clock.sleep_until(clock.now() + clocks.stream_kept.max(plan.settings.pool.idle_keep) + SWEEPS).await;
    let (records, summary) =
        simulator.with(|s| (s.truth().records().cloned().collect::<Vec<_>>(), s.truth().summary(clock.now())));
    trace.add(summary.to_string().as_bytes());
    let good = Scenario { pace: plan.scenario.pace, tier: plan.scenario.tier, ..Scenario::calm() };
    let judge = Simulator::new(good, plan.seed, EPOCH_S);
    let bills = std::mem::take(&mut *locked(&bills.0));
    let trace = trace.value();
    Over { plan, trace, lines, records, bills, judge, gateway, summary, logs, sockets, panics: panics(), folder }
}
