//! `tidegate usage`: what was used and what it cost, by day, tenant, model and what became of the
//! attempt; the budgets of this month. As a table, as JSON, or as CSV for a spreadsheet.
//!
//! Numbers go from the gateway's answer to the output as they are: no float is made of any.

use super::admin::Admin;
use super::grid::{Side, cell, grid};
use super::{Failed, say};
use crate::cli::Usage;
use serde_json::Value;
use std::fmt::Write;

/// The columns of names, and of numbers: in the answer, and over the table.
const NAMES: [(&str, &str); 4] = [("day", "DAY"), ("tenant", "TENANT"), ("model", "MODEL"), ("kind", "KIND")];
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
    let page = Admin::find(&flags.place)?.get("/usage", &filters)?;
    if flags.json {
        say(serde_json::to_string_pretty(&page).map_err(Failed::because)?);
    } else if flags.csv {
        say(csv(&page).trim_end());
    } else {
        say(table(&page).trim_end());
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
    let Some(nanos) = row["cost_nano_usd"].as_u64() else { return "unknown".to_owned() };
    let hundredths = nanos.div_ceil(100_000);
    let some = if row["unpriced_attempts"].as_u64() > Some(0) { " and unknown" } else { "" };
    format!("{}.{:04}{some}", grouped(&(hundredths / 10_000).to_string()), hundredths % 10_000)
}

fn table(page: &Value) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let numbers = |row: &Value| {
        let counts = NUMBERS.map(|(key, _)| grouped(&number(row, key)));
        counts.into_iter().chain([money(row)]).collect::<Vec<_>>()
    };
    for row in rows(page) {
        lines.push(NAMES.iter().map(|(key, _)| cell(text(row, key))).chain(numbers(row)).collect());
    }
    let all = ["all", "", "", ""].map(str::to_owned);
    lines.push(all.into_iter().chain(numbers(&page["total"])).collect());
    let heads: Vec<(&str, Side)> = NAMES
        .iter()
        .map(|(_, head)| (*head, Side::Left))
        .chain(NUMBERS.iter().map(|(_, head)| (*head, Side::Right)))
        .chain([("USD", Side::Right)])
        .collect();
    let mut out = format!("{} to {} (UTC)\n", text(page, "from"), text(page, "to"));
    out.push_str(&grid(&heads, &lines, None));
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

fn csv(page: &Value) -> String {
    let heads = NAMES.iter().chain(&NUMBERS).map(|(key, _)| *key).chain(["cost_nano_usd", "usd"]);
    let mut out = heads.collect::<Vec<_>>().join(",");
    out.push('\n');
    for row in rows(page) {
        let names = NAMES.iter().map(|(key, _)| field(text(row, key)));
        let numbers = NUMBERS.iter().map(|(key, _)| number(row, key));
        // Empty where it is not known.
        let nanos = row["cost_nano_usd"].as_u64().map_or_else(String::new, |nanos| nanos.to_string());
        let line: Vec<_> = names.chain(numbers).chain([nanos, text(row, "usd").to_owned()]).collect();
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
        let text = table(&page());
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
    fn csv_has_every_field_and_no_formula() {
        let text = csv(&page());
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
