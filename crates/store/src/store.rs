//! The store: one value in front of the writer and the readers.
//!
//! Every operation returns at once with a [`Pending`]; the work is done on the store's own threads.
//! What is answered is durable. Small messages are cut and hashed where they are asked for, large
//! ones on a reading thread, so no asynchronous task is held up by them.

use crate::StoreError;
use crate::append::{self, Prepared, Row};
use crate::delete::{self, Deleted, Picked, Retention, Scope};
use crate::files::{self, FileLock};
use crate::history::{self, Page, PageCursor};
use crate::pending::{Pending, Reply};
use crate::readers::{Reads, in_one_moment};
use crate::stats::{self, Size, Stats};
use crate::streams::{self, ErasedStreams, KeptStream, StreamCheckpoint, Total};
use crate::transfer::{self, Chunk, Export, ExportCursor, Imported, Lines};
use crate::turn::{
    Address, Appended, BESIDE_BYTES_MAX, Conversation, History, NewTurn, Summary, Turn, VaultRecords, check_tenant,
};
use crate::usage::{self, UsageFilter, UsageRow};
use crate::vault;
use crate::writer::{Changes, Writer};
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tidegate_base::StreamId;

/// Messages up to this are cut where they are asked for: it takes less than a hand-over.
const CUT_AT_ONCE_BYTES: u64 = 16 << 10;
/// Most threads that read.
const READERS_MAX: usize = 16;

/// What an acknowledged change survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The loss of power: it is synchronised to the disk.
    #[default]
    PowerLoss,
    /// The death of the process only. For tests and scratch files.
    None,
}

/// The numbers a store runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Threads that read, 1 to 16.
    pub readers: usize,
    /// Most bytes of one conversation: what a fork copies at most, blobs apart.
    pub conversation_bytes_max: u64,
    /// Most bytes of the database's file, the log beside it apart; `None` for as many as the disk has.
    pub file_bytes_max: Option<u64>,
    /// What an acknowledged change survives.
    pub durability: Durability,
    /// Other processes may have the file open at the same time, if they open it so: for what is only
    /// added to, and not for conversations.
    pub shared: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            readers: 2,
            conversation_bytes_max: 1 << 30,
            file_bytes_max: None,
            durability: Durability::PowerLoss,
            shared: false,
        }
    }
}

/// An open conversation log. Dropping it finishes what was asked for and closes the file; that blocks.
pub struct Store {
    changes: Changes,
    reads: Reads,
    settings: Settings,
    /// Bytes of all durable streams.
    streams: Total,
    /// Reading threads first: a deletion they lead needs the writer.
    threads: Vec<JoinHandle<()>>,
    /// Held until the last thread has ended.
    lock: FileLock,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.lock.path()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the log at `path`, or makes it; its folder must be there. Blocks for the time of a few
    /// disk accesses, or of a migration.
    pub fn open(path: &Path, settings: Settings) -> Result<Self, StoreError> {
        Store::with(FileLock::take(path, settings.shared)?, settings, false)
    }

    /// Opens the log at `path` beside a process that has it open and has passed on its lock
    /// ([`Store::share`]). Both may write; that no conversation is in the memory of both is theirs to see to.
    pub fn open_beside(path: &Path, lock: OwnedFd, settings: Settings) -> Result<Self, StoreError> {
        Store::with(FileLock::adopt(path, lock.into())?, settings, true)
    }

    /// Its place, and its lock for a process that takes over. Nobody else can open the log before both
    /// have ended.
    pub fn share(&self) -> Result<(PathBuf, OwnedFd), StoreError> {
        Ok((self.lock.path().to_path_buf(), self.lock.share()?))
    }

    /// Says again that this process has the lock: one that it was passed on to has ended, and whoever is
    /// refused meanwhile is to hear of one that lives.
    pub fn holds(&self) -> Result<(), StoreError> {
        self.lock.say_who().map_err(|error| StoreError::of_file(self.lock.path(), &error))
    }

    fn with(lock: FileLock, settings: Settings, others: bool) -> Result<Self, StoreError> {
        let writing = files::open_writer(&lock, &settings, others)?;
        let readers = settings.readers.clamp(1, READERS_MAX);
        let reading: Vec<_> = (0..readers).map(|_| files::open_reader(lock.path())).collect::<Result<_, _>>()?;
        let mut store = Store {
            changes: Changes::new(),
            reads: Reads::new(),
            settings,
            streams: Total::default(),
            threads: Vec::new(),
            lock,
        };
        for connection in reading {
            let reads = store.reads.clone();
            store.start("store-reader", move || reads.run(&connection))?;
        }
        let writer = Writer::new(writing, store.changes.clone());
        store.start("store-writer", move || writer.run())?;
        Ok(store)
    }

    /// Opens an empty log whose files have no names any more when this returns: they are made in
    /// `folder` and are removed while they are open. So however the process ends, nothing is left of
    /// it, and nobody else can open it.
    pub fn open_unnamed(folder: &Path, settings: Settings) -> Result<Self, StoreError> {
        let store = Store::open(&folder.join("unnamed.db"), settings)?;
        files::unname(store.path())?;
        Ok(store)
    }

    fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        self.threads.push(thread.map_err(|error| StoreError::Failed(format!("no thread for the store: {error}")))?);
        Ok(())
    }

    /// The database's file, or where it was made.
    pub fn path(&self) -> &Path {
        self.lock.path()
    }

    /// Appends a turn; its conversation is made by the first. [`StoreError::Conflict`] if the next
    /// number is not the expected one. Two appends of which neither waits for the other may be made in
    /// either order.
    pub fn append(&self, turn: NewTurn) -> Pending<Appended> {
        let window_bytes = turn.window.as_ref().map_or(0, |state| state.len() as u64);
        if let Err(error) = turn.check().and_then(|()| check_window(window_bytes)) {
            return Pending::failed(error);
        }
        let bytes = turn.content.bytes();
        let bytes_max = self.settings.conversation_bytes_max;
        let changes = self.changes.clone();
        let work = move |reply: Reply<Appended>| match Prepared::new(turn) {
            Ok(turn) => changes.ask_for(turn.held(), move |db| append::append(db, &turn, bytes_max), reply),
            // Who does not listen any more does not want to know.
            Err(error) => drop(reply.send(Err(error))),
        };
        self.prepare(bytes, work)
    }

    /// Runs `work` here if it is small, or on a reading thread.
    fn prepare<T: Send + 'static>(&self, bytes: u64, work: impl FnOnce(Reply<T>) + Send + 'static) -> Pending<T> {
        if bytes > CUT_AT_ONCE_BYTES {
            let held = usize::try_from(bytes).unwrap_or(usize::MAX);
            return self.reads.ask_with(held, move |_, reply| work(reply));
        }
        let (reply, pending) = Pending::new();
        work(reply);
        pending
    }

    /// A conversation with its turns from number `from` on, as many as 64 MiB hold.
    pub fn read(&self, address: Address, from: u32) -> Pending<History> {
        self.reads.ask(move |db| history::read(db, &address, from))
    }

    /// The same, made into something else by `make` on the reading thread: what takes long is not done
    /// where it is asked for.
    pub fn read_into<T: Send + 'static>(
        &self,
        address: Address,
        from: u32,
        make: impl FnOnce(History) -> Result<T, StoreError> + Send + 'static,
    ) -> Pending<T> {
        self.reads.ask_with(0, move |db, reply| {
            // Made after the read has ended: a read keeps the write-ahead log from being cut.
            let read = in_one_moment(db, |db| history::read(db, &address, from));
            // Who does not listen any more does not want to know, nor is anything made for it.
            if !reply.is_closed() {
                let _ = reply.send(read.and_then(make));
            }
        })
    }

    /// A conversation without its turns.
    pub fn conversation(&self, address: Address) -> Pending<Conversation> {
        self.reads.ask(move |db| history::find(db, &address).map(|(_, conversation)| conversation))
    }

    /// At most `turns_max` turns of a conversation from number `from` on, at most `bytes_max` but at
    /// least one, and where to go on.
    pub fn turns(
        &self,
        address: Address,
        from: u32,
        turns_max: u32,
        bytes_max: u64,
    ) -> Pending<(Vec<Turn>, Option<u32>)> {
        self.reads.ask(move |db| {
            let (key, _) = history::find(db, &address)?;
            history::turns(db, key, from, turns_max, bytes_max)
        })
    }

    /// The number of the turn that came of a request whose body has this SHA-256, if it is one of the
    /// last eight: a retry of it need not be asked again.
    pub fn find_request(&self, address: Address, hash: [u8; 32]) -> Pending<Option<u32>> {
        self.reads.ask(move |db| history::find_request(db, &address, &hash))
    }

    /// A page of at most `rows` (1 to 1,000) conversations of `tenant`, those that changed last first.
    pub fn list(&self, tenant: &str, cursor: Option<PageCursor>, rows: u32) -> Pending<Page> {
        let tenant = tenant.to_owned();
        self.reads.ask(move |db| history::list(db, &tenant, cursor, rows))
    }

    /// The vault of a conversation; `None` if it has none, or is not there.
    pub fn vault(&self, address: Address) -> Pending<Option<VaultRecords>> {
        self.reads.ask(move |db| vault::read(db, &address))
    }

    /// Conversations of all tenants that have a vault, `rows` at most, and where to go on; 0 begins.
    pub fn vaults(&self, after: i64, rows: u32) -> Pending<(Vec<Address>, Option<i64>)> {
        self.reads.ask(move |db| vault::list(db, after, rows))
    }

    /// Puts a vault's records, sealed anew and in the order in which they were read, in the place of
    /// those that are there. [`StoreError::Busy`] if more came meanwhile: read again.
    pub fn reseal(&self, address: Address, vault: VaultRecords) -> Pending<()> {
        if let Err(error) = vault.check() {
            return Pending::failed(error);
        }
        let held = usize::try_from(vault.bytes()).unwrap_or(usize::MAX);
        self.changes.ask(held, move |db| vault::reseal(db, &address, &vault))
    }

    /// Adds a summary beside the turns it stands for.
    pub fn add_summary(&self, address: Address, summary: Summary) -> Pending<()> {
        if let Err(error) = summary.check() {
            return Pending::failed(error);
        }
        let bytes_max = self.settings.conversation_bytes_max;
        self.changes.ask(summary.body.len(), move |db| append::add_summary(db, &address, &summary, bytes_max))
    }

    /// Keeps a window's state in place of the one before; it was made when there were `turns` turns.
    pub fn put_window(&self, address: Address, turns: u32, state: Vec<u8>) -> Pending<()> {
        if let Err(error) = check_window(state.len() as u64) {
            return Pending::failed(error);
        }
        self.changes.ask(state.len(), move |db| {
            let row = Row::of(db, &address)?;
            append::put_window(db, row.conversation, turns, &state)
        })
    }

    /// Makes the conversation `name` of the turns 1 to `turn` of `from`. [`StoreError::Exists`] if
    /// there is one of that name.
    pub fn fork(&self, from: Address, turn: u32, name: &str, now_ms: u64) -> Pending<()> {
        let name = name.to_owned();
        self.changes.ask(0, move |db| append::fork(db, &from, turn, &name, now_ms))
    }

    /// Deletes a conversation for good.
    pub fn delete(&self, address: Address) -> Pending<Deleted> {
        self.changes.ask_clearing(move |db| delete::delete_one(db, &address), delete::note_cleared)
    }

    /// Deletes for good every conversation in which the end user took part, up to 1,024 a call.
    pub fn erase_end_user(&self, tenant: &str, end_user: &str) -> Pending<Deleted> {
        self.delete_all(Scope::EndUser { tenant: tenant.to_owned(), end_user: end_user.to_owned() })
    }

    /// Deletes for good what `tenant` no longer keeps, what changed longest ago first, up to 1,024
    /// conversations a call.
    pub fn retain(&self, tenant: &str, keep: Retention, now_ms: u64) -> Pending<Deleted> {
        self.delete_all(Scope::Retention { tenant: tenant.to_owned(), keep, now_ms })
    }

    /// What a deletion of many would delete, up to 1,024: whoever has one of them in use can see to
    /// that first.
    pub fn pick(&self, scope: Scope) -> Pending<Picked> {
        self.reads.ask(move |db| delete::pick(db, &scope))
    }

    /// Deletes for good what was picked, as far as it did not change since.
    pub fn delete_picked(&self, picked: Picked) -> Pending<Deleted> {
        let changes = self.changes.clone();
        self.reads.ask_with(0, move |_, reply| {
            // Who does not listen any more does not want to know.
            let _ = reply.send(delete::delete_picked(&changes, picked));
        })
    }

    fn delete_all(&self, scope: Scope) -> Pending<Deleted> {
        let changes = self.changes.clone();
        self.reads.ask_with(0, move |db, reply| delete::run(db, &changes, &scope, reply))
    }

    /// Writes a checkpoint of a durable stream. [`StoreError::Exists`] if the id is another tenant's,
    /// [`StoreError::StreamsFull`] if all streams together have no room for it.
    pub fn checkpoint_stream(&self, checkpoint: StreamCheckpoint) -> Pending<()> {
        if let Err(error) = checkpoint.check() {
            return Pending::failed(error);
        }
        let held = checkpoint.segment.len() + checkpoint.head.head.len();
        let total = self.streams.clone();
        self.changes.ask(held, move |db| streams::put(db, &checkpoint, &total))
    }

    /// The stream `id` of `tenant`, and of its client with the upstream credential `own`, with its
    /// segments.
    pub fn stream(&self, tenant: &str, own: Option<u64>, id: StreamId) -> Pending<KeptStream> {
        let tenant = tenant.to_owned();
        self.reads.ask(move |db| streams::read(db, &tenant, own, id))
    }

    /// Deletes streams that were last written before `before_ms`, a few hundred a call; those that are
    /// `running` count as written now. How many, and whether there may be more.
    pub fn retain_streams(&self, before_ms: u64, now_ms: u64, running: BTreeSet<StreamId>) -> Pending<(u64, bool)> {
        self.changes.ask(0, move |db| streams::retain(db, before_ms, now_ms, &running))
    }

    /// Deletes streams until all have at most `bytes`, those that were written longest ago first and none
    /// that is `running`, a few hundred a call. How many, and whether more are to go.
    pub fn shed_streams(&self, bytes: u64, running: BTreeSet<StreamId>, only_ended: bool) -> Pending<(u64, bool)> {
        self.changes.ask(0, move |db| streams::shed(db, bytes, &running, only_ended))
    }

    /// Deletes for good the streams of an end user of `tenant`; those of a conversation go with it.
    pub fn erase_streams(&self, tenant: &str, end_user: &str) -> Pending<ErasedStreams> {
        let (tenant, end_user) = (tenant.to_owned(), end_user.to_owned());
        let erase = move |db: &Connection| streams::erase_user(db, &tenant, &end_user);
        self.changes.ask_clearing(erase, ErasedStreams::note_cleared)
    }

    /// Adds to the rows of what was used, at most ten thousand in a call: all of them or none.
    pub fn add_usage(&self, rows: Vec<UsageRow>) -> Pending<()> {
        if let Err(error) = usage::check(&rows) {
            return Pending::failed(error);
        }
        let held = rows.iter().map(|row| size_of::<UsageRow>() + row.tenant.len() + row.model.len()).sum();
        self.changes.ask(held, move |db| usage::add(db, &rows))
    }

    /// The rows of a filter, by day, tenant, model and kind; one more than it asks for, if there are.
    pub fn usage(&self, filter: UsageFilter) -> Pending<Vec<UsageRow>> {
        self.reads.ask(move |db| usage::read(db, &filter))
    }

    /// What each tenant's usage of the days `from` to `to` cost, billionths of a US dollar.
    pub fn spent(&self, from: u32, to: u32) -> Pending<Vec<(String, u64)>> {
        self.reads.ask(move |db| usage::spent(db, from, to))
    }

    /// Deletes what was used before `day`, a thousand rows a call; whether there may be more.
    pub fn retain_usage(&self, day: u32) -> Pending<bool> {
        self.changes.ask(0, move |db| usage::retain(db, day))
    }

    /// Rewrites the file without what is unused: the second half of deleting for good. SQLite moves rows
    /// between pages, and a copy may stay behind in a page's unused space after the row was deleted.
    /// Takes as long as reading and writing the whole file twice; appends wait meanwhile, reads do not.
    /// [`StoreError::Busy`] if a long read kept the write-ahead log from being cut: call again.
    pub fn compact(&self) -> Pending<()> {
        self.changes.ask_compaction()
    }

    /// The lines of an export after `cursor`, some 8 MiB.
    pub fn export(&self, what: Export, cursor: Option<ExportCursor>) -> Pending<Chunk> {
        self.reads.ask(move |db| transfer::export(db, &what, cursor))
    }

    /// Imports whole lines for `tenant`, up to 160 MiB at once: all of them, or none. Lines of one
    /// conversation must come in their order.
    pub fn import(&self, tenant: &str, lines: Vec<u8>) -> Pending<Imported> {
        if let Err(error) = check_tenant(tenant) {
            return Pending::failed(error);
        }
        let (tenant, bytes_max) = (tenant.to_owned(), self.settings.conversation_bytes_max);
        let changes = self.changes.clone();
        let held = lines.len();
        self.reads.ask_with(held, move |_, reply| match transfer::prepare(&tenant, &lines) {
            Ok(lines) => changes.ask_for(held, move |db| transfer::import(db, &lines, bytes_max), reply),
            // Who does not listen any more does not want to know.
            Err(error) => drop(reply.send(Err(error))),
        })
    }

    /// The first half of an import: reads and checks lines, and writes nothing.
    pub fn read_lines(&self, tenant: &str, lines: Vec<u8>) -> Pending<Lines> {
        let tenant = tenant.to_owned();
        self.reads.ask_with(lines.len(), move |_, reply| {
            let read = check_tenant(&tenant).and_then(|()| transfer::prepare(&tenant, &lines));
            // Who does not listen any more does not want to know.
            let _ = reply.send(read);
        })
    }

    /// Its second half: writes them, all or none.
    pub fn import_lines(&self, lines: Lines) -> Pending<Imported> {
        let bytes_max = self.settings.conversation_bytes_max;
        self.changes.ask(lines.held, move |db| transfer::import(db, &lines, bytes_max))
    }

    /// What the file takes; cheap enough to be asked every minute.
    pub fn size(&self) -> Pending<Size> {
        self.reads.ask(stats::size)
    }

    /// Every tenant that has a conversation, by name.
    pub fn tenants(&self) -> Pending<Vec<String>> {
        self.reads.ask(stats::tenants)
    }

    /// What there is, in numbers.
    pub fn stats(&self) -> Pending<Stats> {
        self.reads.ask(stats::stats)
    }

    /// Looks at every page and every rule; what is wrong, in words. Reads the whole file.
    pub fn check(&self) -> Pending<Vec<String>> {
        self.reads.ask(stats::check)
    }
}

fn check_window(size: u64) -> Result<(), StoreError> {
    if size > BESIDE_BYTES_MAX {
        return Err(StoreError::TooLarge { what: "bytes of a window's state", size, max: BESIDE_BYTES_MAX });
    }
    Ok(())
}

impl Drop for Store {
    fn drop(&mut self) {
        // Readers first: what they lead still needs the writer. The last connection to close copies
        // the WAL into the database and deletes it.
        self.reads.close();
        let writer = self.threads.pop();
        self.threads.drain(..).for_each(|reader| drop(reader.join()));
        self.changes.close();
        writer.map(JoinHandle::join).map(drop).unwrap_or_default();
    }
}
