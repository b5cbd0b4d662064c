//! The file and who may open it: one process, by a lock beside it; or several that share it.
//!
//! SQLite's WAL would let many processes write in turns; but the gateway holds conversations in
//! memory, and two of them would each believe to be the only one. So the lock is held for as long as
//! the store is open. It can be passed on to a process that takes over, and then both have it until the
//! first has ended; which conversation is whose is for them to say. A file of usage alone is only added
//! to, and may be shared: by processes that all open it so, and by none that does not. The kernel drops
//! the lock with the process, however that ends. The lock file is never
//! deleted: between a deletion and a new file two processes could both hold "the" lock.

use crate::schema;
use crate::{Durability, Settings, StoreError};
use rusqlite::{Connection, OpenFlags};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long another program's lock is waited for: longer than any honest write.
pub(crate) const OTHERS_WAIT: Duration = Duration::from_secs(5);
/// Prepared statements a connection keeps: more than this room has.
const STATEMENTS_MAX: usize = 64;

/// The right to write the file.
#[derive(Debug)]
pub(crate) struct FileLock {
    path: PathBuf,
    /// The lock lives as long as this is open, here or in a process that it was passed on to.
    held: File,
    /// Another process has it too, or had.
    shared: AtomicBool,
}

impl FileLock {
    /// Takes the lock of the database at `path`; also makes sure that the database's file is there,
    /// readable by its owner only.
    pub(crate) fn take(path: &Path, shared: bool) -> Result<Self, StoreError> {
        let of_file = |error| StoreError::of_file(path, &error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        drop(options.open(path).map_err(of_file)?);
        // Two names of one file (a link, a relative path) must meet at one lock.
        let path = path.canonicalize().map_err(of_file)?;
        let mut beside = path.clone().into_os_string();
        beside.push(".lock");
        let of_lock = |error| StoreError::of_file(Path::new(&beside), &error);
        let held = options.open(&beside).map_err(of_lock)?;
        match if shared { held.try_lock_shared() } else { held.try_lock() } {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // A holder that has not said yet who it is stays unnamed.
                let _ = held.take(32).read_to_string(&mut holder);
                return Err(StoreError::Held { path, pid: holder.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(of_lock(error)),
        }
        let lock = FileLock { path, held, shared: AtomicBool::new(false) };
        lock.say_who().map_err(of_lock)?;
        Ok(lock)
    }

    /// The lock of the database at `path` as another process has passed it on, and still has it.
    pub(crate) fn adopt(path: &Path, held: File) -> Result<Self, StoreError> {
        let path = path.canonicalize().map_err(|error| StoreError::of_file(path, &error))?;
        let mut beside = path.clone().into_os_string();
        beside.push(".lock");
        let of_lock = |error| StoreError::of_file(Path::new(&beside), &error);
        let (named, passed) = (std::fs::metadata(&beside).map_err(of_lock)?, held.metadata().map_err(of_lock)?);
        if (named.dev(), named.ino()) != (passed.dev(), passed.ino()) {
            return Err(StoreError::Failed(format!("{}: the lock that was passed on is another's", path.display())));
        }
        // To unlock it would be to unlock it for the other one too.
        let lock = FileLock { path, held, shared: AtomicBool::new(true) };
        lock.say_who().map_err(of_lock)?;
        Ok(lock)
    }

    /// Writes this process' id into the lock, for whoever is refused.
    pub(crate) fn say_who(&self) -> std::io::Result<()> {
        let mut held = &self.held;
        held.set_len(0)?;
        held.rewind()?;
        writeln!(held, "{}", std::process::id())
    }

    /// The lock for another process, which has it from then on as long as it lives.
    pub(crate) fn share(&self) -> Result<OwnedFd, StoreError> {
        let held = self.held.try_clone().map_err(|error| StoreError::of_file(&self.path, &error))?;
        self.shared.store(true, Ordering::Relaxed);
        Ok(held.into())
    }

    /// The database's file, every link resolved.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the names of new files durable.
    fn sync_folder(&self) -> Result<(), StoreError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| StoreError::of_file(folder, &error))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Not left to the closing: a process that is being started at this moment still shares the
        // file, and with it the lock, until it is the other program. Closing drops the lock anyway.
        if !self.shared.load(Ordering::Relaxed) {
            let _ = self.held.unlock();
        }
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(OTHERS_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.execute_batch("PRAGMA foreign_keys = ON; PRAGMA mmap_size = 0; PRAGMA trusted_schema = OFF;")?;
    Ok(connection)
}

/// The writer's connection, the schema brought up to date.
///
/// With `others`, a process that still writes: then nothing is done that it would have to wait for, or
/// would not understand.
pub(crate) fn open_writer(lock: &FileLock, settings: &Settings, others: bool) -> Result<Connection, StoreError> {
    let mut connection = connect(lock.path())?;
    if others {
        schema::is_up(&connection, lock.path())?;
    }
    schema::bring_up(&mut connection, lock.path(), &schema::STEPS)?;
    let synchronous = match settings.durability {
        Durability::PowerLoss => "FULL",
        Durability::None => "OFF",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update_and_check(None, "secure_delete", "ON", |_| Ok(()))?;
    // What a savepoint may have to undo stays in memory: it is somebody's conversation.
    connection.execute_batch("PRAGMA temp_store = MEMORY")?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", 64 << 20, |_| Ok(()))?;
    if let Some(bytes) = settings.file_bytes_max {
        let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        connection.pragma_update_and_check(None, "max_page_count", pages.clamp(1, 0xffff_fffe), |_| Ok(()))?;
    }
    if others {
        return Ok(connection);
    }
    // What a killed process left in the WAL comes into the database, deletions among it.
    match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(StoreError::from) {
        // A full disk, or somebody's long read: the WAL stays as it is, and is whole.
        Ok(()) | Err(StoreError::DiskFull | StoreError::Busy) => {}
        Err(error) => return Err(error),
    }
    lock.sync_folder()?;
    Ok(connection)
}

/// A connection that only reads.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", "ON")?;
    // The first read opens the write-ahead log: afterwards no file is looked for by its name.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

/// Takes the names of an open database's files away. They stay for those who have them open, and go with
/// the last of these.
pub(crate) fn unname(path: &Path) -> Result<(), StoreError> {
    for end in ["", "-wal", "-shm", ".lock"] {
        let mut file = path.to_path_buf().into_os_string();
        file.push(end);
        let file = Path::new(&file);
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::of_file(file, &error));
            }
            _ => {}
        }
    }
    Ok(())
}
