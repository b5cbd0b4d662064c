//! A pool of one lane, and what stands at its other end.

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tidegate_base::{Prng, Secret};
use tidegate_observe::Metrics;
use tidegate_transport::{BoxIo, Clock, HttpOffer, Listen, MemoryNetwork, TaskKind, Tasks};
use tidegate_upstream::{
    Exchange, ExchangeClocks, ExchangeError, Lane, Outgoing, Pool, PoolParts, PoolRules, ProbeClocks, Scheme,
};

pub(crate) const PEER: TaskKind = TaskKind { name: "test peer", on_cancel: "ends", on_error: "ends" };

pub(crate) struct Scene {
    pub(crate) pool: Arc<Pool>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) network: MemoryNetwork,
    pub(crate) tasks: Tasks,
    /// Connections that were accepted so far.
    pub(crate) accepted: Arc<AtomicUsize>,
}

/// A lane to `api:443` that offers `http`; the other side chooses HTTP/2.
pub(crate) fn scene(http: HttpOffer) -> Scene {
    let (clock, metrics, network, tasks) = (Clock::real(), Metrics::new(), MemoryNetwork::new(), Tasks::new());
    network.choose_http2("api:443", true);
    let lane = Lane::new("main/0", "https://api", Scheme::ApiKey, Secret::new("k")).unwrap().offering(http);
    let pool = Arc::new(Pool::new(PoolParts {
        clock,
        dial: Arc::new(network.clone()),
        rules: PoolRules::default(),
        lanes: &[(Arc::new(lane), true)],
        metrics: &metrics,
        tasks: tasks.clone(),
        prng: Prng::new(1),
    }));
    Scene { pool, metrics, clock, network, tasks, accepted: Arc::default() }
}

pub(crate) async fn ask(pool: &Pool, body: usize) -> Result<Exchange, ExchangeError> {
    let clocks = ExchangeClocks {
        upload_stall: Duration::from_secs(10),
        first_byte: Some(Duration::from_secs(30)),
        probe: ProbeClocks::default(),
    };
    let request = Outgoing {
        method: "POST",
        target: "/",
        body: Some(Bytes::from(vec![0; body])),
        upload: None,
        is_stream: true,
        lines: &|_| {},
        clocks,
    };
    pool.exchange(0, &request, |_| {}).await
}

impl Scene {
    pub(crate) async fn ask(&self) -> Result<Exchange, ExchangeError> {
        ask(&self.pool, 5).await
    }

    /// Asks and reads the answer, which must be `want`.
    pub(crate) async fn told(&self, want: &str) {
        let mut exchange = self.ask().await.unwrap();
        assert_eq!(exchange.read_body(100).await.unwrap(), want);
        exchange.finish(self.clock.now());
    }

    /// Listens; each connection is handed to `each` with its number, from 1.
    pub(crate) fn listen<F>(&self, each: impl Fn(usize, BoxIo) -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut door = self.network.listen("api:443");
        let accepted = Arc::clone(&self.accepted);
        Tasks::new().spawn(&PEER, async move {
            while let Ok(knock) = door.accept().await {
                let number = accepted.fetch_add(1, Ordering::Relaxed) + 1;
                Tasks::new().spawn(&PEER, each(number, knock.open().unwrap()));
            }
        });
    }

    /// Listens with h2's server made by `builder`; each stream is handed to `each`.
    pub(crate) fn serve<F>(
        &self,
        builder: server::Builder,
        each: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.listen(move |_, io| {
            let (builder, each) = (builder.clone(), each.clone());
            async move { streams(builder, io, each).await }
        });
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// The number at the end of the metric's line that begins so.
    pub(crate) fn metric(&self, line: &str) -> i64 {
        let text = self.metrics.text();
        let found = text.lines().find_map(|l| l.strip_prefix(line)).unwrap_or_else(|| panic!("{line}\n{text}"));
        found.trim().parse().unwrap()
    }

    /// Busy and idle connections, streams.
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
        tokio::time::timeout(Duration::from_secs(6), self.tasks.all_ended()).await.unwrap();
        assert_eq!(self.gauges(), (0, 0, 0));
    }
}

/// One connection of h2's server.
pub(crate) async fn streams<F>(
    builder: server::Builder,
    io: BoxIo,
    each: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(mut conn) = builder.handshake::<_, Bytes>(io).await else { return };
    while let Some(Ok((request, respond))) = conn.accept().await {
        Tasks::new().spawn(&PEER, each(request, respond));
    }
}

/// Begins an answer of unknown length.
pub(crate) fn begin(mut respond: SendResponse<Bytes>) -> SendStream<Bytes> {
    respond.send_response(Response::new(()), false).unwrap()
}

/// Answers after `pause`.
pub(crate) async fn ok(_: Request<RecvStream>, respond: SendResponse<Bytes>, pause: Duration) {
    tokio::time::sleep(pause).await;
    let mut out = begin(respond);
    // A client that left has its answer refused.
    let _ = out.send_data(Bytes::from("ok"), true);
}

/// Lets the other tasks run.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
