//! Export and import: conversations as lines of JSON, in chunks of bounded size.
//!
//! An export is a walk by name with a cursor, each chunk a read of its own: what a turn says never
//! changes, so a conversation that grows between two chunks is exported as far as the walk comes,
//! and one that is deleted ends early. An import takes some lines at a time, all or none of them; they are
//! durable when they are answered, and a line that is there already is passed over, so an import that
//! broke off is run again from its first line.

use crate::StoreError;
use crate::append::{self, Prepared, Row};
use crate::history::{self, CONVERSATION, conversation_of};
use crate::lines::{self, Line};
use crate::turn::{Address, Conversation, NewTurn, Summary, Turn, VaultRecords, signed};
use crate::vault;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeSet;

/// A chunk ends after the line that reaches this many bytes.
const CHUNK_BYTES: usize = 8 << 20;

/// What is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Export {
    /// One conversation.
    Conversation(Address),
    /// All of a tenant.
    Tenant(String),
    /// All in which an end user of a tenant took part.
    EndUser {
        /// The tenant.
        tenant: String,
        /// The end user's id.
        end_user: String,
    },
}

/// How far an export came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportCursor {
    /// The conversation under way, or the last one.
    name: String,
    /// The turn that comes next; `None` when the conversation is through.
    turn: Option<u32>,
}

/// Some lines of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Whole lines.
    pub lines: Vec<u8>,
    /// How to go on, or `None` at the end.
    pub next: Option<ExportCursor>,
}

/// The chunk after `cursor`; the first begins with the header.
pub(crate) fn export(
    connection: &Connection,
    what: &Export,
    cursor: Option<ExportCursor>,
) -> Result<Chunk, StoreError> {
    let mut lines = Vec::new();
    if cursor.is_none() {
        lines::write_header(&mut lines)?;
    }
    let (mut after, mut under_way) = match cursor {
        Some(ExportCursor { name, turn: Some(turn) }) => (name.clone(), Some((name, turn))),
        Some(ExportCursor { name, turn: None }) => (name, None),
        None => (String::new(), None),
    };
    loop {
        let found = match &under_way {
            Some((name, _)) => at(connection, what, name)?,
            None => following(connection, what, &after)?,
        };
        if let Some((key, conversation)) = found {
            after.clone_from(&conversation.name);
            let mut turn = under_way.take().map_or(1, |(_, turn)| turn);
            if turn == 1 {
                lines::write_conversation(&mut lines, &conversation)?;
            }
            while turn <= conversation.turns {
                if turn > 1 && lines.len() >= CHUNK_BYTES {
                    let next = ExportCursor { name: conversation.name, turn: Some(turn) };
                    return Ok(Chunk { lines, next: Some(next) });
                }
                let room = CHUNK_BYTES.saturating_sub(lines.len()) as u64;
                let (turns, next) = history::turns(connection, key, turn, u32::MAX, room)?;
                turns.iter().try_for_each(|turn| lines::write_turn(&mut lines, &conversation.name, turn))?;
                turn = next.unwrap_or(u32::MAX);
            }
            let summaries = history::summaries(connection, key)?;
            summaries.iter().try_for_each(|one| lines::write_summary(&mut lines, &conversation.name, one))?;
        } else if under_way.take().is_none() {
            return Ok(Chunk { lines, next: None });
        }
        if lines.len() >= CHUNK_BYTES {
            return Ok(Chunk { lines, next: Some(ExportCursor { name: after, turn: None }) });
        }
    }
}

/// The conversation under way, if it is still there.
fn at(connection: &Connection, what: &Export, name: &str) -> Result<Option<(i64, Conversation)>, StoreError> {
    let tenant = match what {
        Export::Conversation(address) => address.tenant(),
        Export::Tenant(tenant) | Export::EndUser { tenant, .. } => tenant,
    };
    match history::find(connection, &Address::new(tenant, name)?) {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The next conversation by name.
fn following(connection: &Connection, what: &Export, after: &str) -> Result<Option<(i64, Conversation)>, StoreError> {
    let found = match what {
        Export::Conversation(address) if after.is_empty() => return history::find(connection, address).map(Some),
        Export::Conversation(_) => return Ok(None),
        Export::Tenant(tenant) => {
            let sql = format!(
                "SELECT {CONVERSATION} FROM conversations WHERE tenant = ?1 AND name > ?2 ORDER BY name LIMIT 1"
            );
            connection.prepare_cached(&sql)?.query_row(params![tenant, after], conversation_of)
        }
        Export::EndUser { tenant, end_user } => {
            let sql = format!(
                "SELECT {CONVERSATION} FROM conversations WHERE tenant = ?1 AND name > ?2 AND conversation IN
                   (SELECT conversation FROM end_users WHERE tenant = ?1 AND end_user = ?3)
                 ORDER BY name LIMIT 1"
            );
            connection.prepare_cached(&sql)?.query_row(params![tenant, after, end_user], conversation_of)
        }
    };
    Ok(found.optional()?)
}

/// Most bytes of lines that are imported together: room for the longest turn in its longest spelling.
pub const IMPORT_BYTES_MAX: u64 = 160 << 20;

/// What became of imported lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// These are durable now.
    pub added: u64,
    /// These were there already and are the same; headers are counted here.
    pub known: u64,
}

/// A line that is ready to be written.
#[derive(Debug)]
pub(crate) enum PreparedLine {
    Header,
    Conversation { address: Address, conversation: Conversation },
    Turn { address: Address, turn: Box<Turn>, prepared: Box<Prepared> },
    Summary { address: Address, summary: Summary, vault: Option<VaultRecords> },
}

impl PreparedLine {
    fn address(&self) -> Option<&Address> {
        match self {
            PreparedLine::Header => None,
            PreparedLine::Conversation { address, .. }
            | PreparedLine::Turn { address, .. }
            | PreparedLine::Summary { address, .. } => Some(address),
        }
    }

    /// Reads and checks a line of `tenant`'s import.
    pub(crate) fn new(tenant: &str, line: &[u8]) -> Result<Self, StoreError> {
        Ok(match lines::read(line)? {
            Line::Header => PreparedLine::Header,
            Line::Conversation(conversation) => {
                if let Some((parent, _)) = &conversation.parent {
                    Address::new(tenant, parent)?;
                }
                PreparedLine::Conversation { address: Address::new(tenant, &conversation.name)?, conversation }
            }
            Line::Turn { conversation, turn } => {
                turn.content.check()?;
                let address = Address::new(tenant, &conversation)?;
                let prepared = Prepared::new(NewTurn {
                    address: address.clone(),
                    expected: Some(turn.number),
                    now_ms: turn.created_ms,
                    content: turn.content.clone(),
                    window: None,
                    vault: None,
                })?;
                PreparedLine::Turn { address, turn: Box::new(turn), prepared: Box::new(prepared.imported()) }
            }
            Line::Summary { conversation, summary } => {
                summary.check()?;
                PreparedLine::Summary { address: Address::new(tenant, &conversation)?, summary, vault: None }
            }
        })
    }
}

/// Lines of an import that were read and checked, and are not written yet.
#[derive(Debug)]
pub struct Lines {
    lines: Vec<(usize, PreparedLine)>,
    /// Bytes they came as.
    pub(crate) held: usize,
}

impl Lines {
    /// The conversations they are about.
    pub fn conversations(&self) -> BTreeSet<Address> {
        self.lines.iter().filter_map(|(_, line)| line.address()).cloned().collect()
    }

    /// The turn or summary in line `number`, from 1, is the first to tell this of its conversation's
    /// vault. Other lines tell nothing.
    pub fn tell(&mut self, number: usize, told: VaultRecords) {
        match self.lines.iter_mut().find(|(at, _)| *at == number) {
            Some((_, PreparedLine::Turn { prepared, .. })) => prepared.with_vault(told),
            Some((_, PreparedLine::Summary { vault, .. })) => *vault = Some(told),
            _ => {}
        }
    }
}

/// Reads and checks lines of `tenant`'s import; empty ones are passed over.
pub(crate) fn prepare(tenant: &str, lines: &[u8]) -> Result<Lines, StoreError> {
    if lines.len() as u64 > IMPORT_BYTES_MAX {
        let size = lines.len() as u64;
        return Err(StoreError::TooLarge {
            what: "bytes of lines that are imported together",
            size,
            max: IMPORT_BYTES_MAX,
        });
    }
    let numbered = lines.split(|byte| *byte == b'\n').zip(1..).filter(|(line, _)| !line.trim_ascii().is_empty());
    let prepared = numbered.map(|(line, number)| {
        PreparedLine::new(tenant, line).map(|line| (number, line)).map_err(|error| error.at_line(number))
    });
    Ok(Lines { lines: prepared.collect::<Result<_, _>>()?, held: lines.len() })
}

/// Writes lines, those aside that are there.
pub(crate) fn import(connection: &Connection, lines: &Lines, bytes_max: u64) -> Result<Imported, StoreError> {
    let mut imported = Imported::default();
    for (number, line) in &lines.lines {
        if import_line(connection, line, bytes_max).map_err(|error| error.at_line(*number))? {
            imported.added += 1;
        } else {
            imported.known += 1;
        }
    }
    Ok(imported)
}

/// Whether the line was written; it is not if it is there.
fn import_line(connection: &Connection, line: &PreparedLine, bytes_max: u64) -> Result<bool, StoreError> {
    match line {
        PreparedLine::Header => Ok(false),
        PreparedLine::Conversation { address, conversation } => import_conversation(connection, address, conversation),
        PreparedLine::Turn { address, turn, prepared } => {
            let row = Row::of(connection, address)?;
            if !(1..=row.turns).contains(&turn.number) {
                return append::append(connection, prepared, bytes_max).map(|_| true);
            }
            let (found, _) = history::turns(connection, row.conversation, turn.number, 1, 0)?;
            same(found.first() == Some(&**turn))
        }
        PreparedLine::Summary { address, summary, vault } => {
            let row = Row::of(connection, address)?;
            if history::summaries(connection, row.conversation)?.contains(summary) {
                return Ok(false);
            }
            append::add_summary(connection, address, summary, bytes_max)?;
            if let Some(vault) = vault {
                vault::add(connection, row.conversation, summary.last_turn, vault)?;
            }
            Ok(true)
        }
    }
}

/// What is there already need not be written, unless it is different.
fn same(is_same: bool) -> Result<bool, StoreError> {
    if is_same { Ok(false) } else { Err(StoreError::Exists) }
}

fn import_conversation(
    connection: &Connection,
    address: &Address,
    conversation: &Conversation,
) -> Result<bool, StoreError> {
    match history::find(connection, address) {
        Ok((_, found)) => same(found.created_ms == conversation.created_ms && found.parent == conversation.parent),
        Err(StoreError::NotFound) => {
            let sql =
                "INSERT INTO conversations (tenant, name, created_ms, updated_ms, turns, bytes, parent, parent_turn)
                       VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6)";
            let parent = conversation.parent.as_ref();
            connection.prepare_cached(sql)?.execute(params![
                address.tenant(),
                address.name(),
                signed(conversation.created_ms),
                signed(conversation.updated_ms),
                parent.map(|(name, _)| name),
                parent.map(|(_, turn)| turn),
            ])?;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}
