//! `bench --scenario` from outside: a short one with small limits, what its numbers must satisfy on
//! any machine, and what it refuses.

use crate::process::{Folder, command, eventually, finished};
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

/// Three legs of 4 s and what follows of them; a crowded machine takes longer.
const MEASURED_MAX: Duration = Duration::from_secs(180);

/// Two organisations, each with 24,000 output tokens a minute, of 30 an answer: together 26.7 answers a
/// second.
const SCENARIO: &str = r#"about = "Two small organisations."
[pace]
head = "20 ms"
first = "20 ms"
tokens_per_second = 200
output_tokens = "20-40"
[quota]
burst = "1 s"
[[organisation]]
name = "north"
keys = ["sk-ant-north-1", "sk-ant-north-2"]
[organisation.limits.haiku-5-5]
requests_per_minute = 6000
input_tokens_per_minute = 3000000
output_tokens_per_minute = 24000
[[organisation]]
name = "east"
keys = ["sk-ant-east-1"]
[organisation.limits.haiku-5-5]
requests_per_minute = 6000
input_tokens_per_minute = 3000000
output_tokens_per_minute = 24000
"#;

fn number(of: &Value, pointer: &str) -> u64 {
    of.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer} in {of:#}"))
}

/// Whatever machine this is, these hold of a leg.
fn check_leg(leg: &Value) {
    let outcomes = leg["outcomes"].as_object().unwrap();
    let plain: u64 = outcomes.values().filter_map(Value::as_u64).sum();
    let other: u64 = outcomes["other"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(plain + other, number(leg, "/offered"), "every request has one outcome: {leg:#}");
    let bands = leg["bands"].as_object().unwrap();
    assert_eq!(bands.keys().collect::<Vec<_>>(), ["interactive", "normal", "background"]);
    let sum = |name: &str| bands.values().map(|band| band[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("offered"), sum("whole")), (number(leg, "/offered"), number(leg, "/outcomes/whole")));
    assert!(leg["success_percent"].as_f64().is_some_and(|percent| (0.0..=100.0).contains(&percent)));
    assert!(number(leg, "/upstream/requests") >= number(leg, "/outcomes/whole"));
}

#[test]
fn a_short_run_offers_every_leg_the_same_and_counts_everything_once() {
    let folder = Folder::new();
    let (scenario, page) = (folder.write("two.toml", SCENARIO), folder.write("page.md", ""));
    let args = ["bench", "--scenario", &scenario, "--duration", "4s", "--seed", "5", "--json", "--markdown", &page];
    let mut child = command(&args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = eventually("the run", MEASURED_MAX, || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(status.success(), "{out}\n{err}");
    let all: Value = serde_json::from_str(&out).unwrap();

    assert_eq!(all["quota"]["binding"], "output tokens");
    let (rate, quota) = (all["rate_per_s"].as_f64().unwrap(), all["quota"]["requests_per_s"].as_f64().unwrap());
    assert!((quota - 48_000.0 / 30.0 / 60.0).abs() < 1e-9 && (rate - 2.0 * quota).abs() < 1e-9, "{all:#}");
    let [direct, sdk, tidegate] = ["direct", "sdk", "tidegate"].map(|name| &all["legs"][name]);
    for leg in [direct, sdk, tidegate] {
        check_leg(leg);
        assert_eq!(number(leg, "/offered"), number(direct, "/offered"));
    }
    // 213 expected; the standard deviation is 15.
    assert!((140..290).contains(&number(direct, "/offered")), "{all:#}");
    assert!(number(direct, "/outcomes/429") > 0, "twice the quota does not fit: {all:#}");
    assert_eq!(number(direct, "/upstream/requests"), number(direct, "/offered"), "nothing is repeated");
    assert_eq!(number(direct, "/upstream/429"), number(direct, "/outcomes/429"));
    assert!(number(sdk, "/upstream/requests") > number(sdk, "/offered"), "refused requests come again: {all:#}");
    assert_eq!(number(sdk, "/attempts_of_clients"), number(sdk, "/upstream/requests"));
    assert_eq!(number(tidegate, "/outcomes/429"), 0, "no 429 of the upstream's reaches a client: {all:#}");
    assert!(direct["gateway"].is_null() && direct["quota_used"]["percent"].as_f64().is_some_and(|x| x > 1.0));
    assert!(tidegate["gateway"]["memory_peak_bytes"].as_u64().is_some_and(|bytes| bytes > 1_000_000), "{all:#}");
    assert!(tidegate["gateway"]["cpu_s"].as_f64().is_some_and(|s| s > 0.001), "{all:#}");

    let page = std::fs::read_to_string(&page).unwrap();
    for want in
        ["| machine | ", "| date | 20", "| commit | ", "| command | `tidegate bench --scenario", "| upstream 429 "]
    {
        assert!(page.contains(want), "{want}: {page}");
    }
}

#[test]
fn what_cannot_be_offered_is_refused_before_anything_starts() {
    let folder = Folder::new();
    let file = |name: &str, text: &str| folder.write(name, text);
    let two = file("two.toml", SCENARIO);
    let bare = file("bare.toml", "[bare]\nevents = 3\n");
    let long = format!("[[organisation]]\nname = \"{}\"\nkeys = [\"k\"]\n", "n".repeat(65));
    let long = file("long.toml", &long);
    let unlimited = file("unlimited.toml", "[quota]\ntier = \"unlimited\"\n");
    for (args, wants) in [
        (&["--scenario", "nonesuch"][..], &["nonesuch", "--list"][..]),
        (&["--scenario", &bare], &["[bare]", "no quota"]),
        (&["--scenario", &unlimited], &["no limits", "tier"]),
        (&["--scenario", &long, "--legs", "tidegate"], &["tidegate does not take", "1 to 64 characters"]),
        (&["--scenario", &two, "--times", "0"], &["--times", "0.01"]),
        (&["--scenario", &two, "--legs", "direct,litellm"], &["litellm", "tidegate"]),
        (&["--scenario", &two, "--legs", "sdk,sdk"], &["--legs", "twice"]),
        (&["--scenario", &two, "--duration", "2h"], &["--duration", "3600 s"]),
        (&["--scenario", &two, "--timeout", "10ms"], &["--timeout", "1 s"]),
        (&["--scenario", &two, "--rate", "5"], &["--scenario", "--rate"]),
        (&["--scenario", &two, "http://127.0.0.1:1"], &["--scenario", "URL"]),
        (&["http://127.0.0.1:1", "--legs", "sdk"], &["--scenario"]),
        (&["http://127.0.0.1:1", "--markdown", "x.md"], &["--scenario"]),
    ] {
        let (code, out, err) = finished(&[&["bench"], args].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        for want in wants {
            assert!(err.contains(want), "{args:?}: {want}: {err}");
        }
    }
}
