//! Detection: text in, findings out.
//!
//! Each text becomes a shadow (`shadow`), in which one pass stops at digits, colons and at signs, and
//! one automaton at the prefixes of secrets. From each stop a few rules look around: numbers in groups
//! (`number`, with `phone`, `card` and `national`), words with digits (`word`), network addresses
//! (`net`), secrets (`secret`). Check digits and forms decide, words nearby (`cue`) raise or lower a
//! score; what reaches `SCORE_MIN` counts. Of findings that overlap, the surer one stays, then the
//! longer, then the earlier.
//!
//! Everything is linear in the text: what a rule looks at around a stop has a maximum.

mod card;
mod cluster;
mod cue;
pub(crate) mod custom;
mod national;
mod net;
mod number;
mod people;
mod phone;
mod secret;
mod vendors;
mod word;

use crate::kind::{KINDS, Kind};
use crate::shadow::Shadow;
use cue::Cues;
use custom::{Allowed, Custom};
pub use custom::{Pattern, PatternError};
use people::People;
use secret::Secrets;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// From this score on a candidate is a finding.
pub(crate) const SCORE_MIN: i32 = 50;

/// A candidate in the shadow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) kind: Kind,
    pub(crate) rule: &'static str,
    pub(crate) score: i32,
    pub(crate) custom: Option<u16>,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it stands, in bytes of the text as it was given.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind,
    /// The rule that found it: a country's number, a vendor.
    pub rule: &'static str,
    /// Which of the operator's patterns, if it was one.
    pub pattern: Option<u16>,
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looking {
    /// Which kinds, by [`Kind::index`].
    pub kinds: [bool; KINDS],
    /// Whether private and local IP addresses count.
    pub private_ips: bool,
    /// The operator's own patterns.
    pub patterns: Vec<Pattern>,
    /// Values that are let through; `@example.com` lets every address there through.
    pub allow: Vec<String>,
    /// Patterns of values that are let through.
    pub allow_patterns: Vec<String>,
}

impl Default for Looking {
    /// Everything but names and addresses.
    fn default() -> Self {
        let kinds = Kind::ALL.map(|kind| !matches!(kind, Kind::Name | Kind::Address));
        Looking { kinds, private_ips: false, patterns: Vec::new(), allow: Vec::new(), allow_patterns: Vec::new() }
    }
}

/// Why a detector cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookingError {
    /// One of the operator's patterns cannot be used.
    Pattern(PatternError),
    /// A pattern of our own does not compile: a fault of this code.
    Built(&'static str),
}

impl fmt::Display for LookingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LookingError::Pattern(error) => error.fmt(f),
            LookingError::Built(what) => write!(f, "the built-in patterns of {what} do not compile"),
        }
    }
}

impl std::error::Error for LookingError {}

/// Buffers of a scan, to be used again.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) shadow: Shadow,
    hits: Vec<Hit>,
    groups: Vec<cluster::Group>,
}

/// Finds personal data and secrets. Made once; shared by threads.
#[derive(Debug)]
pub struct Detector {
    cues: Cues,
    secrets: Secrets,
    people: People,
    custom: Custom,
    allowed: Allowed,
    kinds: [bool; KINDS],
    private_ips: bool,
}

/// The next byte from `at` on that a rule begins at: a digit, a colon, an at sign.
fn stop(text: &[u8], mut at: usize) -> Option<usize> {
    const LANES: usize = 32;
    // Digits and the colon are neighbours in ASCII.
    let is_stop = |b: &u8| b.wrapping_sub(b'0') < 11 || *b == b'@';
    while let Some(chunk) = text.get(at..at + LANES) {
        // Without an early end inside, so that it becomes vector instructions.
        if chunk.iter().fold(false, |any, b| any | is_stop(b)) {
            break;
        }
        at += LANES;
    }
    text.get(at..)?.iter().position(is_stop).map(|found| at + found)
}

impl Detector {
    /// A detector for what `looking` asks for.
    pub fn new(looking: &Looking) -> Result<Self, LookingError> {
        let wants = |kind: Kind| looking.kinds[kind.index()];
        Ok(Detector {
            cues: Cues::new().map_err(|_| LookingError::Built("cues"))?,
            secrets: Secrets::new().map_err(|_| LookingError::Built("secrets"))?,
            people: People::new(wants(Kind::Name), wants(Kind::Address)).map_err(|_| LookingError::Built("people"))?,
            custom: Custom::new(&looking.patterns).map_err(LookingError::Pattern)?,
            allowed: Allowed::new(&looking.allow, &looking.allow_patterns).map_err(LookingError::Pattern)?,
            kinds: looking.kinds,
            private_ips: looking.private_ips,
        })
    }

    /// Everything that is found in `text`, in order, without overlaps. `text` may be the inside of a
    /// JSON string, escapes and all; a finding's span never cuts an escape.
    pub fn find(&self, text: &str) -> Vec<Finding> {
        self.find_with(&mut Scratch::default(), text)
    }

    /// The same with buffers to use again.
    pub fn find_with(&self, scratch: &mut Scratch, text: &str) -> Vec<Finding> {
        let Scratch { shadow, hits, groups } = scratch;
        shadow.cast(text.as_bytes());
        hits.clear();
        let plain = shadow.text();
        self.walk(plain, groups, hits);
        self.secrets.scan(plain, hits);
        self.people.scan(plain, hits);
        self.custom.scan(plain, hits);
        hits.retain(|hit| self.kinds[hit.kind.index()] && !self.allowed.has(&plain[hit.start..hit.end]));
        best(hits);
        let finding = |hit: &Hit| Finding {
            span: shadow.raw(hit.start..hit.end),
            kind: hit.kind,
            rule: hit.rule,
            pattern: hit.custom,
        };
        hits.iter().map(finding).collect()
    }

    /// From stop to stop.
    fn walk(&self, text: &[u8], groups: &mut Vec<cluster::Group>, hits: &mut Vec<Hit>) {
        let mut at = 0;
        while let Some(found) = stop(text, at) {
            at = match text[found] {
                b'@' => net::email(text, found, hits).unwrap_or(found + 1),
                b':' => net::url_password(text, found, hits)
                    .or_else(|| net::ipv6(text, found, self.private_ips, hits))
                    .unwrap_or(found + 1),
                _ => self.digit(text, found, groups, hits),
            };
        }
    }

    /// A digit: what the word is that it stands in, and where to go on.
    fn digit(&self, text: &[u8], at: usize, groups: &mut Vec<cluster::Group>, hits: &mut Vec<Hit>) -> usize {
        let is_part = |b: &&u8| b.is_ascii_alphanumeric();
        let start = at - text[..at].iter().rev().take(word::WORD_BYTES_MAX).take_while(is_part).count();
        let end = at + text[at..].iter().take_while(is_part).count();
        if end - start > word::WORD_BYTES_MAX {
            return end;
        }
        let letters = text[start..end].iter().filter(|b| b.is_ascii_alphabetic()).count();
        let trailing = text[end - 1].eq_ignore_ascii_case(&b'x') && letters == 1;
        let leading = at > start && letters == at - start && end - at >= 7;
        if letters > 0 && !trailing {
            let next = word::scan(text, start, end, &self.cues, hits);
            if leading && letters <= 10 && next == end {
                number::scan(text, at, true, &self.cues, groups, hits);
            }
            return next;
        }
        let dotted = text.get(end) == Some(&b'.');
        if let Some(next) = dotted.then(|| net::ipv4(text, at, &self.cues, self.private_ips, hits)).flatten() {
            return next;
        }
        let next = number::scan(text, at, false, &self.cues, groups, hits);
        word::around_digits(text, at, next, &self.cues, hits);
        next.max(at + 1)
    }
}

/// Of overlapping hits the best; what is left is in order.
fn best(hits: &mut Vec<Hit>) {
    if hits.len() < 2 {
        return;
    }
    hits.sort_by_key(|hit| (std::cmp::Reverse((hit.score, hit.end - hit.start)), hit.start));
    let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
    hits.retain(|hit| {
        let free = taken.range(..hit.end).next_back().is_none_or(|(_, end)| *end <= hit.start);
        if free {
            taken.insert(hit.start, hit.end);
        }
        free
    });
    hits.sort_by_key(|hit| hit.start);
}
