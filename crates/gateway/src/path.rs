//! The life of a request.
//!
//! | # | phase | where | what it does |
//! |---|---|---|---|
//! | 1 | accept | `door` | a permit, a connection, a head |
//! | 2 | identify | `identify` | credential to tenant; priority; deadline |
//! | 3 | decode | `decode` | counted bytes to a request |
//! | 4 | attach | (to come) | documents to blocks |
//! | 5 | mask | `redaction` | personal data out; of a conversation's turn, in `recall` |
//! | 6 | recall | `memory` | a conversation's window |
//! | 7 | admit | `admit` | a lease on a quota domain |
//! | 8 | exchange | `exchange` | a connection, the request, the answer's head |
//! | 9 | relay | `relay` | the answer, event by event |
//! | 10 | answer | `answer` | what went wrong, as the client sees it |
//! | 11 | settle | `settle` | usage, metrics, the record |
//!
//! 7 to 9 are one attempt. An attempt that fails before any content was passed on may be repeated;
//! whether and when is the schedule room's rule, asked in [`attempts`]; one attempt is in `attempt`.
//! A turn of a conversation is kept before its client sees the answer's end. Every exit goes through
//! `settle`, once.

use crate::admit::LeaseGuard;
use crate::answer::Trouble;
use crate::ask::enlarged;
use crate::attempt::{Attempt, Stop, attempt, outcome};
use crate::connection::Peer;
use crate::costs;
use crate::decode::{DecodeEnd, decode};
use crate::door::{After, Door, Ours};
use crate::failure::Failure;
use crate::house::House;
use crate::identify::identify;
use crate::memory::{self, Asking, Heard, Recalled, Replay, Turn, TurnTrouble, recall};
use crate::oversize::Oversize;
use crate::passing;
use crate::plan::Plan;
use crate::plane::Plane;
use crate::redaction;
use crate::reply::{Interrupt, Reply, TurnLines};
use crate::settle::{Account, End, Life, settle};
use crate::socket;
use crate::streams::{self, Hosted};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::{Deadline, RequestId, StreamId};
use tidegate_journal::recover::Action;
use tidegate_observe::{LiveRequest, Phase};
use tidegate_schedule::{Ask, Backoff, Cause, FailedAttempt, Refusal, Retry};
use tidegate_store::StoreError;
use tidegate_transport::ServerStream;
use tidegate_wire as wire;
use tidegate_wire::dialect::words::Resume;
use tidegate_wire::http::RequestHead;
use tidegate_wire::request::MessagesRequest;

/// How long before its deadline a request is given up that still waits, at most; a tenth of what it
/// has left if that is less.
const MARGIN: Duration = Duration::from_millis(250);

/// What a request is called, and the stream that its answer becomes, if that is hosted.
pub(crate) struct Named {
    pub(crate) ids: (RequestId, StreamId),
    pub(crate) hosted: Option<Arc<Hosted>>,
}

/// Takes one request from its head to its settling; says what becomes of the connection.
pub(crate) async fn serve(
    plane: &Arc<Plane>,
    conn: &mut ServerStream,
    head: &RequestHead,
    door: &'static Door,
    peer: &Peer,
    named: Named,
) -> After {
    let house = &*plane.house;
    let Named { ids: (request, stream), hosted } = named;
    let life = Life::begin(house, LiveRequest::new(request, stream, door.name, house.clock.now()));
    let close = !head.keeps_alive() || house.is_leaving();
    let deadline = Deadline::by_default(life.live.since + house.settings.clocks.whole);
    let mut reply = Reply::new(conn, house, life.live.clone(), deadline, close);
    reply.goes_to(hosted);
    let mut account = Account::default();

    let mut turn = None;
    let walked = walk(plane, &mut reply, head, door, peer, &mut account, &mut turn).await;
    interrupt(house, turn.filter(|_| reply.content), &account).await;
    let (end, told) = match walked {
        Ok(end) => (end, true),
        Err(Stop::Trouble(trouble)) => (tell(&mut reply, &trouble, &mut account), true),
        Err(Stop::Interrupt(why)) => interrupted(house, why, &mut reply, &mut account),
    };
    let (end, after) = if told { finish(&mut reply, end).await } else { (end, After::Abort) };
    account.status = reply.status;
    account.events = reply.events;
    account.bytes = reply.bytes();
    settle(house, &life, &account, end);
    after
}

/// Waits until the client has its answer. One that was whole here and did not arrive ended for the
/// client's reason; what had failed before stays what it was.
async fn finish(reply: &mut Reply<'_>, end: End) -> (End, After) {
    match (reply.finish().await, end) {
        (Ok(true), _) => (end, After::KeepAlive),
        (Ok(false), _) => (end, After::Close),
        (Err(Interrupt::SlowReader), End::Answered | End::Said) => (End::SlowReader, After::Abort),
        (Err(Interrupt::ClientLeft), End::Answered | End::Said) => (End::ClientLeft, After::Abort),
        (Err(_), _) => (end, After::Abort),
    }
}

/// The phases, in order.
async fn walk(
    plane: &Arc<Plane>,
    reply: &mut Reply<'_>,
    head: &RequestHead,
    door: &'static Door,
    peer: &Peer,
    account: &mut Account,
    turn: &mut Option<Box<Turn>>,
) -> Result<End, Stop> {
    let house = &*plane.house;
    // A refusal below leaves the body unread, and then the connection cannot be used again.
    let close = std::mem::replace(&mut reply.close, true);
    let arrived = house.clock.now();
    let caller = identify(&house.keys, head, peer, arrived, house.memory.now_ms())?;
    account.tenant = Some(caller.tenant.name.clone());
    // Whose own credential it is is known with the plan.
    reply.limits_of = (caller.tenant.is_metered() && caller.own.is_none()).then_some(caller.tenant.id);
    if house.is_draining() && !reply.is_local() {
        return Err(Trouble::Draining.into());
    }
    if house.backlogs.used() > house.backlogs.limit() / 5 * 4 {
        return Err(Trouble::BacklogBudget.into());
    }

    reply.live().enter(Phase::Decode);
    if door.ours == Some(Ours::Conversations) && memory::is_import(head) {
        reply.live().is_for(&caller.tenant.name, "");
        return memory::import(house, reply, head, &caller, close).await;
    }
    if door.ours == Some(Ours::Upstream) {
        reply.live().is_for(&caller.tenant.name, "");
        account.band = Some(caller.band.name());
        // An SDK's timeout is one between two bytes; only what the client says of the whole ends it.
        reply.deadline = caller.deadline(arrived, true, &house.settings.clocks);
        let mut plan = Box::pin(passing::plan(plane, reply, head, door, &caller, peer, close)).await?;
        reply.limits_of = caller.tenant.is_metered().then_some(plan.ask.tenant);
        return attempts(plane, reply, &mut plan, account, turn).await;
    }
    let live = reply.live().clone();
    let decoded = tokio::select! {
        biased;
        () = poll_fn(|cx| live.poll_cancelled(cx)) => return Err(Interrupt::Cancelled.into()),
        decoded = decode(house, reply.conn(), head) => decoded,
    };
    let mut body = match decoded {
        Ok(body) => body,
        Err(DecodeEnd::Trouble(trouble)) => return Err(trouble.into()),
        Err(DecodeEnd::Left) => return Err(Interrupt::ClientLeft.into()),
    };
    reply.close = close;
    let mut request =
        if door.has_model { Some(MessagesRequest::read(&body.bytes).map_err(Trouble::Body)?) } else { None };
    let client_streams = door.can_stream && request.as_ref().is_some_and(|r| r.stream);
    account.model = request.as_ref().map(|r| r.model.clone()).unwrap_or_default();
    account.stream = client_streams;
    account.fast = request.as_ref().is_some_and(|r| r.fast);
    account.is_errand = matches!(peer, Peer::Errand(_));
    account.band = Some(caller.band.name());
    reply.live().is_for(&caller.tenant.name, &account.model);
    caller.wish.conversation.iter().for_each(|name| reply.live().is_in(name));
    reply.streams = client_streams;
    reply.deadline = caller.deadline(arrived, client_streams, &house.settings.clocks);
    match door.ours {
        Some(Ours::Conversations) => {
            reply.live().enter(Phase::Recall);
            return memory::serve(house, reply, head, &caller, body).await;
        }
        Some(Ours::Streams) => return streams::serve(house, reply, head, &caller).await,
        Some(Ours::Tickets) => return socket::issue(house, reply, head, peer),
        // The door has answered itself.
        Some(Ours::Here | Ours::Socket | Ours::Upstream) => return Err(Trouble::PathUnknown.into()),
        None => {}
    }
    if caller.resume != Resume::Off && !reply.is_local() {
        let asked = streams::Asked { head, door, caller: &caller, peer };
        return streams::begin(plane, reply, asked, body, account).await;
    }

    let filter = redaction::filter_of(house, &caller, peer);
    if caller.wish.conversation.is_none()
        && let (Some(filter), Some(asked)) = (filter, &mut request)
    {
        redaction::mask(house, reply, &caller, filter, &mut body, asked).await?;
    }
    if !caller.wish.is_plain()
        && let Some(asked) = &request
    {
        reply.live().enter(Phase::Recall);
        let asking = Asking { head, caller: &caller, request: asked, filter, counts: !door.can_stream };
        match recall(house, reply, &asking, &mut body).await? {
            Recalled::Nothing => {}
            Recalled::Turn(new) => {
                reply.turn = Some(TurnLines::new(new.conversation(), new.number));
                *turn = Some(new);
            }
            Recalled::Replay(replay) => return replayed(house, reply, &replay),
        }
        request = Some(MessagesRequest::read(&body.bytes).map_err(Trouble::Body)?);
    }
    let mut plan = Plan::new(plane, head, door, &caller, body, request.as_ref())?;
    plan.keeps = turn.is_some();
    if let Some(asked) = request.as_ref().filter(|_| door.can_stream) {
        costs::admit(house, reply, &mut plan, asked, account)?;
    }
    reply.limits_of = caller.tenant.is_metered().then_some(plan.ask.tenant);
    let ended = attempts(plane, reply, &mut plan, account, turn).await;
    if let Some(turn) = turn {
        turn.said = plan.said.take();
    }
    ended
}

/// Gives the answer of a turn that is there already.
fn replayed(house: &House, reply: &mut Reply<'_>, replay: &Replay) -> Result<End, Stop> {
    reply.turn = Some(TurnLines::again(&replay.conversation, replay.number));
    house.metrics.turn("replayed");
    if !reply.streams {
        reply.whole_of_ours(&replay.message);
        return Ok(End::Answered);
    }
    let corrupt = || StoreError::Corrupt("a stored answer is no message".to_owned());
    let events = wire::replay::events(&replay.message).ok_or_else(|| Trouble::from(TurnTrouble::Log(corrupt())))?;
    reply.begin_stream(None);
    reply.push_events(&events, house.clock.now());
    Ok(End::Answered)
}

/// Keeps what was passed on of a turn that did not come to its end. One of which nothing was is gone
/// with its value.
async fn interrupt(house: &House, turn: Option<Box<Turn>>, account: &Account) {
    let Some(mut turn) = turn else { return };
    match turn.interrupt(house, account).await {
        Ok(true) => house.metrics.turn("interrupted"),
        Ok(false) => {}
        Err(error) => {
            house.metrics.turn("lost");
            tracing::error!(target: "tidegate::memory", ?error, "an interrupted turn could not be kept");
        }
    }
}

/// Keeps the turn; then, and not before, its client gets the answer's end.
async fn keep(
    house: &House,
    reply: &mut Reply<'_>,
    turn: &mut Turn,
    heard: Heard,
    account: &Account,
) -> Result<(), Stop> {
    reply.live().enter(Phase::Keep);
    // Not attended: what was asked of the disk is done, whether or not the client is still there.
    let kept = turn.keep(house, &heard, account).await;
    house.metrics.turn(if kept.is_ok() { "kept" } else { "refused" });
    kept.map_err(Trouble::from)?;
    match heard {
        Heard::Stream { end, .. } => reply.push_event(&end, house.clock.now()),
        Heard::Whole { head, assembled, message, lease } => {
            let json: [(&str, &[u8]); 1] = [("content-type", b"application/json")];
            let (without, with) =
                if assembled { (&["content-type", "cache-control"][..], &json[..]) } else { (&[][..], &[][..]) };
            reply.whole(&head, without, with, &message, lease);
        }
    }
    Ok(())
}

/// The loop of attempts: admit, exchange, relay; again while the rule says so.
async fn attempts(
    plane: &Arc<Plane>,
    reply: &mut Reply<'_>,
    plan: &mut Plan<'_>,
    account: &mut Account,
    turn: &mut Option<Box<Turn>>,
) -> Result<End, Stop> {
    let house = &*plane.house;
    let mut backoff = Backoff::new(house.settings.schedule.retry);
    // What is asked for again until the deadline, and is the answer when that comes.
    let mut under_load = None;
    let mut oversize = Oversize::default();
    loop {
        let lease = admit(plane, reply, plan, account).await.map_err(|stop| late(stop, reply, under_load.take()))?;
        let lane = lease.lane();
        // The scheduler knows lanes that came after this request did.
        let plane = &plane.now();
        let house = &*plane.house;
        backoff.begin();
        account.attempts = backoff.attempts();
        let attempt = attempt(plane, reply, plan, &lease, account).await;
        let outcome = outcome(house, &lease, &attempt);
        let input = lease.input();
        lease.settle(outcome);
        let failed = match attempt {
            Ok(Attempt::Ended { end, heard, .. }) => {
                if let (Some(turn), Some(heard)) = (turn, heard) {
                    keep(house, reply, turn, *heard, account).await?;
                }
                return Ok(end);
            }
            // What it refers to is somewhere else; that is no failure to wait for.
            Ok(Attempt::NotThere) => continue,
            Ok(Attempt::Failed(failed)) => failed,
            Err(stop) => return Err(late(stop, reply, under_load.take())),
        };
        let failure = failed.failure;
        if let Some(clock) = failure.clock {
            house.metrics.clock_expired(clock);
        }
        if let Some(kind) = failure.refusal() {
            house.metrics.upstream_refused(house.organisation(lane.org), kind);
        }
        failure.detail.clone_into(&mut account.detail);
        reply.live().failed(failure.cause.name());
        if let Some(times) = failure.larger_than_thought(input) {
            plan.ask.input = enlarged(plan.ask.input, times);
        }
        if let Some((left, limit)) = failure.refused_for_size() {
            let organisations = if plan.ask.pin.is_some() { 1 } else { house.organisations_open() };
            if oversize.refused(lane.org, left, limit, organisations) {
                return Err(Trouble::Refused(Refusal::TooLarge { tokens: input, limit }).into());
            }
        }
        let mended = mend(house, plan, failed.cut, account);
        let lost = failed.once || reply.content || plan.server_tools && failed.content_seen;
        if failure.is_final || lost && !mended {
            return Err(Trouble::Upstream(failure).into());
        }
        // As long as the band may wait, it waits for what the upstream refuses under load.
        let patience = house.settings.schedule.queue.wait_max[plan.ask.band as usize];
        if failure.cause.is_refusal_under_load() && account.waited >= patience {
            return Err(Trouble::Upstream(failure).into());
        }
        // A domain that is closed for a while is waited for in the queue, not here.
        let asked = if failure.cause == Cause::Throttled { None } else { failure.retry_after };
        let (class, tenant, deadline) = (plan.ask.class, plan.ask.tenant, reply.deadline.at());
        let attempt = FailedAttempt { lane, class, tenant, cause: failure.cause, asked, deadline };
        let decision = plane.with_prng(|prng| house.admission.retry(&mut backoff, &attempt, prng));
        let Retry::At(at) = decision else { return Err(Trouble::Upstream(failure).into()) };
        house.metrics.retry(failure.cause.name());
        reply.live().enter(Phase::Backoff);
        under_load = failure.cause.is_refusal_under_load().then_some(failure);
        let (began, slept) = (house.clock.now(), reply.attend(house.clock.sleep_until(at)).await);
        if under_load.is_some() {
            // It is quota that is waited for here too, and the band's cap is on all of that.
            account.waited += house.clock.now().since(began);
        }
        slept.map_err(|why| late(why.into(), reply, under_load.take()))?;
        plan.ask.avoid = Some(lane);
    }
}

/// Prepares the request that takes an answer up again after it broke off; whether there is one. What
/// failed before it answered anything leaves the one there that was prepared before.
fn mend(house: &House, plan: &mut Plan<'_>, cut: Option<Action>, account: &mut Account) -> bool {
    let Some(mending) = &mut plan.mending else { return false };
    let Some(action) = cut else { return mending.is_prepared() };
    let prepared = mending.prepare(action);
    house.metrics.recovery(mending.how.word(), prepared.is_ok());
    match prepared {
        Ok(bytes) => {
            if let Some(body) = &mut plan.request.body {
                // Little more than it was; what is not there is not worth losing the answer for.
                let _ = body.lease.resize(bytes.len() as u64);
                body.bytes = bytes;
            }
            account.mended += 1;
            true
        }
        Err(why) => {
            account.detail = format!("not mended: {why}");
            false
        }
    }
}

/// A deadline that came while the upstream refused under load, and not inside an answer: that is
/// what the client is told.
fn late(stop: Stop, reply: &Reply<'_>, under_load: Option<Box<Failure>>) -> Stop {
    match (stop, under_load) {
        (Stop::Interrupt(Interrupt::Deadline), Some(failure)) if !reply.content => Trouble::Upstream(failure).into(),
        (stop, _) => stop,
    }
}

/// Phase 7: a lease, and how long it took. Where it was only guessed that what the request refers to
/// lives there, another place is asked for one.
async fn admit(
    plane: &Arc<Plane>,
    reply: &mut Reply<'_>,
    plan: &mut Plan<'_>,
    account: &mut Account,
) -> Result<LeaseGuard, Stop> {
    let house = &*plane.house;
    reply.live().enter(Phase::Admit);
    let (tenant, band) = (&plan.caller.tenant.name, plan.ask.band.name());
    let lease = loop {
        let asked = house.clock.now();
        // An answer that begins with the deadline is of no use; and a refusal should come before it.
        let deadline = reply.deadline.at();
        let latest = asked + asked.until(deadline).saturating_sub(MARGIN.min(asked.until(deadline) / 10));
        plan.ask = Ask { latest, waited: account.waited, pin: plan.home.pin(), ..plan.ask };
        let stream = reply.live().stream;
        let lease = reply.attend(house.admission.lease(plan.ask, stream)).await;
        account.waited += house.clock.now().since(asked);
        match lease? {
            Ok(lease) => break lease,
            Err(refusal) if plan.home.passes_by(&refusal) => {}
            Err(refusal) => {
                if matches!(refusal, Refusal::TooLong { .. } | Refusal::Tenant { .. }) {
                    house.metrics.clock_expired("queue_wait");
                }
                house.metrics.queue_shed(tenant, band, refusal.name());
                return Err(Trouble::Refused(refusal).into());
            }
        }
    };
    if let Some(reason) = lease.waited_for() {
        house.metrics.queue_waited(tenant, band, reason.name());
    }
    // The lane may have come after this request did.
    reply.live().attempt(plane.now().house.lane_label(lease.lane()));
    Ok(lease)
}

/// Phase 10: tells the client; what kind of end that is.
fn tell(reply: &mut Reply<'_>, trouble: &Trouble, account: &mut Account) -> End {
    account.code = Some(reply.refuse(trouble));
    match trouble {
        Trouble::Upstream(_) => End::UpstreamFailed,
        Trouble::Deadline => End::Deadline,
        Trouble::Cancelled | Trouble::Draining => End::Cancelled,
        _ => End::Refused,
    }
}

/// What an interrupt means: whether there is somebody to tell, and how the request ended.
fn interrupted(house: &House, why: Interrupt, reply: &mut Reply<'_>, account: &mut Account) -> (End, bool) {
    match why {
        Interrupt::ClientLeft => (End::ClientLeft, false),
        Interrupt::SlowReader => (End::SlowReader, false),
        Interrupt::Cancelled => {
            let trouble = if house.is_draining() { Trouble::Draining } else { Trouble::Cancelled };
            reply.close = true;
            tell(reply, &trouble, account);
            (End::Cancelled, true)
        }
        Interrupt::Deadline => {
            house.metrics.clock_expired("whole");
            (tell(reply, &Trouble::Deadline, account), true)
        }
    }
}
