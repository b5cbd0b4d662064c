//! What a client says: read strictly, and written by a Tidegate that is one.

use super::Members;
use crate::dialect::BadFrame;
use crate::dialect::credit::CREDIT_BYTES_MAX;
use crate::dialect::strict::Strict;
use crate::dialect::words::{Recover, Resume};
use std::borrow::Cow;

/// The most entries of `betas`, and the most bytes of one.
const BETAS_MAX: usize = 64;
const BETA_BYTES_MAX: usize = 128;
/// The longest deadline: a day.
const DEADLINE_MS_MAX: u64 = 86_400_000;
/// JSON's numbers are whole up to here in every language.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// A frame of a client. An `id` is the client's name for a stream on this socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame<'a> {
    /// Begin a stream.
    Create(Box<Create<'a>>),
    /// End one.
    Cancel {
        /// Which.
        id: Box<str>,
    },
    /// Go on with one, after a cursor or from its beginning.
    Resume {
        /// Its name from now on.
        id: Box<str>,
        /// Tidegate's name for it.
        stream: Cow<'a, str>,
        /// The last cursor the client has.
        after: Option<Cow<'a, str>>,
        /// What it may send at first, bytes.
        credit: Option<u64>,
    },
    /// It may send more.
    Credit {
        /// Which.
        id: Box<str>,
        /// So much more.
        bytes: u64,
    },
}

/// A request, with what HTTP says in headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Create<'a> {
    /// The client's name for the stream.
    pub id: Box<str>,
    /// The body of `POST /v1/messages`, as it came.
    pub request: &'a str,
    /// `anthropic-version`.
    pub version: Option<Cow<'a, str>>,
    /// `anthropic-beta`.
    pub betas: Vec<Cow<'a, str>>,
    /// `tidegate-conversation`.
    pub conversation: Option<Cow<'a, str>>,
    /// `tidegate-turn`.
    pub turn: Option<u64>,
    /// `tidegate-resume`.
    pub resume: Resume,
    /// `tidegate-recover`.
    pub recover: Recover,
    /// `tidegate-priority`.
    pub priority: Option<Cow<'a, str>>,
    /// `tidegate-deadline-ms`.
    pub deadline_ms: Option<u64>,
    /// What the stream may send at first, bytes.
    pub credit: Option<u64>,
}

impl<'a> ClientFrame<'a> {
    /// Reads a message of text.
    pub fn read(text: &'a str) -> Result<Self, BadFrame> {
        let mut fields = Strict::read(text)?;
        let kind = fields.required("type")?;
        let frame = match &*kind {
            "message.create" => ClientFrame::Create(Box::new(Create {
                id: fields.id()?,
                request: fields.object("request")?,
                version: fields.text("version")?,
                betas: fields.texts("betas", BETAS_MAX, BETA_BYTES_MAX)?,
                conversation: fields.text("conversation")?,
                turn: fields.number("turn", NUMBER_MAX)?,
                resume: fields.word("resume", Resume::WORDS)?,
                recover: fields.word("recover", Recover::WORDS)?,
                priority: fields.text("priority")?,
                deadline_ms: fields.number("deadline_ms", DEADLINE_MS_MAX)?,
                credit: fields.number("credit", CREDIT_BYTES_MAX)?,
            })),
            "stream.cancel" => ClientFrame::Cancel { id: fields.id()? },
            "stream.resume" => ClientFrame::Resume {
                id: fields.id()?,
                stream: fields.required("stream")?,
                after: fields.text("after")?,
                credit: fields.number("credit", CREDIT_BYTES_MAX)?,
            },
            "stream.credit" => {
                let (id, bytes) = (fields.id()?, fields.number("bytes", CREDIT_BYTES_MAX)?);
                let bytes = bytes.ok_or_else(|| fields.wrong("bytes", "Field required"))?;
                ClientFrame::Credit { id, bytes }
            }
            _ => {
                let known = "Input should be message.create, stream.cancel, stream.resume or stream.credit";
                return Err(fields.wrong("type", known));
            }
        };
        fields.end()?;
        Ok(frame)
    }

    /// Writes it, the text of a message.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            ClientFrame::Create(create) => create.write(out),
            ClientFrame::Cancel { id } => Members::of(out, "stream.cancel").value("id", id).end(),
            ClientFrame::Resume { id, stream, after, credit } => Members::of(out, "stream.resume")
                .value("id", id)
                .value("stream", stream)
                .some("after", after.as_ref())
                .some("credit", *credit)
                .end(),
            ClientFrame::Credit { id, bytes } => {
                Members::of(out, "stream.credit").value("id", id).value("bytes", bytes).end();
            }
        }
    }
}

impl Create<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let mut members = Members::of(out, "message.create");
        members.value("id", &self.id).some("version", self.version.as_ref());
        members.some("betas", (!self.betas.is_empty()).then_some(&self.betas));
        members.some("conversation", self.conversation.as_ref()).some("turn", self.turn);
        members.some("resume", (self.resume != Resume::default()).then(|| self.resume.word()));
        members.some("recover", (self.recover != Recover::default()).then(|| self.recover.word()));
        members.some("priority", self.priority.as_ref()).some("deadline_ms", self.deadline_ms);
        members.some("credit", self.credit).raw("request", self.request).end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrong(text: &str) -> (Option<String>, String) {
        let bad = ClientFrame::read(text).unwrap_err();
        (bad.id.map(String::from), bad.text)
    }

    #[test]
    fn a_request_stays_the_bytes_it_is() {
        let text = r#"{"type":"message.create","id":"a.1","request":{ "model":"m", "x": 1.50 },"resume":"memory","credit":0}"#;
        let ClientFrame::Create(create) = ClientFrame::read(text).unwrap() else { panic!("another frame") };
        assert_eq!((&*create.id, create.request), ("a.1", r#"{ "model":"m", "x": 1.50 }"#));
        assert_eq!((create.resume, create.recover, create.credit), (Resume::Memory, Recover::Never, Some(0)));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_its_stream() {
        let about = |text: &str| wrong(text).1;
        assert!(about("{").starts_with("the message is no JSON object: EOF"));
        assert!(about("[]").starts_with("the message is no JSON object"));
        assert_eq!(wrong(r#"{"id":"a"}"#), (Some("a".into()), "type: Field required".into()));
        assert!(about(r#"{"type":"stream.stop","id":"a"}"#).starts_with("type: Input should be message.create"));
        let credits = r#"{"type":"message.create","id":"a","request":{},"credits":1}"#;
        assert_eq!(wrong(credits), (Some("a".into()), "credits: Extra inputs are not permitted".into()));
        let twice = r#"{"type":"stream.cancel","id":"a","id":"b"}"#;
        assert_eq!(about(twice), "id: Field is there twice");
        assert_eq!(about(r#"{"type":"stream.cancel"}"#), "id: Field required");
        assert!(about(r#"{"type":"stream.cancel","id":"a b"}"#).starts_with("id: Input should be 1 to 64"));
        assert_eq!(about(r#"{"type":"message.create","id":"a","request":"{}"}"#), "request: Input should be an object");
        assert_eq!(about(r#"{"type":"stream.credit","id":"a","bytes":null}"#), "bytes: Field required");
        for number in ["-1", "1.0", "1e3", "\"1\"", "1073741825"] {
            let text = format!(r#"{{"type":"stream.credit","id":"a","bytes":{number}}}"#);
            assert_eq!(about(&text), "bytes: Input should be a whole number from 0 to 1073741824", "{number}");
        }
        let text = r#"{"type":"message.create","id":"a","request":{},"recover":"always"}"#;
        assert_eq!(about(text), r#"recover: Input should be one of "never", "restart", "continue""#);
        let betas = |list: &str| about(&format!(r#"{{"type":"message.create","id":"a","request":{{}},"betas":{list}}}"#));
        for list in ["{}", "[1]", "\"x\"", &format!("[{}\"\"]", "\"\",".repeat(64))] {
            assert!(betas(list).starts_with("betas: Input should be a list of at most 64 strings"), "{list}");
        }
    }

    fn text() -> impl Strategy<Value = Cow<'static, str>> {
        "[a-z\"\\\\\u{1}é😀]{0,6}".prop_map(Cow::Owned)
    }

    fn frame() -> impl Strategy<Value = ClientFrame<'static>> {
        let id = || "[A-Za-z0-9._:-]{1,64}".prop_map(String::into_boxed_str);
        let credit = || prop::option::of(0..=CREDIT_BYTES_MAX);
        let resume = prop::sample::select(vec![Resume::Off, Resume::Memory, Resume::Durable]);
        let recover = prop::sample::select(vec![Recover::Never, Recover::Restart, Recover::Continue]);
        let request = prop::sample::select(vec!["{}", "{ \"a\" : [1.0,\n{}] }"]);
        let numbers = (prop::option::of(0..NUMBER_MAX), prop::option::of(0..DEADLINE_MS_MAX), credit());
        let texts = (prop::option::of(text()), prop::option::of(text()), prop::option::of(text()));
        let create = (id(), request, prop::collection::vec(text(), 0..3), resume, recover, numbers, texts).prop_map(
            |(id, request, betas, resume, recover, (turn, deadline_ms, credit), (version, conversation, priority))| {
                let create = Create { id, request, version, betas, conversation, turn, resume, recover, priority, deadline_ms, credit };
                ClientFrame::Create(Box::new(create))
            },
        );
        prop_oneof![
            create,
            id().prop_map(|id| ClientFrame::Cancel { id }),
            (id(), text(), prop::option::of(text()), credit())
                .prop_map(|(id, stream, after, credit)| ClientFrame::Resume { id, stream, after, credit }),
            (id(), 0..=CREDIT_BYTES_MAX).prop_map(|(id, bytes)| ClientFrame::Credit { id, bytes }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(frame in frame()) {
            let mut out = Vec::new();
            frame.write(&mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(ClientFrame::read(&text), Ok(frame));
        }

        #[test]
        fn a_field_more_is_an_error_that_names_it(frame in frame(), key in "[a-z]{2,8}") {
            let mut out = Vec::new();
            frame.write(&mut out);
            let text = String::from_utf8(out).unwrap();
            let text = text.replacen('{', &format!("{{\"{key}_\":1,"), 1);
            let place = format!("{key}_: Extra inputs are not permitted");
            prop_assert_eq!(ClientFrame::read(&text).unwrap_err().text, place);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[{}\\[\\]\":,a-z0-9 .]{0,40}") {
            let _ = ClientFrame::read(&text);
        }
    }
}
