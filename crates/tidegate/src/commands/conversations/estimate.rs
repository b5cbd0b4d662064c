//! How far estimates of a window's tokens are off, after so many turns of four kinds of text.
//!
//! The simulator counts by its own weights of characters, which the estimate does not know. The
//! model is one that repeats what it is told, so a conversation is of one kind throughout. The
//! errors are Tidegate's own metric (`tidegate_window_estimate_error`, corrected estimates against
//! what the upstream counted), looked at before and after a turn of all conversations: a percentile
//! is told as the bound of its bucket.

use super::client::{Client, crowd};
use super::site::{Scene, Site};
use super::texts::Kind;
use crate::commands::Failed;
use serde_json::json;
use std::ops::Range;
use tidegate_base::Prng;

/// The model that repeats.
const MODEL: &str = "echo-estimates";
/// The turns that are looked at.
const LOOKED_AT: [usize; 4] = [1, 5, 20, 100];
/// Bytes of a message.
const BYTES: (u64, u64) = (60, 1_200);
const CLIENTS: usize = 8;
const BUCKETS: &str = "tidegate_window_estimate_error_bucket";

/// Turns `turns` of the `nth` conversation.
fn say(client: &mut Client, kind: Kind, nth: usize, turns: Range<usize>, seed: u64) -> Result<(), Failed> {
    let name = format!("{}-{nth}", kind.name());
    for turn in turns {
        let mut dice = Prng::new(seed).fork(&format!("{name}.{turn}"));
        let bytes = dice.between(BYTES.0, BYTES.1) as usize;
        let messages = json!([{"role": "user", "content": kind.text(&mut dice, bytes)}]);
        let body = json!({"model": MODEL, "max_tokens": 4_000, "messages": messages}).to_string();
        client.ask(&[("tidegate-conversation", name.as_str())], body.as_bytes())?;
    }
    Ok(())
}

/// Counts by upper bound, cumulative, as the page has them.
fn buckets(page: &str) -> Vec<(f64, f64)> {
    let lines = page.lines().filter_map(|line| line.strip_prefix(BUCKETS)?.strip_prefix("{le=\"")?.split_once("\"} "));
    lines.filter_map(|(bound, count)| Some((bound.parse().ok()?, count.parse().ok()?))).collect()
}

/// The bound of the bucket in which a quantile of what came between two looks lies.
fn quantile(before: &[(f64, f64)], after: &[(f64, f64)], quantile: f64) -> Option<f64> {
    let counts: Vec<(f64, f64)> = after
        .iter()
        .map(|(bound, count)| {
            let then = before.iter().find(|(one, _)| one == bound).map_or(0.0, |(_, count)| *count);
            (*bound, count - then)
        })
        .collect();
    let all = counts.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    counts.iter().find(|(_, count)| *count >= quantile * all).map(|(bound, _)| *bound)
}

fn percent(bound: Option<f64>) -> String {
    match bound {
        None => "-".to_owned(),
        Some(bound) if bound.is_infinite() => "over 100 %".to_owned(),
        Some(bound) => format!("{} %", (bound * 1_000.0).round() / 10.0),
    }
}

/// A row for each kind.
pub(super) fn run(site: &Site, talks: usize) -> Result<super::Section, Failed> {
    let mut head = vec!["text".to_owned()];
    head.extend(LOOKED_AT.map(|turn| format!("turn {turn}: p50 / p95")));
    let mut rows = vec![head];
    for kind in Kind::ALL {
        super::tell(&format!("estimates: {}", kind.name()));
        let scene = Scene::start(site, &format!("estimate-{}", kind.name()), "")?;
        let mut row = vec![kind.name().to_owned()];
        let mut begun = 1;
        for turn in LOOKED_AT {
            let go = |turns: Range<usize>| {
                crowd(&site.stop, scene.gateway, CLIENTS, talks, |client, nth| {
                    say(client, kind, nth, turns.clone(), site.seed)
                })
            };
            go(begun..turn)?;
            let before = buckets(&scene.metrics()?);
            go(turn..turn + 1)?;
            let after = buckets(&scene.metrics()?);
            begun = turn + 1;
            row.push(format!(
                "{} / {}",
                percent(quantile(&before, &after, 0.5)),
                percent(quantile(&before, &after, 0.95))
            ));
        }
        rows.push(row);
    }
    let note = format!(
        "{talks} conversations of each kind; \"1 %\" says: at most 1 % off, either way, of all input tokens of that turn's request."
    );
    Ok(super::Section { title: "Error of the token estimate".to_owned(), rows, note })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_came_between_two_looks() {
        let page = |counts: [u32; 3]| {
            let bounds = ["0.01", "0.1", "+Inf"];
            let lines = bounds.iter().zip(counts).map(|(le, n)| format!("{BUCKETS}{{le=\"{le}\"}} {n}\n"));
            buckets(&lines.collect::<String>())
        };
        let (before, after) = (page([10, 10, 10]), page([11, 19, 20]));
        assert_eq!(quantile(&before, &after, 0.5), Some(0.1));
        assert_eq!(percent(quantile(&before, &after, 0.95)), "over 100 %");
        assert_eq!(percent(quantile(&before, &after, 0.1)), "1 %");
        assert_eq!(percent(quantile(&after, &after, 0.5)), "-");
    }
}
