//! Places in an answer: where a fault strikes.
//!
//! | written | is |
//! |---|---|
//! | `300` | that byte of the body |
//! | `event-4` | before the fifth event |
//! | `in-utf8` | inside a character of several bytes |
//! | `in-data` | inside the `data:` line of some content event |
//! | `in-text`, `in-thinking`, `in-tool` | the same, of a piece of text, of thinking, of a tool's input |
//! | `between-tools` | between two tool calls that stand side by side |
//! | `before-delta` | between the last `content_block_stop` and `message_delta` |
//! | `before-stop` | between `message_delta` and `message_stop` |
//!
//! Which of many pieces it is, the seed decides. Thinking that is not shown has its signature only,
//! and that is where `in-thinking` is then.

use super::FaultError;
use std::str::FromStr;

/// Where in a response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// After so many bytes of the body.
    Byte(u64),
    /// Before the event with this number, counted from 0.
    Event(u64),
    /// Inside a character of more than one byte.
    InUtf8,
    /// Inside the `data:` line of a content event.
    InData,
    /// Inside the `data:` line of a piece of text.
    InText,
    /// Inside the `data:` line of a piece of thinking, or of its signature if none is shown.
    InThinking,
    /// Inside the JSON of a tool's input.
    InTool,
    /// Between a tool call and the next.
    BetweenTools,
    /// Between the last `content_block_stop` and `message_delta`.
    BeforeDelta,
    /// Between `message_delta` and `message_stop`.
    BeforeStop,
}

impl FromStr for Place {
    type Err = FaultError;
    fn from_str(text: &str) -> Result<Self, FaultError> {
        let wrong = || {
            FaultError(format!(
                "`{text}` is not a place; write a byte number, event-N, in-utf8, in-data, in-text, in-thinking, in-tool, between-tools, before-delta or before-stop"
            ))
        };
        Ok(match text {
            "in-utf8" => Place::InUtf8,
            "in-data" => Place::InData,
            "in-text" => Place::InText,
            "in-thinking" => Place::InThinking,
            "in-tool" => Place::InTool,
            "between-tools" => Place::BetweenTools,
            "before-delta" => Place::BeforeDelta,
            "before-stop" => Place::BeforeStop,
            _ => match text.strip_prefix("event-") {
                Some(n) => Place::Event(n.parse().map_err(|_| wrong())?),
                None => Place::Byte(text.parse().map_err(|_| wrong())?),
            },
        })
    }
}
