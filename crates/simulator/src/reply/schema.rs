//! A value for a JSON schema: simple, deterministic, and valid for the schemas tools have.
//!
//! Understood: `type`, `properties` and `required` (all properties are filled in), `items`,
//! `minItems`, `enum`, `const`, `anyOf`/`oneOf` (the first), `minimum`, `maximum`, `minLength`,
//! `default`. `$ref` is not followed. Nesting stops at [`DEPTH_MAX`].

use serde_json::{Map, Value, json};
use tidegate_base::Prng;

/// Deeper schemas get an empty object: a tool's arguments are not a tree.
const DEPTH_MAX: usize = 8;
/// Most items or characters a schema can force on us.
const LENGTH_MAX: u64 = 1_000;

pub(super) fn instance(schema: &Value, prng: &mut Prng) -> Value {
    value(schema, prng, 0)
}

fn value(schema: &Value, prng: &mut Prng, depth: usize) -> Value {
    if let Some(fixed) = schema.get("const").or_else(|| schema.get("default")) {
        return fixed.clone();
    }
    if let Some(choice) = schema.get("enum").and_then(Value::as_array).and_then(|all| prng.pick(all)) {
        return choice.clone();
    }
    for either in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(either).and_then(Value::as_array).and_then(|all| all.first()) {
            return value(first, prng, depth + 1);
        }
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or("string"),
        _ if schema.get("properties").is_some() => "object",
        _ => "string",
    };
    let whole = |field: &str| schema.get(field).and_then(Value::as_i64);
    match kind {
        "object" if depth < DEPTH_MAX => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let filled =
                properties.into_iter().flatten().map(|(name, inner)| (name.clone(), value(inner, prng, depth + 1)));
            Value::Object(filled.collect())
        }
        "object" => Value::Object(Map::new()),
        "array" => {
            let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1).min(LENGTH_MAX);
            let any = json!({"type": "string"});
            let item = schema.get("items").unwrap_or(&any);
            Value::Array((0..if depth < DEPTH_MAX { least } else { 0 }).map(|_| value(item, prng, depth + 1)).collect())
        }
        "integer" | "number" => {
            let low = whole("minimum").unwrap_or(0);
            let high = whole("maximum").unwrap_or(low.saturating_add(100)).max(low);
            let span = high.abs_diff(low);
            json!(low.saturating_add_unsigned(prng.below(span.saturating_add(1))))
        }
        "boolean" => json!(prng.chance(0.5)),
        "null" => Value::Null,
        _ => {
            let words = ["tide", "Größe", "say \"hi\"", "港口", "a/b", "seven"];
            let mut text = prng.pick(&words).copied().unwrap_or("tide").to_owned();
            let least = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0).min(LENGTH_MAX) as usize;
            while text.chars().count() < least {
                text.push('x');
            }
            json!(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_fits_its_schema() {
        let schema = json!({"type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "minLength": 12}, "unit": {"enum": ["C", "F"]}, "days": {"type": "integer", "minimum": 3, "maximum": 5},
            "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 2}, "note": {"type": ["null", "string"]}, "fix": {"const": 7}}});
        let value = instance(&schema, &mut Prng::new(1));
        assert!(value["city"].as_str().unwrap().chars().count() >= 12);
        assert!(["C", "F"].contains(&value["unit"].as_str().unwrap()));
        assert!((3..=5).contains(&value["days"].as_i64().unwrap()));
        assert_eq!(value["tags"].as_array().unwrap().len(), 2);
        assert_eq!((&value["note"], &value["fix"]), (&Value::Null, &json!(7)));
    }

    #[test]
    fn a_schema_without_a_bottom_ends() {
        let mut schema = json!({});
        for _ in 0..50 {
            schema = json!({"type": "object", "properties": {"x": schema}});
        }
        instance(&schema, &mut Prng::new(1));
        instance(&json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}), &mut Prng::new(1));
    }
}
