//! Personal data: the command for files and pipes, and what an operator says of it at start.

mod command;
mod pieces;
mod proof;
mod rotation;
mod start;
#[path = "../../../../redact/tests/corpus/values.rs"]
pub(crate) mod values;

use crate::process::{command, eventually};
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

/// Runs `tidegate ARGS` with this on its standard input: exit code, standard output, standard error.
fn piped(args: &[&str], input: &[u8]) -> (i32, Vec<u8>, String) {
    let mut child = command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end before it has read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let mut stderr = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let mut out = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    let status = eventually("the command's end", Duration::from_secs(30), || child.try_wait().unwrap());
    writer.join().unwrap();
    (status.code().unwrap_or(-1), out, errors.join().unwrap().unwrap())
}

/// The same for `tidegate redact`, whose output is text.
fn redact(args: &[&str], input: &str) -> (i32, String, String) {
    let (code, out, err) = piped(&[&["redact"], args].concat(), input.as_bytes());
    (code, String::from_utf8(out).unwrap(), err)
}
