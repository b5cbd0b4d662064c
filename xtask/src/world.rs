//! World runs by command: gateway and simulator in one process, in virtual time, from seeds.
//!
//! The tests themselves live in `crates/tidegate/tests/world.rs` and read variables: how many seeds or
//! faulted streams, and the first seed. `cargo xtask test` runs some of them among all other tests;
//! this command runs more, or the one that failed.

use crate::process;

/// How many seeds.
pub(crate) const SEEDS: &str = "TIDEGATE_WORLD_SEEDS";
/// The first seed.
pub(crate) const FROM: &str = "TIDEGATE_WORLD_FROM";
/// How many faulted streams.
const STREAMS: &str = "TIDEGATE_WORLD_STREAMS";
/// Where their figures are written.
const MARKDOWN: &str = "TIDEGATE_WORLD_MARKDOWN";
/// Seeds in `cargo xtask test`, unless the variable says otherwise.
pub(crate) const SEEDS_OF_A_TEST: &str = "1000";

/// Which runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seeds {
    count: Option<u64>,
    from: Option<u64>,
    /// Faulted streams, in place of the older worlds.
    streams: Option<u64>,
    markdown: Option<String>,
}

impl Seeds {
    /// Reads `--seeds N`, `--from S`, `--seed S`, `--streams N`, `--markdown FILE`.
    pub(crate) fn parse(mut words: &[&str]) -> Result<Self, String> {
        let mut seeds = Seeds::default();
        while let Some((flag, rest)) = words.split_first() {
            let (value, rest) = rest.split_first().ok_or(format!("after {flag} comes a number, or a file's name"))?;
            words = rest;
            if *flag == "--markdown" {
                seeds.markdown = Some((*value).to_owned());
                continue;
            }
            let number: u64 = value.parse().map_err(|_| format!("{flag}: `{value}` is not a number"))?;
            match *flag {
                "--seeds" => seeds.count = Some(number),
                "--from" => seeds.from = Some(number),
                "--seed" => (seeds.count, seeds.from) = (Some(1), Some(number)),
                "--streams" => seeds.streams = Some(number),
                _ => return Err(format!("`{flag}` is none of --seeds, --from, --seed, --streams, --markdown")),
            }
        }
        match &seeds {
            Seeds { streams: None, markdown: Some(_), .. } => Err("--markdown goes with --streams".to_owned()),
            Seeds { streams: Some(_), count: Some(_), .. } => Err("--streams says how many, not --seeds".to_owned()),
            _ => Ok(seeds),
        }
    }
}

/// Runs them.
pub(crate) fn run(seeds: &Seeds) -> Result<(), String> {
    let which = match seeds.streams {
        Some(_) => "faulted_streams_are_told_whole",
        None => "whatever_fails_the_promises_hold",
    };
    let test = ["test", "--package", "tidegate", "--test", "world", "--", "--nocapture", which];
    let mut test = process::cargo(&test);
    if let Some(file) = &seeds.markdown {
        let here = std::env::current_dir().map_err(|e| format!("where this is run cannot be told: {e}"))?;
        test.env(MARKDOWN, here.join(file));
    }
    for (name, value) in [(SEEDS, seeds.count), (FROM, seeds.from), (STREAMS, seeds.streams)] {
        if let Some(value) = value {
            test.env(name, value.to_string());
        }
    }
    process::run(&mut test)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_a_run_of_length_one() {
        let some = |count, from| Seeds { count: Some(count), from: Some(from), ..Seeds::default() };
        assert_eq!(Seeds::parse(&["--seed", "77"]), Ok(some(1, 77)));
        assert_eq!(Seeds::parse(&["--seeds", "9", "--from", "3"]), Ok(some(9, 3)));
        assert_eq!(Seeds::parse(&[]), Ok(Seeds::default()));
    }

    #[test]
    fn faulted_streams_have_a_number_and_a_page_of_their_own() {
        let million = Seeds { streams: Some(1_000_000), markdown: Some("a.md".to_owned()), ..Seeds::default() };
        assert_eq!(Seeds::parse(&["--streams", "1000000", "--markdown", "a.md"]), Ok(million));
        assert!(Seeds::parse(&["--markdown", "a.md"]).unwrap_err().contains("goes with --streams"));
        assert!(Seeds::parse(&["--streams", "9", "--seeds", "9"]).unwrap_err().contains("not --seeds"));
    }

    #[test]
    fn a_wrong_word_is_told() {
        assert!(Seeds::parse(&["--seed"]).unwrap_err().contains("comes a number"));
        assert!(Seeds::parse(&["--seeds", "x"]).unwrap_err().contains("not a number"));
        assert!(Seeds::parse(&["--sed", "1"]).unwrap_err().contains("none of"));
    }
}
