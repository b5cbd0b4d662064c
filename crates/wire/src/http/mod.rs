//! HTTP without a socket: heads of both versions in one shape, and HTTP/1.1 (RFC 9112) as bytes.
//!
//! The frames of HTTP/2 are the `h2` crate's work; [`http2`] turns its heads into ours. HTTP/1.1 is
//! our own, heads, body framing and chunks.
//! Both ends of every connection in this project speak through this module, so it is strict where
//! two parsers could disagree (request smuggling): a message with both `content-length` and
//! `transfer-encoding`, two lengths, a length that is not plain digits, any coding but `chunked`,
//! a bare line feed, a folded header or white space before a colon is refused, never repaired.
//! Splitting a head into its lines is `httparse`'s work; what the lines mean is decided here.

mod body;
mod head;
mod headers;
pub mod http2;
mod write;

pub use body::{BodyDecoder, BodyError, BodyStep};
pub use head::{Framing, HeadError, RequestHead, ResponseHead, Version, parse_request, parse_response};
pub use headers::Headers;
pub use write::{HeadWriter, chunk_end, chunk_start, is_hop_by_hop, last_chunk, reason};

/// The most bytes a message head may have.
/// SDKs send about 1 KiB; 64 KiB leaves room for long `anthropic-beta` lists and cookies.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The most header lines a head may have.
pub const HEADER_LINES_MAX: usize = 128;
