//! What a configuration is made of beside its own text: variables of the environment, and files.
//!
//! Whoever reads a configuration says where they come from, so that one who looks at a file twice can see
//! to it that both looks find the same.

use std::io;
use std::path::Path;

/// Variables and files.
pub trait Sources {
    /// The variable called `name`, if it is set.
    fn variable(&self, name: &str) -> Option<String>;

    /// The bytes of the file at `path`.
    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}

/// The text of the file at `path`.
pub(super) fn text(sources: &dyn Sources, path: &Path) -> io::Result<String> {
    let bytes = sources.file(path)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not valid UTF-8"))
}

/// This machine's files, and variables that somebody looks up.
pub(super) struct OfMachine<'a>(pub(super) &'a dyn Fn(&str) -> Option<String>);

impl Sources for OfMachine<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        (self.0)(name)
    }
}

/// The same, but that no variable is missed: what it would hold will not be used.
pub(super) struct NotMissed<'a>(pub(super) &'a dyn Sources);

impl Sources for NotMissed<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.variable(name).or_else(|| Some("unused".to_owned()))
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.file(path)
    }
}
