//! Rate-limit headers: what an answer says about the quota, and when to come back.
//!
//! Token remainders are rounded to the nearest thousand by the API, and `reset` is the time of
//! full replenishment (protocol page, section 3.2). `retry-after-ms` goes before `retry-after`,
//! which is seconds (fractions accepted) or an HTTP date.

use crate::http::Headers;
use std::time::{Duration, SystemTime};

/// One limiter's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The most per minute.
    pub limit: Option<u64>,
    /// What is left now.
    pub remaining: Option<u64>,
}

/// What one answer says about its domain's quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests per minute.
    pub requests: Level,
    /// Uncached input tokens per minute.
    pub input_tokens: Level,
    /// Output tokens per minute.
    pub output_tokens: Level,
}

/// How the headers of the standard tier begin, and those of fast mode and of the priority tier, which
/// are metered apart.
const STANDARD: &[u8] = b"anthropic-ratelimit-";
const FAST: &[u8] = b"anthropic-fast-";
const PRIORITY: &[u8] = b"anthropic-priority-";

impl RateLimits {
    /// Reads them from an answer's headers; what is not there is `None`. `fast`: those of fast mode.
    pub fn read(headers: &Headers, fast: bool) -> Self {
        let beginning = if fast { FAST } else { STANDARD };
        let mut limits = RateLimits::default();
        for (name, value) in headers.iter() {
            let Some((begins, rest)) = name.split_at_checked(beginning.len()) else { continue };
            if !begins.eq_ignore_ascii_case(beginning) {
                continue;
            }
            let slots: [(&[u8], &mut Option<u64>); 6] = [
                (b"requests-limit", &mut limits.requests.limit),
                (b"requests-remaining", &mut limits.requests.remaining),
                (b"input-tokens-limit", &mut limits.input_tokens.limit),
                (b"input-tokens-remaining", &mut limits.input_tokens.remaining),
                (b"output-tokens-limit", &mut limits.output_tokens.limit),
                (b"output-tokens-remaining", &mut limits.output_tokens.remaining),
            ];
            if let Some((_, slot)) = slots.into_iter().find(|(end, _)| end.eq_ignore_ascii_case(rest)) {
                *slot = std::str::from_utf8(value).ok().and_then(|v| v.trim().parse().ok());
            }
        }
        // Nothing at all is what some say that have no limits. Believed, it would let nothing go, and so
        // never be unsaid.
        for level in [&mut limits.requests, &mut limits.input_tokens, &mut limits.output_tokens] {
            if level.limit == Some(0) {
                *level = Level::default();
            }
        }
        limits
    }
}

/// Whether `name` is that of a header that tells a client of the quota, in any tier.
pub fn is_rate_limit(name: &[u8]) -> bool {
    let begins = |with: &&[u8]| name.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    [STANDARD, FAST, PRIORITY].iter().any(begins)
}

/// How long the server asks to wait, if it does. `wall` is the time now, for HTTP dates.
pub fn retry_after(headers: &Headers, wall: SystemTime) -> Option<Duration> {
    const YEAR: Duration = Duration::from_secs(31_536_000);
    let seconds = |text: &str| text.trim().parse::<f64>().ok().filter(|s| (0.0..=YEAR.as_secs_f64()).contains(s));
    if let Some(ms) = headers.text("retry-after-ms").and_then(seconds) {
        return Some(Duration::from_secs_f64(ms / 1000.0));
    }
    let value = headers.text("retry-after")?;
    seconds(value).map(Duration::from_secs_f64).or_else(|| {
        let at = http_date(value)?;
        Some(at.duration_since(wall).unwrap_or(Duration::ZERO)).filter(|wait| *wait <= YEAR)
    })
}

/// Reads an IMF-fixdate, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
fn http_date(text: &str) -> Option<SystemTime> {
    let mut words = text.trim().split_once(", ")?.1.split(' ');
    let day: i64 = words.next()?.parse().ok()?;
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let name = words.next()?;
    let month = months.iter().position(|m| *m == name)? as i64 + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(|n| n.parse::<i64>());
    let (h, m, s) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    if words.next() != Some("GMT")
        || !(1..=31).contains(&day)
        || !(1970..=9999).contains(&year)
        || h > 23
        || m > 59
        || s > 60
    {
        return None;
    }
    // Days since 1970 of a Gregorian date, years beginning in March (Howard Hinnant's algorithm).
    let y = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let seconds = u64::try_from(days * 86_400 + h * 3600 + m * 60 + s).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)], wall_s: u64) -> Option<Duration> {
        retry_after(&Headers::from_pairs(pairs.iter().copied()), SystemTime::UNIX_EPOCH + Duration::from_secs(wall_s))
    }

    #[test]
    fn a_wait_is_read_in_each_of_its_forms() {
        let s = Duration::from_secs;
        assert_eq!(check(&[("Retry-After", "7")], 0), Some(s(7)));
        assert_eq!(check(&[("retry-after", "0.5")], 0), Some(Duration::from_millis(500)));
        assert_eq!(check(&[("retry-after", "9"), ("retry-after-ms", "20")], 0), Some(Duration::from_millis(20)));
        assert_eq!(check(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], 784_111_770), Some(s(7)));
        assert_eq!(check(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], 784_111_790), Some(s(0)));
        for bad in
            ["", "soon", "-1", "NaN", "inf", "1e300", "Sun, 99 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"]
        {
            assert_eq!(check(&[("retry-after", bad)], 0), None, "{bad}");
        }
    }

    #[test]
    fn levels_are_read_and_absent_ones_are_none() {
        let headers = Headers::from_pairs([
            ("anthropic-ratelimit-requests-limit", "1000"),
            ("anthropic-ratelimit-requests-remaining", "998"),
            ("anthropic-ratelimit-output-tokens-remaining", "oops"),
            ("anthropic-ratelimit-input-tokens-limit", "0"),
            ("anthropic-ratelimit-input-tokens-remaining", "0"),
        ]);
        let limits = RateLimits::read(&headers, false);
        assert_eq!(limits.requests, Level { limit: Some(1000), remaining: Some(998) });
        assert_eq!(limits.output_tokens, Level::default());
        assert_eq!(limits.input_tokens, Level::default(), "a limit of nothing is none");
        assert_eq!(RateLimits::read(&Headers::default(), false), RateLimits::default());
    }

    #[test]
    fn fast_mode_has_levels_of_its_own() {
        let headers = Headers::from_pairs([
            ("Anthropic-RateLimit-Input-Tokens-Remaining", "7000"),
            ("anthropic-fast-input-tokens-remaining", "3000"),
        ]);
        let remaining = |fast| RateLimits::read(&headers, fast).input_tokens.remaining;
        assert_eq!((remaining(false), remaining(true)), (Some(7_000), Some(3_000)));
        for name in ["Anthropic-Ratelimit-Unified-Status", "anthropic-fast-x", "Anthropic-Priority-Input-Tokens-Limit"]
        {
            assert!(is_rate_limit(name.as_bytes()), "{name}");
        }
        assert!(!is_rate_limit(b"anthropic-version") && !is_rate_limit(b"anthropic-organization-id"));
    }
}
