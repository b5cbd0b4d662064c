//! Conversations through the door, when things go wrong: what a client was told is in the file.
//!
//! | file | what it is |
//! |---|---|
//! | `line` | a client's connection, without threads |
//! | `heard` | an answer as an SDK puts it together, written apart from the gateway's own |
//! | `crowd` | a thousand conversations at once, and what each of them knows |
//! | `killed` | the gateway killed under them |
//! | `traced` | the order of system calls around an answer's end |
//! | `broken` | turns that do not come to their end |
//!
//! The runs are short by default. `cargo xtask durability` makes them longer.

mod broken;
mod crowd;
mod heard;
mod killed;
mod line;
mod traced;

use std::path::Path;
use std::time::Duration;
use tidegate_store::{Address, Settings, Store, StoreError, Turn};

/// The tenant of whoever sends no key.
const TENANT: &str = "default";
/// Longest time in which one answer may come, on a machine under load.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A number from the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect(name))
}

/// The simulated API without its quota and its pauses: these tests are about neither.
const QUICK_SCENARIO: &str =
    "[pace]\nhead = \"0 ms\"\nfirst = \"0 ms\"\nevent = \"0 ms\"\n[quota]\ntier = \"unlimited\"\n";

/// The log of a gateway that has ended.
fn open(file: &str) -> Store {
    Store::open(Path::new(file), Settings::default()).unwrap()
}

/// Every turn of a conversation.
fn turns(store: &Store, name: &str) -> Vec<Turn> {
    let (mut turns, mut from) = (Vec::new(), 1);
    loop {
        match store.read(Address::new(TENANT, name).unwrap(), from).wait() {
            Err(StoreError::NotFound) => return turns,
            Err(error) => panic!("{name}: {error}"),
            Ok(read) => {
                turns.extend(read.turns);
                let Some(next) = read.next else { return turns };
                from = next;
            }
        }
    }
}

/// A runtime for clients: one thread, as their number is no reason for more.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
