//! The scheduler before its judge, by command: every scenario over many seeds, in virtual time.
//!
//! The test itself lives in `crates/schedule/tests/judge` and reads its orders from variables. It
//! is built with full optimisation here, since thousands of runs are waited for; `cargo test` runs
//! a slice of it as it builds everything else.

use crate::process;

/// Which runs, and where the table goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders<'a> {
    seeds: Option<u64>,
    from: Option<u64>,
    minutes: Option<u64>,
    scenario: Option<&'a str>,
    markdown: Option<&'a str>,
}

/// Seeds of each scenario, unless it is said.
const SEEDS: u64 = 10;

impl<'a> Orders<'a> {
    /// Reads `--seeds N`, `--from S`, `--minutes M`, `--scenario NAME`, `--markdown FILE`.
    pub(crate) fn parse(mut words: &[&'a str]) -> Result<Self, String> {
        let mut orders = Orders::default();
        while let Some((flag, rest)) = words.split_first() {
            let (value, rest) = rest.split_first().ok_or(format!("after {flag} comes its value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{flag}: `{value}` is not a number"));
            match *flag {
                "--seeds" => orders.seeds = Some(number()?),
                "--from" => orders.from = Some(number()?),
                "--minutes" => orders.minutes = Some(number()?),
                "--scenario" => orders.scenario = Some(value),
                "--markdown" => orders.markdown = Some(value),
                _ => return Err(format!("`{flag}` is none of --seeds, --from, --minutes, --scenario, --markdown")),
            }
            words = rest;
        }
        Ok(orders)
    }
}

/// Runs them.
pub(crate) fn run(orders: &Orders) -> Result<(), String> {
    let test = ["test", "--package", "tidegate-schedule", "--test", "judge", "--", "--nocapture", "every_scenario"];
    let mut test = process::cargo(&test);
    test.env("CARGO_PROFILE_DEV_OPT_LEVEL", "3");
    test.env("TIDEGATE_JUDGE_SEEDS", orders.seeds.unwrap_or(SEEDS).to_string());
    test.env("TIDEGATE_JUDGE_FROM", orders.from.unwrap_or(0).to_string());
    if let Some(minutes) = orders.minutes {
        test.env("TIDEGATE_JUDGE_MINUTES", minutes.to_string());
    }
    if let Some(scenario) = orders.scenario {
        test.env("TIDEGATE_JUDGE_SCENARIO", scenario);
    }
    if let Some(file) = orders.markdown {
        // The test runs in its crate's folder; a relative name is meant from here.
        let here = std::env::current_dir().map_err(|error| format!("the current folder: {error}"))?;
        test.env("TIDEGATE_JUDGE_MARKDOWN", here.join(file));
    }
    process::run(&mut test)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read() {
        assert_eq!(Orders::parse(&[]), Ok(Orders::default()));
        let words = ["--seeds", "100", "--from", "7", "--minutes", "5", "--scenario", "ramp", "--markdown", "t.md"];
        let orders = Orders::parse(&words);
        let (seeds, from, minutes) = (Some(100), Some(7), Some(5));
        let wanted = Orders { seeds, from, minutes, scenario: Some("ramp"), markdown: Some("t.md") };
        assert_eq!(orders, Ok(wanted));
    }

    #[test]
    fn a_wrong_word_is_told() {
        assert!(Orders::parse(&["--seeds"]).unwrap_err().contains("comes its value"));
        assert!(Orders::parse(&["--seeds", "x"]).unwrap_err().contains("not a number"));
        assert!(Orders::parse(&["--seed", "1"]).unwrap_err().contains("none of"));
    }
}
