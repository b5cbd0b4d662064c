//! A soak as a line a minute, and as a page to keep.

use super::sample::Sample;
use super::verdict::{Check, GROWTH_SPAN_MIN, megabytes};
use crate::commands::page::{Facts, aligned, number};
use std::fmt::Write;
use std::time::Duration;
use tidegate_bench::{Crowd, CrowdCount};

/// Rows of the table over time: a longer run has a row every few minutes.
const ROWS_MAX: usize = 60;

/// Everything a soak found.
pub(super) struct Page {
    pub(super) facts: Facts,
    pub(super) span: Duration,
    pub(super) before: Sample,
    pub(super) samples: Vec<Sample>,
    pub(super) rest: Sample,
    /// From the load's end until nothing was held.
    pub(super) rest_after: Duration,
    pub(super) crowds: Vec<(Crowd, CrowdCount)>,
    pub(super) generator_cpu_s: Option<f64>,
    pub(super) checks: Vec<Check>,
}

/// Percent of a core between two looks.
fn cpu_percent(before: &Sample, sample: &Sample) -> f64 {
    let span_s = sample.at.saturating_sub(before.at).as_secs_f64();
    if span_s > 0.0 { 100.0 * sample.cpu.saturating_sub(before.cpu).as_secs_f64() / span_s } else { 0.0 }
}

fn clock(at: Duration) -> String {
    format!("{}:{:02}", at.as_secs() / 60, at.as_secs() % 60)
}

/// One look, in a line; `before` is the one that the processor time counts from.
pub(super) fn line(before: &Sample, sample: &Sample) -> String {
    let Sample { held, .. } = sample;
    format!(
        "{:>7}  {} MB, {} threads, {} files, {} streams, {} leases, {} waiting, bodies {} MB, backlogs {} MB, {} % of a core",
        clock(sample.at),
        megabytes(sample.memory),
        sample.threads,
        number(sample.files as f64, 0),
        number(held.streams, 0),
        number(held.leases, 0),
        number(held.waiting, 0),
        megabytes(held.body_bytes),
        megabytes(held.backlog_bytes),
        number(cpu_percent(before, sample), 1),
    )
}

impl Page {
    pub(super) fn failed(&self) -> Vec<&Check> {
        self.checks.iter().filter(|check| check.good == Some(false)).collect()
    }

    fn verdict(&self) -> &'static str {
        match (self.failed().is_empty(), self.span >= GROWTH_SPAN_MIN) {
            (false, _) => "failed",
            (true, true) => "passed",
            (true, false) => "passed; too short to judge growth",
        }
    }

    /// The looks at about every minute, or at fewer moments of a long run.
    fn rows(&self) -> Vec<&Sample> {
        let minutes = self.span.as_secs_f64() / 60.0;
        let every = if minutes <= 1.0 { self.span / 10 } else { Duration::from_secs(60) };
        let every = every * u32::try_from((minutes / ROWS_MAX as f64).ceil() as usize).unwrap_or(1).max(1);
        let mut due = Duration::ZERO;
        let mut rows = Vec::new();
        for sample in &self.samples {
            if sample.at >= due {
                rows.push(sample);
                due = every * u32::try_from(sample.at.as_nanos() / every.as_nanos().max(1) + 1).unwrap_or(u32::MAX);
            }
        }
        rows
    }

    fn over_time(&self) -> String {
        let titles = [
            "time",
            "memory, MB",
            "threads",
            "open files",
            "clients",
            "upstream connections, busy",
            "kept",
            "streams",
            "leases",
            "waiting",
            "bodies, MB",
            "backlogs, MB",
            "% of a core",
        ];
        let mut lines = vec![titles.map(str::to_owned).to_vec()];
        let mut row = |name: String, before: &Sample, sample: &Sample| {
            let held = &sample.held;
            let counts = [held.clients, held.busy, held.kept, held.streams, held.leases, held.waiting];
            let mut cells =
                vec![name, megabytes(sample.memory), sample.threads.to_string(), number(sample.files as f64, 0)];
            cells.extend(counts.map(|n| number(n, 0)));
            cells.extend([megabytes(held.body_bytes), megabytes(held.backlog_bytes)]);
            cells.push(if sample.at == before.at { "-".to_owned() } else { number(cpu_percent(before, sample), 1) });
            lines.push(cells);
        };
        row("before".to_owned(), &self.before, &self.before);
        let mut last = &self.before;
        for sample in self.rows() {
            row(clock(sample.at), last, sample);
            last = sample;
        }
        let last = self.samples.last().unwrap_or(last);
        row("at rest".to_owned(), last, &self.rest);
        aligned(&lines)
    }

    fn clients(&self) -> String {
        let titles = ["crowd", "clients", "begun", "whole", "left", "knocks", "connections", "events", "failed"];
        let mut lines = vec![titles.map(str::to_owned).to_vec()];
        for (crowd, count) in &self.crowds {
            let errors: Vec<String> =
                count.errors.by_name().into_iter().map(|(kind, n)| format!("{n} {kind}")).collect();
            let numbers = [
                crowd.plan.concurrency as u64,
                count.started,
                count.whole,
                count.left,
                count.knocks,
                count.connections,
                count.events,
            ];
            let mut cells = vec![crowd.name.to_owned()];
            cells.extend(numbers.map(|n| number(n as f64, 0)));
            cells.push(if errors.is_empty() { "-".to_owned() } else { errors.join(", ") });
            lines.push(cells);
        }
        aligned(&lines)
    }

    fn sums(&self) -> String {
        let peak = self.samples.iter().map(|sample| sample.memory).fold(0.0, f64::max);
        let cpu = self.rest.cpu.saturating_sub(self.before.cpu).as_secs_f64();
        let generator = self.generator_cpu_s.map_or("unknown".to_owned(), |s| format!("{} s", number(s, 1)));
        format!(
            "Memory: {} MB before, {} MB at most, {} MB at rest ({} s after the load ended). Processor time of Tidegate: {} s; of the load generator: {generator}.",
            megabytes(self.before.memory),
            megabytes(peak),
            megabytes(self.rest.memory),
            number(self.rest_after.as_secs_f64(), 0),
            number(cpu, 2),
        )
    }

    /// The judgement for the terminal.
    pub(super) fn summary(&self) -> String {
        let mut out = String::new();
        for check in &self.checks {
            let mark = match check.good {
                Some(true) => "good",
                Some(false) => "BAD",
                None => "not judged",
            };
            // Writing into a string cannot fail.
            let _ = writeln!(out, "{mark:<11}{}: {}", check.what, check.found);
        }
        format!("{}\n{out}verdict: {}", self.sums(), self.verdict())
    }

    /// The page to keep.
    pub(super) fn markdown(&self) -> String {
        let Facts { machine, date, commit, command } = &self.facts;
        let mut checks = vec![vec!["question".to_owned(), "found".to_owned(), "good".to_owned()]];
        checks.extend(self.checks.iter().map(|check| {
            let good = check.good.map_or("not judged", |good| if good { "yes" } else { "no" });
            vec![check.what.to_owned(), check.found.clone(), good.to_owned()]
        }));
        format!(
            "# Soak, {date}\n\n| | |\n|---|---|\n| machine | {machine} |\n| date | {date} |\n| commit | {commit} |\n| command | `{command}` |\n| verdict | {} |\n\nHow it is made and judged: [README.md](README.md).\n\n{}\n{}\n\n## Over time\n\n{}\n## Clients\n\n{}",
            self.verdict(),
            aligned(&checks),
            self.sums(),
            self.over_time(),
            self.clients(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_bench::Plan;

    fn page(minutes: u64, good: bool) -> Page {
        let text = |text: &str| text.to_owned();
        let facts = Facts {
            machine: text("a machine"),
            date: text("2026-01-02"),
            commit: text("abc"),
            command: text("tidegate x"),
        };
        let sample = |s: u64| Sample {
            at: Duration::from_secs(s),
            memory: 40e6,
            threads: 4,
            files: 1_020,
            cpu: Duration::from_millis(s * 100),
            ..Sample::default()
        };
        let count = CrowdCount { started: 1_200, whole: 1_100, ..CrowdCount::default() };
        Page {
            facts,
            span: Duration::from_secs(minutes * 60),
            before: Sample { memory: 9e6, ..Sample::default() },
            samples: (0..=minutes * 6).map(|n| sample(n * 10)).collect(),
            rest: sample(minutes * 60 + 80),
            rest_after: Duration::from_secs(80),
            crowds: vec![(Crowd::new("readers", Plan::new("http://a")), count)],
            generator_cpu_s: Some(1.5),
            checks: vec![Check { what: "it is so", found: "3 of 4".to_owned(), good: Some(good) }],
        }
    }

    #[test]
    fn a_page_has_its_facts_a_row_a_minute_and_the_judgement() {
        let shown = page(10, true).markdown();
        for want in [
            "| machine | a machine |",
            "| commit | abc |",
            "| command | `tidegate x` |",
            "| verdict | passed |",
            "| it is so | 3 of 4 | yes  |",
            "| 10:00   | 40.0 ",
            "| at rest ",
            "40.0 MB at most",
        ] {
            assert!(shown.contains(want), "{want}: {shown}");
        }
        let rows = |shown: &str| shown.lines().filter(|line| line.starts_with("| ") && line.contains(":00 ")).count();
        assert_eq!(rows(&shown), 11, "{shown}");
        assert_eq!(rows(&page(120, true).markdown()), 61, "two hours have a row every two minutes");
        assert!(shown.contains(" 10.0 "), "a tenth of a core: {shown}");
    }

    #[test]
    fn what_failed_is_said_and_a_short_run_says_that_it_is_one() {
        let failed = page(10, false);
        assert_eq!(failed.failed().len(), 1);
        assert!(
            failed.markdown().contains("| verdict | failed |") && failed.summary().contains("BAD"),
            "{}",
            failed.summary()
        );
        assert!(page(1, true).summary().contains("too short to judge growth"));
    }
}
