//! A comparison as tables for people, as a page to keep, and as JSON.
//!
//! A cell is the median over the rounds; behind it, where it may be shown, the ratio to nginx:
//! `1.05x (0.98..1.10)` is the median of the rounds' own ratios, their least and their greatest.

use super::Results;
use super::figures::{Bound, DIRECT, Figure, NGINX, Series, TIDEGATE};
use super::peer::Peer;
use super::rows::Row;
use crate::commands::page::{Facts, aligned, number};
use serde_json::{Value, json};
use std::fmt::Write;

/// What one comparison has to say.
pub(super) struct Page<'a> {
    pub(super) results: &'a Results,
    pub(super) rows: &'a [&'a Row],
    pub(super) peers: &'a [Peer],
    pub(super) rounds: usize,
    pub(super) facts: Facts,
    pub(super) quick: bool,
    pub(super) log_level: &'a str,
    /// Why ratios are not shown, if they are not.
    pub(super) refusal: Option<String>,
}

impl Page<'_> {
    fn series(&self, figure: &Figure) -> Option<&Series> {
        self.results.series.get(figure.key)
    }

    fn cell(&self, figure: &Figure, peer: &str) -> String {
        let median = self.series(figure).and_then(|series| series.median(figure, peer));
        let Some(median) = median else { return "-".to_owned() };
        let value = number(median, figure.digits);
        if figure.added && peer == DIRECT {
            return format!("({value} in all)");
        }
        let ratio = self.series(figure).and_then(|series| series.ratio(figure, peer, NGINX));
        match ratio.filter(|_| self.refusal.is_none() && peer != NGINX && peer != DIRECT) {
            Some(ratio) => format!("{value} · {:.2}x ({:.2}..{:.2})", ratio.median, ratio.min, ratio.max),
            None => value,
        }
    }

    fn bound(&self, figure: &Figure, bound: Option<Bound>) -> String {
        let Some(bound) = bound else { return "-".to_owned() };
        let sign = if figure.more { ">=" } else { "<=" };
        let limit = match bound {
            Bound::OfNginx(times) => format!("{sign} {times:.1}x nginx"),
            Bound::OfHaproxy => format!("{sign} haproxy"),
            Bound::Of(limit) => format!("{sign} {}", number(limit, 0)),
        };
        let is_ratio = !matches!(bound, Bound::Of(_));
        let met = self.series(figure).and_then(|series| series.meets(figure, bound));
        match met.filter(|_| !(is_ratio && self.refusal.is_some())) {
            Some(true) => format!("{limit}: met"),
            Some(false) => format!("{limit}: missed"),
            None => limit,
        }
    }

    fn table(&self, row: &Row) -> String {
        let mut lines =
            vec![std::iter::once(row.name).chain(row.figures.iter().map(|f| f.title)).map(str::to_owned).collect()];
        for peer in self.peers {
            let cells: Vec<String> = row.figures.iter().map(|figure| self.cell(figure, &peer.name)).collect();
            if cells.iter().any(|cell| cell != "-") {
                lines.push(std::iter::once(peer.name.clone()).chain(cells).collect());
            }
        }
        if self.peers.iter().any(|peer| peer.name == TIDEGATE) {
            for (name, of) in [("must", (|f: &Figure| f.must) as fn(&Figure) -> _), ("aim", |f: &Figure| f.aim)] {
                let cells: Vec<String> = row.figures.iter().map(|figure| self.bound(figure, of(figure))).collect();
                if cells.iter().any(|cell| cell != "-") {
                    lines.push(std::iter::once(name.to_owned()).chain(cells).collect());
                }
            }
        }
        aligned(&lines)
    }

    /// The tables, each under what it shows.
    pub(super) fn tables(&self) -> String {
        let mut out = String::new();
        for row in self.rows {
            // Writing into a string cannot fail.
            let _ = writeln!(out, "\n{}\n\n{}", row.about, self.table(row));
        }
        let rounds =
            if self.rounds == 1 { "one round".to_owned() } else { format!("medians of {} rounds", self.rounds) };
        let _ = match &self.refusal {
            Some(refusal) => writeln!(out, "{rounds}; {refusal}."),
            None => writeln!(out, "{rounds}; ratios to nginx are taken within a round: median (least..greatest)."),
        };
        if let Some(times) = self.results.upstream_times_nginx() {
            let _ = writeln!(out, "The upstream alone answers {times:.2} times as many JSON requests as nginx.");
        }
        if self.quick {
            let _ = writeln!(out, "A short look: fewer streams and shorter runs than the rows say.");
        }
        for note in &self.results.notes {
            let _ = writeln!(out, "- {note}");
        }
        out
    }

    /// The page to keep.
    pub(super) fn markdown(&self) -> String {
        let (Facts { machine, date, commit, command }, log_level) = (&self.facts, self.log_level);
        let short = if self.quick { "\nA short look (`--quick`), not a measurement to keep.\n" } else { "" };
        format!(
            "# Peers, {date}\n{short}\n| | |\n|---|---|\n| machine | {machine} |\n| date | {date} |\n| commit | {commit} |\n| command | `{command}` |\n| Tidegate's log | `{log_level}`; the others log nothing |\n\nHow each figure is taken: [README.md](README.md).\n{}",
            self.tables()
        )
    }

    /// Every number of every round.
    pub(super) fn json(&self) -> Value {
        let Facts { machine, date, commit, command } = &self.facts;
        let rows: serde_json::Map<String, Value> =
            self.rows.iter().map(|row| (row.name.to_owned(), self.row_json(row))).collect();
        json!({
            "machine": machine, "date": date, "commit": commit, "command": command, "quick": self.quick,
            "tidegate_log_level": self.log_level,
            "rounds": self.rounds,
            "upstream_times_nginx": self.results.upstream_times_nginx(),
            "ratios_refused": self.refusal,
            "notes": self.results.notes,
            "rows": rows,
        })
    }

    fn row_json(&self, row: &Row) -> Value {
        let figure = |figure: &Figure| {
            let peer = |peer: &Peer| {
                let series = self.series(figure)?;
                let ratio = series.ratio(figure, &peer.name, NGINX).filter(|_| self.refusal.is_none());
                let value = json!({
                    "rounds": series.rounds(figure, &peer.name),
                    "median": series.median(figure, &peer.name),
                    "to_nginx": ratio.map(|r| json!({"median": r.median, "min": r.min, "max": r.max})),
                });
                Some((peer.name.clone(), value))
            };
            let peers: serde_json::Map<String, Value> = self.peers.iter().filter_map(peer).collect();
            (figure.key.to_owned(), Value::Object(peers))
        };
        Value::Object(row.figures.iter().map(figure).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::Kind;
    use super::super::rows::{JSON_RATE, YARDSTICK};
    use super::*;

    fn results(direct: f64) -> Results {
        let mut results = Results::default();
        let series = results.series.entry(JSON_RATE).or_default();
        for (peer, rate) in [(DIRECT, direct), (NGINX, 50_000.0), (TIDEGATE, 40_000.0)] {
            series.note(peer, 0, rate);
            series.note(peer, 1, rate * 1.1);
        }
        results
    }

    fn page<'a>(results: &'a Results, rows: &'a [&'a Row], peers: &'a [Peer]) -> Page<'a> {
        let refusal = super::super::figures::refusal(results.upstream_times_nginx());
        let text = |text: &str| text.to_owned();
        let (machine, date, commit) = (text("a machine"), text("2026-01-02"), text("abc"));
        let facts = Facts { machine, date, commit, command: text("tidegate x") };
        Page { results, rows, peers, rounds: 2, facts, quick: false, log_level: "info", refusal }
    }

    #[test]
    fn ratios_and_verdicts_are_shown_only_where_they_mean_something() {
        let peers = [DIRECT, NGINX, TIDEGATE].map(|name| Peer::new(name, Kind::Direct));
        let (good, poor) = (results(95_000.0), results(85_000.0));
        let shown = page(&good, &[&YARDSTICK], &peers).markdown();
        assert!(shown.contains("| tidegate       | 42,000 · 0.80x (0.80..0.80)"), "{shown}");
        assert!(shown.contains(">= 0.6x nginx: met") && shown.contains(">= 1.0x nginx: missed"), "{shown}");
        assert!(shown.contains("| machine | a machine |") && shown.contains("| command | `tidegate x` |"), "{shown}");
        let refused = page(&poor, &[&YARDSTICK], &peers);
        let text = refused.tables();
        assert!(text.contains("no ratios") && !text.contains("0.80x") && !text.contains(": met"), "{text}");
        assert!(text.contains("42,000"), "the values themselves are shown: {text}");
        assert_eq!(refused.json()["rows"]["json"][JSON_RATE][TIDEGATE]["to_nginx"], Value::Null);
        assert_eq!(refused.json()["rows"]["json"][JSON_RATE][TIDEGATE]["rounds"][0], 40_000.0);
    }
}
