//! The order of system calls: the log is synchronised before the acknowledgement is written.
//!
//! A kill cannot show a missing sync, since the page cache survives it. strace can: it sees each
//! write to the log, each sync that has returned, and each acknowledgement. It can also make a sync
//! fail.

use crate::child::{self, TRACED};
use crate::{Folder, story};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};

const CALLS: &str = "trace=write,pwrite64,writev,pwritev,fsync,fdatasync";

/// Whether strace can run here; says so if it cannot.
fn can_trace() -> bool {
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).stdin(Stdio::null()).output();
    let why = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    println!("skipped: strace cannot run here: {why}");
    false
}

/// What a trace shows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    acknowledged: u32,
    /// Acknowledgements before which the log was not written, or not synchronised since.
    too_early: u32,
}

/// Reads a trace of `strace -f -y`.
fn read(trace: &str) -> Seen {
    let mut seen = Seen::default();
    // Writes to the log that have begun; how many of them a returned sync covers; at the last acknowledgement.
    let (mut written, mut synced, mut before) = (0, 0, 0);
    let mut syncing = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let is_sync = ["fsync(", "fdatasync("].iter().any(|name| call.starts_with(name));
        let is_write = ["write(", "pwrite64(", "writev(", "pwritev("].iter().any(|name| call.starts_with(name));
        let returned = call.trim_end().ends_with(" = 0");
        if is_sync && call.contains("-wal>") {
            syncing.insert(thread, written);
        } else if is_write && call.contains("-wal>") {
            written += 1;
        } else if call.starts_with("write(1<") && call.contains("\"A ") {
            seen.acknowledged += 1;
            seen.too_early += u32::from(synced < written || written == before);
            before = written;
        }
        let resumed = call.starts_with("<... fsync resumed") || call.starts_with("<... fdatasync resumed");
        if returned && (is_sync || resumed) {
            synced = synced.max(syncing.remove(thread).unwrap_or(0));
        }
    }
    seen
}

fn trace(what: &str) -> Seen {
    let folder = Folder::new();
    let to = folder.0.join("trace");
    let strace = ["strace", "-f", "-y", "-e", CALLS, "-o", to.to_str().unwrap()];
    let output = child::command(&strace, what, &folder.log()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    read(&std::fs::read_to_string(to).unwrap())
}

#[test]
fn the_log_is_synchronised_before_an_acknowledgement_is_written() {
    if can_trace() {
        assert_eq!(trace("synced"), Seen { acknowledged: TRACED, too_early: 0 });
    }
}

#[test]
fn without_synchronisation_the_trace_shows_it() {
    if can_trace() {
        assert_eq!(trace("unsynced"), Seen { acknowledged: TRACED, too_early: TRACED });
    }
}

#[test]
fn after_a_sync_that_failed_nothing_is_taken_and_nothing_acknowledged_is_lost() {
    if !can_trace() {
        return;
    }
    let mut failed = 0;
    // Some of these are syncs of the database or of the folder while it is opened; then nothing begins.
    for nth in [8, 14, 17, 20] {
        let folder = Folder::new();
        let inject = format!("inject=fsync,fdatasync:error=EIO:when={nth}");
        let strace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", &inject];
        let output = child::command(&strace, "synced", &folder.log()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let acknowledged = told.lines().filter(|line| line.starts_with("A ")).count() as u32;
        failed += u32::from(told.contains("\nF the conversation log's disk failed"));
        let found = story::verify(&crate::open(&folder.log()), 3);
        assert!(found[1] >= acknowledged && found[1] <= acknowledged + 1, "{acknowledged} acknowledged, {found:?}");
        assert_eq!(found[2], 0, "what came after the failure was refused: {told}");
    }
    assert!(failed >= 3, "the failure was injected and told: {failed}");
}

#[test]
fn a_sync_that_has_not_returned_does_not_count() {
    let write = "10 pwrite64(5</x/log.db-wal>, \"..\", 24, 0) = 24\n";
    let acknowledge = "11 write(1<pipe:[7]>, \"A 1 1\\n\", 6) = 6\n";
    let too_early = |trace: String| read(&trace).too_early;
    assert_eq!(too_early(format!("{write}10 fsync(5</x/log.db-wal>) = 0\n{acknowledge}")), 0);
    assert_eq!(too_early(format!("{write}{acknowledge}")), 1);
    assert_eq!(too_early(format!("{write}10 fsync(5</x/log.db-wal>) = -1 EIO\n{acknowledge}")), 1);
    assert_eq!(too_early(format!("{write}10 fsync(6</x/log.db>) = 0\n{acknowledge}")), 1);
    let begun = format!("{write}10 fsync(5</x/log.db-wal> <unfinished ...>\n");
    assert_eq!(too_early(format!("{begun}{acknowledge}10 <... fsync resumed>) = 0\n")), 1);
    assert_eq!(too_early(format!("{begun}10 <... fsync resumed>) = 0\n{acknowledge}")), 0);
    assert_eq!(too_early(format!("{begun}{write}10 <... fsync resumed>) = 0\n{acknowledge}")), 1, "written since");
}
