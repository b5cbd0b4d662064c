//! Other programs: started the same way everywhere, bounded in time, and named when they fail.
//!
//! Children stay in this tool's process group, so that Ctrl-C ends them with it. What cargo tells
//! this tool about itself (`CARGO_PKG_...`) is not passed on: build scripts watch such variables
//! and would build everything again. Nor is any credential or address of the real API.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a child that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo builds, and where this tool keeps what it installs and logs.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A command at the repository's root, without what only concerns this process.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let of_this_build = ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix));
        if of_this_build || name.starts_with("ANTHROPIC_") || name.to_ascii_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command
}

/// The same cargo that runs this tool.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = command(std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from));
    command.args(arguments);
    command
}

/// A line that says what comes next.
pub(crate) fn heading(text: &str) {
    println!("\n== {text}");
}

/// The command as a person would type it.
pub(crate) fn spoken(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn judge(status: ExitStatus, spoken: &str) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(format!("`{spoken}` failed: {status}")) }
}

fn started(command: &mut Command, spoken: &str) -> Result<Child, String> {
    command.spawn().map_err(|error| format!("`{spoken}` did not start: {error}"))
}

/// Runs it, its output shown as it comes.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let spoken = spoken(command);
    let status = started(command.stdin(Stdio::null()), &spoken)?.wait();
    judge(status.map_err(|error| format!("`{spoken}`: {error}"))?, &spoken)
}

/// Runs it, its output shown as it comes, and ends it when `patience` is over.
pub(crate) fn run_within(command: &mut Command, patience: Duration) -> Result<(), String> {
    let spoken = spoken(command);
    let mut child = started(command, &spoken)?;
    match wait_within(&mut child, patience) {
        Some(status) => judge(status, &spoken),
        None => {
            end(&mut child);
            Err(format!("`{spoken}` was still running after {} s and was ended", patience.as_secs()))
        }
    }
}

/// Runs it, and shows its output only if it fails.
pub(crate) fn run_quietly(command: &mut Command, log: &Path) -> Result<(), String> {
    let spoken = spoken(command);
    into_log(command, log)?;
    let status = started(command.stdin(Stdio::null()), &spoken)?.wait();
    let outcome = judge(status.map_err(|error| format!("`{spoken}`: {error}"))?, &spoken);
    if outcome.is_err() {
        show(log);
    }
    outcome
}

/// Sends output and errors of `command` to one file, emptied first.
pub(crate) fn into_log(command: &mut Command, log: &Path) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", log.display());
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    File::create(log).map_err(failed)?;
    // Two handles that append: neither overwrites what the other wrote.
    let open = || File::options().append(true).open(log).map_err(failed);
    command.stdout(open()?).stderr(open()?);
    Ok(())
}

/// Prints the end of a log, for a person who has to find out why.
pub(crate) fn show(log: &Path) {
    const LINES_MAX: usize = 40;
    const CHARS_MAX: usize = 300;
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    println!("-- the end of {}", log.display());
    lines[lines.len().saturating_sub(LINES_MAX)..].iter().for_each(|line| {
        println!("   {}", line.chars().take(CHARS_MAX).collect::<String>());
    });
}

/// The child's exit status, or `None` if it still runs when `patience` is over.
pub(crate) fn wait_within(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if began.elapsed() < patience => std::thread::sleep(LOOK),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Asks the child to stop, as a service manager does. (The standard library cannot send SIGTERM.)
pub(crate) fn terminate(child: &Child) -> Result<(), String> {
    let mut kill = command("bash");
    kill.args(["-c", &format!("kill -TERM {}", child.id())]);
    run(&mut kill)
}

/// Ends the child at once.
pub(crate) fn end(child: &mut Child) {
    // Both fail only if it has ended already, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

/// Makes sure that `program` can be run, by `apt-get` if need be.
pub(crate) fn need(program: &str, package: &str) -> Result<(), String> {
    // Most say their version when asked the one way, openssl when asked the other.
    let says = |program: &str, asked: &str| {
        let mut probe = command(program);
        probe.arg(asked).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let works = |program: &str| says(program, "--version") || says(program, "version");
    if works(program) {
        return Ok(());
    }
    install(package)?;
    if works(program) { Ok(()) } else { Err(format!("`{program}` is needed: install it and run this again")) }
}

/// Installs a package of the system.
pub(crate) fn install(package: &str) -> Result<(), String> {
    println!("installing {package}");
    let log = target().join("xtask").join("apt-get.log");
    for arguments in [&["update"][..], &["install", "--yes", "--no-install-recommends", package]] {
        let mut apt = command("apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        run_quietly(&mut apt, &log).map_err(|why| format!("{why}; install {package} by hand"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut bash = command("bash");
        bash.args(["-c", script]);
        bash
    }

    #[test]
    fn a_failure_names_the_command() {
        assert_eq!(run(&mut shell("exit 0")), Ok(()));
        assert_eq!(run(&mut shell("exit 3")), Err("`bash -c exit 3` failed: exit status: 3".to_owned()));
        assert!(run(&mut command("no-such-program-here")).unwrap_err().contains("did not start"));
    }

    #[test]
    fn a_child_that_does_not_end_is_ended() {
        let why = run_within(&mut shell("sleep 60"), Duration::from_millis(50)).unwrap_err();
        assert!(why.contains("was still running"), "{why}");
    }

    #[test]
    fn a_credential_of_the_real_api_is_not_passed_on() {
        // Nothing to remove in most environments; what is there must be marked for removal.
        let kept = command("env");
        let removed = |name: &str| kept.get_envs().any(|(n, v)| n == name && v.is_none());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANTHROPIC_")) {
            assert!(removed(&name), "{name}");
        }
        assert!(std::env::var_os("CARGO_PKG_NAME").is_none() || removed("CARGO_PKG_NAME"));
    }
}
