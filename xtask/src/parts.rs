//! `cargo xtask test`: the parts of it, in the order that fails soonest, each under a heading.
//!
//! The first part that fails ends the run; a later part would only hide it. Every runner prints its
//! own closing line. What a part installs is kept, with a stamp, for the next run.

use crate::process::{self, heading};
use crate::{autobahn, clients, instructions, readme, tidy, world};

/// A part that can be run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Rust,
    Instructions,
    Tidy,
    Readme,
    Python,
    TypeScript,
    Autobahn,
}

const PARTS: [(&str, Part); 7] = [
    ("tidy", Part::Tidy),
    ("rust", Part::Rust),
    ("instructions", Part::Instructions),
    ("readme", Part::Readme),
    ("python", Part::Python),
    ("typescript", Part::TypeScript),
    ("autobahn", Part::Autobahn),
];

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Empty for all of them.
    only: Vec<Part>,
    as_written: bool,
}

impl Wanted {
    /// Reads `--only PART` (also several times) and `--as-written`.
    pub(crate) fn parse(mut words: &[&str]) -> Result<Self, String> {
        let mut wanted = Wanted::default();
        loop {
            words = match words {
                [] => return Ok(wanted),
                ["--as-written", rest @ ..] => {
                    wanted.as_written = true;
                    rest
                }
                ["--only", name, rest @ ..] => {
                    let part = PARTS.iter().find(|(known, _)| known == name);
                    let part = part.ok_or(format!(
                        "`{name}` is none of rust, instructions, tidy, readme, python, typescript, autobahn"
                    ))?;
                    wanted.only.push(part.1);
                    rest
                }
                [word, ..] => return Err(format!("`{word}` is neither `--only PART` nor `--as-written`")),
            };
        }
    }
}

/// Runs the wanted parts.
pub(crate) fn run(wanted: &Wanted) -> Result<(), String> {
    for (name, part) in PARTS {
        if wanted.only.is_empty() || wanted.only.contains(&part) {
            run_part(part, wanted).map_err(|why| format!("{name}: {why}"))?;
        }
    }
    println!("\nAll of it passed.");
    Ok(())
}

fn run_part(part: Part, wanted: &Wanted) -> Result<(), String> {
    match part {
        Part::Tidy => {
            heading("tidy: the repository's own rules");
            tidy::run()
        }
        Part::Rust => rust(),
        Part::Instructions => instructions::run(false),
        Part::Readme => readme::run(wanted.as_written),
        Part::Python => clients::python(),
        Part::TypeScript => clients::typescript(),
        Part::Autobahn => autobahn::slice(),
    }
}

fn rust() -> Result<(), String> {
    heading("rust: format");
    process::run(&mut process::cargo(&["fmt", "--all", "--check"]))?;
    heading("rust: lints");
    process::run(&mut process::cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    heading("rust: tests, the World's thousand seeds among them");
    // One room's test reads a trace of system calls. Where strace cannot be had, it says so itself.
    if let Err(why) = process::need("strace", "strace") {
        println!("{why}");
    }
    let mut test = process::cargo(&["test", "--workspace"]);
    if std::env::var_os(world::SEEDS).is_none() {
        test.env(world::SEEDS, world::SEEDS_OF_A_TEST);
    }
    process::run(&mut test)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_chosen_by_name() {
        assert_eq!(Wanted::parse(&[]), Ok(Wanted::default()));
        let wanted = Wanted::parse(&["--only", "python", "--only", "tidy", "--as-written"]).unwrap();
        assert_eq!(wanted, Wanted { only: vec![Part::Python, Part::Tidy], as_written: true });
    }

    #[test]
    fn a_part_that_is_not_there_is_told() {
        assert!(Wanted::parse(&["--only", "pyhton"]).unwrap_err().contains("none of"));
        assert!(Wanted::parse(&["--only"]).unwrap_err().contains("neither"));
    }
}
