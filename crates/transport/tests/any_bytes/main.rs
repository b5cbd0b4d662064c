//! Whatever bytes come from outside: proptest's share of it.
//!
//! What must hold is in `codec.rs` and `connections.rs`, which the fuzz targets run too. Here the
//! bytes are drawn from pieces of what the two sides usually say, mostly in small pieces.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise stops the test")]
#![allow(unreachable_pub, reason = "the fuzzer's crate has the same files")]

mod codec;
mod connections;

use proptest::prelude::*;

const HTTP1: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /v1/messages HTTP/1.1\r\n",
    "HEAD /a?b HTTP/1.0\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n",
    "HTTP/1.0 204\r\n",
    "host: a\r\n",
    "content-length: 3\r\n",
    "Content-Length: 0\r\n",
    "transfer-encoding: chunked\r\n",
    "connection: close\r\n",
    "connection: keep-alive\r\n",
    "expect: 100-continue\r\n",
    "x:  \t y \r\n",
    "\r\n",
    "abc",
    "3\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nx: y\r\n\r\n",
    "5;e=f\r\n",
    "\n",
    "\r",
    ":",
];

const SSE: &[&str] = &[
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":7}}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":",
    "0,\"delta\":{\"type\":\"text_delta\",\"text\":\"",
    "\\u00e9\\ud83d\"}}\n\n",
    "\"}}",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    "event: ping",
    "data: {}",
    "data:",
    ": comment\n",
    "\u{feff}",
    "\n",
    "\r",
    "\r\n\r\n",
    "é",
];

/// Frames of `connections::http2_connection`: kind, flags, stream, length, payload.
const HTTP2: &[&[u8]] = &[
    // HEADERS with END_HEADERS: GET http / a, without and with the end of the stream.
    b"\x01\x04\x01\x06\x82\x86\x84\x41\x01a",
    b"\x01\x05\x03\x06\x82\x86\x84\x41\x01a",
    b"\x01\x01\x05\x03\x83\x86\x84",
    b"\x09\x04\x05\x03\x41\x01a",
    b"\x00\x00\x01\x03abc",
    b"\x00\x01\x01\x00",
    b"\x03\x00\x01\x04\0\0\0\x08",
    b"\x04\x00\x00\x06\0\x04\0\0\0\x01",
    b"\x04\x01\x00\x00",
    b"\x06\x00\x00\x0812345678",
    b"\x07\x00\x00\x08\0\0\0\0\0\0\0\0",
    b"\x08\x00\x00\x04\0\0\0\x01",
    b"\x08\x00\x01\x04\x7f\xff\xff\xff",
    b"\x02\x00\x01\x05\0\0\0\0\x01",
];

/// Frames of a WebSocket's client, with keys of zeros, and of its server.
const WEBSOCKET: &[&[u8]] = &[
    b"\x81\x85\0\0\0\0Hello",
    b"\x01\x82\0\0\0\0\xc3\xa9",
    b"\x01\x81\0\0\0\0\xc3",
    b"\x80\x81\0\0\0\0\xa9",
    b"\x00\x80\0\0\0\0",
    b"\x02\x83\0\0\0\0abc",
    b"\x82\xfe\x00\x80\0\0\0\0",
    b"\x89\x81\0\0\0\0?",
    b"\x8a\x80\0\0\0\0",
    b"\x88\x82\0\0\0\0\x03\xe8",
    b"\x88\x80\0\0\0\0",
    b"\x81\x05Hello",
    b"\x01\x01\xc3",
    b"\x80\x01\xa9",
    b"\x00\x00",
    b"\x89\x00",
    b"\x88\x04\x03\xe9by",
    b"\x82\x7e\x02\xbd",
    b"\x82\x7f\0\0\0\0\0\x01\0\0",
    b"\xc1",
];

/// Pieces of what is said in the dialects of a WebSocket.
const DIALECTS: &[&str] = &[
    "{\"type\":\"message.create\",\"id\":\"a\",\"request\":{\"model\":\"m\"}",
    "{\"type\":\"stream.cancel\",\"id\":\"a\"",
    "{\"type\":\"stream.resume\",\"id\":\"a\",\"stream\":\"s\"",
    "{\"type\":\"stream.credit\",\"id\":\"a\",\"bytes\":7",
    "{\"type\":\"stream.wait\",\"id\":\"a\"",
    "{\"type\":\"stream.open\",\"id\":\"a\",\"headers\":{\"a\":\"b\",\"a\":\"\\u00e9\",\"c\":1}",
    "{\"type\":\"stream.event\",\"id\":\"a\",\"first_seq\":1,\"seq\":2,\"event\":{\"type\":\"ping\"}",
    "{\"type\":\"stream.recovered\",\"id\":\"a\",\"seq\":2,\"how\":\"continue\"",
    "{\"type\":\"stream.end\",\"id\":\"a\",\"seq\":2,\"reason\":\"stop\"",
    "{\"type\":\"stream.error\",\"id\":null,\"error\":{\"type\":\"x\",\"message\":\"\\ud83d\"}",
    "{\"prompt\":\"x\"",
    "{\"event\":\"completion\",\"text\":\"\\n\"",
    "{\"event\":\"done\",\"usage\":{\"input_tokens\":1}",
    "{\"event\":\"error\",\"message\":\"m\"",
    "}",
];

/// Members that some of them may have.
const MEMBERS: &[&str] = &[
    ",\"credit\":0",
    ",\"betas\":[\"a\",\"b\"]",
    ",\"turn\":3",
    ",\"version\":null",
    ",\"cursor\":\"c\"",
    ",\"model\":\"m\"",
];

/// Bytes put together from `words`, some of them torn or changed.
fn said(words: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        8 => prop::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    let piece = prop_oneof![0..6u8, any::<u8>()];
    (piece, prop::collection::vec(word, 0..12), any::<Option<(u16, u8)>>()).prop_map(|(first, words, change)| {
        let mut bytes = [vec![first], words.concat()].concat();
        if let Some((at, to)) = change {
            let at = usize::from(at) % bytes.len();
            bytes[at] = to;
        }
        bytes
    })
}

fn texts(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&'static [u8]> = words.iter().map(|word| word.as_bytes()).collect();
    said(words.leak())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_read_alike_in_any_pieces(data in texts(HTTP1)) {
        codec::requests(&data);
    }

    #[test]
    fn answers_read_alike_in_any_pieces(data in texts(HTTP1)) {
        codec::answers(&data);
    }

    #[test]
    fn events_read_alike_in_any_pieces(data in texts(SSE)) {
        codec::events(&data);
    }

    #[test]
    fn frames_read_alike_in_any_pieces(data in said(WEBSOCKET)) {
        codec::frames(&data);
    }

    #[test]
    fn what_a_dialect_reads_it_can_write(
        begun in prop::sample::select(DIALECTS),
        more in prop::collection::vec(prop::sample::select(MEMBERS), 0..3),
        data in texts(DIALECTS),
    ) {
        // One that is well formed, and one that is anyhow.
        codec::dialects(&[begun.as_bytes(), more.concat().as_bytes(), b"}"].concat());
        codec::dialects(&data[1..]);
    }

    #[test]
    fn a_connection_of_http1_sees_what_the_codec_sees_and_ends(data in texts(HTTP1)) {
        connections::http1_connection(&data);
    }

    #[test]
    fn a_connection_of_http2_ends_whatever_it_is_sent(piece: u8, mut data in said(HTTP2)) {
        // Odd: frames.
        data[0] |= 1;
        connections::http2_connection(&[vec![piece], data].concat());
    }
}
