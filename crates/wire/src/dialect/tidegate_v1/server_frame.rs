//! What a server says, but for events by the thousand, which `event_frame` writes: written by a
//! Tidegate that is one, and read leniently by one that is a client.

use crate::dialect::NotAFrame;
use crate::dialect::members::Members;
use crate::dialect::strict::read_text;
use crate::dialect::words::{Recover, meaning};
use crate::error::ErrorBody;
use crate::raw::RawObject;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A frame of a server. An `id` is the client's name for a stream on this socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerFrame<'a> {
    /// The stream waits for quota.
    Wait {
        /// Which.
        id: Cow<'a, str>,
        /// How many are before it, where that is known.
        position: Option<u64>,
        /// How long it will take, where that is known.
        expected_ms: Option<u64>,
    },
    /// The answer begins, or goes on.
    Open {
        /// Which.
        id: Cow<'a, str>,
        /// Tidegate's name for it, if it can be resumed.
        stream: Option<Cow<'a, str>>,
        /// The answer's header lines, names in lower case, each name once.
        headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    },
    /// An event of the upstream's.
    Event {
        /// Which.
        id: Cow<'a, str>,
        /// The first number it stands for.
        first_seq: u64,
        /// The last.
        seq: u64,
        /// Where to go on after it.
        cursor: Option<Cow<'a, str>>,
        /// Its JSON, as it came.
        event: &'a str,
    },
    /// The upstream broke off, and the stream goes on all the same.
    Recovered {
        /// Which.
        id: Cow<'a, str>,
        /// The last number before.
        seq: u64,
        /// What was done.
        how: Recover,
        /// Which part of the answer follows; the first is 1.
        segment: u64,
    },
    /// The stream is over, as it should be.
    End {
        /// Which.
        id: Cow<'a, str>,
        /// The last number; 0 if there was no event.
        seq: u64,
        /// Why.
        reason: EndReason,
    },
    /// The stream is over and not whole, or never began.
    Error(Box<Failed<'a>>),
}

/// Why a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// `message_stop` came.
    Stop,
    /// The client wanted it to end.
    Cancelled,
}

/// What a `stream.error` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed<'a> {
    /// Which stream; none if the message could not be told to belong to one.
    pub id: Option<Cow<'a, str>>,
    /// The status it would have over HTTP.
    pub status: u16,
    /// As in the API's envelope.
    pub error: ErrorBody,
    /// Tidegate's id of the request.
    pub request_id: Option<Cow<'a, str>>,
    /// Seconds after which to ask again.
    pub retry_after_s: Option<u64>,
    /// Whether to ask again at all.
    pub should_retry: Option<bool>,
    /// Where to go on, if the stream does without this reader.
    pub cursor: Option<Cow<'a, str>>,
}

const REASONS: [(&str, EndReason); 2] = [("stop", EndReason::Stop), ("cancelled", EndReason::Cancelled)];

impl ServerFrame<'_> {
    /// Writes it, the text of a message.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            ServerFrame::Wait { id, position, expected_ms } => {
                let mut members = Members::of(out, "stream.wait");
                members.value("id", id).value("position", position).value("expected_ms", expected_ms).end();
            }
            ServerFrame::Open { id, stream, headers } => {
                let headers: BTreeMap<&str, &str> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
                let mut members = Members::of(out, "stream.open");
                members.value("id", id).some("stream", stream.as_ref()).value("headers", &headers).end();
            }
            ServerFrame::Event { id, first_seq, seq, cursor, event } => {
                let mut members = Members::of(out, "stream.event");
                members.value("id", id).value("first_seq", first_seq).value("seq", seq);
                members.some("cursor", cursor.as_ref()).raw("event", event).end();
            }
            ServerFrame::Recovered { id, seq, how, segment } => {
                let mut members = Members::of(out, "stream.recovered");
                members.value("id", id).value("seq", seq).value("how", how.word()).value("segment", segment).end();
            }
            ServerFrame::End { id, seq, reason } => {
                let word = REASONS.iter().find(|(_, known)| known == reason).map_or("", |(word, _)| word);
                Members::of(out, "stream.end").value("id", id).value("seq", seq).value("reason", word).end();
            }
            ServerFrame::Error(failed) => failed.write(out),
        }
    }
}

impl Failed<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let mut members = Members::of(out, "stream.error");
        members.value("id", &self.id).value("status", &self.status).value("error", &self.error.object());
        members.some("request_id", self.request_id.as_ref()).some("retry_after_s", self.retry_after_s);
        members.some("should_retry", self.should_retry).some("cursor", self.cursor.as_ref()).end();
    }
}

/// A frame's members, looked up by name.
struct Lenient<'a>(RawObject<'a>);

impl<'a> Lenient<'a> {
    fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        read_text(self.0.get(key)?.get())
    }

    fn id(&self) -> Result<Cow<'a, str>, NotAFrame> {
        self.text("id").ok_or(NotAFrame("has no id"))
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.get().parse().ok()
    }

    fn seq(&self) -> Result<u64, NotAFrame> {
        self.number("seq").ok_or(NotAFrame("has no seq"))
    }

    fn headers(&self) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        let headers: RawObject<'a> = self.0.parse("headers").unwrap_or_default();
        let lines = headers.iter().filter_map(|(name, value)| Some((name.to_owned().into(), read_text(value.get())?)));
        lines.collect()
    }

    fn event(&self) -> Result<ServerFrame<'a>, NotAFrame> {
        let (id, seq) = (self.id()?, self.seq()?);
        let first_seq = self.number("first_seq").unwrap_or(seq);
        if first_seq == 0 || first_seq > seq {
            return Err(NotAFrame("has numbers in the wrong order"));
        }
        let event = self.0.get("event").map(|event| event.get()).filter(|event| event.starts_with('{'));
        let event = event.ok_or(NotAFrame("has no event"))?;
        Ok(ServerFrame::Event { id, first_seq, seq, cursor: self.text("cursor"), event })
    }
}

impl<'a> ServerFrame<'a> {
    /// Reads a message of text; `None` if it is of a type that is newer than this code.
    pub fn read(text: &'a str) -> Result<Option<Self>, NotAFrame> {
        let fields = Lenient(RawObject::read(text.as_bytes()).map_err(|_| NotAFrame("is no JSON object"))?);
        let kind = fields.text("type").ok_or(NotAFrame("has no type"))?;
        Ok(Some(match &*kind {
            "stream.wait" => ServerFrame::Wait {
                id: fields.id()?,
                position: fields.number("position"),
                expected_ms: fields.number("expected_ms"),
            },
            "stream.open" => {
                ServerFrame::Open { id: fields.id()?, stream: fields.text("stream"), headers: fields.headers() }
            }
            "stream.event" => fields.event()?,
            "stream.recovered" => ServerFrame::Recovered {
                id: fields.id()?,
                seq: fields.seq()?,
                how: fields.text("how").and_then(|how| meaning(Recover::WORDS, &how)).unwrap_or_default(),
                segment: fields.number("segment").unwrap_or_default(),
            },
            "stream.end" => {
                let reason = fields.text("reason").and_then(|reason| meaning(&REASONS, &reason));
                let reason = reason.ok_or(NotAFrame("ends a stream for a reason that is none"))?;
                ServerFrame::End { id: fields.id()?, seq: fields.seq()?, reason }
            }
            "stream.error" => ServerFrame::Error(Box::new(Failed {
                id: fields.text("id"),
                status: fields.number("status").and_then(|s| u16::try_from(s).ok()).unwrap_or(500),
                error: RawObject::read(text.as_bytes())
                    .ok()
                    .and_then(|outer| ErrorBody::inside(&outer))
                    .ok_or(NotAFrame("is an error that says nothing"))?,
                request_id: fields.text("request_id"),
                retry_after_s: fields.number("retry_after_s"),
                should_retry: fields.0.parse("should_retry"),
                cursor: fields.text("cursor"),
            })),
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorType;
    use proptest::prelude::*;

    fn written(frame: &ServerFrame<'_>) -> String {
        let mut out = Vec::new();
        frame.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn frames_look_as_they_are_drawn() {
        let wait = ServerFrame::Wait { id: "a1".into(), position: Some(12), expected_ms: None };
        assert_eq!(written(&wait), r#"{"type":"stream.wait","id":"a1","position":12,"expected_ms":null}"#);
        let open = ServerFrame::Open {
            id: "a1".into(),
            stream: Some("str_1".into()),
            headers: vec![("request-id".into(), "req_1".into()), ("anthropic-version".into(), "x".into())],
        };
        assert_eq!(
            written(&open),
            r#"{"type":"stream.open","id":"a1","stream":"str_1","headers":{"anthropic-version":"x","request-id":"req_1"}}"#
        );
        let failed = Failed {
            id: Some("a1".into()),
            status: 529,
            error: ErrorBody::new(ErrorType::Overloaded, "queue_full", "full"),
            request_id: Some("req_1".into()),
            retry_after_s: Some(3),
            should_retry: Some(true),
            cursor: None,
        };
        assert_eq!(
            written(&ServerFrame::Error(Box::new(failed))),
            r#"{"type":"stream.error","id":"a1","status":529,"error":{"type":"overloaded_error","message":"full","details":{"error_code":"queue_full"}},"request_id":"req_1","retry_after_s":3,"should_retry":true}"#
        );
    }

    #[test]
    fn newer_frames_and_members_are_passed_over() {
        assert_eq!(ServerFrame::read(r#"{"type":"stream.new","x":1}"#), Ok(None));
        let end = ServerFrame::End { id: "a".into(), seq: 4, reason: EndReason::Stop };
        let text = r#"{"new":[],"type":"stream.end","id":"a","seq":4,"reason":"stop"}"#;
        assert_eq!(ServerFrame::read(text), Ok(Some(end)));
    }

    #[test]
    fn what_cannot_be_a_frame_is_refused() {
        let check = |text: &str| ServerFrame::read(text).unwrap_err().0;
        assert_eq!(check("[]"), "is no JSON object");
        assert_eq!(check("{}"), "has no type");
        assert_eq!(check(r#"{"type":"stream.end","id":"a","reason":"stop"}"#), "has no seq");
        let why = r#"{"type":"stream.end","id":"a","seq":1,"reason":"why"}"#;
        assert_eq!(check(why), "ends a stream for a reason that is none");
        for (members, why) in [
            (r#""first_seq":5,"seq":4,"event":{}"#, "has numbers in the wrong order"),
            (r#""first_seq":0,"seq":4,"event":{}"#, "has numbers in the wrong order"),
            (r#""first_seq":4,"event":{}"#, "has no seq"),
            (r#""seq":4,"event":"{}""#, "has no event"),
        ] {
            assert_eq!(check(&format!(r#"{{"type":"stream.event","id":"a",{members}}}"#)), why, "{members}");
        }
        assert_eq!(check(r#"{"type":"stream.error","id":null,"error":"x"}"#), "is an error that says nothing");
    }

    fn text() -> impl Strategy<Value = Cow<'static, str>> {
        "[a-z\"\\\\\u{1}é😀]{0,6}".prop_map(Cow::Owned)
    }

    fn frame() -> impl Strategy<Value = ServerFrame<'static>> {
        let maybe = || prop::option::of(text());
        let numbers = || (1u64..1 << 50, 0u64..1 << 50);
        let number = || prop::option::of(0u64..1 << 50);
        let headers = prop::collection::btree_map(text(), text(), 0..3).prop_map(|lines| lines.into_iter().collect());
        let how = prop::sample::select(vec![Recover::Restart, Recover::Continue]);
        let reason = prop::sample::select(vec![EndReason::Stop, EndReason::Cancelled]);
        let event = prop::sample::select(vec!["{}", "{ \"a\" : [1.0,\n{}] }"]);
        let failed = (maybe(), 400u16..600, text(), maybe(), number(), any::<Option<bool>>(), maybe()).prop_map(
            |(id, status, message, request_id, retry_after_s, should_retry, cursor)| {
                let error = ErrorBody::new(ErrorType::Api, "code", message.into_owned());
                let failed = Failed { id, status, error, request_id, retry_after_s, should_retry, cursor };
                ServerFrame::Error(Box::new(failed))
            },
        );
        let events = (text(), numbers(), maybe(), event).prop_map(|(id, (first_seq, more), cursor, event)| {
            ServerFrame::Event { id, first_seq, seq: first_seq + more, cursor, event }
        });
        prop_oneof![
            (text(), number(), number()).prop_map(|(id, position, expected_ms)| ServerFrame::Wait {
                id,
                position,
                expected_ms
            }),
            (text(), maybe(), headers).prop_map(|(id, stream, headers)| ServerFrame::Open { id, stream, headers }),
            events,
            (text(), numbers(), how).prop_map(|(id, (seq, segment), how)| ServerFrame::Recovered {
                id,
                seq,
                how,
                segment
            }),
            (text(), 0u64..9, reason).prop_map(|(id, seq, reason)| ServerFrame::End { id, seq, reason }),
            failed,
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(frame in frame()) {
            let text = written(&frame);
            prop_assert_eq!(ServerFrame::read(&text), Ok(Some(frame)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[{}\\[\\]\":,a-z0-9 .]{0,40}") {
            let _ = ServerFrame::read(&text);
        }
    }
}
