//! What the log holds, in numbers, and whether it holds together.

use crate::StoreError;
use crate::turn::unsigned;
use rusqlite::Connection;
use sha2::{Digest, Sha256};

/// Most tenants that are listed, and most findings.
const TENANTS_MAX: i64 = 10_000;
const FINDINGS_MAX: usize = 100;

/// A tenant's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantStats {
    /// The tenant.
    pub tenant: String,
    /// Conversations.
    pub conversations: u64,
    /// Turns.
    pub turns: u64,
    /// Bytes of turns and summaries, documents counted as often as they were sent.
    pub bytes: u64,
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// By tenant; the first ten thousand by name.
    pub tenants: Vec<TenantStats>,
    /// Documents and images, each counted once a tenant.
    pub blobs: u64,
    /// Size of the database's file, bytes.
    pub file_bytes: u64,
    /// Of these, in pages that are free for new content.
    pub free_bytes: u64,
}

pub(crate) fn stats(connection: &Connection) -> Result<Stats, StoreError> {
    let sql = "SELECT tenant, count(*), sum(turns), sum(bytes) FROM conversations GROUP BY tenant ORDER BY tenant
               LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let tenants = statement.query_map([TENANTS_MAX], |row| {
        Ok(TenantStats {
            tenant: row.get(0)?,
            conversations: unsigned(row.get(1)?),
            turns: unsigned(row.get(2)?),
            bytes: unsigned(row.get(3)?),
        })
    })?;
    let tenants = tenants.collect::<Result<_, _>>()?;
    let blobs = connection.query_row("SELECT count(*) FROM blobs", [], |row| row.get(0))?;
    let Size { file_bytes, free_bytes } = size(connection)?;
    Ok(Stats { tenants, blobs: unsigned(blobs), file_bytes, free_bytes })
}

/// What the file takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Size of the database's file, bytes.
    pub file_bytes: u64,
    /// Of these, in pages that are free for new content.
    pub free_bytes: u64,
}

/// What the file takes; looks at nothing but its first page.
pub(crate) fn size(connection: &Connection) -> Result<Size, StoreError> {
    let number = |what| connection.pragma_query_value(None, what, |row| row.get::<_, i64>(0)).map(unsigned);
    let page = number("page_size")?;
    Ok(Size { file_bytes: number("page_count")? * page, free_bytes: number("freelist_count")? * page })
}

/// Every tenant that has a conversation, by name.
pub(crate) fn tenants(connection: &Connection) -> Result<Vec<String>, StoreError> {
    // From one to the next by the index, instead of over all conversations.
    let sql = "WITH RECURSIVE next(tenant) AS (SELECT min(tenant) FROM conversations UNION ALL
                 SELECT (SELECT min(c.tenant) FROM conversations AS c WHERE c.tenant > next.tenant) FROM next
                 WHERE next.tenant IS NOT NULL)
               SELECT tenant FROM next WHERE tenant IS NOT NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let tenants = statement.query_map([], |row| row.get(0))?;
    Ok(tenants.collect::<Result<_, _>>()?)
}

/// Rules the schema cannot state, each as a query for what breaks it.
const RULES: [(&str, &str); 8] = [
    (
        "turns are numbered 1, 2, 3 to the conversation's count",
        "SELECT conversation FROM conversations AS c WHERE
           (SELECT count(*) || '-' || coalesce(min(number), 1) || '-' || coalesce(max(number), 0)
            FROM turns AS t WHERE t.conversation = c.conversation) != c.turns || '-1-' || c.turns",
    ),
    (
        "a conversation's bytes are its turns' and its summaries'",
        "SELECT conversation FROM conversations AS c WHERE c.bytes !=
           (SELECT coalesce(sum(bytes), 0) FROM turns AS t WHERE t.conversation = c.conversation) +
           (SELECT coalesce(sum(length(body)), 0) FROM summaries AS s WHERE s.conversation = c.conversation)",
    ),
    ("a blob has a piece", "SELECT blob FROM blobs WHERE blob NOT IN (SELECT blob FROM pieces)"),
    (
        "a piece and its blob have one tenant",
        "SELECT p.turn FROM pieces AS p JOIN blobs AS b USING (blob) JOIN turns USING (turn)
         JOIN conversations AS c USING (conversation) WHERE c.tenant != b.tenant",
    ),
    (
        "who takes part in a turn is listed",
        "SELECT turn FROM turns AS t WHERE end_user IS NOT NULL AND NOT EXISTS
           (SELECT 1 FROM end_users AS e WHERE e.conversation = t.conversation AND e.end_user = t.end_user)",
    ),
    (
        "a summary stands for turns that are there",
        "SELECT summary FROM summaries JOIN conversations USING (conversation) WHERE last_turn > turns",
    ),
    (
        "a vault's record was told by a turn that is there",
        "SELECT vault_record FROM vault_records JOIN conversations USING (conversation) WHERE turn > turns",
    ),
    (
        "a stream's bytes are its segments'",
        "SELECT stream FROM streams AS s WHERE s.bytes !=
           (SELECT coalesce(sum(length(content)), 0) FROM segments AS g WHERE g.stream = s.stream)",
    ),
];

/// Looks at everything; returns what is wrong, in words, at most a hundred findings.
pub(crate) fn check(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut findings = Vec::new();
    let sql = format!("PRAGMA integrity_check({FINDINGS_MAX})");
    let mut statement = connection.prepare(&sql)?;
    let said: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    findings.extend(said.into_iter().filter(|line| line != "ok"));
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        findings.push(format!("a row of {} refers to nothing", row.get::<_, String>(0)?));
    }
    for (rule, sql) in RULES {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            findings.push(format!("not so: {rule} (row {})", row.get::<_, i64>(0)?));
        }
    }
    let mut statement = connection.prepare("SELECT blob, sha256, content FROM blobs")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let content = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        if Sha256::digest(content).as_slice() != row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)? {
            findings.push(format!("not so: a blob is named by its hash (row {})", row.get::<_, i64>(0)?));
        }
    }
    findings.truncate(FINDINGS_MAX);
    Ok(findings)
}
