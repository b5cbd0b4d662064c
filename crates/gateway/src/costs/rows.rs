//! Rows of the ledger as rows of the file, and back.

use std::collections::BTreeMap;
use tidegate_base::Usd;
use tidegate_observe::{Kind, Row, RowKey};
use tidegate_store::UsageRow;

/// Rows by their keys, in order.
pub(super) type Rows = BTreeMap<RowKey, Row>;

/// The number of a kind in the file.
fn number(kind: Kind) -> u8 {
    match kind {
        Kind::Answered => 0,
        Kind::Retried => 1,
        Kind::Abandoned => 2,
        Kind::Summary => 3,
    }
}

/// A row as the file has it.
pub(super) fn stored(key: &RowKey, row: &Row) -> UsageRow {
    UsageRow {
        day: key.day,
        tenant: key.tenant.to_string(),
        model: key.model.to_string(),
        kind: number(key.kind),
        attempts: row.attempts,
        estimated: row.estimated,
        unpriced: row.unpriced,
        input: row.input,
        cache_read: row.cache_read,
        cache_write_5m: row.cache_write_5m,
        cache_write_1h: row.cache_write_1h,
        output: row.output,
        nanos: row.cost.nanos(),
    }
}

/// A row of the file; `None` if a newer Tidegate wrote it.
pub(super) fn read(row: &UsageRow) -> Option<(RowKey, Row)> {
    let kind = Kind::ALL.into_iter().find(|kind| number(*kind) == row.kind)?;
    let key = RowKey { day: row.day, tenant: row.tenant.as_str().into(), model: row.model.as_str().into(), kind };
    let sums = Row {
        attempts: row.attempts,
        estimated: row.estimated,
        unpriced: row.unpriced,
        input: row.input,
        cache_read: row.cache_read,
        cache_write_5m: row.cache_write_5m,
        cache_write_1h: row.cache_write_1h,
        output: row.output,
        cost: Usd::from_nanos(row.nanos),
    };
    Some((key, sums))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_from_the_file_as_it_went() {
        for kind in Kind::ALL {
            let key = RowKey { day: 5, tenant: "a".into(), model: "m".into(), kind };
            let row = Row {
                attempts: 1,
                estimated: 2,
                unpriced: 3,
                input: 4,
                cache_read: 5,
                cache_write_5m: 6,
                cache_write_1h: 7,
                output: 8,
                cost: Usd::from_nanos(9),
            };
            assert_eq!(read(&stored(&key, &row)), Some((key, row)));
        }
        assert_eq!(read(&UsageRow { kind: 200, ..UsageRow::default() }), None);
    }
}
