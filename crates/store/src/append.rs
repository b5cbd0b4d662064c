//! Appending: turns, and what stands beside them.
//!
//! What costs time (looking at the JSON, cutting and hashing) is done before a turn waits for the
//! writer; in the transaction it is a handful of statements.

use crate::StoreError;
use crate::pieces::{self, Cut};
use crate::turn::{Address, Appended, NewTurn, Summary, TURNS_MAX, TurnContent, VaultRecords, signed, unsigned};
use crate::vault;
use rusqlite::{Connection, OptionalExtension, params};

/// A turn that is ready to be written.
#[derive(Debug)]
pub(crate) struct Prepared {
    address: Address,
    expected: Option<u32>,
    now_ms: u64,
    /// When the conversation changed by it: an import brings old turns, and is no change.
    touches_ms: u64,
    /// Without its messages.
    content: TurnContent,
    bytes: u64,
    request: Cut,
    answer: Option<Cut>,
    window: Option<Vec<u8>>,
    vault: Option<VaultRecords>,
}

impl Prepared {
    /// Checks a turn and cuts its messages.
    pub(crate) fn new(turn: NewTurn) -> Result<Self, StoreError> {
        let NewTurn { address, expected, now_ms, mut content, window, vault } = turn;
        let bytes = content.bytes();
        let request = pieces::cut("a turn's request", &std::mem::take(&mut content.request), b'[')?;
        let answer = content.answer.take();
        let answer = answer.map(|answer| pieces::cut("a turn's answer", &answer, b'{')).transpose()?;
        Ok(Prepared { address, expected, now_ms, touches_ms: now_ms, content, bytes, request, answer, window, vault })
    }

    /// The same turn as an import brings it.
    pub(crate) fn imported(self) -> Self {
        Prepared { touches_ms: 0, ..self }
    }

    /// The same turn with what it is the first to tell of its conversation's vault.
    pub(crate) fn with_vault(&mut self, vault: VaultRecords) {
        self.vault = Some(vault);
    }

    /// Memory it holds, bytes.
    pub(crate) fn held(&self) -> usize {
        let vault = self.vault.as_ref().map_or(0, VaultRecords::bytes);
        usize::try_from(self.bytes + vault).unwrap_or(usize::MAX)
    }
}

/// A row of `conversations`, as far as a change needs it.
pub(crate) struct Row {
    pub(crate) conversation: i64,
    pub(crate) turns: u32,
    pub(crate) bytes: u64,
}

impl Row {
    pub(crate) fn find(connection: &Connection, address: &Address) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT conversation, turns, bytes FROM conversations WHERE tenant = ?1 AND name = ?2";
        let mut statement = connection.prepare_cached(sql)?;
        let row = statement.query_row(params![address.tenant(), address.name()], |row| {
            Ok(Row { conversation: row.get(0)?, turns: row.get(1)?, bytes: unsigned(row.get(2)?) })
        });
        Ok(row.optional()?)
    }

    pub(crate) fn of(connection: &Connection, address: &Address) -> Result<Self, StoreError> {
        Row::find(connection, address)?.ok_or(StoreError::NotFound)
    }
}

/// Appends a turn, and makes its conversation if it is the first.
pub(crate) fn append(connection: &Connection, turn: &Prepared, bytes_max: u64) -> Result<Appended, StoreError> {
    let found = Row::find(connection, &turn.address)?;
    let number = found.as_ref().map_or(0, |row| row.turns) + 1;
    if let Some(expected) = turn.expected.filter(|expected| *expected != number) {
        return Err(StoreError::Conflict { expected, next: number });
    }
    if number > TURNS_MAX {
        return Err(StoreError::TooLarge {
            what: "turns of a conversation",
            size: number.into(),
            max: TURNS_MAX.into(),
        });
    }
    let bytes = found.as_ref().map_or(0, |row| row.bytes) + turn.bytes;
    if bytes > bytes_max {
        return Err(StoreError::TooLarge { what: "bytes of a conversation", size: bytes, max: bytes_max });
    }
    let conversation = match found {
        Some(row) => {
            let sql = "UPDATE conversations SET turns = ?2, bytes = ?3, updated_ms = max(updated_ms, ?4)
                       WHERE conversation = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            statement.execute(params![row.conversation, number, signed(bytes), signed(turn.touches_ms)])?;
            row.conversation
        }
        None => insert_conversation(connection, &turn.address, turn.now_ms, number, bytes)?,
    };
    insert_turn(connection, conversation, number, turn)?;
    if let Some(state) = &turn.window {
        put_window(connection, conversation, number, state)?;
    }
    if let Some(vault) = turn.vault.as_ref().filter(|vault| !vault.records.is_empty()) {
        vault::add(connection, conversation, number, vault)?;
    }
    Ok(Appended { number, conversation_bytes: bytes })
}

fn insert_conversation(
    connection: &Connection,
    address: &Address,
    now_ms: u64,
    turns: u32,
    bytes: u64,
) -> Result<i64, StoreError> {
    let sql = "INSERT INTO conversations (tenant, name, created_ms, updated_ms, turns, bytes)
               VALUES (?1, ?2, ?3, ?3, ?4, ?5)";
    let mut statement = connection.prepare_cached(sql)?;
    let now_ms = signed(now_ms);
    Ok(statement.insert(params![address.tenant(), address.name(), now_ms, turns, signed(bytes)])?)
}

fn insert_turn(connection: &Connection, conversation: i64, number: u32, turn: &Prepared) -> Result<(), StoreError> {
    let sql = "INSERT INTO turns (conversation, number, status, created_ms, bytes, request_hash, request_id, end_user,
               model, stop_reason, input_tokens, output_tokens, cache_creation_tokens, cache_read_tokens, request, answer)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
    let content = &turn.content;
    let tokens = |count: Option<u64>| count.map(signed);
    let id = connection.prepare_cached(sql)?.insert(params![
        conversation,
        number,
        content.status.code(),
        signed(turn.now_ms),
        signed(turn.bytes),
        content.request_hash.as_ref().map(|hash| &hash[..]),
        content.request_id,
        content.end_user,
        content.model,
        content.stop_reason,
        tokens(content.tokens.input),
        tokens(content.tokens.output),
        tokens(content.tokens.cache_creation),
        tokens(content.tokens.cache_read),
        turn.request.rest,
        turn.answer.as_ref().map(|answer| &answer.rest[..]),
    ])?;
    for (side, cut) in std::iter::once(&turn.request).chain(&turn.answer).enumerate() {
        insert_pieces(connection, turn.address.tenant(), id, side as i64, cut)?;
    }
    if let Some(end_user) = &content.end_user {
        let sql = "INSERT OR IGNORE INTO end_users (conversation, end_user, tenant) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(sql)?.execute(params![conversation, end_user, turn.address.tenant()])?;
    }
    Ok(())
}

fn insert_pieces(connection: &Connection, tenant: &str, turn: i64, side: i64, cut: &Cut) -> Result<(), StoreError> {
    for piece in &cut.pieces {
        let sql = "SELECT blob FROM blobs WHERE tenant = ?1 AND sha256 = ?2";
        let known = connection.prepare_cached(sql)?.query_row(params![tenant, piece.sha256], |row| row.get(0));
        let blob: i64 = match known.optional()? {
            Some(blob) => blob,
            None => {
                let sql = "INSERT INTO blobs (tenant, sha256, content) VALUES (?1, ?2, ?3)";
                connection.prepare_cached(sql)?.insert(params![tenant, piece.sha256, piece.content])?
            }
        };
        let sql = "INSERT INTO pieces (turn, side, position, spelling, blob) VALUES (?1, ?2, ?3, ?4, ?5)";
        let position = signed(piece.position as u64);
        connection.prepare_cached(sql)?.execute(params![turn, side, position, piece.slashes_escaped, blob])?;
    }
    Ok(())
}

/// Keeps a window's state in place of the one before.
pub(crate) fn put_window(
    connection: &Connection,
    conversation: i64,
    turns: u32,
    state: &[u8],
) -> Result<(), StoreError> {
    let sql = "INSERT INTO windows (conversation, turns, state) VALUES (?1, ?2, ?3)
               ON CONFLICT DO UPDATE SET turns = ?2, state = ?3";
    connection.prepare_cached(sql)?.execute(params![conversation, turns, state])?;
    Ok(())
}

/// Adds a summary of turns that are there.
pub(crate) fn add_summary(
    connection: &Connection,
    address: &Address,
    summary: &Summary,
    bytes_max: u64,
) -> Result<(), StoreError> {
    let row = Row::of(connection, address)?;
    if summary.last_turn > row.turns {
        return Err(StoreError::NotFound);
    }
    let bytes = row.bytes + summary.body.len() as u64;
    if bytes > bytes_max {
        return Err(StoreError::TooLarge { what: "bytes of a conversation", size: bytes, max: bytes_max });
    }
    let sql = "INSERT INTO summaries (conversation, first_turn, last_turn, created_ms, model, body)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    connection.prepare_cached(sql)?.execute(params![
        row.conversation,
        summary.first_turn,
        summary.last_turn,
        signed(summary.created_ms),
        summary.model,
        summary.body
    ])?;
    let sql = "UPDATE conversations SET bytes = ?2 WHERE conversation = ?1";
    connection.prepare_cached(sql)?.execute(params![row.conversation, signed(bytes)])?;
    Ok(())
}

/// Makes a conversation of the turns 1 to `turn` of another. Texts are copied and blobs shared, so
/// that either may be deleted without the other.
pub(crate) fn fork(
    connection: &Connection,
    from: &Address,
    turn: u32,
    name: &str,
    now_ms: u64,
) -> Result<(), StoreError> {
    let source = Row::of(connection, from)?;
    if turn == 0 || turn > source.turns {
        return Err(StoreError::NotFound);
    }
    let target = Address::new(from.tenant(), name)?;
    if Row::find(connection, &target)?.is_some() {
        return Err(StoreError::Exists);
    }
    let fork = insert_conversation(connection, &target, now_ms, turn, 0)?;
    const COPIES: [&str; 7] = [
        "INSERT INTO turns (conversation, number, status, created_ms, bytes, request_hash, request_id, end_user, model,
           stop_reason, input_tokens, output_tokens, cache_creation_tokens, cache_read_tokens, request, answer)
         SELECT ?1, number, status, created_ms, bytes, request_hash, request_id, end_user, model, stop_reason,
           input_tokens, output_tokens, cache_creation_tokens, cache_read_tokens, request, answer
         FROM turns WHERE conversation = ?2 AND number <= ?3 ORDER BY number",
        "INSERT INTO pieces (turn, side, position, spelling, blob)
         SELECT mine.turn, side, position, spelling, blob FROM turns AS theirs
         JOIN turns AS mine ON mine.conversation = ?1 AND mine.number = theirs.number
         JOIN pieces ON pieces.turn = theirs.turn
         WHERE theirs.conversation = ?2 AND theirs.number <= ?3",
        "INSERT INTO end_users (conversation, end_user, tenant)
         SELECT DISTINCT ?1, end_user, tenant FROM turns JOIN conversations USING (conversation)
         WHERE conversation = ?2 AND number <= ?3 AND end_user IS NOT NULL",
        "INSERT INTO summaries (conversation, first_turn, last_turn, created_ms, model, body)
         SELECT ?1, first_turn, last_turn, created_ms, model, body FROM summaries
         WHERE conversation = ?2 AND last_turn <= ?3 ORDER BY summary",
        // With its window the fork goes on with the same prefix, and so with the same prompt cache.
        "INSERT INTO windows (conversation, turns, state)
         SELECT ?1, turns, state FROM windows WHERE conversation = ?2 AND turns <= ?3",
        // The same texts have the same tokens, and so has what is told anew: the scope goes along.
        "INSERT INTO vaults (conversation, scope) SELECT ?1, scope FROM vaults WHERE conversation = ?2 AND ?3 > 0",
        "INSERT INTO vault_records (conversation, turn, shared, content)
         SELECT ?1, turn, shared, content FROM vault_records WHERE conversation = ?2 AND turn <= ?3
         ORDER BY vault_record",
    ];
    for copy in COPIES {
        connection.prepare_cached(copy)?.execute(params![fork, source.conversation, turn])?;
    }
    let sql = "UPDATE conversations SET parent = ?2, parent_turn = ?3,
                 bytes = (SELECT coalesce(sum(bytes), 0) FROM turns WHERE conversation = ?1)
                       + (SELECT coalesce(sum(length(body)), 0) FROM summaries WHERE conversation = ?1)
               WHERE conversation = ?1";
    connection.prepare_cached(sql)?.execute(params![fork, from.name(), turn])?;
    Ok(())
}
