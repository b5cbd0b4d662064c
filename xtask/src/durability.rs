//! The gateway killed under a thousand conversations, by command.
//!
//! The test itself lives in `crates/tidegate/tests/front_door/talks/killed.rs` and reads two
//! variables: how many rounds, and where its dice begin. `cargo xtask test` runs a few rounds among
//! all other tests; this command runs as many as one has patience for, some two seconds each.

use crate::process;

/// Which rounds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rounds {
    count: Option<u64>,
    seed: Option<u64>,
}

impl Rounds {
    /// Reads `--rounds N`, `--seed S`.
    pub(crate) fn parse(mut words: &[&str]) -> Result<Self, String> {
        let mut rounds = Rounds::default();
        while let Some((flag, rest)) = words.split_first() {
            let (value, rest) = rest.split_first().ok_or(format!("after {flag} comes a number"))?;
            let number: u64 = value.parse().map_err(|_| format!("{flag}: `{value}` is not a number"))?;
            match *flag {
                "--rounds" if number > 0 => rounds.count = Some(number),
                "--rounds" => return Err("--rounds: at least one".to_owned()),
                "--seed" => rounds.seed = Some(number),
                _ => return Err(format!("`{flag}` is none of --rounds, --seed")),
            }
            words = rest;
        }
        Ok(rounds)
    }
}

/// Runs them.
pub(crate) fn run(rounds: &Rounds) -> Result<(), String> {
    let test = ["test", "--package", "tidegate", "--test", "front_door", "--", "--nocapture", "talks::killed"];
    let mut test = process::cargo(&test);
    for (name, value) in [("TIDEGATE_DURABILITY_ROUNDS", rounds.count), ("TIDEGATE_DURABILITY_SEED", rounds.seed)] {
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
    fn rounds_are_read_and_a_wrong_word_is_told() {
        assert_eq!(Rounds::parse(&[]), Ok(Rounds::default()));
        let rounds = Rounds { count: Some(300), seed: Some(7) };
        assert_eq!(Rounds::parse(&["--rounds", "300", "--seed", "7"]), Ok(rounds));
        assert!(Rounds::parse(&["--rounds"]).unwrap_err().contains("comes a number"));
        assert!(Rounds::parse(&["--rounds", "x"]).unwrap_err().contains("not a number"));
        assert!(Rounds::parse(&["--rounds", "0"]).unwrap_err().contains("at least one"));
        assert!(Rounds::parse(&["--round", "1"]).unwrap_err().contains("none of"));
    }
}
