//! Each rule of the validator, by the message the API gives.

use super::*;
use serde_json::json;

const NEW: &str = "claude-sonnet-5-5";
const OLD: &str = "claude-haiku-4-5";

/// A good request to `model` with `changes` laid over it (null removes a field).
fn request(model: &str, changes: Value) -> Value {
    let mut body = json!({"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]});
    let Value::Object(changes) = changes else { return changes };
    for (key, value) in changes {
        if value.is_null() {
            body.as_object_mut().unwrap().shift_remove(&key);
        } else {
            body[key] = value;
        }
    }
    body
}

fn verdict(model: &str, changes: Value, version: Version) -> Result<Valid, Refusal> {
    let body = request(model, changes);
    validate(body.to_string().as_bytes(), version, false, Purpose::Answer)
}

#[track_caller]
fn refused(model: &str, changes: Value, says: &str) {
    refused_by(Version::Of2023, model, changes, says);
}

#[track_caller]
fn refused_by(version: Version, model: &str, changes: Value, says: &str) {
    let refusal = verdict(model, changes, version).map(|_| ()).unwrap_err();
    assert_eq!(
        refusal.status,
        if says.starts_with("model: ") && !says.contains("Input") { refusal.status } else { 400 }
    );
    assert!(refusal.message.contains(says), "said: {}", refusal.message);
}

#[track_caller]
fn passes(model: &str, changes: Value) {
    verdict(model, changes, Version::Of2023).unwrap();
}

fn user(content: Value) -> Value {
    json!({"role": "user", "content": content})
}

fn assistant(content: Value) -> Value {
    json!({"role": "assistant", "content": content})
}

fn call(id: &str) -> Value {
    json!({"type": "tool_use", "id": id, "name": "f", "input": {}})
}

fn result(id: &str) -> Value {
    json!({"type": "tool_result", "tool_use_id": id, "content": "ok"})
}

#[test]
fn what_is_not_a_request_at_all() {
    let check = |bytes: &[u8], says: &str| {
        let refusal = validate(bytes, Version::Of2023, false, Purpose::Answer).map(|_| ()).unwrap_err();
        assert!(refusal.message.contains(says), "said: {}", refusal.message);
    };
    check(b"{\"model\": ", "not valid JSON: EOF while parsing a value at line 1 column 10");
    check(b"[]", "valid dictionary");
}

#[test]
fn required_fields_and_their_types() {
    passes(NEW, json!({}));
    refused(NEW, json!({"model": null}), "model: Field required");
    refused(NEW, json!({"max_tokens": null}), "max_tokens: Field required");
    refused(NEW, json!({"messages": null}), "messages: Field required");
    refused(NEW, json!({"model": 3}), "model: Input should be a valid string");
    refused(NEW, json!({"max_tokens": "9"}), "max_tokens: Input should be a valid integer");
    refused(NEW, json!({"max_tokens": -1}), "max_tokens: Input should be greater than or equal to 0");
    refused(NEW, json!({"messages": "hi"}), "messages: Input should be a valid list");
    refused(NEW, json!({"messages": []}), "messages: at least one message is required");
    refused(NEW, json!({"stream": "yes"}), "stream: Input should be a valid boolean");
    refused(
        NEW,
        json!({"max_tokens": 128_001}),
        "max_tokens: 128001 > 128000, which is the maximum allowed number of output tokens for claude-sonnet-5-5",
    );
    refused(OLD, json!({"max_tokens": 64_001}), "64001 > 64000");
    refused(NEW, json!({"stop_sequences": [" "]}), "must contain non-whitespace");
    refused(NEW, json!({"service_tier": "best"}), "service_tier: Input should be 'auto' or 'standard_only'");
    refused(NEW, json!({"output_config": {"effort": "huge"}}), "output_config.effort");
}

#[test]
fn an_unknown_model_is_not_found() {
    let refusal = verdict("claude-nope", json!({}), Version::Of2023).map(|_| ()).unwrap_err();
    assert_eq!(
        (refusal.status, refusal.kind, refusal.message.as_str()),
        (404, "not_found_error", "model: claude-nope")
    );
}

#[test]
fn unknown_fields_need_at_least_a_beta_and_a_known_name() {
    refused(NEW, json!({"frobnicate": 1}), "frobnicate: Extra inputs are not permitted");
    refused(NEW, json!({"context_management": {}}), "context_management: Extra inputs are not permitted");
    let body = request(NEW, json!({"context_management": {"edits": []}})).to_string();
    validate(body.as_bytes(), Version::Of2023, true, Purpose::Answer).unwrap();
}

#[test]
fn counting_needs_no_max_tokens() {
    let body = request(NEW, json!({"max_tokens": null})).to_string();
    validate(body.as_bytes(), Version::Of2026, false, Purpose::Count).unwrap();
}

#[test]
fn roles_and_order() {
    refused(
        NEW,
        json!({"messages": [assistant(json!("a")), user(json!("b"))]}),
        "first message must use the \"user\" role",
    );
    refused(
        NEW,
        json!({"messages": [{"role": "tool", "content": "x"}]}),
        "messages.0.role: Input should be 'user' or 'assistant'",
    );
    refused(NEW, json!({"messages": [{"content": "x"}]}), "messages.0.role: Field required");
    refused(NEW, json!({"messages": [{"role": "user"}]}), "messages.0.content: Field required");
    passes(NEW, json!({"messages": [user(json!("a")), user(json!("b"))]}));
}

#[test]
fn empty_texts() {
    refused(
        NEW,
        json!({"messages": [user(json!([{"type": "text", "text": ""}]))]}),
        "messages: text content blocks must be non-empty",
    );
    refused(NEW, json!({"messages": [user(json!(""))]}), "messages.0: all messages must have non-empty content");
    refused(NEW, json!({"system": [{"type": "text", "text": ""}]}), "system: text content blocks must be non-empty");
}

#[test]
fn prefill_works_up_to_4_5_only() {
    let prefill = json!({"messages": [user(json!("hi")), assistant(json!("Once"))]});
    let says = "This model does not support assistant message prefill. The conversation must end with a user message.";
    for model in [NEW, "claude-opus-4-6", "claude-sonnet-4-6", "claude-opus-4-8", "claude-haiku-5-5"] {
        refused(model, prefill.clone(), says);
    }
    for model in [OLD, "claude-sonnet-4-5-20250929", "echo"] {
        passes(model, prefill.clone());
    }
    let trailing = json!({"messages": [user(json!("hi")), assistant(json!("Once "))]});
    refused(OLD, trailing, "cannot end with trailing whitespace");
    let search = json!({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}});
    passes(NEW, json!({"messages": [user(json!("hi")), assistant(json!([search]))]}));
}

#[test]
fn sampling_is_gone_from_the_new_version_and_from_new_models() {
    for (field, value) in [("temperature", json!(1)), ("top_p", json!(1)), ("top_k", json!(5))] {
        let says = format!("{field}: Extra inputs are not permitted");
        refused_by(Version::Of2026, OLD, json!({field: value}), &says);
        passes(OLD, json!({field: value}));
    }
    refused(NEW, json!({"temperature": 0.5}), "`temperature` is deprecated for this model.");
    passes(NEW, json!({"temperature": 1}));
    refused(OLD, json!({"temperature": 1.5}), "temperature: range: 0..1");
    refused(OLD, json!({"temperature": "hot"}), "temperature: Input should be a valid number");
}

#[test]
fn thinking_types_per_model() {
    let thinking = |kind: &str| json!({"max_tokens": 4_000, "thinking": {"type": kind, "budget_tokens": 2_000}});
    for (model, kind, fits) in [
        ("claude-fable-5-2", "adaptive", true),
        ("claude-fable-5-2", "disabled", false),
        ("claude-opus-5-5", "disabled", false),
        ("claude-opus-4-8", "enabled", false),
        ("claude-opus-4-8", "disabled", true),
        ("claude-sonnet-5", "enabled", false),
        ("claude-sonnet-4-6", "enabled", true),
        ("claude-sonnet-4-6", "adaptive", true),
        ("claude-haiku-4-5", "adaptive", false),
        ("claude-haiku-4-5", "enabled", true),
    ] {
        match fits {
            true => passes(model, thinking(kind)),
            false => {
                refused(model, thinking(kind), &format!("\"thinking.type.{kind}\" is not supported for this model."))
            }
        }
    }
    refused(NEW, thinking("hard"), "Input tag 'hard'");
    refused(NEW, json!({"thinking": {"type": "adaptive", "display": "loud"}}), "thinking.adaptive.display");
}

#[test]
fn budgets_of_thinking() {
    let with = |budget: Value, more: Value| {
        let mut changes = json!({"max_tokens": 2_000, "thinking": {"type": "enabled", "budget_tokens": budget}});
        changes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        changes
    };
    passes(OLD, with(json!(1_024), json!({})));
    refused(OLD, with(json!(1_023), json!({})), "budget_tokens: Input should be greater than or equal to 1024");
    refused(OLD, with(json!(2_000), json!({})), "`max_tokens` must be greater than `thinking.budget_tokens`");
    refused(OLD, with(json!("x"), json!({})), "budget_tokens: Input should be a valid integer");
    refused(OLD, json!({"thinking": {"type": "enabled"}}), "budget_tokens: Field required");
    refused(OLD, with(json!(1_024), json!({"temperature": 0.2})), "may only be set to 1 when thinking is enabled");
}

#[test]
fn a_tampered_thought_is_noticed() {
    let block = |seal: &str| json!({"type": "thinking", "thinking": "hm", "signature": seal});
    let talk = |seal: &str| json!({"messages": [user(json!("a")), assistant(json!([block(seal), {"type": "text", "text": "b"}])), user(json!("c"))]});
    passes(NEW, talk(&crate::signature::sign("hm", 5)));
    refused(NEW, talk("forged"), "messages.1.content.0: Invalid `signature` in `thinking` block");
}

#[test]
fn every_tool_call_has_its_result_in_the_next_turn() {
    let talk = |middle: Value, last: Value| json!({"messages": [user(json!("a")), assistant(middle), user(last)]});
    passes(NEW, talk(json!([call("toolu_1"), call("toolu_2")]), json!([result("toolu_2"), result("toolu_1")])));
    refused(
        NEW,
        talk(json!([call("toolu_1")]), json!("never mind")),
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1. \
         Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
    );
    refused(
        NEW,
        json!({"messages": [user(json!([result("toolu_9")]))]}),
        "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_9. \
         Each `tool_result` block must have a corresponding `tool_use` block in the previous message.",
    );
    refused(
        NEW,
        talk(json!([call("toolu_1")]), json!([result("toolu_1"), result("toolu_1")])),
        "must have a single result",
    );
    refused(NEW, talk(json!([call("toolu_1"), call("toolu_1")]), json!([result("toolu_1")])), "ids must be unique");
    let split = json!({"messages": [user(json!("a")), assistant(json!([call("t1")])), assistant(json!([call("t2")])), user(json!([result("t1")])), user(json!([result("t2")]))]});
    passes(NEW, split);
    refused(NEW, json!({"messages": [user(json!([call("t1")]))]}), "can only be in `assistant` messages");
}

#[test]
fn tools_and_the_choice_of_one() {
    let tool = |name: &str| json!({"name": name, "input_schema": {"type": "object"}});
    passes(
        NEW,
        json!({"tools": [tool("f"), {"type": "bash_20250124", "name": "bash"}, {"type": "browser_toolset_20260801"}]}),
    );
    refused(NEW, json!({"tools": [tool("f"), tool("f")]}), "Tool names must be unique");
    refused(NEW, json!({"tools": [{"name": "f"}]}), "tools.0.custom.input_schema: Field required");
    refused(NEW, json!({"tools": [{"name": "f", "input_schema": {}}]}), "input_schema.type: Field required");
    refused(NEW, json!({"tools": [tool("f g")]}), "String should match pattern");
    refused(NEW, json!({"tool_choice": {"type": "any"}}), "only be specified while providing tools");
    refused(
        NEW,
        json!({"tools": [tool("f")], "tool_choice": {"type": "tool", "name": "g"}}),
        "Tool 'g' not found in provided tools",
    );
    refused(NEW, json!({"tools": [tool("f")], "tool_choice": {"type": "some"}}), "Input tag 'some'");
}

#[test]
fn system_messages_where_the_model_knows_them() {
    let system = |at_end: &str| json!({"role": "system", "content": at_end});
    let talk = json!({"messages": [user(json!("a")), system("be brief")]});
    passes("claude-opus-4-8", talk.clone());
    refused("claude-sonnet-5", talk, "messages.1.role: role 'system' is not supported on this model");
    refused("claude-opus-4-8", json!({"messages": [system("x"), user(json!("a"))]}), "first message must use");
    refused(
        "claude-opus-4-8",
        json!({"messages": [user(json!("a")), system("x"), user(json!("b"))]}),
        "must be last or be followed by an assistant message",
    );
    let image = json!({"role": "system", "content": [{"type": "image", "source": {}}]});
    refused("claude-opus-4-8", json!({"messages": [user(json!("a")), image]}), "may only contain text blocks");
}

#[test]
fn what_the_version_2026_10_21_no_longer_takes() {
    let document = json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}});
    let talk = json!({"messages": [user(json!("a")), assistant(json!([document])), user(json!("b"))]});
    passes(NEW, talk.clone());
    refused_by(Version::Of2026, NEW, talk, "messages.1.content.0: `document` blocks are not permitted");
    let cited =
        json!({"messages": [user(json!([{"type": "text", "text": "a", "citations": [{"type": "char_location"}]}]))]});
    passes(NEW, cited.clone());
    refused_by(Version::Of2026, NEW, cited, "messages.0.content.0.text.citations: Extra inputs");
}

#[test]
fn four_cache_marks_and_no_more() {
    let block = json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}});
    passes(NEW, json!({"messages": [user(json!(vec![block.clone(); 4]))]}));
    refused(
        NEW,
        json!({"messages": [user(json!(vec![block.clone(); 5]))]}),
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    );
    refused(
        NEW,
        json!({"cache_control": {"type": "ephemeral"}, "messages": [user(json!(vec![block; 4]))]}),
        "Found 5.",
    );
    let data =
        json!({"type": "tool_use", "id": "t", "name": "f", "input": {"cache_control": 1, "x": {"cache_control": 2}}});
    passes(NEW, json!({"messages": [user(json!("a")), assistant(json!(vec![data])), user(json!([result("t")]))]}));
}

#[test]
fn a_cache_mark_has_a_type_a_lifetime_and_a_place() {
    let on =
        |control: Value| json!({"messages": [user(json!([{"type": "text", "text": "x", "cache_control": control}]))]});
    passes(NEW, on(json!({"type": "ephemeral", "ttl": "1h"})));
    passes(NEW, on(Value::Null));
    refused(NEW, on(json!("yes")), "messages.0.content.0.cache_control: Input should be a valid dictionary");
    refused(
        NEW,
        on(json!({"type": "durable"})),
        "messages.0.content.0.cache_control.type: Input should be 'ephemeral'",
    );
    refused(NEW, on(json!({"type": "ephemeral", "ttl": "2h"})), "cache_control.ttl: Input should be '5m' or '1h'");
    refused(NEW, json!({"cache_control": {"type": "durable"}}), "cache_control.type: Input should be 'ephemeral'");
    let signature = crate::signature::sign("hm", 1);
    let thought =
        json!({"type": "thinking", "thinking": "hm", "signature": signature, "cache_control": {"type": "ephemeral"}});
    let turns = json!({"messages": [user(json!("a")), assistant(json!([thought])), user(json!("b"))]});
    refused(NEW, turns, "messages.1.content.0.thinking.cache_control: Extra inputs are not permitted");
}

#[test]
fn an_hour_comes_before_five_minutes() {
    let block = |ttl: &str| json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": ttl}});
    let body = |system: &str, last: &str| json!({"system": [block(system)], "messages": [user(json!([block(last)]))]});
    passes(NEW, body("1h", "5m"));
    passes(NEW, body("1h", "1h"));
    refused(
        NEW,
        body("5m", "1h"),
        "messages.0.content.0.cache_control.ttl: a ttl='1h' cache_control block must not come",
    );
    let mut automatic = body("5m", "5m");
    automatic["cache_control"] = json!({"type": "ephemeral", "ttl": "1h"});
    refused(NEW, automatic.clone(), "the last block has a cache_control of its own with a different ttl");
    automatic["messages"] = json!([user(json!("x"))]);
    refused(NEW, automatic, "cache_control.ttl: a ttl='1h'");
    let mut agreed = body("5m", "5m");
    agreed["cache_control"] = json!({"type": "ephemeral"});
    passes(NEW, agreed);
}

#[test]
fn warming_the_cache_asks_nothing_of_the_answer() {
    passes(NEW, json!({"max_tokens": 0}));
    refused(NEW, json!({"max_tokens": 0, "stream": true}), "max_tokens: 0 cannot be combined with `stream`");
    refused(
        OLD,
        json!({"max_tokens": 0, "thinking": {"type": "enabled", "budget_tokens": 2_000}}),
        "with `thinking.type: enabled`",
    );
    refused(
        NEW,
        json!({"max_tokens": 0, "output_config": {"format": {"type": "json_schema", "schema": {}}}}),
        "`output_config.format`",
    );
    let tools = json!([{"name": "f", "input_schema": {"type": "object"}}]);
    refused(NEW, json!({"max_tokens": 0, "tools": tools, "tool_choice": {"type": "any"}}), "`tool_choice` of type");
}

#[test]
fn a_prompt_beyond_the_context_is_too_long() {
    let long = "word ".repeat(200_000);
    refused(OLD, json!({"messages": [user(json!(long))]}), "prompt is too long: ");
    passes("claude-sonnet-4-6", json!({"messages": [user(json!(long))]}));
}
