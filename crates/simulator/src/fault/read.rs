//! Faults as they are written, in scenarios and in headers: `name:part:part`.

use super::{Cut, Fault, FaultError, Place};
use crate::odd::NAMES;
use std::str::FromStr;
use std::time::Duration;
use tidegate_base::{ByteSize, Span};

/// Size of an event that is `huge` and says no more: larger than any that a reader should expect.
const HUGE_BYTES: u64 = 10_000_000;
/// The largest: it is in memory as a whole, for each stream that meets it.
const HUGE_BYTES_MAX: u64 = 64 << 20;

const ERROR_TYPES: [&str; 5] =
    ["overloaded_error", "api_error", "timeout_error", "rate_limit_error", "invalid_request_error"];

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
            "half-close-at" => (Fault::Cut(Cut::HalfClose, place()?), 1),
            "truncate-at" => (Fault::Cut(Cut::Truncate, place()?), 1),
            "goaway-at" => match second {
                None => (Fault::GoAway(place()?), 1),
                Some("error") => (Fault::Cut(Cut::GoAway, place()?), 2),
                Some(_) => return Err(missing("a place, and `error` or nothing")),
            },
            "close-code-at" => {
                let code = second.and_then(|code| code.parse().ok()).filter(|code| (1_000..5_000).contains(code));
                (
                    Fault::Cut(
                        Cut::Code(code.ok_or_else(|| missing("a place and a code from 1000 to 4999"))?),
                        place()?,
                    ),
                    2,
                )
            }
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
            "huge-at" => {
                let size = second.map(str::parse::<ByteSize>).transpose();
                let bytes = size.map_err(|error| FaultError(error.to_string()))?.map_or(HUGE_BYTES, |size| size.0);
                if bytes > HUGE_BYTES_MAX {
                    return Err(missing("a place and at most 64 MiB"));
                }
                (Fault::Huge(place()?, bytes), 2)
            }
            "duplicate-at" => (Fault::Duplicate(place()?), 1),
            "swap-at" => (Fault::Swap(place()?), 1),
            "trickle" => {
                let size = first.ok_or_else(|| missing("bytes a second, such as 1KB"))?.parse::<ByteSize>();
                let bytes = size.map_err(|error| FaultError(error.to_string()))?.0;
                if bytes == 0 {
                    return Err(missing("1B or more a second"));
                }
                (Fault::Trickle(bytes), 1)
            }
            "one-byte" => (Fault::OneByte, 0),
            "no-pong" => (Fault::NoPong, 0),
            "no-upgrade" => (Fault::NoUpgrade, 0),
            "odd" => {
                let odd = NAMES.into_iter().find(|(name, _)| Some(*name) == first).map(|(_, odd)| odd);
                (Fault::Odd(odd.ok_or_else(|| missing("an oddity; docs/simulator.md lists them"))?), 1)
            }
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
        check("half-close-at:in-thinking", Fault::Cut(Cut::HalfClose, Place::InThinking));
        check("truncate-at:in-text", Fault::Cut(Cut::Truncate, Place::InText));
        check("goaway-at:between-tools", Fault::GoAway(Place::BetweenTools));
        check("goaway-at:7:error", Fault::Cut(Cut::GoAway, Place::Byte(7)));
        check("huge-at:event-1", Fault::Huge(Place::Event(1), 10_000_000));
        check("huge-at:event-1:64 KiB", Fault::Huge(Place::Event(1), 65_536));
        check("swap-at:before-delta", Fault::Swap(Place::BeforeDelta));
        check("trickle:1KB", Fault::Trickle(1_000));
        check("one-byte", Fault::OneByte);
        check("close-code-at:in-text:1013", Fault::Cut(Cut::Code(1013), Place::InText));
        check("no-pong", Fault::NoPong);
        check("no-upgrade", Fault::NoUpgrade);
        check("odd:chat-chunks", Fault::Odd(crate::odd::Odd::ChatChunks));
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
            ("goaway-at:3:gently", "`error` or nothing"),
            ("huge-at:3:1GB", "at most 64 MiB"),
            ("huge-at:3:10", "write for example"),
            ("swap-at:in-txt", "in-text"),
            ("odd:ball", "docs/simulator.md"),
            ("trickle:0B", "1B or more"),
            ("close-code-at:in-text:99", "1000 to 4999"),
        ] {
            let error = bad.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
