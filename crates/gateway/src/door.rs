//! Phase 1, the door: the requests that come over one connection, or the one of an HTTP/2 stream.
//!
//! ```text
//!   idle ──byte──▶ head ──whole──▶ path ──keep alive──▶ idle
//!    │ 60 s, drain   │ 10 s: 408      └─close, abort─▶ end
//!    ▼               ▼ malformed: 400, 431
//!   end             end
//! ```
//! Which path leads where is one table. What is refused here has not cost a body, a lease or a
//! place in the table of live requests.

use crate::answer::{Trouble, answer};
use crate::connection::Peer;
use crate::memory::Place;
use crate::passing;
use crate::path;
use crate::plane::Plane;
use crate::reply::own_lines;
use crate::socket::{Opened, open};
use crate::streams;
use std::sync::Arc;
use tidegate_base::RequestId;
use tidegate_transport::ServerStream;
use tidegate_transport::http1::HeadEnd;
use tidegate_wire::http::RequestHead;

/// A way in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Door {
    /// Its name in metrics and logs.
    pub(crate) name: &'static str,
    pub(crate) methods: &'static [&'static str],
    pub(crate) allowed: &'static str,
    /// Whether requests have a body.
    pub(crate) has_body: bool,
    /// Whether the body names a model.
    pub(crate) has_model: bool,
    /// Whether answers may be streams.
    pub(crate) can_stream: bool,
    /// Where Tidegate answers itself, from what it keeps.
    pub(crate) ours: Option<Ours>,
}

/// What Tidegate answers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ours {
    /// Conversations.
    Conversations,
    /// Streams that can be come back to.
    Streams,
    /// A WebSocket.
    Socket,
    /// Who asks: a ticket for a socket.
    Tickets,
    /// Nothing: it is here.
    Here,
    /// Nothing: it is the upstream's, and is passed on as it is.
    Upstream,
}

pub(crate) const MESSAGES: Door = Door {
    name: "messages",
    methods: &["POST"],
    allowed: "POST",
    has_body: true,
    has_model: true,
    can_stream: true,
    ours: None,
};
const COUNT_TOKENS: Door = Door {
    name: "count_tokens",
    methods: &["POST"],
    allowed: "POST",
    has_body: true,
    has_model: true,
    can_stream: false,
    ours: None,
};
const MODELS: Door = Door {
    name: "models",
    methods: &["GET"],
    allowed: "GET",
    has_body: false,
    has_model: false,
    can_stream: false,
    ours: None,
};
const ROOT: Door = Door {
    name: "root",
    methods: &["GET", "HEAD"],
    allowed: "GET, HEAD",
    has_body: false,
    has_model: false,
    can_stream: false,
    ours: Some(Ours::Here),
};

/// A door to what is kept here.
const fn of_ours(name: &'static str, methods: &'static [&'static str], allowed: &'static str) -> Door {
    Door {
        name,
        methods,
        allowed,
        has_body: true,
        has_model: false,
        can_stream: false,
        ours: Some(Ours::Conversations),
    }
}

const STREAMS: Door = Door {
    name: "streams",
    methods: &["GET", "DELETE"],
    allowed: "GET, DELETE",
    has_body: true,
    has_model: false,
    can_stream: false,
    ours: Some(Ours::Streams),
};
const STREAM: Door = Door {
    name: "stream",
    methods: &["GET"],
    allowed: "GET",
    has_body: false,
    has_model: false,
    can_stream: false,
    ours: Some(Ours::Socket),
};
const TICKET: Door = Door {
    name: "stream_ticket",
    methods: &["POST"],
    allowed: "POST",
    has_body: true,
    has_model: false,
    can_stream: false,
    ours: Some(Ours::Tickets),
};
const CONVERSATIONS: Door = of_ours("conversations", &["GET", "POST", "DELETE"], "GET, POST, DELETE");
const CONVERSATION: Door = of_ours("conversation", &["GET", "DELETE"], "GET, DELETE");
const CONVERSATION_TURNS: Door = of_ours("conversation_turns", &["GET", "POST"], "GET, POST");
const CONVERSATION_WINDOW: Door = of_ours("conversation_window", &["GET"], "GET");
const CONVERSATION_FORK: Door = of_ours("conversation_fork", &["POST"], "POST");

/// The table.
fn route(method: &str, path: &str) -> Result<&'static Door, Trouble> {
    let door = match path {
        "/v1/messages" => &MESSAGES,
        "/v1/messages/count_tokens" => &COUNT_TOKENS,
        "/v1/models" => &MODELS,
        "/" => &ROOT,
        "/v1/stream" => &STREAM,
        "/v1/stream/ticket" => &TICKET,
        _ => match (Place::of(path), path.strip_prefix("/v1/models/")) {
            (Some(Place::All), _) => &CONVERSATIONS,
            (Some(Place::One(_)), _) => &CONVERSATION,
            (Some(Place::Turns(_)), _) => &CONVERSATION_TURNS,
            (Some(Place::Window(_)), _) => &CONVERSATION_WINDOW,
            (Some(Place::Fork(_)), _) => &CONVERSATION_FORK,
            (None, Some(id)) if is_model_id(id) => &MODELS,
            _ if path.starts_with(streams::PREFIX) => &STREAMS,
            _ => passing::door(path).ok_or(Trouble::PathUnknown)?,
        },
    };
    if door.methods.contains(&method) { Ok(door) } else { Err(Trouble::Method { allowed: door.allowed }) }
}

/// Whether `id` can be a model's. It goes upstream as it is, under our own key, so nothing that
/// somebody on the way could read as a path (`..\files`, `..%2Ffiles`) may hide in it.
fn is_model_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'@');
    !matches!(id, "" | "." | "..") && id.bytes().all(plain)
}

/// What becomes of a connection, or of an HTTP/2 stream, after a request.
#[derive(Debug)]
pub(crate) enum After {
    /// The next request may come.
    KeepAlive,
    /// It closes once the client has read what was written.
    Close,
    /// It is broken off.
    Abort,
    /// There was no request: the client begins to speak HTTP/2.
    Http2,
    /// It has become a WebSocket.
    Socket(Box<Opened>),
}

/// One request, from the silence before it to what becomes of the connection.
pub(crate) async fn one(plane: &Arc<Plane>, conn: &mut ServerStream, peer: &Peer) -> After {
    let house = &*plane.house;
    let (clock, clocks) = (house.clock, &house.settings.clocks);
    let came = tokio::select! {
        biased;
        came = clock.within(clocks.client_idle, conn.wait_byte()) => came,
        () = house.drain_begun() => return After::Close,
    };
    if came.is_none() {
        house.metrics.clock_expired("client_idle");
    }
    if !matches!(came, Some(Ok(true))) {
        return After::Close;
    }
    let head = match clock.within(clocks.client_head, conn.read_head()).await {
        Some(Ok(head)) => head,
        Some(Err(HeadEnd::Bad(e))) => return refuse(plane, conn, &Trouble::Head(e)).await,
        Some(Err(HeadEnd::Http2)) => return After::Http2,
        Some(Err(HeadEnd::Closed | HeadEnd::Body(_) | HeadEnd::Io(_))) => return After::Abort,
        None => {
            house.metrics.clock_expired("client_head");
            return refuse(plane, conn, &Trouble::HeadSlow).await;
        }
    };
    // From here on the request is served under the settings of this moment, whatever they become.
    let plane = &plane.now();
    match route(head.method(), head.path()) {
        Ok(door) if door.ours == Some(Ours::Socket) => Box::pin(open(plane, conn, &head, peer)).await,
        Ok(door) if door.ours == Some(Ours::Upstream) && !plane.house.settings.pass_through.enabled => {
            refuse(plane, conn, &Trouble::PathUnknown).await
        }
        Ok(door) if *door == ROOT => root(plane, conn, &head).await,
        // Boxed: an idle connection should not hold the room a request needs.
        Ok(door) => {
            Box::pin(path::serve(plane, conn, &head, door, peer, path::Named { ids: plane.new_ids(), hosted: None }))
                .await
        }
        Err(trouble) => refuse(plane, conn, &trouble).await,
    }
}

/// Says that somebody is here: what a health check of a load balancer asks for.
async fn root(plane: &Plane, conn: &mut ServerStream, head: &RequestHead) -> After {
    const HERE: &[u8] = b"{\"service\":\"tidegate\"}\n";
    let house = &*plane.house;
    let keep = head.keeps_alive() && conn.body_read() && !house.is_leaving();
    let (id, _): (RequestId, _) = plane.new_ids();
    conn.respond(200, Some(HERE.len() as u64), !keep, |lines| {
        lines.header("content-type", b"application/json");
        own_lines(lines, id, None);
    });
    conn.push(HERE);
    conn.end();
    match house.clock.within(house.settings.clocks.client_write_stall, conn.flush()).await {
        Some(Ok(())) if keep => After::KeepAlive,
        Some(Ok(())) => After::Close,
        _ => After::Abort,
    }
}

/// Refuses what has not become a request.
pub(crate) async fn refuse(plane: &Plane, conn: &mut ServerStream, trouble: &Trouble) -> After {
    let house = &*plane.house;
    let row = answer(trouble);
    let (id, _): (RequestId, _) = plane.new_ids();
    let body = row.body.envelope(Some(id.as_str()));
    house.metrics.refused(row.code);
    conn.respond(row.status, Some(body.len() as u64), true, |head| {
        row.lines(head);
        own_lines(head, id, None);
    });
    conn.push(&body);
    conn.end();
    After::Close
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_somewhere_or_is_refused_by_name() {
        let check = |m: &str, p: &str| route(m, p).map(|d| d.name);
        assert_eq!(check("POST", "/v1/messages").unwrap(), "messages");
        assert_eq!(check("GET", "/v1/models/claude-opus-5-5").unwrap(), "models");
        assert_eq!(check("HEAD", "/").unwrap(), "root");
        assert_eq!(check("DELETE", "/v1/conversations/a%2Fb").unwrap(), "conversation");
        assert_eq!(check("DELETE", "/v1/streams/str_1").unwrap(), "streams");
        assert!(matches!(check("PUT", "/v1/conversations"), Err(Trouble::Method { allowed: "GET, POST, DELETE" })));
        assert!(matches!(check("GET", "/v1/conversations/a/fork"), Err(Trouble::Method { allowed: "POST" })));
        assert!(matches!(check("GET", "/v1/messages"), Err(Trouble::Method { allowed: "POST" })));
        assert!(matches!(check("post", "/v1/messages"), Err(Trouble::Method { .. })));
        for path in [
            "/v1/messages/",
            "/v1/models/a/b",
            "/v1/models/",
            "/v1/models/..",
            "/v1/models/a%2Fb",
            "/v1/conversations/",
            "/v1/conversations/a/b",
            "//v1/messages",
            "*",
        ] {
            assert!(matches!(check("POST", path), Err(Trouble::PathUnknown)), "{path}");
        }
    }
}
