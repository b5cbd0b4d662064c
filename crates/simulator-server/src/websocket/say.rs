//! What this server says: the events of an answer as messages of either dialect.
//!
//! The playback's bytes are SSE. They are taken apart at blank lines and not looked into more than
//! the dialect needs, so that what is broken in them is broken in the message too.

use super::Dialect;
use serde_json::{Value, json};

/// How the messages of an answer are put.
#[derive(Clone, Debug)]
pub(super) struct Voice {
    dialect: Dialect,
    id: Option<String>,
    /// Of the last event that was said.
    seq: u64,
    /// What has come of the next event.
    begun: Vec<u8>,
    stop_reason: Value,
    usage: Value,
    stopped: bool,
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) text: String,
    /// Bytes of it that cost credit.
    pub(super) cost: i64,
    /// The answer's last.
    pub(super) last: bool,
}

impl Said {
    fn free(message: &Value, last: bool) -> Self {
        Said { text: message.to_string(), cost: 0, last }
    }
}

impl Voice {
    pub(super) fn new(dialect: Dialect, id: Option<String>) -> Self {
        let (stop_reason, usage) = (Value::Null, json!({}));
        Voice { dialect, id, seq: 0, begun: Vec::new(), stop_reason, usage, stopped: false }
    }

    /// The answer begins, with these header lines.
    pub(super) fn open(&self, headers: &[(&'static str, String)]) -> Option<Said> {
        if self.dialect != Dialect::Streams {
            return None;
        }
        let told = headers.iter().filter(|(name, _)| *name != "content-type");
        let told: Value = told.map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        Some(Said::free(&json!({"type": "stream.open", "id": self.id, "stream": null, "headers": told}), false))
    }

    /// More bytes of the answer: the messages that they make whole.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Vec<Said> {
        self.begun.extend_from_slice(bytes);
        let mut said = Vec::new();
        while let Some(end) = self.begun.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.begun.drain(..end + 2).collect();
            said.extend(self.event(&String::from_utf8_lossy(&event)));
        }
        said
    }

    fn event(&mut self, event: &str) -> Option<Said> {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        let (kind, data) = (field("event: ").unwrap_or(""), field("data: ").unwrap_or(""));
        let value: Value = serde_json::from_str(data).unwrap_or(Value::Null);
        match kind {
            "ping" => return None,
            "error" => return Some(self.error(status_of(&value["error"]), &value, None)),
            "message_start" => self.learn(&value["message"]["usage"]),
            "message_delta" => {
                self.learn(&value["usage"]);
                self.stop_reason = value["delta"]["stop_reason"].clone();
            }
            "message_stop" => self.stopped = true,
            _ => {}
        }
        match self.dialect {
            Dialect::Streams => {
                self.seq += 1;
                let text = self.frame_around(data);
                Some(Said { text, cost: data.len() as i64, last: false })
            }
            Dialect::Simple { .. } => {
                let text = value["delta"]["text"].as_str()?;
                Some(Said::free(&json!({"event": "completion", "text": text}), false))
            }
        }
    }

    fn frame_around(&self, data: &str) -> String {
        let (id, seq) = (json!(self.id), self.seq);
        format!("{{\"type\":\"stream.event\",\"id\":{id},\"first_seq\":{seq},\"seq\":{seq},\"event\":{data}}}")
    }

    fn learn(&mut self, usage: &Value) {
        for (key, value) in usage.as_object().into_iter().flatten() {
            self.usage[key] = value.clone();
        }
    }

    /// Half an event is out, and nothing more comes: what its message would have been, as far as
    /// that goes.
    pub(super) fn torn(&mut self, bytes: &[u8]) -> String {
        self.begun.extend_from_slice(bytes);
        let begun = String::from_utf8_lossy(&self.begun).into_owned();
        let data = begun.split_once("data: ").map_or("", |(_, data)| data);
        self.seq += 1;
        match self.dialect {
            Dialect::Streams => self.frame_around(data).trim_end_matches('}').to_owned(),
            Dialect::Simple { .. } => "{\"event\":\"completion\",\"text\":\"".to_owned(),
        }
    }

    /// The body has ended. An answer that ends without `message_stop` is said to be whole all the same:
    /// that is the fault.
    pub(super) fn end(&self, reason: &str) -> Said {
        let message = match self.dialect {
            Dialect::Streams => json!({"type": "stream.end", "id": self.id, "seq": self.seq, "reason": reason}),
            Dialect::Simple { .. } => {
                let field = |name: &str| self.usage.get(name).cloned().unwrap_or_else(|| json!(0));
                json!({"event": "done", "stop_reason": self.stop_reason, "usage": {
                    "input_tokens": field("input_tokens"),
                    "cache_creation_input_tokens": field("cache_creation_input_tokens"),
                    "cache_read_input_tokens": field("cache_read_input_tokens"), "output_tokens": field("output_tokens")}})
            }
        };
        Said::free(&message, true)
    }

    /// An error in the API's envelope, as the answer's last message.
    pub(super) fn error(&self, status: u16, envelope: &Value, retry_after_s: Option<u64>) -> Said {
        let error = &envelope["error"];
        let message = match self.dialect {
            Dialect::Streams => {
                let mut message = json!({"type": "stream.error", "id": self.id, "status": status, "error": error});
                if let Some(id) = envelope.get("request_id") {
                    message["request_id"] = id.clone();
                }
                if let Some(seconds) = retry_after_s {
                    message["retry_after_s"] = json!(seconds);
                }
                message
            }
            Dialect::Simple { .. } => {
                json!({"event": "error", "type": error["type"], "message": error["message"]})
            }
        };
        Said::free(&message, true)
    }
}

/// An error that begins no answer.
pub(super) fn refusal(dialect: Dialect, id: Option<&str>, status: u16, code: &str, text: &str) -> String {
    let kind = match status {
        404 => "not_found_error",
        529 => "overloaded_error",
        _ => "invalid_request_error",
    };
    let message = match dialect {
        Dialect::Streams => {
            let error = json!({"type": kind, "message": text, "details": {"error_code": code}});
            json!({"type": "stream.error", "id": id, "status": status, "error": error})
        }
        Dialect::Simple { .. } => json!({"event": "error", "type": kind, "message": text, "error_code": code}),
    };
    message.to_string()
}

/// The status an `error` event would have been.
fn status_of(error: &Value) -> u16 {
    match error["type"].as_str() {
        Some("overloaded_error") => 529,
        Some("timeout_error") => 504,
        Some("rate_limit_error") => 429,
        Some("invalid_request_error") => 400,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELTA: &[u8] =
        b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"tide\"}}\n\n";

    #[test]
    fn an_event_is_a_message_however_its_bytes_come() {
        for cut in 0..DELTA.len() {
            let mut voice = Voice::new(Dialect::Streams, Some("a1".to_owned()));
            let mut said = voice.bytes(&DELTA[..cut]);
            said.extend(voice.bytes(&DELTA[cut..]));
            said.extend(voice.bytes(b"event: ping\ndata: {\"type\":\"ping\"}\n\n"));
            let message: Value = serde_json::from_str(&said[0].text).unwrap();
            assert_eq!((said.len(), &message["seq"], &message["id"]), (1, &json!(1), &json!("a1")));
            assert_eq!(message["event"]["delta"]["text"], "tide");
        }
        let mut voice = Voice::new(Dialect::Simple { once: false }, None);
        assert_eq!(voice.bytes(DELTA)[0].text, r#"{"event":"completion","text":"tide"}"#);
    }

    #[test]
    fn what_is_broken_stays_broken() {
        let mut voice = Voice::new(Dialect::Streams, Some("a1".to_owned()));
        let said = voice.bytes(b"event: content_block_delta\ndata: {\"type\":\n\n");
        assert!(serde_json::from_str::<Value>(&said[0].text).is_err(), "{said:?}");
        let torn = voice.torn(&DELTA[..60]);
        assert!(torn.starts_with("{\"type\":\"stream.event\"") && serde_json::from_str::<Value>(&torn).is_err());
    }
}
