//! Heads and chunks on their way out.
//!
//! Lines are written straight into the connection's buffer. A name or value that could break the
//! line (CR, LF, NUL) is left out rather than written: nothing that came from elsewhere can add a
//! header or end a head. For HTTP/2 the same calls fill a field list instead of a buffer, so that
//! whoever writes a head need not know which version carries it.

use ::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::{BufMut, BytesMut};

/// The connection-level headers of RFC 9110 section 7.6.1, which a proxy does not pass on.
pub fn is_hop_by_hop(name: &(impl AsRef<[u8]> + ?Sized)) -> bool {
    let name = name.as_ref();
    [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
    .iter()
    .any(|h| h.as_bytes().eq_ignore_ascii_case(name))
}

/// The customary reason phrase, or the empty string.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

/// Writes one head, line by line; [`HeadWriter::end`] closes it.
#[derive(Debug)]
pub struct HeadWriter<'a>(Out<'a>);

#[derive(Debug)]
enum Out<'a> {
    Lines(&'a mut BytesMut),
    Fields(&'a mut HeaderMap),
}

/// Credentials: HTTP/2 must not keep them in its compression tables (RFC 7541 section 7.1.3).
const SENSITIVE: [&str; 3] = ["x-api-key", "authorization", "cookie"];

impl<'a> HeadWriter<'a> {
    /// Begins a response head.
    pub fn response(out: &'a mut BytesMut, status: u16) -> Self {
        let mut digits = [b'0'; 3];
        for (slot, div) in digits.iter_mut().zip([100, 10, 1]) {
            *slot += (status / div % 10) as u8;
        }
        out.put_slice(b"HTTP/1.1 ");
        out.put_slice(&digits);
        out.put_slice(b" ");
        out.put_slice(reason(status).as_bytes());
        out.put_slice(b"\r\n");
        HeadWriter(Out::Lines(out))
    }

    /// Fills the fields of an HTTP/2 head; its pseudo-fields (status, method, path, authority) are
    /// the caller's.
    pub fn fields(out: &'a mut HeaderMap) -> Self {
        HeadWriter(Out::Fields(out))
    }

    /// Begins a request head. `method` and `target` come from a parsed head or from our own code.
    pub fn request(out: &'a mut BytesMut, method: &str, target: &str) -> Self {
        out.put_slice(method.as_bytes());
        out.put_slice(b" ");
        out.put_slice(target.as_bytes());
        out.put_slice(b" HTTP/1.1\r\n");
        HeadWriter(Out::Lines(out))
    }

    /// Adds a line, unless it could break out of one. HTTP/2 has no lines about the connection,
    /// so those are left out there.
    pub fn header(&mut self, name: &(impl AsRef<[u8]> + ?Sized), value: &[u8]) -> &mut Self {
        let name = name.as_ref();
        let lines = match &mut self.0 {
            Out::Lines(lines) => lines,
            Out::Fields(fields) => {
                let pair = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value));
                if let (Ok(name), Ok(mut value)) = pair
                    && !is_hop_by_hop(name.as_str())
                    && name != "host"
                {
                    value.set_sensitive(SENSITIVE.contains(&name.as_str()));
                    fields.append(name, value);
                }
                return self;
            }
        };
        let breaks = |part| memchr::memchr3(b'\r', b'\n', 0, part).is_some();
        if name.is_empty() || breaks(name) || breaks(value) {
            return self;
        }
        lines.reserve(name.len() + value.len() + 4);
        lines.put_slice(name);
        lines.put_slice(b": ");
        lines.put_slice(value);
        lines.put_slice(b"\r\n");
        self
    }

    /// Adds a line with a decimal number.
    pub fn number(&mut self, name: &str, value: u64) -> &mut Self {
        let mut digits = [0u8; 20];
        let (mut at, mut n) = (20, value);
        loop {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.header(name, &digits[at..])
    }

    /// Ends the head with its blank line.
    pub fn end(&mut self) {
        if let Out::Lines(lines) = &mut self.0 {
            lines.put_slice(b"\r\n");
        }
    }
}

/// Begins a chunk of `len` bytes. A chunk of no bytes would end the body, so `len` is not zero.
pub fn chunk_start(out: &mut BytesMut, len: usize) {
    debug_assert!(len > 0, "an empty chunk ends the body");
    let mut digits = [0u8; 16];
    let (mut at, mut n) = (16, len);
    while n > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[n & 15];
        n >>= 4;
    }
    out.reserve(len + 20);
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

/// Ends a chunk.
pub fn chunk_end(out: &mut BytesMut) {
    out.put_slice(b"\r\n");
}

/// Ends a chunked body, without trailers.
pub fn last_chunk(out: &mut BytesMut) {
    out.put_slice(b"0\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_break_out_of_its_line() {
        let mut out = BytesMut::new();
        HeadWriter::response(&mut out, 529)
            .header("a", b"x\r\nset-cookie: y")
            .header("b\r\nc", b"z")
            .header("d", "å".as_bytes())
            .number("n", 0)
            .number("m", u64::MAX)
            .end();
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "HTTP/1.1 529 \r\nd: å\r\nn: 0\r\nm: 18446744073709551615\r\n\r\n"
        );
    }

    #[test]
    fn the_fields_of_http2_are_lower_case_and_say_nothing_of_the_connection() {
        let mut fields = HeaderMap::new();
        HeadWriter::fields(&mut fields)
            .header("X-Api-Key", b"k")
            .header("Connection", b"close")
            .header("transfer-encoding", b"chunked")
            .header("host", b"h")
            .header("a", b"x\r\nb: y")
            .header("twice", b"1")
            .header("twice", b"2")
            .number("n", 7)
            .end();
        let all: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        assert_eq!(all, [("x-api-key", &b"k"[..]), ("twice", b"1"), ("twice", b"2"), ("n", b"7")]);
        assert!(fields["x-api-key"].is_sensitive() && !fields["n"].is_sensitive());
    }

    #[test]
    fn a_chunk_tells_its_length_in_hexadecimal() {
        let mut out = BytesMut::new();
        chunk_start(&mut out, 0x1f4);
        assert_eq!(&out[..], b"1f4\r\n");
    }
}
