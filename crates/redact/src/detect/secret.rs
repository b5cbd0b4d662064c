//! Secrets: API keys by their vendors' prefixes, tokens by shape, private keys by their armour.
//!
//! A prefix alone proves nothing: `sk-couchbase-bucket-testing` is a slug. What follows must have the
//! vendor's characters and length and look random: enough different characters, of enough classes,
//! not a chain of words. Prefixes are found by one automaton; a rule reads on from there.

use super::vendors::{Set, VENDORS, Vendor};
use super::{Hit, net};
use crate::kind::Kind;
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// Other anchors, behind the vendors in the automaton.
const JWT: &str = "eyJ";
const ARMOUR: &str = "-----BEGIN ";
const BOT: &str = ":AA";
/// An at sign that is spelt out.
const SPELT: [&str; 10] = ["(at)", "[at]", "{at}", "(AT)", "[AT]", "{AT}", "<at>", "(@)", " at ", " AT "];
/// Words before a value that nobody but its owner should know.
const NAMED: [&str; 18] = [
    "secret",
    "SECRET",
    "Secret",
    "password",
    "PASSWORD",
    "Password",
    "passwd",
    "PASSWD",
    "api_key",
    "API_KEY",
    "apikey",
    "apiKey",
    "token",
    "TOKEN",
    "Token",
    "access_key",
    "ACCESS_KEY",
    "密码",
];

/// Most bytes of a private key; one of 16,384 bits has 13,000.
const ARMOUR_BYTES_MAX: usize = 32 << 10;
/// Most bytes of a web token, and of one of its parts.
const JWT_BYTES_MAX: usize = 16 << 10;

/// Finds secrets.
#[derive(Debug)]
pub(crate) struct Secrets {
    anchors: AhoCorasick,
}

impl Secrets {
    pub(crate) fn new() -> Result<Self, aho_corasick::BuildError> {
        let anchors = VENDORS.iter().map(|row| row.0).chain([JWT, ARMOUR, BOT]).chain(SPELT).chain(NAMED);
        Ok(Secrets {
            anchors: AhoCorasick::builder()
                .kind(Some(AhoCorasickKind::DFA))
                .match_kind(MatchKind::LeftmostFirst)
                .build(anchors)?,
        })
    }

    /// Everything in `text` that has an anchor.
    pub(crate) fn scan(&self, text: &[u8], hits: &mut Vec<Hit>) {
        let mut at = 0;
        while let Some(found) = self.anchors.find(aho_corasick::Input::new(text).range(at..)) {
            let (start, end) = (found.start(), found.end());
            let number = found.pattern().as_usize();
            let next = match number.checked_sub(VENDORS.len()) {
                None => vendor(text, start, end, &VENDORS[number], hits),
                Some(0) => jwt(text, start, hits),
                Some(1) => armour(text, start, hits),
                Some(2) => bot(text, start, hits),
                Some(n) if n < 3 + SPELT.len() => net::spelt_email(text, start, end, hits),
                Some(_) => named(text, end, hits),
            };
            at = next.unwrap_or(start + 1).max(start + 1);
        }
    }
}

fn run(text: &[u8], at: usize, set: Set, most: usize) -> usize {
    text[at..].iter().take(most).take_while(|b| set.has(**b)).count()
}

fn vendor(text: &[u8], start: usize, body: usize, row: &Vendor, hits: &mut Vec<Hit>) -> Option<usize> {
    let (_, rule, set, least, most) = *row;
    let open = !start.checked_sub(1).is_some_and(|at| text[at].is_ascii_alphanumeric());
    let len = run(text, body, set, most + 1);
    let mut end = body + len.min(most);
    while end > body && matches!(text[end - 1], b'-' | b'.' | b'_') {
        end -= 1;
    }
    if !open || len > most || end - body < least {
        return None;
    }
    if !looks_random(&text[body..end], set) {
        // Looked through once: a chain of prefixes is not read again from each of them.
        return Some(end);
    }
    hits.push(Hit { start, end, kind: Kind::Secret, rule, score: 90, custom: None });
    Some(end)
}

/// Bits of entropy per character, by the characters' own frequencies.
fn entropy(text: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    text.iter().for_each(|b| counts[usize::from(*b)] += 1);
    let len = text.len() as f64;
    counts.iter().filter(|n| **n > 0).map(|n| f64::from(*n) / len).map(|p| -p * p.log2()).sum()
}

/// Whether it is no slug, no placeholder and no word.
fn looks_random(body: &[u8], set: Set) -> bool {
    let count = |is: fn(&u8) -> bool| body.iter().filter(|b| is(b)).count();
    let (digits, upper, lower) =
        (count(u8::is_ascii_digit), count(u8::is_ascii_uppercase), count(u8::is_ascii_lowercase));
    let hex = body.iter().all(u8::is_ascii_hexdigit);
    let least = match (set, body.len()) {
        (Set::Hex, _) => 2.6,
        _ if hex && body.len() >= 32 => 2.6,
        (_, 0..=20) => 2.8,
        _ => 3.2,
    };
    if entropy(body) < least {
        return false;
    }
    match set {
        Set::Hex => digits > 0,
        Set::Upper => digits > 0 || upper >= 16,
        _ => {
            // In a slug each piece is a word or a number.
            let pieces: Vec<&[u8]> =
                body.split(|b| matches!(b, b'-' | b'_' | b'.')).filter(|p| !p.is_empty()).collect();
            let slug = pieces.len() > 1
                && pieces.iter().all(|p| {
                    p.len() < 16
                        && (p.iter().all(u8::is_ascii_lowercase)
                            || p.iter().all(u8::is_ascii_digit)
                            || p.iter().all(u8::is_ascii_uppercase))
                });
            // Keys have digits among letters; random text of 20 letters without any is rare.
            let with_digits = digits > 0 && (upper > 0 && lower > 0 || digits >= 4);
            !slug && upper + lower > 0 && (with_digits || (digits == 0 && upper >= 4 && lower >= 4 && body.len() >= 20))
        }
    }
}

/// A JSON web token: three parts of base64, of which the first two are objects.
fn jwt(text: &[u8], start: usize, hits: &mut Vec<Hit>) -> Option<usize> {
    let open = !start.checked_sub(1).is_some_and(|at| text[at].is_ascii_alphanumeric() || text[at] == b'_');
    let part = |at: usize| run(text, at, Set::Url, JWT_BYTES_MAX);
    let first = part(start);
    let second_at = start + first + 1;
    if !open {
        return None;
    }
    if first < 12 || text.get(second_at - 1) != Some(&b'.') || !text[second_at..].starts_with(b"eyJ") {
        return Some(start + first);
    }
    let second = part(second_at);
    let third_at = second_at + second + 1;
    if second < 8 || text.get(third_at - 1) != Some(&b'.') {
        return None;
    }
    let end = third_at + part(third_at);
    hits.push(Hit { start, end, kind: Kind::Jwt, rule: "jwt", score: 95, custom: None });
    Some(end)
}

/// A private key in its armour, to its end line or as far as it goes.
fn armour(text: &[u8], start: usize, hits: &mut Vec<Hit>) -> Option<usize> {
    let rest = &text[start..(start + ARMOUR_BYTES_MAX).min(text.len())];
    let title_end = memchr::memmem::find(&rest[11..rest.len().min(80)], b"-----")? + 11;
    let title = &rest[11..title_end];
    memchr::memmem::find(title, b"PRIVATE KEY")?;
    let end = match memchr::memmem::find(&rest[title_end..], b"-----END ") {
        Some(found) => {
            let last = title_end + found + 9;
            memchr::memmem::find(&rest[last..], b"-----").map_or(last, |n| last + n + 5)
        }
        None => {
            title_end
                + 5
                + rest[title_end + 5..]
                    .iter()
                    .take_while(|b| Set::Base64.has(**b) || b.is_ascii_whitespace() || matches!(b, b':' | b'-' | b','))
                    .count()
        }
    };
    let end = start + text[start..start + end].iter().rposition(|b| !b.is_ascii_whitespace())? + 1;
    hits.push(Hit { start, end, kind: Kind::PrivateKey, rule: "private_key", score: 95, custom: None });
    Some(end)
}

/// A Telegram bot's token: its number, a colon, and 35 characters that begin with AA.
fn bot(text: &[u8], colon: usize, hits: &mut Vec<Hit>) -> Option<usize> {
    let digits = text[..colon].iter().rev().take(12).take_while(|b| b.is_ascii_digit()).count();
    let len = run(text, colon + 1, Set::Url, 40);
    if !(8..=10).contains(&digits)
        || !(33..=36).contains(&len)
        || !looks_random(&text[colon + 1..colon + 1 + len], Set::Url)
    {
        return None;
    }
    let (start, end) = (colon - digits, colon + 1 + len);
    hits.push(Hit { start, end, kind: Kind::Secret, rule: "telegram", score: 90, custom: None });
    Some(end)
}

/// A value that is assigned to a secret's name: `password = "..."`, `"token": "..."`.
fn named(text: &[u8], at: usize, hits: &mut Vec<Hit>) -> Option<usize> {
    // The name may go on (`secret_access_key`), then quotes, spaces and the sign.
    let mut from =
        at + text[at..].iter().take(24).take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')).count();
    let skip = |from: usize, among: &[u8]| from + text[from..].iter().take(3).take_while(|b| among.contains(b)).count();
    from = skip(from, b"\"' ");
    let sign = text.get(from)?;
    if !matches!(sign, b':' | b'=') {
        return None;
    }
    from = skip(from + 1, b"=> ");
    let quoted = text.get(from).filter(|b| matches!(b, b'"' | b'\'' | b'`'));
    from += usize::from(quoted.is_some());
    let is_value = |b: &u8| {
        b.is_ascii_graphic()
            && !matches!(
                b,
                b'"' | b'\'' | b'`' | b',' | b';' | b'<' | b'>' | b'(' | b')' | b'{' | b'}' | b'[' | b']' | b'\\'
            )
    };
    let len = text[from..].iter().take(129).take_while(|b| is_value(b)).count();
    let mut end = from + len.min(128);
    if quoted.is_none() {
        // A URL's next parameter, a sentence's end.
        end = text[from..end].iter().position(|b| *b == b'&').map_or(end, |n| from + n);
        end -= usize::from(end > from && text[end - 1] == b'.');
    } else if text.get(end) != quoted {
        return None;
    }
    let value = &text[from..end];
    let count = |is: fn(&u8) -> bool| value.iter().filter(|b| is(b)).count();
    let code = value.contains(&b'.') && quoted.is_none()
        || value.starts_with(b"$")
        || value.starts_with(b"%")
        || memchr::memmem::find(value, b"://").is_some()
        || memchr::memmem::find(value, b"::").is_some();
    let mixed = count(u8::is_ascii_digit) > 0 && count(u8::is_ascii_alphabetic) > 0;
    if len > 128 || code || !mixed {
        return None;
    }
    let rich = value.len() >= 16 && entropy(value) >= 3.3 && looks_random(value, Set::Url)
        || quoted.is_some()
            && (10..=64).contains(&value.len())
            && entropy(value) >= 3.0
            && count(u8::is_ascii_punctuation) > 0
            && count(u8::is_ascii_uppercase) > 0;
    if !rich {
        return None;
    }
    hits.push(Hit { start: from, end, kind: Kind::Secret, rule: "named", score: 60, custom: None });
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Vec<(&'static str, String)> {
        let mut hits = Vec::new();
        Secrets::new().unwrap().scan(text.as_bytes(), &mut hits);
        hits.into_iter().map(|hit| (hit.rule, text[hit.start..hit.end].to_owned())).collect()
    }

    #[test]
    fn keys_are_found_and_slugs_are_not() {
        let key = "sk-ant-api03-Zk3vQ9xW7pLmN2bR8tYc-uJ5hG1fDs4aE6oKiX0MwVqBnTz";
        assert_eq!(check(&format!("use {key}.")), [("anthropic", key.to_owned())]);
        assert_eq!(check("sk-couchbase-bucket-testing-2024-release"), []);
        assert_eq!(check("sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), []);
        assert_eq!(check("AKIAIOSFODNN7EXAMPLE")[0].0, "aws_key_id");
        assert_eq!(check("password = get_password()"), []);
        assert_eq!(check("password: \"Tr0ub4dor&3-x\"")[0].0, "named");
    }

    #[test]
    fn tokens_and_keys_have_their_whole_length() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P";
        assert_eq!(check(&format!("Bearer {jwt}, and")), [("jwt", jwt.to_owned())]);
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\n-----END RSA PRIVATE KEY-----";
        assert_eq!(check(&format!("x\n{key}\ny")), [("private_key", key.to_owned())]);
        assert_eq!(check("-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----"), []);
    }
}
