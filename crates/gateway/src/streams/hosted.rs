//! One hosted stream: what came of it, and who reads it.
//!
//! The lock is held for one event, or one look; owner and readers are mostly on one thread. Whoever
//! waits leaves a waker. What must not happen while it is held is waking, since a waker may read.

use super::keep::Unkept;
use super::{Erased, StreamTrouble};
use crate::answer::{Trouble, answer};
use crate::mending::read_comment;
use crate::reply::own_lines;
use bytes::{Bytes, BytesMut};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Waker};
use tidegate_base::{ByteLease, Moment, RequestId, StreamId};
use tidegate_journal::{Journal, LIMIT_BYTES_MIN, Refused};
use tidegate_redact::restore::Live;
use tidegate_wire::dialect::words::{Recover, Resume};
use tidegate_wire::event::{Kind, plain_delta};
use tidegate_wire::http::{HeadWriter, ResponseHead, parse_response};
use tidegate_wire::raw::RawObject;
use tidegate_wire::sse;

/// A journal's lease grows in such steps, bytes.
const LEASE_STEP: u64 = 4 * 1024;

/// Whose a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) tenant: Arc<str>,
    /// The hash of the upstream credential it was asked for with: those who bring one are one tenant.
    pub(crate) own: Option<u64>,
}

/// Whom and what a stream is about: what it goes with when that is erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// `metadata.user_id` of its request.
    pub(crate) end_user: Option<String>,
    /// The conversation it was asked for in; its answer may name another, if the turn forked.
    pub(crate) conversation: Option<String>,
}

/// One stream.
pub(crate) struct Hosted {
    /// Ids of its request.
    pub(crate) request: RequestId,
    pub(crate) stream: StreamId,
    pub(crate) owner: Owner,
    pub(crate) class: Resume,
    about: About,
    /// What its readers get for tokens in it; told before it begins, if anything was masked.
    live: OnceLock<Arc<Live>>,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) journal: Journal,
    lease: ByteLease,
    /// Of an answer that is a stream.
    pub(super) head: Option<ResponseHead>,
    /// An answer that is none, and whether it is there whole.
    pub(super) whole: Option<(ResponseHead, BytesMut)>,
    /// After which event the answer was taken up again, how, and which reply goes on; a few at most.
    pub(super) recovered: Vec<(u64, Recover, u64)>,
    ended_at: Option<Moment>,
    pub(super) readers: usize,
    /// Since when there is none.
    left_at: Option<Moment>,
    called_off: bool,
    /// What was kept of it is gone, and nothing more may be kept.
    erased: bool,
    /// It could not hold what came.
    broken: bool,
    waiting: Vec<Waker>,
    waits_for_readers: Option<Waker>,
    /// Of a durable stream: what the log does not have.
    pub(super) unkept: Option<Unkept>,
}

/// What a stream's readers mean for its owner.
pub(super) enum Wanted {
    Yes,
    /// Nobody reads since then.
    Since(Moment),
    /// It was called off.
    No,
}

impl Hosted {
    pub(super) fn new(
        ids: (RequestId, StreamId),
        owner: Owner,
        about: About,
        class: Resume,
        (journal_bytes, lease): (u64, ByteLease),
    ) -> Self {
        let (request, stream) = ids;
        let state = State {
            journal: Journal::new(stream, usize::try_from(journal_bytes).unwrap_or(usize::MAX)),
            lease,
            head: None,
            whole: None,
            recovered: Vec::new(),
            ended_at: None,
            readers: 0,
            left_at: None,
            called_off: false,
            erased: false,
            broken: false,
            waiting: Vec::new(),
            waits_for_readers: None,
            unkept: (class == Resume::Durable).then(Unkept::default),
        };
        Hosted { request, stream, owner, class, about, live: OnceLock::new(), state: Mutex::new(state) }
    }

    /// Its readers get these values for their tokens.
    pub(crate) fn restores(&self, live: Arc<Live>) {
        // Told once: a request is masked once.
        let _ = self.live.set(live);
    }

    /// What its readers get for tokens, if there are any.
    pub(crate) fn live(&self) -> Option<&Arc<Live>> {
        self.live.get().filter(|live| !live.is_empty())
    }

    /// One that is back from the log, ended, with nothing more to be kept.
    pub(super) fn restored(
        ids: (RequestId, StreamId),
        (owner, about): (Owner, About),
        head: ResponseHead,
        journal: Journal,
        (lease, ended_at): (ByteLease, Moment),
    ) -> Self {
        let hosted = Hosted::new(ids, owner, about, Resume::Durable, (0, lease));
        let mut state = hosted.state();
        (state.journal, state.head, state.ended_at, state.unkept) = (journal, Some(head), Some(ended_at), None);
        drop(state);
        hosted
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something that readers wait for, and wakes them.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let waiting = std::mem::take(&mut state.waiting);
        let keeper = state.keeper();
        drop(state);
        waiting.into_iter().chain(keeper).for_each(Waker::wake);
    }

    /// When its owner was done with it, and with keeping it.
    pub(crate) fn ended_at(&self) -> Option<Moment> {
        let state = self.state();
        state.ended_at.filter(|_| state.unkept.is_none())
    }

    /// Calls it off: its owner ends it as if nobody wanted it any more. False if it had ended already.
    pub(crate) fn call_off(&self) -> bool {
        let mut state = self.state();
        if state.ended_at.is_some() || state.journal.end().is_some() || state.whole.is_some() {
            return false;
        }
        state.called_off = true;
        let owner = state.waits_for_readers.take();
        drop(state);
        owner.into_iter().for_each(Waker::wake);
        true
    }

    /// The conversation that it is a turn of: as its answer says, or as it was asked.
    pub(super) fn conversation(&self, state: &State) -> Option<String> {
        let head = state.head.as_ref().or(state.whole.as_ref().map(|(head, _)| head));
        let told = head.and_then(|head| head.headers.text("tidegate-conversation")).map(str::to_owned);
        told.or_else(|| self.about.conversation.clone())
    }

    pub(super) fn end_user(&self) -> Option<&str> {
        self.about.end_user.as_deref()
    }

    /// Erases it, if `of` says so: it is called off, if it still runs, and nothing more of it is kept.
    pub(super) fn erase(&self, of: &Erased<'_>) -> bool {
        let mut state = self.state();
        let users = of.end_user.is_some() && self.about.end_user.as_deref() == of.end_user;
        let goes = match self.conversation(&state) {
            None => users,
            // The turns of those conversations are taken: one that waits for its own comes after this.
            Some(name) => {
                let began = state.journal.last() > 0 || state.whole.is_some() || state.ended_at.is_some();
                began && (users || of.conversations.contains(&*name))
            }
        };
        if !goes {
            return false;
        }
        state.erased = true;
        drop(state);
        self.call_off();
        true
    }

    /// Does what keeps something of it, unless it was erased: what was begun before an erasure comes
    /// before it in the log, too.
    pub(super) fn unless_erased<T>(&self, keep: impl FnOnce() -> T) -> Option<T> {
        let state = self.state();
        (!state.erased).then(keep)
    }

    /// The last that goes sets the owner's clock going, from the next time it looks.
    pub(super) fn reader_goes(&self, waits: Option<&Waker>) {
        let mut state = self.state();
        state.readers = state.readers.saturating_sub(1);
        // Nobody is kept who is not there any more: a silent stream may have many readers that come and go.
        state.waiting.retain(|waker| !waits.is_some_and(|gone| gone.will_wake(waker)));
        let owner = if state.readers == 0 { state.waits_for_readers.take() } else { None };
        drop(state);
        owner.into_iter().for_each(Waker::wake);
    }

    /// Whether anybody wants it still; the owner is woken when that changes.
    pub(super) fn poll_wanted(&self, cx: &Context<'_>, now: Moment) -> Wanted {
        let mut state = self.state();
        if state.called_off {
            return Wanted::No;
        }
        if !state.waits_for_readers.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            state.waits_for_readers = Some(cx.waker().clone());
        }
        match state.readers {
            0 => Wanted::Since(*state.left_at.get_or_insert(now)),
            _ => Wanted::Yes,
        }
    }

    /// One whole event.
    pub(super) fn append(&self, event: &[u8]) {
        let kind = kind(event);
        if kind == Kind::Comment
            && let Some((how, segment)) = read_comment(event)
        {
            let mut state = self.state();
            let seq = state.journal.last();
            return state.recovered.push((seq, how, segment));
        }
        self.change(|state| state.append(kind, event));
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state().broken
    }

    /// Its owner is done. What came to no end is called off, so that nobody waits for more.
    pub(super) fn end(&self, now: Moment) {
        self.change(|state| {
            state.ended_at = Some(now);
            // What is kept of an ended stream is its log, and not its owner's task.
            state.waits_for_readers = None;
            if state.whole.is_some() || state.journal.end().is_some() {
                return;
            }
            let why = if state.broken { StreamTrouble::TooLarge } else { StreamTrouble::Cancelled };
            if state.head.is_none() {
                // There is no answer that an event could be in: whoever waits or comes is refused.
                state.whole = refusal(why, self.request);
                return;
            }
            let event = last_event(why, self.request);
            let epoch = state.journal.epoch();
            let told = match why {
                StreamTrouble::Cancelled => state.journal.cancel(epoch, &event),
                _ => state.journal.append(epoch, Kind::Error, &event),
            };
            debug_assert!(told.is_ok(), "an error event fits always: {told:?}");
        });
    }
}

impl State {
    pub(super) fn reader_comes(&mut self) {
        self.readers += 1;
        self.left_at = None;
    }

    fn append(&mut self, kind: Kind, event: &[u8]) {
        let epoch = self.journal.epoch();
        match self.journal.append(epoch, kind, event) {
            Ok(_) => {
                self.unkept.iter_mut().for_each(|unkept| unkept.bytes += event.len());
                self.weigh();
            }
            Err(Refused::TooLarge) => self.broken = true,
            // After its end there is nothing more to say.
            Err(Refused::Ended(_) | Refused::Fenced) => {}
        }
    }

    /// Counts the journal's bytes; where they are not there, the oldest go.
    pub(super) fn weigh(&mut self) {
        let bytes = self.journal.bytes() as u64;
        if bytes <= self.lease.held() && bytes + 4 * LEASE_STEP > self.lease.held() {
            return;
        }
        if !self.lease.resize(bytes.next_multiple_of(LEASE_STEP)) {
            let held = usize::try_from(self.lease.held()).unwrap_or(usize::MAX);
            self.journal.set_limit(held.max(LIMIT_BYTES_MIN));
        }
    }

    /// Whether event `seq` may not be shown yet: the end of a durable stream is kept before anybody
    /// hears of it.
    pub(super) fn withholds(&self, seq: u64) -> bool {
        self.unkept.is_some() && self.journal.end().is_some() && seq == self.journal.last()
    }

    /// The answer's body where it is no stream; taken once.
    pub(super) fn whole(&self) -> Option<(ResponseHead, Bytes)> {
        self.ended_at?;
        self.whole.as_ref().map(|(head, body)| (head.clone(), Bytes::copy_from_slice(body)))
    }

    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting.iter().any(|w| w.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
    }
}

/// The event that ends a stream for such a reason.
pub(super) fn last_event(why: StreamTrouble, request: RequestId) -> Vec<u8> {
    let envelope = answer(&Trouble::Stream(why)).body.envelope(Some(request.as_str()));
    let mut event = Vec::new();
    sse::write(&mut event, "error", &envelope);
    event
}

/// The answer to a request that was called off before it had one.
fn refusal(why: StreamTrouble, request: RequestId) -> Option<(ResponseHead, BytesMut)> {
    let row = answer(&Trouble::Stream(why));
    let body = row.body.envelope(Some(request.as_str()));
    let mut text = BytesMut::new();
    let mut head = HeadWriter::response(&mut text, row.status);
    row.lines(&mut head);
    own_lines(&mut head, request, None);
    head.number("content-length", body.len() as u64);
    head.end();
    // What we wrote ourselves can be read.
    let head = parse_response(&mut text, false).ok().flatten()?;
    Some((head, BytesMut::from(&body[..])))
}

/// The kind of a whole event that was let through already.
fn kind(event: &[u8]) -> Kind {
    if plain_delta(event).is_some() {
        return Kind::BlockDelta;
    }
    let parts = sse::parts(event);
    match (parts.name, &parts.data) {
        (_, None) => Kind::Comment,
        (b"", Some(data)) => {
            let named = RawObject::read(data).ok().and_then(|object| object.parse::<String>("type"));
            Kind::of_name(named.unwrap_or_default().as_bytes())
        }
        (name, _) => Kind::of_name(name),
    }
}
