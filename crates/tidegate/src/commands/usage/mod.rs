//! `tidegate usage`: what was used and what it cost, by day, tenant, model and what became of the
//! attempt; the budgets of this month. As a table, as JSON, or as CSV for a spreadsheet.
//!
//! With `--by` the rows are added up by some of their names (`sums`). Numbers go from the gateway's answer to the output as they are: no float is made of any.

mod sums;

use super::admin::Admin;
use super::grid::{Column, cell, grid, terminal};
use super::{Failed, say};
use crate::cli::{Usage, UsageName};
use serde_json::Value;
use std::fmt::Write;
use std::io::IsTerminal;
use sums::{LOST, summed};

/// The names of rows, in the order of the answer's.
const NAMES: [UsageName; 4] = [UsageName::Day, UsageName::Tenant, UsageName::Model, UsageName::Kind];

/// What a name is called in the answer, and over the table.
fn key(name: UsageName) -> (&'static str, &'static str) {
    match name {
        UsageName::Day => ("day", "DAY"),
        UsageName::Tenant => ("tenant", "TENANT"),
        UsageName::Model => ("model", "MODEL"),
        UsageName::Kind => ("kind", "KIND"),
    }
}

/// The columns of numbers: in the answer, and over the table.
const NUMBERS: [(&str, &str); 8] = [
    ("attempts", "ATTEMPTS"),
    ("input_tokens", "INPUT"),
    ("cache_read_tokens", "CACHE READ"),
    ("cache_write_5m_tokens", "WRITE 5M"),
    ("cache_write_1h_tokens", "WRITE 1H"),
    ("output_tokens", "OUTPUT"),
    ("estimated_attempts", "ESTIMATED"),
    ("unpriced_attempts", "UNPRICED"),
];

pub(super) fn run(flags: &Usage) -> Result<(), Failed> {
    let filters = [
        ("tenant", flags.tenant.as_deref()),
        ("model", flags.model.as_deref()),
        ("from", flags.from.as_deref()),
        ("to", flags.to.as_deref()),
    ];
    let mut page = Admin::find(&flags.place)?.get("/usage", &filters)?;
    let names: Vec<UsageName> = match flags.by.as_slice() {
        [] => NAMES.to_vec(),
        by => NAMES.into_iter().filter(|name| by.contains(name)).collect(),
    };
    if !flags.by.is_empty() {
        page["rows"] = summed(&page, &names.iter().map(|name| key(*name).0).collect::<Vec<_>>()).into();
    }
    if flags.json {
        say(serde_json::to_string_pretty(&page).map_err(Failed::because)?);
    } else if flags.csv {
        say(csv(&page, &names).trim_end());
    } else {
        let width = std::io::stdout().is_terminal().then(|| terminal().1);
        say(table(&page, &names, width).trim_end());
    }
    Ok(())
}

fn rows(page: &Value) -> &[Value] {
    page["rows"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

fn number(row: &Value, key: &str) -> String {
    row[key].as_u64().unwrap_or_default().to_string()
}

/// Its thousands apart, as people read it.
fn grouped(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Money to a hundredth of a cent, rounded up; what is not known is said so, wholly or in part.
fn money(row: &Value) -> String {
    let nanos = row["cost_nano_usd"].as_u64();
    let some = nanos.is_some() && row["unpriced_attempts"].as_u64() > Some(0);
    dollars(nanos) + if some { " and unknown" } else { "" }
}

fn dollars(nanos: Option<u64>) -> String {
    let Some(nanos) = nanos else { return "unknown".to_owned() };
    let hundredths = nanos.div_ceil(100_000);
    format!("{}.{:04}", grouped(&(hundredths / 10_000).to_string()), hundredths % 10_000)
}

/// In which order columns of numbers come where there is no room for all; see [`NUMBERS`].
const RANKS: [usize; 8] = [5, 7, 8, 9, 10, 6, 11, 12];

fn table(page: &Value, names: &[UsageName], width: Option<usize>) -> String {
    let with_lost = !names.contains(&UsageName::Kind);
    let lost = LOST.iter().filter(|_| with_lost);
    let mut columns: Vec<Column> =
        names.iter().enumerate().map(|(rank, name)| Column::names(key(*name).1, rank, 8)).collect();
    columns.extend(NUMBERS.iter().zip(RANKS).map(|((_, head), rank)| Column::numbers(head, rank)));
    columns.push(Column::numbers("USD", 4));
    columns.extend(lost.clone().map(|(_, _, head)| Column::numbers(head, 13)));
    let numbers = |row: &Value| {
        let counts = NUMBERS.map(|(key, _)| grouped(&number(row, key)));
        counts.into_iter().chain([money(row)]).collect::<Vec<_>>()
    };
    let mut lines: Vec<Vec<String>> = Vec::new();
    for row in rows(page) {
        let of_names = names.iter().map(|name| cell(text(row, key(*name).0)));
        let of_lost = lost.clone().map(|(_, key, _)| dollars(row[*key].as_u64()));
        lines.push(of_names.chain(numbers(row)).chain(of_lost).collect());
    }
    let (from, to) = (text(page, "from"), text(page, "to"));
    let mut out = String::new();
    // Writing into a string cannot fail.
    if lines.is_empty() {
        let _ = writeln!(
            out,
            "nothing was used from {from} to {to} (UTC); --tenant, --model, --from and --to say what is looked at"
        );
    } else {
        let mut all: Vec<String> = names.iter().map(|_| String::new()).collect();
        if let Some(first) = all.first_mut() {
            "all".clone_into(first);
        }
        let of_lost = lost.map(|(_, key, _)| {
            dollars(rows(page).iter().filter_map(|row| row[*key].as_u64()).reduce(u64::saturating_add))
        });
        lines.push(all.into_iter().chain(numbers(&page["total"])).chain(of_lost).collect());
        let (grid, left_out) = grid(&columns, &lines, width);
        let _ = writeln!(out, "{from} to {to} (UTC), in tokens and US dollars");
        out.push_str(&grid);
        if !left_out.is_empty() {
            let _ = writeln!(out, "no room for {}: a wider terminal, --by or --csv has them", left_out.join(", "));
        }
    }
    for budget in page["budgets"].as_array().map(Vec::as_slice).unwrap_or_default() {
        // Writing into a string cannot fail.
        let _ = writeln!(
            out,
            "budget of {} for {}: {} of {} USD spent ({} %), {} reserved; {}, then {}; anew {}",
            cell(text(budget, "tenant")),
            text(budget, "month"),
            text(budget, "spent_usd"),
            text(budget, "monthly_usd"),
            number(budget, "spent_percent"),
            text(budget, "reserved_usd"),
            text(budget, "state"),
            text(budget, "when_reached"),
            text(budget, "anew"),
        );
    }
    let kept = &page["kept"];
    if let Some(note) = kept["note"].as_str() {
        let _ = writeln!(out, "in memory since {}: {note}", text(kept, "since"));
    }
    if page["unwritten"] == true {
        out.push_str("the file cannot be written: what came last is in memory only\n");
    }
    out
}

/// A field of CSV (RFC 4180). A name that a spreadsheet would take for a formula is none: clients
/// choose models.
fn field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn csv(page: &Value, names: &[UsageName]) -> String {
    let lost = LOST.iter().filter(|_| !names.contains(&UsageName::Kind)).map(|(_, key, _)| *key);
    let heads =
        names.iter().map(|name| key(*name).0).chain(NUMBERS.map(|(key, _)| key)).chain(["cost_nano_usd", "usd"]);
    let heads = heads.chain(lost.clone());
    let mut out = heads.collect::<Vec<_>>().join(",");
    out.push('\n');
    for row in rows(page) {
        let names = names.iter().map(|name| field(text(row, key(*name).0)));
        let numbers = NUMBERS.iter().map(|(key, _)| number(row, key));
        // Empty where it is not known.
        let nanos = |key: &str| row[key].as_u64().map_or_else(String::new, |nanos| nanos.to_string());
        let money = [nanos("cost_nano_usd"), text(row, "usd").to_owned()];
        let line: Vec<_> = names.chain(numbers).chain(money).chain(lost.clone().map(nanos)).collect();
        out.push_str(&line.join(","));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn page() -> Value {
        let row = |model: &str, nanos: Option<u64>, unpriced: u64| {
            json!({"day": "2026-11-23", "tenant": "acme", "model": model, "kind": "answered", "attempts": 2,
                "input_tokens": 1_234_567, "cache_read_tokens": 1, "cache_write_5m_tokens": 2, "cache_write_1h_tokens": 3,
                "output_tokens": 4, "estimated_attempts": 0, "unpriced_attempts": unpriced, "cost_nano_usd": nanos,
                "usd": nanos.map(|_| "1234.000000001")})
        };
        let rows = [row("=cmd|'x'!A1", Some(1_234_000_000_001), 0), row("m\x1b,\"n\"", None, 2)];
        let total = row("", Some(1_234_000_000_001), 2);
        let budget = json!({"tenant": "acme", "month": "2026-11", "spent_usd": "1.00", "monthly_usd": "5.00", "spent_percent": 20,
            "reserved_usd": "0.00", "state": "open", "when_reached": "queue", "anew": "2026-12-01T00:00:00Z"});
        json!({"from": "2026-11-01", "to": "2026-11-23", "rows": rows, "total": total, "budgets": [budget],
            "kept": {"in": "memory", "since": "2026-11-23T12:00:00Z", "note": "only since this process began"}})
    }

    #[test]
    fn a_table_says_what_is_not_known_and_orders_no_terminal() {
        let text = table(&page(), &NAMES, None);
        for want in [
            "1,234,567",
            "1,234.0001",
            "unknown",
            "1,234.0001 and unknown",
            "m\\u{1b}",
            "1.00 of 5.00 USD",
            "then queue",
            "only since",
        ] {
            assert!(text.contains(want), "{want} in\n{text}");
        }
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn a_narrow_terminal_has_names_and_money_and_is_told_what_it_lacks() {
        let text = table(&page(), &NAMES, Some(80));
        assert!(text.lines().take(4).all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("answered") && text.contains("1,234.0001") && text.contains("no room for"), "{text}");
        assert!(!table(&page(), &NAMES, None).contains("no room"));
    }

    #[test]
    fn sums_over_all_kinds_tell_what_was_lost_and_nothing_is_told_in_words() {
        let mut page = page();
        page["rows"] = summed(&page, &["tenant"]).into();
        let text = table(&page, &[UsageName::Tenant], None);
        assert!(text.contains("RETRIED USD") && text.contains("0.0000"), "{text}");
        page["rows"][0]["retried_nano_usd"] = json!(2_000_000_000);
        let text = table(&page, &[UsageName::Tenant], None);
        assert_eq!(text.matches("2.0000").count(), 2, "in its row and in the sum of all:\n{text}");
        assert_eq!(csv(&page, &[UsageName::Tenant]).lines().nth(1).unwrap().split(',').count(), 13);
        page["rows"] = json!([]);
        let text = table(&page, &NAMES, None);
        assert!(text.starts_with("nothing was used from 2026-11-01 to 2026-11-23 (UTC)"), "{text}");
        assert!(!text.contains("TENANT") && text.contains("only since"), "{text}");
    }

    #[test]
    fn csv_has_every_field_and_no_formula() {
        let text = csv(&page(), &NAMES);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].split(',').count(), 14);
        assert_eq!(
            lines[1],
            "2026-11-23,acme,'=cmd|'x'!A1,answered,2,1234567,1,2,3,4,0,0,1234000000001,1234.000000001"
        );
        assert!(lines[2].contains("\"m\x1b,\"\"n\"\"\"") && lines[2].ends_with(",2,,"), "{}", lines[2]);
    }
}
