//! Addresses of the network: e-mail, IPv4 and IPv6, and passwords inside URLs.

use super::cue::{Cues, Topic};
use super::{Hit, SCORE_MIN};
use crate::kind::Kind;
use core::net::{Ipv4Addr, Ipv6Addr};

/// The longest local part, and domain, bytes (RFC 5321).
const LOCAL_MAX: usize = 64;
const DOMAIN_MAX: usize = 255;
/// The longest user and password before a URL's host that is looked at, bytes.
const USER_INFO_MAX: usize = 256;

/// Endings of file names that look like domains.
const FILES: &str = " png jpg jpeg gif svg webp ico bmp tiff js jsx ts tsx mjs css scss less html htm json yaml yml xml \
    toml lock md txt csv log rs go java rb php cpp hpp exe dll so zip gz tar pdf doc docx xls xlsx ppt mp3 mp4 avi local \
    localhost internal lan test class jar swift kt vue ";

/// Top-level domains of three and more letters that e-mail is usually at.
const DOMAINS: &str = " com net org edu gov mil int info biz name pro museum aero coop jobs mobi travel tel asia cat post \
    app dev page cloud online site shop store tech xyz top club vip wang work live life world today email example invalid \
    network systems solutions services agency digital media design studio blog news group company team space website \
    link fun icu ltd win bid loan men date party review stream download science bank insurance legal health care school \
    university academy consulting finance capital ventures art ";

fn is_local(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'%' | b'+' | b'-' | b'\'')
}

/// The end of the domain that begins at `at`, if it is one that e-mail can go to.
fn domain_end(text: &[u8], at: usize) -> Option<usize> {
    let bytes = text[at..]
        .iter()
        .take(DOMAIN_MAX)
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        .count();
    let mut end = at + bytes;
    // What ends a sentence is no part of it.
    while end > at && matches!(text[end - 1], b'.' | b'-') {
        end -= 1;
    }
    // A name has a few labels; who writes more means something else.
    for _ in 0..8 {
        let domain = &text[at..end];
        let dot = memchr::memrchr(b'.', domain)?;
        let top = &domain[dot + 1..];
        let labels =
            domain.split(|b| *b == b'.').all(|label| !label.is_empty() && label.len() <= 63 && label[0] != b'-');
        if labels && is_top(top) {
            return Some(end);
        }
        // `a@b.com.Next sentence`: the part behind the last dot is a word.
        end = at + dot;
    }
    None
}

/// Whether it is the last part of a domain, and no file's ending.
fn is_top(top: &[u8]) -> bool {
    let among = |list: &str| {
        let top = top.to_ascii_lowercase();
        list.as_bytes()
            .windows(top.len() + 2)
            .any(|w| w[0] == b' ' && w[w.len() - 1] == b' ' && w[1..w.len() - 1] == top)
    };
    match top.len() {
        0 | 1 => false,
        2 => top.iter().all(u8::is_ascii_alphabetic) && !among(FILES),
        3..=24 => {
            (top.iter().all(u8::is_ascii_alphabetic) && !among(FILES) && (among(DOMAINS) || top.len() > 3))
                || top.starts_with(b"xn--")
        }
        _ => false,
    }
}

/// The e-mail address around the at sign at `at`.
pub(crate) fn email(text: &[u8], at: usize, hits: &mut Vec<Hit>) -> Option<usize> {
    // Spaces around the sign are a disguise; only of both sides, and only to a usual domain.
    let spaced = text[..at].ends_with(b" ") && text[at + 1..].starts_with(b" ");
    let (left, right) = if spaced {
        (at - 1, at + 2)
    } else {
        // A line may end at the sign.
        let left = at - usize::from(text[..at].ends_with(b"\n"));
        (left, at + 1 + usize::from(text[at + 1..].starts_with(b"\n")))
    };
    let spaced = spaced || right - left > 1;
    address(text, left, right, spaced, hits)
}

/// An address whose at sign was spelt out: `alice (at) example (dot) com`.
pub(crate) fn spelt_email(text: &[u8], start: usize, end: usize, hits: &mut Vec<Hit>) -> Option<usize> {
    if text[start] == b' ' {
        // A word of the language: only if the dots are words as well.
        let domain = spelt_domain(text, end)?;
        let dots = text[end..domain].to_ascii_lowercase();
        memchr::memmem::find(&dots, b"dot")?;
        let article = [&b"the "[..], b"a ", b"this ", b"that ", b"our ", b"their ", b"its "];
        if article.iter().any(|word| dots.starts_with(word)) {
            return None;
        }
        return address(text, start, end, true, hits);
    }
    let left = start - usize::from(text[..start].ends_with(b" "));
    let right = end + usize::from(text[end..].starts_with(b" "));
    address(text, left, right, true, hits)
}

fn address(text: &[u8], left: usize, right: usize, spelt: bool, hits: &mut Vec<Hit>) -> Option<usize> {
    let local = text[..left].iter().rev().take(LOCAL_MAX).take_while(|b| is_local(**b)).count();
    let mut start = left - local;
    while start < left && !(text[start].is_ascii_alphanumeric() || text[start] == b'_') {
        start += 1;
    }
    let name = &text[start..left];
    if name.is_empty() || name.ends_with(b".") || text[..start].ends_with(b"@") {
        return None;
    }
    let end = match domain_end(text, right) {
        Some(end) if !spelt || memchr::memmem::find(text.get(end..end + 2).unwrap_or_default(), b" .").is_none() => end,
        Some(_) => return None,
        None => spelt_domain(text, right)?,
    };
    // `git@host:path` is a place for code.
    if name == b"git" && text.get(end) == Some(&b':') || text.get(end) == Some(&b'@') {
        return None;
    }
    let dotted = text[right..end].iter().filter(|b| **b == b'.').count();
    if spelt && dotted > 0 && !is_usual(&text[right..end]) {
        return None;
    }
    hits.push(Hit { start, end, kind: Kind::Email, rule: "email", score: if spelt { 70 } else { 85 }, custom: None });
    Some(end)
}

/// Whether it ends in one of the domains that most addresses end in.
fn is_usual(domain: &[u8]) -> bool {
    [
        &b".com"[..],
        b".net",
        b".org",
        b".cn",
        b".edu",
        b".gov",
        b".io",
        b".de",
        b".uk",
        b".fr",
        b".jp",
        b".co",
        b".dev",
        b".eu",
    ]
    .iter()
    .any(|end| domain.len() > end.len() && domain[domain.len() - end.len()..].eq_ignore_ascii_case(end))
}

/// A domain whose dots are spelt out or stand between spaces.
fn spelt_domain(text: &[u8], mut at: usize) -> Option<usize> {
    const DOTS: [&[u8]; 8] = [b" (dot) ", b" [dot] ", b"(dot)", b"[dot]", b" {dot} ", b"{dot}", b" dot ", b" . "];
    let mut domain = Vec::new();
    for _ in 0..4 {
        let label =
            text[at..].iter().take(63).take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')).count();
        domain.extend_from_slice(&text[at..at + label]);
        at += label;
        let rest = &text[at..];
        let dot = DOTS.iter().find(|dot| rest.len() > dot.len() && rest[..dot.len()].eq_ignore_ascii_case(dot));
        match dot {
            Some(dot) if label > 0 => {
                domain.push(b'.');
                at += dot.len();
            }
            _ => break,
        }
    }
    while domain.ends_with(b".") || domain.ends_with(b"-") {
        domain.pop();
        at -= 1;
    }
    (is_usual(&domain) && domain_end(&domain, 0) == Some(domain.len())).then_some(at)
}

/// An IPv4 address whose first group of digits is at `at`.
pub(crate) fn ipv4(text: &[u8], at: usize, cues: &Cues, private: bool, hits: &mut Vec<Hit>) -> Option<usize> {
    let end = at + text[at..].iter().take(16).take_while(|b| b.is_ascii_digit() || **b == b'.').count();
    let mut end = end;
    while end > at && text[end - 1] == b'.' {
        end -= 1;
    }
    let ip: Ipv4Addr = std::str::from_utf8(&text[at..end]).ok()?.parse().ok()?;
    let before = at.checked_sub(1).map_or(b' ', |at| text[at]);
    let after = text.get(end).copied().unwrap_or(b' ');
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_');
    let next = text.get(end + 1).copied().unwrap_or(b' ');
    let goes_on = (matches!(after, b'.' | b'-') && next.is_ascii_alphanumeric())
        || after.is_ascii_alphanumeric()
        || after == b'_';
    // A hyphen in front and a name before it is a package with its version.
    let named = before == b'-' && at > 1 && text[at - 2].is_ascii_alphanumeric();
    if inside(before) || goes_on || named || !(private || is_public_v4(ip)) {
        return None;
    }
    let near = cues.near(text, at, end);
    // Four small numbers are a version's or a section's; then a word has to stand right there.
    let octets = ip.octets();
    let small = octets.iter().all(|octet| *octet < 32) || octets.iter().filter(|octet| **octet < 16).count() > 2;
    let port = (after == b':' || after == b'/') && next.is_ascii_digit();
    let base = if port {
        80
    } else if small {
        30
    } else {
        70
    };
    // A version says so right before.
    let version = near.distance(Topic::Thing) < 12 && near.distance(Topic::Ip) > near.distance(Topic::Thing) && !port;
    let named = near.distance(Topic::Ip) <= 12 || !small;
    let score = base
        + if version {
            -40
        } else if named {
            near.moves(&[Topic::Ip]).max(0)
        } else {
            0
        };
    if score < SCORE_MIN {
        return Some(end);
    }
    hits.push(Hit { start: at, end, kind: Kind::Ip, rule: "ipv4", score, custom: None });
    Some(end)
}

/// Not private, local, shared, multicast or reserved. Addresses for documentation stand for public
/// ones wherever they are written, so they count.
fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (b == 18 || b == 19)))
}

/// An IPv6 address around the colon at `at`.
pub(crate) fn ipv6(text: &[u8], at: usize, private: bool, hits: &mut Vec<Hit>) -> Option<usize> {
    let is_part = |b: &u8| b.is_ascii_hexdigit() || *b == b':';
    // Only from a run's first colon on: the others were looked at with it.
    let group = text[..at].iter().rev().take(5).take_while(|b| b.is_ascii_hexdigit()).count();
    let next = text.get(at + 1).copied().unwrap_or(b' ');
    if text[..at - group].ends_with(b":") || group > 4 || !is_part(&next) {
        return None;
    }
    let mut start = at - text[..at].iter().rev().take(40).take_while(|b| is_part(b)).count();
    let mut end = at + text[at..].iter().take(46).take_while(|b| is_part(b) || **b == b'.').count();
    while end > at && matches!(text[end - 1], b'.' | b':') && !text[..end].ends_with(b"::") {
        end -= 1;
    }
    // `from:2001:...`: that colon is the sentence's.
    if text[start] == b':' && !text[start..].starts_with(b"::") {
        start += 1;
    }
    if end < start + 4 {
        return None;
    }
    let ip: Ipv6Addr = std::str::from_utf8(&text[start..end]).ok()?.parse().ok()?;
    let open = |b: u8| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
    let before = start.checked_sub(1).map_or(b' ', |at| text[at]);
    let after = text.get(end).copied().unwrap_or(b' ');
    let public = ip.segments()[0] & 0xE000 == 0x2000;
    let digits = text[start..end].iter().any(u8::is_ascii_digit);
    if !open(before) || after.is_ascii_alphanumeric() || after == b'_' || !digits || !(public || private) {
        return None;
    }
    hits.push(Hit { start, end, kind: Kind::Ip, rule: "ipv6", score: 80, custom: None });
    Some(end)
}

/// The password of `scheme://user:password@host`; `at` is the colon behind the scheme.
pub(crate) fn url_password(text: &[u8], at: usize, hits: &mut Vec<Hit>) -> Option<usize> {
    let from = at + 3;
    if !text[at..].starts_with(b"://") || !at.checked_sub(1).is_some_and(|before| text[before].is_ascii_alphanumeric())
    {
        return None;
    }
    let to = (from + USER_INFO_MAX).min(text.len());
    let stop = text[from..to]
        .iter()
        .position(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'?' | b'#' | b'"' | b'<' | b'>' | b'\'' | b'`'))
        .map_or(to, |n| from + n);
    // The last at sign before the host ends: passwords may have one.
    let sign = from + memchr::memrchr(b'@', &text[from..stop])?;
    let start = from + memchr::memchr(b':', &text[from..sign])? + 1;
    let password = &text[start..sign];
    let variable = |name: &[u8]| !name.is_empty() && name.iter().all(|b| b.is_ascii_uppercase() || *b == b'_');
    let placeholder = password.is_empty()
        || matches!(password[0], b'<' | b'{' | b'[')
        || password.starts_with(b"${")
        || password.strip_prefix(b"$").is_some_and(variable)
        || password.windows(2).all(|pair| pair[0] == pair[1])
        || password == b"%s"
        || matches!(
            &password.to_ascii_lowercase()[..],
            b"password" | b"pass" | b"passwd" | b"pwd" | b"xxx" | b"secret" | b"your_password" | b"yourpassword"
        );
    if !placeholder {
        hits.push(Hit { start, end: sign, kind: Kind::Password, rule: "url_password", score: 95, custom: None });
    }
    Some(sign)
}
