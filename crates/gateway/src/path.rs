//! The life of a request.
//!
//! | # | phase | where | what it does |
//! |---|---|---|---|
//! | 1 | accept | `door` | a permit, a connection, a head |
//! | 2 | identify | `identify` | credential to tenant; priority; deadline |
//! | 3 | decode | `decode` | counted bytes to a request |
//! | 4 | attach | (to come) | documents to blocks |
//! | 5 | mask | (to come) | personal data out |
//! | 6 | recall | (to come) | a conversation's window |
//! | 7 | admit | `admit` | a lease on a quota domain |
//! | 8 | exchange | `exchange` | a connection, the request, the answer's head |
//! | 9 | relay | `relay` | the answer, event by event |
//! | 10 | answer | `answer` | what went wrong, as the client sees it |
//! | 11 | settle | `settle` | usage, metrics, the record |
//!
//! 7 to 9 are one attempt. An attempt that fails before any content was passed on may be repeated;
//! whether and when is the schedule room's rule, asked in [`attempts`]. Every exit goes through
//! `settle`, once.

use crate::admit::LeaseGuard;
use crate::answer::Trouble;
use crate::ask::ask;
use crate::decode::{Body, DecodeEnd, decode};
use crate::door::{After, Door};
use crate::exchange::{Request, Sent, exchange};
use crate::failure::Failure;
use crate::house::House;
use crate::identify::{Caller, identify};
use crate::plane::Plane;
use crate::references::Home;
use crate::relay::{Relay, RelayParts, Relayed};
use crate::reply::{Interrupt, Reply, UNCOUNTED_BYTES};
use crate::settle::{Account, End, Life, settle};
use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::time::{Duration, UNIX_EPOCH};
use tidegate_base::{Deadline, to_next_month};
use tidegate_observe::{LiveRequest, Phase};
use tidegate_schedule::{Ask, Backoff, Cause, FailedAttempt, Outcome, Refusal, Retry, Spent, Throttle};
use tidegate_transport::ServerStream;
use tidegate_upstream::Exchange;
use tidegate_wire::http::{RequestHead, ResponseHead};
use tidegate_wire::request::MessagesRequest;
use tidegate_wire::usage::Usage;

/// How long before its deadline a request is given up that still waits, at most; a tenth of what it
/// has left if that is less.
const MARGIN: Duration = Duration::from_millis(250);

/// Why a request ends without an answer.
enum Stop {
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

/// Takes one request from its head to its settling; says what becomes of the connection.
pub(crate) async fn serve(
    plane: &Plane,
    conn: &mut ServerStream,
    head: &RequestHead,
    door: &Door,
    from_loopback: bool,
) -> After {
    let house = &*plane.house;
    let (request, stream) = plane.new_ids();
    let life = Life::begin(house, LiveRequest::new(request, stream, door.name, house.clock.now()));
    let close = !head.keeps_alive() || house.is_draining();
    let deadline = Deadline::by_default(life.live.since + house.settings.clocks.whole);
    let mut reply = Reply::new(conn, house, life.live.clone(), deadline, close);
    let mut account = Account::default();

    let walked = walk(plane, &mut reply, head, door, from_loopback, &mut account).await;
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
    plane: &Plane,
    reply: &mut Reply<'_>,
    head: &RequestHead,
    door: &Door,
    from_loopback: bool,
    account: &mut Account,
) -> Result<End, Stop> {
    let house = &*plane.house;
    // A refusal below leaves the body unread, and then the connection cannot be used again.
    let close = std::mem::replace(&mut reply.close, true);
    let arrived = house.clock.now();
    let caller = identify(&house.keys, head, from_loopback, arrived)?;
    account.tenant = Some(caller.tenant.name.clone());
    reply.limits_of = caller.tenant.is_metered().then_some(caller.tenant.id);
    if house.is_draining() {
        return Err(Trouble::Draining.into());
    }
    if house.backlogs.used() > house.backlogs.limit() / 5 * 4 {
        return Err(Trouble::BacklogBudget.into());
    }

    reply.live().enter(Phase::Decode);
    let live = reply.live().clone();
    let decoded = tokio::select! {
        biased;
        () = poll_fn(|cx| live.poll_cancelled(cx)) => return Err(Interrupt::Cancelled.into()),
        decoded = decode(house, reply.conn(), head) => decoded,
    };
    let body = match decoded {
        Ok(body) => body,
        Err(DecodeEnd::Trouble(trouble)) => return Err(trouble.into()),
        Err(DecodeEnd::Left) => return Err(Interrupt::ClientLeft.into()),
    };
    reply.close = close;
    let request = if door.has_model { Some(MessagesRequest::read(&body.bytes).map_err(Trouble::Body)?) } else { None };
    let mut plan = Plan::new(plane, head, door, &caller, body, request.as_ref())?;
    account.model = plan.model.to_owned();
    account.stream = plan.client_streams;
    account.band = Some(caller.band.name());
    reply.live().is_for(&caller.tenant.name, plan.model);
    reply.streams = plan.client_streams;
    reply.deadline = caller.deadline(arrived, plan.client_streams, &house.settings.clocks);

    attempts(plane, reply, &mut plan, account).await
}

/// What is going to be done, decided once.
struct Plan<'a> {
    model: &'a str,
    caller: &'a Caller,
    /// What the scheduler is asked for, the same for each attempt but for its last lines.
    ask: Ask,
    /// Where it has to go.
    home: Home,
    request: Request<'a>,
    /// The client asked for a stream.
    client_streams: bool,
    thinks_unseen: bool,
    server_tools: bool,
}

impl<'a> Plan<'a> {
    fn new(
        plane: &Plane,
        head: &'a RequestHead,
        door: &Door,
        caller: &'a Caller,
        mut body: Body,
        request: Option<&'a MessagesRequest>,
    ) -> Result<Self, Trouble> {
        let limits = &plane.house.settings.limits;
        let model = request.map_or("", |r| r.model.as_str());
        let client_streams = door.can_stream && request.is_some_and(|r| r.stream);
        // A buffered answer that may be long is streamed upstream, so that no idle connection is
        // cut under it and the clocks can tell thinking from death.
        let long = |r: &MessagesRequest| r.max_tokens.is_some_and(|n| n > limits.passthrough_tokens);
        let assembles = door.can_stream && !client_streams && request.is_some_and(long);
        let thinks_unseen = request.is_some_and(|r| r.thinks_unseen);
        // Looked into before anything is changed in it.
        let house = &*plane.house;
        let fast = request.is_some_and(|r| r.fast);
        let class = house.class(door.name, model, fast);
        let seen = (client_streams || assembles) && !thinks_unseen;
        let ask = Ask { seen, ..ask(house, class, caller, &body.bytes, request, door.can_stream) };
        let home = request.map(|r| house.references.home(&body.bytes, r, caller)).transpose()?.unwrap_or_default();
        if let Some(request) = request
            && assembles
        {
            body.bytes = request.with_stream(&body.bytes);
            if !body.lease.resize(body.bytes.len() as u64) {
                return Err(Trouble::BodyBudget);
            }
        }
        Ok(Plan {
            ask,
            home,
            request: Request { head, body: door.has_body.then_some(body), streams: client_streams || assembles, fast },
            thinks_unseen,
            server_tools: request.is_some_and(|r| r.server_tools),
            client_streams,
            caller,
            model,
        })
    }

    fn assembles(&self) -> bool {
        self.request.streams && !self.client_streams
    }
}

/// The loop of attempts: admit, exchange, relay; again while the rule says so.
async fn attempts(
    plane: &Plane,
    reply: &mut Reply<'_>,
    plan: &mut Plan<'_>,
    account: &mut Account,
) -> Result<End, Stop> {
    let house = &*plane.house;
    let mut backoff = Backoff::new(house.settings.schedule.retry);
    loop {
        let lease = admit(plane, reply, plan, account).await?;
        let lane = lease.lane();
        backoff.begin();
        account.attempts = backoff.attempts();
        let attempt = attempt(plane, reply, plan, &lease, account).await;
        let outcome = outcome(house, &lease, &attempt);
        lease.settle(outcome);
        let failed = match attempt {
            Ok(Attempt::Ended { end, .. }) => return Ok(end),
            // What it refers to is somewhere else; that is no failure to wait for.
            Ok(Attempt::NotThere) => continue,
            Ok(Attempt::Failed(failed)) => failed,
            Err(stop) => return Err(stop),
        };
        let failure = failed.failure;
        if let Some(clock) = failure.clock {
            house.metrics.clock_expired(clock);
        }
        if let Some(kind) = failure.refusal() {
            house.metrics.upstream_refused(house.organisation(lane.org), kind);
        }
        failure.detail.clone_into(&mut account.detail);
        let repeatable = !(failure.is_final || reply.content || plan.server_tools && failed.content_seen);
        if !repeatable {
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
        reply.attend(house.clock.sleep_until(at)).await?;
        plan.ask.avoid = Some(lane);
    }
}

/// Phase 7: a lease, and how long it took.
async fn admit(
    plane: &Plane,
    reply: &mut Reply<'_>,
    plan: &mut Plan<'_>,
    account: &mut Account,
) -> Result<LeaseGuard, Stop> {
    let house = &*plane.house;
    reply.live().enter(Phase::Admit);
    let asked = house.clock.now();
    // An answer that begins with the deadline is of no use; and a refusal should come before it.
    let deadline = reply.deadline.at();
    let latest = asked + asked.until(deadline).saturating_sub(MARGIN.min(asked.until(deadline) / 10));
    plan.ask = Ask { latest, waited: account.waited, pin: plan.home.pin(), ..plan.ask };
    let stream = reply.live().stream;
    let lease = reply.attend(house.admission.lease(plan.ask, stream)).await;
    account.waited += house.clock.now().since(asked);
    let (tenant, band) = (&plan.caller.tenant.name, plan.caller.band.name());
    let lease = lease?.map_err(|refusal| {
        if matches!(refusal, Refusal::TooLong { .. } | Refusal::Tenant { .. }) {
            house.metrics.clock_expired("queue_wait");
        }
        house.metrics.queue_shed(tenant, band, refusal.name());
        Trouble::Refused(refusal)
    })?;
    if let Some(reason) = lease.waited_for() {
        house.metrics.queue_waited(tenant, band, reason.name());
    }
    reply.live().attempt(house.lane_label(lease.lane()));
    Ok(lease)
}

/// How one attempt came out.
enum Attempt {
    Ended {
        end: End,
        /// What the model used, if it answered and said so.
        spent: Option<Spent>,
    },
    /// What the request refers to is not where it was looked for, and there is another place.
    NotThere,
    Failed(Failed),
}

struct Failed {
    failure: Box<Failure>,
    /// Whether the model had begun to answer, passed on or not.
    content_seen: bool,
}

/// What an attempt means for its lease.
fn outcome(house: &House, lease: &LeaseGuard, attempt: &Result<Attempt, Stop>) -> Outcome {
    let failed = match attempt {
        Ok(Attempt::Ended { end: End::Answered, spent }) => return Outcome::Answered(*spent),
        Ok(Attempt::Ended { .. } | Attempt::NotThere) => return Outcome::Failed,
        Err(_) if lease.was_sent() => return Outcome::Failed,
        Err(_) => return Outcome::NotSent,
        Ok(Attempt::Failed(failed)) => &failed.failure,
    };
    match (failed.cause, failed.by) {
        (Cause::Throttled, by @ Throttle::SpendCap) => {
            let wall = house.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let month = Duration::from_secs(to_next_month(wall));
            Outcome::Throttled { by, retry_after: Some(house.settings.clocks.spend_cap.min(month)) }
        }
        (Cause::Throttled, by) => Outcome::Throttled { by, retry_after: failed.retry_after },
        (Cause::Overloaded, _) => Outcome::Overloaded { retry_after: failed.retry_after },
        (Cause::KeyRejected, _) => Outcome::KeyRejected { retry_after: house.settings.clocks.key_rejected },
        // An error event that is about the request itself says nothing of the upstream's health.
        _ if failed.status.is_some_and(|s| s < 500) => Outcome::Failed,
        _ => Outcome::Broken,
    }
}

/// Phases 8 and 9, once.
async fn attempt(
    plane: &Plane,
    reply: &mut Reply<'_>,
    plan: &mut Plan<'_>,
    lease: &LeaseGuard,
    account: &mut Account,
) -> Result<Attempt, Stop> {
    let house = &*plane.house;
    let live = reply.live().clone();
    // Boxed: it is over before the answer's first event, and a stream should not hold its room.
    let sent = reply.attend(Box::pin(exchange(plane, lease, &plan.request, &live))).await?;
    let mut answer = match sent {
        Ok(Sent::Answer(answer)) => answer,
        Ok(Sent::Mute { status }) => return Err(Trouble::UpstreamRefused { status }.into()),
        Ok(Sent::Said { head, .. }) if head.status == 404 && plan.home.look_on() => return Ok(Attempt::NotThere),
        Ok(Sent::Said { head, body }) => {
            account.first_byte_at.get_or_insert(house.clock.now());
            said(house, reply, plan, &head, &body);
            return Ok(Attempt::Ended { end: End::Said, spent: None });
        }
        Err(failure) => return Ok(Attempt::Failed(Failed { failure, content_seen: false })),
    };
    account.first_byte_at.get_or_insert(house.clock.now());
    live.enter(Phase::Relay);
    if !plan.request.streams {
        return pass_whole(plane, reply, plan, lease, *answer, account).await;
    }
    let assembles = plan.assembles();
    let head = answer.take_head();
    let parts = RelayParts {
        assembles,
        thinks_unseen: plan.thinks_unseen,
        body: &mut plan.request.body,
        meter: lease.is_metered().then(|| plane.progress.meter(lease.id())),
        home: plan.home.learns.then_some(&plan.home),
        lease,
    };
    let mut relay = Relay::new(house, &live, head, parts);
    let relayed = relay.run(&mut answer, reply).await;
    account.used(&relay.tap.usage);
    account.stop_reason = relay.tap.stop_reason.take();
    account.gaps = std::mem::take(&mut relay.gaps);
    let content_seen = relay.content_seen;
    let failed = |failure| Ok(Attempt::Failed(Failed { failure, content_seen }));
    match relayed? {
        Relayed::Failed(failure) => failed(failure),
        Relayed::TooLarge(trouble) => Err(trouble.into()),
        Relayed::Whole => {
            let spent = Some(spent(&relay.tap.usage));
            plan.home.found(&house.references, house.place(lease.lane()), relay.tap.message_id.as_deref());
            if assembles && let Err(failure) = relay.give_assembled(reply) {
                return failed(failure);
            }
            answer.finish(house.clock.now());
            Ok(Attempt::Ended { end: End::Answered, spent })
        }
    }
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
    lease.began();
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
                return Ok(Attempt::Failed(Failed { failure: Box::new(failure), content_seen: true }));
            }
        }
    }
    let mut spent_here = None;
    match tidegate_wire::raw::RawObject::read(&body) {
        Ok(object) => {
            let mut usage = Usage::default();
            if object.get("usage").is_some_and(|u| usage.update(u.get())) {
                account.used(&usage);
                spent_here = Some(spent(&usage));
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
            return Ok(Attempt::Failed(Failed { failure, content_seen: true }));
        }
    }
    reply.whole(&answer.head, &[], &[], &body, bytes);
    answer.finish(house.clock.now());
    Ok(Attempt::Ended { end: End::Answered, spent: spent_here })
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
fn interrupted(
    house: &crate::house::House,
    why: Interrupt,
    reply: &mut Reply<'_>,
    account: &mut Account,
) -> (End, bool) {
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
