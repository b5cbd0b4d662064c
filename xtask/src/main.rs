//! `cargo xtask`: what this repository does to itself, in one place and without a shell script.
//!
//! `test` is everything a change must pass, in the order that fails soonest; `tidy` is the rules of
//! the repository that no compiler knows; `instructions` is what the path costs; `world` replays
//! simulated runs by seed; `judge` tries the scheduler in virtual time; `durability` kills the
//! gateway; `histories` puts random conversations before the API's validator; `autobahn` fuzzes the
//! WebSockets. Only the standard library is used, so that the first command on a fresh machine
//! starts at once.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks on its standard output")]
#![allow(
    clippy::disallowed_methods,
    reason = "this tool waits for real processes in real time, on a thread of its own"
)]

mod autobahn;
mod clients;
mod durability;
mod histories;
mod instructions;
mod judge;
mod markdown;
mod parts;
mod process;
mod readme;
mod served;
mod tidy;
mod world;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask test [--only PART]... [--as-written]
    everything a change must pass; PART is rust, instructions, tidy, readme, python, typescript or
    autobahn.
    --as-written builds the README's commands with --release, as they stand there.
cargo xtask tidy
    the repository's own rules
cargo xtask instructions [--keep]
    what one request and one event cost, counted by callgrind and compared with what is kept
cargo xtask world [--seeds N] [--from S] [--seed S]
cargo xtask world --streams N [--from S] [--markdown FILE]
    simulated runs of gateway and simulator: N of them from seed S on, or the one with seed S; or N
    streams, each with a fault, read by clients that leave and come back; the figures are also written to FILE
cargo xtask judge [--seeds N] [--from S] [--minutes M] [--scenario NAME] [--markdown FILE]
    the scheduler alone, in virtual time: every scenario with N seeds from S on, or those whose name
    contains NAME; no seed is begun after M minutes; the table is also written to FILE
cargo xtask autobahn [--only server|client] [--case ID]... [--release]
    the Autobahn suite at the WebSocket door and at our client's side; all cases but those of
    compression, or those named (1.1.1, 9.*)
cargo xtask durability [--rounds N] [--seed S]
    the gateway killed N times under a thousand conversations: what a client saw the end of is there
cargo xtask histories [--count N] [--seed S]
    N random conversations from seed S on, every window of theirs before the simulated API's validator
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.split_first() {
        Some((&"test", rest)) => parts::Wanted::parse(rest).and_then(|wanted| parts::run(&wanted)),
        Some((&"tidy", [])) => tidy::run(),
        Some((&"instructions", [])) => instructions::run(false),
        Some((&"instructions", ["--keep"])) => instructions::run(true),
        Some((&"world", rest)) => world::Seeds::parse(rest).and_then(|seeds| world::run(&seeds)),
        Some((&"judge", rest)) => judge::Orders::parse(rest).and_then(|orders| judge::run(&orders)),
        Some((&"autobahn", rest)) => autobahn::Cases::parse(rest).and_then(|cases| autobahn::run(&cases)),
        Some((&"durability", rest)) => durability::Rounds::parse(rest).and_then(|rounds| durability::run(&rounds)),
        Some((&"histories", rest)) => histories::Histories::parse(rest).and_then(|wanted| histories::run(&wanted)),
        Some((&("help" | "--help" | "-h"), _)) => {
            print!("{USAGE}");
            Ok(())
        }
        _ => Err(format!("not a command of this tool; it has:\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: stopped: {why}");
            ExitCode::FAILURE
        }
    }
}
