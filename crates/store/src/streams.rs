//! Durable streams: the segments of their journals, kept beside the conversations.
//!
//! What a segment says is the journal's business; here it is bytes in an order. A stream's row is made
//! with its first segment. Its oldest segments go when all of them are more than a stream may have, as
//! the oldest events of its journal do; a journal knows what a missing beginning means. Streams are
//! kept for minutes and not for ever: whoever owns the running ones says which those are.

use crate::StoreError;
use crate::turn::{check_tenant, signed, unsigned};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_base::StreamId;

/// Longest head of an answer, bytes: what a connection reads of one at most.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Largest segment, bytes: the largest turn, by the same reason that a commit is bounded.
const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// Streams looked at in one step of retention, so that turns do not wait long.
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
}

impl StreamCheckpoint {
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        check_tenant(&self.head.tenant)?;
        let too_large = |what, size: usize, max: usize| {
            let (size, max) = (size as u64, max as u64);
            if size > max { Err(StoreError::TooLarge { what, size, max }) } else { Ok(()) }
        };
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

/// Writes a checkpoint.
pub(crate) fn put(connection: &Connection, checkpoint: &StreamCheckpoint) -> Result<(), StoreError> {
    let StreamCheckpoint { head, segment, ended, now_ms, bytes_max } = checkpoint;
    let (size, now) = (segment.len() as u64, signed(*now_ms));
    let sql = "INSERT INTO streams (id, tenant, own, request_id, head, created_ms, updated_ms, ended, bytes, vault)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8, ?9)
               ON CONFLICT (id) DO UPDATE SET updated_ms = max(updated_ms, excluded.updated_ms),
                 ended = max(ended, excluded.ended), bytes = bytes + excluded.bytes
               WHERE tenant = excluded.tenant
               RETURNING stream, bytes";
    let of = (&head.tenant, head.own.map(u64::cast_signed), &head.request_id, &head.head);
    let values = params![head.stream.as_str(), of.0, of.1, of.2, of.3, now, ended, signed(size), head.vault];
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
    let sql = "SELECT stream, request_id, head, created_ms, updated_ms, ended, vault FROM streams
               WHERE id = ?1 AND tenant = ?2 AND own IS ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row(params![id.as_str(), tenant, own.map(u64::cast_signed)], |row| {
        let (request_id, head) = (row.get(1)?, row.get(2)?);
        let head = StreamHead { stream: id, tenant: tenant.to_owned(), own, request_id, head, vault: row.get(6)? };
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
