//! A gateway with a filter before the echoing upstream, in one process, and clients of it.

use crate::echo::{self, Seen};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tidegate_base::Secret;
use tidegate_gateway::redaction::{Redaction, VaultKeys};
use tidegate_gateway::{Gateway, Organisation, Settings};
use tidegate_observe::NoRecords;
use tidegate_redact::mask::Filter;
use tidegate_redact::rules::{Policy, Rules};
use tidegate_redact::vault::KeyRing;
use tidegate_store::Store;
use tidegate_transport::{BoxIo, Clock, MemoryNetwork};
use tidegate_upstream::{Lane, Scheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

/// A mobile number and an address that no rule misses.
pub(crate) const PHONE: &str = "13912345678";
pub(crate) const EMAIL: &str = "li.wei@tidegate-test.cn";
/// Both in a sentence.
pub(crate) const SAID: &str = "Call 13912345678 or write to li.wei@tidegate-test.cn today";

/// A folder of a test's own, removed at its end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("tidegate-masking-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.0.join("c.db"), tidegate_store::Settings::default()).unwrap()
    }

    /// Every byte of every file in it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let files = std::fs::read_dir(&self.0).unwrap().map(|file| file.unwrap().path());
        files.flat_map(|file| std::fs::read(file).unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process's life: at its end all tasks are gone, and whoever held the log has let go of it.
pub(crate) fn life<T>(of: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(of)
}

/// The gateway, who is behind it, and the way to it.
pub(crate) struct Scene {
    pub(crate) network: MemoryNetwork,
    pub(crate) gateway: Gateway,
    pub(crate) seen: Seen,
}

pub(crate) fn keys() -> VaultKeys {
    VaultKeys::new(Zeroizing::new([7; 32]), KeyRing::new([(1, [1; 32])]).unwrap())
}

pub(crate) fn masking() -> Redaction {
    rules(Rules::all(Policy::Mask))
}

pub(crate) fn rules(rules: Rules) -> Redaction {
    Redaction::with_keys(keys()).for_all(Some(Arc::new(Filter::new(rules).unwrap())))
}

impl Scene {
    pub(crate) fn new(redaction: Redaction) -> Scene {
        Scene::of(redaction, None, Duration::ZERO, |_| {})
    }

    pub(crate) fn with_log(redaction: Redaction, folder: &Folder) -> Scene {
        Scene::of(redaction, Some(folder.store()), Duration::ZERO, |_| {})
    }

    pub(crate) fn of(
        redaction: Redaction,
        store: Option<Store>,
        pace: Duration,
        change: impl FnOnce(&mut Settings),
    ) -> Scene {
        let network = MemoryNetwork::new();
        let seen = echo::serve(&network, pace);
        let lane = Lane::new("main/0", "http://api:80", Scheme::ApiKey, Secret::new("k")).unwrap();
        let organisations = vec![Organisation::new("main", vec![Arc::new(lane)])];
        let mut settings = Settings { organisations, redaction, ..Settings::default() };
        change(&mut settings);
        let dial = Arc::new(network.clone());
        let gateway = Gateway::remembering(settings, Clock::real(), dial, Arc::new(NoRecords), store);
        gateway.serve_here(Box::new(network.listen("gateway:80")));
        Scene { network, gateway, seen }
    }

    pub(crate) async fn client(&self, text: &[u8]) -> BoxIo {
        let mut io = self.network.connect("gateway:80").unwrap();
        io.write_all(text).await.unwrap();
        io
    }

    pub(crate) async fn ask(&self, text: &[u8]) -> Answer {
        let mut answer = Vec::new();
        self.client(text).await.read_to_end(&mut answer).await.unwrap();
        Answer::read(&answer)
    }

    /// A Messages request with these header lines.
    pub(crate) async fn post(&self, body: &Value, lines: &[(&str, &str)]) -> Answer {
        self.ask(&request("POST", "/v1/messages", &body.to_string(), lines)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&request("GET", path, "", &[])).await
    }

    /// What the upstream was sent, in order.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.seen.lock().unwrap().iter().map(|body| serde_json::from_str(body).unwrap()).collect()
    }

    /// The upstream was sent no value, in so many bodies.
    #[track_caller]
    pub(crate) fn assert_masked(&self, bodies: usize) {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.len(), bodies);
        for body in seen.iter() {
            assert!(!body.contains(PHONE) && !body.contains(EMAIL), "{body}");
        }
    }

    /// What a counter stands at.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.gateway.metrics().text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

pub(crate) fn request(method: &str, path: &str, body: &str, lines: &[(&str, &str)]) -> Vec<u8> {
    let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n{lines}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A message of a request without marks for the cache and what goes with them.
pub(crate) fn plain(message: &Value) -> Value {
    let mut message = message.clone();
    if let Some(text) = message["content"].as_str().map(str::to_owned) {
        message["content"] = json!([{"type": "text", "text": text}]);
    }
    for block in message["content"].as_array_mut().unwrap() {
        block.as_object_mut().unwrap().retain(|name, value| name != "cache_control" && !value.is_null());
    }
    message
}

/// A request of one user message.
pub(crate) fn asks(stream: bool, text: &str) -> Value {
    json!({"model": "m", "max_tokens": 100, "stream": stream, "messages": [{"role": "user", "content": text}]})
}

/// An answer, taken out of its chunks.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn read(bytes: &[u8]) -> Answer {
        let text = std::str::from_utf8(bytes).unwrap();
        let (head, mut rest) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut body = String::new();
        if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            return Answer { status, head: head.to_owned(), body: rest.to_owned() };
        }
        while let Some((size, after)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).unwrap();
            body.push_str(&after[..size]);
            rest = &after[size + 2..];
            if size == 0 {
                break;
            }
        }
        Answer { status, head: head.to_owned(), body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        line.split_once(": ").map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["error"]["details"]["error_code"].as_str().unwrap_or_default().to_owned()
    }

    /// The events: `id` line, name, data.
    pub(crate) fn events(&self) -> Vec<(Option<String>, String, Value)> {
        events(&self.body)
    }

    /// What the deltas of a kind say together.
    pub(crate) fn said(&self, field: &str) -> String {
        said(&self.events(), field)
    }
}

pub(crate) fn events(body: &str) -> Vec<(Option<String>, String, Value)> {
    let of = |event: &str| {
        let line = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let data = line("data: ")?;
        Some((line("id: "), line("event: ").unwrap_or_default(), serde_json::from_str(&data).unwrap()))
    };
    body.split("\n\n").filter_map(of).collect()
}

pub(crate) fn said(events: &[(Option<String>, String, Value)], field: &str) -> String {
    events.iter().filter_map(|(_, _, data)| data["delta"][field].as_str()).collect()
}
