//! The order of system calls: the log is synchronised before an answer's end is written to its
//! client.
//!
//! A kill cannot show a missing sync, since the page cache survives it. strace can: it sees the
//! writes to the log, each sync that has returned, and what is written to whose socket. The scratch
//! file of `--simulate` is never synchronised, so on it the same test has to find every end too
//! early.

use crate::process::{Folder, Tidegate, eventually};
use crate::wire::{QUICK, message, post};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

const CALLS: &str = "trace=write,pwrite64,writev,pwritev,sendto,sendmsg,fsync,fdatasync";
/// Turns that are traced; every other is a stream.
const TURNS: u32 = 10;
/// Bytes of a call that strace shows: more than an answer here has.
const SHOWN: &str = "8192";

/// What a trace shows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Ends of answers written to clients.
    ends: u32,
    /// Of these: before them the log was not written, or not synchronised since.
    too_early: u32,
}

/// Reads a trace of `strace -f -yy` of turns that were asked one after the other.
fn read(trace: &str, gateway: SocketAddr) -> Seen {
    // A socket of a client's connection, as -yy shows it: ours first.
    let client = format!("<TCP:[{gateway}->");
    let mut seen = Seen::default();
    // Writes to the log that have begun; how many of them a returned sync covers; at the last end.
    let (mut written, mut synced, mut before) = (0, 0, 0);
    let mut syncing = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let is_sync = ["fsync(", "fdatasync("].iter().any(|name| call.starts_with(name));
        let is_log = call.contains("-wal>");
        let resumed = call.starts_with("<... fsync resumed") || call.starts_with("<... fdatasync resumed");
        let is_end = call.contains("event: message_stop") || call.contains("HTTP/1.1 200") && call.contains("/json");
        if is_sync && is_log {
            syncing.insert(thread, written);
        } else if is_log {
            written += 1;
        } else if call.contains(&client) && is_end {
            seen.ends += 1;
            seen.too_early += u32::from(synced < written || written == before);
            before = written;
        }
        if (is_sync || resumed) && call.trim_end().ends_with(" = 0") {
            synced = synced.max(syncing.remove(thread).unwrap_or(0));
        }
    }
    seen
}

/// A trace of a few turns through this gateway; `None`, with the reason printed, where strace cannot
/// run.
fn trace(tidegate: &Tidegate, folder: &Folder) -> Option<Seen> {
    let (to, said) = (folder.path("trace"), folder.write("strace", ""));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-yy", "-s", SHOWN, "-e", CALLS, "-o", &to, "-p", &tidegate.pid().to_string()]);
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&said).unwrap());
    let started = strace.spawn();
    let Ok(mut strace) = started else {
        println!("skipped: strace cannot run here: {:?}", started.err());
        return None;
    };
    let said = || std::fs::read_to_string(&said).unwrap();
    let attached = eventually("strace attaches or says why not", Duration::from_secs(10), || {
        let ended = strace.try_wait().unwrap().is_some();
        (ended || said().contains("attached")).then_some(!ended)
    });
    if !attached {
        println!("skipped: strace cannot run here: {}", said());
        return None;
    }
    for nth in 0..TURNS {
        let turn = [("tidegate-conversation", "traced"), QUICK];
        let answer = tidegate.ask(post(&turn, message(nth % 2 == 0, 100, &format!("question {nth}"))));
        assert_eq!((answer.status, answer.whole), (200, true), "{}", answer.text());
        assert_eq!(answer.header("tidegate-turn"), Some((nth + 1).to_string().as_str()));
    }
    // It lets the gateway go and ends.
    assert!(Command::new("sh").args(["-c", &format!("kill -INT {}", strace.id())]).status().unwrap().success());
    eventually("strace ends", Duration::from_secs(10), || strace.try_wait().unwrap());
    Some(read(&std::fs::read_to_string(to).unwrap(), tidegate.gateway))
}

#[test]
fn an_answers_end_is_written_to_its_client_after_the_log_was_synchronised() {
    let folder = Folder::new();
    let tidegate = Tidegate::simulated_with("", &["--conversations", &folder.path("conversations.db")]);
    if let Some(seen) = trace(&tidegate, &folder) {
        assert_eq!(seen, Seen { ends: TURNS, too_early: 0 });
    }
}

#[test]
fn without_synchronisation_the_trace_shows_it() {
    let (folder, tidegate) = (Folder::new(), Tidegate::simulated());
    if let Some(seen) = trace(&tidegate, &folder) {
        assert_eq!(seen, Seen { ends: TURNS, too_early: TURNS });
    }
}

#[test]
fn an_end_before_its_sync_has_returned_is_too_early() {
    let gateway: SocketAddr = "127.0.0.1:4600".parse().unwrap();
    let too_early = |trace: &str| read(trace, gateway).too_early;
    let write = "10 pwrite64(5</x/c.db-wal>, \"..\", 24, 0) = 24\n";
    let sync = "10 fdatasync(5</x/c.db-wal>) = 0\n";
    let end =
        "11 sendto(9<TCP:[127.0.0.1:4600->127.0.0.1:99]>, \"event: message_stop\\n\", 6, MSG_NOSIGNAL, NULL, 0) = 6\n";
    assert_eq!(read(&[write, sync, end].concat(), gateway), Seen { ends: 1, too_early: 0 });
    assert_eq!(too_early(&[write, end, sync].concat()), 1);
    assert_eq!(too_early(&[sync, end].concat()), 1, "nothing was written");
    assert_eq!(too_early(&[write, "10 fdatasync(6</x/c.db>) = 0\n", end].concat()), 1);
    let (begun, done) = ("10 fsync(5</x/c.db-wal> <unfinished ...>\n", "10 <... fsync resumed>) = 0\n");
    assert_eq!(too_early(&[write, begun, end, done].concat()), 1);
    assert_eq!(too_early(&[write, begun, done, end].concat()), 0);
    assert_eq!(too_early(&[write, begun, write, done, end].concat()), 1);
    // The upstream's own end is nobody's acknowledgement.
    let theirs = end.replace("127.0.0.1:4600->127.0.0.1:99", "127.0.0.1:99->127.0.0.1:4610");
    assert_eq!(read(&[write, &theirs].concat(), gateway), Seen::default());
    let whole = "11 writev(9<TCP:[127.0.0.1:4600->127.0.0.1:99]>, [{\"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\n\", 9}], 1) = 9\n";
    assert_eq!(read(&[write, whole].concat(), gateway), Seen { ends: 1, too_early: 1 });
}
