//! What a person, or a pipe, says: lines, lines that go on, and commands.
//!
//! Standard input is read on a thread of its own, since a read of it cannot be given up. It is one
//! line ahead at most. A terminal hands lines over whole and cuts them at 4,095 bytes; longer ones
//! come through a pipe, or in parts that end with `\`.

use super::Failed;
use std::io::{BufRead, Read};
use tokio::sync::mpsc;

/// The longest message, in one line or many: a million tokens of English, more than any model takes.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// A line, or why there is none.
type Line = Result<String, &'static str>;

const NOT_TEXT: &str = "that line is not UTF-8; nothing was sent";
const TOO_LONG: &str = "that message is over 4 MiB; nothing was sent";
const UNFINISHED: &str = "the input ended inside a message that goes on; nothing was sent";

/// Lines as they come.
pub(super) struct Lines {
    come: mpsc::Receiver<Line>,
    /// Lines that went on, each with its end.
    draft: String,
}

/// What a line meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A message is whole.
    Message(String),
    /// A command.
    Command(Command),
    /// The message goes on in the next line.
    GoesOn,
    /// Nothing.
    Nothing,
    /// Something that cannot be done.
    Wrong(String),
}

/// A line that begins with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// The last so many turns.
    Turns(u64),
    /// What would be sent now.
    Window,
    /// Go on in a copy, with this name or a new one.
    Fork(Option<String>),
    /// Delete the conversation.
    Delete,
    /// The last message once more.
    Again,
    /// List the commands.
    Help,
    /// Leave.
    Quit,
}

/// What `/help` shows.
pub(super) const HELP: &str = "\
/turns [N]    the last N turns (5)
/window       what would be sent now, part by part
/fork [ID]    go on in a copy of this conversation
/delete       delete this conversation, for good
/again        send the last message once more; no turn is ever doubled
/quit         leave, as Ctrl-D does
A line that ends with \\ goes on in the next one; a message that begins with / is written with //.
Ctrl-C stops an answer; once more leaves.";

/// Turns that `/turns` shows if no number is given.
const TURNS: u64 = 5;
/// The most that may be asked for.
const TURNS_MAX: u64 = 1_000;

impl Lines {
    /// Reads standard input from now on.
    pub(super) fn of_process() -> Result<Self, Failed> {
        let (send, come) = mpsc::channel(1);
        let read = move || read_all(&mut std::io::stdin().lock(), |line| send.blocking_send(line).is_ok());
        std::thread::Builder::new().name("input".into()).spawn(read).map_err(Failed::because)?;
        Ok(Lines { come, draft: String::new() })
    }

    /// The next line as it is; `None` at the end of the input. Cancel-safe.
    pub(super) async fn line(&mut self) -> Option<Line> {
        self.come.recv().await
    }

    /// What the next line means. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Said> {
        match self.line().await {
            Some(Ok(line)) => Some(self.understand(&line)),
            Some(Err(why)) => {
                self.forget();
                Some(Said::Wrong(why.to_owned()))
            }
            None if self.draft.is_empty() => None,
            None => {
                self.forget();
                Some(Said::Wrong(UNFINISHED.to_owned()))
            }
        }
    }

    /// Drops lines that went on.
    pub(super) fn forget(&mut self) {
        self.draft = String::new();
    }

    fn understand(&mut self, line: &str) -> Said {
        if self.draft.len() + line.len() > MESSAGE_BYTES_MAX {
            self.forget();
            return Said::Wrong(TOO_LONG.to_owned());
        }
        if let Some(part) = line.strip_suffix('\\') {
            self.draft.push_str(part);
            self.draft.push('\n');
            return Said::GoesOn;
        }
        let begun = std::mem::take(&mut self.draft);
        match line.strip_prefix('/') {
            _ if begun.trim().is_empty() && line.trim().is_empty() => Said::Nothing,
            _ if !begun.is_empty() => Said::Message(begun + line),
            Some(rest) if rest.starts_with('/') => Said::Message(rest.to_owned()),
            Some(rest) => command(rest).map_or_else(Said::Wrong, Said::Command),
            None => Said::Message(line.to_owned()),
        }
    }
}

fn command(words: &str) -> Result<Command, String> {
    let (name, rest) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
    let rest = rest.trim();
    let alone = |command| {
        if rest.is_empty() { Ok(command) } else { Err(format!("/{name} stands alone; /help lists the commands")) }
    };
    match name {
        "turns" if rest.is_empty() => Ok(Command::Turns(TURNS)),
        "turns" => match rest.parse() {
            Ok(count) if (1..=TURNS_MAX).contains(&count) => Ok(Command::Turns(count)),
            _ => Err(format!("/turns takes a number from 1 to {TURNS_MAX}")),
        },
        "window" => alone(Command::Window),
        "fork" => Ok(Command::Fork(Some(rest.to_owned()).filter(|id| !id.is_empty()))),
        "delete" => alone(Command::Delete),
        "again" => alone(Command::Again),
        "help" => alone(Command::Help),
        "quit" | "exit" => alone(Command::Quit),
        _ => Err(format!("there is no command /{name}; /help lists them, and // begins a message with /")),
    }
}

/// Hands over every line of `input`, without its end, until it ends or nobody takes them.
fn read_all(input: &mut impl BufRead, mut take: impl FnMut(Line) -> bool) {
    loop {
        let mut bytes = Vec::new();
        let most = MESSAGE_BYTES_MAX as u64 + 1;
        // An input that fails has ended.
        match input.by_ref().take(most).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = if bytes.last() != Some(&b'\n') && bytes.len() as u64 == most {
            skip_line(input);
            Err(TOO_LONG)
        } else {
            let line = String::from_utf8(bytes).map_err(|_| NOT_TEXT);
            line.map(|line| line.trim_end_matches(['\n', '\r']).to_owned())
        };
        if !take(line) {
            return;
        }
    }
}

/// Reads past the rest of a line.
fn skip_line(input: &mut impl BufRead) {
    while let Ok(bytes) = input.fill_buf() {
        let end = bytes.iter().position(|b| *b == b'\n');
        let (used, is_over) = (end.map_or(bytes.len(), |at| at + 1), end.is_some() || bytes.is_empty());
        input.consume(used);
        if is_over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Lines {
        Lines { come: mpsc::channel(1).1, draft: String::new() }
    }

    fn check(line: &str) -> Said {
        lines().understand(line)
    }

    #[test]
    fn a_line_is_a_message_or_a_command() {
        assert_eq!(check("hello"), Said::Message("hello".into()));
        assert_eq!(check("  "), Said::Nothing);
        assert_eq!(check("//etc/hosts?"), Said::Message("/etc/hosts?".into()));
        assert_eq!(check("/turns"), Said::Command(Command::Turns(5)));
        assert_eq!(check("/turns  12 "), Said::Command(Command::Turns(12)));
        assert_eq!(check("/fork"), Said::Command(Command::Fork(None)));
        assert_eq!(check("/fork a b"), Said::Command(Command::Fork(Some("a b".into()))));
        assert_eq!(check("/quit"), Said::Command(Command::Quit));
        for (wrong, says) in
            [("/turns 0", "1 to 1000"), ("/turns x", "1 to 1000"), ("/delete all", "stands alone"), ("/nope", "/nope")]
        {
            assert!(matches!(check(wrong), Said::Wrong(why) if why.contains(says)), "{wrong}");
        }
    }

    #[test]
    fn a_line_that_ends_with_a_backslash_goes_on() {
        let mut lines = lines();
        assert_eq!(lines.understand("one\\"), Said::GoesOn);
        assert_eq!(lines.understand("\\"), Said::GoesOn);
        assert_eq!(lines.understand("/window"), Said::Message("one\n\n/window".into()));
        assert_eq!(lines.understand("/window"), Said::Command(Command::Window));
        assert_eq!(lines.understand("half\\"), Said::GoesOn);
        lines.forget();
        assert_eq!(lines.understand("whole"), Said::Message("whole".into()));
        assert_eq!(lines.understand("\\"), Said::GoesOn);
        assert_eq!(lines.understand(" "), Said::Nothing);
    }

    #[tokio::test]
    async fn an_input_that_ends_inside_a_message_says_so_once() {
        let mut lines = lines();
        assert_eq!(lines.understand("half\\"), Said::GoesOn);
        assert_eq!(lines.next().await, Some(Said::Wrong(UNFINISHED.into())));
        assert_eq!(lines.next().await, None);
    }

    fn read(bytes: &[u8]) -> Vec<Line> {
        let mut out = Vec::new();
        read_all(&mut std::io::BufReader::with_capacity(1000, bytes), |line| {
            out.push(line);
            true
        });
        out
    }

    #[test]
    fn lines_are_read_whatever_ends_them() {
        assert_eq!(read(b"a\r\nb\n\nc"), [Ok("a".into()), Ok("b".into()), Ok(String::new()), Ok("c".into())]);
        assert_eq!(read(b"\xff\nb\n"), [Err(NOT_TEXT), Ok("b".into())]);
    }

    #[test]
    fn what_is_too_long_is_refused_and_the_next_line_is_good() {
        let long = [vec![b'x'; MESSAGE_BYTES_MAX + 5000], b"\nnext\n".to_vec()].concat();
        assert_eq!(read(&long), [Err(TOO_LONG), Ok("next".into())]);
        let most = vec![b'x'; MESSAGE_BYTES_MAX];
        assert!(matches!(&read(&most)[..], [Ok(line)] if line.len() == MESSAGE_BYTES_MAX));
        let mut lines = lines();
        let half = "x".repeat(MESSAGE_BYTES_MAX / 2) + "\\";
        assert_eq!(lines.understand(&half), Said::GoesOn);
        assert!(matches!(lines.understand(&half), Said::Wrong(why) if why == TOO_LONG));
        assert_eq!(lines.understand("next"), Said::Message("next".into()));
    }
}
