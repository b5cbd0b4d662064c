//! Heads of HTTP/2 in the shapes everything else here reads.
//!
//! Frames, streams and header compression are the `h2` crate's; it hands out heads as the `http`
//! crate's parts. Above the connection nobody should care which version carried a request, so they
//! become the same [`RequestHead`] and [`ResponseHead`]: the authority is the `host` line, a body of
//! undeclared length is [`Framing::Chunked`].

use super::head::content_length;
use super::{Framing, HEAD_BYTES_MAX, HEADER_LINES_MAX, HeadError, Headers, RequestHead, ResponseHead, Version};
use ::http::{HeaderMap, request, response};
use bytes::Bytes;

/// A request's head; `ended` says that no body follows.
pub fn request_head(parts: &request::Parts, ended: bool) -> Result<RequestHead, HeadError> {
    let authority = parts.uri.authority().map(|a| ("host", a.as_str().as_bytes()));
    // An authority goes before a `host` line (RFC 9113 section 8.3.1).
    let headers = headers(authority, &parts.headers)?;
    Ok(RequestHead {
        method: Bytes::copy_from_slice(parts.method.as_str().as_bytes()),
        target: Bytes::copy_from_slice(parts.uri.path_and_query().map_or("", |p| p.as_str()).as_bytes()),
        version: Version::Http2,
        framing: framing(&headers, ended)?,
        headers,
    })
}

/// A response's head; `ended` says that no body follows.
pub fn response_head(parts: &response::Parts, ended: bool) -> Result<ResponseHead, HeadError> {
    let headers = headers(None, &parts.headers)?;
    let framing = framing(&headers, ended)?;
    Ok(ResponseHead { status: parts.status.as_u16(), version: Version::Http2, headers, framing })
}

fn headers(first: Option<(&'static str, &[u8])>, fields: &HeaderMap) -> Result<Headers, HeadError> {
    if fields.len() + usize::from(first.is_some()) > HEADER_LINES_MAX {
        return Err(HeadError::TooLarge);
    }
    let rest = || fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    // As many bytes as the same lines would have in HTTP/1.1.
    let lines = first.into_iter().chain(rest()).map(|(name, value)| name.len() + value.len() + 4);
    if lines.sum::<usize>() > HEAD_BYTES_MAX {
        return Err(HeadError::TooLarge);
    }
    let rest = rest().filter(|(name, _)| first.is_none() || *name != "host");
    Ok(Headers::from_pairs(first.into_iter().chain(rest)))
}

fn framing(headers: &Headers, ended: bool) -> Result<Framing, HeadError> {
    Ok(match content_length(headers)? {
        _ if ended => Framing::Empty,
        Some(n) => Framing::Length(n),
        None => Framing::Chunked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::Request;

    fn check(request: request::Builder, ended: bool) -> RequestHead {
        request_head(&request.body(()).unwrap().into_parts().0, ended).unwrap()
    }

    #[test]
    fn a_request_reads_like_one_of_http_1() {
        let request = Request::post("https://gate:443/v1/messages?beta=true").header("host", "evil").header("a", "b");
        let head = check(request.header("content-length", "12"), false);
        assert_eq!((head.method(), head.path(), head.query()), ("POST", "/v1/messages", "beta=true"));
        assert_eq!((head.framing, head.version), (Framing::Length(12), Version::Http2));
        let lines: Vec<_> = head.headers.iter().collect();
        let want = [(&b"host"[..], &b"gate:443"[..]), (b"a", b"b"), (b"content-length", b"12")];
        assert_eq!(lines, want);
        assert!(head.keeps_alive() && !head.expects_continue());
    }

    #[test]
    fn the_end_is_known_by_length_by_frame_or_at_once() {
        assert_eq!(check(Request::get("/v1/models"), true).framing, Framing::Empty);
        assert_eq!(check(Request::post("/v1/messages"), false).framing, Framing::Chunked);
        let two = Request::post("/").header("content-length", "1").header("content-length", "1");
        let parts = two.body(()).unwrap().into_parts().0;
        assert_eq!(request_head(&parts, false).unwrap_err(), HeadError::Length);
    }

    #[test]
    fn a_head_of_too_many_lines_is_refused() {
        let mut request = Request::get("/");
        for _ in 0..=HEADER_LINES_MAX {
            request = request.header("x", "y");
        }
        let parts = request.body(()).unwrap().into_parts().0;
        assert_eq!(request_head(&parts, true).unwrap_err(), HeadError::TooLarge);
    }

    #[test]
    fn a_head_of_too_many_bytes_is_refused() {
        for (bytes, fits) in [(HEAD_BYTES_MAX - 5, true), (HEAD_BYTES_MAX - 4, false)] {
            let request = Request::get("/").header("x", "y".repeat(bytes));
            let parts = request.body(()).unwrap().into_parts().0;
            assert_eq!(request_head(&parts, true).is_ok(), fits, "{bytes}");
        }
    }
}
