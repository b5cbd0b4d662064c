//! When the official SDKs send a request again, and after what wait.
//!
//! A request is repeated while no good head has come: after a connection that failed or broke, and
//! after 408, 409, 429 and everything from 500 on; `x-should-retry` overrules the status. Once a
//! stream has begun nothing is repeated. The wait is `retry-after-ms`, else `retry-after`, else
//! `min(0.5 * 2^n, 8)` seconds after the n-th retry, less up to a quarter of it at random.

use crate::failure::Failure;
use std::time::{Duration, SystemTime};
use tidegate_wire::http::ResponseHead;
use tidegate_wire::ratelimit::retry_after;

/// The first wait, where the server asks for none.
const WAIT_S: f64 = 0.5;
/// The longest of those.
const WAIT_S_MAX: f64 = 8.0;
/// A wait is shortened by up to this part of it.
const JITTER: f64 = 0.25;

/// What the head of an answer says about sending the request again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advice {
    /// Its status; `None` while no head has come.
    status: Option<u16>,
    /// `x-should-retry`.
    should: Option<bool>,
    /// When to come back.
    after: Option<Duration>,
}

impl Advice {
    /// Reads it; `wall` is the time now.
    pub(crate) fn of(head: &ResponseHead, wall: SystemTime) -> Self {
        let should = match head.headers.text("x-should-retry") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        };
        // Nothing, or a moment that is over, is no wait that was asked for.
        let after = retry_after(&head.headers, wall).filter(|wait| !wait.is_zero());
        Advice { status: Some(head.status), should, after }
    }

    fn allows(&self, failure: &Failure) -> bool {
        match (self.status, failure) {
            // The clock is the caller's patience with all attempts together.
            (_, Failure::Timeout) => false,
            (None, _) => true,
            (Some(200), _) => false,
            (Some(status), _) => self.should.unwrap_or(matches!(status, 408 | 409 | 429) || status >= 500),
        }
    }
}

/// What to wait before the request is sent again, if it is; `retries` counts those it has had, and
/// `draw` is a random number from 0 to 1.
pub(crate) fn wait(failure: &Failure, advice: &Advice, retries: u32, draw: f64) -> Option<Duration> {
    if !advice.allows(failure) {
        return None;
    }
    let doubled = WAIT_S * f64::from(2u32.saturating_pow(retries));
    let own = Duration::from_secs_f64(doubled.min(WAIT_S_MAX) * (1.0 - JITTER * draw));
    Some(advice.after.unwrap_or(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use tidegate_wire::http::parse_response;

    /// The wait in milliseconds after an answer with this status and these lines.
    fn check(status: u16, lines: &str, retries: u32, draw: f64) -> Option<u128> {
        let mut text = BytesMut::from(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n{lines}\r\n").as_str());
        let head = parse_response(&mut text, false).unwrap().unwrap();
        let advice = Advice::of(&head, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770));
        let failure = Failure::Http { status, kind: "-".to_owned() };
        wait(&failure, &advice, retries, draw).map(|wait| wait.as_millis())
    }

    #[test]
    fn waits_double_from_half_a_second_to_eight_and_lose_up_to_a_quarter() {
        let waits = [0, 1, 2, 3, 4, 5, 40].map(|retries| check(529, "", retries, 0.0));
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000].map(Some));
        assert_eq!(
            [check(429, "", 0, 1.0), check(429, "", 1, 0.5), check(500, "", 9, 1.0)],
            [375, 875, 6_000].map(Some)
        );
    }

    #[test]
    fn these_statuses_are_repeated_and_no_others() {
        for status in [408, 409, 429, 500, 502, 503, 504, 529] {
            assert!(check(status, "", 0, 0.0).is_some(), "{status}");
        }
        for status in [400, 401, 403, 404, 413, 422] {
            assert!(check(status, "", 0, 0.0).is_none(), "{status}");
        }
        assert_eq!(check(400, "x-should-retry: true\r\n", 0, 0.0), Some(500));
        assert_eq!(check(529, "x-should-retry: false\r\n", 0, 0.0), None);
        assert_eq!(check(529, "x-should-retry: perhaps\r\n", 0, 0.0), Some(500));
    }

    #[test]
    fn a_wait_that_the_server_asks_for_is_kept_whole() {
        assert_eq!(check(429, "retry-after: 7\r\n", 0, 1.0), Some(7_000));
        assert_eq!(check(429, "retry-after: 90\r\n", 0, 1.0), Some(90_000));
        assert_eq!(check(429, "retry-after: 7\r\nretry-after-ms: 1250\r\n", 0, 1.0), Some(1_250));
        assert_eq!(check(429, "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 0, 0.0), Some(7_000));
        for none in ["retry-after: 0\r\n", "retry-after: soon\r\n", "retry-after: Sun, 06 Nov 1994 08:00:00 GMT\r\n"] {
            assert_eq!(check(429, none, 1, 0.0), Some(1_000), "{none}");
        }
    }

    #[test]
    fn what_breaks_before_the_head_is_repeated_and_what_breaks_later_is_not() {
        let (nothing, begun) = (Advice::default(), Advice { status: Some(200), ..Advice::default() });
        for failure in [Failure::Connect, Failure::Reset, Failure::Malformed] {
            assert!(wait(&failure, &nothing, 0, 0.0).is_some(), "{failure:?}");
        }
        for failure in [Failure::Reset, Failure::Truncated, Failure::Stream { kind: "overloaded_error".to_owned() }] {
            assert!(wait(&failure, &begun, 0, 0.0).is_none(), "{failure:?}");
        }
        assert!(wait(&Failure::Timeout, &nothing, 0, 0.0).is_none(), "patience is over");
    }
}
