//! The bare target: prebuilt bytes, no validation, no quota, no record. For measuring what stands
//! in front of it.
//!
//! One JSON answer and one stream are built once; answering is handing out clones of [`Bytes`].
//! Whether a stream is wanted is read off the body by looking for `"stream":true`, with at most one
//! space before and after the colon, as every SDK writes it.
//!
//! An event may say when it was sent: the last bytes of its text are then overwritten by whoever
//! sends it, so that a load generator on the same machine can tell how long it was on its way.

use crate::scenario::BareShape;
use bytes::Bytes;
use std::time::Duration;

/// Prebuilt answers. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Bare {
    /// The JSON answer.
    pub json: Bytes,
    /// What comes before the first content event.
    pub opening: Bytes,
    /// One content event, [`BareShape::event_bytes`] long.
    pub event: Bytes,
    /// How many of them.
    pub events: usize,
    /// What comes after the last.
    pub closing: Bytes,
    /// Everything from opening to closing in one piece, for streams without pauses.
    pub stream: Bytes,
    /// Time between content events.
    pub interval: Duration,
    /// Whether each event is a write of its own even without pauses.
    pub event_writes: bool,
    /// Where in an event the moment of sending is to be written, [`STAMP_BYTES`] long.
    pub stamp_at: Option<usize>,
}

/// Length of a moment of sending in an event's text.
pub const STAMP_BYTES: usize = 10;
/// What stands behind the text of an event.
const BEHIND_TEXT: usize = "\"}}\n\n".len();
/// The shortest event that has room for a moment of sending.
pub(crate) const STAMPED_EVENT_BYTES_MIN: usize = EVENT.len() - 1 + STAMP_BYTES;

const EVENT: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"@\"}}\n\n";
const MESSAGE: &str = r#"{"id":"msg_01bare","type":"message","role":"assistant","model":"claude-sonnet-5-5","content":[@],"stop_reason":#,"stop_sequence":null,"stop_details":null,"container":null,"diagnostics":null,"usage":{"input_tokens":12,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":%}}"#;

fn filled(pattern: &str, bytes: usize) -> String {
    let text = "tide ".repeat(bytes / 5 + 1);
    pattern.replace('@', &text[..bytes.saturating_sub(pattern.len() - 1)])
}

impl Bare {
    /// Builds the answers.
    pub fn new(shape: BareShape) -> Self {
        let tokens = (shape.events * 8).to_string();
        let empty = MESSAGE.replace('@', "").replace('#', "null").replace('%', "1");
        let whole = MESSAGE.replace('#', "\"end_turn\"").replace('%', &tokens);
        let whole = whole.replace('@', r#"{"type":"text","text":"@","citations":null}"#);
        let json = filled(&whole, shape.json_bytes);
        let opening = format!(
            "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{empty}}}\n\nevent: content_block_start\ndata: {{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{{\"type\":\"text\",\"text\":\"\"}}}}\n\n"
        );
        let event = filled(EVENT, shape.event_bytes);
        let stamp_at = event.len().saturating_sub(BEHIND_TEXT + STAMP_BYTES);
        let closing = format!(
            "event: content_block_stop\ndata: {{\"type\":\"content_block_stop\",\"index\":0}}\n\nevent: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\",\"stop_sequence\":null}},\"usage\":{{\"output_tokens\":{tokens}}}}}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
        );
        let stream = format!("{opening}{}{closing}", event.repeat(shape.events));
        Bare {
            json: json.into(),
            opening: opening.into(),
            event: event.into(),
            events: shape.events,
            closing: closing.into(),
            stream: stream.into(),
            interval: shape.interval,
            event_writes: shape.event_writes,
            stamp_at: shape.stamp.then_some(stamp_at),
        }
    }

    /// Whether this body asks for a stream.
    pub fn wants_stream(body: &[u8]) -> bool {
        memchr::memmem::find_iter(body, b"\"stream\"").any(|at| {
            let rest = body[at + 8..].trim_ascii_start();
            rest.strip_prefix(b":").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"true"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_asked_and_the_bytes_are_valid() {
        let bare = Bare::new(BareShape::default());
        assert_eq!((bare.json.len(), bare.event.len(), bare.events), (480, 125, 50));
        assert!(serde_json::from_slice::<serde_json::Value>(&bare.json).is_ok());
        for event in std::str::from_utf8(&bare.stream).unwrap().split_terminator("\n\n") {
            let data = event.split_once("\ndata: ").unwrap().1;
            serde_json::from_str::<serde_json::Value>(data).unwrap();
        }
        assert_eq!(bare.stream.len(), bare.opening.len() + 50 * 125 + bare.closing.len());
    }

    #[test]
    fn a_moment_of_sending_fits_the_usual_event_and_ends_its_text() {
        assert_eq!(STAMPED_EVENT_BYTES_MIN, BareShape::default().event_bytes);
        let bare = Bare::new(BareShape { stamp: true, event_bytes: 140, ..BareShape::default() });
        let at = bare.stamp_at.unwrap();
        let mut event = bare.event.to_vec();
        event[at..at + STAMP_BYTES].fill(b'7');
        let text = String::from_utf8(event).unwrap();
        assert!(text.ends_with("7777777777\"}}\n\n") && text.contains("\"text\":\"tide "), "{text}");
    }

    #[test]
    fn a_wish_for_a_stream_is_read_off_the_bytes() {
        assert!(Bare::wants_stream(br#"{"model":"m","stream":true}"#));
        assert!(Bare::wants_stream(br#"{"stream" : true, "x": 1}"#));
        assert!(!Bare::wants_stream(br#"{"stream":false}"#));
        assert!(!Bare::wants_stream(br#"{"messages":[{"content":"\"stream\""}]}"#));
        assert!(!Bare::wants_stream(b""));
    }
}
