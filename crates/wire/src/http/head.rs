//! Request and response heads: where they end, what they say, how their body is framed.
//!
//! A head is looked for in what has been read so far; once its blank line is there it is split off
//! and parsed in place. Every refusal says what was wrong in words a client's developer can use.

use super::{HEAD_BYTES_MAX, HEADER_LINES_MAX, Headers};
use bytes::{Buf, Bytes, BytesMut};
use std::fmt;
use std::mem::MaybeUninit;

/// The version a message came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: closes after the answer, knows no chunks.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// How the length of a body is known (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// In chunks, or in frames of HTTP/2: known once the last one has come.
    Chunked,
    /// Until the connection closes (responses only).
    UntilClose,
}

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// More than [`HEAD_BYTES_MAX`] bytes or [`HEADER_LINES_MAX`] lines.
    TooLarge,
    /// A line ended in a bare line feed.
    BareLineFeed,
    /// Not a request or status line.
    StartLine,
    /// Not HTTP/1.0 or HTTP/1.1, and not the preface of HTTP/2.
    Version,
    /// A header line that is none, is folded, or has white space before its colon.
    HeaderLine,
    /// Both `content-length` and `transfer-encoding`.
    LengthAndCoding,
    /// `content-length` repeated, or not plain digits.
    Length,
    /// A `transfer-encoding` other than exactly `chunked`, or on HTTP/1.0.
    Coding,
    /// HTTP/1.1 without exactly one `host`.
    Host,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadError::TooLarge => "request headers are larger than 64 KiB or more than 128 lines",
            HeadError::BareLineFeed => "a header line ends in a bare line feed; lines end in CR LF",
            HeadError::StartLine => "the first line is not an HTTP request line",
            HeadError::Version => "only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here",
            HeadError::HeaderLine => "a header line is malformed (no colon, folded, or an illegal character)",
            HeadError::LengthAndCoding => "both content-length and transfer-encoding are set; send one",
            HeadError::Length => "content-length is repeated or is not a plain decimal number",
            HeadError::Coding => "transfer-encoding may only be `chunked`, on HTTP/1.1, once",
            HeadError::Host => "an HTTP/1.1 request carries exactly one host header",
        })
    }
}

impl std::error::Error for HeadError {}

/// A request's first line and headers.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub(super) method: Bytes,
    pub(super) target: Bytes,
    /// The version it came in.
    pub version: Version,
    /// The header lines.
    pub headers: Headers,
    /// How the body is framed; never [`Framing::UntilClose`].
    pub framing: Framing,
}

impl RequestHead {
    /// The method as it was spelled (methods are case-sensitive).
    pub fn method(&self) -> &str {
        std::str::from_utf8(&self.method).unwrap_or_default()
    }

    /// The whole target as it was sent.
    pub fn target(&self) -> &str {
        std::str::from_utf8(&self.target).unwrap_or_default()
    }

    /// The target without the scheme and host of an absolute one: what an origin server is asked
    /// for. One that is neither absolute nor a path comes back as it is.
    pub fn path_and_query(&self) -> &str {
        let target = self.target();
        // Nearly all are paths, and a search would cost more than all the rest.
        let absolute = Some(target).filter(|target| !target.starts_with('/'));
        let Some((scheme, rest)) = absolute.and_then(|target| target.split_once("://")) else { return target };
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return target;
        }
        match rest.find(['/', '?', '#']) {
            Some(at) if rest[at..].starts_with('/') => &rest[at..],
            _ => "/",
        }
    }

    /// The path, without scheme, host and query.
    pub fn path(&self) -> &str {
        let target = self.path_and_query();
        target.split('?').next().unwrap_or(target)
    }

    /// What follows the first `?`, or the empty string.
    pub fn query(&self) -> &str {
        self.target().split_once('?').map_or("", |(_, q)| q)
    }

    /// Whether the connection may carry another request afterwards.
    pub fn keeps_alive(&self) -> bool {
        keeps_alive(self.version, &self.headers)
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.version == Version::Http11 && self.headers.lists("expect", "100-continue")
    }
}

/// A response's status and headers.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// The version it came in.
    pub version: Version,
    /// The header lines.
    pub headers: Headers,
    /// How the body is framed.
    pub framing: Framing,
}

impl ResponseHead {
    /// Whether the connection may carry another request afterwards.
    pub fn keeps_alive(&self) -> bool {
        self.framing != Framing::UntilClose && keeps_alive(self.version, &self.headers)
    }
}

/// `close` goes before anything else the sides say (RFC 9112 section 9.3).
fn keeps_alive(version: Version, headers: &Headers) -> bool {
    let by_default = match version {
        Version::Http10 => false,
        Version::Http11 => true,
        // Streams come and go; the connection is not theirs to close.
        Version::Http2 => return true,
    };
    !headers.lists("connection", "close") && (by_default || headers.lists("connection", "keep-alive"))
}

/// Where the head in `read` ends, if its blank line has come.
fn head_end(read: &[u8]) -> Result<Option<usize>, HeadError> {
    for at in memchr::memchr_iter(b'\n', read) {
        if at == 0 || read[at - 1] != b'\r' {
            return Err(HeadError::BareLineFeed);
        }
        if at >= 3 && read[at - 3..at - 1] == *b"\r\n" {
            return if at < HEAD_BYTES_MAX { Ok(Some(at + 1)) } else { Err(HeadError::TooLarge) };
        }
    }
    if read.len() >= HEAD_BYTES_MAX { Err(HeadError::TooLarge) } else { Ok(None) }
}

fn line_error(e: httparse::Error) -> HeadError {
    match e {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::Version => HeadError::Version,
        httparse::Error::Token | httparse::Error::Status => HeadError::StartLine,
        httparse::Error::NewLine | httparse::Error::HeaderName | httparse::Error::HeaderValue => HeadError::HeaderLine,
    }
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::Http10 } else { Version::Http11 }
}

/// The declared length: digits only, once.
pub(super) fn content_length(headers: &Headers) -> Result<Option<u64>, HeadError> {
    let mut values = headers.get_all("content-length");
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Length);
    }
    std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).map(Some).ok_or(HeadError::Length)
}

/// Whether the message is chunked; any other coding is an error.
fn is_chunked(version: Version, headers: &Headers) -> Result<bool, HeadError> {
    let mut values = headers.get_all("transfer-encoding");
    let Some(value) = values.next() else { return Ok(false) };
    if values.next().is_some() || !value.eq_ignore_ascii_case(b"chunked") || version == Version::Http10 {
        return Err(HeadError::Coding);
    }
    Ok(true)
}

/// Takes the first `end` bytes. A head that came together with a body is copied: sharing the
/// buffer, it would keep as much of the body in memory as came with it, for the whole answer.
fn split_head(read: &mut BytesMut, end: usize) -> Bytes {
    if read.len() == end {
        return std::mem::take(read).freeze();
    }
    let head = Bytes::copy_from_slice(&read[..end]);
    read.advance(end);
    head
}

/// Splits a whole request head off the front of `read`, or returns `None` until one has come.
///
/// Empty lines before it are skipped, as RFC 9112 section 2.2 asks.
pub fn parse_request(read: &mut BytesMut) -> Result<Option<RequestHead>, HeadError> {
    while read.starts_with(b"\r\n") {
        read.advance(2);
    }
    if read.as_ref() == b"\r" {
        return Ok(None);
    }
    let Some(end) = head_end(read)? else { return Ok(None) };
    let head = split_head(read, end);
    let mut lines = [const { MaybeUninit::uninit() }; HEADER_LINES_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(&head, &mut lines) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Ok(_) => return Err(HeadError::HeaderLine),
        Err(e) => return Err(line_error(e)),
    }
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else { return Err(HeadError::StartLine) };
    if !target.is_ascii() {
        return Err(HeadError::StartLine);
    }
    let version = version(parsed.version);
    let (method, target) = (head.slice_ref(method.as_bytes()), head.slice_ref(target.as_bytes()));
    let headers = Headers::from_parsed(head.clone(), parsed.headers);
    let (length, chunked) = (content_length(&headers)?, is_chunked(version, &headers)?);
    let framing = match (length, chunked) {
        (Some(_), true) => return Err(HeadError::LengthAndCoding),
        (_, true) => Framing::Chunked,
        (Some(0) | None, false) => Framing::Empty,
        (Some(n), false) => Framing::Length(n),
    };
    let hosts = headers.get_all("host").count();
    if hosts > 1 || (hosts == 0 && version == Version::Http11) {
        return Err(HeadError::Host);
    }
    Ok(Some(RequestHead { method, target, version, headers, framing }))
}

/// Splits a whole response head off the front of `read`, or returns `None` until one has come.
///
/// `to_head` says that it answers a `HEAD` request, whose answer has headers but no body. Interim
/// (1xx) heads come out like any other, with an empty body.
pub fn parse_response(read: &mut BytesMut, to_head: bool) -> Result<Option<ResponseHead>, HeadError> {
    let Some(end) = head_end(read)? else { return Ok(None) };
    let head = split_head(read, end);
    let mut lines = [const { MaybeUninit::uninit() }; HEADER_LINES_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, &head, &mut lines) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Ok(_) => return Err(HeadError::HeaderLine),
        Err(e) => return Err(line_error(e)),
    }
    let status = parsed.code.ok_or(HeadError::StartLine)?;
    let version = version(parsed.version);
    let headers = Headers::from_parsed(head.clone(), parsed.headers);
    let (length, chunked) = (content_length(&headers)?, is_chunked(version, &headers)?);
    let bodiless = to_head || matches!(status, 100..=199 | 204 | 304);
    let framing = match (length, chunked) {
        (Some(_), true) => return Err(HeadError::LengthAndCoding),
        _ if bodiless => Framing::Empty,
        (_, true) => Framing::Chunked,
        (Some(0), false) => Framing::Empty,
        (Some(n), false) => Framing::Length(n),
        (None, false) => Framing::UntilClose,
    };
    Ok(Some(ResponseHead { status, version, headers, framing }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Option<RequestHead>, HeadError> {
        parse_request(&mut BytesMut::from(text))
    }

    fn framing(lines: &str) -> Result<Framing, HeadError> {
        check(&format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}\r\n")).map(|h| h.expect("whole head").framing)
    }

    #[test]
    fn a_head_is_taken_whole_and_the_rest_left() {
        let mut read =
            BytesMut::from("\r\nPOST /v1/messages?beta=true HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}GET");
        let head = parse_request(&mut read).unwrap().unwrap();
        assert_eq!((head.method(), head.path(), head.query()), ("POST", "/v1/messages", "beta=true"));
        assert_eq!(head.framing, Framing::Length(2));
        assert!(head.keeps_alive());
        assert_eq!(&read[..], b"{}GET");
    }

    #[test]
    fn an_unfinished_head_waits() {
        for cut in ["", "\r", "GET / HT", "GET / HTTP/1.1\r\nhost: a\r\n", "GET / HTTP/1.1\r\nhost: a\r\n\r"] {
            assert!(check(cut).unwrap().is_none(), "{cut:?}");
        }
    }

    #[test]
    fn every_way_two_parsers_could_disagree_is_refused() {
        use HeadError::*;
        for (lines, why) in [
            ("content-length: 5\r\ntransfer-encoding: chunked\r\n", LengthAndCoding),
            ("content-length: 5\r\ncontent-length: 5\r\n", Length),
            ("content-length: 5, 5\r\n", Length),
            ("content-length: +5\r\n", Length),
            ("content-length: 0x5\r\n", Length),
            ("content-length: \r\n", Length),
            ("content-length: 99999999999999999999\r\n", Length),
            ("transfer-encoding: gzip, chunked\r\n", Coding),
            ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", Coding),
            ("transfer-encoding: xchunked\r\n", Coding),
            ("transfer-encoding: identity\r\n", Coding),
            ("transfer-encoding : chunked\r\n", HeaderLine),
            (" transfer-encoding: chunked\r\n", HeaderLine),
            ("x: a\r\n folded\r\n", HeaderLine),
            ("x: a\nb: c\r\n", BareLineFeed),
            ("x: a\rb\r\n", HeaderLine),
            ("x: a\0b\r\n", HeaderLine),
            ("host: b\r\n", Host),
            (": empty\r\n", HeaderLine),
        ] {
            assert_eq!(framing(lines), Err(why), "{lines:?}");
        }
        assert_eq!(check("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n").unwrap_err(), Coding);
        assert_eq!(check("GET / HTTP/1.1\r\n\r\n").unwrap_err(), Host);
        assert_eq!(check("GET / HTTP/2.0\r\nhost: a\r\n\r\n").unwrap_err(), Version);
        assert_eq!(check("\x16\x03\x01\x02\r\n\r\n").unwrap_err(), StartLine);
        assert_eq!(check("GET /\n\n").unwrap_err(), BareLineFeed);
    }

    #[test]
    fn plain_framings_are_understood() {
        assert_eq!(framing(""), Ok(Framing::Empty));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
        assert_eq!(framing("content-length:   12  \r\n"), Ok(Framing::Length(12)));
    }

    #[test]
    fn a_head_without_end_is_refused_at_the_limit() {
        let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
        assert_eq!(check(&long).unwrap_err(), HeadError::TooLarge);
        let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(HEADER_LINES_MAX));
        assert_eq!(check(&many).unwrap_err(), HeadError::TooLarge);
    }

    #[test]
    fn responses_know_when_they_have_no_body() {
        let parse = |t: &str, to_head| parse_response(&mut BytesMut::from(t), to_head).unwrap().unwrap().framing;
        assert_eq!(parse("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", false), Framing::Length(5));
        assert_eq!(parse("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", true), Framing::Empty);
        assert_eq!(parse("HTTP/1.1 204 No Content\r\n\r\n", false), Framing::Empty);
        assert_eq!(parse("HTTP/1.1 200\r\n\r\n", false), Framing::UntilClose);
        assert_eq!(parse("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", false), Framing::Chunked);
    }

    #[test]
    fn absolute_targets_are_reduced_to_their_path() {
        let head = check("GET http://h:1/v1/models?x=http://y HTTP/1.1\r\nhost: h\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.path(), head.query()), ("/v1/models", "x=http://y"));
        assert_eq!(head.path_and_query(), "/v1/models?x=http://y");
        for (target, path) in [
            ("/a?u=http://z/q", "/a"),
            ("HTTPS://h", "/"),
            ("http://h?x=/v1/models", "/"),
            ("http://h#/v1/models", "/"),
            ("*?u=http://z/q", "*"),
            ("ftp://h/a", "ftp://h/a"),
        ] {
            let head = check(&format!("GET {target} HTTP/1.1\r\nhost: h\r\n\r\n")).unwrap().unwrap();
            assert_eq!(head.path(), path, "{target}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse_request(&mut BytesMut::from(&bytes[..]));
            let _ = parse_response(&mut BytesMut::from(&bytes[..]), false);
        }
    }
}
