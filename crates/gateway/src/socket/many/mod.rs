//! `tidegate.v1`: many streams over one socket, each with its own credit, in turns.
//!
//! A stream here is a reader of its log, nothing more. What it has to say is asked for when its log
//! says there is something, when credit comes, and when it is its turn; frames about the socket and
//! about a stream's beginning and end go before events.
//!
//! | file | what it is |
//! |---|---|
//! | `hearing` | what the client says: streams begin, are resumed, called off, given credit |
//! | `telling` | what it is told: each stream's news in its turn, and how long those that wait have to |
//! | `ending` | how a stream ends, and what is told of an answer's head |

mod ending;
mod hearing;
mod telling;

use crate::answer::{Answer, Trouble};
use crate::house::House;
use crate::streams::Reader;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_wire::dialect::credit::Credit;
use tidegate_wire::dialect::tidegate_v1::{Failed, ServerFrame};
use tidegate_wire::dialect::turns::Turns;
use tidegate_wire::websocket::CloseCode;

/// When a stream that waits is told first how far it is: most wait for nothing.
const WAIT_FIRST: Duration = Duration::from_millis(20);

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
    told: Option<(u64, Option<u64>)>,
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
}
