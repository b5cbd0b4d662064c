//! Texts as terms to search by: words of alphabets, bigrams of CJK.
//!
//! A word is a run of letters and digits, in lower case, full-width forms folded to ASCII. Chinese,
//! Japanese and Korean have no blanks between words: of a run of theirs every two neighbouring
//! characters are a term, of a run of one that one. A term is kept as a 64-bit hash (FNV-1a): among
//! a million terms two meet with a probability of one in forty million.

/// Whether a character is written without blanks around words.
pub(crate) fn is_cjk(c: char) -> bool {
    matches!(c,
        '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7af}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

/// Letters of a longer word that count: nobody searches by more.
const WORD_CHARS_MAX: usize = 64;

#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    const EMPTY: Hash = Hash(0xcbf2_9ce4_8422_2325);

    fn with(self, c: char) -> Hash {
        let mut bytes = [0; 4];
        let bytes = c.encode_utf8(&mut bytes).bytes();
        Hash(bytes.fold(self.0, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)))
    }
}

/// Gives each term of a text, as often as it occurs.
pub(super) fn terms(text: &str, each: &mut dyn FnMut(u64)) {
    let mut word: Option<(Hash, usize)> = None;
    let mut run: Option<(char, bool)> = None;
    for c in text.chars().map(folded) {
        let cjk = is_cjk(c);
        let letter = !cjk && c.is_alphanumeric();
        if !letter && let Some((hash, _)) = word.take() {
            each(hash.0);
        }
        if !cjk && let Some((only, true)) = run.take() {
            each(Hash::EMPTY.with(only).0);
        }
        if cjk {
            if let Some((before, _)) = run {
                each(Hash::EMPTY.with(before).with(c).0);
            }
            run = Some((c, run.is_none()));
        } else if letter {
            let (mut hash, mut chars) = word.unwrap_or((Hash::EMPTY, 0));
            for lower in c.to_lowercase().filter(|_| chars < WORD_CHARS_MAX) {
                hash = hash.with(lower);
            }
            chars += 1;
            word = Some((hash, chars));
        }
    }
    if let Some((hash, _)) = word {
        each(hash.0);
    }
    if let Some((only, true)) = run {
        each(Hash::EMPTY.with(only).0);
    }
}

fn folded(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<u64> {
        let mut found = Vec::new();
        terms(text, &mut |term| found.push(term));
        found
    }

    #[test]
    fn words_meet_in_any_case_and_width() {
        assert_eq!(of("Order ORD-48,211!"), of("order ord 48 211"));
        assert_eq!(of("Invoice42"), of("Invoice42"));
        assert_eq!(of("Straße").len(), 1);
        assert!(of(" .. ").is_empty());
    }

    #[test]
    fn cjk_is_taken_by_twos() {
        assert_eq!(of("预算是三千"), [of("预算"), of("算是"), of("是三"), of("三千")].concat());
        assert_eq!(of("用cargo跑"), [of("用"), of("cargo"), of("跑")].concat());
        assert_eq!(of("하나").len(), 1);
    }
}
