//! What a request's body is made of, for guessing how many tokens its input has.
//!
//! One pass counts the bytes of each class in blocks small enough that a byte holds a count, which
//! compilers turn into vector instructions: some tenths of a nanosecond a byte. A block without any
//! byte that cannot stand in base64 lies inside a long run (an image, a page of a document); the run
//! is followed to both its ends and counted apart. JSON's `\u` escapes count as the characters they
//! stand for.
//!
//! Of a large body only evenly spaced samples are looked at, and their counts scaled up.

/// Bytes by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteMix {
    /// ASCII letters and spaces.
    pub words: u32,
    /// ASCII digits.
    pub digits: u32,
    /// Other ASCII: punctuation, line breaks, JSON's own.
    pub marks: u32,
    /// Bytes of characters beyond ASCII.
    pub wide: u32,
    /// Bytes of long runs of base64.
    pub encoded: u32,
}

/// A count of a block fits a byte; fifteen times sixteen, which is what vectors hold.
const BLOCK: usize = 240;
/// From this length on a run without a blank, quote or the like is taken for base64. Any run as long
/// has a whole block in it.
const RUN_BYTES: usize = 2 * BLOCK;
/// Up to this size a body is looked at whole.
const WHOLE_BYTES: usize = 1 << 20;
/// Of a larger one, samples of so many bytes that together are as large.
const SAMPLE_BYTES: usize = 16 << 10;
/// Bytes a character outside ASCII usually has in UTF-8; so many an escape stands for.
const WIDE_BYTES: i64 = 3;
/// `\u` and four digits.
const ESCAPE_BYTES: usize = 6;

/// Counts while they are added up; runs and escapes take bytes from one class to another.
#[derive(Clone, Copy, Default)]
struct Counts {
    letters: i64,
    digits: i64,
    wide: i64,
    all: i64,
    encoded: i64,
}

/// One block's counts.
struct Block {
    counts: Counts,
    /// Bytes that may stand in base64.
    joined: i64,
    backslashes: i64,
}

fn joins(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_')
}

/// How many bytes at the beginning of `bytes` may stand in base64.
fn joined(bytes: &[u8]) -> usize {
    let whole = bytes.chunks_exact(BLOCK).take_while(|part| block(part).joined == BLOCK as i64).count() * BLOCK;
    bytes[whole..].iter().position(|b| !joins(*b)).map_or(bytes.len(), |n| whole + n)
}

/// Counts a block of at most [`BLOCK`] bytes.
fn block(bytes: &[u8]) -> Block {
    debug_assert!(bytes.len() <= BLOCK, "counts have to fit a byte");
    let (mut letters, mut spaces, mut digits, mut wide, mut signs, mut backslashes) = (0u8, 0u8, 0u8, 0u8, 0u8, 0u8);
    for &b in bytes {
        letters += u8::from((b | 0x20).wrapping_sub(b'a') < 26);
        spaces += u8::from(b == b' ');
        digits += u8::from(b.wrapping_sub(b'0') < 10);
        wide += u8::from(b >= 0x80);
        signs += u8::from((b == b'+') | (b == b'/') | (b == b'=') | (b == b'-') | (b == b'_'));
        backslashes += u8::from(b == b'\\');
    }
    let [letters, spaces, digits, wide, signs, backslashes] =
        [letters, spaces, digits, wide, signs, backslashes].map(i64::from);
    Block {
        counts: Counts { letters: letters + spaces, digits, wide, all: bytes.len() as i64, encoded: 0 },
        joined: letters + digits + signs,
        backslashes,
    }
}

impl Counts {
    fn add(&mut self, other: &Counts, sign: i64) {
        self.letters += sign * other.letters;
        self.digits += sign * other.digits;
        self.wide += sign * other.wide;
        self.all += sign * other.all;
    }

    /// Takes back what was counted of `bytes`, or counts it after all.
    fn count(&mut self, bytes: &[u8], sign: i64) {
        bytes.chunks(BLOCK).for_each(|part| self.add(&block(part).counts, sign));
    }

    /// Counts `bytes`, which stand together.
    fn look_at(&mut self, bytes: &[u8]) {
        let (mut at, mut run_from, mut backslashes) = (0, 0, 0);
        while at < bytes.len() {
            let part = &bytes[at..bytes.len().min(at + BLOCK)];
            let counted = block(part);
            if counted.joined < BLOCK as i64 {
                backslashes += counted.backslashes;
                self.add(&counted.counts, 1);
                at += part.len();
                continue;
            }
            let begin = bytes[run_from..at].iter().rposition(|b| !joins(*b)).map_or(run_from, |n| run_from + n + 1);
            let end = at + joined(&bytes[at..]);
            if end - begin >= RUN_BYTES {
                self.count(&bytes[begin..at], -1);
                self.encoded += (end - begin) as i64;
            } else {
                self.count(&bytes[at..end], 1);
            }
            (at, run_from) = (end, end);
        }
        if backslashes > 0 {
            self.escapes(bytes);
        }
    }

    /// Counts each `\u` escape as the character it stands for.
    fn escapes(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while let Some(found) = memchr::memchr(b'\\', &bytes[at..]) {
            at += found;
            let Some(&[_, b'u', a, b, c, d]) = bytes[at..].first_chunk::<ESCAPE_BYTES>() else {
                // Two bytes of any other escape; the second may be a backslash too.
                at = bytes.len().min(at + 2);
                continue;
            };
            let hex = [a, b, c, d];
            if hex.iter().all(u8::is_ascii_hexdigit) {
                let digits = hex.iter().filter(|b| b.is_ascii_digit()).count() as i64;
                self.digits -= digits;
                // The `u` is a letter too.
                self.letters -= ESCAPE_BYTES as i64 - 1 - digits;
                self.all -= ESCAPE_BYTES as i64;
                let ascii = hex.starts_with(b"00") && c < b'8';
                let stands_for = if ascii { 1 } else { WIDE_BYTES };
                self.all += stands_for;
                self.wide += if ascii { 0 } else { WIDE_BYTES };
            }
            at += ESCAPE_BYTES;
        }
    }

    fn mix(&self, scale: f64) -> ByteMix {
        let scaled = |n: i64| (n.max(0) as f64 * scale).min(f64::from(u32::MAX)) as u32;
        ByteMix {
            words: scaled(self.letters),
            digits: scaled(self.digits),
            marks: scaled(self.all - self.letters - self.digits - self.wide),
            wide: scaled(self.wide),
            encoded: scaled(self.encoded),
        }
    }
}

/// What `body` is made of.
pub fn mix(body: &[u8]) -> ByteMix {
    let mut counts = Counts::default();
    if body.len() <= WHOLE_BYTES {
        counts.look_at(body);
        return counts.mix(1.0);
    }
    let samples = WHOLE_BYTES / SAMPLE_BYTES;
    let stride = (body.len() - SAMPLE_BYTES) / (samples - 1);
    (0..samples).for_each(|n| counts.look_at(&body[n * stride..n * stride + SAMPLE_BYTES]));
    counts.mix(body.len() as f64 / WHOLE_BYTES as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(bytes: usize) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        (0..bytes).map(|n| char::from(ALPHABET[(n * n + 7 * n) % 64])).collect()
    }

    fn of(text: &str) -> ByteMix {
        mix(text.as_bytes())
    }

    fn all(mix: &ByteMix) -> u64 {
        [mix.words, mix.digits, mix.marks, mix.wide, mix.encoded].iter().map(|n| u64::from(*n)).sum()
    }

    #[test]
    fn bytes_are_counted_by_class() {
        assert_eq!(of(""), ByteMix::default());
        assert_eq!(of("ab c, 12\n"), ByteMix { words: 5, digits: 2, marks: 2, wide: 0, encoded: 0 });
        assert_eq!(of("港口"), ByteMix { wide: 6, ..ByteMix::default() });
        let long = "word 7, 港".repeat(1_000);
        assert_eq!(of(&long), ByteMix { words: 6_000, digits: 1_000, marks: 1_000, wide: 3_000, encoded: 0 });
    }

    #[test]
    fn an_escape_counts_as_its_character() {
        assert_eq!(of(r"\u6e2f\u53e3"), of("港口"));
        assert_eq!(of(r"\u00e9"), ByteMix { wide: 3, ..ByteMix::default() });
        assert_eq!(of(r"\u003c"), ByteMix { marks: 1, ..ByteMix::default() });
        // An escaped backslash before a u, something that is no escape, one that is cut.
        for plain in [r"\\u6e2f", r"\u6e2", r"\uzzzz", r"\n", "\\"] {
            assert_eq!((of(plain).wide, all(&of(plain))), (0, plain.len() as u64), "{plain}");
        }
        let many = r"\u6e2f\n".repeat(3_000);
        assert_eq!(of(&many), ByteMix { words: 3_000, marks: 3_000, wide: 9_000, ..ByteMix::default() });
    }

    #[test]
    fn long_runs_are_encoded_wherever_they_stand() {
        for bytes in [479, 480, 481, 1_000, 100_000] {
            for before in [0, 1, 100, 239, 240, 241, 1_000] {
                let text = format!("{}\"{}\" and more", "a b ".repeat(before), base64(bytes));
                let got = of(&text);
                let want = if bytes >= RUN_BYTES { bytes as u32 } else { 0 };
                assert_eq!(got.encoded, want, "{bytes} after {before}");
                assert_eq!(all(&got), text.len() as u64, "{bytes} after {before}");
            }
        }
        let two = format!("{} {}", base64(700), base64(900));
        assert_eq!(of(&two).encoded, 1_600);
    }

    #[test]
    fn chinese_without_a_blank_is_no_base64() {
        let text = "港".repeat(2_000);
        assert_eq!(of(&text), ByteMix { wide: 6_000, ..ByteMix::default() });
    }

    #[test]
    fn a_large_body_is_sampled() {
        let text = format!("{}{}", "some words 12, ".repeat(200_000), base64(3_000_000));
        let got = of(&text);
        assert!((all(&got) as f64 / text.len() as f64 - 1.0).abs() < 1e-6);
        let near = |n: u32, want: f64| (f64::from(n) / want - 1.0).abs() < 0.02;
        assert!(near(got.encoded, 3_000_000.0) && near(got.words, 2_400_000.0) && near(got.digits, 400_000.0));
    }

    proptest::proptest! {
        /// Every byte is counted once, escapes aside.
        #[test]
        fn nothing_is_counted_twice(parts in proptest::collection::vec((0usize..4, 0usize..700), 0..8)) {
            let piece = |(kind, n): &(usize, usize)| match kind {
                0 => base64(*n),
                1 => "ab 1, ".repeat(*n / 6),
                2 => "港".repeat(*n / 3),
                _ => "\n".repeat(*n / 100),
            };
            let text: String = parts.iter().map(piece).collect();
            proptest::prop_assert_eq!(all(&of(&text)), text.len() as u64);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = mix(&bytes);
        }
    }
}
