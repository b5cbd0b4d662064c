//! A client's way to the endpoint in either version of HTTP: what it asks of it is the same.

use super::Share;
use crate::failure::Failure;
use crate::request::Request;
use std::task::{Context, Poll};
use tidegate_transport::http1::{ClientConn, SendEnd};
use tidegate_transport::http2::{Connection, Stream};
use tidegate_transport::{ClientError, HttpOffer, Target};
use tidegate_wire::http::ResponseHead;
use tokio::sync::Mutex;

/// Streams one HTTP/2 connection carries before its clients open another: connections churn too.
const STREAMS_PER_CONNECTION: u32 = 200;

/// The HTTP/2 connection that some clients share, and how many streams it has carried.
#[derive(Default)]
pub(super) struct Http2Lane(Mutex<(Option<Connection>, u32)>);

impl Http2Lane {
    /// A new stream on the connection of the lane, or on a new one.
    async fn stream(&self, share: &Share, request: &Request) -> Result<Stream, Failure> {
        let mut lane = self.0.lock().await;
        let (kept, carried) = &mut *lane;
        if *carried >= STREAMS_PER_CONNECTION
            && let Some(old) = kept.take()
        {
            old.retire();
        }
        let connection = match kept.take().filter(Connection::is_open) {
            Some(connection) => connection,
            None => {
                *carried = 0;
                let target = Target { http: HttpOffer::Http2, ..request.target().clone() };
                let dialled = share.dial.dial(&target).await.map_err(|_| Failure::Connect)?;
                share.count(|c| c.connections += 1);
                let opened = Connection::open(dialled.io, share.clock, &share.tasks, |_| {}).await;
                opened.map_err(|e| Failure::of(&e))?
            }
        };
        *carried += 1;
        *kept = Some(connection.clone());
        connection.begin(request.head_http2(), false).map_err(|e| Failure::of(&e))
    }
}

/// One request's connection or stream.
pub(super) enum Way {
    Http1(ClientConn),
    Http2(Stream),
}

impl Way {
    /// A new connection of the client's own, or a stream on one it shares.
    pub(super) async fn open(share: &Share, lane: &Http2Lane, request: &Request) -> Result<Self, Failure> {
        if share.crowd.http2 {
            return lane.stream(share, request).await.map(Way::Http2);
        }
        let dialled = share.dial.dial(request.target()).await.map_err(|_| Failure::Connect)?;
        share.count(|c| c.connections += 1);
        Ok(Way::Http1(ClientConn::new(dialled.io)))
    }

    pub(super) async fn ask(&mut self, request: &Request) -> Result<ResponseHead, Failure> {
        let broken = |e: ClientError| Failure::of(&e);
        match self {
            Way::Http1(conn) => {
                let sent = conn.send(request.head(), request.body.clone(), || {}).await.map_err(broken)?;
                conn.read_head(false, sent == SendEnd::Whole).await.map_err(broken)
            }
            Way::Http2(stream) => {
                stream.send_body(request.body.clone(), || {}).await.map_err(broken)?;
                stream.read_head().await.map_err(broken)
            }
        }
    }

    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<bool, ClientError>> {
        match self {
            Way::Http1(conn) => conn.poll_body(cx, sink),
            Way::Http2(stream) => stream.poll_body(cx, sink),
        }
    }

    /// The connection, if another request may go out on it.
    pub(super) fn reusable(self) -> Option<ClientConn> {
        match self {
            Way::Http1(conn) if conn.is_reusable() => Some(conn),
            _ => None,
        }
    }
}
