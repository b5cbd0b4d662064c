//! `cargo xtask instructions`: what one request and one event cost, counted and not timed.
//!
//! ```text
//!   (through(n2) - through(n1)) - (direct(n2) - direct(n1))
//!   ─────────────────────────────────────────────────────── = the gateway's own instructions
//!                          n2 - n1
//! ```
//! `crates/gateway/benches/path.rs` plays client, gateway and upstream on one thread over a network
//! in memory; callgrind counts. The same binary gives the same count whatever else the machine
//! does, so a change that makes the path dearer is seen in the test run that brings it. The kept
//! numbers stand in `docs/measurements/instructions.txt`; kernel time is not in them.

use crate::process::{self, heading};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Where the numbers are kept.
const KEPT: &str = "docs/measurements/instructions.txt";
/// How much dearer than the kept number passes: compilers and C libraries differ a little.
const TOLERANCE: f64 = 0.03;

/// What is counted: two sizes of a run whose difference is `units`.
struct Figure {
    name: &'static str,
    small: [&'static str; 2],
    large: [&'static str; 2],
    units: u64,
}

const FIGURES: [Figure; 2] = [
    Figure { name: "json_request", small: ["200", "0"], large: ["700", "0"], units: 500 },
    Figure { name: "sse_event", small: ["4", "200"], large: ["4", "1200"], units: 4000 },
];

/// Counts, compares, and with `keep` writes the numbers down.
pub(crate) fn run(keep: bool) -> Result<(), String> {
    heading("instructions of one request and one event, by callgrind");
    process::need("valgrind", "valgrind")?;
    let bench = build()?;
    let kept = std::fs::read_to_string(process::root().join(KEPT)).unwrap_or_default();
    let (mut lines, mut dearer) = (String::new(), Vec::new());
    for figure in &FIGURES {
        let count = figure.count(&bench)?;
        lines.push_str(&format!("{} = {count}\n", figure.name));
        match of(&kept, figure.name) {
            Some(before) => {
                let change = count as f64 / before as f64 - 1.0;
                println!("{}: {count} instructions, kept {before} ({:+.1} %)", figure.name, change * 100.0);
                if change > TOLERANCE {
                    dearer.push(figure.name);
                }
            }
            None => println!("{}: {count} instructions, none kept", figure.name),
        }
    }
    if keep {
        let about = "# Instructions of the gateway, userland only: cargo xtask instructions --keep\n";
        std::fs::write(process::root().join(KEPT), format!("{about}{lines}")).map_err(|e| format!("{KEPT}: {e}"))?;
        println!("kept in {KEPT}");
        return Ok(());
    }
    if dearer.is_empty() {
        println!("instructions: {} figures, none dearer than kept", FIGURES.len());
        return Ok(());
    }
    Err(format!(
        "{} cost over {:.0} % more than kept; make the path cheaper, or say why in the commit that keeps the new \
         number (`cargo xtask instructions --keep`)",
        dearer.join(" and "),
        TOLERANCE * 100.0
    ))
}

/// The number kept under `name`.
fn of(kept: &str, name: &str) -> Option<u64> {
    kept.lines().find_map(|line| line.split_once(" = ").filter(|(n, _)| *n == name)?.1.trim().parse().ok())
}

/// Builds the bench; where it is.
fn build() -> Result<PathBuf, String> {
    let mut build = process::cargo(&["bench", "-p", "tidegate-gateway", "--bench", "path", "--no-run"]);
    let output = build.stdin(Stdio::null()).output().map_err(|e| format!("cargo did not start: {e}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    executable(&told).map(|path| process::root().join(path)).ok_or_else(|| format!("the bench did not build:\n{told}"))
}

/// The path in cargo's line `Executable benches/path.rs (PATH)`.
fn executable(told: &str) -> Option<&str> {
    let line = told.lines().find(|line| line.trim_start().starts_with("Executable"))?;
    line.rsplit_once('(')?.1.strip_suffix(')')
}

impl Figure {
    fn count(&self, bench: &Path) -> Result<u64, String> {
        let span = |way| -> Result<u64, String> {
            let large = instructions(bench, way, self.large)?;
            Ok(large.saturating_sub(instructions(bench, way, self.small)?))
        };
        let (through, direct) = (span("through")?, span("direct")?);
        Ok(through.saturating_sub(direct) / self.units)
    }
}

/// The instructions of one run.
fn instructions(bench: &Path, way: &str, size: [&str; 2]) -> Result<u64, String> {
    let mut run = process::command("valgrind");
    run.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(bench).arg(way).args(size);
    let output = run.stdin(Stdio::null()).output().map_err(|e| format!("valgrind did not start: {e}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    collected(&told).filter(|_| output.status.success()).ok_or_else(|| format!("callgrind counted nothing:\n{told}"))
}

/// The number in callgrind's line `Collected : N`.
fn collected(told: &str) -> Option<u64> {
    told.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_and_callgrind_say_is_understood() {
        let told = "    Finished `bench` profile\n  Executable benches/path.rs (target/release/deps/path-1f)\n";
        assert_eq!(executable(told), Some("target/release/deps/path-1f"));
        assert_eq!(executable("error: no"), None);
        assert_eq!(collected("==1== Events    : Ir\n==1== Collected : 8141201\n"), Some(8_141_201));
    }

    #[test]
    fn kept_numbers_are_found_by_name() {
        let kept = "# about\njson_request = 61782\nsse_event = 3757\n";
        assert_eq!((of(kept, "sse_event"), of(kept, "event")), (Some(3757), None));
    }
}
