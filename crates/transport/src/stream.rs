//! One request and its answer, whichever version of HTTP carries it.
//!
//! Over HTTP/1.1 the stream is the connection, and requests come one after another; over HTTP/2 it
//! is one of many and carries one request; a third kind came over neither and is handed over whole
//! ([`local`]). Everyone above speaks to this type; a call is a `match`,
//! nothing is boxed and nothing dispatched through a table. See [`http1::ServerConn`] for what each
//! question means.

use crate::clock::Clock;
use crate::http1::{self, HeadEnd};
use crate::http2;
use crate::local;
use bytes::{Bytes, BytesMut};
use std::io;
use std::task::{Context, Poll};
use tidegate_base::ByteLease;
use tidegate_wire::http::{HeadWriter, RequestHead};

/// The server's side of a request.
pub enum ServerStream {
    /// A connection of HTTP/1.1.
    Http1(http1::ServerConn),
    /// A stream of HTTP/2.
    Http2(Box<http2::ServerStream>),
    /// A request without a connection.
    Local(Box<local::ServerStream>),
}

/// The same question to either.
macro_rules! either {
    ($stream:expr, $of:ident => $ask:expr) => {
        match $stream {
            ServerStream::Http1($of) => $ask,
            ServerStream::Http2($of) => $ask,
            ServerStream::Local($of) => $ask,
        }
    };
}

impl ServerStream {
    /// Waits for a (further) request; false if there will be none.
    pub async fn wait_byte(&mut self) -> io::Result<bool> {
        match self {
            ServerStream::Http1(conn) => conn.wait_byte().await,
            ServerStream::Http2(stream) => Ok(stream.has_head()),
            ServerStream::Local(_) => Ok(false),
        }
    }

    /// Reads a request's head and prepares for its body.
    pub async fn read_head(&mut self) -> Result<RequestHead, HeadEnd> {
        match self {
            ServerStream::Http1(conn) => conn.read_head().await,
            ServerStream::Http2(stream) => stream.read_head(),
            ServerStream::Local(_) => Err(HeadEnd::Closed),
        }
    }

    /// Tells a client that waits for it to send its body. Nobody waits in HTTP/2: there an upload
    /// can be refused without ending the connection.
    pub async fn send_continue(&mut self) -> io::Result<()> {
        match self {
            ServerStream::Http1(conn) => conn.send_continue().await,
            ServerStream::Http2(_) | ServerStream::Local(_) => Ok(()),
        }
    }

    /// Appends the next piece of the body to `into`: its length, or 0 once the body has ended.
    pub async fn read_body(&mut self, into: &mut BytesMut) -> Result<usize, HeadEnd> {
        match self {
            ServerStream::Http1(conn) => conn.read_body(into).await,
            ServerStream::Http2(stream) => stream.read_body(into).await,
            // It is there whole: see [`ServerStream::take_body`].
            ServerStream::Local(_) => Ok(0),
        }
    }

    /// A body that needs no reading, and the right to hold it.
    pub fn take_body(&mut self) -> Option<(Bytes, ByteLease)> {
        match self {
            ServerStream::Http1(_) | ServerStream::Http2(_) => None,
            ServerStream::Local(stream) => stream.take_body(),
        }
    }

    /// Whether the request's body has been read to its end.
    pub fn body_read(&self) -> bool {
        either!(self, s => s.body_read())
    }

    /// Ready once the client has left.
    pub fn poll_departed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        either!(self, s => s.poll_departed(cx))
    }

    /// Begins an answer whose body is `length` bytes, or of unknown length if `None`. `close` tells
    /// a client of HTTP/1.1 that the connection ends with it.
    pub fn respond(&mut self, status: u16, length: Option<u64>, close: bool, lines: impl FnOnce(&mut HeadWriter<'_>)) {
        match self {
            ServerStream::Http1(conn) => conn.respond(status, length, close, lines),
            ServerStream::Http2(stream) => stream.respond(status, length, lines),
            ServerStream::Local(stream) => stream.respond(status, length, lines),
        }
    }

    /// Appends a piece of the answer's body.
    pub fn push(&mut self, data: &[u8]) {
        either!(self, s => s.push(data));
    }

    /// Puts bytes out as they are, without HTTP/1.1's framing: what a fault script wants.
    pub fn push_raw(&mut self, bytes: &[u8]) {
        match self {
            ServerStream::Http1(conn) => conn.push_raw(bytes),
            ServerStream::Http2(stream) => stream.push(bytes),
            ServerStream::Local(stream) => stream.push(bytes),
        }
    }

    /// Ends the answer's body. False if only closing the connection tells the client so.
    pub fn end(&mut self) -> bool {
        match self {
            ServerStream::Http1(conn) => conn.end(),
            ServerStream::Http2(stream) => {
                stream.end();
                true
            }
            ServerStream::Local(stream) => {
                stream.end();
                true
            }
        }
    }

    /// Whether closing before the body's end tells the client that it is not whole. If not, only breaking
    /// it off does, which can take along what is still on its way.
    pub fn close_breaks_off(&self) -> bool {
        match self {
            ServerStream::Http1(conn) => conn.close_breaks_off(),
            ServerStream::Http2(_) | ServerStream::Local(_) => false,
        }
    }

    /// Whether it has no connection. Whoever reads it has a line, and a heartbeat, of his own.
    pub fn is_local(&self) -> bool {
        matches!(self, ServerStream::Local(_))
    }

    /// Bytes that wait to be taken by the transport or the client's window.
    pub fn unwritten(&self) -> usize {
        match self {
            ServerStream::Http1(conn) => conn.unwritten(),
            ServerStream::Http2(stream) => stream.unwritten(),
            ServerStream::Local(_) => 0,
        }
    }

    /// Bytes taken so far; standing still means the client does not read.
    pub fn taken(&self) -> u64 {
        either!(self, s => s.taken())
    }

    /// Writes what is there to be written; ready when all of it is.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            ServerStream::Http1(conn) => conn.poll_flush(cx),
            ServerStream::Http2(stream) => stream.poll_flush(cx),
            ServerStream::Local(stream) => Poll::Ready(stream.flush()),
        }
    }

    /// Writes all there is to be written.
    pub async fn flush(&mut self) -> io::Result<()> {
        match self {
            ServerStream::Http1(conn) => conn.flush().await,
            ServerStream::Http2(stream) => stream.flush().await,
            ServerStream::Local(stream) => stream.flush(),
        }
    }

    /// Ends the stream, and the connection with it if it is HTTP/1.1's, so that the client can
    /// still read what was written.
    pub async fn close(self, clock: Clock) {
        match self {
            ServerStream::Http1(conn) => conn.close(clock).await,
            ServerStream::Http2(stream) => stream.close(clock).await,
            ServerStream::Local(_) => {}
        }
    }

    /// Breaks it off: a reset of the connection, or of the stream alone.
    pub fn abort(self) {
        match self {
            ServerStream::Http1(conn) => conn.abort(),
            ServerStream::Http2(stream) => stream.abort(),
            ServerStream::Local(_) => {}
        }
    }
}
