//! Rows of `/usage` added up: by any of their names, with what was retried and abandoned apart.
//!
//! Whole numbers throughout, and a sum that would be too large stays the largest: what an upstream
//! counts may be absurd. Money that is not known is left out of a sum; `unpriced_attempts` says so.

use super::{NUMBERS, rows, text};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tidegate_base::Usd;

/// Money of attempts that were no answers, by kind: where a sum is over all kinds it is told beside it.
pub(super) const LOST: [(&str, &str, &str); 2] =
    [("retried", "retried_nano_usd", "RETRIED USD"), ("abandoned", "abandoned_nano_usd", "ABANDONED USD")];

/// The rows of a page, one for each of what `names` tell apart, in their order.
pub(super) fn summed(page: &Value, names: &[&str]) -> Vec<Value> {
    let mut sums: BTreeMap<Vec<&str>, Map<String, Value>> = BTreeMap::new();
    for row in rows(page) {
        let key: Vec<&str> = names.iter().map(|name| text(row, name)).collect();
        let named = || names.iter().map(|name| (*name).to_owned()).zip(key.iter().map(|value| json!(value))).collect();
        let sum = sums.entry(key.clone()).or_insert_with(named);
        for (key, _) in NUMBERS {
            add(sum, key, row[key].as_u64());
        }
        let nanos = row["cost_nano_usd"].as_u64();
        add(sum, "cost_nano_usd", nanos);
        for (kind, key, _) in LOST {
            if !names.contains(&"kind") {
                add(sum, key, if text(row, "kind") == kind { nanos } else { Some(0) });
            }
        }
    }
    let told = |mut sum: Map<String, Value>| {
        let nanos = sum["cost_nano_usd"].as_u64();
        sum.insert("usd".to_owned(), nanos.map(|nanos| Usd::from_nanos(nanos).digits()).into());
        Value::Object(sum)
    };
    sums.into_values().map(told).collect()
}

/// Adds what is known; a sum of nothing known is not known.
fn add(sum: &mut Map<String, Value>, key: &str, more: Option<u64>) {
    let before = sum.entry(key).or_insert(Value::Null);
    if let Some(more) = more {
        *before = json!(before.as_u64().unwrap_or(0).saturating_add(more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(day: &str, tenant: &str, kind: &str, nanos: Option<u64>) -> Value {
        json!({"day": day, "tenant": tenant, "model": "m", "kind": kind, "attempts": 1, "input_tokens": 2,
            "cache_read_tokens": 0, "cache_write_5m_tokens": 0, "cache_write_1h_tokens": 0, "output_tokens": u64::MAX,
            "estimated_attempts": 0, "unpriced_attempts": u64::from(nanos.is_none()), "cost_nano_usd": nanos})
    }

    #[test]
    fn rows_are_added_up_by_any_names_and_what_was_lost_stands_apart() {
        let rows = [
            row("2026-11-01", "b", "answered", Some(5)),
            row("2026-11-02", "b", "retried", Some(7)),
            row("2026-11-02", "a", "abandoned", None),
            row("2026-11-02", "b", "answered", None),
        ];
        let page = json!({ "rows": rows });
        let sums = summed(&page, &["tenant"]);
        let of = |n: usize, key: &str| sums[n][key].clone();
        assert_eq!((sums.len(), of(0, "tenant"), of(1, "tenant")), (2, json!("a"), json!("b")));
        assert_eq!(
            (of(0, "cost_nano_usd"), of(0, "usd"), of(0, "unpriced_attempts")),
            (json!(null), json!(null), json!(1))
        );
        assert_eq!(
            (of(1, "attempts"), of(1, "input_tokens"), of(1, "output_tokens")),
            (json!(3), json!(6), json!(u64::MAX))
        );
        assert_eq!((of(1, "cost_nano_usd"), of(1, "usd")), (json!(12), json!("0.000000012")));
        assert_eq!((of(1, "retried_nano_usd"), of(1, "abandoned_nano_usd")), (json!(7), json!(0)));
        let by_two = summed(&page, &["kind", "tenant"]);
        assert_eq!(by_two.len(), 3);
        assert!(by_two.iter().all(|row| row["retried_nano_usd"].is_null() && row["day"].is_null()), "{by_two:?}");
    }
}
