//! Bodies on their way up: of any size, in little memory, and given up when one side is.

use super::{multipart, upload, upload_to};
use crate::process::{Tidegate, eventually};
use crate::upstream::{Upstream, plain};
use crate::wire::{Wire, get};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const FILE: &str = r#"{"id":"file_1","type":"file"}"#;

/// An upstream that reads bodies as bytes, at most so many; it counts them, and how often one ended
/// because its sender did.
struct Sink {
    at: SocketAddr,
    read: Arc<AtomicU64>,
    broken: Arc<AtomicUsize>,
}

impl Sink {
    /// Answers once `end` has come.
    fn until(end: &'static str) -> Self {
        Sink::playing(move |socket, read, broken| {
            let (mut bytes, mut tail) = ([0; 64 * 1024], Vec::new());
            loop {
                match socket.read(&mut bytes) {
                    Ok(n) if n > 0 => {
                        read.fetch_add(n as u64, Ordering::Relaxed);
                        tail.extend_from_slice(&bytes[..n]);
                        tail.drain(..tail.len().saturating_sub(end.len()));
                        if tail == end.as_bytes() {
                            drop(socket.write_all(plain(200, "content-type: application/json\r\n", FILE).as_bytes()));
                        }
                    }
                    _ => {
                        broken.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                }
            }
        })
    }

    fn playing(script: impl Fn(&mut TcpStream, &AtomicU64, &AtomicUsize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (read, broken): (Arc<AtomicU64>, Arc<AtomicUsize>) = (Arc::default(), Arc::default());
        let (counts, script) = ((Arc::clone(&read), Arc::clone(&broken)), Arc::new(script));
        std::thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                let (script, (read, broken)) = (Arc::clone(&script), counts.clone());
                std::thread::spawn(move || script(&mut socket, &read, &broken));
            }
        });
        Sink { at, read, broken }
    }

    fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn breaks(&self) {
        eventually("its sender is gone", SOON, || (self.broken.load(Ordering::Relaxed) > 0).then_some(()));
    }
}

fn head(length: &str) -> String {
    format!(
        "POST /v1/files HTTP/1.1\r\nhost: tidegate\r\ncontent-type: multipart/form-data; boundary=bd\r\n{length}\r\n\r\n"
    )
}

#[test]
fn hundreds_of_megabytes_pass_in_little_memory() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 300;
    let sink = Sink::until("the end of it");
    let tidegate = Tidegate::before(sink.at, "sk-ant-key", "");
    let before = tidegate.memory();
    let mut wire = tidegate.client();
    wire.send(head(&format!("content-length: {}", PIECES * PIECE + 13)));
    let piece = vec![b'x'; PIECE];
    let mut most = 0;
    for _ in 0..PIECES {
        wire.send(&piece);
        most = most.max(tidegate.memory());
    }
    wire.send("the end of it");
    let answer = wire.answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, FILE));
    assert!(sink.read() > (PIECES * PIECE) as u64);
    assert!(most < before + (24 << 20), "{} MiB more", (most - before) >> 20);
    // The connection is good for more.
    wire.send(get("/", &[]));
    assert_eq!(wire.answer().status, 200);
    drop(wire);
    tidegate.comes_to_rest();
}

#[test]
fn a_body_of_unknown_length_goes_up_in_chunks() {
    let sink = Sink::until("0\r\n\r\n");
    let tidegate = Tidegate::before(sink.at, "sk-ant-key", "");
    let mut wire = tidegate.client();
    wire.send(head("expect: 100-continue\r\ntransfer-encoding: chunked"));
    let interim = wire.until("\r\n\r\n").unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"), "{interim:?}");
    for piece in ["tide", "out"] {
        wire.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
        // Each is there before the next is sent.
        let before = sink.read();
        eventually("it goes on", SOON, || (sink.read() > before || before > 300).then_some(()));
    }
    wire.send("0\r\n\r\n");
    assert_eq!(wire.answer().text(), FILE);
    drop(wire);
    tidegate.comes_to_rest();
}

#[test]
fn an_upload_over_the_limit_is_refused_before_or_inside_it() {
    let sink = Sink::until("never");
    let tidegate = Tidegate::before(sink.at, "sk-ant-key", "[limits]\nfile_bytes = \"1 MiB\"\n");
    let answer = tidegate.ask(head("content-length: 1048577"));
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    assert_eq!(answer.json()["error"]["type"], "request_too_large");
    assert_eq!(sink.read(), 0, "nobody upstream heard of it");

    let mut wire = tidegate.client();
    wire.send(head("transfer-encoding: chunked"));
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..17 {
        // It may be refused while the last one is still sent.
        let _ = wire.try_send(&chunk);
    }
    let answer = wire.answer();
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    assert_eq!(answer.header("connection"), Some("close"));
    drop(wire);
    sink.breaks();
    tidegate.comes_to_rest();
    // A batch has a limit of its own.
    let tidegate = Tidegate::before(sink.at, "sk-ant-key", "[limits]\nbatch_bytes = \"1 KiB\"\n");
    let answer = tidegate.ask(upload_to("/v1/messages/batches", "application/json", "", &[b' '; 1025]));
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
}

#[test]
fn a_client_that_leaves_or_falls_silent_in_mid_upload_takes_the_request_along() {
    for (silent, end) in [(false, "client_left"), (true, "refused")] {
        let sink = Sink::until("never");
        let tidegate = Tidegate::before(sink.at, "sk-ant-key", "[clocks]\nclient_body_stall = \"500 ms\"\n");
        let mut wire = tidegate.client();
        wire.send(head("content-length: 10000000"));
        wire.send(vec![b'x'; 300_000]);
        eventually("it is on its way", SOON, || (sink.read() > 100_000).then_some(()));
        if silent {
            let answer = wire.answer();
            assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"));
        }
        drop(wire);
        sink.breaks();
        let log = tidegate.says(&format!("end=\"{end}\""));
        assert!(log.contains("door=\"files\""), "{log}");
        tidegate.comes_to_rest();
    }
}

#[test]
fn an_upstream_that_takes_no_more_runs_into_a_clock() {
    let sink = Sink::playing(|socket, read, _| {
        let mut bytes = [0; 1024];
        read.fetch_add(socket.read(&mut bytes).unwrap_or(0) as u64, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(20));
    });
    let tidegate = Tidegate::before(sink.at, "sk-ant-key", "[clocks]\nupload_stall = \"500 ms\"\n");
    let mut wire = tidegate.client();
    wire.send(head("content-length: 100000000"));
    let piece = vec![b'x'; 1 << 20];
    // Some of it is in the buffers of four sockets; then the client is not read either.
    while wire.try_send(&piece).is_ok() {}
    let answer = wire.answer();
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"));
    assert_eq!(tidegate.metric("tidegate_clock_expired_total{clock=\"upload_stall\"}"), 1.0);
    drop(wire);
    tidegate.comes_to_rest();
}

#[test]
fn an_upstream_that_answers_before_it_has_everything_is_heard() {
    let sink = Sink::playing(|socket, read, _| {
        let mut bytes = [0; 64 * 1024];
        while read.load(Ordering::Relaxed) < 200_000 {
            read.fetch_add(socket.read(&mut bytes).unwrap() as u64, Ordering::Relaxed);
        }
        let body =
            r#"{"type":"error","error":{"type":"request_too_large","message":"far too large"},"request_id":"req_1"}"#;
        socket
            .write_all(plain(413, "content-type: application/json\r\nrequest-id: req_1\r\n", body).as_bytes())
            .unwrap();
        while socket.read(&mut bytes).is_ok_and(|n| n > 0) {}
    });
    let tidegate = Tidegate::before(sink.at, "sk-ant-key", "");
    let mut wire = tidegate.client();
    wire.send(head("content-length: 10000000"));
    wire.send(vec![b'x'; 400_000]);
    // The client has much more to send, and reads meanwhile.
    let answer = wire.answer();
    assert!(answer.status == 413 && answer.text().contains("far too large"), "{}", answer.text());
    assert_eq!((answer.header("request-id"), answer.header("connection")), (Some("req_1"), Some("close")));
    drop(wire);
    tidegate.comes_to_rest();
}

#[test]
fn a_large_upload_is_sent_once_and_a_small_one_again() {
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r"}"#;
    for (bytes, asked) in [(200_000, 1), (20, 2)] {
        let upstream = Upstream::playing(move |nth, _, socket| {
            let said = if nth == 0 {
                plain(529, "content-type: application/json\r\n", overloaded)
            } else {
                plain(200, "content-type: application/json\r\n", FILE)
            };
            drop(socket.write_all(said.as_bytes()));
        });
        let tidegate = Tidegate::before(upstream.at, "sk-ant-key", "");
        let content = vec![b'x'; bytes];
        let answer = tidegate.ask(upload("a.txt", &content));
        assert_eq!(upstream.seen().len(), asked, "{bytes}");
        assert!(upstream.seen().iter().all(|seen| seen.body == multipart("a.txt", &content)));
        if asked == 1 {
            assert_eq!((answer.status, answer.code().as_str()), (529, "upstream_overloaded"));
            assert_eq!(answer.header("x-should-retry"), None, "its client may try again");
        } else {
            assert_eq!(answer.status, 200);
        }
        tidegate.comes_to_rest();
    }
}

#[test]
fn an_upload_that_no_connection_took_is_tried_again() {
    // Nobody listens there.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sink = Sink::until("--bd--\r\n");
    let table = |name: &str, at: SocketAddr| {
        format!(
            "[[organisation]]\nname = \"{name}\"\nurl = \"http://{at}\"\nkeys = [{{ value = \"sk-ant-{name}\" }}]\n"
        )
    };
    let tidegate = Tidegate::configured(&(table("b", sink.at) + &table("a", dead)));
    // The second is named, so it is asked first; there is no other place for it.
    let lines = "tidegate-organisation: a\r\ntidegate-deadline-ms: 700\r\n";
    let body = multipart("a.txt", &vec![b'x'; 200_000]);
    let form = "multipart/form-data; boundary=bd";
    let answer = Wire::to(tidegate.gateway).ask(upload_to("/v1/files", form, lines, &body));
    assert!(matches!(answer.status, 502 | 504 | 529), "{}", answer.text());
    assert!(tidegate.metric("tidegate_retries_total{cause=\"connect\"}") >= 1.0, "nothing of it was taken yet");
    assert_eq!(sink.read(), 0);
    assert_eq!(Wire::to(tidegate.gateway).ask(upload_to("/v1/files", form, "", &body)).text(), FILE);
    tidegate.comes_to_rest();
}
