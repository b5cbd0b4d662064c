//! What HTTP says in header lines, and `message.create` in members: the same words in two places.
//!
//! A member has its header's name without `tidegate-`, with `_` for `-`; two of the API's have names
//! of their own. Here only shapes are judged (a text, a number, a list); what values mean is judged
//! where headers are, by the same rule for every door.

use super::NUMBER_MAX;
use crate::dialect::BadFrame;
use crate::dialect::members::Members;
use crate::dialect::strict::Strict;
use crate::http::Headers;
use std::borrow::Cow;
use std::fmt;

/// The most bytes of one value.
const VALUE_BYTES_MAX: usize = 1024;
/// The most entries of `betas`, and the most bytes of one.
const BETAS_MAX: usize = 64;
const BETA_BYTES_MAX: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Text,
    Number,
    /// In a header, separated by commas.
    List,
}

/// Member, header, shape.
const LINES: &[(&str, &str, Shape)] = &[
    ("version", "anthropic-version", Shape::Text),
    ("betas", "anthropic-beta", Shape::List),
    ("conversation", "tidegate-conversation", Shape::Text),
    ("turn", "tidegate-turn", Shape::Number),
    ("body", "tidegate-body", Shape::Text),
    ("window", "tidegate-window", Shape::Text),
    ("budget", "tidegate-budget", Shape::Number),
    ("resume", "tidegate-resume", Shape::Text),
    ("recover", "tidegate-recover", Shape::Text),
    ("priority", "tidegate-priority", Shape::Text),
    ("deadline_ms", "tidegate-deadline-ms", Shape::Number),
    ("organisation", "tidegate-organisation", Shape::Text),
];

/// A header whose value has no place in `message.create`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLine(pub &'static str);

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has a value that message.create cannot carry", self.0)
    }
}

impl std::error::Error for BadLine {}

/// Header names and values.
pub(super) type Lines<'a> = Vec<(&'static str, Cow<'a, str>)>;

fn is_value(text: &str) -> bool {
    !text.is_empty() && text.len() <= VALUE_BYTES_MAX && text.trim() == text && !text.chars().any(char::is_control)
}

fn is_beta(text: &str) -> bool {
    (1..=BETA_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

/// Takes out of a frame what would be header lines.
pub(super) fn read<'a>(fields: &mut Strict<'a>) -> Result<Lines<'a>, BadFrame> {
    let mut lines = Lines::new();
    for (member, header, shape) in LINES.iter().copied() {
        let value = match shape {
            Shape::Text => fields.text(member)?,
            Shape::Number => fields.number(member, NUMBER_MAX)?.map(|n| Cow::Owned(n.to_string())),
            Shape::List => {
                let what = "Input should be a list of at most 64 words, each of 1 to 128 visible characters but commas";
                let entries = fields.texts(member, BETAS_MAX, is_beta, what)?;
                (!entries.is_empty()).then(|| Cow::Owned(entries.join(",")))
            }
        };
        let Some(value) = value else { continue };
        if shape == Shape::Text && !is_value(&value) {
            let what = "Input should be 1 to 1024 bytes of text without control characters and outer white space";
            return Err(fields.wrong(member, what));
        }
        lines.push((header, value));
    }
    Ok(lines)
}

/// Finds the lines among `headers` that have a place in a frame. Of a header that is repeated the
/// last line counts, or all of them if it is a list.
pub(super) fn of_headers(headers: &Headers) -> Result<Lines<'_>, BadLine> {
    let mut lines = Lines::new();
    for (_, header, shape) in LINES.iter().copied() {
        let mut values = headers.get_all(header).map(|v| std::str::from_utf8(v).map_err(|_| BadLine(header)));
        let value = match shape {
            Shape::List => {
                let entries: Vec<&str> = values.collect::<Result<_, _>>()?;
                let entries = entries.iter().flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty());
                let entries: Vec<&str> = entries.collect();
                if entries.len() > BETAS_MAX || !entries.iter().all(|e| is_beta(e)) {
                    return Err(BadLine(header));
                }
                (!entries.is_empty()).then(|| Cow::Owned(entries.join(",")))
            }
            Shape::Text | Shape::Number => values.try_fold(None, |_, v| v.map(|v| Some(Cow::Borrowed(v))))?,
        };
        let Some(value) = value else { continue };
        let good = match shape {
            Shape::Text => is_value(&value),
            Shape::Number => number(&value).is_some(),
            Shape::List => true,
        };
        if !good {
            return Err(BadLine(header));
        }
        lines.push((header, value));
    }
    Ok(lines)
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|n| *n <= NUMBER_MAX)
}

/// Writes lines as members. What is none of them is left out.
pub(super) fn write(lines: &Lines<'_>, members: &mut Members<'_>) {
    for (member, header, shape) in LINES.iter().copied() {
        let Some((_, value)) = lines.iter().find(|(name, _)| *name == header) else { continue };
        match shape {
            Shape::Text => members.value(member, value),
            Shape::Number => members.some(member, number(value)),
            Shape::List => members.value(member, &value.split(',').collect::<Vec<_>>()),
        };
    }
}
