//! As much HTTP as the examples need, on the standard library: one request a connection, and an
//! answer that is read line by line as it comes. A service would take the HTTP client it has.

#![allow(dead_code, unreachable_pub, reason = "each example takes what it needs")]

use serde_json::Value;
use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What can go wrong is told to a person.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// An answer whose head has come.
pub struct Answer {
    /// Its status.
    pub status: u16,
    head: Vec<(String, String)>,
    body: Body,
}

struct Body {
    from: BufReader<TcpStream>,
    /// Bytes left of this chunk, or of everything; `None` until the connection ends.
    left: Option<usize>,
    chunked: bool,
}

/// A variable of the environment, or what is usual.
pub fn setting(name: &str, usual: &str) -> String {
    env::var(name).unwrap_or_else(|_| usual.to_owned())
}

/// Asks Tidegate at `TIDEGATE_URL` with the key in `TIDEGATE_KEY`.
pub fn ask(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Outcome<Answer> {
    let url = setting("TIDEGATE_URL", "http://127.0.0.1:4600");
    let host = url.strip_prefix("http://").ok_or("TIDEGATE_URL: this example speaks http:// only")?;
    let mut socket = TcpStream::connect(host)?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    head += &format!("x-api-key: {}\r\nanthropic-version: 2023-06-01\r\n", setting("TIDEGATE_KEY", "none"));
    head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    socket.write_all(format!("{head}\r\n{body}").as_bytes())?;

    let mut from = BufReader::new(socket);
    let mut line = String::new();
    from.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no HTTP answer")?;
    let mut head = Vec::new();
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        head.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut answer = Answer { status, head, body: Body { from, left: None, chunked: false } };
    answer.body.chunked = answer.header("transfer-encoding") == Some("chunked");
    answer.body.left =
        if answer.body.chunked { Some(0) } else { answer.header("content-length").and_then(|n| n.parse().ok()) };
    Ok(answer)
}

impl Answer {
    /// A line of its head.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The whole of it as JSON.
    pub fn json(mut self) -> Outcome<Value> {
        let mut text = Vec::new();
        self.body.read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Its events, each with its cursor; pings have none.
    pub fn events(self) -> Outcome<impl Iterator<Item = Outcome<(Option<String>, Value)>>> {
        if self.status != 200 {
            return Err(self.json()?["error"]["message"].to_string().into());
        }
        let mut lines = BufReader::new(self.body).lines();
        let mut next = move || -> Outcome<Option<(Option<String>, Value)>> {
            let mut cursor = None;
            for line in lines.by_ref() {
                let line = line?;
                match line.split_once(": ") {
                    Some(("id", id)) => cursor = Some(id.to_owned()),
                    Some(("data", data)) => return Ok(Some((cursor, serde_json::from_str(data)?))),
                    _ => {}
                }
            }
            Ok(None)
        };
        Ok(std::iter::from_fn(move || next().transpose()))
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.chunked && self.left == Some(0) {
            let mut size = String::new();
            // A chunk's size stands on a line; the former chunk ends with a line of its own.
            while size.trim().is_empty() {
                size.clear();
                if self.from.read_line(&mut size)? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            self.left = Some(size);
            self.chunked = size > 0;
        }
        let most = self.left.unwrap_or(usize::MAX).min(into.len());
        let read = self.from.read(&mut into[..most])?;
        self.left = self.left.map(|left| left - read);
        Ok(read)
    }
}
