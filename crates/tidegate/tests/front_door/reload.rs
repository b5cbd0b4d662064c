//! Change without a restart: the configuration, the files it names, and the keys of clients, under
//! streams that run.

use crate::process::{Folder, Tidegate, command, eventually, finished};
use crate::socket::{DOOR, code_in};
use crate::upstream::{BEGIN, END, FINISH, Upstream, chunk, stream_head};
use crate::wire::{QUICK, Wire, bare, get, message, post};
use serde_json::Value;
use std::io::Write;
use std::time::Duration;

/// From a change of a file to its being in force: two looks of half a second, and a machine under load.
const SOON: Duration = Duration::from_secs(6);
/// Some ten seconds of stream.
const SLOW: (&str, &str) = ("simulate", "output_tokens=600-600, head_ms=0, first_ms=0, event_ms=50");

/// A new key in the file `keys`, with further flags.
pub(crate) fn new_key(keys: &str, flags: &[&str]) -> String {
    let (code, out, err) = finished(&[&["key", "new", "--file", keys], flags].concat());
    assert_eq!(code, 0, "{err}");
    out.lines().map(str::trim).find(|line| line.starts_with("tg_")).unwrap().to_owned()
}

fn ask(tidegate: &Tidegate, key: &str) -> (u16, String) {
    let answer = tidegate.ask(post(&[QUICK, ("x-api-key", key)], message(false, 100, "x")));
    let code = answer.json()["error"]["details"]["error_code"].as_str().unwrap_or_default().to_owned();
    (answer.status, code)
}

fn reload(tidegate: &Tidegate) -> (u16, Value) {
    let answer = Wire::to(tidegate.admin).ask(bare("POST", "/reload", &[]));
    (answer.status, answer.json())
}

fn outcome(tidegate: &Tidegate, outcome: &str) -> f64 {
    tidegate.metric(&format!("tidegate_config_reloads_total{{outcome=\"{outcome}\"}}"))
}

#[test]
fn keys_come_and_go_while_streams_run() {
    let folder = Folder::new();
    let keys = folder.path("keys.toml");
    let first = new_key(&keys, &["--tenant", "acme", "--label", "the first"]);
    let config = format!("[keys]\nfile = \"{keys}\"\n[[tenant]]\nname = \"nobody-yet\"\n");
    let tidegate = Tidegate::simulated_with(&config, &[]);
    assert_eq!(ask(&tidegate, &first).0, 200);
    assert_eq!(ask(&tidegate, "any"), (401, "unknown_key".to_owned()));
    let mut streaming = tidegate.client();
    streaming.send(post(&[SLOW, ("x-api-key", &first)], message(true, 4000, "x")));
    streaming.until("content_block_delta").unwrap();
    // On the connection that its stream came by, too.
    streaming.send(post(&[QUICK, ("x-api-key", &first)], message(true, 100, "x")));

    let second = new_key(&keys, &["--tenant", "bolt", "--expires", "1 h"]);
    eventually("the new key is taken", SOON, || (ask(&tidegate, &second).0 == 200).then_some(()));
    let (_, listed, _) = finished(&["key", "list", "--config", &tidegate.config_file()]);
    assert!(listed.contains("acme") && listed.contains("the first") && listed.contains(&second[..11]), "{listed}");
    assert!(!listed.contains(&first) && !listed.contains(&second) && !listed.contains("sha256"), "{listed}");

    let (code, out, err) = finished(&["key", "revoke", "the first", "--config", &tidegate.config_file()]);
    assert_eq!((code, out.contains(&first[..11])), (0, true), "{err}");
    eventually("the revoked key is refused", SOON, || (ask(&tidegate, &first).0 == 401).then_some(()));
    // The one that was refused leaves the table a moment after its answer.
    eventually("only its stream goes on", SOON, || (tidegate.streams().len() == 1).then_some(()));
    let rest = String::from_utf8(streaming.until("0\r\n\r\n").unwrap()).unwrap();
    assert!(rest.contains("message_stop") && !rest.contains("event: error"), "{rest}");
    let late = streaming.answer();
    assert_eq!((late.status, late.code().as_str()), (401, "unknown_key"), "asked for after the key was gone");

    // Without any key left the door does not open.
    assert_eq!(finished(&["key", "revoke", &second[..11], "--file", &keys]).0, 0);
    eventually("nobody is served", SOON, || (ask(&tidegate, &second).0 == 401).then_some(()));
    assert_eq!(ask(&tidegate, "any").0, 401);
    let output = tidegate.output();
    assert!(output.contains(&format!("key {} of acme (removed)", &first[..11])), "{output}");
    assert!(!output.contains(&first) && !output.contains(&second), "no key is in the log");
    drop(streaming);
    tidegate.comes_to_rest();
}

#[test]
fn an_expired_key_says_so() {
    let folder = Folder::new();
    let keys = folder.path("keys.toml");
    let key = new_key(&keys, &["--expires", "1 s"]);
    let tidegate = Tidegate::simulated_with(&format!("[keys]\nfile = \"{keys}\"\n"), &[]);
    eventually("its time is over", SOON, || (ask(&tidegate, &key) == (401, "expired_key".to_owned())).then_some(()));
    let (_, listed, _) = finished(&["key", "list", "--file", &keys]);
    assert!(listed.contains("(over)"), "{listed}");
}

#[test]
fn key_commands_say_what_is_wrong() {
    let folder = Folder::new();
    let keys = folder.path("keys.toml");
    let check = |args: &[&str], why: &str| {
        let (code, _, err) = finished(args);
        assert!(code != 0 && err.contains(why), "{args:?}: {err}");
    };
    check(&["key", "list", "--file", &keys], "is not there; `tidegate key new` makes it");
    check(&["key", "list"], "--config FILE of the gateway, or --file KEYS");
    let without = folder.write("without.toml", "[clocks]\ngap = \"45 s\"\n");
    check(&["key", "new", "--config", &without], "names no file of client keys");
    new_key(&keys, &["--label", "ci"]);
    check(&["key", "new", "--file", &keys, "--label", "ci"], "has a key labelled `ci`");
    check(&["key", "revoke", "--file", &keys, "other"], "has no key that is, begins with or is labelled `other`");
    let far = finished(&["key", "new", "--file", &keys, "--expires", "9000000 d"]);
    assert!(far.0 != 0 && !far.1.contains("tg_") && far.2.contains("after the year 9999"), "{far:?}");
    check(&["key", "new", "--file", &keys, "--expires", "0 s"], "is under a second");
    check(&["key", "new", "--tenant", "own"], "give this tenant another name");
    check(&["key", "new", "--expires", "1 h"], "--expires needs a file of keys");
    check(&["key", "new", "--file", &folder.path("none/keys.toml")], "its folder");
    check(&["key", "revoke", "--file", &folder.path("other.toml"), "ci"], "is not there; `tidegate key new` makes it");
    assert!(!std::path::Path::new(&folder.path("other.toml.lock")).exists());
    assert!(finished(&["key", "list", "--file", &keys]).1.contains("ci"), "all of it left the file as it was");
    folder.write("keys.toml", "[[key]]\ntenant = 7\n");
    check(&["key", "list", "--file", &keys], "keys.toml:2: ");
    let beside = folder.write("tidegate.toml", "[keys]\nfile = \"none.toml\"\n");
    check(
        &["serve", "--simulate", "--simulate-listen", "127.0.0.1:0", "--config", &beside],
        "none.toml is not there; make the first key with `tidegate key new",
    );
    // A path is meant from the configuration's folder.
    assert_eq!(finished(&["key", "new", "--config", &beside]).0, 0);
    assert!(std::path::Path::new(&folder.path("none.toml")).exists());
}

#[test]
fn a_key_is_revoked_by_whatever_people_have_of_it() {
    let folder = Folder::new();
    let keys = folder.path("keys.toml");
    let revoke = |which: &str| finished(&["key", "revoke", "--file", &keys, which]);
    for how in ["prefix", "as list shows it", "whole", "label"] {
        let key = new_key(&keys, &["--label", "mine"]);
        let which = match how {
            "prefix" => key[..11].to_owned(),
            "as list shows it" => format!("{}...", &key[..11]),
            "whole" => key.clone(),
            _ => "mine".to_owned(),
        };
        let (code, out, err) = revoke(&which);
        assert_eq!(code, 0, "{how}: {err}");
        assert!(out.contains(&key[..11]) && !out.contains(&key), "{out}");
        // Gone, and no whole key is said back.
        let (code, out, err) = revoke(&key);
        assert!(code != 0 && err.contains("has no key") && !(out + &err).contains(&key), "{how}: {err}");
    }
    let one = new_key(&keys, &[]);
    new_key(&keys, &["--label", &one[..11]]);
    let (code, _, err) = revoke(&one[..11]);
    assert!(code != 0 && err.contains("more than one key is meant") && err.matches("...").count() == 2, "{err}");
    assert_eq!(revoke(&one).0, 0, "the whole key is one");
}

#[test]
fn a_key_that_nobody_saw_is_not_good() {
    let folder = Folder::new();
    let keys = folder.path("keys.toml");
    new_key(&keys, &["--label", "first"]);
    let before = std::fs::read(&keys).unwrap();
    let program = command(&[]).get_program().to_str().unwrap().to_owned();
    for nowhere in [">&-", ">/dev/full", ">/dev/null"] {
        let script = format!("{program} key new --file {keys} {nowhere}");
        let done = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let err = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{nowhere}: {err}");
        assert!(err.contains("no key was made"), "{nowhere}: {err}");
    }
    // A reader that left.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let done = command(&["key", "new", "--file", &keys]).stdout(writer).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert_eq!(std::fs::read(&keys).unwrap(), before);
}

#[test]
fn a_file_with_an_error_changes_nothing() {
    let tidegate = Tidegate::simulated_with("[limits]\nbody_bytes = \"1 KiB\"\n", &[]);
    let large = || tidegate.ask(post(&[QUICK], message(false, 100, &"x".repeat(2_000)))).status;
    assert_eq!(large(), 413);
    // A good setting and a bad one.
    tidegate.reconfigure("[limits]\nbody_bytes = \"1 MiB\"\n[clocks]\ngap = \"45\"\n");
    tidegate.says("tidegate.toml:4: gap");
    assert_eq!((large(), outcome(&tidegate, "refused")), (413, 1.0));
    let (status, said) = reload(&tidegate);
    assert_eq!(
        (status, said["error"]["details"]["error_code"].as_str()),
        (409, Some("configuration_refused")),
        "{said}"
    );
    assert!(said["error"]["message"].as_str().unwrap().contains("tidegate.toml:4: gap"), "{said}");

    std::fs::remove_file(tidegate.config_file()).unwrap();
    tidegate.says("tidegate.toml: cannot be read");
    assert_eq!(large(), 413);
    tidegate.reconfigure("[limits]\nbody_bytes = \"1 MiB\"\n");
    eventually("the file is good again", SOON, || (large() == 200).then_some(()));
    let log = tidegate.says("limits.body_bytes");
    assert_eq!(tidegate.metric("tidegate_config_generation"), 2.0, "{log}");
    let before = outcome(&tidegate, "unchanged");
    tidegate.signal("HUP");
    eventually("asked by a signal", SOON, || (outcome(&tidegate, "unchanged") > before).then_some(()));
}

#[test]
fn a_connection_that_is_kept_has_what_its_next_request_meets() {
    let tidegate = Tidegate::simulated();
    let mut kept = tidegate.client();
    let mut listed = || {
        kept.send(get("/v1/files", &[]));
        kept.answer().status
    };
    assert_eq!(listed(), 200);
    tidegate.reconfigure("[pass_through]\nenabled = false\n");
    tidegate.says("pass_through.enabled");
    assert_eq!(listed(), 404);
}

#[test]
fn what_needs_a_restart_is_told_and_the_rest_holds() {
    let tidegate = Tidegate::simulated_with("[limits]\nbody_bytes = \"1 KiB\"\n", &[]);
    tidegate.reconfigure("[limits]\nbody_bytes = \"1 MiB\"\nconnections = 7\n[listen]\naddress = \"127.0.0.1:1\"\n");
    let log = tidegate.says("these need a restart");
    assert!(
        log.contains("settings=\"limits.connections, listen.address\"") || log.contains("limits.connections"),
        "{log}"
    );
    assert_eq!(tidegate.ask(post(&[QUICK], message(false, 100, &"x".repeat(2_000)))).status, 200);
    assert_eq!(tidegate.metric("tidegate_config_needs_restart"), 2.0);
    let (status, said) = reload(&tidegate);
    assert_eq!(status, 200);
    assert_eq!(
        (&said["changed"], &said["needs_restart"]),
        (&serde_json::json!([]), &serde_json::json!(["limits.connections", "listen.address"]))
    );
    let page = Wire::to(tidegate.admin).ask(bare("POST", "/reload", &[("origin", "http://127.0.0.1:4601")]));
    assert_eq!(page.status, 403, "a page's request is none of an operator's");
    assert!(page.text().contains("has an `origin` header"), "{}", page.text());
}

/// Streams a beginning, and the rest when it was asked `hold` times more.
fn upstream() -> Upstream {
    Upstream::playing(|_, seen, socket| {
        let _ = socket.write_all(format!("{}{}", stream_head(""), chunk(BEGIN)).as_bytes());
        if String::from_utf8_lossy(&seen.body).contains("SLOWLY") {
            std::thread::sleep(Duration::from_secs(3));
        }
        let _ = socket.write_all(format!("{}{END}", chunk(FINISH)).as_bytes());
    })
}

#[test]
fn organisations_and_their_keys_change_under_running_streams() {
    let (north, south) = (upstream(), upstream());
    let folder = Folder::new();
    let secret = folder.write("south.key", "sk-ant-one\n");
    let org = |name: &str, at: &Upstream, keys: &str| {
        format!("[[organisation]]\nname = \"{name}\"\nurl = \"http://{}\"\nkeys = [{keys}]\n", at.at)
    };
    let of_south = org("south", &south, &format!("{{ file = \"{secret}\" }}"));
    let tidegate = Tidegate::configured(&org("north", &north, "{ value = \"sk-ant-north\" }"));
    let quick = || tidegate.ask(post(&[], message(true, 100, "x"))).status;
    assert_eq!(quick(), 200);
    let mut streaming = tidegate.client();
    streaming.send(post(&[], message(true, 100, "SLOWLY")));
    streaming.until("content_block_delta").unwrap();

    tidegate.reconfigure(&of_south);
    tidegate.says("organisation.north.keys (removed)");
    let before = north.seen().len();
    (0..5).for_each(|_| assert_eq!(quick(), 200));
    assert_eq!((north.seen().len(), south.seen().len()), (before, 5), "all go to the one that is there now");
    let rest = String::from_utf8(streaming.until("0\r\n\r\n").unwrap()).unwrap();
    assert!(rest.contains("message_stop") && !rest.contains("event: error"), "what ran there ended there: {rest}");
    let organisations = || -> Vec<String> {
        let domains = tidegate.admin("/domains").json()["domains"].as_array().unwrap().clone();
        domains.iter().map(|d| d["organisation"].as_str().unwrap().to_owned()).collect()
    };
    eventually("the old one has drained", SOON, || (organisations() == ["south"]).then_some(()));

    std::fs::write(&secret, "sk-ant-two\n").unwrap();
    tidegate.says(&secret);
    assert_eq!(quick(), 200);
    let seen = south.seen();
    assert_eq!(
        (seen[0].all("x-api-key"), seen.last().unwrap().all("x-api-key")),
        (vec!["sk-ant-one"], vec!["sk-ant-two"])
    );
    // And back again.
    tidegate.reconfigure(&format!("{}{of_south}", org("north", &north, "{ value = \"sk-ant-north\" }")));
    eventually("both are asked", SOON, || {
        quick();
        (north.seen().len() > before).then_some(())
    });
    assert!(!tidegate.output().contains("sk-ant-"), "no key is in the log");
    drop(streaming);
    tidegate.comes_to_rest();
}

#[test]
fn a_revoked_key_reads_no_stream_that_is_kept() {
    let folder = Folder::new();
    let keys = folder.path("keys.toml");
    let key = new_key(&keys, &[]);
    let tidegate = Tidegate::simulated_with(&format!("[keys]\nfile = \"{keys}\"\n"), &[]);
    let request = post(&[QUICK, ("x-api-key", &key), ("tidegate-resume", "memory")], message(true, 100, "x"));
    let stream = tidegate.ask(request).header("tidegate-stream").unwrap().to_owned();
    let again = || tidegate.ask(get(&format!("/v1/streams/{stream}"), &[("x-api-key", &key)])).status;
    assert_eq!(again(), 200);
    let mut socket = tidegate.open(DOOR, &["tidegate.v1"], &[("x-api-key", &key)]).unwrap();
    let mut asks = |id: &str| {
        socket.send(&serde_json::json!({"type": "stream.resume", "id": id, "stream": stream}));
        socket.until(id, "stream.end");
    };
    asks("before");
    assert_eq!(finished(&["key", "revoke", &key[..11], "--file", &keys]).0, 0);
    eventually("what is kept is not read by it either", SOON, || (again() == 401).then_some(()));
    // Nor on a socket that it opened, and nothing new is begun there.
    socket.send(&serde_json::json!({"type": "stream.resume", "id": "after", "stream": stream}));
    assert_eq!(code_in(&socket.frame_of("after")), "unknown_key");
    socket.create("new", &serde_json::json!({}));
    assert_eq!(code_in(&socket.until("new", "stream.error").pop().unwrap()), "unknown_key");
}

#[test]
fn a_secret_that_comes_through_a_pipe_is_read_once() {
    let upstream = upstream();
    let folder = Folder::new();
    let pipe = folder.path("north.key");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Opening it waits for its reader, and there is one writer for one reader.
    let writes = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, "sk-ant-piped\n").unwrap()
    });
    let config = format!(
        "[[organisation]]\nname = \"north\"\nurl = \"http://{}\"\nkeys = [{{ file = \"{pipe}\" }}]\n",
        upstream.at
    );
    let tidegate = Tidegate::configured(&config);
    writes.join().unwrap();
    assert_eq!(tidegate.ask(post(&[], message(true, 100, "x"))).status, 200);
    tidegate.reconfigure(&format!("{config}[limits]\nbody_bytes = \"1 KiB\"\n"));
    let large = || tidegate.ask(post(&[], message(true, 100, &"x".repeat(2_000)))).status;
    eventually("the rest is read anew", SOON, || (large() == 413).then_some(()));
    assert_eq!(reload(&tidegate).0, 200);
    assert_eq!(tidegate.ask(post(&[], message(true, 100, "x"))).status, 200);
    assert!(upstream.seen().iter().all(|seen| seen.all("x-api-key") == ["sk-ant-piped"]));
}

#[test]
fn what_was_refused_is_read_again_when_a_file_is_mended_that_only_it_names() {
    let folder = Folder::new();
    let keys = folder.path("keys.toml");
    let tidegate = Tidegate::simulated();
    assert_eq!(ask(&tidegate, "any").0, 200);
    tidegate.reconfigure(&format!("[keys]\nfile = \"{keys}\"\n"));
    tidegate.says("keys.toml is not there");
    assert_eq!(ask(&tidegate, "any").0, 200);
    let key = new_key(&keys, &[]);
    eventually("nobody touched the configuration", SOON, || (ask(&tidegate, "any").0 == 401).then_some(()));
    assert_eq!(ask(&tidegate, &key).0, 200);
}

#[test]
fn new_connections_live_by_the_clocks_of_now() {
    let tidegate = Tidegate::simulated();
    let mut kept = tidegate.client();
    tidegate.reconfigure("[clocks]\nclient_idle = \"1 s\"\n");
    tidegate.says("clocks.client_idle");
    // Ten times as long, and a client would not wait for it.
    tidegate.client().ends("a new one");
    kept.send(post(&[QUICK], message(false, 100, "x")));
    assert_eq!(kept.answer().status, 200);
    kept.ends("and one that was there, after its next request");
}

#[test]
fn who_waits_for_an_organisation_that_goes_is_served_by_the_one_that_comes() {
    let refuses = Upstream::playing(|_, _, socket| {
        let body = r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}"#;
        let head = "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 10\r\n";
        let _ = write!(socket, "{head}content-length: {}\r\n\r\n{body}", body.len());
    });
    let serves = upstream();
    let org = |name: &str, at: &Upstream| {
        format!(
            "[[organisation]]\nname = \"{name}\"\nurl = \"http://{}\"\nkeys = [{{ value = \"sk-ant-x\" }}]\n",
            at.at
        )
    };
    let tidegate = Tidegate::configured(&org("north", &refuses));
    let mut waits = tidegate.client();
    waits.send(post(&[], message(true, 100, "SLOWLY")));
    eventually("it waits", SOON, || {
        let streams = tidegate.streams();
        (!refuses.seen().is_empty() && streams.len() == 1 && streams[0]["phase"] == "admit").then_some(())
    });
    tidegate.reconfigure(&org("south", &serves));
    waits.until("content_block_delta").unwrap();
    assert_eq!(tidegate.streams()[0]["upstream_key"], "south/1");
    let rest = String::from_utf8(waits.until("0\r\n\r\n").unwrap()).unwrap();
    assert!(rest.contains("message_stop") && !rest.contains("event: error"), "{rest}");
}
