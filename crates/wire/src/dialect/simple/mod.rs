//! The simple dialect: a prompt in, its text out, for clients of a few lines.
//!
//! What a client may say beside its prompt is what cannot be left out of a request (model, length)
//! and what makes a chat of single prompts: a system prompt, and the conversation that Tidegate keeps.
//! Whoever needs more (tools, images, several answers at once) speaks `tidegate.v1`.

mod retelling;

pub use retelling::{Retelling, Unsayable};

use super::members::Members;
use super::strict::{Strict, read_text};
use super::{BadFrame, NotAFrame};
use crate::error::ErrorBody;
use crate::event::{Kind, plain_delta};
use crate::raw::RawObject;
use crate::sse;
use crate::usage::Usage;
use serde_json::json;
use std::borrow::Cow;

/// The most prompts that wait on a socket while another is answered.
pub const WAITING_PROMPTS_MAX: usize = 16;

/// What a client asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt<'a> {
    /// The question.
    pub prompt: Cow<'a, str>,
    /// Which model; the server's choice otherwise.
    pub model: Option<Cow<'a, str>>,
    /// The longest answer; the server's choice otherwise.
    pub max_tokens: Option<u64>,
    /// The system prompt.
    pub system: Option<Cow<'a, str>>,
    /// The conversation it belongs to, as `tidegate-conversation` says it.
    pub conversation: Option<Cow<'a, str>>,
}

impl<'a> Prompt<'a> {
    /// Reads a message of text.
    pub fn read(text: &'a str) -> Result<Self, BadFrame> {
        let mut fields = Strict::read(text)?;
        let prompt = Prompt {
            prompt: fields.required("prompt")?,
            model: fields.text("model")?,
            max_tokens: fields.number("max_tokens", u64::from(u32::MAX))?,
            system: fields.text("system")?,
            conversation: fields.text("conversation")?,
        };
        if prompt.prompt.trim().is_empty() {
            return Err(fields.wrong("prompt", "Input should not be empty"));
        }
        fields.end()?;
        Ok(prompt)
    }

    /// Writes it, the text of a message.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut members = Members::begin(out);
        members.value("prompt", &self.prompt).some("model", self.model.as_ref()).some("max_tokens", self.max_tokens);
        members.some("system", self.system.as_ref()).some("conversation", self.conversation.as_ref()).end();
    }

    /// The body of `POST /v1/messages` that asks the same, with what the prompt leaves to the server.
    pub fn body(&self, model: &str, max_tokens: u64) -> Vec<u8> {
        let mut body = json!({
            "model": self.model.as_deref().unwrap_or(model),
            "max_tokens": self.max_tokens.unwrap_or(max_tokens),
            "stream": true,
            "messages": [{"role": "user", "content": self.prompt}],
        });
        if let Some(system) = &self.system {
            body["system"] = json!(system);
        }
        body.to_string().into_bytes()
    }
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A piece of the answer's text.
    Completion {
        /// The piece.
        text: Cow<'a, str>,
    },
    /// The answer is whole.
    Done {
        /// Why the model stopped.
        stop_reason: Option<Cow<'a, str>>,
        /// What it cost.
        usage: Usage,
    },
    /// There is no answer, or not all of it.
    Error(ErrorBody),
}

impl<'a> Answer<'a> {
    /// Writes it, the text of a message.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Answer::Completion { text } => {
                Members::begin(out).value("event", "completion").value("text", text).end();
            }
            Answer::Done { stop_reason, usage } => {
                let mut members = Members::begin(out);
                members.value("event", "done").value("stop_reason", stop_reason).value("usage", &usage.object()).end();
            }
            Answer::Error(error) => {
                let mut members = Members::begin(out);
                members.value("event", "error").value("type", &error.kind).value("message", &error.message);
                members.some("error_code", error.code.as_ref()).end();
            }
        }
    }

    /// Reads a message of text; `None` if it is of a kind that is newer than this code.
    pub fn read(text: &'a str) -> Result<Option<Self>, NotAFrame> {
        let object = RawObject::read(text.as_bytes()).map_err(|_| NotAFrame("is no JSON object"))?;
        let text = |key: &str| object.get(key).and_then(|value| read_text(value.get()));
        Ok(Some(match text("event").as_deref() {
            Some("completion") => Answer::Completion { text: text("text").ok_or(NotAFrame("has no text"))? },
            Some("done") => {
                let mut usage = Usage::default();
                if let Some(counts) = object.get("usage") {
                    usage.update(counts.get());
                }
                Answer::Done { stop_reason: text("stop_reason"), usage }
            }
            Some("error") => {
                let message = text("message").ok_or(NotAFrame("is an error that says nothing"))?;
                let kind = text("type").unwrap_or(Cow::Borrowed("api_error"));
                Answer::Error(ErrorBody {
                    kind: kind.into_owned().into(),
                    message: message.into_owned().into(),
                    code: text("error_code").map(|code| code.into_owned().into()),
                })
            }
            Some(_) => return Ok(None),
            None => return Err(NotAFrame("has no event")),
        }))
    }
}

/// Writes the completion that `event`, a whole one of a Messages stream, is to this dialect. False
/// if it is none: thinking, calls of tools and the frame around them are not told here.
pub fn write_completion(out: &mut Vec<u8>, event: &[u8]) -> bool {
    if let Some(delta) = plain_delta(event) {
        let is_text = delta.opening.starts_with(br#","delta":{"type":"text_delta""#);
        if is_text && !delta.text.is_empty() {
            // Between its quotes it stands here as it stands there.
            out.extend_from_slice(br#"{"event":"completion","text":""#);
            out.extend_from_slice(delta.text);
            out.extend_from_slice(br#""}"#);
        }
        return is_text && !delta.text.is_empty();
    }
    let Some(text) = text_of(event).filter(|text| !text.is_empty()) else { return false };
    Answer::Completion { text: text.into() }.write(out);
    true
}

/// The text of an event that has another shape than the usual.
fn text_of(event: &[u8]) -> Option<String> {
    let data = sse::parts(event).data?;
    let object = RawObject::read(&data).ok()?;
    let (part, kind) = match Kind::of_name(object.parse::<String>("type")?.as_bytes()) {
        Kind::BlockDelta => ("delta", "text_delta"),
        Kind::BlockStart => ("content_block", "text"),
        _ => return None,
    };
    let part: RawObject<'_> = object.parse(part)?;
    if part.is("type", kind) { part.parse("text") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn completion(event: &str) -> Option<String> {
        let mut out = Vec::new();
        let told = write_completion(&mut out, event.as_bytes());
        assert_eq!(told, !out.is_empty());
        told.then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn only_text_is_told() {
        let event =
            |kind: &str, rest: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"index\":0,{rest}}}\n\n");
        let delta = |kind: &str, field: &str| {
            event("content_block_delta", &format!("\"delta\":{{\"type\":\"{kind}\",\"{field}\":\"a\\n\\\"é\"}}"))
        };
        let want = Some("{\"event\":\"completion\",\"text\":\"a\\n\\\"é\"}".to_owned());
        assert_eq!(completion(&delta("text_delta", "text")), want);
        assert_eq!(completion(&delta("text_delta", "text").replace("\"delta\":{", "\"delta\": {")), want);
        let begun = event("content_block_start", "\"content_block\":{\"type\":\"text\",\"text\":\"a\\n\\\"é\"}");
        assert_eq!(completion(&begun), want);
        assert_eq!(completion(&begun.replace("a\\n\\\"é", "")), None);
        for silent in [
            delta("thinking_delta", "thinking"),
            delta("input_json_delta", "partial_json"),
            delta("signature_delta", "signature"),
            delta("text_delta", "text").replace("a\\n\\\"é", ""),
            event("content_block_start", "\"content_block\":{\"type\":\"tool_use\",\"text\":\"x\"}"),
            event("content_block_stop", "\"x\":1"),
            ": note\n\n".to_owned(),
        ] {
            assert_eq!(completion(&silent), None, "{silent}");
        }
    }

    #[test]
    fn a_prompt_is_read_strictly_and_asks_for_a_stream() {
        let about = |text: &str| Prompt::read(text).unwrap_err().text;
        assert_eq!(about(r#"{"promt":"x"}"#), "prompt: Field required");
        assert_eq!(about(r#"{"prompt":" \n"}"#), "prompt: Input should not be empty");
        assert_eq!(about(r#"{"prompt":"x","tools":[]}"#), "tools: Extra inputs are not permitted");
        assert!(about(r#"{"prompt":"x","max_tokens":-1}"#).starts_with("max_tokens: Input should be a whole number"));
        let prompt = Prompt::read(r#"{"prompt":"x","system":"s"}"#).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&prompt.body("m", 7)).unwrap();
        let messages = json!([{"role": "user", "content": "x"}]);
        assert_eq!(body, json!({"model": "m", "max_tokens": 7, "stream": true, "messages": messages, "system": "s"}));
        let prompt = Prompt { model: Some("n".into()), max_tokens: Some(9), ..prompt };
        let body: serde_json::Value = serde_json::from_slice(&prompt.body("m", 7)).unwrap();
        assert_eq!((&body["model"], &body["max_tokens"]), (&json!("n"), &json!(9)));
    }

    #[test]
    fn answers_of_the_bare_kind_are_read() {
        let error = ErrorBody { kind: "api_error".into(), message: "m".into(), code: None };
        assert_eq!(Answer::read(r#"{"event":"error","message":"m"}"#), Ok(Some(Answer::Error(error))));
        let done = Answer::Done { stop_reason: None, usage: Usage::default() };
        assert_eq!(Answer::read(r#"{"event":"done"}"#), Ok(Some(done)));
        assert_eq!(Answer::read(r#"{"event":"new"}"#), Ok(None));
        for (text, why) in [
            ("[]", "is no JSON object"),
            (r#"{"text":"x"}"#, "has no event"),
            (r#"{"event":"completion"}"#, "has no text"),
            (r#"{"event":"error"}"#, "is an error that says nothing"),
        ] {
            assert_eq!(Answer::read(text), Err(NotAFrame(why)));
        }
    }

    fn text() -> impl Strategy<Value = Cow<'static, str>> {
        "[a-z\"\\\\\u{1}é😀]{1,6}".prop_map(Cow::Owned)
    }

    fn answer() -> impl Strategy<Value = Answer<'static>> {
        let usage =
            any::<[u32; 4]>().prop_map(|n| n.map(u64::from)).prop_map(|[input, cache_creation, cache_read, output]| {
                Usage { input, cache_creation, cache_read, output, ..Usage::default() }
            });
        let error = (text(), text(), prop::option::of(text()));
        prop_oneof![
            text().prop_map(|text| Answer::Completion { text }),
            (prop::option::of(text()), usage).prop_map(|(stop_reason, usage)| Answer::Done { stop_reason, usage }),
            error.prop_map(|(kind, message, code)| Answer::Error(ErrorBody { kind, message, code })),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            answer in answer(),
            prompt in text(),
            texts in prop::collection::vec(prop::option::of(text()), 3),
            max_tokens: Option<u32>,
        ) {
            let mut out = Vec::new();
            answer.write(&mut out);
            prop_assert_eq!(Answer::read(std::str::from_utf8(&out).unwrap()), Ok(Some(answer)));
            let [model, system, conversation] = <[_; 3]>::try_from(texts).unwrap();
            let prompt = Prompt { prompt, model, max_tokens: max_tokens.map(u64::from), system, conversation };
            let mut out = Vec::new();
            prompt.write(&mut out);
            prop_assert_eq!(Prompt::read(std::str::from_utf8(&out).unwrap()), Ok(prompt));
        }
    }
}
