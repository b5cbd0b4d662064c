//! Reading: one conversation's turns, put together again byte for byte, and pages of conversations.

use crate::StoreError;
use crate::pieces::Joiner;
use crate::turn::{
    Address, Conversation, History, Status, Summary, TokenCounts, Turn, TurnContent, Window, signed, unsigned,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::fmt;
use std::str::FromStr;

/// Most bytes of turns in one read; a longer single turn is read alone.
const READ_BYTES_MAX: u64 = 64 << 20;
/// Most rows of a page.
pub(crate) const PAGE_ROWS_MAX: u32 = 1_000;
/// How many of the last turns a retry may be one of.
const RETRIES_LOOKED_AT: u32 = 8;

/// The columns that make a [`Conversation`], after its key.
pub(crate) const CONVERSATION: &str = "conversation, name, created_ms, updated_ms, turns, bytes, parent, parent_turn";

pub(crate) fn conversation_of(row: &Row<'_>) -> rusqlite::Result<(i64, Conversation)> {
    let parent: Option<String> = row.get(6)?;
    let conversation = Conversation {
        name: row.get(1)?,
        created_ms: unsigned(row.get(2)?),
        updated_ms: unsigned(row.get(3)?),
        turns: row.get(4)?,
        bytes: unsigned(row.get(5)?),
        parent: parent.zip(row.get(7)?),
    };
    Ok((row.get(0)?, conversation))
}

/// The conversation at `address`, with its key.
pub(crate) fn find(connection: &Connection, address: &Address) -> Result<(i64, Conversation), StoreError> {
    let sql = format!("SELECT {CONVERSATION} FROM conversations WHERE tenant = ?1 AND name = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_row(params![address.tenant(), address.name()], conversation_of);
    found.optional()?.ok_or(StoreError::NotFound)
}

/// A conversation with its turns from `from` on, as many as fit.
pub(crate) fn read(connection: &Connection, address: &Address, from: u32) -> Result<History, StoreError> {
    let (key, conversation) = find(connection, address)?;
    let (turns, next) = turns(connection, key, from, u32::MAX, READ_BYTES_MAX)?;
    let summaries = summaries(connection, key)?;
    let sql = "SELECT turns, state FROM windows WHERE conversation = ?1";
    let window = connection
        .prepare_cached(sql)?
        .query_row([key], |row| Ok(Window { turns: row.get(0)?, state: row.get(1)? }))
        .optional()?;
    Ok(History { conversation, turns, next, summaries, window })
}

/// Turns from `from` on, at most `turns_max` and `bytes_max` but at least one, and where to go on.
pub(crate) fn turns(
    connection: &Connection,
    conversation: i64,
    from: u32,
    turns_max: u32,
    bytes_max: u64,
) -> Result<(Vec<Turn>, Option<u32>), StoreError> {
    let sql = "SELECT turn, number, status, created_ms, bytes, request_hash, request_id, end_user, model, stop_reason,
               input_tokens, output_tokens, cache_creation_tokens, cache_read_tokens, request, answer
               FROM turns WHERE conversation = ?1 AND number >= ?2 ORDER BY number";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![conversation, from])?;
    let (mut turns, mut total) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let bytes = unsigned(row.get(4)?);
        if !turns.is_empty() && (total + bytes > bytes_max || turns.len() >= turns_max as usize) {
            return Ok((turns, Some(row.get(1)?)));
        }
        total += bytes;
        turns.push(turn_of(connection, row, bytes)?);
    }
    Ok((turns, None))
}

fn turn_of(connection: &Connection, row: &Row<'_>, bytes: u64) -> Result<Turn, StoreError> {
    let number: u32 = row.get(1)?;
    let damaged = |what: &str| StoreError::Corrupt(format!("turn {number} has {what}"));
    let tokens = |column| row.get::<_, Option<i64>>(column).map(|count| count.map(unsigned));
    let content = TurnContent {
        status: Status::of_code(row.get(2)?).ok_or_else(|| damaged("an unknown status"))?,
        request: row.get(14)?,
        answer: row.get(15)?,
        request_hash: row.get(5)?,
        request_id: row.get(6)?,
        end_user: row.get(7)?,
        model: row.get(8)?,
        stop_reason: row.get(9)?,
        tokens: TokenCounts {
            input: tokens(10)?,
            output: tokens(11)?,
            cache_creation: tokens(12)?,
            cache_read: tokens(13)?,
        },
    };
    let mut turn = Turn { number, created_ms: unsigned(row.get(3)?), content };
    if turn.content.bytes() != bytes {
        put_back(connection, row.get(0)?, &mut turn.content).and_then(|()| {
            let whole = turn.content.bytes() == bytes;
            if whole { Ok(()) } else { Err(damaged("not all of its bytes")) }
        })?;
    }
    Ok(turn)
}

/// Puts the pieces of a turn back into its messages.
fn put_back(connection: &Connection, turn: i64, content: &mut TurnContent) -> Result<(), StoreError> {
    let sql = "SELECT side, position, spelling, content FROM pieces JOIN blobs USING (blob) WHERE turn = ?1
               ORDER BY side, position";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([turn])?;
    let mut sides = [Joiner::default(), Joiner::default()];
    while let Some(row) = rows.next()? {
        let on_answer: bool = row.get(0)?;
        let rest = if on_answer { content.answer.as_deref().unwrap_or_default() } else { &content.request[..] };
        let position = usize::try_from(row.get::<_, i64>(1)?).unwrap_or(usize::MAX);
        let blob = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
        sides[usize::from(on_answer)]
            .put(rest, position, row.get(2)?, blob)
            .ok_or_else(|| StoreError::Corrupt("a piece goes beyond its message".to_owned()))?;
    }
    let [request, answer] = sides;
    content.request = request.finish(std::mem::take(&mut content.request));
    content.answer = content.answer.take().map(|rest| answer.finish(rest));
    Ok(())
}

/// All summaries of a conversation, by their range.
pub(crate) fn summaries(connection: &Connection, conversation: i64) -> Result<Vec<Summary>, StoreError> {
    let sql = "SELECT first_turn, last_turn, created_ms, model, body FROM summaries WHERE conversation = ?1
               ORDER BY first_turn, last_turn, summary";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([conversation], |row| {
        Ok(Summary {
            first_turn: row.get(0)?,
            last_turn: row.get(1)?,
            created_ms: unsigned(row.get(2)?),
            model: row.get(3)?,
            body: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The number of the turn that came of a request with this body, if it is one of the last.
pub(crate) fn find_request(
    connection: &Connection,
    address: &Address,
    hash: &[u8; 32],
) -> Result<Option<u32>, StoreError> {
    let Some(row) = crate::append::Row::find(connection, address)? else { return Ok(None) };
    let sql = "SELECT number FROM turns WHERE conversation = ?1 AND number > ?2 AND request_hash = ?3
               ORDER BY number DESC LIMIT 1";
    let after = row.turns.saturating_sub(RETRIES_LOOKED_AT);
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row(params![row.conversation, after, hash], |row| row.get(0)).optional()?)
}

/// A place in a listing; as text it is `ms-key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCursor {
    updated_ms: i64,
    conversation: i64,
}

impl fmt::Display for PageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.updated_ms, self.conversation)
    }
}

impl FromStr for PageCursor {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let numbers = text.split_once('-').and_then(|(ms, key)| Some((ms.parse().ok()?, key.parse().ok()?)));
        let (updated_ms, conversation) =
            numbers.ok_or_else(|| StoreError::Invalid("a cursor is what an earlier page gave".to_owned()))?;
        Ok(PageCursor { updated_ms, conversation })
    }
}

/// Some conversations of a tenant, those that changed last first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The conversations.
    pub conversations: Vec<Conversation>,
    /// Where the next page begins, if there is one. A conversation that changes between two pages
    /// goes to the front and may be seen twice.
    pub next: Option<PageCursor>,
}

/// At most `rows` conversations of `tenant` after `cursor`.
pub(crate) fn list(
    connection: &Connection,
    tenant: &str,
    cursor: Option<PageCursor>,
    rows: u32,
) -> Result<Page, StoreError> {
    let sql = format!(
        "SELECT {CONVERSATION} FROM conversations WHERE tenant = ?1 AND (updated_ms, conversation) < (?2, ?3)
         ORDER BY updated_ms DESC, conversation DESC LIMIT ?4"
    );
    let from = cursor.unwrap_or(PageCursor { updated_ms: i64::MAX, conversation: i64::MAX });
    let rows = rows.clamp(1, PAGE_ROWS_MAX);
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map(params![tenant, from.updated_ms, from.conversation, rows + 1], conversation_of)?;
    let mut found: Vec<(i64, Conversation)> = found.collect::<Result<_, _>>()?;
    let has_more = found.len() > rows as usize;
    found.truncate(rows as usize);
    let next = found
        .last()
        .filter(|_| has_more)
        .map(|(key, last)| PageCursor { updated_ms: signed(last.updated_ms), conversation: *key });
    Ok(Page { conversations: found.into_iter().map(|(_, conversation)| conversation).collect(), next })
}
