//! The table of live requests: which phase, what it waits for, over which key.
//!
//! Each request has one entry, shared between the task that owns it (which writes) and the admin
//! door (which reads). What changes per event is one relaxed store into the entry's own memory;
//! the table itself is locked twice per request. What is over is in `finished`.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tidegate_base::{Moment, RequestId, StreamId};

/// Where on its way a request is (design section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Its key is being checked.
    Identify,
    /// Its body is being read.
    Decode,
    /// Its conversation is being looked up, or another turn of it is under way.
    Recall,
    /// It waits for a lease.
    Admit,
    /// It waits before another attempt.
    Backoff,
    /// A connection is being made, or the request sent.
    Exchange,
    /// It was sent and the first byte has not come.
    FirstByte,
    /// The answer is being passed on.
    Relay,
    /// The turn is being written to the conversation log.
    Keep,
    /// It is over.
    Settle,
}

impl Phase {
    /// All of them, in the order of the path.
    pub const ALL: [Phase; 10] = [
        Phase::Identify,
        Phase::Decode,
        Phase::Recall,
        Phase::Admit,
        Phase::Backoff,
        Phase::Exchange,
        Phase::FirstByte,
        Phase::Relay,
        Phase::Keep,
        Phase::Settle,
    ];

    /// Its name in `/streams`.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Identify => "identify",
            Phase::Decode => "decode",
            Phase::Recall => "recall",
            Phase::Admit => "admit",
            Phase::Backoff => "backoff",
            Phase::Exchange => "exchange",
            Phase::FirstByte => "first_byte",
            Phase::Relay => "relay",
            Phase::Keep => "keep",
            Phase::Settle => "settle",
        }
    }

    /// What a request in this phase waits for.
    pub fn waits_for(self) -> &'static str {
        match self {
            Phase::Identify | Phase::Settle => "nothing",
            Phase::Decode => "the client's body",
            Phase::Recall => "its conversation",
            Phase::Admit => "a lease on a quota domain",
            Phase::Backoff => "the time of its next attempt",
            Phase::Exchange => "a connection to the upstream",
            Phase::FirstByte => "the upstream's first byte",
            Phase::Relay => "the upstream's next event",
            Phase::Keep => "the conversation log's disk",
        }
    }
}

/// What is known only after the entry was made.
#[derive(Clone, Debug, Default)]
struct Later {
    tenant: String,
    model: String,
    conversation: Option<String>,
    last_failure: Option<&'static str>,
    lane: String,
    upstream_request_ids: Vec<String>,
    waker: Option<Waker>,
}

/// Upstream request ids that are kept of one request: one per attempt.
const UPSTREAM_IDS_MAX: usize = 16;

/// What others named, to at most 128 bytes.
pub(crate) fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(128)]
}

/// One live request.
#[derive(Debug)]
pub struct LiveRequest {
    /// Its id.
    pub request: RequestId,
    /// The id of its answer.
    pub stream: StreamId,
    /// The door it came through.
    pub door: &'static str,
    /// When its head had come.
    pub since: Moment,
    phase: AtomicU8,
    attempts: AtomicU32,
    last_byte: AtomicU64,
    cancelled: AtomicBool,
    follows: OnceLock<StreamId>,
    later: Mutex<Later>,
}

impl LiveRequest {
    /// A request that has just arrived.
    pub fn new(request: RequestId, stream: StreamId, door: &'static str, since: Moment) -> Self {
        LiveRequest {
            request,
            stream,
            door,
            since,
            phase: AtomicU8::new(Phase::Identify as u8),
            attempts: AtomicU32::new(0),
            last_byte: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            follows: OnceLock::new(),
            later: Mutex::default(),
        }
    }

    fn later(&self) -> MutexGuard<'_, Later> {
        self.later.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// The phase it is in.
    pub fn phase(&self) -> Phase {
        Phase::ALL.get(usize::from(self.phase.load(Ordering::Relaxed))).copied().unwrap_or(Phase::Settle)
    }

    /// Whose it is, and of which model.
    pub fn is_for(&self, tenant: &str, model: &str) {
        let mut later = self.later();
        later.tenant = tenant.to_owned();
        later.model = shortened(model).to_owned();
    }

    /// The conversation it is a turn of.
    pub fn is_in(&self, conversation: &str) {
        // Ids have at most 128 characters, whatever their bytes: a filter has to find them whole.
        self.later().conversation = Some(conversation.to_owned());
    }

    /// Its last attempt failed, by a cause from a closed list.
    pub fn failed(&self, cause: &'static str) {
        self.later().last_failure = Some(cause);
    }

    /// An attempt begins, over the lane so labelled.
    pub fn attempt(&self, lane: &str) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.later().lane = lane.to_owned();
    }

    /// The upstream named its own id.
    pub fn upstream_answered(&self, request_id: &str) {
        let mut later = self.later();
        if later.upstream_request_ids.len() < UPSTREAM_IDS_MAX {
            later.upstream_request_ids.push(shortened(request_id).to_owned());
        }
    }

    /// Tells of its end: the lane of the last attempt, and the ids the upstream gave to all of them.
    /// Nobody is woken for it any more.
    pub fn over(&self, tell: impl FnOnce(&str, &[String])) {
        let mut later = self.later();
        later.waker = None;
        tell(&later.lane, &later.upstream_request_ids);
    }

    /// It only reads `stream` from now on, which has an entry of its own: that one is shown. False if it
    /// was told before.
    pub fn follows(&self, stream: StreamId) -> bool {
        self.follows.set(stream).is_ok()
    }

    /// Whether it has its own answer, and not another's to read.
    pub fn is_shown(&self) -> bool {
        self.follows.get().is_none()
    }

    /// A byte came from the upstream.
    pub fn byte_came(&self, now: Moment) {
        self.last_byte.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Asks the owner to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        if let Some(waker) = self.later().waker.take() {
            waker.wake();
        }
    }

    /// Whether the owner was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Ready once the owner was asked to stop; wakes the task that polled last. A task registers
    /// once and again only when its waker changed.
    pub fn poll_cancelled(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_cancelled() {
            return Poll::Ready(());
        }
        let mut later = self.later();
        if !later.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            later.waker = Some(cx.waker().clone());
        }
        drop(later);
        if self.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Which requests are shown; what is `None` is not looked at.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those of this conversation.
    pub conversation: Option<String>,
    /// Those of this tenant.
    pub tenant: Option<String>,
    /// Those in this phase.
    pub phase: Option<Phase>,
    /// Those whose last upstream key has this label.
    pub key: Option<String>,
}

impl Filter {
    fn takes(&self, request: &LiveRequest) -> bool {
        self.phase.is_none_or(|phase| phase == request.phase()) && self.takes_names(request)
    }

    /// Whether it is shown now that it is over: it is in no phase.
    pub(crate) fn takes_finished(&self, request: &LiveRequest) -> bool {
        self.phase.is_none() && self.takes_names(request)
    }

    fn takes_names(&self, request: &LiveRequest) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let later = request.later();
        self.conversation.as_ref().is_none_or(|wanted| later.conversation.as_ref() == Some(wanted))
            && is(&self.tenant, &later.tenant)
            && is(&self.key, &later.lane)
    }
}

/// A live request as `/streams` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct LiveView {
    /// The answer's id; `DELETE /streams/{id}` takes it.
    pub stream: String,
    /// The request's id.
    pub request: String,
    /// Door, as in metrics.
    pub door: &'static str,
    /// Tenant's name.
    pub tenant: String,
    /// Model asked for.
    pub model: String,
    /// The conversation it is a turn of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// Phase it is in.
    pub phase: &'static str,
    /// What it waits for there; of one that waits for a lease, which limit or turn.
    pub waits_for: &'static str,
    /// How long it is expected to wait for a lease still, milliseconds; left out where nothing tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u64>,
    /// Label of the upstream key in use, or of the last one.
    pub upstream_key: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Why the last attempt that failed did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<&'static str>,
    /// How many connections read it, of a stream that can be read again; 0: it goes on, and nobody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readers: Option<usize>,
    /// Since its head came, milliseconds.
    pub age_ms: u64,
    /// Since the upstream's last byte, milliseconds; none if none came yet.
    pub last_byte_age_ms: Option<u64>,
    /// The upstream's own ids of the attempts.
    pub upstream_request_ids: Vec<String>,
}

/// Every live request. Clones are the same table.
#[derive(Clone, Debug, Default)]
pub struct Live {
    table: Arc<Mutex<BTreeMap<StreamId, Arc<LiveRequest>>>>,
}

impl Live {
    fn table(&self) -> MutexGuard<'_, BTreeMap<StreamId, Arc<LiveRequest>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request arrived.
    pub fn enter(&self, request: LiveRequest) -> Arc<LiveRequest> {
        let entry = Arc::new(request);
        self.table().insert(entry.stream, Arc::clone(&entry));
        entry
    }

    /// It is over.
    pub fn leave(&self, stream: StreamId) {
        self.table().remove(&stream);
    }

    /// How many there are; who only reads another's answer is not counted.
    pub fn len(&self) -> usize {
        self.table().values().filter(|e| e.is_shown()).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table().is_empty()
    }

    /// Asks a request's owner to stop. False if there is no such request.
    pub fn cancel(&self, stream: StreamId) -> bool {
        let entry = self.table().get(&stream).cloned();
        entry.inspect(|e| e.cancel()).is_some()
    }

    /// Asks every owner to stop (the end of a drain).
    pub fn cancel_all(&self) {
        let entries: Vec<_> = self.table().values().cloned().collect();
        entries.iter().for_each(|e| e.cancel());
    }

    /// What of the table `filter` takes, as of `now`, oldest first, at most `max` rows. `waits_for`
    /// knows what those wait for that wait for a lease, and how long still if that can be told.
    pub fn view(
        &self,
        now: Moment,
        max: usize,
        filter: &Filter,
        waits_for: impl Fn(StreamId) -> Option<(&'static str, Option<Duration>)>,
    ) -> Vec<LiveView> {
        let entries: Vec<_> = self.table().values().cloned().collect();
        // Looked into when the table is free again: its requests come and go meanwhile.
        let mut entries: Vec<_> = entries.into_iter().filter(|e| e.is_shown() && filter.takes(e)).collect();
        entries.sort_by_key(|e| (e.since, e.stream));
        entries.truncate(max);
        entries.iter().map(|e| e.view(now, waits_for(e.stream))).collect()
    }
}

impl LiveRequest {
    pub(crate) fn view(&self, now: Moment, waits: Option<(&'static str, Option<Duration>)>) -> LiveView {
        let ms = |from: Moment| now.since(from).as_millis() as u64;
        let later = self.later().clone();
        let last_byte = self.last_byte.load(Ordering::Relaxed);
        let phase = self.phase();
        LiveView {
            stream: self.stream.to_string(),
            request: self.request.to_string(),
            door: self.door,
            tenant: later.tenant,
            model: later.model,
            conversation: later.conversation,
            phase: phase.name(),
            waits_for: waits.map_or(phase.waits_for(), |(reason, _)| reason),
            expected_ms: waits.and_then(|(_, span)| u64::try_from(span?.as_millis()).ok()),
            upstream_key: later.lane,
            attempts: self.attempts.load(Ordering::Relaxed),
            last_failure: later.last_failure,
            readers: None,
            age_ms: ms(self.since),
            last_byte_age_ms: (last_byte > 0).then(|| ms(Moment::from_nanos(last_byte))),
            upstream_request_ids: later.upstream_request_ids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_base::{IdSource, Prng};

    fn entry(ids: &mut IdSource, ms: u64) -> LiveRequest {
        LiveRequest::new(ids.request(), ids.stream(), "messages", Moment::from_nanos(ms * 1_000_000))
    }

    #[test]
    fn the_table_shows_what_a_request_waits_for_and_forgets_it_when_it_is_over() {
        let (live, mut ids) = (Live::default(), IdSource::new(Prng::new(1), 0));
        let b = live.enter(entry(&mut ids, 20));
        let a = live.enter(entry(&mut ids, 10));
        let c = live.enter(entry(&mut ids, 30));
        a.is_for("acme", "claude-opus-5-5");
        a.attempt("main/1");
        a.enter(Phase::FirstByte);
        let waits = |stream| match stream {
            _ if stream == b.stream => Some(("output_tokens", Some(Duration::from_millis(1_500)))),
            _ if stream == c.stream => Some(("in_flight", None)),
            _ => None,
        };
        let view = live.view(Moment::from_nanos(1_010_000_000), 10, &Filter::default(), waits);
        assert_eq!(view.len(), 3);
        assert_eq!((view[2].waits_for, view[2].expected_ms), ("in_flight", None));
        assert_eq!((view[1].waits_for, view[1].expected_ms), ("output_tokens", Some(1_500)));
        assert_eq!(view[0].expected_ms, None);
        assert_eq!((view[0].stream.as_str(), view[0].age_ms, view[0].attempts), (a.stream.as_str(), 1000, 1));
        assert_eq!((view[0].waits_for, view[0].upstream_key.as_str()), ("the upstream's first byte", "main/1"));
        live.leave(a.stream);
        live.leave(b.stream);
        live.leave(c.stream);
        assert!(live.is_empty());
    }

    #[test]
    fn a_filter_takes_what_meets_all_of_it() {
        let (live, mut ids) = (Live::default(), IdSource::new(Prng::new(1), 0));
        let all: Vec<_> = (0..4).map(|n| live.enter(entry(&mut ids, n))).collect();
        for (n, request) in all.iter().enumerate() {
            request.is_for(["acme", "zeta"][n / 2], "m");
            request.is_in(["c1", "c2"][n % 2]);
            request.attempt("main/1");
        }
        all[0].enter(Phase::Relay);
        let shown = |filter: Filter| live.view(Moment::ZERO, 10, &filter, |_| None).len();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(shown(Filter::default()), 4);
        assert_eq!(shown(Filter { conversation: text("c1"), ..Filter::default() }), 2);
        assert_eq!(shown(Filter { conversation: text("c1"), tenant: text("zeta"), ..Filter::default() }), 1);
        assert_eq!(shown(Filter { phase: Some(Phase::Relay), key: text("main/1"), ..Filter::default() }), 1);
        assert_eq!(shown(Filter { key: text("main/2"), ..Filter::default() }), 0);
        assert_eq!(shown(Filter { conversation: text("c"), ..Filter::default() }), 0);
    }

    #[test]
    fn a_cancel_reaches_the_owner() {
        let (live, mut ids) = (Live::default(), IdSource::new(Prng::new(1), 0));
        let a = live.enter(entry(&mut ids, 0));
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(a.poll_cancelled(&cx), Poll::Pending);
        assert!(live.cancel(a.stream));
        assert_eq!(a.poll_cancelled(&cx), Poll::Ready(()));
        assert!(!live.cancel(ids.stream()));
    }
}
