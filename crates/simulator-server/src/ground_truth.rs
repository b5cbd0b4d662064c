//! The second listener: what really happened, as JSON.
//!
//! `GET /truth` the counters · `GET /truth/seconds` what was used in each second · `GET /truth/requests?limit=N` the newest requests, newest first (100;
//! at most 1,000) · `GET /truth/requests/{request-id}` one of them with its whole text ·
//! `POST /truth/reset` forgets. No key is asked for: bind it to loopback.

use crate::SharedSimulator;
use crate::connection::refuse;
use bytes::BytesMut;
use serde_json::{Value, json};
use std::time::Duration;
use tidegate_transport::http1::{HeadEnd, ServerConn};
use tidegate_transport::{BoxIo, Clock, ServerStream};

const IDLE_MAX: Duration = Duration::from_secs(300);
/// A body is not read here, only past.
const BODY_BYTES_MAX: usize = 64 * 1024;

pub(crate) async fn serve(io: BoxIo, simulator: SharedSimulator, clock: Clock) {
    let mut conn = ServerConn::new(io);
    loop {
        let head = match clock.within(IDLE_MAX, conn.read_head()).await {
            Some(Ok(head)) => head,
            Some(Err(HeadEnd::Bad(error))) => {
                return refuse(ServerStream::Http1(conn), clock, 400, &error.to_string()).await;
            }
            _ => return,
        };
        let mut body = BytesMut::new();
        loop {
            match conn.read_body(&mut body).await {
                Ok(0) => break,
                Ok(_) if body.len() <= BODY_BYTES_MAX => {}
                _ => return,
            }
        }
        let (status, answer) = answer(&simulator, clock, head.method(), head.path(), head.query());
        let text = answer.to_string();
        conn.respond(status, Some(text.len() as u64), !head.keeps_alive(), |lines| {
            lines.header("content-type", b"application/json");
        });
        conn.push(text.as_bytes());
        conn.end();
        if conn.flush().await.is_err() {
            return;
        }
        if !head.keeps_alive() {
            return conn.close(clock).await;
        }
    }
}

fn answer(simulator: &SharedSimulator, clock: Clock, method: &str, path: &str, query: &str) -> (u16, Value) {
    match (method, path) {
        ("GET" | "HEAD", "/truth") => {
            let mut summary = simulator.with(|simulator| simulator.summary(clock.now()));
            if let Some(bare) = &simulator.bare {
                let (answers, streams) = bare.counts();
                summary["bare"] = json!({"json_answers": answers, "streams": streams});
            }
            (200, summary)
        }
        ("GET" | "HEAD", "/truth/seconds") => (200, simulator.with(|simulator| simulator.truth().seconds_json())),
        ("GET" | "HEAD", "/truth/requests") => {
            let limit = query.split('&').find_map(|item| item.strip_prefix("limit=")?.parse().ok());
            let limit: usize = limit.unwrap_or(100).min(1_000);
            let newest = |simulator: &mut tidegate_simulator::Simulator| {
                simulator.truth().records().rev().take(limit).map(tidegate_simulator::Record::json).collect::<Vec<_>>()
            };
            (200, Value::Array(simulator.with(newest)))
        }
        ("POST", "/truth/reset") => {
            simulator.with(|simulator| simulator.reset_truth(clock.now()));
            (200, json!({"reset": true}))
        }
        ("GET" | "HEAD", _) if path.starts_with("/truth/requests/") => {
            let id = path.trim_start_matches("/truth/requests/");
            let record = simulator.with(|simulator| simulator.truth().record(id).map(tidegate_simulator::Record::json));
            record.map_or_else(
                || (404, json!({"error": format!("no request `{id}` is remembered")})),
                |record| (200, record),
            )
        }
        _ => (
            404,
            json!({"error": "GET /truth, GET /truth/seconds, GET /truth/requests, GET /truth/requests/{request-id}, POST /truth/reset"}),
        ),
    }
}
