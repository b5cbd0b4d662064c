//! The operator's own patterns, and what is let through.
//!
//! Patterns are regular expressions without look-around and back-references, compiled once under a
//! limit of size, and matched in time linear in the text. They see the shadow, as all rules do: digits
//! are ASCII there, invisible characters are gone. What is allowed is compared without case, spaces
//! and separators.

use super::Hit;
use crate::kind::Kind;
use regex_automata::meta::{BuildError, Regex};
use std::collections::BTreeSet;
use std::fmt;

/// Most patterns, own ones and allowed ones together: each makes every scan dearer.
pub(crate) const PATTERNS_MAX: usize = 64;
/// Most bytes of one pattern's text: longer ones are lists, and lists belong into `allow`.
pub(crate) const PATTERN_BYTES_MAX: usize = 4 << 10;
/// Most bytes of a compiled pattern; repetitions of repetitions grow without end.
const COMPILED_BYTES_MAX: usize = 2 << 20;
/// Most values that are let through.
pub(crate) const ALLOWED_MAX: usize = 10_000;

/// A pattern of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Its name in reports.
    pub name: String,
    /// The regular expression.
    pub regex: String,
}

/// Why patterns cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// More than 64 of them, or more than 10,000 allowed values.
    TooMany,
    /// A pattern is longer than 4 KiB.
    TooLong(String),
    /// A pattern is no regular expression, or compiles to too much; and why.
    Broken(String, String),
    /// A pattern matches nothing at all.
    Empty(String),
}

impl PatternError {
    /// Which pattern it is about, if it is about one: a pattern of what is allowed is its own name.
    pub fn pattern(&self) -> Option<&str> {
        match self {
            PatternError::TooMany => None,
            PatternError::TooLong(name) | PatternError::Broken(name, _) | PatternError::Empty(name) => Some(name),
        }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternError::TooMany => write!(f, "more than {PATTERNS_MAX} patterns or {ALLOWED_MAX} allowed values"),
            PatternError::TooLong(name) => write!(f, "pattern `{name}` is longer than {PATTERN_BYTES_MAX} bytes"),
            PatternError::Broken(name, why) => {
                write!(f, "pattern `{name}` is no regular expression that can be used: {why}")
            }
            PatternError::Empty(name) => write!(f, "pattern `{name}` matches the empty text"),
        }
    }
}

impl std::error::Error for PatternError {}

/// Why a pattern does not compile, in a line. The parser draws a picture; its last line says it.
fn why(error: &BuildError) -> String {
    if error.size_limit().is_some() {
        return "it compiles to too much".to_owned();
    }
    let drawn = error.syntax_error().map_or_else(|| error.to_string(), ToString::to_string);
    let last = drawn.lines().last().unwrap_or_default();
    last.trim().trim_start_matches("error: ").to_owned()
}

fn compile(name: &str, pattern: &str) -> Result<Regex, PatternError> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(PatternError::TooLong(name.to_owned()));
    }
    let config = Regex::config().nfa_size_limit(Some(COMPILED_BYTES_MAX)).hybrid_cache_capacity(COMPILED_BYTES_MAX);
    let broken = |error: &BuildError| PatternError::Broken(name.to_owned(), why(error));
    let regex = Regex::builder().configure(config).build(pattern).map_err(|error| broken(&error))?;
    if regex.is_match("") { Err(PatternError::Empty(name.to_owned())) } else { Ok(regex) }
}

/// Finds what the operator's patterns match.
#[derive(Debug)]
pub(crate) struct Custom(Vec<Regex>);

impl Custom {
    pub(crate) fn new(patterns: &[Pattern]) -> Result<Self, PatternError> {
        if patterns.len() > PATTERNS_MAX {
            return Err(PatternError::TooMany);
        }
        patterns.iter().map(|p| compile(&p.name, &p.regex)).collect::<Result<_, _>>().map(Custom)
    }

    pub(crate) fn scan(&self, text: &[u8], hits: &mut Vec<Hit>) {
        for (number, regex) in self.0.iter().enumerate() {
            hits.extend(regex.find_iter(text).filter(|found| !found.is_empty()).map(|found| Hit {
                start: found.start(),
                end: found.end(),
                kind: Kind::Custom,
                rule: "custom",
                score: 100,
                custom: Some(number as u16),
            }));
        }
    }
}

/// What is let through although a rule finds it.
#[derive(Debug)]
pub(crate) struct Allowed {
    values: BTreeSet<Vec<u8>>,
    /// `@example.com`: every address there.
    domains: Vec<Vec<u8>>,
    patterns: Vec<Regex>,
}

/// Without case, spaces and separators.
fn plain(value: &[u8]) -> Vec<u8> {
    let separator = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'-' | b'(' | b')');
    value.iter().filter(|b| !separator(b)).map(u8::to_ascii_lowercase).collect()
}

impl Allowed {
    pub(crate) fn new(values: &[String], patterns: &[String]) -> Result<Self, PatternError> {
        if patterns.len() > PATTERNS_MAX || values.len() > ALLOWED_MAX {
            return Err(PatternError::TooMany);
        }
        let (domains, values): (Vec<&String>, Vec<&String>) = values.iter().partition(|value| value.starts_with('@'));
        Ok(Allowed {
            values: values.into_iter().map(|value| plain(value.as_bytes())).collect(),
            domains: domains.into_iter().map(|domain| plain(domain.as_bytes())).collect(),
            patterns: patterns.iter().map(|p| compile(p, p)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether `value`, as it stands in the shadow, is let through.
    pub(crate) fn has(&self, value: &[u8]) -> bool {
        if self.values.is_empty() && self.domains.is_empty() && self.patterns.is_empty() {
            return false;
        }
        let plain = plain(value);
        let whole = |regex: &Regex| regex.find(value).is_some_and(|found| found.range() == (0..value.len()));
        self.values.contains(&plain)
            || self.domains.iter().any(|domain| plain.ends_with(domain))
            || self.patterns.iter().any(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(regex: &str) -> Vec<Pattern> {
        vec![Pattern { name: "mine".to_owned(), regex: regex.to_owned() }]
    }

    #[test]
    fn patterns_that_cannot_be_used_are_refused_by_name() {
        let broken = |why: &str| PatternError::Broken("mine".to_owned(), why.to_owned());
        assert_eq!(Custom::new(&pattern("(")).unwrap_err(), broken("unclosed group"));
        assert_eq!(
            Custom::new(&pattern("(?=x)")).unwrap_err(),
            broken("look-around, including look-ahead and look-behind, is not supported")
        );
        assert_eq!(Custom::new(&pattern("a*")).unwrap_err(), PatternError::Empty("mine".to_owned()));
        assert_eq!(Custom::new(&pattern(r"((\w{1000}){1000}){100}")).unwrap_err(), broken("it compiles to too much"));
        assert_eq!(Custom::new(&pattern(&"x".repeat(5000))).unwrap_err(), PatternError::TooLong("mine".to_owned()));
        assert_eq!(Custom::new(&vec![pattern("x").remove(0); 65]).unwrap_err(), PatternError::TooMany);
    }

    #[test]
    fn what_is_allowed_is_compared_without_its_dress() {
        let allowed =
            Allowed::new(&["400-820 8820".to_owned(), "@Example.com".to_owned()], &[r"10\.\d+".to_owned()]).unwrap();
        assert!(allowed.has(b"4008208820") && allowed.has(b"bob@example.com") && allowed.has(b"10.7"));
        assert!(!allowed.has(b"4008208821") && !allowed.has(b"bob@example.org") && !allowed.has(b"10.7.8"));
    }
}
