//! HTTP/1.1 requests, heads and bodies, through the codec.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::codec::requests(data));
