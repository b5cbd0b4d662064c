//! One client of a crowd, alone: it asks when it is told to, leaves, and says when that was.
//!
//! Its thread goes on between two requests, so that what a leave has to say (the reset of an HTTP/2
//! stream, for one) is said.

use super::client::Client;
use super::{Crowd, Share};
use crate::plan::BenchError;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_base::{Moment, Prng};
use tidegate_transport::{Clock, Dial, DialClocks, Tasks, TcpDial};
use tokio::sync::mpsc;

/// What a request that is left gets beside its own clock.
const GRACE: Duration = Duration::from_secs(5);

/// A client that leaves, on a thread of its own.
pub struct OneLeaves {
    orders: mpsc::Sender<SyncSender<Option<Moment>>>,
    patience: Duration,
}

impl OneLeaves {
    /// Starts the first client of `crowd`; moments are those of `clock`.
    pub fn start(crowd: &Crowd, clock: Clock) -> Result<Self, BenchError> {
        let dial = TcpDial::new(clock, DialClocks::default(), &crowd.plan.tls_roots);
        let dial: Arc<dyn Dial> = Arc::new(dial.map_err(|e| BenchError::Tls(e.to_string()))?);
        let machine = |e: std::io::Error| BenchError::Machine(format!("the machine gives no thread or runtime: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(machine)?;
        let share = Arc::new(Share {
            requests: crowd.requests()?,
            crowd: crowd.clone(),
            clock,
            dial,
            tasks: Tasks::new(),
            count: Mutex::default(),
        });
        let prng = Prng::new(crowd.plan.seed).fork("alone");
        // One order at a time: whoever gives it waits for the answer.
        let (orders, mut ordered) = mpsc::channel::<SyncSender<Option<Moment>>>(1);
        let body = move || {
            runtime.block_on(async move {
                let mut client = Client::new(share, Arc::default(), prng);
                while let Some(answer) = ordered.recv().await {
                    let left = client.leave().await;
                    // Whoever asked may have given up.
                    let _ = answer.send(left);
                }
            });
        };
        std::thread::Builder::new().name("bench-one".into()).spawn(body).map_err(machine)?;
        Ok(OneLeaves { orders, patience: crowd.plan.request_timeout + GRACE })
    }

    /// Asks and leaves, as the crowd's manner is; blocks until it has left. `None` if the answer
    /// ended before.
    pub fn leave(&self) -> Result<Option<Moment>, BenchError> {
        let broke = || BenchError::Machine("a thread of the load generator broke".to_owned());
        let (answer, answered) = sync_channel(1);
        self.orders.blocking_send(answer).map_err(|_| broke())?;
        answered.recv_timeout(self.patience).map_err(|_| broke())
    }
}
