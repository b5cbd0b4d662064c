//! Bytes that no API should send, and that some day one does.

use super::place::DATA;
use bytes::Bytes;

/// The event with the second half of its JSON missing.
pub(super) fn garbled(event: &Bytes) -> Bytes {
    let start = memchr::memmem::find(event, DATA).map_or(0, |at| at + DATA.len());
    let mut half = start + (event.len() - start) / 2;
    while half > start && std::str::from_utf8(&event[..half]).is_err() {
        half -= 1;
    }
    let mut garbled = event[..half].to_vec();
    garbled.extend_from_slice(b"\n\n");
    garbled.into()
}

/// A body with its second half missing.
pub(crate) fn garbled_body(body: &Bytes) -> Bytes {
    body.slice(..body.len() / 2)
}

/// An event of a type that nobody knows.
pub(super) const UNKNOWN_EVENT: &[u8] =
    b"event: content_block_glimmer\ndata: {\"type\":\"content_block_glimmer\",\"index\":0,\"glimmer\":{\"type\":\"glimmer_delta\",\"lustre\":7}}\n\n";

/// The same kind of event, `size` bytes long if that is room enough for it.
pub(super) fn huge_event(size: u64) -> Bytes {
    const OPEN: &[u8] = b"event: content_block_glimmer\ndata: {\"type\":\"content_block_glimmer\",\"index\":0,\"glimmer\":{\"type\":\"glimmer_delta\",\"gleam\":\"";
    const CLOSE: &[u8] = b"\"}}\n\n";
    let fill = (size as usize).saturating_sub(OPEN.len() + CLOSE.len());
    let mut event = Vec::with_capacity(OPEN.len() + fill + CLOSE.len());
    event.extend_from_slice(OPEN);
    event.resize(OPEN.len() + fill, b'g');
    event.extend_from_slice(CLOSE);
    event.into()
}
