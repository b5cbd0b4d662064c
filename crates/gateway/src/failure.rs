//! An attempt that failed: the cause the schedule room judges by, and what may be told to whom.

use std::time::Duration;
use tidegate_schedule::{Cause, Throttle};
use tidegate_wire::blame::{Blame, Limiter};
use tidegate_wire::error::ErrorBody;

/// An attempt that failed in a way that may be tried again.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// What a 429 was about.
    pub(crate) by: Throttle,
    /// The upstream's status, if it gave one.
    pub(crate) status: Option<u16>,
    /// Whether another attempt would end the same: it concerns the request itself.
    pub(crate) is_final: bool,
    /// Whether it concerns the client's own upstream credential, which is its own business.
    pub(crate) is_own: bool,
    /// The clock that ran out, if one did.
    pub(crate) clock: Option<&'static str>,
    /// Where a limit of input tokens refused it: what the upstream said there was of it, and of how
    /// much a minute.
    pub(crate) input_left: Option<(u64, u64)>,
    /// What the upstream asked for.
    pub(crate) retry_after: Option<Duration>,
    /// What the upstream said, if it spoke the API's language.
    pub(crate) envelope: Option<ErrorBody>,
    /// What the client is told, where the cause alone says too little.
    pub(crate) public: &'static str,
    /// What the log is told; may come from the system, never from a message.
    pub(crate) detail: String,
}

/// Times what was there and was too little.
const TRIED_WITH: f64 = 1.5;

impl Failure {
    pub(crate) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Failure {
            cause,
            by: Throttle::Unnamed,
            status: None,
            is_final: false,
            is_own: false,
            clock: None,
            input_left: None,
            retry_after: None,
            envelope: None,
            public: "the upstream broke off before its answer was whole",
            detail: detail.into(),
        }
    }

    pub(crate) fn by_clock(cause: Cause, clock: &'static str) -> Self {
        Failure { clock: Some(clock), ..Failure::new(cause, clock) }
    }

    /// A refusal that is about a key or a quota, or an upstream that says it fails; `None` for one
    /// that is about the request.
    pub(crate) fn blaming(blame: Blame, detail: impl Into<String>) -> Option<Self> {
        let by = match blame {
            Blame::Request => return None,
            Blame::SpendCap => Throttle::SpendCap,
            Blame::Limit(Limiter::Requests) => Throttle::Requests,
            Blame::Limit(Limiter::InputTokens) => Throttle::InputTokens,
            Blame::Limit(Limiter::OutputTokens) => Throttle::OutputTokens,
            Blame::Limit(Limiter::Concurrent) => Throttle::Concurrent,
            Blame::Limit(Limiter::Ramp) => Throttle::Ramp,
            Blame::Limit(Limiter::Unnamed) | Blame::Key | Blame::Overloaded | Blame::TimedOut | Blame::Server => {
                Throttle::Unnamed
            }
        };
        let cause = match blame {
            Blame::Key => Cause::KeyRejected,
            Blame::Overloaded => Cause::Overloaded,
            Blame::TimedOut => Cause::TimedOut,
            Blame::Server => Cause::ServerError,
            _ => Cause::Throttled,
        };
        Some(Failure { by, ..Failure::new(cause, detail) })
    }

    /// The same where the client's own credential may be meant: then it is told and not tried again.
    pub(crate) fn blaming_own(blame: Blame, own_credential: bool, detail: impl Into<String>) -> Option<Self> {
        let is_own = own_credential && matches!(blame, Blame::Key | Blame::SpendCap);
        let failure = Self::blaming(blame, detail)?;
        Some(Failure { is_own, is_final: failure.is_final || is_own, ..failure })
    }

    /// How many times as large as the `tokens` it was taken for a request is to be taken for that was
    /// refused although there was room for so many; `None` if it was not refused for that. Larger than
    /// what was left is all that is known: it is asked for with half as much again, so that it is found
    /// out in a few tries and not by and by.
    pub(crate) fn larger_than_thought(&self, tokens: u64) -> Option<f64> {
        let (left, _) = self.input_left.filter(|(left, _)| *left > 0 && *left >= tokens)?;
        Some(TRIED_WITH * left as f64 / tokens.max(1) as f64)
    }

    /// What was left of the input limit that refused it for its size, and that limit: what refills in a
    /// second was there for others.
    pub(crate) fn refused_for_size(&self) -> Option<(u64, u64)> {
        self.input_left.filter(|(left, limit)| left.saturating_mul(60) >= *limit)
    }

    /// How long the upstream wants the domain left alone. If it refused the size it spoke of this
    /// request only.
    pub(crate) fn closes_for(&self) -> Option<Duration> {
        self.retry_after.filter(|_| self.refused_for_size().is_none())
    }

    /// The kind of refusal, for metrics; `None` for a failure that is none.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        match self.cause {
            _ if self.is_own => None,
            Cause::Throttled => Some(self.by.name()),
            Cause::Overloaded | Cause::TimedOut | Cause::KeyRejected => Some(self.cause.name()),
            _ => None,
        }
    }

    pub(crate) fn telling(self, public: &'static str) -> Self {
        Failure { public, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_leaves_room_for_others_is_about_the_request() {
        let after = Some(Duration::from_secs(60));
        let refused = |left| Failure {
            input_left: Some((left, 600_000)),
            retry_after: after,
            ..Failure::new(Cause::Throttled, "429")
        };
        let full = refused(50_000);
        assert_eq!((full.refused_for_size().map(|(_, limit)| limit), full.closes_for()), (Some(600_000), None));
        assert_eq!(full.larger_than_thought(10_000), Some(7.5), "it needs more than there was");
        assert_eq!(full.larger_than_thought(60_000), None, "nobody thought that it would fit");
        // Less than a second's refill: others used it up.
        let empty = refused(9_000);
        assert_eq!((empty.refused_for_size(), empty.closes_for()), (None, after));
        assert_eq!(refused(0).larger_than_thought(0), None);
    }
}
