//! What of a request the provider's prompt cache may hold.
//!
//! Nothing is cached without a `cache_control` mark (protocol page, 5.6). Two things matter to
//! whoever chooses where a request goes: the *prefix*, tools and system up to the last mark there,
//! which other requests may share; and the *conversation*, whose earlier turns were cached where
//! they were served. Both are told as a hash and as a share of the body.
//!
//! A conversation is known by its tenant, model, tools, system and first message. Its clients move
//! the marks along from turn to turn, and with a mark a plain string becomes a block of text; so of
//! a text only its characters are hashed, and of anything else all but the marks.
//!
//! The hash is SipHash under a key of the process's own: nobody outside can make two meet.

use crate::raw::{self, RawObject};
use crate::request::Parts;
use memchr::memmem;
use std::hash::{DefaultHasher, Hasher};
use std::sync::LazyLock;

/// A beginning of the input that may be in the cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CachePart {
    /// Its hash, model included.
    pub key: u64,
    /// Its part of the whole body, from 0 to 1.
    pub share: f32,
    /// Whether it is kept for an hour; else for five minutes.
    pub hour: bool,
}

/// Both of them, where there are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cached {
    /// What other requests may begin with too.
    pub prefix: Option<CachePart>,
    /// The conversation it goes on with.
    pub conversation: Option<CachePart>,
}

/// The key of the hashes.
pub type HashKey = [u64; 2];

static MARK: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\"cache_control\""));

/// The hash of `parts` under `key`, each part with its length.
pub fn keyed(key: HashKey, parts: &[&[u8]]) -> u64 {
    let mut hash = DefaultHasher::new();
    key.iter().for_each(|half| hash.write_u64(*half));
    for part in parts {
        hash.write_usize(part.len());
        hash.write(part);
    }
    hash.finish()
}

/// The next mark in `text` from `from` on: from its key to the end of its value, and whether it
/// asks for an hour. The name inside a string is none, nor is a null.
fn mark(text: &[u8], from: usize) -> Option<(std::ops::Range<usize>, bool)> {
    let mut from = from;
    loop {
        let at = from + MARK.find(&text[from..])?;
        let after = at + "\"cache_control\"".len();
        let value = text[after..].trim_ascii_start();
        let value = value.strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        if let Some(value) = value.filter(|v| v.starts_with(b"{")) {
            let begin = text.len() - value.len();
            let end = memchr::memchr(b'}', value).map_or(text.len(), |n| begin + n + 1);
            return Some((at..end, memmem::find(&text[begin..end], b"\"1h\"").is_some()));
        }
        from = after;
    }
}

fn last_mark(text: &[u8]) -> Option<bool> {
    let (mut from, mut last) = (0, None);
    while let Some((place, hour)) = mark(text, from) {
        (from, last) = (place.end, Some(hour));
    }
    last
}

/// Hashes `text` without its marks and the commas beside them.
fn hash_unmarked(hash: &mut DefaultHasher, text: &[u8]) {
    let mut from = 0;
    while let Some((place, _)) = mark(text, from) {
        let before = text[from..place.start].trim_ascii_end();
        hash.write(before.strip_suffix(b",").unwrap_or(before));
        from = place.end;
        if before.ends_with(b"{") {
            let after = text[from..].trim_ascii_start();
            from = text.len() - after.strip_prefix(b",").unwrap_or(after).len();
        }
    }
    hash.write(&text[from..]);
}

/// Hashes what a message or the system says: a string, or a list of blocks.
fn hash_content(hash: &mut DefaultHasher, content: &str) {
    fn inside(text: &str) -> Option<&str> {
        text.strip_prefix('"')?.strip_suffix('"')
    }
    if let Some(text) = inside(content) {
        return hash.write(text.as_bytes());
    }
    let listed = raw::each_element(content, |element| {
        let block = RawObject::read(element.as_bytes()).ok();
        match block.and_then(|b| inside(b.get("text")?.get())) {
            Some(text) => hash.write(text.as_bytes()),
            None => hash_unmarked(hash, element.as_bytes()),
        }
    });
    if !listed {
        hash_unmarked(hash, content.as_bytes());
    }
}

/// What of a request may be cached; `parts` says where its parts stand in `body`.
pub fn cached(body: &[u8], parts: &Parts, model: &str, tenant: &str, key: HashKey) -> Cached {
    if mark(body, 0).is_none() || body.is_empty() {
        return Cached::default();
    }
    let text = |part: &Option<std::ops::Range<usize>>| {
        part.clone().and_then(|at| std::str::from_utf8(&body[at]).ok()).unwrap_or_default()
    };
    let (tools, system, messages) = (text(&parts.tools), text(&parts.system), text(&parts.messages));
    let hasher = |what: &str| {
        let mut hash = DefaultHasher::new();
        key.iter().for_each(|k| hash.write_u64(*k));
        [what, model].iter().for_each(|t| {
            hash.write(t.as_bytes());
            hash.write_u8(0);
        });
        hash
    };
    let share = |bytes: usize| bytes as f32 / body.len() as f32;

    let prefix = shared(tools, system).map(|(tools, system, hour)| {
        let mut hash = hasher("prefix");
        [tools, system].iter().for_each(|part| {
            hash.write(part.as_bytes());
            hash.write_u8(0);
        });
        CachePart { key: hash.finish(), share: share(tools.len() + system.len()), hour }
    });

    let automatic = text(&parts.cache_control).starts_with('{').then(|| text(&parts.cache_control).contains("\"1h\""));
    let conversation = last_mark(messages.as_bytes()).or(automatic).and_then(|hour| {
        let mut hash = hasher("conversation");
        hash.write(tenant.as_bytes());
        hash.write_u8(0);
        hash_unmarked(&mut hash, tools.as_bytes());
        hash_content(&mut hash, system);
        let mut turns = Turns::default();
        raw::each_element(messages, |message| turns.add(message));
        let first = RawObject::read(turns.first?.as_bytes()).ok()?;
        hash_content(&mut hash, first.get("content").map_or("", |c| c.get()));
        let before = prefix.map_or(0.0, |p| p.share);
        Some(CachePart { key: hash.finish(), share: before.max(share(turns.earlier(body, tools, system))), hour })
    });
    Cached { prefix, conversation }
}

/// Tools and system up to the last mark there, and whether it asks for an hour.
fn shared<'a>(tools: &'a str, system: &'a str) -> Option<(&'a str, &'a str, bool)> {
    let until = |list: &'a str| {
        let (mut last, begin) = (None, list.as_ptr() as usize);
        raw::each_element(list, |element| {
            if let Some(hour) = last_mark(element.as_bytes()) {
                last = Some((element.as_ptr() as usize + element.len() - begin, hour));
            }
        });
        last.and_then(|(end, hour)| Some((list.get(..end)?, hour)))
    };
    match until(system) {
        Some((system, hour)) => Some((tools, system, hour)),
        None => until(tools).map(|(tools, hour)| (tools, "", hour)),
    }
}

/// The messages as far as they matter here.
#[derive(Default)]
struct Turns<'a> {
    first: Option<&'a str>,
    /// Where the newest two begin: the last answer and what was said to it.
    newest: [Option<&'a str>; 2],
}

impl<'a> Turns<'a> {
    fn add(&mut self, message: &'a str) {
        self.first.get_or_insert(message);
        self.newest = [self.newest[1], Some(message)];
    }

    /// Bytes that were sent with an earlier turn already.
    fn earlier(&self, body: &[u8], tools: &str, system: &str) -> usize {
        let (Some(first), [Some(answer), Some(_)]) = (self.first, self.newest) else { return 0 };
        let said = (answer.as_ptr() as usize).saturating_sub(first.as_ptr() as usize);
        if said == 0 { 0 } else { (said + tools.len() + system.len()).min(body.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::MessagesRequest;

    const KEY: HashKey = [1, 2];

    fn check(body: &str) -> Cached {
        of("acme", body)
    }

    fn of(tenant: &str, body: &str) -> Cached {
        let request = MessagesRequest::read(body.as_bytes()).unwrap();
        cached(body.as_bytes(), &request.parts, &request.model, tenant, KEY)
    }

    const MARKED: &str = r#"{"type":"text","text":"You sail.","cache_control":{"type":"ephemeral"}}"#;

    fn body(system: &str, messages: &str) -> String {
        format!(r#"{{"model":"m","system":{system},"tools":[{{"name":"t"}}],"messages":{messages}}}"#)
    }

    #[test]
    fn nothing_is_cached_without_a_mark() {
        let quoted = r#"[{"role":"user","content":"set \"cache_control\": {} there"}]"#;
        assert_eq!(check(&body("\"s\"", quoted)), Cached::default());
        let null = r#"[{"role":"user","content":[{"type":"text","text":"x","cache_control":null}]}]"#;
        assert_eq!(check(&body("\"s\"", null)), Cached::default());
    }

    #[test]
    fn the_prefix_ends_at_the_last_mark_of_tools_and_system() {
        let ask = |after: &str, said: &str| {
            check(&body(&format!("[{MARKED}{after}]"), &format!(r#"[{{"role":"user","content":"{said}"}}]"#)))
        };
        let (a, b) = (ask("", "one"), ask(r#",{"type":"text","text":"Today is Monday."}"#, "two"));
        let prefix = a.prefix.unwrap();
        assert_eq!(prefix.key, b.prefix.unwrap().key, "what follows the mark is not in it");
        assert!((0.4..0.8).contains(&prefix.share) && !prefix.hour, "{prefix:?}");
        assert_eq!(a.conversation, None, "no mark in the messages");
        let hour = check(&body(&format!("[{}]", MARKED.replace("ephemeral\"", "ephemeral\",\"ttl\":\"1h\"")), "[]"));
        assert!(hour.prefix.unwrap().hour);
        let other = check(&body(&format!("[{}]", MARKED.replace("sail", "row")), "[]"));
        assert_ne!(other.prefix.unwrap().key, prefix.key);
        let in_tools = r#"{"model":"m","system":"a","tools":[{"name":"t","cache_control":{"type":"ephemeral"}},{"name":"u"}],"messages":[]}"#;
        let (a, b) = (check(in_tools), check(&in_tools.replace("\"a\"", "\"b\"").replace("\"u\"", "\"v\"")));
        assert_eq!(a.prefix.unwrap().key, b.prefix.unwrap().key);
    }

    #[test]
    fn a_conversation_is_the_same_in_each_of_its_turns() {
        let turns = [
            r#"[{"role":"user","content":[{"type":"text","text":"Hello","cache_control":{"type":"ephemeral"}}]}]"#,
            r#"[{"role":"user","content":"Hello"},{"role":"assistant","content":"Ahoy, and a long answer"},{"role":"user","content":[{"type":"text","text":"And now?","cache_control":{"type":"ephemeral"}}]}]"#,
            r#"[{"role":"user","content":[{"type":"text","text":"Hello"}]},{"role":"assistant","content":"Ahoy, and a long answer"},{"role":"user","content":"And now?"},{"role":"assistant","content":"Yes."},{"role":"user","content":[{"cache_control": {"type":"ephemeral","ttl":"1h"},"type":"text","text":"Go on"}]}]"#,
        ];
        let marked = format!("[{MARKED}]");
        let asked: Vec<_> = turns.iter().map(|t| check(&body(&marked, t)).conversation.unwrap()).collect();
        assert!(asked.iter().all(|c| c.key == asked[0].key), "{asked:?}");
        assert!(asked[2].share > asked[1].share && asked[2].share > 0.5, "{asked:?}");
        assert!(asked[2].hour && !asked[1].hour);
        let other = of("other", &body(&marked, turns[0])).conversation.unwrap();
        assert_ne!(other.key, asked[0].key, "tenants are kept apart");
        let elsewhere = check(&body(&marked, &turns[0].replace("Hello", "Hullo"))).conversation.unwrap();
        assert_ne!(elsewhere.key, asked[0].key);
    }

    #[test]
    fn automatic_caching_needs_no_other_mark() {
        let body = r#"{"model":"m","cache_control":{"type":"ephemeral"},"system":"s","messages":[{"role":"user","content":"Hi"}]}"#;
        let cached = check(body);
        assert_eq!((cached.prefix, cached.conversation.map(|c| c.share)), (None, Some(0.0)));
    }

    proptest::proptest! {
        #[test]
        fn no_body_makes_it_panic(system in "[\\[\\]{}\",: a\\\\]{0,30}", messages in "[\\[\\]{}\",: a\\\\]{0,30}") {
            let text = format!(r#"{{"model":"m","cache_control":{{}},"system":{system},"messages":{messages}}}"#);
            if let Ok(request) = MessagesRequest::read(text.as_bytes()) {
                let _ = cached(text.as_bytes(), &request.parts, "m", "t", KEY);
            }
        }
    }
}
