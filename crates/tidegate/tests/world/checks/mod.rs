//! What has to hold in every world, each under its name.
//!
//! A request is judged by three witnesses: what its client read, what the API recorded of its
//! attempts, and what the same API, asked in a good mood, says to the same body (an answer depends
//! on seed and body only). What went wrong on the way may decide whether an answer comes; never what
//! is in it.

mod answers;
mod case;
mod clocks;
pub(crate) mod rest;
mod truth;

pub(crate) use truth::told_by;

use crate::world::plan::What;
use crate::world::run::Over;
use case::Case;
use rest::sum;
use std::collections::BTreeMap;

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

/// Checks everything; what broke is added to `broken`.
pub(crate) fn check(mut over: Over<'_>, broken: &mut Vec<String>) -> Tally {
    let mut tally = Tally::default();
    let seen = std::mem::take(&mut over.seen);
    let mut judge = over.judge.clone();
    let mut used = (0, 0);
    for one in &seen {
        let good = (one.request.what == What::Message).then(|| case::good_answer(&mut judge, &one.request));
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
    if let Err(why) = rest::tokens_are_counted(&over, &metrics, used) {
        broken.push(format!("tokens are counted once: {why}"));
    }
    for (name, check) in OF_THE_WORLD {
        if let Err(why) = check(&over) {
            broken.push(format!("{name}: {why}"));
        }
    }
    tally
}

type OfARequest = (&'static str, fn(&Case<'_>) -> Verdict);

const OF_A_REQUEST: &[OfARequest] = &[
    ("one whole answer for every client that stays", answers::one_whole_answer),
    ("only documented statuses", answers::documented_statuses),
    ("errors come in the API's envelope", answers::errors_in_the_envelope),
    ("every answer names its request", answers::answers_are_named),
    ("no key leaves the gateway", answers::no_key_leaves),
    ("a stream keeps its grammar", truth::stream_grammar),
    ("a stream says what the API said", truth::stream_is_true),
    ("a buffered answer is the API's, field by field", truth::buffered_is_true),
    ("nothing is tried again once content was passed on", clocks::no_retry_after_content),
    ("no more attempts than the rules allow", clocks::attempts_bounded),
    ("a deadline is kept", clocks::deadline_kept),
    ("whoever vanishes takes the upstream stream along", clocks::vanished_clients_close_upstream),
    ("nothing is held up on the way", clocks::nothing_held_up),
    ("a waiting stream hears something", clocks::silence_is_broken),
    ("a model that stands still is given up in time", clocks::progress_clock_holds),
    ("a cancel takes effect at once", clocks::cancels_at_once),
    ("nobody gives up early", clocks::nobody_gives_up_early),
    ("in a calm world everything succeeds", clocks::calm_succeeds),
];

type OfTheWorld = (&'static str, fn(&Over<'_>) -> Verdict);

const OF_THE_WORLD: &[OfTheWorld] = &[
    ("nothing panics", rest::nothing_panics),
    ("nothing is held at rest", rest::nothing_is_held),
    ("the API is left alone at rest", rest::api_is_left),
    ("a drain ends in time", rest::drain_ends),
];
