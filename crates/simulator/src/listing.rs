//! `GET /v1/models` and `GET /v1/models/{id}`: the catalog as the API shows it.
//!
//! Newest first; `limit` 1 to 1,000 (20), `after_id` or `before_id`, `lifecycle[]` (default active
//! and deprecated). Dated ids resolve to their model. `echo` is listed last, so that people find it.

use crate::catalog::{self, ECHO, MODELS, Model};
use crate::envelope::Refusal;
use serde_json::{Value, json};

fn row(model: &Model) -> Value {
    let yes = json!({"supported": true});
    let no = json!({"supported": false});
    let on = |flag: bool| if flag { yes.clone() } else { no.clone() };
    let effort = model.thinking.adaptive;
    json!({
        "type": "model", "id": model.id, "display_name": model.display_name, "created_at": model.created_at, "line": model.line,
        "lifecycle": model.lifecycle,
        "deprecated_at": if model.lifecycle == "deprecated" { json!("2026-05-30T00:00:00Z") } else { Value::Null },
        "retires_at": if model.lifecycle == "deprecated" { json!("2026-11-30T00:00:00Z") } else { Value::Null },
        "max_input_tokens": model.context_tokens, "max_tokens": model.output_tokens_max,
        "capabilities": {
            "batch": no, "citations": no, "code_execution": no, "image_input": yes, "pdf_input": yes, "structured_outputs": yes,
            "effort": {"supported": effort, "low": on(effort), "medium": on(effort), "high": on(effort), "xhigh": on(effort), "max": on(effort)},
            "thinking": {"supported": true, "types": {
                "adaptive": on(model.thinking.adaptive), "enabled": on(model.thinking.enabled),
                "disabled": on(model.thinking.disabled), "between_tools": on(model.thinking.between_tools)}},
            "context_management": {"supported": false, "clear_tool_uses_20250919": no, "clear_thinking_20251015": no, "compact_20260112": no},
            "server_tools": {"supported": false, "web_search": no, "code_execution": no},
        },
    })
}

/// One model.
pub(crate) fn one(id: &str) -> Result<Value, Refusal> {
    catalog::find(id).map(row).ok_or_else(|| Refusal::new(404, format!("model: {id}")))
}

/// A page of them, by the query string.
pub(crate) fn page(query: &str) -> Result<Value, Refusal> {
    let (mut limit, mut after, mut before, mut lifecycles) = (20usize, None, None, Vec::new());
    for (key, value) in query.split('&').filter_map(|item| item.split_once('=')) {
        match key {
            "limit" => {
                let wrong = || Refusal::invalid("limit: Input should be a valid integer between 1 and 1000");
                limit = value.parse().ok().filter(|n| (1..=1_000).contains(n)).ok_or_else(wrong)?;
            }
            "after_id" => after = Some(value),
            "before_id" => before = Some(value),
            "lifecycle[]" | "lifecycle%5B%5D" => lifecycles.push(value),
            _ => {}
        }
    }
    if after.is_some() && before.is_some() {
        return Err(Refusal::invalid("Only one of after_id and before_id may be given"));
    }
    let wanted = |model: &&Model| lifecycles.is_empty() || lifecycles.contains(&model.lifecycle);
    let all: Vec<&Model> = MODELS.iter().chain([&ECHO]).filter(wanted).collect();
    let place = |id: &str| {
        let found = all.iter().position(|model| model.id == id || model.dated == Some(id));
        found.ok_or_else(|| Refusal::invalid(format!("`{id}` is not the id of a model in this list")))
    };
    let (slice, has_more) = match (after, before) {
        (_, Some(before)) => {
            let end = place(before)?;
            let start = end.saturating_sub(limit);
            (&all[start..end], start > 0)
        }
        (after, None) => {
            let start = after.map(place).transpose()?.map_or(0, |at| at + 1);
            let end = (start + limit).min(all.len());
            (&all[start..end], end < all.len())
        }
    };
    Ok(json!({
        "data": slice.iter().map(|model| row(model)).collect::<Vec<_>>(), "has_more": has_more,
        "first_id": slice.first().map(|model| model.id), "last_id": slice.last().map(|model| model.id),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(page: &Value) -> Vec<String> {
        page["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn paging_forward_visits_every_model_once() {
        let mut seen = Vec::new();
        let mut query = "limit=7".to_owned();
        loop {
            let page = page(&query).unwrap();
            seen.extend(ids(&page));
            if page["has_more"] == json!(false) {
                break;
            }
            query = format!("limit=7&after_id={}", page["last_id"].as_str().unwrap());
        }
        assert_eq!(seen, ids(&page("limit=1000").unwrap()));
        assert_eq!(seen.len(), MODELS.len() + 1);
    }

    #[test]
    fn paging_backward_and_lifecycle() {
        let before = page("limit=2&before_id=claude-haiku-5-5").unwrap();
        assert_eq!(ids(&before), ["claude-fable-5-2", "claude-mythos-5-2"]);
        assert_eq!(before["has_more"], json!(false));
        assert_eq!(ids(&page("lifecycle[]=deprecated").unwrap()), ["claude-sonnet-4-5"]);
    }

    #[test]
    fn wrong_queries_and_unknown_ids() {
        assert_eq!(page("limit=0").unwrap_err().status, 400);
        assert_eq!(page("after_id=a&before_id=b").unwrap_err().status, 400);
        assert_eq!(one("claude-nope").unwrap_err().status, 404);
        assert_eq!(one("claude-haiku-4-5-20251001").unwrap()["id"], json!("claude-haiku-4-5"));
    }
}
