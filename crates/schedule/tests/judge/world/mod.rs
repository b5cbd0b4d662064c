//! A run: clients, a host like the gateway, the network and the upstream, in virtual time.
//!
//! Events in a heap, ordered by time and then by birth; everything random comes from the seed. What
//! happens at the host is in `host.rs`, at the upstream in `serving.rs`, what is measured in
//! `measuring.rs`. A request's attempt at the upstream is an *exchange*, which outlives the request
//! when its client leaves and the cancellation is still under way. Output is never an event: a
//! stream produces in a straight line from its first byte, the meters integrate it, and the host
//! looks at all streams every 50 ms.

mod host;
mod measuring;
mod serving;

use crate::figures::{Figures, Use, Window, cost_weights};
use crate::load::{Arrivals, Client, Sizes};
use crate::meter::Sums;
use crate::policy::Policy;
use crate::scenario::Scenario;
use crate::upstream::{Admitted, No, Org, Wanted};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_schedule::{Ask, LaneId, Levels, Spent};

/// How often the host looks at the streams, as the gateway does.
const TICK: f64 = 0.05;
/// How long everything may take to end once nobody asks any more.
const DRAIN: f64 = 4_000.0;
/// A scheduler that wakes itself so often without time going on will do so for ever.
const WAKES_AT_ONCE: u32 = 10_000;

/// A request, as an event remembers it: stale once the slot has another request or attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Handle {
    slot: usize,
    request: u64,
    attempt: u32,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A client of a closed crowd offers its next request.
    Offer(usize),
    /// A request of an open crowd comes.
    Arrival(usize),
    Leave(Handle),
    AskAgain(Handle),
    Sent(Handle),
    Reaches(usize, u64),
    /// The head of a refusal is back at the host.
    Refused(Handle),
    FirstByte(usize, u64),
    Began(Handle),
    UpstreamEnds(usize, u64),
    Ends(Handle),
    CancelReaches(usize, u64),
    Wake(u64),
    Tick,
    Change(usize),
}

struct Entry {
    at: u64,
    born: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.born) == (other.at, other.born)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.born).cmp(&(other.at, other.born))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// In the scheduler's queue since then.
    Waiting(f64),
    /// Between two attempts.
    Pausing,
    /// Under way, in this exchange.
    Sent(usize),
    /// Its answer comes, since then.
    Streaming(usize, f64),
    Over,
}

/// A request at the host.
struct Request {
    id: u64,
    attempt: u32,
    client: Option<usize>,
    ask: Ask,
    sizes: Sizes,
    state: State,
    /// Output tokens the host has seen.
    seen: u32,
    lane: LaneId,
    /// What its last attempt brought.
    no: Option<No>,
    head: Levels,
    spent: Spent,
}

/// An attempt at the upstream.
struct Exchange {
    serial: u64,
    handle: Handle,
    tenant: usize,
    org: usize,
    wanted: Wanted,
    sizes: Sizes,
    /// How long its answers take back.
    back: f64,
    admitted: Option<Admitted>,
    began: f64,
}

pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    policy: Box<dyn Policy + 'a>,
    orgs: Vec<Org>,
    heap: BinaryHeap<Reverse<Entry>>,
    now: Moment,
    born: u64,
    requests: Vec<Request>,
    free: Vec<usize>,
    exchanges: Vec<Option<Exchange>>,
    free_exchanges: Vec<usize>,
    clients: Vec<Client>,
    /// The prototypes of open crowds' clients, and the dice of their arrivals.
    open: BTreeMap<usize, (Client, Prng)>,
    prng: Prng,
    figures: Figures,
    wake: Moment,
    wakes_at_once: u32,
    live: usize,
    /// Requests that wait or pause, by tenant and by class.
    backlog: Vec<u32>,
    class_backlog: Vec<u32>,
    /// The binding limiters' sums at the last look, and whether somebody waited then.
    before: Vec<Option<(Sums, bool)>>,
    window: Window,
    cost: [f64; 2],
    stopped: bool,
    /// When to print what is believed: TIDEGATE_JUDGE_TRACE=240-255.
    traced: Option<(f64, f64)>,
}

fn seconds(moment: Moment) -> f64 {
    moment.as_nanos() as f64 / 1e9
}

fn span(seconds: f64) -> Duration {
    Duration::from_nanos((seconds * 1e9) as u64)
}

/// Runs a scenario under a policy.
pub(crate) fn run(scenario: &Scenario, seed: u64, policy: Box<dyn Policy + '_>) -> Figures {
    World::new(scenario, seed, policy).run()
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, seed: u64, policy: Box<dyn Policy + 'a>) -> Self {
        let (tenants, classes) = (scenario.weights.len(), scenario.binding.len());
        let uses = scenario.orgs.len() * classes;
        let prng = Prng::new(seed);
        World {
            orgs: scenario.orgs.iter().map(Org::new).collect(),
            figures: Figures { uses: vec![[Use::default(); 2]; uses], ..Figures::default() },
            before: vec![None; uses],
            window: Window { served: vec![0.0; tenants], always: vec![true; tenants] },
            cost: cost_weights(scenario),
            prng: prng.fork("network"),
            scenario,
            policy,
            heap: BinaryHeap::new(),
            now: Moment::ZERO,
            born: 0,
            requests: Vec::new(),
            free: Vec::new(),
            exchanges: Vec::new(),
            free_exchanges: Vec::new(),
            clients: Vec::new(),
            open: BTreeMap::new(),
            wake: Moment::NEVER,
            wakes_at_once: 0,
            live: 0,
            backlog: vec![0; tenants],
            class_backlog: vec![0; classes],
            stopped: false,
            traced: measuring::seconds_to_trace(),
        }
        .peopled(&prng)
    }

    fn peopled(mut self, prng: &Prng) -> Self {
        for (n, crowd) in self.scenario.crowds.iter().enumerate() {
            let own = prng.fork(&format!("crowd {n}"));
            match crowd.arrivals {
                Arrivals::Closed(clients) => {
                    for client in 0..clients {
                        self.push(crowd.from, Event::Offer(self.clients.len()));
                        self.clients.push(Client::new(n, own.fork(&format!("client {client}"))));
                    }
                }
                Arrivals::Open { .. } => {
                    self.push(crowd.from, Event::Arrival(n));
                    self.open.insert(n, (Client::new(n, own.fork("sizes")), own.fork("arrivals")));
                }
            }
        }
        for (n, (at, _)) in self.scenario.script.iter().enumerate() {
            self.push(*at, Event::Change(n));
        }
        self.push(TICK, Event::Tick);
        self
    }

    fn push(&mut self, at: f64, event: Event) {
        self.push_at(Moment::ZERO + span(at), event);
    }

    fn push_in(&mut self, span_s: f64, event: Event) {
        self.push_at(self.now + span(span_s), event);
    }

    fn push_at(&mut self, at: Moment, event: Event) {
        self.born += 1;
        self.heap.push(Reverse(Entry { at: at.max(self.now).as_nanos(), born: self.born, event }));
    }

    fn run(mut self) -> Figures {
        let end = Moment::ZERO + span(self.scenario.seconds);
        let last = end + span(DRAIN);
        while let Some(Reverse(Entry { at, event, .. })) = self.heap.pop() {
            let at = Moment::from_nanos(at);
            if at > self.now {
                self.wakes_at_once = 0;
            }
            self.now = at;
            if !self.stopped && at >= end {
                self.stop();
            }
            if at > last || (self.stopped && self.live == 0) {
                break;
            }
            self.happens(event);
        }
        self.figures.left_over = self.policy.leased() + self.policy.waiting() as u64;
        self.figures.difference = self.figures.difference.max(self.policy.difference().abs());
        self.figures.goodput /= self.scenario.seconds;
        self.figures
    }

    /// Nobody asks any more, and whoever waits leaves.
    fn stop(&mut self) {
        self.stopped = true;
        for slot in 0..self.requests.len() {
            if matches!(self.requests[slot].state, State::Waiting(_) | State::Pausing) {
                self.leaves(slot);
            }
        }
        self.settle_down();
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Offer(client) => self.offer(client),
            Event::Arrival(crowd) => self.arrival(crowd),
            Event::Leave(handle) => {
                if self.requests[handle.slot].id == handle.request && self.requests[handle.slot].state != State::Over {
                    self.leaves(handle.slot);
                    self.settle_down();
                }
            }
            Event::AskAgain(handle) => self.if_current(handle, Self::ask),
            Event::Sent(handle) => self.if_current(handle, |world, slot| world.policy.sent(world.now, slot)),
            Event::Reaches(exchange, serial) => self.reaches(exchange, serial),
            Event::Refused(handle) => self.if_current(handle, Self::refused),
            Event::FirstByte(exchange, serial) => self.first_byte(exchange, serial),
            Event::Began(handle) => self.if_current(handle, Self::began),
            Event::UpstreamEnds(exchange, serial) => self.upstream_ends(exchange, serial, false),
            Event::CancelReaches(exchange, serial) => self.upstream_ends(exchange, serial, true),
            Event::Ends(handle) => self.if_current(handle, Self::ends),
            Event::Wake(at) => {
                if self.wake.as_nanos() == at {
                    self.wake = Moment::NEVER;
                    self.figures.wakes += 1;
                    self.wakes_at_once += 1;
                    assert!(self.wakes_at_once < WAKES_AT_ONCE, "the scheduler wakes itself for ever at {}", self.now);
                    self.settle_down();
                }
            }
            Event::Tick => self.tick(),
            Event::Change(n) => self.change(n),
        }
    }

    fn if_current(&mut self, handle: Handle, then: impl FnOnce(&mut Self, usize)) {
        let request = &self.requests[handle.slot];
        if request.id == handle.request && request.attempt == handle.attempt && request.state != State::Over {
            then(self, handle.slot);
            self.settle_down();
        }
    }

    fn handle(&self, slot: usize) -> Handle {
        Handle { slot, request: self.requests[slot].id, attempt: self.requests[slot].attempt }
    }
}
