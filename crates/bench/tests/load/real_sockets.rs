//! The whole thing over loopback: threads, progress, stopping, and what the generator costs.

use bytes::BytesMut;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;
use tidegate_bench::{BenchError, IdleClients, Mode, Plan, run};
use tidegate_transport::http1::ServerConn;
use tidegate_transport::{Listen, TaskKind, Tasks, TcpListen};

const SERVE: TaskKind = TaskKind { name: "endpoint", on_cancel: "ends", on_error: "ends" };

/// An endpoint on a thread of its own that answers every request with `answer` after `wait`. It
/// lives as long as the test's process.
fn endpoint(wait: Duration) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut door = TcpListen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            tell.send(door.local()).unwrap();
            let tasks = Tasks::new();
            while let Ok(accepted) = door.accept().await {
                tasks.spawn(&SERVE, async move {
                    let mut conn = ServerConn::new(accepted.open().unwrap());
                    while conn.read_head().await.is_ok() {
                        while conn.read_body(&mut BytesMut::new()).await.is_ok_and(|n| n > 0) {}
                        tokio::time::sleep(wait).await;
                        conn.respond(200, Some(18), false, |_| {});
                        conn.push(br#"{"type":"message"}"#);
                        if conn.flush().await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    });
    told.recv().unwrap()
}

fn plan(at: SocketAddr) -> Plan {
    let mut plan = Plan::new(format!("http://{at}"));
    plan.mode = Mode::Json;
    plan.concurrency = 8;
    plan
}

#[test]
fn two_threads_share_the_requests_and_tell_their_cost() {
    let mut plan = plan(endpoint(Duration::ZERO));
    plan.threads = 2;
    plan.requests = Some(2001);
    let mut last = None;
    let report = run(&plan, |progress| {
        last = Some(*progress);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((report.ok, report.failed, report.connections_opened), (2001, 0, 8), "{}", report.table());
    assert_eq!(last.map(|p| (p.ok, p.under_way(), p.fraction())), Some((2001, 0, 1.0)));
    if std::path::Path::new("/proc/thread-self/schedstat").exists() {
        assert!(report.generator.is_some_and(|cost| cost.cpu_s > 0.0 && cost.cpu_us_per_event.is_none()));
    }
}

#[test]
fn a_caller_that_has_enough_stops_the_run() {
    let mut plan = plan(endpoint(Duration::from_secs(600)));
    plan.duration = Some(Duration::from_secs(600));
    let report = run(&plan, |_| ControlFlow::Break(())).unwrap();
    assert!(report.stopped_early && report.elapsed < Duration::from_secs(20));
    assert_eq!((report.ok, report.failed, report.unfinished), (0, 0, 8));
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_is_sent() {
    let refused = |url: &str| matches!(run(&Plan::new(url), |_| ControlFlow::Continue(())), Err(BenchError::Plan(_)));
    assert!(refused("127.0.0.1:80"));
}

#[test]
fn idle_clients_stay_until_the_endpoint_closes_them() {
    let mut plan = plan(endpoint(Duration::ZERO));
    plan.concurrency = 100;
    let mut idle = IdleClients::open(&plan, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((idle.len(), idle.is_empty(), idle.still_open(), idle.still_open()), (100, false, 100, 100));
    let few = IdleClients::open(&plan, |n| if n >= 64 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
    assert_eq!(few.unwrap().len(), 64);

    let closing = closing_endpoint();
    plan.url = format!("http://{closing}");
    let mut idle = IdleClients::open(&plan, |_| ControlFlow::Continue(())).unwrap();
    assert!(idle.len() == 100 && (0..100).any(|_| idle.still_open() == 0), "they are seen to be closed");
}

/// An endpoint that answers one request of each connection, promises to keep it, and closes it a
/// moment later.
fn closing_endpoint() -> SocketAddr {
    use std::io::{Read, Write};
    let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = door.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut kept = std::collections::VecDeque::new();
        while let Ok((mut stream, _)) = door.accept() {
            let mut request = Vec::new();
            while !request.ends_with(b"}]}") {
                let mut piece = [0; 1024];
                let n = stream.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..n]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
            kept.push_back(stream);
            if kept.len() == 100 {
                kept.clear();
            }
        }
    });
    at
}
