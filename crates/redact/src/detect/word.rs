//! Words of letters and digits: numbers that have letters in them.
//!
//! Called for every run of letters and digits that has both: credit codes, IBANs, passports, plates,
//! national numbers with letters. Rules go by length and first characters, so most words of code and
//! hashes are dropped after a glance.

use super::cue::{Cues, Topic};
use super::{Hit, SCORE_MIN};
use crate::checks;
use crate::kind::Kind;

/// The provinces' signs on plates.
const PROVINCES: &str = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使领";

/// Longer words are no number of anybody's: base64, hashes, identifiers.
pub(crate) const WORD_BYTES_MAX: usize = 40;

struct Word<'a> {
    text: &'a [u8],
    cues: &'a Cues,
    start: usize,
    end: usize,
}

impl<'a> Word<'a> {
    fn bytes(&self) -> &'a [u8] {
        &self.text[self.start..self.end]
    }

    fn before(&self) -> u8 {
        self.start.checked_sub(1).map_or(b' ', |at| self.text[at])
    }

    fn after(&self) -> u8 {
        self.text.get(self.end).copied().unwrap_or(b' ')
    }

    /// Whether it is a part of something longer: a path, a slug, an id with hyphens.
    fn is_part(&self) -> bool {
        let joins = |b: u8| matches!(b, b'-' | b'_' | b'.' | b'/' | b'+' | b'@' | b'\\');
        let next = self.text.get(self.end + 1).copied().unwrap_or(b' ');
        let prior = self.start.checked_sub(2).map_or(b' ', |at| self.text[at]);
        (joins(self.before()) && prior.is_ascii_alphanumeric()) || (joins(self.after()) && next.is_ascii_alphanumeric())
    }

    fn score(&self, base: i32, topics: &[Topic]) -> i32 {
        base + self.cues.near(self.text, self.start, self.end).moves(topics)
    }

    fn hit(&self, kind: Kind, rule: &'static str, score: i32) -> Option<Hit> {
        let hit = Hit { start: self.start, end: self.end, kind, rule, score, custom: None };
        (score >= SCORE_MIN).then_some(hit)
    }
}

/// Looks at the word at `start..end`; returns where to go on.
pub(crate) fn scan(text: &[u8], start: usize, end: usize, cues: &Cues, hits: &mut Vec<Hit>) -> usize {
    let word = Word { text, cues, start, end };
    let found = iban(&word)
        .or_else(|| plate(&word))
        .or_else(|| credit_code(&word))
        .or_else(|| passport(&word))
        .or_else(|| national(&word))
        .or_else(|| in_pieces(&word))
        .or_else(|| wrapped(&word))
        .or_else(|| foreign_plate(&word));
    match found {
        Some(hit) => {
            let next = hit.end.max(end);
            hits.push(hit);
            next
        }
        None => end,
    }
}

/// An IBAN, in one piece or in groups of four.
fn iban(word: &Word<'_>) -> Option<Hit> {
    let bytes = word.bytes();
    let head = bytes.len() >= 4
        && bytes[..2].iter().all(u8::is_ascii_alphabetic)
        && bytes[2..4].iter().all(u8::is_ascii_digit);
    let length = checks::iban_length(bytes.get(..2)?).filter(|_| head)?;
    let mut text = Vec::with_capacity(length);
    let mut at = word.start;
    let separators = &word.text[word.end..(word.end + 1).min(word.text.len())];
    let prior = word.start.checked_sub(2).map_or(b' ', |at| word.text[at]);
    if word.before() == b'-' && prior.is_ascii_alphanumeric() {
        return None;
    }
    let in_groups = bytes.len() == 4;
    let mut group = 0;
    while text.len() < length {
        group = if word.text.get(at).is_some_and(u8::is_ascii_alphanumeric) { group + 1 } else { 0 };
        match word.text.get(at) {
            Some(b) if b.is_ascii_alphanumeric() && !(in_groups && group > 4) => text.push(b.to_ascii_uppercase()),
            // Groups are of four, all joined in the same way; a line may end anywhere.
            Some(b' ' | b'-' | b'.') if !text.len().is_multiple_of(4) || separators != &word.text[at..=at] => {
                return None;
            }
            // One separator between groups; a line's end may be two bytes.
            Some(b' ' | b'-' | b'\n' | b'\r' | b'.')
                if word.text.get(at + 1).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'\n') => {}
            _ => return None,
        }
        at += 1;
    }
    let closed = !word.text.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let whole = &word.text[word.start..at];
    // Hashes in lines one below the other, and parts of UUIDs, are small letters.
    let hashes = whole.iter().any(|b| matches!(b, b'\n' | b'-')) && whole.iter().any(u8::is_ascii_lowercase);
    if !closed || hashes || !checks::iban(&text) {
        return None;
    }
    Word { end: at, ..*word }.hit(Kind::Iban, "iban", 90)
}

/// What may stand between a plate's city and its number.
const PLATE_GAPS: [&[u8]; 6] = [b"\xC2\xB7", b"\xE2\x80\xA2", b"\xE3\x83\xBB", b" ", b"-", b"."];

/// The province's sign, if one ends at `end`; where it begins.
fn province(text: &[u8], end: usize) -> Option<usize> {
    let start = end.checked_sub(3)?;
    let sign = std::str::from_utf8(&text[start..end]).ok()?;
    PROVINCES.contains(sign).then_some(start)
}

/// A Chinese plate: the province's sign, the city's letter, and the number, perhaps set apart.
fn plate(word: &Word<'_>) -> Option<Hit> {
    let end = word.end;
    let spaced = word.before() == b' ' && word.start > 0;
    let apart = || if spaced { province(word.text, word.start - 1) } else { None };
    let (start, text) = match province(word.text, word.start).or_else(apart) {
        Some(start) => (start, word.bytes().to_vec()),
        None => {
            let before = &word.text[..word.start];
            let gap = PLATE_GAPS.iter().find(|gap| before.ends_with(gap))?;
            let letter = (before.len() - gap.len()).checked_sub(1)?;
            (province(word.text, letter)?, [&word.text[letter..=letter], word.bytes()].concat())
        }
    };
    let text = text.to_ascii_uppercase();
    let serial = text.get(1..)?;
    let letters = serial.iter().filter(|b| b.is_ascii_alphabetic()).count();
    let plain = serial.iter().all(|b| b.is_ascii_alphanumeric() && !matches!(b, b'I' | b'O'));
    let green = |b: &u8| b"DABCEFGHJK".contains(b);
    let new_energy = serial.len() == 6
        && ((green(&serial[0]) && serial[2..].iter().all(u8::is_ascii_digit))
            || (green(&serial[5]) && serial[..5].iter().all(u8::is_ascii_digit)));
    let right = text[0].is_ascii_uppercase()
        && !matches!(text[0], b'I')
        && plain
        && ((serial.len() == 5 && letters <= 2) || new_energy);
    if !right {
        return None;
    }
    Some(Hit { start, end, kind: Kind::Plate, rule: "cn_plate", score: 75, custom: None })
}

/// How far the word may be that makes letters and digits a plate, bytes.
const PLATE_CUE_BYTES: u8 = 24;

/// A plate of another country: capitals and digits, with a word that says so right before.
fn foreign_plate(word: &Word<'_>) -> Option<Hit> {
    let text = word.text;
    let capitals = |from: usize| text.iter().skip(from).take(4).take_while(|b| b.is_ascii_uppercase()).count();
    // `AB12 CDE`; `ABC 1234` and `ABC-1234` have their letters before.
    let after = if matches!(word.after(), b' ' | b'-') { capitals(word.end + 1) } else { 0 };
    let ends = !text.get(word.end + 1 + after).is_some_and(u8::is_ascii_alphanumeric);
    let end = if after == 3 && ends { word.end + 4 } else { word.end };
    let before = if word.start > 0 && matches!(word.before(), b' ' | b'-') {
        text[..word.start - 1].iter().rev().take(4).take_while(|b| b.is_ascii_uppercase()).count()
    } else {
        0
    };
    let all_digits = word.bytes().iter().all(u8::is_ascii_digit);
    let start = if all_digits && (1..=3).contains(&before) { word.start - 1 - before } else { word.start };
    let whole = Word { start, end, ..*word };
    let signs: Vec<u8> = whole.bytes().iter().copied().filter(|b| !matches!(b, b' ' | b'-')).collect();
    let digits = signs.iter().filter(|b| b.is_ascii_digit()).count();
    let right = (5..=8).contains(&signs.len())
        && signs.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        && digits >= 2
        && digits < signs.len();
    let near = right.then(|| word.cues.ahead(text, start))?;
    let named = near.distance(Topic::Plate) <= PLATE_CUE_BYTES && near.moves(&[Topic::Plate]) > 0;
    whole.hit(Kind::Plate, "plate", if named { 55 } else { 0 })
}

/// A unified social credit code that has letters.
fn credit_code(word: &Word<'_>) -> Option<Hit> {
    let right = checks::cn_credit_code(word.bytes());
    let lower = word.bytes().iter().any(u8::is_ascii_lowercase);
    let score = match (right, lower) {
        (true, false) => 85,
        (true, true) => word.score(40, &[Topic::Company]),
        _ => 0,
    };
    word.hit(Kind::CreditCode, "cn_credit_code", score)
}

/// Passports and permits, with a word that says so.
fn passport(word: &Word<'_>) -> Option<Hit> {
    let score = if is_passport(word.bytes()) { word.score(20, &[Topic::Passport]) } else { 0 };
    word.hit(Kind::Passport, "passport", score)
}

/// Whether it has a passport's letters and digits.
fn is_passport(bytes: &[u8]) -> bool {
    let letters = bytes.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    let digits = bytes.iter().filter(|b| b.is_ascii_digit()).count();
    (8..=9).contains(&bytes.len()) && letters <= 2 && digits >= 6
        || bytes.len() == 11 && matches!(bytes[0].to_ascii_uppercase(), b'H' | b'M') && digits == 10
}

/// A credit code, a passport or a national number that a line's end cut in two.
fn wrapped(word: &Word<'_>) -> Option<Hit> {
    let is_part = |b: &&u8| b.is_ascii_alphanumeric();
    let (mut start, mut end) = (word.start, word.end);
    if word.after() == b'\n' {
        end += 1 + word.text[end + 1..].iter().take(WORD_BYTES_MAX).take_while(is_part).count();
    } else if word.before() == b'\n' {
        start -= 1 + word.text[..start - 1].iter().rev().take(WORD_BYTES_MAX).take_while(is_part).count();
    }
    let bytes: Vec<u8> = word.text[start..end].iter().copied().filter(|b| *b != b'\n').collect();
    let whole = Word { start, end, ..*word };
    if bytes.len() == word.bytes().len() || bytes.len() > 18 {
        return None;
    }
    if checks::cn_credit_code(&bytes) {
        return whole.hit(Kind::CreditCode, "cn_credit_code", 85);
    }
    // A word and a number in two lines are nothing unusual: only with the word that names them.
    let named = |topic| whole.score(20, &[topic]) >= SCORE_MIN;
    if is_passport(&bytes) && named(Topic::Passport) {
        return whole.hit(Kind::Passport, "passport", 55);
    }
    let row = NATIONAL.iter().find(|(_, len, check, _)| bytes.len() == *len && check(&bytes));
    row.filter(|_| named(Topic::Identity)).and_then(|row| whole.hit(Kind::NationalId, row.0, 55))
}

/// Name, length, check and base score of a national number that has letters.
type Row = (&'static str, usize, fn(&[u8]) -> bool, i32);

const NATIONAL: [Row; 12] = [
    ("it_codice_fiscale", 16, checks::it_codice_fiscale, 85),
    ("mx_curp", 18, checks::mx_curp, 85),
    ("es_dni", 9, checks::es_dni, 55),
    ("sg_nric", 9, checks::sg_nric, 55),
    ("tw_id", 10, checks::tw_id, 58),
    ("gb_nino", 9, checks::gb_nino, 40),
    ("in_pan", 10, checks::in_pan, 40),
    ("hk_id", 8, checks::hk_id, 30),
    ("hk_id", 9, checks::hk_id, 30),
    ("ie_pps", 8, checks::ie_pps, 25),
    ("ie_pps", 9, checks::ie_pps, 30),
    ("cl_rut", 9, checks::cl_rut, 25),
];

/// National numbers of letters and digits, in one piece.
fn national(word: &Word<'_>) -> Option<Hit> {
    let bytes = word.bytes();
    let upper = !bytes.iter().any(u8::is_ascii_lowercase);
    let mut best = None;
    for (rule, len, check, base) in NATIONAL {
        if bytes.len() == len && check(bytes) {
            let base = if word.is_part() || !upper { base - 30 } else { base };
            let score = word.score(base, &[Topic::Identity]);
            best = best.filter(|hit: &Hit| hit.score >= score).or_else(|| word.hit(Kind::NationalId, rule, score));
        }
    }
    if bytes.len() == 15 && checks::fr_nir(bytes) {
        return word.hit(Kind::NationalId, "fr_nir", word.score(55, &[Topic::Identity]));
    }
    best
}

/// Numbers whose last piece has the letter: `A123456(3)`, `131052-308T`.
fn in_pieces(word: &Word<'_>) -> Option<Hit> {
    let (text, bytes) = (word.text, word.bytes());
    if let [b'(', check, b')', ..] = text.get(word.end..).unwrap_or_default() {
        let id = [bytes, &[*check]].concat();
        if checks::hk_id(&id) {
            return Word { end: word.end + 3, ..*word }.hit(Kind::NationalId, "hk_id", 70);
        }
    }
    // Finland: the date stands before the hyphen.
    let start = word.end.checked_sub(11)?;
    let open = !start.checked_sub(1).is_some_and(|at| text[at].is_ascii_alphanumeric());
    let finnish = bytes.len() == 4 && open && checks::fi_hetu(&text[start..word.end]);
    Word { start, ..*word }.hit(Kind::NationalId, "fi_hetu", if finnish { 75 } else { 0 })
}

/// A letter of its own that is the last piece of a number, right behind its hyphen: `12345678-Z`. And
/// the British way of writing, from its first two letters on. Called where a cluster of digits ends.
pub(crate) fn around_digits(text: &[u8], start: usize, end: usize, cues: &Cues, hits: &mut Vec<Hit>) {
    let digits =
        Word { text, cues, start, end: start + text[start..end].iter().take_while(|b| b.is_ascii_digit()).count() };
    hits.extend(plate(&digits).or_else(|| foreign_plate(&digits)));
    let closed = |at: usize| !text.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let open = |at: usize| !at.checked_sub(1).is_some_and(|before| text[before].is_ascii_alphanumeric());
    if let ([b'-' | b' ', letter, ..], true) = (text.get(end..).unwrap_or_default(), closed(end + 2)) {
        let compact: Vec<u8> =
            text[start..end].iter().chain([letter]).copied().filter(u8::is_ascii_alphanumeric).collect();
        let word = Word { text, cues, start, end: end + 2 };
        let dash = text[end] == b'-';
        if dash && open(start) && letter.is_ascii_alphabetic() && checks::es_dni(&compact) {
            hits.extend(word.hit(Kind::NationalId, "es_dni", 65));
        } else if dash && open(start) && checks::cl_rut(&compact) {
            let dotted = text[start..end].contains(&b'.');
            hits.extend(word.hit(
                Kind::NationalId,
                "cl_rut",
                word.score(if dotted { 75 } else { 40 }, &[Topic::Identity]),
            ));
        }
        let first = start.checked_sub(3).filter(|at| text[at + 2] == b' ' && open(*at));
        if let Some(first) = first {
            let id = [&text[first..first + 2], &compact[..]].concat();
            if checks::gb_nino(&id) {
                hits.extend(Word { start: first, ..word }.hit(Kind::NationalId, "gb_nino", 80));
            }
        }
    }
}
