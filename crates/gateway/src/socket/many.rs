//! `tidegate.v1`: many streams over one socket, each with its own credit, in turns.
//!
//! A stream here is a reader of its log, nothing more. What it has to say is asked for when its log
//! says there is something, when credit comes, and when it is its turn; frames about the socket and
//! about a stream's beginning and end go before events.

use super::asking::ask;
use super::open::Opened;
use crate::answer::{Answer, Trouble, answer};
use crate::house::House;
use crate::plane::Plane;
use crate::streams::{self, News, Reader, StreamTrouble};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tidegate_base::{Moment, StreamId};
use tidegate_journal::{Cursor, End};
use tidegate_transport::websocket::{Message, Socket};
use tidegate_wire::dialect::BadFrame;
use tidegate_wire::dialect::credit::{BadGrant, Credit};
use tidegate_wire::dialect::tidegate_v1::{
    ClientFrame, Create, EndReason, EventPlace, Failed, ServerFrame, write_event,
};
use tidegate_wire::dialect::turns::Turns;
use tidegate_wire::error::{ErrorBody, ErrorType};
use tidegate_wire::event::Kind;
use tidegate_wire::http::{Headers, ResponseHead};
use tidegate_wire::websocket::CloseCode;

/// Unwritten bytes past which no more events are written: what is behind stays in the logs, where it
/// is joined.
const AHEAD_BYTES: usize = 64 * 1024;
/// How often a waiting stream is told how far it is.
const WAIT_EVERY: Duration = Duration::from_secs(1);
/// When it is told first: most wait for nothing.
const WAIT_FIRST: Duration = Duration::from_millis(20);
/// Messages in a row that cannot be read, after which the socket closes.
const UNREADABLE_MAX: u32 = 16;

/// Which of a socket's streams have something to say; their logs' wakers end here.
#[derive(Default)]
struct Ready {
    keys: Mutex<(Vec<u32>, Option<Waker>)>,
}

struct StreamWaker {
    ready: Arc<Ready>,
    key: u32,
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        let mut keys = self.ready.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.0.push(self.key);
        let task = keys.1.take();
        drop(keys);
        task.into_iter().for_each(Waker::wake);
    }
}

/// One stream.
struct Entry {
    id: Box<str>,
    reader: Reader,
    credit: Credit,
    resumable: bool,
    open: bool,
    cancelled: bool,
    /// The last event written.
    seq: u64,
    waker: Waker,
    /// What it was told of its wait, and when it is told again.
    told: Option<(u64, u64)>,
    tell_at: Moment,
}

/// A stream that is looked for in the conversation log, after a restart.
struct Sought {
    id: Box<str>,
    credit: Credit,
    found: Pin<Box<dyn Future<Output = Result<Reader, Trouble>> + Send>>,
}

/// The streams of one socket.
pub(super) struct Many {
    streams: BTreeMap<u32, Entry>,
    /// Those that are not there yet; of the same number at most.
    sought: Vec<Sought>,
    names: BTreeMap<Box<str>, u32>,
    max: usize,
    next_key: u32,
    ready: Arc<Ready>,
    turns: Turns<u32>,
    /// Frames that go before events.
    first: Vec<Vec<u8>>,
    /// When the first of those that wait is told how far it is.
    tell_at: Moment,
    unreadable: u32,
    close: Option<(CloseCode, &'static str)>,
}

impl Many {
    /// One that may have `max` streams at once.
    pub(super) fn new(max: usize) -> Self {
        Many {
            streams: BTreeMap::new(),
            sought: Vec::new(),
            names: BTreeMap::new(),
            max,
            next_key: 0,
            ready: Arc::default(),
            turns: Turns::default(),
            first: Vec::new(),
            tell_at: Moment::NEVER,
            unreadable: 0,
            close: None,
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.streams.is_empty() && self.sought.is_empty() && self.first.is_empty()
    }

    pub(super) fn hear(&mut self, plane: &Arc<Plane>, opened: &Opened, message: Message<'_>) {
        if self.close.is_some() {
            return;
        }
        let Message::Text(text) = message else {
            self.close.get_or_insert((CloseCode::UNSUPPORTED, "tidegate.v1 is spoken in messages of text"));
            return;
        };
        match ClientFrame::read(text) {
            Ok(frame) => {
                self.unreadable = 0;
                self.obey(plane, opened, frame);
            }
            Err(BadFrame { id, text }) => {
                self.unreadable += 1;
                if self.unreadable >= UNREADABLE_MAX {
                    self.close.get_or_insert((CloseCode::POLICY, "too many messages in a row could not be read"));
                }
                // One that runs is not ended by what cannot be read.
                let runs = id.as_deref().is_some_and(|id| self.names.contains_key(id));
                let text = if runs { format!("{text} (id {})", id.as_deref().unwrap_or_default()) } else { text };
                self.refuse(id.as_deref().filter(|_| !runs), &answer(&Trouble::Frame(text)));
            }
        }
    }

    fn obey(&mut self, plane: &Arc<Plane>, opened: &Opened, frame: ClientFrame<'_>) {
        match frame {
            ClientFrame::Create(create) => {
                let created = self.create(plane, opened, &create);
                self.began(&create.id, created);
            }
            ClientFrame::Resume { id, stream, after, credit } => {
                let resumed = self.resume(plane, opened, &id, &stream, after.as_deref(), credit);
                self.began(&id, resumed);
            }
            // Of a stream that is over already, both are late and mean nothing.
            ClientFrame::Cancel { id } => {
                if let Some(at) = self.sought.iter().position(|sought| *sought.id == *id) {
                    self.sought.remove(at);
                    let id = Cow::Owned(id.to_string());
                    return self.say(&ServerFrame::End { id, seq: 0, reason: EndReason::Cancelled });
                }
                let found = self.names.get(&id).and_then(|key| Some((*key, self.streams.get_mut(key)?)));
                if let Some((key, entry)) = found {
                    entry.cancelled = true;
                    entry.reader.hosted().call_off();
                    self.turns.ready(key);
                }
            }
            ClientFrame::Credit { id, bytes } => {
                let entry = self.names.get(&id).and_then(|key| Some((*key, self.streams.get_mut(key)?)));
                let sought = self.sought.iter_mut().find(|sought| *sought.id == *id);
                let granted = match (entry, sought) {
                    (Some((key, entry)), _) => Some((Some(key), entry.credit.grant(bytes))),
                    (None, sought) => sought.map(|sought| (None, sought.credit.grant(bytes))),
                };
                let wrong = match granted {
                    None | Some((None, Ok(()))) => return,
                    Some((Some(key), Ok(()))) => return self.turns.ready(key),
                    Some((_, Err(BadGrant::NotCounted))) => "bytes: this stream was begun without credit",
                    Some((_, Err(BadGrant::TooMuch))) => "bytes: the balance would be over 1 GiB",
                };
                // The stream goes on: what is said about it is not its last frame.
                self.refuse(None, &answer(&Trouble::Credit(format!("{wrong} (id {id})"))));
            }
        }
    }

    /// Says so if a stream could not begin.
    fn began(&mut self, id: &str, begun: Result<(), Trouble>) {
        let Err(trouble) = begun else { return };
        // The stream that has the name is not touched.
        let id = if matches!(trouble, Trouble::IdInUse(_)) { None } else { Some(id) };
        self.refuse(id, &answer(&trouble));
    }

    fn create(&mut self, plane: &Arc<Plane>, opened: &Opened, create: &Create<'_>) -> Result<(), Trouble> {
        self.has_room(&create.id)?;
        let headers = create.headers();
        let reader = ask(plane, opened, create.request.as_bytes(), &headers)?;
        let resumable = headers.text("tidegate-resume").is_some_and(|word| word != "off");
        self.add(&plane.house, &create.id, reader, Credit::new(create.credit), resumable);
        Ok(())
    }

    fn resume(
        &mut self,
        plane: &Arc<Plane>,
        opened: &Opened,
        id: &str,
        stream: &str,
        after: Option<&str>,
        credit: Option<u64>,
    ) -> Result<(), Trouble> {
        self.has_room(id)?;
        let stream = StreamId::parse(stream).ok_or(StreamTrouble::Unknown)?;
        let after = after.map(|text| Cursor::parse(text).ok_or(StreamTrouble::BadCursor)).transpose()?;
        let credit = Credit::new(credit);
        match plane.house.streams.reader(stream, after.as_ref(), &opened.owner) {
            Ok(reader) => self.add(&plane.house, id, reader, credit, true),
            Err(StreamTrouble::Unknown) if plane.house.memory.store().is_ok() => {
                let (plane, owner) = (Arc::clone(plane), opened.owner.clone());
                let found = Box::pin(async move {
                    let hosted = streams::find(&plane.house, stream, &owner).await?;
                    Ok(Reader::at(hosted, after.as_ref())?)
                });
                self.sought.push(Sought { id: id.into(), credit, found });
            }
            Err(trouble) => return Err(trouble.into()),
        }
        Ok(())
    }

    fn has_room(&self, id: &str) -> Result<(), Trouble> {
        if self.names.contains_key(id) || self.sought.iter().any(|sought| *sought.id == *id) {
            return Err(Trouble::IdInUse(id.to_owned()));
        }
        if self.streams.len() + self.sought.len() >= self.max { Err(Trouble::StreamLimit) } else { Ok(()) }
    }

    fn add(&mut self, house: &House, id: &str, reader: Reader, credit: Credit, resumable: bool) {
        let key = self.next_key;
        self.next_key = self.next_key.wrapping_add(1);
        let waker = Waker::from(Arc::new(StreamWaker { ready: Arc::clone(&self.ready), key }));
        let tell_at = house.clock.now() + WAIT_FIRST;
        let entry = Entry {
            id: id.into(),
            seq: reader.place(),
            reader,
            credit,
            resumable,
            open: false,
            cancelled: false,
            waker,
            told: None,
            tell_at,
        };
        self.tell_at = self.tell_at.min(tell_at);
        self.streams.insert(key, entry);
        self.names.insert(id.into(), key);
        self.turns.ready(key);
    }

    /// Something is wrong, and the socket goes on.
    fn refuse(&mut self, id: Option<&str>, row: &Answer) {
        let failed = Failed {
            id: id.map(Cow::Borrowed),
            status: row.status,
            error: row.body.clone(),
            request_id: None,
            retry_after_s: row.retry_after.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
            should_retry: row.should_retry,
            cursor: None,
        };
        self.say(&ServerFrame::Error(Box::new(failed)));
    }

    fn say(&mut self, frame: &ServerFrame<'_>) {
        let mut text = Vec::new();
        frame.write(&mut text);
        self.first.push(text);
    }

    /// Writes what there is; when it is to be asked again, and whether there was more than had room.
    pub(super) fn speak(
        &mut self,
        house: &House,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        now: Moment,
    ) -> (Moment, bool) {
        self.come(cx);
        self.look(house, cx);
        let due = self.tell_waits(house, now);
        loop {
            for frame in self.first.drain(..) {
                socket.send(&frame);
            }
            if let Some((code, reason)) = self.close {
                socket.close(code, reason);
                return (Moment::NEVER, false);
            }
            if socket.unwritten() >= AHEAD_BYTES {
                return (due, true);
            }
            let Some(key) = self.turns.turn() else { return (due, false) };
            self.step(key, socket);
        }
    }

    /// Streams whose logs have something new.
    fn come(&mut self, cx: &Context<'_>) {
        let mut keys = self.ready.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.1.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            keys.1 = Some(cx.waker().clone());
        }
        for key in std::mem::take(&mut keys.0) {
            if self.streams.contains_key(&key) {
                self.turns.ready(key);
            }
        }
    }

    /// Streams of which the log has told whether it has them.
    fn look(&mut self, house: &House, cx: &mut Context<'_>) {
        for mut sought in std::mem::take(&mut self.sought) {
            match sought.found.as_mut().poll(cx) {
                Poll::Pending => self.sought.push(sought),
                Poll::Ready(Ok(reader)) => self.add(house, &sought.id, reader, sought.credit, true),
                Poll::Ready(Err(trouble)) => self.refuse(Some(&sought.id), &answer(&trouble)),
            }
        }
    }

    /// One thing of the stream whose turn it is.
    fn step(&mut self, key: u32, socket: &mut Socket) {
        let Some(entry) = self.streams.get_mut(&key) else { return self.turns.remove(key) };
        let (mut error, mut written, mut seq) = (None, 0, entry.seq);
        let (id, resumable) = (&*entry.id, entry.resumable);
        let mask = socket.mask();
        let polled =
            entry.reader.poll_next(&Context::from_waker(&entry.waker), entry.credit.may_send(), &mut |item, cursor| {
                let data = item.data();
                // An error is told as the stream's end, and has no number there.
                if item.kind == Kind::Error {
                    error = Some(data.into_owned());
                    return;
                }
                seq = item.seq;
                let cursor = resumable.then(|| cursor.to_string());
                let place = EventPlace { id, first_seq: item.first_seq, seq, cursor: cursor.as_deref() };
                write_event(socket.out(), &place, &data, mask);
                written += data.len();
            });
        entry.seq = seq;
        match polled {
            // Whoever called it off does not want what it has no credit for.
            Poll::Ready(Ok(News::Held)) if entry.cancelled => self.cancelled(key),
            Poll::Pending | Poll::Ready(Ok(News::Held)) => self.turns.idle(key),
            Poll::Ready(Ok(News::Event)) => match error {
                Some(data) => self.ended_by(key, &data),
                None => {
                    entry.credit.spend(written);
                    self.turns.wrote(key, written);
                }
            },
            Poll::Ready(Ok(News::Head(head))) => {
                entry.open = true;
                let stream = resumable.then(|| entry.reader.hosted().stream.to_string());
                let mut text = Vec::new();
                let headers = told_headers(&head);
                ServerFrame::Open { id: (&*entry.id).into(), stream: stream.map(Cow::Owned), headers }.write(&mut text);
                socket.send(&text);
            }
            Poll::Ready(Ok(News::Recovered(how, segment))) => {
                let mut text = Vec::new();
                ServerFrame::Recovered { id: (&*entry.id).into(), seq, how, segment }.write(&mut text);
                socket.send(&text);
            }
            Poll::Ready(Ok(News::Whole(head, body))) => self.refused(key, &head, &body),
            Poll::Ready(Ok(News::Ended(End::Stopped))) => {
                let id = Cow::Owned(entry.id.to_string());
                self.over(key, &ServerFrame::End { id, seq, reason: EndReason::Stop });
            }
            // Whoever comes with the cursor of the error itself, which SSE gives out, is told it.
            Poll::Ready(Ok(News::Ended(_))) => {
                let data = entry.reader.last_error().unwrap_or_default();
                self.ended_by(key, &data);
            }
            Poll::Ready(Err(trouble)) => {
                // A plain stream whose log let go of what was not read has a reader that is too slow.
                let slow = trouble == StreamTrouble::Gone && !resumable;
                let trouble = if slow { StreamTrouble::SlowReader } else { trouble };
                let row = answer(&trouble.into());
                self.fail(key, &row, None);
            }
        }
    }

    /// The log ends with an `error` event.
    fn ended_by(&mut self, key: u32, data: &[u8]) {
        let Some(entry) = self.streams.get(&key) else { return };
        if entry.cancelled {
            return self.cancelled(key);
        }
        let body = ErrorBody::read(data).unwrap_or_else(|| ErrorBody::new(ErrorType::Api, "upstream_error", "unknown"));
        let status = ErrorType::of_name(&body.kind).unwrap_or(ErrorType::Api).status();
        self.failed(key, status, body, None, None);
    }

    /// The client called it off.
    fn cancelled(&mut self, key: u32) {
        let Some(entry) = self.streams.get(&key) else { return };
        let id = Cow::Owned(entry.id.to_string());
        self.over(key, &ServerFrame::End { id, seq: entry.seq, reason: EndReason::Cancelled });
    }

    /// The answer is none: a refusal with its own status and lines.
    fn refused(&mut self, key: u32, head: &ResponseHead, body: &[u8]) {
        let unread = || ErrorBody::new(ErrorType::Api, "upstream_refused", "the upstream refused the request");
        let body = ErrorBody::read(body).unwrap_or_else(unread);
        let retry_after = head.headers.text("retry-after").and_then(|v| v.parse().ok());
        let should_retry = head.headers.text("x-should-retry").map(|v| v == "true");
        self.failed(key, head.status, body, retry_after, should_retry);
    }

    fn fail(&mut self, key: u32, row: &Answer, retry_after: Option<u64>) {
        self.failed(key, row.status, row.body.clone(), retry_after, row.should_retry);
    }

    fn failed(
        &mut self,
        key: u32,
        status: u16,
        error: ErrorBody,
        retry_after_s: Option<u64>,
        should_retry: Option<bool>,
    ) {
        let Some(entry) = self.streams.get(&key) else { return };
        let hosted = entry.reader.hosted();
        let frame = ServerFrame::Error(Box::new(Failed {
            id: Some(Cow::Owned(entry.id.to_string())),
            status,
            error,
            request_id: Some(Cow::Owned(hosted.request.to_string())),
            retry_after_s,
            should_retry,
            cursor: None,
        }));
        self.over(key, &frame);
    }

    fn over(&mut self, key: u32, frame: &ServerFrame<'_>) {
        self.say(frame);
        self.turns.remove(key);
        if let Some(entry) = self.streams.remove(&key) {
            self.names.remove(&entry.id);
        }
    }

    /// Tells those that wait for quota how far they are; when the next is to be told.
    fn tell_waits(&mut self, house: &House, now: Moment) -> Moment {
        let mut due = Moment::NEVER;
        if now < self.tell_at {
            return self.tell_at;
        }
        let mut told = Vec::new();
        for entry in self.streams.values_mut().filter(|entry| !entry.open) {
            if now >= entry.tell_at {
                entry.tell_at = now + WAIT_EVERY;
                let wait = house.admission.wait_of(entry.reader.hosted().stream, now);
                let place = wait.map(|wait| (wait.ahead as u64, wait.expected.as_millis() as u64));
                if place.is_some() && place != entry.told {
                    entry.told = place;
                    told.push((entry.id.clone(), place));
                }
            }
            due = due.min(entry.tell_at);
        }
        self.tell_at = due;
        for (id, place) in told {
            let (position, expected_ms) = (place.map(|p| p.0), place.map(|p| p.1));
            self.say(&ServerFrame::Wait { id: Cow::Borrowed(&id), position, expected_ms });
        }
        due
    }
}

/// What is told of an answer's header lines: all that is about the answer, and not about how it came.
fn told_headers(head: &ResponseHead) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    const NOT_TOLD: [&str; 8] = [
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "date",
        "tidegate-stream",
        "transfer-encoding",
        "x-accel-buffering",
    ];
    let lines: &Headers = &head.headers;
    let text =
        |(name, value)| Some((std::str::from_utf8(name).ok()?.to_ascii_lowercase(), std::str::from_utf8(value).ok()?));
    let told = lines.iter().filter_map(text).filter(|(name, _)| !NOT_TOLD.contains(&name.as_str()));
    // Each name once: the last line counts.
    let told: BTreeMap<String, &str> = told.collect();
    told.into_iter().map(|(name, value)| (Cow::Owned(name), Cow::Borrowed(value))).collect()
}
