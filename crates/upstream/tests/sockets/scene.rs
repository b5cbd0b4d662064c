//! A pool of one lane of WebSockets, and what stands at its other end.

use crate::peer::{Heard, Peer, head, many, opened};
use bytes::Bytes;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_base::{Moment, Prng, Secret};
use tidegate_observe::Metrics;
use tidegate_transport::{BoxIo, Clock, Listen, MemoryNetwork, TaskKind, Tasks};
use tidegate_upstream::{
    Exchange, ExchangeClocks, ExchangeError, Lane, Outgoing, Pool, PoolParts, PoolRules, ProbeClocks, Scheme, Transport,
};
use tokio::io::AsyncWriteExt;

pub(crate) const PEER: TaskKind = TaskKind { name: "test peer", on_cancel: "ends", on_error: "ends" };
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) struct Scene {
    pub(crate) pool: Arc<Pool>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) network: MemoryNetwork,
    pub(crate) tasks: Tasks,
    /// When each connection was accepted.
    pub(crate) accepted: Arc<Mutex<Vec<Moment>>>,
    pub(crate) heard: Heard,
}

pub(crate) fn rules() -> PoolRules {
    PoolRules { socket_spares: 0, ..PoolRules::default() }
}

/// A lane to another Tidegate at `api:80`.
pub(crate) fn scene(rules: PoolRules) -> Scene {
    scene_of(Transport::Tidegate, "ws://api", rules)
}

pub(crate) fn scene_of(transport: Transport, url: &str, rules: PoolRules) -> Scene {
    let (clock, metrics, network, tasks) = (Clock::real(), Metrics::new(), MemoryNetwork::new(), Tasks::new());
    let lane = Lane::over(transport, "main/0", url, Scheme::ApiKey, Secret::new("k")).unwrap();
    let pool = Arc::new(Pool::new(PoolParts {
        clock,
        dial: Arc::new(network.clone()),
        rules,
        lanes: &[(Arc::new(lane), true)],
        metrics: &metrics,
        tasks: tasks.clone(),
        prng: Prng::new(1),
    }));
    Scene { pool, metrics, clock, network, tasks, accepted: Arc::default(), heard: Arc::default() }
}

pub(crate) async fn send(pool: &Pool, target: &str, body: &str, is_stream: bool) -> Result<Exchange, ExchangeError> {
    let clocks = ExchangeClocks {
        upload_stall: Duration::from_secs(10),
        first_byte: Some(Duration::from_secs(30)),
        probe: ProbeClocks::default(),
    };
    let lines = |out: &mut tidegate_wire::http::HeadWriter<'_>| {
        out.header("anthropic-version", b"2023-06-01").header("user-agent", b"x").header("anthropic-beta", b"b-1");
    };
    let body = Some(Bytes::from(body.to_owned()));
    let request = Outgoing { method: "POST", target, body, upload: None, is_stream, lines: &lines, clocks };
    pool.exchange(0, &request, |_| {}).await
}

/// A stream that is asked to `what`.
pub(crate) async fn ask(pool: &Pool, what: &str) -> Result<Exchange, ExchangeError> {
    send(pool, "/v1/messages", &format!(r#"{{"do":"{what}"}}"#), true).await
}

impl Scene {
    pub(crate) async fn ask(&self, what: &str) -> Result<Exchange, ExchangeError> {
        ask(&self.pool, what).await
    }

    /// Asks for an answer, which must be whole.
    pub(crate) async fn is_answered(&self) {
        let mut exchange = self.ask("answer").await.unwrap();
        let body = exchange.read_body(1000).await.unwrap();
        assert_eq!(body, "event: e1\ndata: {\"type\":\"e1\"}\n\nevent: e3\ndata: {\"type\":\"e3\"}\n\n");
        exchange.finish(self.clock.now());
    }

    /// Listens; each connection is handed to `each` with its number, from 1.
    pub(crate) fn listen<F>(&self, each: impl Fn(usize, BoxIo) -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut door = self.network.listen("api:80");
        let (accepted, clock) = (Arc::clone(&self.accepted), self.clock);
        Tasks::new().spawn(&PEER, async move {
            while let Ok(knock) = door.accept().await {
                let number = {
                    let mut all = accepted.lock().unwrap();
                    all.push(clock.now());
                    all.len()
                };
                Tasks::new().spawn(&PEER, each(number, knock.open().unwrap()));
            }
        });
    }

    /// Listens and speaks `tidegate.v1`.
    pub(crate) fn serve(&self) {
        let (clock, heard) = (self.clock, Arc::clone(&self.heard));
        self.listen(move |number, io| {
            let heard = Arc::clone(&heard);
            async move {
                let socket = opened(io, clock).await;
                many(Peer { socket, number, heard }).await;
            }
        });
    }

    /// Listens and answers each handshake with `answer`.
    pub(crate) fn refuse(&self, answer: &'static str) {
        self.listen(move |_, mut io| async move {
            head(&mut io).await;
            io.write_all(answer.as_bytes()).await.unwrap();
        });
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    /// What the connections heard that holds `text`.
    pub(crate) fn heard(&self, text: &str) -> Vec<(usize, String)> {
        self.heard.lock().unwrap().iter().filter(|(_, heard)| heard.contains(text)).cloned().collect()
    }

    /// The number at the end of the metric's line that begins so.
    pub(crate) fn metric(&self, line: &str) -> i64 {
        let text = self.metrics.text();
        let found = text.lines().find_map(|l| l.strip_prefix(line)).unwrap_or_else(|| panic!("{line}\n{text}"));
        found.trim().parse().unwrap()
    }

    /// Busy and idle sockets, streams.
    pub(crate) fn gauges(&self) -> (i64, i64, i64) {
        let state = |s| self.metric(&format!("tidegate_upstream_connections{{lane=\"main/0\",state=\"{s}\"}}"));
        (state("busy"), state("idle"), self.metric("tidegate_upstream_streams{lane=\"main/0\"}"))
    }

    pub(crate) fn dials(&self, result: &str) -> i64 {
        self.metric(&format!("tidegate_upstream_connects_total{{lane=\"main/0\",state=\"{result}\"}}"))
    }

    /// Closes the pool, and looks that nothing is left.
    pub(crate) async fn ends_with_nothing(&self) {
        self.pool.close();
        tokio::time::timeout(Duration::from_secs(7), self.tasks.all_ended()).await.unwrap();
        assert_eq!(self.gauges(), (0, 0, 0));
    }
}

/// Lets the other tasks run.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
