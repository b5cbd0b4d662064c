//! What has to hold of faulted streams, each under its name.
//!
//! A stream has three witnesses: the book of what all its readers were told, what the API recorded
//! of its attempts, and what the same API says to the same body in a good mood.

use crate::world::checks::{sum, told_by};
use crate::world::faulted::asker::{Line, Read, sorts};
use crate::world::faulted::book::Ending;
use crate::world::faulted::fault::Harm;
use crate::world::faulted::plan::{Ask, Class, Door, Leave, Plan, Recover, Spoken};
use crate::world::faulted::stage::{Bill, Over};
use crate::world::faulted::talk;
use crate::world::faulted::tally::{Row, Tally};
use crate::world::faulted::visit::{Came, locked};
use crate::world::story::{Story, Told};
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_simulator::{Action, Progress, Record, Reply, RequestFacts, Simulator};

/// What timers may add to a clock.
const TICK: Duration = Duration::from_millis(20);

type Verdict = Result<(), String>;

/// What became of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Whole,
    /// It ended in an error, of this code.
    Broke(String),
    /// It never began; status and code.
    Refused(u16, String),
    /// Nobody knows.
    Left,
}

/// A stream with its witnesses.
pub(crate) struct Case<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) ask: &'a Ask,
    pub(crate) line: &'a Line,
    pub(crate) reads: Vec<Read>,
    pub(crate) story: Story,
    pub(crate) truth: Arc<Reply>,
    /// The API's records of its attempts, oldest first.
    pub(crate) records: Vec<&'a Record>,
    pub(crate) bills: Vec<&'a Bill>,
    pub(crate) fate: Fate,
}

/// Checks everything; what broke is added to `broken`.
pub(crate) fn check(over: Over<'_>, broken: &mut Vec<String>) -> Tally {
    let mut tally = Tally { worlds: 1, ..Tally::default() };
    let mut judge = over.judge.clone();
    for (ask, line) in over.plan.asks.iter().zip(&over.lines) {
        let Some(line) = line else {
            broken.push(format!("stream {}: its reader panicked", ask.number));
            continue;
        };
        match Case::new(&over, ask, line, &mut judge) {
            Ok(case) => {
                case.check(&mut tally, broken);
                let log = ask.talk.and_then(|talk| over.logs.get(&talk));
                if let Some(Err(why)) = log.map(|log| talk::kept(&case, log)) {
                    broken.push(format!("a conversation keeps what was told: {why}\n{}", case.describe()));
                }
            }
            Err(why) => broken.push(format!("a stream keeps its grammar: {why}\n  stream {} {:?}", ask.number, ask)),
        }
    }
    for (talk, log) in &over.logs {
        if let Err(why) = talk::in_order(over.plan, *talk, log) {
            broken.push(format!("a conversation is in order: {why}"));
        }
        tally.turns += log.len() as u64;
    }
    broken.extend(over.sockets.iter().map(|why| format!("a socket says what it should: {why}")));
    for (name, check) in OF_THE_WORLD {
        if let Err(why) = check(&over) {
            broken.push(format!("{name}: {why}"));
        }
    }
    tally
}

/// What the API composes for this body when nothing goes wrong.
fn true_reply(judge: &mut Simulator, ask: &Ask) -> Option<Arc<Reply>> {
    let body = ask.body.to_string();
    let headers = [("x-api-key", "sk-ant-judge-1"), ("anthropic-version", "2023-06-01")];
    let facts = RequestFacts { method: "POST", target: "/v1/messages", headers: &headers, body: body.as_bytes() };
    let exchange = judge.begin(Moment::ZERO, &facts);
    judge.ended(Moment::ZERO, exchange.ordinal, Progress::default());
    debug_assert!(exchange.playback.take(1).all(|step| !matches!(step.action, Action::Close)), "a good mood");
    judge.truth().records().next_back()?.reply.clone()
}

impl<'a> Case<'a> {
    fn new(over: &'a Over<'a>, ask: &'a Ask, line: &'a Line, judge: &mut Simulator) -> Result<Case<'a>, String> {
        let book = locked(&line.book);
        let story = match book.read() {
            // Blocks whose borders changed places make no message, and nobody can tell what it was.
            Err(_) if ask.faults.iter().any(|fault| fault.kind == "swap-at") => Story::default(),
            read => read?,
        };
        let truth = true_reply(judge, ask).ok_or("the API says nothing to it")?;
        let echo = ask.simulate.is_none();
        let of_it = |record: &&Record| match echo {
            true => record.model == ask.model,
            false => record.reply.as_ref().is_some_and(|reply| reply.id == truth.id),
        };
        let records: Vec<_> = over.records.iter().filter(of_it).collect();
        let bills = over.bills.iter().filter(|bill| echo && bill.model == ask.model).collect();
        let reads = locked(&line.reads).clone();
        let fate = fate(&book.ending, &reads);
        drop(book);
        Ok(Case { plan: over.plan, ask, line, reads, story, truth, records, bills, fate })
    }

    fn check(&self, tally: &mut Tally, broken: &mut Vec<String>) {
        self.count(tally);
        let mut failed = Vec::new();
        for why in locked(&self.line.broken).iter() {
            failed.push(format!("every reading says the same: {why}"));
        }
        for (name, check) in OF_A_STREAM {
            if let Err(why) = check(self) {
                failed.push(format!("{name}: {why}"));
            }
        }
        if failed.is_empty() {
            return;
        }
        let (told, truth) = (self.story.blocks.iter().map(|b| b.text.len()).sum::<usize>(), self.truth.content_bytes());
        if self.fate == Fate::Whole && !self.is_mended() && !self.is_disordered() {
            tally.lost += truth.saturating_sub(told as u64);
            tally.doubled += (told as u64).saturating_sub(truth);
        }
        tally.ends_wrong +=
            u64::from(failed.iter().any(|why| why.contains("it ended with") || why.contains("after the last")));
        let described = self.describe();
        broken.extend(failed.into_iter().map(|why| format!("{why}\n{described}")));
    }

    fn count(&self, tally: &mut Tally) {
        let book = locked(&self.line.book);
        tally.events += book.told;
        tally.joined += book.joined;
        drop(book);
        tally.text_bytes += self.story.blocks.iter().map(|block| block.text.len() as u64).sum::<u64>();
        tally.misused += u64::from(self.ask.misused);
        let class = if self.ask.class == Class::Memory { "memory" } else { "off" };
        let class = format!("resume {class}, recover {}", self.ask.recover.word());
        let places = self.ask.faults.iter().filter_map(|fault| fault.place.as_ref()).map(|place| kind_of_place(place));
        let add = |row: &mut Row| {
            row.streams += 1;
            match &self.fate {
                Fate::Whole => row.whole += 1,
                Fate::Broke(code) if code == "stream_cancelled" => row.left += 1,
                Fate::Broke(_) => row.broke += 1,
                Fate::Refused(..) => row.refused += 1,
                Fate::Left => row.left += 1,
            }
        };
        for fault in &self.ask.faults {
            add(tally.faults.entry(fault.kind.clone()).or_default());
        }
        for place in places {
            add(tally.places.entry(place).or_default());
        }
        add(tally.classes.entry(class).or_default());
        add(&mut tally.all);
        if let Fate::Broke(code) | Fate::Refused(_, code) = &self.fate {
            *tally.codes.entry(code.clone()).or_default() += 1;
        }
        for read in &self.reads {
            let way = tally.ways.entry(way_of(read.door)).or_default();
            way.readings += 1;
            way.back += u64::from(read.after.is_some());
            way.left += u64::from(read.came == Came::Left);
            way.cut += u64::from(matches!(read.came, Came::Cut(_)));
        }
        self.count_mended(tally);
    }

    /// What became of it, if it broke off once, after content, and somebody was to mend it.
    fn count_mended(&self, tally: &mut Tally) {
        let name = match self.ask.recover {
            Recover::Never => return,
            Recover::Restart => "restart",
            Recover::Continue if self.plan.clumsy => "continue, with spaces and begun words that were not there",
            Recover::Continue => "continue",
        };
        let [fault] = &self.ask.faults[..] else { return };
        let struck = self.records.first().is_some_and(|r| r.progress.faults > 0 && r.progress.content_bytes > 0);
        let told =
            matches!(self.fate, Fate::Whole) || matches!(&self.fate, Fate::Broke(code) if code != "stream_cancelled");
        if fault.harm != Harm::Breaks || self.ask.struck != 1 || !struck || !told || self.story.content_bytes() == 0 {
            return;
        }
        let mended = tally.mended.entry(name).or_default();
        if self.fate != Fate::Whole
            && let Some(why) = self.beyond()
        {
            *mended.beyond.entry(why.to_owned()).or_default() += 1;
            return;
        }
        // One that a neighbour on its connection took along later was struck twice.
        if self.records[1..]
            .iter()
            .any(|r| r.reply.as_ref().is_some_and(|reply| r.progress.content_bytes < reply.content_bytes()))
        {
            return;
        }
        mended.broke_off += 1;
        mended.whole += u64::from(self.fate == Fate::Whole);
        if self.fate != Fate::Whole {
            tally.remarks.push(format!("{name}, not whole: seed {}\n{}", self.plan.seed, self.describe()));
        } else if self.is_continued() {
            mended.seams += 1;
            mended.exact += u64::from(self.says_the_truth());
            if !self.says_the_truth() {
                let text = |blocks: &[Told]| {
                    blocks.iter().filter(|b| b.kind == "text").map(|b| b.text.as_str()).collect::<String>()
                };
                let truth: Vec<Told> = self.truth.blocks.iter().map(told_by).collect();
                let how = self.records.iter().find_map(|r| r.continuation.as_ref()).map(|c| {
                    format!(
                        "preamble {:?} reopened {:?} space {:?} repeated {:?}",
                        c.preamble, c.reopened, c.space, c.repeated
                    )
                });
                let why = differ(&text(&self.story.blocks), &text(&truth));
                tally.remarks.push(format!(
                    "{name}, inexact: seed {} {why}; {how:?}\n{}",
                    self.plan.seed,
                    self.describe()
                ));
            }
        }
    }

    /// Why the recovery table says that this one cannot be taken up.
    fn beyond(&self) -> Option<&'static str> {
        let last = self.story.blocks.last();
        let open = last.is_some_and(|block| !block.stopped);
        match last.map(|block| block.kind.as_str()) {
            Some("thinking") if open => Some("broke off inside thinking that was shown"),
            _ if self.ask.faults[0].kind == "huge-at, too large" => Some("with an event that is too large"),
            _ => None,
        }
    }

    pub(crate) fn is_continued(&self) -> bool {
        self.ask.recover == Recover::Continue && !locked(&self.line.book).recovered.is_empty()
    }

    /// Two replies may have made it.
    fn is_mended(&self) -> bool {
        self.ask.recover != Recover::Never && !locked(&self.line.book).recovered.is_empty()
    }

    pub(crate) fn is_disordered(&self) -> bool {
        self.ask.faults.iter().any(|fault| fault.harm == Harm::Disorder)
    }

    /// Whether its text, thinking and calls are the true ones.
    fn says_the_truth(&self) -> bool {
        let of = |kind: &str, blocks: &[Told]| -> Vec<String> {
            blocks.iter().filter(|b| b.kind == kind).map(|b| format!("{}{}", b.name, b.text)).collect()
        };
        let truth: Vec<Told> = self.truth.blocks.iter().map(told_by).collect();
        let told = &self.story.blocks;
        let (text, true_text) = (of("text", told).concat(), of("text", &truth).concat());
        let at_max = self.truth.stop_reason == "max_tokens" || self.story.stop_reason.as_deref() == Some("max_tokens");
        let texts = text == true_text || at_max && (true_text.starts_with(&text) || text.starts_with(&true_text));
        texts && (at_max || of("tool_use", told) == of("tool_use", &truth))
    }

    fn describe(&self) -> String {
        let ask = self.ask;
        let mut text = format!(
            "  stream {} {:?} {:?} model {} faults {:?} at {} attempts, over {:?}; {:?}\n  visits {:?}\n  twin {:?} deleted {:?}\n",
            ask.number,
            ask.class,
            ask.recover,
            ask.model,
            ask.faults.iter().map(|f| f.text.as_str()).collect::<Vec<_>>(),
            ask.struck,
            self.plan.spoken,
            self.fate,
            ask.visits,
            ask.twin,
            ask.deleted,
        );
        for read in &self.reads {
            let came: String = format!("{:?}", read.came).chars().take(300).collect();
            let _ = writeln!(
                text,
                "  read {:?} from {:?}, {} to {}: {came}",
                read.door, read.after, read.began, read.ended
            );
        }
        for r in &self.records {
            let _ = writeln!(
                text,
                "  attempt {} status {} refusal {:?} faults {:?} struck {} began {} left {:?} ended {:?} content {} continues {}",
                r.ordinal,
                r.status,
                r.refusal,
                r.faults,
                r.progress.faults,
                r.began,
                r.left,
                r.ended,
                r.progress.content_bytes,
                r.continuation.is_some(),
            );
        }
        let book = locked(&self.line.book);
        let _ = writeln!(
            text,
            "  last {}, recovered {:?}, bills {:?}, error {:?}",
            book.last(),
            book.recovered,
            self.bills,
            book.error
        );
        text
    }
}

fn kind_of_place(place: &str) -> String {
    match place.as_bytes() {
        [b'0'..=b'9', ..] => "a byte".to_owned(),
        _ if place.starts_with("event-") => "an event".to_owned(),
        _ => place.to_owned(),
    }
}

fn way_of(door: Door) -> &'static str {
    match door {
        Door::Http1 => "HTTP/1.1",
        Door::Http2 => "HTTP/2",
        Door::Socket(_) => "WebSocket",
    }
}

fn fate(ending: &Option<Ending>, reads: &[Read]) -> Fate {
    let refused = reads.iter().find_map(|read| match &read.came {
        Came::Refused(status, body) if *status != 410 => {
            let error = &body["error"];
            let code = error["details"]["error_code"].as_str().or(error["type"].as_str()).unwrap_or_default();
            Some(Fate::Refused(*status, code.to_owned()))
        }
        _ => None,
    });
    match ending {
        Some(Ending::Stop) => Fate::Whole,
        Some(Ending::Error(code)) => Fate::Broke(code.clone()),
        None => refused.unwrap_or(Fate::Left),
    }
}

type OfAStream = (&'static str, fn(&Case<'_>) -> Verdict);

const OF_A_STREAM: &[OfAStream] = &[
    ("a stream says what the API said, to the byte", says_what_was_said),
    ("nothing that came is lost where a stream breaks off", nothing_is_lost),
    ("a stream comes to the end it has to come to", ends_as_it_must),
    ("an answer over HTTP is whole", answers_are_whole),
    ("cursors sort as events do", cursors_sort),
    ("errors come in the API's envelope", errors_in_the_envelope),
    ("usage is billed once", billed_once),
];

/// How two texts differ, in few words.
fn differ(got: &str, want: &str) -> String {
    let at = got.bytes().zip(want.bytes()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| {
        String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(20).min(text.len())..(at + 40).min(text.len())])
            .into_owned()
    };
    format!("{} bytes, truly {}; at {at} {:?}, truly {:?}", got.len(), want.len(), around(got), around(want))
}

/// Whether `got` is `want`, or its beginning, but for a piece that is there twice or two neighbours
/// that changed places, so often.
fn says(got: &str, want: &str, whole: bool, disorder: usize) -> bool {
    match disorder {
        0 if whole => got == want,
        0 => want.starts_with(got),
        1 => {
            let (got, want) = (got.as_bytes(), want.as_bytes());
            let before = got.iter().zip(want).take_while(|(a, b)| a == b).count();
            let (got, want) = (&got[before..], &want[before..]);
            let after = got.iter().rev().zip(want.iter().rev()).take_while(|(a, b)| a == b).count();
            let (got, want) = (&got[..got.len() - after], &want[..want.len() - after]);
            let turned = (0..=got.len()).any(|n| [&got[n..], &got[..n]].concat() == want);
            // What is there twice stands before or behind itself.
            !whole || want.is_empty() || got.is_empty() || turned || got.len() < want.len() + before + after
        }
        _ => true,
    }
}

fn says_what_was_said(case: &Case<'_>) -> Verdict {
    let story = &case.story;
    if case.is_continued() {
        // Joined at a seam, which may be inexact: that is counted. What was told before is true.
        return Ok(());
    }
    let disorder = case.ask.faults.iter().filter(|fault| fault.harm == Harm::Disorder).count();
    if disorder > 0 && case.ask.recover != Recover::Never {
        // Whether the same came again cannot be told where it came in disorder.
        return Ok(());
    }
    let swapped = case.ask.faults.iter().any(|fault| fault.kind == "swap-at");
    let truth: Vec<Told> = case.truth.blocks.iter().map(told_by).collect();
    let whole = case.fate == Fate::Whole;
    if swapped && (story.blocks.len() != truth.len() || story.blocks.iter().any(|block| !block.stopped)) {
        // A block's border changed places: what belongs where cannot be told.
        return Ok(());
    }
    if story.blocks.len() > truth.len() || whole && story.blocks.len() != truth.len() {
        return Err(format!("{} blocks, truly {}", story.blocks.len(), truth.len()));
    }
    for (n, (told, truth)) in story.blocks.iter().zip(&truth).enumerate() {
        if (&told.kind, &told.name) != (&truth.kind, &truth.name) {
            return Err(format!("block {n} is {told:?}, truly {truth:?}"));
        }
        let whole = whole || told.stopped;
        if !says(&told.text, &truth.text, whole, disorder) {
            return Err(format!("block {n}: {}", differ(&told.text, &truth.text)));
        }
        if told.kind == "tool_use" && whole && disorder == 0 && json(&told.text) != json(&truth.text) {
            return Err(format!("block {n}: the input {}, truly {}", told.text, truth.text));
        }
        if whole && disorder == 0 && told.signature != truth.signature {
            return Err(format!("block {n} is signed {}, truly {}", told.signature, truth.signature));
        }
    }
    if whole && disorder == 0 && story.stop_reason.as_deref() != Some(case.truth.stop_reason) {
        return Err(format!("stop_reason {:?}, truly {}", story.stop_reason, case.truth.stop_reason));
    }
    Ok(())
}

/// A tool's input; the empty one is no object's text but means one.
fn json(input: &str) -> Option<Value> {
    if input.is_empty() { Some(Value::Object(serde_json::Map::new())) } else { serde_json::from_str(input).ok() }
}

/// All whole events before the break were told.
fn nothing_is_lost(case: &Case<'_>) -> Verdict {
    // Given up by a clock, it may have been about to go on.
    let upstream = matches!(&case.fate, Fate::Broke(code) if code == "upstream_broken" || code == "upstream_error");
    // What is broken itself is not told, though it was sent; where a socket is reset, or a stream of
    // HTTP/2, what was under way may be dropped by the connection.
    // What an event says that is held up in its middle is counted as sent.
    let broken_itself =
        |kind: &str| matches!(kind, "garbage-at" | "huge-at, too large" | "duplicate-at" | "swap-at" | "stall-at");
    if !upstream || case.ask.recover != Recover::Never || case.ask.faults.iter().any(|f| broken_itself(&f.kind)) {
        return Ok(());
    }
    let Some(last) = case.records.iter().rfind(|r| r.reply.is_some()) else { return Ok(()) };
    let own = last.progress.faults > 0 && case.ask.faults.len() == 1 && case.ask.faults[0].harm == Harm::Breaks;
    if case.plan.spoken != Spoken::Http1 && !own {
        // A neighbour took the connection along, with what was under way on it.
        return Ok(());
    }
    let told = case.story.content_bytes();
    if told == last.progress.content_bytes {
        return Ok(());
    }
    Err(format!("{told} bytes of content told, {} sent", last.progress.content_bytes))
}

fn ends_as_it_must(case: &Case<'_>) -> Verdict {
    let (ask, plan) = (case.ask, case.plan);
    let harms = || ask.faults.iter().map(|fault| fault.harm);
    let huge = ask.faults.iter().any(|fault| fault.kind.starts_with("huge-at"));
    match &case.fate {
        Fate::Broke(code) | Fate::Refused(_, code) if code == "stream_cancelled" => {
            let called_off = ask.deleted.is_some() || ask.visits.iter().chain(&ask.twin).any(|v| v.cancel.is_some());
            let lonely = was_alone(case) || ask.class == Class::Plain;
            if called_off || lonely { Ok(()) } else { Err("it was called off by nobody".to_owned()) }
        }
        Fate::Broke(code) if code == "reader_too_slow" && plan.tight => Ok(()),
        Fate::Broke(code) if code == "stream_too_large" && huge => Ok(()),
        Fate::Left if may_be_left(case) => Ok(()),
        Fate::Left => Err("nobody was told its end".to_owned()),
        _ if harms().any(|harm| harm == Harm::Disorder) => Ok(()),
        Fate::Broke(code) if is_swept_along(case, code) => Ok(()),
        Fate::Broke(code) | Fate::Refused(_, code) if harms().all(|harm| harm == Harm::None) => {
            Err(format!("{code}, and nothing was broken"))
        }
        Fate::Refused(404, code) if code == "unknown_stream" && came_late(case) => Ok(()),
        Fate::Refused(status, code) => {
            let sole = ask.faults.len() == 1;
            match ask.faults[0].harm {
                Harm::Before | Harm::Breaks if sole => Err(format!("{status} {code}, where it can be asked again")),
                _ => Ok(()),
            }
        }
        Fate::Whole | Fate::Broke(_) => Ok(()),
    }
}

/// Whether its reader came back when its time was over.
fn came_late(case: &Case<'_>) -> bool {
    let kept = case.plan.settings.clocks.stream_kept;
    let ended = case.records.iter().filter_map(|record| record.ended).max();
    let last = case.reads.iter().map(|read| read.began).max();
    ended.zip(last).is_some_and(|(ended, last)| last + TICK >= ended + kept)
}

/// Whether a neighbour on its connection may have taken it along.
fn is_swept_along(case: &Case<'_>, code: &str) -> bool {
    case.plan.spoken != Spoken::Http1 && code == "upstream_broken" && !case.plan.gentle
}

/// Whether nobody read it for as long as it goes on alone.
fn was_alone(case: &Case<'_>) -> bool {
    let grace = case.plan.settings.clocks.detach_grace;
    let mut spans: Vec<_> = case.reads.iter().map(|read| (read.began, read.ended)).collect();
    spans.sort();
    let mut read_to = Moment::ZERO;
    for (began, ended) in spans {
        if read_to > Moment::ZERO && began.since(read_to) + TICK >= grace && began > read_to {
            return true;
        }
        read_to = read_to.max(ended);
    }
    false
}

/// Whether it may be that nobody was told its end.
fn may_be_left(case: &Case<'_>) -> bool {
    let ask = case.ask;
    let cancelled = ask.visits.iter().any(|visit| visit.cancel.is_some());
    let cut = case.reads.iter().any(|read| matches!(read.came, Came::Cut(_)) && matches!(read.door, Door::Socket(_)));
    let left = ask.visits.iter().any(|visit| matches!(visit.leave, Some(Leave::AtBytes(_) | Leave::After(_))));
    let unnamed = locked(&case.line.stream).is_none();
    let gone = *locked(&case.line.gone) && case.plan.tight;
    let slow_plain = case.plan.tight && ask.class == Class::Plain;
    cancelled || gone || slow_plain || (ask.class == Class::Plain || unnamed) && (left || cut)
}

/// What a client reads is cut by nobody, but where it is too slow for what may wait for it.
fn answers_are_whole(case: &Case<'_>) -> Verdict {
    let of_http = |read: &&Read| !matches!(read.door, Door::Socket(_));
    match case.reads.iter().filter(of_http).find(|read| matches!(read.came, Came::Cut(_))) {
        Some(read) if !case.plan.tight => Err(format!("{:?} from {:?}: {:?}", read.door, read.after, read.came)),
        _ => Ok(()),
    }
}

fn cursors_sort(case: &Case<'_>) -> Verdict {
    let book = locked(&case.line.book);
    if sorts(&book.cursors()) { Ok(()) } else { Err(format!("{:?}", book.cursors())) }
}

fn errors_in_the_envelope(case: &Case<'_>) -> Verdict {
    let refused = case.reads.iter().filter_map(|read| match &read.came {
        Came::Refused(_, body) => Some(body.clone()),
        _ => None,
    });
    for body in refused.chain(locked(&case.line.book).error.clone()) {
        let error = &body["error"];
        let spoken = error["message"].as_str().is_some_and(|message| !message.is_empty());
        if !spoken || error["type"].as_str().is_none_or(|kind| kind == "rate_limit_error") {
            return Err(format!("{body}"));
        }
    }
    let throttled = case.reads.iter().any(|read| matches!(read.came, Came::Refused(429, _)));
    if throttled { Err("a 429 that need not be".to_owned()) } else { Ok(()) }
}

fn billed_once(case: &Case<'_>) -> Verdict {
    if case.bills.is_empty() || case.fate != Fate::Whole || case.is_disordered() {
        return Ok(());
    }
    let billed = case.bills.iter().fold((0, 0), |sum, bill| (sum.0 + bill.input, sum.1 + bill.output));
    let told = |key: &str| case.story.usage[key].as_u64().unwrap_or(0);
    let cached = told("cache_creation_input_tokens") + told("cache_read_input_tokens");
    let told = (told("input_tokens") + cached, told("output_tokens"));
    let begun = case.records.iter().filter(|record| record.progress.body_bytes > 0 && record.status == 200).count();
    let exact = begun == 1 || case.ask.recover != Recover::Never;
    if exact && billed == told || !exact && billed.0 >= told.0 && billed.1 >= told.1 {
        return Ok(());
    }
    Err(format!("{billed:?}, and its client was told {told:?}; {begun} attempts were answered"))
}

type OfTheWorld = (&'static str, fn(&Over<'_>) -> Verdict);

const OF_THE_WORLD: &[OfTheWorld] = &[
    ("nothing panics", nothing_panics),
    ("nothing is held at rest", nothing_is_held),
    ("the API is left alone at rest", api_is_left),
    ("what is counted is what is billed", counted_as_billed),
];

fn nothing_panics(over: &Over<'_>) -> Verdict {
    if over.panics.is_empty() { Ok(()) } else { Err(over.panics.join("; ")) }
}

fn nothing_is_held(over: &Over<'_>) -> Verdict {
    let gateway = &over.gateway;
    let (held, live, living) = (gateway.held(), gateway.live().len(), gateway.living());
    let leaked = gateway.metrics().leases_leaked();
    gateway.refresh_gauges();
    let text = gateway.metrics().text();
    let gauges =
        ["upstream_connections{", "upstream_streams{", "tidegate_client_", "budget_", "streams_kept", "sockets"];
    let counts = |line: &&str| gauges.iter().any(|gauge| line.contains(gauge)) && !line.contains("_total");
    let busy = |line: &&str| counts(line) && !line.starts_with('#') && !line.ends_with(" 0");
    // A lane of WebSockets keeps spares.
    let spare = |line: &str| line.contains("upstream_connections{") && over.plan.spoken == Spoken::Socket;
    let busy: Vec<_> = text.lines().filter(busy).filter(|line| !spare(line)).collect();
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

fn counted_as_billed(over: &Over<'_>) -> Verdict {
    let metrics = over.gateway.metrics().text();
    let kind = |kind: &str| sum(&metrics, "tokens_total", &format!("kind=\"{kind}\""));
    let counted = (kind("input") + kind("cache_creation") + kind("cache_read"), kind("output"));
    let billed = over.bills.iter().fold((0, 0), |sum, bill| (sum.0 + bill.input, sum.1 + bill.output));
    if counted == billed { Ok(()) } else { Err(format!("counted {counted:?}, billed {billed:?}")) }
}
