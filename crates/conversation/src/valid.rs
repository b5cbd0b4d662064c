//! The last look at messages before they go out: what the API is known to refuse, and what would
//! mean that a window was cut wrongly.
//!
//! Written from the API's rules and apart from the window, down to the reading of JSON: a mistake
//! made there is not made here again. It looks at the list as it stands; that what is sent is what
//! was said is checked by tests, which know what was said (`tests/windows/checker.rs`).
//!
//! Messages of one role in a row are one turn, as the API merges them; system messages are no turn.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

/// Marks in one request.
const MARKS_MAX: usize = 4;

/// How a list of messages may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the user.
    User,
    /// With the assistant too: a model that continues what it is given, or a server tool's pause.
    Anyone,
}

/// The rule that is broken, and where; message and block by their places in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It is no list of messages.
    Unreadable,
    /// It is empty, or one of its messages is.
    Empty {
        /// Which.
        message: usize,
    },
    /// It does not begin with the user, or with the answer to a call that is not there.
    Beginning,
    /// It does not end with the user.
    Ending,
    /// Calls of the turn that ends here have no result in the next.
    Unanswered {
        /// The turn's last message.
        message: usize,
        /// How many.
        calls: usize,
    },
    /// A result without a call in the turn before, or the second for one call.
    Orphan {
        /// In which message.
        message: usize,
        /// Which block.
        block: usize,
    },
    /// A result after something else in its turn.
    Late {
        /// In which message.
        message: usize,
        /// Which block.
        block: usize,
    },
    /// A call by the user, a result by the assistant, or two calls of one id.
    Misplaced {
        /// In which message.
        message: usize,
        /// Which block.
        block: usize,
    },
    /// A text without text.
    EmptyText {
        /// In which message.
        message: usize,
        /// Which block.
        block: usize,
    },
    /// A system message where the API takes none.
    System {
        /// Which.
        message: usize,
    },
    /// Too many cache breakpoints.
    Marks {
        /// How many, those elsewhere included.
        marks: usize,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Unreadable => f.write_str("messages cannot be read"),
            Broken::Empty { message } => write!(f, "messages.{message} is missing or has no content"),
            Broken::Beginning => f.write_str("messages do not begin with a user turn of their own"),
            Broken::Ending => f.write_str("messages do not end with a user turn"),
            Broken::Unanswered { message, calls } => {
                write!(f, "messages.{message}: {calls} tool calls have no result in the next turn")
            }
            Broken::Orphan { message, block } => {
                write!(f, "messages.{message}.content.{block}: a result without a call of its own in the turn before")
            }
            Broken::Late { message, block } => {
                write!(f, "messages.{message}.content.{block}: a result after other content of its turn")
            }
            Broken::Misplaced { message, block } => {
                write!(f, "messages.{message}.content.{block}: a tool call or result in the wrong place")
            }
            Broken::EmptyText { message, block } => write!(f, "messages.{message}.content.{block}: an empty text"),
            Broken::System { message } => write!(f, "messages.{message}: a system message in the wrong place"),
            Broken::Marks { marks } => write!(f, "{marks} cache breakpoints, of which {MARKS_MAX} may be"),
        }
    }
}

impl std::error::Error for Broken {}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tool_use_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cache_control: Option<&'a RawValue>,
}

/// What is known at a point of the list.
#[derive(Default)]
struct Walk<'a> {
    /// Who had the last turn, and its last message.
    speaker: Option<(bool, usize)>,
    /// Calls of the turn under way.
    calls: BTreeSet<Cow<'a, str>>,
    /// All calls so far.
    seen: BTreeSet<Cow<'a, str>>,
    /// Calls of the turn before that have no result yet.
    open: BTreeSet<Cow<'a, str>>,
    /// Whether the turn under way has said anything but results.
    other: bool,
    marks: usize,
}

/// Checks the value of a body's `messages`.
pub fn check(messages: &[u8], end: End, marks_elsewhere: usize) -> Result<(), Broken> {
    let list: Vec<Message<'_>> = serde_json::from_slice(messages).map_err(|_| Broken::Unreadable)?;
    let mut walk = Walk { marks: marks_elsewhere, ..Walk::default() };
    let mut after_server_tool = false;
    for (at, message) in list.iter().enumerate() {
        let blocks = blocks(message.content)?;
        if blocks.is_empty() {
            return Err(Broken::Empty { message: at });
        }
        if message.role == "system" {
            let follows = walk.speaker.is_some_and(|(user, last)| last + 1 == at && (user || after_server_tool));
            let leads = list.get(at + 1).is_none_or(|next| next.role == "assistant");
            if !follows || !leads {
                return Err(Broken::System { message: at });
            }
        } else {
            walk.turn(message.role == "user", at)?;
        }
        for (nth, block) in blocks.iter().enumerate() {
            walk.block(&message.role, block, at, nth)?;
        }
        after_server_tool = blocks.last().is_some_and(|block| {
            block.kind == "server_tool_use" || (block.kind != "tool_result" && block.kind.ends_with("_tool_result"))
        });
    }
    let Some((user, last)) = walk.speaker else { return Err(Broken::Empty { message: 0 }) };
    walk.all_answered(last)?;
    if !walk.calls.is_empty() {
        return Err(Broken::Unanswered { message: last, calls: walk.calls.len() });
    }
    if end == End::User && !user {
        return Err(Broken::Ending);
    }
    if walk.marks > MARKS_MAX { Err(Broken::Marks { marks: walk.marks }) } else { Ok(()) }
}

/// A content's blocks; a string is one.
fn blocks(content: &RawValue) -> Result<Vec<Block<'_>>, Broken> {
    if content.get().starts_with('"') {
        let text = Block {
            kind: Cow::Borrowed("text"),
            id: None,
            tool_use_id: None,
            text: Some(content),
            content: None,
            cache_control: None,
        };
        return Ok(vec![text]);
    }
    serde_json::from_str(content.get()).map_err(|_| Broken::Unreadable)
}

fn is_marked(block: &Block<'_>) -> bool {
    block.cache_control.is_some_and(|mark| mark.get() != "null")
}

impl<'a> Walk<'a> {
    /// A message of the user's (`user`) or the assistant's begins.
    fn turn(&mut self, user: bool, at: usize) -> Result<(), Broken> {
        let goes_on = self.speaker.is_some_and(|(speaker, _)| speaker == user);
        if !goes_on {
            match self.speaker {
                None if !user => return Err(Broken::Beginning),
                Some((_, last)) => self.all_answered(last)?,
                None => {}
            }
            self.open = std::mem::take(&mut self.calls);
            self.other = false;
        }
        self.speaker = Some((user, at));
        Ok(())
    }

    /// Every call of the turn before the one that ends has its result.
    fn all_answered(&self, last: usize) -> Result<(), Broken> {
        match self.open.len() {
            0 => Ok(()),
            calls => Err(Broken::Unanswered { message: last, calls }),
        }
    }

    fn block(&mut self, role: &str, block: &Block<'a>, message: usize, nth: usize) -> Result<(), Broken> {
        self.marks += usize::from(is_marked(block));
        match block.kind.as_ref() {
            "text" if block.text.is_none_or(|text| text.get() == "\"\"") => {
                return Err(Broken::EmptyText { message, block: nth });
            }
            "tool_use" => {
                let id = block.id.clone().unwrap_or_default();
                if role != "assistant" || !self.seen.insert(id.clone()) {
                    return Err(Broken::Misplaced { message, block: nth });
                }
                self.calls.insert(id);
            }
            "tool_result" => {
                let inner = block.content.filter(|content| content.get().starts_with('['));
                let inner = inner.map(blocks).transpose()?.unwrap_or_default();
                self.marks += inner.iter().filter(|block| is_marked(block)).count();
                return self.result(role, block, message, nth);
            }
            _ => {}
        }
        self.other |= role != "system";
        Ok(())
    }

    fn result(&mut self, role: &str, block: &Block<'a>, message: usize, nth: usize) -> Result<(), Broken> {
        if role != "user" {
            return Err(Broken::Misplaced { message, block: nth });
        }
        if !self.open.remove(block.tool_use_id.as_ref().unwrap_or(&Cow::Borrowed(""))) {
            return Err(Broken::Orphan { message, block: nth });
        }
        if self.other { Err(Broken::Late { message, block: nth }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn user(content: Value) -> Value {
        json!({"role": "user", "content": content})
    }
    fn assistant(content: Value) -> Value {
        json!({"role": "assistant", "content": content})
    }
    fn system() -> Value {
        json!({"role": "system", "content": "be brief"})
    }
    fn call(id: &str) -> Value {
        json!({"type": "tool_use", "id": id, "name": "f", "input": {}})
    }
    fn result(id: &str) -> Value {
        json!({"type": "tool_result", "tool_use_id": id, "content": "ok"})
    }
    fn text(text: &str) -> Value {
        json!({"type": "text", "text": text})
    }
    fn verdict(messages: Value) -> Result<(), Broken> {
        check(messages.to_string().as_bytes(), End::User, 0)
    }

    #[test]
    fn what_the_api_takes_passes() {
        for good in [
            json!([user(json!("a"))]),
            json!([user(json!("a")), user(json!("b")), system(), assistant(json!("c")), user(json!("d")), system()]),
            json!([
                user(json!("a")),
                assistant(json!([call("1")])),
                assistant(json!([call("2")])),
                user(json!([result("2")])),
                user(json!([result("1"), text("and")]))
            ]),
        ] {
            assert_eq!(verdict(good.clone()), Ok(()), "{good}");
        }
        assert_eq!(
            check(br#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]"#, End::Anyone, 4),
            Ok(())
        );
    }

    #[test]
    fn each_rule_has_its_own_word() {
        let called = |then: Value| json!([user(json!("a")), assistant(json!([call("1")])), user(then)]);
        let marked = json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}});
        for (bad, want) in [
            (json!({}), Broken::Unreadable),
            (json!([]), Broken::Empty { message: 0 }),
            (json!([user(json!([]))]), Broken::Empty { message: 0 }),
            (json!([assistant(json!("a")), user(json!("b"))]), Broken::Beginning),
            (json!([user(json!([result("1")]))]), Broken::Orphan { message: 0, block: 0 }),
            (json!([user(json!("a")), assistant(json!("b"))]), Broken::Ending),
            (called(json!("b")), Broken::Unanswered { message: 2, calls: 1 }),
            (json!([user(json!("a")), assistant(json!([call("1")]))]), Broken::Unanswered { message: 1, calls: 1 }),
            (called(json!([result("1"), result("1")])), Broken::Orphan { message: 2, block: 1 }),
            (called(json!([text("b"), result("1")])), Broken::Late { message: 2, block: 1 }),
            (json!([user(json!([call("1")]))]), Broken::Misplaced { message: 0, block: 0 }),
            (
                json!([user(json!("a")), assistant(json!([call("1"), call("1")])), user(json!([result("1")]))]),
                Broken::Misplaced { message: 1, block: 1 },
            ),
            (json!([user(json!(""))]), Broken::EmptyText { message: 0, block: 0 }),
            (json!([system(), user(json!("a"))]), Broken::System { message: 0 }),
            (json!([user(json!("a")), system(), user(json!("b"))]), Broken::System { message: 1 }),
            (json!([user(json!(vec![marked; 5]))]), Broken::Marks { marks: 5 }),
        ] {
            assert_eq!(verdict(bad.clone()), Err(want), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = check(&bytes, End::User, 0);
        }
    }
}
