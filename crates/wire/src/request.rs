//! A Messages request as a proxy reads it: a handful of fields, the rest left as bytes.

use crate::models;
use crate::raw::RawObject;
use bytes::{Bytes, BytesMut};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::ops::Range;

/// What the path needs to know of a request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessagesRequest {
    /// The model's name.
    pub model: String,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// The most output tokens, if given.
    pub max_tokens: Option<u64>,
    /// Whether long silences are normal: the model thinks and does not show it.
    pub thinks_unseen: bool,
    /// Whether tools run on the server: such a request must not be sent twice once they began.
    pub server_tools: bool,
    /// Whether fast mode is asked for, which is metered apart.
    pub fast: bool,
    /// Where its larger parts stand.
    pub parts: Parts,
    /// Where the value of `stream` stands in the body, if it is there.
    stream_at: Option<Range<usize>>,
}

/// Where the parts of a request stand in its body, if they are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The tools.
    pub tools: Option<Range<usize>>,
    /// The system prompt.
    pub system: Option<Range<usize>>,
    /// The messages.
    pub messages: Option<Range<usize>>,
    /// The mark for automatic caching.
    pub cache_control: Option<Range<usize>>,
    /// The container.
    pub container: Option<Range<usize>>,
    /// The thread.
    pub thread: Option<Range<usize>>,
}

/// A body that is no request; the text says what is wrong, where, and in the API's own words where
/// it has some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotARequest(pub String);

impl fmt::Display for NotARequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotARequest {}

/// The longest model name taken, bytes; it becomes part of logs, metrics and quota classes.
/// Names in November 2026 have up to 30.
const MODEL_BYTES_MAX: usize = 256;

/// Tools that run at the provider, by the beginning of their `type`.
const SERVER_TOOLS: [&str; 5] = ["web_search_", "web_fetch_", "code_execution_", "tool_search_tool_", "mcp_toolset"];

impl MessagesRequest {
    /// Reads a body. Only what the path itself acts on is checked; everything else is the
    /// upstream's to judge.
    pub fn read(body: &[u8]) -> Result<Self, NotARequest> {
        if body.is_empty() {
            return Err(NotARequest(
                "the request has no body; send a JSON object with model, max_tokens and messages".into(),
            ));
        }
        let object = RawObject::read(body).map_err(|e| not_json(&e))?;
        let fields = Fields::of(&object);
        let model: String = match fields.model {
            None => return Err(NotARequest("model: Field required".into())),
            Some(value) => serde_json::from_str(value.get())
                .map_err(|_| NotARequest("model: Input should be a valid string".into()))?,
        };
        if model.len() > MODEL_BYTES_MAX {
            return Err(NotARequest(format!("model: String should have at most {MODEL_BYTES_MAX} characters")));
        }
        let stream = match fields.stream.map(|v| v.get()) {
            None | Some("null" | "false") => false,
            Some("true") => true,
            Some(_) => return Err(NotARequest("stream: Input should be a valid boolean".into())),
        };
        let place = |value: Option<&RawValue>| value.and_then(|v| place(v.get(), body));
        Ok(MessagesRequest {
            thinks_unseen: thinks_unseen(fields.thinking, &model),
            server_tools: fields.has_server_tools(),
            max_tokens: fields.max_tokens.and_then(|v| v.get().parse().ok()),
            fast: fields.speed.is_some_and(|v| v.get() == "\"fast\""),
            stream_at: place(fields.stream),
            parts: Parts {
                tools: place(fields.tools),
                system: place(fields.system),
                messages: place(fields.messages),
                cache_control: place(fields.cache_control),
                container: place(fields.container),
                thread: place(fields.thread),
            },
            model,
            stream,
        })
    }

    /// The same body with other messages; not one other byte is changed. `None` if it has none.
    pub fn with_messages(&self, body: &[u8], messages: &[u8]) -> Option<Bytes> {
        let at = self.parts.messages.clone()?;
        Some(Bytes::from([&body[..at.start], messages, &body[at.end..]].concat()))
    }

    /// The same body, asking for a stream; not one other byte is changed.
    pub fn with_stream(&self, body: &Bytes) -> Bytes {
        let mut out = BytesMut::with_capacity(body.len() + 16);
        match &self.stream_at {
            Some(at) => {
                out.extend_from_slice(&body[..at.start]);
                out.extend_from_slice(b"true");
                out.extend_from_slice(&body[at.end..]);
            }
            None => {
                let open = body.iter().position(|b| *b == b'{').map_or(0, |at| at + 1);
                out.extend_from_slice(&body[..open]);
                out.extend_from_slice(b"\"stream\":true,");
                out.extend_from_slice(&body[open..]);
            }
        }
        out.freeze()
    }
}

/// `body` with another model's name in it; `None` if it names none.
pub fn with_model(body: &[u8], model: &str) -> Option<Bytes> {
    let at = RawObject::read(body).ok()?.place("model", body)?;
    let name = serde_json::to_string(model).ok()?;
    let mut out = BytesMut::with_capacity(body.len() + name.len());
    out.extend_from_slice(&body[..at.start]);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&body[at.end..]);
    Some(out.freeze())
}

fn not_json(e: &serde_json::Error) -> NotARequest {
    let text = e.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    if e.is_data() && text.starts_with("invalid type") {
        return NotARequest(
            "the request body is JSON but not an object; send an object with model, max_tokens and messages".into(),
        );
    }
    if e.is_data() {
        return NotARequest(format!("the request body is {what}"));
    }
    NotARequest(format!("the request body is not valid JSON: {what}, at line {} column {}", e.line(), e.column()))
}

/// Where `value` stands in `text`, the bytes it was read from.
fn place(value: &str, text: &[u8]) -> Option<Range<usize>> {
    let at = (value.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    (at + value.len() <= text.len()).then_some(at..at + value.len())
}

/// The fields that are looked at, found in one walk.
#[derive(Default)]
struct Fields<'a> {
    model: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    max_tokens: Option<&'a RawValue>,
    speed: Option<&'a RawValue>,
    thinking: Option<&'a RawValue>,
    tools: Option<&'a RawValue>,
    mcp_servers: Option<&'a RawValue>,
    system: Option<&'a RawValue>,
    messages: Option<&'a RawValue>,
    cache_control: Option<&'a RawValue>,
    container: Option<&'a RawValue>,
    thread: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn of(object: &RawObject<'a>) -> Self {
        let mut fields = Fields::default();
        for (name, value) in object.iter() {
            let slot = match name {
                "model" => &mut fields.model,
                "stream" => &mut fields.stream,
                "max_tokens" => &mut fields.max_tokens,
                "speed" => &mut fields.speed,
                "thinking" => &mut fields.thinking,
                "tools" => &mut fields.tools,
                "mcp_servers" => &mut fields.mcp_servers,
                "system" => &mut fields.system,
                "messages" => &mut fields.messages,
                "cache_control" => &mut fields.cache_control,
                "container" => &mut fields.container,
                "thread" => &mut fields.thread,
                _ => continue,
            };
            // Of a repeated key the last one counts.
            *slot = Some(value);
        }
        fields
    }

    fn has_server_tools(&self) -> bool {
        let listed = self.tools.and_then(|v| serde_json::from_str(v.get()).ok());
        listed.is_some_and(|ServerTools(any)| any)
            || self.mcp_servers.is_some_and(|v| !matches!(v.get(), "null" | "[]"))
    }
}

fn thinks_unseen(thinking: Option<&RawValue>, model: &str) -> bool {
    let thinking: Option<RawObject<'_>> = thinking.and_then(|v| serde_json::from_str(v.get()).ok());
    let field = |name: &str| thinking.as_ref().and_then(|t| t.parse::<String>(name));
    match (field("type").as_deref(), field("display").as_deref()) {
        (Some("disabled"), _) | (_, Some("summarized")) => false,
        (_, Some("omitted")) => true,
        _ => models::thinks_unseen(model),
    }
}

/// Whether a list of tools has one of the server's. It is read in passing, however long it is.
struct ServerTools(bool);

impl<'de> Deserialize<'de> for ServerTools {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = ServerTools;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tools")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ServerTools, A::Error> {
                let mut any = false;
                while let Some(tool) = list.next_element::<RawObject<'de>>()? {
                    let name = tool.parse::<String>("type").unwrap_or_default();
                    any |= SERVER_TOOLS.iter().any(|prefix| name.starts_with(prefix));
                }
                Ok(ServerTools(any))
            }
        }
        d.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(body: &str) -> String {
        MessagesRequest::read(body.as_bytes()).unwrap_err().0
    }

    #[test]
    fn the_few_fields_are_read_and_the_rest_ignored() {
        let body = br#"{"new":{"deep":[1]},"model":"claude-opus-5-5","max_tokens":9,"stream":true,"tools":[{"type":"web_search_20260318","name":"w"}]}"#;
        let r = MessagesRequest::read(body).unwrap();
        assert_eq!((r.model.as_str(), r.stream, r.max_tokens), ("claude-opus-5-5", true, Some(9)));
        assert!(r.server_tools && r.thinks_unseen);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        assert_eq!(
            wrong("{\"model\": \"m\",\n \"x\": }"),
            "the request body is not valid JSON: expected value, at line 2 column 7"
        );
        assert!(wrong("[1]").contains("not an object"));
        let fields = "\"\":0,".repeat(10_000);
        assert_eq!(
            wrong(&format!(r#"{{{fields}"model":"m"}}"#)),
            "the request body is an object with more than 10000 fields"
        );
        assert!(wrong("").contains("no body"));
        assert_eq!(wrong("{}"), "model: Field required");
        assert_eq!(wrong(r#"{"model":1}"#), "model: Input should be a valid string");
        assert_eq!(wrong(r#"{"model":"m","stream":"yes"}"#), "stream: Input should be a valid boolean");
        assert!(
            wrong(&format!(r#"{{"model":"{}"}}"#, "m".repeat(257)))
                .starts_with("model: String should have at most 256")
        );
        assert!(wrong("{\"model\":\"\u{0}\"}").contains("control character"));
    }

    #[test]
    fn asking_for_a_stream_changes_nothing_else() {
        for (body, want) in [
            (r#" { "model":"m" , "stream" : false, "x":1.0 }"#, r#" { "model":"m" , "stream" : true, "x":1.0 }"#),
            (r#"{"model":"m"}"#, r#"{"stream":true,"model":"m"}"#),
            (r#"{"model":"m","stream":null}"#, r#"{"model":"m","stream":true}"#),
        ] {
            let bytes = Bytes::from_static(body.as_bytes());
            let r = MessagesRequest::read(&bytes).unwrap();
            let out = r.with_stream(&bytes);
            assert_eq!(std::str::from_utf8(&out).unwrap(), want);
            assert!(MessagesRequest::read(&out).unwrap().stream);
        }
    }

    #[test]
    fn the_models_name_is_replaced_and_nothing_else() {
        let check =
            |body: &str| with_model(body.as_bytes(), "their \"one\"").map(|b| String::from_utf8(b.to_vec()).unwrap());
        let body = r#"{ "x":{"model":"a"}, "model" : "a","messages":[{"content":"model"}] }"#;
        let want = r#"{ "x":{"model":"a"}, "model" : "their \"one\"","messages":[{"content":"model"}] }"#;
        assert_eq!(check(body).as_deref(), Some(want));
        assert_eq!((check("{}"), check("[]"), check("x")), (None, None, None));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = MessagesRequest::read(&bytes);
        }
    }
}
