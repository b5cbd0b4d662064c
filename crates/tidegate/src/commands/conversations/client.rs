//! A client that waits: one request at a time on a connection that is kept, and many such on
//! threads. The load here is what people say, so few enough for a thread each.

use crate::commands::Failed;
use crate::commands::stage::Stop;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_transport::Clock;

/// The longest an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 8 << 20;
/// Most clients at once.
pub(super) const CLIENTS_MAX: usize = 256;

/// One connection.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
    clock: Clock,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    /// From the sending of the request.
    pub(super) took: Duration,
}

impl Answer {
    /// The JSON of a buffered answer.
    pub(super) fn json(&self) -> Result<Value, Failed> {
        serde_json::from_slice(&self.body).map_err(|e| Failed(format!("an answer is no JSON: {e}")))
    }
}

impl Client {
    pub(super) fn to(at: SocketAddr) -> Result<Self, Failed> {
        let connect = || {
            let stream = TcpStream::connect_timeout(&at, ANSWER_MAX)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_MAX))?;
            stream.set_write_timeout(Some(ANSWER_MAX))?;
            std::io::Result::Ok(stream)
        };
        let stream = connect().map_err(|e| Failed(format!("cannot connect to {at}: {e}")))?;
        Ok(Client { stream: BufReader::new(stream), clock: Clock::real() })
    }

    /// Asks, and waits for the whole answer; one that is not good is an error.
    pub(super) fn ask(&mut self, lines: &[(&str, &str)], body: &[u8]) -> Result<Answer, Failed> {
        let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: tidegate\r\nx-api-key: any\r\nanthropic-version: 2023-06-01\r\ncontent-type: application/json\r\n{lines}content-length: {}\r\n\r\n",
            body.len()
        );
        let began = self.clock.now();
        let sent = self.stream.get_mut().write_all(&[head.as_bytes(), body].concat());
        let answer = sent.and_then(|()| self.answer(began));
        let (status, answer) = answer.map_err(|e| Failed(format!("a connection broke: {e}")))?;
        if status != 200 {
            return Err(Failed(format!("answered with {status}: {}", String::from_utf8_lossy(&answer.body))));
        }
        Ok(answer)
    }

    fn answer(&mut self, began: Moment) -> std::io::Result<(u16, Answer)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
            }
        }
        let head = head.to_ascii_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let mut body = Vec::new();
        match field("content-length:").and_then(|length| length.parse::<u64>().ok()) {
            Some(length) => {
                (&mut self.stream).take(length.min(ANSWER_BYTES_MAX)).read_to_end(&mut body)?;
            }
            None => self.chunks(&mut body)?,
        }
        Ok((status, Answer { body, took: self.clock.now().since(began) }))
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> std::io::Result<()> {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            if body.len() as u64 + size > ANSWER_BYTES_MAX {
                return Err(std::io::Error::other("the answer is too long"));
            }
            (&mut self.stream).take(size).read_to_end(body)?;
            line.clear();
            self.stream.read_line(&mut line)?;
            if size == 0 {
                return Ok(());
            }
        }
    }
}

/// Lets so many clients do the jobs 0 to `jobs`, whoever is free the next one; what came of each.
pub(super) fn crowd<T: Send>(
    stop: &Stop,
    at: SocketAddr,
    clients: usize,
    jobs: usize,
    job: impl Fn(&mut Client, usize) -> Result<T, Failed> + Sync,
) -> Result<Vec<T>, Failed> {
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<Vec<(usize, T)>> = Mutex::default();
    let one = || {
        let mut client = Client::to(at)?;
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            if nth >= jobs || over.load(Ordering::Relaxed) {
                return Ok(());
            }
            stop.pause(Duration::ZERO)?;
            let came = job(&mut client, nth).inspect_err(|_| over.store(true, Ordering::Relaxed))?;
            done.lock().unwrap_or_else(PoisonError::into_inner).push((nth, came));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients.clamp(1, CLIENTS_MAX)).map(|_| scope.spawn(one)).collect();
        let ends: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        ends.into_iter().try_for_each(|end| end.unwrap_or_else(|_| Err(Failed("a client panicked".to_owned()))))
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(nth, _)| *nth);
    Ok(done.into_iter().map(|(_, came)| came).collect())
}
