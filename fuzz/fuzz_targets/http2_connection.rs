//! A client's bytes or frames into a connection of HTTP/2.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::connections::http2_connection(data));
