//! Texts made to be slow: every rule's favourite beginning, again and again, and patterns that blow up
//! engines which try again. What doubles in length may take twice the time, not four times.

use std::time::Duration;
use tidegate_redact::detect::{Detector, Looking, Pattern, Scratch};

/// Four times the text may take so many times as long: linear is 4, quadratic 16; the rest is noise of
/// a machine that others use too.
const RATIO_MAX: f64 = 10.0;

/// The quickest of a few runs.
fn time(detector: &Detector, text: &str) -> Duration {
    let mut scratch = Scratch::default();
    let once = |scratch: &mut Scratch| {
        #[allow(clippy::disallowed_methods, reason = "a test measures the machine's own time")]
        let start = std::time::Instant::now();
        std::hint::black_box(detector.find_with(scratch, text).len());
        start.elapsed()
    };
    (0..5).map(|_| once(&mut scratch)).min().unwrap_or_default()
}

#[test]
fn time_is_linear_in_the_text() {
    let looking = Looking {
        kinds: [true; tidegate_redact::kind::KINDS],
        patterns: vec![
            Pattern { name: "a".into(), regex: r"(a+)+b".into() },
            Pattern { name: "b".into(), regex: r"(\w+\s?)*!".into() },
        ],
        ..Looking::default()
    };
    let detector = Detector::new(&looking).expect("a detector");
    let seeds = [
        "a@",
        "@a.",
        "a.a@b.",
        "1 ",
        "1-",
        "138 ",
        "4111 ",
        "1:",
        "a:b:",
        "::",
        "://",
        "a://b:",
        "eyJ-",
        "eyJa.eyJa.",
        "sk-",
        "sk-a1-",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ",
        ":AA",
        "password=",
        "password=a1",
        "(at)",
        "a(at)b",
        "一",
        "一 ",
        "\\",
        "\\u0031",
        "\u{200b}1",
        "+1",
        "+86 1",
        "A1",
        "GB82 ",
        "京A1",
        "Mr. Aa ",
        "1 Aa ",
        "北京市",
        "姓名王",
        "AKIA",
        "1.1.1.",
        "7.7.7.7 ",
        "card 4",
        "a",
        "aaaa!",
    ];
    for seed in seeds {
        let text = |bytes: usize| seed.repeat(bytes / seed.len());
        let (short, long) = (text(16 << 10), text(64 << 10));
        let (a, b) = (time(&detector, &short), time(&detector, &long));
        let ratio = b.as_secs_f64() / a.as_secs_f64().max(1e-6);
        let per_mb = b.as_secs_f64() * 16.0;
        assert!(ratio < RATIO_MAX || b < Duration::from_millis(2), "{seed:?}: {ratio:.1} times as long");
        assert!(per_mb < 10.0, "{seed:?}: {per_mb:.1} s for a megabyte");
        if per_mb > 0.3 {
            println!("{seed:?}: {per_mb:.2} s for a megabyte");
        }
    }
}
