//! An HTTP/1.1 answer, read byte by byte and judged strictly.
//!
//! Written for this test alone: it shares no code with the gateway, so the two cannot agree on a
//! mistake. What arrives is fed in; [`Reading::end`] says whether the answer is whole. Every read
//! is marked with its moment, so that a check can say when the client knew what.

use tidegate_base::Moment;

/// The head of an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) lines: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.lines.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Head,
    Length(usize),
    ChunkSize,
    ChunkData(usize),
    ChunkEnd,
    LastLine,
    UntilClose,
    Whole,
}

/// An answer on its way in.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    unread: Vec<u8>,
    part: Part,
    to_head: bool,
    pub(crate) head: Option<Head>,
    pub(crate) body: Vec<u8>,
    /// When the body had grown to so many bytes.
    pub(crate) marks: Vec<(Moment, usize)>,
    /// When anything came.
    pub(crate) heard: Vec<Moment>,
    /// Bytes of any kind that came.
    pub(crate) came: usize,
    pub(crate) broken: Option<String>,
}

impl Reading {
    pub(crate) fn new(to_head: bool, early: Vec<u8>) -> Self {
        Reading {
            came: early.len(),
            unread: early,
            part: Part::Head,
            to_head,
            head: None,
            body: Vec::new(),
            marks: Vec::new(),
            heard: Vec::new(),
            broken: None,
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.part == Part::Whole
    }

    /// Whether there is more to wait for.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_whole() && self.broken.is_none()
    }

    /// Whether the server said that it closes after this answer.
    pub(crate) fn closes(&self) -> bool {
        self.head.as_ref().and_then(|h| h.get("connection")).is_some_and(|c| c.eq_ignore_ascii_case("close"))
    }

    /// What came after the answer's end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unread)
    }

    pub(crate) fn feed(&mut self, bytes: &[u8], now: Moment) {
        self.came += bytes.len();
        self.heard.push(now);
        self.unread.extend_from_slice(bytes);
        while self.is_open() && self.step() {}
        if self.marks.last().is_none_or(|(_, len)| *len != self.body.len()) {
            self.marks.push((now, self.body.len()));
        }
    }

    /// The head of an answer over HTTP/2.
    pub(crate) fn http2_head(&mut self, status: u16, lines: Vec<(String, String)>, now: Moment) {
        self.came += lines.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
        self.heard.push(now);
        self.marks.push((now, 0));
        let of_http1 = ["connection", "keep-alive", "transfer-encoding", "upgrade"];
        if let Some((name, _)) = lines.iter().find(|(name, _)| of_http1.contains(&name.as_str())) {
            self.fault(format!("HTTP/2 has no `{name}`"));
        }
        self.head = Some(Head { status, lines });
    }

    /// A piece of its body.
    pub(crate) fn http2_data(&mut self, data: &[u8], now: Moment) {
        self.came += data.len();
        self.heard.push(now);
        self.body.extend_from_slice(data);
        self.marks.push((now, self.body.len()));
    }

    /// The end of its stream.
    pub(crate) fn http2_end(&mut self, trailers: bool) {
        let length = self.head.as_ref().and_then(|head| head.get("content-length")).map(str::parse::<usize>);
        match length {
            _ if trailers => drop(self.fault("trailers nobody asked for")),
            Some(Ok(n)) if !self.to_head && n != self.body.len() => {
                self.fault(format!("{} bytes where {n} were announced", self.body.len()));
            }
            Some(Err(_)) => drop(self.fault("a length that is none")),
            _ => self.part = Part::Whole,
        }
    }

    /// Its stream or connection broke.
    pub(crate) fn cut(&mut self, why: String) {
        self.fault(why);
    }

    /// The server closed, in order or by a reset.
    pub(crate) fn closed(&mut self, in_order: bool) {
        match self.part {
            Part::Whole => {}
            Part::UntilClose if in_order => self.part = Part::Whole,
            part => {
                let (head, body) = (self.head.as_ref().map(|h| h.status), self.body.len());
                self.broken.get_or_insert(format!(
                    "closed at {part:?}, status {head:?}, {body} bytes of body, came {}",
                    self.came
                ));
            }
        }
    }

    fn fault(&mut self, what: impl Into<String>) -> bool {
        self.broken.get_or_insert(what.into());
        false
    }

    /// One line without its end, if it is there.
    fn line(&mut self) -> Option<String> {
        let at = self.unread.windows(2).position(|pair| pair == b"\r\n")?;
        let line: Vec<u8> = self.unread.drain(..at + 2).collect();
        Some(String::from_utf8_lossy(&line[..at]).into_owned())
    }

    fn take(&mut self, most: usize) -> usize {
        let n = most.min(self.unread.len());
        self.body.extend(self.unread.drain(..n));
        n
    }

    /// Does the next thing; false if it needs more bytes or can do nothing more.
    fn step(&mut self) -> bool {
        match self.part {
            Part::Head => self.step_head(),
            Part::Length(0) | Part::Whole => {
                self.part = Part::Whole;
                false
            }
            Part::Length(left) => {
                let n = self.take(left);
                self.part = Part::Length(left - n);
                n > 0
            }
            Part::UntilClose => self.take(usize::MAX) > 0,
            Part::ChunkSize => {
                let Some(line) = self.line() else { return false };
                match usize::from_str_radix(&line, 16) {
                    Ok(0) => self.part = Part::LastLine,
                    Ok(n) => self.part = Part::ChunkData(n),
                    Err(_) => return self.fault(format!("`{line}` is not a chunk's size")),
                }
                true
            }
            Part::ChunkData(left) => {
                let n = self.take(left);
                self.part = if n == left { Part::ChunkEnd } else { Part::ChunkData(left - n) };
                n > 0
            }
            Part::ChunkEnd => match self.line() {
                Some(line) if line.is_empty() => {
                    self.part = Part::ChunkSize;
                    true
                }
                Some(line) => self.fault(format!("`{line}` stands after a chunk")),
                None => false,
            },
            Part::LastLine => match self.line() {
                Some(line) if line.is_empty() => {
                    self.part = Part::Whole;
                    false
                }
                Some(line) => self.fault(format!("a trailer nobody asked for: {line}")),
                None => false,
            },
        }
    }

    fn step_head(&mut self) -> bool {
        let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
        let head: Vec<u8> = self.unread.drain(..at + 4).collect();
        let Ok(text) = std::str::from_utf8(&head[..at]) else { return self.fault("a head that is not text") };
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let Some(status) = first.strip_prefix("HTTP/1.1 ").and_then(|s| s.get(..3)).and_then(|s| s.parse().ok()) else {
            return self.fault(format!("`{first}` is not a status line"));
        };
        if status == 100 {
            return true;
        }
        let mut parsed = Head { status, lines: Vec::new() };
        for line in lines {
            match line.split_once(": ") {
                Some((name, value)) if !name.is_empty() && !name.contains(' ') => {
                    parsed.lines.push((name.to_ascii_lowercase(), value.to_owned()));
                }
                _ => return self.fault(format!("`{line}` is not a header line")),
            }
        }
        let length = parsed.get("content-length").map(str::parse::<usize>);
        let chunked = parsed.get("transfer-encoding");
        let frames = parsed.lines.iter().filter(|(n, _)| n == "content-length" || n == "transfer-encoding").count();
        self.part = match (length, chunked) {
            _ if self.to_head || status == 204 || status == 304 => Part::Length(0),
            _ if frames > 1 => return self.fault(format!("{frames} header lines frame the body")),
            (Some(Ok(n)), None) => Part::Length(n),
            (None, Some("chunked")) => Part::ChunkSize,
            (None, None) => Part::UntilClose,
            framing => return self.fault(format!("{framing:?} frames the body")),
        };
        self.head = Some(parsed);
        true
    }
}
