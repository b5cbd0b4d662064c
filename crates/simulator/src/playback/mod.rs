//! What goes out on the wire and when: the events of an answer with the faults among them.
//!
//! [`Playback`] is pulled: each [`Step`] is due `at` so long after the response head, and the last
//! one is always an ending. Nothing is computed before it is asked for, so a stream of a million
//! events holds one event. A fault takes effect once, at the first event its place is in; what is
//! left of that event after a stall is looked at again, so several faults may meet in one event.
//! `place.rs` finds the place, `rotten.rs` has the bytes that no API should send.

mod place;
mod rotten;

pub(crate) use rotten::garbled_body;

use crate::envelope::{error_event, error_event_saying};
use crate::events::{Events, Frame, Kind, ping_bytes};
use crate::fault::{Cut, Fault};
use crate::odd::Odd;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;
use tidegate_base::Prng;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes of the body.
    Send(Bytes),
    /// Send these bytes as the beginning of an HTTP chunk of `declared` bytes, the rest of which
    /// never comes: [`Action::Close`] or [`Action::Reset`] follows.
    Torn {
        /// What is sent of the chunk.
        bytes: Bytes,
        /// What the chunk says its length is.
        declared: usize,
    },
    /// The body ends as HTTP has it.
    End,
    /// The connection is closed in the middle of the body.
    Close,
    /// The same, but what the client sends is read on until it leaves.
    HalfClose,
    /// The connection is dropped as it is: TLS says no goodbye.
    Truncate,
    /// WebSocket's close frame with this code; otherwise a close.
    CloseCode(u16),
    /// The connection is reset.
    Reset,
    /// HTTP/2's GOAWAY. Without an error streams go on and new ones are refused; with one all of them
    /// end, and it is the last step. To HTTP/1.1 it is a close after the answer, or at once.
    GoAway {
        /// INTERNAL_ERROR instead of NO_ERROR.
        error: bool,
    },
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, counted from the response head.
    pub at: Duration,
    /// What.
    pub action: Action,
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the body handed out.
    pub body_bytes: u64,
    /// Output tokens in them.
    pub output_tokens: u64,
    /// Bytes of content (text, visible thinking, tool input) in them.
    pub content_bytes: u64,
    /// How many of the request's faults have taken effect.
    pub faults: u64,
}

/// A fault that waits for its place, with a random number of its own.
#[derive(Clone, Debug)]
struct Waiting {
    fault: Fault,
    /// Content events before this share of the answer (per mille of its tokens) are spared.
    spared: u64,
    spot: u64,
}

#[derive(Clone, Debug)]
enum Source {
    Events(Box<Events>),
    Body(Option<Frame>),
}

/// The steps of one answer.
#[derive(Clone, Debug)]
pub struct Playback {
    source: Source,
    waiting: Vec<Waiting>,
    odds: Vec<Odd>,
    request_id: String,
    output_tokens: u64,
    /// What is left of an event that was broken in two.
    rest: Option<Frame>,
    due: VecDeque<Step>,
    late: Duration,
    ping: Duration,
    events: u64,
    progress: Progress,
    over: bool,
    /// The words of the error that ends it, once it has run out of output tokens.
    run_out: Option<String>,
    /// When the last step was due.
    last: Duration,
}

impl Playback {
    fn new(source: Source, request_id: &str, output_tokens: u64, faults: &[Fault], prng: &mut Prng) -> Self {
        let odds = faults.iter().filter_map(|fault| if let Fault::Odd(odd) = fault { Some(*odd) } else { None });
        let waiting = faults
            .iter()
            .filter(|fault| !matches!(fault, Fault::Odd(_)))
            .map(|fault| Waiting { fault: fault.clone(), spared: prng.below(700), spot: prng.next_u64() })
            .collect();
        Playback {
            source,
            odds: odds.collect(),
            waiting,
            request_id: request_id.to_owned(),
            output_tokens,
            rest: None,
            due: VecDeque::new(),
            late: Duration::ZERO,
            ping: Duration::from_secs(15),
            events: 0,
            progress: Progress::default(),
            over: false,
            run_out: None,
            last: Duration::ZERO,
        }
    }

    /// A stream.
    pub(crate) fn stream(
        events: Events,
        ping: Duration,
        request_id: &str,
        output_tokens: u64,
        faults: &[Fault],
        prng: &mut Prng,
    ) -> Self {
        let source = Source::Events(Box::new(events));
        Playback { ping, ..Playback::new(source, request_id, output_tokens, faults, prng) }
    }

    /// A body sent whole, of which only its bytes can be cut.
    pub(crate) fn body(bytes: Bytes, tokens: u64, content_bytes: u64, faults: &[Fault], prng: &mut Prng) -> Self {
        let at = Duration::ZERO;
        let kind = Kind::Body;
        let frame = Frame { at, bytes, kind, tokens, content_bytes, ends_block: true, last_piece: true, begun: false };
        Playback::new(Source::Body(Some(frame)), "", tokens, faults, prng)
    }

    /// No body at all.
    pub(crate) fn nothing() -> Self {
        let playback = Playback::new(Source::Body(None), "", 0, &[], &mut Prng::new(0));
        Playback { over: true, ..playback }
    }

    /// How far the answer has come with the steps handed out so far.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// No output tokens are left: a stream ends here with an `error` event that says so. A buffered
    /// answer, and one whose content is out, goes on.
    pub fn run_out(&mut self, message: String) {
        self.run_out.get_or_insert(message);
    }

    /// The end of a stream that has run out; half an event that is out is completed first.
    fn cut_short(&mut self) -> bool {
        let whole = self.progress.output_tokens >= self.output_tokens || self.rest.as_ref().is_some_and(|r| r.begun);
        let Some(message) = self.run_out.as_ref().filter(|_| !whole && matches!(self.source, Source::Events(_))) else {
            return false;
        };
        let event = error_event_saying("rate_limit_error", message, &self.request_id);
        self.send(self.last, event);
        self.finish(self.last, Action::End);
        true
    }

    fn send(&mut self, at: Duration, bytes: Bytes) {
        if !bytes.is_empty() {
            self.progress.body_bytes += bytes.len() as u64;
            self.due.push_back(Step { at, action: Action::Send(bytes) });
        }
    }

    fn finish(&mut self, at: Duration, action: Action) {
        self.over = true;
        self.due.push_back(Step { at, action });
    }

    fn take_frame(&mut self) -> Option<Frame> {
        if let Some(rest) = self.rest.take() {
            return Some(rest);
        }
        let frame = match &mut self.source {
            // One after the other; an event that one of them takes away is gone.
            Source::Events(events) => {
                let odds = &self.odds;
                events.find_map(|frame| odds.iter().try_fold(frame, |frame, odd| odd.event(frame)))
            }
            Source::Body(body) => body.take(),
        }?;
        self.events += 1;
        Some(Frame { at: frame.at + self.late, ..frame })
    }

    fn plan(&mut self) {
        if self.cut_short() {
            return;
        }
        let Some(frame) = self.take_frame() else {
            let at = self.late;
            return self.finish(at, Action::End);
        };
        let hit = self.waiting.iter().enumerate().find_map(|(n, waiting)| Some((n, self.offset(waiting, &frame)?)));
        match hit {
            None => self.pass(frame),
            Some((n, offset)) => {
                let fault = self.waiting.remove(n).fault;
                self.progress.faults += 1;
                self.strike(&fault, frame, offset);
            }
        }
    }

    /// The end of the answer comes when its last event did.
    fn pass(&mut self, frame: Frame) {
        self.progress.output_tokens = frame.tokens;
        self.progress.content_bytes = frame.content_bytes;
        let last = matches!(frame.kind, Kind::MessageStop | Kind::Body);
        self.send(frame.at, frame.bytes);
        if last {
            self.finish(frame.at, Action::End);
        }
    }

    fn strike(&mut self, fault: &Fault, mut frame: Frame, offset: usize) {
        let at = frame.at;
        match fault {
            Fault::Cut(Cut::End, _) => {
                self.send(at, frame.bytes.slice(..offset));
                self.finish(at, Action::End);
            }
            Fault::Cut(cut, _) => {
                if offset > 0 {
                    let declared = frame.bytes.len();
                    self.progress.body_bytes += offset as u64;
                    let action = Action::Torn { bytes: frame.bytes.slice(..offset), declared };
                    self.due.push_back(Step { at, action });
                }
                self.finish(
                    at,
                    match cut {
                        Cut::Reset => Action::Reset,
                        Cut::HalfClose => Action::HalfClose,
                        Cut::Truncate => Action::Truncate,
                        Cut::GoAway => Action::GoAway { error: true },
                        Cut::Code(code) => Action::CloseCode(*code),
                        Cut::Close | Cut::End => Action::Close,
                    },
                );
            }
            Fault::Stall { span, pings, .. } => {
                let head = if *pings { Bytes::new() } else { frame.bytes.split_to(offset) };
                self.send(at, head);
                if *pings {
                    let mut ping_at = self.ping;
                    while ping_at < *span {
                        self.send(at + ping_at, ping_bytes());
                        ping_at += self.ping;
                    }
                }
                self.late += *span;
                self.rest = Some(Frame { at: at + *span, begun: offset > 0 && !*pings, ..frame });
            }
            Fault::ErrorEvent(_, kind) => {
                self.send(at, error_event(kind, &self.request_id));
                self.finish(at, Action::End);
            }
            Fault::Garbage(_) => {
                frame.bytes = rotten::garbled(&frame.bytes);
                self.pass(frame);
            }
            Fault::Unknown(_) => {
                self.send(at, Bytes::from_static(rotten::UNKNOWN_EVENT));
                self.rest = Some(frame);
            }
            Fault::Huge(_, bytes) => {
                self.send(at, rotten::huge_event(*bytes));
                self.rest = Some(frame);
            }
            Fault::Swap(_) => self.swap(frame),
            Fault::GoAway(_) => {
                self.due.push_back(Step { at, action: Action::GoAway { error: false } });
                self.rest = Some(frame);
            }
            Fault::Duplicate(_) => {
                self.send(at, frame.bytes.clone());
                self.rest = Some(frame);
            }
            // What comes before the body is not for the playback.
            Fault::SlowConnect(_)
            | Fault::SlowHead(_)
            | Fault::Status { .. }
            | Fault::NoHead { .. }
            | Fault::Trickle(_)
            | Fault::OneByte
            | Fault::NoPong
            | Fault::NoUpgrade
            | Fault::Odd(_) => {
                self.rest = Some(frame);
            }
        }
    }

    /// Puts a frame behind the next that is no ping; the two are one from here on.
    fn swap(&mut self, mut frame: Frame) {
        while let Some(next) = self.take_frame() {
            if next.kind == Kind::Ping {
                self.send(next.at, next.bytes);
                continue;
            }
            let bytes = Bytes::from([&next.bytes[..], &frame.bytes[..]].concat());
            frame = Frame { bytes, ..next };
            break;
        }
        self.rest = Some(frame);
    }
}

impl Iterator for Playback {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        while self.due.is_empty() && !self.over {
            self.plan();
        }
        let step = self.due.pop_front()?;
        self.last = step.at;
        Some(step)
    }
}
