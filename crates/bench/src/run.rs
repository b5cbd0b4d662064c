//! A run: threads, their connections' tasks, and the end that always comes.
//!
//! ```text
//!   began ──────────── sending span ───────────┬──── grace ────┐
//!   requests start (closed or open loop)       │ those under   │ the rest is given up
//!                                              │ way may end   │ ("unfinished")
//! ```
//! A run that is bounded by its number of requests has no sending span; there the requests' own
//! clocks bound it. Each thread has its own runtime, connections, turnstile and tally; nothing but
//! whose turn it is among the keys of a mix is shared between them while they run.

use crate::cpu::CpuTime;
use crate::mix::Requests;
use crate::plan::{BenchError, Plan};
use crate::progress::Progress;
use crate::report::Report;
use crate::tally::Tally;
use crate::turnstile::Turnstile;
use crate::worker::{Share, work};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::{Clock, Dial, DialClocks, TaskKind, Tasks, TcpDial};
use tokio::sync::watch;

/// How often the caller hears of the run.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// What threads and runtimes get to come up before the first request is due.
const HEAD_START: Duration = Duration::from_millis(10);

const CONNECTION: TaskKind = TaskKind {
    name: "bench connection",
    on_cancel: "its request is given up and counted as unfinished",
    on_error: "the failure is counted and the next request begins",
};

/// One thread's part of a run.
struct Part {
    share: Arc<Share>,
    /// When each connection may begin.
    begins: Vec<Moment>,
    hard_end: Moment,
}

impl Part {
    fn new(
        plan: &Plan,
        thread: usize,
        requests: Arc<Requests>,
        clock: Clock,
        dial: Arc<dyn Dial>,
        began: Moment,
    ) -> (Self, Arc<Mutex<Tally>>) {
        let tally = Arc::new(Mutex::new(Tally::of(plan)));
        let turnstile = Turnstile::new(plan, thread, began);
        let share = Share::new(plan, thread, requests, clock, dial, turnstile, Arc::clone(&tally));
        let begin = |n: usize| began + plan.ramp.mul_f64(n as f64 / plan.concurrency as f64);
        let part = Part {
            share: Arc::new(share),
            begins: (thread..plan.concurrency).step_by(plan.threads).map(begin).collect(),
            hard_end: plan.sending_span().map_or(Moment::NEVER, |span| began + span + plan.grace),
        };
        (part, tally)
    }

    /// Runs it to its end on the current runtime.
    async fn drive(self, mut stop: watch::Receiver<bool>) {
        let tasks = Tasks::new();
        let spawn = |begin| tasks.spawn(&CONNECTION, work(Arc::clone(&self.share), begin));
        let connections: Vec<_> = self.begins.into_iter().map(spawn).collect();
        tokio::select! {
            () = tasks.all_ended() => {}
            () = self.share.clock.sleep_until(self.hard_end) => {}
            // An error means that the caller is gone, which is a stop as well.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        connections.iter().for_each(tokio::task::JoinHandle::abort);
        tasks.all_ended().await;
    }
}

/// Runs `plan` over real sockets, on threads of its own, and blocks until it has ended; from
/// asynchronous code call it on a thread that may block.
///
/// `on_progress` is called about four times a second, on the calling thread; if it breaks, the
/// requests under way are given up and the report covers what was until then.
pub fn run(plan: &Plan, mut on_progress: impl FnMut(&Progress) -> ControlFlow<()>) -> Result<Report, BenchError> {
    plan.check_numbers()?;
    let requests = Arc::new(Requests::of(plan)?);
    let clock = Clock::real();
    let dial = TcpDial::new(clock, DialClocks::default(), &plan.tls_roots);
    let dial: Arc<dyn Dial> = Arc::new(dial.map_err(|e| BenchError::Tls(e.to_string()))?);
    let began = clock.now() + HEAD_START;
    let (stop, stopped) = watch::channel(false);
    let (end, ends) = sync_channel(plan.threads);
    let mut tallies = Vec::new();
    for thread in 0..plan.threads {
        let (part, tally) = Part::new(plan, thread, Arc::clone(&requests), clock, Arc::clone(&dial), began);
        tallies.push(tally);
        start(thread, part, stopped.clone(), end.clone())?;
    }
    drop(end);
    let mut stopped_early = false;
    let cpu = wait(&ends, plan.threads, || {
        let progress = Progress::of(plan, clock.now().since(began), &tallies);
        if on_progress(&progress).is_break() {
            stopped_early = true;
            // Nobody listens any more only when all threads have ended.
            let _ = stop.send(true);
        }
    })?;
    let mut tally = Tally::of(plan);
    for one in &tallies {
        tally.add(&one.lock().unwrap_or_else(PoisonError::into_inner));
    }
    Ok(Report::new(plan, &tally, began, clock.now(), cpu, stopped_early))
}

/// Starts a thread that runs `part` and tells its processor time at the end.
fn start(
    thread: usize,
    part: Part,
    stopped: watch::Receiver<bool>,
    end: SyncSender<Option<CpuTime>>,
) -> Result<(), BenchError> {
    let machine = |e: std::io::Error| BenchError::Machine(format!("the machine gives no thread or runtime: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(machine)?;
    let body = move || {
        let before = CpuTime::of_this_thread();
        runtime.block_on(part.drive(stopped));
        let cost = before.and_then(|before| Some(CpuTime::of_this_thread()?.since(before)));
        // The caller may have given up; there is nobody to tell then.
        let _ = end.send(cost);
    };
    std::thread::Builder::new().name(format!("bench-{thread}")).spawn(body).map(drop).map_err(machine)
}

/// Waits for all threads, looking up now and then; their processor time, if all know it.
pub(crate) fn wait(
    ends: &Receiver<Option<CpuTime>>,
    threads: usize,
    mut look: impl FnMut(),
) -> Result<Option<CpuTime>, BenchError> {
    let mut sum = Some(CpuTime::default());
    let mut left = threads;
    while left > 0 {
        match ends.recv_timeout(PROGRESS_EVERY) {
            Ok(cost) => {
                left -= 1;
                sum = sum.zip(cost).map(|(sum, cost)| sum.and(cost));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(BenchError::Machine("a thread of the load generator broke".to_owned()));
            }
        }
        look();
    }
    Ok(sum)
}

/// Runs `plan` on the current runtime, over `dial` and by `clock`: in an imagined network, in
/// virtual time. `threads` counts as 1, there is no progress, and the generator's cost is unknown.
pub async fn run_here(plan: &Plan, dial: Arc<dyn Dial>, clock: Clock) -> Result<Report, BenchError> {
    let plan = &Plan { threads: 1, ..plan.clone() };
    plan.check_numbers()?;
    let began = clock.now();
    let (part, tally) = Part::new(plan, 0, Arc::new(Requests::of(plan)?), clock, dial, began);
    let (_never_stops, stopped) = watch::channel(false);
    part.drive(stopped).await;
    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Report::new(plan, &tally, began, clock.now(), None, false))
}
