//! A wire between the gateway and its upstream that keeps everything that passes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What passed on one connection.
#[derive(Default)]
struct Passed {
    up: Vec<u8>,
    down: Vec<u8>,
}

/// The wire. What passed is kept until it is asked for.
pub(super) struct Tap {
    pub(super) at: SocketAddr,
    connections: Arc<Mutex<Vec<Arc<Mutex<Passed>>>>>,
    over: Arc<AtomicBool>,
}

impl Tap {
    pub(super) fn before(upstream: SocketAddr) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (connections, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let tap = Tap { at, connections: Arc::clone(&connections), over: Arc::clone(&over) };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(upstream) else { continue };
                let passed: Arc<Mutex<Passed>> = Arc::default();
                connections.lock().unwrap().push(Arc::clone(&passed));
                let (c, s) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let other = Arc::clone(&passed);
                std::thread::spawn(move || pass(client, server, |bytes| passed.lock().unwrap().up.extend(bytes)));
                std::thread::spawn(move || pass(s, c, |bytes| other.lock().unwrap().down.extend(bytes)));
            }
        });
        tap
    }

    /// Everything that went up so far, connection by connection.
    pub(super) fn up(&self) -> Vec<Vec<u8>> {
        let connections = self.connections.lock().unwrap();
        connections.iter().map(|passed| passed.lock().unwrap().up.clone()).collect()
    }

    /// The bodies of requests in which `mark` stands, in the order of their connections.
    pub(super) fn asked(&self, mark: &str) -> Vec<String> {
        let has = |body: &Vec<u8>| find(body, mark.as_bytes(), 0).is_some();
        self.up().iter().filter(|up| has(up)).flat_map(|up| bodies(up)).filter(has).map(text).collect()
    }

    /// The body of the answer whose head has `request_id`, its chunks joined.
    pub(super) fn answer(&self, request_id: &str) -> Option<String> {
        let connections = self.connections.lock().unwrap();
        connections.iter().find_map(|passed| {
            let down = &passed.lock().unwrap().down;
            let at = find(down, request_id.as_bytes(), 0)?;
            let body = find(down, b"\r\n\r\n", at)? + 4;
            Some(text(unchunked(&down[body..])))
        })
    }

    /// Forgets what passed.
    pub(super) fn forget(&self) {
        for passed in self.connections.lock().unwrap().iter() {
            let mut passed = passed.lock().unwrap();
            (passed.up, passed.down) = (Vec::new(), Vec::new());
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the accept, which then sees it.
        drop(TcpStream::connect(self.at));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut keep: impl FnMut(&[u8])) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        // Kept first: whoever has the answer finds it here.
        keep(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

pub(super) fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(what.len()).position(|w| w == what).map(|at| from + at)
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(bytes.as_ref()).into_owned()
}

/// The bodies of the requests on a connection. The gateway says how long each is.
fn bodies(mut up: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(end) = find(up, b"\r\n\r\n", 0) {
        let head = text(&up[..end]).to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
        assert!(!head.contains("transfer-encoding"), "{head}");
        let body = end + 4..(end + 4 + length).min(up.len());
        all.push(up[body.clone()].to_vec());
        up = &up[body.end..];
    }
    all
}

/// A body in chunks, as far as it has come.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = find(rest, b"\r\n", 0) {
        let Ok(size) = usize::from_str_radix(text(&rest[..end]).trim(), 16) else { break };
        let chunk = &rest[end + 2..];
        if size == 0 || chunk.len() < size + 2 {
            break;
        }
        body.extend_from_slice(&chunk[..size]);
        rest = &chunk[size + 2..];
    }
    body
}
