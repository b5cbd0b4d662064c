//! What a seed decides: the gateway's settings, the API's temper, and who calls.
//!
//! Everything is drawn here, before the first event, from one generator; nothing is drawn while
//! the world runs. A fifth of the worlds are *calm*: no faults, no limits, no hurry, and there every
//! request has to succeed.

use crate::world::plan::{Client, Http2, Request, plan_clients};
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::{Prng, Secret};
use tidegate_gateway::{ClientKey, KeyHash, Organisation, Settings};
use tidegate_simulator::{Limits, Organisation as Caller, Pace, Range, Rule, Scenario, Tier};
use tidegate_simulator_server::HTTP2_STREAMS;
use tidegate_transport::HttpOffer;
use tidegate_upstream::{Lane, Scheme};

/// Where the simulator listens.
pub(crate) const API: &str = "api.test:80";
/// The same simulator where TLS is spoken, and so the version of HTTP is its choice.
pub(crate) const API_TLS: &str = "api.test:443";
/// Where the gateway listens.
pub(crate) const GATEWAY: &str = "gateway.test:80";

/// One world.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) seed: u64,
    pub(crate) calm: bool,
    pub(crate) settings: Settings,
    pub(crate) scenario: Scenario,
    pub(crate) clients: Vec<Client>,
    /// When a drain begins.
    pub(crate) drain_at: Option<Duration>,
    /// When an operator cancels a request, and the how manieth of those that live.
    pub(crate) cancels: Vec<(Duration, u64)>,
    pub(crate) api: Api,
}

/// How the API speaks HTTP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Api {
    /// Streams of one HTTP/2 connection.
    pub(crate) http2_streams: u32,
    /// Whether it chooses HTTP/2 where it may choose.
    pub(crate) chooses_http2: bool,
    /// When it begins to choose otherwise.
    pub(crate) changes_at: Option<Duration>,
}

impl Scene {
    pub(crate) fn of(seed: u64) -> Scene {
        let prng = Prng::new(seed).fork("world");
        let calm = prng.fork("calm").chance(0.2);
        let mut settings = settings(seed, calm, &mut prng.fork("settings"));
        let mut scenario = scenario(calm, &mut prng.fork("scenario"));
        organisations(&mut settings, &mut scenario, calm, &mut prng.fork("organisations"));
        let api = api(&mut settings, calm, &mut prng.fork("http"));
        let mut dice = prng.fork("operator");
        let mut drain_at = dice.chance(0.15).then(|| ms(&mut dice, 500, 40_000));
        let mut cancels: Vec<_> = match dice.chance(0.3) {
            true => (0..dice.between(1, 6)).map(|_| (ms(&mut dice, 100, 40_000), dice.next_u64())).collect(),
            false => Vec::new(),
        };
        if calm {
            (drain_at, cancels) = (None, Vec::new());
        }
        cancels.sort();
        let clients = plan_clients(calm, &settings, &prng.fork("clients"));
        Scene { seed, calm, settings, scenario, clients, drain_at, cancels, api }
    }

    /// A world of one client whose requests meet `faults`: once if `once`, else at every attempt.
    pub(crate) fn small(faults: &[&str], once: bool, requests: Vec<Request>) -> Scene {
        let mut settings = Settings::default();
        let lanes = vec![lane("org0/0".to_owned(), "api.test", "sk-ant-org0-0")];
        settings.organisations.push(Organisation::new("org0", lanes));
        let faults = faults.iter().map(|f| f.parse().expect("a fault as documented")).collect();
        let until = once.then_some(Duration::from_millis(1));
        let rule = Rule { until, ..Rule::always(faults) };
        let scenario = Scenario { tier: Tier::Unlimited, faults: vec![rule], ..Scenario::calm() };
        let clients = vec![Client { requests, http2: None }];
        let api = Api { http2_streams: HTTP2_STREAMS, chooses_http2: false, changes_at: None };
        Scene { seed: 0, calm: false, settings, scenario, clients, drain_at: None, cancels: Vec::new(), api }
    }

    /// Whether a lane certainly speaks HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        let mut lanes = self.settings.organisations.iter().flat_map(|org| &org.lanes);
        lanes.any(|lane| lane.target.http == HttpOffer::Http2)
    }

    /// A world of one client of HTTP/2 towards an API that speaks it as well.
    pub(crate) fn small_http2(faults: &[&str], once: bool, mut requests: Vec<Request>) -> Scene {
        requests.iter_mut().for_each(|request| request.http2 = true);
        let mut scene = Scene::small(faults, once, requests);
        scene.clients[0].http2 = Some(Http2 { window: 65_535 });
        for lane in &mut scene.settings.organisations[0].lanes {
            *lane = Arc::new(Lane::clone(lane).offering(HttpOffer::Http2));
        }
        scene
    }

    /// The same API in a good mood: what it would have said to each request.
    pub(crate) fn good_mood(&self) -> Scenario {
        let tier = Tier::Unlimited;
        Scenario { pace: self.scenario.pace, tier, ..Scenario::calm() }
    }
}

pub(crate) fn ms(prng: &mut Prng, low: u64, high: u64) -> Duration {
    Duration::from_millis(prng.between(low, high))
}

fn settings(seed: u64, calm: bool, prng: &mut Prng) -> Settings {
    let mut settings = Settings { seed, ..Settings::default() };
    if prng.chance(0.5) {
        let tenant = |n: u64| ClientKey {
            tenant: format!("tenant-{n}").into(),
            hash: KeyHash::of(key(n).as_bytes()),
            expires_ms: None,
        };
        settings.keys = (0..TENANTS).map(tenant).collect();
    }
    let limits = &mut settings.limits;
    limits.body_bytes = prng.between(60_000, 200_000);
    if calm {
        limits.body_bytes = 200_000;
    }
    limits.passthrough_tokens = *prng.pick(&[16, 64, 200, 1024]).unwrap_or(&1024);
    if calm {
        return settings;
    }
    let s = Duration::from_secs;
    if prng.chance(0.5) {
        let clocks = &mut settings.clocks;
        clocks.heartbeat = ms(prng, 300, 5_000);
        clocks.first_byte = ms(prng, 1_000, 30_000);
        clocks.gap = ms(prng, 1_000, 45_000);
        clocks.progress = ms(prng, 2_000, 60_000);
        clocks.progress_unseen = clocks.progress * 2;
        clocks.whole = ms(prng, 5_000, 120_000);
        clocks.client_write_stall = ms(prng, 1_000, 30_000);
        clocks.client_head = s(prng.between(1, 10));
        clocks.client_body_stall = s(prng.between(1, 10));
        clocks.client_idle = s(prng.between(1, 60));
        clocks.drain = ms(prng, 100, 30_000);
        clocks.key_rejected = s(prng.between(1, 60));
    }
    if prng.chance(0.3) {
        limits.backlog_merge_bytes = prng.between(1_000, 8_000);
        limits.backlog_bytes = limits.backlog_merge_bytes * prng.between(2, 8);
    }
    if prng.chance(0.3) {
        limits.connections = prng.between(3, 12) as usize;
        limits.streams = prng.between(3, 12) as usize;
    }
    if prng.chance(0.2) {
        limits.bodies_bytes = prng.between(5_000, 300_000);
    }
    if prng.chance(0.2) {
        limits.answer_bytes = prng.between(1_000, 20_000);
    }
    if prng.chance(0.3) {
        settings.schedule.queue.waiting_max = prng.between(0, 6) as usize;
    }
    if prng.chance(0.3) {
        settings.schedule.queue.wait_max = [s(prng.between(1, 20)), s(prng.between(1, 60)), s(prng.between(1, 100))];
    }
    if prng.chance(0.5) {
        settings.schedule.retry.attempts_max = prng.between(1, 6) as u32;
        settings.schedule.retry.budget = prng.between(0, 500) as u32;
    }
    if prng.chance(0.3) {
        settings.pool.idle_max = prng.between(0, 3) as usize;
        settings.pool.idle_keep = ms(prng, 100, 60_000);
    }
    settings
}

/// Tenants, where there are client keys.
const TENANTS: u64 = 3;

/// A tenant's key.
pub(crate) fn key(tenant: u64) -> String {
    format!("tg_key_of_tenant_{}", tenant % TENANTS)
}

fn lane(label: String, host: &str, key: &str) -> Arc<Lane> {
    let lane = Lane::new(label, &format!("http://{host}"), Scheme::default(), Secret::new(key));
    Arc::new(lane.expect("a lane of the test's own"))
}

fn organisations(settings: &mut Settings, scenario: &mut Scenario, calm: bool, prng: &mut Prng) {
    for org in 0..prng.between(1, 3) {
        let name = format!("org{org}");
        let mut caller = Caller { name: name.clone(), ..Caller::default() };
        let mut lanes = Vec::new();
        for n in 0..prng.between(1, 2) {
            let key = format!("sk-ant-{name}-{n}");
            lanes.push(lane(format!("{name}/{n}"), "api.test", &key));
            let revoked = !calm && prng.chance(0.05);
            if revoked { &mut caller.revoked } else { &mut caller.keys }.push(key);
        }
        if !calm && prng.chance(0.3) {
            for class in ["echo", "sonnet-5-5", "haiku-4-5"] {
                caller.limits.insert(class.to_owned(), tight(prng));
            }
        }
        scenario.organisations.push(caller);
        settings.organisations.push(Organisation::new(name, lanes));
    }
    if !calm && prng.chance(0.05) {
        let lanes = vec![lane("gone/0".to_owned(), "gone.test", "sk-ant-gone-0")];
        settings.organisations.push(Organisation::new("gone", lanes));
    }
}

/// Which HTTP each lane speaks. In half of the worlds all of them HTTP/1.1, as they are.
fn api(settings: &mut Settings, calm: bool, prng: &mut Prng) -> Api {
    let http2_streams = if prng.chance(0.4) { prng.between(1, 4) as u32 } else { HTTP2_STREAMS };
    let chooses_http2 = prng.chance(0.8);
    let changes_at = (!calm && prng.chance(0.2)).then(|| ms(prng, 500, 40_000));
    if prng.chance(0.5) {
        return Api { http2_streams, chooses_http2, changes_at: None };
    }
    for lane in settings.organisations.iter_mut().flat_map(|org| &mut org.lanes) {
        let mut there = Lane::clone(lane);
        match prng.below(3) {
            0 => {}
            1 => there.target.http = HttpOffer::Http2,
            _ => (there.target.tls, there.target.port) = (true, 443),
        }
        *lane = Arc::new(there);
    }
    if !calm && prng.chance(0.3) {
        settings.pool.http2_age = ms(prng, 200, 30_000);
    }
    if !calm && prng.chance(0.3) {
        settings.clocks.probe = ms(prng, 100, 10_000);
        settings.clocks.probe_answer = ms(prng, 100, 5_000);
    }
    Api { http2_streams, chooses_http2, changes_at }
}

/// Limits that a few clients run into.
fn tight(prng: &mut Prng) -> Limits {
    Limits {
        requests: prng.between(10, 120),
        input_tokens: prng.between(2_000, 50_000),
        output_tokens: prng.between(1_000, 30_000),
        burst: Duration::from_secs(prng.between(1, 30)),
    }
}

fn scenario(calm: bool, prng: &mut Prng) -> Scenario {
    let pace = Pace {
        head: ms(prng, 0, 400),
        first: ms(prng, 0, 500),
        event: ms(prng, 0, 60),
        tokens_per_second: prng.chance(0.2).then(|| prng.between(20, 300)),
        ping: ms(prng, 2_000, 15_000),
        chars: Range { low: prng.between(1, 12), high: prng.between(12, 60) },
        output_tokens: Range { low: 5, high: prng.between(20, 240) },
        thinking_tokens: Range { low: 5, high: prng.between(20, 120) },
        ..Pace::default()
    };
    let mut scenario = Scenario { pace, tier: Tier::Unlimited, ..Scenario::calm() };
    if !calm {
        let rules = prng.between(0, 6);
        scenario.faults = (0..rules).map(|_| rule(prng)).collect();
    }
    scenario
}

fn rule(prng: &mut Prng) -> Rule {
    let count = if prng.chance(0.2) { 2 } else { 1 };
    let faults = (0..count).map(|_| fault(prng).parse().expect("a fault as documented")).collect();
    let period = prng.chance(0.2).then(|| ms(prng, 1_000, 20_000));
    Rule {
        probability: *prng.pick(&[0.02, 0.1, 0.3, 1.0]).unwrap_or(&0.1),
        every: prng.chance(0.1).then(|| prng.between(2, 5)),
        until: period.map(|p| p.mul_f64(prng.unit())),
        period,
        open_over: prng.chance(0.1).then(|| prng.between(2, 8)),
        stream: prng.chance(0.2).then(|| prng.chance(0.5)),
        ..Rule::always(faults)
    }
}

/// A fault of any kind the simulator knows, but for events that change places: no reader of a stream
/// can tell what was first, so nothing can be asked of what it says then (worlds of faulted streams
/// draw them, and ask for what is left to be asked).
fn fault(prng: &mut Prng) -> String {
    let place = match prng.below(11) {
        0 => prng.below(5_000).to_string(),
        1 => format!("event-{}", prng.below(3)),
        2 => format!("event-{}", prng.below(40)),
        3 => "in-utf8".to_owned(),
        4 => "in-tool".to_owned(),
        5 => "before-delta".to_owned(),
        6 => "before-stop".to_owned(),
        7 => "in-text".to_owned(),
        8 => "in-thinking".to_owned(),
        9 => "between-tools".to_owned(),
        _ => "in-data".to_owned(),
    };
    let span = prng.between(50, 100_000);
    let kind = ["overloaded_error", "api_error", "timeout_error", "rate_limit_error", "invalid_request_error"];
    let kind = kind[prng.below(5) as usize];
    let status = [400, 401, 403, 404, 413, 429, 500, 500, 502, 503, 504, 529, 529][prng.below(13) as usize];
    match prng.below(25) {
        0 => format!("slow-connect:{span}ms"),
        1 => format!("slow-head:{span}ms"),
        2 | 3 => format!("status:{status}"),
        4 => format!("status:429:{}", prng.below(20)),
        5 => "reset-before-head".to_owned(),
        6 => "close-before-head".to_owned(),
        7 => format!("reset-at:{place}"),
        8 => format!("close-at:{place}"),
        9 => format!("end-at:{place}"),
        10 => format!("stall-at:{place}:{span}ms"),
        11 | 17 => format!("pings-at:{place}:{span}ms"),
        12 => format!("error-at:{place}:{kind}"),
        13 => format!("garbage-at:{place}"),
        14 => format!("unknown-at:{place}"),
        15 => format!("duplicate-at:{place}"),
        18 => format!("half-close-at:{place}"),
        19 => format!("truncate-at:{place}"),
        20 | 21 => format!("goaway-at:{place}"),
        22 => format!("goaway-at:{place}:error"),
        23 => format!("trickle:{}B", prng.between(200, 5_000)),
        24 => format!("huge-at:{place}:{}KB", prng.between(1, 300)),
        _ => "one-byte".to_owned(),
    }
}
