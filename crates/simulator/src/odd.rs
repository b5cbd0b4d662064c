//! What endpoints do that speak the API for somebody else's models, and the API does not.
//!
//! An oddity changes an answer that is made already: it replaces it by a refusal in other words, or
//! takes from its events and its document what others leave out. It is a fault like any other
//! (`odd:NAME`), in scenarios and in headers.

use crate::answer::{Answer, Body};
use crate::events::{Frame, Kind};
use bytes::Bytes;
use serde_json::{Value, json};

/// One oddity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// 200 and a page of HTML.
    HtmlAnswer,
    /// 200 and an error in JSON.
    ErrorAnswer,
    /// 502 and a page of HTML.
    HtmlError,
    /// 503 and a line of text.
    TextError,
    /// 500 and nothing.
    EmptyError,
    /// 429 in OpenAI's envelope.
    OpenAiError,
    /// 400 in OpenAI's envelope: the request's own fault.
    OpenAiRefusal,
    /// 503 as a code and a message.
    CodeError,
    /// No `usage` anywhere.
    NoUsage,
    /// `usage` that counts output only, and at the end only.
    PartUsage,
    /// A model that has another name than the one that was asked for.
    OtherModel,
    /// No rate-limit headers.
    NoLimits,
    /// A stream without `message_start`; a document that is none.
    NoStart,
    /// Chunks of OpenAI's chat completions.
    ChatChunks,
    /// An error of OpenAI's inside the stream, before its content.
    ErrorEvent,
}

/// As they are written.
pub(crate) const NAMES: [(&str, Odd); 15] = [
    ("html-answer", Odd::HtmlAnswer),
    ("error-answer", Odd::ErrorAnswer),
    ("html-error", Odd::HtmlError),
    ("text-error", Odd::TextError),
    ("empty-error", Odd::EmptyError),
    ("openai-error", Odd::OpenAiError),
    ("openai-refusal", Odd::OpenAiRefusal),
    ("code-error", Odd::CodeError),
    ("no-usage", Odd::NoUsage),
    ("part-usage", Odd::PartUsage),
    ("other-model", Odd::OtherModel),
    ("no-limits", Odd::NoLimits),
    ("no-start", Odd::NoStart),
    ("chat-chunks", Odd::ChatChunks),
    ("error-event", Odd::ErrorEvent),
];

const PAGE: &str = "<html><head><title>odd</title></head><body><h1>Something is odd</h1></body></html>\n";
const SLOW: &str = r#"{"error":{"message":"Rate limit reached for requests","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
const LONG: &str = r#"{"error":{"message":"This model's maximum context length is exceeded","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
const BUSY: &str = r#"{"code":"ServiceUnavailable","message":"The service is busy","request_id":"0a1b"}"#;
const CODED: &str = r#"{"code":429,"msg":"too many requests","data":null}"#;
const COMPLETION: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#;

impl Odd {
    /// The answer in whose place this is, if it is one.
    fn instead(self) -> Option<(u16, &'static str, &'static str)> {
        let json = "application/json";
        Some(match self {
            Odd::HtmlAnswer => (200, "text/html; charset=utf-8", PAGE),
            Odd::ErrorAnswer => (200, json, CODED),
            Odd::HtmlError => (502, "text/html", PAGE),
            Odd::TextError => (503, "text/plain", "upstream connect error or disconnect/reset before headers"),
            Odd::EmptyError => (500, "text/plain", ""),
            Odd::OpenAiError => (429, json, SLOW),
            Odd::OpenAiRefusal => (400, json, LONG),
            Odd::CodeError => (503, json, BUSY),
            _ => return None,
        })
    }

    /// An event as it goes out; `None` if it does not.
    pub(crate) fn event(self, frame: Frame) -> Option<Frame> {
        let bytes = match (self, frame.kind) {
            (Odd::NoStart, Kind::Start) => return None,
            (Odd::ErrorEvent, Kind::Start | Kind::MessageStop) => Bytes::from(format!("data: {SLOW}\n\n")),
            (Odd::ErrorEvent, _) => return None,
            (Odd::ChatChunks, Kind::MessageStop) => Bytes::from_static(b"data: [DONE]\n\n"),
            (Odd::ChatChunks, _) => {
                let choice = json!({"index": 0, "delta": {"content": "word "}, "finish_reason": null});
                let chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]});
                Bytes::from(format!("data: {chunk}\n\n"))
            }
            (_, Kind::Start | Kind::MessageDelta) => self.changed(&frame.bytes),
            _ => return Some(frame),
        };
        Some(Frame { bytes, ..frame })
    }

    /// An event of which its data is changed.
    fn changed(self, event: &Bytes) -> Bytes {
        let text = String::from_utf8_lossy(event);
        let Some((name, data)) = text.trim_end().split_once("\ndata: ") else { return event.clone() };
        let Ok(mut data) = serde_json::from_str::<Value>(data) else { return event.clone() };
        match data.get_mut("message") {
            Some(message) => self.document(message, true),
            None => self.document(&mut data, false),
        }
        Bytes::from(format!("{name}\ndata: {data}\n\n"))
    }

    fn document(self, document: &mut Value, begins: bool) {
        let Some(fields) = document.as_object_mut() else { return };
        match self {
            Odd::NoUsage => drop(fields.remove("usage")),
            Odd::PartUsage if begins => drop(fields.remove("usage")),
            Odd::PartUsage => {
                let output = fields.get("usage").map(|usage| usage["output_tokens"].clone());
                fields.insert("usage".to_owned(), json!({"output_tokens": output}));
            }
            Odd::OtherModel if fields.contains_key("model") => {
                fields.insert("model".to_owned(), json!("endpoint-model"));
            }
            _ => {}
        }
    }
}

/// The answer as an endpoint with these oddities gives it; those of its events are left in its faults.
pub(crate) fn distorted(mut answer: Answer, odds: &[Odd]) -> Answer {
    if let Some((status, content_type, body)) = odds.iter().find_map(|odd| odd.instead()) {
        answer.headers = vec![("content-type", content_type.to_owned())];
        answer.body = Body::Whole { bytes: Bytes::from_static(body.as_bytes()), reply: None };
        answer.faults.clear();
        return Answer { status, refusal: Some("odd".to_owned()), ..answer };
    }
    if odds.contains(&Odd::NoLimits) {
        answer.headers.retain(|(name, _)| !name.starts_with("anthropic-ratelimit-"));
    }
    if let Body::Whole { bytes, reply: Some(_) } = &mut answer.body {
        for odd in odds {
            *bytes = match odd {
                Odd::NoStart | Odd::ChatChunks => Bytes::from_static(COMPLETION.as_bytes()),
                Odd::ErrorEvent => Bytes::from_static(SLOW.as_bytes()),
                _ => match serde_json::from_slice::<Value>(bytes) {
                    Ok(mut document) => {
                        odd.document(&mut document, false);
                        document.to_string().into()
                    }
                    Err(_) => continue,
                },
            };
        }
    }
    answer
}
