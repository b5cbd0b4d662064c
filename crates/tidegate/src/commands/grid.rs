//! Tables for operators, in plain text.
//!
//! What stands in a cell was named by others: clients choose models and conversations. So control
//! characters are spelt out before anything reaches the terminal, line ends and tabs among them: a
//! cell is one piece of one line. Widths are those of a terminal, where a Chinese character takes
//! two places and an accent none.
//!
//! In a terminal a table keeps to its width, since a wrapped row is none any more. Columns come in the
//! order of their rank for as long as there is room for the least of each; what room is left goes to
//! those that are cut, place by place. A text that is cut loses its middle: ids differ at their ends.

use super::chat::harmless;
use std::process::{Command, Stdio};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Widest cell, in places of the terminal.
const CELL_WIDTH_MAX: usize = 48;
/// Between two columns.
const GAP: &str = "  ";

/// A text as a cell: one line, nothing in it an order to a terminal; `-` for nothing.
pub(super) fn cell(text: &str) -> String {
    if text.is_empty() {
        return NOTHING.to_owned();
    }
    cut(&harmless(text).replace('\n', "\\n").replace('\t', "\\t"), CELL_WIDTH_MAX)
}

/// A cell in which nothing stands.
const NOTHING: &str = "-";

/// `text` in at most so many places: what is too much is left out of its middle.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let (mut end, mut left) = (text.len(), room / 2);
    for (at, c) in text.char_indices().rev() {
        match left.checked_sub(c.width().unwrap_or(0)) {
            Some(rest) => (end, left) = (at, rest),
            None => break,
        }
    }
    // What joins the character before it stays with that.
    let behind = text[end..].trim_start_matches(|c: char| c.width() == Some(0));
    let begin = within(text, room - behind.width().min(room));
    if width == 0 { String::new() } else { format!("{begin}\u{2026}{behind}") }
}

/// The beginning of a line that fits so many places.
pub(super) fn within(line: &str, width: usize) -> &str {
    let mut left = width;
    for (at, c) in line.char_indices() {
        match left.checked_sub(c.width().unwrap_or(0)) {
            Some(rest) => left = rest,
            None => return &line[..at],
        }
    }
    line
}

/// At which side of a column its cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// A column, as one is declared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    head: &'static str,
    side: Side,
    /// What it may be cut to, in places; `usize::MAX`: not at all.
    least: usize,
    /// Those with the smallest come first where there is no room for all.
    rank: usize,
}

impl Column {
    /// Numbers, at the right, never cut.
    pub(super) const fn numbers(head: &'static str, rank: usize) -> Self {
        Column { head, side: Side::Right, least: usize::MAX, rank }
    }

    /// Names, at the left, cut to no fewer places than `least`.
    pub(super) const fn names(head: &'static str, rank: usize, least: usize) -> Self {
        Column { head, side: Side::Left, least, rank }
    }
}

/// Rows under their headings, in columns as wide as they need be; no line is wider than `width`. The
/// headings of columns for which there was no room are told beside it.
pub(super) fn grid(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> (String, Vec<&'static str>) {
    let widths = fit(columns, rows, width.unwrap_or(usize::MAX));
    let mut out = String::new();
    let head: Vec<String> = columns.iter().map(|column| column.head.to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for ((text, column), width) in row.iter().zip(columns).zip(&widths) {
            let Some(width) = *width else { continue };
            let text = cut(text, width);
            let pad = " ".repeat(width - text.width());
            let [before, behind] = match column.side {
                Side::Left => [text.as_str(), pad.as_str()],
                Side::Right => [pad.as_str(), text.as_str()],
            };
            if !line.is_empty() {
                line.push_str(GAP);
            }
            line.push_str(before);
            line.push_str(behind);
        }
        out.push_str(within(line.trim_end(), width.unwrap_or(usize::MAX)));
        out.push('\n');
    }
    let left_out = columns.iter().zip(&widths).filter(|(_, width)| width.is_none()).map(|(column, _)| column.head);
    (out, left_out.collect())
}

/// How wide each column is; `None` for those that have no room.
fn fit(columns: &[Column], rows: &[Vec<String>], width: usize) -> Vec<Option<usize>> {
    let cells = |c: usize| rows.iter().map(move |row| row[c].as_str());
    let whole: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(c, column)| cells(c).map(UnicodeWidthStr::width).chain([column.head.len()]).max().unwrap_or(0))
        .collect();
    // A column in which nothing stands goes last.
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by_key(|&c| (cells(c).all(|text| text == NOTHING), columns[c].rank));
    let mut widths = vec![None; columns.len()];
    let mut left = width.saturating_add(GAP.len());
    for &c in &order {
        let least = whole[c].min(columns[c].least.max(columns[c].head.len()));
        if let Some(rest) = left.checked_sub(least.saturating_add(GAP.len())) {
            (widths[c], left) = (Some(least), rest);
        }
    }
    // Of a terminal that is narrower than one column the first is shown, cut.
    if widths.iter().all(Option::is_none)
        && let Some(&first) = order.first()
    {
        widths[first] = Some(width.min(whole[first]));
        return widths;
    }
    let mut grew = true;
    while grew && left > 0 {
        grew = false;
        for &c in &order {
            if let Some(width) = widths[c].as_mut()
                && *width < whole[c]
                && left > 0
            {
                (*width, left, grew) = (*width + 1, left - 1, true);
            }
        }
    }
    widths
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

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|text| (*text).to_owned()).collect()).collect()
    }

    #[test]
    fn no_cell_gives_the_terminal_an_order() {
        assert_eq!(cell("a\x1b[2Jb\r\n\tc\u{9b}0m\u{202e}"), "a\\u{1b}[2Jb\\n\\tc\\u{9b}0m\\u{202e}");
        assert_eq!(cell(""), "-");
        let long = cell(&"x".repeat(500));
        assert_eq!((long.width(), long.contains('\u{2026}')), (CELL_WIDTH_MAX, true));
    }

    #[test]
    fn what_is_too_long_loses_its_middle_and_never_half_a_character() {
        assert_eq!(cut("req_0123456789", 9), "req_\u{2026}6789");
        assert_eq!(cut("\u{6f6e}\u{6c50}\u{6f6e}\u{6c50}", 6), "\u{6f6e}\u{2026}\u{6c50}");
        assert_eq!(cut("e\u{301}e\u{301}e\u{301}e\u{301}", 3), "e\u{301}\u{2026}e\u{301}");
        for width in 0..12 {
            for text in [
                "\u{6f6e}a\u{6c50}b\u{6f6e}c\u{6c50}d",
                "abcdefghijklmn",
                "\u{1f468}\u{200d}\u{1f469}e\u{301}\u{301}xxxxxxxxx",
            ] {
                assert!(cut(text, width).width() <= width, "{text} in {width}: {}", cut(text, width));
            }
        }
    }

    #[test]
    fn columns_stand_under_their_headings_and_end_at_the_edge() {
        let heads = [Column::names("X", 0, 3), Column::numbers("N", 1)];
        let rows = rows(&[&["a", "1"], &["\u{6f6e}\u{6c50}", "1000"]]);
        let (text, left_out) = grid(&heads, &rows, None);
        assert_eq!(text, "X        N\na        1\n\u{6f6e}\u{6c50}  1000\n");
        assert_eq!(left_out, [""; 0]);
        let (text, left_out) = grid(&heads, &rows, Some(9));
        assert_eq!((text.as_str(), left_out), ("X       N\na       1\n\u{6f6e}\u{2026}  1000\n", vec![]));
        let (text, left_out) = grid(&heads, &rows, Some(5));
        assert_eq!((text.as_str(), left_out), ("X\na\n\u{6f6e}\u{6c50}\n", vec!["N"]));
        assert!(grid(&heads, &rows, Some(2)).0.lines().all(|line| line.width() <= 2));
    }

    #[test]
    fn the_first_in_rank_have_room_and_empty_columns_make_room_for_others() {
        let heads = [Column::names("ID", 0, 26), Column::names("NAME", 2, 4), Column::names("WAITS", 1, 5)];
        let id = "x".repeat(26);
        let waiting = rows(&[&[&id, "somebody", "quota"]]);
        assert_eq!(grid(&heads, &waiting, Some(36)).1, ["NAME"]);
        let idle = rows(&[&[&id, "somebody", "-"]]);
        let (text, left_out) = grid(&heads, &idle, Some(36));
        assert_eq!((left_out, text.contains("somebody")), (vec!["WAITS"], true), "{text}");
    }

    #[test]
    fn spans_have_the_unit_that_suits_them() {
        assert_eq!([999, 12_345, 61_000, 7_200_000].map(span), ["999 ms", "12.3 s", "1 min", "2 h"]);
    }
}
