//! Phases 8 and 9, exchange and relay, once, over one lease; and what that means for the lease.

use crate::admit::LeaseGuard;
use crate::answer::Trouble;
use crate::endpoint::Endpoint;
use crate::exchange::{Sent, covered_body, exchange, is_error, judged};
use crate::failure::Failure;
use crate::house::House;
use crate::memory::Heard;
use crate::passing;
use crate::plan::Plan;
use crate::plane::Plane;
use crate::relay::{Relay, RelayParts, Relayed};
use crate::reply::{Interrupt, Reply, UNCOUNTED_BYTES};
use crate::settle::{Account, End};
use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::time::{Duration, UNIX_EPOCH};
use tidegate_base::to_next_month;
use tidegate_journal::recover::Action;
use tidegate_observe::Phase;
use tidegate_schedule::{Cause, Outcome, Spent, Throttle};
use tidegate_upstream::Exchange;
use tidegate_wire::error::ErrorBody;
use tidegate_wire::http::ResponseHead;
use tidegate_wire::raw::RawObject;
use tidegate_wire::usage::Usage;

/// Why a request ends without an answer.
pub(crate) enum Stop {
    /// The client is told why.
    Trouble(Trouble),
    /// There is nobody to tell, or nothing more to tell.
    Interrupt(Interrupt),
}

impl From<Interrupt> for Stop {
    fn from(interrupt: Interrupt) -> Self {
        Stop::Interrupt(interrupt)
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Stop::Trouble(trouble)
    }
}

/// How one attempt came out.
pub(crate) enum Attempt {
    Ended {
        end: End,
        /// What the model used, if it answered and said so.
        spent: Option<Spent>,
        /// The answer, where its turn has to be kept before the client gets the rest of it.
        heard: Option<Box<Heard>>,
    },
    /// What the request refers to is not where it was looked for, and there is another place.
    NotThere,
    Failed(Failed),
}

pub(crate) struct Failed {
    pub(crate) failure: Box<Failure>,
    /// Whether the model had begun to answer, passed on or not.
    pub(crate) content_seen: bool,
    /// What can be done about an answer that broke off, if it may be mended.
    pub(crate) cut: Option<Action>,
    /// It is not to be asked for again, although another attempt might do.
    pub(crate) once: bool,
}

impl Failed {
    /// A failure of which no client can have seen anything.
    pub(crate) fn before_content(failure: Box<Failure>) -> Self {
        Failed { failure, content_seen: false, cut: None, once: false }
    }

    /// One that cannot be mended.
    fn inside(failure: Failure) -> Self {
        Failed { failure: Box::new(failure), content_seen: true, cut: None, once: false }
    }
}

/// What an attempt means for its lease.
pub(crate) fn outcome(house: &House, lease: &LeaseGuard, attempt: &Result<Attempt, Stop>) -> Outcome {
    let failed = match attempt {
        Ok(Attempt::Ended { end: End::Answered, spent, .. }) => return Outcome::Answered(*spent),
        Ok(Attempt::Ended { .. } | Attempt::NotThere) => return Outcome::Rejected,
        Err(_) if lease.was_sent() => return Outcome::Failed,
        Err(_) => return Outcome::NotSent,
        Ok(Attempt::Failed(failed)) => &failed.failure,
    };
    match (failed.cause, failed.by) {
        // What is the matter with a client's own credential changes without a word to us.
        _ if failed.is_own => Outcome::Failed,
        (Cause::Throttled, by @ Throttle::SpendCap) => {
            let wall = house.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let month = Duration::from_secs(to_next_month(wall));
            Outcome::Throttled { by, retry_after: Some(house.settings.clocks.spend_cap.min(month)) }
        }
        // That says something of the request and nothing of the limit.
        (Cause::Throttled, _) if failed.larger_than_thought(lease.input()).is_some() => Outcome::NotSent,
        (Cause::Throttled, by) => Outcome::Throttled { by, retry_after: failed.closes_for() },
        (Cause::TimedOut | Cause::FirstByte, _) => Outcome::TimedOut,
        (Cause::Overloaded, _) => Outcome::Overloaded { retry_after: failed.retry_after },
        (Cause::KeyRejected, _) => Outcome::KeyRejected { retry_after: house.settings.clocks.key_rejected },
        // An error event that is about the request itself says nothing of the upstream's health.
        _ if failed.status.is_some_and(|s| s < 500) => Outcome::Failed,
        _ => Outcome::Broken,
    }
}

/// The upstream's own refusal of the request is its answer; unless what it refers to may live
/// `elsewhere`, and there is a place left to look.
pub(crate) fn told(
    house: &House,
    reply: &mut Reply<'_>,
    plan: &mut Plan<'_>,
    account: &mut Account,
    (head, body): (&ResponseHead, &Bytes),
    elsewhere: bool,
) -> Result<Attempt, Stop> {
    if elsewhere && looks_on(house, plan)? {
        return Ok(Attempt::NotThere);
    }
    account.first_byte_at.get_or_insert(house.clock.now());
    said(house, reply, plan, head, body);
    Ok(Attempt::Ended { end: End::Said, spent: None, heard: None })
}

/// It was not there: whether there is another place to look.
pub(crate) fn looks_on(house: &House, plan: &mut Plan<'_>) -> Result<bool, Stop> {
    if plan.home.look_on(&house.references) {
        return Ok(true);
    }
    // It may live where nobody could be asked.
    plan.home.unasked().map_or(Ok(false), |refusal| Err(Trouble::Refused(refusal).into()))
}

/// Phases 8 and 9, once.
pub(crate) async fn attempt(
    plane: &Plane,
    reply: &mut Reply<'_>,
    plan: &mut Plan<'_>,
    lease: &LeaseGuard,
    account: &mut Account,
) -> Result<Attempt, Stop> {
    if plan.passing.is_some() {
        return Box::pin(passing::attempt(plane, reply, plan, lease, account)).await;
    }
    let house = &*plane.house;
    let live = reply.live().clone();
    // Boxed: it is over before the answer's first event, and a stream should not hold its room.
    let sent = reply.attend(Box::pin(exchange(plane, lease, &plan.request, &live))).await?;
    let mut answer = match sent {
        Ok(Sent::Answer(answer)) => answer,
        Ok(Sent::Mute { status, said }) => return Err(Trouble::UpstreamRefused { status, said }.into()),
        Ok(Sent::Said { head, body }) => {
            let elsewhere = head.status == 404 && !is_about_a_model(&body);
            return told(house, reply, plan, account, (&head, &body), elsewhere);
        }
        Err(failure) => return Ok(Attempt::Failed(Failed::before_content(failure))),
    };
    account.first_byte_at.get_or_insert(house.clock.now());
    house.class_answered(&plan.classed);
    live.enter(Phase::Relay);
    if !plan.request.streams {
        return pass_whole(plane, reply, plan, lease, *answer, account).await;
    }
    let assembles = plan.assembles();
    let head = answer.take_head();
    let mends = plan.mending.is_some();
    let endpoint = endpoint(house, plan, lease);
    let parts = RelayParts {
        assembles,
        keeps: plan.keeps,
        thinks_unseen: plan.thinks_unseen,
        body: &mut plan.request.body,
        mending: plan.mending.as_deref_mut(),
        said: plan.said.take().filter(|_| mends),
        meter: lease.is_metered().then(|| plane.thread.progress.meter(lease.id())),
        home: plan.home.learns.then_some(&plan.home),
        own_credential: plan.request.own_credential,
        veil: answer.veil().clone(),
        endpoint,
        lease,
    };
    let mut relay = Relay::new(house, &live, head, parts);
    let mut relayed = relay.run(&mut answer, reply).await;
    let mut cut = None;
    if let Ok(Relayed::Failed(failure)) = &relayed
        && !failure.is_final
    {
        cut = relay.cut(reply);
        if cut == Some(Action::Ended) {
            relayed = Ok(Relayed::Whole);
        }
    }
    let used = relay.used();
    account.used(&used, [relay.is_input_estimated(), relay.is_estimated()]);
    account.stop_reason = relay.tap.stop_reason.take();
    account.gaps = std::mem::take(&mut relay.gaps);
    let content_seen = relay.content_seen;
    let failed = |failure| Ok(Attempt::Failed(Failed { failure, content_seen, cut, once: false }));
    if plan.keeps && !matches!(relayed, Ok(Relayed::Whole)) {
        plan.said = relay.take_said();
    }
    match relayed? {
        Relayed::Failed(failure) => failed(failure),
        Relayed::TooLarge(trouble) => Err(trouble.into()),
        Relayed::Whole => {
            // What was only estimated teaches nothing.
            let spent = (!relay.is_input_estimated()).then(|| spent(&used));
            plan.home.found(&house.references, house.place(lease.lane()), relay.tap.message_id.as_deref());
            let mut heard = None;
            if plan.keeps {
                match relay.hear() {
                    Ok(all) => heard = Some(Box::new(all)),
                    Err(failure) => return failed(failure),
                }
            } else if assembles && let Err(failure) = relay.give_assembled(reply) {
                return failed(failure);
            }
            answer.finish(house.clock.now());
            Ok(Attempt::Ended { end: End::Answered, spent, heard })
        }
    }
}

/// What an answer may lack of one of the API's.
fn endpoint(house: &House, plan: &Plan<'_>, lease: &LeaseGuard) -> Endpoint {
    let model = plan.request.model;
    Endpoint::new(model, house.their_model(lease.lane(), model).is_some(), lease.input())
}

/// Whether an answer is of the kind that was asked for.
fn is_asked_for(path: &str, answer: &RawObject<'_>, body: &[u8]) -> bool {
    match path {
        "/v1/messages" => answer.is("type", "message"),
        "/v1/messages/count_tokens" => answer.get("input_tokens").is_some(),
        _ => !is_error(body),
    }
}

/// Whether a 404 says that there is no such model: that is so everywhere, whatever the request
/// refers to.
fn is_about_a_model(body: &[u8]) -> bool {
    ErrorBody::read(body).is_some_and(|e| e.message.starts_with("model:"))
}

/// Usage, as the scheduler reckons with it.
fn spent(usage: &Usage) -> Spent {
    Spent {
        input: usage.input,
        cache_creation: usage.cache_creation,
        cache_read: usage.cache_read,
        output: usage.output,
    }
}

/// Passes a refusal of this very request on as it came.
fn said(house: &House, reply: &mut Reply<'_>, plan: &Plan<'_>, head: &ResponseHead, body: &Bytes) {
    // There will be no such turn.
    reply.turn = None;
    if reply.head_sent() {
        // The true status can no longer be told; its envelope can, inside the stream.
        debug_assert!(plan.client_streams, "only a stream's head is sent early");
        reply.push_error(body);
    } else {
        // At most `ERROR_BYTES_MAX`, and there only until it is written.
        reply.whole(head, &[], &[], body, house.backlogs.empty_lease());
    }
}

/// An answer that is passed on whole: short ones, and everything that is no message.
async fn pass_whole(
    plane: &Plane,
    reply: &mut Reply<'_>,
    plan: &Plan<'_>,
    lease: &LeaseGuard,
    mut answer: Exchange,
    account: &mut Account,
) -> Result<Attempt, Stop> {
    let house = &*plane.house;
    let limit = house.settings.limits.answer_bytes;
    let (mut body, mut bytes) = (BytesMut::new(), house.backlogs.empty_lease());
    lease.began(&Usage::default());
    loop {
        let read = reply.attend(poll_fn(|cx| answer.poll_body(cx, &mut |piece| body.extend_from_slice(piece)))).await?;
        if body.len() as u64 > limit {
            return Err(Trouble::AnswerTooLarge { limit }.into());
        }
        if body.len() > UNCOUNTED_BYTES && !bytes.resize(body.len().next_power_of_two() as u64) {
            return Err(Trouble::BacklogBudget.into());
        }
        match read {
            Ok(false) => {}
            Ok(true) => break,
            Err(e) => {
                let failure = Failure::new(Cause::BadStream, e.to_string());
                return Ok(Attempt::Failed(Failed::inside(failure)));
            }
        }
    }
    let mut spent_here = None;
    let is_message = plan.request.head.path() == "/v1/messages";
    let (mut told, mut estimated) = (None, [false, false]);
    match RawObject::read(&body) {
        Ok(object) if !is_asked_for(plan.request.head.path(), &object, &body) => {
            if is_error(&body) {
                let veil = answer.veil().clone();
                return match judged(house, &plan.request, &veil, answer.take_head(), body.freeze()) {
                    Err(failure) => Ok(Attempt::Failed(Failed::before_content(failure))),
                    Ok(Sent::Mute { status, said }) => Err(Trouble::UpstreamRefused { status, said }.into()),
                    // There is no refusal of the API's with such a status.
                    Ok(_) => Err(Trouble::UpstreamRefused { status: 502, said: None }.into()),
                };
            }
            let failure = Failure::new(Cause::BadStream, "the answer is not what was asked for");
            let failure = failure.telling("the upstream sent an answer that is not what was asked for");
            return Ok(Attempt::Failed(Failed::before_content(Box::new(failure))));
        }
        Ok(object) => {
            if is_message {
                (told, estimated) = endpoint(house, plan, lease).whole(&body, &object);
            }
            let object = told.as_deref().and_then(|told| RawObject::read(told).ok()).unwrap_or(object);
            let mut usage = Usage::default();
            if object.get("usage").is_some_and(|u| usage.update(u.get()).is_some()) {
                account.used(&usage, estimated);
                spent_here = (!estimated[0]).then(|| spent(&usage));
            }
            account.stop_reason = object.parse::<String>("stop_reason").map(Into::into);
            if plan.home.learns {
                let place = house.place(lease.lane());
                plan.home.sees(&house.references, place, &body);
                plan.home.found(&house.references, place, object.parse::<String>("id").as_deref());
            }
        }
        // Every door answers with an object. A client's parser would stumble over anything else (an
        // edge's HTML page with status 200), and nothing was passed on yet.
        Err(_) => {
            let failure = Failure::new(Cause::BadStream, "the answer is not a JSON object");
            let failure = Box::new(failure.telling("the upstream sent an answer that is not a JSON object"));
            return Ok(Attempt::Failed(Failed { failure, content_seen: true, cut: None, once: false }));
        }
    }
    let body = covered_body(answer.veil(), told.map_or_else(|| body.freeze(), Bytes::from));
    let heard = plan.keeps.then(|| {
        let lease = std::mem::replace(&mut bytes, house.backlogs.empty_lease());
        Box::new(Heard::Whole { head: answer.take_head(), assembled: false, message: body.to_vec(), lease })
    });
    if heard.is_none() {
        reply.whole(&answer.head, &[], &[], &body, bytes);
    }
    answer.finish(house.clock.now());
    Ok(Attempt::Ended { end: End::Answered, spent: spent_here, heard })
}
