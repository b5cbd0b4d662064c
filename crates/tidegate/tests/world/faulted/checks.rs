//! What has to hold of faulted streams, each under its name.

use crate::world::checks::rest::{self, sum};
use crate::world::checks::told_by;
use crate::world::faulted::asker::sorts;
use crate::world::faulted::case::{Case, Fate, differ};
use crate::world::faulted::ends::{answers_are_whole, ends_as_it_must};
use crate::world::faulted::fault::Harm;
use crate::world::faulted::plan::{Recover, Spoken};
use crate::world::faulted::stage::Over;
use crate::world::faulted::talk;
use crate::world::faulted::tally::Tally;
use crate::world::faulted::visit::{Came, locked};
use crate::world::story::Told;
use serde_json::Value;
use std::time::Duration;

/// What timers may add to a clock.
pub(crate) const TICK: Duration = Duration::from_millis(20);

pub(crate) type Verdict = Result<(), String>;

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
                check_stream(&case, &mut tally, broken);
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

/// Checks one stream.
fn check_stream(case: &Case<'_>, tally: &mut Tally, broken: &mut Vec<String>) {
    case.count(tally);
    let mut failed = Vec::new();
    for why in locked(&case.line.broken).iter() {
        failed.push(format!("every reading says the same: {why}"));
    }
    for (name, check) in OF_A_STREAM {
        if let Err(why) = check(case) {
            failed.push(format!("{name}: {why}"));
        }
    }
    if failed.is_empty() {
        return;
    }
    let (told, truth) = (case.story.blocks.iter().map(|b| b.text.len()).sum::<usize>(), case.truth.content_bytes());
    if case.fate == Fate::Whole && !case.is_mended() && !case.is_disordered() {
        tally.lost += truth.saturating_sub(told as u64);
        tally.doubled += (told as u64).saturating_sub(truth);
    }
    tally.ends_wrong +=
        u64::from(failed.iter().any(|why| why.contains("it ended with") || why.contains("after the last")));
    let described = case.describe();
    broken.extend(failed.into_iter().map(|why| format!("{why}\n{described}")));
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
    if case.plan.spoken != Spoken::Http1 && (!own || case.struck_beside().next().is_some()) {
        // A neighbour took the connection along, with what was under way on it; maybe at the same moment.
        return Ok(());
    }
    let told = case.story.content_bytes();
    if told == last.progress.content_bytes {
        return Ok(());
    }
    Err(format!("{told} bytes of content told, {} sent", last.progress.content_bytes))
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
    rest::no_panics(&over.panics)
}

fn nothing_is_held(over: &Over<'_>) -> Verdict {
    // A lane of WebSockets keeps spares.
    rest::none_held(&over.gateway, if over.plan.spoken == Spoken::Socket { "upstream_connections{" } else { "" })
}

fn api_is_left(over: &Over<'_>) -> Verdict {
    rest::left_alone(&over.summary, &over.records)
}

fn counted_as_billed(over: &Over<'_>) -> Verdict {
    let metrics = over.gateway.metrics().text();
    let kind = |kind: &str| sum(&metrics, "tokens_total", &format!("kind=\"{kind}\""));
    let counted = (kind("input") + kind("cache_creation") + kind("cache_read"), kind("output"));
    let billed = over.bills.iter().fold((0, 0), |sum, bill| (sum.0 + bill.input, sum.1 + bill.output));
    if counted == billed { Ok(()) } else { Err(format!("counted {counted:?}, billed {billed:?}")) }
}
