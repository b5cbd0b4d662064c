//! What can go wrong with a server, in the words of both HTTP versions.

use std::fmt;
use std::io;
use tidegate_wire::http::{BodyError, HeadError};

/// What went wrong with the peer.
#[derive(Debug)]
pub enum ClientError {
    /// The transport failed.
    Io(io::Error),
    /// It closed before the answer's head was whole. `any` says whether a byte of it had come.
    ClosedEarly {
        /// Whether part of an answer was read.
        any: bool,
    },
    /// It answered plain HTTP in TLS.
    SpeaksTls,
    /// Its head is not HTTP/1.1.
    Head(HeadError),
    /// Its body is not what its framing says, or was cut.
    Body(BodyError),
    /// HTTP/2 and WebSockets: it certainly did nothing with the request, which may go out again at
    /// once.
    Unsent,
    /// HTTP/2: the stream or its connection ended with this code, sent or detected.
    Reset(h2::Reason),
    /// The request cannot be written as a head of HTTP/2: its method or target is none.
    Unwritable,
    /// A WebSocket ended and took its streams along, or ended this one.
    Socket(SocketEnd),
}

/// How a WebSocket, or one stream of it, ended before its answer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketEnd {
    /// The peer closed it, with this code if it gave one.
    Closed(Option<u16>),
    /// The connection ended without a close, or broke.
    Cut,
    /// The peer gave no sign of life.
    Dead,
    /// The peer broke the protocol: what it did.
    Broken(&'static str),
}

impl fmt::Display for SocketEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketEnd::Closed(Some(code)) => write!(f, "the WebSocket was closed with {code}"),
            SocketEnd::Closed(None) => f.write_str("the WebSocket was closed"),
            SocketEnd::Cut => f.write_str("the WebSocket was cut"),
            SocketEnd::Dead => f.write_str("the WebSocket gave no sign of life"),
            SocketEnd::Broken(what) => write!(f, "the upstream's WebSocket is broken: it {what}"),
        }
    }
}

impl ClientError {
    /// The clock that ran out, if one did, by its name in metrics.
    pub fn clock(&self) -> Option<&'static str> {
        matches!(self, ClientError::Socket(SocketEnd::Dead)).then_some("socket_pong")
    }

    /// What a failure of the `h2` crate means to one stream. `begun` says that the answer's head
    /// has come, so that nobody may take the request for one that never arrived.
    pub(crate) fn of_http2(error: h2::Error, begun: bool) -> Self {
        let reason = error.reason();
        let refused = error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
        // A stream that dies by the peer's GOAWAY is above the last one it will look at (RFC 9113
        // section 6.8); the others go on.
        let above_last = error.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
        if !begun && error.is_remote() && (refused || above_last) {
            return ClientError::Unsent;
        }
        match reason {
            Some(reason) => ClientError::Reset(reason),
            None => ClientError::Io(error.into_io().unwrap_or_else(|| io::ErrorKind::InvalidInput.into())),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Io(e) => write!(f, "{e}"),
            ClientError::ClosedEarly { any: false } => f.write_str("the connection closed before any answer"),
            ClientError::ClosedEarly { any: true } => f.write_str("the connection closed inside the answer's head"),
            ClientError::SpeaksTls => {
                f.write_str("it speaks TLS: write https:// instead of http://, or wss:// instead of ws://")
            }
            ClientError::Head(_) => f.write_str("the answer's head is not valid HTTP"),
            ClientError::Body(e) => write!(f, "{e}"),
            ClientError::Unsent => f.write_str("the request was not taken up"),
            ClientError::Reset(reason) => write!(f, "HTTP/2 ended the stream: {}", reason.description()),
            ClientError::Socket(end) => write!(f, "{end}"),
            ClientError::Unwritable => f.write_str("the request's method or target cannot be written in HTTP/2"),
        }
    }
}

impl std::error::Error for ClientError {}

/// How sending ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendEnd {
    /// Everything was sent.
    Whole,
    /// The peer began to answer before it had everything (a 413, say); read its head.
    AnsweredEarly,
}
