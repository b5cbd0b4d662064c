//! Frames of a WebSocket through its reader, as a server and as a client.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::codec::frames(data));
