//! A request of a world with its witnesses.

use super::Tally;
use crate::world::client::{End, Seen};
use crate::world::plan::{Request, What};
use crate::world::run::Over;
use crate::world::story::Story;
use serde_json::Value;
use tidegate_base::Moment;
use tidegate_simulator::{Action, Record, RequestFacts};

/// A request with its witnesses.
pub(super) struct Case<'a> {
    pub(super) over: &'a Over<'a>,
    pub(super) seen: &'a Seen,
    pub(super) request: &'a Request,
    /// What the API says to it in a good mood, if it is a message.
    pub(super) good: Option<Value>,
    /// The API's records of its attempts, oldest first; without those that were refused before an
    /// answer was composed, unless the model's name tells them apart.
    pub(super) records: Vec<&'a Record>,
    /// Attempts that had been given up when the API took them up.
    pub(super) abandoned: Vec<&'a Record>,
    pub(super) story: Option<Story>,
    pub(super) json: Option<Value>,
}

/// The JSON the API gives to this request when nothing goes wrong.
pub(super) fn good_answer(judge: &mut tidegate_simulator::Simulator, request: &Request) -> Value {
    let mut body = request.body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.shift_remove("stream");
    }
    let body = body.to_string();
    let mut headers = vec![("x-api-key", "sk-ant-judge-1"), ("anthropic-version", "2023-06-01")];
    headers.extend(request.lines.iter().filter(|(n, _)| *n == "simulate").map(|(n, v)| (*n, v.as_str())));
    let facts = RequestFacts { method: "POST", target: "/v1/messages", headers: &headers, body: body.as_bytes() };
    let exchange = judge.begin(Moment::ZERO, &facts);
    let ordinal = exchange.ordinal;
    let mut bytes = Vec::new();
    for step in exchange.playback {
        if let Action::Send(piece) = step.action {
            bytes.extend_from_slice(&piece);
        }
    }
    judge.ended(Moment::ZERO, ordinal, tidegate_simulator::Progress::default());
    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
}

impl<'a> Case<'a> {
    pub(super) fn new(over: &'a Over<'a>, seen: &'a Seen, good: Option<Value>) -> Self {
        let request = &seen.request;
        let id = good.as_ref().and_then(|good| good["id"].as_str());
        let of_id = |r: &&Record| r.reply.as_ref().is_some_and(|reply| Some(reply.id.as_str()) == id);
        let records =
            over.records.iter().filter(|r| r.model == request.model && request.model.starts_with("echo") || of_id(r));
        let taken_up_late = |f: &tidegate_simulator::Fault| matches!(f, tidegate_simulator::Fault::SlowConnect(_));
        let late = over.scene.scenario.faults.iter().flat_map(|rule| &rule.faults).any(taken_up_late);
        let given_up = |r: &&Record| match r.left {
            Some(left) => left == r.began && (late || r.progress.body_bytes == 0 || r.began > seen.ended),
            None => late && r.status == 0 && r.ended == Some(r.began),
        };
        let (abandoned, records) = records.partition(given_up);
        let head = seen.reading.head.as_ref();
        let kind = head.and_then(|h| h.get("content-type")).unwrap_or_default();
        let is_story = kind.starts_with("text/event-stream");
        let story = is_story.then(|| Story::read(&seen.reading.body).ok()).flatten();
        let json = kind.starts_with("application/json").then(|| serde_json::from_slice(&seen.reading.body).ok());
        Case { over, seen, request, good, records, abandoned, story, json: json.flatten() }
    }

    pub(super) fn status(&self) -> u16 {
        self.seen.reading.head.as_ref().map_or(0, |h| h.status)
    }

    pub(super) fn head(&self, name: &str) -> Option<&str> {
        self.seen.reading.head.as_ref()?.get(name)
    }

    pub(super) fn error(&self) -> Option<&Value> {
        Some(&self.story.as_ref().and_then(|s| s.error.as_ref()).or(self.json.as_ref())?["error"])
    }

    pub(super) fn error_code(&self) -> Option<&str> {
        self.error()?["details"]["error_code"].as_str()
    }

    pub(super) fn is_clients_mistake(&self) -> bool {
        self.error().is_some_and(|error| error["type"] == "invalid_request_error")
    }

    /// What a good answer said it cost.
    pub(super) fn usage(&self) -> Option<&Value> {
        if self.seen.end != End::Answered || self.request.what != What::Message || self.status() != 200 {
            return None;
        }
        match &self.story {
            Some(story) => story.stopped.then_some(&story.usage),
            None => self.json.as_ref().map(|json| &json["usage"]),
        }
    }

    pub(super) fn drained_by(&self, moment: Moment) -> bool {
        self.over.drain.is_some_and(|drain| drain.began <= moment)
    }

    pub(super) fn tally(&self, tally: &mut Tally) {
        let end = self.seen.end;
        let what = self.request.what;
        match end {
            End::Answered if what == What::Message => {
                let story = self.story.as_ref();
                let ending = story.map_or("json", |s| if s.stopped { "message_stop" } else { "error" });
                tally.count(format!("Message {} {ending}", self.status()));
                if let Some(code) = self.error_code() {
                    tally.count(format!("code {code}"));
                }
                if self.records.len() > 1 && self.status() == 200 && story.is_none_or(|s| s.stopped) {
                    tally.count("good after a retry");
                }
            }
            _ => tally.count(format!("{what:?} {end:?} {}", self.status())),
        }
        if self.over.scene.speaks_http2() {
            *tally.0.entry("attempts where a lane speaks HTTP/2".to_owned()).or_default() += self.records.len() as u64;
        }
        if self.request.http2 {
            tally.count(format!("over HTTP/2 {end:?}"));
        }
    }

    pub(super) fn describe(&self) -> String {
        let (request, reading) = (self.request, &self.seen.reading);
        let (method, target) = request.line();
        let mut text = format!(
            "  request {} {:?}: {method} {target} model {} stream {} max_tokens {} {:?} upload {:?} reader {:?} leave {:?} deadline {:?}\n",
            request.number,
            request.what,
            request.model,
            request.stream,
            request.max_tokens(),
            request.lines,
            request.upload,
            request.reader,
            request.leave,
            request.deadline,
        );
        let (began, sent, ended) = (self.seen.began, self.seen.sent, self.seen.ended);
        text += &format!(
            "  began {began} sent {sent} ended {ended} as {:?}; broken: {:?}\n",
            self.seen.end, reading.broken
        );
        text += &format!("  head {:?}\n", reading.head);
        let body = String::from_utf8_lossy(&reading.body);
        let tail: String = body.chars().rev().take(600).collect::<Vec<_>>().into_iter().rev().collect();
        text += &format!("  body of {} bytes, its end: {tail}\n", reading.body.len());
        for r in self.records.iter().chain(&self.abandoned) {
            text += &format!(
                "  attempt {} {} status {} refusal {:?} faults {:?} struck {} began {} left {:?} ended {:?} body {} content {}\n",
                r.ordinal,
                r.organisation,
                r.status,
                r.refusal,
                r.faults,
                r.progress.faults,
                r.began,
                r.left,
                r.ended,
                r.progress.body_bytes,
                r.progress.content_bytes,
            );
        }
        text
    }
}
