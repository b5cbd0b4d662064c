//! The phase: what a body says is placed in its conversation, and a window takes its messages' place.
//!
//! 1. *Hold*: the conversation's lock; another turn under way is waited for.
//! 2. *Mask* what the body says that the conversation does not have (`masking`).
//! 3. *Repeat?* A body that one of the last turns came of is that turn, if the client says that it
//!    repeats or names the number.
//! 4. *Place*: seeds, goes on, or says something else: then refused or forked.
//! 5. *Fit*: the window, checked once more, in place of the body's messages. Everything around them
//!    stays as it came, byte for byte.

use super::fit::{Fitting, Frame, Gauge, fit, jitter};
use super::shelf::Slot;
use super::summarise::Ahead;
use super::talk::{Recent, Talk};
use super::turn::{Asked, Turn};
use super::wish::ID_CHARS_MAX;
use super::{TurnTrouble, Wish, masking};
use crate::answer::Trouble;
use crate::attempt::Stop;
use crate::decode::Body;
use crate::house::House;
use crate::identify::Caller;
use crate::redaction;
use crate::reply::Reply;
use crate::settings::{Concurrent, Divergent};
use crate::succession;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tidegate_conversation::history::{Divergence, Form, Match};
use tidegate_conversation::message::{Message, Role, read_all};
use tidegate_conversation::same::Difference;
use tidegate_conversation::window::{View, Window};
use tidegate_redact::mask::Filter;
use tidegate_store::{Address, Status, StoreError};
use tidegate_wire::http::RequestHead;
use tidegate_wire::raw::RawObject;
use tidegate_wire::request::MessagesRequest;
use tokio::sync::OwnedMutexGuard;

/// Longest `metadata.user_id` that is kept, bytes (`docs/formats/conversations.md`).
const END_USER_BYTES_MAX: usize = 512;

/// How often one body may fork: from the conversation, from its fork, and so on.
const FORKS_MAX: usize = 4;

/// What the phase came to.
pub(crate) enum Recalled {
    /// No conversation; the body may have been trimmed.
    Nothing,
    /// A turn of one.
    Turn(Box<Turn>),
    /// A turn that is there already.
    Replay(Box<Replay>),
}

/// A turn that is given again.
pub(crate) struct Replay {
    /// The conversation.
    pub(crate) conversation: String,
    /// The turn's number.
    pub(crate) number: u32,
    /// The message, as the log has it.
    pub(crate) message: Vec<u8>,
}

/// What is asked.
pub(crate) struct Asking<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) caller: &'a Caller,
    pub(crate) request: &'a MessagesRequest,
    /// What its texts have to pass, unless they have.
    pub(crate) filter: Option<&'a Arc<Filter>>,
    /// Nothing will be asked and so nothing kept: only tokens are counted.
    pub(crate) counts: bool,
}

/// The phase.
pub(crate) async fn recall(
    house: &House,
    reply: &mut Reply<'_>,
    asking: &Asking<'_>,
    body: &mut Body,
) -> Result<Recalled, Stop> {
    let Asking { head, caller, request, filter, counts } = *asking;
    let wish = &caller.wish;
    let gauge = Gauge::of(house, &request.model, request.fast);
    let came = messages(body, request)?;
    let Some(name) = &wish.conversation else {
        let frame = Frame::of(&body.bytes, request, window_of(house, caller), &gauge);
        let window = trim(house, caller, came, &frame, &gauge)?;
        put(body, request, &window.body)?;
        return Ok(Recalled::Nothing);
    };
    let asked = house.memory.address(caller, name).map_err(Trouble::from)?;
    let mut held = hold(house, reply, asked, &gauge).await?;
    let mut forks = 0;
    let tenant = &caller.tenant.name;
    let (masked, hash, from) = loop {
        let talk = held.guard.as_mut().ok_or_else(|| Trouble::from(TurnTrouble::Unknown))?;
        let masked = masking::mask(house, reply, tenant, filter, talk, (&body.bytes, request), &came).await?;
        let (messages, bytes) = masked.as_ref().map_or((&came, &body.bytes), |m| (&m.messages, &m.body));
        let hash = masking::hash(house, tenant, filter.is_some(), &body.bytes, bytes);
        if let Some(turn) = repeated(held.talk()?, wish, head, &hash) {
            reply.restores(held.talk()?.live());
            return Ok(Recalled::Replay(Box::new(again(house, reply, held, turn).await?)));
        }
        let divergence = house.settings.conversations.divergence;
        match place(held.talk()?, messages, wish.form, divergence).map_err(Trouble::from)? {
            Placed::New(from) => break (masked, hash, from),
            Placed::Fork(divergence) if forks == FORKS_MAX => {
                return Err(Trouble::from(TurnTrouble::Diverged(divergence)).into());
            }
            Placed::Fork(divergence) => held = fork(house, reply, held, divergence.at, messages, &gauge).await?,
        }
        forks += 1;
    };
    let talk = held.talk()?;
    reply.restores(talk.live());
    let (number, before) = (talk.turns() + 1, talk.history.len());
    if let Some(expected) = wish.turn.filter(|n| *n != number) {
        return Err(Trouble::from(TurnTrouble::Number { expected, next: number }).into());
    }
    let end_user = match end_user(&body.bytes) {
        Some(id) => house.settings.redaction.end_user(tenant, &id).map_err(Trouble::Redacted)?.or(Some(id)),
        None => None,
    };
    let (messages, read) = match masked {
        None => (came, None),
        Some(masked) => {
            redaction::put(body, masked.body)?;
            (masked.messages, Some(masked.request))
        }
    };
    let request = read.as_ref().unwrap_or(request);
    let frame = Frame::of(&body.bytes, request, window_of(house, caller), &gauge);
    let new: Vec<Message> = messages.into_iter().skip(from).collect();
    let mut turn = Turn {
        number,
        address: held.address,
        talk: held.guard,
        _slot: held.slot,
        asked: Asked {
            messages: masking::list(&new),
            hash,
            end_user,
            model: request.model.clone(),
            request: reply.live().request.as_str().to_owned(),
            gauge: gauge.clone(),
            before,
            view: View::default(),
            tokens: 0,
            ahead: None,
        },
        said: None,
        kept: false,
    };
    house.memory.shelf.is_for(&turn.address, turn.asked.end_user.as_deref());
    let name = turn.address.name().to_owned();
    let Some(talk) = turn.talk.as_mut() else { return Err(Trouble::from(TurnTrouble::Unknown).into()) };
    for message in new {
        talk.push(message, &gauge).map_err(|why| Trouble::from(TurnTrouble::Messages(why)))?;
    }
    let window = fit(talk, &name, &frame, fitting(house, &gauge)).map_err(Trouble::from)?;
    put(body, request, &window.body)?;
    if window.is_cut {
        house.metrics.window_cut();
    }
    if !counts && house.settings.conversations.summaries && caller.own.is_none() {
        let room = frame.budget(talk.ratio()).room();
        let soft = house.settings.conversations.rules.marks(room, jitter(&name)).soft;
        turn.asked.ahead = Ahead::of(house, &caller.tenant, head, &body.bytes, frame, window.tokens, soft);
    }
    turn.asked.tokens = frame.fixed() + window.tokens;
    turn.asked.view = window.view;
    // Dropped, it is as if it had never been asked.
    Ok(if counts { Recalled::Nothing } else { Recalled::Turn(Box::new(turn)) })
}

/// Most tokens of a request of this caller.
pub(super) fn window_of(house: &House, caller: &Caller) -> u64 {
    match (caller.wish.budget, caller.tenant.window) {
        // A tenant's own is also the most it may ask for.
        (Some(wished), Some(most)) => wished.min(most),
        (Some(tokens), None) | (None, Some(tokens)) => tokens,
        (None, None) => house.settings.conversations.window,
    }
}

/// How windows are made in this house.
pub(super) fn fitting<'a>(house: &House, gauge: &'a Gauge) -> Fitting<'a> {
    let settings = &house.settings.conversations;
    Fitting { rules: settings.rules, recalls: settings.recall, bytes_max: house.settings.limits.body_bytes, gauge }
}

fn messages(body: &Body, request: &MessagesRequest) -> Result<Vec<Message>, Trouble> {
    let wrong = |why: String| Trouble::from(TurnTrouble::Messages(why));
    let at = request.parts.messages.clone().ok_or_else(|| wrong("messages: Field required".to_owned()))?;
    read_all(&body.bytes.slice(at)).map_err(|error| wrong(error.to_string()))
}

/// A conversation that is held: nobody else has a turn of it.
pub(super) struct Held {
    pub(super) address: Address,
    pub(super) guard: OwnedMutexGuard<Option<Talk>>,
    slot: Slot,
}

impl Held {
    pub(super) fn talk(&self) -> Result<&Talk, Trouble> {
        self.guard.as_ref().ok_or_else(|| TurnTrouble::Unknown.into())
    }
}

/// Waits for the conversation's turn and sees to it that it is in memory.
pub(super) async fn hold(house: &House, reply: &mut Reply<'_>, address: Address, gauge: &Gauge) -> Result<Held, Stop> {
    let memory = &house.memory;
    let slot = memory.shelf.slot(&address).ok_or(TurnTrouble::Budget).map_err(Trouble::from)?;
    let mut guard = match slot.clone().try_lock_owned() {
        Ok(guard) => guard,
        Err(_) if house.settings.conversations.concurrent == Concurrent::Refuse => {
            return Err(Trouble::from(TurnTrouble::Busy).into());
        }
        Err(_) => reply.attend(slot.clone().lock_owned()).await?,
    };
    succession::given(memory, &address).map_err(Trouble::from)?;
    let is_there = guard.is_some();
    if !is_there {
        reply.attend(memory.succession.own(&address)).await?;
    }
    house.metrics.conversation_found(is_there);
    if !is_there {
        let store = memory.store().map_err(Trouble::from)?;
        let loaded = reply.attend(Talk::load(store, &address, gauge, house.settings.conversations.recall)).await?;
        let mut talk = loaded.map_err(|error| Trouble::from(TurnTrouble::from(error)))?;
        reply.attend(masking::load(house, &address, &mut talk)).await?.map_err(Trouble::from)?;
        memory.shelf.weigh(&address, talk.bytes());
        *guard = Some(talk);
    } else if let Some(talk) = guard.as_mut().filter(|talk| talk.vaults.is_none()) {
        // Whoever had its turn before left while its body was being masked.
        reply.attend(masking::load(house, &address, talk)).await?.map_err(Trouble::from)?;
    }
    Ok(Held { address, guard, slot })
}

/// The turn that this body came of before, if the client means that one.
pub(super) fn repeated(talk: &Talk, wish: &Wish, head: &RequestHead, hash: &[u8; 32]) -> Option<Recent> {
    let turn = talk.repeated(hash)?;
    let retried = head.headers.text("x-stainless-retry-count").and_then(|n| n.trim().parse::<u32>().ok());
    let means = wish.turn.map_or(retried.is_some_and(|n| n > 0), |number| number == turn.number);
    means.then_some(turn)
}

/// The answer of a turn that is there already.
async fn again(house: &House, reply: &mut Reply<'_>, held: Held, turn: Recent) -> Result<Replay, Stop> {
    let trouble = |trouble: TurnTrouble| Stop::from(Trouble::from(trouble));
    if turn.status == Status::Interrupted {
        return Err(trouble(TurnTrouble::Interrupted { number: turn.number }));
    }
    let store = house.memory.store().map_err(trouble)?;
    let read = reply.attend(store.read(held.address.clone(), turn.number)).await?;
    let mut read = read.map_err(|error| trouble(error.into()))?;
    let message = read.turns.first_mut().and_then(|turn| turn.content.answer.take());
    let message = message.ok_or_else(|| trouble(TurnTrouble::Unknown))?;
    Ok(Replay { conversation: held.address.name().to_owned(), number: turn.number, message })
}

/// Where a body goes.
enum Placed {
    /// Its messages from this one on are new.
    New(usize),
    /// It is another conversation from some message on.
    Fork(Divergence),
}

fn place(talk: &Talk, messages: &[Message], form: Form, divergence: Divergent) -> Result<Placed, TurnTrouble> {
    let stored = talk.history.len();
    let apart = |found: Divergence| match divergence {
        Divergent::Fork => Ok(Placed::Fork(found)),
        Divergent::Refuse => Err(TurnTrouble::Diverged(found)),
    };
    match talk.history.matches(messages, form) {
        Match::Seeds => Ok(Placed::New(0)),
        Match::Continues { from } => Ok(Placed::New(from)),
        // What was only written, or was paused, is answered now.
        Match::Repeats { messages } if messages == stored && is_open(talk) => Ok(Placed::New(messages)),
        // Somebody says again what was said at the beginning.
        Match::Repeats { .. } if form == Form::Unknown && messages.iter().all(|m| m.role() == Role::User) => {
            Ok(Placed::New(0))
        }
        // An answer is asked for anew.
        Match::Repeats { messages } if messages < stored => {
            apart(Divergence { at: messages, stored, difference: Difference::Missing })
        }
        Match::Repeats { .. } => Err(TurnTrouble::NothingNew),
        Match::Diverges(found) => apart(found),
    }
}

/// Whether the model's word is next.
fn is_open(talk: &Talk) -> bool {
    let last = talk.history.entries().last();
    talk.paused || last.is_some_and(|entry| entry.message.role() != Role::Assistant)
}

/// Makes another conversation of the turns before message `at`, and holds that one. Its id is made of
/// where and how the body departs, so that whoever goes on with the same history comes to it again.
async fn fork(
    house: &House,
    reply: &mut Reply<'_>,
    held: Held,
    at: usize,
    messages: &[Message],
    gauge: &Gauge,
) -> Result<Held, Stop> {
    let trouble = |trouble: TurnTrouble| Stop::from(Trouble::from(trouble));
    let memory = &house.memory;
    let mut departs = Sha256::new();
    departs.update((at as u64).to_le_bytes());
    if let Some(message) = messages.get(at).or(messages.last()) {
        message.texts(&mut |_, text| departs.update(text));
    }
    let mark: String = departs.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let base: String = held.address.name().chars().take(ID_CHARS_MAX - mark.len() - 1).collect();
    let name = format!("{base}~{mark}");
    let (turns, _) = held.talk()?.before(at);
    if turns > 0 {
        let store = memory.store().map_err(trouble)?;
        let made = store.fork(held.address.clone(), turns, &name, memory.now_ms()).await;
        made.or_else(|error| if error == StoreError::Exists { Ok(()) } else { Err(error) })
            .map_err(|error| trouble(error.into()))?;
    }
    let address = Address::new(held.address.tenant(), &name).map_err(|error| trouble(error.into()))?;
    // Never two at once: two turns that fork into each other would wait for ever.
    drop(held);
    hold(house, reply, address, gauge).await
}

/// The end user a body names.
pub(crate) fn end_user(body: &[u8]) -> Option<String> {
    let metadata: RawObject<'_> = RawObject::read(body).ok()?.parse("metadata")?;
    metadata.parse::<String>("user_id").filter(|id| !id.is_empty() && id.len() <= END_USER_BYTES_MAX)
}

/// A window for messages that belong to no conversation.
fn trim(
    house: &House,
    caller: &Caller,
    messages: Vec<Message>,
    frame: &Frame,
    gauge: &Gauge,
) -> Result<Window, Trouble> {
    let first = messages.first().map(|message| message.raw().clone()).unwrap_or_default();
    let key = tidegate_wire::cached::keyed(house.hash_key, &[caller.tenant.name.as_bytes(), &first]);
    let memory = &house.memory;
    let mut talk = Talk::seen(memory.trimmed.view(key));
    for message in messages {
        talk.push(message, gauge).map_err(TurnTrouble::Messages)?;
    }
    let name = format!("{key:x}");
    let window = fit(&mut talk, &name, frame, fitting(house, gauge))?;
    if window.is_cut {
        house.metrics.window_cut();
    }
    memory.trimmed.keep(key, window.view.clone());
    Ok(window)
}

/// Puts the window in the messages' place.
fn put(body: &mut Body, request: &MessagesRequest, messages: &Bytes) -> Result<(), Trouble> {
    match request.with_messages(&body.bytes, messages) {
        Some(bytes) => redaction::put(body, bytes),
        None => Ok(()),
    }
}
