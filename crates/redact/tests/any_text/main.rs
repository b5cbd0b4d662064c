//! The bodies of the fuzz targets on stable: texts put together from what the rules look for.

#![allow(unreachable_pub, reason = "the fuzzer's crate has the same file")]

mod bodies;

use proptest::prelude::*;

/// Pieces that rules begin at, and what may stand beside them.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[ -~]{1,6}",
        "[0-9]{1,20}",
        "[0-9X]{3,5}[ .\\-\n/]",
        "[A-Z]{1,3}[0-9]{2,9}[A-Z]?",
        Just("138 0013 8000".to_owned()),
        Just("4111 1111 1111 1111".to_owned()),
        Just("110105 19491231 002x".to_owned()),
        Just("bob@example.com".to_owned()),
        Just("GB82 WEST 1234 5698 7654 32".to_owned()),
        Just("postgres://u:p@h".to_owned()),
        Just("2001:db8::1".to_owned()),
        Just("8.8.8.8".to_owned()),
        Just("sk-ant-api03-Zk3vQ9xW7pLmN2bR8tYc".to_owned()),
        Just("-----BEGIN PRIVATE KEY-----".to_owned()),
        Just("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.x".to_owned()),
        Just("护照 E12345678".to_owned()),
        Just("plate AB12 CDE".to_owned()),
        Just("京A·12345".to_owned()),
        Just("一三八零零一三八零零零".to_owned()),
        Just("手机".to_owned()),
        Just(" at x dot com".to_owned()),
        Just("(at)".to_owned()),
        "[\u{200b}０-９一-三é\u{1F600}]{1,5}",
        Just("\\".to_owned()),
        Just("\\u0031".to_owned()),
        Just("\"".to_owned()),
        "[@:.+\\-()\n]{1,3}",
    ];
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn findings_are_spans_of_the_text(data in text()) {
        bodies::findings(&data);
    }

    #[test]
    fn what_is_masked_comes_back(data in text()) {
        bodies::round_trip(&data);
    }

    #[test]
    fn any_bytes_are_a_request_or_refused(data in prop_oneof![text(), "[\\[\\]{}\",:a\\\\1]{0,30}".prop_map(String::into_bytes)]) {
        bodies::request(&data);
    }

    #[test]
    fn any_bytes_are_restored_alike_however_they_are_cut(data in prop_oneof![text(), prop::collection::vec(any::<u8>(), 0..40)]) {
        bodies::restored(&data);
    }
}
