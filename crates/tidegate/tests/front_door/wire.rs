//! A client made of a socket: requests as bytes, answers taken apart by hand.

use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The longest a test waits for a byte.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// One connection.
pub(crate) struct Wire {
    socket: TcpStream,
    read: Vec<u8>,
    ended: bool,
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers as they came.
    pub(crate) head: String,
    /// The body, chunks joined.
    pub(crate) body: Vec<u8>,
    /// Whether the body came to the end its framing promises.
    pub(crate) whole: bool,
}

impl Answer {
    /// Every value of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|l| l.split_once(':'));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.head, self.text()))
    }

    /// The machine code of an error answer, which has to be in the API's envelope.
    pub(crate) fn code(&self) -> String {
        code_of(&self.json())
    }

    /// The events of a stream: name and data.
    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        events(&self.text())
    }

    /// The envelope in the last event, which has to be an `error`.
    pub(crate) fn last_error(&self) -> Value {
        let (name, data) = self.events().pop().unwrap();
        assert_eq!(name, "error", "{data}");
        data
    }
}

/// The machine code in an envelope, whose shape is checked.
pub(crate) fn code_of(envelope: &Value) -> String {
    assert_eq!(envelope["type"], "error", "{envelope}");
    for field in [&envelope["error"]["type"], &envelope["error"]["message"], &envelope["request_id"]] {
        assert!(field.as_str().is_some_and(|s| !s.is_empty()), "{envelope}");
    }
    envelope["error"]["details"]["error_code"].as_str().unwrap_or("").to_owned()
}

/// The events in a text: name and data.
pub(crate) fn events(text: &str) -> Vec<(String, Value)> {
    let line = |block: &str, name: &str| block.lines().find_map(|l| l.strip_prefix(name).map(|v| v.trim().to_owned()));
    text.split_inclusive("\n\n")
        .filter(|block| block.ends_with("\n\n"))
        .filter_map(|block| {
            let data = line(block, "data:")?;
            let name = line(block, "event:").unwrap_or_default();
            Some((name, serde_json::from_str(&data).unwrap_or(Value::String(data))))
        })
        .collect()
}

impl Wire {
    pub(crate) fn to(at: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&at, SILENCE_MAX).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(SILENCE_MAX)).unwrap();
        socket.set_write_timeout(Some(SILENCE_MAX)).unwrap();
        Wire { socket, read: Vec::new(), ended: false }
    }

    /// Sends bytes; an error if the other side no longer takes them.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.socket.write_all(bytes.as_ref())
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.answer()
    }

    /// Says that no more will be sent.
    pub(crate) fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads once; false at the end of the connection, however it came.
    fn fill(&mut self) -> bool {
        if self.ended {
            return false;
        }
        let mut bytes = [0; 64 * 1024];
        match self.socket.read(&mut bytes) {
            Ok(n) => {
                self.read.extend_from_slice(&bytes[..n]);
                self.ended = n == 0;
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("silence for {SILENCE_MAX:?} after {:?}", String::from_utf8_lossy(&self.read));
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => {
                println!("the connection broke: {e}");
                self.ended = true;
            }
        }
        !self.ended
    }

    /// Reads until `marker` has come; everything up to and with it.
    pub(crate) fn until(&mut self, marker: &str) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.read.windows(marker.len()).position(|w| w == marker.as_bytes()) {
                let after = self.read.split_off(at + marker.len());
                return Some(std::mem::replace(&mut self.read, after));
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn exactly(&mut self, n: usize) -> (Vec<u8>, bool) {
        while self.read.len() < n && self.fill() {}
        let whole = self.read.len() >= n;
        let after = self.read.split_off(n.min(self.read.len()));
        (std::mem::replace(&mut self.read, after), whole)
    }

    /// Reads the head of an answer, passing over interim ones; `None` if the connection ends first.
    pub(crate) fn head(&mut self) -> Option<Answer> {
        loop {
            let head = String::from_utf8(self.until("\r\n\r\n")?).unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            if status != 100 {
                return Some(Answer { status, head, body: Vec::new(), whole: false });
            }
        }
    }

    /// Reads one answer whole.
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().expect("the connection ended without an answer")
    }

    /// Reads one answer whole, or `None` if the connection ends before its head.
    pub(crate) fn try_answer(&mut self) -> Option<Answer> {
        let head = self.head()?;
        Some(self.body_of(head))
    }

    /// What is left once the head of an answer has come: the socket, and what came behind it.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.socket, self.read)
    }

    /// Reads the body behind a head.
    pub(crate) fn body_of(&mut self, mut answer: Answer) -> Answer {
        if let Some(length) = answer.header("content-length") {
            (answer.body, answer.whole) = self.exactly(length.parse().unwrap());
        } else if answer.header("transfer-encoding").is_some() {
            answer.whole = self.chunks(&mut answer.body);
        } else {
            while self.fill() {}
            answer.body = std::mem::take(&mut self.read);
            answer.whole = true;
        }
        answer
    }

    /// Reads chunks to their end; false if the connection ends first.
    fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(line) = self.until("\r\n") else { return false };
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            let (chunk, whole) = self.exactly(size + 2);
            if !whole {
                body.extend_from_slice(&chunk);
                return false;
            }
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return true;
            }
        }
    }

    /// Everything until the connection ends, and how long that took.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, Duration) {
        let began = Instant::now();
        while self.fill() {}
        (std::mem::take(&mut self.read), began.elapsed())
    }

    /// Asserts that nothing more comes but the end of the connection.
    #[track_caller]
    pub(crate) fn ends(&mut self, what: &str) {
        let (rest, _) = self.rest();
        assert!(rest.is_empty(), "{what}: {}", String::from_utf8_lossy(&rest));
    }
}

/// A request without a body.
pub(crate) fn get(path: &str, lines: &[(&str, &str)]) -> String {
    bare("GET", path, lines)
}

/// A request of any method, without a body.
pub(crate) fn bare(method: &str, path: &str, lines: &[(&str, &str)]) -> String {
    let lines: String = lines.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nhost: tidegate\r\nanthropic-version: 2023-06-01\r\n{lines}\r\n")
}

/// A request with a body and its length.
pub(crate) fn post_to(path: &str, lines: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let lines: String = lines.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: tidegate\r\ncontent-type: application/json\r\nanthropic-version: 2023-06-01\r\n{lines}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// `POST /v1/messages`.
pub(crate) fn post(lines: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    post_to("/v1/messages", lines, body)
}

/// The body of a request for a message.
pub(crate) fn message(stream: bool, max_tokens: u32, text: &str) -> String {
    let text = serde_json::to_string(text).unwrap();
    format!(
        r#"{{"model":"claude-haiku-5-5","max_tokens":{max_tokens},"stream":{stream},"messages":[{{"role":"user","content":{text}}}]}}"#
    )
}

/// A pace that gets a simulated answer over with.
pub(crate) const QUICK: (&str, &str) = ("simulate", "output_tokens=20, head_ms=0, first_ms=0, event_ms=0");
