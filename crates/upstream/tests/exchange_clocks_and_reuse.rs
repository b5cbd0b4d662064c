//! Exchanges over an in-memory network in virtual time: reuse, stale connections, each clock.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene should stop")]

use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::{Prng, Secret};
use tidegate_observe::Metrics;
use tidegate_transport::http1::ServerConn;
use tidegate_transport::{Accepted, Clock, Listen, MemoryNetwork, TaskKind, Tasks};
use tidegate_upstream::{
    Exchange, ExchangeClocks, ExchangeError, Lane, Outgoing, Pool, PoolParts, PoolRules, ProbeClocks, Scheme,
};

const SERVER: TaskKind = TaskKind { name: "test server", on_cancel: "ends", on_error: "ends" };

struct Scene {
    pool: Pool,
    metrics: Metrics,
    clock: Clock,
    network: MemoryNetwork,
}

fn scene() -> Scene {
    let (clock, metrics, network) = (Clock::real(), Metrics::new(), MemoryNetwork::new());
    let lane = Lane::new("main/0", "http://api:80", Scheme::ApiKey, Secret::new("k")).unwrap();
    let pool = Pool::new(PoolParts {
        clock,
        dial: Arc::new(network.clone()),
        rules: PoolRules::default(),
        lanes: &[(Arc::new(lane), true)],
        metrics: &metrics,
        tasks: Tasks::new(),
        prng: Prng::new(1),
    });
    Scene { pool, metrics, clock, network }
}

impl Scene {
    async fn ask(&self, body: usize) -> Result<Exchange, ExchangeError> {
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
        self.pool.exchange(0, &request, |_| {}).await
    }

    fn serve<F: Future<Output = ()> + Send + 'static>(&self, each: impl Fn(Accepted) -> F + Send + Sync + 'static) {
        let mut door = self.network.listen("api:80");
        Tasks::new().spawn(&SERVER, async move {
            while let Ok(accepted) = door.accept().await {
                Tasks::new().spawn(&SERVER, each(accepted));
            }
        });
    }

    fn count(&self, line: &str) -> bool {
        self.metrics.text().contains(line)
    }
}

/// Answers `answers` requests on a connection, then closes it.
async fn polite(accepted: Accepted, answers: usize) {
    let mut conn = ServerConn::new(accepted.open().unwrap());
    for _ in 0..answers {
        if !conn.wait_byte().await.unwrap() {
            return;
        }
        conn.read_head().await.unwrap();
        let mut body = BytesMut::new();
        while conn.read_body(&mut body).await.unwrap() > 0 {}
        conn.respond(200, Some(2), false, |_| {});
        conn.push(b"ok");
        conn.flush().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_used_again_and_stale_ones_replaced_without_an_error() {
    let scene = scene();
    scene.serve(|a| polite(a, 2));
    for _ in 0..4 {
        let mut exchange = scene.ask(5).await.unwrap();
        assert_eq!(exchange.read_body(10).await.unwrap(), "ok");
        exchange.finish(scene.clock.now());
    }
    assert!(scene.count("tidegate_upstream_connects_total{lane=\"main/0\",state=\"opened\"} 2"));
    assert!(scene.count("tidegate_upstream_connections{lane=\"main/0\",state=\"busy\"} 0"));
    scene.pool.sweep(scene.clock.now() + Duration::from_secs(61));
    assert!(scene.count("tidegate_upstream_connections{lane=\"main/0\",state=\"idle\"} 0"));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_answer_had_begun_is_not_sent_again() {
    let scene = scene();
    scene.serve(|a| async move {
        let mut conn = ServerConn::new(a.open().unwrap());
        for answer in ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "HTTP/1.1 200 O"] {
            conn.read_head().await.unwrap();
            while conn.read_body(&mut BytesMut::new()).await.unwrap() > 0 {}
            conn.push_raw(answer.as_bytes());
            conn.flush().await.unwrap();
        }
        conn.abort();
    });
    let mut exchange = scene.ask(5).await.unwrap();
    assert_eq!(exchange.read_body(10).await.unwrap(), "ok");
    exchange.finish(scene.clock.now());
    assert!(matches!(scene.ask(5).await, Err(ExchangeError::Broken(_))));
    assert!(scene.count("tidegate_upstream_connects_total{lane=\"main/0\",state=\"opened\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn an_interim_answer_in_the_middle_of_an_upload_does_not_end_it() {
    let scene = scene();
    scene.serve(|a| async move {
        let mut conn = ServerConn::new(a.open().unwrap());
        loop {
            conn.read_head().await.unwrap();
            for part in ["HTTP/1.1 100 Continue\r\n\r\nHTTP", "/1.1 10", "3 Early Hints\r\nlink: <x>\r\n\r\n"] {
                conn.push_raw(part.as_bytes());
                conn.flush().await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            while conn.read_body(&mut BytesMut::new()).await.unwrap() > 0 {}
            conn.respond(200, Some(2), false, |_| {});
            conn.push(b"ok");
            conn.flush().await.unwrap();
        }
    });
    for _ in 0..2 {
        let mut exchange = scene.ask(1 << 20).await.unwrap();
        assert_eq!((exchange.head.status, &exchange.read_body(10).await.unwrap()[..]), (200, &b"ok"[..]));
        exchange.finish(scene.clock.now());
    }
    assert!(scene.count("tidegate_upstream_connects_total{lane=\"main/0\",state=\"opened\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_switched_protocols_is_not_used_again() {
    let scene = scene();
    scene.serve(|a| async move {
        let mut conn = ServerConn::new(a.open().unwrap());
        conn.read_head().await.unwrap();
        while conn.read_body(&mut BytesMut::new()).await.unwrap() > 0 {}
        conn.push_raw(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
        conn.flush().await.unwrap();
        std::future::pending::<()>().await
    });
    let mut exchange = scene.ask(5).await.unwrap();
    assert_eq!(exchange.read_body(10).await.unwrap(), "");
    exchange.finish(scene.clock.now());
    assert!(scene.count("tidegate_upstream_connections{lane=\"main/0\",state=\"idle\"} 0"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_runs_into_the_first_byte_clock() {
    let scene = scene();
    scene.serve(|a| async move {
        let _open = a.open();
        std::future::pending::<()>().await
    });
    let began = scene.clock.now();
    let error = scene.ask(5).await.err().unwrap();
    assert_eq!(error.clock(), Some("first_byte"));
    assert_eq!(scene.clock.now().since(began).as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_stops_reading_runs_into_the_upload_clock() {
    let scene = scene();
    scene.serve(|a| async move {
        let _open = a.open();
        std::future::pending::<()>().await
    });
    let began = scene.clock.now();
    let error = scene.ask(1 << 20).await.err().unwrap();
    assert_eq!(error.clock(), Some("upload_stall"));
    assert_eq!(scene.clock.now().since(began).as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_a_dial_error_and_is_counted() {
    let scene = scene();
    assert!(matches!(scene.ask(5).await, Err(ExchangeError::Dial(_))));
    assert!(scene.count("state=\"failed\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn giving_an_exchange_up_closes_its_connection() {
    let scene = scene();
    let (told, mut noticed) = tokio::sync::mpsc::channel(1);
    scene.serve(move |a| {
        let told = told.clone();
        async move {
            let mut conn = ServerConn::new(a.open().unwrap());
            conn.read_head().await.unwrap();
            conn.respond(200, None, false, |_| {});
            conn.flush().await.unwrap();
            std::future::poll_fn(|cx| conn.poll_departed(cx)).await;
            told.send(()).await.unwrap();
        }
    });
    drop(scene.ask(5).await.unwrap());
    noticed.recv().await.unwrap();
    assert!(scene.count("state=\"busy\"} 0"));
}
