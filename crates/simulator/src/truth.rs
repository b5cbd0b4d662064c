//! What really happened: the simulator's own record, against which a client's story is checked.
//!
//! Counters are exact. Of single requests the last [`RECORDS_MAX`] are kept, and of their texts at
//! most [`TEXT_BYTES_MAX`]; older records go first. A request is *open* from its head until its
//! answer has ended; *closing* is the time from noticing that the client left to the end of all
//! work for it.

use crate::cache::InputUse;
use crate::continuation::{Asked, Continuation, Interrupted};
use crate::playback::Progress;
use crate::quota::{DOMAINS_MAX, DomainKey};
use crate::reply::{Block, Reply, document};
use crate::series::{Second, Series};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::Moment;

/// Single requests that are remembered: a quarter of an hour at 20 requests a second.
pub(crate) const RECORDS_MAX: usize = 20_000;
/// Requests of one question that are looked at for the answer to go on with: as many as are tried.
const ATTEMPTS_SEARCHED: usize = 32;
/// Bytes of text that are remembered with them.
pub(crate) const TEXT_BYTES_MAX: usize = 128 << 20;

/// How the work for a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps were played: the whole answer, or up to the fault that ended it.
    Played,
    /// The client left first.
    ClientLeft,
}

/// What is known of one request.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its number, from 0.
    pub ordinal: u64,
    /// The `request-id` of its response.
    pub request_id: String,
    /// Method and path.
    pub door: String,
    /// Who called, once known.
    pub organisation: String,
    /// The model as named, once known.
    pub model: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Status of the answer; 0 if the connection was broken instead.
    pub status: u16,
    /// Why it was refused, as counted under `refusals`.
    pub refusal: Option<String>,
    /// Faults that were planned for it.
    pub faults: Vec<&'static str>,
    /// When it arrived.
    pub began: Moment,
    /// When the client was seen to have left.
    pub left: Option<Moment>,
    /// When all work for it had ended.
    pub ended: Option<Moment>,
    /// How far the answer came.
    pub progress: Progress,
    /// What it asks, with which a request to go on finds it.
    pub(crate) asked: Option<Asked>,
    /// What the answer is made of, if it goes on with another.
    pub continuation: Option<Continuation>,
    /// The answer as composed, if there is one and it is still remembered.
    pub reply: Option<Arc<Reply>>,
}

/// Requests and tokens of one domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests admitted.
    pub requests: u64,
    /// Input tokens that count against the limit: what was not read from the prompt cache.
    pub input_tokens: u64,
    /// Input tokens read from the prompt cache.
    pub cache_read_tokens: u64,
    /// Input tokens written to it; they are among `input_tokens`.
    pub cache_creation_tokens: u64,
    /// Output tokens produced.
    pub output_tokens: u64,
}

/// The record of a run.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// By organisation and model class.
    pub domains: BTreeMap<(String, &'static str), Usage>,
    /// Error answers by reason (`429-requests`, `400`, `fault-529`, ...).
    pub refusals: BTreeMap<String, u64>,
    /// The same by organisation.
    pub refusals_of: BTreeMap<String, BTreeMap<String, u64>>,
    /// Requests by status; 0 where the connection was broken instead.
    pub statuses: BTreeMap<u16, u64>,
    /// Faults planned, by name.
    pub faults_planned: BTreeMap<&'static str, u64>,
    /// Faults in a body that took effect.
    pub faults_struck: u64,
    /// Requests begun.
    pub requests: u64,
    /// Requests whose answer has not ended.
    pub open: u64,
    /// Streams among them.
    pub open_streams: u64,
    /// Most streams open at once.
    pub peak_streams: u64,
    /// Streams that were played to their end.
    pub streams_played: u64,
    /// Requests whose client left first.
    pub clients_left: u64,
    /// Longest time from there to the end of all work.
    pub closing_max: Duration,
    /// Answers that go on with another.
    pub continued: u64,
    /// Requests to go on with an answer that is not remembered.
    pub not_continued: u64,
    series: Series,
    /// The records of each question, oldest first.
    questions: BTreeMap<u64, VecDeque<u64>>,
    records: VecDeque<Record>,
    text_bytes: usize,
    /// Ordinal of the oldest record whose text is still there, or later.
    texts_from: u64,
}

fn text_bytes(reply: &Reply) -> usize {
    let block = |block: &Block| match block {
        Block::Thinking { text, .. } => text.len() + 160,
        Block::Text(text) => text.len() + 64,
        Block::ToolUse { input, name, .. } => input.len() + name.len() + 128,
    };
    256 + reply.blocks.iter().map(block).sum::<usize>()
}

impl Truth {
    pub(crate) fn begin(&mut self, record: Record) {
        self.requests += 1;
        *self.statuses.entry(record.status).or_default() += 1;
        if let Some(refusal) = &record.refusal {
            *self.refusals.entry(refusal.clone()).or_default() += 1;
            let name = record.organisation.as_str();
            let known = self.refusals_of.len() < DOMAINS_MAX || self.refusals_of.contains_key(name);
            let name = if known { name } else { "others" };
            if !name.is_empty() {
                let of = self.refusals_of.entry(name.to_owned()).or_default();
                *of.entry(refusal.clone()).or_default() += 1;
            }
        }
        for fault in &record.faults {
            *self.faults_planned.entry(fault).or_default() += 1;
        }
        self.open += 1;
        if record.reply.is_some() && record.stream {
            self.open_streams += 1;
            self.peak_streams = self.peak_streams.max(self.open_streams);
        }
        if let Some(asked) = &record.asked {
            self.questions.entry(asked.question).or_default().push_back(record.ordinal);
            self.continued += u64::from(record.continuation.is_some());
            let lost = asked.wish.is_some() && record.continuation.is_none() && record.reply.is_some();
            self.not_continued += u64::from(lost);
        }
        self.text_bytes += record.reply.as_deref().map_or(0, text_bytes);
        if self.records.len() >= RECORDS_MAX
            && let Some(oldest) = self.records.pop_front()
        {
            self.text_bytes -= oldest.reply.as_deref().map_or(0, text_bytes);
            self.forget_question(&oldest);
        }
        self.records.push_back(record);
        self.forget_texts();
    }

    /// The oldest record of all is the first of its question.
    fn forget_question(&mut self, oldest: &Record) {
        let Some(asked) = &oldest.asked else { return };
        if let Some(ordinals) = self.questions.get_mut(&asked.question) {
            ordinals.pop_front();
            if ordinals.is_empty() {
                self.questions.remove(&asked.question);
            }
        }
    }

    /// How many requests that ask this are remembered.
    pub(crate) fn attempts(&self, asked: &Asked) -> u64 {
        self.questions.get(&asked.question).map_or(0, |ordinals| ordinals.len() as u64)
    }

    /// The answer that a request wants to go on, if it is remembered: the newest first that fits.
    pub(crate) fn interrupted(&self, asked: &Asked) -> Option<Interrupted> {
        let wish = asked.wish.as_ref()?;
        let ordinals = self.questions.get(&asked.question)?.iter().rev().take(ATTEMPTS_SEARCHED);
        ordinals.filter_map(|ordinal| self.record_of(*ordinal)).find_map(|record| {
            let reply = record.reply.as_ref().filter(|_| record.continuation.is_none())?;
            let prefill = record.asked.as_ref().map_or("", |asked| asked.prefill.as_str());
            let at = wish.place(&reply.text(), prefill)?;
            Some(Interrupted { of: record.request_id.clone(), reply: Arc::clone(reply), by: wish.by, at })
        })
    }

    fn forget_texts(&mut self) {
        let Some(first) = self.records.front().map(|record| record.ordinal) else { return };
        self.texts_from = self.texts_from.max(first);
        while self.text_bytes > TEXT_BYTES_MAX {
            let Some(record) = self.records.get_mut((self.texts_from - first) as usize) else { return };
            if let Some(reply) = record.reply.take() {
                self.text_bytes -= text_bytes(&reply);
            }
            self.texts_from += 1;
        }
    }

    fn record_of(&self, ordinal: u64) -> Option<&Record> {
        let first = self.records.front()?.ordinal;
        self.records.get(usize::try_from(ordinal.checked_sub(first)?).ok()?)
    }

    fn record_mut(&mut self, ordinal: u64) -> Option<&mut Record> {
        let first = self.records.front()?.ordinal;
        self.records.get_mut(usize::try_from(ordinal.checked_sub(first)?).ok()?)
    }

    pub(crate) fn admitted(&mut self, domain: &DomainKey, input: InputUse, now: Moment) {
        let usage = self.domains.entry(domain.clone()).or_default();
        usage.requests += 1;
        usage.input_tokens += input.counted();
        usage.cache_read_tokens += input.read;
        usage.cache_creation_tokens += input.created();
        self.series.note(domain, now, |row| {
            row.requests += 1;
            row.input_tokens += input.counted();
        });
    }

    /// A request of this domain was refused with 429.
    pub(crate) fn refused(&mut self, domain: &DomainKey, now: Moment) {
        self.series.note(domain, now, |row| row.refused += 1);
    }

    pub(crate) fn produced(&mut self, domain: &DomainKey, tokens: u64, now: Moment) {
        if let Some(usage) = self.domains.get_mut(domain) {
            usage.output_tokens += tokens;
        }
        self.series.note(domain, now, |row| row.output_tokens += tokens);
    }

    pub(crate) fn progress(&mut self, ordinal: u64, progress: Progress) {
        if let Some(record) = self.record_mut(ordinal) {
            record.progress = progress;
        }
    }

    pub(crate) fn left(&mut self, ordinal: u64, now: Moment) {
        if let Some(record) = self.record_mut(ordinal) {
            record.left.get_or_insert(now);
        }
    }

    pub(crate) fn end(
        &mut self,
        ordinal: u64,
        stream: bool,
        left: Option<Moment>,
        ending: Ending,
        progress: Progress,
        now: Moment,
    ) {
        self.open = self.open.saturating_sub(1);
        self.faults_struck += progress.faults;
        if stream {
            self.open_streams = self.open_streams.saturating_sub(1);
            self.streams_played += u64::from(ending == Ending::Played);
        }
        if ending == Ending::ClientLeft {
            self.clients_left += 1;
            self.closing_max = self.closing_max.max(now.since(left.unwrap_or(now)));
        }
        if let Some(record) = self.record_mut(ordinal) {
            record.ended = Some(now);
            record.progress = progress;
        }
    }

    /// Forgets everything but what is open.
    pub(crate) fn reset(&mut self) {
        let (open, open_streams) = (self.open, self.open_streams);
        *self = Truth { open, open_streams, peak_streams: open_streams, ..Truth::default() };
    }

    /// The single requests that are remembered, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.iter()
    }

    /// The request with this id, if it is remembered.
    pub fn record(&self, request_id: &str) -> Option<&Record> {
        self.records.iter().rfind(|record| record.request_id == request_id)
    }

    /// What was used in each second by an organisation in a model class, oldest first: of the last
    /// quarter of an hour.
    pub fn seconds(&self, organisation: &str, class: &'static str) -> impl Iterator<Item = &Second> {
        self.series.rows(organisation, class)
    }

    /// The same of all of them as JSON.
    pub fn seconds_json(&self) -> Value {
        self.series.json()
    }

    /// The counters as JSON.
    pub fn summary(&self, now: Moment) -> Value {
        let domains: Vec<Value> = self
            .domains
            .iter()
            .map(|((organisation, class), usage)| {
                json!({"organisation": organisation, "class": class, "requests": usage.requests,
                   "input_tokens": usage.input_tokens, "cache_read_tokens": usage.cache_read_tokens,
                   "cache_creation_tokens": usage.cache_creation_tokens, "output_tokens": usage.output_tokens})
            })
            .collect();
        let statuses: Map<String, Value> =
            self.statuses.iter().map(|(status, n)| (status.to_string(), json!(n))).collect();
        json!({
            "now_ms": ms(now), "requests": self.requests, "open": self.open, "open_streams": self.open_streams,
            "peak_streams": self.peak_streams, "streams_played": self.streams_played,
            "clients_left": self.clients_left, "closing_max_us": self.closing_max.as_micros() as u64,
            "domains": domains, "statuses": statuses, "refusals": self.refusals,
            "refusals_of": self.refusals_of,
            "faults_planned": self.faults_planned, "faults_struck": self.faults_struck,
            "continued": self.continued, "not_continued": self.not_continued,
            "records": self.records.len(), "record_text_bytes": self.text_bytes,
        })
    }
}

fn ms(moment: Moment) -> u64 {
    moment.as_nanos() / 1_000_000
}

impl Record {
    /// The text blocks of the answer as composed, joined; `None` if there is none or it is forgotten.
    pub fn text(&self) -> Option<String> {
        self.reply.as_ref().map(|reply| reply.text())
    }

    /// The record as JSON, with the answer's content if it is still remembered.
    pub fn json(&self) -> Value {
        let message = self.reply.as_deref().map(document::whole);
        let of_message = |field: &str| message.as_ref().map_or(Value::Null, |message| message[field].clone());
        json!({
            "request_id": self.request_id, "ordinal": self.ordinal, "door": self.door, "organisation": self.organisation,
            "model": self.model, "stream": self.stream, "status": self.status, "refusal": self.refusal, "faults": self.faults,
            "faults_struck": self.progress.faults,
            "continuation": self.continuation.as_ref().map(Continuation::json),
            "began_ms": ms(self.began), "left_ms": self.left.map(ms), "ended_ms": self.ended.map(ms),
            "closing_us": self.left.zip(self.ended).map(|(left, ended)| ended.since(left).as_micros() as u64),
            "sent_body_bytes": self.progress.body_bytes, "sent_content_bytes": self.progress.content_bytes,
            "produced_tokens": self.progress.output_tokens,
            "message_id": of_message("id"), "text": self.text(), "content": of_message("content"),
            "stop_reason": of_message("stop_reason"), "usage": of_message("usage"),
        })
    }
}
