//! Durable streams: the segments of their journals, kept beside the conversations.
//!
//! What a segment says is the journal's business; here it is bytes in an order. A stream's row is made
//! with its first segment. Its oldest segments go when all of them are more than a stream may have, as
//! the oldest events of its journal do; a journal knows what a missing beginning means. Streams are
//! kept for minutes and not for ever: whoever owns the running ones says which those are.
//!
//! All of them together have a limit too. Their sum is reckoned from above, by adding what comes, and
//! taken from the file only when that reaches the limit. Which are given up for others is decided by
//! whoever knows which of them still run ([`shed`]).

use crate::StoreError;
use crate::turn::{check_bytes, check_tenant, signed, unsigned};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_base::StreamId;

/// Longest head of an answer, bytes: what a connection reads of one at most.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Largest segment, bytes: the largest turn, by the same reason that a commit is bounded.
const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// Longest end user's id and longest name of a conversation, bytes: what a turn may have of either.
const LABEL_BYTES_MAX: usize = 512;
/// Streams looked at in one step of a deletion, so that turns do not wait long.
const STEP: usize = 256;

/// Whose a stream is, and how its answer begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHead {
    /// Its id.
    pub stream: StreamId,
    /// Its tenant.
    pub tenant: String,
    /// The hash of the upstream credential it was asked for with, if that was the client's own.
    pub own: Option<u64>,
    /// The id of its request.
    pub request_id: String,
    /// The answer's status and header lines, as HTTP/1.1 spells them.
    pub head: Vec<u8>,
    /// `metadata.user_id` of its request.
    pub end_user: Option<String>,
    /// The conversation that it is a turn of.
    pub conversation: Option<String>,
    /// What stands behind the tokens in it, sealed and opaque here; `None` if there are none.
    pub vault: Option<Vec<u8>>,
}

/// One checkpoint of a stream.
#[derive(Clone, Debug)]
pub struct StreamCheckpoint {
    /// The stream; made if it is not there.
    pub head: Arc<StreamHead>,
    /// The journal's segment.
    pub segment: Vec<u8>,
    /// Whether the reply has ended with it.
    pub ended: bool,
    /// Now, wall clock, ms since 1970.
    pub now_ms: u64,
    /// Most bytes of the stream's segments; the oldest go. The newest stays in any case.
    pub bytes_max: u64,
    /// Most bytes of all streams' segments; past them it is refused.
    pub all_bytes_max: u64,
}

/// Bytes of all segments in the file: so many, or fewer. Not known before the file was asked.
#[derive(Clone, Debug)]
pub(crate) struct Total(Arc<AtomicU64>);

impl Default for Total {
    fn default() -> Self {
        Total(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

impl StreamCheckpoint {
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        check_tenant(&self.head.tenant)?;
        let too_large = |what, size: usize, max: usize| {
            let (size, max) = (size as u64, max as u64);
            if size > max { Err(StoreError::TooLarge { what, size, max }) } else { Ok(()) }
        };
        check_bytes("the end user's id", self.head.end_user.as_deref(), LABEL_BYTES_MAX)?;
        check_bytes("the conversation's id", self.head.conversation.as_deref(), LABEL_BYTES_MAX)?;
        too_large("bytes of a stream's head", self.head.head.len(), HEAD_BYTES_MAX)?;
        too_large("bytes of a stream's vault", self.head.vault.as_ref().map_or(0, Vec::len), SEGMENT_BYTES_MAX)?;
        too_large("bytes of a stream's segment", self.segment.len(), SEGMENT_BYTES_MAX)
    }
}

/// A stream as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptStream {
    /// Whose it is.
    pub head: StreamHead,
    /// When its first checkpoint was written, wall clock, ms since 1970.
    pub created_ms: u64,
    /// When its last one was.
    pub updated_ms: u64,
    /// Whether its reply has ended.
    pub ended: bool,
    /// Its segments, oldest first.
    pub segments: Vec<Vec<u8>>,
}

/// Writes a checkpoint, as far as all streams together leave room for it.
pub(crate) fn put(connection: &Connection, checkpoint: &StreamCheckpoint, total: &Total) -> Result<(), StoreError> {
    write(connection, checkpoint)?;
    // Only the writer's thread changes it. If the transaction comes to nothing it is too much, which
    // is put right when it is looked at.
    let most = total.0.load(Ordering::Relaxed).saturating_add(checkpoint.segment.len() as u64);
    let now = if most <= checkpoint.all_bytes_max { most } else { sum(connection)? };
    total.0.store(now, Ordering::Relaxed);
    if now > checkpoint.all_bytes_max {
        return Err(StoreError::StreamsFull { max: checkpoint.all_bytes_max });
    }
    Ok(())
}

/// Bytes of all segments.
fn sum(connection: &Connection) -> Result<u64, StoreError> {
    let mut statement = connection.prepare_cached("SELECT coalesce(sum(bytes), 0) FROM streams")?;
    Ok(statement.query_row([], |row| row.get(0).map(unsigned))?)
}

fn write(connection: &Connection, checkpoint: &StreamCheckpoint) -> Result<(), StoreError> {
    let StreamCheckpoint { head, segment, ended, now_ms, bytes_max, .. } = checkpoint;
    let (size, now) = (segment.len() as u64, signed(*now_ms));
    let sql = "INSERT INTO streams (id, tenant, own, request_id, head, created_ms, updated_ms, ended, bytes, end_user,
                 conversation, vault)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8, ?9, ?10, ?11)
               ON CONFLICT (id) DO UPDATE SET updated_ms = max(updated_ms, excluded.updated_ms),
                 ended = max(ended, excluded.ended), bytes = bytes + excluded.bytes
               WHERE tenant = excluded.tenant
               RETURNING stream, bytes";
    let own = head.own.map(u64::cast_signed);
    let StreamHead { stream: id, tenant, request_id, head, end_user, conversation, vault, .. } = &**head;
    let bytes = signed(size);
    let values = params![id.as_str(), tenant, own, request_id, head, now, ended, bytes, end_user, conversation, vault];
    let mut statement = connection.prepare_cached(sql)?;
    let row = statement.query_row(values, |row| Ok((row.get::<_, i64>(0)?, row.get(1).map(unsigned)?)));
    let (stream, mut bytes) = row.optional()?.ok_or(StoreError::Exists)?;
    let mut statement = connection.prepare_cached("INSERT INTO segments (stream, content) VALUES (?1, ?2)")?;
    statement.execute(params![stream, segment])?;
    while bytes > *bytes_max {
        let sql = "DELETE FROM segments WHERE segment = (SELECT min(segment) FROM segments WHERE stream = ?1)
                     AND segment < (SELECT max(segment) FROM segments WHERE stream = ?1)
                   RETURNING length(content)";
        let gone = connection.prepare_cached(sql)?.query_row([stream], |row| row.get(0).map(unsigned)).optional()?;
        let Some(gone) = gone else { break };
        bytes = bytes.saturating_sub(gone);
        let mut statement = connection.prepare_cached("UPDATE streams SET bytes = ?2 WHERE stream = ?1")?;
        statement.execute(params![stream, signed(bytes)])?;
    }
    Ok(())
}

/// The stream `id` of `tenant`. Nobody learns of another tenant's.
pub(crate) fn read(
    connection: &Connection,
    tenant: &str,
    own: Option<u64>,
    id: StreamId,
) -> Result<KeptStream, StoreError> {
    let sql = "SELECT stream, request_id, head, created_ms, updated_ms, ended, end_user, conversation, vault
               FROM streams
               WHERE id = ?1 AND tenant = ?2 AND own IS ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row(params![id.as_str(), tenant, own.map(u64::cast_signed)], |row| {
        let (request_id, head) = (row.get(1)?, row.get(2)?);
        let (tenant, end_user, conversation) = (tenant.to_owned(), row.get(6)?, row.get(7)?);
        let head = StreamHead { stream: id, tenant, own, request_id, head, end_user, conversation, vault: row.get(8)? };
        let (created_ms, updated_ms) = (unsigned(row.get(3)?), unsigned(row.get(4)?));
        let kept = KeptStream { head, created_ms, updated_ms, ended: row.get(5)?, segments: Vec::new() };
        Ok((row.get::<_, i64>(0)?, kept))
    });
    let (stream, mut kept) = found.optional()?.ok_or(StoreError::NotFound)?;
    let mut statement = connection.prepare_cached("SELECT content FROM segments WHERE stream = ?1 ORDER BY segment")?;
    kept.segments = statement.query_map([stream], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(kept)
}

/// Deletes what was last written before `before_ms`, but for the streams that still run: those count as
/// written now. How many were deleted, and whether there may be more.
pub(crate) fn retain(
    connection: &Connection,
    before_ms: u64,
    now_ms: u64,
    running: &BTreeSet<StreamId>,
) -> Result<(u64, bool), StoreError> {
    let sql = "SELECT stream, id FROM streams WHERE updated_ms < ?1 ORDER BY updated_ms LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let old = statement.query_map(params![signed(before_ms), STEP as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let old: Vec<(i64, String)> = old.collect::<Result<_, _>>()?;
    let mut deleted = 0;
    for (stream, id) in &old {
        if StreamId::parse(id).is_some_and(|id| running.contains(&id)) {
            let mut statement = connection.prepare_cached("UPDATE streams SET updated_ms = ?2 WHERE stream = ?1")?;
            statement.execute(params![stream, signed(now_ms)])?;
        } else {
            connection.prepare_cached("DELETE FROM streams WHERE stream = ?1")?.execute([stream])?;
            deleted += 1;
        }
    }
    Ok((deleted, old.len() == STEP))
}

/// Makes room: deletes streams, those that were last written first, but none that still runs, until all
/// take at most `bytes`; a few hundred a call. `only_ended` where others run that are not known here. How many were deleted, and whether more are to go.
pub(crate) fn shed(
    connection: &Connection,
    bytes: u64,
    running: &BTreeSet<StreamId>,
    only_ended: bool,
) -> Result<(u64, bool), StoreError> {
    let mut over = sum(connection)?.saturating_sub(bytes);
    let mut statement =
        connection.prepare_cached("SELECT stream, id, bytes FROM streams WHERE ended >= ?1 ORDER BY updated_ms")?;
    let mut rows = statement.query([only_ended])?;
    let mut victims = Vec::new();
    while over > 0
        && victims.len() < STEP
        && let Some(row) = rows.next()?
    {
        let (stream, id, bytes): (i64, String, u64) = (row.get(0)?, row.get(1)?, row.get(2).map(unsigned)?);
        if !StreamId::parse(&id).is_some_and(|id| running.contains(&id)) {
            over = over.saturating_sub(bytes);
            victims.push(stream);
        }
    }
    for stream in &victims {
        connection.prepare_cached("DELETE FROM streams WHERE stream = ?1")?.execute([stream])?;
    }
    Ok((victims.len() as u64, over > 0 && victims.len() == STEP))
}

/// What an erasure erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErasedStreams {
    /// How many streams.
    pub streams: u64,
    /// Whether the write-ahead log holds nothing of them any more.
    pub wal_cleared: bool,
}

impl ErasedStreams {
    pub(crate) fn note_cleared(&mut self, cleared: bool) {
        self.wal_cleared = cleared;
    }
}

/// Deletes the streams of an end user.
pub(crate) fn erase_user(connection: &Connection, tenant: &str, user: &str) -> Result<ErasedStreams, StoreError> {
    let mut statement = connection.prepare_cached("DELETE FROM streams WHERE tenant = ?1 AND end_user = ?2")?;
    Ok(ErasedStreams { streams: statement.execute(params![tenant, user])? as u64, wal_cleared: false })
}

/// Deletes the streams that are turns of a conversation.
pub(crate) fn erase_conversation(connection: &Connection, conversation: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM streams WHERE (tenant, conversation) =
                 (SELECT tenant, name FROM conversations WHERE conversation = ?1)";
    connection.prepare_cached(sql)?.execute([conversation])?;
    Ok(())
}
