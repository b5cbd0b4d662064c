//! How the API says no to a request that is over a limit: the words, the label it is counted under,
//! and when to come back.

use super::limits::Limiter;
use crate::envelope::Refusal;
use std::time::Duration;

/// A refusal by quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OverLimit {
    /// As the ground truth counts it.
    pub(crate) label: &'static str,
    pub(crate) refusal: Refusal,
}

/// Whole seconds, rounded up: a retry any earlier fails.
fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

fn come_back(message: String, wait: Duration) -> Refusal {
    Refusal { retry_after_s: Some(seconds(wait)), ..Refusal::new(429, message) }
}

/// Over the limit of one limiter: the organisation's, or a workspace's of it. A request that can never
/// fit is told to come back in a minute, as any other is: the API does not tell the two apart.
pub(crate) fn by_limiter(
    limiter: Limiter,
    per_minute: u64,
    organisation: &str,
    workspace: Option<&str>,
    wait: Option<Duration>,
) -> OverLimit {
    let words = limiter.words();
    let whose = match workspace {
        None => format!("your organization's rate limit of {per_minute} {words} (org: {organisation})"),
        Some(name) => {
            format!("your workspace's rate limit of {per_minute} {words} (workspace: {name}, org: {organisation})")
        }
    };
    let message = format!(
        "This request would exceed {whose}. \
         Please reduce the prompt length or the maximum tokens requested, or try again later."
    );
    let label = match (limiter, workspace.is_some()) {
        (Limiter::Requests, false) => "429-requests",
        (Limiter::Input, false) => "429-input-tokens",
        (Limiter::Output, false) => "429-output-tokens",
        (Limiter::Requests, true) => "429-workspace-requests",
        (Limiter::Input, true) => "429-workspace-input-tokens",
        (Limiter::Output, true) => "429-workspace-output-tokens",
    };
    OverLimit { label, refusal: come_back(message, wait.unwrap_or(Duration::from_secs(60))) }
}

/// A sharp increase.
pub(crate) fn by_ramp(organisation: &str, wait: Duration) -> OverLimit {
    let message = format!(
        "This request would exceed the acceleration limit of your organization (org: {organisation}): its usage has \
         increased sharply. Please increase your traffic gradually."
    );
    let refusal = Refusal { code: Some("ramp_limit_exceeded"), ..come_back(message, wait) };
    OverLimit { label: "429-ramp", refusal }
}

/// Too many at once.
pub(crate) fn by_connections() -> OverLimit {
    let message =
        "Number of concurrent connections has exceeded your rate limit. Please try again later or contact sales.";
    OverLimit { label: "429-connections", refusal: come_back(message.to_owned(), Duration::from_secs(1)) }
}

/// The words of the `error` event that ends a stream when no output tokens are left.
pub(crate) fn out_of_output(per_minute: u64, organisation: &str, workspace: Option<&str>) -> String {
    by_limiter(Limiter::Output, per_minute, organisation, workspace, None).refusal.message
}
