//! What the API meters: per organisation and model class three buckets, and what it says of them.
//!
//! Requests, input tokens and output tokens per minute, each a continuously refilled [`Bucket`].
//! A request is admitted if a request and its input tokens are there and output is not in debt; it
//! is charged a request and its input at once, its output as it is produced. Cache reads will not
//! count when there is a prompt cache; `max_tokens` plays no role. Refused requests are not
//! charged. `count_tokens` has a request bucket of its own, per organisation.
//!
//! Domains are made when first seen, at most [`DOMAINS_MAX`]: later ones are the organisation `others`.

use crate::bucket::Bucket;
use crate::envelope::Refusal;
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_base::{Moment, rfc3339};

/// Most domains that are kept apart: a desk has a few, a fuzzing client could invent millions.
pub(crate) const DOMAINS_MAX: usize = 4_096;

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

/// Which limit refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Limit {
    /// Requests per minute.
    Requests,
    /// Input tokens per minute.
    InputTokens,
    /// Output tokens per minute.
    OutputTokens,
}

impl Limit {
    /// As the ground truth counts it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Limit::Requests => "429-requests",
            Limit::InputTokens => "429-input-tokens",
            Limit::OutputTokens => "429-output-tokens",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Limit::Requests => "requests per minute",
            Limit::InputTokens => "input tokens per minute",
            Limit::OutputTokens => "output tokens per minute",
        }
    }
}

/// A refusal by quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OverLimit {
    pub(crate) limit: Limit,
    pub(crate) refusal: Refusal,
}

#[derive(Clone, Debug)]
struct Meters {
    requests: Bucket,
    input: Bucket,
    output: Bucket,
}

/// A domain: organisation and model class.
pub(crate) type DomainKey = (String, &'static str);

/// The buckets of every domain.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    domains: BTreeMap<DomainKey, Option<Meters>>,
    /// Wall time at moment zero, seconds since the Unix epoch: reset headers are wall time.
    epoch_s: u64,
}

impl Quota {
    pub(crate) fn new(epoch_s: u64) -> Self {
        Quota { domains: BTreeMap::new(), epoch_s }
    }

    /// The domain of an organisation in a class; the common one once there are too many.
    pub(crate) fn domain(&self, organisation: &str, class: &'static str) -> DomainKey {
        let own = (organisation.to_owned(), class);
        let room = self.domains.len() < DOMAINS_MAX || self.domains.contains_key(&own);
        if room { own } else { ("others".to_owned(), class) }
    }

    fn meters(&mut self, domain: &DomainKey, limits: Option<Limits>, now: Moment) -> Option<&mut Meters> {
        let fresh = || {
            limits.map(|limits| Meters {
                requests: Bucket::new(limits.requests, limits.burst, now),
                input: Bucket::new(limits.input_tokens, limits.burst, now),
                output: Bucket::new(limits.output_tokens, limits.burst, now),
            })
        };
        self.domains.entry(domain.clone()).or_insert_with(fresh).as_mut()
    }

    /// Takes one request of `input` tokens, or says which limit it is over.
    pub(crate) fn admit(
        &mut self,
        domain: &DomainKey,
        limits: Option<Limits>,
        input: u64,
        now: Moment,
    ) -> Result<(), OverLimit> {
        let Some(meters) = self.meters(domain, limits, now) else { return Ok(()) };
        let wants = [
            (Limit::Requests, &mut meters.requests, 1),
            (Limit::InputTokens, &mut meters.input, input),
            (Limit::OutputTokens, &mut meters.output, 1),
        ];
        for (limit, bucket, wanted) in wants {
            let wait = bucket.until(wanted, now);
            if wait != Some(Duration::ZERO) {
                return Err(OverLimit { limit, refusal: refusal(limit, bucket.limit(), &domain.0, wait) });
            }
        }
        meters.requests.take(1, now);
        meters.input.take(input, now);
        Ok(())
    }

    /// Charges output that has been produced.
    pub(crate) fn produced(&mut self, domain: &DomainKey, tokens: u64, now: Moment) {
        if let Some(Some(meters)) = self.domains.get_mut(domain) {
            meters.output.take(tokens, now);
        }
    }

    /// The rate-limit headers of a domain, on success and on 429.
    pub(crate) fn headers(&mut self, domain: &DomainKey, now: Moment) -> Vec<(&'static str, String)> {
        let epoch = Duration::from_secs(self.epoch_s) + now.since(Moment::ZERO);
        let Some(Some(meters)) = self.domains.get_mut(domain) else { return Vec::new() };
        let reset = |full_in: Duration| {
            let at = epoch + full_in;
            rfc3339(at.as_secs() + u64::from(at.subsec_nanos() > 0))
        };
        let (input, output) = (meters.input.left(now), meters.output.left(now));
        let (input_full, output_full) = (meters.input.until_full(now), meters.output.until_full(now));
        vec![
            ("anthropic-ratelimit-requests-limit", meters.requests.limit().to_string()),
            ("anthropic-ratelimit-requests-remaining", meters.requests.left(now).to_string()),
            ("anthropic-ratelimit-requests-reset", reset(meters.requests.until_full(now))),
            ("anthropic-ratelimit-tokens-limit", (meters.input.limit() + meters.output.limit()).to_string()),
            ("anthropic-ratelimit-tokens-remaining", thousands(input + output)),
            ("anthropic-ratelimit-tokens-reset", reset(input_full.max(output_full))),
            ("anthropic-ratelimit-input-tokens-limit", meters.input.limit().to_string()),
            ("anthropic-ratelimit-input-tokens-remaining", thousands(input)),
            ("anthropic-ratelimit-input-tokens-reset", reset(input_full)),
            ("anthropic-ratelimit-output-tokens-limit", meters.output.limit().to_string()),
            ("anthropic-ratelimit-output-tokens-remaining", thousands(output)),
            ("anthropic-ratelimit-output-tokens-reset", reset(output_full)),
        ]
    }
}

fn thousands(tokens: u64) -> String {
    ((tokens + 500) / 1_000 * 1_000).to_string()
}

/// A request that can never fit is told to come back in a minute, as any other is: the API does not
/// tell the two apart.
fn refusal(limit: Limit, per_minute: u64, organisation: &str, wait: Option<Duration>) -> Refusal {
    let wait = wait.unwrap_or(Duration::from_secs(60));
    let retry_after_s = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
    let words = limit.words();
    let message = format!(
        "This request would exceed your organization's rate limit of {per_minute} {words} (org: {organisation}). \
         Please reduce the prompt length or the maximum tokens requested, or try again later."
    );
    Refusal { retry_after_s: Some(retry_after_s), ..Refusal::new(429, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { requests: 3, input_tokens: 6_000, output_tokens: 1_200, burst: Duration::from_secs(60) };

    fn domain() -> DomainKey {
        ("acme".to_owned(), "opus-5")
    }

    fn at(s: u64) -> Moment {
        Moment::from_nanos(s * 1_000_000_000)
    }

    fn header<'a>(headers: &'a [(&'static str, String)], name: &str) -> &'a str {
        headers.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v.as_str())
    }

    #[test]
    fn the_fourth_of_three_requests_a_minute_waits_twenty_seconds() {
        let mut quota = Quota::new(0);
        for _ in 0..3 {
            quota.admit(&domain(), Some(LIMITS), 10, at(0)).unwrap();
        }
        let over = quota.admit(&domain(), Some(LIMITS), 10, at(0)).unwrap_err();
        assert_eq!(over.limit, Limit::Requests);
        assert_eq!(over.refusal.retry_after_s, Some(20));
        assert!(over.refusal.message.contains("3 requests per minute"));
        assert!(quota.admit(&domain(), Some(LIMITS), 10, at(19)).is_err());
        quota.admit(&domain(), Some(LIMITS), 10, at(20)).unwrap();
    }

    #[test]
    fn input_is_charged_at_once_and_output_as_it_is_produced() {
        let mut quota = Quota::new(0);
        quota.admit(&domain(), Some(LIMITS), 5_000, at(0)).unwrap();
        let over = quota.admit(&domain(), Some(LIMITS), 1_500, at(0)).unwrap_err();
        assert_eq!((over.limit, over.refusal.retry_after_s), (Limit::InputTokens, Some(5)));
        quota.produced(&domain(), 1_210, at(0));
        let over = quota.admit(&domain(), Some(LIMITS), 1, at(0)).unwrap_err();
        assert_eq!((over.limit, over.refusal.retry_after_s), (Limit::OutputTokens, Some(1)));
        quota.admit(&domain(), Some(LIMITS), 1, at(1)).unwrap();
    }

    #[test]
    fn twelve_headers_round_tokens_and_name_the_time_of_full_replenishment() {
        let mut quota = Quota::new(1_795_379_640);
        quota.admit(&domain(), Some(LIMITS), 1_600, at(60)).unwrap();
        let headers = quota.headers(&domain(), at(60));
        assert_eq!(headers.len(), 12);
        assert_eq!(header(&headers, "anthropic-ratelimit-input-tokens-remaining"), "4000");
        assert_eq!(header(&headers, "anthropic-ratelimit-input-tokens-reset"), "2026-11-22T20:35:16Z");
        assert_eq!(header(&headers, "anthropic-ratelimit-requests-remaining"), "2");
        assert_eq!(header(&headers, "anthropic-ratelimit-tokens-limit"), "7200");
        assert_eq!(header(&headers, "anthropic-ratelimit-output-tokens-remaining"), "1000");
    }

    #[test]
    fn an_unlimited_domain_is_not_metered_and_says_nothing() {
        let mut quota = Quota::new(0);
        for _ in 0..10_000 {
            quota.admit(&domain(), Tier::Unlimited.limits("opus-5"), 1 << 40, at(0)).unwrap();
        }
        assert!(quota.headers(&domain(), at(0)).is_empty());
    }

    #[test]
    fn more_domains_than_fit_are_the_others() {
        let mut quota = Quota::new(0);
        for n in 0..DOMAINS_MAX + 50 {
            let domain = quota.domain(&format!("org{n:06}"), "opus-5");
            let _ = quota.admit(&domain, Some(LIMITS), 1, at(0));
        }
        assert_eq!(quota.domains.len(), DOMAINS_MAX + 1);
        assert_eq!(quota.domain("org000001", "opus-5").0, "org000001");
        assert_eq!(quota.domain("new", "opus-5").0, "others");
    }
}
