//! No committed text names a place of one machine or the host of a package registry.
//!
//! Whoever clones this has other folders and may use a mirror. The forbidden words are put together
//! from parts here, so that this file keeps its own rule. `Cargo.lock` names the index of crates as
//! cargo writes it.

use super::{Finding, Repository};

/// Folders of one machine, forbidden where a path begins.
const FOLDERS: [&[&str]; 2] = [&["/wo", "rk/"], &["/ro", "ot/"]];

/// Hosts, forbidden anywhere.
const HOSTS: [&[&str]; 8] = [
    &["index.cra", "tes.io"],
    &["static.cra", "tes.io"],
    &["cra", "tes.io-index"],
    &["files.python", "hosted"],
    &["py", "pi.org"],
    &["registry.npm", "js"],
    &["registry.yarn", "pkg"],
    &["deb.deb", "ian.org"],
];

pub(super) fn rule(repository: &Repository) -> Finding {
    let mut broken = Vec::new();
    for name in &repository.files {
        // What is not text has no words.
        let Some(text) = repository.text(name) else { continue };
        let own_index = name == "Cargo.lock" || name.ends_with("/Cargo.lock");
        broken.extend(named(&text, own_index).into_iter().map(|(line, word)| format!("{name}:{line}: {word}")));
    }
    Finding::Broken(broken)
}

/// Forbidden words with their lines.
fn named(text: &str, own_index: bool) -> Vec<(usize, String)> {
    let folders: Vec<String> = FOLDERS.iter().map(|parts| parts.concat()).collect();
    let hosts = HOSTS.iter().map(|parts| parts.concat());
    let hosts: Vec<String> = hosts.filter(|host| !(own_index && host.ends_with("-index"))).collect();
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let begins = |folder: &String| line.match_indices(folder.as_str()).any(|(at, _)| path_begins(&line[..at]));
        let words =
            folders.iter().filter(|folder| begins(folder)).chain(hosts.iter().filter(|host| line.contains(*host)));
        found.extend(words.map(|word| (index + 1, word.clone())));
    }
    found
}

/// Whether a slash after `before` is the first of its path.
fn path_begins(before: &str) -> bool {
    let last = before.chars().next_back();
    !last.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | '*' | '~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_counts_only_where_a_path_begins() {
        let folder = FOLDERS[0].concat();
        assert_eq!(named(&format!("x\ncd {folder}main\n"), false), [(2, folder.clone())]);
        assert_eq!(named(&format!("see docs{folder}plan.md and ~{folder}x\n"), false), []);
    }

    #[test]
    fn only_the_lock_file_may_name_the_index() {
        let line = format!("source = \"registry+https://github.com/rust-lang/{}\"\n", HOSTS[2].concat());
        assert_eq!(named(&line, true), []);
        assert_eq!(named(&line, false).len(), 1);
        assert_eq!(named(&format!("https://{}/x\n", HOSTS[5].concat()), true).len(), 1);
    }
}
