//! What the scheduler is told of a request: numbers, hashes and sizes, never a text.

use crate::house::House;
use crate::identify::Caller;
use memchr::memmem::Finder;
use std::ops::Range;
use std::sync::LazyLock;
use std::time::Duration;
use tidegate_base::Moment;
use tidegate_schedule::{Ask, ClassId, Level, Levels, Mix, Prefix};
use tidegate_wire::cached::{CachePart, cached};
use tidegate_wire::mix::mix;
use tidegate_wire::ratelimit::{self, RateLimits};
use tidegate_wire::request::{MessagesRequest, Parts};

/// How long the prompt cache keeps what was marked.
const CACHED_SHORT: Duration = Duration::from_secs(5 * 60);
const CACHED_LONG: Duration = Duration::from_secs(60 * 60);
/// A message has one; in a text the quotation marks would be escaped.
static ROLE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"role\""));
/// The type of an image's block, and of a document's.
static IMAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"image\""));
static DOCUMENT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"document\""));

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
        input: metered.map(|r| input_of(body, &r.parts)).unwrap_or_default(),
        output_max: metered.and_then(|r| r.max_tokens).map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
        seen: false,
        prefix: cache.prefix.map(prefix),
        conversation: cache.conversation.map(prefix),
        pin: None,
        avoid: None,
    }
}

/// What a request's input is made of: of all that counts as input, and not of what stands around it.
fn input_of(body: &[u8], parts: &Parts) -> Mix {
    let part = |at: &Option<Range<usize>>| at.clone().and_then(|at| body.get(at)).unwrap_or_default();
    let messages = part(&parts.messages);
    let images = IMAGE.find_iter(messages).count() as u32;
    // Images cost by their pixels, which their bytes do not tell; beside a document they are not told
    // apart.
    let counted = images > 0 && DOCUMENT.find(messages).is_none();
    let of_messages = input(messages);
    let of_messages = Mix { images, encoded: if counted { 0 } else { of_messages.encoded }, ..of_messages };
    [&parts.system, &parts.tools].into_iter().map(|at| input(part(at))).fold(of_messages, sum)
}

/// What a piece of an input is made of, messages included but nothing that is no text.
pub(crate) fn input(text: &[u8]) -> Mix {
    if text.is_empty() {
        return Mix::default();
    }
    let mix = mix(text);
    Mix {
        words: mix.words,
        digits: mix.digits,
        marks: mix.marks,
        wide: mix.wide,
        encoded: mix.encoded,
        messages: ROLE.find_iter(text).count() as u32,
        images: 0,
    }
}

fn sum(a: Mix, b: Mix) -> Mix {
    Mix {
        words: a.words.saturating_add(b.words),
        digits: a.digits.saturating_add(b.digits),
        marks: a.marks.saturating_add(b.marks),
        wide: a.wide.saturating_add(b.wide),
        encoded: a.encoded.saturating_add(b.encoded),
        messages: a.messages,
        images: a.images,
    }
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
        messages: of(mix.messages),
        images: of(mix.images),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Mix {
        let request = MessagesRequest::read(body.as_bytes()).unwrap();
        input_of(body.as_bytes(), &request.parts)
    }

    fn with(around: &str, content: &str) -> String {
        format!(r#"{{"model":"m",{around}"max_tokens":5,"messages":[{{"role":"user","content":[{content}]}}]}}"#)
    }

    #[test]
    fn only_what_counts_as_input_is_counted() {
        let text = r#"{"type":"text","text":"say \"role\", please"}"#;
        let bare = of(&with("", text));
        assert_eq!((bare.messages, bare.images), (1, 0));
        let user = format!(r#""metadata":{{"user_id":"{}"}},"stream":true,"#, "u".repeat(300));
        assert_eq!(of(&with(&user, text)), bare, "what stands around it is no input");
        let system = of(&with(r#""system":"abc","tools":[{"name":"x"}],"#, text));
        assert_eq!((system.words - bare.words, system.messages), (3 + 5, 1));
        let two = of(r#"{"model":"m","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#);
        assert_eq!(two.messages, 2);
    }

    #[test]
    fn images_are_counted_by_number_unless_a_document_is_there() {
        let data = "QUJD".repeat(1_000);
        let block = |kind: &str| {
            format!(r#"{{"type":"{kind}","source":{{"type":"base64","media_type":"x","data":"{data}"}}}}"#)
        };
        let images = of(&with("", &format!("{},{}", block("image"), block("image"))));
        assert_eq!((images.images, images.encoded), (2, 0));
        let document = of(&with("", &block("document")));
        assert_eq!((document.images, document.encoded), (0, 4_000));
        let both = of(&with("", &format!("{},{}", block("image"), block("document"))));
        assert_eq!((both.images, both.encoded), (1, 8_000), "too much rather than too little");
    }
}
