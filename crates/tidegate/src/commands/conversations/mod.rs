//! `tidegate bench conversations`: what memory costs and what it saves, through the gateway.
//!
//! ```text
//!   clients (threads) ─▶ Tidegate with a log on the disk ─▶ simulator with its prompt cache
//!   each section: a fresh simulator, a fresh Tidegate ─▶ a table
//! ```
//! Everything that is said comes from a seed. Simulator and Tidegate are processes of their own on
//! loopback and end with this one.

mod cache;
mod client;
mod estimate;
mod held;
mod pace;
mod site;
mod texts;

use super::page::{Facts, aligned, write};
use super::stage::{Folder, Stop, raise_files};
use super::{Failed, say};
use crate::cli::{BenchConversations, ConversationsRow};
use site::Site;
use std::io::Write;
use tidegate_transport::Clock;

/// Conversations whose memory is looked at, for each that is held against the cache.
const HELD_TIMES: usize = 10;
/// Conversations of each kind of text, at most: a percentile of so many is steady.
const ESTIMATES_MAX: usize = 100;

/// One table with its title and what must be known to read it.
struct Section {
    title: String,
    rows: Vec<Vec<String>>,
    note: String,
}

impl Section {
    fn text(&self) -> String {
        format!("## {}\n{}\n\n{}\n", self.title, self.note, aligned(&self.rows))
    }
}

/// Tells how far it is, on standard error.
fn tell(line: &str) {
    // If nobody reads it, the run goes on all the same.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn markdown(facts: &Facts, sections: &[Section]) -> String {
    let Facts { machine, date, commit, command } = facts;
    let texts: Vec<String> = sections.iter().map(Section::text).collect();
    format!(
        "# Conversations, {date}\n\n| | |\n|---|---|\n| machine | {machine} |\n| date | {date} |\n| commit | {commit} |\n| command | `{command}` |\n\n{}\nHow it is made: [README.md](README.md).\n",
        texts.join("\n")
    )
}

pub(super) fn run(flags: &BenchConversations) -> Result<(), Failed> {
    let exe = std::env::current_exe().map_err(|e| Failed(format!("this binary cannot find itself: {e}")))?;
    let folder = Folder::new()?;
    let exe_of_gateway = folder.path().join("tidegate");
    std::fs::copy(&exe, &exe_of_gateway).map_err(|e| Failed(format!("cannot copy this binary: {e}")))?;
    raise_files();
    let facts = Facts::gather(Clock::real().wall());
    let site = Site { stop: Stop::on_signals()?, folder, exe, exe_of_gateway, seed: flags.seed };
    let (talks, turns) = (usize::from(flags.talks), usize::from(flags.turns));
    let mut sections = Vec::new();
    for row in ConversationsRow::ALL {
        if !flags.only.is_empty() && !flags.only.contains(&row) {
            continue;
        }
        site.stop.pause(std::time::Duration::ZERO)?;
        match row {
            ConversationsRow::Cache => {
                sections.extend(cache::run(&site, cache::Load { talks, turns, window: flags.window })?)
            }
            ConversationsRow::Estimate => sections.push(estimate::run(&site, talks.min(ESTIMATES_MAX))?),
            ConversationsRow::Turns => sections.push(pace::turns_beside_requests(&site)?),
            ConversationsRow::Recall => sections.push(pace::cold_and_hot(&site)?),
            ConversationsRow::Memory => sections.push(held::run(&site, talks * HELD_TIMES)?),
        }
    }
    sections.iter().for_each(|section| say(section.text()));
    match &flags.markdown {
        Some(file) => write(file, &markdown(&facts, &sections)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_facts_and_every_table() {
        let text = |text: &str| text.to_owned();
        let facts =
            Facts { machine: text("a machine"), date: text("2026-01-02"), commit: text("abc"), command: text("x") };
        let rows = vec![vec![text("a"), text("b")], vec![text("1"), text("2")]];
        let page = markdown(&facts, &[Section { title: text("One"), rows, note: text("Why.") }]);
        assert!(
            page.contains("| commit | abc |") && page.contains("## One\nWhy.\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
            "{page}"
        );
    }
}
