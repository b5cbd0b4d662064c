//! A server for the time of a test: started, waited for until it says `ready`, stopped by SIGTERM.
//!
//! The server's standard output is a contract: one line per address (`gateway    http://...`), then
//! a line that is `ready` and nothing else. Output goes to a log file that is shown when something
//! fails. A server that does not exit with 0 after SIGTERM fails the test, whatever passed before.

use crate::process;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Drain is at most 30 s by default, and no test leaves a stream open.
const STOP_PATIENCE: Duration = Duration::from_secs(35);

/// A running server.
pub(crate) struct Served {
    child: Child,
    log: PathBuf,
}

impl Served {
    /// Starts `command` and waits until it says `ready`.
    pub(crate) fn start(command: &mut Command, log: &Path, patience: Duration) -> Result<Self, String> {
        let spoken = process::spoken(command);
        process::into_log(command, log)?;
        let child =
            command.stdin(Stdio::null()).spawn().map_err(|error| format!("`{spoken}` did not start: {error}"))?;
        let mut served = Served { child, log: log.to_path_buf() };
        let began = Instant::now();
        while !served.said().lines().any(|line| line.trim() == "ready") {
            let ended = process::wait_within(&mut served.child, Duration::from_millis(20));
            if ended.is_some() || began.elapsed() > patience {
                process::show(log);
                let ended =
                    ended.map_or_else(|| "is not ready in time".to_owned(), |status| format!("ended: {status}"));
                return Err(format!("`{spoken}` {ended}"));
            }
        }
        Ok(served)
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The address it printed after this name.
    pub(crate) fn address(&self, name: &str) -> Result<String, String> {
        address(&self.said(), name).ok_or_else(|| {
            process::show(&self.log);
            format!("the server printed no line `{name} http://...`")
        })
    }

    /// The end of what it printed, for a person.
    pub(crate) fn show(&self) {
        process::show(&self.log);
    }

    /// Stops it as a service manager does; it must end in time and with 0, and none of its tasks
    /// may have panicked (which costs a client its connection, and the process nothing).
    pub(crate) fn stop(mut self) -> Result<(), String> {
        process::terminate(&self.child)?;
        match process::wait_within(&mut self.child, STOP_PATIENCE) {
            Some(status) if status.success() => match self.said().lines().find(|line| line.contains("panicked at")) {
                None => Ok(()),
                Some(panic) => Err(format!("within the server: {panic}; see {}", self.log.display())),
            },
            Some(status) => {
                self.show();
                Err(format!("the server ended with {status} after SIGTERM; it must end with 0"))
            }
            None => {
                self.show();
                Err(format!("the server still runs {} s after SIGTERM", STOP_PATIENCE.as_secs()))
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}

fn address(said: &str, name: &str) -> Option<String> {
    let lines = said.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
    let mut addresses = lines.filter(|(word, _)| *word == name).map(|(_, rest)| rest.trim());
    addresses.find(|address| address.starts_with("http://")).map(|address| {
        let end = address.find(char::is_whitespace).unwrap_or(address.len());
        address[..end].to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(name: &str, script: &str) -> Result<Served, String> {
        let log = process::target().join("xtask").join(format!("test-{name}.log"));
        let mut bash = process::command("bash");
        Served::start(bash.args(["-c", script]), &log, Duration::from_secs(5))
    }

    #[test]
    fn addresses_are_read_from_the_lines_before_ready() {
        let script = "echo 'gateway    http://127.0.0.1:4600   (any key)'; echo ready; trap 'exit 0' TERM; while :; do sleep 0.02; done";
        let served = serve("addresses", script).unwrap();
        assert_eq!(served.address("gateway"), Ok("http://127.0.0.1:4600".to_owned()));
        assert!(served.address("truth").is_err());
        assert_eq!(served.stop(), Ok(()));
    }

    #[test]
    fn a_server_that_ends_before_it_is_ready_is_an_error() {
        let why = serve("early", "echo no; exit 4").err().unwrap();
        assert!(why.contains("exit status: 4"), "{why}");
    }

    #[test]
    fn a_server_that_hides_a_panic_is_an_error() {
        let script = "echo ready; echo \"thread 'a' panicked at x.rs:1:1:\" >&2; trap 'exit 0' TERM; while :; do sleep 0.02; done";
        let why = serve("panic", script).unwrap().stop().unwrap_err();
        assert!(why.contains("panicked at x.rs:1:1"), "{why}");
    }

    #[test]
    fn a_server_that_dies_of_the_signal_is_an_error() {
        let why = serve("rude", "echo ready; exec sleep 60").unwrap().stop().unwrap_err();
        assert!(why.contains("must end with 0"), "{why}");
    }
}
