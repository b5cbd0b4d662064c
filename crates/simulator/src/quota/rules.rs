//! What the documentation of the real API leaves open, each a switch with a default; and what a
//! scenario makes happen to limits over time.

use super::limits::PartialLimits;
use serde::Deserialize;
use std::time::Duration;

/// When in a request the rate-limit headers of its answer are sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampled {
    /// When the request is admitted, itself charged already.
    #[default]
    Admission,
    /// When the head of its answer leaves.
    FirstByte,
    /// Never: no answer carries them.
    None,
}

/// Which headers tell of a workspace's limits rather than of its organisation's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkspaceHeaders {
    /// `anthropic-ratelimit-tokens-*` only, as documented.
    #[default]
    Tokens,
    /// All that the workspace limits.
    All,
}

/// When output counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputCharge {
    /// As it is produced; `max_tokens` plays no role.
    #[default]
    Realtime,
    /// `max_tokens` at admission; what was not used is given back at the end.
    Reserve,
}

/// What happens to a running stream when no output tokens are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputExhausted {
    /// It goes on, into debt.
    #[default]
    Continue,
    /// It ends with an `error` event.
    Error,
}

/// What a request is charged whose client left first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CancelCharge {
    /// Itself, its input, and the output that was produced.
    #[default]
    Produced,
    /// The output that would have been produced as well.
    Whole,
    /// Nothing: what it was charged is given back.
    Nothing,
}

/// Which input a request is charged until its answer begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Estimate {
    /// What the prompt cache does not hold.
    #[default]
    Uncached,
    /// All of it, cached or not.
    Whole,
}

/// What happens to a request that is larger than a full bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Oversize {
    /// It is refused, however long it waits.
    #[default]
    Refuse,
    /// It passes when the bucket is full, and leaves it in debt.
    WhenFull,
}

/// The switches, for all organisations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuotaRules {
    /// When the headers are sampled.
    pub headers: Sampled,
    /// Which headers tell of a workspace.
    pub workspace_headers: WorkspaceHeaders,
    /// How far `remaining` may be off in either direction, percent, drawn for each answer.
    pub remaining_error_percent: u64,
    /// When output counts.
    pub output: OutputCharge,
    /// What happens to running streams without output left.
    pub output_exhausted: OutputExhausted,
    /// Whether a request refused with 429 takes one from the request bucket, if one is there.
    pub charge_refused: bool,
    /// Whether a request is charged that a fault answers with 5xx or breaks before the head.
    pub charge_failed: bool,
    /// What a request is charged whose client left first.
    pub charge_cancelled: CancelCharge,
    /// What happens to a request that is larger than a full bucket.
    pub oversize: Oversize,
    /// Which input is charged until the answer begins.
    pub estimate: Estimate,
    /// How far that estimate may be off in either direction, percent, drawn for each request.
    pub estimate_error_percent: u64,
    /// Most requests of one organisation at once; `None`: any number.
    pub connections: Option<u64>,
    /// The limit on sharp increases, if there is one.
    pub ramp: Option<RampRule>,
}

/// The limit on sharp increases: the rate of the last 10 s may not exceed the greater of a floor and
/// `factor` times the mean of the last 5 min.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RampRule {
    /// Requests per minute that are always allowed.
    pub floor_requests: u64,
    /// Input tokens per minute that are always allowed.
    pub floor_input_tokens: u64,
    /// How many times the mean a rate may be.
    pub factor: f64,
}

impl Default for RampRule {
    fn default() -> Self {
        RampRule { floor_requests: 600, floor_input_tokens: 600_000, factor: 1.5 }
    }
}

/// Which organisations and classes something happens to; what is not named is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whom {
    /// The organisation.
    pub organisation: Option<String>,
    /// The workspace; without it, the organisation's own limits are meant.
    pub workspace: Option<String>,
    /// The model classes.
    pub classes: Vec<String>,
}

impl Whom {
    /// Whether these limits are meant: an organisation's own if `workspace` is `None`.
    pub(crate) fn is(&self, organisation: &str, workspace: Option<&str>, class: &str) -> bool {
        self.organisation.as_deref().is_none_or(|name| name == organisation)
            && self.workspace.as_deref() == workspace
            && (self.classes.is_empty() || self.classes.iter().any(|name| name == class))
    }
}

/// Limits that change during a run; the headers tell at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Whose.
    pub whom: Whom,
    /// When.
    pub at: Duration,
    /// So many times the limits of the beginning.
    pub factor: f64,
    /// The new limits, where they are not the old ones times the factor.
    pub limits: PartialLimits,
    /// How much refill can be saved up from then on, if that changes too.
    pub burst: Option<Duration>,
}

/// Somebody else who uses the same limits, seen only in headers and 429s.
#[derive(Clone, Debug, PartialEq)]
pub struct Consumer {
    /// Whose limits. It takes from the organisation's own, not from a workspace's.
    pub whom: Whom,
    /// From when.
    pub from: Duration,
    /// Until when; `None`: to the end.
    pub until: Option<Duration>,
    /// The share of each limit it takes, percent.
    pub percent: u64,
    /// How often: each time it takes what is due since the last time.
    pub every: Duration,
}

/// Who set a spend limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpendLimitKind {
    /// The API: 429 `enforced_spend_limit_reached`, without `retry-after`.
    #[default]
    Enforced,
    /// The organisation itself: 400.
    User,
}

/// The most that may be spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpendLimit {
    /// The organisation; `None`: each of them.
    pub organisation: Option<String>,
    /// The workspace, if it is only about one.
    pub workspace: Option<String>,
    /// Nanodollars.
    pub nanodollars: u64,
    /// Who set it.
    pub kind: SpendLimitKind,
    /// When it is lifted; it does not come back.
    pub lifted: Option<Duration>,
}

/// Why a key is not good for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyTrouble {
    /// Somebody revoked it.
    #[default]
    Revoked,
    /// Its time was over.
    Expired,
}

/// A key that is not good from one time to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOutage {
    /// The key.
    pub key: String,
    /// From when.
    pub from: Duration,
    /// Until when; `None`: to the end.
    pub until: Option<Duration>,
    /// Why.
    pub trouble: KeyTrouble,
}
