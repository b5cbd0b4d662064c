//! Random conversations before the simulated API's validator, by command.
//!
//! The test itself lives in `crates/gateway/src/memory/histories.rs` and reads two variables: how many
//! histories, and the first one's seed. `cargo xtask test` runs a few hundred of them among all other
//! tests; this command runs as many as one has patience for, with full optimisation.

use crate::process;

/// Which histories.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Histories {
    count: Option<u64>,
    seed: Option<u64>,
}

/// Histories, unless it is said.
const COUNT: u64 = 10_000;

impl Histories {
    /// Reads `--count N`, `--seed S`.
    pub(crate) fn parse(mut words: &[&str]) -> Result<Self, String> {
        let mut histories = Histories::default();
        while let Some((flag, rest)) = words.split_first() {
            let (value, rest) = rest.split_first().ok_or(format!("after {flag} comes a number"))?;
            let number: u64 = value.parse().map_err(|_| format!("{flag}: `{value}` is not a number"))?;
            match *flag {
                "--count" if number > 0 => histories.count = Some(number),
                "--count" => return Err("--count: at least one".to_owned()),
                "--seed" => histories.seed = Some(number),
                _ => return Err(format!("`{flag}` is none of --count, --seed")),
            }
            words = rest;
        }
        Ok(histories)
    }
}

/// Runs them.
pub(crate) fn run(histories: &Histories) -> Result<(), String> {
    let test = ["test", "--package", "tidegate-gateway", "--lib", "--", "--nocapture", "memory::histories"];
    let mut test = process::cargo(&test);
    test.env("CARGO_PROFILE_DEV_OPT_LEVEL", "3");
    test.env("TIDEGATE_HISTORIES", histories.count.unwrap_or(COUNT).to_string());
    test.env("TIDEGATE_HISTORIES_SEED", histories.seed.unwrap_or(0).to_string());
    process::run(&mut test)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_are_read_and_a_wrong_word_is_told() {
        assert_eq!(Histories::parse(&[]), Ok(Histories::default()));
        let histories = Histories { count: Some(1_000_000), seed: Some(7) };
        assert_eq!(Histories::parse(&["--count", "1000000", "--seed", "7"]), Ok(histories));
        assert!(Histories::parse(&["--count"]).unwrap_err().contains("comes a number"));
        assert!(Histories::parse(&["--count", "x"]).unwrap_err().contains("not a number"));
        assert!(Histories::parse(&["--count", "0"]).unwrap_err().contains("at least one"));
        assert!(Histories::parse(&["--seeds", "1"]).unwrap_err().contains("none of"));
    }
}
