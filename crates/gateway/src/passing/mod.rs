//! Everything else of the API: files, skills, batches, and paths this code does not know.
//!
//! ```text
//!   identify ─▶ plan ─▶ admit ─▶ exchange ─▶ relaying ─▶ settle
//!                 │                 ▲
//!                 └── feeding ──────┘   piece by piece, while the upstream takes it
//! ```
//! They go through the path like any request and meet the same clocks, but nothing is understood of
//! them: bodies pass as the bytes they are, both ways, and are never held whole; only a small one is,
//! so that it can be sent again. What lives at one organisation goes there: the ids in a path are
//! looked up in the table of owners, and what answers name is learned. What names nothing (a list, a
//! new thing) goes to the first organisation, so that what was made there is listed there.
//!
//! | file | what it does |
//! |---|---|
//! | `doors` | which paths are passed on, and what they may carry |
//! | `feeding` | the client's body to the upstream |
//! | `relaying` | the upstream's answer to the client |
//! | `rewritten` | addresses and ids in an answer |

mod doors;
mod feeding;
mod relaying;
mod rewritten;

pub(crate) use doors::{door, makes_models_work};

use crate::admit::LeaseGuard;
use crate::answer::Trouble;
use crate::ask::ask;
use crate::attempt::{Attempt, Failed, Stop, looks_on, told};
use crate::connection::Peer;
use crate::door::Door;
use crate::exchange::{Request, Sent, exchange};
use crate::failure::Failure;
use crate::house::House;
use crate::identify::Caller;
use crate::plan::Plan;
use crate::plane::Plane;
use crate::redaction;
use crate::references::Home;
use crate::reply::Reply;
use crate::settle::Account;
use feeding::{Feed, fed, feeds};
use tidegate_redact::mask::Refusal;
use tidegate_redact::rules::Unscannable;
use tidegate_schedule::Cause;
use tidegate_upstream::Upload;
use tidegate_wire::dialect::simple::Prompt;
use tidegate_wire::dialect::words::{Recover, Resume};
use tidegate_wire::http::{Framing, RequestHead};

/// What is known of a request that is passed on.
pub(crate) struct Passing {
    /// Its body, while that still comes.
    feed: Option<Feed>,
    /// Whether asking twice is as good as asking once.
    is_idempotent: bool,
    /// Our own address as its client knows it, where answers hold addresses of the upstream.
    base: Option<String>,
    /// Whether the connection closes once its body was read.
    close: bool,
}

/// What is going to be done; the request's body is read here if it is a small one.
pub(crate) async fn plan<'a>(
    plane: &Plane,
    reply: &mut Reply<'_>,
    head: &'a RequestHead,
    door: &'static Door,
    caller: &'a Caller,
    peer: &Peer,
    close: bool,
) -> Result<Plan<'a>, Stop> {
    let house = &*plane.house;
    allowed(house, head, door, caller, peer)?;
    let limit = doors::limit(door, &house.settings.limits);
    let (body, feed, upload) = feeds(house, reply, head, limit).await?;
    if feed.is_none() {
        reply.close = close;
    }
    let classed = house.class(door.name, "", false);
    let mut ask = ask(house, classed.class, caller, b"", None, false);
    let home = match caller.own {
        Some(hash) => {
            let (org, tenant) = house.admission.credential(hash);
            ask.tenant = tenant;
            Home::at(Some(org))
        }
        None => house.references.home_of(doors::id(head.path()), caller),
    };
    let passing = Passing {
        feed,
        is_idempotent: matches!(head.method(), "GET" | "HEAD" | "PUT" | "DELETE"),
        base: doors::has_addresses(door).then(|| rewritten::base(house, head)).flatten(),
        close,
    };
    let request = Request {
        head,
        body,
        upload,
        raw: true,
        streams: false,
        fast: false,
        own_credential: caller.own.is_some(),
        model: "",
    };
    Ok(Plan {
        caller,
        ask,
        classed,
        home,
        request,
        client_streams: false,
        thinks_unseen: false,
        server_tools: false,
        keeps: false,
        mending: None,
        said: None,
        passing: Some(Box::new(passing)),
    })
}

/// Whether it may be passed on at all.
fn allowed(house: &House, head: &RequestHead, door: &Door, caller: &Caller, peer: &Peer) -> Result<(), Trouble> {
    if doors::is_admins(head.path()) && caller.own.is_none() {
        return Err(Trouble::PathUnknown);
    }
    if house.settings.speaks_prompts() && caller.own.is_none() {
        Prompt::of_request(b"").map_err(Trouble::Unsayable)?;
    }
    // What these ask for is a message's.
    let unmeant = [
        ("tidegate-resume", caller.resume != Resume::Off),
        ("tidegate-recover", caller.recover != Recover::Never),
        ("tidegate-conversation", !caller.wish.is_plain()),
    ];
    if let Some((name, _)) = unmeant.into_iter().find(|(_, asked)| *asked) {
        return Err(Trouble::Header { name: name.to_owned(), expected: "to be left out: this path is passed on" });
    }
    let has_body = !matches!(head.framing, Framing::Empty | Framing::Length(0));
    let filter = redaction::filter_of(house, caller, peer).map(|filter| filter.rules());
    if has_body && filter.is_some_and(|rules| rules.is_strict() && rules.unscannable == Unscannable::Block) {
        let what = format!("the whole body ({} is passed on as it is)", door.name);
        return Err(Trouble::Redacted(Refusal::Unscannable(vec![what])));
    }
    Ok(())
}

/// Phases 8 and 9, once.
pub(crate) async fn attempt(
    plane: &Plane,
    reply: &mut Reply<'_>,
    plan: &mut Plan<'_>,
    lease: &LeaseGuard,
    account: &mut Account,
) -> Result<Attempt, Stop> {
    let house = &*plane.house;
    let live = reply.live().clone();
    let mut exchanging = Box::pin(exchange(plane, lease, &plan.request, &live));
    let passing = plan.passing.as_deref_mut();
    let mut early = None;
    if let Some(feed) = passing.and_then(|passing| passing.feed.as_mut().zip(Some(passing.close))) {
        let (feed, close) = feed;
        early = fed(house, reply, plan.request.head, feed, exchanging.as_mut()).await?;
        if feed.is_whole() {
            reply.close = close;
        }
    }
    let sent = match early {
        Some(sent) => sent,
        None => reply.attend(exchanging.as_mut()).await?,
    };
    drop(exchanging);
    let is_unsent = !plan.request.upload.as_deref().is_some_and(Upload::has_begun);
    let answer = match sent {
        Ok(Sent::Answer(answer)) => answer,
        Ok(Sent::Mute { status, said }) => {
            // To `HEAD` nobody says anything.
            if status == 404 && is_unsent && looks_on(house, plan)? {
                return Ok(Attempt::NotThere);
            }
            return Err(Trouble::UpstreamRefused { status, said }.into());
        }
        Ok(Sent::Said { head, body }) => {
            let elsewhere = head.status == 404 && is_unsent;
            return told(house, reply, plan, account, (&head, &body), elsewhere);
        }
        Err(failure) => return Ok(Attempt::Failed(failed(plan, failure, is_unsent))),
    };
    account.first_byte_at.get_or_insert(house.clock.now());
    house.class_answered(&plan.classed);
    lease.began(&tidegate_wire::usage::Usage::default());
    relaying::relay(house, reply, plan, house.place(lease.lane()), *answer).await
}

/// A failure before the answer. What may have been done already is not asked for twice, unless that
/// makes no difference; nor is what is no longer there to be sent.
fn failed(plan: &Plan<'_>, failure: Box<Failure>, is_unsent: bool) -> Failed {
    let is_undone = matches!(failure.cause, Cause::Connect | Cause::Throttled | Cause::Overloaded | Cause::KeyRejected);
    let repeats = is_unsent && (is_undone || plan.passing.as_ref().is_some_and(|passing| passing.is_idempotent));
    Failed { once: !repeats, ..Failed::before_content(failure) }
}
