//! The simple dialect from a client that was asked for a Messages stream: what of a request can be
//! said in it, and its answers told as the events of a stream.

use super::{Answer, Prompt};
use crate::raw::{RawObject, each_element};
use bytes::{BufMut, BytesMut};
use serde_json::{Value, json};
use std::fmt;

/// What of a request the simple dialect has no words for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsayable(pub String);

impl fmt::Display for Unsayable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot be said in the simple dialect", self.0)
    }
}

impl std::error::Error for Unsayable {}

/// Members of a request that change nothing of what is asked.
const IDLE: [&str; 2] = ["stream", "metadata"];

impl Prompt<'static> {
    /// The prompt that asks what `body` asks, a request of the Messages API: one message of text, with
    /// or without a system prompt of text. Nothing that it says is left out.
    pub fn of_request(body: &[u8]) -> Result<Self, Unsayable> {
        let cannot = |place: &str| Unsayable(place.to_owned());
        let request = RawObject::read(body).map_err(|_| cannot("the request"))?;
        let mut prompt = Prompt::default();
        for (key, value) in request.iter() {
            let value = value.get();
            match key {
                "model" => prompt.model = Some(text(value).ok_or_else(|| cannot(key))?.into()),
                "max_tokens" => {
                    let number = value.parse().ok().filter(|n| *n <= u64::from(u32::MAX));
                    prompt.max_tokens = Some(number.ok_or_else(|| cannot(key))?);
                }
                "system" => prompt.system = Some(content(value).ok_or_else(|| cannot(key))?.into()),
                "messages" => prompt.prompt = only_message(value).ok_or_else(|| cannot(key))?.into(),
                idle if IDLE.contains(&idle) => {}
                other => return Err(cannot(other)),
            }
        }
        if prompt.prompt.trim().is_empty() { Err(cannot("messages")) } else { Ok(prompt) }
    }
}

fn text(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

/// A string, or a list of one block that is nothing but text.
fn content(json: &str) -> Option<String> {
    if let Some(text) = text(json) {
        return Some(text);
    }
    let block = only_element(json)?;
    (block.is("type", "text") && block.len() == 2).then(|| block.parse("text"))?
}

fn only_message(json: &str) -> Option<String> {
    let message = only_element(json)?;
    (message.is("role", "user") && message.len() == 2).then(|| content(message.get("content")?.get()))?
}

fn only_element(json: &str) -> Option<RawObject<'_>> {
    let (mut first, mut count) = (None, 0);
    let listed = each_element(json, |element| {
        first = first.or(Some(element));
        count += 1;
    });
    RawObject::read(first.filter(|_| listed && count == 1)?.as_bytes()).ok()
}

/// One answer, told as a stream of events: well formed whatever is said, up to its end.
#[derive(Clone, Debug)]
pub struct Retelling {
    id: String,
    model: String,
    begun: bool,
    in_block: bool,
    over: bool,
}

impl Retelling {
    /// An answer of `model`, whose message will have this `id`.
    pub fn new(id: &str, model: &str) -> Self {
        Retelling { id: id.to_owned(), model: model.to_owned(), begun: false, in_block: false, over: false }
    }

    /// Whether the answer's end was told. A socket that ends before has cut it.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Writes the events that `answer` is. After the end nothing is written.
    pub fn tell(&mut self, answer: &Answer<'_>, out: &mut BytesMut) {
        if self.over {
            return;
        }
        match answer {
            Answer::Completion { text } => {
                self.begin(out);
                if !self.in_block {
                    self.in_block = true;
                    let block = json!({"type": "text", "text": ""});
                    event(out, "content_block_start", &json!({"index": 0, "content_block": block}));
                }
                let delta = json!({"type": "text_delta", "text": text});
                event(out, "content_block_delta", &json!({"index": 0, "delta": delta}));
            }
            Answer::Done { stop_reason, usage } => {
                self.begin(out);
                if self.in_block {
                    event(out, "content_block_stop", &json!({"index": 0}));
                }
                let delta = json!({"stop_reason": stop_reason.as_deref().unwrap_or("end_turn"), "stop_sequence": null});
                event(out, "message_delta", &json!({"delta": delta, "usage": usage.object()}));
                event(out, "message_stop", &json!({}));
                self.over = true;
            }
            Answer::Error(error) => {
                event(out, "error", &json!({"error": error.object()}));
                self.over = true;
            }
        }
    }

    fn begin(&mut self, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.begun, true) {
            let message = json!({
                "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": [],
                "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 0, "output_tokens": 0},
            });
            event(out, "message_start", &json!({"message": message}));
        }
    }
}

/// Writes an event: its type first, then `members`, as the API does it.
fn event(out: &mut BytesMut, kind: &str, members: &Value) {
    let members = members.to_string();
    let rest = members.strip_prefix('{').unwrap_or_default();
    let comma = if rest == "}" { "" } else { "," };
    for part in ["event: ", kind, "\ndata: {\"type\":\"", kind, "\"", comma, rest, "\n\n"] {
        out.put_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorBody, ErrorType};
    use crate::event::{Kind, Tap};
    use crate::sse::Splitter;
    use crate::usage::Usage;

    fn check(answers: &[Answer<'_>]) -> (Vec<Kind>, Tap) {
        let (mut retelling, mut out) = (Retelling::new("msg_1", "m"), BytesMut::new());
        answers.iter().for_each(|answer| retelling.tell(answer, &mut out));
        let (mut tap, mut kinds) = (Tap::new(), Vec::new());
        Splitter::new().feed(&out, |event| kinds.push(tap.see(event).unwrap())).unwrap();
        assert_eq!(retelling.is_over(), tap.stopped || tap.error.is_some());
        (kinds, tap)
    }

    fn completion(text: &str) -> Answer<'_> {
        Answer::Completion { text: text.into() }
    }

    #[test]
    fn an_answer_becomes_a_stream_with_all_its_parts() {
        use Kind::{BlockDelta, BlockStart, BlockStop, MessageDelta, MessageStart, MessageStop};
        let usage = Usage { input: 3, output: 4, cache_read: 5, ..Usage::default() };
        let done = Answer::Done { stop_reason: Some("max_tokens".into()), usage };
        let (kinds, tap) = check(&[completion("a\n"), completion("é"), done.clone(), completion("late")]);
        assert_eq!(kinds, [MessageStart, BlockStart, BlockDelta, BlockDelta, BlockStop, MessageDelta, MessageStop]);
        assert_eq!((tap.usage, tap.stop_reason.as_deref()), (usage, Some("max_tokens")));
        assert_eq!(check(&[done]).0, [MessageStart, MessageDelta, MessageStop]);
        let error = Answer::Error(ErrorBody::new(ErrorType::Overloaded, "x", "m"));
        let (kinds, tap) = check(&[completion("a"), error]);
        assert_eq!((kinds.last(), tap.error.unwrap().kind.as_ref()), (Some(&Kind::Error), "overloaded_error"));
    }

    #[test]
    fn deltas_have_the_shape_that_is_relayed_without_parsing() {
        let (mut retelling, mut out) = (Retelling::new("msg_1", "m"), BytesMut::new());
        retelling.tell(&completion("a\"é"), &mut out);
        let mut plain = 0;
        let count = |event: &[u8]| plain += usize::from(crate::event::plain_delta(event).is_some());
        Splitter::new().feed(&out, count).unwrap();
        assert_eq!(plain, 1);
    }

    #[test]
    fn a_request_is_said_whole_or_not_at_all() {
        let of = |body: &str| Prompt::of_request(body.as_bytes());
        let body =
            r#"{"model":"m","max_tokens":7,"stream":true,"messages":[{"role":"user","content":"x"}],"system":"s"}"#;
        let prompt = of(body).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&prompt.body("", 0)).unwrap(),
            serde_json::from_str::<Value>(body).unwrap()
        );
        assert_eq!(of(&body.replace("\"x\"", r#"[{"type":"text","text":"x"}]"#)).unwrap(), prompt);
        for (from, to, place) in [
            ("\"stream\":true", "\"tools\":[]", "tools"),
            ("\"s\"}", "3}", "system"),
            ("\"s\"}", r#"[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}]}"#, "system"),
            ("\"x\"", "\"\"", "messages"),
            ("\"user\"", "\"assistant\"", "messages"),
            ("[{\"role", "[{},{\"role", "messages"),
            ("\"x\"", r#"[{"type":"image","text":"x"}]"#, "messages"),
            ("\"x\"", r#"[{"type":"text","text":"x"},{"type":"text","text":"y"}]"#, "messages"),
            ("7", "0.5", "max_tokens"),
        ] {
            assert_eq!(of(&body.replace(from, to)), Err(Unsayable(place.to_owned())), "{to}");
        }
        assert_eq!(of("[]"), Err(Unsayable("the request".to_owned())));
        assert_eq!(of(r#"{"model":"m"}"#), Err(Unsayable("messages".to_owned())));
    }
}
