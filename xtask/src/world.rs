//! World runs by command: gateway and simulator in one process, in virtual time, from seeds.
//!
//! The test itself lives in `crates/tidegate/tests/world.rs` and reads two variables: how many
//! seeds, and the first. `cargo xtask test` runs a thousand of them among all other tests; this
//! command runs more, or the one that failed.

use crate::process;

/// How many seeds.
pub(crate) const SEEDS: &str = "TIDEGATE_WORLD_SEEDS";
/// The first seed.
pub(crate) const FROM: &str = "TIDEGATE_WORLD_FROM";
/// Seeds in `cargo xtask test`, unless the variable says otherwise.
pub(crate) const SEEDS_OF_A_TEST: &str = "1000";

/// Which runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seeds {
    count: Option<u64>,
    from: Option<u64>,
}

impl Seeds {
    /// Reads `--seeds N`, `--from S`, `--seed S`.
    pub(crate) fn parse(mut words: &[&str]) -> Result<Self, String> {
        let mut seeds = Seeds::default();
        while let Some((flag, rest)) = words.split_first() {
            let (value, rest) = rest.split_first().ok_or(format!("after {flag} comes a number"))?;
            let number: u64 = value.parse().map_err(|_| format!("{flag}: `{value}` is not a number"))?;
            match *flag {
                "--seeds" => seeds.count = Some(number),
                "--from" => seeds.from = Some(number),
                "--seed" => seeds = Seeds { count: Some(1), from: Some(number) },
                _ => return Err(format!("`{flag}` is none of --seeds, --from, --seed")),
            }
            words = rest;
        }
        Ok(seeds)
    }
}

/// Runs them.
pub(crate) fn run(seeds: &Seeds) -> Result<(), String> {
    let mut test = process::cargo(&["test", "--package", "tidegate", "--test", "world", "--", "--nocapture"]);
    for (name, value) in [(SEEDS, seeds.count), (FROM, seeds.from)] {
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
        assert_eq!(Seeds::parse(&["--seed", "77"]), Ok(Seeds { count: Some(1), from: Some(77) }));
        assert_eq!(Seeds::parse(&["--seeds", "9", "--from", "3"]), Ok(Seeds { count: Some(9), from: Some(3) }));
        assert_eq!(Seeds::parse(&[]), Ok(Seeds::default()));
    }

    #[test]
    fn a_wrong_word_is_told() {
        assert!(Seeds::parse(&["--seed"]).unwrap_err().contains("comes a number"));
        assert!(Seeds::parse(&["--seeds", "x"]).unwrap_err().contains("not a number"));
        assert!(Seeds::parse(&["--sed", "1"]).unwrap_err().contains("none of"));
    }
}
