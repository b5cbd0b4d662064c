//! Phase 8, exchange: the request to the upstream, and the head of its answer.
//!
//! What is passed on: every header line but the connection's own, the client's credential, cookies
//! and our own `tidegate-*`; the body byte for byte. What comes back is sorted into an answer to
//! relay, a refusal that concerns the request itself (passed on as it came), and a failure, which
//! may be tried again. What the head says of the quota goes to the scheduler before anything else.

use crate::admit::LeaseGuard;
use crate::ask::levels;
use crate::decode::Body;
use crate::failure::Failure;
use crate::house::House;
use crate::identify::credential_line;
use crate::plane::Plane;
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use tidegate_observe::{LiveRequest, Phase};
use tidegate_schedule::{Cause, Throttle};
use tidegate_transport::ClientError;
use tidegate_upstream::{
    Exchange, ExchangeClocks, ExchangeError, Outgoing, ProbeClocks, Stage, Transport, Upload, Veil,
};
use tidegate_wire::blame::{Blame, blame};
use tidegate_wire::error::{ErrorBody, ErrorType};
use tidegate_wire::foreign;
use tidegate_wire::http::{HeadWriter, RequestHead, ResponseHead, is_hop_by_hop};
use tidegate_wire::ratelimit::{RateLimits, retry_after};
use tidegate_wire::raw::RawObject;
use tidegate_wire::replay;
use tidegate_wire::request::with_model;

/// Header lines that are about this hop, or that the gateway writes itself.
const DROPPED: [&str; 8] =
    ["host", "content-length", "content-encoding", "cookie", "accept-encoding", "expect", "authorization", "x-api-key"];

/// Header lines that ask for less than the whole of an answer.
const CONDITIONS: [&str; 6] =
    ["if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "range"];

/// The most bytes of an upstream's error body that are read.
const ERROR_BYTES_MAX: usize = 256 * 1024;

/// How an exchange came out.
pub(crate) enum Sent {
    /// The answer is there to be relayed.
    Answer(Box<Exchange>),
    /// The upstream refused this very request; the client should see it as it is.
    Said { head: ResponseHead, body: Bytes },
    /// So it did, but not in the API's envelope: what could be read of it is of use, or only its status.
    Mute { status: u16, said: Option<ErrorBody> },
}

/// What is sent, the same for every attempt.
pub(crate) struct Request<'a> {
    pub(crate) head: &'a RequestHead,
    /// Given up once the answer's content is passed on: from then on nothing is sent again.
    pub(crate) body: Option<Body>,
    /// A body that comes while it goes out, in its place.
    pub(crate) upload: Option<Arc<Upload>>,
    /// It is passed on as it came, its coding included.
    pub(crate) raw: bool,
    /// Whether a stream was asked for upstream.
    pub(crate) streams: bool,
    /// Whether it asks for fast mode.
    pub(crate) fast: bool,
    /// Whether its client's credential is the upstream's, and goes there.
    pub(crate) own_credential: bool,
    /// The model it asks for, if it is about one.
    pub(crate) model: &'a str,
}

impl Request<'_> {
    /// The header lines; another Tidegate is told the band that was asked for.
    fn lines(&self, out: &mut HeadWriter<'_>, to_tidegate: bool, sets: impl Fn(&[u8]) -> bool) {
        let headers = &self.head.headers;
        // Of a client's own credentials the one that was chosen goes on, and no other.
        if let Some((name, value)) = credential_line(headers).filter(|_| self.own_credential) {
            out.header(name, value);
        }
        let coded = self.raw && headers.has("content-encoding");
        for (name, value) in headers.iter() {
            let ours = name.len() > 9 && name[..9].eq_ignore_ascii_case(b"tidegate-");
            let ours = ours && !(to_tidegate && name.eq_ignore_ascii_case(b"tidegate-priority"));
            let is_of = |lines: &[&str]| lines.iter().any(|line| line.as_bytes().eq_ignore_ascii_case(name));
            let drops = is_of(&DROPPED) && !(coded && name.eq_ignore_ascii_case(b"content-encoding"));
            // What is read whole is wanted whole.
            let asks_part = !self.raw && matches!(name.first(), Some(b'i' | b'I' | b'r' | b'R')) && is_of(&CONDITIONS);
            let kept = !ours && !drops && !asks_part && !is_hop_by_hop(name) && !sets(name);
            if kept && !headers.lists("connection", name) {
                out.header(name, value);
            }
        }
        out.header("accept-encoding", b"identity");
    }

    fn clocks(&self, house: &House, to_tidegate: bool) -> ExchangeClocks {
        let clocks = &house.settings.clocks;
        let large = self.body.as_ref().is_some_and(|b| b.bytes.len() as u64 >= house.settings.limits.large_body_bytes);
        // Another Tidegate has this very clock, and tries again when it runs out: it is given the time.
        let first_byte = if large || to_tidegate { clocks.first_byte_large } else { clocks.first_byte };
        ExchangeClocks {
            upload_stall: clocks.upload_stall,
            first_byte: self.streams.then_some(first_byte),
            probe: ProbeClocks { after: clocks.probe, answer: clocks.probe_answer },
        }
    }
}

/// The phase.
pub(crate) async fn exchange(
    plane: &Plane,
    lease: &LeaseGuard,
    request: &Request<'_>,
    live: &LiveRequest,
) -> Result<Sent, Box<Failure>> {
    let house = &plane.house;
    let to_tidegate = house.transport(lease.lane()) == Transport::Tidegate;
    let lines = |out: &mut HeadWriter<'_>| request.lines(out, to_tidegate, |name| house.lane_sets(lease.lane(), name));
    let body = request.body.as_ref().map(|body| match house.their_model(lease.lane(), request.model) {
        Some(theirs) => with_model(&body.bytes, theirs).unwrap_or_else(|| body.bytes.clone()),
        None => body.bytes.clone(),
    });
    let outgoing = Outgoing {
        method: request.head.method(),
        target: request.head.path_and_query(),
        body,
        upload: request.upload.as_deref(),
        is_stream: request.streams,
        lines: &lines,
        clocks: request.clocks(house, to_tidegate),
    };
    live.enter(Phase::Exchange);
    let told = |stage| {
        if stage == Stage::Sent {
            live.enter(Phase::FirstByte);
            lease.sent();
        }
    };
    let lane = house.lane_index(lease.lane());
    let exchange = plane.pool.exchange(lane, &outgoing, told).await.map_err(not_sent)?;
    live.byte_came(house.clock.now());
    let headers = &exchange.head.headers;
    lease.heard(&levels(&RateLimits::read(headers, request.fast)), headers.text("anthropic-organization-id"));
    if let Some(id) = exchange.head.headers.text("request-id") {
        live.upstream_answered(id);
    }
    match exchange.head.status {
        200..=299 => answered(house, request, exchange).await,
        // To a client that has it already and asked whether it is still so.
        304 if request.raw => Ok(Sent::Answer(Box::new(exchange))),
        _ => refused(house, request, exchange).await,
    }
}

fn not_sent(error: ExchangeError) -> Box<Failure> {
    let cause = match &error {
        ExchangeError::Dial(_) => Cause::Connect,
        ExchangeError::FirstByte => Cause::FirstByte,
        ExchangeError::UploadStall | ExchangeError::Dead | ExchangeError::Broken(_) => Cause::Broken,
    };
    let is_final = matches!(error, ExchangeError::Broken(ClientError::Unwritable));
    Box::new(Failure { clock: error.clock(), is_final, ..Failure::new(cause, error.to_string()) })
}

async fn answered(house: &House, request: &Request<'_>, mut exchange: Exchange) -> Result<Sent, Box<Failure>> {
    let headers = &exchange.head.headers;
    let coded = headers.get("content-encoding").is_some_and(|c| !c.eq_ignore_ascii_case(b"identity"));
    let is_stream = is_of(&exchange.head, "text/event-stream");
    if coded {
        let failure = Failure::new(Cause::BadStream, "the upstream compressed an answer it was asked to send plain");
        return Err(Box::new(failure.telling("the upstream compressed its answer although it was asked not to")));
    }
    if request.streams && !is_stream {
        // Perhaps it says why.
        let body = match read_whole(house, &mut exchange).await {
            Ok(body) => body,
            Err(limit) => {
                let failure = Failure::new(Cause::BadStream, format!("no stream, and over {limit} bytes"));
                let failure = failure.telling("the upstream answered a stream with one message, which is too large");
                return Err(Box::new(Failure { is_final: true, ..failure }));
            }
        };
        if let Some(events) = whole_message(&body) {
            return Ok(Sent::Answer(Box::new(exchange.streaming(events, house.clock.now()))));
        }
        if is_error(&body) {
            let veil = exchange.veil().clone();
            return judged(house, request, &veil, exchange.take_head(), body);
        }
        let failure =
            Failure::new(Cause::BadStream, "the upstream answered 200 to a stream with something that is none");
        return Err(Box::new(failure.telling("the upstream answered with something that is not an event stream")));
    }
    Ok(Sent::Answer(Box::new(exchange)))
}

/// Reads what came in place of a stream: as much as a message may have, if it says that it is JSON. What
/// breaks off is nothing. An error is the limit that it is beyond: asked again, it would be so again.
async fn read_whole(house: &House, exchange: &mut Exchange) -> Result<Bytes, u64> {
    let is_json = is_of(&exchange.head, "application/json");
    let limit = if is_json { house.settings.limits.answer_bytes } else { ERROR_BYTES_MAX as u64 };
    let (mut body, mut bytes) = (BytesMut::new(), house.backlogs.empty_lease());
    loop {
        let read = poll_fn(|cx| exchange.poll_body(cx, &mut |piece| body.extend_from_slice(piece)));
        let read = house.clock.within(house.settings.clocks.gap, read).await;
        let length = body.len() as u64;
        if length > limit || !bytes.resize(length) {
            return if is_json { Err(limit.min(length)) } else { Ok(Bytes::new()) };
        }
        match read {
            Some(Ok(false)) => {}
            Some(Ok(true)) => return Ok(covered_body(exchange.veil(), body.freeze())),
            Some(Err(_)) | None => return Ok(Bytes::new()),
        }
    }
}

/// Whether an answer's body is of this type, which is written in small letters.
pub(crate) fn is_of(head: &ResponseHead, kind: &str) -> bool {
    let told = head.headers.text("content-type").unwrap_or_default();
    told.split(';').next().is_some_and(|told| told.trim().eq_ignore_ascii_case(kind))
}

/// The events of a message that came whole although a stream was asked for: an endpoint that knows no
/// streams has done all its work, and asked again it would do it again.
fn whole_message(body: &[u8]) -> Option<Bytes> {
    RawObject::read(body).ok().filter(|object| object.is("type", "message"))?;
    replay::events(body).map(Bytes::from)
}

/// Whether an answer whose status says that all is well is an error.
pub(crate) fn is_error(body: &[u8]) -> bool {
    ErrorBody::read(body).is_some() || foreign::read(200, body).is_some()
}

async fn refused(house: &House, request: &Request<'_>, mut exchange: Exchange) -> Result<Sent, Box<Failure>> {
    let (head, veil) = (exchange.head.clone(), exchange.veil().clone());
    let reading = exchange.read_body(ERROR_BYTES_MAX);
    let body = match house.clock.within(house.settings.clocks.gap, reading).await {
        Some(Ok(body)) => {
            exchange.finish(house.clock.now());
            body
        }
        // The status is known; that its explanation broke off or never ends does not matter.
        Some(Err(ClientError::Body(_) | ClientError::Io(_) | ClientError::Reset(_))) | None => Bytes::new(),
        Some(Err(e)) => return Err(Box::new(Failure::new(Cause::Broken, e.to_string()))),
    };
    judged(house, request, &veil, head, body)
}

/// What was said, without the secrets in it.
pub(crate) fn covered(veil: &Veil, said: ErrorBody) -> ErrorBody {
    let is_cut = said.message.chars().count() == foreign::MESSAGE_CHARS_MAX;
    let message = if is_cut { veil.cut_text(&said.message) } else { veil.text(&said.message).into_owned() };
    // Its type and its code are told from what is known of them.
    ErrorBody { message: message.into(), ..said }
}

/// A whole answer without the secrets in it; of a message's content every word is the model's.
pub(crate) fn covered_body(veil: &Veil, body: Bytes) -> Bytes {
    let Cow::Owned(mut covered) = veil.bytes(&body) else { return body };
    let message = RawObject::read(&body).ok().filter(|object| object.is("type", "message"));
    if let Some(content) = message.and_then(|message| message.place("content", &body)) {
        // Nothing has moved.
        covered[content.clone()].copy_from_slice(&body[content]);
    }
    covered.into()
}

/// What a refusal is: about the request, or a failure. It may stand in an answer whose status says
/// that all is well.
pub(crate) fn judged(
    house: &House,
    request: &Request<'_>,
    veil: &Veil,
    head: ResponseHead,
    body: Bytes,
) -> Result<Sent, Box<Failure>> {
    let envelope = ErrorBody::read(&body);
    let foreign = envelope.is_none().then(|| foreign::read(head.status, &body)).flatten();
    let status = match (&envelope, &foreign) {
        (_, Some(foreign)) => foreign.status,
        (Some(envelope), _) if head.status < 400 => {
            ErrorType::of_name(&envelope.kind).unwrap_or(ErrorType::Api).status()
        }
        _ => head.status,
    };
    let is_raw = envelope.is_some() && head.status >= 400;
    let envelope = envelope.or(foreign.map(|foreign| foreign.said)).map(|said| covered(veil, said));
    let Some(blamed) = blame(status, envelope.as_ref()) else {
        let failure = Failure::new(Cause::BadStream, format!("unexpected status {}", head.status));
        return Err(Box::new(match status {
            // A key goes where the configuration says, and nowhere that an answer says.
            300..=399 => failure.telling("the upstream answered with a redirect, which is not followed"),
            _ => failure.telling("the upstream answered with a status that is none of the API's"),
        }));
    };
    // A key and money that are the client's own are its own business; but a 429 is nobody's.
    let told = request.own_credential && matches!(blamed, Blame::Key | Blame::SpendCap) && status != 429;
    let blamed = if told { Blame::Request } else { blamed };
    let failure = Failure::blaming_own(blamed, request.own_credential, format!("status {}", head.status));
    let Some(failure) = failure else {
        return Ok(if is_raw { Sent::Said { head, body } } else { Sent::Mute { status, said: envelope } });
    };
    // What one organisation will not do for long, another may.
    let elsewhere = matches!(blamed, Blame::Key | Blame::SpendCap);
    let left = RateLimits::read(&head.headers, request.fast).input_tokens;
    let input_left = left.remaining.zip(left.limit).filter(|_| failure.by == Throttle::InputTokens);
    Err(Box::new(Failure {
        input_left,
        status: Some(status),
        retry_after: retry_after(&head.headers, house.clock.wall()),
        is_final: failure.is_final
            || !elsewhere && head.headers.text("x-should-retry").is_some_and(|v| v.trim() == "false"),
        envelope,
        ..failure
    }))
}
