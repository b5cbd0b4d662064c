//! The admin door's `/usage`: tokens and money by day, tenant, model and what became of the attempt,
//! their sum, and the budgets of this month.
//!
//! Money is `null` where none of it is known, and `unpriced_attempts` says of how many attempts it is
//! not: a sum is then of the others.

use super::rows::{Rows, read};
use super::{Costs, days};
use crate::answer::Trouble;
use crate::house::House;
use crate::memory::TurnTrouble;
use crate::query::Query;
use serde_json::{Value, json};
use tidegate_base::{date, first_day, month_name, month_of, read_date, rfc3339};
use tidegate_observe::{DAYS_IN_MEMORY, Row};
use tidegate_store::UsageFilter;

/// Rows of one page: a month of three hundred a day.
const ROWS_MAX: u32 = 10_000;

/// Which rows are asked for.
struct Asked {
    from: u32,
    to: u32,
    tenant: Option<String>,
    model: Option<String>,
}

impl Asked {
    fn read(query: &str, now_s: u64) -> Result<Self, Trouble> {
        let query = Query::read(query, &["tenant", "model", "from", "to"])?;
        let wrong = |why: String| Trouble::from(TurnTrouble::Query(why));
        let day = |key: &str| {
            let Some(text) = query.text(key) else { return Ok(None) };
            let expected = || wrong(format!("{key}: expected a day, such as `2026-11-30`"));
            read_date(text).map(Some).ok_or_else(expected)
        };
        let (from, to) = (day("from")?, day("to")?);
        // This month until now; what is asked for alone goes to today, or begins with its month.
        let to = to.unwrap_or(days(now_s / 86_400));
        let from = from.unwrap_or(days(first_day(month_of(u64::from(to) * 86_400))));
        if from > to {
            return Err(wrong(format!("from: {} is after {}", date(from), date(to))));
        }
        let text = |key| query.text(key).map(str::to_owned);
        Ok(Asked { from, to, tenant: text("tenant"), model: text("model") })
    }
}

/// The page for a query.
pub(crate) async fn page(house: &House, query: &str) -> Result<Value, Trouble> {
    let costs = &house.costs;
    let now_s = costs.now_s();
    let asked = Asked::read(query, now_s)?;
    let (rows, unwritten) = rows(house, &asked).await?;
    let mut total = Row::default();
    rows.values().for_each(|row| total.add(row));
    let of = |(key, row): (&tidegate_observe::RowKey, &Row)| {
        let mut value = shown(row);
        value["day"] = json!(date(key.day));
        value["tenant"] = json!(*key.tenant);
        value["model"] = json!(*key.model);
        value["kind"] = json!(key.kind.name());
        value
    };
    Ok(json!({
        "from": date(asked.from),
        "to": date(asked.to),
        "kept": kept(house, costs),
        "unwritten": unwritten,
        "rows": rows.iter().map(of).collect::<Vec<_>>(),
        "total": shown(&total),
        "budgets": budgets(house, now_s, asked.tenant.as_deref()),
    }))
}

/// Where it is kept, and since when.
fn kept(house: &House, costs: &Costs) -> Value {
    if costs.is_kept(&house.memory) {
        return json!({"in": "file", "days": costs.kept_days()});
    }
    json!({
        "in": "memory",
        "days": DAYS_IN_MEMORY,
        "since": rfc3339(costs.since_s),
        "note": "only since this process began: name a file in [usage] or [conversations] to keep it",
    })
}

/// The rows, of the file and of the ledger; whether some could not be written.
async fn rows(house: &House, asked: &Asked) -> Result<(Rows, bool), Trouble> {
    let costs = &house.costs;
    let mut rows = Rows::new();
    let mut unwritten = false;
    // Held until the ledger was read: nothing moves from there to the file meanwhile.
    let _writing = costs.writing.lock().await;
    if let Some(store) = costs.store(&house.memory) {
        unwritten = costs.write_alone(store).await.is_err();
        let Asked { from, to, tenant, model } = asked;
        let (tenant, model) = (tenant.clone(), model.clone());
        let filter = UsageFilter { from: *from, to: *to, tenant, model, rows: ROWS_MAX };
        let stored = store.usage(filter).await.map_err(TurnTrouble::Log)?;
        rows.extend(stored.iter().filter_map(read));
    }
    let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
    for (key, row) in costs.ledger.rows() {
        let in_time = (asked.from..=asked.to).contains(&key.day);
        if in_time && is(&asked.tenant, &key.tenant) && is(&asked.model, &key.model) {
            rows.entry(key).or_default().add(&row);
        }
    }
    if rows.len() > ROWS_MAX as usize {
        let why = format!("there are more than {ROWS_MAX} rows: narrow them by tenant, model, from or to");
        return Err(TurnTrouble::Query(why).into());
    }
    Ok((rows, unwritten))
}

/// The numbers of a row.
fn shown(row: &Row) -> Value {
    let is_known = row.unpriced < row.attempts || row.attempts == 0;
    json!({
        "attempts": row.attempts,
        "estimated_attempts": row.estimated,
        "unpriced_attempts": row.unpriced,
        "input_tokens": row.input,
        "cache_read_tokens": row.cache_read,
        "cache_write_5m_tokens": row.cache_write_5m,
        "cache_write_1h_tokens": row.cache_write_1h,
        "output_tokens": row.output,
        "cost_nano_usd": is_known.then(|| row.cost.nanos()),
        "usd": is_known.then(|| row.cost.digits()),
    })
}

/// This month's budgets.
fn budgets(house: &House, now_s: u64, tenant: Option<&str>) -> Vec<Value> {
    let tenants = house.tenants.iter().filter(|t| tenant.is_none_or(|name| name == &*t.name));
    let of = |tenant: &crate::tenants::Tenant| {
        let budget = tenant.budget.as_ref()?;
        let month = house.costs.ledger.budget(now_s, &tenant.name);
        let spent = month.spent.percent_of(budget.monthly);
        let state = match spent {
            100.. => "reached",
            _ if spent >= u64::from(budget.warn_percent) => "warned",
            _ => "open",
        };
        Some(json!({
            "tenant": *tenant.name,
            "month": month_name(month.month),
            "monthly_usd": budget.monthly.digits(),
            "spent_usd": month.spent.digits(),
            "reserved_usd": month.reserved.digits(),
            "spent_percent": spent,
            "warn_percent": budget.warn_percent,
            "when_reached": budget.reached.name(),
            "state": state,
            "anew": rfc3339(first_day(month.month + 1) * 86_400),
        }))
    };
    tenants.filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 23 November 2026, 12:00 UTC.
    const NOON: u64 = 1_795_435_200;

    fn asked(query: &str) -> Result<(String, String), Trouble> {
        Asked::read(query, NOON).map(|asked| (date(asked.from), date(asked.to)))
    }

    #[test]
    fn a_query_is_of_this_month_or_of_the_days_it_says() {
        let days = |query: &str| asked(query).unwrap();
        let is = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(days(""), is("2026-11-01", "2026-11-23"));
        assert_eq!(days("from=2026-10-30"), is("2026-10-30", "2026-11-23"));
        assert_eq!(days("to=2026-10-05"), is("2026-10-01", "2026-10-05"));
        assert_eq!(days("from=2026-11-23&to=2026-11-23"), is("2026-11-23", "2026-11-23"));
        for bad in
            ["from=2026-11-24", "from=yesterday", "to=2026-02-30", "form=2026-11-01", "from=2026-11-02&to=2026-11-01"]
        {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn money_that_is_not_known_is_not_nothing() {
        let row = |attempts, unpriced| shown(&Row { attempts, unpriced, ..Row::default() })["usd"].clone();
        assert_eq!([row(2, 2), row(2, 1), row(0, 0)], [Value::Null, json!("0.00"), json!("0.00")]);
    }
}
