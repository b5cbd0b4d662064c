//! What is in `packaging/` fits the binary: the image's rules, the unit's rights, the dashboard's
//! metrics. No image is built and no service is started here; what can be checked without is.

use crate::process::{Folder, Tidegate, finished};
use crate::wire::{QUICK, Wire, bare, get, message, post};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The worst exposure of the unit that passes, in tenths of systemd's 0 to 10; its own words for up to
/// 2 are "OK".
const EXPOSURE_MAX: &str = "15";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn packaged(name: &str) -> String {
    std::fs::read_to_string(root().join("packaging").join(name)).unwrap()
}

/// Instructions with their words, continued lines joined, comments left out.
fn instructions(text: &str) -> Vec<(String, String)> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = lines.map(|line| line.split_once(' ').unwrap_or_else(|| panic!("no words: {line}")));
    split.map(|(name, words)| (name.to_owned(), words.trim().to_owned())).collect()
}

fn only<'a>(all: &'a [(String, String)], name: &str) -> &'a str {
    let found: Vec<_> = all.iter().filter(|(known, _)| known == name).collect();
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    &found[0].1
}

/// The words of an instruction in JSON, after flags.
fn words(text: &str) -> Vec<String> {
    let from = text.find('[').unwrap_or_else(|| panic!("not in JSON, so a shell would be needed: {text}"));
    serde_json::from_str(&text[from..]).unwrap()
}

/// Every variable that the binary asks for by name is in the one table of them.
#[test]
fn every_variable_of_the_environment_is_documented() {
    fn sources(folder: &Path, all: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                sources(&entry, all);
            } else {
                all.push(std::fs::read_to_string(entry).unwrap());
            }
        }
    }
    let page = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let table = page.split_once("## Environment\n").unwrap().1.split("\n## ").next().unwrap();
    let mut texts = Vec::new();
    sources(&root().join("crates/tidegate/src"), &mut texts);
    let mut asked = BTreeSet::from(["https_proxy", "http_proxy", "all_proxy", "no_proxy"].map(str::to_owned));
    for text in &texts {
        let before_tests = text.split("#[cfg(test)]").next().unwrap();
        for (at, _) in before_tests.match_indices("_API_KEY\"") {
            let begin = before_tests[..at].rsplit('"').next().unwrap();
            if begin.bytes().all(|b| b.is_ascii_uppercase()) {
                asked.insert(format!("{begin}_API_KEY"));
            }
        }
        for call in ["env(\"", "env::var(\"", "env::var_os(\""] {
            let names = before_tests.match_indices(call).map(|(at, _)| &before_tests[at + call.len()..]);
            // `.env("X", ..)` gives a variable to another program.
            let names = names.filter_map(|rest| rest.split_once("\")")).map(|(name, _)| name);
            asked.extend(
                names.filter(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')).map(str::to_owned),
            );
        }
    }
    assert!(asked.len() > 8 && asked.contains("NOTIFY_SOCKET") && asked.contains("TIDEGATE_API_KEY"), "{asked:?}");
    let missing: Vec<_> = asked.iter().filter(|name| !table.contains(&format!("`{}`", name.to_uppercase()))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_image_copies_what_is_there_and_runs_as_nobody() {
    let all = instructions(&packaged("Dockerfile"));
    let stages: Vec<usize> = all.iter().enumerate().filter(|(_, (name, _))| name == "FROM").map(|(n, _)| n).collect();
    assert_eq!(stages.len(), 2);
    let (build, image) = all.split_at(stages[1]);
    assert_eq!(only(image, "FROM"), "scratch", "nothing but what is copied is in it");

    // What is copied from the repository is there, is let through, and no built file is among it.
    let ignored = packaged("Dockerfile.dockerignore");
    let copied: Vec<&str> = build
        .iter()
        .filter(|(name, _)| name == "COPY")
        .flat_map(|(_, words)| {
            let mut words: Vec<&str> = words.split_whitespace().collect();
            words.pop();
            words
        })
        .collect();
    for path in &copied {
        assert!(root().join(path).exists(), "COPY {path}");
        assert!(ignored.lines().any(|line| line == format!("!{path}")), "{path} is not let through");
    }
    // Everything the manifests of the workspace and the sources name lies in it.
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let workspace: toml::Table = workspace.parse().unwrap();
    for member in workspace["workspace"]["members"].as_array().unwrap() {
        let folder = member.as_str().unwrap().split('/').next().unwrap();
        assert!(copied.contains(&folder), "the member {folder} is not copied");
    }
    assert!(copied.contains(&"Cargo.lock") && copied.contains(&"tidegate.example.toml"));
    assert!(build.iter().any(|(name, words)| name == "RUN" && words.contains("--locked")));
    let rust = workspace["workspace"]["package"]["rust-version"].as_str().unwrap();
    assert!(only(build, "FROM").starts_with(&format!("rust:{rust}-")), "the compiler the manifest asks for");

    let (user, group) = only(image, "USER").split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0, "not root, and as a number");
    assert!(!image.iter().any(|(name, _)| name == "RUN"), "there is no shell to run anything");
    let binary = words(only(image, "ENTRYPOINT"));
    let to = format!(" {}", binary[0]);
    assert!(image.iter().any(|(name, words)| name == "COPY" && words.ends_with(&to)), "{binary:?} is not copied");
}

#[test]
fn the_images_commands_are_ones_that_the_binary_knows() {
    let all = instructions(&packaged("Dockerfile"));
    let image = &all[all.iter().rposition(|(name, _)| name == "FROM").unwrap()..];
    let binary = words(only(image, "ENTRYPOINT"));
    // `--help` after a command is answered by it, if there is such a command with such flags.
    let serve = words(only(image, "CMD"));
    let serve: Vec<&str> = serve.iter().map(String::as_str).chain(["--help"]).collect();
    let (code, out, err) = finished(&serve);
    assert!(code == 0 && out.contains("--config"), "{serve:?}: {out}{err}");

    let (flags, command) = only(image, "HEALTHCHECK").split_once(" CMD ").unwrap();
    assert!(flags.contains("--timeout=11s"), "longer than the 10 s that `tidegate health` waits");
    let check = words(command);
    assert_eq!(check[0], binary[0]);
    let check: Vec<&str> = check[1..].iter().map(String::as_str).collect();
    let (code, out, err) = finished(&[&check[..], &["--help"]].concat());
    assert!(code == 0 && out.contains("127.0.0.1:4601"), "{out}{err}");

    let tidegate = Tidegate::simulated();
    let admin = tidegate.admin.to_string();
    let with = |more: &[&str]| finished(&[&check[..], &["--admin", &admin], more].concat());
    assert_eq!(with(&[]), (0, "alive\n".to_owned(), String::new()));
    assert_eq!(with(&["--ready"]), (0, "ready\n".to_owned(), String::new()));
    drop(tidegate);
    let (code, out, err) = with(&[]);
    assert!(code != 0 && out.is_empty() && err.contains(&admin) && err.lines().count() == 1, "{out}{err}");
}

#[test]
fn the_configurations_of_the_page_are_good() {
    let page = packaged("README.md");
    let folder = Folder::new();
    let mut seen = 0;
    for block in page.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap().replace("{ env = \"ANTHROPIC_API_KEY\" }", "{ value = \"sk\" }");
        let text = text.replace("/var/lib/tidegate/", "");
        let (code, out, err) = finished(&["check-config", &folder.write("page.toml", &text)]);
        assert!(code == 0 && out.contains("0.0.0.0:4600"), "{text}: {err}");
        seen += 1;
    }
    assert_eq!(seen, 1);
}

#[test]
fn the_unit_gives_few_rights_and_starts_what_there_is() {
    let unit = packaged("tidegate.service");
    let value = |name: &str| {
        let of = |line: &str| line.split_once('=').filter(|(known, _)| *known == name).map(|(_, v)| v.to_owned());
        unit.lines().find_map(of).unwrap_or_else(|| panic!("{name} is not in the unit"))
    };
    for (name, want) in [
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("CapabilityBoundingSet", ""),
        ("MemoryDenyWriteExecute", "yes"),
        ("StateDirectory", "tidegate"),
        ("Restart", "on-failure"),
        ("Type", "notify"),
        ("NotifyAccess", "all"),
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
    ] {
        assert_eq!(value(name), want, "{name}");
    }
    assert!(value("LimitNOFILE").parse::<u32>().unwrap() >= 65_536, "two files for each of 32,768 connections");
    let drain = 30;
    let stop = value("TimeoutStopSec");
    assert!(stop.trim_end_matches('s').parse::<u32>().unwrap() > drain, "a drain is not cut short: {stop}");
    let start = value("ExecStart");
    let start: Vec<&str> = start.split(' ').skip(1).chain(["--help"]).collect();
    let (code, out, err) = finished(&start);
    assert!(code == 0 && out.contains("--config"), "{start:?}: {err}");
}

/// What systemd itself says of the unit. The harness hides what passing tests print, so what is
/// skipped is told past it.
#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if !Command::new("systemd-analyze").arg("--version").output().is_ok_and(|o| o.status.success()) {
        let _ = writeln!(std::io::stderr(), "SKIPPED: systemd-analyze is not installed, the unit is not verified");
        return;
    }
    let folder = Folder::new();
    let unit = packaged("tidegate.service").replace("/usr/local/bin/tidegate", env!("CARGO_BIN_EXE_tidegate"));
    let file = folder.write("tidegate.service", &unit);
    let socket = folder.write("tidegate.socket", &packaged("tidegate.socket"));
    let analyze = |args: &[&str]| {
        let output = Command::new("systemd-analyze").args(args).arg("--no-pager").arg(&file).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    };
    let (good, said) = analyze(&["verify", &socket]);
    // It warns of units of the machine's own too.
    assert!(good && !said.contains("tidegate."), "{said}");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let (good, said) = analyze(&["security", "--offline=true", &threshold]);
    assert!(good, "{said}");
}

/// What an expression asks of the page of metrics.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked<'a> {
    metrics: Vec<&'a str>,
    labels: BTreeSet<&'a str>,
    /// Labels with the one value that is meant.
    values: BTreeSet<(&'a str, &'a str)>,
}

fn asked_for(expression: &str) -> Asked<'_> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = expression.match_indices("tidegate_").filter(|(at, _)| !expression[..*at].ends_with(is_name));
    let metrics = names.map(|(at, _)| expression[at..].split(|c| !is_name(c)).next().unwrap()).collect();
    let mut asked = Asked { metrics, ..Asked::default() };
    for by in expression.split("by (").skip(1) {
        asked.labels.extend(by.split(')').next().unwrap().split(", "));
    }
    for matched in expression.split('{').skip(1) {
        for one in matched.split('}').next().unwrap().split(',') {
            let (label, rest) = one.split_at(one.find(|c| !is_name(c)).unwrap());
            asked.labels.insert(label);
            if let Some(value) = rest.strip_prefix("=\"") {
                asked.values.insert((label, value.trim_end_matches('"')));
            }
        }
    }
    asked
}

/// Whether all that `expression` asks for is in a page of metrics.
fn is_told(expression: &str, page: &str) {
    let asked = asked_for(expression);
    assert!(!asked.metrics.is_empty(), "{expression}");
    for name in asked.metrics {
        let told: Vec<&str> =
            page.lines().filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))).collect();
        let first = told.first().unwrap_or_else(|| panic!("{name} is not told, in `{expression}`"));
        for label in &asked.labels {
            assert!(first.contains(&format!("{label}=\"")), "{name} has no `{label}`, in `{expression}`");
        }
        for (label, value) in &asked.values {
            let pair = format!("{label}=\"{value}\"");
            assert!(told.iter().any(|line| line.contains(&pair)), "{name} never has {pair}, in `{expression}`");
        }
    }
}

/// What a gateway tells to which everything has happened that makes a family of metrics appear.
fn eventful() -> String {
    let config = "[[tenant]]\nname = \"default\"\nrequests_per_minute = 5\n[tenant.budget]\nmonthly = \"5 USD\"\n";
    let tidegate = Tidegate::simulated_with(config, &[]);
    let ask = |lines: &[(&str, &str)]| tidegate.ask(post(lines, message(true, 50, "hello"))).status;
    assert_eq!(ask(&[QUICK]), 200);
    assert_eq!(tidegate.ask(get("/nowhere", &[])).status, 404);
    // One that breaks off inside, and a model that has no price.
    assert_eq!(ask(&[("simulate", "fault=reset-at:event-4, head_ms=0, first_ms=0, event_ms=0")]), 200);
    let unpriced = message(true, 50, "hello").replace("claude-haiku-5-5", "echo");
    assert_eq!(tidegate.ask(post(&[QUICK], unpriced)).status, 200);
    // An upstream that refuses is asked again until the deadline.
    let status = ask(&[("simulate", "fault=status:529"), ("tidegate-deadline-ms", "1500")]);
    assert!(matches!(status, 504 | 529), "{status}");
    // Past the tenant's limit, what cannot wait for its turn is sent away.
    let statuses: Vec<u16> = (0..7).map(|_| ask(&[QUICK, ("tidegate-deadline-ms", "300")])).collect();
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    tidegate.reconfigure("no configuration");
    assert_eq!(Wire::to(tidegate.admin).ask(bare("POST", "/reload", &[])).status, 409);
    tidegate.comes_to_rest();
    tidegate.admin("/metrics").text()
}

#[test]
fn every_metric_of_the_dashboard_and_of_the_alerts_is_told_with_its_labels() {
    let dashboard: Value = serde_json::from_str(&packaged("grafana.json")).unwrap();
    let page = eventful();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 15);
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have one id: {panel}");
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
        assert!(unit.is_some_and(|unit| !unit.is_empty()), "a panel without a unit: {}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            is_told(target["expr"].as_str().unwrap(), &page);
        }
    }
    let alerts = packaged("prometheus-alerts.yaml");
    let mut seen = 0;
    for alert in alerts.split("- alert: ").skip(1) {
        let line = |key: &str| alert.lines().find_map(|line| line.trim().strip_prefix(key));
        let expression = line("expr: ").unwrap_or_else(|| panic!("no expression: {alert}"));
        is_told(expression, &page);
        let labels = asked_for(expression).labels;
        for used in alert.split("$labels.").skip(1) {
            let used = used.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            assert!(labels.contains(used), "`{used}` is no label of {expression}");
        }
        assert!(line("summary: ").is_some() && line("description: ").is_some(), "{alert}");
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn what_an_expression_asks_for_is_read() {
    let asked = asked_for("sum by (le, band) (rate(tidegate_a_bucket{kind=\"x\",is!~\"a|b\"}[5m])) / my_tidegate_b");
    assert_eq!(asked.metrics, ["tidegate_a_bucket"]);
    assert_eq!(asked.labels, ["le", "band", "kind", "is"].into());
    assert_eq!(asked.values, [("kind", "x")].into());
}
