//! Thinking and sampling: what each model and each API version still allows.

use super::{Version, extra};
use crate::catalog::Model;
use crate::envelope::Refusal;
use serde_json::Value;

/// The least `budget_tokens` the API takes.
const BUDGET_TOKENS_MIN: u64 = 1_024;

/// `temperature`, `top_p`, `top_k`: gone from version 2026-10-21, and on models since Opus 4.7 only
/// tolerated at their default.
pub(super) fn sampling(body: &Value, model: &Model, version: Version) -> Result<(), Refusal> {
    for field in ["temperature", "top_p", "top_k"] {
        let Some(value) = body.get(field) else { continue };
        if version == Version::Of2026 {
            return Err(extra(field));
        }
        if field == "top_k" && value.as_u64().is_none() {
            return Err(Refusal::invalid("top_k: Input should be a valid integer"));
        }
        let Some(number) = value.as_f64() else {
            return Err(Refusal::invalid(format!("{field}: Input should be a valid number")));
        };
        if field != "top_k" && !(0.0..=1.0).contains(&number) {
            return Err(Refusal::invalid(format!("{field}: range: 0..1")));
        }
        let default = field != "top_k" && number >= 1.0;
        if !model.sampling && !default {
            return Err(Refusal::invalid(format!("`{field}` is deprecated for this model.")));
        }
    }
    Ok(())
}

/// The type must be one the model knows, a budget at least 1,024 and under `max_tokens`; thinking
/// that is asked for excludes a forced tool and a temperature other than 1.
pub(super) fn thinking(body: &Value, model: &Model, max_tokens: u64) -> Result<(), Refusal> {
    let Some(thinking) = body.get("thinking").filter(|thinking| !thinking.is_null()) else { return Ok(()) };
    let Some(kind) = thinking.get("type").and_then(Value::as_str) else {
        return Err(Refusal::invalid("thinking.type: Field required"));
    };
    let allowed = match kind {
        "adaptive" => model.thinking.adaptive,
        "enabled" => model.thinking.enabled,
        "disabled" => model.thinking.disabled,
        "between_tools" => model.thinking.between_tools,
        _ => {
            return Err(Refusal::invalid(format!(
                "thinking: Input tag '{kind}' found using 'type' does not match any of the expected tags: \
                 'adaptive', 'enabled', 'disabled', 'between_tools'"
            )));
        }
    };
    if !allowed {
        let instead = if model.thinking.adaptive {
            "Use \"thinking.type.adaptive\" and \"output_config.effort\" to control thinking behavior."
        } else {
            "Use \"thinking.type.enabled\" with \"budget_tokens\"."
        };
        return Err(Refusal::invalid(format!("\"thinking.type.{kind}\" is not supported for this model. {instead}")));
    }
    match thinking.get("display") {
        None | Some(Value::Null) => {}
        Some(Value::String(display)) if display == "summarized" || display == "omitted" => {}
        Some(_) => {
            return Err(Refusal::invalid(format!(
                "thinking.{kind}.display: Input should be 'summarized' or 'omitted'"
            )));
        }
    }
    if kind == "enabled" {
        budget(thinking, max_tokens)?;
        if body.get("temperature").and_then(Value::as_f64).is_some_and(|t| t < 1.0) {
            return Err(Refusal::invalid("`temperature` may only be set to 1 when thinking is enabled."));
        }
        let forced = body.get("tool_choice").and_then(|choice| choice.get("type")).and_then(Value::as_str);
        if matches!(forced, Some("any" | "tool")) {
            return Err(Refusal::invalid("Thinking may not be enabled when tool_choice forces tool use."));
        }
    }
    Ok(())
}

fn budget(thinking: &Value, max_tokens: u64) -> Result<(), Refusal> {
    let Some(budget) = thinking.get("budget_tokens") else {
        return Err(Refusal::invalid("thinking.enabled.budget_tokens: Field required"));
    };
    let Some(budget) = budget.as_u64() else {
        return Err(Refusal::invalid("thinking.enabled.budget_tokens: Input should be a valid integer"));
    };
    if budget < BUDGET_TOKENS_MIN {
        return Err(Refusal::invalid(format!(
            "thinking.enabled.budget_tokens: Input should be greater than or equal to {BUDGET_TOKENS_MIN}"
        )));
    }
    // `max_tokens: 0` has its own message, which names this combination.
    if budget >= max_tokens && max_tokens > 0 {
        return Err(Refusal::invalid("`max_tokens` must be greater than `thinking.budget_tokens`."));
    }
    Ok(())
}
