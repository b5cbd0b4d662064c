//! What can go wrong while one process takes over from another, and processes that follow each other
//! faster than streams end.

use crate::process::{Folder, Tidegate, command, finished};
use crate::reload::new_key;
use crate::socket::{DOOR, code_in};
use crate::upgrade::{KEY, SECOND, before, is_whole, pace, successor, turn, turns};
use crate::wire::{QUICK, Wire, get, message, post};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::process::{Command, Stdio};

/// The socket on which `gateway` meets whoever takes over.
pub(crate) fn meeting_place(gateway: SocketAddr) -> UnixAddress {
    UnixAddress::from_abstract_name(format!("tidegate/{gateway}")).unwrap()
}

/// An heir without a gateway, that was told to go.
fn told_to_go(elder: &Tidegate) -> UnixStream {
    let mut heir = UnixStream::connect_addr(&meeting_place(elder.gateway)).unwrap();
    heir.set_read_timeout(Some(SECOND * 10)).unwrap();
    let mut hears = |says: &str, word: &str| {
        let mut said = [0; 1024];
        heir.write_all(says.as_bytes()).unwrap();
        let n = heir.read(&mut said).unwrap();
        assert!(String::from_utf8_lossy(&said[..n]).contains(word), "{}", String::from_utf8_lossy(&said[..n]));
    };
    hears("{\"take_over\":{\"pid\":1,\"version\":\"0\"}}\n", "here");
    hears("\"ready\"\n", "go");
    heir
}

#[test]
fn an_heir_that_ends_before_it_serves_leaves_the_elder_serving() {
    let api = Tidegate::simulated();
    let folder = Folder::new();
    let config = format!("[conversations]\nfile = \"{}\"\n", folder.path("talks.db"));
    let elder = Tidegate::before(api.simulator(), KEY, &config);
    assert_eq!(turn(elder.gateway, "one", QUICK.1, "x").status, 200);
    let mut heir = told_to_go(&elder);
    // It was given a conversation, and nobody is accepted until it says that it serves.
    heir.write_all(b"{\"conversation\":{\"claim\":1,\"tenant\":\"local\",\"name\":\"one\"}}\n").unwrap();
    let mut said = [0; 1024];
    assert!(heir.read(&mut said).unwrap() > 0);
    let mut waits = elder.client();
    waits.send(post(&[QUICK, ("tidegate-conversation", "one")], message(true, 100, "x")));
    drop(heir);
    let answer = waits.answer();
    assert_eq!((answer.status, answer.header("tidegate-turn")), (200, Some("2")), "{}", answer.text());
    elder.says("this one goes on serving");
    let heir = successor(&elder, api.simulator(), &config).unwrap();
    assert_eq!(turn(heir.gateway, "one", QUICK.1, "x").header("tidegate-turn"), Some("3"));
}

#[test]
fn an_elder_that_is_told_to_stop_at_that_moment_drains() {
    let api = Tidegate::simulated();
    let mut elder = Tidegate::before(api.simulator(), KEY, "");
    let mut streaming = elder.client();
    streaming.send(post(&[("simulate", &pace(30, 50))], message(true, 4000, "x")));
    streaming.until("content_block_delta").unwrap();
    let heir = told_to_go(&elder);
    elder.signal("TERM");
    elder.says("draining; signal again to stop at once");
    let text = String::from_utf8(streaming.until("0\r\n\r\n").unwrap()).unwrap();
    assert!(is_whole(&text), "{text}");
    drop(streaming);
    assert_eq!(elder.exit(SECOND * 10), Some(0), "{}", elder.output());
    drop(heir);
}

#[test]
fn after_an_heir_that_crashed_another_one_can_be_started_under_the_elders_streams() {
    let api = Tidegate::simulated();
    let folder = Folder::new();
    let config = format!("[conversations]\nfile = \"{}\"\n", folder.path("talks.db"));
    let mut elder = Tidegate::before(api.simulator(), KEY, &config);
    let mut streaming = elder.client();
    let lines = [("simulate", pace(80, 100)), ("tidegate-conversation", "long".to_owned())];
    streaming.send(post(&lines.each_ref().map(|(n, v)| (*n, v.as_str())), message(true, 4000, "x")));
    streaming.until("content_block_delta").unwrap();
    let mut heir = successor(&elder, api.simulator(), &config).unwrap();
    heir.signal("KILL");
    heir.exit(SECOND * 10);
    elder.says("nobody accepts");
    // One that does not take over is told who has the log.
    let file = folder.write("other.toml", &config);
    let flags = ["serve", "--config", &file, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let (code, _, err) = finished(&[&flags[..], &before(api.simulator()).each_ref().map(String::as_str)].concat());
    assert!(code != 0 && err.contains(&format!("(pid {})", elder.pid())), "{err}");
    let heir = successor(&elder, api.simulator(), &config).unwrap();
    assert_eq!(heir.gateway, elder.gateway);
    let next = turn(heir.gateway, "long", QUICK.1, "the second");
    assert_eq!((next.status, next.header("tidegate-turn")), (200, Some("2")), "{}", next.text());
    let text = String::from_utf8(streaming.until("0\r\n\r\n").unwrap()).unwrap();
    assert!(is_whole(&text), "{text}");
    drop(streaming);
    assert_eq!(elder.exit(SECOND * 10), Some(0), "{}", elder.output());
}

#[test]
fn what_the_first_of_three_has_is_asked_of_it_through_the_second() {
    let api = Tidegate::simulated();
    let folder = Folder::new();
    let config = format!("[conversations]\nfile = \"{}\"\n", folder.path("talks.db"));
    let mut first = Tidegate::before(api.simulator(), KEY, &config);
    let gateway = first.gateway;
    let slow = pace(80, 100);
    let mut durable = first.client();
    durable.send(post(&[("simulate", &slow), ("tidegate-resume", "durable")], message(true, 4000, "x")));
    let stream = durable.head().unwrap().header("tidegate-stream").unwrap().to_owned();
    durable.until("content_block_delta").unwrap();
    let mut long = first.client();
    long.send(post(&[("simulate", &slow), ("tidegate-conversation", "long")], message(true, 4000, "the first")));
    long.until("content_block_delta").unwrap();
    let mut second = successor(&first, api.simulator(), &config).unwrap();
    first.says("handed over");
    let third = successor(&second, api.simulator(), &config).unwrap();
    second.says("handed over");
    // The second has nothing of its own, and stays for what the first has.
    let again = || third.ask(get(&format!("/v1/streams/{stream}"), &[]));
    assert_eq!((again().status, again().code().as_str()), (529, "stream_elsewhere"));
    let next = turn(gateway, "long", QUICK.1, "the second");
    assert_eq!((next.status, next.header("tidegate-turn")), (200, Some("2")), "{}", next.text());
    for mut wire in [long, durable] {
        let text = String::from_utf8(wire.until("0\r\n\r\n").unwrap()).unwrap();
        assert!(is_whole(&text), "{text}");
    }
    assert_eq!(first.exit(SECOND * 10), Some(0), "{}", first.output());
    assert_eq!(second.exit(SECOND * 10), Some(0), "{}", second.output());
    third.says("the process before this one has ended");
    assert_eq!(again().events().last().unwrap().0, "message_stop");
    assert_eq!(turns(gateway, "long").len(), 2);
}

#[test]
fn a_stream_of_the_elder_is_told_of_on_a_socket_and_to_its_owner_only() {
    let api = Tidegate::simulated();
    let folder = Folder::new();
    let keys = folder.path("keys.toml");
    let (acme, bolt) = (new_key(&keys, &["--tenant", "acme"]), new_key(&keys, &["--tenant", "bolt"]));
    // Without a log of conversations: only the elder knows of it.
    let config = format!("[keys]\nfile = \"{keys}\"\n");
    let elder = Tidegate::before(api.simulator(), KEY, &config);
    let mut reading = elder.client();
    let lines = [("simulate", &*pace(60, 100)), ("tidegate-resume", "memory"), ("x-api-key", &acme)];
    reading.send(post(&lines, message(true, 4000, "x")));
    let stream = reading.head().unwrap().header("tidegate-stream").unwrap().to_owned();
    reading.until("content_block_delta").unwrap();
    let heir = successor(&elder, api.simulator(), &config).unwrap();
    for (key, status, code) in [(&acme, 529, "stream_elsewhere"), (&bolt, 404, "unknown_stream")] {
        let refused = heir.ask(get(&format!("/v1/streams/{stream}"), &[("x-api-key", key)]));
        assert_eq!((refused.status, refused.code().as_str()), (status, code));
        let mut socket = heir.open(DOOR, &["tidegate.v1"], &[("x-api-key", key)]).unwrap();
        socket.send(&serde_json::json!({"type": "stream.resume", "id": "again", "stream": stream}));
        assert_eq!(code_in(&socket.frame_of("again")), code);
    }
}

#[test]
fn operators_connections_end_with_the_hand_over() {
    let api = Tidegate::simulated();
    let elder = Tidegate::before(api.simulator(), KEY, "");
    let mut streaming = elder.client();
    streaming.send(post(&[("simulate", &pace(40, 100))], message(true, 4000, "x")));
    streaming.until("content_block_delta").unwrap();
    let mut kept = Wire::to(elder.admin);
    kept.send(get("/streams", &[]));
    assert_eq!(kept.answer().json()["streams"].as_array().unwrap().len(), 1);
    let heir = successor(&elder, api.simulator(), "").unwrap();
    kept.ends("it would be asked of the process that goes");
    assert!(heir.streams().is_empty());
}

/// Whoever a process takes over from: `ready` was said, `go` was not.
fn slow_elder() -> (UnixListener, SocketAddr, [TcpListener; 2]) {
    let doors = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let at = doors[0].local_addr().unwrap();
    (UnixListener::bind_addr(&meeting_place(at)).unwrap(), at, doors)
}

#[test]
fn signals_that_come_before_a_process_serves_are_not_its_end() {
    let api = Tidegate::simulated();
    for signal in ["HUP", "TERM"] {
        let (place, at, doors) = slow_elder();
        let folder = Folder::new();
        let file = folder.write("tidegate.toml", "");
        let flags = before(api.simulator());
        let at = at.to_string();
        let common = ["serve", "--config", &file, "--listen", &at, "--admin-listen", "127.0.0.1:0", "--upgrade"];
        let mut serve = command(&[&common[..], &flags.each_ref().map(String::as_str)].concat());
        let mut heir = serve.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut elder, _) = place.accept().unwrap();
        elder.set_read_timeout(Some(SECOND * 20)).unwrap();
        let mut line = [0; 256];
        assert!(elder.read(&mut line).unwrap() > 0);
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let fds = [doors[0].as_fd(), doors[1].as_fd(), place.as_fd()];
        assert!(beside.push(SendAncillaryMessage::ScmRights(&fds)));
        let here = b"{\"here\":{\"pid\":1,\"doors\":true,\"log\":null}}\n";
        rustix::net::sendmsg(&elder, &[std::io::IoSlice::new(here)], &mut beside, SendFlags::empty()).unwrap();
        let n = elder.read(&mut line).unwrap();
        assert_eq!(&line[..n], b"\"ready\"\n");
        let kill = format!("kill -{signal} {}", heir.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let mut err = std::io::BufReader::new(heir.stderr.take().unwrap());
        let mut says = |text: &str| {
            let mut line = String::new();
            while !line.contains(text) {
                line.clear();
                assert!(err.read_line(&mut line).unwrap() > 0, "it ended and did not say: {text}");
            }
        };
        if signal == "HUP" {
            elder.write_all(b"\"go\"\n").unwrap();
            says("the configuration was read anew, and is the same");
            let n = elder.read(&mut line).unwrap();
            assert_eq!(&line[..n], b"\"serving\"\n");
            heir.kill().unwrap();
            heir.wait().unwrap();
        } else {
            says("stopped before it took over");
            assert!(heir.wait().unwrap().success());
        }
    }
}
