//! One client's connection: its handshake, its version of HTTP, its requests.
//!
//! ```text
//!   (TLS) ─▶ ALPN says h2 ───────────────────┬─▶ HTTP/2: each stream a task on this thread
//!       └──▶ first bytes are the preface ────┘
//!            else ─▶ HTTP/1.1: one request after another, in this task
//! ```
//! A connection is one task. Whatever is large (a handshake, HTTP/2's state, a request's whole path)
//! is boxed and there only while it is needed, so that an idle client of HTTP/1.1 costs little more
//! than its socket. When the connection goes, its streams hear of it and cancel their upstreams.

use crate::answer::Trouble;
use crate::door::{After, one, refuse};
use crate::plane::{Counted, Plane, STREAM};
use crate::socket;
use crate::tenants::Tenant;
use bytes::BytesMut;
use std::sync::Arc;
use tidegate_transport::http1::ServerConn;
use tidegate_transport::http2::{self, Next, ServerConnection, ServerRules};
use tidegate_transport::{Accepted, Alpn, BoxIo, ServerStream};
use tokio::sync::OwnedSemaphorePermit;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Somebody on this machine.
    Here,
    /// Somebody on another.
    Elsewhere,
    /// Tidegate itself, in this tenant's name.
    Errand(Arc<Tenant>),
}

/// Serves one connection to its end.
pub(crate) async fn connection(plane: Arc<Plane>, accepted: Accepted, _permit: OwnedSemaphorePermit, _load: Counted) {
    let peer = if accepted.from_loopback { Peer::Here } else { Peer::Elsewhere };
    let opened = if accepted.is_tls() {
        Box::pin(shake_hands(&plane, accepted)).await
    } else {
        accepted.open().ok().map(|io| (io, Alpn::Unsaid))
    };
    let begun = match opened {
        None => return,
        Some((io, Alpn::Http2)) => Some((io, BytesMut::new())),
        Some((io, Alpn::Http11 | Alpn::Unsaid)) => http1(&plane, io, &peer).await,
    };
    if let Some((io, read)) = begun {
        Box::pin(http2(plane, io, read, &peer)).await;
    }
}

/// The TLS handshake, on this thread and under its own clock. One that fails closes without a word:
/// most of them are port scans and health checks that speak no TLS.
async fn shake_hands(plane: &Plane, accepted: Accepted) -> Option<(BoxIo, Alpn)> {
    let house = &*plane.house;
    let shaken = house.clock.within(house.settings.clocks.client_tls, accepted.secure()).await;
    if shaken.is_none() {
        house.metrics.clock_expired("client_tls");
        house.metrics.client_tls_failed();
    }
    match shaken? {
        Ok(opened) => Some(opened),
        Err(e) => {
            house.metrics.client_tls_failed();
            tracing::debug!(target: "tidegate::door", error = %e, "a TLS handshake failed");
            None
        }
    }
}

/// Requests one after another; gives the connection back if its first bytes are HTTP/2's.
async fn http1(plane: &Arc<Plane>, io: BoxIo, peer: &Peer) -> Option<(BoxIo, BytesMut)> {
    let mut stream = ServerStream::Http1(ServerConn::new(io));
    loop {
        match one(&plane.now(), &mut stream, peer).await {
            After::KeepAlive => {}
            After::Close => {
                Box::pin(stream.close(plane.house.clock)).await;
                return None;
            }
            // By a reset: to a client of HTTP/1.0 an orderly close would be the answer's end.
            After::Abort => {
                stream.abort();
                return None;
            }
            After::Socket(opened) => {
                if let ServerStream::Http1(conn) = stream {
                    let (io, early) = conn.into_parts();
                    Box::pin(socket::run(plane.now(), io, early, *opened)).await;
                }
                return None;
            }
            After::Http2 => match stream {
                ServerStream::Http1(conn) => return Some(conn.into_parts()),
                ServerStream::Http2(_) | ServerStream::Local(_) => return None,
            },
        }
    }
}

/// Streams side by side, until the client leaves, is idle for too long, or a drain has let the last
/// one end.
async fn http2(plane: Arc<Plane>, io: BoxIo, read: BytesMut, peer: &Peer) {
    let house = Arc::clone(&plane.house);
    let clocks = &house.settings.clocks;
    let rules = ServerRules { streams: house.settings.limits.connection_streams, idle: clocks.client_idle };
    let begun = ServerConnection::handshake(io, read, house.clock, rules);
    let mut conn = match house.clock.within(clocks.client_head, begun).await {
        Some(Ok(conn)) => conn,
        Some(Err(_)) => return,
        None => return house.metrics.clock_expired("client_head"),
    };
    let mut drain = std::pin::pin!(house.leave_begun());
    let mut draining = false;
    loop {
        let next = tokio::select! {
            biased;
            () = &mut drain, if !draining => {
                draining = true;
                conn.shut_down();
                continue;
            }
            next = conn.next() => next,
        };
        match next {
            Next::Stream(stream) => take(&plane, stream, peer),
            Next::Idle => house.metrics.clock_expired("client_idle"),
            Next::Closed => return,
        }
    }
}

/// Gives a stream a task and a place among all streams; without one it is refused.
fn take(plane: &Arc<Plane>, stream: Box<http2::ServerStream>, peer: &Peer) {
    let permit = Arc::clone(&plane.house.stream_permits).try_acquire_owned().ok();
    let load = plane.count_stream();
    let (plane, peer) = (Arc::clone(plane), peer.clone());
    let tasks = plane.thread.tasks.clone();
    tasks.spawn(&STREAM, async move {
        let _load = load;
        let mut stream = ServerStream::Http2(stream);
        let after = match permit {
            Some(_permit) => one(&plane, &mut stream, &peer).await,
            None => refuse(&plane, &mut stream, &Trouble::StreamLimit, false).await,
        };
        match after {
            After::KeepAlive | After::Close => stream.close(plane.house.clock).await,
            // A socket begins over HTTP/1.1 and nowhere else.
            After::Abort | After::Http2 | After::Socket(_) => stream.abort(),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::costs::UsageFile;
    use crate::house::House;
    use crate::renewal::Current;
    use crate::settings::Settings;
    use tidegate_transport::{Clock, Listen, MemoryNetwork, Tasks};

    /// What a connection's task is made of. Whatever only a request or a handshake needs is boxed.
    #[tokio::test]
    async fn an_idle_connection_is_small() {
        let network = MemoryNetwork::new();
        let mut door = network.listen("a:1");
        let _client = network.connect("a:1").unwrap();
        let house = Arc::new(House::new(
            Clock::real(),
            Settings::default(),
            Arc::new(tidegate_observe::NoRecords),
            None,
            UsageFile::Memory,
        ));
        let permit = Arc::clone(&house.connection_permits).try_acquire_owned().unwrap();
        let plane = Arc::new(Plane::new(Current::new(house), Arc::new(network), Tasks::new(), 0));
        let load = plane.count();
        let task = connection(plane, door.accept().await.unwrap(), permit, load);
        let bytes = size_of_val(&task);
        assert!(bytes <= 1536, "{bytes} bytes");
    }
}
