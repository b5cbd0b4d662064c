//! The schema by version, as `docs/formats/conversations.md` draws it, and the way from one to the next.
//!
//! `STEPS[n]` leads from version n to n + 1; version 0 is an empty file. Each step and its
//! `user_version` are one transaction, so a crash leaves a whole version. A released step is never
//! edited.

use crate::StoreError;
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// "TIDG": marks the file as ours.
const APPLICATION_ID: i64 = 0x5449_4447;

/// The steps. `STEPS.len()` is the newest version.
pub(crate) const STEPS: [&str; 4] = [VERSION_1, VERSION_2, VERSION_3, VERSION_4];

const VERSION_1: &str = "
CREATE TABLE conversations (
  conversation INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL,
  turns INTEGER NOT NULL CHECK (turns >= 0),
  bytes INTEGER NOT NULL CHECK (bytes >= 0),
  parent TEXT,
  parent_turn INTEGER
) STRICT;
CREATE UNIQUE INDEX conversations_by_name ON conversations (tenant, name);
CREATE INDEX conversations_by_update ON conversations (tenant, updated_ms, conversation, bytes);

CREATE TABLE turns (
  turn INTEGER PRIMARY KEY,
  conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
  number INTEGER NOT NULL CHECK (number >= 1),
  status INTEGER NOT NULL CHECK (status BETWEEN 1 AND 3),
  created_ms INTEGER NOT NULL,
  bytes INTEGER NOT NULL CHECK (bytes >= 0),
  request_hash BLOB CHECK (length(request_hash) = 32),
  request_id TEXT,
  end_user TEXT,
  model TEXT,
  stop_reason TEXT,
  input_tokens INTEGER,
  output_tokens INTEGER,
  cache_creation_tokens INTEGER,
  cache_read_tokens INTEGER,
  request BLOB NOT NULL,
  answer BLOB
) STRICT;
CREATE UNIQUE INDEX turns_by_number ON turns (conversation, number);

CREATE TABLE blobs (
  blob INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
  content BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX blobs_by_hash ON blobs (tenant, sha256);

CREATE TABLE pieces (
  turn INTEGER NOT NULL REFERENCES turns ON DELETE CASCADE,
  side INTEGER NOT NULL CHECK (side IN (0, 1)),
  position INTEGER NOT NULL CHECK (position > 0),
  spelling INTEGER NOT NULL CHECK (spelling IN (0, 1)),
  blob INTEGER NOT NULL REFERENCES blobs,
  PRIMARY KEY (turn, side, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX pieces_by_blob ON pieces (blob);

CREATE TABLE end_users (
  conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
  end_user TEXT NOT NULL,
  tenant TEXT NOT NULL,
  PRIMARY KEY (conversation, end_user)
) STRICT, WITHOUT ROWID;
CREATE INDEX end_users_by_user ON end_users (tenant, end_user, conversation);

CREATE TABLE summaries (
  summary INTEGER PRIMARY KEY,
  conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
  first_turn INTEGER NOT NULL,
  last_turn INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  model TEXT NOT NULL,
  body BLOB NOT NULL,
  CHECK (first_turn BETWEEN 1 AND last_turn)
) STRICT;
CREATE INDEX summaries_by_range ON summaries (conversation, first_turn, last_turn);

CREATE TABLE windows (
  conversation INTEGER PRIMARY KEY REFERENCES conversations ON DELETE CASCADE,
  turns INTEGER NOT NULL,
  state BLOB NOT NULL
) STRICT;
";

const VERSION_2: &str = "
CREATE TABLE streams (
  stream INTEGER PRIMARY KEY,
  id TEXT NOT NULL,
  tenant TEXT NOT NULL,
  own INTEGER,
  request_id TEXT NOT NULL,
  head BLOB NOT NULL,
  created_ms INTEGER NOT NULL,
  updated_ms INTEGER NOT NULL,
  ended INTEGER NOT NULL CHECK (ended IN (0, 1)),
  bytes INTEGER NOT NULL CHECK (bytes >= 0)
) STRICT;
CREATE UNIQUE INDEX streams_by_id ON streams (id);
CREATE INDEX streams_by_update ON streams (updated_ms);

CREATE TABLE segments (
  segment INTEGER PRIMARY KEY,
  stream INTEGER NOT NULL REFERENCES streams ON DELETE CASCADE,
  content BLOB NOT NULL
) STRICT;
CREATE INDEX segments_by_stream ON segments (stream);
";

const VERSION_3: &str = "
ALTER TABLE streams ADD COLUMN end_user TEXT;
ALTER TABLE streams ADD COLUMN conversation TEXT;
CREATE INDEX streams_by_user ON streams (tenant, end_user) WHERE end_user IS NOT NULL;
CREATE INDEX streams_by_conversation ON streams (tenant, conversation) WHERE conversation IS NOT NULL;

CREATE TABLE vaults (
  conversation INTEGER PRIMARY KEY REFERENCES conversations ON DELETE CASCADE,
  scope TEXT NOT NULL
) STRICT;

CREATE TABLE vault_records (
  vault_record INTEGER PRIMARY KEY,
  conversation INTEGER NOT NULL REFERENCES vaults ON DELETE CASCADE,
  turn INTEGER NOT NULL CHECK (turn >= 1),
  shared INTEGER NOT NULL CHECK (shared IN (0, 1)),
  content BLOB NOT NULL
) STRICT;
CREATE INDEX vault_records_by_turn ON vault_records (conversation, turn);

ALTER TABLE streams ADD COLUMN vault BLOB;
";

const VERSION_4: &str = "
CREATE TABLE usage (
  day INTEGER NOT NULL CHECK (day >= 0),
  tenant TEXT NOT NULL,
  model TEXT NOT NULL,
  kind INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  estimated INTEGER NOT NULL,
  unpriced INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL,
  cache_read_tokens INTEGER NOT NULL,
  cache_write_5m_tokens INTEGER NOT NULL,
  cache_write_1h_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  cost_nano_usd INTEGER NOT NULL,
  PRIMARY KEY (day, tenant, model, kind)
) STRICT, WITHOUT ROWID;
";

/// Brings the database of `connection` to the newest of `steps`; refuses what is not ours or newer.
/// Nothing is written before that is known.
pub(crate) fn bring_up(connection: &mut Connection, path: &Path, steps: &[&str]) -> Result<(), StoreError> {
    let number =
        |connection: &Connection, what: &str| connection.pragma_query_value(None, what, |row| row.get::<_, i64>(0));
    let not_ours = || StoreError::NotOurs { path: path.to_path_buf() };
    // The first read: a file that is no database at all says so here.
    let application = number(connection, "application_id").map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => not_ours(),
        _ => error.into(),
    })?;
    let version = number(connection, "user_version")?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let is_empty = tables == 0 && version == 0 && application == 0;
    if !is_empty && application != APPLICATION_ID {
        return Err(not_ours());
    }
    let version = usize::try_from(version).map_err(|_| not_ours())?;
    if version > steps.len() {
        let (found, known) = (version as u32, steps.len() as u32);
        return Err(StoreError::NewerSchema { path: path.to_path_buf(), found, known });
    }
    if connection.is_readonly("main")? {
        return Err(StoreError::ReadOnly);
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Failed(format!("{}: the file system cannot hold a write-ahead log", path.display())));
    }
    for (before, step) in steps.iter().enumerate().skip(version) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", before as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Whether the database has the newest schema; changing it is nothing for a file that others write to.
pub(crate) fn is_up(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if usize::try_from(version).is_ok_and(|version| version < STEPS.len()) {
        return Err(StoreError::Failed(format!(
            "{}: has schema version {version} and would have to be brought up to {}, while another process writes to it; end that one first",
            path.display(),
            STEPS.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of a test's own, removed at its end.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("tidegate-schema-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn version(connection: &Connection) -> i64 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_step_that_fails_leaves_the_older_version_whole() {
        let folder = Folder::new("step");
        let path = folder.0.join("x.db");
        let mut connection = Connection::open(&path).unwrap();
        bring_up(&mut connection, &path, &[VERSION_1]).unwrap();
        let half = "ALTER TABLE turns ADD COLUMN colour TEXT; INSERT INTO no_such_table VALUES (1);";
        assert!(bring_up(&mut connection, &path, &[VERSION_1, half]).is_err());
        drop(connection);
        let mut connection = Connection::open(&path).unwrap();
        assert_eq!(version(&connection), 1);
        assert!(connection.prepare("SELECT colour FROM turns").is_err(), "nothing of the step is there");
        let whole = "ALTER TABLE turns ADD COLUMN colour TEXT;";
        bring_up(&mut connection, &path, &[VERSION_1, whole]).unwrap();
        assert_eq!(version(&connection), 2);
        assert!(connection.prepare("SELECT colour FROM turns").is_ok());
        let refused = bring_up(&mut connection, &path, &[VERSION_1]).unwrap_err();
        assert_eq!(refused, StoreError::NewerSchema { path: path.clone(), found: 2, known: 1 });
        assert!(refused.to_string().contains("schema version 2, this build knows versions up to 1"), "{refused}");
    }

    #[test]
    fn another_programs_database_is_not_touched() {
        let folder = Folder::new("other");
        let path = folder.0.join("x.db");
        let mut connection = Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE theirs (x);").unwrap();
        let before = std::fs::read(&path).unwrap();
        assert_eq!(bring_up(&mut connection, &path, &STEPS), Err(StoreError::NotOurs { path: path.clone() }));
        drop(connection);
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
