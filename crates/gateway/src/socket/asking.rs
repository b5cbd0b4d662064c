//! A request of a socket becomes what it would be over HTTP: a head, a leased body, a hosted stream.

use super::open::{Opened, request};
use crate::answer::Trouble;
use crate::decode::Body;
use crate::door::MESSAGES;
use crate::plane::Plane;
use crate::streams::{self, Hosting, Reader};
use bytes::Bytes;
use std::sync::Arc;
use tidegate_wire::http::Headers;
use tidegate_wire::request::MessagesRequest;

/// The API's version for a client that names none: the only one there is.
const VERSION: &str = "2023-06-01";

/// Begins a stream for `body`, the body of a Messages request, with the header lines `headers`.
pub(super) fn ask(plane: &Arc<Plane>, opened: &Opened, body: &[u8], headers: &Headers) -> Result<Reader, Trouble> {
    let plane = &plane.now();
    let house = &plane.house;
    if house.is_leaving() {
        return Err(Trouble::Draining);
    }
    let limit = house.settings.limits.body_bytes;
    if body.len() as u64 > limit {
        return Err(Trouble::BodyTooLarge { limit });
    }
    let mut lease = house.bodies.lease(body.len() as u64).ok_or(Trouble::BodyBudget)?;
    let read = MessagesRequest::read(body).map_err(Trouble::Body)?;
    let bytes = Bytes::copy_from_slice(body);
    let bytes = if read.stream { bytes } else { read.with_stream(&bytes) };
    if !lease.resize(bytes.len() as u64) {
        return Err(Trouble::BodyBudget);
    }
    let version = (!headers.has("anthropic-version")).then_some(("anthropic-version", VERSION));
    let text = |(name, value)| Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?));
    let head = request(&opened.pass, headers.iter().filter_map(text).chain(version))?;
    let class = streams::class(headers.text("tidegate-resume").unwrap_or("off"))?;
    streams::host(
        plane,
        Hosting {
            head,
            door: &MESSAGES,
            peer: opened.pass.peer.clone(),
            body: Body { bytes, lease },
            owner: opened.owner.clone(),
            class,
        },
    )
}
