//! The conversation log: what was said, kept so that no crash takes it.
//!
//! An SQLite file in WAL mode, one thread that writes and a few that read. A turn is written when it
//! ends and acknowledged when it is on the disk; everything that waits meanwhile is committed
//! together. `docs/formats/conversations.md` draws the bytes and argues each crash; what a window is
//! and which part of a conversation is sent is not this room's business. It reads no clock: `now` is
//! an argument, in wall-clock milliseconds.
//!
//! ```no_run
//! # use tidegate_store::{Address, NewTurn, Settings, Store, StoreError, TurnContent};
//! # fn f(now_ms: u64) -> Result<(), StoreError> {
//! let store = Store::open("conversations.db".as_ref(), Settings::default())?;
//! let address = Address::new("team-a", "support-17")?;
//! let content = TurnContent::appended(br#"[{"role":"user","content":"Hello"}]"#.to_vec());
//! let turn = NewTurn { address: address.clone(), expected: Some(1), now_ms, content, window: None, vault: None };
//! assert_eq!(store.append(turn).wait()?.number, 1);
//! assert_eq!(store.read(address, 1).wait()?.turns.len(), 1);
//! # Ok(())
//! # }
//! ```

mod append;
mod delete;
mod error;
mod files;
mod history;
mod lines;
mod pending;
mod pieces;
mod queue;
mod readers;
mod schema;
mod stats;
mod store;
mod streams;
mod transfer;
mod turn;
mod usage;
mod vault;
mod writer;

pub use delete::{Deleted, Gone, Picked, Retention, Scope};
pub use error::StoreError;
pub use history::{Page, PageCursor};
pub use pending::Pending;
pub use stats::{Size, Stats, TenantStats};
pub use store::{Durability, Settings, Store};
pub use streams::{ErasedStreams, KeptStream, StreamCheckpoint, StreamHead};
pub use transfer::{Chunk, Export, ExportCursor, IMPORT_BYTES_MAX, Imported, Lines};
pub use turn::{
    Address, Appended, Conversation, History, NewTurn, Status, Summary, TokenCounts, Turn, TurnContent, VaultRecord,
    VaultRecords, Window,
};
pub use usage::{UsageFilter, UsageRow};
