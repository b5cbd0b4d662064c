//! How a request can fail, in the words of the report.

use crate::names;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidegate_transport::http1::ClientError;
use tidegate_wire::http::BodyError;

/// Why one request did not get its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Name, TCP or TLS, its clock included.
    Connect,
    /// The request's clock.
    Timeout,
    /// The connection was lost before the answer began, or was reset.
    Reset,
    /// A status other than 200, with the error's type if the body told one.
    Http { status: u16, kind: String },
    /// An `error` event inside a stream.
    Stream { kind: String },
    /// The body ended before its end, or a stream without `message_stop`.
    Truncated,
    /// Not HTTP, not an event stream, or not JSON.
    Malformed,
}

impl Failure {
    /// What a broken connection means for the request.
    pub(crate) fn of(error: &ClientError) -> Failure {
        match error {
            ClientError::Io(_)
            | ClientError::ClosedEarly { .. }
            | ClientError::Reset(_)
            | ClientError::Socket(_)
            | ClientError::Unsent => Failure::Reset,
            ClientError::Body(BodyError::Cut) => Failure::Truncated,
            ClientError::Head(_)
            | ClientError::SpeaksTls
            | ClientError::Unwritable
            | ClientError::Body(BodyError::Chunk | BodyError::TooLarge) => Failure::Malformed,
        }
    }
}

/// Failed requests by kind; each is counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// The name, the TCP connection or the TLS handshake failed or took too long.
    pub connect: u64,
    /// The request's clock ran out.
    pub timeout: u64,
    /// The connection was closed before the answer's head was whole, or was reset at any time.
    pub reset: u64,
    /// The body ended early, or a stream ended without `message_stop`.
    pub truncated: u64,
    /// What came was not HTTP, not an event stream, or not the JSON it should be.
    pub malformed: u64,
    /// Statuses other than 200, as `529 overloaded_error`; the type is `-` if the body had none.
    pub http: BTreeMap<String, u64>,
    /// `error` events inside streams, by type.
    pub stream: BTreeMap<String, u64>,
}

impl Errors {
    pub(crate) fn count(&mut self, failure: &Failure) {
        match failure {
            Failure::Connect => self.connect += 1,
            Failure::Timeout => self.timeout += 1,
            Failure::Reset => self.reset += 1,
            Failure::Truncated => self.truncated += 1,
            Failure::Malformed => self.malformed += 1,
            Failure::Http { status, kind } => {
                names::count(&mut self.http, &format!("{status} {}", names::harmless(kind)), 1);
            }
            Failure::Stream { kind } => names::count(&mut self.stream, &names::harmless(kind), 1),
        }
    }

    pub(crate) fn add(&mut self, more: &Errors) {
        self.connect += more.connect;
        self.timeout += more.timeout;
        self.reset += more.reset;
        self.truncated += more.truncated;
        self.malformed += more.malformed;
        names::add(&mut self.http, &more.http);
        names::add(&mut self.stream, &more.stream);
    }

    /// Every kind with its count, those that happened only.
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        let plain = [
            ("connect", self.connect),
            ("timeout", self.timeout),
            ("reset", self.reset),
            ("truncated", self.truncated),
            ("malformed", self.malformed),
        ];
        let plain = plain.into_iter().map(|(name, n)| (name.to_owned(), n));
        let http = self.http.iter().map(|(name, n)| (format!("http {name}"), *n));
        let stream = self.stream.iter().map(|(name, n)| (format!("stream {name}"), *n));
        plain.chain(http).chain(stream).filter(|(_, n)| *n > 0).collect()
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "connect": self.connect,
            "timeout": self.timeout,
            "reset": self.reset,
            "truncated": self.truncated,
            "malformed": self.malformed,
            "http": self.http,
            "stream": self.stream,
        })
    }
}
