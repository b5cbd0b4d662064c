//! What a turn costs in time: beside the same request without its header, at several numbers of
//! conversations at once, and where the conversation is no longer in memory.
//!
//! Rounds of the two ways take turns in who begins; a cell is the median over the rounds. The
//! upstream answers at once, so what is measured is all the machine does for a request, client and
//! simulator included, and the difference is what memory adds.

use super::client::{Answer, Client, crowd};
use super::site::{Scene, Site};
use super::texts::Kind;
use crate::commands::Failed;
use crate::commands::page::{median, number};
use serde_json::json;
use std::time::Duration;
use tidegate_base::Prng;
use tidegate_transport::Clock;

const MODEL: &str = "claude-haiku-4-5";
const ANSWER: (&str, &str) = ("simulate", "output_tokens=50-50");
const ROUNDS: usize = 5;
/// Turns of each conversation in these rounds.
const TURNS: usize = 5;
/// Turns of a round, at most; with one client it is fewer.
const TURNS_OF_A_ROUND: usize = 2_000;
/// Conversations at once.
const AT_ONCE: [usize; 3] = [1, 16, 128];
/// Conversations that are recalled, and their turns.
const RECALLED: usize = 300;
pub(super) const LONG_TURNS: usize = 40;
/// Memory for some ten of them: whoever is asked is no longer there.
const NARROW: &str = "memory_bytes = \"400 KB\"\nconversation_bytes = \"200 KB\"";

/// A question of some 100 bytes.
fn body(stream: bool, seed: u64, name: &str, turn: usize) -> String {
    let text = Kind::English.text(&mut Prng::new(seed).fork(&format!("{name}.{turn}")), 100);
    json!({"model": MODEL, "max_tokens": 500, "stream": stream, "messages": [{"role": "user", "content": text}]})
        .to_string()
}

/// A conversation's turns, or the same requests without one.
fn turns(client: &mut Client, name: &str, with: bool, stream: bool, seed: u64) -> Result<Vec<Answer>, Failed> {
    let mut lines = vec![ANSWER];
    if with {
        lines.push(("tidegate-conversation", name));
    }
    (0..TURNS).map(|turn| client.ask(&lines, body(stream, seed, name, turn).as_bytes())).collect()
}

/// Milliseconds at a quantile.
fn quantile(spans: &mut [Duration], quantile: f64) -> f64 {
    spans.sort();
    let at = (quantile * spans.len() as f64).ceil() as usize;
    spans.get(at.saturating_sub(1)).map_or(0.0, |span| span.as_secs_f64() * 1e3)
}

/// One round of one way: p50 and p99 of a turn in milliseconds, and turns a second.
fn round(scene: &Scene, clients: usize, name: &str, with: bool, site: &Site) -> Result<[f64; 3], Failed> {
    let conversations = (TURNS_OF_A_ROUND / TURNS).min(clients * 100);
    let clock = Clock::real();
    let began = clock.now();
    let found = crowd(&site.stop, scene.gateway, clients, conversations, |client, nth| {
        turns(client, &format!("{name}.{nth}"), with, true, site.seed)
    })?;
    let took = clock.now().since(began).as_secs_f64();
    let mut spans: Vec<Duration> = found.iter().flatten().map(|answer| answer.took).collect();
    Ok([quantile(&mut spans, 0.5), quantile(&mut spans, 0.99), spans.len() as f64 / took])
}

/// Turns beside the same requests without conversations.
pub(super) fn turns_beside_requests(site: &Site) -> Result<super::Section, Failed> {
    let head = ["at once", "turn p50 / p99, ms", "without, ms", "added p50 / p99, ms", "turns/s", "without, /s"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let scene = Scene::start(site, "turns", "")?;
    // Pools, caches and the estimator's first guesses are nobody's cost.
    round(&scene, 16, "warm", true, site)?;
    round(&scene, 16, "warm", false, site)?;
    for clients in AT_ONCE {
        super::tell(&format!("turns: {clients} at once"));
        // In this order: with p50, p99, rate; without p50, p99, rate; differences of p50 and p99.
        let mut found: [Vec<f64>; 8] = Default::default();
        for nth in 0..ROUNDS {
            let name = format!("{clients}.{nth}");
            let one = |with| round(&scene, clients, &name, with, site);
            let (with, without) = if nth.is_multiple_of(2) {
                let with = one(true)?;
                (with, one(false)?)
            } else {
                let without = one(false)?;
                (one(true)?, without)
            };
            let added = [with[0] - without[0], with[1] - without[1]];
            let all = with.into_iter().chain(without).chain(added);
            found.iter_mut().zip(all).for_each(|(values, value)| values.push(value));
        }
        let cell = |nth: usize, digits| number(median(&found[nth]).unwrap_or(0.0), digits);
        let pair = |first: usize| format!("{} / {}", cell(first, 2), cell(first + 1, 2));
        rows.push(vec![clients.to_string(), pair(0), pair(3), pair(6), cell(2, 0), cell(5, 0)]);
    }
    let note = format!(
        "Streams; conversations of {TURNS} turns, each turn synchronised to the disk before its end; medians of {ROUNDS} rounds of {TURNS_OF_A_ROUND} turns (one at a time: {}). Clients, simulator and Tidegate share the processors.",
        100 * TURNS
    );
    Ok(super::Section { title: "Turns beside the same requests without a conversation".to_owned(), rows, note })
}

/// A body that seeds a conversation with so many turns, all but the last answered.
pub(super) fn history(seed: u64, name: &str, turns: usize, bytes: usize) -> String {
    let mut dice = Prng::new(seed).fork(name);
    let mut messages = Vec::new();
    for turn in 0..turns {
        messages.push(json!({"role": "user", "content": Kind::English.text(&mut dice, bytes / 3)}));
        if turn + 1 < turns {
            messages.push(json!({"role": "assistant", "content": Kind::English.text(&mut dice, bytes * 2 / 3)}));
        }
    }
    json!({"model": MODEL, "max_tokens": 500, "messages": messages}).to_string()
}

/// A conversation that has to be read from the log, beside the same one in memory.
pub(super) fn cold_and_hot(site: &Site) -> Result<super::Section, Failed> {
    super::tell("recall: cold and hot");
    let scene = Scene::start(site, "recall", NARROW)?;
    let ask = |client: &mut Client, nth: usize, body: &str| {
        client.ask(&[ANSWER, ("tidegate-conversation", &format!("long-{nth}"))], body.as_bytes())
    };
    crowd(&site.stop, scene.gateway, 4, RECALLED, |client, nth| {
        ask(client, nth, &history(site.seed, &format!("long-{nth}"), LONG_TURNS, 400))
    })?;
    let found = || -> Result<[f64; 2], Failed> {
        let place = |place| scene.metric(&format!("tidegate_conversations_found_total{{place=\"{place}\"}}"));
        Ok([place("log")?, place("memory")?])
    };
    let before = found()?;
    let spans = crowd(&site.stop, scene.gateway, 1, RECALLED, |client, nth| {
        let name = format!("long-{nth}");
        let cold = ask(client, nth, &body(true, site.seed, &name, LONG_TURNS))?.took;
        let hot = ask(client, nth, &body(true, site.seed, &name, LONG_TURNS + 1))?.took;
        Ok((cold, hot))
    })?;
    let after = found()?;
    let (mut cold, mut hot): (Vec<Duration>, Vec<Duration>) = spans.into_iter().unzip();
    let mut rows = vec![["conversation", "p50, ms", "p99, ms", "read from the log"].map(str::to_owned).to_vec()];
    for (name, spans, read) in [
        ("evicted", &mut cold, after[0] - before[0]),
        ("in memory", &mut hot, RECALLED as f64 - (after[1] - before[1])),
    ] {
        let cell = |spans: &mut [Duration], at| number(quantile(spans, at), 2);
        rows.push(vec![name.to_owned(), cell(spans, 0.5), cell(spans, 0.99), format!("{read} of {RECALLED}")]);
    }
    let note = format!(
        "A turn of a conversation of {LONG_TURNS} turns (16 KB), one client; the file is in the kernel's cache, so reading means SQLite, parsing and estimating, and no disk."
    );
    Ok(super::Section { title: "A conversation that is not in memory".to_owned(), rows, note })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn quantiles_are_of_the_spans_that_were_seen() {
        let mut spans: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!((quantile(&mut spans, 0.5), quantile(&mut spans, 0.99)), (50.0, 99.0));
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn a_history_ends_with_a_question() {
        let body: Value = serde_json::from_str(&history(1, "x", 40, 400)).unwrap();
        let messages = body["messages"].as_array().unwrap();
        assert_eq!((messages.len(), messages[78]["role"].as_str()), (79, Some("user")));
    }
}
