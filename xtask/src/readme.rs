//! The README's commands, run as a reader would run them, in the order of the page.
//!
//! How a block is tested stands after its language:
//!
//! | block | what happens |
//! |---|---|
//! | `sh` | run by bash, stopped at the first error; must exit with 0 |
//! | `sh serve` | one command, started in the background, waited for until it prints `ready`; it serves the blocks that follow, until the next `sh serve` or the end, then gets SIGTERM and must exit with 0 |
//! | `sh skip-run REASON` | not run; the reason is printed |
//! | `python`, `typescript`, `js` | run with the SDK that the client tests use; may say `skip-run` too |
//!
//! Other languages are text. What a block prints is shown only if it fails. Builds with `--release`
//! are run without it, so that a test run compiles everything once; `--as-written` keeps them. The
//! second README is run only if its blocks are not those of the first; that its commands are the
//! same is a rule of `tidy`.

use crate::clients;
use crate::markdown::{self, Fence};
use crate::process::{self, heading};
use crate::served::Served;
use crate::tidy::without_comments;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A block that only talks to what runs already.
const BLOCK_PATIENCE: Duration = Duration::from_secs(180);
/// A block that may have to compile first.
const BUILD_PATIENCE: Duration = Duration::from_secs(1_800);

/// A block of the page, as it is tested.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Run(String),
    Serve(String),
    Skip(String),
    Python(String),
    Node(String),
    Text,
}

impl Block {
    /// Sorts a fenced block.
    pub(crate) fn read(fence: &Fence) -> Result<Self, String> {
        let run: fn(String) -> Block = match fence.language() {
            "sh" => Block::Run,
            "python" => Block::Python,
            "typescript" | "ts" | "js" | "javascript" => Block::Node,
            "bash" | "shell" | "console" => return Err(format!("write `sh` for `{}`", fence.language())),
            _ => return Ok(Block::Text),
        };
        let words: Vec<&str> = fence.info.split_whitespace().skip(1).collect();
        match (words.as_slice(), fence.language()) {
            ([], _) => Ok(run(fence.body.clone())),
            (["serve"], "sh") => Ok(Block::Serve(fence.body.clone())),
            (["skip-run"], _) => Err("after `skip-run` comes the reason".to_owned()),
            (["skip-run", reason @ ..], _) => Ok(Block::Skip(reason.join(" "))),
            ([word, ..], _) => Err(format!("`{word}` is neither `serve` nor `skip-run REASON`")),
        }
    }
}

/// Runs the blocks of both pages.
pub(crate) fn run(as_written: bool) -> Result<(), String> {
    let read = |name: &str| std::fs::read_to_string(process::root().join(name)).ok();
    let (first, second) = (read("README.md"), read("README.zh-CN.md"));
    heading("readme: the commands of README.md");
    let Some(first) = first else {
        println!("skipped: there is no README.md yet");
        return Ok(());
    };
    process::need("curl", "curl")?;
    process::need("openssl", "openssl")?;
    run_page("README.md", &first, as_written)?;
    if let Some(second) = second {
        heading("readme: the commands of README.zh-CN.md");
        if code(&second) == code(&first) {
            println!("the same, block for block");
        } else {
            run_page("README.zh-CN.md", &second, as_written)?;
        }
    }
    Ok(())
}

/// What a page has the reader run, comments aside.
fn code(page: &str) -> Vec<String> {
    let fences = markdown::fences(page).into_iter();
    let blocks = fences.filter(|fence| !matches!(Block::read(fence), Ok(Block::Text | Block::Skip(_))));
    blocks.map(|fence| format!("{}\n{}", fence.info, without_comments(&fence.body))).collect()
}

fn run_page(name: &str, page: &str, as_written: bool) -> Result<(), String> {
    let mut serving: Option<Served> = None;
    let (mut passed, mut skipped) = (0, 0);
    for fence in markdown::fences(page) {
        let at = format!("{name}:{}", fence.line);
        let block = Block::read(&fence).map_err(|why| format!("{at}: {why}"))?;
        if matches!(block, Block::Text) {
            continue;
        }
        if let Block::Skip(reason) = &block {
            skipped += 1;
            println!("-- {at}: not run: {reason}");
            continue;
        }
        println!("-- {at}: {}", fence.info);
        without_comments(&fence.body).lines().for_each(|line| println!("   {line}"));
        let log = process::target().join("xtask").join(format!("{}.log", at.replace(':', "-")));
        let outcome = match block {
            Block::Run(script) => run_shell(&as_run(&script, as_written), &log),
            Block::Serve(script) => {
                if let Some(former) = serving.take() {
                    former.stop().map_err(|why| format!("{at}: before it: {why}"))?;
                }
                serve(&as_run(&script, as_written), &log).map(|served| serving = Some(served))
            }
            Block::Python(script) => {
                clients::python_for_readme().and_then(|mut python| fed(python.arg("-"), &script, &log))
            }
            Block::Node(script) => clients::node_for_readme()
                .and_then(|mut node| fed(node.args(["--input-type=module", "-"]), &script, &log)),
            Block::Skip(_) | Block::Text => Ok(()),
        };
        if let Err(why) = outcome {
            serving.iter().for_each(Served::show);
            return Err(format!("{at}: {why}"));
        }
        passed += 1;
    }
    if let Some(last) = serving {
        last.stop().map_err(|why| format!("{name}: {why}"))?;
    }
    println!("{name}: {passed} passed, 0 failed, {skipped} skipped");
    Ok(())
}

/// The script as it is run here.
fn as_run(script: &str, as_written: bool) -> String {
    if as_written {
        return script.to_owned();
    }
    let lines = script.lines().map(|line| {
        let builds = ["cargo run", "cargo build"].iter().any(|start| line.trim_start().starts_with(start));
        let line = if builds { line.replacen(" --release", "", 1) } else { line.to_owned() };
        line.replace("target/release/", "target/debug/")
    });
    lines.map(|line| line + "\n").collect()
}

fn patience(script: &str) -> Duration {
    if script.contains("cargo ") { BUILD_PATIENCE } else { BLOCK_PATIENCE }
}

fn bash(script: &str) -> Command {
    let mut bash = process::command("bash");
    bash.args(["-euo", "pipefail", "-c", script]).stdin(Stdio::null());
    bash
}

fn run_shell(script: &str, log: &Path) -> Result<(), String> {
    let mut bash = bash(script);
    process::into_log(&mut bash, log)?;
    process::run_within(&mut bash, patience(script)).map_err(|why| failed(&why, log))
}

/// Bash replaces itself by a command that is all its script, and `cargo run` by what it built, so
/// that the signal reaches the server.
fn serve(script: &str, log: &Path) -> Result<Served, String> {
    let command = without_comments(script);
    Served::start(&mut bash(&command), log, patience(&command)).map_err(|why| what_happened(&why))
}

/// Runs an interpreter with a program on its standard input.
fn fed(interpreter: &mut Command, program: &str, log: &Path) -> Result<(), String> {
    let file = log.with_extension("program");
    let cannot = |error| format!("{}: {error}", file.display());
    process::into_log(interpreter, log)?;
    std::fs::write(&file, program).map_err(cannot)?;
    interpreter.stdin(File::open(&file).map_err(cannot)?);
    process::run_within(interpreter, BLOCK_PATIENCE).map_err(|why| failed(&why, log))
}

/// Shows what a block printed, which is of no interest while it works.
fn failed(why: &str, log: &Path) -> String {
    process::show(log);
    what_happened(why)
}

/// A message names the script in full, which stands above it already; its end says what happened.
fn what_happened(why: &str) -> String {
    why.rsplit_once("` ").map_or(why, |(_, end)| end).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(info: &str) -> Result<Block, String> {
        Block::read(&Fence { info: info.to_owned(), body: "x\n".to_owned(), line: 1 })
    }

    #[test]
    fn a_block_says_how_it_is_tested() {
        assert_eq!(block("sh"), Ok(Block::Run("x\n".into())));
        assert_eq!(block("sh serve"), Ok(Block::Serve("x\n".into())));
        assert_eq!(block("sh skip-run needs a real key"), Ok(Block::Skip("needs a real key".into())));
        assert_eq!(block("python"), Ok(Block::Python("x\n".into())));
        assert_eq!(block("typescript"), Ok(Block::Node("x\n".into())));
        assert_eq!(block("python skip-run needs a real key"), Ok(Block::Skip("needs a real key".into())));
        assert_eq!(block("toml"), Ok(Block::Text));
        assert_eq!(block(""), Ok(Block::Text));
    }

    #[test]
    fn a_block_that_nobody_would_run_is_an_error() {
        for info in ["sh srve", "sh skip-run", "bash", "python serve"] {
            assert!(block(info).is_err(), "{info}");
        }
    }

    #[test]
    fn releases_are_built_only_as_written() {
        let script = "cargo run --release -- serve\ntarget/release/tidegate bench\necho --release\n";
        assert_eq!(as_run(script, false), "cargo run -- serve\ntarget/debug/tidegate bench\necho --release\n");
        assert_eq!(as_run(script, true), script);
    }

    /// A server in three words of shell: ready at once, 0 on SIGTERM.
    const SERVER: &str = "bash -c 'trap \"exit 0\" TERM; echo ready; while :; do sleep 0.02; done'";

    #[test]
    fn a_server_serves_the_blocks_after_it_and_stops_well() {
        let page = format!(
            "# x\n```sh serve\n# starts it\n{SERVER}\n```\n```sh\ntrue\n```\n```sh skip-run a reason\nfalse\n```\n```sh serve\n{SERVER}\n```\n"
        );
        assert_eq!(run_page("PAGE", &page, false), Ok(()));
    }

    #[test]
    fn a_block_that_fails_is_named_by_its_line() {
        let why = run_page("PAGE", "```sh\ntrue\n```\n\n```sh\nfalse\ntrue\n```\n", false).unwrap_err();
        assert!(why.starts_with("PAGE:5: ") && why.contains("exit status: 1"), "{why}");
    }

    #[test]
    fn a_server_that_stops_badly_fails_the_page() {
        let why = run_page("BAD-PAGE", "```sh serve\nbash -c 'echo ready; exec sleep 60'\n```\n", false).unwrap_err();
        assert!(why.starts_with("BAD-PAGE: ") && why.contains("must end with 0"), "{why}");
    }
}
