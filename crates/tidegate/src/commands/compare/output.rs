//! What a comparison found, for a person: a table, a chart, a page, and one sentence of judgement.

use super::Way;
use crate::cli::Compare;
use crate::commands::page::{Facts, aligned, median, number};
use std::fmt::Write;
use std::time::SystemTime;
use tidegate_bench::{Bar, Mode, Panel, Report, chart};

/// Ways this near to each other, as a part of the larger, are called alike: rounds on one machine
/// differ by so much.
const ALIKE: f64 = 0.05;

/// What was found of one way, in each round.
pub(super) struct Figures {
    pub(super) way: Way,
    first_text_ms: Vec<f64>,
    total_ms: Vec<f64>,
    answers_per_s: Vec<f64>,
    connections: Vec<f64>,
    truncated: u64,
    failed: u64,
    /// Why there is nothing, where the endpoint does not speak this.
    pub(super) not_spoken: Option<String>,
}

impl Figures {
    pub(super) fn of(way: Way) -> Self {
        Figures {
            way,
            first_text_ms: Vec::new(),
            total_ms: Vec::new(),
            answers_per_s: Vec::new(),
            connections: Vec::new(),
            truncated: 0,
            failed: 0,
            not_spoken: None,
        }
    }

    /// Takes in a round.
    pub(super) fn add(&mut self, report: &Report) {
        // An HTTP answer in place of a socket. Anything else that goes wrong is a failure.
        let refused = report.errors.http.keys().find(|kind| kind.contains("WebSocket"));
        if let (0, Some(why)) = (report.ok, refused) {
            self.not_spoken = Some(why.clone());
            return;
        }
        // A buffered answer shows its first text when all of it is there.
        let first = if self.way.mode == Mode::Json { &report.total_ms } else { &report.first_content_ms };
        if report.ok > 0 {
            self.first_text_ms.push(first.mean);
            self.total_ms.push(report.total_ms.mean);
            self.answers_per_s.push(report.requests_per_s());
            self.connections.push(report.connections_opened as f64);
        }
        let cut = report.errors.truncated + report.errors.reset;
        self.truncated += cut;
        self.failed += report.failed - cut.min(report.failed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total_ms.is_empty()
    }

    fn cells(&self) -> Vec<String> {
        let name = self.way.name.to_owned();
        if let Some(why) = &self.not_spoken {
            return [vec![name, format!("not spoken: {why}")], vec![String::new(); 5]].concat();
        }
        let cell = |values: &[f64], digits| median(values).map_or_else(|| "-".to_owned(), |v| number(v, digits));
        vec![
            name,
            cell(&self.first_text_ms, 0),
            cell(&self.total_ms, 0),
            cell(&self.answers_per_s, 1),
            cell(&self.connections, 0),
            self.truncated.to_string(),
            self.failed.to_string(),
        ]
    }
}

/// The result.
pub(super) struct Page<'a> {
    pub(super) flags: &'a Compare,
    /// The simulator's, where it answered.
    pub(super) scenario: Option<&'a str>,
    pub(super) figures: &'a [Figures],
}

const HEAD: [&str; 7] = [
    "way",
    "first text, mean ms",
    "total, mean ms",
    "answers/s",
    "connections opened",
    "truncated",
    "failed otherwise",
];

/// What the article behind this project reports of its own rig, beside which ours stands.
const ARTICLE: &str = "The article behind this project reports, on its own rig: REST 1200 ms and 85 answers/s, WebSocket 380 ms and 220 answers/s.";

impl Page<'_> {
    fn table(&self) -> String {
        let head = HEAD.map(str::to_owned).to_vec();
        let rows = self.figures.iter().map(Figures::cells);
        aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    }

    /// Both figures of two ways: by how much the second differs.
    fn differs(&self, of: impl Fn(&Figures) -> &Vec<f64>, mode: Mode) -> Option<(f64, f64)> {
        let one = |mode| {
            let figures = self.figures.iter().find(|f| f.way.mode == mode && f.way.keep_alive)?;
            median(of(figures))
        };
        Some((one(mode)?, one(Mode::Socket)?))
    }

    /// In a sentence each: what a WebSocket changed against kept REST and against SSE.
    fn judgement(&self) -> String {
        let mut out = String::new();
        let mut say = |what: &str, pair: Option<(f64, f64)>, unit: &str| {
            let Some((other, socket)) = pair else { return };
            let alike = (other - socket).abs() <= ALIKE * other.max(socket);
            let (other, socket) = (number(other, 0), number(socket, 0));
            let verdict = if alike { "no difference" } else { "a difference" };
            let _ = writeln!(out, "{what}: {other} {unit} and {socket} {unit} over a WebSocket: {verdict}.");
        };
        say("First text, SSE", self.differs(|f| &f.first_text_ms, Mode::Sse), "ms");
        say("Answers, SSE", self.differs(|f| &f.answers_per_s, Mode::Sse), "a second");
        say("First text, REST on kept connections", self.differs(|f| &f.first_text_ms, Mode::Json), "ms");
        say("Answers, REST on kept connections", self.differs(|f| &f.answers_per_s, Mode::Json), "a second");
        out
    }

    /// For the terminal.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        if let Some(scenario) = self.scenario {
            let _ = writeln!(out, "The simulator answers, through Tidegate:\n\n{scenario}");
        }
        let _ = writeln!(out, "{}\n{}\n{ARTICLE}", self.table(), self.judgement());
        out
    }

    /// As an image.
    pub(super) fn svg(&self) -> String {
        let panel = |title: &str, of: fn(&Figures) -> &Vec<f64>| Panel {
            title: title.to_owned(),
            bars: self.figures.iter().map(|f| Bar { name: f.way.name.to_owned(), value: median(of(f)) }).collect(),
            full: None,
        };
        let panels = [
            panel("time to first text, mean, ms", |f| &f.first_text_ms),
            panel("time to the whole answer, mean, ms", |f| &f.total_ms),
            panel("answers a second", |f| &f.answers_per_s),
        ];
        let what = if self.scenario.is_some() { "the simulator, through Tidegate" } else { "an endpoint" };
        let title = format!("{} clients at once: {what}", self.flags.concurrency);
        chart(&title, &panels, "A buffered answer shows its first text when all of it is there. tidegate bench compare")
    }

    /// For `docs/measurements`.
    pub(super) fn markdown(&self, began: SystemTime) -> String {
        let facts = Facts::gather(began);
        let mut out = format!(
            "# REST, SSE and WebSocket side by side\n\n| | |\n|---|---|\n| machine | {} |\n| date | {} |\n| commit | {} |\n| command | `{}` |\n| clients at once | {} |\n| each way | {} s, {} round(s), medians |\n\n",
            facts.machine,
            facts.date,
            facts.commit,
            facts.command,
            self.flags.concurrency,
            self.flags.duration.0.as_secs_f64(),
            self.flags.rounds
        );
        let _ = writeln!(out, "{}\n{}\n{ARTICLE}", self.table(), self.judgement());
        if let Some(scenario) = self.scenario {
            let _ = writeln!(out, "\nThe simulator's parameters:\n```toml\n{}\n```", scenario.trim_end());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::WAYS;
    use super::*;
    use clap::Parser;

    fn flags() -> crate::cli::Cli {
        crate::cli::Cli::parse_from(["tidegate", "bench", "compare"])
    }

    fn figures(first: [f64; 4]) -> Vec<Figures> {
        let of = |(way, first): (&Way, f64)| Figures {
            first_text_ms: vec![first],
            total_ms: vec![1000.0],
            answers_per_s: vec![100.0],
            connections: vec![200.0],
            ..Figures::of(*way)
        };
        WAYS.iter().zip(first).map(of).collect()
    }

    fn text(figures: &[Figures]) -> String {
        let crate::cli::Command::Bench(bench) = flags().command else { panic!("another command") };
        let Some(crate::cli::BenchCommand::Compare(flags)) = bench.command else { panic!("another command") };
        Page { flags: &flags, scenario: Some("[pace]"), figures }.text()
    }

    #[test]
    fn what_is_alike_is_called_so_and_what_is_not_is_not() {
        let told = text(&figures([1000.0, 990.0, 301.0, 300.0]));
        assert!(told.contains("First text, SSE: 301 ms and 300 ms over a WebSocket: no difference."), "{told}");
        assert!(told.contains("kept connections: 990 ms and 300 ms over a WebSocket: a difference."), "{told}");
        assert!(told.contains("[pace]") && told.contains("85 answers/s"), "{told}");
    }

    #[test]
    fn an_endpoint_without_websockets_keeps_its_other_rows() {
        let mut figures = figures([1.0, 2.0, 3.0, 4.0]);
        figures[3] = Figures { not_spoken: Some("404 no WebSocket".to_owned()), ..Figures::of(WAYS[3]) };
        let told = text(&figures);
        assert!(told.contains("not spoken: 404 no WebSocket") && told.contains("REST, keep-alive"), "{told}");
        assert!(!told.contains("over a WebSocket"), "{told}");
    }
}
