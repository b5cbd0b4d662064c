//! The little of `Cargo.toml` that the rules need: what a crate depends on, but for its tests.
//!
//! Read line by line: sections by their header, a dependency by the key before `=` or `.`, or as a
//! section of its own. Dependencies renamed with `package = ...` are not seen; there are none.

/// Dependencies and build dependencies, of all targets, with their line.
pub(super) fn dependencies(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut listing = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let (table, name) = section(header);
            listing = table && name.is_none();
            found.extend(name.filter(|_| table).map(|name| (index + 1, name.to_owned())));
        } else if listing && !line.starts_with('#') {
            let key = line.split(['=', '.', ' ']).next().unwrap_or("").trim_matches('"');
            if !key.is_empty() && line.contains('=') {
                found.push((index + 1, key.to_owned()));
            }
        }
    }
    found
}

/// Whether a section is about dependencies that ship, and which one if it is about one alone.
fn section(header: &str) -> (bool, Option<&str>) {
    let last = header.rsplit_once("dependencies");
    let Some((before, after)) = last else { return (false, None) };
    let ships = before.is_empty() || before == "build-" || (before.starts_with("target.") && !before.ends_with("dev-"));
    (ships, after.strip_prefix('.').map(|name| name.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_dependency_is_seen() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = \"1\"\nc = { version = \"1\" }\n# d = \"1\"\n\n[dependencies.e]\nversion = \"1\"\n[build-dependencies]\nf = \"1\"\n[target.'cfg(unix)'.dependencies]\ng = \"1\"\n";
        let names: Vec<String> = dependencies(text).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a", "b", "c", "e", "f", "g"]);
    }

    #[test]
    fn what_only_tests_need_is_not_counted() {
        let text = "[dev-dependencies]\na = \"1\"\n[dev-dependencies.b]\nversion = \"1\"\n[target.'cfg(unix)'.dev-dependencies]\nc = \"1\"\n[features]\nd = []\n";
        assert_eq!(dependencies(text), []);
    }
}
