//! Server-sent events through the splitter and the tap.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::codec::events(data));
