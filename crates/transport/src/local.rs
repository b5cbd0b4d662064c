//! A request that came over no connection of its own: one of many on a WebSocket, or one whose
//! answer may outlive its client.
//!
//! Whoever has the request hands it over whole, and takes the answer through an [`Outlet`] as it is
//! made. To the path it is a connection like any other, whose client never makes it wait: who reads
//! how slowly is the outlet's business.

use bytes::{Bytes, BytesMut};
use std::io;
use std::task::{Context, Poll};
use tidegate_base::ByteLease;
use tidegate_wire::http::{HeadWriter, ResponseHead, parse_response};

/// Where an answer goes. Dropped when nothing more comes, whether or not it came to its end.
pub trait Outlet: Send {
    /// The answer's status and header lines; once.
    fn head(&mut self, head: ResponseHead);
    /// A piece of its body.
    fn body(&mut self, data: &[u8]);
    /// Its end.
    fn end(&mut self);
    /// Ready once nobody wants the answer any more.
    fn poll_departed(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Whether it can take nothing more.
    fn is_broken(&self) -> bool;
}

/// The server's side of such a request. Whoever made it has its head.
pub struct ServerStream {
    body: Option<(Bytes, ByteLease)>,
    outlet: Box<dyn Outlet>,
    taken: u64,
}

impl ServerStream {
    /// A request whose body is `body`, held under `lease`.
    pub fn new(body: Bytes, lease: ByteLease, outlet: Box<dyn Outlet>) -> Self {
        ServerStream { body: Some((body, lease)), outlet, taken: 0 }
    }

    /// The request's body and the right to hold it, once.
    pub fn take_body(&mut self) -> Option<(Bytes, ByteLease)> {
        self.body.take()
    }

    /// Whether the request's body has been taken.
    pub fn body_read(&self) -> bool {
        self.body.is_none()
    }

    /// Ready once nobody wants the answer any more.
    pub fn poll_departed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.outlet.poll_departed(cx)
    }

    /// Begins the answer.
    pub fn respond(&mut self, status: u16, length: Option<u64>, lines: impl FnOnce(&mut HeadWriter<'_>)) {
        let mut text = BytesMut::new();
        let mut head = HeadWriter::response(&mut text, status);
        lines(&mut head);
        if let Some(length) = length {
            head.number("content-length", length);
        }
        head.end();
        // What we wrote ourselves can be read.
        if let Ok(Some(head)) = parse_response(&mut text, false) {
            self.outlet.head(head);
        }
    }

    /// Appends a piece of the answer's body.
    pub fn push(&mut self, data: &[u8]) {
        self.taken += data.len() as u64;
        self.outlet.body(data);
    }

    /// Ends the answer's body.
    pub fn end(&mut self) {
        self.outlet.end();
    }

    /// Bytes taken so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Ready at once: nothing is waited for here.
    pub fn flush(&self) -> io::Result<()> {
        if self.outlet.is_broken() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}
