//! The programs of `examples/rust` do what they say, against a running gateway. `cargo test` builds
//! them beside these tests.

use crate::process::{Tidegate, eventually};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// An answer of the simulator's takes some seconds.
const RUN_MAX: Duration = Duration::from_secs(60);

fn built(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap();
    let file = folder.join("examples").join(name);
    assert!(file.exists(), "{} is not built: `cargo build -p tidegate --examples`", file.display());
    file
}

/// What an example prints.
fn run(tidegate: &Tidegate, name: &str, words: &[&str]) -> String {
    let mut command = Command::new(built(name));
    command.args(words).env("TIDEGATE_URL", format!("http://{}", tidegate.gateway)).env_remove("TIDEGATE_KEY");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = eventually(name, RUN_MAX, || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(status.success(), "{name}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn the_examples_in_rust_do_what_they_say() {
    let tidegate = Tidegate::simulated();
    let said = run(&tidegate, "streaming", &["What is a tide?"]);
    assert!(said.len() > 40 && said.contains("\n[\"end_turn\", "), "{said}");

    let said = run(&tidegate, "resume", &[]);
    let (before, after) = said.split_once("\n-- cut, and back again --\n").unwrap();
    assert!(before.len() > 10 && after.len() > 20 && after.ends_with("\n[whole]\n"), "{said}");

    let said = run(&tidegate, "conversation", &["a-talk"]);
    assert!(said.contains("> Where is it?\n") && said.ends_with("[a-talk has 2 turns]\n"), "{said}");

    let said = run(&tidegate, "priority", &[]);
    let served = |band: &str| said.lines().filter(|l| l.starts_with(band) && l.ends_with(" tokens")).count();
    assert_eq!((served("background"), served("interactive")), (5, 1), "{said}");
    let late = run(&tidegate, "priority", &["20"]);
    assert!(late.lines().any(|l| l == "interactive 504 deadline_passed"), "{late}");
}
