//! What a client says: read strictly, and written by a Tidegate that is one.

use super::lines::{self, BadLine, Lines};
use crate::dialect::BadFrame;
use crate::dialect::credit::CREDIT_BYTES_MAX;
use crate::dialect::members::Members;
use crate::dialect::strict::Strict;
use crate::http::Headers;
use std::borrow::Cow;

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
    /// What the stream may send at first, bytes.
    pub credit: Option<u64>,
    lines: Lines<'a>,
}

impl<'a> Create<'a> {
    /// A frame for a request that came over HTTP: the header lines that have a place in it go along,
    /// the others are that connection's own. `request` is an object in UTF-8.
    pub fn of_http(id: &str, request: &'a str, headers: &'a Headers) -> Result<Self, BadLine> {
        Ok(Create { id: id.into(), request, credit: None, lines: lines::of_headers(headers)? })
    }

    /// The header lines that say the same over HTTP.
    pub fn headers(&self) -> Headers {
        Headers::from_pairs(self.lines.iter().map(|(name, value)| (*name, value.as_bytes())))
    }
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
                credit: fields.number("credit", CREDIT_BYTES_MAX)?,
                lines: lines::read(&mut fields)?,
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
            ClientFrame::Create(create) => {
                let mut members = Members::of(out, "message.create");
                members.value("id", &create.id);
                lines::write(&create.lines, &mut members);
                members.some("credit", create.credit).raw("request", create.request).end();
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tidegate_v1::NUMBER_MAX;
    use proptest::prelude::*;

    fn wrong(text: &str) -> (Option<String>, String) {
        let bad = ClientFrame::read(text).unwrap_err();
        (bad.id.map(String::from), bad.text)
    }

    #[test]
    fn a_request_stays_the_bytes_it_is() {
        let text =
            r#"{"type":"message.create","id":"a.1","request":{ "model":"m", "x": 1.50 },"resume":"memory","credit":0}"#;
        let ClientFrame::Create(create) = ClientFrame::read(text).unwrap() else { panic!("another frame") };
        assert_eq!((&*create.id, create.request), ("a.1", r#"{ "model":"m", "x": 1.50 }"#));
        assert_eq!((create.headers().text("tidegate-resume"), create.credit), (Some("memory"), Some(0)));
        assert_eq!(create.headers().len(), 1);
    }

    #[test]
    fn headers_and_members_say_the_same() {
        let headers = Headers::from_pairs([
            ("Anthropic-Version", "2023-06-01"),
            ("anthropic-beta", "a-1, b"),
            ("x-api-key", "secret"),
            ("anthropic-beta", "c"),
            ("tidegate-turn", "6"),
            ("tidegate-turn", "7"),
            ("tidegate-conversation", "Gespräch 1"),
            ("tidegate-deadline-ms", "60000"),
        ]);
        let frame = ClientFrame::Create(Box::new(Create::of_http("x", "{}", &headers).unwrap()));
        let mut out = Vec::new();
        frame.write(&mut out);
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            r#"{"type":"message.create","id":"x","version":"2023-06-01","betas":["a-1","b","c"],"conversation":"Gespräch 1","turn":7,"deadline_ms":60000,"request":{}}"#
        );
        let ClientFrame::Create(create) = ClientFrame::read(std::str::from_utf8(&out).unwrap()).unwrap() else {
            panic!("another frame")
        };
        assert_eq!(create.headers().text("anthropic-beta"), Some("a-1,b,c"));
        assert_eq!(create.headers().text("tidegate-deadline-ms"), Some("60000"));
        let refused =
            |name: &str, value: &[u8]| Create::of_http("x", "{}", &Headers::from_pairs([(name, value)])).unwrap_err().0;
        assert_eq!(refused("tidegate-turn", b"soon"), "tidegate-turn");
        assert_eq!(refused("tidegate-conversation", b"\xff"), "tidegate-conversation");
        assert_eq!(refused("anthropic-beta", b"a b"), "anthropic-beta");
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
        let create = |field: &str| about(&format!(r#"{{"type":"message.create","id":"a","request":{{}},{field}}}"#));
        for list in ["{}", "[1]", "\"x\"", "[\"a,b\"]", "[\"\"]", &format!("[{}\"a\"]", "\"a\",".repeat(64))] {
            let text = create(&format!("\"betas\":{list}"));
            assert!(text.starts_with("betas: Input should be a list of at most 64 words"), "{list}");
        }
        for value in ["\"\"", "\"a\\u0001b\"", "\" a\"", &format!("\"{}\"", "a".repeat(1025))] {
            let text = create(&format!("\"conversation\":{value}"));
            assert!(text.starts_with("conversation: Input should be 1 to 1024 bytes"), "{value}");
        }
        assert_eq!(create("\"turn\":\"1\""), "turn: Input should be a whole number from 0 to 9007199254740991");
    }

    fn text() -> impl Strategy<Value = Cow<'static, str>> {
        "[a-z\"\\\\\u{1}é😀]{0,6}".prop_map(Cow::Owned)
    }

    fn frame() -> impl Strategy<Value = ClientFrame<'static>> {
        let id = || "[A-Za-z0-9._:-]{1,64}".prop_map(String::into_boxed_str);
        let credit = || prop::option::of(0..=CREDIT_BYTES_MAX);
        let request = prop::sample::select(vec!["{}", "{ \"a\" : [1.0,\n{}] }"]);
        let line = prop_oneof![
            ("[a-zé😀\"\\\\]{1,6}").prop_map(|text| ("tidegate-conversation", Cow::Owned(text))),
            (0..=NUMBER_MAX).prop_map(|n| ("tidegate-turn", Cow::Owned(n.to_string()))),
        ];
        let lines = (
            prop::option::of(
                "[a-z0-9,-]{0,9}[a-z]".prop_filter("an empty entry", |t| !t.starts_with(',') && !t.contains(",,")),
            ),
            prop::option::of(line),
        );
        let create = (id(), request, credit(), lines).prop_map(|(id, request, credit, (betas, line))| {
            let betas = betas.map(|betas| ("anthropic-beta", Cow::Owned(betas)));
            ClientFrame::Create(Box::new(Create {
                id,
                request,
                credit,
                lines: betas.into_iter().chain(line).collect(),
            }))
        });
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
