//! What a lane of WebSockets is asked, of a request made for HTTP.
//!
//! To another Tidegate a stream goes as a frame, if a frame can say all of it: no query, a body and
//! header values of text. Everything else goes over HTTP to the same host, where nothing is lost. In
//! the simple dialect there is no other way: what it has no words for was refused before it came here.

use super::Outgoing;
use crate::lane::{Lane, Transport};
use crate::socket::Ask;
use bytes::Bytes;
use http::HeaderMap;
use std::sync::Arc;
use tidegate_transport::ClientError;
use tidegate_wire::dialect::simple::Prompt;
use tidegate_wire::dialect::tidegate_v1::Create;
use tidegate_wire::http::{HeadWriter, Headers};

/// The only door that a WebSocket stands for.
const MESSAGES: &str = "/v1/messages";

/// The frame that asks the same; `None` if it goes over HTTP.
pub(super) fn ask(lane: &Lane, request: &Outgoing<'_>) -> Result<Option<Ask>, ClientError> {
    let body = request.body.as_ref().filter(|_| request.is_stream && request.method == "POST");
    match lane.transport() {
        Transport::Http => Ok(None),
        Transport::Tidegate => Ok(body.filter(|_| request.target == MESSAGES).and_then(|body| create(body, request))),
        Transport::Prompt => body.and_then(prompt).map(Some).ok_or(ClientError::Unwritable),
    }
}

fn create(body: &Bytes, request: &Outgoing<'_>) -> Option<Ask> {
    let mut fields = HeaderMap::with_capacity(32);
    (request.lines)(&mut HeadWriter::fields(&mut fields));
    let headers = Headers::from_pairs(fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    let text = std::str::from_utf8(body).ok()?;
    Create::of_http("1", text, &headers).ok()?;
    Some(Ask::Create { body: body.clone(), headers: Arc::new(headers) })
}

fn prompt(body: &Bytes) -> Option<Ask> {
    let prompt = Prompt::of_request(body).ok()?;
    let mut text = Vec::with_capacity(body.len() + 64);
    prompt.write(&mut text);
    Some(Ask::Prompt { text: text.into(), model: prompt.model.as_deref().unwrap_or_default().into() })
}
