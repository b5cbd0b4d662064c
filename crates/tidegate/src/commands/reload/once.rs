//! Files that are read once, however often they are asked for: the settings and what is compared of them
//! later are of the same moment, and what is changed meanwhile is seen as a change to come.
//!
//! A pipe cannot be read twice at all: what came out of it at the start is what it holds from then on.

use super::watch::{Stamps, stamp};
use crate::config::Sources;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

type Read = Result<Vec<u8>, (io::ErrorKind, String)>;

/// Variables of the environment, and files as they were when they were first asked for.
#[derive(Default)]
pub(in super::super) struct Once {
    read: RefCell<BTreeMap<PathBuf, Read>>,
    pipes: RefCell<BTreeMap<PathBuf, Read>>,
    /// What each path led to before it was read.
    stamps: RefCell<Stamps>,
    /// The process serves: nothing may be waited for.
    is_later: bool,
}

impl Once {
    /// For another reading of all of them, but for the pipes.
    pub(super) fn again(&self) -> Self {
        Once { pipes: RefCell::new(self.pipes.borrow().clone()), is_later: true, ..Once::default() }
    }

    /// What the files were before they were read.
    pub(super) fn stamps(&self) -> Stamps {
        self.stamps.borrow().clone()
    }

    fn read(&self, path: &Path) -> Read {
        let is_pipe = std::fs::metadata(path).is_ok_and(|about| about.file_type().is_fifo());
        let kept = if is_pipe { &self.pipes } else { &self.read };
        if let Some(read) = kept.borrow().get(path) {
            return read.clone();
        }
        if !is_pipe {
            // One of a pipe changes by being read.
            self.stamps.borrow_mut().insert(path.to_path_buf(), stamp(path));
        }
        if is_pipe && self.is_later {
            // Whoever is to write into it may never do so.
            return Err((io::ErrorKind::Unsupported, "it is a pipe, and those are read at a start only".to_owned()));
        }
        let read = std::fs::read(path).map_err(|e| (e.kind(), e.to_string()));
        kept.borrow_mut().insert(path.to_path_buf(), read.clone());
        read
    }
}

impl Sources for Once {
    fn variable(&self, name: &str) -> Option<String> {
        super::super::env(name)
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.read(path).map_err(|(kind, why)| io::Error::new(kind, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_it_was_when_it_was_first_read_and_a_pipe_for_ever() {
        let folder = std::env::temp_dir().join(format!("tidegate-once-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, pipe) = (folder.join("a.key"), folder.join("b.key"));
        std::fs::write(&path, "one").unwrap();
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let once = Once::default();
        let before = stamp(&path);
        assert_eq!(once.file(&path).unwrap(), b"one");
        std::fs::write(&path, "another").unwrap();
        assert_eq!(once.file(&path).unwrap(), b"one");
        assert!(once.stamps()[&path] == before && before != stamp(&path), "it is to be found that it changed");
        let writes = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::write(pipe, "secret").unwrap()
        });
        assert_eq!(once.file(&pipe).unwrap(), b"secret");
        writes.join().unwrap();
        let again = once.again();
        assert_eq!((again.file(&path).unwrap(), again.file(&pipe).unwrap()), (b"another".to_vec(), b"secret".to_vec()));
        assert_eq!(again.file(&folder.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let other = folder.join("c.key");
        assert!(std::process::Command::new("mkfifo").arg(&other).status().unwrap().success());
        let error = again.file(&other).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported, "nobody waits for a writer while clients wait: {error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
