//! `bench peers` from outside: a short comparison with real peers, its files, and what it refuses.
//! Where nginx and HAProxy are not installed and may not be, the comparison is skipped and says so.

use crate::process::{Folder, command, eventually, finished};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

/// A short comparison takes some ten seconds; a crowded machine takes longer.
const COMPARED_MAX: Duration = Duration::from_secs(120);

/// Whether a peer's program is there. The harness hides what passing tests print, so what is skipped
/// is told past it.
fn has_peers() -> bool {
    let there = |program: &str| {
        ["/usr/sbin", "/usr/bin", "/usr/local/sbin"].iter().any(|f| std::path::Path::new(f).join(program).exists())
    };
    let all = there("nginx") && there("haproxy");
    if !all {
        let _ =
            writeln!(std::io::stderr(), "SKIPPED: nginx and haproxy are not installed, `bench peers` is not tested");
    }
    all
}

#[test]
fn a_short_comparison_measures_all_three_and_keeps_what_it_found() {
    if !has_peers() {
        return;
    }
    let folder = Folder::new();
    let (json, page) = (folder.write("all.json", ""), folder.write("page.md", ""));
    let args = ["bench", "peers", "--quick", "--only", "json", "--json", &json, "--markdown", &page];
    let mut child = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = eventually("the comparison", COMPARED_MAX, || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(status.success(), "{out}\n{err}");

    let all: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let row = &all["rows"]["json"];
    for peer in ["upstream alone", "nginx", "haproxy", "tidegate"] {
        assert!(row["json_requests_per_s"][peer]["median"].as_f64().is_some_and(|rate| rate > 100.0), "{all}");
        let cpu = row["json_cpu_us_per_request"][peer]["median"].as_f64();
        assert_eq!(cpu.is_some_and(|us| us > 1.0 && us < 5_000.0), peer != "upstream alone", "{peer}: {all}");
    }
    assert_eq!(all["notes"], serde_json::json!([]), "every request was answered well");
    // This machine may have other things to do; then there are values and no ratios.
    let refused = all["upstream_times_nginx"].as_f64().unwrap() < 1.8;
    assert_eq!(all["ratios_refused"].is_string(), refused, "{all}");
    assert_eq!(row["json_requests_per_s"]["tidegate"]["to_nginx"].is_null(), refused, "{all}");
    let page = std::fs::read_to_string(&page).unwrap();
    for want in [
        "| machine | ",
        "| date | 20",
        "| commit | ",
        "| command | `tidegate bench peers --quick",
        "| tidegate ",
        "must",
    ] {
        assert!(page.contains(want), "{want}: {page}");
    }
    assert_eq!((page.contains("no ratios"), out.contains("no ratios")), (refused, refused), "{page}\n{out}");
}

#[test]
fn rows_are_listed_and_what_is_unknown_is_refused_before_anything_starts() {
    let (code, out, err) = finished(&["bench", "peers", "--list"]);
    assert_eq!((code, err.as_str()), (0, ""));
    for row in ["json", "sse", "latency", "streams", "scaling", "tls", "idle", "footprint"] {
        assert!(out.lines().any(|line| line.starts_with(row)), "{row}: {out}");
    }
    let nobody = "--without=nginx,haproxy,tidegate";
    for (args, wants) in [
        (&["--only", "jsn"][..], &["`jsn`", "json"][..]),
        (&["--without", "apache"], &["apache", "nginx"]),
        (&["--peer", "mine=http://127.0.0.1:1"], &["--upstream-listen"]),
        (&[nobody, "--upstream-listen", "127.0.0.1:1", "--peer", "mine"], &["`mine`", "NAME=URL"]),
        (&["--rounds", "0"], &["--rounds"]),
    ] {
        let (code, out, err) = finished(&[&["bench", "peers"], args].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}");
        for want in wants {
            assert!(err.contains(want), "{want}: {err}");
        }
    }
    let (code, _, err) = finished(&["bench"]);
    assert!(code == 2 && err.contains("URL"), "{err}");
}

/// Both peers are left out, so this needs neither.
#[test]
fn an_interrupted_comparison_ends_what_it_started() {
    let folder = Folder::new();
    let file = folder.write("all.json", "");
    let args = ["bench", "peers", "--only", "streams", "--without", "nginx,haproxy", "--json", &file];
    let mut child = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children = || {
        let all = std::process::Command::new("sh")
            .args(["-c", &format!("cat /proc/{0}/task/*/children", child.id())])
            .output();
        String::from_utf8(all.unwrap().stdout).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    // First the upstream is measured by itself for the yardstick, then for the row.
    let started = eventually("an upstream", COMPARED_MAX, || Some(children()).filter(|pids| !pids.is_empty()));
    let asked = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(asked.success());
    let status = eventually("its end", COMPARED_MAX, || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(status.code() == Some(2) && err.contains("stopped"), "{err}");
    for pid in started {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!stat.contains("simulate"), "{pid} is left: {stat}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "", "half a comparison is not kept");
}
