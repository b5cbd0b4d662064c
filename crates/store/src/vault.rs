//! A conversation's vault: sealed records of what stands behind the tokens in its texts.
//!
//! A record is written in the transaction of the turn that told it first, so that no turn is there
//! without what restores it, and nothing is kept of a request that came to nothing. It goes with its
//! conversation. What a record says is known to whoever has the keys, and to nobody here.

use crate::StoreError;
use crate::append::Row;
use crate::turn::{Address, VaultRecord, VaultRecords};
use rusqlite::{Connection, OptionalExtension, params};

/// Adds what turn `number` told first. [`StoreError::Exists`] if the vault is of another scope.
pub(crate) fn add(
    connection: &Connection,
    conversation: i64,
    number: u32,
    vault: &VaultRecords,
) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO vaults (conversation, scope) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![conversation, vault.scope])?;
    if scope(connection, conversation)?.as_ref() != Some(&vault.scope) {
        return Err(StoreError::Exists);
    }
    let sql = "INSERT INTO vault_records (conversation, turn, shared, content) VALUES (?1, ?2, ?3, ?4)";
    let mut statement = connection.prepare_cached(sql)?;
    for record in &vault.records {
        statement.execute(params![conversation, number, record.shared, record.content])?;
    }
    Ok(())
}

fn scope(connection: &Connection, conversation: i64) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT scope FROM vaults WHERE conversation = ?1")?;
    Ok(statement.query_row([conversation], |row| row.get(0)).optional()?)
}

/// The vault of a conversation; `None` if it has none, or is not there.
pub(crate) fn read(connection: &Connection, address: &Address) -> Result<Option<VaultRecords>, StoreError> {
    let Some(row) = Row::find(connection, address)? else { return Ok(None) };
    let Some(scope) = scope(connection, row.conversation)? else { return Ok(None) };
    let sql = "SELECT shared, content FROM vault_records WHERE conversation = ?1 ORDER BY turn, vault_record";
    let mut statement = connection.prepare_cached(sql)?;
    let records =
        statement.query_map([row.conversation], |row| Ok(VaultRecord { shared: row.get(0)?, content: row.get(1)? }))?;
    Ok(Some(VaultRecords { scope, records: records.collect::<Result<_, _>>()? }))
}

/// Conversations of all tenants that have a vault, after the one with this key: at most `rows`, and
/// the key to go on after.
pub(crate) fn list(connection: &Connection, after: i64, rows: u32) -> Result<(Vec<Address>, Option<i64>), StoreError> {
    let sql = "SELECT conversation, tenant, name FROM vaults JOIN conversations USING (conversation)
               WHERE conversation > ?1 ORDER BY conversation LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params![after, rows])?;
    let (mut addresses, mut last) = (Vec::new(), None);
    while let Some(row) = found.next()? {
        last = Some(row.get(0)?);
        addresses.push(Address::new(&row.get::<_, String>(1)?, &row.get::<_, String>(2)?)?);
    }
    Ok((addresses, last))
}

/// Puts records that were sealed anew in the place of those that are there, each under its turn. They
/// come in the order in which they were read; if they are not as many, a turn came between, and it is
/// [`StoreError::Busy`].
pub(crate) fn reseal(connection: &Connection, address: &Address, vault: &VaultRecords) -> Result<(), StoreError> {
    let row = Row::of(connection, address)?;
    let sql = "SELECT vault_record FROM vault_records WHERE conversation = ?1 ORDER BY turn, vault_record";
    let mut statement = connection.prepare_cached(sql)?;
    let there: Vec<i64> = statement.query_map([row.conversation], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if there.len() != vault.records.len() || scope(connection, row.conversation)?.as_ref() != Some(&vault.scope) {
        return Err(StoreError::Busy);
    }
    let mut statement = connection.prepare_cached("UPDATE vault_records SET content = ?2 WHERE vault_record = ?1")?;
    for (key, record) in there.iter().zip(&vault.records) {
        statement.execute(params![key, record.content])?;
    }
    Ok(())
}
