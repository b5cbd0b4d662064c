//! `tidegate.v1` from a client's side: what a peer says about each stream, and what it is told.

use super::inbox::{CREDIT, Fate, Inbox};
use super::link::Shared;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::SocketEnd;
use tidegate_transport::websocket::Socket;
use tidegate_wire::dialect::tidegate_v1::{ClientFrame, Create, Failed, ServerFrame};
use tidegate_wire::http::{Framing, Headers, ResponseHead, Version};

/// The longest wait that is believed: the longest a Tidegate lets anybody wait unless it is told to.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// The frames of one socket.
#[derive(Default)]
pub(super) struct Many {
    text: Vec<u8>,
}

/// A head as it would have come over HTTP.
pub(super) fn head<'l>(status: u16, lines: impl IntoIterator<Item = (&'l str, &'l str)>) -> ResponseHead {
    let headers = Headers::from_pairs(lines);
    ResponseHead { status, version: Version::Http11, headers, framing: Framing::Chunked }
}

impl Many {
    fn say(&mut self, socket: &mut Socket, frame: &ClientFrame<'_>) {
        self.text.clear();
        frame.write(&mut self.text);
        socket.send(&self.text);
        if self.text.capacity() > 16 * 1024 {
            self.text = Vec::new();
        }
    }

    pub(super) fn create(&mut self, socket: &mut Socket, key: u64, body: &[u8], headers: &Headers) {
        // Both were looked at before it was asked for.
        let request = std::str::from_utf8(body).unwrap_or("{}");
        if let Ok(mut create) = Create::of_http(&key.to_string(), request, headers) {
            create.credit = Some(CREDIT);
            self.say(socket, &ClientFrame::Create(Box::new(create)));
        }
    }

    pub(super) fn cancel(&mut self, socket: &mut Socket, key: u64) {
        self.say(socket, &ClientFrame::Cancel { id: key.to_string().into() });
    }

    pub(super) fn grant(&mut self, socket: &mut Socket, key: u64, bytes: u64) {
        self.say(socket, &ClientFrame::Credit { id: key.to_string().into(), bytes });
    }

    /// Takes a frame in. An error is about the socket; what is wrong with one stream ends that.
    pub(super) fn hear(&mut self, shared: &Shared, text: &str, now: Moment) -> Result<(), &'static str> {
        let Some(frame) = ServerFrame::read(text).map_err(|e| e.0)? else { return Ok(()) };
        match frame {
            ServerFrame::Wait { id, expected_ms, .. } => {
                let expected = Duration::from_millis(expected_ms.unwrap_or(0)).min(WAIT_MAX);
                with(shared, &id, |_, inbox| inbox.waits(now + expected));
            }
            ServerFrame::Open { id, headers, .. } => with(shared, &id, |_, inbox| inbox.opens(opened(&headers))),
            ServerFrame::Event { id, first_seq, seq, event, .. } => with(shared, &id, |key, inbox| {
                if let Err(why) = inbox.event(first_seq, seq, event) {
                    broken(shared, key, why);
                }
            }),
            // Nobody asked for that, and what comes after it may contradict what came before.
            ServerFrame::Recovered { id, .. } => {
                with(shared, &id, |key, _| broken(shared, key, "mended a stream unasked"));
            }
            ServerFrame::End { id, .. } => with(shared, &id, |key, _| shared.ended(key, Fate::Whole)),
            ServerFrame::Error(failed) => {
                if let Some(id) = &failed.id {
                    with(shared, id, |key, inbox| fail(shared, key, inbox, &failed));
                }
            }
        }
        Ok(())
    }
}

/// Does something with the stream called `id`. One that is over here may be spoken of a while longer.
fn with(shared: &Shared, id: &str, what: impl FnOnce(u64, &Arc<Inbox>)) {
    let Some(key) = id.parse::<u64>().ok() else { return };
    if let Some(inbox) = shared.inbox(key) {
        shared.proves();
        what(key, &inbox);
    }
}

fn broken(shared: &Shared, key: u64, why: &'static str) {
    shared.ended(key, Fate::Over(SocketEnd::Broken(why)));
    shared.desk().cancels.push(key);
}

/// The answer's head: what came, and what a WebSocket has no need to say.
fn opened(headers: &[(Cow<'_, str>, Cow<'_, str>)]) -> ResponseHead {
    let own = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")];
    let framing = ["content-type", "cache-control", "content-length", "transfer-encoding", "content-encoding"];
    let came = headers.iter().map(|(name, value)| (&**name, &**value));
    let came = came.filter(|(name, value)| !framing.contains(name) && !value.contains(['\r', '\n', '\0']));
    head(200, own.into_iter().chain(came))
}

/// A stream is over and not whole, or never began.
fn fail(shared: &Shared, key: u64, inbox: &Inbox, failed: &Failed<'_>) {
    // What has no request id was refused before it became a request.
    let never_began = failed.request_id.is_none() && !inbox.is_open();
    match failed.error.code.as_deref() {
        Some("draining") if never_began => {
            shared.retire();
            return shared.ended(key, Fate::Unsent);
        }
        Some("too_many_streams") if never_began => shared.is_full(),
        _ => {}
    }
    let request_id = failed.request_id.as_deref();
    let envelope = failed.error.envelope(request_id);
    if inbox.is_open() {
        inbox.push(b"event: error\ndata: ");
        inbox.push(&envelope);
        inbox.push(b"\n\n");
        return shared.ended(key, Fate::Whole);
    }
    let retry_after = failed.retry_after_s.map(|s| s.to_string());
    let should_retry = failed.should_retry.map(|yes| if yes { "true" } else { "false" });
    let lines = [
        Some(("content-type", "application/json")),
        request_id.map(|id| ("request-id", id)),
        retry_after.as_deref().map(|s| ("retry-after", s)),
        should_retry.map(|yes| ("x-should-retry", yes)),
    ];
    inbox.opens(head(failed.status, lines.into_iter().flatten()));
    inbox.push(&envelope);
    shared.ended(key, Fate::Whole);
}
