//! What is said over a WebSocket, by either side in either dialect.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::codec::dialects(data));
