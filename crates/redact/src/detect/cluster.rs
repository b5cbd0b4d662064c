//! Clusters: digits in groups, as people write numbers.
//!
//! From a digit on, groups of digits are gathered as long as short separators stand between them. A
//! number is one group or several; which, its rule decides by the groups' lengths. [`Run`] is such a
//! choice: its digits without separators, and how it was written.

/// Groups of one cluster; the most of a number that was typed digit by digit, and some room.
pub(crate) const GROUPS_MAX: usize = 24;
/// Digits of the longest number: a card's 19, and a country's prefix.
pub(crate) const DIGITS_MAX: usize = 22;

/// Where a group of digits stands.
pub(crate) type Group = (usize, usize);

/// Whether a byte may stand between two groups of digits.
fn is_separator(b: u8) -> bool {
    matches!(b, b' ' | b'-' | b'.' | b'/' | b'(' | b')' | b'\n' | b'\r' | b'\t' | b'_' | b'*' | b'~')
}

/// The end of the digits that begin at `at`.
pub(crate) fn digits_end(text: &[u8], at: usize) -> usize {
    at + text[at..].iter().take_while(|b| b.is_ascii_digit()).count()
}

/// The groups from `at` on; a fourth separator in a row ends them, and so does anything else.
pub(crate) fn groups(text: &[u8], at: usize, out: &mut Vec<Group>) {
    out.clear();
    let mut start = at;
    while out.len() < GROUPS_MAX {
        let end = digits_end(text, start);
        // Digits that a letter follows are a word of their own; only an X may end a number.
        let letter = text.get(end).is_some_and(|b| b.is_ascii_alphabetic() && !b.eq_ignore_ascii_case(&b'x'));
        if letter && !out.is_empty() {
            break;
        }
        out.push((start, end));
        let between = text[end..].iter().take(4).take_while(|b| is_separator(**b)).count();
        start = end + between;
        if between == 0 || between > 3 || !text.get(start).is_some_and(u8::is_ascii_digit) {
            break;
        }
    }
}

/// How the groups of a number are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// One group.
    None,
    /// The same separator everywhere, of one byte or with spaces around it.
    Regular,
    /// A line's end in the middle of a number, nothing else.
    Wrapped,
    /// Different separators: parentheses, or `86 138-0013-8000`.
    Mixed,
}

/// Some groups as one number.
#[derive(Debug)]
pub(crate) struct Run {
    /// The digits, without separators.
    pub(crate) digits: [u8; DIGITS_MAX],
    /// How many.
    pub(crate) len: usize,
    /// The groups' lengths, and how many groups.
    pub(crate) shape: [u8; GROUPS_MAX],
    pub(crate) groups: usize,
    /// How they are joined.
    pub(crate) join: Join,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Run {
    /// The number that `groups` make; `None` if it would be too long.
    pub(crate) fn of(text: &[u8], groups: &[Group]) -> Option<Run> {
        let (first, last) = (groups.first()?, groups.last()?);
        let mut run = Run {
            digits: [0; DIGITS_MAX],
            len: 0,
            shape: [0; GROUPS_MAX],
            groups: groups.len(),
            join: Join::None,
            start: first.0,
            end: last.1,
        };
        for (at, (start, end)) in groups.iter().enumerate() {
            let digits = &text[*start..*end];
            run.digits.get_mut(run.len..run.len + digits.len())?.copy_from_slice(digits);
            run.len += digits.len();
            run.shape[at] = digits.len() as u8;
        }
        let between = |at: usize| &text[groups[at].1..groups[at + 1].0];
        if groups.len() > 1 {
            let first = between(0);
            let wrapped = |between: &[u8]| between.contains(&b'\n');
            run.join = if groups.len() == 2 && wrapped(first) && first.iter().all(u8::is_ascii_whitespace) {
                Join::Wrapped
            } else if (1..groups.len() - 1).all(|at| between(at) == first) {
                Join::Regular
            } else {
                Join::Mixed
            };
        }
        Some(run)
    }

    /// The digits.
    pub(crate) fn digits(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    /// The groups' lengths.
    pub(crate) fn shape(&self) -> &[u8] {
        &self.shape[..self.groups]
    }

    /// Whether every group is one digit: typed digit by digit to slip through a filter.
    pub(crate) fn one_by_one(&self) -> bool {
        self.groups > 1 && self.join == Join::Regular && self.shape().iter().all(|len| *len == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (Vec<u8>, Join, usize) {
        let mut found = Vec::new();
        groups(text.as_bytes(), 0, &mut found);
        let run = Run::of(text.as_bytes(), &found).expect("a run");
        (run.digits().to_vec(), run.join, run.groups)
    }

    #[test]
    fn groups_end_where_a_number_would() {
        assert_eq!(check("138-0013-8000 x"), (b"13800138000".to_vec(), Join::Regular, 3));
        assert_eq!(check("138 - 0013 - 8000,1"), (b"13800138000".to_vec(), Join::Regular, 3));
        assert_eq!(check("1380013\n8000"), (b"13800138000".to_vec(), Join::Wrapped, 2));
        assert_eq!(check("415) 555-2671"), (b"4155552671".to_vec(), Join::Mixed, 3));
        assert_eq!(check("12    34"), (b"12".to_vec(), Join::None, 1));
    }
}
