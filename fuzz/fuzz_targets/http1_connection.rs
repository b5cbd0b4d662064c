//! A client's bytes into a connection of HTTP/1.1.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::connections::http1_connection(data));
