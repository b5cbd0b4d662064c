//! One request and its answer over one connection.
//!
//! ```text
//!   dial ─▶ send ─▶ (last byte) ─▶ head ─▶ body … ─▶ back to the pool
//!   connect, tls    upload stall    first byte
//! ```
//! Dropping an exchange before its body has ended closes the connection: that is how the upstream
//! learns at once that nobody waits any more.

use crate::pool::{Idle, LanePool};
use prometheus_client::metrics::gauge::Gauge;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::http1::{ClientConn, ClientError};
use tidegate_transport::{DialError, DialStage};
use tidegate_wire::http::ResponseHead;

/// How long the parts of an exchange may take; name and TLS clocks are the dialler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeClocks {
    /// No byte of the request could be sent for so long (design: 10 s).
    pub upload_stall: Duration,
    /// From the request's last byte to the answer's head; `None` where only the deadline counts.
    pub first_byte: Option<Duration>,
}

/// How far an exchange has come; told as it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A connection is being made or taken from the pool.
    Connecting,
    /// The request was sent.
    Sent,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ExchangeError {
    /// No connection.
    Dial(DialError),
    /// The upstream stopped taking the request.
    UploadStall,
    /// The first byte did not come in time.
    FirstByte,
    /// The connection broke before the answer's head was whole, or the head is no HTTP.
    Broken(ClientError),
}

impl ExchangeError {
    /// The clock that ran out, if one did, by its name in metrics.
    pub fn clock(&self) -> Option<&'static str> {
        match self {
            ExchangeError::Dial(DialError { timed_out: true, stage, .. }) => Some(match stage {
                DialStage::Resolve | DialStage::Connect => "connect",
                DialStage::Tls => "tls",
            }),
            ExchangeError::UploadStall => Some("upload_stall"),
            ExchangeError::FirstByte => Some("first_byte"),
            ExchangeError::Dial(_) | ExchangeError::Broken(_) => None,
        }
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::Dial(e) => write!(f, "{e}"),
            ExchangeError::UploadStall => f.write_str("the upstream stopped reading the request"),
            ExchangeError::FirstByte => f.write_str("the upstream sent no first byte in time"),
            ExchangeError::Broken(e) => write!(f, "the upstream broke off before its answer: {e}"),
        }
    }
}

impl std::error::Error for ExchangeError {}

/// Counts one connection in a gauge for as long as it exists.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Counted(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A request that was sent and whose answer's head has come.
pub struct Exchange {
    /// Status and headers.
    pub head: ResponseHead,
    pub(crate) conn: ClientConn,
    pub(crate) lane: Arc<LanePool>,
    pub(crate) _busy: Counted,
}

impl Exchange {
    /// The head, for whoever keeps it longer than the exchange needs it; what stays has no lines.
    pub fn take_head(&mut self) -> ResponseHead {
        ResponseHead { headers: std::mem::take(&mut self.head.headers), ..self.head }
    }

    /// Reads once and shows what came of the body to `sink`; true once the body has ended.
    pub fn poll_body(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(&[u8])) -> Poll<Result<bool, ClientError>> {
        self.conn.poll_body(cx, sink)
    }

    /// Reads the whole body, up to `max` bytes.
    pub async fn read_body(&mut self, max: usize) -> Result<bytes::Bytes, ClientError> {
        let mut body = bytes::BytesMut::new();
        self.conn.read_body(&mut body, max).await?;
        Ok(body.freeze())
    }

    /// The answer was read to its end: keeps the connection if it may be used again.
    pub fn finish(self, now: Moment) {
        if self.conn.is_reusable() {
            self.lane.keep(Idle::new(self.conn, now, &self.lane));
        }
    }
}
