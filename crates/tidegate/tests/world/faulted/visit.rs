//! One reading of a stream over HTTP: a connection of its own, read as it was planned.
//!
//! Bytes are read by this test's own parsers (`world/answer.rs`), events are taken out of them here:
//! `id`, `event` and `data`, each in a line of its own, or a comment.

use crate::world::answer::Reading;
use crate::world::client::Trace;
use crate::world::faulted::book::{Book, Page};
use crate::world::faulted::plan::{Leave, Visit};
use crate::world::scene::GATEWAY;
use bytes::Bytes;
use serde_json::Value;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidegate_base::Moment;
use tidegate_transport::{BoxIo, Clock, Io as _, MemoryNetwork, TaskKind, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const WIRE: TaskKind = TaskKind { name: "wire", on_cancel: "the connection closes", on_error: "the seed fails" };

/// What all readers share.
#[derive(Clone)]
pub(crate) struct Town {
    pub(crate) network: MemoryNetwork,
    pub(crate) clock: Clock,
    pub(crate) trace: Trace,
    pub(crate) tasks: Tasks,
}

/// How a reading came out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Came {
    /// The stream's end was told.
    Ended,
    /// The reader left, as planned.
    Left,
    /// The connection ended first.
    Cut(String),
    /// An answer that is no stream.
    Refused(u16, Value),
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Want {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) lines: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// A reading and what it goes into.
pub(crate) struct Reader<'a> {
    pub(crate) book: &'a Mutex<Book>,
    pub(crate) page: Page,
    /// Its events have cursors.
    pub(crate) numbered: bool,
    /// Where the next event begins in the body.
    from: usize,
    /// It was told, where its answer had begun already, that there is none for it.
    refused: Option<Value>,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Reader<'a> {
    pub(crate) fn new(book: &'a Mutex<Book>, page: Page, numbered: bool) -> Self {
        Reader { book, page, numbered, from: 0, refused: None }
    }

    /// Takes in what has come of the body.
    fn take(&mut self, body: &[u8]) -> Result<(), String> {
        while let Some(len) = body[self.from..].windows(2).position(|pair| pair == b"\n\n") {
            let event = &body[self.from..self.from + len];
            self.from += len + 2;
            let text = std::str::from_utf8(event).map_err(|e| format!("an event is not text: {e}"))?;
            self.event(text).map_err(|why| format!("{why}, at `{}`", text.chars().take(300).collect::<String>()))?;
        }
        Ok(())
    }

    fn event(&mut self, text: &str) -> Result<(), String> {
        if text.starts_with(':') && !text.contains('\n') {
            return match text.strip_prefix(": tidegate-recovered how=").and_then(|said| said.split_once(" segment=")) {
                Some((_, segment)) => {
                    let segment = segment.parse().map_err(|_| "a segment without a number")?;
                    locked(self.book).recovered(&self.page, segment)
                }
                None => Ok(()),
            };
        }
        let (id, text) = match text.strip_prefix("id: ").and_then(|rest| rest.split_once('\n')) {
            Some((id, rest)) => (Some(id), rest),
            None => (None, text),
        };
        let named = text.strip_prefix("event: ").and_then(|e| e.split_once("\ndata: "));
        let (name, data) = named.ok_or("an event is not a name and one line of data")?;
        let data: Value = serde_json::from_str(data).map_err(|e| format!("an event's data is not JSON: {e}"))?;
        if data["type"] != name {
            return Err("an event's name is not its type".to_owned());
        }
        let seq = match id {
            _ if name == "ping" && id.is_none() => return Ok(()),
            // No event of the stream, but about this reader.
            None if self.numbered && name == "error" && self.refused.is_none() && !self.page.ended => {
                self.refused = Some(data);
                return Ok(());
            }
            _ if self.refused.is_some() => return Err(format!("{name} after a refusal")),
            Some(id) if self.numbered => number(id).ok_or("an id that is no cursor")?,
            None if !self.numbered => self.page.seq + 1,
            _ => return Err(format!("{name} has the id {id:?}")),
        };
        let mut book = locked(self.book);
        if let Some(id) = id {
            book.cursor(seq, id)?;
        }
        book.tell(&mut self.page, None, seq, &data)
    }
}

/// The number in a cursor. It is opaque to clients; this one is a judge.
pub(crate) fn number(cursor: &str) -> Option<u64> {
    u64::from_str_radix(cursor.rsplit_once('-')?.1, 16).ok()
}

impl Town {
    /// Reads over HTTP/1.1. What the head says of the stream's name goes to `named`.
    pub(crate) async fn http1(
        &self,
        want: &Want,
        visit: &Visit,
        reader: &mut Reader<'_>,
        named: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Came, String> {
        let Ok(mut io) = self.network.connect(GATEWAY) else { return Ok(Came::Cut("nobody listens".to_owned())) };
        let mut bytes = format!("{} {} HTTP/1.1\r\nhost: gateway.test\r\n", want.method, want.target);
        for (name, value) in &want.lines {
            bytes += &format!("{name}: {value}\r\n");
        }
        bytes += &format!("content-length: {}\r\n\r\n", want.body.len());
        let sent = io.write_all(&[bytes.as_bytes(), &want.body].concat()).await;
        let mut reading = Reading::new(false, Vec::new());
        let came = match sent {
            Ok(()) => self.read_http1(&mut io, visit, reader, named, &mut reading).await?,
            Err(e) => Came::Cut(e.to_string()),
        };
        if came == Came::Left && visit.resets {
            io.reset_on_drop();
        }
        Ok(came)
    }

    async fn read_http1(
        &self,
        io: &mut BoxIo,
        visit: &Visit,
        reader: &mut Reader<'_>,
        named: &mut (dyn FnMut(&str) + Send),
        reading: &mut Reading,
    ) -> Result<Came, String> {
        let (until, at_bytes) = self.leaves(visit);
        let mut buffer = vec![0; 8 * 1024];
        let (most, pause) = visit.slow.unwrap_or((buffer.len(), std::time::Duration::ZERO));
        while reading.is_open() {
            if reading.came >= at_bytes {
                return Ok(Came::Left);
            }
            let room = most.min(at_bytes - reading.came).min(buffer.len());
            match self.clock.by(until, io.read(&mut buffer[..room])).await {
                None => return Ok(Came::Left),
                Some(Ok(n)) if n > 0 => {
                    self.note(&buffer[..n]);
                    reading.feed(&buffer[..n], self.clock.now());
                    self.seen(reading, reader, named)?;
                }
                Some(end) => reading.closed(end.is_ok()),
            }
            if !pause.is_zero() && reading.is_open() {
                self.clock.sleep_until(self.clock.now() + pause).await;
            }
        }
        self.over(reading, reader)
    }

    /// Reads over HTTP/2, on a connection of its own.
    pub(crate) async fn http2(
        &self,
        want: &Want,
        visit: &Visit,
        reader: &mut Reader<'_>,
        named: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Came, String> {
        let mut reading = Reading::new(false, Vec::new());
        match self.read_http2(want, visit, reader, named, &mut reading).await {
            Ok(came) => came,
            Err(error) => {
                reading.cut(error.to_string());
                self.over(&mut reading, reader)
            }
        }
    }

    async fn read_http2(
        &self,
        want: &Want,
        visit: &Visit,
        reader: &mut Reader<'_>,
        named: &mut (dyn FnMut(&str) + Send),
        reading: &mut Reading,
    ) -> Result<Result<Came, String>, h2::Error> {
        let Ok(io) = self.network.connect(GATEWAY) else { return Ok(Ok(Came::Cut("nobody listens".to_owned()))) };
        let mut builder = h2::client::Builder::new();
        // With its usual window the crate ends connections on which many small frames stand unread.
        builder.enable_push(false).initial_connection_window_size((1 << 31) - 1);
        let (send, driver) = builder.handshake::<_, Bytes>(io).await?;
        self.tasks.spawn(&WIRE, async move {
            // Its end is seen where the stream is read.
            let _ = driver.await;
        });
        let (until, at_bytes) = self.leaves(visit);
        let mut head = http::Request::builder().method(want.method).uri(format!("http://gateway.test{}", want.target));
        for (name, value) in &want.lines {
            head = head.header(name, value);
        }
        let head = head.body(()).expect("a head as planned");
        let mut send = send.ready().await?;
        let (answer, mut upload) = send.send_request(head, want.body.is_empty())?;
        drop(send);
        if !want.body.is_empty() {
            upload.send_data(Bytes::copy_from_slice(&want.body), true)?;
        }
        let Some(come) = self.clock.by(until, answer).await else { return Ok(Ok(Came::Left)) };
        let (head, mut body) = come?.into_parts();
        let lines = head.headers.iter().map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes())));
        reading.http2_head(head.status.as_u16(), lines.map(|(n, v)| (n, v.into_owned())).collect(), self.clock.now());
        let (_, pause) = visit.slow.unwrap_or_default();
        loop {
            if let Err(why) = self.seen(reading, reader, named) {
                return Ok(Err(why));
            }
            if reading.came >= at_bytes {
                upload.send_reset(h2::Reason::CANCEL);
                return Ok(Ok(Came::Left));
            }
            match self.clock.by(until, body.data()).await {
                None => return Ok(Ok(Came::Left)),
                Some(Some(data)) => {
                    let data = data?;
                    self.note(&data);
                    reading.http2_data(&data, self.clock.now());
                    // Fails only where the stream has ended already.
                    let _ = body.flow_control().release_capacity(data.len());
                    if !pause.is_zero() {
                        self.clock.sleep_until(self.clock.now() + pause).await;
                    }
                }
                Some(None) => {
                    reading.http2_end(body.trailers().await?.is_some());
                    return Ok(self.over(reading, reader));
                }
            }
        }
    }

    fn leaves(&self, visit: &Visit) -> (Moment, usize) {
        match visit.leave {
            Some(Leave::After(span)) => (self.clock.now() + span, usize::MAX),
            Some(Leave::AtBytes(n)) => (Moment::NEVER, n),
            None => (Moment::NEVER, usize::MAX),
        }
    }

    pub(crate) fn note(&self, what: &[u8]) {
        self.trace.add(&self.clock.now().as_nanos().to_le_bytes());
        self.trace.add(what);
    }

    /// Takes in what came.
    fn seen(
        &self,
        reading: &mut Reading,
        reader: &mut Reader<'_>,
        named: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), String> {
        let Some(head) = &reading.head else { return Ok(()) };
        if head.status != 200 || !head.get("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Ok(());
        }
        if let Some(name) = head.get("tidegate-stream") {
            named(name);
        }
        reader.take(&reading.body)
    }

    /// The answer is over: what it was.
    fn over(&self, reading: &mut Reading, reader: &Reader<'_>) -> Result<Came, String> {
        if let Some(why) = &reading.broken {
            return Ok(if reader.page.ended { Came::Ended } else { Came::Cut(why.clone()) });
        }
        let head = reading.head.as_ref().ok_or("an answer without a head")?;
        let kind = head.get("content-type").unwrap_or_default();
        if !kind.starts_with("text/event-stream") {
            let body = serde_json::from_slice(&reading.body).map_err(|e| format!("{}: {e}", head.status))?;
            return Ok(Came::Refused(head.status, body));
        }
        if let Some(error) = &reader.refused {
            let gone = error["error"]["details"]["error_code"] == "cursor_gone";
            return Ok(Came::Refused(if gone { 410 } else { 200 }, error.clone()));
        }
        match (reader.page.ended, reading.body.len() - reader.from) {
            (true, 0) => Ok(Came::Ended),
            (true, rest) => Err(format!("{rest} bytes after the last event")),
            (false, _) => Err("the body is whole, and the stream has no end".to_owned()),
        }
    }
}
