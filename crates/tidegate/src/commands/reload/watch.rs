//! Whether a file changed: looked at twice a second, by its inode, size and time.
//!
//! Editors and `tidegate key` put a new file in the old one's place, some services link to another one;
//! whatever it was, the path then leads to something else, and a look by the path finds it. A change
//! counts when the next look finds the same: what is being written is not read half way.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_transport::Clock;

/// Between two looks. A change is taken after the second look that finds it, so within a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a path leads to: device, inode, size, times of content and of the inode; `None` for nothing.
pub(super) type Stamp = Option<(u64, u64, u64, [i64; 4])>;

/// What all paths lead to.
pub(super) type Stamps = BTreeMap<PathBuf, Stamp>;

pub(super) fn stamp(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok()?;
    let times = [about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec()];
    Some((about.dev(), about.ino(), about.size(), times))
}

fn look(paths: impl IntoIterator<Item = PathBuf>) -> Stamps {
    paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect()
}

/// The files that are watched.
pub(super) struct Watch {
    /// As they were when they were last read.
    read: Stamps,
    /// As they were at the last look.
    seen: Stamps,
}

impl Watch {
    /// Watches `paths`, which were as in `read` before they were read.
    pub(super) fn on(read: Stamps, paths: Vec<PathBuf>) -> Self {
        let mut watch = Watch { read: Stamps::new(), seen: Stamps::new() };
        watch.go_on(read, paths);
        watch
    }

    /// Waits until something has changed and come to rest. Cancel-safe.
    pub(super) async fn changed(&mut self, clock: Clock) {
        loop {
            clock.sleep_until(clock.now() + LOOK_EVERY).await;
            if self.look() {
                return;
            }
        }
    }

    /// Looks once; whether something is otherwise than it was read, and was so at the last look.
    fn look(&mut self) -> bool {
        let now = look(self.read.keys().cloned());
        let rests = now == self.seen;
        self.seen = now;
        rests && self.seen != self.read
    }

    /// What is going to be read.
    pub(super) fn settle(&mut self) -> Stamps {
        look(self.read.keys().cloned())
    }

    /// Goes on from what was read; `paths` are to be watched from now on.
    pub(super) fn go_on(&mut self, read: Stamps, paths: Vec<PathBuf>) {
        let known = |path: PathBuf| (read.get(&path).copied().unwrap_or_else(|| stamp(&path)), path);
        self.read = paths.into_iter().map(known).map(|(stamp, path)| (path, stamp)).collect();
        self.seen = self.read.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_it_rests_however_it_was_made() {
        let folder = std::env::temp_dir().join(format!("tidegate-watch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.toml");
        std::fs::write(&path, "one").unwrap();
        let mut watch = Watch::on(look([path.clone()]), vec![path.clone()]);
        assert!(!watch.look() && !watch.look(), "nothing happened");
        let mut change = |how: &dyn Fn()| {
            how();
            assert!(!watch.look(), "it may still be under way");
            assert!(watch.look());
            let read = watch.settle();
            watch.go_on(read, vec![path.clone()]);
            assert!(!watch.look() && !watch.look(), "it was read");
        };
        change(&|| std::fs::write(&path, "two").unwrap());
        change(&|| {
            std::fs::write(folder.join("b"), "two").unwrap();
            std::fs::rename(folder.join("b"), &path).unwrap();
        });
        change(&|| std::fs::remove_file(&path).unwrap());
        change(&|| std::fs::write(&path, "two").unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
