//! The handshake, and what comes of a request that does not become a WebSocket.

use super::Dialect;
use super::socket::{self, Opened};
use crate::connection::{Stage, refuse};
use bytes::BytesMut;
use std::time::Duration;
use tidegate_simulator::{Opening, RequestFacts, Upgrade};
use tidegate_transport::ServerStream;
use tidegate_transport::http1::ServerConn;
use tidegate_wire::http::RequestHead;
use tidegate_wire::websocket::handshake::{Origins, ServerRules, accept, answer};

const SUBPROTOCOL: &str = "tidegate.v1";
/// A client whose opening is never answered is waited for no longer than this.
const NEVER_MAX: Duration = Duration::from_secs(300);

/// Whether this request wants to be a WebSocket.
pub(crate) fn is_opening(head: &RequestHead) -> bool {
    head.path() == "/v1/stream"
}

/// Opens the socket and serves it to its end.
pub(crate) async fn serve(mut conn: ServerConn, head: RequestHead, stage: &Stage) {
    let clock = stage.clock;
    let rules = ServerRules { subprotocols: &[SUBPROTOCOL], origins: Origins::Any };
    let accepted = match accept(&head, &rules) {
        Ok(accepted) => accepted,
        Err(why) => return refuse(ServerStream::Http1(conn), clock, why.status(), &why.to_string()).await,
    };
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let lines = head.headers.iter().filter_map(|(n, v)| Some((text(n)?.to_owned(), text(v)?.to_owned())));
    let lines: Vec<(String, String)> = lines.collect();
    let headers: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let facts = RequestFacts { method: "GET", target: "/v1/stream", headers: &headers, body: b"" };
    match stage.simulator.with(|simulator| simulator.upgrade(clock.now(), &facts)) {
        Upgrade::Go => {}
        Upgrade::Never => {
            // Whatever is sent meanwhile stays unread, as with a server that hangs.
            let departed = std::future::poll_fn(|cx| conn.poll_departed(cx));
            let _ = clock.within(NEVER_MAX, departed).await;
            return;
        }
        Upgrade::Refused(exchange) => {
            let mut exchange = *exchange;
            let status = if let Opening::Head(head) = &exchange.opening { head.status } else { 401 };
            exchange.playback.by_ref().for_each(drop);
            let (ordinal, progress) = (exchange.ordinal, exchange.playback.progress());
            stage.simulator.with(|simulator| simulator.ended(clock.now(), ordinal, progress));
            return refuse(ServerStream::Http1(conn), clock, status, "this key opens no stream").await;
        }
    }
    let dialect = match accepted.subprotocol {
        Some(_) => Dialect::Streams,
        None => Dialect::Simple { once: head.query().split('&').any(|item| item == "once=1") },
    };
    let mut out = BytesMut::new();
    answer(&mut out, &accepted).end();
    conn.push_raw(&out);
    if conn.flush().await.is_err() {
        return;
    }
    let (io, read) = conn.into_parts();
    socket::serve(io, Opened { read, dialect, headers: lines }, stage).await;
}
