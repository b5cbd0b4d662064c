//! Phase 9, relay: the answer, event by event.
//!
//! The upstream is read whenever it has something; whole events go on at once, half ones wait for
//! their end. A tap sees each event go by: when content begins, what usage says, whether the end
//! came. Two clocks watch the upstream (gap: no byte, and over HTTP/2 no sign of life either;
//! progress: no content event), and the reply watches the client. A stream that ends without `message_stop` is broken, whatever its framing
//! says.

use crate::admit::LeaseGuard;
use crate::answer::Trouble;
use crate::decode::Body;
use crate::endpoint::Endpoint;
use crate::exchange::covered;
use crate::failure::Failure;
use crate::house::House;
use crate::memory::Heard;
use crate::mending::Mending;
use crate::progress::Meter;
use crate::references::Home;
use crate::reply::{Interrupt, Reply};
use std::borrow::Cow;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_base::{ByteLease, Moment};
use tidegate_journal::recover::Action;
use tidegate_observe::{GapCounts, LiveRequest};
use tidegate_schedule::Cause;
use tidegate_transport::ClientError;
use tidegate_upstream::{Exchange, Veil};
use tidegate_wire::assemble::Assembler;
use tidegate_wire::blame::blame;
use tidegate_wire::error::ErrorType;
use tidegate_wire::event::{Kind, Rotten, Tap, output_twelfths};
use tidegate_wire::http::ResponseHead;
use tidegate_wire::sse::Splitter;
use tidegate_wire::usage::Usage;

/// Reads of one upstream in a row before other streams of the thread get their turn.
const READS_IN_A_ROW: usize = 16;
/// How long the end of the body may lag behind `message_stop` before the connection is given up.
const END_LAG_MAX: Duration = Duration::from_secs(1);

/// How relaying ended, if nobody interrupted it.
pub(crate) enum Relayed {
    /// The whole answer was passed on, or is assembled.
    Whole,
    /// The upstream failed.
    Failed(Box<Failure>),
    /// The answer cannot be held whole.
    TooLarge(Trouble),
}

/// What a relay is given.
pub(crate) struct RelayParts<'a> {
    /// The client asked for no stream.
    pub(crate) assembles: bool,
    /// The answer is a turn's: it is put together whoever asked for what, and its end is held back.
    pub(crate) keeps: bool,
    /// Long silences are normal.
    pub(crate) thinks_unseen: bool,
    /// Let go with the first content that is passed on.
    pub(crate) body: &'a mut Option<Body>,
    pub(crate) lease: &'a LeaseGuard,
    pub(crate) meter: Option<Meter<'a>>,
    /// What joins this reply to the ones before it.
    pub(crate) mending: Option<&'a mut Mending>,
    /// What those have put together.
    pub(crate) said: Option<Assembler>,
    pub(crate) home: Option<&'a Home>,
    /// What the endpoint's answers may lack.
    pub(crate) endpoint: Endpoint,
    /// The client's credential is the upstream's.
    pub(crate) own_credential: bool,
    /// What covers the secrets that the request went with.
    pub(crate) veil: Veil,
}

/// One answer on its way through.
pub(crate) struct Relay<'a> {
    house: &'a House,
    live: &'a LiveRequest,
    /// The upstream's head, until it was sent on with the first event or the whole answer.
    head: Option<ResponseHead>,
    /// The request's body, held as long as it may have to be sent again.
    body: &'a mut Option<Body>,
    /// Told when the first event comes.
    lease: &'a LeaseGuard,
    /// What is produced, where the scheduler wants to know.
    meter: Option<Meter<'a>>,
    /// Where ids that the answer makes known are remembered, if it may.
    home: Option<&'a Home>,
    /// What joins this reply to the ones before it, if it may have to be.
    mending: Option<&'a mut Mending>,
    own_credential: bool,
    veil: Veil,
    endpoint: Endpoint,
    splitter: Splitter,
    /// What was seen of the stream.
    pub(crate) tap: Tap,
    /// Gaps between reads.
    pub(crate) gaps: GapCounts,
    /// The answer being put together, for a client that asked for no stream or for a conversation.
    assembler: Option<Assembler>,
    /// Whether the request may have to be sent again after content.
    mends: bool,
    /// Whether events are passed on.
    passes: bool,
    /// Whether the last one is held back, and that one.
    holds: bool,
    end: Vec<u8>,
    bytes: ByteLease,
    /// Whether content was seen, passed on or not.
    pub(crate) content_seen: bool,
    produced: Produced,
    last_byte: Moment,
    last_progress: Moment,
    progress_span: Duration,
    failure: Option<Box<Failure>>,
    too_large: Option<Trouble>,
}

impl<'a> Relay<'a> {
    /// A relay that begins now.
    pub(crate) fn new(house: &'a House, live: &'a LiveRequest, head: ResponseHead, parts: RelayParts<'a>) -> Self {
        let now = house.clock.now();
        let clocks = &house.settings.clocks;
        let RelayParts {
            assembles,
            keeps,
            thinks_unseen,
            body,
            lease,
            meter,
            mending,
            said,
            home,
            endpoint,
            own_credential,
            veil,
        } = parts;
        let mends = mending.is_some();
        Relay {
            house,
            live,
            head: Some(head),
            body,
            lease,
            meter,
            home,
            mending,
            own_credential,
            veil,
            endpoint,
            splitter: Splitter::new(),
            tap: Tap::new(),
            gaps: GapCounts::default(),
            assembler: said.or_else(|| (assembles || keeps).then(Assembler::new)),
            mends,
            passes: !assembles,
            holds: keeps,
            end: Vec::new(),
            bytes: house.backlogs.empty_lease(),
            content_seen: false,
            produced: Produced::default(),
            last_byte: now,
            last_progress: now,
            progress_span: if thinks_unseen { clocks.progress_unseen } else { clocks.progress },
            failure: None,
            too_large: None,
        }
    }

    /// Relays until the stream ends, fails, or is interrupted.
    pub(crate) async fn run(&mut self, exchange: &mut Exchange, reply: &mut Reply<'_>) -> Result<Relayed, Interrupt> {
        poll_fn(|cx| self.poll(cx, exchange, reply)).await
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
        reply: &mut Reply<'_>,
    ) -> Poll<Result<Relayed, Interrupt>> {
        let now = self.house.clock.now();
        let ended = self.poll_upstream(cx, now, exchange, reply);
        if ended.is_pending() && !self.tap.stopped && !exchange.is_alive(now, self.last_byte) {
            self.fail(Failure::by_clock(Cause::Gap, "probe"));
        }
        let due = self.due(exchange);
        // The client's side first: what has just been read is written before anything is judged.
        let progresses = self.tap.started() && now < self.last_progress + self.progress_span;
        if let Poll::Ready(why) = reply.poll_watch(cx, now, due, progresses) {
            // Of a message that has ended nothing is left to be cancelled or late; and a turn's is
            // kept whole, whoever is still there to read its end.
            let late = matches!(why, Interrupt::Cancelled | Interrupt::Deadline);
            let told = self.tap.stopped && (late || self.holds);
            return Poll::Ready(if told { Ok(Relayed::Whole) } else { Err(why) });
        }
        if let Some(trouble) = self.too_large.take() {
            return Poll::Ready(Ok(Relayed::TooLarge(trouble)));
        }
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Ok(Relayed::Failed(failure)));
        }
        match ended {
            Poll::Ready(()) if self.tap.stopped => Poll::Ready(Ok(Relayed::Whole)),
            Poll::Ready(()) => {
                let failure = Failure::new(Cause::BadStream, "the stream ended without message_stop");
                Poll::Ready(Ok(Relayed::Failed(Box::new(
                    failure.telling("the upstream's stream ended before its message did"),
                ))))
            }
            Poll::Pending if now >= due => Poll::Ready(Ok(self.expired(now, exchange))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Reads what is there; ready once the body has ended or failed.
    fn poll_upstream(
        &mut self,
        cx: &mut Context<'_>,
        now: Moment,
        exchange: &mut Exchange,
        reply: &mut Reply<'_>,
    ) -> Poll<()> {
        for _ in 0..READS_IN_A_ROW {
            match exchange.poll_body(cx, &mut |piece| {
                self.byte_came(now);
                self.take(piece, reply);
            }) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(false)) if self.failure.is_none() && self.too_large.is_none() => {
                    if reply.wants_flush() {
                        break;
                    }
                }
                Poll::Ready(Ok(_)) => return Poll::Ready(()),
                Poll::Ready(Err(e)) => {
                    // What breaks after the message has ended breaks nothing of it.
                    if !self.tap.stopped {
                        self.fail(broken(&e));
                    }
                    return Poll::Ready(());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn byte_came(&mut self, now: Moment) {
        if now > self.last_byte {
            self.gaps.add(now.since(self.last_byte));
        }
        self.last_byte = now;
        self.live.byte_came(now);
    }

    /// Takes in one piece of the body.
    fn take(&mut self, piece: &[u8], reply: &mut Reply<'_>) {
        if self.tap.stopped || self.failure.is_some() {
            return;
        }
        let mut splitter = std::mem::take(&mut self.splitter);
        let split = splitter.feed(piece, |event| self.event(event, reply));
        self.splitter = splitter;
        if split.is_err() {
            let failure = Failure::new(Cause::BadStream, "an event over 16 MiB");
            self.fail(failure.telling("the upstream sent an event over 16 MiB"));
        }
    }

    /// Takes in one whole event.
    fn event(&mut self, event: &[u8], reply: &mut Reply<'_>) {
        if self.tap.stopped || self.failure.is_some() {
            return;
        }
        let counts = self.tap.counts;
        let kind = match self.tap.see(event) {
            Ok(kind) => kind,
            Err(rotten) => return self.fail(garbage(&rotten)),
        };
        let rewritten = self.tap.rewritten.take();
        // Of content every word is the model's.
        let covered = if kind.is_a_models() { None } else { self.covered(rewritten.as_deref().unwrap_or(event)) };
        let event = covered.as_deref().or(rewritten.as_deref()).unwrap_or(event);
        if kind == Kind::Error {
            return self.fail(self.in_stream_error());
        }
        if kind == Kind::BlockDelta {
            let twelfths = output_twelfths(event);
            self.produced.add(twelfths);
            self.meter.iter().for_each(|meter| meter.add(twelfths));
        } else {
            // Nothing at all is no count of something.
            if kind == Kind::MessageDelta && self.tap.counts > counts && self.tap.usage.output > 0 {
                self.produced.counted();
            }
            if let Some(home) = self.home {
                home.sees(&self.house.references, self.house.place(self.lease.lane()), event);
            }
        }
        if self.tap.events == 1 || kind == Kind::MessageStart {
            self.lease.began(&self.tap.usage);
        }
        let whole = match kind {
            Kind::MessageStart if self.endpoint.maps() || !self.tap.begins_counted => self.endpoint.start(event),
            Kind::MessageDelta
                if self.tap.counts == counts || self.tap.usage.output == 0 && self.produced.since > 0 =>
            {
                self.endpoint.counted(event, self.produced.output(self.tap.usage.output))
            }
            _ => Cow::Borrowed(event),
        };
        let event = &*whole;
        if kind.is_progress() {
            self.last_progress = self.last_byte;
        }
        self.content_seen |= kind.is_content();
        match self.mending.take() {
            None => self.put(kind, event, reply),
            Some(mending) => {
                if kind.is_progress()
                    && let Some(comment) = mending.answered().filter(|_| reply.content)
                {
                    reply.push_event(comment.as_bytes(), self.last_byte);
                }
                let fed = mending.mender.feed(kind, event, &mut |kind, event| self.put(kind, event, reply));
                self.mending = Some(mending);
                if let Err(why) = fed {
                    let failure = Failure::new(Cause::BadStream, why.reason());
                    let failure = failure.telling("the upstream's answer broke off, and could not be taken up again");
                    self.fail(Failure { is_final: true, ..failure });
                }
            }
        }
    }

    /// The reply broke off: what is to be done about it, where something can be.
    pub(crate) fn cut(&mut self, reply: &mut Reply<'_>) -> Option<Action> {
        let mending = self.mending.take()?;
        let action = mending.mender.cut(&mut |kind, event| self.put(kind, event, reply));
        self.mending = Some(mending);
        Some(action)
    }

    /// Puts an event of the message, as its client is to see it, where it belongs.
    fn put(&mut self, kind: Kind, event: &[u8], reply: &mut Reply<'_>) {
        if let Some(assembler) = &mut self.assembler {
            if let Err(e) = assembler.add(event) {
                let failure = Failure::new(Cause::BadStream, e.0);
                return self.fail(failure.telling("the upstream's stream makes no message"));
            }
            let bytes = assembler.bytes() as u64;
            let limit = self.house.settings.limits.answer_bytes;
            if bytes > limit {
                self.too_large = Some(Trouble::AnswerTooLarge { limit });
            } else if !self.bytes.resize(bytes) {
                self.too_large = Some(Trouble::BacklogBudget);
            }
        }
        if self.holds && kind == Kind::MessageStop {
            self.end = event.to_vec();
        } else if self.passes {
            self.pass(kind, event, reply);
        }
    }

    /// Passes one event on, unless the client has it already or could not use it.
    fn pass(&mut self, kind: Kind, event: &[u8], reply: &mut Reply<'_>) {
        match kind {
            // Of a repeated attempt: the client has seen one, and a second breaks its parser.
            Kind::MessageStart if reply.started => {}
            // Before the message's start there is nothing to keep alive but what our own
            // heartbeat keeps, and the true status can still be told.
            Kind::Ping | Kind::Comment if !reply.started => {}
            _ => {
                reply.started |= kind == Kind::MessageStart;
                if kind.is_content() && !reply.content {
                    reply.content = true;
                    if !self.mends {
                        *self.body = None;
                    }
                }
                if let Some(head) = self.head.take() {
                    reply.begin_stream(Some(&head));
                }
                reply.push_event(event, self.last_byte);
            }
        }
    }

    /// An event with stars where a secret stands, if one does.
    #[inline(never)]
    fn covered(&self, event: &[u8]) -> Option<Vec<u8>> {
        match self.veil.bytes(event) {
            Cow::Borrowed(_) => None,
            Cow::Owned(covered) => Some(covered),
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(Box::new(failure));
    }

    /// An `error` event, judged as if it had been the status.
    fn in_stream_error(&self) -> Failure {
        let envelope = self.tap.error.as_deref().cloned().map(|said| covered(&self.veil, said));
        let kind = envelope.as_ref().and_then(|e| ErrorType::of_name(&e.kind)).unwrap_or(ErrorType::Api);
        let detail = || format!("error event {}", kind.name());
        let blamed = blame(kind.status(), envelope.as_ref());
        let blamed = blamed.and_then(|blamed| Failure::blaming_own(blamed, self.own_credential, detail()));
        // What is about the request itself has begun like an answer, and ends as it is.
        let is_about_it = blamed.is_none();
        let failure = blamed.unwrap_or_else(|| Failure::new(Cause::ServerError, detail()));
        Failure { status: Some(kind.status()), is_final: is_about_it || failure.is_final, envelope, ..failure }
    }

    /// When the first of the upstream's clocks runs out. A connection that can be asked for a sign
    /// of life is asked; one that cannot is given longer.
    fn due(&self, exchange: &Exchange) -> Moment {
        if self.tap.stopped {
            // From `message_stop` on, the last progress there was: later bytes buy no time.
            return self.last_progress + END_LAG_MAX;
        }
        let gap = exchange.probe_due(self.last_byte).unwrap_or(self.last_byte + self.house.settings.clocks.gap);
        gap.min(self.last_progress + self.progress_span)
    }

    fn expired(&self, now: Moment, exchange: &Exchange) -> Relayed {
        if self.tap.stopped {
            return Relayed::Whole;
        }
        // Over HTTP/2 it is progress: what is due to be asked has been asked above.
        let gap =
            exchange.probe_due(self.last_byte).is_none() && now >= self.last_byte + self.house.settings.clocks.gap;
        Relayed::Failed(Box::new(Failure::by_clock(Cause::Gap, if gap { "gap" } else { "progress" })))
    }

    /// What this reply used.
    pub(crate) fn used(&mut self) -> Usage {
        match &mut self.mending {
            Some(mending) => mending.newly_used(),
            None => Usage { output: self.produced.output(self.tap.usage.output), ..self.counted_input() },
        }
    }

    /// The upstream's counts, with an estimate of the input if it counts none.
    fn counted_input(&self) -> Usage {
        let input = if self.is_input_estimated() { self.lease.input() } else { self.tap.usage.input };
        Usage { input, ..self.tap.usage }
    }

    /// Whether the input of that is an estimate.
    pub(crate) fn is_input_estimated(&self) -> bool {
        self.tap.started() && !self.tap.usage.has_input()
    }

    /// Whether the output of that is an estimate: the upstream has not counted the last of it.
    pub(crate) fn is_estimated(&self) -> bool {
        self.produced.since > 0
    }

    /// What came of an answer that did not end.
    pub(crate) fn take_said(&mut self) -> Option<Assembler> {
        self.assembler.take()
    }

    /// The whole answer, and what the client does not have of it yet.
    pub(crate) fn hear(mut self) -> Result<Heard, Box<Failure>> {
        let message = assembled(self.assembler.take())?;
        Ok(match self.head.take() {
            Some(head) if !self.passes => Heard::Whole { head, assembled: true, message, lease: self.bytes },
            _ => Heard::Stream { end: self.end, message },
        })
    }

    /// Gives the client the assembled answer.
    pub(crate) fn give_assembled(self, reply: &mut Reply<'_>) -> Result<(), Box<Failure>> {
        let json = assembled(self.assembler)?;
        if let Some(head) = &self.head {
            let with: [(&str, &[u8]); 1] = [("content-type", b"application/json")];
            reply.whole(head, &["content-type", "cache-control"], &with, &json, self.bytes);
        }
        Ok(())
    }
}

/// What an answer has produced, by its length, in twelfths of a token. The upstream counts it in
/// `message_delta`, at the end; of an answer that was cancelled or broke off nobody says what it cost.
#[derive(Debug, Default)]
struct Produced {
    all: u64,
    /// Since the upstream counted last.
    since: u64,
}

impl Produced {
    fn add(&mut self, twelfths: u32) {
        self.all += u64::from(twelfths);
        self.since += u64::from(twelfths);
    }

    fn counted(&mut self) {
        self.since = 0;
    }

    /// Tokens, where the upstream's last count was `counted`.
    fn output(&self, counted: u64) -> u64 {
        if self.since == 0 { counted } else { counted.max(self.all / 12) }
    }
}

fn assembled(answer: Option<Assembler>) -> Result<Vec<u8>, Box<Failure>> {
    let whole = answer.unwrap_or_default().finish();
    whole.map_err(|e| Box::new(Failure::new(Cause::BadStream, e.0).telling("the upstream's stream makes no message")))
}

fn broken(error: &ClientError) -> Failure {
    let failure = Failure::new(Cause::BadStream, error.to_string());
    Failure { clock: error.clock(), ..failure }.telling("the upstream's connection broke inside its answer")
}

fn garbage(rotten: &Rotten) -> Failure {
    match rotten {
        Rotten::Json => Failure::new(Cause::BadStream, "an event is not valid JSON")
            .telling("the upstream sent an event that is not valid JSON"),
        Rotten::Order => {
            Failure::new(Cause::BadStream, "events out of order").telling("the upstream's events came out of order")
        }
    }
}
