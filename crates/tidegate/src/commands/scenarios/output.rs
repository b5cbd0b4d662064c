//! What the scenarios came to: a short table for a glance, the whole one, a chart, JSON.
//!
//! Every request ended whole or failed in one way. Times are those of whole answers, from the moment
//! a request was due, retries included; a way on which more requests survive a bad night has the slow
//! ones among its times, and the other has not. Cost is what the API charged for everything it was
//! made to do, by the whole answers that came of it.

use super::WAYS;
use crate::commands::page::{Facts, aligned, number};
use crate::commands::quota::leg::Found;
use crate::commands::quota::offer::Offer;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;
use tidegate_bench::{Bar, Panel, Percentiles, chart};

/// A generator that begins requests later than this was short of files or processor.
const START_DELAY_MS_MAX: f64 = 1_000.0;
/// What is told of the short table wherever it stands.
const READ_SO: &str =
    "Each cell: requests that were answered whole, time to the whole answer p50 / p99, cost of 1,000 whole answers.";

/// What one way gave in one scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    asked: u64,
    whole: u64,
    errors: BTreeMap<String, u64>,
    first_ms: Percentiles,
    total_ms: Percentiles,
    /// Requests that the API saw.
    upstream: u64,
    dollars: Option<f64>,
    start_delay_ms: f64,
}

/// A scenario with all its ways.
pub(super) struct Row {
    name: String,
    about: String,
    rate_per_s: f64,
    thinks: bool,
    cells: Vec<Cell>,
}

impl Cell {
    fn of(found: &Found) -> Self {
        let report = &found.report;
        let mut errors = report.errors.by_name();
        if report.unfinished > 0 {
            errors.insert("given up at the end".to_owned(), report.unfinished);
        }
        Cell {
            asked: report.started,
            whole: report.ok,
            errors,
            first_ms: report.first_content_ms,
            total_ms: report.total_ms,
            upstream: found.truth.requests,
            dollars: found.truth.dollars,
            start_delay_ms: report.start_delay_ms.p99,
        }
    }

    fn percent(&self) -> Option<f64> {
        (self.asked > 0).then(|| 100.0 * self.whole as f64 / self.asked as f64)
    }

    /// For a chart, which shows tenths: a single failure is seen there too.
    fn percent_shown(&self) -> Option<f64> {
        self.percent().map(|percent| if self.whole < self.asked { percent.min(99.9) } else { percent })
    }

    fn percent_told(&self) -> String {
        // A single failure among ten thousand is not rounded away.
        let told =
            |percent: f64| if self.whole < self.asked { number(percent.min(99.99), 2) } else { "100".to_owned() };
        self.percent().map_or_else(|| "-".to_owned(), told)
    }

    /// Dollars of a thousand whole answers.
    fn cost(&self) -> Option<f64> {
        self.dollars.filter(|_| self.whole > 0).map(|dollars| 1_000.0 * dollars / self.whole as f64)
    }

    fn cost_told(&self) -> String {
        self.cost().map_or_else(|| "-".to_owned(), |cost| format!("${}", number(cost, 3)))
    }

    fn failures(&self) -> String {
        let mut kinds: Vec<_> = self.errors.iter().collect();
        kinds.sort_by(|a, b| b.1.cmp(a.1));
        let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{} {kind}", number(**n as f64, 0))).collect();
        if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") }
    }

    fn short(&self) -> String {
        format!("{} % · {} s · {}", self.percent_told(), seconds(&self.total_ms), self.cost_told())
    }

    fn json(&self) -> Value {
        let spans = |of: &Percentiles| (of.count > 0).then(|| json!({"p50": of.p50 / 1e3, "p99": of.p99 / 1e3}));
        json!({
            "asked": self.asked, "whole": self.whole, "whole_percent": self.percent(), "errors": self.errors,
            "first_content_s": spans(&self.first_ms), "total_s": spans(&self.total_ms),
            "upstream_requests": self.upstream, "dollars": self.dollars, "dollars_per_1000_whole": self.cost(),
            "start_delay_ms_p99": self.start_delay_ms,
        })
    }
}

/// `p50 / p99`, in seconds.
fn seconds(of: &Percentiles) -> String {
    let shown = |ms: f64| number(ms / 1e3, if ms < 10_000.0 { 1 } else { 0 });
    if of.count == 0 { "-".to_owned() } else { format!("{} / {}", shown(of.p50), shown(of.p99)) }
}

impl Row {
    /// What `found` of each way, in the order of the ways.
    pub(super) fn of(name: &str, about: &str, offer: &Offer, found: &[Found]) -> Self {
        Row {
            name: name.to_owned(),
            about: about.to_owned(),
            rate_per_s: offer.rate_per_s,
            thinks: offer.thinks,
            cells: found.iter().map(Cell::of).collect(),
        }
    }
}

/// A whole run.
pub(super) struct Page<'a> {
    pub(super) facts: Facts,
    pub(super) seed: u64,
    pub(super) span: Duration,
    pub(super) rows: &'a [Row],
}

impl Page<'_> {
    /// A row a scenario.
    fn short(&self) -> String {
        let head = std::iter::once("scenario").chain(WAYS.iter().map(|way| way.name)).map(str::to_owned).collect();
        let row = |row: &Row| {
            let cells = row.cells.iter().map(Cell::short);
            std::iter::once(format!("`{}`", row.name)).chain(cells).collect()
        };
        aligned(&std::iter::once(head).chain(self.rows.iter().map(row)).collect::<Vec<_>>())
    }

    /// A row a scenario and way.
    fn whole(&self) -> String {
        let head = [
            "scenario",
            "way",
            "asked",
            "whole, %",
            "failed",
            "first content p50 / p99, s",
            "whole answer p50 / p99, s",
            "upstream requests",
            "cost of 1,000 answers",
        ];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for row in self.rows {
            for (at, (way, cell)) in WAYS.iter().zip(&row.cells).enumerate() {
                lines.push(vec![
                    if at == 0 { format!("`{}`", row.name) } else { String::new() },
                    way.name.to_owned(),
                    number(cell.asked as f64, 0),
                    cell.percent_told(),
                    cell.failures(),
                    seconds(&cell.first_ms),
                    seconds(&cell.total_ms),
                    number(cell.upstream as f64, 0),
                    cell.cost_told(),
                ]);
            }
        }
        aligned(&lines)
    }

    /// What must be known to believe the numbers.
    fn notes(&self) -> String {
        let mut out = String::new();
        for way in &WAYS {
            let _ = writeln!(out, "- *{}*: {}.", way.name, way.about);
        }
        let thinkers = self.rows.iter().filter(|row| row.thinks).map(|row| row.name.as_str()).collect::<Vec<_>>();
        if !thinkers.is_empty() {
            let _ = writeln!(out, "- In {} requests ask the model to think.", thinkers.join(", "));
        }
        let rates: Vec<String> =
            self.rows.iter().map(|row| format!("{} {}/s", row.name, number(row.rate_per_s, 1))).collect();
        let _ = writeln!(
            out,
            "- Asked for {} s: {}. Prompts of 100 to 8,000 bytes, claude-haiku-5-5, a client waits 600 s (the SDKs' timeout).",
            number(self.span.as_secs_f64(), 0),
            rates.join(", ")
        );
        out.push_str("- Times are those of answers that came whole: a way that saves more of the slow ones has them among its times.\n");
        out.push_str("- Cost is the simulator's bill, by the API's prices of that model, for everything that was asked of it, cut answers and repeated ones included, by the whole answers.\n");
        for row in self.rows {
            let late = |cell: &Cell| cell.start_delay_ms > START_DELAY_MS_MAX;
            for (way, _) in WAYS.iter().zip(&row.cells).filter(|(_, cell)| late(cell)) {
                let _ = writeln!(
                    out,
                    "- NOT A MEASUREMENT of {}, {}: the load generator began requests late; it is short of files or processor.",
                    row.name, way.name
                );
            }
        }
        out
    }

    /// For the terminal.
    pub(super) fn text(&self) -> String {
        format!("{}\n{READ_SO}\n\n{}\n{}", self.short(), self.whole(), self.notes())
    }

    /// For `docs/measurements`.
    pub(super) fn markdown(&self) -> String {
        let Facts { machine, date, commit, command } = &self.facts;
        let abouts: String = self.rows.iter().map(|row| format!("- `{}`: {}\n", row.name, row.about)).collect();
        format!(
            "# Scenarios with and without Tidegate, {date}\n\n| | |\n|---|---|\n| machine | {machine} |\n| date | {date} |\n| commit | {commit} |\n| command | `{command}` |\n| seed | {} |\n\n{}\n{READ_SO}\n\n{}\n{abouts}\n{}",
            self.seed,
            self.short(),
            self.whole(),
            self.notes()
        )
    }

    /// The share of whole answers, as an image.
    pub(super) fn svg(&self) -> String {
        let panel = |row: &Row| Panel {
            title: row.name.clone(),
            bars: WAYS
                .iter()
                .zip(&row.cells)
                .map(|(way, cell)| Bar { name: way.name.to_owned(), value: cell.percent_shown() })
                .collect(),
            full: Some(100.0),
        };
        let panels: Vec<Panel> = self.rows.iter().map(panel).collect();
        chart("Requests answered whole, %", &panels, "The same requests at the same moments. tidegate bench scenarios")
    }

    /// Every number.
    pub(super) fn json(&self) -> Value {
        let Facts { machine, date, commit, command } = &self.facts;
        let row = |row: &Row| {
            let ways = WAYS.iter().zip(&row.cells).map(|(way, cell)| (way.key.to_owned(), cell.json()));
            let ways: Map<String, Value> = ways.collect();
            (
                row.name.clone(),
                json!({"about": row.about, "rate_per_s": row.rate_per_s, "thinks": row.thinks, "ways": ways}),
            )
        };
        json!({
            "machine": machine, "date": date, "commit": commit, "command": command, "seed": self.seed,
            "duration_s": self.span.as_secs_f64(),
            "scenarios": self.rows.iter().map(row).collect::<Map<String, Value>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(whole: u64, errors: &[(&str, u64)], dollars: f64) -> Cell {
        Cell {
            asked: 10_000,
            whole,
            errors: errors.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect(),
            first_ms: Percentiles { count: whole, p50: 350.0, p99: 12_340.0, ..Percentiles::default() },
            total_ms: Percentiles { count: whole, p50: 2_340.0, p99: 9_960.0, ..Percentiles::default() },
            upstream: 12_345,
            dollars: Some(dollars),
            start_delay_ms: 2.0,
        }
    }

    fn with(cells: Vec<Cell>, look: impl FnOnce(&Page<'_>)) {
        let name = |text: &str| text.to_owned();
        let rows = [Row { name: name("a-night"), about: name("A night."), rate_per_s: 10.0, thinks: false, cells }];
        let facts = Facts {
            machine: name("a machine"),
            date: name("2026-01-31"),
            commit: name("c"),
            command: name("tidegate"),
        };
        look(&Page { facts, seed: 7, span: Duration::from_secs(60), rows: &rows });
    }

    #[test]
    fn a_cell_tells_share_times_and_cost() {
        let cells = vec![
            cell(7_500, &[("truncated", 500), ("http 529 overloaded_error", 2_000)], 0.75),
            cell(9_999, &[("timeout", 1)], 1.0),
            Cell { asked: 10_000, ..Cell::default() },
        ];
        with(cells, |page| {
            let text = page.text();
            assert!(text.contains("75.00 % · 2.3 / 10.0 s · $0.100"), "{text}");
            assert!(text.contains("99.99 % · "), "a single failure is not rounded away: {text}");
            assert!(text.contains("0.00 % · - s · -"), "{text}");
            assert!(text.contains("2,000 http 529 overloaded_error, 500 truncated"), "the most first: {text}");
            assert!(text.contains("0.3 / 12 ") || text.contains("0.4 / 12 "), "{text}");
            assert!(text.contains("12,345") && !text.contains("NOT A MEASUREMENT"), "{text}");
            let markdown = page.markdown();
            assert!(markdown.contains("| commit | c |") && markdown.contains("- `a-night`: A night."), "{markdown}");
            let svg = page.svg();
            assert!(
                svg.contains("a-night")
                    && svg.contains(">75<")
                    && svg.contains(">99.9<")
                    && svg.contains("through Tidegate"),
                "{svg}"
            );
            let json = page.json();
            assert_eq!(json["scenarios"]["a-night"]["ways"]["sdk"]["dollars_per_1000_whole"], 0.1);
            assert_eq!(json["scenarios"]["a-night"]["ways"]["recover"]["whole"], 0);
        });
    }

    #[test]
    fn a_generator_that_came_late_measured_nothing() {
        let late = Cell { start_delay_ms: 1_500.0, ..cell(10_000, &[], 1.0) };
        with(vec![cell(10_000, &[], 1.0), late, cell(10_000, &[], 1.0)], |page| {
            let notes = page.notes();
            assert_eq!(notes.matches("NOT A MEASUREMENT of a-night, through Tidegate").count(), 1, "{notes}");
            assert!(page.short().contains("| 100 % · 2.3"), "{}", page.short());
        });
    }
}
