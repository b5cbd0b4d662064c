//! A WebSocket that several readers share, and one reader's part of it.
//!
//! Frames are read and written here, by hand: what the gateway sends is unmasked text in one piece,
//! or control frames. A task owns the connection; what comes for a stream goes into its box. When the
//! socket is over, every box is closed.

use crate::world::faulted::book::Ending;
use crate::world::faulted::plan::{Leave, Slot, Visit};
use crate::world::faulted::visit::{Came, Reader, Town, locked, number};
use crate::world::scene::GATEWAY;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::{BoxIo, Io as _, TaskKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

const SOCKET: TaskKind = TaskKind { name: "socket", on_cancel: "the connection closes", on_error: "the seed fails" };

/// What came for one stream.
#[derive(Debug, Default)]
struct Inbox {
    frames: Mutex<(VecDeque<Value>, bool)>,
    told: Notify,
}

/// A socket as its readers see it.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    inboxes: Mutex<BTreeMap<String, Arc<Inbox>>>,
    out: Mutex<VecDeque<Vec<u8>>>,
    more: Notify,
    over: Mutex<bool>,
    hung_up: Mutex<bool>,
    /// What was wrong with what came.
    pub(crate) broken: Mutex<Vec<String>>,
}

impl Shared {
    fn say(&self, frame: &Value) {
        locked(&self.out).push_back(text_frame(0x81, frame.to_string().as_bytes()));
        self.more.notify_one();
    }

    pub(crate) fn is_over(&self) -> bool {
        *locked(&self.over)
    }

    /// Nobody needs it any more.
    pub(crate) fn hang_up(&self) {
        *locked(&self.hung_up) = true;
        self.more.notify_one();
    }

    /// Nobody hears anything any more.
    fn end(&self) {
        *locked(&self.over) = true;
        for inbox in locked(&self.inboxes).values() {
            locked(&inbox.frames).1 = true;
            inbox.told.notify_one();
        }
    }

    fn deliver(&self, frame: Value) {
        let id = frame["id"].as_str().unwrap_or_default();
        match locked(&self.inboxes).get(id) {
            Some(inbox) => {
                locked(&inbox.frames).0.push_back(frame);
                inbox.told.notify_one();
            }
            None => locked(&self.broken).push(format!("a frame for nobody: {frame}")),
        }
    }
}

/// A frame as a client sends it; the mask is a fixed one.
fn text_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        n if n < 126 => frame.push(0x80 | n as u8),
        n if n < 65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().enumerate().map(|(n, b)| b ^ MASK[n % 4]));
    frame
}

/// Takes a whole frame off the front: its first byte and its payload.
fn take_frame(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, at) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        n => (u64::from(n), 2),
    };
    let end = at + length as usize;
    if bytes.len() < end {
        return None;
    }
    let payload = bytes[at..end].to_vec();
    bytes.drain(..end);
    Some((first, payload))
}

impl Town {
    /// Opens a socket that lives so long, or as long as anybody needs it.
    pub(crate) async fn open_socket(
        &self,
        slot: &Slot,
        life: Option<Duration>,
        key: &str,
    ) -> Result<Arc<Shared>, String> {
        let mut io = self.network.connect(GATEWAY).map_err(|e| e.to_string())?;
        let opening = format!(
            "GET /v1/stream HTTP/1.1\r\nhost: gateway.test\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\
             sec-websocket-protocol: tidegate.v1\r\nauthorization: Bearer {key}\r\n\r\n"
        );
        io.write_all(opening.as_bytes()).await.map_err(|e| e.to_string())?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match io.read(&mut byte).await {
                Ok(1) => head.push(byte[0]),
                end => return Err(format!("{end:?} after {}", String::from_utf8_lossy(&head))),
            }
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(String::from_utf8_lossy(&head).into_owned());
        }
        let shared = Arc::new(Shared::default());
        let until = life.map_or(Moment::NEVER, |life| self.clock.now() + life);
        let (town, slot, on) = (self.clone(), slot.clone(), Arc::clone(&shared));
        self.tasks.spawn(&SOCKET, async move {
            let ends = town.drive(&mut io, &slot, &on, until).await;
            if ends && slot.resets {
                io.reset_on_drop();
            }
            drop(io);
            on.end();
        });
        Ok(shared)
    }

    /// Moves frames until the socket is over; whether its client ended it.
    async fn drive(&self, io: &mut BoxIo, slot: &Slot, shared: &Shared, until: Moment) -> bool {
        let (most, pause) = slot.slow.unwrap_or((16 * 1024, Duration::ZERO));
        let mut buffer = vec![0; most];
        let mut unread = Vec::new();
        loop {
            if *locked(&shared.hung_up) {
                return true;
            }
            let next = locked(&shared.out).pop_front();
            if let Some(frame) = next {
                match self.clock.by(until, io.write_all(&frame)).await {
                    None => return true,
                    Some(Err(_)) => return false,
                    Some(Ok(())) => continue,
                }
            }
            let read = tokio::select! {
                biased;
                () = shared.more.notified() => continue,
                read = self.clock.by(until, io.read(&mut buffer)) => read,
            };
            match read {
                None => return true,
                Some(Ok(n)) if n > 0 => {
                    self.note(&buffer[..n]);
                    unread.extend_from_slice(&buffer[..n]);
                }
                Some(_) => return false,
            }
            while let Some((first, payload)) = take_frame(&mut unread) {
                match first {
                    0x81 => match serde_json::from_slice(&payload) {
                        Ok(frame) => shared.deliver(frame),
                        Err(e) => locked(&shared.broken).push(format!("a message that is no JSON: {e}")),
                    },
                    0x88 => return false,
                    0x89 => locked(&shared.out).push_back(text_frame(0x8a, &payload)),
                    0x8a => {}
                    other => locked(&shared.broken).push(format!("a frame that begins with {other:#x}")),
                }
            }
            if !pause.is_zero() {
                self.clock.sleep_until(self.clock.now() + pause).await;
            }
        }
    }

    /// Reads a stream over a socket: `begin` is the frame that asks for it.
    pub(crate) async fn over_socket(
        &self,
        shared: &Shared,
        mut begin: Value,
        id: &str,
        visit: &Visit,
        reader: &mut Reader<'_>,
        named: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Came, String> {
        let inbox = Arc::new(Inbox::default());
        locked(&shared.inboxes).insert(id.to_owned(), Arc::clone(&inbox));
        begin["id"] = json!(id);
        if let Some(credit) = visit.credit {
            begin["credit"] = json!(credit);
        }
        shared.say(&begin);
        let mut part = Part { shared, inbox: &inbox, id, visit, used: 0, came: 0, open: false, cancelled: false };
        let came = self.follow(&mut part, reader, named).await;
        // One that left has frames to come still, which are for nobody.
        if !matches!(came, Ok(Came::Left)) {
            locked(&shared.inboxes).remove(id);
        }
        came
    }

    async fn follow(
        &self,
        part: &mut Part<'_>,
        reader: &mut Reader<'_>,
        named: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Came, String> {
        let mut cancel_at = part.visit.cancel.map_or(Moment::NEVER, |span| self.clock.now() + span);
        let (leave_at, at_bytes) = match part.visit.leave {
            Some(Leave::After(span)) => (self.clock.now() + span, usize::MAX),
            Some(Leave::AtBytes(n)) => (Moment::NEVER, n),
            None => (Moment::NEVER, usize::MAX),
        };
        loop {
            let next = locked(&part.inbox.frames).0.pop_front();
            let Some(frame) = next else {
                if locked(&part.inbox.frames).1 || part.shared.is_over() {
                    return Ok(if reader.page.ended { Came::Ended } else { Came::Cut("the socket ended".to_owned()) });
                }
                if part.came >= at_bytes {
                    return Ok(Came::Left);
                }
                let until = leave_at.min(cancel_at);
                if self.clock.by(until, part.inbox.told.notified()).await.is_none() {
                    if self.clock.now() >= leave_at {
                        return Ok(Came::Left);
                    }
                    cancel_at = Moment::NEVER;
                    part.cancelled = true;
                    part.shared.say(&json!({"type": "stream.cancel", "id": part.id}));
                }
                continue;
            };
            if let Some(came) = part.hear(&frame, reader, named).map_err(|why| format!("{why}, at `{frame}`"))? {
                return Ok(came);
            }
        }
    }
}

/// One stream's part of a socket.
struct Part<'a> {
    shared: &'a Shared,
    inbox: &'a Inbox,
    id: &'a str,
    visit: &'a Visit,
    /// Credit used since it was last given.
    used: u64,
    came: usize,
    open: bool,
    cancelled: bool,
}

impl Part<'_> {
    /// One frame; how the reading came out, if that was its last.
    fn hear(
        &mut self,
        frame: &Value,
        reader: &mut Reader<'_>,
        named: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Option<Came>, String> {
        match frame["type"].as_str().unwrap_or_default() {
            "stream.wait" => {}
            "stream.open" if self.open => return Err("opened twice".to_owned()),
            "stream.open" => {
                self.open = true;
                if let Some(stream) = frame["stream"].as_str() {
                    named(stream);
                }
            }
            "stream.event" if !self.open => return Err("an event before it was opened".to_owned()),
            "stream.event" => self.event(frame, reader)?,
            "stream.recovered" => {
                let segment = frame["segment"].as_u64().ok_or("no segment")?;
                locked(reader.book).recovered(&reader.page, segment)?;
            }
            "stream.end" => return self.end(frame, reader).map(Some),
            "stream.error" => {
                let error = &frame["error"];
                if !self.open {
                    let status = frame["status"].as_u64().unwrap_or(0) as u16;
                    return Ok(Some(Came::Refused(
                        status,
                        json!({"type": "error", "error": error,
                        "request_id": frame["request_id"]}),
                    )));
                }
                let code = error["details"]["error_code"].as_str().or(error["type"].as_str()).unwrap_or_default();
                if code == "cursor_gone" {
                    return Ok(Some(Came::Refused(410, json!({"type": "error", "error": error}))));
                }
                let ending = Ending::Error(code.to_owned());
                locked(reader.book).end(&mut reader.page, ending, Some(frame))?;
                return Ok(Some(Came::Ended));
            }
            other => return Err(format!("a frame called {other}")),
        }
        Ok(None)
    }

    fn event(&mut self, frame: &Value, reader: &mut Reader<'_>) -> Result<(), String> {
        let first = frame["first_seq"].as_u64().ok_or("no first_seq")?;
        let seq = frame["seq"].as_u64().ok_or("no seq")?;
        let mut book = locked(reader.book);
        match frame["cursor"].as_str() {
            Some(cursor) if reader.numbered && number(cursor) == Some(seq) => book.cursor(seq, cursor)?,
            None if !reader.numbered => {}
            cursor => return Err(format!("event {seq} has the cursor {cursor:?}")),
        }
        book.tell(&mut reader.page, Some(first), seq, &frame["event"])?;
        drop(book);
        let bytes = frame["event"].to_string().len();
        self.came += bytes;
        self.used += bytes as u64;
        if let Some(credit) = self.visit.credit.filter(|credit| self.used >= *credit / 2) {
            // What was used, as it stands there, may be a little more than it is here.
            let bytes = credit.max(self.used);
            self.used = 0;
            self.shared.say(&json!({"type": "stream.credit", "id": self.id, "bytes": bytes}));
        }
        Ok(())
    }

    fn end(&self, frame: &Value, reader: &mut Reader<'_>) -> Result<Came, String> {
        if frame["seq"].as_u64() != Some(reader.page.seq) {
            return Err(format!("it ends at {}, the last event was {}", frame["seq"], reader.page.seq));
        }
        match frame["reason"].as_str() {
            Some("stop") if reader.page.ended => Ok(Came::Ended),
            Some("cancelled") if self.cancelled => {
                // Whoever called it off may be told so before its last events.
                reader.page.ended = true;
                Ok(Came::Ended)
            }
            reason => Err(format!("it ended for the reason {reason:?}")),
        }
    }
}
