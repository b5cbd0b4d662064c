//! Rooms and arrows: the table in `ARCHITECTURE.md` against the manifests.
//!
//! The table is a fenced block of the language `arrows`, a line per room: `room: room room` means
//! that the first may use the others, in any way but for its tests. `#` begins a comment. The rule:
//! every room is listed, every listed room is there, the arrows have no cycle, and a manifest
//! depends only on rooms that its line names. What a room may use but does not is no fault.

use super::{Finding, Repository, manifest};
use crate::markdown;
use std::collections::{BTreeMap, BTreeSet};

/// Which room may use which.
type Arrows = BTreeMap<String, BTreeSet<String>>;

pub(super) fn rule(repository: &Repository) -> Finding {
    let Some(page) = repository.text("ARCHITECTURE.md") else {
        return Finding::Skipped("there is no ARCHITECTURE.md yet");
    };
    let arrows = match read(&page) {
        Ok(arrows) => arrows,
        Err(why) => return Finding::Broken(vec![format!("ARCHITECTURE.md: {why}")]),
    };
    let rooms = repository.rooms();
    let mut broken = compare(&arrows, &rooms);
    for room in rooms {
        let manifest = repository.text(&format!("crates/{room}/Cargo.toml")).unwrap_or_default();
        broken.extend(beyond(&arrows, room, &manifest));
    }
    Finding::Broken(broken)
}

/// Reads the table of a page.
fn read(page: &str) -> Result<Arrows, String> {
    let fences = markdown::fences(page);
    let table = fences.iter().find(|fence| fence.language() == "arrows").ok_or("has no fenced block `arrows`")?;
    let mut arrows = Arrows::new();
    for (index, line) in table.body.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let number = table.line + 1 + index;
        let (room, uses) = line.split_once(':').ok_or(format!("line {number}: write `room: room room`"))?;
        let uses = uses.split_whitespace().map(str::to_owned).collect();
        if arrows.insert(room.trim().to_owned(), uses).is_some() {
            return Err(format!("line {number}: `{}` is listed twice", room.trim()));
        }
    }
    Ok(arrows)
}

/// The table against the rooms that are there, and against itself.
fn compare(arrows: &Arrows, rooms: &[&str]) -> Vec<String> {
    let mut broken = Vec::new();
    for room in rooms.iter().filter(|room| !arrows.contains_key(**room)) {
        broken.push(format!("crates/{room} is not in the table of ARCHITECTURE.md"));
    }
    for (room, uses) in arrows {
        if !rooms.contains(&room.as_str()) {
            broken.push(format!("the table lists `{room}`, but there is no crates/{room}"));
        }
        for used in uses.iter().filter(|used| !arrows.contains_key(*used)) {
            broken.push(format!("`{room}` may use `{used}`, which the table does not list"));
        }
    }
    broken.extend(cycle(arrows).map(|path| format!("the arrows go round: {}", path.join(" -> "))));
    broken
}

/// A cycle, if there is one: rooms without arrows to other rooms are taken away until none is left.
fn cycle(arrows: &Arrows) -> Option<Vec<String>> {
    let mut left = arrows.clone();
    loop {
        let ends: Vec<String> = left
            .iter()
            .filter(|(_, uses)| !uses.iter().any(|used| left.contains_key(used)))
            .map(|(r, _)| r.clone())
            .collect();
        if ends.is_empty() {
            break;
        }
        ends.iter().for_each(|end| drop(left.remove(end)));
    }
    // From any room that is left, its arrows lead in the end to a room already passed.
    let mut path = vec![left.keys().next()?.clone()];
    loop {
        let next = left.get(path.last()?)?.iter().find(|used| left.contains_key(*used))?.clone();
        if let Some(first) = path.iter().position(|room| *room == next) {
            path.push(next);
            return Some(path.split_off(first));
        }
        path.push(next);
    }
}

/// What a manifest depends on that its room's line does not name.
fn beyond(arrows: &Arrows, room: &str, text: &str) -> Vec<String> {
    let nothing = BTreeSet::new();
    let may = arrows.get(room).unwrap_or(&nothing);
    let used = manifest::dependencies(text).into_iter().filter_map(|(line, name)| {
        let used = name.strip_prefix("tidegate-").or((name == "tidegate").then_some("tidegate"))?.to_owned();
        Some((line, used))
    });
    used.filter(|(_, used)| !may.contains(used))
        .map(|(line, used)| format!("crates/{room}/Cargo.toml:{line}: `{room}` may not use `{used}`"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrows(table: &str) -> Arrows {
        read(&format!("# A page\n\n```arrows\n{table}```\n")).unwrap()
    }

    #[test]
    fn a_table_is_read_line_by_line() {
        let arrows = arrows("# who: may\nbase:\nwire: base\n\ngateway: base wire # the path\n");
        assert_eq!(arrows.keys().collect::<Vec<_>>(), ["base", "gateway", "wire"]);
        assert_eq!(arrows["gateway"].iter().collect::<Vec<_>>(), ["base", "wire"]);
        assert_eq!(compare(&arrows, &["base", "gateway", "wire"]), Vec::<String>::new());
    }

    #[test]
    fn a_table_that_cannot_be_read_is_told_with_its_line() {
        assert_eq!(read("# no table\n"), Err("has no fenced block `arrows`".to_owned()));
        assert!(read("```arrows\nbase:\nwire base\n```\n").unwrap_err().starts_with("line 3: "));
        assert!(read("```arrows\nbase:\nbase:\n```\n").unwrap_err().ends_with("listed twice"));
    }

    #[test]
    fn rooms_and_table_name_each_other() {
        let arrows = arrows("base:\nwire: base paper\nattic:\n");
        assert_eq!(
            compare(&arrows, &["base", "wire", "cellar"]),
            [
                "crates/cellar is not in the table of ARCHITECTURE.md",
                "the table lists `attic`, but there is no crates/attic",
                "`wire` may use `paper`, which the table does not list",
            ]
        );
    }

    #[test]
    fn a_cycle_is_found_and_shown() {
        let arrows = arrows("a: b\nb: c base\nc: b\nbase:\n");
        assert_eq!(cycle(&arrows), Some(vec!["b".into(), "c".into(), "b".into()]));
    }

    #[test]
    fn a_dependency_needs_an_arrow_but_a_test_does_not() {
        let arrows = arrows("base:\nwire: base\nschedule: base\n");
        let manifest = "[dependencies]\ntidegate-base.workspace = true\ntidegate-wire = { path = \"../wire\" }\n\n[dev-dependencies]\ntidegate-simulator.workspace = true\n";
        assert_eq!(
            beyond(&arrows, "schedule", manifest),
            ["crates/schedule/Cargo.toml:3: `schedule` may not use `wire`"]
        );
    }
}
