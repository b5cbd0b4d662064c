//! Reports as aligned plain text: one in full, or several side by side.

use crate::latency::Percentiles;
use crate::report::Report;
use std::fmt::Write;

/// Digits in groups of three: `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A rate: whole from 100 on, one decimal below.
fn rate(x: f64) -> String {
    if x >= 100.0 { grouped(x.round() as u64) } else { format!("{x:.1}") }
}

/// Milliseconds to about three digits; `-` if there was none.
fn ms(percentiles: &Percentiles, x: f64) -> String {
    match x {
        _ if percentiles.count == 0 => "-".to_owned(),
        x if x < 10.0 => format!("{x:.3}"),
        x if x < 100.0 => format!("{x:.2}"),
        x if x < 1000.0 => format!("{x:.1}"),
        x => grouped(x.round() as u64),
    }
}

/// The cells of p50, p90, p99, p99.9 and the maximum.
fn columns(p: &Percentiles) -> [String; 5] {
    [p.p50, p.p90, p.p99, p.p99_9, p.max].map(|x| ms(p, x))
}

/// Rows of cells under each other, the first column to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            // Writing into a string cannot fail.
            let _ = match c {
                0 => write!(line, "{cell:<width$}", width = widths[0]),
                _ => write!(line, "  {cell:>width$}", width = widths[c].max(8)),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn spans(report: &Report) -> [(&'static str, &Percentiles); 7] {
    [
        ("connect", &report.connect_ms),
        ("start delay", &report.start_delay_ms),
        ("first byte", &report.first_byte_ms),
        ("first content", &report.first_content_ms),
        ("event gap", &report.event_gap_ms),
        ("event transit", &report.transit_ms),
        ("total", &report.total_ms),
    ]
}

fn counts<K: std::fmt::Display>(counts: impl IntoIterator<Item = (K, u64)>) -> String {
    let counts: Vec<String> = counts.into_iter().map(|(name, n)| format!("{name}: {}", grouped(n))).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join("   ") }
}

/// One report in full.
pub(crate) fn table(report: &Report) -> String {
    let stopped = if report.stopped_early { ", stopped early" } else { "" };
    let mut facts = vec![
        (
            "requests",
            format!(
                "{} ok   {} failed   {} unfinished   in {:.1} s{stopped}",
                grouped(report.ok),
                grouped(report.failed),
                grouped(report.unfinished),
                report.elapsed.as_secs_f64()
            ),
        ),
        (
            "rates",
            format!(
                "{} requests/s   {} events/s   {} output tokens/s   {} MB/s",
                rate(report.requests_per_s()),
                rate(report.events_per_s()),
                rate(report.output_tokens_per_s()),
                rate(report.bytes_per_s() / 1e6)
            ),
        ),
        ("connections", format!("{} opened", grouped(report.connections_opened))),
        ("answers", counts(report.answers_by_status.iter().map(|(status, n)| (status, *n)))),
        ("stop reasons", counts(report.stop_reasons.iter().map(|(reason, n)| (reason, *n)))),
        ("errors", counts(report.errors.by_name())),
        ("truncated", format!("{} streams", grouped(report.truncated_streams))),
    ];
    if report.attempts > report.started {
        facts.push(("attempts", format!("{} for {} requests", grouped(report.attempts), grouped(report.started))));
    }
    if let Some(cost) = &report.generator {
        let event = cost.cpu_us_per_event.map_or_else(String::new, |us| format!(", {us:.2} us an event"));
        let cost = format!(
            "{:.2} s of processor time ({:.1} us a request{event}), {:.2} s waiting for a processor",
            cost.cpu_s, cost.cpu_us_per_request, cost.cpu_wait_s
        );
        facts.push(("generator", cost));
    }
    let mut out = format!("{}\n\n", report.headline);
    for (name, fact) in facts {
        let _ = writeln!(out, "{name:<14}{fact}");
    }
    out.push('\n');
    let head = ["ms", "p50", "p90", "p99", "p99.9", "max", "count"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, p) in spans(report).into_iter().filter(|(_, p)| p.count > 0) {
        rows.push([vec![name.to_owned()], columns(p).to_vec(), vec![grouped(p.count)]].concat());
    }
    for class in report.classes.iter().filter(|class| class.first_content_ms.count > 0) {
        let p = &class.first_content_ms;
        let name = format!("first content, {}", class.name);
        rows.push([vec![name], columns(p).to_vec(), vec![grouped(p.count)]].concat());
    }
    out + &aligned(&rows)
}

/// Several reports as columns under their names, for comparison.
pub fn side_by_side(reports: &[(&str, &Report)]) -> String {
    let row = |name: String, cell: &dyn Fn(&Report) -> String| {
        std::iter::once(name).chain(reports.iter().map(|(_, report)| cell(report))).collect::<Vec<_>>()
    };
    let mut rows = vec![std::iter::once(String::new()).chain(reports.iter().map(|(n, _)| (*n).to_owned())).collect()];
    rows.push(row("requests ok".to_owned(), &|r| grouped(r.ok)));
    rows.push(row("requests failed".to_owned(), &|r| grouped(r.failed)));
    rows.push(row("requests unfinished".to_owned(), &|r| grouped(r.unfinished)));
    rows.push(row("truncated streams".to_owned(), &|r| grouped(r.truncated_streams)));
    rows.push(row("requests/s".to_owned(), &|r| rate(r.requests_per_s())));
    rows.push(row("events/s".to_owned(), &|r| rate(r.events_per_s())));
    rows.push(row("MB/s".to_owned(), &|r| rate(r.bytes_per_s() / 1e6)));
    for (at, name) in [(2, "first byte"), (3, "first content"), (4, "event gap"), (5, "total")] {
        if reports.iter().all(|(_, r)| spans(r)[at].1.count == 0) {
            continue;
        }
        for (column, label) in ["p50", "p90", "p99", "p99.9", "max"].into_iter().enumerate() {
            rows.push(row(format!("{name} {label} ms"), &|r| columns(spans(r)[at].1)[column].clone()));
        }
    }
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::tally::Tally;
    use std::time::Duration;
    use tidegate_base::Moment;

    fn report() -> Report {
        let mut tally = Tally::of(&Plan::new("http://a"));
        let at = |ms| Moment::ZERO + Duration::from_millis(ms);
        for n in 1..=1500u64 {
            tally.started(0, Duration::ZERO);
            tally.answered(200, Duration::from_millis(2));
            tally.ended(0, Ok(7), at(n), Duration::from_millis(n));
        }
        tally.started(0, Duration::ZERO);
        Report::new(&Plan::new("http://a"), &tally, Moment::ZERO, at(3000), None, false)
    }

    #[test]
    fn numbers_are_grouped() {
        let shown = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn the_table_says_what_was_found_and_lines_up() {
        let text = report().table();
        assert!(text.starts_with("http://a, sse, claude-haiku-5-5, 16 connections, closed loop\n\n"), "{text}");
        assert!(text.contains("requests      1,500 ok   0 failed   1 unfinished   in 3.0 s\n"), "{text}");
        assert!(text.contains("rates         500 requests/s"), "{text}");
        let spans: Vec<&str> = text.lines().skip_while(|l| !l.starts_with("ms ")).collect();
        assert_eq!(spans.len(), 4, "spans that never occurred are left out: {text}");
        assert!(spans.iter().all(|l| l.len() == spans[0].len()), "{text}");
    }

    #[test]
    fn reports_stand_side_by_side() {
        let (a, b) = (report(), report());
        let text = side_by_side(&[("direct", &a), ("through", &b)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("  direct   through"), "{text}");
        assert!(lines.iter().all(|l| l.len() == lines[0].len()), "{text}");
        assert!(!text.contains("first content"));
    }
}
