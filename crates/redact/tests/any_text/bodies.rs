//! What must hold of any bytes: plain functions, run by proptest on stable and by the fuzz targets.

use std::sync::{Arc, LazyLock};
use tidegate_redact::detect::{Detector, Looking, Scratch};
use tidegate_redact::kind::KINDS;
use tidegate_redact::mask::{Filter, Scopes};
use tidegate_redact::restore::{self, Escape, Ladder, Live, StreamRestorer, TextRestorer};
use tidegate_redact::rules::{Policy, Rules, Unscannable};
use tidegate_redact::vault::{ScopeKey, Vault};

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| {
    let looking = Looking { kinds: [true; KINDS], private_ips: true, ..Looking::default() };
    Detector::new(&looking).expect("a detector")
});

static FILTER: LazyLock<Filter> = LazyLock::new(|| {
    let mut rules = Rules::all(Policy::Mask);
    rules.policies = [Policy::Mask; KINDS];
    rules.unscannable = Unscannable::Pass;
    Filter::new(rules).expect("a filter")
});

fn vault() -> Vault {
    Vault::new(ScopeKey::derive(&[5; 32], "t", None))
}

/// Findings are in order, without overlaps, on characters' borders, and not empty.
pub fn findings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut end = 0;
    for finding in DETECTOR.find(&text) {
        assert!(finding.span.start >= end && !finding.span.is_empty(), "{finding:?}");
        assert!(text.get(finding.span.clone()).is_some(), "{finding:?}");
        end = finding.span.end;
    }
}

/// A masked text comes back whole; masking what comes back gives the masked text; what is masked is
/// masked.
pub fn round_trip(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // A token that was there before is anybody's.
    if text.contains("ZQ") || text.contains("zq") {
        return;
    }
    let mut vault = vault();
    let mut scratch = Scratch::default();
    let body = format!("{{\"messages\":[{{\"role\":\"user\",\"content\":{}}}]}}", serde_json::Value::from(&*text));
    let mut mask = |vault: &mut Vault, body: &[u8]| {
        let mut scopes = Scopes { own: vault, shared: None };
        let masked = FILTER.mask_request(body, Some(&mut scopes), &mut scratch).expect("it is JSON");
        masked.bytes.unwrap_or_else(|| body.to_vec())
    };
    let masked = mask(&mut vault, body.as_bytes());
    let live = Live::of([&vault]);
    let mut restorer = TextRestorer::new(Escape::Json, Ladder::Exact);
    let mut shown = Vec::new();
    restorer.feed(&live, &masked, &mut shown);
    restorer.finish(&mut shown);
    let value = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).expect("JSON");
    assert_eq!(value(&shown), value(body.as_bytes()));
    let again = mask(&mut vault, &shown);
    assert_eq!(
        String::from_utf8_lossy(&again),
        String::from_utf8_lossy(&masked),
        "shown {}",
        String::from_utf8_lossy(&shown)
    );
    assert_eq!(restore::message(&live, &masked).map(|json| value(&json)), Some(value(body.as_bytes())));
}

/// Any bytes as a request: refused or masked, and what is masked is still JSON if it was.
pub fn request(data: &[u8]) {
    let mut vault = vault();
    let mut scopes = Scopes { own: &mut vault, shared: None };
    let masked = FILTER.mask_request(data, Some(&mut scopes), &mut Scratch::default());
    if serde_json::from_slice::<serde_json::Value>(data).is_ok()
        && let Some(bytes) = masked.ok().and_then(|masked| masked.bytes)
    {
        assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
    }
}

/// Any bytes as events and as a text in two pieces: the same as in one.
pub fn restored(data: &[u8]) {
    let mut vault = vault();
    let mut scopes = Scopes { own: &mut vault, shared: None };
    let text = "call 13800138000 or bob@example.com";
    let masked = FILTER.mask_text(text, Some(&mut scopes), &mut Scratch::default()).expect("masked");
    let token = masked.bytes.and_then(|bytes| bytes.get(5..15).map(<[u8]>::to_vec)).expect("a token");
    let live = Live::of([&vault]);
    let at = data.first().map_or(0, |b| usize::from(*b) % data.len());
    let text = [&data[..at], &token, &data[at..]].concat();
    let run = |pieces: &[&[u8]]| {
        let mut restorer = TextRestorer::new(Escape::Plain, Ladder::Normalised);
        let mut out = Vec::new();
        pieces.iter().for_each(|piece| restorer.feed(&live, piece, &mut out));
        restorer.finish(&mut out);
        out
    };
    let whole = run(&[&text]);
    for cut in 0..text.len().min(64) {
        assert_eq!(run(&[&text[..cut], &text[cut..]]), whole);
    }
    let mut stream = StreamRestorer::new(Arc::new(live.clone()));
    let mut out = Vec::new();
    stream.event(&[b"event: content_block_delta\ndata: ", &text[..], b"\n\n"].concat(), &mut out);
    stream.event(&text, &mut out);
    stream.finish(&mut out);
}
