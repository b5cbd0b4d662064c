//! Any text, with a token somewhere in it, through the restorer, however it is cut.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::redact::restored(data));
