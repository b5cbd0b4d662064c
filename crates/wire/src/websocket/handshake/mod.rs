//! The opening handshake (RFC 6455 section 4): one HTTP/1.1 request, one answer, from either side.
//!
//! Everything here is a function over heads. A head that two readers could understand differently
//! (a header twice, a key that is none, a subprotocol twice) is refused, as [`crate::http`] does it.

mod client;
mod server;

pub use client::{BadAnswer, Opening, check_answer, request};
pub use server::{Accepted, Origins, Refused, ServerRules, accept, answer};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// What the server's proof is made with (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The version of the protocol, the only one there is.
const VERSION: &[u8] = b"13";

/// The most subprotocols a client may offer. Ours know two.
const SUBPROTOCOLS_MAX: usize = 32;

/// What a server answers to a `sec-websocket-key`: a proof that it understood the request, no secret.
pub fn accept_key(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

/// Whether `key` is sixteen bytes in base64.
fn is_key(key: &[u8]) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// Whether `text` is a token of HTTP (RFC 9110 section 5.6.2), as subprotocols are.
fn is_token(text: &[u8]) -> bool {
    let mark = |b: &u8| b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || mark(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadWriter, parse_request, parse_response};
    use bytes::BytesMut;

    #[test]
    fn the_example_of_the_rfc_is_answered() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for bad in [&b""[..], b"dGhlIHNhbXBsZSBub25jZQ", b"dGhlIHNhbXBsZQ==", b"dGhlIHNhbXBsZSBub25jZSE="] {
            assert!(!is_key(bad), "{bad:?}");
        }
    }

    #[test]
    fn both_sides_understand_each_other() {
        let opening =
            Opening { host: "gate:8080", target: "/v1/stream", subprotocols: &["tidegate.v1"], nonce: [9; 16] };
        let mut out = BytesMut::new();
        let mut head: HeadWriter<'_> = request(&mut out, &opening);
        head.header("x-api-key", b"k").end();
        let head = parse_request(&mut out).unwrap().unwrap();
        let rules = ServerRules { subprotocols: &["tidegate.v1"], origins: Origins::SameHost };
        let accepted = accept(&head, &rules).unwrap();
        assert_eq!(accepted.subprotocol, Some("tidegate.v1"));
        let mut out = BytesMut::new();
        answer(&mut out, &accepted).end();
        let head = parse_response(&mut out, false).unwrap().unwrap();
        assert_eq!(check_answer(&head, &opening), Ok(Some("tidegate.v1")));
    }
}
