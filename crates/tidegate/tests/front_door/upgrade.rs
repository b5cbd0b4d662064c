//! One process takes over from another: under a thousand streams, under requests that come all the while,
//! and under conversations; and all that can go wrong with it.

use crate::process::{Folder, Tidegate, command, eventually, finished};
use crate::reload::new_key;
use crate::socket::{Heard, code_in, text_of};
use crate::succession::meeting_place;
use crate::teller::Teller;
use crate::wire::{QUICK, Wire, bare, get, message, post};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const KEY: &str = "sk-ant-any";

/// Flags of a gateway in front of `api`.
pub(crate) fn before(api: SocketAddr) -> [String; 4] {
    ["--upstream".to_owned(), format!("http://{api}"), "--upstream-key".to_owned(), KEY.to_owned()]
}

pub(crate) fn successor(elder: &Tidegate, api: SocketAddr, config: &str) -> Result<Tidegate, String> {
    let flags = before(api);
    Tidegate::taking_over(elder, config, &flags.each_ref().map(String::as_str))
}

/// A pace of so many events, so far apart.
pub(crate) fn pace(events: u32, ms: u32) -> String {
    format!("output_tokens={0}-{0}, head_ms=0, first_ms=0, event_ms={ms}", events * 3)
}

pub(crate) fn is_whole(text: &str) -> bool {
    text.contains("event: message_stop\n") && text.ends_with("0\r\n\r\n") && !text.contains("event: error")
}

#[test]
fn a_thousand_streams_end_whole_and_no_request_is_refused() {
    // This is about streams and not about quota.
    let folder = Folder::new();
    let scenario = folder.write("unlimited.toml", "[quota]\ntier = \"unlimited\"\n");
    let api = Tidegate::simulated_with("", &["--log-level", "warn", "--scenario", &scenario]);
    let mut elder = Tidegate::before(api.simulator(), KEY, "");
    // Some ten seconds of stream each; a few thousand events a second in all.
    let slow = pace(30, 330);
    let mut streams: Vec<Wire> = (0..1_000)
        .map(|_| {
            let mut wire = elder.client();
            wire.send(post(&[("simulate", &slow)], message(true, 4000, "x")));
            wire
        })
        .collect();
    eventually("all run", SECOND * 20, || (elder.streams().len() == 1_000).then_some(()));
    let (stop, served) = (AtomicBool::new(false), [AtomicU32::new(0), AtomicU32::new(0)]);
    let gateway = elder.gateway;
    let (heir, refused) = std::thread::scope(|scope| {
        // New connections, and kept ones whose client follows `connection: close`.
        let clients: Vec<_> = [false, true, false, true]
            .into_iter()
            .map(|keeps: bool| {
                let (stop, served) = (&stop, &served[usize::from(keeps)]);
                scope.spawn(move || {
                    let mut refused = Vec::new();
                    let mut kept: Option<Wire> = None;
                    while !stop.load(Ordering::Relaxed) {
                        let mut wire = kept.take().unwrap_or_else(|| Wire::to(gateway));
                        wire.send(post(&[QUICK], message(true, 100, "x")));
                        match wire.try_answer() {
                            Some(answer) if answer.status == 200 && answer.text().contains("message_stop") => {
                                served.fetch_add(1, Ordering::Relaxed);
                                kept = (keeps && answer.header("connection") != Some("close")).then_some(wire);
                            }
                            Some(answer) => refused.push(format!("{}: {}", answer.status, answer.text())),
                            None => refused.push("the connection ended without an answer".to_owned()),
                        }
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    refused
                })
            })
            .collect();
        std::thread::sleep(SECOND / 2);
        let heir = successor(&elder, api.simulator(), "").unwrap();
        let log = elder.says("handed over; what is under way");
        let live = log.lines().find_map(|line| line.split_once(" streams=")).unwrap().1;
        let live: u32 = live.split(' ').next().unwrap().parse().unwrap();
        assert!(live >= 1_000, "only {live} streams were left to be cut");
        std::thread::sleep(SECOND);
        stop.store(true, Ordering::Relaxed);
        (heir, clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>())
    });
    assert_eq!(refused, Vec::<String>::new());
    let served = served.map(|n| n.load(Ordering::Relaxed));
    assert!(served.iter().all(|n| *n > 100), "{served:?}");
    let elders = heir.streams();
    assert!(elders.len() >= 1_000 && elders.iter().all(|row| row["process"].is_u64()), "the streams are the elder's");
    for (n, wire) in streams.iter_mut().enumerate() {
        let text = String::from_utf8(wire.until("0\r\n\r\n").unwrap_or_else(|| panic!("stream {n} was cut"))).unwrap();
        assert!(is_whole(&text), "stream {n}: {text}");
    }
    drop(streams);
    assert_eq!(elder.exit(SECOND * 10), Some(0), "{}", elder.output());
    elder.says("ended cut=0");
    heir.says("the process before this one has ended");
    assert_eq!(heir.ask(post(&[QUICK], message(false, 100, "x"))).status, 200);
    println!("{served:?} requests on new and kept connections meanwhile");
}

/// One turn of a conversation.
pub(crate) fn turn(gateway: SocketAddr, name: &str, pace: &str, text: &str) -> crate::wire::Answer {
    Wire::to(gateway).ask(post(&[("simulate", pace), ("tidegate-conversation", name)], message(true, 4000, text)))
}

pub(crate) fn turns(gateway: SocketAddr, name: &str) -> Vec<Value> {
    let page = Wire::to(gateway).ask(get(&format!("/v1/conversations/{name}/turns"), &[])).json();
    page["data"].as_array().unwrap_or_else(|| panic!("{page}")).clone()
}

#[test]
fn conversations_go_on_and_no_acknowledged_turn_is_lost() {
    let api = Tidegate::simulated();
    let folder = Folder::new();
    let config = format!("[conversations]\nfile = \"{}\"\n", folder.path("talks.db"));
    let mut elder = Tidegate::before(api.simulator(), KEY, &config);
    let gateway = elder.gateway;
    let stop = AtomicBool::new(false);
    let (heir, told) = std::thread::scope(|scope| {
        let talkers: Vec<_> = (0..12)
            .map(|n| {
                let stop = &stop;
                scope.spawn(move || {
                    let (name, mut kept) = (format!("talk-{n}"), 0);
                    while !stop.load(Ordering::Relaxed) && kept < 150 {
                        let answer = turn(gateway, &name, QUICK.1, &format!("turn {}", kept + 1));
                        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
                        assert!(answer.text().contains("message_stop"), "{name}: {}", answer.text());
                        kept += 1;
                        assert_eq!(answer.header("tidegate-turn"), Some(kept.to_string().as_str()), "{name}");
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    (name, kept)
                })
            })
            .collect();
        // One whose turn lasts longer than the hand-over.
        let long = scope.spawn(move || turn(gateway, "long", &pace(50, 100), "the first"));
        std::thread::sleep(SECOND);
        let heir = successor(&elder, api.simulator(), &config).unwrap();
        // Asked of the heir, while the elder still answers the turn before it.
        let next = turn(gateway, "long", QUICK.1, "the second");
        assert_eq!((next.status, next.header("tidegate-turn")), (200, Some("2")), "{}", next.text());
        let first = long.join().unwrap();
        assert_eq!((first.status, first.header("tidegate-turn")), (200, Some("1")));
        std::thread::sleep(SECOND);
        stop.store(true, Ordering::Relaxed);
        let mut told: BTreeMap<String, u32> = talkers.into_iter().map(|t| t.join().unwrap()).collect();
        told.insert("long".to_owned(), 2);
        (heir, told)
    });
    assert_eq!(elder.exit(SECOND * 20), Some(0), "{}", elder.output());
    for (name, kept) in &told {
        let mut all = Vec::new();
        let mut from = 1;
        loop {
            let page = Wire::to(gateway).ask(get(&format!("/v1/conversations/{name}/turns?from={from}"), &[])).json();
            let some = page["data"].as_array().unwrap_or_else(|| panic!("{page}")).clone();
            if some.is_empty() {
                break;
            }
            from += some.len() as u32;
            all.extend(some);
            if page["has_more"] == false || from > *kept {
                break;
            }
        }
        assert_eq!(all.len() as u32, *kept, "{name}");
    }
    assert!(told.values().all(|kept| *kept > 1), "{told:?}");
    // And nobody else holds the file any more.
    drop(heir);
    let again = Tidegate::before(api.simulator(), KEY, &config);
    assert_eq!(turns(again.gateway, "long").len(), 2);
}

#[test]
fn a_durable_stream_of_the_elder_is_told_of_and_can_be_read_when_it_has_ended() {
    let api = Tidegate::simulated();
    let folder = Folder::new();
    let config = format!("[conversations]\nfile = \"{}\"\n", folder.path("talks.db"));
    let mut elder = Tidegate::before(api.simulator(), KEY, &config);
    let mut reading = elder.client();
    reading.send(post(&[("simulate", &pace(40, 100)), ("tidegate-resume", "durable")], message(true, 4000, "x")));
    let head = reading.head().unwrap();
    let stream = head.header("tidegate-stream").unwrap().to_owned();
    reading.until("content_block_delta").unwrap();
    let heir = successor(&elder, api.simulator(), &config).unwrap();
    let again = || heir.ask(get(&format!("/v1/streams/{stream}"), &[]));
    let refused = again();
    assert_eq!((refused.status, refused.code().as_str()), (529, "stream_elsewhere"));
    assert_eq!(refused.header("retry-after"), Some("2"));
    let text = String::from_utf8(reading.until("0\r\n\r\n").unwrap()).unwrap();
    assert!(is_whole(&text), "{text}");
    drop(reading);
    let whole = eventually("it can be read", SECOND * 10, || Some(again()).filter(|answer| answer.status == 200));
    assert_eq!(whole.events().last().unwrap().0, "message_stop");
    assert_eq!(elder.exit(SECOND * 10), Some(0), "{}", elder.output());
    assert_eq!(again().events().len(), whole.events().len(), "and when its process has gone");
    assert_eq!(heir.ask(get("/v1/streams/str_00000000000000000000000000", &[])).status, 404);
}

#[test]
fn what_the_process_before_still_serves_is_shown_and_cancelled_by_the_one_after_it() {
    let api = Tidegate::simulated_with("", &["--log-level", "warn"]);
    let mut elder = Tidegate::before(api.simulator(), KEY, "");
    let slow = pace(2_000, 50);
    let begin = |lines: &[(&str, &str)]| {
        let mut wire = elder.client();
        wire.send(post(&[&[("simulate", slow.as_str())], lines].concat(), message(true, 8_000, "x")));
        wire.until("content_block_delta").unwrap();
        wire
    };
    let (mut plain, mut kept) = (begin(&[]), begin(&[("tidegate-resume", "memory")]));
    let ids: Vec<_> = elder.streams().iter().map(|row| row["stream"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2);
    let heir = successor(&elder, api.simulator(), "").unwrap();
    let mut own = heir.client();
    own.send(post(&[("simulate", &slow)], message(true, 8_000, "x")));
    own.until("content_block_delta").unwrap();

    let page = heir.admin("/streams?phase=relay").json();
    let rows = page["streams"].as_array().unwrap();
    let shown: Vec<_> = rows.iter().map(|row| (row["stream"].as_str().unwrap(), row["process"].as_u64())).collect();
    let of_elder = Some(u64::from(elder.pid()));
    assert_eq!(shown[..2], [(ids[0].as_str(), of_elder), (ids[1].as_str(), of_elder)], "{page}");
    assert_eq!((shown.len(), shown[2].1, &page["count"]), (3, None, &Value::from(3)), "{page}");

    // An operator cancels one, and its client the other.
    let admin = heir.admin.to_string();
    let (code, out, err) = finished(&["streams", "cancel", &ids[0], "--admin", &admin]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    plain.until("cancelled_by_operator").unwrap();
    let told = heir.ask(bare("DELETE", &format!("/v1/streams/{}", ids[1]), &[]));
    assert_eq!((told.status, &told.json()["type"]), (200, &Value::from("stream_cancelled")), "{}", told.text());
    kept.until("stream_cancelled").unwrap();
    drop((plain, kept));
    let over = heir.admin("/streams").json();
    let over: Vec<_> = over["finished"].as_array().unwrap().iter().map(|row| row["process"].as_u64()).collect();
    assert!(over.len() <= 2 && over.iter().all(|process| *process == of_elder), "{over:?}");
    assert_eq!(elder.exit(SECOND * 10), Some(0), "{}", elder.output());
    heir.says("the process before this one has ended");
    assert_eq!(heir.admin("/streams").json()["count"], 1);
}

/// Its clients are still there, and their keys may be revoked.
#[test]
fn the_process_before_goes_on_reading_its_configuration() {
    let api = Tidegate::simulated();
    let keys = Folder::new();
    let file = keys.path("keys.toml");
    let (key, _other) = (new_key(&file, &["--tenant", "acme"]), new_key(&file, &["--tenant", "bolt"]));
    let config = format!("[keys]\nfile = \"{file}\"\n");
    let mut elder = Tidegate::before(api.simulator(), KEY, &config);
    let slow = pace(60, 100);
    let mut client = elder.client();
    client.send(post(&[("simulate", &slow), ("x-api-key", &key)], message(true, 8_000, "x")));
    client.until("content_block_delta").unwrap();
    // By the connection that is there: its request before was asked for before the other process came.
    client.send(post(&[("simulate", &pace(1, 1)), ("x-api-key", &key)], message(true, 100, "x")));
    let heir = successor(&elder, api.simulator(), &config).unwrap();
    elder.says("handed over");
    assert_eq!(finished(&["key", "revoke", &key[..11], "--file", &file]).0, 0);
    elder.says(&format!("key {} of acme (removed)", &key[..11]));
    let rest = String::from_utf8(client.until("0\r\n\r\n").unwrap()).unwrap();
    assert!(rest.contains("message_stop"), "what it began with holds: {rest}");
    let refused = client.answer();
    assert_eq!((refused.status, refused.code().as_str()), (401, "unknown_key"), "{}", refused.text());
    drop((client, heir));
    assert_eq!(elder.exit(SECOND * 10), Some(0), "{}", elder.output());
}

#[test]
fn a_sockets_streams_end_whole_and_then_it_closes() {
    let api = Teller::of(60, Duration::from_millis(50));
    let mut elder = Tidegate::before(api.upstream.at, KEY, "");
    let mut socket = elder.socket();
    socket.create("a", &serde_json::json!({}));
    socket.until("a", "stream.event");
    let heir = successor(&elder, api.upstream.at, "").unwrap();
    elder.says("handed over");
    // What is asked of a process that goes is told to go elsewhere; what runs goes on.
    socket.create("late", &serde_json::json!({}));
    let refused = socket.frame_of("late");
    assert_eq!(code_in(&refused), "draining");
    let frames = socket.whole("a");
    assert!(text_of(&frames).ends_with("word59") && frames.last().unwrap()["reason"] == "stop", "{frames:?}");
    assert!(matches!(socket.next(), Heard::Close(Some(1001), _)));
    socket.close();
    assert_eq!(elder.exit(SECOND * 10), Some(0), "{}", elder.output());
    let mut again = heir.socket();
    again.create("a", &serde_json::json!({}));
    again.whole("a");
}

#[test]
fn a_process_that_cannot_start_changes_nothing() {
    let api = Tidegate::simulated();
    let folder = Folder::new();
    let config = format!("[conversations]\nfile = \"{}\"\n", folder.path("talks.db"));
    let elder = Tidegate::before(api.simulator(), KEY, &config);
    let serves = || assert_eq!(turn(elder.gateway, "one", QUICK.1, "x").status, 200);
    serves();
    let why = successor(&elder, api.simulator(), "[clocks]\ngap = 45\n").err().unwrap();
    assert!(why.contains("tidegate.toml:2: gap"), "{why}");
    serves();
    // It meets the elder, and cannot go on: another gateway has the file.
    let other = Folder::new();
    let held = format!("[conversations]\nfile = \"{}\"\n", other.path("held.db"));
    let _holder = Tidegate::before(api.simulator(), KEY, &held);
    let why = successor(&elder, api.simulator(), &held).err().unwrap();
    assert!(why.contains("held.db"), "{why}");
    elder.says("a process that was to take over did not");
    serves();
    // Another log, or none: what is under way would be unknown there.
    let new = format!("[conversations]\nfile = \"{}\"\n", other.path("new.db"));
    for config in [new.as_str(), ""] {
        let why = successor(&elder, api.simulator(), config).err().unwrap();
        assert!(why.contains("keeps conversations in") && why.contains("talks.db"), "{why}");
        assert!(!std::path::Path::new(&other.path("new.db")).exists());
        serves();
    }
    let heir = successor(&elder, api.simulator(), &config).unwrap();
    assert_eq!(turn(heir.gateway, "one", QUICK.1, "x").status, 200);
}

#[test]
fn only_one_takes_over_at_a_time_and_only_what_speaks_as_it_should() {
    let api = Tidegate::simulated();
    let elder = Tidegate::before(api.simulator(), KEY, "");
    let address = meeting_place(elder.gateway);
    let mut slow = UnixStream::connect_addr(&address).unwrap();
    slow.set_read_timeout(Some(SECOND * 10)).unwrap();
    slow.write_all(b"{\"take_over\":{\"pid\":1,\"version\":\"0\"}}\n").unwrap();
    let mut said = [0; 1024];
    let n = slow.read(&mut said).unwrap();
    assert!(String::from_utf8_lossy(&said[..n]).contains("here"));
    let why = successor(&elder, api.simulator(), "").err().unwrap();
    assert!(why.contains("another process is taking over at this moment"), "{why}");
    drop(slow);
    elder.says("it ended before it was ready");
    let mut stranger = UnixStream::connect_addr(&address).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    // It is told nothing, and no line of the log is about it.
    assert_eq!(stranger.read(&mut said).unwrap_or(0), 0);
    assert_eq!(elder.logged("it did not say what it wants"), 0);
    let heir = successor(&elder, api.simulator(), "").unwrap();
    // And the next one follows that.
    let next = successor(&heir, api.simulator(), "").unwrap();
    assert_eq!(next.ask(post(&[QUICK], message(false, 100, "x"))).status, 200);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, _, err) = crate::process::finished(&["serve", "--listen", &nobody, "--upgrade", "--upstream-key", KEY]);
    assert!(code != 0 && err.contains("start without --upgrade"), "{err}");
}

#[test]
fn sigusr2_starts_a_process_that_takes_over() {
    let api = Tidegate::simulated();
    let mut elder = Tidegate::before(api.simulator(), KEY, "");
    let mut streaming = elder.client();
    streaming.send(post(&[("simulate", &pace(30, 100))], message(true, 4000, "x")));
    streaming.until("content_block_delta").unwrap();
    elder.signal("USR2");
    let log = elder.says("handed over; what is under way");
    let pid = log.split("heir=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let _heir = Killed(pid);
    assert_eq!(elder.ask(post(&[QUICK], message(false, 100, "x"))).status, 200);
    let text = String::from_utf8(streaming.until("0\r\n\r\n").unwrap()).unwrap();
    assert!(is_whole(&text), "{text}");
    drop(streaming);
    assert_eq!(elder.exit(SECOND * 10), Some(0), "{}", elder.output());
    assert_eq!(elder.ask(post(&[QUICK], message(false, 100, "x"))).status, 200, "the port has its successor");
    // With the simulated API inside there is nobody to hand over to.
    let asked = Wire::to(api.admin).ask(bare("POST", "/upgrade", &[]));
    assert_eq!(asked.status, 409);
    assert!(asked.text().contains("upgrade_refused"), "{}", asked.text());
}

#[test]
fn why_a_successor_did_not_come_up_is_in_the_log_of_the_one_that_was_asked() {
    let api = Tidegate::simulated();
    let elder = Tidegate::before(api.simulator(), KEY, "[clocks]\ngap = \"45 s\"\n");
    elder.reconfigure("[clocks]\ngap = 45\n");
    let asked = Wire::to(elder.admin).ask(bare("POST", "/upgrade", &[]));
    assert_eq!(asked.status, 200, "{}", asked.text());
    // Its own line, not what the successor wrote to the same place.
    let said = |text: &str| {
        text.lines().any(|line| line.contains("did not; this one goes on") && line.contains("tidegate.toml:2: gap"))
    };
    eventually("the reason", SECOND * 20, || said(&elder.output()).then_some(()));
    assert_eq!(elder.ask(post(&[QUICK], message(false, 100, "x"))).status, 200);
}

/// A process that is no child of ours, ended with the test.
struct Killed(String);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = Command::new("sh").args(["-c", &format!("kill -KILL {}", self.0)]).status();
    }
}

#[test]
fn a_service_managers_socket_is_used_and_it_is_told_what_happens() {
    let api = Tidegate::simulated();
    let folder = Folder::new();
    let manager = UnixDatagram::bind(folder.path("notify")).unwrap();
    manager.set_read_timeout(Some(SECOND * 20)).unwrap();
    let told = || {
        let mut text = [0; 512];
        let n = manager.recv(&mut text).unwrap();
        String::from_utf8(text[..n].to_vec()).unwrap()
    };
    // As a manager does it: the socket is descriptor 3, and the process is told that it is meant.
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let early = Wire::to(at);
    let file = folder.write("tidegate.toml", "[listen]\naddress = \"127.0.0.1:1\"\n");
    let serve = command(&[]).get_program().to_str().unwrap().to_owned();
    let script = format!(
        "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=gateway NOTIFY_SOCKET={}; exec {serve} serve --config {file} --admin-listen 127.0.0.1:0 {}",
        folder.path("notify"),
        before(api.simulator()).join(" ")
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)));
    let mut tidegate = Tidegate::started_by(shell, folder);
    assert_eq!(tidegate.gateway, at);
    assert_eq!(early.ask(post(&[QUICK], message(false, 100, "x"))).status, 200, "who came before it was there");
    assert!(told().contains("READY=1"));
    tidegate.says("--listen or its setting says otherwise than the socket that was passed on");
    tidegate.signal("HUP");
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(told().contains("READY=1"));
    tidegate.signal("TERM");
    assert!(told().contains("STOPPING=1"));
    assert_eq!(tidegate.exit(SECOND * 10), Some(0));
}
