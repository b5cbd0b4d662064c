//! Any text through the detector, the masker and back.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    tidegate_fuzz::redact::findings(data);
    tidegate_fuzz::redact::round_trip(data);
    tidegate_fuzz::redact::request(data);
});
