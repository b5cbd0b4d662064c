//! `tidegate streams`: the live requests of a running gateway, and the last that are over.
//!
//! On a terminal the table is drawn anew each second on its other screen, until Ctrl-C (`watch`);
//! into a pipe, with `--once` or `--json` it is told once. A gateway that goes away meanwhile (a
//! restart) is waited for.

mod watch;

use super::admin::Admin;
use super::grid::{Column, cell, grid, span, terminal, within};
use super::{Failed, say};
use crate::cli::{Streams, StreamsCommand};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::IsTerminal;

/// The room of a terminal; without lines as many as there are.
#[derive(Clone, Copy, Debug)]
struct Size {
    columns: usize,
    lines: Option<usize>,
}

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
    let is_terminal = std::io::stdout().is_terminal();
    if flags.once || !is_terminal {
        let size = is_terminal.then(|| Size { columns: terminal().1, lines: None });
        say(table(&page(&admin, flags)?, size).trim_end());
        return Ok(());
    }
    watch::run(&admin, flags)
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
    // Said shortly: whose it is stands in the phase.
    let waits = text(row, "waits_for");
    let mut out = waits.strip_prefix("the upstream's ").or(waits.strip_prefix("the ")).unwrap_or(&waits).to_owned();
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

/// What a wide terminal shows of a live request, and in which order a narrow one.
const LIVE: [Column; 11] = [
    Column::names("STREAM", 0, 26),
    Column::names("TENANT", 5, 6),
    Column::names("MODEL", 8, 12),
    Column::names("CONVERSATION", 4, 12),
    Column::names("PHASE", 1, 10),
    Column::numbers("AGE", 2),
    Column::numbers("LAST BYTE", 9),
    Column::numbers("TRY", 6),
    Column::names("KEY", 7, 8),
    Column::names("WAITS FOR", 3, 12),
    Column::names("UPSTREAM IDS", 10, 14),
];

/// The same of one that is over.
const OVER: [Column; 10] = [
    Column::names("STREAM", 0, 26),
    Column::names("TENANT", 4, 6),
    Column::names("MODEL", 8, 12),
    Column::names("CONVERSATION", 3, 12),
    Column::names("ENDED", 1, 14),
    Column::numbers("AGO", 2),
    Column::numbers("TOOK", 5),
    Column::numbers("TRY", 6),
    Column::names("KEY", 7, 8),
    Column::names("UPSTREAM IDS", 9, 14),
];

fn live(row: &Value) -> Vec<String> {
    let names = ["stream", "tenant", "model", "conversation", "phase"].map(|key| text(row, key));
    let times = [time(row, "age_ms"), time(row, "last_byte_age_ms"), number(row, "attempts")];
    names.into_iter().chain(times).chain([text(row, "upstream_key"), waits(row), ids(row)]).collect()
}

fn over(row: &Value) -> Vec<String> {
    let names = ["stream", "tenant", "model", "conversation"].map(|key| text(row, key));
    let times = [time(row, "ended_ms_ago"), time(row, "total_ms"), number(row, "attempts")];
    names.into_iter().chain([ended(row)]).chain(times).chain([text(row, "upstream_key"), ids(row)]).collect()
}

/// Both tables under a line that says what is not in them; within a terminal's columns and lines, if
/// it is for one, the live ones first.
fn table(page: &Value, size: Option<Size>) -> String {
    let all = |key: &str| page[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let (mut rows, mut done) = (all("streams"), all("finished"));
    let [rows_all, done_all] = [rows.len(), done.len()];
    if let Some(lines) = size.and_then(|size| size.lines) {
        // Two lines of heads and an empty one between the tables, and the line above all.
        rows = &rows[..rows.len().min(lines.saturating_sub(6))];
        done = &done[..done.len().min(lines.saturating_sub(6 + rows.len()))];
    }
    let width = size.map(|size| size.columns);
    let hidden = |shown: usize, all: usize| match all - shown {
        0 => String::new(),
        n => format!(" ({n} more)"),
    };
    let mut head = format!(
        "{} live, {rows_all} of them here{}; {done_all} that are over{}",
        number(page, "count"),
        hidden(rows.len(), rows_all),
        hidden(done.len(), done_all)
    );
    let (live, mut left_out) = grid(&LIVE, &rows.iter().map(live).collect::<Vec<_>>(), width);
    let (over, of_over) = grid(&OVER, &done.iter().map(over).collect::<Vec<_>>(), width);
    if rows.is_empty() {
        left_out.clear();
    }
    if !done.is_empty() {
        left_out.extend(of_over);
    }
    if !left_out.is_empty() || rows.len() < rows_all || done.len() < done_all {
        head.push_str("; all of it: --json");
    }
    let mut out = within(&head, width.unwrap_or(usize::MAX)).to_owned();
    out.push('\n');
    if !rows.is_empty() {
        out.push_str(&live);
    }
    if !done.is_empty() {
        out.push('\n');
        out.push_str(&over);
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
        let text = table(&page(1, 1), None);
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
        let sized = |live, over, columns, lines| table(&page(live, over), Some(Size { columns, lines: Some(lines) }));
        for columns in [1, 20, 40, 80, 200] {
            for lines in [1, 5, 10, 24] {
                let text = sized(50, 50, columns, lines);
                assert!(text.lines().count() <= lines, "{lines}:\n{text}");
                assert!(text.lines().all(|line| line.chars().count() <= columns), "{columns}:\n{text}");
            }
        }
        assert!(sized(50, 0, 200, 24).contains("50 of them here (32 more); 0 that are over; all of it: --json"));
        assert!(!sized(1, 1, 250, 24).contains("--json"));
    }

    #[test]
    fn eighty_columns_have_room_for_what_finds_a_stuck_conversation() {
        let mut page = page(1, 1);
        page["streams"][0]["stream"] = json!("str_0a6f2e1c8b9d4e7f0a6f2e");
        page["streams"][0]["conversation"] = json!("customer-4711-of-a-shop-with-a-long-name-0815");
        let text = table(&page, Some(Size { columns: 80, lines: Some(24) }));
        let row = text.lines().nth(2).unwrap();
        for want in ["str_0a6f2e1c8b9d4e7f0a6f2e", "custom\u{2026}", "-0815", "admit", "1 min", "output"] {
            assert!(row.contains(want), "{want} in\n{text}");
        }
    }
}
