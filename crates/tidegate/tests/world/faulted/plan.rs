//! What a seed decides of a world of faulted streams: the gateway's settings, how the API is reached,
//! what is asked, what goes wrong, and who reads it from where.
//!
//! Everything is drawn before the first event. The quota is unlimited and retries are not rationed:
//! here it is about streams, and none may fail for want of either.

use crate::world::faulted::draw::{ask, slot};
use crate::world::faulted::fault::{Drawn, Harm};
use crate::world::scene::{API, API_TLS, key, ms};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::{Prng, Secret};
use tidegate_gateway::{ClientKey, KeyHash, Organisation, Settings};
use tidegate_simulator::{ContinuationRules, Fault, Pace, Range, Rule, Scenario, Tier};
use tidegate_transport::HttpOffer;
use tidegate_upstream::{Lane, Scheme, Transport};

/// Tenants, where there are client keys.
pub(crate) const TENANTS: u64 = 3;
/// One world in so many has conversations: they take real time.
const TALKS_EVERY: u64 = 64;
/// Turns of a conversation.
const TURNS: u64 = 6;
/// Sockets that the streams of one tenant share.
pub(crate) const SLOTS: u64 = 2;

/// What is spoken between gateway and API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
    Socket,
}

/// What becomes of a stream that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Plain,
    Memory,
}

/// What is done about an answer that broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recover {
    Never,
    Restart,
    Continue,
}

impl Recover {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Recover::Never => "never",
            Recover::Restart => "restart",
            Recover::Continue => "continue",
        }
    }
}

/// Which door a reading comes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Http1,
    Http2,
    /// The shared socket of this number.
    Socket(u64),
}

/// When a reading ends, if not with the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    AtBytes(usize),
    After(Duration),
}

/// Where a reader comes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    /// Behind the last event that it was told.
    Last,
    /// Behind any that it was told: this one of them, modulo their number.
    Older(u64),
    Beginning,
}

/// One reading of a stream, over one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub(crate) door: Door,
    pub(crate) pause: Duration,
    pub(crate) leave: Option<Leave>,
    pub(crate) resets: bool,
    pub(crate) back: Back,
    /// The cursor comes in `Last-Event-ID`.
    pub(crate) by_header: bool,
    /// So many bytes at once, then a pause.
    pub(crate) slow: Option<(usize, Duration)>,
    /// On a socket: bytes at first, and each time half of it is used.
    pub(crate) credit: Option<u64>,
    /// On a socket: it is called off after so long.
    pub(crate) cancel: Option<Duration>,
}

/// One request and its readers.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) number: u64,
    pub(crate) tenant: u64,
    pub(crate) begins: Duration,
    pub(crate) model: String,
    pub(crate) body: Value,
    /// The faults, where the model's name cannot carry them.
    pub(crate) simulate: Option<String>,
    pub(crate) faults: Vec<Drawn>,
    /// How many attempts they strike.
    pub(crate) struck: u64,
    pub(crate) class: Class,
    pub(crate) recover: Recover,
    /// The first asks.
    pub(crate) visits: Vec<Visit>,
    /// Another reader of the same stream, from when its name is known.
    pub(crate) twin: Vec<Visit>,
    /// It is deleted so long after its name is known.
    pub(crate) deleted: Option<Duration>,
    /// It is asked for in ways that have to be refused.
    pub(crate) misused: bool,
    /// It is the next turn of this conversation.
    pub(crate) talk: Option<u64>,
    /// Of those that are kept, it is kept in the log as well.
    pub(crate) durable: bool,
}

/// A socket that streams share, and when its client drops it: again and again, then never.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) lives: Vec<Duration>,
    pub(crate) resets: bool,
    pub(crate) slow: Option<(usize, Duration)>,
}

/// One world.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
    pub(crate) scenario: Scenario,
    pub(crate) spoken: Spoken,
    pub(crate) http2_streams: u32,
    /// What is kept of a stream may be less than the stream.
    pub(crate) tight: bool,
    /// No fault breaks an answer off, and so no connection under its neighbours.
    pub(crate) gentle: bool,
    /// Models that go on make every mistake the simulator knows, and not only those that can be told
    /// from the text.
    pub(crate) clumsy: bool,
    /// Streams are turns of conversations.
    pub(crate) talks: bool,
    pub(crate) asks: Vec<Ask>,
    pub(crate) slots: Vec<Slot>,
}

impl Plan {
    /// Whether the world of `seed` has conversations.
    pub(crate) fn talks(seed: u64) -> bool {
        seed % TALKS_EVERY == TALKS_EVERY - 1
    }

    pub(crate) fn of(seed: u64, streams: u64) -> Plan {
        let prng = Prng::new(seed).fork("faulted streams");
        let mut dice = prng.fork("settings");
        let talks = Plan::talks(seed);
        let tight = dice.chance(0.08) && !talks;
        let spoken =
            [Spoken::Http1, Spoken::Http1, Spoken::Http2, Spoken::Http2, Spoken::Socket][dice.below(5) as usize];
        let keyed = dice.chance(0.5);
        let gentle = dice.chance(0.1);
        let mut settings = settings(seed, tight, keyed, &mut dice);
        let mut organisation = Organisation::new("org0", lanes(spoken));
        organisation.lane_workspaces.clear();
        settings.organisations.push(organisation);
        let http2_streams = if dice.chance(0.3) { dice.between(1, 6) as u32 } else { 100 };
        let mut scenario = scenario(spoken, &mut prng.fork("scenario"));
        let clumsy = prng.fork("clumsy").chance(0.5);
        if !clumsy {
            // As the journal's own count of seams has it: 0 to 30 characters again, often a preamble.
            let rules = ContinuationRules { preamble: 0.3, reopen: 0.5, repeat: 1.0, ..ContinuationRules::exact() };
            scenario.continuation = ContinuationRules { repeat_chars: Range { low: 0, high: 30 }, ..rules };
        }
        let rush = dice.chance(0.3);
        let asks: Vec<_> = (1..=streams)
            .map(|number| {
                let mut dice = prng.fork(&format!("stream {number}"));
                let mut ask = ask(number, spoken, tight, gentle, &mut dice);
                ask.tenant = if keyed { dice.below(TENANTS) } else { 0 };
                ask.begins = if rush { ms(&mut dice, 0, 100) } else { ms(&mut dice, 0, 15_000) };
                if talks {
                    ask.turn_of((number - 1) / TURNS, keyed);
                    ask.durable = dice.chance(0.5);
                }
                ask
            })
            .collect();
        for ask in asks.iter().filter(|ask| ask.simulate.is_none()) {
            let faults = ask.faults.iter().map(|fault| parsed(&fault.text)).collect();
            let rule = Rule::always(faults);
            scenario.faults.push(Rule { models: vec![ask.model.clone()], attempts: Some(ask.struck), ..rule });
        }
        let mut dice = prng.fork("sockets");
        let slots = (0..TENANTS * SLOTS).map(|_| slot(&mut dice)).collect();
        Plan { seed, settings, scenario, spoken, http2_streams, tight, gentle, clumsy, talks, asks, slots }
    }

    /// A world of one stream that meets `faults` at every attempt up to the `struck`th.
    pub(crate) fn small(faults: &[&str], struck: u64, change: impl FnOnce(&mut Ask, &mut Settings)) -> Plan {
        let mut settings = Settings::default();
        settings.organisations.push(Organisation::new("org0", lanes(Spoken::Http1)));
        let text = "one two three four five six seven eight nine ten ".repeat(4);
        let body = json!({"model": "echo-00000001", "max_tokens": 1000, "stream": true,
            "messages": [{"role": "user", "content": text.trim()}]});
        let drawn = faults.iter().map(|text| Drawn {
            text: (*text).to_owned(),
            kind: text.split(':').next().unwrap_or_default().to_owned(),
            place: None,
            harm: Harm::Breaks,
        });
        let mut ask = Ask {
            number: 1,
            tenant: 0,
            begins: Duration::ZERO,
            model: "echo-00000001".to_owned(),
            body,
            simulate: None,
            faults: drawn.collect(),
            struck,
            class: Class::Plain,
            recover: Recover::Never,
            visits: vec![Visit::to_the_end(Door::Http1)],
            twin: Vec::new(),
            deleted: None,
            misused: false,
            talk: None,
            durable: false,
        };
        change(&mut ask, &mut settings);
        let faults = faults.iter().map(|text| parsed(text)).collect();
        let rule = Rule { attempts: Some(struck), ..Rule::always(faults) };
        let scenario = Scenario { tier: Tier::Unlimited, faults: vec![rule], ..Scenario::calm() };
        let slot = Slot { lives: Vec::new(), resets: false, slow: None };
        let slots = vec![slot; (TENANTS * SLOTS) as usize];
        Plan {
            seed: 0,
            settings,
            scenario,
            spoken: Spoken::Http1,
            http2_streams: 100,
            tight: false,
            gentle: false,
            clumsy: true,
            talks: false,
            asks: vec![ask],
            slots,
        }
    }
}

impl Ask {
    /// Makes it the next turn of a conversation: one that says what it is told, so that what is before
    /// it changes nothing.
    fn turn_of(&mut self, talk: u64, keyed: bool) {
        self.talk = Some(talk);
        self.tenant = if keyed { talk % TENANTS } else { 0 };
        self.begins /= 8;
        self.model = format!("echo-{:08}", self.number);
        self.simulate = None;
        self.body["model"] = json!(self.model);
        if let Some(body) = self.body.as_object_mut() {
            body.shift_remove("tools");
            body.shift_remove("thinking");
        }
    }
}

impl Visit {
    /// One that reads as it comes and stays to the end.
    pub(crate) fn to_the_end(door: Door) -> Visit {
        Visit {
            door,
            pause: Duration::ZERO,
            leave: None,
            resets: false,
            back: Back::Last,
            by_header: false,
            slow: None,
            credit: None,
            cancel: None,
        }
    }
}

fn parsed(text: &str) -> Fault {
    text.parse().expect("a fault as documented")
}

fn settings(seed: u64, tight: bool, keyed: bool, prng: &mut Prng) -> Settings {
    let mut settings = Settings { seed, ..Settings::default() };
    if keyed {
        let tenant = |n: u64| ClientKey {
            tenant: format!("tenant-{n}").into(),
            hash: KeyHash::of(key(n).as_bytes()),
            expires_ms: None,
        };
        settings.keys = (0..TENANTS).map(tenant).collect();
    }
    let clocks = &mut settings.clocks;
    clocks.stream_kept = Duration::from_secs(60);
    if prng.chance(0.5) {
        clocks.heartbeat = ms(prng, 500, 15_000);
    }
    if prng.chance(0.2) {
        clocks.detach_grace = ms(prng, 1_000, 20_000);
    }
    settings.pool.idle_keep = Duration::from_secs(5);
    if tight {
        settings.limits.journal_bytes = prng.between(8_192, 16_384);
        settings.limits.backlog_bytes = prng.between(4_096, 16_384);
        settings.limits.backlog_merge_bytes = 1_024;
    }
    settings.schedule.retry.budget = 1_000_000;
    // A model that says what it is told would say what was recalled as well.
    (settings.conversations.recall, settings.conversations.summaries) = (false, false);
    settings
}

fn lanes(spoken: Spoken) -> Vec<Arc<Lane>> {
    let lane = |n: u64| {
        let (label, key) = (format!("org0/{n}"), Secret::new(format!("sk-ant-org0-{n}")));
        let host = API.trim_end_matches(":80");
        let lane = match spoken {
            Spoken::Socket => Lane::over(Transport::Tidegate, label, &format!("ws://{host}"), Scheme::default(), key),
            _ => Lane::new(label, &format!("http://{host}"), Scheme::default(), key),
        };
        let mut lane = lane.expect("a lane of the test's own");
        if spoken == Spoken::Http2 {
            debug_assert!(API_TLS.ends_with(":443"), "where HTTP/2 is chosen");
            (lane.target.tls, lane.target.port, lane.target.http) = (true, 443, HttpOffer::Http2);
        }
        Arc::new(lane)
    };
    (0..2).map(lane).collect()
}

fn scenario(spoken: Spoken, prng: &mut Prng) -> Scenario {
    let low = prng.between(1, 16);
    let pace = Pace {
        head: ms(prng, 0, 400),
        first: ms(prng, 0, 300),
        event: ms(prng, 0, 60),
        ping: ms(prng, 2_000, 15_000),
        chars: Range { low, high: low + prng.between(0, 50) },
        output_tokens: Range { low: 5, high: prng.between(30, 200) },
        thinking_tokens: Range { low: 5, high: 60 },
        ..Pace::default()
    };
    let mut scenario = Scenario { pace, tier: Tier::Unlimited, ..Scenario::calm() };
    if prng.chance(0.1) {
        let late = parsed(&format!("slow-connect:{}ms", prng.between(50, 2_500)));
        scenario.faults.push(Rule { probability: 0.2, ..Rule::always(vec![late]) });
    }
    if spoken == Spoken::Socket && prng.chance(0.3) {
        let rule = Rule::always(vec![parsed("no-upgrade")]);
        scenario.faults.push(Rule { probability: 0.1, ..rule });
    }
    if spoken == Spoken::Socket && prng.chance(0.2) {
        let rule = Rule::always(vec![parsed("no-pong")]);
        scenario.faults.push(Rule { probability: 0.02, ..rule });
    }
    scenario
}
