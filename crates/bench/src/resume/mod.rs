//! Readers that lose their connection: streams that can be resumed, over SSE and WebSockets, read in
//! pieces from random cursors, and compared byte for byte with what the upstream truly produced.
//!
//! ```text
//!   begin (SSE or WebSocket) ─▶ read some ─▶ drop the connection ─▶ back to any event told so far
//!        ▲                                                            │ resume, SSE or WebSocket
//!        └── judge by the truth ◀── end, maybe read once more ◀───────┘
//! ```
//! The texts are the simulator's, asked by the `request-id` of each stream. Numbers must be without
//! a gap on every connection and across them, and the end must come once.

mod reader;
mod told;

use crate::plan::{BenchError, Plan};
use crate::request::Request;
use crate::run::wait;
use bytes::Bytes;
use reader::{Reader, Wish, truth};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_base::{Prng, Secret};
use tidegate_transport::{Clock, Dial, DialClocks, Target, TaskKind, Tasks, TcpDial};
use told::{End, Told};

/// What is wrong is told so often with its words; the rest is counted.
const WRONG_MAX: usize = 20;
/// What one stream may take, its connections together.
const STREAM_MAX: Duration = Duration::from_secs(120);
/// Connections lost in one stream, at most.
const LOST_MAX: u64 = 4;
/// Events until a connection is lost, at most.
const EVENTS_MAX: u64 = 40;

const READER: TaskKind = TaskKind {
    name: "bench reader",
    on_cancel: "its stream is given up and not counted",
    on_error: "what is wrong is counted and the next stream begins",
};

/// How a reader is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Sse,
    Socket,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Resuming {
    /// What is asked; `concurrency` readers at once, `seed` decides where they lose what.
    pub plan: Plan,
    /// Where the simulator tells the truth: `http://host:port`.
    pub truth_url: String,
    /// Streams to read.
    pub streams: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct ResumeReport {
    /// Streams that were read to an end, and are as they should be: with `message_stop`.
    pub whole: u64,
    /// The same, that broke off upstream and said so.
    pub broken: u64,
    /// Streams that are not as they should be.
    pub wrong: u64,
    /// Some of these, in words.
    pub examples: Vec<String>,
    /// Streams that were refused or broke before they had a name.
    pub not_begun: BTreeMap<String, u64>,
    /// Connections that were dropped and taken up again.
    pub resumed: u64,
    /// Whether the caller stopped it.
    pub stopped_early: bool,
}

/// What the readers share.
struct Load {
    clock: Clock,
    dial: Arc<dyn Dial>,
    gateway: Target,
    truth: Target,
    key: Secret,
    body: Bytes,
    seed: u64,
    next: AtomicU64,
    streams: u64,
    stop: AtomicBool,
    report: Mutex<ResumeReport>,
}

impl Load {
    fn report(&self, change: impl FnOnce(&mut ResumeReport)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn wrong(&self, n: u64, what: String) {
        self.report(|r| {
            r.wrong += 1;
            if r.examples.len() < WRONG_MAX {
                r.examples.push(format!("stream {n}: {what}"));
            }
        });
    }

    /// Reads streams until there are no more.
    async fn live(self: Arc<Self>) {
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            if n >= self.streams || self.stop.load(Ordering::Relaxed) {
                return;
            }
            match self.clock.within(STREAM_MAX, self.stream(n)).await {
                Some(Ok(())) => {}
                Some(Err(what)) => self.wrong(n, what),
                None => self.wrong(n, format!("no end within {} s", STREAM_MAX.as_secs())),
            }
        }
    }

    async fn stream(&self, n: u64) -> Result<(), String> {
        let mut dice = Prng::new(self.seed).fork(&format!("stream {n}"));
        let mut told = Told::default();
        let mut lost_left = dice.below(LOST_MAX + 1);
        let way = |dice: &mut Prng| if dice.chance(0.5) { Way::Sse } else { Way::Socket };
        let masks = dice.fork("masks");
        let begun = Reader::open(self, way(&mut dice), Wish::Begin, &mut told, masks).await;
        let mut reader = match begun {
            Ok(reader) => reader,
            Err(why) => {
                let short: String = why.chars().take(80).collect();
                self.report(|r| *r.not_begun.entry(short).or_default() += 1);
                return Ok(());
            }
        };
        loop {
            let until = if lost_left == 0 { usize::MAX } else { told.events() + 1 + dice.below(EVENTS_MAX) as usize };
            let mut over = false;
            while !over && told.events() < until {
                over = reader.read(&mut told).await?;
            }
            let Some(stream) = told.stream.clone() else {
                let why = told.wrong.take().unwrap_or_else(|| "it has no name".to_owned());
                self.report(|r| *r.not_begun.entry(why.chars().take(80).collect()).or_default() += 1);
                return Ok(());
            };
            if lost_left == 0 {
                break;
            }
            lost_left -= 1;
            // What was said of it already must hold; from the cursor on it is told anew.
            if let Some(wrong) = &told.wrong {
                return Err(wrong.clone());
            }
            drop(reader);
            let after = told.back(dice.unit());
            let masks = dice.fork(&format!("masks {lost_left}"));
            let wish = Wish::Resume { stream: &stream, after: after.as_deref() };
            reader = Reader::open(self, way(&mut dice), wish, &mut told, masks).await?;
            self.report(|r| r.resumed += 1);
        }
        let id = told.request.clone().ok_or("it has no request-id")?;
        told.judge(&truth(self, &format!("/truth/requests/{id}")).await?)?;
        self.report(|r| match told.end {
            Some(End::Whole) => r.whole += 1,
            _ => r.broken += 1,
        });
        Ok(())
    }
}

fn target(url: &str) -> Result<Target, BenchError> {
    let plan = Plan::new(url);
    Request::of(&plan).map(|request| request.target().clone())
}

/// Reads them over real sockets, on a thread of its own, and blocks until it is done. `on_look` is
/// called about four times a second with what was found so far; if it breaks, no further stream is
/// begun.
pub fn resume(
    wish: &Resuming,
    mut on_look: impl FnMut(&ResumeReport) -> ControlFlow<()>,
) -> Result<ResumeReport, BenchError> {
    wish.plan.check_numbers()?;
    let clock = Clock::real();
    let dial = TcpDial::new(clock, DialClocks::default(), &wish.plan.tls_roots);
    let load = Arc::new(Load {
        clock,
        dial: Arc::new(dial.map_err(|e| BenchError::Tls(e.to_string()))?),
        gateway: target(&wish.plan.url)?,
        truth: target(&wish.truth_url)?,
        key: wish.plan.key.clone().unwrap_or_else(|| Secret::new("any")),
        body: Request::of(&wish.plan)?.body,
        seed: wish.plan.seed,
        next: AtomicU64::new(0),
        streams: wish.streams,
        stop: AtomicBool::new(false),
        report: Mutex::default(),
    });
    let machine = |e: std::io::Error| BenchError::Machine(format!("the machine gives no thread or runtime: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(machine)?;
    let (end, ends) = sync_channel(1);
    let (shared, readers) = (Arc::clone(&load), wish.plan.concurrency);
    let body = move || {
        runtime.block_on(async {
            let tasks = Tasks::new();
            for _ in 0..readers {
                tasks.spawn(&READER, Arc::clone(&shared).live());
            }
            tasks.all_ended().await;
        });
        // The caller may have given up; there is nobody to tell then.
        let _ = end.send(None);
    };
    std::thread::Builder::new().name("bench-resume".into()).spawn(body).map_err(machine)?;
    wait(&ends, 1, || {
        let so_far = load.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if on_look(&so_far).is_break() {
            load.stop.store(true, Ordering::Relaxed);
        }
    })?;
    let mut report = load.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
    report.stopped_early = load.stop.load(Ordering::Relaxed);
    Ok(report)
}
