//! How fast and how long an answer is: the part of a scenario that is not about failure.
//!
//! A streamed answer begins `head` after the request (response head and `message_start`), shows its
//! first content `first` later and then a content event every `event`, give or take `jitter`
//! percent, or as many tokens a second as `tokens_per_second` says. Silence longer than `ping` is
//! broken by pings. A buffered answer comes when the same stream would have ended.

use std::time::Duration;
use tidegate_base::Prng;

/// Numbers from `low` to `high`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub low: u64,
    /// The most.
    pub high: u64,
}

impl Range {
    /// Always `n`.
    pub const fn exactly(n: u64) -> Self {
        Range { low: n, high: n }
    }

    pub(crate) fn draw(self, prng: &mut Prng) -> u64 {
        prng.between(self.low, self.high.max(self.low))
    }

    /// Reads `N` or `N-M`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let range = Range { low: low.trim().parse().ok()?, high: high.trim().parse().ok()? };
        (range.low <= range.high).then_some(range)
    }
}

/// Speed and length of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From the request to the response head.
    pub head: Duration,
    /// From the head to the first content event.
    pub first: Duration,
    /// From one content event to the next.
    pub event: Duration,
    /// If set, overrules `event`: tokens produced in a second.
    pub tokens_per_second: Option<u64>,
    /// How much each gap varies, percent of itself in either direction; at most 100.
    pub jitter_percent: u64,
    /// Longest silence without a `ping`.
    pub ping: Duration,
    /// Characters in one delta.
    pub chars: Range,
    /// Length of the text of an answer, before `max_tokens` cuts it.
    pub output_tokens: Range,
    /// Length of the thinking of an answer, where it thinks.
    pub thinking_tokens: Range,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            head: Duration::from_millis(200),
            first: Duration::from_millis(100),
            event: Duration::from_millis(20),
            tokens_per_second: None,
            jitter_percent: 50,
            ping: Duration::from_secs(15),
            chars: Range { low: 4, high: 24 },
            output_tokens: Range { low: 20, high: 240 },
            thinking_tokens: Range { low: 20, high: 120 },
        }
    }
}

impl Pace {
    /// No waiting anywhere: for tests of content.
    pub fn immediate() -> Self {
        let zero = Duration::ZERO;
        Pace { head: zero, first: zero, event: zero, jitter_percent: 0, ..Pace::default() }
    }

    /// The gap before a content event that carries so many tokens (in thousandths).
    pub(crate) fn gap(&self, millitokens: u64, prng: &mut Prng) -> Duration {
        let even = match self.tokens_per_second {
            Some(rate) => Duration::from_micros(millitokens.saturating_mul(1_000) / rate.max(1)),
            None => self.event,
        };
        if self.jitter_percent == 0 || even.is_zero() {
            return even;
        }
        let jitter = self.jitter_percent.min(100);
        let percent = prng.between(100 - jitter, 100 + jitter);
        Duration::from_nanos((even.as_nanos() as u64).saturating_mul(percent) / 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_stay_within_the_jitter_and_follow_the_token_rate() {
        let mut prng = Prng::new(1);
        let pace = Pace { event: Duration::from_millis(100), jitter_percent: 20, ..Pace::default() };
        for _ in 0..100 {
            let gap = pace.gap(1_000, &mut prng).as_millis();
            assert!((80..=120).contains(&gap), "{gap}");
        }
        let pace = Pace { tokens_per_second: Some(50), jitter_percent: 0, ..Pace::default() };
        assert_eq!(pace.gap(5_000, &mut prng), Duration::from_millis(100));
    }

    #[test]
    fn a_range_reads_as_one_number_or_two() {
        assert_eq!(Range::parse("7"), Some(Range::exactly(7)));
        assert_eq!(Range::parse("2-9"), Some(Range { low: 2, high: 9 }));
        assert_eq!(Range::parse("9-2"), None);
        assert_eq!(Range::parse(""), None);
    }
}
