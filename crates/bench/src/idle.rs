//! Clients that have had an answer and say nothing more: connections that are kept open to see what
//! they cost whoever keeps them.
//!
//! They are opened one after another, each with one request of the plan, and then left alone. The
//! runtime that owns them runs only while they are opened and looked at, so holding them costs this
//! process nothing.

use crate::failure::Failure;
use crate::plan::{BenchError, Plan};
use crate::request::Request;
use bytes::BytesMut;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::task::Poll;
use std::time::Duration;
use tidegate_transport::http1::{ClientConn, SendEnd};
use tidegate_transport::{Clock, Dial, DialClocks, TcpDial};

/// An answer to a client that then falls silent is not longer than this.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What the runtime gets to hear of connections that were closed meanwhile.
const LISTEN_FOR: Duration = Duration::from_millis(100);

/// Silent clients.
pub struct IdleClients {
    runtime: tokio::runtime::Runtime,
    connections: Vec<ClientConn>,
}

impl IdleClients {
    /// Opens `plan.concurrency` of them; `on_progress` hears how many there are, now and then, and may
    /// stop it. A client that gets no good answer ends the opening with an error.
    pub fn open(plan: &Plan, mut on_progress: impl FnMut(usize) -> ControlFlow<()>) -> Result<Self, BenchError> {
        plan.check_numbers()?;
        let request = Request::of(plan)?;
        let machine = |e: std::io::Error| BenchError::Machine(format!("the machine gives no runtime: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(machine)?;
        let clock = Clock::real();
        let dial = TcpDial::new(clock, DialClocks::default(), &plan.tls_roots);
        let dial = dial.map_err(|e| BenchError::Tls(e.to_string()))?;
        let mut connections = Vec::with_capacity(plan.concurrency);
        while connections.len() < plan.concurrency {
            if connections.len() % 64 == 0 && on_progress(connections.len()).is_break() {
                break;
            }
            let opened = runtime.block_on(clock.within(plan.request_timeout, open(&dial, &request)));
            match opened.unwrap_or(Err(Failure::Timeout)) {
                Ok(connection) => connections.push(connection),
                Err(failure) => {
                    let n = connections.len() + 1;
                    return Err(BenchError::Machine(format!("client {n} got no good answer: {failure:?}")));
                }
            }
        }
        Ok(IdleClients { runtime, connections })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// How many the endpoint has neither closed nor sent anything to.
    pub fn still_open(&mut self) -> usize {
        let connections = &mut self.connections;
        self.runtime.block_on(async {
            tokio::time::sleep(LISTEN_FOR).await;
            let mut open = 0;
            for connection in connections {
                open += usize::from(poll_fn(|cx| Poll::Ready(connection.is_quiet(cx))).await);
            }
            open
        })
    }
}

/// One client: a connection, a request, its whole answer.
async fn open(dial: &TcpDial, request: &Request) -> Result<ClientConn, Failure> {
    let broken = |e| Failure::of(&e);
    let dialled = dial.dial(request.target()).await.map_err(|_| Failure::Connect)?;
    let mut connection = ClientConn::new(dialled.io);
    let sent = connection.send(request.head(), request.body.clone(), || {}).await.map_err(broken)?;
    let head = connection.read_head(false, sent == SendEnd::Whole).await.map_err(broken)?;
    connection.read_body(&mut BytesMut::new(), ANSWER_BYTES_MAX).await.map_err(broken)?;
    if head.status != 200 {
        return Err(Failure::Http { status: head.status, kind: "-".to_owned() });
    }
    if !connection.is_reusable() {
        return Err(Failure::Reset);
    }
    Ok(connection)
}
