//! The configuration's JSON Schema, from the types that read the file.
//!
//! Nothing is described a second time. A type that can be read tells serde what it wants: a table with
//! these keys, one of these words, text, a number. Here it is asked: [`Probe`] is a source of values
//! that has none. It leads to one place of the file, notes what is wanted there, and ends the reading
//! with an error. One reading for each place, and some more for what cannot be seen at once: whether
//! other keys are refused, which must be there, whether a text is a length of time or a size.
//!
//! What a setting means, and its default, stand in `tidegate.example.toml`, which other tests hold to
//! the code; [`annotate`] takes them from there.

use super::File;
use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};
use std::fmt;

const EXAMPLE: &str = include_str!("../../../../tidegate.example.toml");
/// A key that no table has.
const NO_KEY: &str = "no such key";

/// The kinds of quantities, and a text that is one of each.
const KINDS: [(&str, &str); 4] = [("time", "1 s"), ("size", "1 B"), ("money", "1 USD"), ("share", "1 %")];

/// One step towards a place.
#[derive(Clone, Copy, Debug)]
enum Step {
    Key(&'static str),
    /// Into an array.
    Item,
    /// Into a table whose keys are names.
    Named,
}

/// What is tried at a place.
#[derive(Clone, Copy, Debug)]
enum Try<'a> {
    /// What is wanted.
    Look,
    /// A table with a key that it cannot have.
    Strange,
    /// A table with these keys and no others.
    Only(&'a [(&'static str, Wanted)]),
    Text(&'a str),
    Bool,
    Number,
    Table,
    Array,
}

/// What a type wants at a place.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    Keys(&'static [&'static str]),
    Names,
    Array,
    Words(&'static [&'static str]),
    Text,
    Bool,
    /// A whole number, from 0 to this.
    Whole(u64),
    Number,
    /// More than one of these.
    Several,
    /// A text such as this one.
    Such(&'static str),
}

/// How a reading ended.
#[derive(Clone, Debug, PartialEq)]
enum End {
    Wanted(Wanted),
    /// What was tried is taken.
    Taken,
    Unknown,
    Missing(&'static str),
    Refused(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for End {}

impl de::Error for End {
    fn custom<T: fmt::Display>(why: T) -> Self {
        End::Refused(why.to_string())
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        End::Unknown
    }

    fn missing_field(name: &'static str) -> Self {
        End::Missing(name)
    }
}

/// A source that leads to `path` and tries something there.
#[derive(Clone, Copy)]
struct Probe<'a> {
    path: &'a [Step],
    what: Try<'a>,
}

impl<'a> Probe<'a> {
    /// Whether this is the place and something wants to know what is wanted.
    fn here(&self, wanted: Wanted) -> Result<(), End> {
        if self.path.is_empty() && matches!(self.what, Try::Look) { Err(End::Wanted(wanted)) } else { Ok(()) }
    }

    fn next(self) -> Self {
        Probe { path: &self.path[1..], ..self }
    }

    fn tried<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        match self.what {
            Try::Look => Err(End::Refused("nothing is looked for here".to_owned())),
            Try::Text(text) => visitor.visit_str(text),
            Try::Bool => visitor.visit_bool(true),
            Try::Number => visitor.visit_u64(1),
            Try::Array => visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<bool>())),
            Try::Table => visitor.visit_map(Entries { keys: &[], probe: self, value: None }),
            Try::Strange => visitor.visit_map(Entries { keys: &[(NO_KEY, Wanted::Several)], probe: self, value: None }),
            Try::Only(keys) => visitor.visit_map(Entries { keys, probe: self, value: None }),
        }
    }
}

/// A table that leads on, or one that is tried.
struct Entries<'a> {
    keys: &'a [(&'static str, Wanted)],
    probe: Probe<'a>,
    value: Option<Wanted>,
}

impl<'de, 'a> MapAccess<'de> for Entries<'a> {
    type Error = End;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, End> {
        let Some(((key, wanted), rest)) = self.keys.split_first() else { return Ok(None) };
        (self.keys, self.value) = (rest, Some(*wanted));
        let key: StrDeserializer<'_, End> = (*key).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, End> {
        match (self.probe.what, self.value) {
            (Try::Only(_), Some(Wanted::Array)) if self.probe.path.is_empty() => {
                seed.deserialize(SeqDeserializer::new(std::iter::empty::<bool>()))
            }
            (Try::Only(_), wanted) if self.probe.path.is_empty() => {
                let text = if let Some(Wanted::Such(text)) = wanted { text } else { "x" };
                let text: StrDeserializer<'_, End> = text.into_deserializer();
                seed.deserialize(text)
            }
            // A table that takes the strange key reads on, and nobody asks for its value in earnest.
            _ if self.probe.path.is_empty() => Err(End::Taken),
            _ => seed.deserialize(self.probe.next()),
        }
    }
}

impl<'de> SeqAccess<'de> for Entries<'_> {
    type Error = End;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, End> {
        // One is enough, whatever becomes of it.
        if self.value.replace(Wanted::Several).is_some() {
            return Ok(None);
        }
        seed.deserialize(self.probe.next()).map(Some)
    }
}

/// Methods for the kinds of values that have nothing inside.
macro_rules! plain {
    ($($method:ident: $wanted:expr,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
            self.here($wanted)?;
            self.tried(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = End;

    plain! {
        deserialize_any: Wanted::Several,
        deserialize_bool: Wanted::Bool,
        deserialize_u8: Wanted::Whole(u8::MAX as u64),
        deserialize_u16: Wanted::Whole(u16::MAX as u64),
        deserialize_u32: Wanted::Whole(u32::MAX as u64),
        deserialize_u64: Wanted::Whole(u64::MAX),
        deserialize_f32: Wanted::Number,
        deserialize_f64: Wanted::Number,
        deserialize_str: Wanted::Text,
        deserialize_string: Wanted::Text,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, End> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        self.here(Wanted::Array)?;
        match self.path.first() {
            Some(Step::Item) => visitor.visit_seq(Entries { keys: &[], probe: self, value: None }),
            _ => self.tried(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        self.here(Wanted::Names)?;
        match self.path.first() {
            Some(Step::Named) => {
                visitor.visit_map(Entries { keys: &[("x", Wanted::Several)], probe: self, value: None })
            }
            _ => self.tried(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, End> {
        self.here(Wanted::Keys(keys))?;
        match self.path.first() {
            Some(Step::Key(key)) => {
                visitor.visit_map(Entries { keys: &[(*key, Wanted::Several)], probe: self, value: None })
            }
            _ => self.tried(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, End> {
        self.here(Wanted::Words(words))?;
        self.tried(visitor)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// How a reading of the file's types ends that goes to `path` and tries `what` there.
fn reading(path: &[Step], what: Try<'_>) -> End {
    File::deserialize(Probe { path, what }).err().unwrap_or(End::Taken)
}

/// Whether `what` is taken at `path`: then nothing is said against it, though other keys may be missing.
fn takes(path: &[Step], what: Try<'_>) -> bool {
    matches!(reading(path, what), End::Taken | End::Missing(_))
}

/// The keys that must be there, found one by one: each reading tells the first that is missing.
fn required(path: &[Step], keys: &[&'static str]) -> Vec<&'static str> {
    let mut known: Vec<(&'static str, Wanted)> = Vec::new();
    while known.len() < keys.len() {
        let End::Missing(name) = reading(path, Try::Only(&known)) else { break };
        let to = [path, &[Step::Key(name)]].concat();
        let End::Wanted(wanted) = reading(&to, Try::Look) else { break };
        let such = KINDS.iter().find(|(_, text)| takes(&to, Try::Text(text)));
        let such = such.filter(|_| wanted == Wanted::Text).map(|(_, text)| Wanted::Such(text));
        known.push((name, such.unwrap_or(wanted)));
    }
    known.into_iter().map(|(name, _)| name).collect()
}

/// What stands at `path`.
fn describe(path: &[Step]) -> Value {
    let below = |step| describe(&[path, &[step]].concat());
    match reading(path, Try::Look) {
        End::Wanted(Wanted::Keys(keys)) => {
            let properties: Map<String, Value> =
                keys.iter().map(|key| ((*key).to_owned(), below(Step::Key(key)))).collect();
            let mut table = json!({"type": "object", "properties": properties});
            let required = required(path, keys);
            if !required.is_empty() {
                table["required"] = json!(required);
            }
            if reading(path, Try::Strange) == End::Unknown {
                table["additionalProperties"] = json!(false);
            }
            table
        }
        End::Wanted(Wanted::Names) => json!({"type": "object", "additionalProperties": below(Step::Named)}),
        End::Wanted(Wanted::Array) => json!({"type": "array", "items": below(Step::Item)}),
        End::Wanted(Wanted::Words(words)) => json!({"enum": words}),
        End::Wanted(Wanted::Text) => {
            let taken: Vec<&str> =
                KINDS.iter().filter(|(_, text)| takes(path, Try::Text(text))).map(|(kind, _)| *kind).collect();
            match taken[..] {
                [kind] => json!({"$ref": format!("#/$defs/{kind}")}),
                _ => json!({"type": "string"}),
            }
        }
        End::Wanted(Wanted::Bool) => json!({"type": "boolean"}),
        End::Wanted(Wanted::Whole(u64::MAX)) => json!({"type": "integer", "minimum": 0}),
        End::Wanted(Wanted::Whole(most)) => json!({"type": "integer", "minimum": 0, "maximum": most}),
        End::Wanted(Wanted::Number) => json!({"type": "number"}),
        _ => {
            let kinds = [
                ("string", Try::Text("x")),
                ("boolean", Try::Bool),
                ("number", Try::Number),
                ("array", Try::Array),
                ("object", Try::Table),
            ];
            let taken: Vec<&str> =
                kinds.into_iter().filter(|(_, what)| takes(path, *what)).map(|(kind, _)| kind).collect();
            json!({"type": taken})
        }
    }
}

/// Adds what the example says of each setting, and its default where it stands there.
fn annotate(schema: &mut Value, example: &str) {
    let (mut section, mut said) = (String::new(), Vec::new());
    for line in example.lines() {
        let (text, is_comment) = match line.strip_prefix('#') {
            Some(rest) => (rest.trim(), true),
            None => (line.trim(), false),
        };
        let header = text.strip_prefix('[').filter(|_| text.ends_with(']'));
        let header = header.map(|rest| rest.trim_matches(['[', ']']));
        let key = text.split_once(" = ").map_or("", |(key, _)| key);
        let described = |node: &mut Value, said: &mut Vec<&str>| {
            if !said.is_empty() && node.get("description").is_none() {
                node["description"] = json!(said.join(" "));
            }
            said.clear();
        };
        if let Some(node) = header.and_then(|name| walk(schema, name)) {
            section = header.unwrap_or_default().to_owned();
            described(node, &mut said);
        } else if let Some((node, must_be_there)) = walk(schema, &section).and_then(|table| setting(table, key)) {
            described(node, &mut said);
            let value = toml::from_str::<toml::Table>(text).ok().and_then(|mut table| table.remove(key));
            if let Some(value) = value.filter(|_| !is_comment && !must_be_there) {
                node["default"] = json!(value);
            }
        } else if is_comment {
            said.push(text);
        } else {
            said.clear();
        }
    }
}

/// The table of a header of the example.
fn walk<'a>(schema: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let mut node = schema;
    for part in name.split('.').map(|part| part.trim_matches('"')).filter(|part| !part.is_empty()) {
        if node["type"] == "array" {
            node = node.get_mut("items")?;
        }
        let named = node.get("properties").is_some_and(|keys| keys.get(part).is_some());
        node = if named { node.get_mut("properties")?.get_mut(part)? } else { node.get_mut("additionalProperties")? };
    }
    node.is_object().then_some(node)
}

/// A key of a table, and whether it must be there.
fn setting<'a>(table: &'a mut Value, key: &str) -> Option<(&'a mut Value, bool)> {
    let table = if table["type"] == "array" { table.get_mut("items")? } else { table };
    let required =
        table.get("required").and_then(Value::as_array).is_some_and(|keys| keys.iter().any(|one| one == key));
    Some((table.get_mut("properties")?.get_mut(key)?, required))
}

/// The schema of a configuration file.
pub(super) fn schema() -> Value {
    let mut file = describe(&[]);
    annotate(&mut file, EXAMPLE);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of Tidegate",
        "description": "Made by `tidegate config-schema`. What settings may not say together is found by `tidegate check-config`.",
        "$defs": {
            "time": {"type": "string", "pattern": "^ *[0-9]+ *(ms|s|min|h|d)$", "examples": ["500 ms", "30 s", "2 min"]},
            "size": {"type": "string", "pattern": "^ *[0-9]+ *(B|KB|KiB|MB|MiB|GB|GiB)$", "examples": ["32 MiB"]},
            "money": {"type": "string", "pattern": "^ *[0-9]+(\\.[0-9]{1,9})? *USD *$", "examples": ["500 USD", "0.25 USD"]},
            "share": {"type": "string", "pattern": "^ *([1-9][0-9]?|100) *% *$", "examples": ["80 %"]},
        },
    });
    if let (Some(schema), Value::Object(file)) = (schema.as_object_mut(), file) {
        schema.extend(file);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: &str = include_str!("../../../../docs/tidegate.schema.json");

    fn at<'a>(schema: &'a Value, pointer: &str) -> &'a Value {
        schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in {schema:#}"))
    }

    #[test]
    fn the_schema_in_docs_is_that_of_the_types() {
        let made = format!("{:#}\n", schema());
        assert!(made == KEPT, "docs/tidegate.schema.json: `cargo run -- config-schema > docs/tidegate.schema.json`");
    }

    #[test]
    fn types_say_what_they_want() {
        let schema = schema();
        for (pointer, want) in [
            ("/properties/clocks/properties/gap/$ref", json!("#/$defs/time")),
            ("/properties/clocks/properties/gap/default", json!("2 min")),
            ("/properties/limits/properties/body_bytes/$ref", json!("#/$defs/size")),
            ("/properties/listen/properties/threads/maximum", json!(255)),
            ("/properties/listen/properties/address/type", json!("string")),
            ("/properties/log/properties/format/enum", json!(["text", "json"])),
            ("/properties/redact/properties/private_ips/type", json!("boolean")),
            ("/properties/redact/properties/kinds/additionalProperties/enum/0", json!("off")),
            ("/properties/tenant/items/properties/weight/type", json!("number")),
            ("/properties/tenant/items/properties/redact/properties/allow/items/type", json!("string")),
            ("/properties/tenant/items/required", json!(["name"])),
            ("/properties/organisation/items/required", json!(["name", "keys"])),
            ("/properties/organisation/items/properties/proxy/type", json!(["string", "object"])),
            ("/properties/organisation/items/properties/transport/default", json!("http")),
            ("/properties/queue/properties/waiting_max/default", json!(10_000)),
        ] {
            assert_eq!(at(&schema, pointer), &want, "{pointer}");
        }
        let name = at(&schema, "/properties/organisation/items/properties/name");
        assert!(name.get("default").is_none(), "what must be said has no default: {name}");
        let per_minute =
            "/properties/organisation/items/properties/limits/additionalProperties/properties/requests_per_minute/type";
        assert_eq!(at(&schema, per_minute), "integer");
        let about = at(&schema, "/properties/clocks/properties/gap/description").as_str().unwrap();
        assert!(about.starts_with("No byte from the upstream"), "{about}");
    }

    /// Every table there is.
    fn tables<'a>(node: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
        if let Some(keys) = node.get("properties").and_then(Value::as_object) {
            found.push((path.to_owned(), node));
            keys.iter().for_each(|(key, below)| tables(below, &format!("{path}.{key}"), found));
        }
        for inside in ["items", "additionalProperties"] {
            node.get(inside).into_iter().for_each(|below| tables(below, &format!("{path}.*"), found));
        }
    }

    #[test]
    fn no_table_takes_a_key_that_is_unknown_and_every_setting_is_described_or_stands_beside_one() {
        let schema = schema();
        let mut found = Vec::new();
        tables(&schema, "", &mut found);
        assert!(found.len() > 20, "{}", found.len());
        for (path, table) in found {
            assert_eq!(table["additionalProperties"], false, "{path}");
            for (key, node) in table["properties"].as_object().unwrap() {
                let known = ["type", "enum", "$ref", "properties"].iter().any(|word| node.get(word).is_some());
                let empty = node["type"].as_array().is_some_and(Vec::is_empty);
                assert!(known && !empty, "nothing is known of {path}.{key}: {node}");
            }
        }
    }

    #[test]
    fn a_default_is_taken_where_it_stands_and_not_from_a_comment() {
        let mut schema = json!({"type": "object", "properties": {"a": {"type": "object", "properties": {
            "x": {"type": "integer"}, "y": {"type": "integer"}, "z": {"type": "integer"}}}}});
        annotate(&mut schema, "# Top.\n\n# About a.\n[a]\n# One,\n# and more.\nx = 5\n# Two.\n# y = 6\nz = 7\n");
        let keys = &schema["properties"]["a"]["properties"];
        assert_eq!(keys["x"], json!({"type": "integer", "description": "One, and more.", "default": 5}));
        assert_eq!(keys["y"], json!({"type": "integer", "description": "Two."}));
        assert_eq!(keys["z"], json!({"type": "integer", "default": 7}));
        assert_eq!(schema["properties"]["a"]["description"], "About a.");
    }
}
