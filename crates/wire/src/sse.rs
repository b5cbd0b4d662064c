//! Server-Sent Events: finding where each event ends, and what its lines say (WHATWG HTML, 9.2).
//!
//! [`Splitter`] is shown a stream in whatever pieces the network made of it and hands on whole
//! events, blank line included, as slices of the piece where it can. Only an event that was cut by
//! a piece's end is copied. Lines end in LF, CR LF or CR; a byte-order mark is dropped; an event
//! that never ended is never handed on: a client that gets half an event gets garbage.

use std::borrow::Cow;
use std::fmt;

/// The most bytes one event may have. A tool result or a citation block can be megabytes; 16 MiB
/// is the streams page's line cap.
pub const EVENT_BYTES_MAX: usize = 16 << 20;

/// What a stream may begin with, and whoever reads it drops.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// An event grew past the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTooLarge;

impl fmt::Display for EventTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one event of the stream is over 16 MiB")
    }
}

impl std::error::Error for EventTooLarge {}

/// Cuts a stream into events.
#[derive(Clone, Debug, Default)]
pub struct Splitter {
    /// The event that has begun and not ended.
    tail: Vec<u8>,
    /// Where its last line begins.
    line: usize,
    /// Up to where it was looked through: a long line that comes in many pieces is read once.
    seen: usize,
    /// Whether more was seen than could become a byte-order mark, which stands only at the very
    /// beginning. Until then the tail is its part that came.
    begun: bool,
    /// Whether the last piece ended in a CR that ended an event: an LF that follows belongs to it.
    after_return: bool,
}

/// The end of the first event in `bytes`, given that its current line begins at `line` and nothing
/// ends that line before `from`. Otherwise where the last line begins and where to look on.
fn event_end(bytes: &[u8], mut line: usize, mut from: usize) -> Result<usize, (usize, usize)> {
    while let Some(found) = memchr::memchr2(b'\n', b'\r', &bytes[from..]) {
        let at = from + found;
        let next = match bytes[at] {
            b'\n' => at + 1,
            _ if bytes.get(at + 1) == Some(&b'\n') => at + 2,
            // A CR at the very end may be half of a CR LF. If its line is empty the event has
            // ended either way; if not, wait for what follows.
            _ if at + 1 == bytes.len() && at != line => return Err((line, at)),
            _ => at + 1,
        };
        if at == line {
            return Ok(next);
        }
        line = next;
        from = next;
    }
    Err((line, bytes.len()))
}

impl Splitter {
    /// A splitter at the beginning of a stream.
    pub fn new() -> Self {
        Splitter::default()
    }

    /// Bytes of an event that has begun and not ended.
    pub fn pending(&self) -> usize {
        self.tail.len()
    }

    /// The stream's first bytes without a byte-order mark; `None` while it may still become one.
    fn begin<'p>(&mut self, piece: &'p [u8]) -> Option<&'p [u8]> {
        let left = &BYTE_ORDER_MARK[self.tail.len()..];
        if piece.len() < left.len() && left.starts_with(piece) {
            self.tail.extend_from_slice(piece);
            return None;
        }
        self.begun = true;
        let rest = piece.strip_prefix(left);
        if rest.is_some() {
            self.tail = Vec::new();
        }
        Some(rest.unwrap_or(piece))
    }

    /// Looks at the next piece of the stream and calls `each` with every event that is whole now.
    pub fn feed(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), EventTooLarge> {
        let mut piece = piece;
        if piece.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut self.after_return) && piece[0] == b'\n' {
            piece = &piece[1..];
        }
        if !self.begun {
            let Some(rest) = self.begin(piece) else { return Ok(()) };
            piece = rest;
        }
        if !self.tail.is_empty() {
            if self.tail.len() + piece.len() > EVENT_BYTES_MAX {
                return Err(EventTooLarge);
            }
            let old = self.tail.len();
            self.tail.extend_from_slice(piece);
            match event_end(&self.tail, self.line, self.seen) {
                Ok(end) => {
                    each(&self.tail[..end]);
                    self.after_return = end == self.tail.len() && self.tail.last() == Some(&b'\r');
                    piece = &piece[end - old..];
                    self.tail = Vec::new();
                }
                Err(at) => {
                    (self.line, self.seen) = at;
                    return Ok(());
                }
            }
        }
        loop {
            match event_end(piece, 0, 0) {
                Ok(end) => {
                    each(&piece[..end]);
                    self.after_return = end == piece.len() && piece[end - 1] == b'\r';
                    piece = &piece[end..];
                }
                Err(at) => {
                    if piece.len() > EVENT_BYTES_MAX {
                        return Err(EventTooLarge);
                    }
                    self.tail.extend_from_slice(piece);
                    (self.line, self.seen) = at;
                    return Ok(());
                }
            }
        }
    }
}

/// The fields of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The `event:` field, empty if there is none.
    pub name: &'a [u8],
    /// The `data:` lines, joined by LF; `None` if there is none (a comment, or nothing).
    pub data: Option<Cow<'a, [u8]>>,
}

/// Reads the fields of one whole event.
pub fn parts(event: &[u8]) -> Parts<'_> {
    let mut out = Parts { name: b"", data: None };
    for line in event.split(|b| matches!(*b, b'\n' | b'\r')) {
        let (field, value) = match memchr::memchr(b':', line) {
            Some(0) | None if line.first() == Some(&b':') || line.is_empty() => continue,
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => out.name = value,
            b"data" => match &mut out.data {
                None => out.data = Some(Cow::Borrowed(value)),
                Some(data) => {
                    let data = data.to_mut();
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            _ => {}
        }
    }
    out
}

/// Writes one event; `data` has no line breaks (JSON on one line).
pub fn write(out: &mut impl Extend<u8>, name: &str, data: &[u8]) {
    out.extend(b"event: ".iter().copied());
    out.extend(name.bytes());
    out.extend(b"\ndata: ".iter().copied());
    out.extend(data.iter().copied());
    out.extend(b"\n\n".iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, usize) {
        let mut splitter = Splitter::new();
        let mut events = Vec::new();
        for part in stream.chunks(piece.max(1)) {
            splitter.feed(part, |e| events.push(e.to_vec())).unwrap();
        }
        (events, splitter.pending())
    }

    #[test]
    fn events_come_out_whole_however_the_stream_is_cut() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = "event: a\ndata: {\"é\":1}\n\n: note\n\ndata: x\ndata: y\n\nevent: half\n".replace('\n', end);
            let whole = check(stream.as_bytes(), stream.len());
            assert_eq!(whole.0.len(), 3, "{end:?}");
            for piece in 1..stream.len() {
                let (events, _) = check(stream.as_bytes(), piece);
                assert_eq!(events.len(), 3, "{end:?} {piece}");
                for (a, b) in events.iter().zip(&whole.0) {
                    assert_eq!(parts(a), parts(b), "{end:?} {piece}");
                }
            }
            assert!(whole.1 > 0, "the half event is held");
        }
    }

    #[test]
    fn a_byte_order_mark_is_dropped_once() {
        for piece in [1, 2, 3, 4, 64] {
            let (events, left) = check(b"\xEF\xBB\xBF\xEF\xBB\xBFdata: 1\n\ndata: 2\n\n", piece);
            assert_eq!(events, [&b"\xEF\xBB\xBFdata: 1\n\n"[..], b"data: 2\n\n"], "in pieces of {piece}");
            assert_eq!(left, 0);
            assert_eq!(check(b"\xEF\xBBdata\n\n", piece).0, [b"\xEF\xBBdata\n\n"], "in pieces of {piece}");
        }
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        let p = parts(b"event: e\ndata:1\ndata:  2\nid: 9\nnonsense\n: c\n\n");
        assert_eq!((p.name, p.data.as_deref()), (&b"e"[..], Some(&b"1\n 2"[..])));
        assert_eq!(parts(b": only a comment\n\n").data, None);
        assert_eq!(parts(b"data\n\n").data.as_deref(), Some(&b""[..]));
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut splitter = Splitter::new();
        let piece = vec![b'x'; 1 << 20];
        let end = (0..20).find_map(|_| splitter.feed(&piece, |_| {}).err());
        assert_eq!(end, Some(EventTooLarge));
    }

    #[test]
    fn a_long_line_in_small_pieces_is_looked_through_once() {
        // Looked through anew with every piece this is 2 TB of reading; once, it is 2 MiB.
        let mut splitter = Splitter::new();
        let mut whole = 0;
        for piece in [&[b'x'; 1][..]].repeat(2 << 20).into_iter().chain([&b"\n\n"[..]]) {
            splitter.feed(piece, |e| whole = e.len()).unwrap();
        }
        assert_eq!(whole, (2 << 20) + 2);
    }

    proptest::proptest! {
        #[test]
        fn pieces_never_change_what_is_read(stream in "(data|event|:|x|é| |\n|\n\n|\r\n|\r){0,40}", piece in 1usize..7) {
            let data = |events: Vec<Vec<u8>>| events.iter().map(|e| (parts(e).name.to_vec(), parts(e).data.map(|d| d.to_vec()))).collect::<Vec<_>>();
            let (a, b) = (check(stream.as_bytes(), stream.len()).0, check(stream.as_bytes(), piece).0);
            proptest::prop_assert_eq!(data(a), data(b));
        }
    }
}
