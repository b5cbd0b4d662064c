//! Rules about pages: what they name is there, and what must be named is.

use super::{Finding, Repository};
use crate::markdown::{self, Fence};
use crate::readme::Block;
use std::collections::BTreeSet;

/// Where public machine codes are written.
const ANSWER: &str = "crates/gateway/src/answer.rs";
/// Where each of them is explained.
const ERRORS: &str = "docs/errors.md";

/// Every code span that looks like a path of this repository is one.
pub(super) fn paths_exist(repository: &Repository) -> Finding {
    let Some(page) = repository.text("ARCHITECTURE.md") else {
        return Finding::Skipped("there is no ARCHITECTURE.md yet");
    };
    let named = named_paths(&page);
    let missing = named.iter().filter(|(_, path)| !repository.exists(path));
    Finding::Broken(missing.map(|(line, path)| format!("ARCHITECTURE.md:{line}: there is no {path}")).collect())
}

/// Paths in code spans; of a path with a wildcard, the part before it.
fn named_paths(page: &str) -> Vec<(usize, &str)> {
    let spans = markdown::code_spans(page).into_iter();
    let paths = spans.filter(|(_, span)| {
        let known = ["crates/", "docs/", "tests/", "xtask/"].iter().any(|folder| span.starts_with(folder));
        known && !span.contains(char::is_whitespace)
    });
    paths
        .map(|(line, path)| {
            let path = path.split([':', '#']).next().unwrap_or(path);
            let plain = path.find(['*', '{', '<', '[']).map_or(path, |wild| &path[..wild]);
            let end = if plain.len() < path.len() { plain.rfind('/').unwrap_or(0) } else { plain.len() };
            (line, &plain[..end])
        })
        .collect()
}

/// Every code that the table of answers lists has a heading in the page of errors.
pub(super) fn codes_documented(repository: &Repository) -> Finding {
    let Some(answer) = repository.text(ANSWER) else {
        return Finding::Skipped("there is no table of answers yet");
    };
    let codes = public_codes(&answer);
    if codes.is_empty() {
        return Finding::Broken(vec![format!("{ANSWER} has no `fn public_codes` that lists the codes")]);
    }
    let page = repository.text(ERRORS).unwrap_or_default();
    let headings = markdown::headings(&page);
    let words: BTreeSet<&str> =
        headings.iter().flat_map(|heading| heading.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).collect();
    let missing = codes.into_iter().filter(|code| !words.contains(code));
    Finding::Broken(missing.map(|code| format!("{ERRORS} has no heading for `{code}`")).collect())
}

/// The string constants in the body of `fn public_codes`.
fn public_codes(answer: &str) -> BTreeSet<&str> {
    let list = answer.split_once("fn public_codes()").and_then(|(_, rest)| rest.split_once("\n}"));
    let constants = list.map_or("", |(list, _)| list).split('"').skip(1).step_by(2);
    constants.filter(|code| !code.is_empty() && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).collect()
}

/// The same shell commands in the same order; comments may speak their own language.
pub(super) fn same_commands(repository: &Repository) -> Finding {
    let (Some(english), Some(chinese)) = (repository.text("README.md"), repository.text("README.zh-CN.md")) else {
        return Finding::Skipped("there are not two READMEs yet");
    };
    let (english, chinese) = (commands(&english), commands(&chinese));
    let mut broken = Vec::new();
    for (ours, theirs) in english.iter().zip(&chinese).filter(|(ours, theirs)| ours.1 != theirs.1) {
        broken.push(format!("README.md:{} and README.zh-CN.md:{} differ", ours.0, theirs.0));
    }
    if english.len() != chinese.len() {
        broken.push(format!("README.md has {} blocks of commands, README.zh-CN.md {}", english.len(), chinese.len()));
    }
    Finding::Broken(broken)
}

/// Shell blocks with their line, without comments.
fn commands(page: &str) -> Vec<(usize, String)> {
    let fences = markdown::fences(page).into_iter().filter(|fence| fence.language() == "sh");
    fences.map(|Fence { info, body, line }| (line, format!("{info}\n{}", without_comments(&body)))).collect()
}

/// A script without its comments, each line without the space at its end.
pub(crate) fn without_comments(script: &str) -> String {
    let code = script.lines().map(|line| {
        if line.trim_start().starts_with('#') { "" } else { line.split(" # ").next().unwrap_or("").trim_end() }
    });
    code.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The words after `sh` are ones the README's test knows.
pub(super) fn blocks_say_how(repository: &Repository) -> Finding {
    let pages = ["README.md", "README.zh-CN.md"].map(|name| (name, repository.text(name)));
    if pages.iter().all(|(_, text)| text.is_none()) {
        return Finding::Skipped("there is no README yet");
    }
    let mut broken = Vec::new();
    for (name, text) in &pages {
        for fence in markdown::fences(text.as_deref().unwrap_or_default()) {
            if let Err(why) = Block::read(&fence) {
                broken.push(format!("{name}:{}: {why}", fence.line));
            }
        }
    }
    Finding::Broken(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_known_by_their_first_folder() {
        let page = "`crates/a/src/lib.rs` `crates/a/src/lib.rs:12` `docs/x.md#part` `cargo test` `crates/*/Cargo.toml` `tests/clients/<sdk>/x`\n`src/x.rs`\n";
        let paths: Vec<&str> = named_paths(page).into_iter().map(|(_, path)| path).collect();
        assert_eq!(paths, ["crates/a/src/lib.rs", "crates/a/src/lib.rs", "docs/x.md", "crates", "tests/clients"]);
    }

    #[test]
    fn codes_are_the_constants_of_the_list() {
        let answer = "fn row() { \"not_this\" }\npub fn public_codes() -> &'static [&'static str] {\n    &[\n        \"queue_full\",\n        \"gap\",\n    ]\n}\nfn x() { \"nor_this\" }\n";
        assert_eq!(public_codes(answer).into_iter().collect::<Vec<_>>(), ["gap", "queue_full"]);
    }

    #[test]
    fn commands_are_compared_without_their_comments() {
        let english = commands("```sh\n# start it\ncargo run   # takes a minute\n```\n```json\n{}\n```\n");
        let chinese = commands("```sh\n# 启动\ncargo run # 需要一分钟\n```\n");
        assert_eq!(english, chinese);
        assert_eq!(english, [(1, "sh\ncargo run".to_owned())]);
    }
}
