//! What makes the answer of an endpoint that is not the API itself one of the API.
//!
//! Two things are put right before anybody else looks at it: the model has the name that the client
//! asked for, where the organisation maps names; and `usage` is there, as SDKs read it without asking
//! whether it is. Numbers that the endpoint does not give are estimated: input as the scheduler took it
//! to be, output by its length. An answer that lacks nothing is not touched.

use serde_json::value::RawValue;
use std::borrow::Cow;
use tidegate_wire::raw::{Fields, RawObject};
use tidegate_wire::sse;
use tidegate_wire::usage::Usage;

/// Bytes of text in a token, by and large.
const TOKEN_BYTES: u64 = 4;

/// What is known of one request's endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endpoint {
    /// The client's name of the model, where the endpoint has another.
    model: Option<String>,
    /// Input tokens, as far as they can be told beforehand.
    input: u64,
}

impl Endpoint {
    /// One that is asked for what the client calls `model` if it `maps` that name.
    pub(crate) fn new(model: &str, maps: bool, input: u64) -> Self {
        Endpoint { model: maps.then(|| model.to_owned()), input }
    }

    /// A `message_start` as the client is to see it.
    pub(crate) fn start<'e>(&self, event: &'e [u8]) -> Cow<'e, [u8]> {
        let Some(data) = sse::parts(event).data else { return Cow::Borrowed(event) };
        let Ok(mut outer) = Fields::read(&data) else { return Cow::Borrowed(event) };
        let Some(message) = outer.get("message").and_then(|message| {
            // Here a count of nothing may still become one.
            let usage: Option<&RawValue> = RawObject::read(message.get().as_bytes()).ok()?.get("usage");
            self.told(message.get().as_bytes(), lacks(usage, None, false), 0)
        }) else {
            return Cow::Borrowed(event);
        };
        outer.put("message", &message);
        written("message_start", &outer)
    }

    /// A `message_delta` that counts no output, with a count of `output` tokens.
    pub(crate) fn counted<'e>(&self, event: &'e [u8], output: u64) -> Cow<'e, [u8]> {
        let Some(data) = sse::parts(event).data else { return Cow::Borrowed(event) };
        let Ok(mut outer) = Fields::read(&data) else { return Cow::Borrowed(event) };
        let lacks = [false, true];
        outer.put("usage", &usage(outer.get("usage"), lacks, self.input, output));
        written("message_delta", &outer)
    }

    /// Whether the model has another name there.
    pub(crate) fn maps(&self) -> bool {
        self.model.is_some()
    }

    /// A whole message as the client is to see it, and whether its input and its output are estimates.
    pub(crate) fn whole(&self, body: &[u8], message: &RawObject<'_>) -> (Option<Vec<u8>>, [bool; 2]) {
        let content = message.get("content").map(|content| content.get().len() as u64);
        let lacks = lacks(message.get("usage"), content, true);
        let told = (lacks != [false; 2] && content.is_some() || self.maps())
            .then(|| self.told(body, lacks, content.unwrap_or_default() / TOKEN_BYTES))
            .flatten();
        (told.and_then(|message| serde_json::to_vec(&message).ok()), lacks)
    }

    /// A message with the client's name of its model, and with usage.
    fn told(&self, message: &[u8], lacks: [bool; 2], output: u64) -> Option<Fields> {
        let mut fields = Fields::read(message).ok()?;
        if let Some(model) = &self.model {
            fields.put("model", model);
        }
        // What has no content either is no message that anybody could count.
        if lacks != [false; 2] && fields.get("content").is_some() {
            fields.put("usage", &usage(fields.get("usage"), lacks, self.input, output));
        }
        Some(fields)
    }
}

/// Whether `usage` counts no input, and no output. In the end of an answer with `content`, of so many
/// bytes, nothing at all is no count of something.
fn lacks(usage: Option<&RawValue>, content: Option<u64>, is_end: bool) -> [bool; 2] {
    const NO_BLOCKS: u64 = "[]".len() as u64;
    let mut counted = Usage::default();
    let [input, output] = usage.and_then(|usage| counted.update(usage.get())).unwrap_or_default();
    let zero_input = is_end && !counted.has_input();
    let zero_output = is_end && counted.output == 0 && content.is_some_and(|bytes| bytes > NO_BLOCKS);
    [!input || zero_input, !output || zero_output]
}

/// `usage` with what it lacks.
fn usage(told: Option<&RawValue>, lacks: [bool; 2], input: u64, output: u64) -> Fields {
    let text = told.map_or("{}", |told| told.get());
    let mut fields = Fields::read(text.as_bytes()).unwrap_or_default();
    let [no_input, no_output] = lacks;
    if no_input {
        fields.put("input_tokens", &input);
    }
    if no_output {
        fields.put("output_tokens", &output);
    }
    fields
}

fn written<'e>(name: &str, data: &Fields) -> Cow<'e, [u8]> {
    let mut out = Vec::new();
    sse::write(&mut out, name, &serde_json::to_vec(data).unwrap_or_default());
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(endpoint: &Endpoint, message: &str) -> String {
        let event = format!("event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{message}}}\n\n");
        String::from_utf8(endpoint.start(event.as_bytes()).into_owned()).unwrap()
    }

    fn whole(endpoint: &Endpoint, body: &str) -> (Option<String>, [bool; 2]) {
        let (told, estimated) = endpoint.whole(body.as_bytes(), &RawObject::read(body.as_bytes()).unwrap());
        (told.map(|told| String::from_utf8(told).unwrap()), estimated)
    }

    #[test]
    fn an_answer_that_lacks_nothing_is_not_touched() {
        let api = Endpoint::new("m", false, 9);
        let message = r#"{ "model":"m","usage":{"input_tokens":1,"output_tokens":1} }"#;
        assert_eq!(whole(&api, message), (None, [false, false]));
    }

    #[test]
    fn the_model_has_the_clients_name_again() {
        let endpoint = Endpoint::new("claude-x", true, 9);
        let message =
            r#"{"id":"1","model":"theirs","content":[],"usage":{"input_tokens":1,"output_tokens":1,"new":{}}}"#;
        let want = message.replace("theirs", "claude-x");
        assert!(start(&endpoint, message).contains(&want));
        assert_eq!(whole(&endpoint, message), (Some(want), [false, false]));
    }

    #[test]
    fn usage_that_is_missing_is_estimated() {
        let endpoint = Endpoint::new("m", false, 9);
        assert!(start(&endpoint, r#"{"content":[]}"#).contains(r#""usage":{"input_tokens":9,"output_tokens":0}"#));
        assert!(
            start(&endpoint, r#"{"content":[],"usage":{"input_tokens":4}}"#)
                .contains(r#""usage":{"input_tokens":4,"output_tokens":0}"#)
        );
        for zero in [r#"{"input_tokens":0,"output_tokens":0}"#, r#"{"input_tokens":0}"#] {
            let (told, estimated) =
                whole(&endpoint, &format!(r#"{{"content":[{{"text":"0123456789"}}],"usage":{zero}}}"#));
            assert!(told.unwrap().ends_with(r#""usage":{"input_tokens":9,"output_tokens":5}}"#), "{zero}");
            assert_eq!(estimated, [true, true], "{zero}");
        }
        let cached = r#"{"content":[],"usage":{"input_tokens":0,"cache_read_input_tokens":7,"output_tokens":0}}"#;
        assert_eq!(whole(&endpoint, cached), (None, [false, false]), "all of it was in the cache, and it said nothing");
        assert_eq!(whole(&endpoint, "{}"), (None, [true, true]), "that is no message");
        let (told, estimated) = whole(&endpoint, r#"{"content":[{"text":"0123456789"}],"usage":null}"#);
        let told = told.unwrap();
        assert!(told.ends_with(r#""usage":{"input_tokens":9,"output_tokens":5}}"#), "{told}");
        assert_eq!(estimated, [true, true]);
        let delta = b"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{}}\n\n";
        let told = endpoint.counted(delta, 7);
        assert_eq!(
            std::str::from_utf8(&told).unwrap(),
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":7}}\n\n"
        );
    }
}
