//! A gateway with its admin door before the upstream that bills, in one process.

use crate::upstream;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tidegate_base::Secret;
use tidegate_gateway::{Gateway, Organisation, Settings, TenantSettings, UsageFile, serve_admin};
use tidegate_observe::{Budget, NoRecords, Reached, Unpriced};
use tidegate_schedule::TenantRules;
use tidegate_transport::{BoxIo, Clock, MemoryNetwork, TaskKind, Tasks};
use tidegate_upstream::{Lane, Scheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ADMIN: TaskKind = TaskKind { name: "test admin door", on_cancel: "ends", on_error: "ends" };

/// 23 November 2026, 12:00 UTC.
pub(crate) const NOON: u64 = 1_795_435_200;
/// 1 December 2026, 00:00 UTC.
pub(crate) const DECEMBER: u64 = 1_796_083_200;

/// Twenty dollars for a million tokens of output: fifty tokens are a tenth of a cent.
pub(crate) const OPUS: &str = "claude-opus-5-5";

pub(crate) struct Scene {
    network: MemoryNetwork,
    pub(crate) gateway: Gateway,
    pub(crate) clock: Clock,
}

/// A budget of so many cents.
pub(crate) fn cents(cents: u64) -> Budget {
    let monthly = tidegate_base::Usd::from_nanos(cents * 10_000_000);
    Budget { monthly, warn_percent: 80, reached: Reached::Refuse, unpriced: Unpriced::Serve }
}

impl Scene {
    /// At `wall_s` seconds after the epoch, in memory.
    pub(crate) async fn at(wall_s: u64, budget: Option<Budget>) -> Scene {
        Scene::keeping(wall_s, budget, UsageFile::Memory).await
    }

    pub(crate) async fn keeping(wall_s: u64, budget: Option<Budget>, usage: UsageFile) -> Scene {
        let clock = Clock::from_wall(UNIX_EPOCH + Duration::from_secs(wall_s));
        let network = MemoryNetwork::new();
        upstream::serve(&network, clock);
        let lane = Lane::new("main/0", "http://api:80", Scheme::ApiKey, Secret::new("k")).unwrap();
        let organisations = vec![Organisation::new("main", vec![Arc::new(lane)])];
        let tenant = TenantSettings {
            name: "default".into(),
            rules: TenantRules::default(),
            band: None,
            window: None,
            keep: tidegate_gateway::Keep::default(),
            budget,
        };
        let settings = Settings { organisations, tenants: vec![tenant], ..Settings::default() };
        let dial = Arc::new(network.clone());
        let gateway = Gateway::keeping(settings, clock, dial, Arc::new(NoRecords), None, usage).await.unwrap();
        gateway.serve_here(Box::new(network.listen("gateway:80")));
        Tasks::new().spawn(&ADMIN, serve_admin(gateway.clone(), Box::new(network.listen("admin:80"))));
        Scene { network, gateway, clock }
    }

    /// Sends a request and leaves its answer unread.
    pub(crate) async fn send(&self, to: &str, path: &str, body: &Value, lines: &[(&str, &str)]) -> BoxIo {
        let mut io = self.network.connect(to).unwrap();
        let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let (method, body) = if body.is_null() { ("GET", String::new()) } else { ("POST", body.to_string()) };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n{lines}");
        io.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
        io
    }

    /// Asks for a stream, and reads it whole.
    pub(crate) async fn ask(&self, model: &str, orders: &str) -> Answer {
        self.ask_with(model, orders, &[]).await
    }

    pub(crate) async fn ask_with(&self, model: &str, orders: &str, lines: &[(&str, &str)]) -> Answer {
        read(self.send("gateway:80", "/v1/messages", &body(model, orders, true), lines).await).await
    }

    /// The `/usage` page.
    pub(crate) async fn usage(&self, query: &str) -> Value {
        let answer = self.usage_asked(query).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    pub(crate) async fn usage_asked(&self, query: &str) -> Answer {
        read(self.send("admin:80", &format!("/usage{query}"), &Value::Null, &[]).await).await
    }

    /// The rows: day, kind, attempts, output, dollars.
    pub(crate) async fn rows(&self, query: &str) -> Vec<(String, String, u64, u64, Option<String>)> {
        let page = self.usage(query).await;
        let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        let of = |row: &Value| {
            let counts = (row["attempts"].as_u64().unwrap(), row["output_tokens"].as_u64().unwrap());
            (text(row, "day"), text(row, "kind"), counts.0, counts.1, row["usd"].as_str().map(str::to_owned))
        };
        page["rows"].as_array().unwrap().iter().map(of).collect()
    }

    /// What a counter stands at.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.gateway.refresh_gauges();
        let text = self.gateway.metrics().text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Until nobody is served any more: what is under way is settled by then.
    pub(crate) async fn rests(&self) {
        for _ in 0..500 {
            if self.gateway.live().is_empty() {
                return;
            }
            self.clock.sleep_until(self.clock.now() + Duration::from_millis(10)).await;
        }
        panic!("somebody is still served");
    }
}

pub(crate) fn body(model: &str, orders: &str, stream: bool) -> Value {
    json!({"model": model, "max_tokens": 1_000, "stream": stream, "messages": [{"role": "user", "content": orders}]})
}

/// An answer, taken out of its chunks.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) async fn read(mut io: BoxIo) -> Answer {
    let mut bytes = Vec::new();
    io.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, mut rest) = text.split_once("\r\n\r\n").unwrap();
    let mut body = String::new();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        while let Some((size, after)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).unwrap();
            body.push_str(&after[..size]);
            rest = &after[size + 2..];
        }
    } else {
        rest.clone_into(&mut body);
    }
    Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head: head.to_owned(), body }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Status and machine code of a refusal, whose type has to be the one of its status.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let error = &self.json()["error"];
        if self.status == 402 {
            assert_eq!(error["type"], "billing_error", "{}", self.body);
        }
        (self.status, error["details"]["error_code"].as_str().unwrap_or_default().to_owned())
    }

    /// Whether it is a stream that came to its end.
    #[track_caller]
    pub(crate) fn is_whole(&self) {
        assert!(self.status == 200 && self.body.contains("message_stop"), "{} {}", self.head, self.body);
    }
}
