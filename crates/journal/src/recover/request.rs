//! The request that asks a model to go on.
//!
//! Up to generation 4.5 the last message may be the assistant's: what the client has is put there,
//! without the white space it ends in, which the API refuses. Later models, and those that think,
//! get it as the assistant's turn and are asked to go on in a user turn, in the documented words.
//! Thinking stays out: its signature belongs to the reply that is dead. What was said is taken off
//! `max_tokens`, so that the whole is no longer than was asked for.

use crate::recover::Unmendable;
use crate::recover::has::Has;
use crate::recover::seam::last_chars;
use bytes::Bytes;
use serde_json::{Value, json};
use tidegate_wire::models::takes_prefill;
use tidegate_wire::raw::RawObject;
use tidegate_wire::request::MessagesRequest;

/// How much of the end a user turn quotes, characters.
const QUOTED_CHARS_MAX: usize = 2_000;

/// Whether `body` asks for a prefill, not a user turn.
fn prefills(request: &MessagesRequest, object: &RawObject<'_>) -> bool {
    let thinking: Option<RawObject<'_>> = object.parse("thinking");
    takes_prefill(&request.model) && thinking.is_none_or(|thinking| thinking.is("type", "disabled"))
}

/// The request, and whether the model is shown the text without the white space it ends in.
pub(super) fn continuation(
    body: &[u8],
    request: &MessagesRequest,
    has: &Has,
    said_tokens: u64,
) -> Result<(Bytes, bool), Unmendable> {
    let object = RawObject::read(body).map_err(|_| Unmendable::Request)?;
    let config: Option<RawObject<'_>> = object.parse("output_config");
    let formatted =
        object.get("output_format").is_some() || config.is_some_and(|config| config.get("format").is_some());
    if formatted || request.parts.thread.is_some() {
        return Err(Unmendable::Request);
    }
    let prefills = prefills(request, &object);
    let mut texts: Vec<&str> = has.texts.iter().map(|text| text.text.as_str()).collect();
    texts.retain(|text| !text.trim().is_empty());
    let last = texts.pop().ok_or(Unmendable::Request)?;
    let shown = if prefills { last.trim_end() } else { last };
    texts.push(shown);
    let content: Vec<Value> = texts.into_iter().map(|text| json!({"type": "text", "text": text})).collect();
    let mut added = json!({"role": "assistant", "content": content}).to_string();
    if !prefills {
        let end = last_chars(last, QUOTED_CHARS_MAX);
        let ask =
            format!("Your previous response was interrupted and ended with {end}. Continue from where you left off.");
        added = format!("{added},{}", json!({"role": "user", "content": ask}));
    }
    let messages = request.parts.messages.clone().and_then(|at| body.get(at)).ok_or(Unmendable::Request)?;
    let open = messages.strip_suffix(b"]").ok_or(Unmendable::Request)?;
    let messages = [open, b",", added.as_bytes(), b"]"].concat();
    let body = request.with_messages(body, &messages).ok_or(Unmendable::Request)?;
    Ok((with_fewer_tokens(&body, request.max_tokens, said_tokens), prefills))
}

/// The same body, asking for `said` tokens less; for one at least.
fn with_fewer_tokens(body: &Bytes, max_tokens: Option<u64>, said: u64) -> Bytes {
    let at = RawObject::read(body).ok().and_then(|object| object.place("max_tokens", body));
    match (max_tokens, at) {
        (Some(most), Some(at)) => {
            let left = most.saturating_sub(said).max(1).to_string();
            Bytes::from([&body[..at.start], left.as_bytes(), &body[at.end..]].concat())
        }
        _ => body.clone(),
    }
}
