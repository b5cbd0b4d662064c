//! `tidegate bench peers`: Tidegate beside nginx and HAProxy, on this machine, over loopback.
//!
//! ```text
//!   round 1..n ─▶ row ─▶ upstream alone, nginx, haproxy, tidegate, yours   (order turned each round)
//!                          each: upstream and peer started afresh ─▶ load ─▶ values ─▶ ended
//!   values ─▶ medians, ratios to nginx within a round, with spread ─▶ table, page, JSON
//! ```
//! The upstream is this binary's simulator in bare mode, the load generator is this process, and
//! Tidegate is this binary too. Nothing outlives a comparison: processes end and the folder goes,
//! also when it is interrupted or fails. At the most one peer and one upstream run at a time.

mod configs;
mod figures;
mod install;
mod links;
mod load;
mod output;
mod peer;
mod rows;

use super::page::{Facts, number, write};
use super::stage::{Folder, Stop, raise_files};
use super::{Failed, say};
use crate::cli::Peers;
use figures::{DIRECT, HAPROXY, NGINX, Series, TIDEGATE};
use peer::{Kind, NotMeasured, Peer, Site};
use rows::{JSON_RATE, ROWS, Row, YARDSTICK};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io::Write;
use tidegate_transport::Clock;

/// Rounds of a comparison, if nothing else is said.
const ROUNDS: u16 = 5;
/// The most peers of the user's.
const OWN_PEERS_MAX: usize = 16;

/// Everything that was measured.
#[derive(Default)]
struct Results {
    /// By key of the figure.
    series: BTreeMap<&'static str, Series>,
    /// What did not go well, in the order in which it happened.
    notes: Vec<String>,
}

/// Tells how far it is, on standard error.
fn tell(line: &str) {
    // If nobody reads it, the comparison goes on all the same.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn chosen_rows(flags: &Peers) -> Result<Vec<&'static Row>, Failed> {
    for name in &flags.only {
        if !ROWS.iter().any(|row| row.name == name) {
            let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            return Err(Failed(format!("there is no row `{name}`; the rows are {}", names.join(", "))));
        }
    }
    let wanted = |row: &&Row| flags.only.is_empty() || flags.only.iter().any(|name| name == row.name);
    Ok(ROWS.iter().filter(wanted).collect())
}

fn chosen_peers(flags: &Peers) -> Result<Vec<Peer>, Failed> {
    if let Some(unknown) = flags.without.iter().find(|name| ![NGINX, HAPROXY, TIDEGATE].contains(&name.as_str())) {
        return Err(Failed(format!("--without {unknown}: nginx, haproxy and tidegate can be left out")));
    }
    if flags.peers.len() > OWN_PEERS_MAX {
        return Err(Failed(format!("at most {OWN_PEERS_MAX} peers of yours")));
    }
    let with = |name: &str| !flags.without.iter().any(|without| without == name);
    let mut peers = vec![Peer::new(DIRECT, Kind::Direct)];
    if with(NGINX) {
        peers
            .push(Peer::new(NGINX, Kind::Nginx(install::find_or_install(NGINX, "leave it out with --without nginx")?)));
    }
    if with(HAPROXY) {
        peers.push(Peer::new(
            HAPROXY,
            Kind::Haproxy(install::find_or_install(HAPROXY, "leave it out with --without haproxy")?),
        ));
    }
    if with(TIDEGATE) {
        peers.push(Peer::new(TIDEGATE, Kind::Tidegate));
    }
    for text in &flags.peers {
        let peer = Peer::parse(text)?;
        if peers.iter().any(|other| other.name == peer.name) {
            return Err(Failed(format!("--peer {}: the name is taken", peer.name)));
        }
        peers.push(peer);
    }
    Ok(peers)
}

/// The peers of a round in its order: the upstream first, the others turned by one each round.
fn turned(peers: &[Peer], round: usize) -> impl Iterator<Item = &Peer> {
    let (direct, others) = peers.split_at(1);
    let others = others.iter().cycle().skip(round % others.len().max(1)).take(others.len());
    direct.iter().chain(others)
}

impl Results {
    fn note(&mut self, note: String) {
        tell(&format!("    {note}"));
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn measure(&mut self, site: &Site, row: &Row, peer: &Peer, round: usize) -> Result<(), Failed> {
        let mut notes = Vec::new();
        let measured = (row.measure)(site, peer, &mut |note| notes.push(note));
        for note in notes {
            self.note(format!("round {}, {}, {}: {note}", round + 1, row.name, peer.name));
        }
        let values = match measured {
            Ok(values) => values,
            Err(NotMeasured::Cannot(why)) => {
                self.note(format!("{}, {}: {why}", row.name, peer.name));
                return Ok(());
            }
            Err(NotMeasured::Failed(failed)) => {
                return Err(Failed(format!("{}, {}: {failed}", row.name, peer.name)));
            }
        };
        let mut told = Vec::new();
        for (key, value) in values {
            let Some(value) = value else { continue };
            self.series.entry(key).or_default().note(&peer.name, round, value);
            let figure = row.figures.iter().find(|figure| figure.key == key);
            told.extend(figure.map(|figure| {
                // The upstream's own share is taken off when all rounds are there.
                let all = if figure.added { " (in all)" } else { "" };
                format!("{} {}{all}", number(value, figure.digits), figure.title)
            }));
        }
        tell(&format!("  {:<16}{}", peer.name, told.join("; ")));
        Ok(())
    }

    /// How many times nginx' rate of JSON the upstream alone has.
    fn upstream_times_nginx(&self) -> Option<f64> {
        let figure = YARDSTICK.figures.iter().find(|figure| figure.key == JSON_RATE)?;
        Some(self.series.get(JSON_RATE)?.ratio(figure, DIRECT, NGINX)?.median)
    }
}

pub(super) fn run(flags: &Peers) -> Result<(), Failed> {
    if flags.list {
        for row in ROWS {
            say(format_args!("{:<12}{}", row.name, row.about));
        }
        return Ok(());
    }
    let mut rows = chosen_rows(flags)?;
    let peers = chosen_peers(flags)?;
    let exe = std::env::current_exe().map_err(|e| Failed(format!("this binary cannot find itself: {e}")))?;
    let folder = Folder::new()?;
    let exe_of_peer = folder.path().join("tidegate");
    std::fs::copy(&exe, &exe_of_peer).map_err(|e| Failed(format!("cannot copy this binary: {e}")))?;
    let site = Site {
        stop: Stop::on_signals()?,
        folder,
        exe,
        exe_of_peer,
        upstream_listen: flags.upstream_listen,
        log_level: flags.log_level.clone(),
        quick: flags.quick,
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        certificate: OnceCell::new(),
    };
    let mut results = Results::default();
    let files = raise_files();
    rows.retain(|row| {
        let needs = (row.files)(&site);
        if needs > files {
            results.note(format!(
                "{}: not measured: a process may open {files} files and it takes {needs}; raise it with `ulimit -n {needs}`",
                row.name
            ));
        }
        needs <= files
    });
    if rows.is_empty() {
        return Err(Failed("no row is left to be measured".to_owned()));
    }
    let rounds = usize::from(flags.rounds.unwrap_or(if flags.quick { 1 } else { ROUNDS }));
    let began = Clock::real();
    measure(&site, &rows, &peers, rounds, &mut results)?;
    let page = output::Page {
        results: &results,
        rows: &rows,
        peers: &peers,
        rounds,
        facts: Facts::gather(began.wall()),
        quick: flags.quick,
        log_level: &flags.log_level,
        refusal: figures::refusal(results.upstream_times_nginx()),
    };
    say(page.tables().trim_end());
    if let Some(file) = &flags.markdown {
        write(file, &page.markdown())?;
    }
    if let Some(file) = &flags.json {
        write(file, &format!("{:#}\n", page.json()))?;
    }
    Ok(())
}

fn measure(site: &Site, rows: &[&Row], peers: &[Peer], rounds: usize, results: &mut Results) -> Result<(), Failed> {
    for round in 0..rounds {
        tell(&format!("round {} of {rounds}", round + 1));
        // Once each round, since one reading is too noisy to refuse a comparison by.
        if !rows.iter().any(|row| row.name == YARDSTICK.name) {
            tell("  whether this machine can tell proxies apart:");
            for peer in peers.iter().filter(|peer| peer.name == DIRECT || peer.name == NGINX) {
                results.measure(site, &YARDSTICK, peer, round)?;
            }
        }
        for row in rows {
            tell(&format!("{}: {}", row.name, row.about));
            for peer in turned(peers, round).filter(|peer| row.direct || peer.kind != Kind::Direct) {
                results.measure(site, row, peer, round)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_begins_with_the_upstream_and_turns_the_others() {
        let peers = ["up", "a", "b", "c"].map(|name| Peer::new(name, Kind::Direct));
        let order = |round| turned(&peers, round).map(|peer| peer.name.as_str()).collect::<Vec<_>>().join(" ");
        assert_eq!([order(0), order(1), order(2), order(3)], ["up a b c", "up b c a", "up c a b", "up a b c"]);
        assert_eq!(turned(&peers[..1], 4).count(), 1);
    }

    #[test]
    fn rows_have_names_and_keys_of_their_own() {
        let mut names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        let mut keys: Vec<&str> = ROWS.iter().flat_map(|row| row.figures).map(|figure| figure.key).collect();
        for list in [&mut names, &mut keys] {
            let all = list.len();
            list.sort_unstable();
            list.dedup();
            assert_eq!(list.len(), all);
        }
        assert!(YARDSTICK.figures.iter().any(|figure| figure.key == JSON_RATE));
    }
}
