//! What every limit would have allowed, and what was used of it.

use super::{COUNT_CLASS, Quota};
use serde_json::{Map, Value, json};
use tidegate_base::Moment;

impl Quota {
    /// What every limit would have allowed and what was used of it, as JSON.
    pub(crate) fn report(&mut self, now: Moment) -> Value {
        let span = now.since(self.since);
        let pools = self.pools.iter_mut().filter(|((_, _, class), _)| *class != COUNT_CLASS);
        let rows = pools.map(|((organisation, workspace, class), pool)| {
            let mut row = Map::new();
            row.insert("organisation".to_owned(), json!(organisation));
            row.insert("workspace".to_owned(), json!(workspace));
            row.insert("class".to_owned(), json!(class));
            for (limiter, limit, balance) in pool.balances(now) {
                let account = json!({
                    "limit": limit, "refilled": balance.refilled, "foreign": balance.foreign,
                    "allowed": balance.refilled - balance.foreign, "used": balance.used,
                    "overflowed": balance.overflowed, "level_then": balance.opened_with, "level_now": balance.level,
                });
                row.insert(limiter.name().to_owned(), account);
            }
            row.insert("refused".to_owned(), json!(pool.refused));
            Value::Object(row)
        });
        let rows: Vec<Value> = rows.collect();
        let dollars = |(name, spent): (&str, u64)| (name.to_owned(), json!(spent as f64 / 1e9));
        let dollars: Map<String, Value> = self.spending.by_organisation().map(dollars).collect();
        json!({"span_ms": span.as_millis() as u64, "limits": rows, "dollars": dollars})
    }
}
