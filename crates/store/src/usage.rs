//! What was used, by day: rows of tenant, model and kind that only grow.
//!
//! They have nothing to do with conversations and are deleted with none: who paid for what is asked
//! when the conversation is long gone. A change adds to the rows that are there; whoever keeps them
//! writes what came since the last change, so that nothing is read to be written. What a kind is,
//! and how many names a day may have, is the caller's business; here a row is a key and numbers.

use crate::StoreError;
use crate::turn::{check_bytes, signed, unsigned};
use rusqlite::{Connection, params};

/// Longest name of a tenant or a model, bytes.
const NAME_BYTES_MAX: usize = 512;
/// Most rows one change adds to.
pub(crate) const CHANGE_ROWS_MAX: usize = 10_000;
/// Rows deleted in one step, so that turns do not wait long.
const STEP: i64 = 1_024;

/// One row, or what is added to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRow {
    /// Days after the epoch, UTC.
    pub day: u32,
    /// Whose.
    pub tenant: String,
    /// Of which model.
    pub model: String,
    /// What became of the attempts, by the caller's numbers.
    pub kind: u8,
    /// Attempts.
    pub attempts: u64,
    /// Of these, with an estimated output.
    pub estimated: u64,
    /// Of these, without a known cost.
    pub unpriced: u64,
    /// Input tokens that were not cached.
    pub input: u64,
    /// Input tokens read from the cache.
    pub cache_read: u64,
    /// Input tokens written to it for five minutes.
    pub cache_write_5m: u64,
    /// The same for an hour.
    pub cache_write_1h: u64,
    /// Output tokens.
    pub output: u64,
    /// What it cost, billionths of a US dollar.
    pub nanos: u64,
}

/// Which rows are read.
#[derive(Clone, Debug, Default)]
pub struct UsageFilter {
    /// From this day on.
    pub from: u32,
    /// To this one, itself included.
    pub to: u32,
    /// Of one tenant.
    pub tenant: Option<String>,
    /// Of one model.
    pub model: Option<String>,
    /// As many at most; one more is read, so that it shows that there are more.
    pub rows: u32,
}

pub(crate) fn check(rows: &[UsageRow]) -> Result<(), StoreError> {
    if rows.len() > CHANGE_ROWS_MAX {
        let (size, max) = (rows.len() as u64, CHANGE_ROWS_MAX as u64);
        return Err(StoreError::TooLarge { what: "rows of usage", size, max });
    }
    rows.iter().try_for_each(|row| {
        check_bytes("the tenant's name", Some(&row.tenant), NAME_BYTES_MAX)?;
        check_bytes("the model's name", Some(&row.model), NAME_BYTES_MAX)
    })
}

/// The columns that are added to.
const COUNTS: [&str; 9] = [
    "attempts",
    "estimated",
    "unpriced",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "cost_nano_usd",
];

/// Adds to rows, or makes them. A sum that has no room stays at the largest number.
pub(crate) fn add(connection: &Connection, rows: &[UsageRow]) -> Result<(), StoreError> {
    let sums = COUNTS.map(|c| {
        format!("{c} = CASE WHEN {c} > {max} - excluded.{c} THEN {max} ELSE {c} + excluded.{c} END", max = i64::MAX)
    });
    let sql = format!(
        "INSERT INTO usage (day, tenant, model, kind, {}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (day, tenant, model, kind) DO UPDATE SET {}",
        COUNTS.join(", "),
        sums.join(", ")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    for row in rows {
        statement.execute(params![
            row.day,
            row.tenant,
            row.model,
            row.kind,
            signed(row.attempts),
            signed(row.estimated),
            signed(row.unpriced),
            signed(row.input),
            signed(row.cache_read),
            signed(row.cache_write_5m),
            signed(row.cache_write_1h),
            signed(row.output),
            signed(row.nanos),
        ])?;
    }
    Ok(())
}

/// The rows of a filter, by day, tenant, model and kind.
pub(crate) fn read(connection: &Connection, filter: &UsageFilter) -> Result<Vec<UsageRow>, StoreError> {
    let sql = format!(
        "SELECT day, tenant, model, kind, {} FROM usage WHERE day BETWEEN ?1 AND ?2
         AND (?3 IS NULL OR tenant = ?3) AND (?4 IS NULL OR model = ?4) ORDER BY day, tenant, model, kind LIMIT ?5",
        COUNTS.join(", ")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let most = i64::from(filter.rows) + 1;
    let rows = statement.query_map(params![filter.from, filter.to, filter.tenant, filter.model, most], |row| {
        let count = |at: usize| row.get::<_, i64>(at).map(unsigned);
        Ok(UsageRow {
            day: row.get(0)?,
            tenant: row.get(1)?,
            model: row.get(2)?,
            kind: row.get(3)?,
            attempts: count(4)?,
            estimated: count(5)?,
            unpriced: count(6)?,
            input: count(7)?,
            cache_read: count(8)?,
            cache_write_5m: count(9)?,
            cache_write_1h: count(10)?,
            output: count(11)?,
            nanos: count(12)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What each tenant's rows of these days cost, billionths of a dollar.
pub(crate) fn spent(connection: &Connection, from: u32, to: u32) -> Result<Vec<(String, u64)>, StoreError> {
    let sql = "SELECT tenant, cost_nano_usd FROM usage WHERE day BETWEEN ?1 AND ?2 ORDER BY tenant";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![from, to], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
    let mut sums: Vec<(String, u64)> = Vec::new();
    // Added here: a sum of SQLite's that has no room is an error.
    for row in rows {
        let (tenant, nanos): (String, u64) = row?;
        match sums.last_mut() {
            Some((last, sum)) if *last == tenant => *sum = sum.saturating_add(nanos),
            _ => sums.push((tenant, nanos)),
        }
    }
    Ok(sums)
}

/// Deletes rows of days before `day`, a thousand a call; whether there may be more.
pub(crate) fn retain(connection: &Connection, day: u32) -> Result<bool, StoreError> {
    let sql = "DELETE FROM usage WHERE (day, tenant, model, kind) IN
                 (SELECT day, tenant, model, kind FROM usage WHERE day < ?1 LIMIT ?2)";
    let deleted = connection.prepare_cached(sql)?.execute(params![day, STEP])?;
    Ok(i64::try_from(deleted).unwrap_or(i64::MAX) >= STEP)
}
