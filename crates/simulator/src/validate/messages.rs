//! Messages and their blocks: roles, content, and how a conversation may end.

use super::Version;
use crate::catalog::Model;
use crate::envelope::Refusal;
use crate::signature;
use serde_json::Value;

/// Most entries of `messages`.
const MESSAGES_MAX: usize = 100_000;

pub(super) fn messages(body: &Value, model: &Model, version: Version) -> Result<(), Refusal> {
    system_prompt(body)?;
    let messages = body.get("messages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if messages.is_empty() {
        return Err(Refusal::invalid("messages: at least one message is required"));
    }
    if messages.len() > MESSAGES_MAX {
        return Err(Refusal::invalid(format!(
            "messages: List should have at most {MESSAGES_MAX} items after validation"
        )));
    }
    for (at, message) in messages.iter().enumerate() {
        let role = role_of(at, message)?;
        let path = format!("messages.{at}");
        if role == "system" {
            system_turn(at, messages, model)?;
        }
        if at == 0 && role != "user" {
            return Err(Refusal::invalid("messages: first message must use the \"user\" role"));
        }
        match message.get("content") {
            None => return Err(Refusal::invalid(format!("{path}.content: Field required"))),
            Some(Value::String(text)) => {
                let last_assistant = role == "assistant" && at + 1 == messages.len();
                if text.is_empty() && !last_assistant {
                    return Err(Refusal::invalid(format!(
                        "{path}: all messages must have non-empty content except for the optional final assistant message"
                    )));
                }
            }
            Some(Value::Array(blocks)) => {
                for (nth, block) in blocks.iter().enumerate() {
                    check_block(&format!("{path}.content.{nth}"), role, block, version)?;
                }
            }
            Some(_) => return Err(Refusal::invalid(format!("{path}.content: Input should be a valid list"))),
        }
    }
    Ok(())
}

fn system_prompt(body: &Value) -> Result<(), Refusal> {
    match body.get("system") {
        None | Some(Value::String(_)) => Ok(()),
        Some(Value::Array(blocks)) => {
            for (at, block) in blocks.iter().enumerate() {
                if block.get("type").and_then(Value::as_str) != Some("text") {
                    return Err(Refusal::invalid(format!("system.{at}.type: Input should be 'text'")));
                }
                if block.get("text").and_then(Value::as_str).is_none_or(str::is_empty) {
                    return Err(Refusal::invalid("system: text content blocks must be non-empty"));
                }
            }
            Ok(())
        }
        Some(_) => Err(Refusal::invalid("system: Input should be a valid string")),
    }
}

fn role_of(at: usize, message: &Value) -> Result<&str, Refusal> {
    let role = message.get("role").ok_or_else(|| Refusal::invalid(format!("messages.{at}.role: Field required")))?;
    match role.as_str() {
        Some(role @ ("user" | "assistant" | "system")) => Ok(role),
        _ => Err(Refusal::invalid(format!("messages.{at}.role: Input should be 'user' or 'assistant'"))),
    }
}

/// A `role: "system"` entry: only where the model knows it, never first, after a user turn (or one
/// that ends in server-tool use) and before an assistant turn or at the end; text only.
fn system_turn(at: usize, messages: &[Value], model: &Model) -> Result<(), Refusal> {
    let role = |at: usize| messages.get(at).and_then(|m| m.get("role")).and_then(Value::as_str);
    if !model.system_role {
        return Err(Refusal::invalid(format!("messages.{at}.role: role 'system' is not supported on this model")));
    }
    if at == 0 {
        return Err(Refusal::invalid("messages: first message must use the \"user\" role"));
    }
    let after_server_tool = role(at - 1) == Some("assistant") && ends_in_server_tool(&messages[at - 1]);
    if role(at - 1) != Some("user") && !after_server_tool {
        return Err(Refusal::invalid(format!("messages.{at}: a system message must follow a user message")));
    }
    if !matches!(role(at + 1), None | Some("assistant")) {
        return Err(Refusal::invalid(format!(
            "messages.{at}: a system message must be last or be followed by an assistant message"
        )));
    }
    let only_text = match messages[at].get("content") {
        Some(Value::Array(blocks)) => blocks
            .iter()
            .all(|b| matches!(b.get("type").and_then(Value::as_str), Some("text" | "tool_addition" | "tool_removal"))),
        _ => true,
    };
    if !only_text {
        return Err(Refusal::invalid(format!("messages.{at}.content: system messages may only contain text blocks")));
    }
    Ok(())
}

fn check_block(path: &str, role: &str, block: &Value, version: Version) -> Result<(), Refusal> {
    let Some(kind) = block.get("type").and_then(Value::as_str) else {
        return Err(Refusal::invalid(format!("{path}.type: Field required")));
    };
    let wants = |field: &str, ok: bool| {
        if ok { Ok(()) } else { Err(Refusal::invalid(format!("{path}.{kind}.{field}: Field required"))) }
    };
    let string = |field: &str| block.get(field).is_some_and(Value::is_string);
    match kind {
        "text" => {
            wants("text", string("text"))?;
            if block.get("text").and_then(Value::as_str) == Some("") {
                return Err(Refusal::invalid("messages: text content blocks must be non-empty"));
            }
            cited(path, role, block, version)
        }
        "tool_use" if role != "assistant" => {
            Err(Refusal::invalid(format!("{path}: `tool_use` blocks can only be in `assistant` messages")))
        }
        "tool_use" => {
            wants("id", string("id"))?;
            wants("name", string("name"))?;
            match block.get("input") {
                Some(Value::Object(_)) => Ok(()),
                Some(_) => Err(Refusal::invalid(format!("{path}.tool_use.input: Input should be a valid dictionary"))),
                None => wants("input", false),
            }
        }
        "tool_result" if role != "user" => {
            Err(Refusal::invalid(format!("{path}: `tool_result` blocks can only be in `user` messages")))
        }
        "tool_result" => wants("tool_use_id", string("tool_use_id")),
        "thinking" if role != "assistant" => {
            Err(Refusal::invalid(format!("{path}: `thinking` blocks can only be in `assistant` messages")))
        }
        "thinking" => {
            wants("thinking", string("thinking"))?;
            wants("signature", string("signature"))?;
            let text = |field| block.get(field).and_then(Value::as_str).unwrap_or("");
            if signature::genuine(text("thinking"), text("signature")) {
                Ok(())
            } else {
                Err(Refusal::invalid(format!("{path}: Invalid `signature` in `thinking` block")))
            }
        }
        "redacted_thinking" => wants("data", string("data")),
        "image" => wants("source", block.get("source").is_some()),
        "document" => {
            if role == "assistant" && version == Version::Of2026 {
                return Err(Refusal::invalid(format!(
                    "{path}: `document` blocks are not permitted in `assistant` messages"
                )));
            }
            wants("source", block.get("source").is_some())
        }
        "search_result" => {
            for inner in block.get("content").and_then(Value::as_array).into_iter().flatten() {
                cited(path, role, inner, version)?;
            }
            Ok(())
        }
        _ if KNOWN.contains(&kind) => Ok(()),
        _ => Err(Refusal::invalid(format!(
            "{path}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
        ))),
    }
}

const KNOWN: [&str; 17] = [
    "server_tool_use",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "container_upload",
    "mcp_tool_use",
    "mcp_tool_result",
    "mcp_tool_listing",
    "compaction",
    "fallback",
    "advisor_tool_result",
    "connector_text",
    "tool_addition",
    "tool_removal",
];

/// Version 2026-10-21 takes no citations from a user.
fn cited(path: &str, role: &str, block: &Value, version: Version) -> Result<(), Refusal> {
    let citations = block.get("citations").and_then(Value::as_array).is_some_and(|c| !c.is_empty());
    if citations && role == "user" && version == Version::Of2026 {
        return Err(Refusal::invalid(format!("{path}.text.citations: Extra inputs are not permitted")));
    }
    Ok(())
}

fn ends_in_server_tool(message: &Value) -> bool {
    let last = message.get("content").and_then(Value::as_array).and_then(|blocks| blocks.last());
    let kind = last.and_then(|block| block.get("type")).and_then(Value::as_str).unwrap_or("");
    kind == "server_tool_use" || (kind.ends_with("_tool_result") && kind != "tool_result")
}

/// A conversation that ends with the assistant is a prefill: only old models continue it.
pub(super) fn ending(body: &Value, model: &Model) -> Result<(), Refusal> {
    let messages = body.get("messages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let role = |message: &Value| message.get("role").and_then(Value::as_str).map(str::to_owned);
    let Some(last) = messages.iter().rfind(|message| role(message).as_deref() != Some("system")) else { return Ok(()) };
    if role(last).as_deref() != Some("assistant") || ends_in_server_tool(last) {
        return Ok(());
    }
    if !model.prefill {
        return Err(Refusal::invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message.",
        ));
    }
    let text = match last.get("content") {
        Some(Value::String(text)) => Some(text.as_str()),
        Some(Value::Array(blocks)) => blocks.last().and_then(|block| block.get("text")).and_then(Value::as_str),
        _ => None,
    };
    if text.is_some_and(|text| text.trim_end() != text) {
        return Err(Refusal::invalid("messages: final assistant content cannot end with trailing whitespace"));
    }
    Ok(())
}
