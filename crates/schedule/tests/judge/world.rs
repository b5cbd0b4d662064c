//! A run: clients, a host like the gateway, the network and the upstream, in virtual time.
//!
//! Events in a heap, ordered by time and then by birth; everything random comes from the seed. A
//! request goes through states (`request.rs`); what it does at the upstream is an *exchange*, which
//! outlives it when its client leaves and the cancellation is still under way. Output is never an
//! event: a stream produces in a straight line from its first byte, the meters integrate it, and
//! the host looks at all streams every 50 ms.

use crate::dice;
use crate::figures::{Figures, REFUSALS_KEPT, UNCOUNTED, Use, WINDOW, Window, cost_weights, place};
use crate::load::{Arrivals, Client, Sizes};
use crate::meter::Sums;
use crate::policy::{Failed, Next, Policy, Said};
use crate::scenario::{Change, Scenario};
use crate::upstream::{Admitted, No, Org, Wanted};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_schedule::{Ask, Cause, ClassId, LaneId, Levels, Outcome, Spent, TenantId, Throttle};

/// How often the host looks at the streams, as the gateway does.
const TICK: f64 = 0.05;
/// How long everything may take to end once nobody asks any more.
const DRAIN: f64 = 4_000.0;
/// How long a client that was refused without a word on when to come back stays away.
const AWAY: f64 = 5.0;
/// The longest pause of the scheduler's own choosing.
const BACKOFF_MAX: Duration = Duration::from_secs(20);
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
    crowd: usize,
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
    /// Requests that wait or pause, by tenant.
    backlog: Vec<u32>,
    before: Vec<Option<Sums>>,
    window: Window,
    cost: [f64; 2],
    stopped: bool,
    trace: Option<(f64, f64)>,
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
        let tenants = scenario.weights.len();
        let prng = Prng::new(seed);
        World {
            orgs: scenario.orgs.iter().map(Org::new).collect(),
            figures: Figures { uses: vec![Use::default(); scenario.orgs.len()], ..Figures::default() },
            before: vec![None; scenario.orgs.len()],
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
            stopped: false,
            trace: std::env::var("TRACE").ok().and_then(|t| {
                let (a, b) = t.split_once('-')?;
                Some((a.parse().ok()?, b.parse().ok()?))
            }),
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

    /// One way over the network.
    fn way(&mut self) -> f64 {
        let n = self.scenario.network;
        let spike = self.prng.chance(n.spikes);
        dice::uniform(&mut self.prng, n.low, if spike { n.spike } else { n.high })
    }

    fn offer(&mut self, client: usize) {
        let crowd = self.clients[client].crowd;
        if self.stopped || seconds(self.now) >= self.scenario.crowds[crowd].until {
            return;
        }
        let sizes = self.clients[client].next(&self.scenario.crowds[crowd]);
        self.comes(crowd, Some(client), sizes);
    }

    fn arrival(&mut self, crowd: usize) {
        let plan = &self.scenario.crowds[crowd];
        let Arrivals::Open { per_second, cv } = plan.arrivals else { return };
        let Some((client, gaps)) = self.open.get_mut(&crowd) else { return };
        if self.stopped || seconds(self.now) >= plan.until {
            return;
        }
        let (sizes, gap) = (client.next(plan), dice::gap(gaps, per_second, cv));
        self.push_in(gap, Event::Arrival(crowd));
        self.comes(crowd, None, sizes);
    }

    /// A new request.
    fn comes(&mut self, crowd: usize, client: Option<usize>, sizes: Sizes) {
        let plan = &self.scenario.crowds[crowd];
        let ask = Ask {
            class: ClassId(plan.class as u32),
            tenant: TenantId(plan.tenant),
            band: plan.band,
            latest: self.now + span(plan.patience),
            waited: Duration::ZERO,
            input: sizes.mix,
            output_max: Some(plan.output_max),
            seen: plan.seen,
            prefix: sizes.prefix,
            conversation: sizes.conversation,
            pin: None,
            avoid: None,
        };
        self.figures.offered += 1;
        let request = Request {
            id: self.figures.offered,
            attempt: 0,
            crowd,
            client,
            ask,
            sizes,
            state: State::Pausing,
            seen: 0,
            lane: LaneId { org: tidegate_schedule::OrgId(0), key: 0 },
            no: None,
            head: Levels::default(),
            spent: Spent::default(),
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.requests[slot] = request;
                slot
            }
            None => {
                self.requests.push(request);
                self.requests.len() - 1
            }
        };
        self.live += 1;
        self.backlog[plan.tenant as usize] += 1;
        if self.prng.chance(plan.leaves) {
            let when = dice::log_normal(&mut self.prng, 8.0, 1.0);
            self.push_in(when, Event::Leave(self.handle(slot)));
        }
        self.ask(slot);
        self.settle_down();
    }

    fn ask(&mut self, slot: usize) {
        let ask = self.requests[slot].ask;
        self.requests[slot].state = State::Waiting(seconds(self.now));
        let said = self.policy.ask(self.now, slot, &ask);
        self.told(slot, said);
    }

    fn told(&mut self, slot: usize, said: Said) {
        match said {
            Said::Wait => {}
            Said::Go(lane) => self.goes(slot, lane),
            Said::Refuse(why, retry_after) => {
                *self.figures.shed.entry(why).or_default() += 1;
                let away = retry_after.map_or(AWAY, |span| span.as_secs_f64().clamp(0.5, 30.0));
                self.over(slot, away);
            }
        }
    }

    /// Has it a lease? Then it is on its way.
    fn goes(&mut self, slot: usize, lane: LaneId) {
        let now = seconds(self.now);
        let (there, back, written) = (self.way(), self.way(), dice::uniform(&mut self.prng, 0.0, 0.005));
        let request = &mut self.requests[slot];
        if let State::Waiting(since) = request.state {
            request.ask.waited += span(now - since);
        }
        request.attempt += 1;
        request.lane = lane;
        request.no = None;
        request.seen = 0;
        self.figures.late_starts += u64::from(self.now > request.ask.latest);
        if request.attempt == 1 {
            let waited = request.ask.waited.as_secs_f64() as f32;
            self.figures.waits[request.ask.band as usize].push(waited);
            if request.ask.tenant.0 != 0 {
                self.figures.others_waits.push(waited);
            }
        }
        self.backlog[request.ask.tenant.0 as usize] -= 1;
        let wanted = Wanted {
            class: request.ask.class.0 as usize,
            key: lane.key,
            input: request.sizes.input,
            output_max: request.ask.output_max.map_or(0.0, f64::from),
            prefix: request.sizes.prefix,
            conversation: request.sizes.conversation,
        };
        let sizes = request.sizes;
        let tenant = request.ask.tenant.0 as usize;
        self.born += 1;
        let serial = self.born;
        let exchange = Exchange {
            serial,
            handle: self.handle(slot),
            tenant,
            org: lane.org.0 as usize,
            wanted,
            sizes,
            back,
            admitted: None,
            began: f64::INFINITY,
        };
        let place = self.free_exchanges.pop().unwrap_or(self.exchanges.len());
        if place == self.exchanges.len() {
            self.exchanges.push(None);
        }
        self.exchanges[place] = Some(exchange);
        self.requests[slot].state = State::Sent(place);
        self.push_in(written, Event::Sent(self.handle(slot)));
        self.push_in(there.max(written), Event::Reaches(place, serial));
    }

    /// The upstream decides.
    fn reaches(&mut self, place: usize, serial: u64) {
        let now = seconds(self.now);
        let Some(exchange) = self.exchanges[place].as_mut().filter(|e| e.serial == serial) else { return };
        let answer = self.orgs[exchange.org].admit(now, &exchange.wanted, &mut self.prng);
        let (handle, back, ttfb) = (exchange.handle, exchange.back, exchange.sizes.first_byte);
        let second = now as usize;
        if self.figures.by_second.len() <= second {
            self.figures.by_second.resize(second + 1, [0; 2]);
        }
        match answer {
            Ok(admitted) => {
                exchange.admitted = Some(admitted);
                self.figures.admitted += 1;
                self.figures.by_second[second][0] += 1;
                self.serves(place, &admitted);
                self.push_in(ttfb, Event::FirstByte(place, serial));
            }
            Err(no) => {
                let throttled = matches!(no, No::Throttled { .. });
                *self.figures.refused.entry(name(&no)).or_default() += 1;
                if self.figures.first_refused.len() < REFUSALS_KEPT {
                    let away = match no {
                        No::Throttled { retry_after, .. } => retry_after.map_or(0, |span| span.as_secs()),
                        _ => 0,
                    };
                    self.figures.first_refused.push((now, name(&no), away));
                }
                self.figures.by_second[second][1] += u32::from(throttled);
                self.exchanges[place] = None;
                self.free_exchanges.push(place);
                let request = &mut self.requests[handle.slot];
                if request.id == handle.request && request.attempt == handle.attempt {
                    request.no = Some(no);
                    self.push_in(0.005 + back, Event::Refused(handle));
                }
            }
        }
    }

    /// Counts what letting it in shows of cache and fairness.
    fn serves(&mut self, place: usize, admitted: &Admitted) {
        let Some(exchange) = &self.exchanges[place] else { return };
        let spent = admitted.spent;
        if exchange.wanted.prefix.is_some() {
            self.figures.sharing[0] += 1;
            self.figures.sharing[1] += u64::from(spent.cache_read == 0);
        }
        if exchange.wanted.conversation.is_some() && exchange.sizes.turn > 0 {
            self.figures.turns[0] += 1;
            self.figures.turns[1] += u64::from(spent.cache_read > 0);
        }
        self.window.served[exchange.tenant] += self.cost[0] * (spent.input + spent.cache_creation) as f64;
    }

    fn first_byte(&mut self, place: usize, serial: u64) {
        let now = seconds(self.now);
        let Some(exchange) = self.exchanges[place].as_mut().filter(|e| e.serial == serial) else { return };
        let org = &mut self.orgs[exchange.org];
        exchange.began = now;
        let now_head = org.begins(now, &exchange.wanted, exchange.sizes.speed);
        let Some(admitted) = exchange.admitted else { return };
        let head = if org.plan.sampled_at_admission { admitted.head } else { now_head };
        let (handle, back) = (exchange.handle, exchange.back);
        let lasts = exchange.sizes.output / exchange.sizes.speed;
        let request = &mut self.requests[handle.slot];
        if request.id == handle.request && request.attempt == handle.attempt {
            request.head = head;
            request.spent = admitted.spent;
        }
        self.push_in(lasts, Event::UpstreamEnds(place, serial));
        self.push_in(back, Event::Began(handle));
        self.push_in(lasts + back, Event::Ends(handle));
    }

    /// An exchange is over, or its cancellation arrives.
    fn upstream_ends(&mut self, place: usize, serial: u64, cancelled: bool) {
        let Some(exchange) = self.exchanges[place].take_if(|e| e.serial == serial) else { return };
        let now = seconds(self.now);
        self.free_exchanges.push(place);
        let began = exchange.began.is_finite();
        let produced = if began { (now - exchange.began) * exchange.sizes.speed } else { 0.0 };
        let output = if cancelled { produced.min(exchange.sizes.output) } else { exchange.sizes.output };
        let org = &mut self.orgs[exchange.org];
        if began {
            org.draw(now, &exchange.wanted, -exchange.sizes.speed);
        }
        if exchange.admitted.is_some() {
            org.ends(now, &exchange.wanted, output);
        }
    }

    fn began(&mut self, slot: usize) {
        let State::Sent(exchange) = self.requests[slot].state else { return };
        self.requests[slot].state = State::Streaming(exchange, seconds(self.now));
        let head = self.requests[slot].head;
        self.policy.heard(self.now, slot, &head);
        self.policy.began(self.now, slot);
    }

    /// The whole answer is there.
    fn ends(&mut self, slot: usize) {
        let request = &mut self.requests[slot];
        let output = request.sizes.output;
        let rest = output as u32 - request.seen;
        request.spent.output = output as u64;
        request.seen += rest;
        let (spent, tenant, seen) = (request.spent, request.ask.tenant.0 as usize, request.ask.seen);
        self.window.served[tenant] += self.cost[1] * f64::from(rest);
        self.figures.goodput += output;
        self.figures.answered += 1;
        if seen && rest > 0 {
            self.policy.progressed(self.now, &[(slot, rest)]);
        }
        self.policy.settle(self.now, slot, Outcome::Answered(Some(spent)));
        self.over(slot, 0.0);
    }

    /// A refusal of the upstream has come back.
    fn refused(&mut self, slot: usize) {
        let Some(no) = self.requests[slot].no.take() else { return };
        let (cause, retry_after, outcome) = match no {
            No::Throttled { by, retry_after, head } => {
                if !head.is_silent() {
                    self.policy.heard(self.now, slot, &head);
                }
                // The cap's end is not told; a host knows that it is the first of the next month.
                let lasts = if by == Throttle::SpendCap { Some(Duration::from_secs(300)) } else { retry_after };
                (Cause::Throttled, lasts, Outcome::Throttled { by, retry_after: lasts })
            }
            No::Overloaded { retry_after } => (Cause::Overloaded, retry_after, Outcome::Overloaded { retry_after }),
            No::Broken => (Cause::ServerError, None, Outcome::Broken),
            No::KeyRejected => {
                let retry_after = Duration::from_secs(60);
                (Cause::KeyRejected, None, Outcome::KeyRejected { retry_after })
            }
        };
        self.policy.settle(self.now, slot, outcome);
        let request = &mut self.requests[slot];
        request.ask.avoid = (cause != Cause::Throttled).then_some(request.lane);
        request.state = State::Pausing;
        self.backlog[request.ask.tenant.0 as usize] += 1;
        let (ask, lane) = (request.ask, request.lane);
        // After a 429 the wait is the scheduler's: it has closed the domain.
        let asked = if cause == Cause::Throttled { None } else { retry_after };
        match self.policy.retry(self.now, slot, &ask, &Failed { lane, cause, retry_after: asked }) {
            Next::At(at) => self.push_at(at, Event::AskAgain(self.handle(slot))),
            Next::GiveUp => {
                // Unless its time is nearly over, a client is not to see that the API was full.
                let in_time = self.now + asked.unwrap_or_default() + BACKOFF_MAX < ask.latest;
                self.figures.shown += u64::from(in_time && matches!(cause, Cause::Throttled | Cause::Overloaded));
                *self.figures.shed.entry("gave_up").or_default() += 1;
                self.over(slot, AWAY);
            }
        }
    }

    /// The client is gone.
    fn leaves(&mut self, slot: usize) {
        self.figures.left += 1;
        let state = self.requests[slot].state;
        match state {
            State::Waiting(_) | State::Pausing => self.policy.cancel(self.now, slot),
            State::Sent(place) | State::Streaming(place, _) => {
                let cut = matches!(state, State::Streaming(..));
                let outcome = if cut { Outcome::Answered(None) } else { Outcome::Failed };
                self.policy.settle(self.now, slot, outcome);
                let handle = self.handle(slot);
                let current = self.exchanges[place].as_ref().filter(|e| e.handle == handle).map(|e| e.serial);
                // Never before the request itself.
                let way = self.way().max(self.scenario.network.spike).max(self.scenario.network.high);
                if let Some(serial) = current {
                    self.push_in(way, Event::CancelReaches(place, serial));
                }
            }
            State::Over => return,
        }
        self.over(slot, 1.0);
    }

    /// The request is done with; its client comes back after `away` seconds.
    fn over(&mut self, slot: usize, away: f64) {
        let request = &mut self.requests[slot];
        if matches!(request.state, State::Waiting(_) | State::Pausing) {
            self.backlog[request.ask.tenant.0 as usize] -= 1;
        }
        request.state = State::Over;
        self.live -= 1;
        self.free.push(slot);
        if let Some(client) = request.client {
            self.push_in(away, Event::Offer(client));
        }
    }

    /// After whatever happened: who can go now, and when to look again.
    fn settle_down(&mut self) {
        for (slot, said) in self.policy.advance(self.now) {
            self.told(slot, said);
        }
        self.figures.in_flight_max = self.figures.in_flight_max.max(self.policy.leased());
        if let Some(at) = self.policy.wake_at(self.now) {
            let at = at.max(self.now);
            if at < self.wake {
                self.wake = at;
                self.push_at(at, Event::Wake(at.as_nanos()));
            }
        }
    }

    fn tick(&mut self) {
        let now = seconds(self.now);
        self.progress(now);
        self.orgs.iter_mut().for_each(|org| org.foreign_takes(now, TICK));
        self.measure(now);
        if (self.now.as_nanos() / 50_000_000).is_multiple_of(20) {
            self.figures.difference = self.figures.difference.max(self.policy.difference().abs());
        }
        self.settle_down();
        self.push_in(TICK, Event::Tick);
    }

    /// What the streams have brought since the last look.
    fn progress(&mut self, now: f64) {
        let mut produced = Vec::new();
        for (slot, request) in self.requests.iter_mut().enumerate() {
            let State::Streaming(_, since) = request.state else { continue };
            let there = ((now - since) * request.sizes.speed).min(request.sizes.output) as u32;
            let new = there.saturating_sub(request.seen);
            if new == 0 {
                continue;
            }
            request.seen = there;
            self.window.served[request.ask.tenant.0 as usize] += self.cost[1] * f64::from(new);
            if request.ask.seen {
                produced.push((slot, new));
            }
        }
        if !produced.is_empty() {
            self.policy.progressed(self.now, &produced);
        }
    }

    /// Use of the binding limit while somebody waits, and the windows of fairness.
    fn measure(&mut self, now: f64) {
        let waits = !self.stopped && self.backlog.iter().any(|n| *n > 0);
        for (org, judged) in self.orgs.iter_mut().enumerate() {
            let sums = judged.sums(now, 0, place(self.scenario.binding));
            if let (true, Some(before)) = (waits && now > UNCOUNTED, &self.before[org]) {
                self.figures.uses[org].add(before, &sums);
            }
            if let Some((low, high)) = self.policy.believed(self.now, org, place(self.scenario.binding)) {
                if let Some((a, b)) = self.trace
                    && now > a
                    && now < b
                {
                    println!(
                        "{now:.2} level {:.0} low {low:.0} high {high:.0} leased {}",
                        sums.level,
                        self.policy.leased()
                    );
                }
            }
            self.before[org] = (waits && now >= UNCOUNTED - TICK).then_some(sums);
        }
        for (always, backlog) in self.window.always.iter_mut().zip(&self.backlog) {
            *always &= *backlog > 0;
        }
        let windows = (now / WINDOW + 1e-6) as usize;
        if windows > self.figures.windows.len() && !self.stopped {
            let tenants = self.backlog.len();
            let fresh = Window { served: vec![0.0; tenants], always: vec![true; tenants] };
            self.figures.windows.push(std::mem::replace(&mut self.window, fresh));
        }
    }

    fn change(&mut self, n: usize) {
        let now = seconds(self.now);
        match self.scenario.script[n].1 {
            Change::Scale { org, factor, told } => self.orgs[org].scale(now, factor, told),
            Change::Foreign { org, share } => self.orgs[org].foreign = share,
            Change::Revoke { org, key, revoked } => self.orgs[org].revoked[key] = revoked,
            Change::SpendCap { org, reached } => self.orgs[org].spend_capped = reached,
            Change::Overloaded { org, chance } => self.orgs[org].overloaded = chance,
            Change::Broken { org, chance } => self.orgs[org].broken = chance,
        }
    }
}

fn name(no: &No) -> &'static str {
    match no {
        No::Throttled { by, .. } => by.name(),
        No::Overloaded { .. } => "overloaded",
        No::Broken => "broken",
        No::KeyRejected => "key",
    }
}
