//! Deleting for good: one conversation, an end user's, and what retention no longer keeps.
//!
//! A run over many picks its victims in one read, then deletes them in steps of a few, so that turns
//! of others are written in between. A step deletes only what still looks as it did when it was
//! picked: a conversation that went on meanwhile is not too old any more. The last step clears the
//! WAL.

use crate::StoreError;
use crate::append::Row;
use crate::pending::Reply;
use crate::readers::in_one_moment;
use crate::streams;
use crate::turn::{Address, signed, unsigned};
use crate::writer::Changes;
use rusqlite::{Connection, params};

/// Conversations of one step, so that others' turns do not wait long.
const STEP: usize = 64;
/// Conversations of one run: what it returns is bounded.
const RUN_MAX: usize = 1_024;

/// A conversation that is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its tenant.
    pub tenant: String,
    /// The client's id.
    pub name: String,
    /// How many turns it had.
    pub turns: u32,
    /// Bytes of its turns and summaries.
    pub bytes: u64,
}

/// What a deletion deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The conversations.
    pub conversations: Vec<Gone>,
    /// Whether the write-ahead log holds nothing of them any more. If not, a long read held it; it is
    /// cleared as soon as that ends.
    pub wal_cleared: bool,
    /// Whether there is more to delete: call again.
    pub more: bool,
    /// What stopped the run after some were deleted.
    pub stopped_by: Option<StoreError>,
}

/// What a tenant keeps; `None` keeps everything. What changed longest ago goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds since the last change.
    pub age_ms_max: Option<u64>,
    /// Conversations.
    pub conversations_max: Option<u64>,
    /// Bytes of turns and summaries.
    pub bytes_max: Option<u64>,
}

/// What a run deletes.
#[derive(Clone, Debug)]
pub enum Scope {
    /// All in which an end user took part.
    EndUser {
        /// The tenant.
        tenant: String,
        /// The end user's id.
        end_user: String,
    },
    /// What a tenant no longer keeps.
    Retention {
        /// The tenant.
        tenant: String,
        /// What it keeps.
        keep: Retention,
        /// Now, wall clock, ms since 1970.
        now_ms: u64,
    },
}

/// What a run would delete: picked, and still there.
#[derive(Clone, Debug, Default)]
pub struct Picked {
    victims: Vec<Victim>,
    /// Whether there is more than one run deletes.
    pub more: bool,
    /// Whether one that changes before it is deleted has to go all the same.
    all_must_go: bool,
}

impl Picked {
    /// Where they are.
    pub fn addresses(&self) -> Result<Vec<Address>, StoreError> {
        self.victims.iter().map(|victim| Address::new(&victim.gone.tenant, &victim.gone.name)).collect()
    }

    /// Spares those of whose names `goes` says no.
    pub fn only(&mut self, mut goes: impl FnMut(&str) -> bool) {
        self.victims.retain(|victim| goes(&victim.gone.name));
    }
}

/// A conversation as it looked when it was picked.
#[derive(Clone, Debug)]
struct Victim {
    conversation: i64,
    updated_ms: i64,
    gone: Gone,
}

/// Deletes the conversation at `address`.
pub(crate) fn delete_one(connection: &Connection, address: &Address) -> Result<Deleted, StoreError> {
    let row = Row::of(connection, address)?;
    delete(connection, row.conversation)?;
    let (tenant, name) = (address.tenant().to_owned(), address.name().to_owned());
    let gone = Gone { tenant, name, turns: row.turns, bytes: row.bytes };
    Ok(Deleted { conversations: vec![gone], ..Deleted::default() })
}

/// Deletes a conversation, the durable streams that are turns of it, and the blobs that only it used.
fn delete(connection: &Connection, conversation: i64) -> Result<(), StoreError> {
    streams::erase_conversation(connection, conversation)?;
    let sql = "SELECT DISTINCT blob FROM turns JOIN pieces USING (turn) WHERE conversation = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let blobs: Vec<i64> = statement.query_map([conversation], |row| row.get(0))?.collect::<Result<_, _>>()?;
    connection.prepare_cached("DELETE FROM conversations WHERE conversation = ?1")?.execute([conversation])?;
    let sql = "DELETE FROM blobs WHERE blob = ?1 AND NOT EXISTS (SELECT 1 FROM pieces WHERE blob = ?1)";
    let mut statement = connection.prepare_cached(sql)?;
    for blob in blobs {
        statement.execute([blob])?;
    }
    Ok(())
}

/// Deletes those of `victims` that did not change since they were picked.
fn delete_step(connection: &Connection, victims: &[Victim]) -> Result<Deleted, StoreError> {
    let sql = "SELECT count(*) FROM conversations WHERE conversation = ?1 AND tenant = ?2 AND name = ?3
               AND updated_ms = ?4 AND turns = ?5";
    let mut deleted = Deleted::default();
    for Victim { conversation, updated_ms, gone } in victims {
        let mut statement = connection.prepare_cached(sql)?;
        let same = params![conversation, gone.tenant, gone.name, updated_ms, gone.turns];
        if statement.query_row(same, |row| row.get::<_, i64>(0))? == 1 {
            delete(connection, *conversation)?;
            deleted.conversations.push(gone.clone());
        }
    }
    Ok(deleted)
}

/// Notes whether the WAL was cleared.
pub(crate) fn note_cleared(deleted: &mut Deleted, cleared: bool) {
    deleted.wal_cleared = cleared;
}

/// A whole run, led from a reading thread.
pub(crate) fn run(connection: &Connection, changes: &Changes, scope: &Scope, reply: Reply<Deleted>) {
    let picked = in_one_moment(connection, |connection| pick(connection, scope));
    // Who does not listen any more does not want to know.
    let _ = reply.send(picked.and_then(|picked| delete_picked(changes, picked)));
}

/// Deletes those that did not change since they were picked; led from a reading thread.
pub(crate) fn delete_picked(changes: &Changes, picked: Picked) -> Result<Deleted, StoreError> {
    let mut all = Deleted { wal_cleared: true, more: picked.more, ..Deleted::default() };
    let steps: Vec<Vec<Victim>> = picked.victims.chunks(STEP).map(<[Victim]>::to_vec).collect();
    let last = steps.len().saturating_sub(1);
    for (index, step) in steps.into_iter().enumerate() {
        let asked = step.len();
        let work = move |connection: &Connection| delete_step(connection, &step);
        let step = if index == last { changes.ask_clearing(work, note_cleared) } else { changes.ask(0, work) };
        match step.wait() {
            Ok(mut step) => {
                all.more |= step.conversations.len() < asked && picked.all_must_go;
                all.conversations.append(&mut step.conversations);
                all.wal_cleared = step.wal_cleared;
            }
            Err(error) if all.conversations.is_empty() => return Err(error),
            Err(error) => {
                (all.stopped_by, all.more, all.wal_cleared) = (Some(error), true, false);
                break;
            }
        }
    }
    Ok(all)
}

/// Whom a run deletes.
pub(crate) fn pick(connection: &Connection, scope: &Scope) -> Result<Picked, StoreError> {
    let mut victims = candidates(connection, scope)?;
    let more = victims.len() > RUN_MAX;
    victims.truncate(RUN_MAX);
    Ok(Picked { victims, more, all_must_go: matches!(scope, Scope::EndUser { .. }) })
}

/// Whom a run would delete: at most one more than it may.
fn candidates(connection: &Connection, scope: &Scope) -> Result<Vec<Victim>, StoreError> {
    match scope {
        Scope::EndUser { tenant, end_user } => {
            let sql = "SELECT conversation, updated_ms, name, turns, bytes FROM conversations
                       WHERE conversation IN (SELECT conversation FROM end_users WHERE tenant = ?1 AND end_user = ?2)
                       ORDER BY conversation";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![tenant, end_user])?;
            picked(&mut rows, tenant, |_| true)
        }
        Scope::Retention { tenant, keep, now_ms } => {
            let sql = "SELECT count(*), coalesce(sum(bytes), 0) FROM conversations WHERE tenant = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let (mut count, mut bytes) =
                statement.query_row([tenant], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))?;
            let oldest = signed(now_ms.saturating_sub(keep.age_ms_max.unwrap_or(*now_ms)));
            let sql = "SELECT conversation, updated_ms, name, turns, bytes FROM conversations WHERE tenant = ?1
                       ORDER BY updated_ms, conversation";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([tenant])?;
            picked(&mut rows, tenant, |victim| {
                let too_old = keep.age_ms_max.is_some() && victim.updated_ms < oldest;
                let too_many = keep.conversations_max.is_some_and(|max| count > max);
                let too_large = keep.bytes_max.is_some_and(|max| bytes > max);
                count -= 1;
                bytes = bytes.saturating_sub(victim.gone.bytes);
                too_old || too_many || too_large
            })
        }
    }
}

/// Victims until `goes` says no, at most one more than a run may delete.
fn picked(
    rows: &mut rusqlite::Rows<'_>,
    tenant: &str,
    mut goes: impl FnMut(&Victim) -> bool,
) -> Result<Vec<Victim>, StoreError> {
    let mut victims = Vec::new();
    while let Some(row) = rows.next()? {
        let gone =
            Gone { tenant: tenant.to_owned(), name: row.get(2)?, turns: row.get(3)?, bytes: unsigned(row.get(4)?) };
        let victim = Victim { conversation: row.get(0)?, updated_ms: row.get(1)?, gone };
        if victims.len() > RUN_MAX || !goes(&victim) {
            break;
        }
        victims.push(victim);
    }
    Ok(victims)
}
