//! The shadow of a text: the same text as plain as it can be made, with a map back.
//!
//! Detection reads the shadow and never the text, so that every rule sees through what people and
//! serialisers do to a number: full-width and other digits become ASCII, zero-width characters go,
//! Unicode dashes and spaces become ASCII ones, backslash escapes (JSON's, or a Markdown backslash)
//! become what they stand for, whatever number of backslashes stands before them, and Chinese
//! numerals become digits where they stand in a run that is long enough to be a number.
//!
//! One pass. What does not change is copied in runs; [`Shadow::raw`] finds the raw bytes of a span by
//! binary search over the places where something changed. A span's ends never cut a character or an
//! escape of the raw text.

use std::ops::Range;

/// What a shadow keeps of its buffers from text to text, each.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// From so many numerals and digits on a run is a number: a landline without its area code.
const NUMERALS_MIN: usize = 7;
/// Most numerals right beside plain digits that are words: 张三, 一直.
const BESIDE_MAX: usize = 3;
/// How far a run of numerals is looked ahead, characters; longer ones are taken in parts.
const NUMERALS_AHEAD: usize = 64;

/// From this place of the shadow on, up to the next mark, how the raw text stands behind it.
#[derive(Clone, Copy, Debug)]
struct Mark {
    shadow: usize,
    raw: usize,
    /// 0: byte for byte. Otherwise all shadow bytes stand for this many raw bytes.
    unit: usize,
}

/// A text made plain. Reused from text to text, it allocates nothing after a while.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    text: Vec<u8>,
    marks: Vec<Mark>,
}

/// What becomes of a character.
enum Folded {
    Same,
    Gone,
    Ascii(u8),
    /// A Chinese numeral: a digit in a run of digits, a word elsewhere.
    Numeral(u8),
}

/// The first digit of the blocks of decimal digits that people type, nine more follow each.
const DIGIT_BLOCKS: [u32; 12] =
    [0x0660, 0x06F0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0E50, 0x0ED0, 0x17E0];

fn fold(c: u32) -> Folded {
    use Folded::{Ascii, Gone, Numeral, Same};
    match c {
        0..0x80 => Same,
        0xA0 | 0x2000..=0x200A | 0x202F | 0x205F | 0x3000 => Ascii(b' '),
        0xAD | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F | 0xFE00..=0xFE0F | 0xFEFF | 0x20E3 | 0x180E => Gone,
        0x2028 | 0x2029 => Ascii(b'\n'),
        0x2010..=0x2015 | 0x2212 | 0x30FC => Ascii(b'-'),
        0xFF61 => Ascii(b'.'),
        0xFF01..=0xFF5E => Ascii((c - 0xFF01) as u8 + b'!'),
        0x1D7CE..=0x1D7FF => Ascii(((c - 0x1D7CE) % 10) as u8 + b'0'),
        0xB2 | 0xB3 => Ascii((c - 0xB0) as u8 + b'0'),
        0xB9 => Ascii(b'1'),
        0x2070 | 0x2074..=0x2079 => Ascii((c - 0x2070) as u8 + b'0'),
        0x2080..=0x2089 => Ascii((c - 0x2080) as u8 + b'0'),
        0x2460..=0x2468 => Ascii((c - 0x2460) as u8 + b'1'),
        0x24EA => Ascii(b'0'),
        0x1D400..=0x1D6A3 => Ascii(math_letter(c)),
        0x660..0x1810 => DIGIT_BLOCKS
            .iter()
            .find(|zero| (**zero..**zero + 10).contains(&c))
            .map_or(Same, |zero| Ascii((c - zero) as u8 + b'0')),
        0x3007..=0x9FFF => numeral(c).map_or(Same, Numeral),
        _ => Same,
    }
}

/// Mathematical letters: alphabets of 26 capitals and 26 small ones, one after the other.
fn math_letter(c: u32) -> u8 {
    let at = ((c - 0x1D400) % 52) as u8;
    if at < 26 { b'A' + at } else { b'a' + at - 26 }
}

/// Chinese numerals, everyday and financial, and the one that is read out on the telephone.
fn numeral(c: u32) -> Option<u8> {
    Some(match char::from_u32(c)? {
        '〇' | '零' => b'0',
        '一' | '壹' | '幺' => b'1',
        '二' | '贰' | '貳' => b'2',
        '三' | '叁' | '參' => b'3',
        '四' | '肆' => b'4',
        '五' | '伍' => b'5',
        '六' | '陆' | '陸' => b'6',
        '七' | '柒' => b'7',
        '八' | '捌' => b'8',
        '九' | '玖' => b'9',
        _ => return None,
    })
}

fn hex4(raw: &[u8]) -> Option<u32> {
    let digits = raw.get(..4)?;
    digits.iter().try_fold(0, |value, b| Some(value << 4 | char::from(*b).to_digit(16)?))
}

/// Whether a full stop stands between letters of ASCII, as in a domain that was typed in Chinese.
fn in_domain(raw: &[u8], at: usize, end: usize) -> bool {
    let letter = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphabetic);
    letter(at.checked_sub(1).and_then(|at| raw.get(at))) && letter(raw.get(end))
}

/// The character of `raw` (UTF-8) that begins at `at`.
fn plain_char(raw: &[u8], at: usize) -> (u32, usize) {
    let byte = |i: usize| u32::from(raw.get(at + i).copied().unwrap_or(0)) & 0x3F;
    match raw[at] {
        b @ 0..0x80 => (u32::from(b), 1),
        b @ 0xC0..0xE0 => (u32::from(b & 0x1F) << 6 | byte(1), 2),
        b @ 0xE0..0xF0 => (u32::from(b & 0x0F) << 12 | byte(1) << 6 | byte(2), 3),
        b => (u32::from(b & 0x07) << 18 | byte(1) << 12 | byte(2) << 6 | byte(3), 4),
    }
}

/// One unit of the raw text: a character, or an escape with all its backslashes. What it stands for,
/// where what is counted as part of a span begins, and where it ends.
struct Unit {
    c: u32,
    start: usize,
    end: usize,
}

fn unit(raw: &[u8], at: usize) -> Unit {
    if raw[at] != b'\\' {
        let (c, bytes) = plain_char(raw, at);
        return Unit { c, start: at, end: (at + bytes).min(raw.len()) };
    }
    let next = at + raw[at..].iter().take_while(|b| **b == b'\\').count();
    let Some(byte) = raw.get(next) else { return Unit { c: u32::from(b'\\'), start: at, end: next } };
    let whole = |c: u32, end: usize| Unit { c, start: at, end };
    match byte {
        b'n' => whole(10, next + 1),
        b'r' => whole(13, next + 1),
        b't' => whole(9, next + 1),
        b'"' | b'/' => whole(u32::from(*byte), next + 1),
        b'u' => match hex4(&raw[next + 1..]) {
            Some(high @ 0xD800..0xDC00) => {
                let low = raw[next + 5..].iter().take_while(|b| **b == b'\\').count();
                let second = raw.get(next + 5 + low..).and_then(|rest| rest.strip_prefix(b"u")).and_then(hex4);
                match second {
                    Some(second @ 0xDC00..0xE000) if low > 0 => {
                        whole(0x10000 + ((high - 0xD800) << 10) + (second - 0xDC00), next + 10 + low)
                    }
                    _ => whole(0xFFFD, next + 5),
                }
            }
            Some(c) => whole(c, next + 5),
            None => Unit { c: u32::from(b'u'), start: next, end: next + 1 },
        },
        // A Markdown backslash, a path's: the character that follows, without it.
        _ => {
            let (c, bytes) = plain_char(raw, next);
            Unit { c, start: next, end: (next + bytes).min(raw.len()) }
        }
    }
}

/// The first place from `at` on that is not plain ASCII, or a backslash.
fn special(raw: &[u8], mut at: usize) -> usize {
    const LANES: usize = 32;
    let is_special = |b: &u8| *b >= 0x80 || *b == b'\\';
    while let Some(chunk) = raw.get(at..at + LANES) {
        // Without an early end inside, so that it becomes vector instructions.
        if chunk.iter().fold(false, |any, b| any | is_special(b)) {
            break;
        }
        at += LANES;
    }
    raw[at..].iter().position(is_special).map_or(raw.len(), |found| at + found)
}

impl Shadow {
    /// The plain text.
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Makes the shadow of `raw`, which is UTF-8.
    pub(crate) fn cast(&mut self, raw: &[u8]) {
        self.text.clear();
        self.marks.clear();
        // What one long text needed is not kept for all that follow.
        self.text.shrink_to(KEPT_BYTES_MAX);
        self.marks.shrink_to(KEPT_BYTES_MAX / size_of::<Mark>());
        self.marks.push(Mark { shadow: 0, raw: 0, unit: 0 });
        // Up to where raw text is copied, and up to where a run of numerals is decided, and how.
        let (mut copied, mut decided, mut are_digits) = (0, 0, false);
        let mut at = 0;
        loop {
            at = special(raw, at);
            // A stretch of other scripts goes from character to character.
            while at < raw.len() && (raw[at] >= 0x80 || raw[at] == b'\\') {
                if let lead @ 0xE3..=0xE9 = raw[at] {
                    let c = u32::from(lead & 0x0F) << 12
                        | u32::from(raw[at + 1] & 0x3F) << 6
                        | u32::from(raw[at + 2] & 0x3F);
                    if c > 0x3007 && c != 0x30FC && numeral(c).is_none() {
                        at += 3;
                        continue;
                    }
                }
                let unit = unit(raw, at);
                let folded = match fold(unit.c) {
                    Folded::Same if unit.c == 0x3002 && in_domain(raw, at, unit.end) => Folded::Ascii(b'.'),
                    Folded::Numeral(digit) => {
                        if at >= decided {
                            let behind = self.digits_behind(&raw[copied..at]);
                            (decided, are_digits) = numerals(raw, at, behind);
                        }
                        if are_digits { Folded::Ascii(digit) } else { Folded::Same }
                    }
                    other => other,
                };
                let escaped = raw[at] == b'\\';
                if !escaped && matches!(folded, Folded::Same) {
                    at = unit.end;
                    continue;
                }
                self.text.extend_from_slice(&raw[copied..at]);
                let (shadow, start) = (self.text.len(), unit.start);
                match folded {
                    Folded::Gone => {}
                    Folded::Ascii(byte) => self.text.push(byte),
                    _ => {
                        let c = char::from_u32(unit.c).unwrap_or(char::REPLACEMENT_CHARACTER);
                        self.text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
                if self.text.len() > shadow {
                    self.mark(shadow, start, unit.end - start);
                }
                self.mark(self.text.len(), unit.end, 0);
                at = unit.end;
                copied = at;
            }
            if at >= raw.len() {
                break;
            }
        }
        self.text.extend_from_slice(&raw[copied..]);
    }

    fn mark(&mut self, shadow: usize, raw: usize, unit: usize) {
        let mark = Mark { shadow, raw, unit };
        match self.marks.last_mut() {
            Some(last) if last.shadow == mark.shadow => *last = mark,
            _ => self.marks.push(mark),
        }
    }

    /// Digits right behind, in what is copied and in `pending`.
    fn digits_behind(&self, pending: &[u8]) -> usize {
        let digits = |text: &[u8]| text.iter().rev().take(20).take_while(|b| b.is_ascii_digit()).count();
        let last = digits(pending);
        if last < pending.len() { last } else { last + digits(&self.text) }
    }

    fn mark_of(&self, shadow: usize) -> Mark {
        let after = self.marks.partition_point(|mark| mark.shadow <= shadow);
        self.marks[after.saturating_sub(1)]
    }

    /// The raw bytes behind a span of the shadow that is not empty.
    pub(crate) fn raw(&self, span: Range<usize>) -> Range<usize> {
        let first = self.mark_of(span.start);
        let start = match first.unit {
            0 => first.raw + span.start - first.shadow,
            _ => first.raw,
        };
        let last = self.mark_of(span.end.saturating_sub(1));
        let end = match last.unit {
            0 => last.raw + span.end - last.shadow,
            unit => last.raw + unit,
        };
        start..end
    }
}

/// Looks ahead from a numeral: up to where the run of numerals, digits and single separators goes,
/// and whether with `behind` digits before it there are enough of them to be a number.
fn numerals(raw: &[u8], mut at: usize, behind: usize) -> (usize, bool) {
    let (mut count, mut separators, mut end) = (behind, 0, at);
    // Numerals, and where the first stretch of plain digits ended and the last numeral stood.
    let (mut words, mut plain, mut inner) = (0, behind, false);
    for _ in 0..NUMERALS_AHEAD {
        if at >= raw.len() {
            break;
        }
        let unit = unit(raw, at);
        at = unit.end;
        match fold(unit.c) {
            Folded::Numeral(_) => {
                (count, words) = (count + 1, words + 1);
                // After it digits may follow: then it stood inside.
                inner = inner || (plain > 0 && count - words > plain);
                plain = count - words;
            }
            Folded::Ascii(b'0'..=b'9') => count += 1,
            Folded::Same if (0x30..0x3A).contains(&unit.c) => count += 1,
            Folded::Gone => continue,
            Folded::Ascii(b' ' | b'-' | b'\n') if separators < 2 => {
                separators += 1;
                continue;
            }
            Folded::Same if matches!(unit.c, 0x20 | 0x2D | 0x2E | 0x0A) && separators < 2 => {
                separators += 1;
                continue;
            }
            _ => break,
        }
        separators = 0;
        end = at;
    }
    // A name or a word that ends or begins with a numeral stands beside a number of plain digits.
    let digits = count - words;
    let one_side = !inner && (plain == 0 || plain == digits);
    let beside = digits >= NUMERALS_MIN && words <= BESIDE_MAX && one_side;
    (end, count >= NUMERALS_MIN && !beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, want: &str) {
        let mut shadow = Shadow::default();
        shadow.cast(raw.as_bytes());
        assert_eq!(String::from_utf8_lossy(shadow.text()), want, "{raw:?}");
    }

    #[test]
    fn what_people_type_becomes_plain() {
        check("plain text stays", "plain text stays");
        check("１３８\u{200b}００１３－８０００", "1380013-8000");
        check("电话：一三八零零一三八零零零。", "电话:13800138000。");
        check("138零零1三8000", "13800138000");
        check("张三13800138000一直打不通", "张三13800138000一直打不通");
        check("a@b。com。", "a@b.com。");
        check("一心一意，三五成群", "一心一意,三五成群");
        check("①③⑧ 𝟙𝟛𝟠 ١٣٨", "138 138 138");
        check("1\u{fe0f}\u{20e3}3\u{fe0f}\u{20e3}", "13");
    }

    #[test]
    fn escapes_of_any_depth_become_what_they_stand_for() {
        check(r"a\nb\\nc\u0031\\u0032\uff13", "a\nb\nc123");
        check(r"138\-0013\-8000", "138-0013-8000");
        check(r"\ud835\udfcf!", "1!");
        check(r#"\"x\" \/ end\"#, "\"x\" / end\\");
        check(r"\u4e00\u4e09\u516b\u96f6\u96f6\u4e00\u4e09\u516b", "13800138");
    }

    #[test]
    fn spans_lead_back_to_whole_characters() {
        let raw = "电话\u{200b}１３８\\u0030 x";
        let mut shadow = Shadow::default();
        shadow.cast(raw.as_bytes());
        let at = shadow.text().windows(4).position(|w| w == b"1380").unwrap();
        assert_eq!(&raw[shadow.raw(at..at + 4)], "１３８\\u0030");
        assert_eq!(&raw[shadow.raw(at + 3..at + 6)], "\\u0030 x");
        assert_eq!(&raw[shadow.raw(0..6)], "电话");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic_and_spans_stay_inside(raw in "([ -~]|\\\\|[０-９]|\u{200b}|一|零|\\\\u0031|é|\u{1d7d9}){0,40}") {
            let mut shadow = Shadow::default();
            shadow.cast(raw.as_bytes());
            proptest::prop_assert!(std::str::from_utf8(shadow.text()).is_ok());
            for start in 0..shadow.text().len() {
                if std::str::from_utf8(&shadow.text()[start..]).is_err() { continue }
                for end in start + 1..=shadow.text().len() {
                    if std::str::from_utf8(&shadow.text()[start..end]).is_err() { continue }
                    let span = shadow.raw(start..end);
                    proptest::prop_assert!(raw.get(span.clone()).is_some_and(|s| !s.is_empty()), "{span:?}");
                }
            }
        }
    }
}
