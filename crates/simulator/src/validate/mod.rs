//! The strict validator: a body the API would refuse is refused here, in the API's own words.
//!
//! Order: JSON, known fields, required fields and their types, the model (404), then the rules that
//! depend on model and version: thinking and sampling (`thinking.rs`), tools (`tools.rs`), messages
//! and their blocks (`messages.rs`), which tool call answers which (`pairing.rs`), cache marks (`cache.rs`),
//! and last the size of the prompt. The first broken rule is the answer, as with the API.
//!
//! Fields of betas are accepted as soon as any `anthropic-beta` is named; which beta brings which
//! field is not checked.

mod cache;
mod messages;
mod pairing;
mod thinking;
mod tools;

use crate::catalog::{self, Model};
use crate::envelope::Refusal;
use crate::tokens;
use serde_json::Value;

/// The two live values of `anthropic-version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// `2023-06-01`.
    Of2023,
    /// `2026-10-21`.
    Of2026,
}

impl Version {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "2023-06-01" => Some(Version::Of2023),
            "2026-10-21" => Some(Version::Of2026),
            _ => None,
        }
    }
}

/// Which door a body came through: they differ in what is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `POST /v1/messages`.
    Answer,
    /// `POST /v1/messages/count_tokens`.
    Count,
}

/// A body that has passed.
#[derive(Clone, Debug)]
pub(crate) struct Valid {
    pub(crate) model: &'static Model,
    /// The model as the request names it, which the response repeats.
    pub(crate) model_id: String,
    pub(crate) body: Value,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens_max: u64,
    pub(crate) stream: bool,
}

const FIELDS: [&str; 20] = [
    "model",
    "max_tokens",
    "messages",
    "system",
    "cache_control",
    "container",
    "diagnostics",
    "inference_geo",
    "metadata",
    "output_config",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "thinking",
    "tool_choice",
    "tools",
    "temperature",
    "top_p",
    "top_k",
];

const BETA_FIELDS: [&str; 9] = [
    "context_management",
    "compaction",
    "mcp_servers",
    "fallbacks",
    "fallback_credit_token",
    "thread",
    "billing_policy",
    "user_profile_id",
    "output_format",
];

/// Checks a body; `betas` says whether any `anthropic-beta` was named.
pub(crate) fn validate(bytes: &[u8], version: Version, betas: bool, purpose: Purpose) -> Result<Valid, Refusal> {
    let body: Value = serde_json::from_slice(bytes)
        .map_err(|error| Refusal::invalid(format!("The request body is not valid JSON: {error}")))?;
    let Value::Object(fields) = &body else {
        return Err(Refusal::invalid("Input should be a valid dictionary or object to extract fields from"));
    };
    for field in fields.keys() {
        let known = FIELDS.contains(&field.as_str()) || (betas && BETA_FIELDS.contains(&field.as_str()));
        if !known {
            return Err(extra(field));
        }
    }
    let model_id = text(&body, "model")?.ok_or_else(|| missing("model"))?.to_owned();
    let limit = match (whole(&body, "max_tokens")?, purpose) {
        (Some(limit), _) => limit,
        (None, Purpose::Count) => 1,
        (None, Purpose::Answer) => return Err(missing("max_tokens")),
    };
    match body.get("messages") {
        None => return Err(missing("messages")),
        Some(Value::Array(_)) => {}
        Some(_) => return Err(Refusal::invalid("messages: Input should be a valid list")),
    }
    let stream = flag(&body, "stream")?.unwrap_or(false);
    optional_fields(&body)?;
    let model = catalog::find(&model_id).ok_or_else(|| Refusal::new(404, format!("model: {model_id}")))?;
    if limit > model.output_tokens_max {
        return Err(Refusal::invalid(format!(
            "max_tokens: {limit} > {}, which is the maximum allowed number of output tokens for {model_id}",
            model.output_tokens_max
        )));
    }
    thinking::sampling(&body, model, version)?;
    thinking::thinking(&body, model, limit)?;
    tools::tools(&body)?;
    if purpose == Purpose::Answer && limit == 0 {
        prewarm(&body, stream)?;
    }
    messages::messages(&body, model, version)?;
    pairing::tool_calls(&body)?;
    messages::ending(&body, model)?;
    cache::marks(&body)?;
    let input_tokens = tokens::of_request(model.tokenizer, &body);
    if input_tokens > model.context_tokens {
        let most = model.context_tokens;
        return Err(Refusal::invalid(format!("prompt is too long: {input_tokens} tokens > {most} maximum")));
    }
    Ok(Valid { model, model_id, body, input_tokens, output_tokens_max: limit, stream })
}

fn missing(field: &str) -> Refusal {
    Refusal::invalid(format!("{field}: Field required"))
}

fn extra(field: &str) -> Refusal {
    Refusal::invalid(format!("{field}: Extra inputs are not permitted"))
}

fn text<'a>(body: &'a Value, field: &str) -> Result<Option<&'a str>, Refusal> {
    match body.get(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::invalid(format!("{field}: Input should be a valid string"))),
    }
}

fn whole(body: &Value, field: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = body.get(field) else { return Ok(None) };
    if value.as_i64().is_some_and(|n| n < 0) {
        return Err(Refusal::invalid(format!("{field}: Input should be greater than or equal to 0")));
    }
    value.as_u64().map(Some).ok_or_else(|| Refusal::invalid(format!("{field}: Input should be a valid integer")))
}

fn flag(body: &Value, field: &str) -> Result<Option<bool>, Refusal> {
    match body.get(field) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(Refusal::invalid(format!("{field}: Input should be a valid boolean"))),
    }
}

fn one_of(path: &str, value: Option<&Value>, known: &[&str]) -> Result<(), Refusal> {
    match value {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(text)) if known.contains(&text.as_str()) => Ok(()),
        Some(_) => {
            let quoted: Vec<String> = known.iter().map(|word| format!("'{word}'")).collect();
            Err(Refusal::invalid(format!("{path}: Input should be {}", quoted.join(" or "))))
        }
    }
}

fn optional_fields(body: &Value) -> Result<(), Refusal> {
    one_of("service_tier", body.get("service_tier"), &["auto", "standard_only"])?;
    one_of("speed", body.get("speed"), &["standard", "fast"])?;
    if let Some(config) = body.get("output_config") {
        let efforts = ["low", "medium", "high", "xhigh", "max"];
        one_of("output_config.effort", config.get("effort"), &efforts)?;
    }
    if let Some(stops) = body.get("stop_sequences") {
        let Some(stops) = stops.as_array() else {
            return Err(Refusal::invalid("stop_sequences: Input should be a valid list"));
        };
        for (at, stop) in stops.iter().enumerate() {
            match stop.as_str() {
                None => return Err(Refusal::invalid(format!("stop_sequences.{at}: Input should be a valid string"))),
                Some(stop) if stop.trim().is_empty() => {
                    return Err(Refusal::invalid("stop_sequences: each stop sequence must contain non-whitespace"));
                }
                Some(_) => {}
            }
        }
    }
    if body.get("metadata").is_some_and(|metadata| !metadata.is_object() && !metadata.is_null()) {
        return Err(Refusal::invalid("metadata: Input should be a valid dictionary or object to extract fields from"));
    }
    Ok(())
}

/// `max_tokens: 0` warms the prompt cache and answers nothing, so nothing may be asked of the answer.
fn prewarm(body: &Value, stream: bool) -> Result<(), Refusal> {
    let kind = |field: &str| body.get(field).and_then(|value| value.get("type")).and_then(Value::as_str);
    let clash = if stream {
        "`stream`"
    } else if kind("thinking") == Some("enabled") {
        "`thinking.type: enabled`"
    } else if body.get("output_config").and_then(|config| config.get("format")).is_some_and(|format| !format.is_null())
    {
        "`output_config.format`"
    } else if matches!(kind("tool_choice"), Some("any" | "tool")) {
        "`tool_choice` of type `any` or `tool`"
    } else {
        return Ok(());
    };
    Err(Refusal::invalid(format!("max_tokens: 0 cannot be combined with {clash}")))
}

#[cfg(test)]
mod tests;
