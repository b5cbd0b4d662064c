//! Rules about Rust files: each opens with its idea, and thinkers only think.

use super::{Finding, Repository, manifest};

/// Rooms that decide: no async, sockets, files, clock, or log. Rooms that are not there are ignored.
const THINKERS: [&str; 8] = ["base", "wire", "conversation", "redact", "ingest", "schedule", "observe", "simulator"];

/// Crates a thinker does not depend on.
const HANDS: [&str; 2] = ["tokio", "tracing"];

/// Every `.rs` file begins with `//!`.
pub(super) fn open_with_idea(repository: &Repository) -> Finding {
    let sources = repository.files.iter().filter(|name| name.ends_with(".rs"));
    let without = sources.filter(|name| !repository.text(name).is_some_and(|text| opens_with_idea(&text)));
    Finding::Broken(without.map(|name| format!("{name} does not open with `//!`")).collect())
}

fn opens_with_idea(text: &str) -> bool {
    let idea = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!"));
    idea.and_then(|line| line.strip_prefix("//!")).is_some_and(|idea| !idea.trim().is_empty())
}

/// Thinkers neither depend on hands nor reach for what hands own.
pub(super) fn thinkers_think(repository: &Repository) -> Finding {
    let mut broken = Vec::new();
    for room in THINKERS {
        let manifest = format!("crates/{room}/Cargo.toml");
        let used = manifest::dependencies(&repository.text(&manifest).unwrap_or_default()).into_iter();
        let used =
            used.filter(|(_, name)| HANDS.iter().any(|hand| name == hand || name.starts_with(&format!("{hand}-"))));
        broken.extend(used.map(|(line, name)| format!("{manifest}:{line}: a thinker does not depend on {name}")));
        for name in repository.under(&format!("crates/{room}/src"), "rs") {
            let text = repository.text(name).unwrap_or_default();
            broken.extend(
                reaches(&text).into_iter().map(|(line, what)| format!("{name}:{line}: a thinker has no {what}")),
            );
        }
    }
    Finding::Broken(broken)
}

/// What the code of a file (comments and tests aside) takes from the outside world, by line.
fn reaches(text: &str) -> Vec<(usize, &'static str)> {
    const TAKES: [(&str, &[&str]); 4] = [
        ("std::net", &["std::net"]),
        ("std::fs", &["std::fs"]),
        ("std::time::Instant", &["time::Instant", "Instant::now"]),
        ("SystemTime::now", &["SystemTime::now"]),
    ];
    let mut found = Vec::new();
    let mut import = String::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        let code = line.split("//").next().unwrap_or("");
        let taken = TAKES.iter().filter(|(_, needles)| needles.iter().any(|needle| code.contains(needle)));
        found.extend(taken.map(|(what, _)| (index + 1, *what)));
        // `use std::{fs, time::{Duration, Instant}};`, perhaps over several lines, hides the paths.
        if import.is_empty() && code.trim_start().starts_with("use std::") && code.contains('{') {
            import.push(' ');
        }
        if !import.is_empty() {
            import.push_str(code);
            if code.contains(';') {
                let words: Vec<&str> = import.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
                let hidden = [("net", TAKES[0].0), ("fs", TAKES[1].0), ("Instant", TAKES[2].0)];
                let hidden = hidden.iter().filter(|(word, _)| words.contains(word));
                found.extend(hidden.map(|(_, what)| (index + 1, *what)));
                import.clear();
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idea_is_the_first_thing_in_a_file() {
        assert!(opens_with_idea("//! Queues.\nuse x;\n"));
        assert!(opens_with_idea("#![allow(x)]\n//! Queues.\n"));
        assert!(!opens_with_idea("use x;\n//! Queues.\n"));
        assert!(!opens_with_idea("//!\n"));
        assert!(!opens_with_idea(""));
    }

    #[test]
    fn what_a_thinker_may_not_have_is_found_however_it_is_imported() {
        assert_eq!(reaches("use std::net::TcpStream;\n"), [(1, "std::net")]);
        assert_eq!(reaches("fn f() { let t = std::time::Instant::now(); }\n"), [(1, "std::time::Instant")]);
        assert_eq!(reaches("use std::{\n    fmt,\n    fs,\n};\n"), [(4, "std::fs")]);
        assert_eq!(reaches("use std::time::{Duration, Instant};\n"), [(1, "std::time::Instant")]);
        assert_eq!(reaches("let now = SystemTime::now();\n"), [(1, "SystemTime::now")]);
    }

    #[test]
    fn words_tests_and_durations_are_free() {
        assert_eq!(reaches("//! Never std::net.\nuse std::time::Duration;\nuse std::fmt::{self, Write};\n"), []);
        assert_eq!(reaches("use std::fmt;\n#[cfg(test)]\nmod tests { use std::fs; }\n"), []);
    }
}
