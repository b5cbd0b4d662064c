//! The operator's door: metrics, health, the table of live requests.
//!
//! It listens on a port of its own, loopback by default, runs on the control thread, and has no
//! authentication: whoever reaches it may see names and numbers and cancel streams, but no text and
//! no secret.

use crate::answer::{Trouble, answer};
use crate::costs;
use crate::domains;
use crate::gateway::Gateway;
use crate::house::House;
use crate::listing;
use crate::operators::Wanted;
use serde_json::json;
use std::time::Duration;
use tidegate_base::StreamId;
use tidegate_transport::http1::ServerConn;
use tidegate_transport::{Accepted, Listen, TaskKind, Tasks};
use tidegate_wire::error::{ErrorBody, ErrorType};
use tidegate_wire::http::RequestHead;

/// Connections an operator's tools may hold at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a silent connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);

const CONNECTION: TaskKind =
    TaskKind { name: "admin connection", on_cancel: "closes", on_error: "its client sees a closed connection" };

/// Serves the admin door on this runtime until it is dropped, or another process does.
pub async fn serve(gateway: Gateway, mut listen: Box<dyn Listen>) {
    let (tasks, house) = (Tasks::new(), gateway.house());
    loop {
        let accepted = tokio::select! {
            biased;
            () = house.handed_over() => return,
            accepted = listen.accept() => accepted,
        };
        match accepted {
            Ok(accepted) if tasks.living().values().sum::<usize>() < CONNECTIONS_MAX => {
                tasks.spawn(&CONNECTION, connection(gateway.clone(), accepted));
            }
            // Dropping it closes it: an operator's tool tries again.
            Ok(_) => {}
            Err(_) => {
                house.clock.sleep_until(house.clock.now() + Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(gateway: Gateway, accepted: Accepted) {
    let Ok(io) = accepted.open() else { return };
    let house = gateway.house();
    let clock = house.clock;
    let mut conn = ServerConn::new(io);
    loop {
        let head = async {
            if !conn.wait_byte().await.ok()? {
                return None;
            }
            conn.read_head().await.ok()
        };
        let head = tokio::select! {
            biased;
            head = clock.within(IDLE_MAX, head) => head,
            // What is asked next is meant for the process that is there now.
            () = house.handed_over() => return conn.close(clock).await,
        };
        let Some(Some(head)) = head else { return };
        let page = match wanted(&head) {
            Some(wanted) => {
                let (status, body) = gateway.wish(wanted).await;
                Page { status, kind: "application/json", body, allow: None }
            }
            None => page(&gateway, &head).await,
        };
        let close = !head.keeps_alive() || !conn.body_read() || house.has_handed_over();
        conn.respond(page.status, Some(page.body.len() as u64), close, |h| {
            h.header("content-type", page.kind.as_bytes()).header("cache-control", b"no-store");
            if let Some(methods) = page.allow {
                h.header("allow", methods.as_bytes());
            }
        });
        if head.method() != "HEAD" {
            conn.push(&page.body);
        }
        if close {
            return conn.close(clock).await;
        }
        if !matches!(clock.within(IDLE_MAX, conn.flush()).await, Some(Ok(()))) {
            return;
        }
    }
}

struct Page {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
    allow: Option<&'static str>,
}

fn text(status: u16, body: impl Into<Vec<u8>>) -> Page {
    Page { status, kind: "text/plain; charset=utf-8", body: body.into(), allow: None }
}

fn json_page(status: u16, value: &serde_json::Value) -> Page {
    Page { status, kind: "application/json", body: format!("{value}\n").into_bytes(), allow: None }
}

fn told(asked: Result<serde_json::Value, Trouble>) -> Page {
    match asked {
        Ok(value) => json_page(200, &value),
        Err(why) => trouble(&why),
    }
}

fn trouble(trouble: &Trouble) -> Page {
    let row = answer(trouble);
    Page { status: row.status, kind: "application/json", body: row.body.envelope(None), allow: row.allow }
}

/// What a request asks of the process. Not a page's: one that a person on this machine looks at could
/// send it.
fn wanted(head: &RequestHead) -> Option<Wanted> {
    if head.method() != "POST" || head.headers.has("origin") {
        return None;
    }
    match head.path() {
        "/reload" => Some(Wanted::Reload),
        "/upgrade" => Some(Wanted::Upgrade),
        _ => None,
    }
}

async fn page(gateway: &Gateway, head: &RequestHead) -> Page {
    let house = &*gateway.house();
    match (head.method(), head.path()) {
        ("GET" | "HEAD", "/metrics") => {
            house.refresh_gauges();
            Page {
                kind: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                ..text(200, house.metrics.text())
            }
        }
        ("GET" | "HEAD", "/healthz") => text(200, "alive\n"),
        ("GET" | "HEAD", "/readyz") if house.is_draining() => text(503, "draining\n"),
        ("GET" | "HEAD", "/readyz") => text(200, "ready\n"),
        ("GET" | "HEAD", "/streams") => told(listing::page(house, head.query())),
        ("GET" | "HEAD", "/usage") => told(costs::page(house, head.query()).await),
        ("GET" | "HEAD", "/domains") => json_page(200, &domains::page(house)),
        ("GET" | "HEAD", "/snapshot") => json_page(200, &snapshot(house)),
        ("DELETE", path) if path.starts_with("/streams/") => cancel(house, &path["/streams/".len()..]),
        (_, "/metrics" | "/healthz" | "/readyz" | "/streams" | "/usage" | "/domains" | "/snapshot") => {
            trouble(&Trouble::Method { allowed: "GET" })
        }
        ("POST", "/reload" | "/upgrade") => {
            let message = "this request has an `origin` header, so a web page sent it, and what operators ask for is not taken from pages: send it without that header, with curl for example";
            let body = ErrorBody::new(ErrorType::Permission, "origin_not_allowed", message).envelope(None);
            Page { status: 403, kind: "application/json", body, allow: None }
        }
        (_, "/reload" | "/upgrade") => trouble(&Trouble::Method { allowed: "POST" }),
        (_, path) if path.starts_with("/streams/") => trouble(&Trouble::Method { allowed: "DELETE" }),
        _ => {
            let message = "the admin port has /metrics, /healthz, /readyz, /streams, /usage, /domains, /snapshot, POST /reload, POST /upgrade and DELETE /streams/{id}";
            let body = ErrorBody::new(ErrorType::NotFound, "unknown_path", message).envelope(None);
            Page { status: 404, kind: "application/json", body, allow: None }
        }
    }
}

fn cancel(house: &House, id: &str) -> Page {
    if StreamId::parse(id).is_some_and(|id| house.live.cancel(id)) {
        json_page(202, &json!({"cancelled": id}))
    } else {
        let message = "no live stream has this id; it may have ended";
        let body = ErrorBody::new(ErrorType::NotFound, "unknown_stream", message).envelope(None);
        Page { status: 404, kind: "application/json", body, allow: None }
    }
}

/// The state of the house in one object.
fn snapshot(house: &House) -> serde_json::Value {
    let (waiting, leased) = house.admission.counts();
    let domains: Vec<_> = house.admission.domains().iter().map(|d| domains::short(house, d)).collect();
    json!({
        "draining": house.is_draining(),
        "streams": house.live.len(),
        "waiting": waiting,
        "leases": leased,
        "body_bytes": house.bodies.used(),
        "backlog_bytes": house.backlogs.used(),
        "domains": domains,
    })
}
