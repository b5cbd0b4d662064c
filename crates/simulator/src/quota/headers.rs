//! The rate-limit headers: what an answer says of the limits.
//!
//! Requests are told exactly, tokens rounded to the nearest thousand, and `reset` is the time at
//! which the bucket would be full again, in whole seconds of wall time, rounded up.
//! `anthropic-ratelimit-tokens-*` is about the more restrictive of the organisation and the
//! workspace: the one with fewer tokens remaining, input and output together.

use super::limits::Limiter;
use super::pool::Pool;
use super::rules::WorkspaceHeaders;
use std::time::Duration;
use tidegate_base::{Moment, rfc3339};

/// Header lines.
pub(crate) type Lines = Vec<(&'static str, String)>;

/// One limit as the headers tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    limit: u64,
    left: u64,
    full_in: Duration,
}

impl Told {
    /// The same with another remainder, as far as the limit allows it.
    fn as_if(self, permille: u64) -> Told {
        if permille == 1_000 {
            return self;
        }
        Told { left: (self.left.saturating_mul(permille) / 1_000).min(self.limit), ..self }
    }

    /// Two limits taken together: full when both are.
    fn plus(self, other: Told) -> Told {
        Told {
            limit: self.limit.saturating_add(other.limit),
            left: self.left.saturating_add(other.left),
            full_in: self.full_in.max(other.full_in),
        }
    }
}

/// The headers' names: limit, remaining, reset.
type Names = [&'static str; 3];

const REQUESTS: Names = [
    "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
];
const TOKENS: Names =
    ["anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"];
const INPUT: Names = [
    "anthropic-ratelimit-input-tokens-limit",
    "anthropic-ratelimit-input-tokens-remaining",
    "anthropic-ratelimit-input-tokens-reset",
];
const OUTPUT: Names = [
    "anthropic-ratelimit-output-tokens-limit",
    "anthropic-ratelimit-output-tokens-remaining",
    "anthropic-ratelimit-output-tokens-reset",
];

fn told(pool: &mut Pool, now: Moment) -> [Option<Told>; 3] {
    Limiter::ALL.map(|limiter| {
        let bucket = pool.bucket(limiter)?;
        Some(Told { limit: bucket.limit(), left: bucket.left(now), full_in: bucket.until_full(now) })
    })
}

/// The headers of an organisation and, where the caller has one, its workspace. `permille` is how much
/// of what remains they tell; `epoch_s` is the wall time at moment zero. Nothing is said where nothing
/// is limited.
pub(crate) fn lines(
    organisation: &mut Pool,
    workspace: Option<&mut Pool>,
    rule: WorkspaceHeaders,
    permille: u64,
    epoch_s: u64,
    now: Moment,
) -> Lines {
    let told = |pool: &mut Pool| told(pool, now).map(|told| told.map(|told| told.as_if(permille)));
    let own = told(organisation);
    let inner = workspace.map_or([None; 3], told);
    // What a workspace does not limit is limited by its organisation.
    let within: [Option<Told>; 3] = std::array::from_fn(|n| inner[n].or(own[n]));
    let shown = if rule == WorkspaceHeaders::All { within } else { own };
    let total = |told: [Option<Told>; 3]| Some(told[Limiter::Input as usize]?.plus(told[Limiter::Output as usize]?));
    let tokens = match (total(own), total(within)) {
        (Some(own), Some(within)) if own.left < within.left => Some(own),
        (own, within) => within.or(own),
    };
    let wall = Duration::from_secs(epoch_s) + now.since(Moment::ZERO);
    let [requests, input, output] = shown;
    let exact = requests.map(|told| told.left);
    let rows = [
        (REQUESTS, requests, exact),
        (TOKENS, tokens, rounded(tokens)),
        (INPUT, input, rounded(input)),
        (OUTPUT, output, rounded(output)),
    ];
    let mut lines = Vec::with_capacity(12);
    for ([limit, remaining, reset], told, left) in rows {
        let (Some(told), Some(left)) = (told, left) else { continue };
        let full_at = wall + told.full_in;
        lines.push((limit, told.limit.to_string()));
        lines.push((remaining, left.to_string()));
        lines.push((reset, rfc3339(full_at.as_secs() + u64::from(full_at.subsec_nanos() > 0))));
    }
    lines
}

/// What is left, to the nearest thousand.
fn rounded(told: Option<Told>) -> Option<u64> {
    Some(told?.left.saturating_add(500) / 1_000 * 1_000)
}

#[cfg(test)]
mod tests {
    use super::super::limits::PartialLimits;
    use super::*;

    const OWN: PartialLimits =
        PartialLimits { requests: Some(50), input_tokens: Some(30_000), output_tokens: Some(8_000) };
    const MINUTE: Duration = Duration::from_secs(60);

    fn value(lines: &Lines, name: &str) -> String {
        lines
            .iter()
            .find(|(n, _)| *n == format!("anthropic-ratelimit-{name}"))
            .map_or("none".to_owned(), |l| l.1.clone())
    }

    #[test]
    fn tokens_are_rounded_to_the_nearest_thousand_and_requests_are_not() {
        let check = |taken: u64, says: &str| {
            let mut pool = Pool::new(OWN, MINUTE, None);
            pool.take(Limiter::Input, taken, Moment::ZERO);
            pool.take(Limiter::Requests, 7, Moment::ZERO);
            let lines = lines(&mut pool, None, WorkspaceHeaders::Tokens, 1_000, 0, Moment::ZERO);
            assert_eq!(value(&lines, "input-tokens-remaining"), says, "{taken}");
            assert_eq!(value(&lines, "requests-remaining"), "43");
        };
        check(0, "30000");
        check(499, "30000");
        check(500, "30000");
        check(501, "29000");
        check(1_500, "29000");
        check(1_501, "28000");
        check(29_500, "1000");
        check(29_501, "0");
        check(31_000, "0");
    }

    #[test]
    fn the_tokens_lines_are_about_whoever_has_fewer_left() {
        let mut own = Pool::new(OWN, MINUTE, None);
        let inner = PartialLimits { input_tokens: Some(6_000), ..PartialLimits::default() };
        let mut inner = Pool::new(inner, MINUTE, None);
        let mut say = |own: &mut Pool, rule| {
            let lines = lines(own, Some(&mut inner), rule, 1_000, 0, Moment::ZERO);
            ["tokens-limit", "tokens-remaining", "input-tokens-limit", "requests-limit"].map(|name| value(&lines, name))
        };
        assert_eq!(say(&mut own, WorkspaceHeaders::Tokens), ["14000", "14000", "30000", "50"]);
        assert_eq!(say(&mut own, WorkspaceHeaders::All), ["14000", "14000", "6000", "50"]);
        own.take(Limiter::Input, 30_000, Moment::ZERO);
        assert_eq!(say(&mut own, WorkspaceHeaders::Tokens), ["38000", "8000", "30000", "50"]);
    }

    #[test]
    fn nothing_is_said_where_nothing_is_limited() {
        let mut pool = Pool::new(PartialLimits::default(), MINUTE, None);
        assert_eq!(lines(&mut pool, None, WorkspaceHeaders::All, 1_000, 0, Moment::ZERO), Vec::new());
    }
}
