//! Limits, and where they come from when nothing is said: the usage tiers.

use std::time::Duration;

/// The limits of one organisation in one model class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests per minute.
    pub requests: u64,
    /// Input tokens per minute.
    pub input_tokens: u64,
    /// Output tokens per minute.
    pub output_tokens: u64,
    /// How much refill can be saved up; the real value is not documented.
    pub burst: Duration,
}

impl Limits {
    /// As limits of which each may be missing.
    pub(crate) fn each(self) -> PartialLimits {
        PartialLimits {
            requests: Some(self.requests),
            input_tokens: Some(self.input_tokens),
            output_tokens: Some(self.output_tokens),
        }
    }
}

/// Limits per minute of which each may be missing: a workspace's, or the new ones of a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartialLimits {
    /// Requests.
    pub requests: Option<u64>,
    /// Input tokens.
    pub input_tokens: Option<u64>,
    /// Output tokens.
    pub output_tokens: Option<u64>,
}

impl PartialLimits {
    /// The limit of one limiter.
    pub(crate) fn of(&self, limiter: Limiter) -> Option<u64> {
        match limiter {
            Limiter::Requests => self.requests,
            Limiter::Input => self.input_tokens,
            Limiter::Output => self.output_tokens,
        }
    }

    /// These, and where one is missing, the other's.
    pub(crate) fn or(self, other: PartialLimits) -> PartialLimits {
        PartialLimits {
            requests: self.requests.or(other.requests),
            input_tokens: self.input_tokens.or(other.input_tokens),
            output_tokens: self.output_tokens.or(other.output_tokens),
        }
    }

    /// Each that is there, changed.
    pub(crate) fn map(self, change: impl Fn(u64) -> u64) -> PartialLimits {
        PartialLimits {
            requests: self.requests.map(&change),
            input_tokens: self.input_tokens.map(&change),
            output_tokens: self.output_tokens.map(&change),
        }
    }
}

/// A usage tier: what limits an organisation has where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// No limits and no rate-limit headers.
    Unlimited,
    /// The tier below Start of former times, small enough to run into by hand.
    First,
    /// Start.
    Start,
    /// Build.
    Build,
    /// Scale.
    Scale,
}

impl Tier {
    /// The limits of this tier in a class; `None` where nothing is metered.
    pub fn limits(self, class: &str) -> Option<Limits> {
        let dear = class.starts_with("fable") || class.starts_with("mythos");
        let (requests, input_tokens, output_tokens) = match (self, dear) {
            (Tier::Unlimited, _) => return None,
            (Tier::First, _) => (50, 30_000, 8_000),
            (Tier::Start, false) => (1_000, 2_000_000, 400_000),
            (Tier::Start, true) => (1_000, 500_000, 100_000),
            (Tier::Build, false) => (5_000, 5_000_000, 1_000_000),
            (Tier::Build, true) => (2_000, 1_500_000, 300_000),
            (Tier::Scale, false) => (10_000, 10_000_000, 2_000_000),
            (Tier::Scale, true) => (4_000, 4_000_000, 800_000),
        };
        Some(Limits { requests, input_tokens, output_tokens, burst: Duration::from_secs(60) })
    }
}

/// The three things that are metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Limiter {
    /// Requests per minute.
    Requests,
    /// Input tokens per minute.
    Input,
    /// Output tokens per minute.
    Output,
}

impl Limiter {
    /// In the order in which they are looked at.
    pub(crate) const ALL: [Limiter; 3] = [Limiter::Requests, Limiter::Input, Limiter::Output];

    /// As the ground truth names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Limiter::Requests => "requests",
            Limiter::Input => "input_tokens",
            Limiter::Output => "output_tokens",
        }
    }

    /// As an error message names it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Limiter::Requests => "requests per minute",
            Limiter::Input => "input tokens per minute",
            Limiter::Output => "output tokens per minute",
        }
    }
}
