//! A gateway as an operator would configure it, between simulated APIs and clients that come at a
//! rate, over a network in memory and in virtual time. Everything is asked through doors: the
//! clients', the operators', and the ground truth of the APIs.

use crate::world::answer::Reading;
use serde_json::Value;
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tidegate::config::Config;
use tidegate_base::{Moment, Prng};
use tidegate_gateway::{Gateway, serve_admin};
use tidegate_simulator::{Scenario, Simulator};
use tidegate_simulator_server::{Doors, HTTP2_STREAMS, SharedSimulator};
use tidegate_transport::{Clock, Listen, MemoryNetwork, TaskKind, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const EPOCH_S: u64 = 1_795_000_000;
const GATEWAY: &str = "gateway.test:80";
const ADMIN: &str = "admin.test:80";
/// No answer takes longer here.
const HANG: Duration = Duration::from_secs(1_500);

const ALL: TaskKind = TaskKind { name: "stage", on_cancel: "the test is over", on_error: "the test fails" };

/// One gateway, its surroundings, and the time there.
#[derive(Clone)]
pub(crate) struct Stage {
    clock: Clock,
    network: MemoryNetwork,
    apis: Arc<Vec<(String, SharedSimulator)>>,
    tasks: Arc<Tasks>,
}

/// A client's request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) key: &'static str,
    pub(crate) body: Value,
}

impl Ask {
    /// A stream of haiku about something.
    pub(crate) fn about(text: &str) -> Ask {
        let body = serde_json::json!({"model": "claude-haiku-5-5", "max_tokens": 1_000, "stream": true,
            "messages": [{"role": "user", "content": text}]});
        Ask { key: "whatever", body }
    }

    pub(crate) fn by(self, key: &'static str) -> Ask {
        Ask { key, ..self }
    }
}

/// What a client was told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) asked: Moment,
    pub(crate) ended: Moment,
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Told {
    /// Whether it is the whole message.
    pub(crate) fn is_whole(&self) -> bool {
        self.status == 200 && self.text.contains("event: message_stop") && !self.text.contains("event: error")
    }

    /// Whether it is the refusal of a wait that would have been, or was, too long; told inside the
    /// stream if that had to be kept alive by heartbeats.
    pub(crate) fn is_shed(&self) -> bool {
        matches!(self.status, 200 | 529) && self.text.contains("\"error_code\":\"queue_wait_too_long\"")
    }

    pub(crate) fn took(&self) -> Duration {
        self.ended.since(self.asked)
    }
}

/// Plays `scene` on a stage with this configuration and these APIs, by their host names.
pub(crate) fn play(config: &str, apis: &[(&str, &str)], scene: impl AsyncFnOnce(&Stage)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let clock = Clock::from_wall(UNIX_EPOCH + Duration::from_secs(EPOCH_S));
        let (network, tasks) = (MemoryNetwork::new(), Arc::new(Tasks::new()));
        let api = |(host, scenario): &(&str, &str)| {
            let scenario = Scenario::parse(scenario).unwrap_or_else(|e| panic!("{host}: {e}"));
            let simulator = SharedSimulator::new(Simulator::new(scenario, 7, EPOCH_S));
            let door = network.listen(&format!("{host}:80"));
            let doors = Doors { api: Box::new(door), truth: None, http2_streams: HTTP2_STREAMS };
            let served = tidegate_simulator_server::run(doors, simulator.clone(), clock, Tasks::new(), pending());
            tasks.spawn(&ALL, served);
            ((*host).to_owned(), simulator)
        };
        let apis = Arc::new(apis.iter().map(api).collect());
        let config = Config::parse(Path::new("tidegate.toml"), config, &|_| None).unwrap();
        let gateway = Gateway::new(config.settings, clock, Arc::new(network.clone()));
        gateway.serve_here(Box::new(network.listen(GATEWAY)));
        let admin: Box<dyn Listen> = Box::new(network.listen(ADMIN));
        tasks.spawn(&ALL, serve_admin(gateway.clone(), admin));
        let stage = Stage { clock, network, apis, tasks };
        scene(&stage).await;
        stage.rests().await;
        drop(gateway);
    });
}

/// A request that goes on by itself.
type Begun<T> = tokio::task::JoinHandle<T>;

/// What became of each.
async fn all(asked: Vec<Begun<Told>>) -> Vec<Told> {
    let mut told = Vec::new();
    for one in asked {
        told.push(one.await.unwrap());
    }
    told
}

impl Stage {
    /// Time since everything began.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now().since(Moment::ZERO)
    }

    pub(crate) async fn until(&self, at: Duration) {
        self.clock.sleep_until(Moment::ZERO + at).await;
    }

    async fn exchange(&self, door: &str, request: Vec<u8>) -> Reading {
        let mut reading = Reading::new(false, Vec::new());
        let talk = async {
            let mut io = self.network.connect(door).unwrap();
            io.write_all(&request).await.unwrap();
            let mut buffer = vec![0; 64 * 1024];
            while reading.is_open() {
                match io.read(&mut buffer).await {
                    Ok(n) if n > 0 => reading.feed(&buffer[..n], self.clock.now()),
                    end => reading.closed(end.is_ok()),
                }
            }
        };
        assert!(self.clock.within(HANG, talk).await.is_some(), "no answer in {HANG:?}");
        reading
    }

    /// One request, to its end.
    pub(crate) async fn ask(&self, ask: &Ask) -> Told {
        let asked = self.clock.now();
        let body = ask.body.to_string();
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: gateway.test\r\nx-api-key: {}\r\nanthropic-version: 2023-06-01\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            ask.key,
            body.len()
        );
        let reading = self.exchange(GATEWAY, head.into_bytes()).await;
        let status = reading.head.as_ref().map_or(0, |head| head.status);
        Told { asked, ended: self.clock.now(), status, text: String::from_utf8(reading.body).unwrap() }
    }

    /// So many at once, each by a client of its own; they go on by themselves.
    pub(crate) fn begin_crowd(&self, many: usize, ask: impl Fn(usize) -> Ask) -> impl Future<Output = Vec<Told>> {
        all((0..many).map(|n| self.begin(ask(n))).collect())
    }

    /// The same, to their end.
    pub(crate) async fn crowd(&self, many: usize, ask: impl Fn(usize) -> Ask) -> Vec<Told> {
        self.begin_crowd(many, ask).await
    }

    /// One request that goes on by itself.
    fn begin(&self, ask: Ask) -> Begun<Told> {
        let stage = self.clone();
        self.tasks.spawn(&ALL, async move { stage.ask(&ask).await })
    }

    /// [`Stage::offer`] that goes on by itself.
    pub(crate) fn begin_offer(
        &self,
        per_second: f64,
        end: Duration,
        ask: impl Fn(usize) -> Ask + Send + 'static,
    ) -> impl Future<Output = Vec<Told>> {
        let stage = self.clone();
        let begun = self.tasks.spawn(&ALL, async move { stage.offer(per_second, end, ask).await });
        async { begun.await.unwrap() }
    }

    /// Requests at this rate, at random moments, until `end`, whatever becomes of them; then what
    /// became of each.
    pub(crate) async fn offer(&self, per_second: f64, end: Duration, ask: impl Fn(usize) -> Ask) -> Vec<Told> {
        let mut prng = Prng::new(11);
        let (mut at, mut asked) = (self.now().as_secs_f64(), Vec::new());
        loop {
            at += -(1.0 - prng.unit()).ln() / per_second;
            if at >= end.as_secs_f64() {
                break;
            }
            self.until(Duration::from_secs_f64(at)).await;
            asked.push(self.begin(ask(asked.len())));
        }
        all(asked).await
    }

    async fn page(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin.test\r\nconnection: close\r\n\r\n");
        String::from_utf8(self.exchange(ADMIN, request.into_bytes()).await.body).unwrap()
    }

    /// The rows of `/domains` of an organisation.
    pub(crate) async fn domains(&self, organisation: &str) -> Vec<Value> {
        let page: Value = serde_json::from_str(&self.page("/domains").await).unwrap();
        let rows = page["domains"].as_array().unwrap();
        rows.iter().filter(|row| row["organisation"] == organisation).cloned().collect()
    }

    /// A metric by name and labels; 0 where it is not told.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let page = self.page("/metrics").await;
        let line = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// What the API at `host` counted.
    pub(crate) fn truth(&self, host: &str) -> Truth {
        let (_, simulator) = self.apis.iter().find(|(name, _)| name == host).expect("an API of this stage");
        simulator.with(|s| {
            let seconds = s.truth().seconds_json();
            Truth { counts: s.summary(self.clock.now()), seconds }
        })
    }

    /// Waits until nothing is held for anybody, and looks whether it was all given back.
    async fn rests(&self) {
        self.until(self.now() + Duration::from_secs(30)).await;
        for held in ["tidegate_leases", "tidegate_queue_waiting", "tidegate_leases_leaked_total"] {
            assert_eq!(self.metric(held).await, 0.0, "{held}");
        }
        assert_eq!(self.metric("tidegate_lease_audit_difference").await, 0.0);
    }
}

/// What an API counted up to a moment.
#[derive(Debug)]
pub(crate) struct Truth {
    counts: Value,
    seconds: Value,
}

impl Truth {
    /// Refusals whose name begins so.
    pub(crate) fn refused(&self, beginning: &str) -> u64 {
        let all = self.counts["refusals"].as_object().unwrap();
        all.iter().filter(|(name, _)| name.starts_with(beginning)).filter_map(|(_, n)| n.as_u64()).sum()
    }

    /// Tokens of this kind over all organisations.
    pub(crate) fn tokens(&self, kind: &str) -> u64 {
        let rows = self.counts["domains"].as_array().unwrap();
        rows.iter().filter_map(|row| row[format!("{kind}_tokens")].as_u64()).sum()
    }

    /// A number of a limiter's account of haiku, of an organisation or one of its workspaces.
    fn account(&self, organisation: &str, workspace: Option<&str>, limiter: &str, what: &str) -> f64 {
        let rows = self.counts["quota"]["limits"].as_array().unwrap();
        let row = rows.iter().find(|row| {
            (row["organisation"] == organisation)
                && row["workspace"].as_str() == workspace
                && row["class"] == "haiku-5-5"
        });
        row.and_then(|row| row[limiter][what].as_i64()).unwrap_or_else(|| panic!("{organisation} {:#}", self.counts))
            as f64
    }

    /// Requests of an organisation that were admitted in these seconds, and 429s.
    pub(crate) fn between(&self, organisation: &str, from: u64, to: u64) -> (u64, u64) {
        let rows = self.seconds.as_array().unwrap();
        let seconds = rows.iter().filter(|row| row["organisation"] == organisation);
        let seconds = seconds.flat_map(|row| row["seconds"].as_array().unwrap());
        let number = |second: &Value, n: usize| second[n].as_u64().unwrap();
        let within = seconds.filter(|second| (from..to).contains(&number(second, 0)));
        within.fold((0, 0), |(ok, no), second| (ok + number(second, 1), no + number(second, 4)))
    }
}

/// The part of what a limiter allowed between two looks that was used.
pub(crate) fn used(organisation: &str, workspace: Option<&str>, limiter: &str, before: &Truth, after: &Truth) -> f64 {
    let of = |truth: &Truth, what| truth.account(organisation, workspace, limiter, what);
    let grew = |what| of(after, what) - of(before, what);
    grew("used") / grew("allowed")
}
