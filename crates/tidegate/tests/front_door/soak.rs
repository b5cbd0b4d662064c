//! `bench soak` from outside: a very short one with everything in it, and what it refuses.

use crate::process::{Folder, command, eventually, finished};
use std::process::Stdio;
use std::time::Duration;

/// The load lasts 12 s, and what follows some more; a crowded machine takes longer.
const SOAKED_MAX: Duration = Duration::from_secs(150);

#[test]
fn a_short_soak_serves_every_crowd_and_leaves_nothing_behind() {
    let folder = Folder::new();
    let page = folder.write("soak.md", "");
    let args = ["bench", "soak", "--minutes", "0.2", "--streams", "150", "--markdown", &page];
    let mut child = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = eventually("the soak", SOAKED_MAX, || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(status.success() && err.is_empty(), "{out}\n{err}\n{page}");
    assert!(out.contains("verdict: passed; too short to judge growth"), "{out}");
    for want in [
        "| machine | ",
        "| date | 20",
        "| commit | ",
        "| command | `tidegate bench soak --minutes 0.2",
        "| verdict | passed; too short",
        "| at rest ",
    ] {
        assert!(page.contains(want), "{want}: {page}");
    }
    // clients, begun, whole, left, knocks, connections, events
    let crowd = |name: &str| -> Vec<f64> {
        let line = page.lines().find(|line| line.split('|').nth(1).is_some_and(|cell| cell.trim() == name));
        let cells = line.unwrap_or_else(|| panic!("{name}: {page}")).split('|').skip(2).take(7);
        cells.map(|cell| cell.trim().replace(',', "").parse().unwrap()).collect()
    };
    assert!(crowd("streams")[6] > 500.0 && crowd("long streams")[6] > 100.0, "{page}");
    let over_http2 = crowd("streams, HTTP/2");
    assert!(over_http2[5] < over_http2[0] && over_http2[6] > 100.0, "many streams on few connections: {page}");
    assert!(crowd("leaving")[3] > 5.0 && crowd("leaving, HTTP/2")[3] > 1.0, "{page}");
    assert!(crowd("knocks")[4] > 10.0 && crowd("buffered")[2] > 5.0, "{page}");
    assert!(crowd("bodies of 100 KB to 1 MB")[1] > 0.0, "{page}");
    let streams_open = |line: &&str| line.contains("streams,") && !line.contains(" 0 streams,");
    assert!(out.lines().filter(streams_open).count() >= 4, "a line now and then while it runs: {out}");
}

#[test]
fn a_soak_that_cannot_begin_says_why_and_writes_no_page() {
    let folder = Folder::new();
    let page = folder.write("soak.md", "");
    for (args, want) in [
        (&["--minutes", "0"][..], "0.1"),
        (&["--minutes", "ten"], "0.1"),
        (&["--streams", "9001"], "9000"),
        (&["--program", "/nowhere/tidegate"], "/nowhere/tidegate"),
        (&["--program", "/bin/false"], "tidegate ended at once"),
    ] {
        let (code, _, err) = finished(&[&["bench", "soak", "--markdown", &page], args].concat());
        assert!(code == 2 && err.contains(want), "{args:?}: {code} {err}");
    }
    assert_eq!(std::fs::read_to_string(&page).unwrap(), "");
}
