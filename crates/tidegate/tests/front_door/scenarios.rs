//! `bench scenarios` from outside: a short one with a fault that mending helps against, what its
//! numbers must satisfy on any machine, and what it refuses.

use crate::process::{Folder, command, eventually, finished};
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

/// Three seconds of three ways at once, and the end of what was asked; a crowded machine takes longer.
const MEASURED_MAX: Duration = Duration::from_secs(120);

/// Every second answer is cut in the middle, and one in five refused before it begins.
const CUT: &str = r#"about = "Cut."
[pace]
head = "20 ms"
first = "20 ms"
event = "5 ms"
output_tokens = "60-80"
[[fault]]
do = ["status:529"]
probability = 0.2
[[fault]]
do = ["reset-at:event-6"]
probability = 0.5
"#;

fn number(of: &Value, pointer: &str) -> f64 {
    of.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} in {of:#}"))
}

#[test]
fn every_way_is_asked_the_same_and_each_failure_has_its_kind() {
    let folder = Folder::new();
    let scenario = folder.write("cut.toml", CUT);
    let (page, image) = (folder.path("page.md"), folder.path("chart.svg"));
    let args = ["bench", "scenarios", "--only", &scenario, "--duration", "3s", "--seed", "5", "--json"];
    let args = [&args[..], &["--markdown", &page, "--svg", &image]].concat();
    let mut child = command(&args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = eventually("the run", MEASURED_MAX, || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(status.success(), "{out}\n{err}");
    let all: Value = serde_json::from_str(&out).unwrap();
    let ways = &all["scenarios"]["cut"]["ways"];
    let [sdk, tidegate, recover] = ["sdk", "tidegate", "recover"].map(|key| &ways[key]);
    for way in [sdk, tidegate, recover] {
        // 30 are expected; the standard deviation is 5.
        assert!((10.0..60.0).contains(&number(way, "/asked")), "{all:#}");
        assert_eq!(way["asked"], sdk["asked"], "the same requests: {all:#}");
        let failed: f64 = way["errors"].as_object().unwrap().values().filter_map(Value::as_f64).sum();
        assert_eq!(number(way, "/whole") + failed, number(way, "/asked"), "each has one outcome: {all:#}");
        assert!(number(way, "/upstream_requests") >= number(way, "/whole"), "{all:#}");
        assert!(number(way, "/dollars") > 0.0 && number(way, "/total_s/p99") > 0.1, "{all:#}");
    }
    // What is cut a client sees as a broken connection, and through Tidegate as an error that says so.
    assert!(sdk["errors"]["reset"].as_u64().is_some_and(|n| n > 0), "{all:#}");
    let told = tidegate["errors"].as_object().unwrap();
    assert!(!told.is_empty() && told.keys().all(|kind| kind.starts_with("stream ")), "{all:#}");
    assert!(number(recover, "/whole") > number(tidegate, "/whole"), "cut answers are mended: {all:#}");
    assert!(number(recover, "/upstream_requests") > number(tidegate, "/upstream_requests"), "{all:#}");

    let page = std::fs::read_to_string(&page).unwrap();
    for want in ["| machine | ", "| commit | ", "| command | `tidegate bench scenarios", "| `cut` ", "$"] {
        assert!(page.contains(want), "`{want}` is not in\n{page}");
    }
    assert!(std::fs::read_to_string(&image).unwrap().contains("with recover"));
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is() {
    for (args, says) in [
        (&["--only", "calm,calmer"][..], "`calmer`"),
        (&["--duration", "0s"], "--duration"),
        (&["--only", "calm", "--duration", "2h"], "--duration"),
    ] {
        let (code, out, err) = finished(&[&["bench", "scenarios"][..], args].concat());
        assert!(code != 0 && out.is_empty() && err.contains(says), "{args:?}: {code} {out} {err}");
    }
}
