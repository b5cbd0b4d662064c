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
    /// What the upstream asked for.
    pub(crate) retry_after: Option<Duration>,
    /// What the upstream said, if it spoke the API's language.
    pub(crate) envelope: Option<ErrorBody>,
    /// What the client is told, where the cause alone says too little.
    pub(crate) public: &'static str,
    /// What the log is told; may come from the system, never from a message.
    pub(crate) detail: String,
}

impl Failure {
    pub(crate) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Failure {
            cause,
            by: Throttle::Unnamed,
            status: None,
            is_final: false,
            is_own: false,
            clock: None,
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
            Blame::Limit(Limiter::Unnamed) | Blame::Key | Blame::Overloaded | Blame::Server => Throttle::Unnamed,
        };
        let cause = match blame {
            Blame::Key => Cause::KeyRejected,
            Blame::Overloaded => Cause::Overloaded,
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

    /// The kind of refusal, for metrics; `None` for a failure that is none.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        match self.cause {
            _ if self.is_own => None,
            Cause::Throttled => Some(self.by.name()),
            Cause::Overloaded | Cause::KeyRejected => Some(self.cause.name()),
            _ => None,
        }
    }

    pub(crate) fn telling(self, public: &'static str) -> Self {
        Failure { public, ..self }
    }
}
