//! Summaries, made in the background before a window has to be cut.
//!
//! When a turn is kept and its window has passed the soft mark, the conversation room says whether a
//! summary would pay. It is asked for as the window just sent, the answer, and one more user turn:
//! all but the end of it is in the prompt cache. The request is an *errand*: a client of our own on a
//! connection in memory, in its tenant's name and in the background band, so it takes the whole path
//! like any other (a lease, retries, limits, metrics, the log).
//!
//! What the model says is believed as far as its source bears it, written to the log beside the turns
//! it stands for, and used by the next cut. One that comes late or not at all is not waited for.

use super::fit::{Frame, Gauge, jitter};
use super::talk::Talk;
use crate::connection::Peer;
use crate::door;
use crate::house::House;
use crate::plane::Plane;
use crate::tenants::Tenant;
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_base::ByteLease;
use tidegate_conversation::compress::{Plan, Prices, SUMMARY_TOKENS, Situation, Summary, plan};
use tidegate_conversation::history::History;
use tidegate_store::{Address, StoreError, Summary as StoredSummary};
use tidegate_transport::http1::{ClientConn, ServerConn};
use tidegate_transport::{ServerStream, TaskKind, Tasks, pipe};
use tidegate_wire::assemble::Assembler;
use tidegate_wire::http::{HeadWriter, RequestHead};
use tidegate_wire::raw::{Fields, RawObject};
use tidegate_wire::sse::Splitter;
use tokio::sync::{Semaphore, mpsc};

/// Errands that may wait for a place; past it a cut does without.
const WAITING_MAX: usize = 64;
/// Errands under way at once.
const AT_ONCE_MAX: usize = 8;
/// Turns after one that failed in which none is tried.
const PAUSE_TURNS: u32 = 8;
/// Most bytes of an errand's answer as a stream: some hundred times what is asked for.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long an errand may take in all, ms: the background band's longest wait.
const DEADLINE_MS: &[u8] = b"600000";
/// Version of a kept summary's body.
const BODY_VERSION: u32 = 1;
/// Request headers that an errand sends as the turn had them.
const HEADERS: [&str; 2] = ["anthropic-version", "anthropic-beta"];

/// Who runs the errands.
pub(crate) const ERRANDS: TaskKind =
    TaskKind { name: "summaries", on_cancel: "windows are cut without a summary", on_error: "cannot fail" };
const ERRAND: TaskKind = TaskKind {
    name: "a summary",
    on_cancel: "its request is cancelled; the window is cut without it",
    on_error: "is counted; another is tried some turns later",
};

/// What a turn keeps of its request, in case a summary is due after it.
pub(super) struct Ahead {
    tenant: Arc<Tenant>,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Bytes,
    frame: Frame,
    /// Tokens of the window's messages.
    tokens: u64,
    _lease: ByteLease,
}

impl Ahead {
    /// Keeps the request if a summary may be due: the window is near its soft mark, and the request
    /// is one that can be asked once more.
    pub(super) fn of(
        house: &House,
        tenant: &Arc<Tenant>,
        head: &RequestHead,
        body: &Bytes,
        frame: Frame,
        tokens: u64,
        soft: u64,
    ) -> Option<Self> {
        // What one answer may add.
        if tokens + tokens / 10 < soft || !can_be_asked(body) {
            return None;
        }
        let lease = house.bodies.lease(body.len() as u64)?;
        let header = |name: &'static str| Some((name, head.headers.get(name)?.to_vec()));
        let headers = HEADERS.into_iter().filter_map(header).collect();
        Some(Ahead { tenant: Arc::clone(tenant), headers, body: body.clone(), frame, tokens, _lease: lease })
    }
}

/// Whether the model is free to answer in words, and does not compact by itself.
fn can_be_asked(body: &[u8]) -> bool {
    let Ok(object) = RawObject::read(body) else { return false };
    let forced = object.get("tool_choice").is_some_and(|choice| {
        let choice: Option<RawObject<'_>> = serde_json::from_str(choice.get()).ok();
        choice.and_then(|c| c.parse::<String>("type")).is_some_and(|kind| kind != "auto" && kind != "none")
    });
    let shaped = object.get("output_config").is_some_and(|config| config.get().contains("\"format\""));
    let compacts = object.get("context_management").is_some_and(|edits| edits.get().contains("\"compact"));
    !(forced || shaped || compacts)
}

/// A summary that is to be made.
pub(crate) struct Errand {
    tenant: Arc<Tenant>,
    address: Address,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Bytes,
    model: String,
    range: Range<usize>,
    /// Of the messages of that range.
    mark: [u8; 32],
    gauge: Gauge,
    _lease: ByteLease,
}

/// The way to who runs the errands.
pub(super) struct Errands {
    send: mpsc::Sender<Errand>,
    receive: Mutex<Option<mpsc::Receiver<Errand>>>,
}

impl Errands {
    pub(super) fn new() -> Self {
        let (send, receive) = mpsc::channel(WAITING_MAX);
        Errands { send, receive: Mutex::new(Some(receive)) }
    }
}

/// A turn was kept: sees to a summary if one pays now.
pub(super) fn after(house: &House, talk: &mut Talk, address: &Address, model: &str, gauge: &Gauge, ahead: Ahead) {
    let settings = &house.settings.conversations;
    let tried_lately = talk.summary_failed.is_some_and(|turn| talk.turns() < turn + PAUSE_TURNS);
    if !settings.summaries || talk.summarising || tried_lately {
        return;
    }
    let Some(answer) = talk.history.entries().last() else { return };
    let answer = answer.message.raw().clone();
    let room = ahead.frame.budget(talk.ratio()).room();
    let wanted = plan(&Situation {
        history: &talk.history,
        view: &talk.view,
        ready_until: talk.ready.as_ref().map_or(0, |ready| ready.until),
        tokens: ahead.tokens + gauge.text(&answer),
        marks: settings.rules.marks(room, jitter(address.name())),
        prices: Prices::default(),
        turns_expected: None,
        estimate: &|text| gauge.text(text),
    });
    let Some(Plan { range, request, .. }) = wanted else { return };
    let Some(body) = body(&ahead.body, &answer, &request) else { return };
    let Some(mark) = mark(&talk.history, &range) else { return };
    let errand = Errand {
        tenant: ahead.tenant,
        address: address.clone(),
        headers: ahead.headers,
        body,
        model: model.to_owned(),
        range,
        mark,
        gauge: gauge.clone(),
        _lease: ahead._lease,
    };
    match house.memory.errands.send.try_send(errand) {
        Ok(()) => talk.summarising = true,
        Err(_) => house.metrics.summary("no_room"),
    }
}

/// What tells the messages of a range from others; `None` if not all of them are there.
fn mark(history: &History, range: &Range<usize>) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    for entry in history.entries().get(range.clone())? {
        let raw = entry.message.raw();
        hash.update((raw.len() as u64).to_le_bytes());
        hash.update(raw);
    }
    Some(hash.finalize().into())
}

/// The request: the turn's own, its answer and one more user turn at its end, as a stream.
fn body(turn: &[u8], answer: &[u8], request: &[u8]) -> Option<Bytes> {
    let mut fields = Fields::read(turn).ok()?;
    let messages = fields.get("messages")?.get().strip_suffix(']')?.to_owned();
    let [answer, request] = [answer, request].map(|text| std::str::from_utf8(text).ok());
    let messages = format!("{messages},{},{}]", answer?, request?);
    fields.set("messages", RawValue::from_string(messages).ok()?);
    let max_tokens = fields.get("max_tokens").and_then(|n| n.get().parse::<u64>().ok()).unwrap_or(0);
    fields.put("max_tokens", &max_tokens.max(SUMMARY_TOKENS));
    fields.put("stream", &true);
    serde_json::to_vec(&fields).ok().map(Bytes::from)
}

/// Runs errands until it is dropped; nothing to do for any but the first who calls.
pub(crate) async fn run(plane: Arc<Plane>) {
    let errands = plane.house.memory.errands.receive.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut errands) = errands else { return };
    let (tasks, places) = (Tasks::new(), Arc::new(Semaphore::new(AT_ONCE_MAX)));
    while let Some(errand) = errands.recv().await {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let plane = Arc::clone(&plane);
        tasks.spawn(&ERRAND, async move {
            let made = make(&plane.now(), &errand).await;
            plane.house.metrics.summary(if made.is_ok() { "made" } else { "failed" });
            if let Err(why) = made {
                tracing::debug!(target: "tidegate::memory", why, "no summary");
            }
            drop(place);
        });
    }
}

async fn make(plane: &Arc<Plane>, errand: &Errand) -> Result<(), &'static str> {
    let memory = &plane.house.memory;
    let answer = ask(plane, errand).await;
    let store = memory.store().map_err(|_| "conversations are off")?;
    let slot = memory.shelf.slot(&errand.address).ok_or("no room for the conversation")?;
    let mut guard = Arc::clone(&slot).lock_owned().await;
    if memory.succession.is_given(&errand.address) {
        return Err("the conversation is another process' by now");
    }
    if guard.is_none() {
        memory.succession.own(&errand.address).await;
        let talk = Talk::load(store, &errand.address, &errand.gauge, false).await;
        *guard = Some(talk.map_err(|_| "the conversation cannot be read")?);
    }
    let talk = guard.as_mut().ok_or("the conversation is gone")?;
    // Deleted meanwhile, and perhaps begun anew: what was asked about is not there.
    if mark(&talk.history, &errand.range) != Some(errand.mark) {
        return Err("the conversation is another one by now");
    }
    talk.summarising = false;
    talk.summary_failed = Some(talk.turns());
    let answer = answer?;
    let before = talk.summarised.take();
    let believed = {
        let before = before.as_ref().map(|(summary, _)| summary);
        Summary::believe(&answer, &talk.history, errand.range.clone(), before)
    };
    let (summary, dropped) = match believed {
        Ok(believed) => believed,
        Err(_) => {
            talk.summarised = before;
            return Err("the answer holds no summary that could be believed");
        }
    };
    plane.house.metrics.summary_items_dropped(dropped.len());
    let (summary, from) = match &before {
        Some((before, range)) => (summary.fold(before), range.start),
        None => (summary, errand.range.start),
    };
    let range = from..errand.range.end;
    let stored = StoredSummary {
        first_turn: talk.turn_of(range.start),
        last_turn: talk.turn_of(range.end.saturating_sub(1)),
        created_ms: memory.now_ms(),
        model: errand.model.clone(),
        body: write(&summary, &range).ok_or("the summary cannot be written")?,
    };
    match store.add_summary(errand.address.clone(), stored).await {
        Ok(()) | Err(StoreError::Exists) => {}
        Err(_) => return Err("the log does not take the summary"),
    }
    talk.summary_failed = None;
    talk.put_summary(summary, range);
    memory.shelf.weigh(&errand.address, talk.bytes());
    Ok(())
}

/// Asks, as a client on a connection in memory; the answer's text.
async fn ask(plane: &Arc<Plane>, errand: &Errand) -> Result<String, &'static str> {
    let (near, far) = pipe();
    let mut server = ServerStream::Http1(ServerConn::new(far));
    let peer = Peer::Errand(Arc::clone(&errand.tenant));
    let client = async {
        let mut conn = ClientConn::new(near);
        let mut head = BytesMut::new();
        let mut lines = HeadWriter::request(&mut head, "POST", "/v1/messages");
        lines.header("host", b"tidegate");
        lines.header("content-type", b"application/json");
        lines.header("tidegate-priority", b"background");
        lines.header("tidegate-deadline-ms", DEADLINE_MS);
        for (name, value) in &errand.headers {
            lines.header(name, value);
        }
        lines.number("content-length", errand.body.len() as u64);
        lines.end();
        conn.send(head, errand.body.clone(), || {}).await.map_err(|_| "the errand was not taken")?;
        let head = conn.read_head(false, true).await.map_err(|_| "the errand got no answer")?;
        let mut body = BytesMut::new();
        conn.read_body(&mut body, ANSWER_BYTES_MAX).await.map_err(|_| "the answer broke off")?;
        if head.status != 200 {
            return Err("the errand was refused");
        }
        text(&body)
    };
    let (answer, _) = tokio::join!(client, door::one(plane, &mut server, &peer));
    answer
}

/// The text of an answer that came as a stream and to its end.
fn text(stream: &[u8]) -> Result<String, &'static str> {
    #[derive(Deserialize)]
    struct Answer {
        stop_reason: Option<String>,
        content: Vec<Block>,
    }
    #[derive(Deserialize)]
    struct Block {
        #[serde(default)]
        text: String,
    }
    let mut assembler = Assembler::new();
    let mut sound = true;
    let split = Splitter::new().feed(stream, |event| sound &= assembler.add(event).is_ok());
    let answer = assembler.finish().ok().filter(|_| sound && split.is_ok());
    let answer =
        answer.and_then(|json| serde_json::from_slice::<Answer>(&json).ok()).ok_or("the answer is no message")?;
    if answer.stop_reason.as_deref() != Some("end_turn") {
        return Err("the answer did not come to its end");
    }
    Ok(answer.content.into_iter().map(|block| block.text).collect())
}

/// A summary's body in the log: what it says, and the messages it stands for.
#[derive(Serialize, Deserialize)]
struct Body {
    version: u32,
    messages: [usize; 2],
    summary: Summary,
}

fn write(summary: &Summary, range: &Range<usize>) -> Option<Vec<u8>> {
    let body = Body { version: BODY_VERSION, messages: [range.start, range.end], summary: summary.clone() };
    serde_json::to_vec(&body).ok()
}

/// Reads one back; what cannot be read is left out, as the turns it stands for are all there.
pub(super) fn read(body: &[u8]) -> Option<(Summary, Range<usize>)> {
    let body: Body = serde_json::from_slice(body).ok().filter(|body: &Body| body.version == BODY_VERSION)?;
    let [from, until] = body.messages;
    (from < until).then_some((body.summary, from..until))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errand_is_the_turn_and_one_more() {
        let turn = br#"{"model":"m","max_tokens":5,"system":[ 1 ],"messages":[{"a":1}],"stream":false}"#;
        let body = body(turn, br#"{"b":2}"#, br#"{"c":3}"#).unwrap();
        let want =
            br#"{"model":"m","max_tokens":2000,"system":[ 1 ],"messages":[{"a":1},{"b":2},{"c":3}],"stream":true}"#;
        assert_eq!(body, &want[..]);
    }

    #[test]
    fn a_model_that_is_not_free_to_answer_in_words_is_not_asked() {
        assert!(can_be_asked(br#"{"tools":[],"tool_choice":{"type":"auto"}}"#));
        for body in [
            r#"{"tool_choice":{"type":"any"}}"#,
            r#"{"output_config":{"format":{"type":"json_schema"}}}"#,
            r#"{"context_management":{"edits":[{"type":"compact_20260112"}]}}"#,
            "no",
        ] {
            assert!(!can_be_asked(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn a_conversation_begun_anew_is_not_the_one_that_was_asked_about() {
        let history = |texts: [&str; 3]| {
            let mut talk = Talk::default();
            for text in texts {
                let message = format!(r#"{{"role":"user","content":"{text}"}}"#);
                let message = tidegate_conversation::message::Message::read(Bytes::from(message)).unwrap();
                talk.push(message, &Gauge::default()).unwrap();
            }
            talk.history
        };
        let asked = mark(&history(["a", "b", "c"]), &(0..2));
        assert!(asked.is_some());
        // What came later does not matter; what the range says does, and that all of it is there.
        assert_eq!(mark(&history(["a", "b", "other"]), &(0..2)), asked);
        assert_ne!(mark(&history(["a", "other", "c"]), &(0..2)), asked);
        assert_eq!(mark(&history(["a", "b", "c"]), &(0..4)), None);
    }

    #[test]
    fn a_summary_is_read_as_it_was_written() {
        let summary = Summary { goals: vec!["a".to_owned()], ..Summary::default() };
        let written = write(&summary, &(4..18)).unwrap();
        assert_eq!(read(&written), Some((summary, 4..18)));
        assert_eq!(read(b"{}"), None);
    }
}
