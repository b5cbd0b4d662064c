//! One stream and its readers: who asks, who comes back and from where, who deletes it.

use crate::world::faulted::book::Book;
use crate::world::faulted::plan::{Ask, Back, Class, Door, Recover, Slot, TENANTS, Visit};
use crate::world::faulted::socket::Shared;
use crate::world::faulted::talk;
use crate::world::faulted::visit::{Came, Reader, Town, Want, locked, number};
use crate::world::scene::key;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_base::Moment;
use tokio::sync::Notify;

/// No reading may take longer; one that does hangs.
const HANG: Duration = Duration::from_secs(3_000);
/// A reader whose socket is dropped under it comes back so often, beyond what was planned.
const AGAIN_MAX: usize = 40;

/// One reading, as it went.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) door: Door,
    pub(crate) began: Moment,
    pub(crate) ended: Moment,
    pub(crate) came: Came,
    /// It came back, and behind which event.
    pub(crate) after: Option<u64>,
}

/// What is known of one stream in the end.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) book: Mutex<Book>,
    pub(crate) stream: Mutex<Option<String>>,
    pub(crate) reads: Mutex<Vec<Read>>,
    /// Behind the last event that its reader had, nothing was kept any more.
    pub(crate) gone: Mutex<bool>,
    pub(crate) broken: Mutex<Vec<String>>,
    named: Notify,
    over: Mutex<bool>,
}

/// The sockets of one place, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) shared: Option<Arc<Shared>>,
    opened: usize,
}

/// Everything that readers of one world need.
pub(crate) struct Street {
    pub(crate) town: Town,
    pub(crate) slots: Vec<Slot>,
    pub(crate) places: Vec<tokio::sync::Mutex<Place>>,
    pub(crate) keyed: bool,
    /// How often a socket was asked for a stream: each time under another name.
    pub(crate) asked: AtomicU64,
}

impl Street {
    fn key(&self, tenant: u64) -> String {
        if self.keyed { key(tenant) } else { "sk-whatever".to_owned() }
    }

    /// The socket that lives at this place, or the next one.
    async fn socket(&self, tenant: u64, slot: u64) -> Result<Arc<Shared>, String> {
        let at = (slot * TENANTS + tenant) as usize % self.slots.len();
        let mut place = self.places[at].lock().await;
        if let Some(shared) = place.shared.as_ref().filter(|shared| !shared.is_over()) {
            return Ok(Arc::clone(shared));
        }
        let slot = &self.slots[at];
        let life = slot.lives.get(place.opened).copied();
        place.opened += 1;
        let shared = self.town.open_socket(slot, life, &self.key(tenant)).await?;
        place.shared = Some(Arc::clone(&shared));
        Ok(shared)
    }

    /// Plays streams one after the other.
    pub(crate) async fn play_all(self: Arc<Self>, asks: Vec<Ask>) -> Vec<Line> {
        let mut lines = Vec::new();
        for ask in asks {
            lines.push(self.play(ask).await);
        }
        lines
    }

    /// Plays one stream with all of its readers.
    async fn play(&self, ask: Ask) -> Line {
        let line = Line {
            book: Mutex::new(Book::new()),
            stream: Mutex::default(),
            reads: Mutex::default(),
            gone: Mutex::default(),
            broken: Mutex::default(),
            named: Notify::new(),
            over: Mutex::default(),
        };
        let clock = self.town.clock;
        clock.sleep_until(clock.now() + ask.begins).await;
        let asks = async {
            self.follow(&ask, &line, &ask.visits, true).await;
            *locked(&line.over) = true;
            line.named.notify_waiters();
        };
        let twin = async {
            if !ask.twin.is_empty() && line.is_named().await {
                self.follow(&ask, &line, &ask.twin, false).await;
            }
        };
        let deletes = async {
            if let Some(span) = ask.deleted.filter(|_| ask.class == Class::Memory)
                && line.is_named().await
            {
                clock.sleep_until(clock.now() + span).await;
                self.delete(&ask, &line).await;
            }
        };
        tokio::join!(asks, twin, deletes);
        if ask.misused {
            self.misuse(&ask, &line).await;
        }
        self.town.note(format!("{} {:?}", ask.number, locked(&line.book).ending).as_bytes());
        line
    }

    /// Reads the stream as planned, and on as long as it takes.
    async fn follow(&self, ask: &Ask, line: &Line, visits: &[Visit], asks: bool) {
        let mut has = 0;
        let last = visits.last().copied().unwrap_or(Visit::to_the_end(Door::Http1));
        let patient = Visit { leave: None, slow: None, cancel: None, back: Back::Last, ..last };
        let planned = visits.iter().copied().chain(std::iter::repeat_n(patient, AGAIN_MAX));
        let clock = self.town.clock;
        for (n, visit) in planned.enumerate() {
            clock.sleep_until(clock.now() + visit.pause).await;
            let first = asks && n == 0;
            let name = locked(&line.stream).clone();
            if !first && name.is_none() {
                return;
            }
            let after = if first { None } else { Some(line.place(&visit, has)) };
            let began = clock.now();
            let numbered = ask.class == Class::Memory;
            let page = locked(&line.book).open(after.unwrap_or(0));
            let mut reader = Reader::new(&line.book, page, numbered);
            let read = self.read(ask, line, &visit, name.filter(|_| !first), after, &mut reader);
            let came = clock.within(HANG, read).await.unwrap_or(Err("it hangs".to_owned()));
            has = reader.page.seq;
            let came = match came {
                Ok(came) => came,
                Err(why) => {
                    locked(&line.broken).push(format!("{:?} from {after:?}: {why}", visit.door));
                    return;
                }
            };
            let ended = clock.now();
            locked(&line.reads).push(Read { door: visit.door, began, ended, came: came.clone(), after });
            match came {
                Came::Ended => return,
                Came::Refused(410, _) if after.is_some_and(|after| after < locked(&line.book).last()) => {
                    // What is left of it may still be had from where it was left.
                    has = locked(&line.book).last();
                }
                Came::Refused(410, _) => {
                    *locked(&line.gone) = true;
                    return;
                }
                Came::Refused(..) => return,
                Came::Left | Came::Cut(_) if ask.class == Class::Plain => return,
                Came::Left | Came::Cut(_) => {}
            }
        }
        locked(&line.broken).push(format!("not at its end after {} readings", visits.len() + AGAIN_MAX));
    }

    async fn read(
        &self,
        ask: &Ask,
        line: &Line,
        visit: &Visit,
        stream: Option<String>,
        after: Option<u64>,
        reader: &mut Reader<'_>,
    ) -> Result<Came, String> {
        let cursor = after.filter(|after| *after > 0);
        let cursor = cursor.and_then(|after| {
            locked(&line.book).cursors().iter().find(|(seq, _)| *seq == after).map(|(_, c)| (*c).to_owned())
        });
        let mut named = |name: &str| line.name(name);
        if let Door::Socket(slot) = visit.door {
            let Ok(shared) = self.socket(ask.tenant, slot).await else {
                return Ok(Came::Cut("no socket was opened".to_owned()));
            };
            let id = format!("s{}-{}", ask.number, self.asked.fetch_add(1, Ordering::Relaxed));
            let begin = match stream {
                None => ask.frame(),
                Some(stream) => json!({"type": "stream.resume", "stream": stream, "after": cursor}),
            };
            return self.town.over_socket(&shared, begin, &id, visit, reader, &mut named).await;
        }
        let mut want = match stream {
            None => ask.want(),
            Some(stream) => Want { method: "GET", target: format!("/v1/streams/{stream}"), ..Want::default() },
        };
        want.lines.push(("x-api-key".to_owned(), self.key(ask.tenant)));
        match cursor {
            Some(cursor) if visit.by_header => want.lines.push(("last-event-id".to_owned(), cursor)),
            Some(cursor) => want.target += &format!("?after={cursor}"),
            None => {}
        }
        match visit.door {
            Door::Http2 => self.town.http2(&want, visit, reader, &mut named).await,
            _ => self.town.http1(&want, visit, reader, &mut named).await,
        }
    }

    /// Asks for something that is no stream; its status and body.
    pub(crate) async fn whole(
        &self,
        tenant: u64,
        method: &'static str,
        target: String,
        lines: &[(&str, String)],
    ) -> (u16, Value) {
        let nothing = Mutex::new(Book::new());
        let page = locked(&nothing).open(0);
        let mut reader = Reader::new(&nothing, page, true);
        let mut want = Want { method, target, ..Want::default() };
        want.lines.push(("x-api-key".to_owned(), self.key(tenant)));
        want.lines.extend(lines.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        match self.town.http1(&want, &Visit::to_the_end(Door::Http1), &mut reader, &mut |_| {}).await {
            Ok(Came::Refused(status, body)) => (status, body),
            other => (0, json!(format!("{other:?}"))),
        }
    }

    async fn delete(&self, ask: &Ask, line: &Line) {
        let Some(stream) = locked(&line.stream).clone() else { return };
        let (status, body) = self.whole(ask.tenant, "DELETE", format!("/v1/streams/{stream}"), &[]).await;
        // It may have ended meanwhile.
        let said = ["stream_cancelled", "stream_ended"].map(|said| json!({"id": stream, "type": said}));
        if status != 200 || !said.contains(&body) {
            locked(&line.broken).push(format!("DELETE: {status} {body}"));
        }
    }

    /// Comes with what has to be refused.
    async fn misuse(&self, ask: &Ask, line: &Line) {
        let Some(stream) = locked(&line.stream).clone() else { return };
        let beyond = locked(&line.book).cursors().last().map(|(seq, cursor)| {
            let stem = cursor.rsplit_once('-').map_or("", |(stem, _)| stem);
            format!("{stem}-{:016x}", seq + 1_000)
        });
        let mut cases = vec![
            (ask.tenant, format!("/v1/streams/{stream}?after=nonsense"), 400, "invalid_cursor"),
            (ask.tenant, "/v1/streams/str_00000000000000000000000".to_owned(), 404, "unknown_stream"),
        ];
        cases.extend(
            beyond.map(|beyond| (ask.tenant, format!("/v1/streams/{stream}?after={beyond}"), 400, "invalid_cursor")),
        );
        if self.keyed {
            cases.push((ask.tenant + 1, format!("/v1/streams/{stream}"), 404, "unknown_stream"));
        }
        // A slow reader can still be at it when the stream is no longer kept for others.
        let slow = ask.visits.iter().chain(&ask.twin).any(|visit| visit.slow.is_some());
        for (tenant, target, status, code) in cases {
            let (said, body) = self.whole(tenant % TENANTS, "GET", target.clone(), &[]).await;
            let told = (said, body["error"]["details"]["error_code"].as_str());
            let forgotten = slow && target.contains("after=str_") && told == (404, Some("unknown_stream"));
            if told != (status, Some(code)) && !forgotten {
                locked(&line.broken).push(format!("{target}: {said} {body} where {status} {code} was due"));
            }
        }
    }
}

impl Line {
    fn name(&self, name: &str) {
        let mut stream = locked(&self.stream);
        match stream.as_deref() {
            Some(known) if known == name => {}
            Some(known) => locked(&self.broken).push(format!("it is called {known}, now {name}")),
            None => {
                *stream = Some(name.to_owned());
                self.named.notify_waiters();
            }
        }
    }

    /// Waits for its name; false if it never had one.
    async fn is_named(&self) -> bool {
        loop {
            let mut named = std::pin::pin!(self.named.notified());
            named.as_mut().enable();
            if locked(&self.stream).is_some() {
                return true;
            }
            if *locked(&self.over) {
                return false;
            }
            named.await;
        }
    }

    /// Where a reader comes back to that has everything up to `has`.
    fn place(&self, visit: &Visit, has: u64) -> u64 {
        let book = locked(&self.book);
        let cursors = book.cursors();
        match visit.back {
            Back::Last => cursors.iter().map(|(seq, _)| *seq).rfind(|seq| *seq <= has).unwrap_or(0),
            Back::Older(n) if !cursors.is_empty() => cursors[(n % cursors.len() as u64) as usize].0,
            Back::Older(_) | Back::Beginning => 0,
        }
    }
}

impl Ask {
    /// How it is to be kept.
    fn kept(&self) -> &'static str {
        if self.durable { "durable" } else { "memory" }
    }

    fn want(&self) -> Want {
        let mut lines = vec![
            ("anthropic-version".to_owned(), "2023-06-01".to_owned()),
            ("content-type".to_owned(), "application/json".to_owned()),
        ];
        if self.class == Class::Memory {
            lines.push(("tidegate-resume".to_owned(), self.kept().to_owned()));
        }
        if self.recover != Recover::Never || self.number.is_multiple_of(2) {
            lines.push(("tidegate-recover".to_owned(), self.recover.word().to_owned()));
        }
        lines.extend(self.talk.map(|talk| ("tidegate-conversation".to_owned(), talk::name(talk))));
        lines.extend(self.simulate.iter().map(|said| ("simulate".to_owned(), said.clone())));
        Want { method: "POST", target: "/v1/messages".to_owned(), lines, body: self.body.to_string().into_bytes() }
    }

    fn frame(&self) -> Value {
        let mut frame = json!({"type": "message.create", "version": "2023-06-01", "request": self.body});
        if self.class == Class::Memory {
            frame["resume"] = json!(self.kept());
        }
        if self.recover != Recover::Never || self.number.is_multiple_of(2) {
            frame["recover"] = json!(self.recover.word());
        }
        if let Some(talk) = self.talk {
            frame["conversation"] = json!(talk::name(talk));
        }
        frame
    }
}

/// Whether every cursor of a stream sorts as its numbers do.
pub(crate) fn sorts(cursors: &[(u64, &str)]) -> bool {
    cursors.windows(2).all(|pair| pair[0].1 < pair[1].1) && cursors.iter().all(|(seq, c)| number(c) == Some(*seq))
}
