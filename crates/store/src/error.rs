//! What can go wrong with the log, in this room's own words.
//!
//! Three kinds: the caller's (`NotFound` to `AtLine`), the moment's (`StreamsFull`, `Overloaded`,
//! `Busy`, `DiskFull`: later it may work), and the file's (the rest). No text of a message and no value that
//! was bound to a statement is in any of them.

use std::fmt;
use std::path::PathBuf;

/// Why the log did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// No such conversation, or no such turn of it.
    NotFound,
    /// Another turn was committed meanwhile: `expected` was asked for, `next` is the next free number.
    Conflict {
        /// The number the caller meant the turn to have.
        expected: u32,
        /// The number the next turn of the conversation gets.
        next: u32,
    },
    /// There is one already, and it is different.
    Exists,
    /// An argument that breaks a rule of the format; says which.
    Invalid(String),
    /// More than the format allows.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is, or would become.
        size: u64,
        /// How large it may be, in the same unit.
        max: u64,
    },
    /// A line of an import could not be taken, and with it none of those given together.
    AtLine {
        /// Which of them, from 1.
        line: usize,
        /// Why.
        why: Box<StoreError>,
    },
    /// All durable streams together take as much of the file as they may.
    StreamsFull {
        /// How many bytes that is.
        max: u64,
    },
    /// Too much waits for the disk already; nothing was done.
    Overloaded,
    /// The store was closed, or its thread is gone; nothing was done.
    Closed,
    /// Another process has the file open.
    Held {
        /// The file.
        path: PathBuf,
        /// That process, if it said who it is.
        pid: Option<u32>,
    },
    /// The file is something else than a conversation log.
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer Tidegate.
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The newest version this build knows.
        known: u32,
    },
    /// No room on the disk, or the file has reached its limit; nothing was done.
    DiskFull,
    /// The file or its file system cannot be written.
    ReadOnly,
    /// Another program holds SQLite's own lock; nothing was done.
    Busy,
    /// The file is damaged.
    Corrupt(String),
    /// The disk failed. Whether the change is there is known when the store is opened again; until
    /// then no change is taken.
    Failed(String),
}

impl StoreError {
    /// Whether the transaction as a whole failed and not just one change in it.
    pub(crate) fn is_storages(&self) -> bool {
        matches!(
            self,
            StoreError::DiskFull
                | StoreError::ReadOnly
                | StoreError::Busy
                | StoreError::Corrupt(_)
                | StoreError::Failed(_)
        )
    }

    /// Whether nothing may be written any more before the file was opened again.
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, StoreError::Corrupt(_) | StoreError::Failed(_))
    }

    /// The same, of a line of an import; the storage's errors concern no line.
    pub(crate) fn at_line(self, line: usize) -> Self {
        if self.is_storages() { self } else { StoreError::AtLine { line, why: Box::new(self) } }
    }

    /// An error of a file beside the database.
    pub(crate) fn of_file(path: &std::path::Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::ReadOnlyFilesystem | Kind::PermissionDenied => StoreError::ReadOnly,
            Kind::StorageFull | Kind::QuotaExceeded => StoreError::DiskFull,
            _ => StoreError::Failed(format!("{}: {error}", path.display())),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let text = || match (error.sqlite_extended_error_code(), error.sqlite_error()) {
            (Some(code), Some(sqlite)) => format!("{sqlite} (SQLite {code})"),
            _ => error.to_string(),
        };
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => StoreError::DiskFull,
            Some(Code::ReadOnly | Code::PermissionDenied | Code::CannotOpen) => StoreError::ReadOnly,
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => StoreError::Busy,
            Some(Code::DatabaseCorrupt | Code::NotADatabase | Code::ConstraintViolation | Code::TypeMismatch) => {
                StoreError::Corrupt(text())
            }
            // A column holds what this room never writes there. The text names column and type.
            None if matches!(
                error,
                rusqlite::Error::FromSqlConversionFailure(..)
                    | rusqlite::Error::IntegralValueOutOfRange(..)
                    | rusqlite::Error::InvalidColumnType(..)
                    | rusqlite::Error::Utf8Error(..)
            ) =>
            {
                StoreError::Corrupt(error.to_string())
            }
            _ => StoreError::Failed(text()),
        }
    }
}

impl From<crate::queue::Refused> for StoreError {
    fn from(refused: crate::queue::Refused) -> Self {
        match refused {
            crate::queue::Refused::Full => StoreError::Overloaded,
            crate::queue::Refused::Closed => StoreError::Closed,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::NotFound => f.write_str("there is no such conversation or turn"),
            StoreError::Conflict { expected, next } => {
                write!(f, "turn {expected} was expected, but the conversation goes on with turn {next}")
            }
            StoreError::Exists => f.write_str("it exists already and is different"),
            StoreError::Invalid(why) => f.write_str(why),
            StoreError::TooLarge { what, size, max } => write!(f, "{what}: {size} is more than {max}"),
            StoreError::AtLine { line, why } => write!(f, "line {line}: {why}"),
            StoreError::StreamsFull { max } => {
                write!(f, "durable streams take all of the {max} bytes of the conversation log that they may")
            }
            StoreError::Overloaded => f.write_str("too much waits for the disk of the conversation log; try again"),
            StoreError::Closed => f.write_str("the conversation log is closed"),
            StoreError::Held { path, pid } => {
                write!(f, "{} is open in another process", path.display())?;
                pid.map_or(Ok(()), |pid| write!(f, " (pid {pid})"))?;
                f.write_str("; only one may write a conversation log")
            }
            StoreError::NotOurs { path } => write!(f, "{} is no conversation log; nothing was changed", path.display()),
            StoreError::NewerSchema { path, found, known } => write!(
                f,
                "{} has schema version {found}, this build knows versions up to {known}; use the newer Tidegate that \
                 wrote it. Nothing was changed",
                path.display()
            ),
            StoreError::DiskFull => {
                f.write_str("no room for the conversation log; nothing was lost that was acknowledged")
            }
            StoreError::ReadOnly => f.write_str(
                "the conversation log cannot be written: read-only, no permission, or no more files may be opened",
            ),
            StoreError::Busy => f.write_str("another program holds the conversation log's lock"),
            StoreError::Corrupt(why) => write!(f, "the conversation log is damaged: {why}"),
            StoreError::Failed(why) => write!(f, "the conversation log's disk failed: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}
