//! The log's promises, from outside: what is acknowledged is there, whatever happened meanwhile.
//!
//! Content is made from numbers (`story.rs`), so every turn that is found can be compared byte for
//! byte. Some tests need another process: this program starts itself again as `child.rs`.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]
#![allow(clippy::print_stdout, reason = "why a test was passed over, and what it counted")]

mod child;
mod full;
mod killed;
mod model;
mod operations;
mod others;
mod passed_on;
mod power;
mod privacy;
mod story;
mod streams;
mod traced;
mod usage;
mod vaults;
mod versions;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_store::{Settings, Store};

/// A folder of a test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("tidegate-store-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("log.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> Store {
    Store::open(path, Settings::default()).unwrap()
}
