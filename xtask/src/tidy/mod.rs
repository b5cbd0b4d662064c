//! `cargo xtask tidy`: rules of the repository that no compiler knows, each as a test with a name.
//!
//! A rule is a function from the repository to what it found; it reads files and changes none. A
//! rule about a file that is not there yet says so and is skipped, except where the file must be.

mod arrows;
mod manifest;
mod pages;
mod sources;
mod texts;

use crate::process;
pub(crate) use pages::without_comments;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The files of the repository.
struct Repository {
    root: PathBuf,
    /// Committed or staged, with `/` between folders, sorted.
    files: Vec<String>,
}

impl Repository {
    fn open(root: PathBuf) -> Result<Self, String> {
        let mut git = process::command("git");
        git.current_dir(&root).args(["ls-files", "-z", "--cached"]).stderr(Stdio::inherit());
        let listed = git.output().map_err(|error| format!("git ls-files: {error}"))?;
        if !listed.status.success() {
            return Err(format!("git ls-files: {}", listed.status));
        }
        let names = String::from_utf8_lossy(&listed.stdout).into_owned();
        let mut files: Vec<String> = names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        // A file that is deleted but not yet committed so is no file any more.
        files.retain(|name| root.join(name).is_file());
        files.sort();
        Ok(Repository { root, files })
    }

    /// The text of a file; `None` if there is none or it is not text.
    fn text(&self, name: &str) -> Option<String> {
        String::from_utf8(std::fs::read(self.root.join(name)).ok()?).ok()
    }

    fn exists(&self, name: impl AsRef<Path>) -> bool {
        self.root.join(name).exists()
    }

    /// Files under `folder/` whose name ends in `.extension`.
    fn under<'a>(&'a self, folder: &'a str, extension: &'a str) -> impl Iterator<Item = &'a str> {
        let files = self.files.iter().map(String::as_str);
        files.filter(move |name| {
            name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
                && Path::new(name).extension().is_some_and(|e| e == extension)
        })
    }

    /// The rooms: folders of `crates/` that have a manifest.
    fn rooms(&self) -> Vec<&str> {
        let inside = self.files.iter().filter_map(|name| name.strip_prefix("crates/"));
        inside.filter_map(|rest| rest.strip_suffix("/Cargo.toml")).filter(|room| !room.contains('/')).collect()
    }
}

/// What a rule found.
enum Finding {
    /// These break it; none is a pass.
    Broken(Vec<String>),
    /// It has nothing to look at.
    Skipped(&'static str),
}

type Rule = fn(&Repository) -> Finding;

const RULES: [(&str, Rule); 8] = [
    ("rooms use only what ARCHITECTURE.md lets them", arrows::rule),
    ("paths that ARCHITECTURE.md names are there", pages::paths_exist),
    ("every source file opens with its idea", sources::open_with_idea),
    ("every public error code has its entry in docs/errors.md", pages::codes_documented),
    ("both READMEs give the same commands", pages::same_commands),
    ("README blocks say how they are tested", pages::blocks_say_how),
    ("no text names a place of one machine or a package registry", texts::rule),
    ("thinkers have no async, sockets, files, clocks or log", sources::thinkers_think),
];

/// Runs all rules.
pub(crate) fn run() -> Result<(), String> {
    let repository = Repository::open(process::root())?;
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, rule) in RULES {
        match rule(&repository) {
            Finding::Broken(findings) if findings.is_empty() => {
                passed += 1;
                println!("rule: {name} ... ok");
            }
            Finding::Broken(findings) => {
                failed += 1;
                println!("rule: {name} ... FAILED");
                findings.iter().for_each(|finding| println!("      {finding}"));
            }
            Finding::Skipped(why) => {
                skipped += 1;
                println!("rule: {name} ... skipped: {why}");
            }
        }
    }
    println!("tidy: {passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { Ok(()) } else { Err(format!("{failed} rules of the repository are broken")) }
}
