//! What the pages of measurements share: the facts a figure is kept with, numbers as people read
//! them, medians, tables.

use super::{Failed, proc};
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use tidegate_base::rfc3339;

/// What a figure needs beside it to be worth keeping.
pub(super) struct Facts {
    pub(super) machine: String,
    pub(super) date: String,
    pub(super) commit: String,
    pub(super) command: String,
}

impl Facts {
    pub(super) fn gather(began: SystemTime) -> Self {
        let since = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let args: Vec<String> = std::env::args().skip(1).collect();
        Facts {
            machine: proc::machine(),
            date: date(since.as_secs()),
            commit: commit(),
            command: format!("tidegate {}", args.join(" ")),
        }
    }
}

/// The commit of the folder this runs in, if it is one of a repository.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    if changed { format!("{commit}, with changes") } else { commit }
}

/// A day as `2026-01-31`.
fn date(epoch_s: u64) -> String {
    rfc3339(epoch_s).split('T').next().unwrap_or_default().to_owned()
}

/// A number with so many digits behind the point, its thousands apart.
pub(super) fn number(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{grouped}{rest}")
}

/// The middle one, or the middle of the two.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (below, above) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some((below + above) / 2.0)
}

/// A Markdown table whose columns stand under each other in plain text too.
pub(super) fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |c: usize| lines.iter().map(|line| line[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
        if at == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            let _ = writeln!(out, "|{}|", rule.join("|"));
        }
    }
    out
}

/// Writes a result where the user wants it.
pub(super) fn write(file: &Path, text: &str) -> Result<(), Failed> {
    std::fs::write(file, text).map_err(|e| Failed(format!("cannot write {}: {e}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        for (epoch_s, want) in [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_790_553_600, "2026-09-28")] {
            assert_eq!(date(epoch_s), want);
        }
    }

    #[test]
    fn numbers_have_their_thousands_apart() {
        assert_eq!(number(1_234_567.4, 0), "1,234,567");
        assert_eq!(number(-1_234.567, 2), "-1,234.57");
        assert_eq!(number(0.05, 3), "0.050");
    }

    #[test]
    fn medians_are_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }
}
