//! `tools` and `tool_choice`: names, schemas, and a choice that can be made.

use crate::envelope::Refusal;
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) fn tools(body: &Value) -> Result<(), Refusal> {
    let none = Vec::new();
    let tools = match body.get("tools") {
        None | Some(Value::Null) => &none,
        Some(Value::Array(tools)) => tools,
        Some(_) => return Err(Refusal::invalid("tools: Input should be a valid list")),
    };
    let mut names = BTreeSet::new();
    for (at, tool) in tools.iter().enumerate() {
        let custom = matches!(tool.get("type").and_then(Value::as_str), None | Some("custom"));
        let name = tool.get("name").and_then(Value::as_str);
        if custom {
            custom_tool(at, tool, name)?;
        }
        if name.is_some_and(|name| !names.insert(name)) {
            return Err(Refusal::invalid("tools: Tool names must be unique."));
        }
    }
    choice(body, tools, &names)
}

fn custom_tool(at: usize, tool: &Value, name: Option<&str>) -> Result<(), Refusal> {
    let Some(name) = name else {
        return Err(Refusal::invalid(format!("tools.{at}.custom.name: Field required")));
    };
    let fits =
        (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !fits {
        return Err(Refusal::invalid(format!(
            "tools.{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        )));
    }
    let Some(schema) = tool.get("input_schema") else {
        return Err(Refusal::invalid(format!("tools.{at}.custom.input_schema: Field required")));
    };
    match schema.get("type") {
        None => Err(Refusal::invalid(format!("tools.{at}.custom.input_schema.type: Field required"))),
        Some(Value::String(kind)) if kind == "object" => Ok(()),
        Some(_) => Err(Refusal::invalid(format!("tools.{at}.custom.input_schema.type: Input should be 'object'"))),
    }
}

fn choice(body: &Value, tools: &[Value], names: &BTreeSet<&str>) -> Result<(), Refusal> {
    let Some(choice) = body.get("tool_choice").filter(|choice| !choice.is_null()) else { return Ok(()) };
    let Some(kind) = choice.get("type").and_then(Value::as_str) else {
        return Err(Refusal::invalid("tool_choice.type: Field required"));
    };
    if !["auto", "any", "tool", "none"].contains(&kind) {
        return Err(Refusal::invalid(format!(
            "tool_choice: Input tag '{kind}' found using 'type' does not match any of the expected tags: \
             'auto', 'any', 'tool', 'none'"
        )));
    }
    if tools.is_empty() && kind != "none" {
        return Err(Refusal::invalid("tool_choice may only be specified while providing tools"));
    }
    if kind == "tool" {
        let Some(name) = choice.get("name").and_then(Value::as_str) else {
            return Err(Refusal::invalid("tool_choice.tool.name: Field required"));
        };
        if !names.contains(name) {
            return Err(Refusal::invalid(format!("Tool '{name}' not found in provided tools")));
        }
    }
    Ok(())
}
