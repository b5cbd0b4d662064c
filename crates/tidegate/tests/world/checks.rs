//! What has to hold in every world, each under its name.
//!
//! A request is judged by three witnesses: what its client read, what the API recorded of its
//! attempts, and what the same API, asked in a good mood, says to the same body (an answer depends
//! on seed and body only). What went wrong on the way may decide whether an answer comes; never what
//! is in it.

use crate::world::client::{End, Seen};
use crate::world::plan::{Reader, Request, Upload, What};
use crate::world::run::Over;
use crate::world::story::{Story, Told};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_simulator::{Action, Block, Record, RequestFacts};

/// How long after a client's leaving its upstream stream may still be open.
const CLOSING_MAX: Duration = Duration::from_millis(50);
/// From one piece of a trickle to the next.
const TRICKLE: Duration = Duration::from_millis(100);
/// How long a refusal waits to be read.
const LINGER: Duration = Duration::from_secs(10);
/// What timers may add to a deadline (they tick in milliseconds).
const TICK: Duration = Duration::from_millis(20);

/// How many requests came out how, over worlds: a test that tests nothing shows here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally(pub(crate) BTreeMap<String, u64>);

impl Tally {
    fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        for (what, n) in &other.0 {
            *self.0.entry(what.clone()).or_default() += n;
        }
    }
}

type Verdict = Result<(), String>;

/// A request with its witnesses.
struct Case<'a> {
    over: &'a Over<'a>,
    seen: &'a Seen,
    request: &'a Request,
    /// What the API says to it in a good mood, if it is a message.
    good: Option<Value>,
    /// The API's records of its attempts, oldest first; without those that were refused before an
    /// answer was composed, unless the model's name tells them apart.
    records: Vec<&'a Record>,
    /// Attempts that had been given up when the API took them up.
    abandoned: Vec<&'a Record>,
    story: Option<Story>,
    json: Option<Value>,
}

/// Checks everything; what broke is added to `broken`.
pub(crate) fn check(mut over: Over<'_>, broken: &mut Vec<String>) -> Tally {
    let mut tally = Tally::default();
    let seen = std::mem::take(&mut over.seen);
    let mut judge = over.judge.clone();
    let mut used = (0, 0);
    for one in &seen {
        let good = (one.request.what == What::Message).then(|| good_answer(&mut judge, &one.request));
        let case = Case::new(&over, one, good);
        case.tally(&mut tally);
        if let Some(usage) = case.usage() {
            used.0 += usage["input_tokens"].as_u64().unwrap_or(0);
            used.1 += usage["output_tokens"].as_u64().unwrap_or(0);
        }
        for (name, check) in OF_A_REQUEST {
            if let Err(why) = check(&case) {
                broken.push(format!("{name}: {why}\n{}", case.describe()));
            }
        }
    }
    let metrics = over.gateway.metrics().text();
    tally.0.insert("backlogs merged".to_owned(), sum(&metrics, "backlog_merges_total", ""));
    if let Err(why) = tokens_are_counted(&over, &metrics, used) {
        broken.push(format!("tokens are counted once: {why}"));
    }
    for (name, check) in OF_THE_WORLD {
        if let Err(why) = check(&over) {
            broken.push(format!("{name}: {why}"));
        }
    }
    tally
}

/// The JSON the API gives to this request when nothing goes wrong.
fn good_answer(judge: &mut tidegate_simulator::Simulator, request: &Request) -> Value {
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
    fn new(over: &'a Over<'a>, seen: &'a Seen, good: Option<Value>) -> Self {
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

    fn status(&self) -> u16 {
        self.seen.reading.head.as_ref().map_or(0, |h| h.status)
    }

    fn head(&self, name: &str) -> Option<&str> {
        self.seen.reading.head.as_ref()?.get(name)
    }

    fn error(&self) -> Option<&Value> {
        Some(&self.story.as_ref().and_then(|s| s.error.as_ref()).or(self.json.as_ref())?["error"])
    }

    fn error_code(&self) -> Option<&str> {
        self.error()?["details"]["error_code"].as_str()
    }

    fn is_clients_mistake(&self) -> bool {
        self.error().is_some_and(|error| error["type"] == "invalid_request_error")
    }

    /// What a good answer said it cost.
    fn usage(&self) -> Option<&Value> {
        if self.seen.end != End::Answered || self.request.what != What::Message || self.status() != 200 {
            return None;
        }
        match &self.story {
            Some(story) => story.stopped.then_some(&story.usage),
            None => self.json.as_ref().map(|json| &json["usage"]),
        }
    }

    fn drained_by(&self, moment: Moment) -> bool {
        self.over.drain.is_some_and(|drain| drain.began <= moment)
    }

    fn tally(&self, tally: &mut Tally) {
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

    fn describe(&self) -> String {
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

type OfARequest = (&'static str, fn(&Case<'_>) -> Verdict);

const OF_A_REQUEST: &[OfARequest] = &[
    ("one whole answer for every client that stays", one_whole_answer),
    ("only documented statuses", documented_statuses),
    ("errors come in the API's envelope", errors_in_the_envelope),
    ("every answer names its request", answers_are_named),
    ("no key leaves the gateway", no_key_leaves),
    ("a stream keeps its grammar", stream_grammar),
    ("a stream says what the API said", stream_is_true),
    ("a buffered answer is the API's, field by field", buffered_is_true),
    ("nothing is tried again once content was passed on", no_retry_after_content),
    ("no more attempts than the rules allow", attempts_bounded),
    ("a deadline is kept", deadline_kept),
    ("whoever vanishes takes the upstream stream along", vanished_clients_close_upstream),
    ("nothing is held up on the way", nothing_held_up),
    ("a waiting stream hears something", silence_is_broken),
    ("a model that stands still is given up in time", progress_clock_holds),
    ("a cancel takes effect at once", cancels_at_once),
    ("nobody gives up early", nobody_gives_up_early),
    ("in a calm world everything succeeds", calm_succeeds),
];

fn one_whole_answer(case: &Case<'_>) -> Verdict {
    let seen = case.seen;
    match seen.end {
        End::Hung => Err("it hangs".to_owned()),
        End::Answered | End::Left | End::Stopped => Ok(()),
        End::Unserved if case.drained_by(seen.ended) => Ok(()),
        // A slow reader is cut off when its backlog is over the limit, or when it stands still.
        End::Cut if case.request.reader != Reader::Eager && !case.over.scene.calm => Ok(()),
        End::Cut if is_narrow(case) => Ok(()),
        End::Cut if case.request.leave.is_some() || matches!(case.request.reader, Reader::Stops(_)) => Ok(()),
        // It was never a request, and the gateway was going down or idle for too long.
        End::Cut | End::Unserved => Err(format!("{:?}: {:?}", seen.end, seen.reading.broken)),
    }
}

/// Whether a client may be cut off although it reads. Any: an event came that is larger than a small
/// backlog. One of HTTP/2: what came at one moment is more than that takes before its window opens
/// again, or it reads only when it has sent all, and that takes longer than a refusal waits to be
/// read.
fn is_narrow(case: &Case<'_>) -> bool {
    let burst = case.over.scene.settings.limits.backlog_bytes < 256 * 1024;
    if burst && case.records.iter().any(|record| record.faults.contains(&"huge-at")) {
        return true;
    }
    let busy = matches!(case.request.upload, Upload::Pieces(..)) && case.seen.sent.since(case.seen.began) > LINGER;
    case.request.http2 && (burst || busy && case.status() >= 400)
}

fn documented_statuses(case: &Case<'_>) -> Verdict {
    let status = case.status();
    if status == 0 {
        return Ok(());
    }
    let upstream_says: &[u16] = &[200, 400, 403, 404, 413, 500, 502, 503, 504, 529];
    let allowed: &[u16] = match case.request.what {
        What::Message => upstream_says,
        What::CountTokens | What::Models | What::OneModel => &[200, 500, 502, 504, 529],
        What::Root | What::RootHead => &[200],
        What::UnknownPath => &[404],
        What::WrongMethod => &[405],
        What::StrangeKey => &[401],
        What::StrangeHeader | What::GarbageHead | What::TwoFrames => &[400],
        What::BadJson | What::NoModel => &[400, 529],
        What::TooLarge => &[413, 529],
        What::SlowBody => &[408, 529],
        What::HugeHead => &[431],
        What::SlowHead => &[408],
    };
    // What the upstream was not told to say, it did not say.
    let told = |status: u16| {
        let of_place = matches!(status, 400);
        let faults = || case.over.scene.scenario.faults.iter().flat_map(|rule| &rule.faults);
        faults().any(|f| matches!(f, tidegate_simulator::Fault::Status { status: s, .. } if *s == status))
            || of_place
                && faults().any(|f| matches!(f, tidegate_simulator::Fault::ErrorEvent(_, "invalid_request_error")))
    };
    let large = case.request.body.to_string().len() as u64 > case.over.scene.settings.limits.body_bytes;
    let told_by_us = match case.error_code() {
        Some("cancelled_by_operator") => status == 500 && !case.over.scene.cancels.is_empty(),
        Some("draining") => status == 529 && case.drained_by(case.seen.ended),
        Some("too_many_streams") => status == 529 && is_crowded(case) && case.request.http2,
        Some("input_too_large") => status == 400 && is_too_large(case),
        // An answer to HEAD cannot say why.
        None if case.request.what == What::RootHead => status == 529 && is_crowded(case) && case.request.http2,
        // Of an answer that was not read to its end only the status is known.
        None => (matches!(status, 500 | 529) || status == 400 && is_too_large(case)) && case.seen.end != End::Answered,
        _ => false,
    };
    if told_by_us {
        return Ok(());
    }
    let dribbles = matches!(case.request.upload, Upload::Pieces(..));
    if status == 413 && large || status == 408 && dribbles {
        return Ok(());
    }
    let of_upstream = case.request.what == What::Message && matches!(status, 400 | 403 | 404 | 413 | 503);
    if !allowed.contains(&status) || of_upstream && !told(status) {
        return Err(format!("{status}"));
    }
    Ok(())
}

/// Whether no organisation's bucket ever holds what this input takes: as far as one can be off who
/// has to guess the tokens and what is saved up.
fn is_too_large(case: &Case<'_>) -> bool {
    let model = &case.request.model;
    let class = if model.starts_with("echo") { "echo" } else { model.trim_start_matches("claude-") };
    let scenario = &case.over.scene.scenario;
    let holds = |limits: &tidegate_simulator::Limits| limits.input_tokens as f64 * limits.burst.as_secs_f64() / 60.0;
    let most = |org: &tidegate_simulator::Organisation| org.limits.get(class).map_or(f64::INFINITY, holds);
    let most = scenario.organisations.iter().map(most).fold(0.0, f64::max);
    let tokens = case.good.as_ref().and_then(|good| good["usage"]["input_tokens"].as_f64()).unwrap_or(0.0);
    tokens * 2.0 > most
}

fn errors_in_the_envelope(case: &Case<'_>) -> Verdict {
    let check = |envelope: &Value, id: Option<&str>| {
        let kinds = [
            "invalid_request_error",
            "authentication_error",
            "permission_error",
            "not_found_error",
            "request_too_large",
            "api_error",
            "timeout_error",
            "overloaded_error",
        ];
        let error = &envelope["error"];
        let kind = error["type"].as_str().unwrap_or_default();
        let named = envelope["request_id"].as_str().is_some_and(|named| id.is_none_or(|id| id == named));
        let spoken = error["message"].as_str().is_some_and(|message| !message.is_empty());
        if envelope["type"] == "error" && kinds.contains(&kind) && named && spoken {
            Ok(())
        } else {
            Err(format!("{envelope}"))
        }
    };
    if let Some(error) = case.story.as_ref().and_then(|s| s.error.as_ref()) {
        check(error, None)?;
    }
    // An answer to HEAD has none.
    if case.seen.end != End::Answered || case.status() == 200 || case.request.what == What::RootHead {
        return Ok(());
    }
    check(case.json.as_ref().ok_or("no JSON")?, case.head("request-id"))
}

fn answers_are_named(case: &Case<'_>) -> Verdict {
    let named = |name| case.head(name).is_some_and(|id| id.starts_with("req_"));
    let unnamed = matches!(case.request.what, What::Root | What::RootHead);
    if case.status() == 0 || unnamed || named("request-id") && named("tidegate-request-id") {
        return Ok(());
    }
    Err("request-id or tidegate-request-id is missing".to_owned())
}

fn no_key_leaves(case: &Case<'_>) -> Verdict {
    let text = format!("{:?}{}", case.seen.reading.head, String::from_utf8_lossy(&case.seen.reading.body));
    if text.contains("sk-ant-") || text.contains("tg_key") { Err("a key".to_owned()) } else { Ok(()) }
}

fn stream_grammar(case: &Case<'_>) -> Verdict {
    if !case.head("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        let streams = case.request.what == What::Message && case.request.stream;
        let whole = case.seen.end == End::Answered && case.status() == 200;
        return if streams && whole { Err("a stream was asked for".to_owned()) } else { Ok(()) };
    }
    if !case.request.stream {
        return Err("a stream that nobody asked for".to_owned());
    }
    let story = Story::read(&case.seen.reading.body)?;
    if case.seen.end != End::Answered {
        return Ok(());
    }
    match (story.ended(), story.rest) {
        (true, 0) => Ok(()),
        (true, rest) => Err(format!("{rest} bytes after the last event")),
        (false, _) => Err("it ends without message_stop or error".to_owned()),
    }
}

/// What a block of the truth would have told.
pub(crate) fn told_by(block: &Block) -> Told {
    let told = |kind: &str, text: &str| Told { kind: kind.to_owned(), text: text.to_owned(), ..Told::default() };
    match block {
        Block::Thinking { text, signature, .. } => Told { signature: signature.clone(), ..told("thinking", text) },
        Block::Text(text) => told("text", text),
        Block::ToolUse { input, name, .. } => Told { name: name.clone(), ..told("tool_use", input) },
    }
}

/// Whether `got` is `want` with at most `times` pieces of it said twice in a row.
fn says(got: &str, want: &str, times: usize) -> bool {
    if times == 0 || got.len() <= want.len() {
        return got == want;
    }
    // One repeated piece: what is before its end and what is after its beginning are both true.
    let (got, want) = (got.as_bytes(), want.as_bytes());
    let before = got.iter().zip(want).take_while(|(a, b)| a == b).count();
    let after = got.iter().rev().zip(want.iter().rev()).take_while(|(a, b)| a == b).count();
    times > 1 || before + after >= want.len()
}

fn stream_is_true(case: &Case<'_>) -> Verdict {
    let Some(story) = &case.story else { return Ok(()) };
    let Some(id) = story.message_id() else {
        return if story.blocks.is_empty() { Ok(()) } else { Err("content without a message".to_owned()) };
    };
    let good = case.good.as_ref().filter(|good| good["id"] == id).ok_or_else(|| format!("nobody said {id}"))?;
    // One that was left at the moment it began may have said something at that moment.
    let mut records = case.abandoned.iter().chain(&case.records).rev();
    let record = records.find(|r| r.reply.is_some()).ok_or("the API has no record of it")?;
    let reply = record.reply.as_deref().ok_or("the API has forgotten it")?;
    let doubled: usize =
        case.records.iter().map(|r| r.faults.iter().filter(|f| **f == "duplicate-at").count()).max().unwrap_or(0);
    let truth: Vec<Told> = reply.blocks.iter().map(told_by).collect();
    if story.blocks.len() > truth.len() {
        return Err(format!("{} blocks, truly {}", story.blocks.len(), truth.len()));
    }
    for (n, (told, truth)) in story.blocks.iter().zip(&truth).enumerate() {
        if (&told.kind, &told.name) != (&truth.kind, &truth.name) {
            return Err(format!("block {n} is {told:?}, truly {truth:?}"));
        }
        let whole = told.stopped || story.stopped;
        let prefix = doubled > 0 || truth.text.starts_with(&told.text);
        if whole && !says(&told.text, &truth.text, doubled) || !whole && !prefix {
            return Err(format!("block {n} says {told:?}, truly {truth:?}"));
        }
        if whole && told.signature != truth.signature {
            return Err(format!("block {n} is signed {}, truly {}", told.signature, truth.signature));
        }
    }
    if !story.stopped {
        return Ok(());
    }
    if story.blocks.len() != truth.len() {
        return Err(format!("{} blocks, truly {}", story.blocks.len(), truth.len()));
    }
    let reason = story.stop_reason.as_deref();
    if reason != good["stop_reason"].as_str() || reason != Some(reply.stop_reason) {
        return Err(format!("stop_reason {reason:?}, truly {}", reply.stop_reason));
    }
    if story.usage != good["usage"] {
        return Err(format!("usage {}, truly {}", story.usage, good["usage"]));
    }
    Ok(())
}

fn buffered_is_true(case: &Case<'_>) -> Verdict {
    let told = case.request.what == What::Message && case.seen.end == End::Answered && case.status() == 200;
    if !told || case.story.is_some() || case.request.stream {
        return Ok(());
    }
    let json = case.json.as_ref().ok_or("no JSON")?;
    if case.records.iter().any(|r| r.faults.contains(&"duplicate-at")) {
        return Ok(());
    }
    match case.good.as_ref() {
        Some(good) if good == json => Ok(()),
        good => Err(format!("{json}\n  truly {}", good.unwrap_or(&Value::Null))),
    }
}

fn no_retry_after_content(case: &Case<'_>) -> Verdict {
    let body = &case.seen.reading;
    let from = match (&case.story, case.seen.end) {
        (Some(story), _) => story.content_from,
        (None, End::Answered) => Some(body.body.len()),
        _ => None,
    };
    let Some(from) = from else { return Ok(()) };
    let slow = !matches!(case.request.reader, Reader::Eager);
    let Some((at, _)) = body.marks.iter().find(|(_, len)| *len >= from) else { return Ok(()) };
    match case.records.iter().find(|r| r.began > *at) {
        Some(late) if !slow => Err(format!("attempt {} began after content was read at {at}", late.ordinal)),
        _ => Ok(()),
    }
}

fn attempts_bounded(case: &Case<'_>) -> Verdict {
    // An attempt over a kept connection that turns out dead goes out once more. What is refused
    // under load is asked for again as long as there is time, and not as fast as can be.
    let most = case.over.scene.settings.schedule.retry.attempts_max.max(1) as usize * 2;
    let refused = |r: &Record| matches!(r.status, 429 | 529) || r.faults.contains(&"error-at");
    let under_load = case.records.iter().filter(|r| refused(r)).count();
    // So does each of those: what went before it at once, and was not answered at all.
    let unanswered = |r: &Record| r.status == 0 && !refused(r);
    let again = |pair: &&[&Record]| unanswered(pair[0]) && pair[0].ended == Some(pair[1].began) && refused(pair[1]);
    let gone_out_again = case.records.windows(2).filter(again).count();
    let counted = case.records.len() - under_load - gone_out_again;
    if counted > most {
        return Err(format!("{counted} attempts besides {under_load} that were refused under load, allowed {most}"));
    }
    // Waits double from `base` to `cap`: nine or so in the first seconds, then one in some ten.
    let lived = case.seen.ended.since(case.seen.began);
    let often = 30 + lived.as_secs() as usize / 2;
    if under_load > often { Err(format!("{under_load} refused attempts in {lived:?}")) } else { Ok(()) }
}

fn deadline_kept(case: &Case<'_>) -> Verdict {
    let Some(deadline) = case.request.deadline else { return Ok(()) };
    let eager = case.request.reader == Reader::Eager && case.request.upload == Upload::Whole;
    // It counts from the head's arrival; where connections are few, that may be late.
    let accepted_at_once = !is_crowded(case);
    let took = case.seen.ended.since(case.seen.began);
    let concerned = eager && accepted_at_once && case.request.what == What::Message && case.seen.end == End::Answered;
    if concerned && took > deadline + TICK { Err(format!("took {took:?} of {deadline:?}")) } else { Ok(()) }
}

fn vanished_clients_close_upstream(case: &Case<'_>) -> Verdict {
    if case.seen.end != End::Left {
        return Ok(());
    }
    let left = case.seen.ended;
    for record in case.records.iter().chain(&case.abandoned) {
        let ended = record.ended.ok_or("an attempt never ended")?;
        let from = record.began.max(left);
        // A trickle looks for its end a tenth of a second after its last bytes.
        let most = if record.faults.contains(&"trickle") { CLOSING_MAX + TRICKLE } else { CLOSING_MAX };
        if ended > from && ended.since(from) > most {
            return Err(format!("attempt {} went on for {:?}", record.ordinal, ended.since(from)));
        }
    }
    Ok(())
}

/// Whether there may be fewer connections and streams than wanted.
fn is_crowded(case: &Case<'_>) -> bool {
    let limits = &case.over.scene.settings.limits;
    limits.connections.min(limits.streams) <= 1_000
}

/// Whether the client did all it could to be served quickly.
fn is_swift(case: &Case<'_>) -> bool {
    let alone = !is_crowded(case);
    let request = case.request;
    let swift = request.reader == Reader::Eager
        && request.upload == Upload::Whole
        && request.leave.is_none()
        && !request.follows;
    alone && swift && case.seen.end == End::Answered && request.what == What::Message
}

fn nothing_held_up(case: &Case<'_>) -> Verdict {
    let good = case.status() == 200 && case.story.as_ref().is_none_or(|story| story.stopped);
    let Some(ended) = case.records.last().and_then(|r| r.ended) else { return Ok(()) };
    let late = case.seen.ended.since(ended);
    if is_swift(case) && good && late > TICK { Err(format!("{late:?} after the API had said all")) } else { Ok(()) }
}

fn silence_is_broken(case: &Case<'_>) -> Verdict {
    let Some(story) = &case.story else { return Ok(()) };
    if !is_swift(case) || !story.ended() {
        return Ok(());
    }
    let mut last = case.seen.sent;
    for at in case.seen.reading.heard.iter().copied() {
        let silence = at.since(last);
        if silence > case.over.scene.settings.clocks.heartbeat + TICK {
            return Err(format!("nothing from {last} to {at}, {silence:?}"));
        }
        last = at;
    }
    Ok(())
}

fn progress_clock_holds(case: &Case<'_>) -> Verdict {
    let Some(story) = &case.story else { return Ok(()) };
    let clocks = &case.over.scene.settings.clocks;
    let most = clocks.progress.max(clocks.progress_unseen) + TICK;
    let marks = &case.seen.reading.marks;
    let came = story.progress.iter().filter_map(|end| marks.iter().find(|(_, len)| len >= end).map(|(at, _)| *at));
    // Before content, attempts may follow each other.
    let came: Vec<Moment> = came.skip(1).collect();
    match came.windows(2).find(|pair| pair[1].since(pair[0]) > most) {
        Some(pair) if is_swift(case) => Err(format!("nothing but pings from {} to {}", pair[0], pair[1])),
        _ => Ok(()),
    }
}

fn cancels_at_once(case: &Case<'_>) -> Verdict {
    let prompt =
        |at: &Duration| case.seen.ended.since(Moment::ZERO + *at) <= TICK && case.seen.ended >= Moment::ZERO + *at;
    let cancelled = case.error_code() == Some("cancelled_by_operator") && is_swift(case);
    if !cancelled || case.over.scene.cancels.iter().any(|(at, _)| prompt(at)) {
        return Ok(());
    }
    Err(format!("told at {}, cancels at {:?}", case.seen.ended, case.over.scene.cancels))
}

fn nobody_gives_up_early(case: &Case<'_>) -> Verdict {
    let scene = case.over.scene;
    let broken = ["upstream_broken", "upstream_error", "upstream_overloaded", "upstream_timeout"];
    // What the API calls the client's mistake stays one.
    let gave_up = case.error_code().is_some_and(|code| broken.contains(&code)) && !case.is_clients_mistake();
    let content = case.story.as_ref().is_some_and(|story| story.content_from.is_some());
    // Only where every attempt is known, and nothing but the number of attempts ends them.
    let slow_connect = |f: &tidegate_simulator::Fault| matches!(f, tidegate_simulator::Fault::SlowConnect(_));
    let known = case.request.model.starts_with("echo")
        && !scene.scenario.faults.iter().flat_map(|rule| &rule.faults).any(slow_connect)
        && scene.scenario.organisations.iter().all(|org| org.revoked.is_empty())
        && !scene.settings.organisations.iter().any(|org| org.name == "gone");
    let rules = scene.settings.schedule.retry;
    let rich = rules.budget as usize >= 14 * case.over.records.len();
    let took = case.seen.ended.since(case.seen.began);
    let in_time = case.request.deadline.is_none() && took + rules.cap < scene.settings.clocks.whole;
    // What is refused under load is asked for as long as its band may wait.
    let band = case.request.lines.iter().find(|(name, _)| *name == "tidegate-priority");
    let band = band.and_then(|(_, value)| tidegate_schedule::Band::of_name(value)).unwrap_or_default();
    let waited_out = took >= scene.settings.schedule.queue.wait_max[band as usize];
    if case.error_code() == Some("upstream_overloaded") && waited_out {
        return Ok(());
    }
    let attempts = case.records.len();
    if gave_up && !content && known && rich && in_time && attempts < rules.attempts_max as usize {
        return Err(format!("after {attempts} attempts of {}", rules.attempts_max));
    }
    Ok(())
}

fn calm_succeeds(case: &Case<'_>) -> Verdict {
    // A neighbour on the same connection may have taken it along.
    let stays = case.request.stays() && case.seen.end != End::Left;
    let concerned = case.over.scene.calm && stays && case.request.what == What::Message;
    // An answer may be longer than the client's patience.
    let impatient = case.request.lines.iter().any(|(name, _)| *name == "x-stainless-timeout");
    if !concerned || impatient && case.error_code() == Some("deadline_passed") {
        return Ok(());
    }
    let stopped = case.story.as_ref().is_none_or(|story| story.stopped);
    if case.seen.end == End::Answered && case.status() == 200 && stopped && case.records.len() == 1 {
        return Ok(());
    }
    Err(format!("{:?} {} after {} attempts", case.seen.end, case.status(), case.records.len()))
}

type OfTheWorld = (&'static str, fn(&Over<'_>) -> Verdict);

const OF_THE_WORLD: &[OfTheWorld] = &[
    ("nothing panics", nothing_panics),
    ("nothing is held at rest", nothing_is_held),
    ("the API is left alone at rest", api_is_left),
    ("a drain ends in time", drain_ends),
];

/// The sum of a metric's values over all lines with `label`.
pub(crate) fn sum(metrics: &str, name: &str, label: &str) -> u64 {
    let lines = metrics.lines().filter(|line| !line.starts_with('#') && line.contains(name) && line.contains(label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// At least what good answers said, at most what the API composed; attempts cut short lie between.
fn tokens_are_counted(over: &Over<'_>, metrics: &str, (input, output): (u64, u64)) -> Verdict {
    let counted = |kind| sum(metrics, "tokens_total", kind);
    let (counted_input, counted_output) = (counted("kind=\"input\""), counted("kind=\"output\""));
    let replies = || over.records.iter().filter_map(|r| r.reply.as_deref());
    let most = (replies().map(|r| r.input_tokens).sum::<u64>(), replies().map(|r| r.output_tokens).sum::<u64>());
    let holds = (input..=most.0).contains(&counted_input) && (output..=most.1).contains(&counted_output);
    let told = format!("{counted_input} and {counted_output}, good answers {input} and {output}, composed {most:?}");
    if holds { Ok(()) } else { Err(told) }
}

fn nothing_panics(over: &Over<'_>) -> Verdict {
    if over.panics.is_empty() { Ok(()) } else { Err(over.panics.join("; ")) }
}

fn nothing_is_held(over: &Over<'_>) -> Verdict {
    let gateway = &over.gateway;
    let (held, live, living) = (gateway.held(), gateway.live().len(), gateway.living());
    let leaked = gateway.metrics().leases_leaked();
    gateway.refresh_gauges();
    let text = gateway.metrics().text();
    let counts = |line: &&str| {
        line.contains("upstream_connections{")
            || line.contains("upstream_streams{")
            || line.contains("tidegate_client_")
    };
    let gauge = |line: &&str| counts(line) && !line.starts_with('#') && !line.ends_with(" 0");
    let busy: Vec<_> = text.lines().filter(gauge).collect();
    if held == (0, 0, 0, 0) && live == 0 && living.is_empty() && leaked == 0 && busy.is_empty() {
        return Ok(());
    }
    Err(format!("held {held:?}, {live} live, tasks {living:?}, {leaked} leases leaked, busy {busy:?}"))
}

fn api_is_left(over: &Over<'_>) -> Verdict {
    let open = (over.summary["open"].as_u64(), over.summary["open_streams"].as_u64());
    let unended = over.records.iter().filter(|r| r.ended.is_none()).count();
    if open == (Some(0), Some(0)) && unended == 0 {
        return Ok(());
    }
    Err(format!("{open:?} requests and streams open, {unended} records without an end"))
}

fn drain_ends(over: &Over<'_>) -> Verdict {
    let Some(drain) = over.drain else { return Ok(()) };
    let most = over.scene.settings.clocks.drain + Duration::from_secs(5) + TICK;
    let took = drain.ended.since(drain.began);
    if took <= most { Ok(()) } else { Err(format!("took {took:?} of {most:?}")) }
}
