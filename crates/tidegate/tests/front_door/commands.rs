//! The commands that end by themselves, and starts that fail: what they say, to whom.

use crate::process::{Folder, Tidegate, command, eventually, finished};
use crate::wire::{message, post};
use std::net::TcpListener;
use std::time::Duration;

#[test]
fn check_config_says_what_a_file_means_or_where_it_is_wrong() {
    let folder = Folder::new();
    let good =
        folder.write("good.toml", "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"sk-ant-SECRETMARK\" }]\n");
    let (code, out, err) = finished(&["check-config", &good]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("good") && out.contains("1 organisation(s) with 1 key(s)"), "{out}");
    assert!(!out.contains("SECRETMARK"));
    assert!(out.contains("usage: in memory only, 0 tenant(s) with a budget"), "{out}");

    for (text, wants) in [
        ("[clocks]\ngap = 45\n", &["bad.toml:2:", "gap"][..]),
        ("[clocks]\ngap = \"45 MiB\"\n", &["bad.toml:2:", "gap", "45 MiB"]),
        ("[clocks]\n\ngapp = \"45 s\"\n", &["bad.toml:3:", "gapp"]),
        (
            "[listen]\naddress = \"0.0.0.0:1\"\n[[organisation]]\nname = \"a\"\nkeys = [{ value = \"k\" }]\n",
            &["0.0.0.0:1", "tidegate key new"],
        ),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ env = \"TIDEGATE_TEST_UNSET\" }]\n",
            &["bad.toml:3:", "TIDEGATE_TEST_UNSET"],
        ),
        ("[limits]\nbody_bytes = \"1 GiB\"\n", &["bad.toml:2:", "body_bytes", "bodies_bytes"]),
        ("", &["no upstream", "[[organisation]]"]),
        // A key in the wrong place is not told.
        ("[[organisation]]\nname = \"a\"\nkeys = [\"sk-ant-SECRETMARK-123\"]\n", &["bad.toml:3:", "{ env = "]),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ env = \"sk-ant-SECRETMARK-123\" }]\n",
            &["bad.toml:3:", "looks like the key itself"],
        ),
        (
            "[[organisation]]\nname = \"a\"\nkeys = [{ file = \"sk-ant-SECRETMARK-123\" }]\n",
            &["bad.toml:3:", "looks like the key itself"],
        ),
        ("\0", &["bad.toml:1:"]),
    ] {
        let bad = folder.write("bad.toml", text);
        let (code, out, err) = finished(&["check-config", &bad]);
        assert_eq!((code, out.as_str()), (2, ""), "{text}");
        for want in wants {
            assert!(err.contains(want), "{text}: {err}");
        }
        assert!(!err.contains("SECRETMARK"), "{err}");
        assert_eq!(err.lines().count(), 1, "one error, one line: {err}");
    }
    let (code, _, err) = finished(&["check-config", "/nowhere/tidegate.toml"]);
    assert!(code == 2 && err.contains("/nowhere/tidegate.toml"), "{err}");
}

#[test]
fn check_config_tries_what_can_be_tried_without_serving() {
    let folder = Folder::new();
    let org = "[[organisation]]\nname = \"a\"\nkeys = [{ value = \"k\" }]\n";
    folder.write("text.pem", "no certificate\n");
    folder.write("keys.toml", "");
    folder.write("held", "");
    let check = |text: &str| finished(&["check-config", &folder.write("t.toml", &format!("{text}{org}"))]);
    for (text, wants) in [
        ("[tls]\nca_file = \"none.pem\"\n", &["none.pem"][..]),
        ("[tls]\nca_file = \"text.pem\"\n", &["text.pem"]),
        ("[tls]\ncertificate = \"text.pem\"\nkey = \"text.pem\"\n", &["text.pem"]),
        ("[conversations]\nfile = \"none/talks.db\"\n", &["conversations.file", "none/talks.db", "cannot be written"]),
        ("[usage]\nfile = \"held/usage.db\"\n", &["usage.file", "held/usage.db", "cannot be written"]),
        ("[listen]\naddress = \"127.0.0.1:4711\"\nadmin = \"127.0.0.1:4711\"\n", &["the same port", "--admin-listen"]),
        ("[listen]\naddress = \"127.0.0.1:4711\"\nadmin = \"0.0.0.0:4711\"\n", &["the same port"]),
        ("[keys]\nfile = \"none.toml\"\n", &["none.toml is not there"]),
    ] {
        let (code, out, err) = check(text);
        assert_eq!((code, out.as_str()), (2, ""), "{text}");
        assert!(wants.iter().all(|want| err.contains(want)), "{text}: {err}");
    }
    let before = std::fs::read_dir(folder.path("")).unwrap().count();
    let (code, out, err) = check(
        "[listen]\nadmin = \"0.0.0.0:4601\"\n[conversations]\nfile = \"talks.db\"\n[usage]\nfile = \"usage.db\"\n[keys]\nfile = \"keys.toml\"\n[[tenant]]\nname = \"ghost\"\n[tenant.budget]\nmonthly = \"5 USD\"\n",
    );
    assert_eq!(code, 0, "{err}");
    for want in [
        "tenant `ghost` has a budget and no client key",
        "there is no client key",
        "without authentication",
        &format!("conversations: {}", folder.path("talks.db")),
        &format!("file of keys: {}, 0 key(s)", folder.path("keys.toml")),
    ] {
        assert!(out.contains(want), "{want}: {out}");
    }
    assert_eq!(std::fs::read_dir(folder.path("")).unwrap().count(), before, "what it tried is gone");
}

#[test]
fn paths_are_meant_from_the_configurations_folder_and_told_whole() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("data")).unwrap();
    let file = folder.write(
        "tidegate.toml",
        "[conversations]\nfile = \"data/talks.db\"\n[usage]\nfile = \"data/usage.db\"\n[keys]\nfile = \"keys.toml\"\n[[organisation]]\nname = \"north\"\nurl = \"http://127.0.0.1:9\"\nkeys = [{ file = \"north.key\" }]\n",
    );
    folder.write("north.key", "sk-ant-SECRETMARK\n");
    assert_eq!(finished(&["key", "new", "--config", &file]).0, 0);
    let told: Vec<String> =
        ["data/talks.db", "data/usage.db", "keys.toml", "tidegate.toml"].iter().map(|name| folder.path(name)).collect();
    // Started elsewhere, by a path that is meant from there.
    let mut serve =
        command(&["serve", "--config", "tidegate.toml", "--listen", "127.0.0.1:0", "--admin-listen", "0.0.0.0:0"]);
    serve.current_dir(folder.path(""));
    let elsewhere = Folder::new();
    let tidegate = Tidegate::started_by(serve, folder);
    let out = tidegate.says("without authentication");
    let [talks, usage, keys, config] = &told[..] else { panic!() };
    for want in [
        format!("config     {config}"),
        "upstream   north at 127.0.0.1:9, 1 key".to_owned(),
        format!("memory     {talks}"),
        format!("usage      {usage}"),
        format!("keys       {keys}, 1 key"),
    ] {
        assert!(out.lines().any(|line| line == want), "{want} in {out}");
    }
    assert!(!out.contains("SECRETMARK"), "{out}");
    assert!(std::path::Path::new(talks).exists() && std::path::Path::new(usage).exists());
    // What the command line says is meant from where it is said.
    let mut flag = command(&["serve", "--simulate", "--conversations", "mine.db", "--simulate-listen", "127.0.0.1:0"]);
    flag.args(["--truth-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    flag.current_dir(elsewhere.path(""));
    let mine = elsewhere.path("mine.db");
    let other = Tidegate::started_by(flag, elsewhere);
    assert!(other.output().contains(&format!("memory     {mine}")), "{}", other.output());
    assert!(!other.output().contains("without authentication"));
}

#[test]
fn the_scenarios_are_listed_each_with_its_line() {
    let (code, out, _) = finished(&["simulate", "--list"]);
    assert_eq!(code, 0);
    for name in ["calm", "burst-504", "overloaded-529", "flaky-streams", "silent-thinker", "rotten-json"] {
        let line = out.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name} in {out}"));
        assert!(line.trim_end().len() > name.len() + 20, "{line}");
    }
    let (code, _, err) = finished(&["simulate", "--scenario", "nonesuch"]);
    assert!(code == 2 && err.contains("nonesuch") && err.contains("--list"), "{err}");
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_changes_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    for flag in ["--listen", "--admin-listen", "--simulate-listen", "--truth-listen"] {
        let mut args = vec!["serve", "--simulate"];
        for other in ["--listen", "--admin-listen", "--simulate-listen", "--truth-listen"] {
            args.extend([other, if other == flag { &at } else { free }]);
        }
        let (code, out, err) = finished(&args);
        assert_eq!(code, 2, "{flag} {out}");
        assert!(err.contains(&at) && err.contains(flag) && err.contains("in use"), "{flag}: {err}");
        assert!(!out.contains("ready"), "{out}");
    }
}

#[test]
fn the_world_is_not_served_without_keys_nor_anybody_without_an_upstream() {
    let (code, _, err) = finished(&[
        "serve",
        "--simulate",
        "--listen",
        "0.0.0.0:0",
        "--simulate-listen",
        "127.0.0.1:0",
        "--truth-listen",
        "127.0.0.1:0",
    ]);
    assert!(code == 2 && err.contains("client keys") && err.contains("tidegate key new"), "{err}");
    let (code, _, err) = finished(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(code == 2 && err.contains("ANTHROPIC_API_KEY") && err.contains("--simulate"), "{err}");
    let (code, _, err) = finished(&["serve", "--upstream", "http://127.0.0.1:1"]);
    assert!(code == 2 && err.contains("needs a key"), "{err}");
}

#[test]
fn a_start_says_where_everything_is_and_how_to_try_it() {
    let tidegate = Tidegate::simulated();
    let out = tidegate.output();
    for want in [
        format!("gateway    http://{}", tidegate.gateway),
        format!("curl -N http://{}/v1/messages", tidegate.gateway),
        format!("base_url=\"http://{}\"", tidegate.gateway),
        format!("baseURL: \"http://{}\"", tidegate.gateway),
        format!("http://{}/metrics", tidegate.admin),
        "No client keys are configured".to_owned(),
    ] {
        assert!(out.contains(&want), "{want} in {out}");
    }
}

#[test]
fn serve_simulate_has_every_organisation_of_its_scenario_and_no_revoked_key() {
    let folder = Folder::new();
    let text = "[[organisation]]\nname = \"north\"\nkeys = [\"sk-ant-north-1\", \"sk-ant-north-2\"]\nrevoked = [\"sk-ant-north-0\"]\n\n[[organisation]]\nname = \"east\"\nkeys = [\"sk-ant-east-1\"]\n";
    let scenario = folder.write("two.toml", text);
    let tidegate = Tidegate::simulated_with("", &["--scenario", &scenario]);
    for _ in 0..6 {
        assert_eq!(tidegate.ask(post(&[], message(false, 64, "Hello"))).status, 200);
    }
    let lanes = eventually("the line about the start", Duration::from_secs(10), || {
        let line = tidegate.output().lines().find(|line| line.contains("upstreams="))?.to_owned();
        Some(["north/1", "north/2", "north/3", "east/1", "east/2", "default/1"].map(|lane| line.contains(lane)))
    });
    assert_eq!(lanes, [true, true, false, true, false, false], "{}", tidegate.output());
    let truth = tidegate.truth("/truth");
    assert_eq!(truth["statuses"], serde_json::json!({"200": 6}), "{truth:#}");
}
