//! What a person sees. Answers, and what a command asks for, go to standard output; everything about
//! them (prompt, notes, errors) goes to standard error, so that a pipe gets the answers alone.
//!
//! Nothing that came from elsewhere reaches the terminal as it is. A terminal takes orders from
//! control characters: to clear the screen, to set its title, to answer as if its user had typed.
//! A model repeats what it was shown, so whoever can put a page before it could give such orders.
//! They are shown by their numbers instead (`\u{1b}`), and so are the marks that turn the order of
//! characters round. Only this file writes escape sequences, and only for dim and bold text.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

/// Whether a terminal could take `c` for an order, or show what follows it in another order.
fn is_order(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' => true,
        // C0, DEL, and C1, whose U+009B begins a sequence as ESC [ does.
        c => c.is_control(),
    }
}

/// The text with every order in it spelt out.
pub(in crate::commands) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(is_order) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // The end of a line as some machines write it.
            '\r' if chars.peek() == Some(&'\n') => {}
            c if is_order(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// How text looks where colours are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Plain,
    Dim,
    Bold,
}

/// One of the two outputs.
struct Output {
    to: Box<dyn Write>,
    colours: bool,
    /// Whether the next character is the first of its line.
    fresh: bool,
}

impl Output {
    fn new(to: Box<dyn Write>, is_terminal: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let able = std::env::var_os("TERM").is_some_and(|v| v != "dumb");
        Output { to, colours: is_terminal && wanted && able, fresh: true }
    }

    fn write(&mut self, text: &str, look: Look) {
        let text = harmless(text);
        let Some(last) = text.chars().next_back() else { return };
        self.fresh = last == '\n';
        let begin = match look {
            Look::Dim if self.colours => "\x1b[2m",
            Look::Bold if self.colours => "\x1b[1m",
            _ => "",
        };
        let end = if begin.is_empty() { "" } else { "\x1b[0m" };
        // An output that is closed (a pipe to `head`) is no error: there is nobody to tell.
        let _ = write!(self.to, "{begin}{text}{end}").and_then(|()| self.to.flush());
    }

    fn fresh_line(&mut self) {
        if !self.fresh {
            self.write("\n", Look::Plain);
        }
    }
}

/// The two outputs.
pub(super) struct Screen {
    answers: Output,
    notes: Output,
    /// Whether both are one terminal, whose lines they share.
    is_one: bool,
    /// Whether a person sits before it, who is shown a prompt.
    pub(super) has_person: bool,
}

impl Screen {
    /// Standard output and standard error of this process.
    pub(super) fn of_process() -> Self {
        let (out, err) = (std::io::stdout(), std::io::stderr());
        let has_person = std::io::stdin().is_terminal() && err.is_terminal();
        let (out_is, err_is) = (out.is_terminal(), err.is_terminal());
        let (answers, notes) = (Output::new(Box::new(out), out_is), Output::new(Box::new(err), err_is));
        Screen { answers, notes, is_one: out_is && err_is, has_person }
    }

    fn fresh_line(&mut self) {
        if self.is_one && !self.answers.fresh {
            self.notes.fresh = true;
        }
        self.answers.fresh_line();
        self.notes.fresh_line();
    }

    /// A piece of an answer.
    pub(super) fn answer(&mut self, text: &str) {
        self.answers.write(text, Look::Plain);
    }

    /// A line of what a command asked for.
    pub(super) fn line(&mut self, text: &str) {
        self.answers.fresh_line();
        self.answers.write(text, Look::Plain);
        self.answers.fresh_line();
    }

    /// Such a line that heads others.
    pub(super) fn heading(&mut self, text: &str) {
        self.answers.fresh_line();
        self.answers.write(text, Look::Bold);
        self.answers.fresh_line();
    }

    /// A line about the answers.
    pub(super) fn note(&mut self, text: &str) {
        self.fresh_line();
        self.notes.write(text, Look::Dim);
        self.notes.fresh_line();
    }

    /// A line that must be seen.
    pub(super) fn warn(&mut self, text: &str) {
        self.fresh_line();
        self.notes.write(text, Look::Bold);
        self.notes.fresh_line();
    }

    /// What stands before a person's line; others see none.
    pub(super) fn prompt(&mut self, text: &str) {
        if self.has_person {
            self.fresh_line();
            self.notes.write(text, Look::Bold);
            // The line that is typed ends itself.
            self.notes.fresh = true;
        }
    }

    /// Something stands in a person's line that the line did not end with: `^C`, or a prompt that was
    /// answered with the end of the input.
    pub(super) fn line_is_open(&mut self) {
        self.notes.fresh = self.notes.fresh && !self.has_person;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is written to a screen whose two outputs are one page, as on a terminal.
    fn shown(colours: bool, show: impl FnOnce(&mut Screen)) -> String {
        let page = Page::default();
        let output = || Output { to: Box::new(page.clone()), colours, fresh: true };
        let mut screen = Screen { answers: output(), notes: output(), is_one: true, has_person: true };
        show(&mut screen);
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_order_to_the_terminal_passes() {
        for c in (0..=0x9f).chain(0x2028..=0x202e).chain(0x2066..=0x2069).filter_map(char::from_u32) {
            let shown = harmless(&format!("a{c}b")).into_owned();
            let is_text = matches!(c, '\n' | '\t' | ' '..='~');
            assert_eq!(shown.contains(c), is_text, "{:x} {shown}", u32::from(c));
            assert_eq!(
                shown.contains(&format!("u{{{:x}}}", u32::from(c))) || shown.contains("\\r"),
                !is_text,
                "{shown}"
            );
        }
        assert_eq!(harmless("\u{1b}]0;title\u{7}\u{9b}2J"), "\\u{1b}]0;title\\u{7}\\u{9b}2J");
    }

    #[test]
    fn text_in_any_language_passes_as_it_is() {
        let text = "Ebb — 潮の満ち引き 🏴\u{e0067}\u{e007f} 👩\u{200d}🚀 שלום\u{200f} می\u{200c}خواهم\t|\n";
        assert!(matches!(harmless(text), Cow::Borrowed(same) if same == text));
        assert_eq!(harmless("one\r\ntwo\rthree"), "one\ntwo\\rthree");
    }

    #[test]
    fn only_our_own_looks_are_sequences_and_only_where_colours_are() {
        let show = |screen: &mut Screen| {
            screen.answer("\u{1b}[31mred");
            screen.note("dim \u{1b}[0m");
            screen.warn("bold");
        };
        let plain = shown(false, show);
        assert_eq!(plain, "\\u{1b}[31mred\ndim \\u{1b}[0m\nbold\n");
        let coloured = shown(true, show);
        assert_eq!(coloured, "\\u{1b}[31mred\n\x1b[2mdim \\u{1b}[0m\x1b[0m\n\x1b[1mbold\x1b[0m\n");
    }

    #[test]
    fn a_line_of_ours_begins_on_a_line_of_its_own() {
        let text = shown(false, |screen| {
            screen.answer("half ");
            screen.answer("a line");
            screen.note("note");
            screen.answer("whole\n");
            screen.note("note");
            screen.prompt("> ");
            screen.answer("");
            screen.line_is_open();
            screen.note("note");
            screen.answer("half ^C");
            screen.line_is_open();
            screen.note("stopped");
        });
        assert_eq!(text, "half a line\nnote\nwhole\nnote\n> \nnote\nhalf ^C\nstopped\n");
    }
}
