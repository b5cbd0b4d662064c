//! An attempt that failed: the cause the schedule room judges by, and what may be told to whom.

use std::time::Duration;
use tidegate_schedule::Cause;
use tidegate_wire::error::ErrorBody;

/// An attempt that failed in a way that may be tried again.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// The upstream's status, if it gave one.
    pub(crate) status: Option<u16>,
    /// Whether another attempt would end the same: it concerns the request itself.
    pub(crate) is_final: bool,
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
            status: None,
            is_final: false,
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

    pub(crate) fn telling(self, public: &'static str) -> Self {
        Failure { public, ..self }
    }
}
