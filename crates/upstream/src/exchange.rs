//! One request and its answer over one connection.
//!
//! ```text
//!   dial ─▶ send ─▶ (last byte) ─▶ head ─▶ body … ─▶ back to the pool
//!   connect, tls    upload stall    first byte
//! ```
//! Dropping an exchange before its body has ended closes its connection (HTTP/1.1), resets its stream
//! (HTTP/2) or cancels it (WebSocket): that is how the upstream learns at once that nobody waits any more.

use crate::lane::Lane;
use crate::life::{Life, ProbeClocks};
use crate::pool::{Idle, LanePool, Slot};
use crate::socket::{SocketSlot, SocketStream};
use crate::veil::Veil;
use bytes::{Bytes, BytesMut};
use prometheus_client::metrics::gauge::Gauge;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::http1::ClientConn;
use tidegate_transport::http2::Stream;
use tidegate_transport::{ClientError, DialError, DialStage};
use tidegate_wire::http::{Headers, ResponseHead};

/// How long the parts of an exchange may take; name and TLS clocks are the dialler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeClocks {
    /// No byte of the request could be sent for so long (design: 10 s).
    pub upload_stall: Duration,
    /// From the request's last byte to the answer's head; `None` where only the deadline counts.
    pub first_byte: Option<Duration>,
    /// When a silent HTTP/2 connection is asked for a sign of life.
    pub probe: ProbeClocks,
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
    /// The connection gave no sign of life when it was asked for one (HTTP/2).
    Dead,
    /// The connection broke before the answer's head was whole, or the head is no HTTP.
    Broken(ClientError),
}

impl ExchangeError {
    /// The clock that ran out, if one did, by its name in metrics.
    pub fn clock(&self) -> Option<&'static str> {
        match self {
            ExchangeError::Dial(DialError { timed_out: true, stage, .. }) => Some(match stage {
                DialStage::Resolve | DialStage::Connect => "connect",
                DialStage::Proxy => "proxy",
                DialStage::Tls => "tls",
                DialStage::Http2 => "http2_start",
                DialStage::Socket => "socket_start",
            }),
            ExchangeError::UploadStall => Some("upload_stall"),
            ExchangeError::FirstByte => Some("first_byte"),
            ExchangeError::Dead => Some("probe"),
            ExchangeError::Broken(e) => e.clock(),
            ExchangeError::Dial(_) => None,
        }
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::Dial(e) => write!(f, "{e}"),
            ExchangeError::UploadStall => f.write_str("the upstream stopped reading the request"),
            ExchangeError::FirstByte => f.write_str("the upstream sent no first byte in time"),
            ExchangeError::Dead => f.write_str("the upstream's connection gave no sign of life"),
            ExchangeError::Broken(e) => write!(f, "the upstream broke off before its answer: {e}"),
        }
    }
}

impl std::error::Error for ExchangeError {}

/// Counts one connection, or one stream, in a gauge for as long as it exists.
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

/// What an exchange runs over. A stream goes before its slot: it has ended when the slot is free.
pub(crate) enum Way {
    Http1 {
        conn: ClientConn,
        lane: Arc<LanePool>,
        _busy: Counted,
    },
    Http2 {
        stream: Box<Stream>,
        slot: Slot,
        life: Life,
    },
    Socket {
        stream: Box<SocketStream>,
        _slot: SocketSlot,
    },
    /// The upstream opened no WebSocket and said why.
    Said {
        body: Bytes,
    },
}

/// A request that was sent and whose answer's head has come.
pub struct Exchange {
    /// Status and headers.
    pub head: ResponseHead,
    way: Way,
    veil: Veil,
}

impl Exchange {
    /// The answer that came from `lane`: what it says of that lane's secrets in its head is covered.
    pub(crate) fn new(lane: &Lane, head: ResponseHead, way: Way) -> Self {
        let veil = lane.veil().clone();
        Exchange { head: ResponseHead { headers: veil.headers(head.headers), ..head }, way, veil }
    }

    /// What covers the secrets that the request went with.
    pub fn veil(&self) -> &Veil {
        &self.veil
    }

    /// The head, for whoever keeps it longer than the exchange needs it; what stays has no lines.
    pub fn take_head(&mut self) -> ResponseHead {
        ResponseHead { headers: std::mem::take(&mut self.head.headers), ..self.head }
    }

    /// The same answer as a stream of `events`: what came of it was read to its end. The connection is
    /// kept if it may be used again.
    pub fn streaming(mut self, events: Bytes, now: Moment) -> Self {
        let mut head = self.take_head();
        let about_body = |name: &[u8]| {
            ["content-type", "content-length"].iter().any(|other| other.as_bytes().eq_ignore_ascii_case(name))
        };
        let kept = head.headers.iter().filter(|(name, _)| !about_body(name));
        let kept = kept.map(|(name, value)| (String::from_utf8_lossy(name), value));
        let kind = (Cow::Borrowed("content-type"), &b"text/event-stream; charset=utf-8"[..]);
        head.headers = Headers::from_pairs(kept.chain([kind]));
        let veil = self.veil.clone();
        self.finish(now);
        Exchange { head, way: Way::Said { body: events }, veil }
    }

    /// Reads once and shows what came of the body to `sink`; true once the body has ended.
    pub fn poll_body(&mut self, cx: &mut Context<'_>, sink: &mut dyn FnMut(&[u8])) -> Poll<Result<bool, ClientError>> {
        match &mut self.way {
            Way::Http1 { conn, .. } => conn.poll_body(cx, sink),
            Way::Http2 { stream, .. } => stream.poll_body(cx, sink),
            Way::Socket { stream, .. } => stream.poll_body(cx, sink),
            Way::Said { body } => {
                let body = std::mem::take(body);
                if !body.is_empty() {
                    sink(&body);
                }
                Poll::Ready(Ok(true))
            }
        }
    }

    /// Reads the whole body, up to `max` bytes, with the secrets in it covered.
    pub async fn read_body(&mut self, max: usize) -> Result<Bytes, ClientError> {
        let mut body = BytesMut::new();
        match &mut self.way {
            Way::Http1 { conn, .. } => conn.read_body(&mut body, max).await?,
            Way::Http2 { stream, .. } => stream.read_body(&mut body, max).await?,
            Way::Socket { stream, .. } => stream.read_body(&mut body, max).await?,
            Way::Said { body: said } => body.extend_from_slice(said),
        }
        Ok(match self.veil.bytes(&body) {
            Cow::Borrowed(_) => body.freeze(),
            Cow::Owned(covered) => covered.into(),
        })
    }

    /// When to call [`Exchange::is_alive`], if no byte comes after `last_byte`; `None` where a
    /// connection cannot be asked (HTTP/1.1). Of a WebSocket its own pings see to that: a stream on
    /// one that is dead fails.
    pub fn probe_due(&self, last_byte: Moment) -> Option<Moment> {
        match &self.way {
            Way::Http1 { .. } => None,
            Way::Socket { .. } | Way::Said { .. } => Some(Moment::NEVER),
            Way::Http2 { life, .. } => Some(life.due(last_byte)),
        }
    }

    /// Whether the connection is alive as far as is known; asks it when that is due. One that is
    /// dead gets no new streams.
    pub fn is_alive(&mut self, now: Moment, last_byte: Moment) -> bool {
        match &mut self.way {
            Way::Http1 { .. } | Way::Socket { .. } | Way::Said { .. } => true,
            Way::Http2 { life, slot, .. } => {
                let alive = life.look(now, last_byte, &slot.conn);
                if !alive {
                    slot.conn.retire();
                }
                alive
            }
        }
    }

    /// The answer was read to its end: keeps the connection if it may be used again.
    pub fn finish(self, now: Moment) {
        if let Way::Http1 { conn, lane, .. } = self.way
            && conn.is_reusable()
        {
            lane.keep(Idle::new(conn, now, &lane));
        }
    }
}
