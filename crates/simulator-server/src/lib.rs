//! The simulated Claude API on sockets: the model's plans played on HTTP/1.1 connections and HTTP/2
//! streams, with TLS where the listener has it, and on WebSockets (`websocket/mod.rs`).
//!
//! Thin on purpose. The model decides everything (`tidegate-simulator`); this room waits until a
//! step is due, writes it, breaks the connection where the plan says so, and notices at once when a
//! client leaves, while it waits as well as while it writes. One task per connection and
//! one per HTTP/2 stream, all of them on the runtime that [`run`] is called on; with a paused clock and an in-memory network a run repeats
//! from its seed. A second listener tells the ground truth (`ground_truth.rs`).
//!
//! At most [`CONNECTIONS_MAX`] connections are open at each door; further ones wait to be accepted.

mod bare_target;
mod connection;
mod exchange;
mod ground_truth;
mod proxy;
mod websocket;

pub use proxy::{ProxyRules, run_proxy};

use bare_target::BareTarget;
use connection::Stage;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_simulator::Simulator;
use tidegate_transport::{Accepted, Clock, Listen, TaskKind, Tasks};
use tokio::sync::{Semaphore, watch};

/// Connections open at once at one door: the 10,000 streams of a full load, six times over, and
/// still under the usual limit of open files once it is raised.
pub const CONNECTIONS_MAX: usize = 65_536;
/// Streams of one HTTP/2 connection. The API's own number is not documented; many servers say 100.
pub const HTTP2_STREAMS: u32 = 100;

const API_CONNECTION: TaskKind = TaskKind {
    name: "simulator connection",
    on_cancel: "the connection is dropped as it is",
    on_error: "the connection is dropped; the simulator goes on",
};
const TRUTH_CONNECTION: TaskKind = TaskKind {
    name: "ground truth connection",
    on_cancel: "the connection is dropped as it is",
    on_error: "the connection is dropped",
};

/// The model, shared by the connections that play it and the tests that ask it. Clones are the same.
#[derive(Clone, Debug)]
pub struct SharedSimulator {
    simulator: Arc<Mutex<Simulator>>,
    bare: Option<Arc<BareTarget>>,
}

impl SharedSimulator {
    /// Shares a simulator.
    pub fn new(simulator: Simulator) -> Self {
        let bare = simulator.bare().map(|bare| Arc::new(BareTarget::new(bare)));
        SharedSimulator { simulator: Arc::new(Mutex::new(simulator)), bare }
    }

    /// Looks at the simulator or changes it. Keep it short: all connections wait meanwhile.
    pub fn with<T>(&self, look: impl FnOnce(&mut Simulator) -> T) -> T {
        look(&mut self.simulator.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where the simulator listens.
pub struct Doors {
    /// The API.
    pub api: Box<dyn Listen>,
    /// The ground truth, if it is wanted.
    pub truth: Option<Box<dyn Listen>>,
    /// Streams that one HTTP/2 connection to the API may carry: usually [`HTTP2_STREAMS`].
    pub http2_streams: u32,
}

/// Serves until `shutdown` is ready, then drops every connection and returns when all are gone.
/// An error of a listener ends it as well.
pub async fn run(
    doors: Doors,
    simulator: SharedSimulator,
    clock: Clock,
    tasks: Tasks,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let api = accept(doors.api, &stopped, |accepted, stopped, permit| {
        let stage = Stage {
            simulator: simulator.clone(),
            clock,
            tasks: tasks.clone(),
            stopped: stopped.clone(),
            http2_streams: doors.http2_streams,
            farewell: None,
        };
        tasks.spawn(&API_CONNECTION, async move {
            let _permit = permit;
            until(stopped, connection::serve(accepted, stage)).await;
        });
    });
    let truth = async {
        let Some(listen) = doors.truth else { return std::future::pending().await };
        accept(listen, &stopped, |accepted, stopped, permit| {
            let simulator = simulator.clone();
            tasks.spawn(&TRUTH_CONNECTION, async move {
                let _permit = permit;
                if let Ok(io) = accepted.open() {
                    until(stopped, ground_truth::serve(io, simulator, clock)).await;
                }
            });
        })
        .await
    };
    let ended = tokio::select! {
        biased;
        () = shutdown => Ok(()),
        ended = api => ended,
        ended = truth => ended,
    };
    let _ = stop.send(true);
    // Every connection holds a receiver; the last one to end releases the last.
    drop(stopped);
    stop.closed().await;
    ended
}

type Permit = tokio::sync::OwnedSemaphorePermit;

/// Accepts for ever: a permit first, then a connection for it.
async fn accept(
    mut listen: Box<dyn Listen>,
    stopped: &watch::Receiver<bool>,
    serve: impl Fn(Accepted, watch::Receiver<bool>, Permit),
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await.map_err(io::Error::other)?;
        match listen.accept().await {
            Ok(accepted) => serve(accepted, stopped.clone(), permit),
            // A connection that died in the queue, or no file descriptor left: the next may do.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

/// Does `work` until it is done or the server stops.
async fn until(mut stopped: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = work => {}
    }
}
