//! A disk that is full, a file that cannot be written or is none: told through the door, and nothing
//! lost.

use super::{ALL, delete, ids, path, read, refused, say, write};
use crate::process::{Folder, Tidegate, finished};
use serde_json::json;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What makes a file system of three megabytes at `$0` for the command that follows.
const SMALL_DISK: &str = "mount -t tmpfs -o size=3m tmpfs \"$0\" && exec \"$@\"";

#[test]
fn a_full_disk_is_told_and_takes_nothing_that_was_acknowledged() {
    let folder = Folder::new();
    let place = folder.path("disk");
    std::fs::create_dir(&place).unwrap();
    let within = ["unshare", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, &place];
    let tried = Command::new(within[0]).args(&within[1..]).arg("true").stdin(Stdio::null()).output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: no file system can be mounted here: {tried:?}");
        return;
    }
    let config = format!("[conversations]\nfile = \"{place}/c.db\"\n");
    let tidegate = Tidegate::simulated_within(&within, &config);
    // Words: what looks like base64 is kept once, however often it is said.
    let text = "all work ".repeat(6_000);
    let mut kept = Vec::new();
    let full = loop {
        let id = format!("c{}", kept.len());
        let answer = write(&tidegate, &id, &text);
        if answer.status != 200 {
            break answer;
        }
        kept.push(id);
        assert!(kept.len() < 100, "three megabytes are never full");
    };
    refused(&full, 500, "conversation_log_full");
    assert_eq!(full.header("x-should-retry"), Some("false"));
    assert!(kept.len() > 5, "{}", kept.len());
    let mut there = ids(&read(&tidegate, &format!("{ALL}?limit=1000")));
    there.sort_by_key(|id| id[1..].parse::<usize>().unwrap());
    assert_eq!(there, kept);
    for id in &kept {
        let turn = read(&tidegate, &format!("{}/turns", path(id)))["data"][0].clone();
        assert_eq!(turn["messages"][0]["content"], json!(text), "{id}");
    }
    // What is deleted makes room, if the disk still has any for saying so.
    let gone = delete(&tidegate, &path("c0"));
    if gone.status == 200 {
        assert_eq!(write(&tidegate, "c0", "again").json()["number"], json!(1));
    } else {
        refused(&gone, 500, "conversation_log_full");
    }
}

#[test]
fn a_file_that_cannot_be_used_ends_the_start_with_its_reason() {
    let folder = Folder::new();
    let none = folder.write("text.db", &"this is no log\n".repeat(1_000));
    let start = |file: &str| {
        let free = "127.0.0.1:0";
        let at = ["--listen", free, "--admin-listen", free, "--simulate-listen", free, "--truth-listen", free];
        finished(&[&["serve", "--simulate", "--conversations", file][..], &at].concat())
    };
    let (code, _, err) = start(&none);
    assert!(code != 0 && err.contains("is no conversation log; nothing was changed"), "{code} {err}");
    let (code, _, err) = start(&folder.path("no-folder/c.db"));
    assert!(code != 0 && err.contains("no-folder"), "{code} {err}");
}

#[test]
fn a_scratch_file_leaves_nothing_behind_however_the_process_ends() {
    let folder = Folder::new();
    let temporary = folder.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let within = ["env".to_owned(), format!("TMPDIR={temporary}")];
    let within: Vec<&str> = within.iter().map(String::as_str).collect();
    let left = || std::fs::read_dir(&temporary).unwrap().map(|file| file.unwrap().file_name()).collect::<Vec<_>>();
    for signal in ["KILL", "TERM"] {
        let mut tidegate = Tidegate::simulated_within(&within, "");
        assert!(tidegate.output().contains("a scratch file, gone when this ends"), "{}", tidegate.output());
        assert_eq!(say(&tidegate, "c", "one", None).header("tidegate-turn"), Some("1"));
        // What is deleted is deleted there too, and the file read again.
        assert_eq!(delete(&tidegate, &path("c")).status, 200);
        assert_eq!(write(&tidegate, "c", "anew").json()["number"], json!(1));
        tidegate.signal(signal);
        assert_eq!(tidegate.exit(Duration::from_secs(20)), (signal == "TERM").then_some(0));
        assert_eq!(left(), [""; 0], "after {signal}");
    }
}

#[test]
fn a_file_that_cannot_be_written_ends_the_start_and_is_left_as_it_is() {
    let folder = Folder::new();
    let place = folder.path("disk");
    std::fs::create_dir(&place).unwrap();
    let script =
        "mount -t tmpfs tmpfs \"$0\" && cp \"$1\" \"$0/c.db\" && mount -o remount,ro \"$0\" && shift && exec \"$@\"";
    let made = folder.path("made.db");
    let tidegate = Tidegate::simulated_with("", &["--conversations", &made]);
    say(&tidegate, "c", "one", None);
    drop(tidegate);
    let within = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, &place, &made];
    let tried = Command::new(within[0]).args(&within[1..]).arg("true").stdin(Stdio::null()).output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: no file system can be mounted here: {tried:?}");
        return;
    }
    let free = "127.0.0.1:0";
    let file = format!("{place}/c.db");
    let serve = ["serve", "--simulate", "--conversations", &file, "--listen", free, "--admin-listen", free];
    let serve = [&[env!("CARGO_BIN_EXE_tidegate")][..], &serve, &["--simulate-listen", free, "--truth-listen", free]];
    let output = Command::new(within[0])
        .args(&within[1..])
        .args(serve.concat())
        .env_remove("ANTHROPIC_API_KEY")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && err.contains(&file) && err.contains("cannot be written: read-only"), "{err}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("ready"), "nothing listens");
}
