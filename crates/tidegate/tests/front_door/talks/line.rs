//! A client's connection: requests as bytes, answers read as they come. Nothing of the gateway's own
//! code reads them.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection.
pub(super) struct Line {
    socket: TcpStream,
    read: Vec<u8>,
}

/// The head of an answer, and as much of its body as has come.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    next: Next,
}

/// What comes next of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// So many bytes and nothing else.
    Bytes(usize),
    /// A chunk's size.
    Size,
    /// So many bytes of a chunk.
    Chunk(usize),
    /// The end of a chunk's line; of the last one, the end of the body.
    ChunkEnd {
        last: bool,
    },
    Nothing,
}

impl Answer {
    fn read(head: String) -> Self {
        let status = head.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a status line");
        let mut answer = Answer { status, head, body: Vec::new(), next: Next::Size };
        if let Some(length) = answer.header("content-length") {
            answer.next = Next::Bytes(length.parse().expect("a length"));
        }
        answer
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Whether the body came to the end its framing promises.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.next, Next::Nothing | Next::Bytes(0))
    }

    /// Takes what is the body's of what was read.
    fn take(&mut self, read: &mut Vec<u8>) {
        loop {
            self.next = match self.next {
                Next::Nothing | Next::Bytes(0) => return,
                Next::Bytes(left) | Next::Chunk(left) => {
                    let n = left.min(read.len());
                    self.body.extend(read.drain(..n));
                    match (self.next, left - n) {
                        (Next::Bytes(_), left) => Next::Bytes(left),
                        (_, 0) => Next::ChunkEnd { last: false },
                        (_, left) => Next::Chunk(left),
                    }
                }
                Next::Size => {
                    let Some(at) = read.windows(2).position(|two| two == b"\r\n") else { return };
                    let line = String::from_utf8(read.drain(..at + 2).collect()).unwrap();
                    match usize::from_str_radix(line.trim(), 16).expect("a chunk's size") {
                        0 => Next::ChunkEnd { last: true },
                        size => Next::Chunk(size),
                    }
                }
                Next::ChunkEnd { .. } if read.len() < 2 => return,
                Next::ChunkEnd { last } => {
                    assert!(read.drain(..2).eq(*b"\r\n"), "a chunk ends with its line");
                    if last { Next::Nothing } else { Next::Size }
                }
            };
            if read.is_empty() {
                return;
            }
        }
    }
}

impl Line {
    pub(super) async fn to(at: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(at).await?;
        socket.set_nodelay(true)?;
        Ok(Line { socket, read: Vec::new() })
    }

    pub(super) async fn send(&mut self, request: &[u8]) -> Result<()> {
        self.socket.write_all(request).await
    }

    async fn fill(&mut self) -> Result<()> {
        let mut bytes = [0; 16 * 1024];
        match self.socket.read(&mut bytes).await? {
            0 => Err(Error::from(ErrorKind::UnexpectedEof)),
            n => {
                self.read.extend_from_slice(&bytes[..n]);
                Ok(())
            }
        }
    }

    /// Waits for an answer's head.
    pub(super) async fn head(&mut self) -> Result<Answer> {
        loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8(self.read.drain(..at + 4).collect()).unwrap();
                let mut answer = Answer::read(head);
                answer.take(&mut self.read);
                return Ok(answer);
            }
            self.fill().await?;
        }
    }

    /// Waits for more of the body; false if there is none.
    pub(super) async fn more(&mut self, answer: &mut Answer) -> Result<bool> {
        if answer.is_whole() {
            return Ok(false);
        }
        self.fill().await?;
        answer.take(&mut self.read);
        Ok(true)
    }

    /// Leaves with a reset, as a process that is killed does with what it has not read.
    pub(super) fn reset(self) {
        // Where the system does not know it the connection is closed, which is leaving as well.
        drop(self.socket.set_zero_linger());
    }
}

#[test]
fn a_body_comes_to_its_end_however_it_is_cut() {
    let wire = b"3\r\nabc\r\n5\r\nde\r\nf\r\n0\r\n\r\nrest";
    for cut in 1..wire.len() {
        let mut answer = Answer::read("HTTP/1.1 200 OK\r\nA-b: c\r\n\r\n".to_owned());
        let mut read = Vec::new();
        for part in [&wire[..cut], &wire[cut..]] {
            read.extend_from_slice(part);
            answer.take(&mut read);
        }
        assert!(answer.is_whole() && answer.body == b"abcde\r\nf" && read == b"rest", "{cut}");
        assert_eq!((answer.status, answer.header("a-B")), (200, Some("c")));
    }
    let mut answer = Answer::read("HTTP/1.1 404 X\r\ncontent-length: 3\r\n\r\n".to_owned());
    let mut read = b"abcd".to_vec();
    answer.take(&mut read);
    assert!(answer.is_whole() && answer.body == b"abc" && read == b"d");
}
