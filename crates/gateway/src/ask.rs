//! What the scheduler is told of a request: numbers, hashes and sizes, never a text.

use crate::house::House;
use crate::identify::Caller;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_schedule::{Ask, ClassId, Level, Levels, Mix, Prefix};
use tidegate_wire::cached::{CachePart, cached};
use tidegate_wire::mix::mix;
use tidegate_wire::ratelimit::{self, RateLimits};
use tidegate_wire::request::MessagesRequest;

/// How long the prompt cache keeps what was marked.
const CACHED_SHORT: Duration = Duration::from_secs(5 * 60);
const CACHED_LONG: Duration = Duration::from_secs(60 * 60);

/// The request for a lease; what differs from attempt to attempt is filled in for each.
/// `counts_tokens` says whether its input is metered at all.
pub(crate) fn ask(
    house: &House,
    class: ClassId,
    caller: &Caller,
    body: &[u8],
    request: Option<&MessagesRequest>,
    counts_tokens: bool,
) -> Ask {
    let metered = request.filter(|_| counts_tokens);
    let tenant = &caller.tenant;
    let cache = metered.map(|r| cached(body, &r.parts, &r.model, &tenant.name, house.hash_key)).unwrap_or_default();
    Ask {
        class,
        tenant: tenant.id,
        band: caller.band,
        latest: Moment::NEVER,
        waited: Duration::ZERO,
        input: metered.map(|_| input(body)).unwrap_or_default(),
        output_max: metered.and_then(|r| r.max_tokens).map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
        seen: false,
        prefix: cache.prefix.map(prefix),
        conversation: cache.conversation.map(prefix),
        pin: None,
        avoid: None,
    }
}

/// What an input is made of.
pub(crate) fn input(body: &[u8]) -> Mix {
    let mix = mix(body);
    Mix { words: mix.words, digits: mix.digits, marks: mix.marks, wide: mix.wide, encoded: mix.encoded }
}

/// So many times as much, of the same kind.
pub(crate) fn enlarged(mix: Mix, times: f64) -> Mix {
    let of = |bytes: u32| (f64::from(bytes) * times).ceil() as u32;
    Mix {
        words: of(mix.words),
        digits: of(mix.digits),
        marks: of(mix.marks),
        wide: of(mix.wide),
        encoded: of(mix.encoded),
    }
}

fn prefix(part: CachePart) -> Prefix {
    Prefix { key: part.key, share: part.share, ttl: if part.hour { CACHED_LONG } else { CACHED_SHORT } }
}

/// What an answer's head says of the quota.
pub(crate) fn levels(limits: &RateLimits) -> Levels {
    let level = |l: ratelimit::Level| Level { limit: l.limit, remaining: l.remaining };
    Levels {
        requests: level(limits.requests),
        input_tokens: level(limits.input_tokens),
        output_tokens: level(limits.output_tokens),
    }
}
