//! Churn: crowds of clients with different habits at one endpoint, all at once, for as long as it
//! takes to see what the endpoint holds on to.
//!
//! ```text
//!   Crowd (a plan, a version of HTTP, a manner) ─▶ clients, each a task
//!     client: pause ─▶ connection ─▶ request ─▶ answer, read in the crowd's manner ─▶ count ─▶ pause
//!   at the end of the span every client is dropped where it stands: a leave of all at once
//! ```
//! Nothing is timed here but the clients' own habits; what is counted is how requests ended. All
//! clients share one thread and one runtime, so a load must be one that a thread can carry. Requests
//! that look different are made once, before anything starts, and picked at random from the seed.

mod client;
mod connection;
mod count;
mod one;

pub use count::CrowdCount;
pub use one::OneLeaves;

use crate::cpu::CpuTime;
use crate::plan::{BenchError, Mode, Plan};
use crate::request::Request;
use crate::run::wait;
use client::Client;
use connection::Http2Lane;
use std::ops::ControlFlow;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_base::Prng;
use tidegate_transport::{Clock, Dial, DialClocks, TaskKind, Tasks, TcpDial};
use tokio::sync::watch;

/// Requests of one crowd that look different. They are all held, so a crowd of large ones is small.
const VARIANTS_MAX: usize = 64;
/// Clients of a crowd that share one HTTP/2 connection: well below the streams a server allows.
const CLIENTS_PER_CONNECTION: usize = 20;

const CLIENT: TaskKind = TaskKind {
    name: "bench client",
    on_cancel: "its request is given up where it stands",
    on_error: "the failure is counted and the next request begins",
};

/// From the first to the second, both included.
pub type Bounds = (Duration, Duration);

/// How a client treats an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It reads to the end, as it comes.
    Read,
    /// It reads, and is gone after a time within these bounds since it sent the request.
    Leave(Bounds),
    /// It reads, and cancels after a time within these bounds, over a WebSocket that goes on. Over
    /// HTTP there is no other way to cancel than to leave.
    Cancel(Bounds),
    /// It reads what is there, then nothing for a time within these bounds, again and again.
    Dawdle(Bounds),
    /// It connects, sends nothing or half of a head, and is gone at once.
    Knock,
}

/// Clients with the same habits.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// Its name in the report.
    pub name: &'static str,
    /// What they ask for. `concurrency` is how many they are, `ramp` how long they take to come,
    /// `seed` decides all they choose; rates, durations, threads and stamps do not apply.
    pub plan: Plan,
    /// Prompts are from `plan.prompt_bytes` to so long, evenly spread over the variants.
    pub prompt_bytes_max: usize,
    /// Different requests they choose from.
    pub variants: usize,
    /// Whether they speak HTTP/2 without asking, several of them over one connection.
    pub http2: bool,
    /// How they treat an answer.
    pub manner: Manner,
    /// What they wait before each request.
    pub pause: Bounds,
}

impl Crowd {
    /// A crowd that reads what `plan` asks for, over HTTP/1.1, without pauses.
    pub fn new(name: &'static str, plan: Plan) -> Self {
        let (prompt_bytes_max, nothing) = (plan.prompt_bytes, Duration::ZERO);
        Crowd {
            name,
            plan,
            prompt_bytes_max,
            variants: 1,
            http2: false,
            manner: Manner::Read,
            pause: (nothing, nothing),
        }
    }

    fn requests(&self) -> Result<Vec<Arc<Request>>, BenchError> {
        self.plan.check_numbers()?;
        let over_socket = self.plan.mode == Mode::Socket;
        let fits = match self.manner {
            Manner::Cancel(_) => over_socket,
            Manner::Knock => !over_socket,
            _ => true,
        };
        if !fits || (over_socket && self.http2) {
            let name = self.name;
            return Err(BenchError::Plan(format!(
                "the crowd `{name}`: only over WebSockets is there a cancel, and neither a knock nor HTTP/2"
            )));
        }
        if !(1..=VARIANTS_MAX).contains(&self.variants) || self.prompt_bytes_max < self.plan.prompt_bytes {
            let name = self.name;
            return Err(BenchError::Plan(format!(
                "the crowd `{name}` has 1 to {VARIANTS_MAX} variants, and its longest prompt is not its shortest"
            )));
        }
        let spread = self.prompt_bytes_max - self.plan.prompt_bytes;
        let variant = |n: usize| {
            let prompt_bytes = self.plan.prompt_bytes + spread * n / self.variants.saturating_sub(1).max(1);
            Request::of(&Plan { prompt_bytes, seed: self.plan.seed + n as u64, ..self.plan.clone() }).map(Arc::new)
        };
        (0..self.variants).map(variant).collect()
    }
}

/// How the crowds fared: one count for each, in their order.
#[derive(Clone, Debug)]
pub struct ChurnReport {
    /// Name and count.
    pub crowds: Vec<(&'static str, CrowdCount)>,
    /// Processor time of the generator; `None` where the machine does not tell.
    pub cpu_s: Option<f64>,
    /// Whether the caller stopped it.
    pub stopped_early: bool,
}

/// What the clients of one crowd share.
struct Share {
    crowd: Crowd,
    requests: Vec<Arc<Request>>,
    clock: Clock,
    dial: Arc<dyn Dial>,
    tasks: Tasks,
    count: Mutex<CrowdCount>,
}

impl Share {
    fn count(&self, change: impl FnOnce(&mut CrowdCount)) {
        change(&mut self.count.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// All crowds, ready to begin.
struct Load {
    shares: Vec<Arc<Share>>,
    clock: Clock,
    tasks: Tasks,
    span: Duration,
}

impl Load {
    fn new(crowds: &[Crowd], span: Duration, clock: Clock, dial: &Arc<dyn Dial>) -> Result<Self, BenchError> {
        let tasks = Tasks::new();
        let share = |crowd: &Crowd| {
            Ok(Arc::new(Share {
                requests: crowd.requests()?,
                crowd: crowd.clone(),
                clock,
                dial: Arc::clone(dial),
                tasks: tasks.clone(),
                count: Mutex::default(),
            }))
        };
        let shares = crowds.iter().map(share).collect::<Result<_, BenchError>>()?;
        Ok(Load { shares, clock, tasks, span })
    }

    /// Runs it on the current runtime until its span is over or somebody says stop.
    async fn drive(&self, mut stop: watch::Receiver<bool>) {
        let began = self.clock.now();
        let mut clients = Vec::new();
        for share in &self.shares {
            let (plan, seeds) = (&share.crowd.plan, Prng::new(share.crowd.plan.seed).fork(share.crowd.name));
            let mut lane = Arc::default();
            for n in 0..plan.concurrency {
                if n % CLIENTS_PER_CONNECTION == 0 {
                    lane = Arc::<Http2Lane>::default();
                }
                let from = began + plan.ramp.mul_f64(n as f64 / plan.concurrency as f64);
                let client = Client::new(Arc::clone(share), Arc::clone(&lane), seeds.fork(&n.to_string()));
                clients.push(self.tasks.spawn(&CLIENT, client.live(from)));
            }
        }
        tokio::select! {
            () = self.clock.sleep_until(began + self.span) => {}
            // An error means that the caller is gone, which is a stop as well.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        clients.iter().for_each(tokio::task::JoinHandle::abort);
        self.tasks.all_ended().await;
    }

    fn report(&self, cpu: Option<CpuTime>, stopped_early: bool) -> ChurnReport {
        let count =
            |share: &Arc<Share>| (share.crowd.name, share.count.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let crowds = self.shares.iter().map(count).collect();
        ChurnReport { crowds, cpu_s: cpu.map(|cpu| cpu.on_cpu.as_secs_f64()), stopped_early }
    }
}

/// Lets the crowds loose over real sockets for `span`, on a thread of its own, and blocks until they
/// are gone. `on_look` is called about four times a second with the time since the beginning, on the
/// calling thread; if it breaks, everything ends at once.
pub fn churn(
    crowds: &[Crowd],
    span: Duration,
    mut on_look: impl FnMut(Duration) -> ControlFlow<()>,
) -> Result<ChurnReport, BenchError> {
    let clock = Clock::real();
    let roots = crowds.first().map(|crowd| crowd.plan.tls_roots.clone()).unwrap_or_default();
    let dial = TcpDial::new(clock, DialClocks::default(), &roots).map_err(|e| BenchError::Tls(e.to_string()))?;
    let load = Arc::new(Load::new(crowds, span, clock, &(Arc::new(dial) as Arc<dyn Dial>))?);
    let machine = |e: std::io::Error| BenchError::Machine(format!("the machine gives no thread or runtime: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(machine)?;
    let (stop, stopped) = watch::channel(false);
    let (end, ends) = sync_channel(1);
    let driven = Arc::clone(&load);
    let body = move || {
        let before = CpuTime::of_this_thread();
        runtime.block_on(driven.drive(stopped));
        let cost = before.and_then(|before| Some(CpuTime::of_this_thread()?.since(before)));
        // The caller may have given up; there is nobody to tell then.
        let _ = end.send(cost);
    };
    std::thread::Builder::new().name("bench-churn".into()).spawn(body).map_err(machine)?;
    let began = clock.now();
    let mut stopped_early = false;
    let cpu = wait(&ends, 1, || {
        if on_look(clock.now().since(began)).is_break() {
            stopped_early = true;
            // Nobody listens any more only when the thread has ended.
            let _ = stop.send(true);
        }
    })?;
    Ok(load.report(cpu, stopped_early))
}

/// The same on the current runtime, over `dial` and by `clock`: in an imagined network, in virtual
/// time.
pub async fn churn_here(
    crowds: &[Crowd],
    span: Duration,
    dial: Arc<dyn Dial>,
    clock: Clock,
) -> Result<ChurnReport, BenchError> {
    let load = Load::new(crowds, span, clock, &dial)?;
    let (_never_stops, stopped) = watch::channel(false);
    load.drive(stopped).await;
    Ok(load.report(None, false))
}
