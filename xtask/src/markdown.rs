//! The little of Markdown that this tool reads: fenced blocks, code spans, headings.
//!
//! A fence opens with three or more backticks at the start of a line (indented at most by three
//! spaces) and closes with at least as many and nothing else. Code spans are read outside fences
//! and within one line.

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    /// What stands after the opening backticks.
    pub(crate) info: String,
    /// The lines between, each with its newline.
    pub(crate) body: String,
    /// The line of the opening backticks, counted from 1.
    pub(crate) line: usize,
}

impl Fence {
    /// The first word of the info string, which is the language.
    pub(crate) fn language(&self) -> &str {
        self.info.split_whitespace().next().unwrap_or("")
    }
}

/// A line of the text, sorted.
enum Line<'a> {
    Open(&'a str),
    Close,
    Inside(&'a str),
    Outside(&'a str),
}

fn lines(text: &str) -> impl Iterator<Item = (usize, Line<'_>)> {
    let mut open: Option<usize> = None;
    text.lines().enumerate().map(move |(index, line)| {
        let bare = line.trim_start_matches(' ');
        let ticks = if line.len() - bare.len() <= 3 { bare.bytes().take_while(|b| *b == b'`').count() } else { 0 };
        let info = bare.get(ticks..).unwrap_or("").trim();
        let sorted = match open {
            None if ticks >= 3 && !info.contains('`') => {
                open = Some(ticks);
                Line::Open(info)
            }
            None => Line::Outside(line),
            Some(least) if ticks >= least && info.is_empty() => {
                open = None;
                Line::Close
            }
            Some(_) => Line::Inside(line),
        };
        (index + 1, sorted)
    })
}

/// All fenced blocks, in order.
pub(crate) fn fences(text: &str) -> Vec<Fence> {
    let mut found: Vec<Fence> = Vec::new();
    for (number, line) in lines(text) {
        match (line, found.last_mut()) {
            (Line::Open(info), _) => {
                found.push(Fence { info: info.to_owned(), body: String::new(), line: number });
            }
            (Line::Inside(inside), Some(fence)) => {
                fence.body.push_str(inside);
                fence.body.push('\n');
            }
            _ => {}
        }
    }
    found
}

/// All code spans outside fences, with their line.
pub(crate) fn code_spans(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in lines(text) {
        if let Line::Outside(line) = line {
            found.extend(line.split('`').skip(1).step_by(2).map(|span| (number, span)));
        }
    }
    found
}

/// All headings outside fences, without their signs.
pub(crate) fn headings(text: &str) -> Vec<&str> {
    let outside = lines(text).filter_map(|(_, line)| if let Line::Outside(line) = line { Some(line) } else { None });
    outside.filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Title `x`\n\nSee `crates/a` and `b c`.\n```sh serve\none\n``\ntwo\n```\n## `code`\n````md\n```sh\n# not a heading `no`\n```\n````\n";

    #[test]
    fn fences_keep_their_info_and_lines() {
        let found = fences(PAGE);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Fence { info: "sh serve".into(), body: "one\n``\ntwo\n".into(), line: 4 });
        assert_eq!(found[0].language(), "sh");
        assert_eq!(found[1].body, "```sh\n# not a heading `no`\n```\n");
    }

    #[test]
    fn spans_and_headings_are_read_outside_fences_only() {
        assert_eq!(code_spans(PAGE), [(1, "x"), (3, "crates/a"), (3, "b c"), (9, "code")]);
        assert_eq!(headings(PAGE), ["Title `x`", "`code`"]);
    }
}
