//! Tables for operators, in plain text.
//!
//! What stands in a cell was named by others: clients choose models and conversations. So control
//! characters are spelt out before anything reaches the terminal, line ends and tabs among them: a
//! cell is one piece of one line.

use super::chat::harmless;
use std::fmt::Write;
use std::process::{Command, Stdio};

/// Longest cell, characters: of a longer one the middle is left out.
const CELL_CHARS_MAX: usize = 48;

/// A text as a cell: one line, nothing in it an order to a terminal; `-` for nothing.
pub(super) fn cell(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    let plain = harmless(text).replace('\n', "\\n").replace('\t', "\\t");
    let chars = plain.chars().count();
    if chars <= CELL_CHARS_MAX {
        return plain;
    }
    let begin: String = plain.chars().take(CELL_CHARS_MAX / 2).collect();
    let end: String = plain.chars().skip(chars - (CELL_CHARS_MAX / 2 - 1)).collect();
    format!("{begin}\u{2026}{end}")
}

/// Which columns stand at the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Rows under their headings, in columns as wide as they need be; no line is wider than `width`.
pub(super) fn grid(headings: &[(&str, Side)], rows: &[Vec<String>], width: Option<usize>) -> String {
    let count = |text: &str| text.chars().count();
    let widths: Vec<usize> = headings
        .iter()
        .enumerate()
        .map(|(c, (name, _))| rows.iter().map(|row| count(&row[c])).chain([count(name)]).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    let head = headings.iter().map(|(name, _)| (*name).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for ((text, (_, side)), width) in row.iter().zip(headings).zip(&widths) {
            let gap = if line.is_empty() { "" } else { "  " };
            // Writing into a string cannot fail.
            let _ = match side {
                Side::Left => write!(line, "{gap}{text:<width$}"),
                Side::Right => write!(line, "{gap}{text:>width$}"),
            };
        }
        out.push_str(&within(line.trim_end(), width));
        out.push('\n');
    }
    out
}

/// A line, cut to a terminal's width.
pub(super) fn within(line: &str, width: Option<usize>) -> String {
    line.chars().take(width.unwrap_or(usize::MAX)).collect()
}

/// A span as people read it: `850 ms`, `12.3 s`, `4 min`, `3 h`.
pub(super) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// Lines and columns of the terminal; of one that does not say, those of the oldest.
pub(super) fn terminal() -> (usize, usize) {
    let said = || {
        let tty = std::fs::File::open("/dev/tty").ok()?;
        let said = Command::new("stty").arg("size").stdin(tty).stderr(Stdio::null()).output().ok()?;
        let said = String::from_utf8(said.stdout).ok()?;
        let (lines, columns) = said.trim().split_once(' ')?;
        Some((lines.parse().ok().filter(|n| *n > 0)?, columns.parse().ok().filter(|n| *n > 0)?))
    };
    said().unwrap_or((24, 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_gives_the_terminal_an_order() {
        assert_eq!(cell("a\x1b[2Jb\r\n\tc\u{9b}0m\u{202e}"), "a\\u{1b}[2Jb\\n\\tc\\u{9b}0m\\u{202e}");
        assert_eq!(cell(""), "-");
        let long = cell(&"x".repeat(500));
        assert_eq!((long.chars().count(), long.contains('\u{2026}')), (CELL_CHARS_MAX, true));
    }

    #[test]
    fn columns_stand_under_their_headings_and_end_at_the_edge() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "1000".to_owned()]];
        let heads = [("X", Side::Left), ("N", Side::Right)];
        assert_eq!(grid(&heads, &rows, None), "X       N\na       1\nbcd  1000\n");
        assert_eq!(grid(&heads, &rows, Some(5)), "X    \na    \nbcd  \n");
    }

    #[test]
    fn spans_have_the_unit_that_suits_them() {
        assert_eq!([999, 12_345, 61_000, 7_200_000].map(span), ["999 ms", "12.3 s", "1 min", "2 h"]);
    }
}
