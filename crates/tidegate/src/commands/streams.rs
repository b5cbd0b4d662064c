//! `tidegate streams`: the live requests of a running gateway, and the last that are over.
//!
//! On a terminal the table is drawn anew each second, until Ctrl-C; into a pipe, with `--once` or
//! `--json` it is told once. A gateway that goes away meanwhile (a restart) is waited for.

use super::admin::Admin;
use super::grid::{Side, cell, grid, span, terminal, within};
use super::{Failed, say};
use crate::cli::{Streams, StreamsCommand};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;
use tidegate_transport::Clock;

/// Between two drawings.
const DRAW_EVERY: Duration = Duration::from_secs(1);

pub(super) fn run(flags: &Streams) -> Result<(), Failed> {
    let admin = Admin::find(&flags.place)?;
    if let Some(StreamsCommand::Cancel { ids }) = &flags.command {
        return cancel(&admin, ids);
    }
    if flags.json {
        let page = page(&admin, flags)?;
        say(serde_json::to_string_pretty(&page).map_err(Failed::because)?);
        return Ok(());
    }
    if flags.once || !std::io::stdout().is_terminal() {
        let text = table(&page(&admin, flags)?, None, None);
        say(text.trim_end());
        return Ok(());
    }
    live(&admin, flags)
}

/// Cancels each; what cannot be is told, and does not keep the others from it.
fn cancel(admin: &Admin, ids: &[String]) -> Result<(), Failed> {
    let mut failed = Vec::new();
    for id in ids {
        match admin.cancel(id) {
            Ok(_) => say(format_args!("{}: cancelled", cell(id))),
            Err(why) => failed.push(format!("{}: {why}", cell(id))),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failed(failed.join("\n"))) }
}

fn page(admin: &Admin, flags: &Streams) -> Result<Value, Failed> {
    let filters = [
        ("conversation", flags.conversation.as_deref()),
        ("tenant", flags.tenant.as_deref()),
        ("phase", flags.phase.as_deref()),
        ("key", flags.key.as_deref()),
    ];
    admin.get("/streams", &filters)
}

/// Draws until it is stopped. A filter that is wrong ends it at once.
fn live(admin: &Admin, flags: &Streams) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::because)?;
    let clock = Clock::real();
    let mut shown = Some(page(admin, flags)?);
    loop {
        let (lines, columns) = terminal();
        let text = match &shown {
            // The last line stays free: a line end there would scroll.
            Some(page) => table(page, Some(columns), Some(lines.saturating_sub(1))),
            None => "the gateway does not answer; asking again each second\n".to_owned(),
        };
        draw(&text).map_err(Failed::because)?;
        runtime.block_on(async { clock.sleep_until(clock.now() + DRAW_EVERY).await });
        shown = page(admin, flags).ok();
    }
}

/// Over what stands there: each line to its end, then everything below, so that nothing flickers.
fn draw(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\r\n"))?;
    out.flush()
}

fn text(row: &Value, key: &str) -> String {
    cell(row[key].as_str().unwrap_or_default())
}

fn number(row: &Value, key: &str) -> String {
    row[key].as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string())
}

fn time(row: &Value, key: &str) -> String {
    row[key].as_u64().map_or_else(|| "-".to_owned(), span)
}

fn ids(row: &Value) -> String {
    let ids = row["upstream_request_ids"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ids: Vec<String> = ids.iter().map(|id| cell(id.as_str().unwrap_or_default())).collect();
    if ids.is_empty() { "-".to_owned() } else { ids.join(" ") }
}

/// What it waits for, how long still, and why it is not the first attempt.
fn waits(row: &Value) -> String {
    let mut out = text(row, "waits_for");
    // Writing into a string cannot fail.
    if row["expected_ms"].is_u64() {
        let _ = write!(out, ", {} still", time(row, "expected_ms"));
    }
    if row["last_failure"].is_string() {
        let _ = write!(out, "; after {}", text(row, "last_failure"));
    }
    out
}

fn ended(row: &Value) -> String {
    let mut out = format!("{} {}", text(row, "end"), number(row, "status"));
    if row["code"].is_string() {
        let _ = write!(out, " {}", text(row, "code"));
    }
    out
}

/// Both tables; of a height that is given, the live ones first.
fn table(page: &Value, width: Option<usize>, height: Option<usize>) -> String {
    let rows = |key: &str| page[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let (mut live, mut over) = (rows("streams"), rows("finished"));
    let (all_live, all_over) = (live.len(), over.len());
    if let Some(height) = height {
        // Two lines of heads and an empty one between the tables, and the line above all.
        live = &live[..live.len().min(height.saturating_sub(6))];
        over = &over[..over.len().min(height.saturating_sub(6 + live.len()))];
    }
    let hidden = |shown: usize, all: usize| match all - shown {
        0 => String::new(),
        n => format!(" ({n} more: filter them, or --once)"),
    };
    let mut out = within(
        &format!(
            "{} live, {} of them here{}; {} that are over{}",
            number(page, "count"),
            all_live,
            hidden(live.len(), all_live),
            all_over,
            hidden(over.len(), all_over)
        ),
        width,
    );
    out.push('\n');
    use Side::{Left, Right};
    let heads = [
        ("STREAM", Left),
        ("TENANT", Left),
        ("MODEL", Left),
        ("CONVERSATION", Left),
        ("PHASE", Left),
        ("AGE", Right),
        ("LAST BYTE", Right),
        ("TRY", Right),
        ("KEY", Left),
        ("WAITS FOR", Left),
        ("UPSTREAM IDS", Left),
    ];
    let of_live = |row: &Value| {
        let names = ["stream", "tenant", "model", "conversation", "phase"].map(|key| text(row, key));
        let times = [time(row, "age_ms"), time(row, "last_byte_age_ms"), number(row, "attempts")];
        names.into_iter().chain(times).chain([text(row, "upstream_key"), waits(row), ids(row)]).collect()
    };
    if !live.is_empty() {
        out.push_str(&grid(&heads, &live.iter().map(of_live).collect::<Vec<_>>(), width));
    }
    let heads = [
        ("STREAM", Left),
        ("TENANT", Left),
        ("MODEL", Left),
        ("CONVERSATION", Left),
        ("ENDED", Left),
        ("AGO", Right),
        ("TOOK", Right),
        ("TRY", Right),
        ("KEY", Left),
        ("UPSTREAM IDS", Left),
    ];
    let of_over = |row: &Value| {
        let names = ["stream", "tenant", "model", "conversation"].map(|key| text(row, key));
        let times = [time(row, "ended_ms_ago"), time(row, "total_ms"), number(row, "attempts")];
        names.into_iter().chain([ended(row)]).chain(times).chain([text(row, "upstream_key"), ids(row)]).collect()
    };
    if !over.is_empty() {
        out.push('\n');
        out.push_str(&grid(&heads, &over.iter().map(of_over).collect::<Vec<_>>(), width));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn page(live: usize, over: usize) -> Value {
        let row = json!({"stream": "str_1", "tenant": "acme\x1b[31m", "model": "m", "conversation": "c\n1", "phase": "admit",
            "waits_for": "output_tokens", "expected_ms": 1500, "last_failure": "overloaded", "upstream_key": "main/1",
            "attempts": 2, "age_ms": 65_000, "last_byte_age_ms": null, "upstream_request_ids": ["req_a", "req_b"]});
        let done = json!({"stream": "str_2", "tenant": "acme", "model": "m", "status": 402, "end": "refused",
            "code": "budget_reached", "upstream_key": "", "attempts": 0, "ended_ms_ago": 10, "total_ms": 3,
            "upstream_request_ids": []});
        json!({"count": 100, "streams": vec![row; live], "finished": vec![done; over]})
    }

    #[test]
    fn a_row_tells_where_it_is_and_what_it_waits_for() {
        let text = table(&page(1, 1), None, None);
        for want in [
            "100 live, 1 of them here; 1 that are over",
            "acme\\u{1b}[31m",
            "c\\n1",
            "output_tokens, 1.5 s still; after overloaded",
            "1 min",
            "req_a req_b",
            "refused 402 budget_reached",
        ] {
            assert!(text.contains(want), "{want} in\n{text}");
        }
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn a_table_fits_its_terminal() {
        for height in [1, 5, 10, 24] {
            let text = table(&page(50, 50), Some(40), Some(height));
            assert!(text.lines().count() <= height.max(1), "{height}:\n{text}");
            assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        }
        assert!(table(&page(50, 0), None, Some(24)).contains("(32 more: filter them, or --once)"));
    }
}
