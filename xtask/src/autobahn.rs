//! `cargo xtask autobahn`: the cases of the Autobahn suite, at both sides of a WebSocket of ours.
//!
//! ```text
//!   kosoku -m fuzzingclient ─▶ tidegate serve, [sockets] echo = true, /v1/stream?echo=true
//!   kosoku -m fuzzingserver ◀─ crates/transport/examples/autobahn_client.rs
//! ```
//! A case passes if what was said and how it was closed are as the suite wants it, or if it only
//! tells. A verdict that is not strict fails here. Cases 12 and 13 are about compression, which
//! nothing of ours offers. kosoku is the suite for a Python of today; it lives in an environment of
//! its own under `target/clients/`.

use crate::clients::{READY_PATIENCE, environment};
use crate::process::{self, heading};
use crate::served::Served;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The whole suite takes a minute or two in a debug build on an idle machine.
const SUITE_PATIENCE: Duration = Duration::from_secs(1_500);
/// What is left out, always.
const COMPRESSION: [&str; 2] = ["12.*", "13.*"];
/// Some of each kind, and a large one: what `cargo xtask test` runs.
const SLICE: [&str; 9] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.3", "9.3.5"];

/// Which cases, at which sides.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Cases<'a> {
    only: Option<&'a str>,
    cases: Vec<&'a str>,
    release: bool,
}

impl<'a> Cases<'a> {
    /// Reads `--only server|client`, `--case ID` (also several times) and `--release`.
    pub(crate) fn parse(mut words: &[&'a str]) -> Result<Self, String> {
        let mut wanted = Cases::default();
        loop {
            words = match words {
                [] => return Ok(wanted),
                ["--release", rest @ ..] => {
                    wanted.release = true;
                    rest
                }
                ["--only", side @ ("server" | "client"), rest @ ..] => {
                    wanted.only = Some(side);
                    rest
                }
                ["--case", case, rest @ ..] => {
                    wanted.cases.push(case);
                    rest
                }
                [word, ..] => {
                    return Err(format!(
                        "`{word}` is none of `--only server`, `--only client`, `--case ID`, `--release`"
                    ));
                }
            };
        }
    }

    fn flags(&self) -> Vec<&str> {
        let named = self.cases.iter().flat_map(|case| ["-i", *case]);
        named.chain(COMPRESSION.iter().flat_map(|case| ["-x", *case])).collect()
    }
}

/// Some cases of each kind, at both sides.
pub(crate) fn slice() -> Result<(), String> {
    run(&Cases { cases: SLICE.to_vec(), ..Cases::default() })
}

/// Runs them.
pub(crate) fn run(wanted: &Cases<'_>) -> Result<(), String> {
    let requirements = process::root().join("tests/clients/autobahn/requirements.txt");
    let kosoku = environment("autobahn", &requirements, None)?.with_file_name("kosoku");
    let place = process::target().join("xtask").join("autobahn");
    let built = process::target().join(if wanted.release { "release" } else { "debug" });
    // Together, so that what both stand on is built once.
    let mut build = process::cargo(&["build", "--quiet", "--package", "tidegate", "--package", "tidegate-transport"]);
    build.args(["--bin", "tidegate", "--example", "autobahn_client"]);
    process::run(build.args(wanted.release.then_some("--release")))?;
    let mut bad = Vec::new();
    if wanted.only != Some("client") {
        heading("autobahn: the production door");
        let reports = place.join("server");
        door(&kosoku, &built.join("tidegate"), wanted, &reports)?;
        bad.extend(Verdicts::of(&reports)?.told("the door"));
    }
    if wanted.only != Some("server") {
        heading("autobahn: our client's side");
        let reports = place.join("client");
        client(&kosoku, &built.join("examples").join("autobahn_client"), wanted, &reports)?;
        bad.extend(Verdicts::of(&reports)?.told("the client's side"));
    }
    if bad.is_empty() { Ok(()) } else { Err(format!("not as the suite wants it: {}", bad.join(", "))) }
}

/// Empties the folder of a side's reports; a case that failed is no failure of the run yet.
fn judged(mut run: Command, reports: &Path, what: &str) -> Result<(), String> {
    let mut child = run.stdin(Stdio::null()).spawn().map_err(|e| format!("{what} did not start: {e}"))?;
    let ended = process::wait_within(&mut child, SUITE_PATIENCE);
    if ended.is_none() {
        process::end(&mut child);
        return Err(format!("{what} was still running after {} s", SUITE_PATIENCE.as_secs()));
    }
    if reports.join("index.json").exists() { Ok(()) } else { Err(format!("{what} wrote no report")) }
}

fn emptied(folder: &Path) -> Result<(), String> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))
}

fn door(kosoku: &Path, tidegate: &Path, wanted: &Cases<'_>, reports: &Path) -> Result<(), String> {
    emptied(reports)?;
    let place = reports.parent().unwrap_or(reports);
    let config = place.join("echo.toml");
    std::fs::write(&config, "[sockets]\necho = true\n").map_err(|e| format!("{}: {e}", config.display()))?;
    let mut serve = process::command(tidegate);
    serve.args(["serve", "--simulate", "--log-level", "warn", "--config"]).arg(&config).env("RUST_BACKTRACE", "0");
    for door in ["--listen", "--admin-listen", "--simulate-listen", "--truth-listen"] {
        serve.args([door, "127.0.0.1:0"]);
    }
    let served = Served::start(&mut serve, &place.join("served.log"), READY_PATIENCE)?;
    let url = format!("{}/v1/stream?echo=true", served.address("gateway")?.replacen("http://", "ws://", 1));
    let mut fuzz = process::command(kosoku);
    fuzz.args(["-m", "fuzzingclient"]).args(wanted.flags()).arg("-o").arg(reports).arg(&url);
    process::into_log(&mut fuzz, &place.join("fuzzing-client.log"))?;
    judged(fuzz, reports, "the fuzzing client").inspect_err(|_| process::show(&place.join("fuzzing-client.log")))?;
    served.stop()
}

/// An address that nobody listens on just now.
fn free_address() -> Result<String, String> {
    let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr());
    free.map(|a| a.to_string()).map_err(|e| format!("no free port: {e}"))
}

fn client(kosoku: &Path, client: &Path, wanted: &Cases<'_>, reports: &Path) -> Result<(), String> {
    emptied(reports)?;
    let place = reports.parent().unwrap_or(reports);
    let (at, log) = (free_address()?, place.join("fuzzing-server.log"));
    let mut fuzz = process::command(kosoku);
    fuzz.args(["-m", "fuzzingserver"]).args(wanted.flags()).arg("-o").arg(reports).arg(&at);
    process::into_log(&mut fuzz, &log)?;
    let mut fuzz = fuzz.stdin(Stdio::null()).spawn().map_err(|e| format!("the fuzzing server did not start: {e}"))?;
    let began = Instant::now();
    let listens = || std::fs::read_to_string(&log).unwrap_or_default().contains("listening");
    while !listens() && began.elapsed() < READY_PATIENCE {
        if process::wait_within(&mut fuzz, Duration::from_millis(50)).is_some() {
            break;
        }
    }
    let mut walk = process::command(client);
    let walked = process::run_within(walk.arg(&at), SUITE_PATIENCE);
    // It writes its report when the walk is over, and ends.
    let ended = process::wait_within(&mut fuzz, READY_PATIENCE);
    process::end(&mut fuzz);
    let wrote = if ended.is_some() && reports.join("index.json").exists() {
        Ok(())
    } else {
        Err("the fuzzing server wrote no report".to_owned())
    };
    walked.and(wrote).inspect_err(|_| process::show(&log))
}

/// A report's verdicts: how often each, and which cases are not good.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdicts {
    counts: BTreeMap<String, usize>,
    bad: Vec<String>,
}

impl Verdicts {
    fn of(reports: &Path) -> Result<Self, String> {
        let file: PathBuf = reports.join("index.json");
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let verdicts = Verdicts::read(&text);
        if verdicts.counts.is_empty() { Err(format!("{} holds no case", file.display())) } else { Ok(verdicts) }
    }

    /// Reads `index.json` as the suite writes it: one member a line.
    fn read(text: &str) -> Self {
        let mut verdicts = Verdicts::default();
        let mut case = "";
        for line in text.lines() {
            let Some((name, value)) = line.trim().trim_end_matches(',').split_once(": ") else { continue };
            let (name, value) = (name.trim_matches('"'), value.trim_matches('"'));
            if value == "{" {
                case = name;
                continue;
            }
            let good = match name {
                "behavior" => {
                    *verdicts.counts.entry(value.to_owned()).or_default() += 1;
                    matches!(value, "OK" | "INFORMATIONAL")
                }
                "behaviorClose" => matches!(value, "OK" | "INFORMATIONAL"),
                _ => true,
            };
            if !good {
                verdicts.bad.push(format!("{case} ({name} {value})"));
            }
        }
        verdicts
    }

    /// Prints the counts; the bad cases, for a person.
    fn told(self, side: &str) -> Vec<String> {
        let counts: Vec<String> = self.counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
        println!(
            "{side}: {} cases: {}; {} not good",
            self.counts.values().sum::<usize>(),
            counts.join(", "),
            self.bad.len()
        );
        self.bad.into_iter().map(|case| format!("{side} {case}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen() {
        assert_eq!(Cases::parse(&[]), Ok(Cases::default()));
        let wanted = Cases::parse(&["--only", "client", "--case", "1.*", "--case", "9.1.1", "--release"]).unwrap();
        assert_eq!(wanted.flags(), ["-i", "1.*", "-i", "9.1.1", "-x", "12.*", "-x", "13.*"]);
        assert_eq!((wanted.only, wanted.release), (Some("client"), true));
        assert!(Cases::parse(&["--only", "peer"]).unwrap_err().contains("none of"));
    }

    #[test]
    fn a_verdict_that_is_not_strict_is_not_good() {
        let text = "{\n   \"tidegate\": {\n      \"1.1.1\": {\n         \"behavior\": \"OK\",\n         \"behaviorClose\": \"OK\",\n         \"duration\": 2\n      },\n      \"6.4.1\": {\n         \"behavior\": \"NON-STRICT\",\n         \"behaviorClose\": \"OK\"\n      },\n      \"7.9.1\": {\n         \"behavior\": \"OK\",\n         \"behaviorClose\": \"UNCLEAN\"\n      },\n      \"7.1.6\": {\n         \"behavior\": \"INFORMATIONAL\",\n         \"behaviorClose\": \"INFORMATIONAL\"\n      }\n   }\n}\n";
        let verdicts = Verdicts::read(text);
        assert_eq!(verdicts.counts.values().sum::<usize>(), 4);
        assert_eq!(verdicts.bad, ["6.4.1 (behavior NON-STRICT)", "7.9.1 (behaviorClose UNCLEAN)"]);
    }
}
