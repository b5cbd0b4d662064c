//! An upstream made of a listening socket: it keeps what it is sent and answers as it is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// Every header line in order: name as spelled, value.
    pub(crate) fn lines(&self) -> Vec<(&str, &str)> {
        self.head.lines().skip(1).filter_map(|l| l.split_once(": ")).collect()
    }

    /// Every value of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.lines().into_iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v).collect()
    }
}

/// The upstream; its threads end with their connections, or with the test.
pub(crate) struct Upstream {
    pub(crate) at: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

type Script = dyn Fn(usize, &Seen, &mut TcpStream) + Send + Sync;

impl Upstream {
    /// Answers request number `n` (from 0) by what `script` writes.
    pub(crate) fn playing(script: impl Fn(usize, &Seen, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, script): (_, Arc<Script>) = (Arc::clone(&seen), Arc::new(script));
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (kept, script) = (Arc::clone(&kept), Arc::clone(&script));
                std::thread::spawn(move || serve(socket, &kept, &*script));
            }
        });
        Upstream { at, seen }
    }

    /// Answers every request with the same bytes.
    pub(crate) fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Upstream::playing(move |_, _, socket| drop(socket.write_all(&answer)))
    }

    /// What it was sent so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut socket: TcpStream, kept: &Mutex<Vec<Seen>>, script: &Script) {
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut read = Vec::new();
    while let Some(seen) = request(&mut socket, &mut read) {
        let nth = {
            let mut kept = kept.lock().unwrap();
            kept.push(seen.clone());
            kept.len() - 1
        };
        script(nth, &seen, &mut socket);
    }
}

fn request(socket: &mut TcpStream, read: &mut Vec<u8>) -> Option<Seen> {
    let mut bytes = [0; 64 * 1024];
    let mut more = |read: &mut Vec<u8>| {
        let n = socket.read(&mut bytes).ok().filter(|n| *n > 0)?;
        read.extend_from_slice(&bytes[..n]);
        Some(())
    };
    let end = loop {
        match read.windows(4).position(|w| w == b"\r\n\r\n") {
            Some(at) => break at + 4,
            None => more(read)?,
        }
    };
    let head = String::from_utf8(read[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |v| v.parse().unwrap());
    while read.len() < end + length {
        more(read)?;
    }
    let body = read[end..end + length].to_vec();
    read.drain(..end + length);
    Some(Seen { head, body })
}

/// An answer with a length.
pub(crate) fn plain(status: u16, lines: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\n{lines}content-length: {}\r\n\r\n{body}", body.len())
}

/// The head of a stream, and pieces of it as chunks of their own.
pub(crate) fn stream_head(lines: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n{lines}transfer-encoding: chunked\r\n\r\n"
    )
}

pub(crate) fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// The last chunk.
pub(crate) const END: &str = "0\r\n\r\n";

/// A small answer as a stream, up to the last event before `message_stop`.
pub(crate) const BEGIN: &str = concat!(
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-haiku-5-5\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n",
);
pub(crate) const FINISH: &str = concat!(
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":2}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);
