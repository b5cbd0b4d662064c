//! What is read, what is written, and what is forgotten.

use super::*;
use crate::tokens;
use proptest::prelude::*;
use serde_json::json;

const ACME: Scope<'static> = Scope { organisation: "acme", workspace: None, model: "claude-sonnet-5" };

fn at(s: u64) -> Moment {
    Moment::from_nanos(s * 1_000_000_000)
}

/// A text of so many tokens.
fn text(tokens: usize) -> String {
    "x".repeat(tokens * 4)
}

fn marked(text: &str, ttl: &str) -> Value {
    json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": ttl}})
}

fn plain(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn user(content: Value) -> Value {
    json!({"role": "user", "content": content})
}

/// A cache that holds prefixes of any length.
fn small(entries_max: usize) -> PromptCache {
    let minimum_tokens = BTreeMap::from([("claude-sonnet-5".to_owned(), 0)]);
    PromptCache::new(CacheRules { enabled: true, entries_max, minimum_tokens })
}

/// Sends a request that begins to be answered after a second; how its input was used.
fn send(cache: &mut PromptCache, scope: Scope<'_>, body: &Value, s: u64) -> InputUse {
    let total = tokens::of_request(Tokenizer::Older, body);
    let found = cache.look(scope, body, Tokenizer::Older, total, at(s));
    assert_eq!(found.input.total(), total, "every token is of one kind");
    cache.keep(&found, s, at(s), at(s + 1));
    found.input
}

fn used(uncached: u64, read: u64, created_5m: u64, created_1h: u64) -> InputUse {
    InputUse { uncached, read, created_5m, created_1h }
}

#[test]
fn the_second_time_a_prefix_is_read_and_only_what_follows_it_is_input() {
    let mut cache = small(100);
    let body = |question: &str| json!({"system": [marked(&text(100), "5m")], "messages": [user(json!(question))]});
    assert_eq!(send(&mut cache, ACME, &body("abcd"), 0), used(3 + 1, 0, 8 + 100, 0));
    assert_eq!(send(&mut cache, ACME, &body("abcdefgh"), 10), used(3 + 2, 8 + 100, 0, 0));
}

#[test]
fn a_conversation_reads_what_it_wrote_the_turn_before() {
    let mut cache = small(100);
    let first = json!({"messages": [user(json!([marked(&text(50), "5m")]))]});
    let second = json!({"messages": [
        user(json!([plain(&text(50))])), {"role": "assistant", "content": text(20)}, user(json!([marked(&text(10), "5m")])),
    ]});
    assert_eq!(send(&mut cache, ACME, &first, 0), used(0, 0, 53, 0));
    assert_eq!(send(&mut cache, ACME, &second, 5), used(0, 53, 23 + 13, 0));
    assert_eq!(send(&mut cache, ACME, &second, 10), used(0, 89, 0, 0));
}

#[test]
fn the_automatic_mark_is_on_the_last_block() {
    let mut cache = small(100);
    let body = json!({"cache_control": {"type": "ephemeral"}, "messages": [user(json!(text(30)))]});
    assert_eq!(send(&mut cache, ACME, &body, 0), used(0, 0, 33, 0));
    let hour = json!({"cache_control": {"type": "ephemeral", "ttl": "1h"}, "messages": [user(json!(text(31)))]});
    assert_eq!(send(&mut cache, ACME, &hour, 0), used(0, 0, 0, 34));
}

#[test]
fn an_hour_before_five_minutes_are_counted_apart() {
    let mut cache = small(100);
    let body = json!({"system": [marked(&text(40), "1h")], "messages": [user(json!([marked(&text(20), "5m"), plain("abcd")]))]});
    assert_eq!(send(&mut cache, ACME, &body, 0), used(1, 0, 23, 48));
    assert_eq!(send(&mut cache, ACME, &body, 301), used(1, 48, 23, 0), "the five minutes are over, the hour is not");
    assert_eq!(send(&mut cache, ACME, &body, 400), used(1, 71, 0, 0));
}

#[test]
fn an_entry_lives_from_the_start_of_the_request_that_used_it_last() {
    let mut cache = small(100);
    let body = json!({"messages": [user(json!([marked(&text(50), "5m")]))]});
    send(&mut cache, ACME, &body, 0);
    assert_eq!(send(&mut cache, ACME, &body, 299).read, 53);
    assert_eq!(send(&mut cache, ACME, &body, 598).read, 53, "refreshed");
    assert_eq!(send(&mut cache, ACME, &body, 898).read, 0);
}

#[test]
fn an_entry_can_be_read_once_the_answer_has_begun_and_not_if_it_never_does() {
    let mut cache = small(100);
    let body = json!({"messages": [user(json!([marked(&text(50), "5m")]))]});
    let look = |cache: &PromptCache, s| cache.look(ACME, &body, Tokenizer::Older, 53, at(s));
    let found = look(&cache, 0);
    let writes = cache.keep(&found, 1, at(0), at(10));
    assert_eq!((look(&cache, 9).input.read, look(&cache, 10).input.read), (0, 53));
    cache.forget(&writes, 1, at(10));
    assert_eq!(look(&cache, 11).input.read, 53, "it had begun");
    cache.forget(&writes, 2, at(9));
    assert_eq!(look(&cache, 11).input.read, 53, "somebody else wrote it");
    cache.forget(&writes, 1, at(9));
    assert_eq!((look(&cache, 11).input.read, cache.len()), (0, 0));
}

#[test]
fn twenty_blocks_are_looked_at_for_a_mark() {
    let turn = |blocks: usize| {
        let mut content: Vec<Value> = (0..blocks).map(|n| plain(&format!("block {n}"))).collect();
        content[blocks - 1]["cache_control"] = json!({"type": "ephemeral"});
        json!({"messages": [user(json!(content))]})
    };
    for (more, hits) in [(19, true), (20, false)] {
        let mut cache = small(100);
        send(&mut cache, ACME, &turn(5), 0);
        assert_eq!(send(&mut cache, ACME, &turn(5 + more), 5).read > 0, hits, "{more} blocks later");
    }
}

#[test]
fn below_the_models_minimum_nothing_is_cached() {
    let mut cache = PromptCache::new(CacheRules::default());
    let body = |tokens| json!({"messages": [user(json!([marked(&text(tokens), "5m")]))]});
    assert_eq!(send(&mut cache, ACME, &body(1_020), 0), used(1_023, 0, 0, 0));
    assert_eq!(send(&mut cache, ACME, &body(1_021), 0), used(0, 0, 1_024, 0));
    assert_eq!(cache.len(), 1);
    let minimum = |model| cache.minimum(model);
    assert_eq!(
        ["claude-opus-5", "claude-opus-4-8", "claude-opus-4-7", "claude-opus-4-6", "claude-sonnet-4-5", "echo"]
            .map(minimum),
        [512, 1_024, 2_048, 4_096, 1_024, 64]
    );
}

#[test]
fn organisations_workspaces_and_models_do_not_share() {
    let mut cache = small(100);
    let body = json!({"messages": [user(json!([marked(&text(50), "5m")]))]});
    send(&mut cache, ACME, &body, 0);
    for scope in [
        Scope { organisation: "blue", ..ACME },
        Scope { workspace: Some("lab"), ..ACME },
        Scope { model: "claude-opus-5", ..ACME },
    ] {
        assert_eq!(send(&mut cache, scope, &body, 5).read, 0, "{scope:?}");
    }
    assert_eq!(send(&mut cache, ACME, &body, 5).read, 53);
}

/// Which of the marks after tools, after system and after the first message are still read when a
/// part of the request changes.
#[test]
fn a_change_parts_what_comes_after_it() {
    let base = json!({
        "tools": [{"name": "f", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
        "system": [marked("be kind", "5m")],
        "messages": [user(json!([marked("hello", "5m")]))],
    });
    let check = |change: &dyn Fn(&mut Value), hits: usize| {
        let mut cache = small(100);
        send(&mut cache, ACME, &base, 0);
        let prefix = Prefix::of(ACME, &base, Tokenizer::Older);
        let tokens = [0, prefix.blocks[0].tokens, prefix.blocks[1].tokens, prefix.blocks[2].tokens];
        let mut changed = base.clone();
        change(&mut changed);
        assert_eq!(send(&mut cache, ACME, &changed, 5).read, tokens[hits]);
    };
    check(&|_| {}, 3);
    check(&|body| body["max_tokens"] = json!(7), 3);
    check(&|body| body["messages"][0]["content"][0]["text"] = json!("hallo"), 2);
    check(&|body| body["tool_choice"] = json!({"type": "any"}), 2);
    check(&|body| body["thinking"] = json!({"type": "adaptive"}), 2);
    check(&|body| body["messages"][0]["content"].as_array_mut().unwrap().push(json!({"type": "image"})), 2);
    check(&|body| body["system"][0]["text"] = json!("be brief"), 1);
    check(&|body| body["speed"] = json!("fast"), 1);
    check(&|body| body["tools"][0]["name"] = json!("g"), 0);
}

#[test]
fn the_entries_not_used_for_longest_go_first() {
    let mut cache = small(3);
    let body = |n: usize| json!({"messages": [user(json!([marked(&format!("number {n}"), "5m")]))]});
    for n in 0..3 {
        send(&mut cache, ACME, &body(n), n as u64);
    }
    assert!(send(&mut cache, ACME, &body(0), 10).read > 0);
    send(&mut cache, ACME, &body(3), 11);
    assert_eq!(cache.len(), 3);
    assert!(send(&mut cache, ACME, &body(0), 20).read > 0, "used a moment ago");
    assert_eq!(send(&mut cache, ACME, &body(1), 21).read, 0, "the oldest");
    assert_eq!(cache.by_use.len(), cache.entries.len());
}

#[test]
fn without_a_cache_all_is_input() {
    let mut cache = PromptCache::new(CacheRules { enabled: false, ..CacheRules::default() });
    let body = json!({"messages": [user(json!([marked(&text(5_000), "5m")]))]});
    assert_eq!(send(&mut cache, ACME, &body, 0), used(5_003, 0, 0, 0));
    assert_eq!(send(&mut cache, ACME, &body, 5), used(5_003, 0, 0, 0));
}

proptest! {
    #[test]
    fn what_is_read_was_sent_before_byte_for_byte(
        turns in proptest::collection::vec(("[ab]{1,6}", 0u8..3, 0u64..200), 1..12),
    ) {
        let mut cache = small(1_000);
        let mut sent: Vec<Vec<String>> = Vec::new();
        let mut now = 0;
        for (letters, kind, pause) in turns {
            now += pause;
            // A letter is a block; the last is marked.
            let texts: Vec<String> = letters.chars().map(String::from).collect();
            let mut content: Vec<Value> = texts.iter().map(|text| plain(text)).collect();
            let last = content.len() - 1;
            content[last]["cache_control"] = json!({"type": "ephemeral", "ttl": if kind == 0 { "1h" } else { "5m" }});
            let body = json!({"messages": [user(json!(content))]});
            let input = send(&mut cache, ACME, &body, now);
            let blocks = input.read.saturating_sub(3) as usize;
            if input.read > 0 {
                prop_assert!(sent.iter().any(|earlier| *earlier == texts[..blocks]), "{texts:?} read {blocks}");
            }
            prop_assert_eq!(input.uncached, 0);
            sent.push(texts);
            prop_assert_eq!(cache.by_use.len(), cache.entries.len());
        }
    }
}
