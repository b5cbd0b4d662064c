//! Production's failures as data: what goes wrong, and where exactly.
//!
//! A fault is written the same way in a scenario file and in a `simulate:` header:
//!
//! ```text
//! slow-connect:2s           the connection is taken up late (scenario only)
//! slow-head:30s             the response head comes late
//! status:529  status:429:7  answered with this status (and `retry-after: 7`); 502 is the edge's HTML
//! reset-before-head         the connection is reset instead of an answer
//! close-before-head         the connection is closed instead of an answer
//! reset-at:PLACE            TCP reset there, in the middle of an HTTP chunk
//! close-at:PLACE            connection closed there, in the middle of an HTTP chunk
//! end-at:PLACE              the body ends there, properly as far as HTTP goes
//! stall-at:PLACE:90s        silence there
//! pings-at:PLACE:90s        nothing but pings there
//! error-at:PLACE[:TYPE]     an `error` event (default overloaded_error), then the end
//! garbage-at:PLACE          the event there is broken JSON
//! unknown-at:PLACE          an event of an unknown type before that one
//! duplicate-at:PLACE        the event there comes twice
//! one-byte                  every byte of the response in a packet of its own
//! ```
//!
//! PLACE is a byte of the body (`300`), `event-4` (before the fifth event), or a name: `in-utf8`
//! (inside a character), `in-data` (inside a `data:` line of some content event), `in-tool` (inside
//! the JSON of a tool's input), `before-delta` (between the last `content_block_stop` and
//! `message_delta`), `before-stop` (between `message_delta` and `message_stop`). What works on
//! events takes effect at the border of the event the place is in. A place the body never reaches
//! has no effect; the ground truth says which faults had.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tidegate_base::Span;

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
    /// Inside the JSON of a tool's input.
    InTool,
    /// Between the last `content_block_stop` and `message_delta`.
    BeforeDelta,
    /// Between `message_delta` and `message_stop`.
    BeforeStop,
}

/// How a body is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// TCP reset.
    Reset,
    /// TCP close, HTTP body unfinished.
    Close,
    /// HTTP body finished, answer unfinished.
    End,
}

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is taken up late.
    SlowConnect(Duration),
    /// The response head comes late.
    SlowHead(Duration),
    /// An error status, with or without `retry-after`.
    Status {
        /// 400 to 599.
        status: u16,
        /// Whole seconds.
        retry_after_s: Option<u64>,
    },
    /// Reset (or, if not, close) before any byte of an answer.
    NoHead {
        /// TCP reset instead of close.
        reset: bool,
    },
    /// The body is cut.
    Cut(Cut, Place),
    /// Nothing (or only pings) comes for a while.
    Stall {
        /// How long.
        span: Duration,
        /// Whether pings come.
        pings: bool,
        /// From where on.
        place: Place,
    },
    /// An `error` event of this type, then the end.
    ErrorEvent(Place, &'static str),
    /// An event with broken JSON.
    Garbage(Place),
    /// An event of an unknown type.
    Unknown(Place),
    /// An event twice.
    Duplicate(Place),
    /// One byte per packet.
    OneByte,
}

impl Fault {
    /// The name under which the ground truth counts it.
    pub fn label(&self) -> &'static str {
        match self {
            Fault::SlowConnect(_) => "slow-connect",
            Fault::SlowHead(_) => "slow-head",
            Fault::Status { .. } => "status",
            Fault::NoHead { reset: true } => "reset-before-head",
            Fault::NoHead { reset: false } => "close-before-head",
            Fault::Cut(Cut::Reset, _) => "reset-at",
            Fault::Cut(Cut::Close, _) => "close-at",
            Fault::Cut(Cut::End, _) => "end-at",
            Fault::Stall { pings: false, .. } => "stall-at",
            Fault::Stall { pings: true, .. } => "pings-at",
            Fault::ErrorEvent(..) => "error-at",
            Fault::Garbage(_) => "garbage-at",
            Fault::Unknown(_) => "unknown-at",
            Fault::Duplicate(_) => "duplicate-at",
            Fault::OneByte => "one-byte",
        }
    }
}

/// Why a fault could not be read; the text says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultError(String);

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FaultError {}

const ERROR_TYPES: [&str; 5] =
    ["overloaded_error", "api_error", "timeout_error", "rate_limit_error", "invalid_request_error"];

impl FromStr for Place {
    type Err = FaultError;
    fn from_str(text: &str) -> Result<Self, FaultError> {
        let wrong = || {
            FaultError(format!(
                "`{text}` is not a place; write a byte number, event-N, in-utf8, in-data, in-tool, before-delta or before-stop"
            ))
        };
        Ok(match text {
            "in-utf8" => Place::InUtf8,
            "in-data" => Place::InData,
            "in-tool" => Place::InTool,
            "before-delta" => Place::BeforeDelta,
            "before-stop" => Place::BeforeStop,
            _ => match text.strip_prefix("event-") {
                Some(n) => Place::Event(n.parse().map_err(|_| wrong())?),
                None => Place::Byte(text.parse().map_err(|_| wrong())?),
            },
        })
    }
}

impl FromStr for Fault {
    type Err = FaultError;
    fn from_str(text: &str) -> Result<Self, FaultError> {
        let mut parts = text.trim().split(':').map(str::trim);
        let name = parts.next().unwrap_or("");
        let (first, second, rest) = (parts.next(), parts.next(), parts.next());
        let missing = |what: &str| FaultError(format!("`{text}`: after `{name}:` comes {what}"));
        let place = || first.ok_or_else(|| missing("a place"))?.parse::<Place>();
        let span = |part: Option<&str>| -> Result<Duration, FaultError> {
            let part = part.ok_or_else(|| missing("a length of time such as 2s"))?;
            part.parse::<Span>().map(|span| span.0).map_err(|error| FaultError(error.to_string()))
        };
        let (fault, parts_used) = match name {
            "slow-connect" => (Fault::SlowConnect(span(first)?), 1),
            "slow-head" => (Fault::SlowHead(span(first)?), 1),
            "status" => {
                let status = first.and_then(|s| s.parse().ok()).filter(|s| (400..600).contains(s));
                let status = status.ok_or_else(|| missing("a status from 400 to 599"))?;
                let seconds = |s: &str| s.parse().map_err(|_| missing("retry-after in whole seconds"));
                (Fault::Status { status, retry_after_s: second.map(seconds).transpose()? }, 2)
            }
            "reset-before-head" => (Fault::NoHead { reset: true }, 0),
            "close-before-head" => (Fault::NoHead { reset: false }, 0),
            "reset-at" => (Fault::Cut(Cut::Reset, place()?), 1),
            "close-at" => (Fault::Cut(Cut::Close, place()?), 1),
            "end-at" => (Fault::Cut(Cut::End, place()?), 1),
            "stall-at" => (Fault::Stall { place: place()?, span: span(second)?, pings: false }, 2),
            "pings-at" => (Fault::Stall { place: place()?, span: span(second)?, pings: true }, 2),
            "error-at" => {
                let kind = second.unwrap_or(ERROR_TYPES[0]);
                let kind = ERROR_TYPES.into_iter().find(|known| *known == kind);
                (
                    Fault::ErrorEvent(
                        place()?,
                        kind.ok_or_else(|| missing("a place and one of the API's error types"))?,
                    ),
                    2,
                )
            }
            "garbage-at" => (Fault::Garbage(place()?), 1),
            "unknown-at" => (Fault::Unknown(place()?), 1),
            "duplicate-at" => (Fault::Duplicate(place()?), 1),
            "one-byte" => (Fault::OneByte, 0),
            _ => return Err(FaultError(format!("`{name}` is not a fault; docs/simulator.md lists them"))),
        };
        let given = [first, second, rest].iter().flatten().count();
        if given > parts_used {
            return Err(FaultError(format!("`{text}` has more parts than `{name}` takes")));
        }
        Ok(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, fault: Fault) {
        assert_eq!(text.parse(), Ok(fault), "{text}");
    }

    #[test]
    fn every_fault_reads_as_it_is_documented() {
        let s = Duration::from_secs;
        check("slow-connect:2s", Fault::SlowConnect(s(2)));
        check("slow-head:30 s", Fault::SlowHead(s(30)));
        check("status:529", Fault::Status { status: 529, retry_after_s: None });
        check("status:429:7", Fault::Status { status: 429, retry_after_s: Some(7) });
        check("reset-before-head", Fault::NoHead { reset: true });
        check("close-before-head", Fault::NoHead { reset: false });
        check("reset-at:300", Fault::Cut(Cut::Reset, Place::Byte(300)));
        check("close-at:in-utf8", Fault::Cut(Cut::Close, Place::InUtf8));
        check("end-at:before-stop", Fault::Cut(Cut::End, Place::BeforeStop));
        check("stall-at:event-3:90s", Fault::Stall { place: Place::Event(3), span: s(90), pings: false });
        check("pings-at:in-data:2min", Fault::Stall { place: Place::InData, span: s(120), pings: true });
        check("error-at:event-2", Fault::ErrorEvent(Place::Event(2), "overloaded_error"));
        check("error-at:before-delta:api_error", Fault::ErrorEvent(Place::BeforeDelta, "api_error"));
        check("garbage-at:in-tool", Fault::Garbage(Place::InTool));
        check("unknown-at:event-1", Fault::Unknown(Place::Event(1)));
        check("duplicate-at:5", Fault::Duplicate(Place::Byte(5)));
        check("one-byte", Fault::OneByte);
    }

    #[test]
    fn what_is_not_a_fault_is_refused_with_the_way_to_write_it() {
        for (bad, says) in [
            ("explode", "not a fault"),
            ("reset-at", "comes a place"),
            ("reset-at:middle", "not a place"),
            ("stall-at:3:10", "write for example"),
            ("status:200", "400 to 599"),
            ("one-byte:3", "more parts"),
            ("error-at:3:bad_error", "error types"),
        ] {
            let error = bad.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
